//! `POST /v1/peek`: the same question as a check, and nothing is taken.

use serde_json::json;

use crate::support::{Request, limit, node};

/// Ten at once, two permits, and three an hour for each address whoever asks.
const POLICY: &str = r#"
default_tier = "free"
[[limits]]
name = "per-ip"
per = ["ip"]
algorithm = "sliding_log"
limit = 3
window = "1h"
[tiers.free]
max_concurrent = 2
limits = [{ name = "burst", algorithm = "token_bucket", rate = "1/h", burst = 10 }]
[access.banned]
list = "deny"
client = "mallory"
[access.friend]
list = "allow"
client = "alice"
"#;

#[test]
fn a_hundred_peeks_take_nothing_from_any_limit() {
    let node = node(POLICY);
    let check = json!({"tenant": "acme", "ip": "192.0.2.1", "cost": 2});
    let mut client = node.client();
    for _ in 0..100 {
        let answer = client.send(&Request::new("POST", "/v1/peek").json(&check)).json();
        assert_eq!(answer["allowed"], true);
        assert_eq!(limit(&answer, "burst")["remaining"], 10);
        assert_eq!(limit(&answer, "per-ip")["remaining"], 3);
    }
    let taken = node.check(check);
    assert_eq!(limit(&taken, "burst")["remaining"], 8);
    assert_eq!(limit(&taken, "per-ip")["remaining"], 1);
}

#[test]
fn a_peek_is_answered_as_a_check_would_be_with_the_same_members() {
    let node = node(POLICY);
    let check = json!({"tenant": "acme", "cost": 4});
    let peeked = node.peek(check.clone());
    assert_eq!(
        peeked,
        json!({
            "allowed": true, "tenant": "acme", "tier": "free", "cost": 4,
            "limit": 10, "remaining": 10, "reset_after_ms": 0, "retry_after_ms": null, "denied_by": null,
            "limits": [{"name": "burst", "scope": ["tenant"], "algorithm": "token_bucket", "limit": 10,
                        "window_ms": 36_000_000, "remaining": 10, "reset_after_ms": 0, "mode": "exact"}],
            "permit": null, "replayed": false, "mode": "exact", "node": "n1",
            "epoch": peeked["epoch"], "policy_version": 1,
        })
    );
    node.check(check.clone());
    node.check(check.clone());
    let denied = node.peek(check.clone());
    assert_eq!((&denied["allowed"], &denied["remaining"]), (&json!(false), &json!(2)));
    assert_eq!(denied["denied_by"], node.check(check)["denied_by"]);
    assert!(
        denied["retry_after_ms"].as_u64().is_some_and(|ms| (7_140_000..=7_200_000).contains(&ms))
    );
}

#[test]
fn a_peek_that_says_no_is_200_and_takes_no_status() {
    let node = node(POLICY);
    let check = json!({"tenant": "acme", "cost": 11});
    let answer = node.post("/v1/peek", check.clone());
    assert_eq!((answer.status, &answer.json()["allowed"]), (200, &json!(false)));
    assert_eq!(node.post("/v1/peek?status=429", check.clone()).fault_paths(400), ["status"]);
    assert_eq!(node.post("/v1/check?status=429", check).status, 429);
}

#[test]
fn a_peek_says_whether_a_permit_would_be_granted_and_grants_none() {
    let node = node(POLICY);
    let check = json!({"tenant": "acme", "permit": {}});
    for left in [2, 2, 2] {
        let answer = node.peek(check.clone());
        assert_eq!((&answer["allowed"], &answer["permit"]), (&json!(true), &json!(null)));
        assert_eq!(limit(&answer, "concurrency")["remaining"], left);
    }
    assert_eq!(node.allowed_of(2, check.clone()), 2);
    assert_eq!(node.peek(check)["denied_by"]["reason"], "concurrency");
}

#[test]
fn a_peek_neither_replays_a_request_id_nor_uses_it_up() {
    let node = node(POLICY);
    let check = json!({"tenant": "acme", "request_id": "r-1"});
    assert_eq!(node.peek(check.clone())["replayed"], false);
    assert_eq!(node.check(check.clone())["replayed"], false);
    let peeked = node.peek(check.clone());
    assert_eq!((&peeked["replayed"], &peeked["remaining"]), (&json!(false), &json!(9)));
    assert_eq!(node.check(check)["replayed"], true);
}

#[test]
fn a_peek_makes_no_tenant_known() {
    let node = node(POLICY);
    node.peek(json!({"tenant": "acme", "client": "ann"}));
    assert_eq!(node.get("/v1/tenants").json(), json!({"tenants": [], "next": null}));
    node.check(json!({"tenant": "acme"}));
    assert_eq!(node.get("/v1/tenants").json()["tenants"][0]["id"], "acme");
}

#[test]
fn a_peek_asks_the_lists_too() {
    let node = node(POLICY);
    let denied = node.peek(json!({"tenant": "acme", "client": "mallory"}));
    assert_eq!(
        denied["denied_by"],
        json!({"name": "banned", "scope": ["client"], "reason": "deny_list"})
    );
    let allowed = node.peek(json!({"tenant": "acme", "client": "alice"}));
    assert_eq!(
        (&allowed["limit"], &allowed["bypass"]["list"]),
        (&json!("unlimited"), &json!("friend"))
    );
}

#[test]
fn a_bad_question_is_refused_as_it_is_in_a_check() {
    let node = node(POLICY);
    assert_eq!(
        node.post("/v1/peek", json!({"tenant": "acme", "cost": 0})).fault_paths(400),
        ["cost"]
    );
    assert_eq!(
        node.post("/v1/peek", json!({"tenant": "acme", "tier": "gold"})).fault_paths(422),
        ["tier"]
    );
    node.send(&Request::new("POST", "/v1/peek").body("")).problem(400);
}
