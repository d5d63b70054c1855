//! The policy edited part by part.

use serde_json::json;

use super::POLICY;
use crate::support::{Setup, document, eventually, instant_in_ms, limit, node, sent, version};

#[test]
fn a_tier_is_put_read_and_deleted() {
    let node = node(POLICY);
    let gold = json!({"max_concurrent": 5, "weight": "1.5", "limits": [sent("log", 7)]});
    assert_eq!(node.put("/v1/tiers/gold", gold).version(), 2);
    let read = node.get("/v1/tiers/gold");
    assert_eq!((read.status, read.header("etag")), (200, "\"2\""));
    assert_eq!(
        read.json(),
        json!({"max_concurrent": 5, "weight": "1.5",
               "limits": [{"name": "log", "per": ["tenant"], "algorithm": "sliding_log", "limit": 7, "window": "1h"}]})
    );
    assert_eq!(node.check(json!({"tenant": "x", "tier": "gold"}))["limit"], 7);
    assert_eq!(node.put("/v1/tiers/gold", json!({})).version(), 3);
    assert_eq!(node.check(json!({"tenant": "x", "tier": "gold"}))["limit"], "unlimited");
    assert_eq!(node.delete("/v1/tiers/gold").version(), 4);
    node.get("/v1/tiers/gold").problem(404);
    node.delete("/v1/tiers/gold").problem(404);
    node.post("/v1/check", json!({"tenant": "x", "tier": "gold"})).problem(422);
}

#[test]
fn a_tier_that_is_used_can_not_be_deleted() {
    let node = node(POLICY);
    assert_eq!(node.delete("/v1/tiers/free").fault_paths(422), ["default_tier"]);
    assert_eq!(
        node.delete("/v1/tiers/pro").fault_paths(422),
        ["tier_patterns[0].tier", "tenants.acme.tier"]
    );
    assert_eq!(version(&node), 1);
    assert_eq!(node.delete("/v1/tiers/spare").version(), 2);
}

#[test]
fn a_tenants_rules_are_put_and_deleted_and_act_on_the_next_check() {
    let node = node(POLICY);
    let limit_of = |tenant: &str| node.check(json!({"tenant": tenant}))["limit"].clone();
    assert_eq!(limit_of("globex"), 100);
    assert_eq!(node.put("/v1/tenants/globex", json!({"tier": "pro"})).version(), 2);
    assert_eq!(limit_of("globex"), 1000);
    assert_eq!(node.delete("/v1/tenants/globex").version(), 3);
    assert_eq!(limit_of("globex"), 100);
    node.delete("/v1/tenants/globex?keep_state").problem(404);
    assert_eq!(node.put("/v1/tenants/globex", json!({"tier": "gold"})).fault_paths(422), ["tier"]);
    assert_eq!(version(&node), 3);
}

#[test]
fn a_tenants_limit_is_put_replaced_and_deleted() {
    let node = node(POLICY);
    let limits = |tenant: &str| document(&node)["tenants"][tenant]["limits"].clone();
    assert_eq!(node.put("/v1/tenants/globex/limits/log", sent("log", 5)).version(), 2);
    assert_eq!(node.check(json!({"tenant": "globex"}))["limit"], 5);
    // One for an action stands beside the one for all.
    let mut export = sent("log", 2);
    export["match"] = json!({"action": "export"});
    node.put("/v1/tenants/globex/limits/log", export).version();
    node.put("/v1/tenants/globex/limits/log", sent("log", 6)).version();
    assert_eq!(limits("globex").as_array().unwrap().len(), 2);
    assert_eq!(node.check(json!({"tenant": "globex"}))["limit"], 6);
    assert_eq!(node.check(json!({"tenant": "globex", "action": "export"}))["limit"], 2);
    // Both are gone with the name.
    node.delete("/v1/tenants/globex/limits/log").version();
    assert_eq!(limits("globex"), json!(null));
    assert_eq!(node.check(json!({"tenant": "globex", "action": "export"}))["limit"], 100);
    node.delete("/v1/tenants/globex/limits/log").problem(404);
    node.delete("/v1/tenants/nobody/limits/log").problem(404);
}

#[test]
fn the_faults_of_a_part_are_named_by_their_paths_in_it() {
    let node = node(POLICY);
    for (path, body, faults) in [
        ("/v1/tenants/a/limits/log", sent("other", 5), vec!["name"]),
        (
            "/v1/tenants/a/limits/log",
            json!({"algorithm": "sliding_log", "limit": 0, "window": "1"}),
            vec!["limit", "window"],
        ),
        ("/v1/tenants/a/limits/concurrency", sent("concurrency", 5), vec!["name"]),
        (
            "/v1/tenants/a",
            json!({"tier": "pro", "tire": 1, "tier_expires": "soon"}),
            vec!["tier_expires", "tire"],
        ),
        ("/v1/tenants/a", json!({"tier_expires": "2030-01-01T00:00:00Z"}), vec!["tier_expires"]),
        (
            "/v1/tiers/a",
            json!({"max_concurrent": 0, "weight": 2}),
            vec!["weight", "max_concurrent"],
        ),
    ] {
        assert_eq!(node.put(path, body.clone()).fault_paths(422), faults, "{path} {body}");
    }
    for path in ["/v1/tenants/a%20b", "/v1/tiers/a:b", "/v1/tenants/a/limits/a%2Fb"] {
        node.put(path, json!({})).problem(400);
    }
    assert_eq!(version(&node), 1);
}

#[test]
fn a_changed_limit_acts_on_the_next_check_and_what_is_spent_stays_spent() {
    for (most_is, rule) in [
        ("limit", json!({"algorithm": "sliding_log", "window": "1h"})),
        ("limit", json!({"algorithm": "fixed_window", "window": "52w"})),
        ("limit", json!({"algorithm": "sliding_window", "window": "52w"})),
        ("limit", json!({"algorithm": "quota", "period": "month"})),
        ("burst", json!({"algorithm": "token_bucket", "rate": "1/d"})),
        ("burst", json!({"algorithm": "leaky_bucket", "rate": "1/d"})),
    ] {
        let node = node(POLICY);
        let put = |most: u64| {
            let mut rule = rule.clone();
            rule[most_is] = json!(most);
            node.put("/v1/tenants/acme/limits/log", rule).version();
        };
        put(100);
        assert_eq!(node.check(json!({"tenant": "acme", "cost": 60}))["remaining"], 40, "{rule}");
        put(200);
        assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 140, "{rule}");
        put(50);
        let denied = node.check(json!({"tenant": "acme"}));
        assert_eq!(
            (&denied["allowed"], &denied["remaining"]),
            (&json!(false), &json!(0)),
            "{rule}"
        );
        put(61);
        assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 1, "{rule}");
    }
}

#[test]
fn once_a_write_is_answered_every_connection_is_decided_by_it() {
    let node = Setup::policy(POLICY).section("[limits]\nworkers = 4").start();
    let mut clients: Vec<_> = (0..8).map(|_| node.client()).collect();
    for round in 1..=20 {
        let version = node.put("/v1/tenants/acme/limits/log", sent("log", 1_000 + round)).version();
        for client in &mut clients {
            let decision = client.check(&json!({"tenant": "acme"}));
            assert_eq!(
                (&decision["policy_version"], &decision["limit"]),
                (&json!(version), &json!(1_000 + round))
            );
        }
    }
}

#[test]
fn a_tier_with_an_expiry_ends_then_and_the_rest_of_the_rules_stays() {
    let node = node(POLICY);
    let rules =
        |expires: String| json!({"tier": "pro", "tier_expires": expires, "max_concurrent": 3});
    node.put("/v1/tenants/globex", rules(instant_in_ms(3_600_000))).version();
    assert_eq!(node.check(json!({"tenant": "globex"}))["tier"], "pro");
    // Until then the request's own word doesn't count; from then on it does.
    assert_eq!(node.check(json!({"tenant": "globex", "tier": "spare"}))["tier"], "pro");
    node.put("/v1/tenants/globex", rules(instant_in_ms(-1_000))).version();
    assert_eq!(node.check(json!({"tenant": "globex"}))["tier"], "free");
    assert_eq!(node.check(json!({"tenant": "globex", "tier": "spare"}))["tier"], "spare");
    node.put("/v1/tenants/globex", rules(instant_in_ms(1_500))).version();
    eventually("the tier ends", || node.check(json!({"tenant": "globex"}))["tier"] == "free");
    let permit = node.check(json!({"tenant": "globex", "permit": {}}));
    assert_eq!(limit(&permit, "concurrency")["limit"], 3);
}
