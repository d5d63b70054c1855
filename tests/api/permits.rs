//! Concurrency permits: granted by a check, released, renewed, or expired.

use serde_json::{Value, json};

use crate::support::{Node, Request, limit, node, wait_ms};

/// Two in flight, and a hundred checks.
const TWO: &str = r#"
default_tier = "free"
[tiers.free]
max_concurrent = 2
max_permit_ttl = "1h"
limits = [{ name = "burst", algorithm = "token_bucket", rate = "1/h", burst = 100 }]
[tiers.open]
[tenants.big]
max_concurrent = 4
"#;

fn asking(tenant: &str, ttl_ms: u64) -> Value {
    json!({"tenant": tenant, "permit": {"ttl_ms": ttl_ms}})
}

/// The id of a permit that is granted.
fn granted(node: &Node, tenant: &str, ttl_ms: u64) -> String {
    let decision = node.check(asking(tenant, ttl_ms));
    assert_eq!(decision["allowed"], true, "{decision}");
    assert_eq!(decision["permit"]["expires_in_ms"], ttl_ms);
    decision["permit"]["id"].as_str().unwrap().to_string()
}

fn release(node: &Node, id: &str) -> u16 {
    node.delete(&format!("/v1/permits/{id}")).status
}

#[test]
fn a_check_that_asks_for_a_permit_gets_one_and_sees_how_many_are_left() {
    let node = node(TWO);
    let decision = node.check(asking("acme", 30_000));
    assert_eq!(decision["permit"]["expires_in_ms"], 30_000);
    assert!(decision["permit"]["id"].as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!(
        *limit(&decision, "concurrency"),
        json!({"name": "concurrency", "scope": ["tenant"], "algorithm": "concurrency", "limit": 2, "window_ms": null,
               "remaining": 1, "reset_after_ms": 30_000, "mode": "exact"})
    );
    assert_eq!((&decision["limit"], &decision["remaining"]), (&json!(2), &json!(1)));
}

#[test]
fn a_permit_without_a_time_lasts_half_a_minute() {
    let node = node(TWO);
    assert_eq!(
        node.check(json!({"tenant": "acme", "permit": {}}))["permit"]["expires_in_ms"],
        30_000
    );
}

#[test]
fn only_a_check_that_asks_for_a_permit_is_judged_by_the_maximum() {
    let node = node(TWO);
    granted(&node, "acme", 60_000);
    granted(&node, "acme", 60_000);
    assert_eq!(node.allowed_of(10, json!({"tenant": "acme"})), 10);
    let plain = node.check(json!({"tenant": "acme"}));
    assert_eq!((plain["limits"].as_array().unwrap().len(), &plain["permit"]), (1, &json!(null)));
    assert_eq!(node.allowed_of(1, asking("acme", 60_000)), 0);
}

#[test]
fn beyond_the_maximum_a_check_is_denied_until_the_earliest_expiry_at_the_latest() {
    let node = node(TWO);
    granted(&node, "acme", 120_000);
    granted(&node, "acme", 60_000);
    let denied = node.check(asking("acme", 30_000));
    assert_eq!(
        denied["denied_by"],
        json!({"name": "concurrency", "scope": ["tenant"], "reason": "concurrency"})
    );
    assert_eq!(
        (&denied["permit"], &denied["limit"], &denied["remaining"]),
        (&json!(null), &json!(2), &json!(0))
    );
    let wait = denied["retry_after_ms"].as_u64().unwrap();
    assert!((30_000..=60_000).contains(&wait), "{wait}");
}

#[test]
fn a_released_permit_is_free_for_the_next_and_releasing_it_twice_is_204_too() {
    let node = node(TWO);
    let first = granted(&node, "acme", 60_000);
    granted(&node, "acme", 60_000);
    assert_eq!(node.allowed_of(1, asking("acme", 60_000)), 0);
    assert_eq!((release(&node, &first), release(&node, &first)), (204, 204));
    // The second release gave nothing back: one more fits, not two.
    assert_eq!(node.allowed_of(2, asking("acme", 60_000)), 1);
}

#[test]
fn an_id_that_was_never_given_is_204_and_what_is_no_id_400() {
    let node = node(TWO);
    let first = granted(&node, "acme", 60_000);
    let (kept, changed) = first.split_at(first.len() - 4);
    let other = format!("{kept}{}", if changed == "0000" { "0001" } else { "0000" });
    assert_eq!(release(&node, &other), 204);
    assert_eq!(node.post(&format!("/v1/permits/{other}/renew"), json!({})).status, 404);
    assert_eq!(node.allowed_of(3, asking("acme", 60_000)), 1);
    for id in ["x", "p", "pfff0000", &first.to_uppercase()] {
        node.delete(&format!("/v1/permits/{id}")).problem(400);
        node.post(&format!("/v1/permits/{id}/renew"), json!({})).problem(400);
    }
}

#[test]
fn a_permit_expires_by_itself_when_the_denial_said() {
    let node = node(TWO);
    granted(&node, "acme", 1_000);
    granted(&node, "acme", 60_000);
    let denied = node.check(asking("acme", 60_000));
    // On a machine that took a second for this, the permit has expired already.
    wait_ms(denied["retry_after_ms"].as_u64().unwrap_or(0));
    if denied["allowed"] == false {
        assert_eq!(node.allowed_of(2, asking("acme", 60_000)), 1);
    }
}

#[test]
fn a_renewed_permit_outlives_its_first_time_and_a_released_one_is_404() {
    let node = node(TWO);
    let id = granted(&node, "acme", 2_000);
    granted(&node, "acme", 600_000);
    let renew =
        |ttl_ms: u64| node.post(&format!("/v1/permits/{id}/renew"), json!({"ttl_ms": ttl_ms}));
    let answer = renew(60_000);
    assert_eq!((answer.status, answer.json()), (200, json!({"id": id, "expires_in_ms": 60_000})));
    wait_ms(2_100);
    assert_eq!(node.allowed_of(1, asking("acme", 60_000)), 0);
    assert_eq!(release(&node, &id), 204);
    renew(60_000).problem(404);
    assert_eq!(node.allowed_of(1, asking("acme", 60_000)), 1);
}

#[test]
fn an_expired_permit_can_not_be_renewed() {
    let node = node(TWO);
    let id = granted(&node, "acme", 1_000);
    wait_ms(1_100);
    node.post(&format!("/v1/permits/{id}/renew"), json!({"ttl_ms": 60_000})).problem(404);
}

#[test]
fn a_renewal_that_names_no_time_is_for_half_a_minute() {
    let node = node(TWO);
    let id = granted(&node, "acme", 600_000);
    let path = format!("/v1/permits/{id}/renew");
    for request in [Request::new("POST", &path), Request::new("POST", &path).json(&json!({}))] {
        assert_eq!(node.send(&request).json()["expires_in_ms"], 30_000);
    }
}

#[test]
fn a_permit_lasts_a_second_to_an_hour() {
    let node = node(TWO);
    let id = granted(&node, "acme", 1_000);
    granted(&node, "acme", 3_600_000);
    for ttl_ms in [0, 999, 3_600_001] {
        assert_eq!(
            node.post("/v1/check", asking("acme", ttl_ms)).fault_paths(400),
            ["permit.ttl_ms"]
        );
        let renewal = node.post(&format!("/v1/permits/{id}/renew"), json!({"ttl_ms": ttl_ms}));
        assert_eq!(renewal.fault_paths(400), ["ttl_ms"]);
    }
}

#[test]
fn a_check_denied_by_its_rate_takes_no_permit_and_one_denied_by_the_maximum_takes_no_units() {
    let node = node(TWO);
    let mut costly = asking("acme", 60_000);
    costly["cost"] = json!(101);
    assert_eq!(node.allowed_of(3, costly), 0);
    assert_eq!(node.allowed_of(5, asking("acme", 60_000)), 2);
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 98);
}

#[test]
fn the_maximum_is_each_tenants_own() {
    let node = node(TWO);
    assert_eq!(node.allowed_of(5, asking("acme", 60_000)), 2);
    assert_eq!(node.allowed_of(5, asking("globex", 60_000)), 2);
    assert_eq!(node.allowed_of(5, asking("big", 60_000)), 4);
}

#[test]
fn a_tier_without_a_maximum_hands_out_permits_all_the_same() {
    let node = node(TWO);
    let mut check = asking("acme", 60_000);
    check["tier"] = json!("open");
    let decision = node.check(check);
    assert_eq!((&decision["limit"], &decision["limits"]), (&json!("unlimited"), &json!([])));
    assert_eq!(release(&node, decision["permit"]["id"].as_str().unwrap()), 204);
}

#[test]
fn a_lowered_maximum_takes_no_permit_back_and_grants_none_until_enough_are_free() {
    let node = node(TWO);
    let ids: Vec<_> = (0..4).map(|_| granted(&node, "big", 60_000)).collect();
    node.put("/v1/tenants/big", json!({"max_concurrent": 2})).version();
    for id in &ids[..3] {
        assert_eq!(node.allowed_of(1, asking("big", 60_000)), 0);
        assert_eq!(release(&node, id), 204);
    }
    assert_eq!(node.allowed_of(2, asking("big", 60_000)), 1);
}

#[test]
fn permits_outlive_a_graceful_restart() {
    let node = node(TWO);
    let id = granted(&node, "acme", 600_000);
    granted(&node, "acme", 600_000);
    let node = node.stop().start();
    assert_eq!(node.allowed_of(1, asking("acme", 60_000)), 0);
    assert_eq!(release(&node, &id), 204);
    assert_eq!(node.allowed_of(2, asking("acme", 60_000)), 1);
}

/// Five in flight, each for three seconds at most; a tier whose permits last longer.
const FIVE: &str = r#"
default_tier = "free"
[tiers.free]
max_concurrent = 5
max_permit_ttl = "3s"
limits = [{ name = "burst", algorithm = "token_bucket", rate = "1/h", burst = 100 }]
[tiers.paid]
max_permit_ttl = "1m"
[tenants.mapped]
tier = "free"
"#;

#[test]
fn a_time_above_the_tiers_is_422_and_no_time_is_what_it_allows() {
    let node = node(FIVE);
    assert_eq!(node.post("/v1/check", asking("acme", 3_001)).fault_paths(422), ["permit.ttl_ms"]);
    let checks = json!([asking("acme", 1_000), asking("acme", 3_001)]);
    let whole = json!({"mode": "all_or_nothing", "checks": checks});
    let batch = node.post("/v1/check/batch", whole);
    assert_eq!(batch.fault_paths(422), ["checks[1].permit.ttl_ms"]);
    let mut paid = asking("acme", 60_000);
    paid["tier"] = json!("paid");
    assert_eq!(node.check(paid)["permit"]["expires_in_ms"], 60_000);
    let unsaid = node.check(json!({"tenant": "mapped", "permit": {}}));
    assert_eq!(unsaid["permit"]["expires_in_ms"], 3_000);
    let renew = format!("/v1/permits/{}/renew", unsaid["permit"]["id"].as_str().unwrap());
    let renewed = |body: Value| node.post(&renew, body);
    assert_eq!(renewed(json!({"ttl_ms": 3_001})).fault_paths(422), ["ttl_ms"]);
    assert_eq!(renewed(json!({"ttl_ms": 60_001})).fault_paths(422), ["ttl_ms"]);
    assert_eq!(renewed(json!({})).json()["expires_in_ms"], 3_000);
}

#[test]
fn a_killed_node_grants_no_sixth_permit_until_the_five_have_expired() {
    let node = node(&FIVE.replace("3s", "10s").replace("1m", "10s"));
    let ids: Vec<_> = (0..5).map(|_| granted(&node, "acme", 10_000)).collect();
    let node = node.kill().start();
    let denied = node.check(asking("acme", 1_000));
    assert_eq!(
        (&denied["denied_by"]["reason"], &denied["mode"], &denied["degraded"]),
        (
            &json!("concurrency"),
            &json!("approximate"),
            &json!({"reason": "cold_start", "share": "0"})
        )
    );
    let wait = denied["retry_after_ms"].as_u64().unwrap();
    assert!((1..=10_000).contains(&wait), "{denied}");
    // Rates go on: a check without a permit is decided.
    assert_eq!(node.check(json!({"tenant": "acme"}))["allowed"], true);
    // Renewed, they count again, whether or not the node knew of them.
    let renew_all = || {
        for id in &ids {
            let path = format!("/v1/permits/{id}/renew");
            let renewed = node.post(&path, json!({"ttl_ms": 10_000}));
            assert_eq!((renewed.status, &renewed.json()["expires_in_ms"]), (200, &json!(10_000)));
        }
    };
    renew_all();
    assert_eq!(node.get("/v1/tenants/acme").json()["state"]["permits"], 5);
    // Half way, so that none expires about when the wait ends.
    wait_ms(wait / 2);
    renew_all();
    wait_ms(wait - wait / 2);
    assert_eq!(node.allowed_of(1, asking("acme", 1_000)), 0);
    for id in &ids {
        assert_eq!(release(&node, id), 204);
    }
    assert_eq!(node.allowed_of(6, asking("acme", 10_000)), 5);
}

#[test]
fn a_second_kill_begins_the_wait_again_and_a_graceful_stop_goes_on_with_it() {
    let node = node(&FIVE.replace("3s", "1h"));
    granted(&node, "acme", 1_000);
    let wait = |node: &Node| {
        let denied = node.check(asking("acme", 1_000));
        assert_eq!(denied["degraded"]["reason"], "cold_start", "{denied}");
        denied["retry_after_ms"].as_u64().unwrap()
    };
    let node = node.kill().start();
    wait_ms(1_200);
    let first = wait(&node);
    let node = node.stop().start();
    let stopped = wait(&node);
    assert!(stopped <= first, "{first} {stopped}");
    let node = node.kill().start();
    let killed = wait(&node);
    assert!(killed > 3_599_000 - 10_000 && killed <= 3_600_000, "{killed}");
}
