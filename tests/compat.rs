//! The documented calls under `/api/`: a limit sent with each request, a sliding log per tenant, client and action.

mod support;

use serde_json::{Value, json};
use support::{Node, Request, log, node, policy};

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
    let answer =
        node.get(&format!("/api/status/{who}?max_requests={max_requests}&window_duration_seconds=3600"));
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
    let first = consume(&node, body("acme", "ann", "read", 2));
    assert_eq!(
        first,
        json!({"allowed": true, "remaining_requests": 1, "reset_time_seconds": 3_600, "status": "allowed"})
    );
    consume(&node, body("acme", "ann", "read", 2));
    let mut denied = consume(&node, body("acme", "ann", "read", 2));
    let reset = support::take_number(&mut denied, "reset_time_seconds");
    assert!((3_540..=3_600).contains(&reset), "{reset}");
    assert_eq!(denied, json!({"allowed": false, "remaining_requests": 0, "status": "denied"}));
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
        assert_eq!(allowed_of(&node, 5, &body(tenant, client, action, 3)), 3, "{tenant} {client} {action}");
    }
}

#[test]
fn the_status_says_what_is_left_and_consumes_nothing() {
    let node = node(EMPTY);
    for _ in 0..20 {
        assert_eq!(
            status(&node, "acme/ann/read", 10),
            json!({"allowed": true, "remaining_requests": 10, "reset_time_seconds": 0, "status": "allowed"})
        );
    }
    assert_eq!(allowed_of(&node, 4, &body("acme", "ann", "read", 10)), 4);
    assert_eq!(status(&node, "acme/ann/read", 10)["remaining_requests"], 6);
    assert_eq!(allowed_of(&node, 12, &body("acme", "ann", "read", 10)), 6);
    let used_up = status(&node, "acme/ann/read", 10);
    assert_eq!((&used_up["allowed"], &used_up["status"]), (&json!(false), &json!("denied")));
}

#[test]
fn the_status_takes_names_with_any_characters() {
    let node = node(EMPTY);
    consume(&node, body("acme", "ann/42 ä", "read & write", 10));
    assert_eq!(status(&node, "acme/ann%2F42%20%C3%A4/read%20%26%20write", 10)["remaining_requests"], 9);
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
    assert_eq!(consume(&node, body("acme", "ann", "write", 1_000_000))["remaining_requests"], 999_999);
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
        let left = status(&node, &format!("{tenant}/{client}/{action}"), 10)["remaining_requests"].clone();
        assert_eq!(left, passed, "{tenant} {client} {action}");
        assert_eq!(allowed_of(&node, 25, &sent), passed, "{tenant} {client} {action}");
    }
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
    let answer = consume(&node, body("acme", "ann", "read", 1));
    assert_eq!(
        answer,
        json!({"allowed": true, "remaining_requests": null, "reset_time_seconds": 0, "status": "allowed"})
    );
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
