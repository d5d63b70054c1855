//! What every write of the policy has in common: it may be tried, and changes nothing where there
//! is nothing to change.

use serde_json::{Value, json};

use super::POLICY;
use crate::support;
use crate::support::{Node, Request, document, node, sent, version};

const OVERRIDE: &str = "/api/config/tenant/acme/client/ann/action/export";

/// Every write, with a body that it takes, in an order in which all of them can be made.
fn writes() -> Vec<(&'static str, &'static str, Value)> {
    let quantity = || json!({"max_requests": 5, "window_duration_seconds": 60});
    let entry = json!({"id": "office", "list": "allow", "ip": "192.0.2.0/24"});
    vec![
        ("PUT", "/v1/policy/enforce", json!({"enforce": false})),
        ("PUT", "/v1/tiers/free", json!({})),
        ("PUT", "/v1/tiers/new", json!({"max_concurrent": 3})),
        ("DELETE", "/v1/tiers/new", Value::Null),
        ("PUT", "/v1/tenants/beta", json!({"tier": "pro"})),
        ("PUT", "/v1/tenants/acme/limits/own", sent("own", 5)),
        ("DELETE", "/v1/tenants/acme/limits/own", Value::Null),
        ("DELETE", "/v1/tenants/beta", Value::Null),
        ("POST", "/v1/access", entry),
        ("DELETE", "/v1/access/office", Value::Null),
        ("PUT", "/api/config/global", quantity()),
        ("PUT", "/api/config/tenant/acme/action/export", quantity()),
        ("PUT", OVERRIDE, quantity()),
        ("DELETE", OVERRIDE, Value::Null),
        ("DELETE", "/api/config/tenant/acme/action/export", Value::Null),
        ("PUT", "/v1/policy", json!({"default_tier": "only", "tiers": {"only": {}}})),
        ("POST", "/v1/policy/rollback", json!({"version": 1})),
    ]
}

fn write(node: &Node, method: &str, path: &str, body: &Value) -> support::Answer {
    let request = Request::new(method, path);
    node.send(&if body.is_null() { request } else { request.json(body) })
}

#[test]
fn a_dry_run_of_every_write_says_what_it_would_change() {
    let node = node(POLICY);
    for (method, path, body) in writes() {
        let (before, at) = (document(&node), version(&node));
        let tried = write(&node, method, &format!("{path}?dry_run=true"), &body);
        assert_eq!(tried.status, 200, "{method} {path}: {tried:?}");
        let tried = tried.json();
        assert_eq!((&tried["dry_run"], &tried["version"]), (&json!(true), &json!(at)), "{path}");
        assert!(!tried["changes"].as_array().unwrap().is_empty(), "{method} {path}: {tried}");
        assert_eq!((document(&node), version(&node)), (before, at), "{method} {path}");
        let made = write(&node, method, path, &body);
        assert!(matches!(made.status, 200 | 201), "{method} {path}: {made:?}");
        assert_eq!(version(&node), at + 1, "{method} {path}");
    }
}

#[test]
fn a_dry_run_is_refused_as_its_write_would_be() {
    let node = node(POLICY);
    for (status, method, path, body) in [
        (404, "DELETE", "/v1/tiers/gold?dry_run", Value::Null),
        (422, "DELETE", "/v1/tiers/free?dry_run", Value::Null),
        (422, "PUT", "/v1/tenants/acme?dry_run", json!({"tier": "gold"})),
        (404, "DELETE", "/v1/access/gone?dry_run", Value::Null),
        (400, "PUT", "/v1/policy/enforce?dryRun=true", json!({"enforce": false})),
        (400, "PUT", "/v1/policy/enforce?dry_run=perhaps", json!({"enforce": false})),
    ] {
        assert_eq!(write(&node, method, path, &body).status, status, "{method} {path}");
    }
    let stale =
        Request::new("PUT", "/v1/tiers/spare?dry_run").header("If-Match", "\"9\"").json(&json!({}));
    assert_eq!(node.send(&stale).status, 412);
    assert_eq!(version(&node), 1);
}

#[test]
fn a_write_that_changes_nothing_makes_no_version() {
    let node = node(POLICY);
    let mut at = version(&node);
    for (method, path, body) in writes().into_iter().filter(|(method, ..)| *method == "PUT") {
        let first = write(&node, method, path, &body);
        assert_eq!(first.json().get("unchanged"), None, "{path}");
        at += 1;
        let again = write(&node, method, path, &body);
        assert_eq!((again.version(), &again.json()["unchanged"]), (at, &json!(true)), "{path}");
        let stale = Request::new(method, path).header("If-Match", "\"1\"").json(&body);
        assert_eq!(node.send(&stale).status, 412, "{path}");
        assert_eq!(version(&node), at, "{path}");
    }
    let back = write(&node, "POST", "/v1/policy/rollback", &json!({"version": at}));
    assert_eq!((back.version(), &back.json()["unchanged"]), (at, &json!(true)));
    let history = node.get("/v1/policy/history").json();
    assert_eq!(history["versions"].as_array().unwrap().len() as u64, at - 1);
}

#[test]
fn deleting_a_tenant_deletes_its_state_unless_that_is_kept() {
    let node = node(POLICY);
    let spend = |tenant: &str| node.check(json!({"tenant": tenant, "cost": 7, "permit": {}}));
    let remaining =
        |tenant: &str| node.peek(json!({"tenant": tenant, "tier": "free"}))["remaining"].clone();
    for (query, state, left) in [("?keep_state=true", "kept", 93), ("", "deleted", 100)] {
        assert_eq!(node.put("/v1/tenants/acme", json!({"tier": "free"})).status, 200);
        node.post("/v1/tenants/acme/reset", json!({}));
        spend("acme");
        let answer = node.delete(&format!("/v1/tenants/acme{query}"));
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!(state)), "{answer:?}");
        assert_eq!(remaining("acme"), json!(left), "{query}");
    }
    assert_eq!(node.get("/v1/tenants/acme").json()["state"]["permits"], 0);
    node.delete("/v1/tenants/nobody-asked").problem(404);
    // A tenant that the policy doesn't name has state all the same.
    spend("unnamed");
    let answer = node.delete("/v1/tenants/unnamed");
    assert_eq!((answer.status, &answer.json()["unchanged"]), (200, &json!(true)), "{answer:?}");
    assert_eq!(remaining("unnamed"), json!(100));
    node.delete("/v1/tenants/unnamed?keep_state").problem(404);
}

#[test]
fn a_reset_touches_only_what_it_names() {
    let node = node(
        r#"
        default_tier = "t"
        [tiers.t]
        limits = [
            { name = "all", algorithm = "sliding_log", limit = 100, window = "1h" },
            { name = "user", per = ["tenant", "client"], algorithm = "sliding_log", limit = 100, window = "1h" },
            { name = "deed", per = ["tenant", "client", "action"], algorithm = "sliding_log", limit = 100, window = "1h" },
        ]
        "#,
    );
    let ask =
        |client: &str, action: &str| json!({"tenant": "acme", "client": client, "action": action});
    let left = |client: &str, action: &str| {
        let decision = node.peek(ask(client, action));
        ["all", "user", "deed"]
            .map(|name| super::limit(&decision, name)["remaining"].as_u64().unwrap())
    };
    for (client, action) in [("ann", "read"), ("ann", "write"), ("bob", "read")] {
        node.check(ask(client, action));
    }
    let reset = |body: Value| node.post("/v1/tenants/acme/reset", body);
    let names = |answer: &Value, member: &str| -> Vec<String> {
        let limits = answer[member].as_array().unwrap().iter();
        limits.map(|limit| limit["name"].as_str().unwrap().to_string()).collect()
    };
    let answer = reset(json!({"client": "ann"})).json();
    assert_eq!(
        (names(&answer, "limits"), names(&answer, "kept")),
        (vec!["user".into()], vec!["deed".into()])
    );
    assert_eq!((left("ann", "read"), left("bob", "read")), ([97, 100, 99], [97, 99, 99]));
    let answer = reset(json!({"client": "ann", "action": "read"})).json();
    assert_eq!(names(&answer, "limits"), ["deed"]);
    assert_eq!((left("ann", "read"), left("ann", "write")), ([97, 100, 100], [97, 100, 99]));
    assert_eq!(names(&reset(json!({"limit": "all"})).json(), "limits"), ["all"]);
    assert_eq!(left("bob", "read"), [100, 99, 99]);
    // Nothing is kept by the action alone, and by an address nothing at all.
    for body in [json!({"action": "read"}), json!({"ip": "192.0.2.1"}), json!({"limit": "none"})] {
        reset(body).problem(422);
    }
    assert_eq!(reset(json!({"clinet": "ann"})).fault_paths(400), ["clinet"]);
    assert_eq!(left("bob", "read"), [100, 99, 99]);
    assert_eq!(reset(json!(null)).json(), json!({"tenant": "acme", "reset": true}));
    assert_eq!(left("bob", "read"), [100, 100, 100]);
    let audit = node.get("/v1/audit?limit=1").json();
    assert_eq!(audit["entries"][0]["what"], "reset tenant acme", "{audit}");
}

#[test]
fn a_reset_finds_limits_that_requests_sent() {
    let node = node(POLICY);
    let consume = json!({"tenant_id": "acme", "client_id": "ann", "action_type": "read",
                         "max_requests": 10, "window_duration_seconds": 60});
    let left = |node: &Node| {
        let path = "/api/status/acme/ann/read?max_requests=10&window_duration_seconds=60";
        node.get(path).json()["remaining_requests"].clone()
    };
    assert_eq!(node.post("/api/check_and_consume", consume).status, 200);
    assert_eq!(left(&node), json!(9));
    let answer = node.post("/v1/tenants/acme/reset", json!({"client": "ann", "action": "read"}));
    assert_eq!(
        answer.json()["limits"],
        json!([{"name": "api", "scope": ["tenant", "client", "action"]}])
    );
    assert_eq!(left(&node), json!(10));
}
