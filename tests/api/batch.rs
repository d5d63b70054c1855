//! `POST /v1/check/batch`: many checks in one call, each by itself or all together.

use serde_json::{Value, json};

use crate::support::{Node, Request, Setup, limit, log, node, patient, policy};

/// Ten at once for each tenant, and three permits.
const TEN: &str = r#"
default_tier = "free"
[tiers.free]
max_concurrent = 3
limits = [{ name = "burst", algorithm = "token_bucket", rate = "1/h", burst = 10 }]
"#;

fn batch(node: &Node, mode: &str, checks: Value) -> Value {
    let answer = node.post("/v1/check/batch", json!({"mode": mode, "checks": checks}));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn allowed(answer: &Value) -> Vec<bool> {
    let decisions = answer["decisions"].as_array().unwrap();
    decisions.iter().map(|decision| decision["allowed"] == true).collect()
}

#[test]
fn the_decisions_come_in_the_order_of_the_checks_whichever_shard_decides_them() {
    let node = Setup::policy(TEN).section("[limits]\nworkers = 4").start();
    let checks: Vec<_> =
        (0..200).map(|i| json!({"tenant": format!("t{}", i % 40), "cost": i % 5 + 1})).collect();
    let answer = batch(&node, "independent", json!(checks));
    let decisions = answer["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 200);
    for (check, decision) in checks.iter().zip(decisions) {
        assert_eq!((&decision["tenant"], &decision["cost"]), (&check["tenant"], &check["cost"]));
    }
}

#[test]
fn checks_of_one_tenant_are_decided_one_after_another_each_with_the_members_of_an_answer() {
    let node = node(TEN);
    let check = json!({"tenant": "acme", "cost": 4});
    let answer =
        batch(&node, "independent", json!([check, check, check, {"tenant": "acme", "cost": 2}]));
    assert_eq!(answer["allowed"], false);
    assert_eq!(allowed(&answer), [true, true, false, true]);
    let left: Vec<_> =
        answer["decisions"].as_array().unwrap().iter().map(|d| d["remaining"].clone()).collect();
    assert_eq!(left, [6, 2, 2, 0]);
    let names =
        |decision: &Value| decision.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let single = node.check(check);
    assert!(
        answer["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .all(|decision| names(decision) == names(&single))
    );
}

#[test]
fn independent_is_the_mode_of_a_batch_that_names_none() {
    let node = node(TEN);
    let check = json!({"tenant": "acme", "cost": 6});
    let answer = node.post("/v1/check/batch", json!({"checks": [check, check]}));
    assert_eq!(allowed(&answer.json()), [true, false]);
}

#[test]
fn a_batch_is_allowed_if_every_check_is() {
    let node = node(TEN);
    let answer = batch(&node, "independent", json!([{"tenant": "a"}, {"tenant": "b"}]));
    assert_eq!((&answer["allowed"], allowed(&answer)), (&json!(true), vec![true, true]));
}

#[test]
fn among_independent_checks_one_with_a_fault_has_its_error_in_its_place() {
    let node = node(TEN);
    let answer = batch(
        &node,
        "independent",
        json!([
            {"tenant": "a"}, {"tenant": "a", "cost": 0, "coost": 1}, {"tenant": "a", "tier": "gold"}, 5, {"tenant": "a"}
        ]),
    );
    assert_eq!(answer["allowed"], false);
    assert_eq!(allowed(&answer), [true, false, false, false, true]);
    let error = |i: usize| {
        let error = &answer["decisions"][i]["error"];
        let paths =
            error["errors"].as_array().unwrap().iter().map(|fault| fault["path"].as_str().unwrap());
        (error["status"].as_u64().unwrap(), paths.collect::<Vec<_>>())
    };
    assert_eq!(error(1), (400, vec!["checks[1].cost", "checks[1].coost"]));
    assert_eq!(error(2).0, 422);
    assert_eq!(error(3), (400, vec!["checks[3]"]));
    assert_eq!(answer["decisions"][4]["remaining"], 8);
}

#[test]
fn all_or_nothing_passes_together() {
    let node = node(TEN);
    let answer = batch(
        &node,
        "all_or_nothing",
        json!([{"tenant": "acme", "cost": 3}, {"tenant": "acme", "cost": 7}]),
    );
    assert_eq!((&answer["allowed"], allowed(&answer)), (&json!(true), vec![true, true]));
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 0);
}

#[test]
fn all_or_nothing_takes_nothing_if_one_check_is_denied_and_every_decision_names_the_limit() {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "all", algorithm = "sliding_log", limit = 100, window = "1h" },
  { name = "export", match = { action = "export" }, algorithm = "sliding_log", limit = 1, window = "1h" },
]
"#,
    );
    let export = json!({"tenant": "acme", "action": "export"});
    assert_eq!(node.check(export.clone())["allowed"], true);
    let answer = batch(
        &node,
        "all_or_nothing",
        json!([{"tenant": "acme"}, export, {"tenant": "acme", "cost": 5}]),
    );
    assert_eq!((&answer["allowed"], allowed(&answer)), (&json!(false), vec![false, false, false]));
    for decision in answer["decisions"].as_array().unwrap() {
        assert_eq!(
            decision["denied_by"],
            json!({"name": "export", "scope": ["tenant"], "reason": "rate"})
        );
        assert!(decision["retry_after_ms"].is_u64(), "{decision}");
    }
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 99);
}

#[test]
fn all_or_nothing_asks_a_bucket_for_the_sum_of_the_costs() {
    let node = node(TEN);
    let checks = json!([{"tenant": "acme", "cost": 6}, {"tenant": "acme", "cost": 5}]);
    let answer = batch(&node, "all_or_nothing", checks);
    assert_eq!(allowed(&answer), [false, false]);
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 10);
}

#[test]
fn all_or_nothing_holds_for_limits_that_tenants_share() {
    let node = Setup::policy(&policy(&[log("per-ip", r#"["ip"]"#, 3)], &[]))
        .section("[limits]\nworkers = 4")
        .start();
    let check = |ip: u8| patient(&json!({"tenant": "acme", "ip": format!("192.0.2.{ip}")}));
    // The third address has no units left, so nothing is taken from the first two either.
    assert_eq!(node.allowed_of(3, check(3)), 3);
    let answer = batch(&node, "all_or_nothing", json!([check(1), check(1), check(2), check(3)]));
    assert_eq!(allowed(&answer), [false; 4]);
    for (ip, left) in [(1, 3), (2, 3), (3, 0)] {
        assert_eq!(node.peek(check(ip))["remaining"], left, "{ip}");
    }
    assert_eq!(
        batch(&node, "all_or_nothing", json!([check(1), check(1), check(2)]))["allowed"],
        true
    );
    for (ip, left) in [(1, 1), (2, 2)] {
        assert_eq!(node.peek(check(ip))["remaining"], left, "{ip}");
    }
}

#[test]
fn each_check_of_a_batch_that_asks_for_a_permit_gets_its_own_or_all_get_none() {
    let node = node(TEN);
    let check = json!({"tenant": "acme", "permit": {}});
    let granted = batch(&node, "all_or_nothing", json!([check, check]));
    let ids: Vec<_> = granted["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["permit"]["id"].as_str().unwrap())
        .collect();
    assert_ne!(ids[0], ids[1]);
    let denied = batch(&node, "all_or_nothing", json!([check, check]));
    assert_eq!(denied["decisions"][0]["denied_by"]["reason"], "concurrency");
    assert_eq!(denied["decisions"][0]["permit"], json!(null));
    // One of the three is left.
    assert_eq!(allowed(&batch(&node, "independent", json!([check, check]))), [true, false]);
}

#[test]
fn a_fault_in_one_check_spoils_all_or_nothing() {
    let node = node(TEN);
    let post = |checks: Value| {
        node.post("/v1/check/batch", json!({"mode": "all_or_nothing", "checks": checks}))
    };
    assert_eq!(
        post(json!([{"tenant": "a"}, {"tenant": "a", "cost": 0}])).fault_paths(400),
        ["checks[1].cost"]
    );
    post(json!([{"tenant": "a"}, {"tenant": "a", "tier": "gold"}])).problem(422);
    assert_eq!(node.peek(json!({"tenant": "a"}))["remaining"], 10);
}

#[test]
fn a_check_that_can_not_be_decided_is_named_by_its_place_in_the_batch() {
    let node = node(TEN);
    let checks = json!([{"tenant": "a"}, {"tenant": "a", "tier": "gold"}]);
    let independent = batch(&node, "independent", checks.clone());
    assert_eq!(independent["decisions"][1]["error"]["errors"][0]["path"], "checks[1].tier");
    let together =
        node.post("/v1/check/batch", json!({"mode": "all_or_nothing", "checks": checks}));
    assert_eq!(together.fault_paths(422), ["checks[1].tier"]);
}

#[test]
fn two_tenants_are_refused_together() {
    let node = node(TEN);
    let checks = json!([{"tenant": "a"}, {"tenant": "b"}, {"tenant": "a"}]);
    let answer = node.post("/v1/check/batch", json!({"mode": "all_or_nothing", "checks": checks}));
    assert_eq!(answer.fault_paths(400), ["checks[1].tenant"]);
    assert_eq!(node.peek(json!({"tenant": "a"}))["remaining"], 10);
}

#[test]
fn a_list_denies_all_or_nothing_and_lets_its_own_pass() {
    let node = node(&format!(
        "{TEN}[access.banned]\nlist = \"deny\"\nclient = \"mallory\"\n\
         [access.friend]\nlist = \"allow\"\nclient = \"alice\"\n"
    ));
    let plain = json!({"tenant": "acme", "cost": 4});
    let banned =
        batch(&node, "all_or_nothing", json!([plain, {"tenant": "acme", "client": "mallory"}]));
    assert_eq!(allowed(&banned), [false, false]);
    assert_eq!(banned["decisions"][0]["denied_by"]["name"], "banned");
    let friendly = batch(
        &node,
        "all_or_nothing",
        json!([{"tenant": "acme", "client": "alice", "cost": 99}, plain]),
    );
    assert_eq!(allowed(&friendly), [true, true]);
    assert_eq!(friendly["decisions"][0]["bypass"]["list"], "friend");
    assert_eq!(limit(&friendly["decisions"][1], "burst")["remaining"], 6);
}

#[test]
fn a_thousand_checks_fit_and_a_thousand_and_one_are_413() {
    let node = node(TEN);
    let checks = |count: usize| {
        Value::Array((0..count).map(|i| json!({"tenant": format!("t{i}")})).collect())
    };
    for mode in ["independent", "all_or_nothing"] {
        node.post("/v1/check/batch", json!({"mode": mode, "checks": checks(1_001)})).problem(413);
    }
    let answer = batch(&node, "independent", checks(1_000));
    assert_eq!(
        (&answer["allowed"], answer["decisions"].as_array().unwrap().len()),
        (&json!(true), 1_000)
    );
}

#[test]
fn a_batch_that_is_none_is_400_with_the_path_of_each_fault() {
    let node = node(TEN);
    for (body, paths) in [
        (json!({}), vec!["checks"]),
        (json!({"checks": []}), vec!["checks"]),
        (json!({"checks": {}}), vec!["checks"]),
        (json!({"checks": [{"tenant": "a"}], "mode": "some"}), vec!["mode"]),
        (json!({"checks": [{"tenant": "a"}], "check": 1}), vec!["check"]),
    ] {
        assert_eq!(node.post("/v1/check/batch", body.clone()).fault_paths(400), paths, "{body}");
    }
    node.send(&Request::new("POST", "/v1/check/batch").body("")).problem(400);
}

#[test]
fn a_request_id_in_a_batch_is_charged_once() {
    let node = node(TEN);
    let check = json!({"tenant": "acme", "cost": 3, "request_id": "r-1"});
    let first = batch(&node, "independent", json!([check, check]));
    let replayed: Vec<_> =
        first["decisions"].as_array().unwrap().iter().map(|d| d["replayed"].clone()).collect();
    assert_eq!(replayed, [false, true]);
    let second = batch(&node, "all_or_nothing", json!([check, {"tenant": "acme", "cost": 2}]));
    assert_eq!(second["decisions"][0]["replayed"], true);
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 5);
    let twice =
        node.post("/v1/check/batch", json!({"mode": "all_or_nothing", "checks": [check, check]}));
    assert_eq!(twice.fault_paths(400), ["checks[1].request_id"]);
}
