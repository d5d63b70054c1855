//! Limits sent with a request, limits of one name, costs, and limits that only look on.

use serde_json::json;

use super::{BURST_AND_HOUR, names};
use crate::support::{Request, limit, log, node, policy, sent};

/// A tier of ten, with what its limits do when a request brings limits of its own.
fn ten_and(request_limits: &str) -> String {
    let limits = policy(&[log("everybody", "[]", 1_000)], &[log("tier", r#"["tenant"]"#, 10)]);
    format!("{limits}{request_limits}\n")
}

#[test]
fn limits_sent_with_a_request_stand_in_for_the_tiers_or_beside_them_or_are_refused() {
    let check = json!({"tenant": "acme", "limits": [sent("sent", 3)]});
    for (word, expected) in [
        ("", vec!["everybody", "sent"]),
        ("request_limits = \"instead\"", vec!["everybody", "sent"]),
        ("request_limits = \"also\"", vec!["everybody", "tier", "sent"]),
    ] {
        let node = node(&ten_and(word));
        let decision = node.check(check.clone());
        assert_eq!(names(&decision), expected, "{word}");
        assert_eq!((&decision["limit"], &decision["remaining"]), (&json!(3), &json!(2)));
        assert_eq!(node.allowed_of(5, check.clone()), 2);
        assert_eq!(names(&node.check(json!({"tenant": "acme"}))), ["everybody", "tier"]);
    }
    let node = node(&ten_and("request_limits = \"refuse\""));
    assert_eq!(node.post("/v1/check", check).fault_paths(422), ["limits"]);
}

#[test]
fn the_bucket_of_a_sent_limit_is_its_name_and_scope_and_its_numbers_are_each_requests_own() {
    let node = node(&ten_and(""));
    let check = |name: &str, most: u64, client: &str| {
        json!({"tenant": "acme", "client": client, "cost": 6, "limits": [
            {"name": name, "per": ["tenant", "client"], "algorithm": "sliding_log", "limit": most, "window": "1h"}]})
    };
    for (name, most, client, allowed, remaining) in [
        ("adhoc", 10, "ann", true, 4),
        ("adhoc", 20, "ann", true, 8),
        ("adhoc", 10, "ann", false, 0),
        ("adhoc", 10, "bob", true, 4),
        ("other", 10, "ann", true, 4),
    ] {
        let decision = node.check(check(name, most, client));
        assert_eq!(
            (&decision["allowed"], &limit(&decision, name)["remaining"]),
            (&json!(allowed), &json!(remaining)),
            "{name} of {most} for {client}"
        );
    }
}

#[test]
fn a_configured_limit_of_the_tenant_action_or_client_overrides_the_one_sent_and_the_tiers_does_not()
{
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "adhoc", algorithm = "sliding_log", limit = 99, window = "1h" }]
[tenants.by-tenant]
limits = [{ name = "adhoc", algorithm = "sliding_log", limit = 4, window = "1h" }]
[tenants.by-action]
limits = [{ name = "adhoc", match = { action = "export" }, algorithm = "sliding_log", limit = 5, window = "1h" }]
[tenants.by-client]
limits = [{ name = "adhoc", match = { client = "ann" }, algorithm = "sliding_log", limit = 6, window = "1h" }]
"#,
    );
    for (tenant, client, action, most) in [
        ("by-nothing", "ann", "export", 50),
        ("by-tenant", "ann", "export", 4),
        ("by-action", "ann", "export", 5),
        ("by-action", "ann", "import", 50),
        ("by-client", "ann", "export", 6),
        ("by-client", "bob", "export", 50),
    ] {
        let decision = node.check(
            json!({"tenant": tenant, "client": client, "action": action, "limits": [sent("adhoc", 50)]}),
        );
        assert_eq!(names(&decision), ["adhoc"], "{tenant} {client} {action}");
        assert_eq!(decision["limit"], most, "{tenant} {client} {action}");
    }
}

#[test]
fn the_most_specific_limit_of_a_name_counts_client_over_action_over_tenant_over_tier_over_everybody()
 {
    let node = node(
        r#"
default_tier = "free"
[[limits]]
name = "x"
per = ["tenant"]
algorithm = "sliding_log"
limit = 1
window = "1h"
[tiers.free]
[tiers.pro]
limits = [{ name = "x", algorithm = "sliding_log", limit = 2, window = "1h" }]
[tenants.acme]
tier = "pro"
limits = [
  { name = "x", algorithm = "sliding_log", limit = 3, window = "1h" },
  { name = "x", match = { action = "export" }, algorithm = "sliding_log", limit = 4, window = "1h" },
  { name = "x", match = { client = "ann" }, algorithm = "sliding_log", limit = 5, window = "1h" },
  { name = "x", match = { action = "export", client = "ann" }, algorithm = "sliding_log", limit = 6, window = "1h" },
]
"#,
    );
    for (check, most) in [
        (json!({"tenant": "other"}), 1),
        (json!({"tenant": "other", "tier": "pro"}), 2),
        (json!({"tenant": "acme"}), 3),
        (json!({"tenant": "acme", "action": "export"}), 4),
        (json!({"tenant": "acme", "client": "ann"}), 5),
        (json!({"tenant": "acme", "client": "ann", "action": "export"}), 6),
    ] {
        let decision = node.check(check.clone());
        assert_eq!((names(&decision), &decision["limit"]), (vec!["x"], &json!(most)), "{check}");
    }
}

#[test]
fn an_endpoints_cost_times_the_tiers_multiplier_is_rounded_up_and_at_least_one() {
    let node = node(
        r#"
default_tier = "free"
default_cost = 2
[tiers.free]
[tiers.half]
cost_multiplier = "0.5"
[tiers.tenth]
cost_multiplier = "0.1"
[tiers.dear]
cost_multiplier = "1.5"
[[costs]]
method = "POST"
path = "/ocr/process"
cost = 10
[[costs]]
path = "/ocr/{kind}"
cost = 3
"#,
    );
    let call = |method: &str, path: &str| json!({"method": method, "path": path});
    for (check, free, half, tenth, dear) in [
        (call("POST", "/ocr/process"), 10, 5, 1, 15),
        (call("post", "/ocr/process?pages=2"), 10, 5, 1, 15),
        (call("GET", "/ocr/process"), 3, 2, 1, 5),
        (call("GET", "/elsewhere"), 2, 1, 1, 3),
        (json!({}), 2, 1, 1, 3),
        (json!({"cost": 7, "method": "POST", "path": "/ocr/process"}), 7, 4, 1, 11),
    ] {
        for (tier, cost) in [("free", free), ("half", half), ("tenth", tenth), ("dear", dear)] {
            let mut check = check.clone();
            check["tenant"] = json!("acme");
            check["tier"] = json!(tier);
            assert_eq!(node.check(check.clone())["cost"], cost, "{check}");
        }
    }
}

#[test]
fn what_a_check_costs_is_taken_from_every_limit() {
    let node = node(BURST_AND_HOUR);
    let decision = node.check(json!({"tenant": "acme", "cost": 4}));
    assert_eq!(limit(&decision, "burst")["remaining"], 6);
    assert_eq!(limit(&decision, "hour")["remaining"], 96);
}

#[test]
fn a_shadow_limit_is_judged_and_reported_and_never_denies() {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "real", algorithm = "sliding_log", limit = 5, window = "1h" },
  { name = "shadow", algorithm = "sliding_log", limit = 2, window = "1h", enforce = false },
]
"#,
    );
    for (remaining, would_deny) in [(1, false), (0, false), (0, true), (0, true)] {
        let answer = node.post("/v1/check", json!({"tenant": "acme"}));
        let decision = answer.json();
        assert_eq!(
            (&decision["allowed"], &decision["limit"]),
            (&json!(true), &json!(5)),
            "{decision}"
        );
        let shadow = limit(&decision, "shadow");
        assert_eq!(
            (&shadow["remaining"], &shadow["would_deny"]),
            (&json!(remaining), &json!(would_deny)),
            "{decision}"
        );
        assert!(limit(&decision, "real").get("would_deny").is_none());
        assert_eq!(answer.header("ratelimit-policy"), r#""real";q=5;w=3600"#);
    }
    assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 1);
    let denied = node.check(json!({"tenant": "acme"}));
    assert_eq!(denied["denied_by"]["name"], "real");
}

#[test]
fn the_kill_switch_lets_everything_through_and_still_says_what_would_have_been_denied() {
    let node = node(
        r#"
default_tier = "free"
enforce = false
[[limits]]
name = "everybody"
per = []
algorithm = "sliding_log"
limit = 1
window = "1h"
[tiers.free]
max_concurrent = 1
limits = [{ name = "own", algorithm = "sliding_log", limit = 1, window = "1h" }]
"#,
    );
    let check = json!({"tenant": "acme", "permit": {}});
    let bringing = json!({"tenant": "acme", "limits": [sent("sent", 1)]});
    assert_eq!(node.allowed_of(2, bringing), 2);
    node.check(check.clone());
    let second = node.check(check);
    assert_eq!((&second["allowed"], &second["denied_by"]), (&json!(true), &json!(null)));
    assert!(second["permit"]["id"].is_string());
    for name in ["concurrency", "everybody", "own"] {
        assert_eq!(limit(&second, name)["would_deny"], true, "{name}");
    }
}

#[test]
fn the_kill_switch_is_thrown_and_put_back_while_the_node_runs() {
    let policy = policy(&[], &[log("own", r#"["tenant"]"#, 1)]);
    let node = node(&policy);
    let put = |text: &str| {
        let request =
            Request::new("PUT", "/v1/policy").header("content-type", "application/toml").body(text);
        node.send(&request).version()
    };
    assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 1);
    put(&format!("enforce = false\n{policy}"));
    assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 3);
    put(&policy);
    assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 0);
}
