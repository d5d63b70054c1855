//! The documented calls under `/api/`: a limit sent with each request, a sliding log per tenant,
//! client and action; and the calls that configure limits to stand in for those. At the end, the
//! calls of another system under `/admin/ratelimit/`.

use serde_json::{Value, json};

use crate::support::{self, Node, Request, log, node, policy, unix_seconds};

const EMPTY: &str = "default_tier = \"free\"\n[tiers.free]\n";

fn body(tenant: &str, client: &str, action: &str, max_requests: u64) -> Value {
    json!({"tenant_id": tenant, "client_id": client, "action_type": action,
           "max_requests": max_requests, "window_duration_seconds": 3_600})
}

fn consume(node: &Node, body: Value) -> Value {
    let answer = node.post("/api/check_and_consume", body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn status(node: &Node, who: &str, max_requests: u64) -> Value {
    let answer = node.get(&format!(
        "/api/status/{who}?max_requests={max_requests}&window_duration_seconds=3600"
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// How many of `count` equal calls are allowed.
fn allowed_of(node: &Node, count: usize, body: &Value) -> usize {
    let mut client = node.client();
    let request = Request::new("POST", "/api/check_and_consume").json(body);
    (0..count).filter(|_| client.send(&request).json()["allowed"] == true).count()
}

#[test]
fn of_twelve_calls_ten_pass_and_of_a_hundred_and_twenty_a_hundred() {
    let node = node(EMPTY);
    assert_eq!(allowed_of(&node, 12, &body("acme", "ann", "read", 10)), 10);
    assert_eq!(allowed_of(&node, 120, &body("acme", "ann", "write", 100)), 100);
}

#[test]
fn an_answer_has_the_documented_members_and_no_others() {
    let node = node(EMPTY);
    let began = unix_seconds();
    let mut first = consume(&node, body("acme", "ann", "read", 2));
    let reset = support::take_number(&mut first, "reset_time_seconds");
    let hour_from = |began| began + 3_600..=unix_seconds() + 3_601;
    assert!(hour_from(began).contains(&reset), "{reset}");
    assert_eq!(first, json!({"allowed": true, "remaining_requests": 1, "status": "processed"}));
    consume(&node, body("acme", "ann", "read", 2));
    let mut denied = consume(&node, body("acme", "ann", "read", 2));
    let reset = support::take_number(&mut denied, "reset_time_seconds");
    assert!(hour_from(began).contains(&reset), "{reset}");
    assert_eq!(denied, json!({"allowed": false, "remaining_requests": 0, "status": "processed"}));
}

#[test]
fn each_tenant_client_and_action_has_a_log_of_its_own() {
    let node = node(EMPTY);
    for (tenant, client, action) in [
        ("acme", "ann", "read"),
        ("acme", "ann", "write"),
        ("acme", "bob", "read"),
        ("globex", "ann", "read"),
    ] {
        assert_eq!(
            allowed_of(&node, 5, &body(tenant, client, action, 3)),
            3,
            "{tenant} {client} {action}"
        );
    }
}

#[test]
fn the_status_says_what_is_left_and_consumes_nothing() {
    let node = node(EMPTY);
    for _ in 0..20 {
        let (began, mut said) = (unix_seconds(), status(&node, "acme/ann/read", 10));
        // Nothing was taken, so the limit is whole now.
        let reset = support::take_number(&mut said, "reset_time_seconds");
        assert!((began..=unix_seconds() + 1).contains(&reset), "{reset}");
        assert_eq!(said, json!({"allowed": true, "remaining_requests": 10, "status": "processed"}));
    }
    assert_eq!(allowed_of(&node, 4, &body("acme", "ann", "read", 10)), 4);
    assert_eq!(status(&node, "acme/ann/read", 10)["remaining_requests"], 6);
    assert_eq!(allowed_of(&node, 12, &body("acme", "ann", "read", 10)), 6);
    let used_up = status(&node, "acme/ann/read", 10);
    assert_eq!((&used_up["allowed"], &used_up["status"]), (&json!(false), &json!("processed")));
}

#[test]
fn the_status_takes_names_with_any_characters() {
    let node = node(EMPTY);
    consume(&node, body("acme", "ann/42 ä", "read & write", 10));
    assert_eq!(
        status(&node, "acme/ann%2F42%20%C3%A4/read%20%26%20write", 10)["remaining_requests"],
        9
    );
}

#[test]
fn what_was_spent_counts_against_the_number_that_the_next_call_sends() {
    let node = node(EMPTY);
    assert_eq!(allowed_of(&node, 10, &body("acme", "ann", "read", 10)), 10);
    assert_eq!(consume(&node, body("acme", "ann", "read", 15))["remaining_requests"], 4);
    assert_eq!(consume(&node, body("acme", "ann", "read", 10))["allowed"], false);
}

#[test]
fn a_number_above_what_a_log_remembers_is_taken_too() {
    let node = node(EMPTY);
    assert_eq!(consume(&node, body("acme", "ann", "read", 10_000))["remaining_requests"], 9_999);
    assert_eq!(
        consume(&node, body("acme", "ann", "write", 1_000_000))["remaining_requests"],
        999_999
    );
}

#[test]
fn the_node_is_healthy() {
    let node = node(EMPTY);
    let answer = node.get("/api/health");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("healthy")));
}

#[test]
fn a_configured_limit_named_api_overrides_the_one_sent_and_the_most_specific_counts() {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "api", algorithm = "sliding_log", limit = 90, window = "1h" }]
[tenants.acme]
limits = [
  { name = "api", algorithm = "sliding_log", limit = 20, window = "1h" },
  { name = "api", match = { action = "export" }, algorithm = "sliding_log", limit = 5, window = "1h" },
  { name = "api", match = { action = "export", client = "ann" }, algorithm = "sliding_log", limit = 7, window = "1h" },
]
"#,
    );
    for (tenant, client, action, passed) in [
        ("globex", "ann", "read", 10),
        ("acme", "ann", "read", 20),
        ("acme", "bob", "export", 5),
        ("acme", "ann", "export", 7),
    ] {
        let sent = body(tenant, client, action, 10);
        let left =
            status(&node, &format!("{tenant}/{client}/{action}"), 10)["remaining_requests"].clone();
        assert_eq!(left, passed, "{tenant} {client} {action}");
        assert_eq!(allowed_of(&node, 25, &sent), passed, "{tenant} {client} {action}");
    }
}

fn quantity(max_requests: u64, seconds: u64) -> Value {
    json!({"max_requests": max_requests, "window_duration_seconds": seconds})
}

#[test]
fn what_is_configured_overrides_what_is_sent_and_the_most_specific_counts() {
    let node = node(EMPTY);
    // What is put, and what then passes of twenty-five calls that send a limit of ten:
    // (acme/ann/read, globex/ann/read).
    let (action, client) = ("tenant/acme/action/read", "tenant/acme/client/ann/action/read");
    for (round, (method, what, max_requests, acme, globex)) in [
        ("PUT", "global", 15, 15, 15),
        ("PUT", action, 5, 5, 15),
        ("PUT", client, 20, 20, 15),
        ("DELETE", action, 0, 20, 15),
        ("DELETE", client, 0, 15, 15),
        ("PUT", "global", 3, 3, 3),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = match method {
            "PUT" => node.put(&format!("/api/config/{what}"), quantity(max_requests, 3_600)),
            _ => node.delete(&format!("/api/config/{what}")),
        };
        assert_eq!(answer.version(), round as u64 + 2, "{what}");
        for (tenant, passed) in [("acme", acme), ("globex", globex)] {
            node.send(&Request::new("POST", &format!("/v1/tenants/{tenant}/reset"))).json();
            assert_eq!(
                status(&node, &format!("{tenant}/ann/read"), 10)["remaining_requests"],
                passed,
                "{what}"
            );
            assert_eq!(
                allowed_of(&node, 25, &body(tenant, "ann", "read", 10)),
                passed,
                "{what} {tenant}"
            );
        }
    }
}

#[test]
fn a_configured_number_meets_what_was_spent_under_the_one_that_was_sent() {
    let node = node(EMPTY);
    assert_eq!(allowed_of(&node, 6, &body("acme", "ann", "read", 10)), 6);
    node.put("/api/config/tenant/acme/action/read", quantity(8, 3_600)).version();
    assert_eq!(allowed_of(&node, 6, &body("acme", "ann", "read", 10)), 2);
    assert_eq!(allowed_of(&node, 12, &body("acme", "bob", "read", 10)), 8);
}

#[test]
fn a_configuring_call_answers_with_what_it_did() {
    let node = node(EMPTY);
    let answer = node.put("/api/config/global", quantity(100, 60));
    assert_eq!(answer.header("etag"), "\"2\"");
    assert_eq!(
        answer.json(),
        json!({"status": "updated", "max_requests": 100, "window_duration_seconds": 60,
               "algorithm": "sliding_log", "version": 2, "pending": []})
    );
    assert_eq!(
        node.put("/api/config/tenant/acme/client/ann%2F1/action/read", quantity(20_000, 60)).json(),
        json!({"status": "updated", "tenant_id": "acme", "client_id": "ann/1", "action_type": "read",
               "max_requests": 20_000, "window_duration_seconds": 60, "algorithm": "sliding_window",
               "version": 3, "pending": []})
    );
    assert_eq!(
        node.delete("/api/config/tenant/acme/client/ann%2F1/action/read").json(),
        json!({"status": "deleted", "tenant_id": "acme", "client_id": "ann/1", "action_type": "read",
               "version": 4, "pending": []})
    );
    node.delete("/api/config/tenant/acme/client/ann%2F1/action/read").problem(404);
    node.delete("/api/config/tenant/acme/action/read").problem(404);
}

#[test]
fn deleting_one_override_leaves_the_others_of_its_tenant() {
    let node = node(EMPTY);
    for (place, most) in [
        ("action/read", 1),
        ("action/write", 2),
        ("client/ann/action/read", 3),
        ("client/bob/action/read", 4),
    ] {
        node.put(&format!("/api/config/tenant/acme/{place}"), quantity(most, 60)).version();
    }
    node.delete("/api/config/tenant/acme/client/ann/action/read").version();
    let config = node.get("/api/config/tenant/acme");
    assert_eq!((config.status, config.header("etag")), (200, "\"6\""));
    let of = |client: Value, action: &str, most: u64| {
        json!({"client_id": client, "action_type": action, "max_requests": most, "window_duration_seconds": 60,
               "algorithm": "sliding_log"})
    };
    assert_eq!(
        config.json(),
        json!({"tenant_id": "acme", "overrides": [
            of(json!("bob"), "read", 4), of(Value::Null, "read", 1), of(Value::Null, "write", 2)]})
    );
    assert_eq!(
        node.get("/api/config/tenant/nobody").json(),
        json!({"tenant_id": "nobody", "overrides": []})
    );
}

#[test]
fn what_is_configured_is_listed_page_by_page_also_where_the_policy_says_it_in_its_own_words() {
    let node = node(
        r#"
default_tier = "free"
[[limits]]
name = "api"
per = ["tenant"]
match = { action = "x" }
algorithm = "sliding_log"
limit = 1
window = "1h"
[tiers.free]
[tenants.a]
limits = [{ name = "api", algorithm = "token_bucket", rate = "1/1500ms", burst = 3 }]
[tenants.b]
limits = [{ name = "other", algorithm = "sliding_log", limit = 5, window = "1h" }]
[tenants.c]
limits = [{ name = "api", algorithm = "quota", limit = 5, period = "month" }]
[tenants.d]
"#,
    );
    let first = node.get("/api/config?limit=1").json();
    assert_eq!(
        first,
        json!({"global": null, "next": "a", "tenants": [{"tenant_id": "a", "overrides": [
            {"client_id": null, "action_type": null, "max_requests": 3, "window_duration_seconds": 5,
             "algorithm": "token_bucket"}]}]})
    );
    node.put("/api/config/global", quantity(7, 60)).version();
    let rest = node.get("/api/config?after=a").json();
    assert_eq!(
        rest,
        json!({"global": {"max_requests": 7, "window_duration_seconds": 60, "algorithm": "sliding_log"},
               "next": null, "tenants": [{"tenant_id": "c", "overrides": [
            {"client_id": null, "action_type": null, "max_requests": 5, "window_duration_seconds": null,
             "algorithm": "quota"}]}]})
    );
    for (query, fault) in [("limit=0", "limit"), ("limit=1001", "limit"), ("after=a%20b", "after")]
    {
        assert_eq!(node.get(&format!("/api/config?{query}")).fault_paths(400), [fault], "{query}");
    }
}

#[test]
fn what_this_version_can_not_do_is_refused_by_name_and_changes_nothing() {
    let node = node(EMPTY);
    let both = json!({"max_global_concurrent_requests": 10, "max_tenant_queue_size": 5});
    let members = ["max_global_concurrent_requests", "max_tenant_queue_size"];
    let refused = node.put("/api/config/global", both);
    assert_eq!(refused.fault_paths(422), members);
    assert!(refused.body.contains("is not supported in this version"), "{refused:?}");
    let mut one = quantity(10, 60);
    one["max_tenant_queue_size"] = json!(5);
    assert_eq!(node.put("/api/config/global", one).fault_paths(422), members[1..]);
    assert_eq!(node.get("/v1/policy").header("etag"), "\"1\"");
}

#[test]
fn every_fault_of_a_configuring_call_is_named_by_its_path_and_a_stale_one_comes_first() {
    let node = node(EMPTY);
    let numbers = ["max_requests", "window_duration_seconds"];
    for path in ["global", "tenant/acme/action/read", "tenant/acme/client/ann/action/read"] {
        let path = format!("/api/config/{path}");
        assert_eq!(node.put(&path, json!({})).fault_paths(400), numbers, "{path}");
        assert_eq!(node.put(&path, quantity(0, 0)).fault_paths(400), numbers, "{path}");
        assert_eq!(
            node.put(&path, quantity(1_000_000_000_000_000, 316_224_001)).fault_paths(400),
            numbers
        );
        let more = json!({"max_requests": 1.5, "window_duration_seconds": "60", "burst": 1});
        assert_eq!(
            node.put(&path, more).fault_paths(400),
            [numbers[0], numbers[1], "burst"],
            "{path}"
        );
        node.send(&Request::new("PUT", &path).body("{")).problem(400);
        let stale = Request::new("PUT", &path).header("if-match", "\"9\"").body("{ not even JSON");
        node.send(&stale).problem(412);
    }
    for (path, faults) in [
        ("tenant/a%20b/action/read", vec!["tenant"]),
        ("tenant/a%20b/client/a%0Ab/action/%00", vec!["tenant", "client", "action"]),
    ] {
        let path = format!("/api/config/{path}");
        assert_eq!(node.put(&path, quantity(1, 1)).fault_paths(400), faults, "{path}");
        assert_eq!(node.delete(&path).fault_paths(400), faults, "{path}");
    }
    assert_eq!(node.get("/api/config/tenant/a%20b").fault_paths(400), ["tenant"]);
    assert_eq!(node.get("/v1/policy").header("etag"), "\"1\"");
}

#[test]
fn limits_of_everybody_hold_beside_the_one_sent() {
    let node = node(&policy(&[log("everybody", "[]", 4)], &[]));
    assert_eq!(allowed_of(&node, 10, &body("acme", "ann", "read", 10)), 4);
    assert_eq!(status(&node, "acme/ann/read", 10)["allowed"], false);
}

#[test]
fn who_passes_unlimited_has_no_number_left() {
    let node = node(&format!("{EMPTY}[access.friend]\nlist = \"allow\"\ntenant = \"acme\"\n"));
    let began = unix_seconds();
    let mut answer = consume(&node, body("acme", "ann", "read", 1));
    let reset = support::take_number(&mut answer, "reset_time_seconds");
    assert!((began..=unix_seconds() + 1).contains(&reset), "{reset}");
    assert_eq!(answer, json!({"allowed": true, "remaining_requests": null, "status": "processed"}));
}

#[test]
fn the_same_limit_is_shown_in_the_headers() {
    let node = node(EMPTY);
    let answer = node.post("/api/check_and_consume", body("acme", "ann", "read", 10));
    assert_eq!(
        (answer.header("ratelimit-policy"), answer.header("ratelimit")),
        (r#""api";q=10;w=3600"#, r#""api";r=9;t=3600"#)
    );
}

#[test]
fn every_fault_of_a_call_is_named_by_its_path() {
    let node = node(EMPTY);
    let all = ["tenant_id", "client_id", "action_type", "max_requests", "window_duration_seconds"];
    assert_eq!(node.post("/api/check_and_consume", json!({})).fault_paths(400), all);
    let wrong = json!({"tenant_id": "a b", "client_id": "", "action_type": 5,
                       "max_requests": 0, "window_duration_seconds": 1.5, "cost": 1});
    let faults = node.post("/api/check_and_consume", wrong).fault_paths(400);
    assert_eq!(faults[..5], all);
    assert_eq!(faults[5..], ["cost"]);
    let status = |path: &str| node.get(&format!("/api/status/{path}")).fault_paths(400);
    assert_eq!(status("acme/ann/read"), ["max_requests", "window_duration_seconds"]);
    assert_eq!(
        status("a%20b/ann/read?max_requests=x&window_duration_seconds=0"),
        ["tenant", "max_requests", "window_duration_seconds"]
    );
}

#[test]
fn the_admin_calls_say_of_tenants_and_tiers_what_the_native_calls_say() {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
max_concurrent = 50
weight = "0.5"
limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/d", burst = 10 }]
[tiers.unlimited]
[tenants.acme]
tier = "free"
"#,
    );
    node.check(json!({"tenant": "globex", "cost": 4}));
    for path in ["/tenants", "/tenants?limit=1", "/tenants/acme"] {
        let (admin, native) =
            (node.get(&format!("/admin/ratelimit{path}")), node.get(&format!("/v1{path}")));
        assert_eq!((admin.status, admin.json()), (200, native.json()), "{path}");
    }
    let quotas = node.get("/admin/ratelimit/quotas");
    assert_eq!((quotas.status, quotas.header("etag")), (200, "\"1\""));
    let free = node.get("/v1/tiers/free").json();
    assert_eq!(
        quotas.json(),
        json!({"default_tier": "free", "tiers": {"free": free, "unlimited": {"limits": []}}})
    );
    assert_eq!(free["max_concurrent"], 50);
    assert_eq!(node.peek(json!({"tenant": "globex"}))["remaining"], 6);
    let reset = node.delete("/admin/ratelimit/tenants/globex/reset");
    assert_eq!((reset.status, reset.json()), (200, json!({"tenant": "globex", "reset": true})));
    assert_eq!(node.peek(json!({"tenant": "globex"}))["remaining"], 10);
    assert_eq!(node.get("/admin/ratelimit/tenants/a%20b").fault_paths(400), ["tenant"]);
    let breakers = node.send(&Request::new("POST", "/admin/ratelimit/circuit-breaker/reset"));
    assert_eq!(breakers.json(), json!({"status": "reset", "node": "n1", "breakers": []}));
}
