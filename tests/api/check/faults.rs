//! Bodies and paths that aren't a check.

use serde_json::json;

use super::BURST_AND_HOUR;
use crate::support::{Request, node};

#[test]
fn every_fault_of_a_body_is_named_by_its_path() {
    let node = node(BURST_AND_HOUR);
    let answer = node.post(
        "/v1/check",
        json!({"tenant": "a b", "cost": 0, "ip": "1.2.3", "wait_ms": 5, "permit": {"ttl_ms": 999}, "tennant": "x",
               "limits": [{"name": "x", "algorithm": "sliding_log", "limit": 10, "window": "0s"}]}),
    );
    assert_eq!(
        answer.fault_paths(400),
        ["tenant", "ip", "cost", "wait_ms", "permit.ttl_ms", "limits[0].window", "tennant"]
    );
}

#[test]
fn a_body_that_is_no_check_is_400_and_the_content_type_makes_no_difference() {
    let node = node(BURST_AND_HOUR);
    for body in
        ["", "{", "[]", "null", "{}", r#"{"tenant":"a","cost":1,"cost":2}"#, r#"{"tenant":"a"} x"#]
    {
        node.send(&Request::new("POST", "/v1/check").body(body)).problem(400);
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = Request::new("POST", "/v1/check")
            .header("content-type", kind)
            .body(r#"{"tenant":"a"}"#);
        assert_eq!(node.send(&request).status, 200, "{kind:?}");
    }
}

#[test]
fn a_body_above_the_cap_is_413_and_a_path_or_method_that_is_not_there_404_or_405() {
    let node = node(BURST_AND_HOUR);
    let client = "x".repeat(17 * 1024);
    node.post("/v1/check", json!({"tenant": "acme", "client": client})).problem(413);
    node.post("/v1/chek", json!({"tenant": "acme"})).problem(404);
    node.get("/v1/check").problem(405);
}

#[test]
fn a_path_that_is_no_text_is_refused_with_a_problem_document_too() {
    let node = node(BURST_AND_HOUR);
    for (method, path) in [
        ("DELETE", "/v1/permits/%FF"),
        ("POST", "/v1/permits/%FF/renew"),
        ("GET", "/v1/tiers/%FF"),
        ("DELETE", "/v1/tiers/%FF"),
        ("GET", "/v1/tenants/%FF"),
        ("POST", "/v1/tenants/%FF/reset"),
        ("DELETE", "/v1/tenants/acme/limits/%FF"),
        ("GET", "/api/status/acme/%FF/read?max_requests=1&window_duration_seconds=1"),
    ] {
        let answer = node.send(&Request::new(method, path));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (400, "application/problem+json"),
            "{method} {path}: {answer:?}"
        );
    }
}

#[test]
fn a_connection_carries_one_check_after_another() {
    let node = node(BURST_AND_HOUR);
    let mut client = node.client();
    for left in (0..10).rev() {
        assert_eq!(client.check(&json!({"tenant": "acme"}))["remaining"], left);
    }
    // An answer that isn't a decision leaves the connection as it was.
    client.send(&Request::new("POST", "/v1/check").body("{")).problem(400);
    assert_eq!(client.check(&json!({"tenant": "acme"}))["allowed"], false);
}
