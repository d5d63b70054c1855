//! Which tier and which list a check meets, and what an environment makes of the numbers.

use serde_json::{Value, json};

use crate::support::{Request, Setup, instant_in_ms, limit, log, node, policy, sent, wait_ms};

#[test]
fn a_tier_without_limits_answers_unlimited() {
    let node = node(&policy(&[], &[]));
    let answer = node.send(
        &Request::new("POST", "/v1/check")
            .json(&json!({"tenant": "acme", "cost": 4_000_000_000u32})),
    );
    let decision = answer.json();
    assert_eq!(
        decision,
        json!({
            "allowed": true, "tenant": "acme", "tier": "free", "cost": 4_000_000_000u32, "limit": "unlimited",
            "remaining": null, "reset_after_ms": null, "retry_after_ms": null, "denied_by": null, "limits": [],
            "permit": null, "replayed": false, "mode": "exact", "node": "n1",
            "epoch": decision["epoch"], "policy_version": 1,
        })
    );
    assert_eq!((answer.header("ratelimit-policy"), answer.header("ratelimit")), ("", ""));
}

/// One unit for everybody, and an entry on a list for each kind of subject.
fn one_unit_and_a_list(list: &str) -> String {
    let entry = |name: &str, subject: &str| {
        format!("[access.{name}]\nlist = \"{list}\"\n{subject}\nreason = \"because of {name}\"\n")
    };
    [
        policy(&[], &[log("one", r#"["tenant"]"#, 1)]),
        entry("by-tenant", "tenant = \"globex\""),
        entry("by-client", "client = \"root@globex\""),
        entry("by-address", "ip = \"192.0.2.9\""),
        entry("by-range", "ip = \"198.51.100.0/24\""),
        entry("by-range-six", "ip = \"2001:db8::/32\""),
        // The SHA-256 of "s3cret".
        entry(
            "by-key",
            "api_key_sha256 = \"1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0\"",
        ),
    ]
    .concat()
}

/// Whom those entries name, by the entry's name and what it names.
fn listed() -> [(&'static str, &'static str, Value); 7] {
    [
        ("by-tenant", "tenant", json!({"tenant": "globex"})),
        ("by-client", "client", json!({"tenant": "acme", "client": "root@globex"})),
        ("by-address", "ip", json!({"tenant": "acme", "ip": "192.0.2.9"})),
        ("by-address", "ip", json!({"tenant": "acme", "ip": "::ffff:192.0.2.9"})),
        ("by-range", "ip", json!({"tenant": "acme", "ip": "198.51.100.77"})),
        ("by-range-six", "ip", json!({"tenant": "acme", "ip": "2001:db8:1::7"})),
        ("by-key", "api_key", json!({"tenant": "acme", "api_key": "s3cret"})),
    ]
}

#[test]
fn who_is_on_the_allow_list_passes_unjudged_and_is_told_by_which_entry() {
    let node = node(&one_unit_and_a_list("allow"));
    for (entry, _, check) in listed() {
        for _ in 0..3 {
            let answer = node.check(check.clone());
            assert_eq!(
                (&answer["allowed"], &answer["limit"], &answer["remaining"], &answer["limits"]),
                (&json!(true), &json!("unlimited"), &json!(null), &json!([])),
                "{check}"
            );
            assert_eq!(
                answer["bypass"],
                json!({"list": entry, "reason": format!("because of {entry}")})
            );
        }
    }
    // None of them took the one unit of acme, and nobody else is let through.
    assert_eq!(
        node.allowed_of(2, json!({"tenant": "acme", "ip": "192.0.2.10", "api_key": "other"})),
        1
    );
}

#[test]
fn who_is_on_the_deny_list_is_denied_for_good_and_is_told_by_which_entry() {
    let node = node(&one_unit_and_a_list("deny"));
    for (entry, kind, check) in listed() {
        let answer = node.post("/v1/check", check.clone());
        let decision = answer.json();
        assert_eq!(
            (&decision["allowed"], &decision["retry_after_ms"]),
            (&json!(false), &json!(null)),
            "{check}"
        );
        assert_eq!(
            decision["denied_by"],
            json!({"name": entry, "scope": [kind], "reason": "deny_list"})
        );
        assert_eq!(answer.header("retry-after"), "");
        assert_eq!(
            node.post("/v1/check?status=429", check).problem(429)["violated-policies"],
            json!([entry])
        );
    }
    assert_eq!(node.allowed_of(2, json!({"tenant": "acme"})), 1);
}

#[test]
fn a_deny_list_entry_with_an_expiry_says_when_and_ends_then() {
    let node = node(&format!(
        "{}[access.hour]\nlist = \"deny\"\ntenant = \"slow\"\nexpires = \"{}\"\n\
         [access.moment]\nlist = \"deny\"\ntenant = \"quick\"\nexpires = \"{}\"\n\
         [access.gone]\nlist = \"deny\"\ntenant = \"free\"\nexpires = \"2020-01-01T00:00:00Z\"\n",
        policy(&[], &[]),
        instant_in_ms(3_600_000),
        instant_in_ms(3_000),
    ));
    let answer = node.post("/v1/check", json!({"tenant": "slow"}));
    let wait = answer.json()["retry_after_ms"].as_u64().unwrap();
    assert!((3_540_000..=3_600_000).contains(&wait), "{wait}");
    assert_eq!(answer.header("retry-after"), wait.div_ceil(1_000).to_string());
    assert_eq!(node.check(json!({"tenant": "free"}))["allowed"], true);
    let quick = node.check(json!({"tenant": "quick"}));
    // On a machine that took three seconds to start, there is nothing left to wait for.
    wait_ms(quick["retry_after_ms"].as_u64().unwrap_or(0));
    assert_eq!(node.check(json!({"tenant": "quick"}))["allowed"], true, "{quick}");
}

#[test]
fn who_is_on_both_lists_is_denied() {
    let node = node(&format!(
        "{}[access.office]\nlist = \"allow\"\nip = \"192.0.2.0/24\"\n\
         [access.printer]\nlist = \"deny\"\ntenant = \"acme\"\n",
        policy(&[], &[])
    ));
    let answer = node.check(json!({"tenant": "acme", "ip": "192.0.2.1"}));
    assert_eq!(answer["denied_by"]["name"], "printer");
}

/// Three tiers of 1, 2 and 3 units, one tenant by name and one by pattern.
fn three_tiers(request_tier: &str) -> String {
    let tier = |name: &str, most: u64| {
        let limit = log("log", r#"["tenant"]"#, most);
        format!("[tiers.{name}]\nlimits = [{limit}]\n")
    };
    let head = match request_tier {
        "" => "default_tier = \"one\"\n".to_string(),
        word => format!("default_tier = \"one\"\nrequest_tier = \"{word}\"\n"),
    };
    [
        head,
        tier("one", 1),
        tier("two", 2),
        tier("three", 3),
        "[[tier_patterns]]\npattern = \"ent-*\"\ntier = \"two\"\n[tenants.acme]\ntier = \"two\"\n"
            .into(),
    ]
    .concat()
}

fn tier_and_limit(decision: &Value) -> (&str, u64) {
    (decision["tier"].as_str().unwrap(), decision["limit"].as_u64().unwrap())
}

#[test]
fn a_tenants_tier_is_its_own_or_its_patterns_or_the_default_one() {
    let node = node(&three_tiers(""));
    for (tenant, expected) in [("acme", ("two", 2)), ("ent-7", ("two", 2)), ("other", ("one", 1))] {
        assert_eq!(tier_and_limit(&node.check(json!({"tenant": tenant}))), expected, "{tenant}");
    }
}

#[test]
fn the_tier_that_a_request_names_is_used_where_the_policy_says_so() {
    for (request_tier, named, by_pattern, unmapped) in [
        ("", ("two", 2), ("two", 2), ("three", 3)),
        ("if_unmapped", ("two", 2), ("two", 2), ("three", 3)),
        ("always", ("three", 3), ("three", 3), ("three", 3)),
        ("ignore", ("two", 2), ("two", 2), ("one", 1)),
    ] {
        let node = node(&three_tiers(request_tier));
        for (tenant, expected) in [("acme", named), ("ent-7", by_pattern), ("other", unmapped)] {
            let decision = node.check(json!({"tenant": tenant, "tier": "three"}));
            assert_eq!(tier_and_limit(&decision), expected, "{tenant} under {request_tier:?}");
        }
    }
}

#[test]
fn an_unknown_tier_in_a_request_is_422_and_nothing_is_taken() {
    for request_tier in ["if_unmapped", "always"] {
        let node = node(&three_tiers(request_tier));
        let answer = node.post("/v1/check", json!({"tenant": "other", "tier": "gold"}));
        assert_eq!(answer.fault_paths(422), ["tier"]);
        assert_eq!(node.allowed_of(2, json!({"tenant": "other"})), 1);
    }
}

#[test]
fn anonymous_is_charged_by_address() {
    let node = node(&three_tiers(""));
    for ip in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(node.allowed_of(3, json!({"tenant": "anonymous", "ip": ip})), 1, "{ip}");
    }
}

#[test]
fn an_environment_multiplies_every_configured_limit_and_none_that_a_request_brings() {
    let policy = r#"
default_tier = "free"
[environments.development]
multiplier = "0.5"
[[limits]]
name = "everybody"
per = []
algorithm = "sliding_log"
limit = 100
window = "1h"
[tiers.free]
max_concurrent = 5
limits = [
  { name = "bucket", algorithm = "token_bucket", rate = "10/h", burst = 20 },
  { name = "odd", algorithm = "sliding_log", limit = 7, window = "1h" },
  { name = "one", algorithm = "sliding_log", limit = 1, window = "1h" },
]
"#;
    let check = json!({"tenant": "acme", "permit": {}});
    let brought = json!({"tenant": "other", "limits": [sent("mine", 9)]});
    for (environment, concurrency, everybody, bucket, odd, one) in
        [("development", 2, 50, 10, 3, 1), ("production", 5, 100, 20, 7, 1)]
    {
        let node = Setup::policy(policy).environment(environment).start();
        let decision = node.check(check.clone());
        for (name, most) in [
            ("concurrency", concurrency),
            ("everybody", everybody),
            ("bucket", bucket),
            ("odd", odd),
            ("one", one),
        ] {
            assert_eq!(limit(&decision, name)["limit"], most, "{name} in {environment}");
        }
        // Half the burst at half the rate takes as long to fill.
        assert_eq!(limit(&decision, "bucket")["window_ms"], 7_200_000);
        assert_eq!(limit(&node.check(brought.clone()), "mine")["limit"], 9);
    }
}
