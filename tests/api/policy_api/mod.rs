//! The policy over HTTP: read, replaced, edited part by part, and what survives a stop and a crash.

mod enforce;
mod parts;
mod printed;
mod stops;
mod tenants;
mod writes;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{self, Request, document, limit, node, version};

/// Two tiers, a tenant by name, a pattern.
const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "log", algorithm = "sliding_log", limit = 100, window = "1h" }]
[tiers.pro]
max_concurrent = 9
limits = [{ name = "log", algorithm = "sliding_log", limit = 1000, window = "1h" }]
[tiers.spare]
[[tier_patterns]]
pattern = "ent-*"
tier = "pro"
[tenants.acme]
tier = "pro"
"#;

fn with_if_match(method: &str, path: &str, tag: &str, body: &Value) -> Request {
    Request::new(method, path).header("If-Match", tag).json(body)
}

#[test]
fn the_policy_is_read_as_json_with_its_version_as_etag() {
    let node = node(POLICY);
    let answer = node.get("/v1/policy");
    assert_eq!(
        (answer.status, answer.header("etag"), answer.header("content-type")),
        (200, "\"1\"", "application/json")
    );
    assert_eq!(
        answer.json(),
        json!({
            "default_tier": "free",
            "tiers": {
                "free": {"limits": [{"name": "log", "per": ["tenant"], "algorithm": "sliding_log",
                                     "limit": 100, "window": "1h"}]},
                "pro": {"max_concurrent": 9,
                        "limits": [{"name": "log", "per": ["tenant"], "algorithm": "sliding_log",
                                     "limit": 1000, "window": "1h"}]},
                "spare": {"limits": []},
            },
            "tier_patterns": [{"pattern": "ent-*", "tier": "pro"}],
            "tenants": {"acme": {"tier": "pro"}},
        })
    );
}

#[test]
fn the_policy_is_read_as_toml_where_accept_says_so_and_means_the_same() {
    let node = node(POLICY);
    let toml = node.send(&Request::new("GET", "/v1/policy").header("accept", "application/toml"));
    assert_eq!((toml.header("content-type"), toml.header("etag")), ("application/toml", "\"1\""));
    let before = document(&node);
    let put = Request::new("PUT", "/v1/policy")
        .header("content-type", "application/toml")
        .body(toml.body);
    assert_eq!(node.send(&put).version(), 1);
    assert_eq!(document(&node), before);
}

#[test]
fn every_sample_policy_is_taken_as_it_is_and_as_the_node_prints_it() {
    let node = node(POLICY);
    for file in [
        "builtin.toml",
        "burst-and-sustained.toml",
        "metered-api.toml",
        "minute-and-hour-windows.toml",
        "multi-level.toml",
        "requests-per-minute.toml",
    ] {
        let put = |kind: &str, body: String| {
            node.send(&Request::new("PUT", "/v1/policy").header("content-type", kind).body(body))
                .version()
        };
        put("application/toml", support::sample(file));
        let printed = document(&node);
        put("application/json", printed.to_string());
        assert_eq!(document(&node), printed, "{file}");
    }
}

#[test]
fn a_put_replaces_the_whole_document_and_answers_with_its_version() {
    let node = node(POLICY);
    let answer = node.put("/v1/policy", json!({"default_tier": "only", "tiers": {"only": {}}}));
    assert_eq!(answer.version(), 2);
    assert_eq!(answer.json(), json!({"version": 2, "pending": []}));
    assert_eq!(document(&node), json!({"default_tier": "only", "tiers": {"only": {"limits": []}}}));
    let decision = node.check(json!({"tenant": "acme"}));
    assert_eq!(
        (&decision["policy_version"], &decision["tier"], &decision["limit"]),
        (&json!(2), &json!("only"), &json!("unlimited"))
    );
}

#[test]
fn a_write_for_another_version_is_412_whatever_its_body_and_says_which_there_is() {
    let node = node(POLICY);
    node.put("/v1/tiers/spare", json!({"max_concurrent": 2})).version();
    for (method, path) in [
        ("PUT", "/v1/policy"),
        ("PUT", "/v1/policy?dry_run=true"),
        ("PUT", "/v1/policy/enforce"),
        ("POST", "/v1/policy/rollback"),
        ("POST", "/v1/policy/rollback?dry_run=true"),
        ("PUT", "/v1/tiers/spare"),
        ("DELETE", "/v1/tiers/spare"),
        ("PUT", "/v1/tenants/acme"),
        ("DELETE", "/v1/tenants/acme"),
        ("PUT", "/v1/tenants/acme/limits/log"),
        ("DELETE", "/v1/tenants/acme/limits/log"),
    ] {
        for tag in ["\"1\"", "1", "\"3\"", "\"x\"", "W/\"2\""] {
            let answer = node
                .send(&Request::new(method, path).header("If-Match", tag).body("{ not even JSON"));
            answer.problem(412);
            assert_eq!(answer.header("etag"), "\"2\"", "{method} {path} {tag}");
        }
    }
    assert_eq!(version(&node), 2);
}

#[test]
fn a_write_for_the_current_version_or_for_any_is_made() {
    let node = node(POLICY);
    for (tag, expected) in [("\"1\"", 2), ("2", 3), ("*", 4), ("\"4\"", 5)] {
        assert_eq!(
            node.send(&with_if_match(
                "PUT",
                "/v1/tiers/spare",
                tag,
                &json!({"max_concurrent": expected})
            ))
            .version(),
            expected,
            "{tag}"
        );
    }
}

#[test]
fn of_many_writes_for_one_version_one_is_made() {
    let node = node(POLICY);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let node = &node;
        let put = |i: usize| {
            node.send(&with_if_match("PUT", &format!("/v1/tiers/t{i}"), "\"1\"", &json!({}))).status
        };
        let writers: Vec<_> = (0..16).map(|i| scope.spawn(move || put(i))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let count = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(200), count(412), version(&node)), (1, 15, 2));
    assert_eq!(document(&node)["tiers"].as_object().unwrap().len(), 4);
}

#[test]
fn many_writes_at_once_are_all_made_each_under_a_version_of_its_own() {
    let node = node(POLICY);
    let versions: BTreeSet<u64> = std::thread::scope(|scope| {
        let node = &node;
        let put =
            |i: usize| node.put(&format!("/v1/tenants/t{i}"), json!({"tier": "free"})).version();
        let writers: Vec<_> = (0..16).map(|i| scope.spawn(move || put(i))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(versions, (2..=17).collect());
    assert_eq!(document(&node)["tenants"].as_object().unwrap().len(), 17);
}

#[test]
fn a_dry_run_says_what_would_differ_and_changes_nothing() {
    let node = node(POLICY);
    let mut next = document(&node);
    next["tiers"]["free"]["limits"][0]["limit"] = json!(50);
    next["tiers"]["gold"] = json!({"limits": []});
    next.as_object_mut().unwrap().remove("tier_patterns");
    let answer = node.put("/v1/policy?dry_run=true", next);
    assert_eq!(answer.status, 200, "{answer:?}");
    let (answer, before) = (answer.json(), json!({"pattern": "ent-*", "tier": "pro"}));
    assert_eq!(
        answer,
        json!({"dry_run": true, "version": 1, "changes": [
            {"path": "tier_patterns[ent-*]", "op": "remove", "from": before},
            {"path": "tiers.free.limits[log].limit", "op": "change", "from": 100, "to": 50},
            {"path": "tiers.gold", "op": "add", "to": {"limits": []}},
        ]})
    );
    assert_eq!(version(&node), 1);
    assert_eq!(node.check(json!({"tenant": "other"}))["limit"], 100);
    let same = node.put("/v1/policy?dry_run=true", document(&node)).json();
    assert_eq!(same["changes"], json!([]));
}

#[test]
fn a_document_that_can_not_be_is_422_with_the_path_of_every_fault_and_changes_nothing() {
    let node = node(POLICY);
    let bad = json!({
        "default_tier": "gold",
        "reqest_tier": "always",
        "environments": {"development": {"multiplier": 0.5}},
        "limits": [{"name": "global", "algorithm": "fixed_window", "limit": 0, "window": "1m"}],
        "tiers": {"pro": {"limits": [
            {"name": "a", "algorithm": "token_bucket", "rate": "5/s"},
            {"name": "b", "algorithm": "fixed_window", "limit": 1, "window": "5 mins"},
            {"name": "c", "algorithm": "sliding_log", "limit": 10_001, "window": "1m"}]}},
    });
    for path in ["/v1/policy", "/v1/policy?dry_run=true"] {
        let faults: BTreeSet<_> =
            node.put(path, bad.clone()).fault_paths(422).into_iter().collect();
        let expected = [
            "default_tier",
            "environments.development.multiplier",
            "limits[0].limit",
            "limits[0].per",
            "reqest_tier",
            "tiers.pro.limits[1].window",
            "tiers.pro.limits[2].limit",
        ];
        assert_eq!(faults, expected.map(String::from).into_iter().collect(), "{path}");
    }
    // Every tier that is named has to exist.
    let dangling = json!({"default_tier": "gold", "tiers": {"pro": {}}, "tenants": {"acme": {"tier": "iron"}},
                          "tier_patterns": [{"pattern": "x*", "tier": "lead"}]});
    assert_eq!(
        node.put("/v1/policy", dangling).fault_paths(422),
        ["default_tier", "tier_patterns[0].tier", "tenants.acme.tier"]
    );
    assert_eq!(version(&node), 1);
}

#[test]
fn a_body_that_can_not_be_read_is_400() {
    let node = node(POLICY);
    for (kind, body) in [
        ("application/json", "{"),
        ("application/json", ""),
        ("application/toml", "a ="),
        ("", "default_tier = 1"),
    ] {
        node.send(&Request::new("PUT", "/v1/policy").header("content-type", kind).body(body))
            .problem(400);
    }
    node.send(&Request::new("PUT", "/v1/tiers/pro").body("{")).problem(400);
    assert_eq!(version(&node), 1);
}
