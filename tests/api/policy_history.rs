//! The versions of the policy that were: what made them, their documents, the way back; and the log
//! of all changes.

use serde_json::{Value, json};

use crate::support::{Answer, Node, Request, Setup, document, instant_in_ms, node, sent};

const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "log", algorithm = "sliding_log", limit = 100, window = "1h" }]
[tiers.spare]
"#;

/// Limits of ten, twenty and thirty for acme: versions 2, 3 and 4.
fn three_changes(node: &Node) {
    for (most, version) in [(10, 2), (20, 3), (30, 4)] {
        assert_eq!(node.put("/v1/tenants/acme/limits/log", sent("log", most)).version(), version);
    }
}

fn rollback(node: &Node, version: u64) -> Answer {
    node.post("/v1/policy/rollback", json!({"version": version}))
}

#[test]
fn the_history_says_what_made_each_version_newest_first() {
    let auth =
        "[[auth.tokens]]\nname = \"ops\"\nrole = \"admin\"\nvalue = \"open-sesame-for-ops\"\n";
    let node = Setup::policy(POLICY).section(auth).start();
    let send = |method: &str, path: &str, body: Value| {
        let request = Request::new(method, path).header("x-tidegate-token", "open-sesame-for-ops");
        node.send(&if body.is_null() { request } else { request.json(&body) })
    };
    let before = instant_in_ms(-1_000);
    send("PUT", "/v1/tiers/gold", json!({})).version();
    send("PUT", "/v1/policy/enforce", json!({"enforce": false})).version();
    send("POST", "/v1/access", json!({"id": "bad", "list": "deny", "ip": "192.0.2.0/24"})).json();
    send("DELETE", "/v1/access/bad", Value::Null).version();
    // What was refused made nothing.
    send("DELETE", "/v1/access/bad", Value::Null).problem(404);
    send("PUT", "/v1/tiers/gold", json!({"limits": 5})).problem(422);
    send("POST", "/v1/policy/rollback", json!({"version": 1})).version();
    let answer = send("GET", "/v1/policy/history", Value::Null);
    assert_eq!((answer.status, answer.header("etag")), (200, "\"6\""));
    let history = answer.json();
    assert_eq!(history["version"], 6);
    let versions = history["versions"].as_array().unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|past| (past["version"].as_u64().unwrap(), past["what"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            (6, "rolled back to version 1"),
            (5, "deleted list entry bad: deny ip 192.0.2.0/24"),
            (4, "added list entry bad: deny ip 192.0.2.0/24"),
            (3, "switched enforcement off"),
            (2, "put tier gold"),
        ]
    );
    let after = instant_in_ms(1_000);
    for past in versions {
        let time = past["time"].as_str().unwrap();
        assert_eq!(past["by"], "ops");
        assert!(*before <= *time && *time <= *after, "{past}");
    }
}

#[test]
fn an_earlier_document_is_read_by_its_version_in_both_formats() {
    let node = node(POLICY);
    let first = document(&node);
    three_changes(&node);
    let at = |version: u64| node.get(&format!("/v1/policy?version={version}"));
    assert_eq!((at(1).json(), at(1).header("etag").to_string()), (first, "\"1\"".into()));
    for (version, most) in [(2, 10), (3, 20), (4, 30)] {
        let answer = at(version);
        assert_eq!(answer.header("etag"), format!("\"{version}\""));
        assert_eq!(answer.json()["tenants"]["acme"]["limits"][0]["limit"], most);
    }
    let toml = Request::new("GET", "/v1/policy?version=2").header("accept", "application/toml");
    let toml = node.send(&toml);
    assert_eq!((toml.header("content-type"), toml.header("etag")), ("application/toml", "\"2\""));
    assert!(toml.body.contains("limit = 10\n"), "{}", toml.body);
    for missing in ["5", "9223372036854775807"] {
        node.get(&format!("/v1/policy?version={missing}")).problem(404);
    }
    for nonsense in ["0", "-1", "x", "1.5", "", "9223372036854775808"] {
        assert_eq!(
            node.get(&format!("/v1/policy?version={nonsense}")).fault_paths(400),
            ["version"]
        );
    }
}

#[test]
fn a_rollback_makes_the_old_document_a_new_version_that_acts_on_the_next_check() {
    let node = node(POLICY);
    three_changes(&node);
    assert_eq!(node.check(json!({"tenant": "acme", "cost": 12}))["remaining"], 18);
    let answer = rollback(&node, 2);
    assert_eq!(answer.json(), json!({"version": 5, "pending": []}));
    assert_eq!(answer.version(), 5);
    assert_eq!(document(&node), node.get("/v1/policy?version=2").json());
    // Spent stays spent: twelve of the ten are gone.
    let denied = node.check(json!({"tenant": "acme"}));
    assert_eq!((&denied["limit"], &denied["allowed"]), (&json!(10), &json!(false)));
    // The way back can be gone back from.
    assert_eq!(rollback(&node, 4).version(), 6);
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 18);
    assert_eq!(rollback(&node, 1).version(), 7);
    assert_eq!(document(&node).get("tenants"), None);
}

#[test]
fn a_dry_run_of_a_rollback_says_what_would_differ_and_changes_nothing() {
    let node = node(POLICY);
    three_changes(&node);
    let dry_run = |version: u64| {
        node.post("/v1/policy/rollback?dry_run=true", json!({"version": version})).json()
    };
    assert_eq!(
        dry_run(2),
        json!({"dry_run": true, "version": 4, "changes": [
            {"path": "tenants.acme.limits[log].limit", "op": "change", "from": 30, "to": 10}]})
    );
    assert_eq!(dry_run(4)["changes"], json!([]));
    assert_eq!(node.get("/v1/policy").header("etag"), "\"4\"");
}

#[test]
fn a_rollback_for_another_version_is_412_and_one_to_nowhere_is_422() {
    let node = node(POLICY);
    three_changes(&node);
    let send = |tag: &str, query: &str| {
        let path = format!("/v1/policy/rollback{query}");
        let request = Request::new("POST", &path).header("if-match", tag);
        node.send(&request.json(&json!({"version": 2})))
    };
    for query in ["", "?dry_run=true"] {
        assert_eq!(send("\"3\"", query).problem(412)["status"], 412, "{query}");
        for nowhere in [5, 9_223_372_036_854_775_807_u64] {
            let body = json!({"version": nowhere});
            assert_eq!(
                node.post(&format!("/v1/policy/rollback{query}"), body).fault_paths(422),
                ["version"]
            );
        }
    }
    assert_eq!(send("\"4\"", "").version(), 5);
}

#[test]
fn a_rollback_that_says_nothing_readable_is_400() {
    let node = node(POLICY);
    for (body, faults) in [
        (json!({}), vec!["version"]),
        (json!({"version": 0}), vec!["version"]),
        (json!({"version": -1}), vec!["version"]),
        (json!({"version": "1"}), vec!["version"]),
        (json!({"version": 1.0}), vec!["version"]),
        (json!({"version": 1, "why": "x"}), vec!["why"]),
        (json!([1]), vec![""]),
    ] {
        assert_eq!(
            node.post("/v1/policy/rollback", body.clone()).fault_paths(400),
            faults,
            "{body}"
        );
    }
    node.send(&Request::new("POST", "/v1/policy/rollback").body("{")).problem(400);
    node.send(&Request::new("POST", "/v1/policy/rollback")).problem(400);
    let maybe = node.post("/v1/policy/rollback?dry_run=maybe", json!({"version": 1}));
    assert_eq!(maybe.fault_paths(400), ["dry_run"]);
    assert_eq!(node.get("/v1/policy").header("etag"), "\"1\"");
}

/// All lines of the audit log, `most` on each page.
fn audit(node: &Node, most: usize) -> Vec<Value> {
    let (mut lines, mut before) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/v1/audit?limit={most}&before={before}")).json();
        let of_page = page["entries"].as_array().unwrap();
        assert!(of_page.len() <= most, "{page}");
        lines.extend(of_page.iter().cloned());
        match page["next"].as_str() {
            Some(next) => before = next.to_string(),
            None => return lines,
        }
        assert!(lines.len() < 1_000, "the pages don't end: {page}");
    }
}

#[test]
fn the_audit_log_has_every_change_newest_first_page_by_page() {
    let node = node(POLICY);
    three_changes(&node);
    node.put("/v1/policy/enforce", json!({"enforce": false})).version();
    rollback(&node, 3).version();
    let all = audit(&node, 100);
    let told: Vec<_> = all.iter().take(5).map(|line| line["what"].as_str().unwrap()).collect();
    let put = "put a limit of tenant acme";
    assert_eq!(told, ["rolled back to version 3", "switched enforcement off", put, put, put]);
    let indices: Vec<_> = all.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert!(indices.windows(2).all(|pair| pair[0] > pair[1]), "{indices:?}");
    assert!(all.iter().take(5).all(|line| line["by"] == "anyone"), "{all:?}");
    for most in [1, 2, 3, 5] {
        assert_eq!(audit(&node, most), all, "{most}");
    }
    for (query, fault) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("before=x", "before"),
        ("before=-1", "before"),
        ("before=9223372036854775808", "before"),
    ] {
        assert_eq!(node.get(&format!("/v1/audit?{query}")).fault_paths(400), [fault], "{query}");
    }
    // Before the first line there is nothing.
    assert_eq!(node.get("/v1/audit?before=0").json(), json!({"entries": [], "next": null}));
}

#[test]
fn history_and_audit_survive_a_kill_9_right_after_an_answer() {
    let mut node = node(POLICY);
    for round in 1..=3 {
        node.put(&format!("/v1/tenants/t{round}"), json!({})).version();
        let (history, document) = (node.get("/v1/policy/history").json(), document(&node));
        node = node.kill().start();
        assert_eq!(node.get("/v1/policy/history").json(), history);
        let told: Vec<_> = audit(&node, 100).iter().map(|line| line["what"].clone()).collect();
        assert!(told.contains(&json!(format!("put tenant t{round}"))), "{told:?}");
        assert_eq!(node.get(&format!("/v1/policy?version={}", round + 1)).json(), document);
    }
    assert_eq!(rollback(&node, 2).version(), 5);
    assert_eq!(document(&node)["tenants"], json!({"t1": {}}));
}
