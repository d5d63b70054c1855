//! `POST /v1/check`: what an answer holds, and which limits, tiers, lists and costs decide it.
//!
//! Buckets here refill once an hour or slower, so that no number depends on how long a test takes.

use serde_json::{Value, json};

use crate::support::{
    Request, Setup, instant_in_ms, limit, log, node, policy, sent, take_number, wait_ms,
};

/// Ten at once and a hundred an hour.
const BURST_AND_HOUR: &str = r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "burst", algorithm = "token_bucket", rate = "1/h", burst = 10 },
  { name = "hour", algorithm = "sliding_log", limit = 100, window = "1h" },
]
"#;

// -------------------------------------------------------------------------------- the answer

#[test]
fn an_allowed_answer_has_the_members_of_the_contract_and_no_others() {
    let node = node(BURST_AND_HOUR);
    let answer = node.check(json!({"tenant": "acme", "cost": 3}));
    assert_eq!(
        answer,
        json!({
            "allowed": true, "tenant": "acme", "tier": "free", "cost": 3,
            "limit": 10, "remaining": 7, "reset_after_ms": 10_800_000, "retry_after_ms": null,
            "denied_by": null,
            "limits": [
                {"name": "burst", "scope": ["tenant"], "algorithm": "token_bucket", "limit": 10,
                 "window_ms": 36_000_000, "remaining": 7, "reset_after_ms": 10_800_000, "mode": "exact"},
                {"name": "hour", "scope": ["tenant"], "algorithm": "sliding_log", "limit": 100,
                 "window_ms": 3_600_000, "remaining": 97, "reset_after_ms": 3_600_000, "mode": "exact"},
            ],
            "permit": null, "replayed": false, "mode": "exact", "node": "n1",
            "epoch": answer["epoch"], "policy_version": 1,
        })
    );
    assert!(answer["epoch"].is_u64());
}

#[test]
fn a_denied_answer_has_the_members_of_the_contract_and_no_others() {
    let node = node(BURST_AND_HOUR);
    node.check(json!({"tenant": "acme", "cost": 3}));
    let mut answer = node.check(json!({"tenant": "acme", "cost": 8}));
    // Three units come back in three hours, the one that is missing within the next.
    let retry_after_ms = take_number(&mut answer, "retry_after_ms");
    assert!((3_540_000..=3_600_000).contains(&retry_after_ms), "{retry_after_ms}");
    let reset_after_ms = take_number(&mut answer, "reset_after_ms");
    assert!((10_740_000..=10_800_000).contains(&reset_after_ms), "{reset_after_ms}");
    for (i, most) in [(0, 10_800_000), (1, 3_600_000)] {
        let reset_after_ms = take_number(&mut answer["limits"][i], "reset_after_ms");
        assert!((most - 60_000..=most).contains(&reset_after_ms), "{reset_after_ms}");
    }
    assert_eq!(
        answer,
        json!({
            "allowed": false, "tenant": "acme", "tier": "free", "cost": 8, "limit": 10, "remaining": 7,
            "denied_by": {"name": "burst", "scope": ["tenant"], "reason": "rate"},
            "limits": [
                {"name": "burst", "scope": ["tenant"], "algorithm": "token_bucket", "limit": 10,
                 "window_ms": 36_000_000, "remaining": 7, "mode": "exact"},
                {"name": "hour", "scope": ["tenant"], "algorithm": "sliding_log", "limit": 100,
                 "window_ms": 3_600_000, "remaining": 97, "mode": "exact"},
            ],
            "permit": null, "replayed": false, "mode": "exact", "node": "n1",
            "epoch": answer["epoch"], "policy_version": 1,
        })
    );
}

#[test]
fn an_allowed_answer_shows_the_limit_with_the_least_left_and_of_equals_the_one_with_the_longest_reset()
 {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "a", per = ["tenant", "client"], algorithm = "sliding_log", limit = 5, window = "1m" },
  { name = "b", algorithm = "sliding_log", limit = 8, window = "1h" },
  { name = "c", algorithm = "sliding_log", limit = 8, window = "1m" },
]
"#,
    );
    let top = |answer: Value| {
        (answer["limit"].clone(), answer["remaining"].clone(), answer["reset_after_ms"].clone())
    };
    // a has 4 left, b and c have 7.
    let first = node.check(json!({"tenant": "acme", "client": "ann"}));
    assert_eq!(top(first), (json!(5), json!(4), json!(60_000)));
    // Another client: a has 1 left of its own bucket, b and c have 3.
    let second = node.check(json!({"tenant": "acme", "client": "bob", "cost": 4}));
    assert_eq!(top(second), (json!(5), json!(1), json!(60_000)));
    // A third client: a has 3 left, b and c have 1, and b takes an hour to be whole.
    let third = node.check(json!({"tenant": "acme", "client": "cid", "cost": 2}));
    assert_eq!(top(third), (json!(8), json!(1), json!(3_600_000)));
}

#[test]
fn a_denied_answer_shows_the_denying_limit_with_the_longest_wait_and_names_it() {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "an-hour", algorithm = "sliding_log", limit = 2, window = "1h" },
  { name = "minute", algorithm = "sliding_log", limit = 2, window = "1m" },
  { name = "most-left", algorithm = "sliding_log", limit = 50, window = "1d" },
]
"#,
    );
    assert_eq!(node.allowed_of(2, json!({"tenant": "acme"})), 2);
    let answer = node.check(json!({"tenant": "acme"}));
    assert_eq!(
        answer["denied_by"],
        json!({"name": "an-hour", "scope": ["tenant"], "reason": "rate"})
    );
    assert_eq!((&answer["limit"], &answer["remaining"]), (&json!(2), &json!(0)));
    let retry_after_ms = answer["retry_after_ms"].as_u64().unwrap();
    assert!((3_540_000..=3_600_000).contains(&retry_after_ms), "{answer}");
}

#[test]
fn no_time_to_retry_is_longer_than_any_and_comes_out_on_top() {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "hour", algorithm = "sliding_log", limit = 7, window = "1h" },
  { name = "small", algorithm = "token_bucket", rate = "1000/s", burst = 5 },
]
"#,
    );
    node.check(json!({"tenant": "acme", "cost": 5}));
    let answer = node.check(json!({"tenant": "acme", "cost": 6}));
    assert_eq!(
        (&answer["denied_by"]["name"], &answer["limit"], &answer["retry_after_ms"]),
        (&json!("small"), &json!(5), &json!(null))
    );
}

#[test]
fn a_denial_says_why() {
    let node = node(
        r#"
default_tier = "free"
[tiers.free]
max_concurrent = 1
limits = [
  { name = "small", per = ["tenant"], match = { action = "rate" }, algorithm = "sliding_log", limit = 1, window = "1h" },
  { name = "month", per = ["tenant", "client"], match = { action = "quota" }, algorithm = "quota", limit = 1, period = "month" },
]
[access.banned]
list = "deny"
client = "mallory"
reason = "abuse"
"#,
    );
    for (check, denied_by) in [
        (
            json!({"tenant": "t1", "action": "rate"}),
            json!({"name": "small", "scope": ["tenant"], "reason": "rate"}),
        ),
        (
            json!({"tenant": "t1", "action": "quota", "client": "ann"}),
            json!({"name": "month", "scope": ["tenant", "client"], "reason": "quota"}),
        ),
        (
            json!({"tenant": "t1", "permit": {}}),
            json!({"name": "concurrency", "scope": ["tenant"], "reason": "concurrency"}),
        ),
        (
            json!({"tenant": "t2", "action": "rate", "cost": 2}),
            json!({"name": "small", "scope": ["tenant"], "reason": "cost_exceeds_capacity"}),
        ),
        (
            json!({"tenant": "t2", "client": "mallory"}),
            json!({"name": "banned", "scope": ["client"], "reason": "deny_list"}),
        ),
    ] {
        let first = node.check(check.clone());
        let denied = if first["allowed"] == true { node.check(check) } else { first };
        assert_eq!(denied["denied_by"], denied_by, "{denied}");
    }
}

#[test]
fn a_cost_above_the_capacity_is_denied_for_good_and_takes_nothing() {
    let node = node(BURST_AND_HOUR);
    let answer =
        node.send(&Request::new("POST", "/v1/check").json(&json!({"tenant": "acme", "cost": 11})));
    let decision = answer.json();
    assert_eq!((&decision["allowed"], &decision["retry_after_ms"]), (&json!(false), &json!(null)));
    assert_eq!(decision["denied_by"]["reason"], "cost_exceeds_capacity");
    assert_eq!(answer.header("retry-after"), "");
    assert_eq!(node.check(json!({"tenant": "acme", "cost": 10}))["allowed"], true);
}

#[test]
fn a_denied_check_takes_nothing_from_any_limit() {
    let node = node(BURST_AND_HOUR);
    assert_eq!(node.allowed_of(15, json!({"tenant": "acme"})), 10);
    let denied = node.check(json!({"tenant": "acme"}));
    assert_eq!(limit(&denied, "burst")["remaining"], 0);
    assert_eq!(limit(&denied, "hour")["remaining"], 90);
}

#[test]
fn every_algorithm_admits_exactly_its_number_at_once() {
    for rule in [
        r#"algorithm = "token_bucket", rate = "1/h", burst = 10"#,
        r#"algorithm = "leaky_bucket", rate = "1/h", burst = 10"#,
        r#"algorithm = "fixed_window", limit = 10, window = "52w""#,
        r#"algorithm = "sliding_window", limit = 10, window = "52w""#,
        r#"algorithm = "sliding_log", limit = 10, window = "1h""#,
        r#"algorithm = "quota", limit = 10, period = "month", anchor_day = 15, time_zone = "Europe/Berlin""#,
    ] {
        let node = node(&format!(
            "default_tier = \"free\"\n[tiers.free]\nlimits = [{{ name = \"x\", {rule} }}]\n"
        ));
        assert_eq!(node.allowed_of(12, json!({"tenant": "acme"})), 10, "{rule}");
        assert_eq!(node.allowed_of(1, json!({"tenant": "other"})), 1, "{rule}");
    }
}

#[test]
fn a_caller_that_waits_as_long_as_it_is_told_is_admitted_by_every_algorithm() {
    let node = node(
        r#"
default_tier = "token"
[tiers.token]
limits = [{ name = "x", algorithm = "token_bucket", rate = "2/s", burst = 3 }]
[tiers.leaky]
limits = [{ name = "x", algorithm = "leaky_bucket", rate = "2/s" }]
[tiers.fixed]
limits = [{ name = "x", algorithm = "fixed_window", limit = 3, window = "700ms" }]
[tiers.sliding]
limits = [{ name = "x", algorithm = "sliding_window", limit = 3, window = "700ms" }]
[tiers.log]
limits = [{ name = "x", algorithm = "sliding_log", limit = 3, window = "700ms" }]
"#,
    );
    std::thread::scope(|scope| {
        for tier in ["token", "leaky", "fixed", "sliding", "log"] {
            let node = &node;
            scope.spawn(move || {
                let mut client = node.client();
                let check = json!({"tenant": tier, "tier": tier});
                // However slow the machine is, a hundred at a stretch are too many for each of
                // them.
                let denied = (0..100)
                    .map(|_| client.check(&check))
                    .find(|answer| answer["allowed"] == false);
                let wait = denied.unwrap()["retry_after_ms"].as_u64().unwrap();
                assert!((1..=1_400).contains(&wait), "{tier}: {wait}");
                // One more for a wall clock that is being slewed just now.
                wait_ms(wait + 1);
                assert_eq!(client.check(&check)["allowed"], true, "{tier} after {wait} ms");
            });
        }
    });
}

#[test]
fn the_headers_say_what_the_limits_are_what_is_left_and_when_to_come_back() {
    let node = node(BURST_AND_HOUR);
    let check = Request::new("POST", "/v1/check").json(&json!({"tenant": "acme", "cost": 6}));
    let allowed = node.send(&check);
    assert_eq!(
        (
            allowed.header("ratelimit-policy"),
            allowed.header("ratelimit"),
            allowed.header("retry-after")
        ),
        (
            r#""burst";q=10;w=36000, "hour";q=100;w=3600"#,
            r#""burst";r=4;t=21600, "hour";r=94;t=3600"#,
            ""
        )
    );
    assert_eq!(allowed.header("content-type"), "application/json");
    let denied = node.send(&check);
    assert_eq!(denied.header("ratelimit-policy"), r#""burst";q=10;w=36000, "hour";q=100;w=3600"#);
    // Two more units take two hours, rounded up to a second.
    let seconds = denied.json()["retry_after_ms"].as_u64().unwrap().div_ceil(1_000);
    assert!((7_140..=7_200).contains(&seconds), "{seconds}");
    assert_eq!(denied.header("retry-after"), seconds.to_string());
    assert!(
        denied.header("ratelimit").starts_with(&format!(r#""burst";r=4;t={seconds}, "#)),
        "{denied:?}"
    );
}

#[test]
fn with_status_429_a_denial_is_a_problem_document_with_the_members_of_the_answer() {
    let node = node(BURST_AND_HOUR);
    let check = json!({"tenant": "acme", "cost": 7});
    assert_eq!(node.post("/v1/check?status=429", check.clone()).status, 200);
    let denied = node.check(check.clone());
    let answer = node.post("/v1/check?status=429", check);
    let mut problem = answer.problem(429);
    let seconds = problem["retry_after_ms"].as_u64().unwrap().div_ceil(1_000);
    assert_eq!(answer.header("retry-after"), seconds.to_string());
    for (name, value) in [
        ("type", json!("https://iana.org/assignments/http-problem-types#quota-exceeded")),
        ("status", json!(429)),
        ("instance", json!("/v1/check")),
        ("violated-policies", json!(["burst"])),
        ("retry_after", json!(seconds)),
        ("scope", json!(["tenant"])),
    ] {
        assert_eq!(problem.as_object_mut().unwrap().remove(name), Some(value), "{name}");
    }
    for name in ["title", "detail"] {
        assert!(
            problem.as_object_mut().unwrap().remove(name).is_some_and(|text| text.is_string()),
            "{name}"
        );
    }
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&problem), names(&denied));
    for name in
        ["allowed", "tenant", "tier", "cost", "limit", "remaining", "denied_by", "mode", "node"]
    {
        assert_eq!(problem[name], denied[name], "{name}");
    }
    assert_eq!(
        node.post("/v1/check?status=418", json!({"tenant": "acme"})).fault_paths(400),
        ["status"]
    );
}

// -------------------------------------------------------------------------------- unlimited, and
// lists

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

// -------------------------------------------------------------------------------- tiers

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

// -------------------------------------------------------------------------------- limits and costs

/// A tier of ten, with what its limits do when a request brings limits of its own.
fn ten_and(request_limits: &str) -> String {
    let limits = policy(&[log("everybody", "[]", 1_000)], &[log("tier", r#"["tenant"]"#, 10)]);
    format!("{limits}{request_limits}\n")
}

fn names(decision: &Value) -> Vec<&str> {
    let limits = decision["limits"].as_array().unwrap();
    limits.iter().map(|limit| limit["name"].as_str().unwrap()).collect()
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

// -------------------------------------------------------------------------------- buckets

#[test]
fn a_bucket_is_kept_for_each_value_of_what_a_limit_is_per() {
    for (per, one, other) in [
        (r#"["tenant"]"#, json!({"tenant": "a"}), json!({"tenant": "b"})),
        (r#"["tenant", "client"]"#, json!({"client": "ann"}), json!({"client": "bob"})),
        (r#"["tenant", "action"]"#, json!({"action": "read"}), json!({"action": "write"})),
        (r#"["tenant", "ip"]"#, json!({"ip": "192.0.2.1"}), json!({"ip": "2001:db8::1"})),
        (r#"["tenant", "api_key"]"#, json!({"api_key": "k1"}), json!({"api_key": "k2"})),
        (r#"["tenant", "method"]"#, json!({"method": "GET"}), json!({"method": "PUT"})),
        (r#"["tenant", "path"]"#, json!({"path": "/users/1"}), json!({"path": "/users/2"})),
        (
            r#"["tenant", "endpoint"]"#,
            json!({"method": "GET", "path": "/a"}),
            json!({"method": "PUT", "path": "/a"}),
        ),
        (
            r#"["tenant", "attribute:region"]"#,
            json!({"attributes": {"region": "eu"}}),
            json!({"attributes": {"region": "us"}}),
        ),
        (
            r#"["tenant", "client", "action"]"#,
            json!({"client": "ann", "action": "read"}),
            json!({"client": "ann", "action": "write"}),
        ),
        (r#"["ip"]"#, json!({"ip": "192.0.2.1"}), json!({"ip": "192.0.2.2"})),
        (
            r#"["endpoint", "ip"]"#,
            json!({"path": "/a", "ip": "192.0.2.1"}),
            json!({"path": "/b", "ip": "192.0.2.1"}),
        ),
    ] {
        let node = node(&policy(&[], &[log("x", per, 2)]));
        let of = |check: &Value| {
            let mut check = check.clone();
            if check.get("tenant").is_none() {
                check["tenant"] = json!("acme");
            }
            check
        };
        assert_eq!(node.allowed_of(3, of(&one)), 2, "{per}");
        assert_eq!(node.allowed_of(3, of(&other)), 2, "{per}");
        assert_eq!(node.allowed_of(1, of(&one)), 0, "{per}");
    }
}

#[test]
fn a_limit_with_the_tenant_in_it_is_each_tenants_own_and_one_without_is_shared() {
    let check = |tenant: &str| json!({"tenant": tenant, "ip": "192.0.2.1", "client": "ann"});
    for (per, second) in [
        (r#"["tenant", "ip"]"#, 3),
        (r#"["tenant", "client"]"#, 3),
        (r#"["ip"]"#, 1),
        (r#"["client"]"#, 1),
        ("[]", 1),
    ] {
        let node = node(&policy(&[log("x", per, 3)], &[]));
        assert_eq!(node.allowed_of(2, check("acme")), 2, "{per}");
        assert_eq!(node.allowed_of(4, check("globex")), second, "{per}");
    }
}

#[test]
fn endpoints_that_differ_in_their_ids_share_a_bucket_and_words_do_not() {
    let node = node(&policy(&[], &[log("x", r#"["tenant", "endpoint"]"#, 9)]));
    let remaining = |path: &str| {
        node.check(json!({"tenant": "acme", "method": "GET", "path": path}))["remaining"].clone()
    };
    for (path, left) in [
        ("/users/123", 8),
        ("/users/456?page=2", 7),
        ("/users/550e8400-e29b-41d4-a716-446655440000", 6),
        ("/users/abc123def456", 5),
        ("/users/organizations", 8),
    ] {
        assert_eq!(remaining(path), left, "{path}");
    }
}

#[test]
fn an_address_has_one_bucket_however_it_is_spelled() {
    let node = node(&policy(&[log("x", r#"["ip"]"#, 9)], &[]));
    for (ip, left) in
        [("192.0.2.1", 8), ("::ffff:192.0.2.1", 7), ("2001:db8::1", 8), ("2001:0db8:0000::0001", 7)]
    {
        assert_eq!(node.check(json!({"tenant": "acme", "ip": ip}))["remaining"], left, "{ip}");
    }
}

#[test]
fn leaving_out_a_value_does_not_lift_a_tenants_limit_and_a_shared_one_is_only_for_those_who_carry_it()
 {
    let node = node(
        r#"
default_tier = "free"
[[limits]]
name = "per-ip"
per = ["ip"]
algorithm = "sliding_log"
limit = 2
window = "1h"
[tiers.free]
limits = [{ name = "per-client", per = ["tenant", "client"], algorithm = "sliding_log", limit = 2, window = "1h" }]
"#,
    );
    assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 2);
    let decision = node.check(json!({"tenant": "globex"}));
    assert_eq!(names(&decision), ["per-client"]);
    let with_ip = node.check(json!({"tenant": "globex", "ip": "192.0.2.1", "client": "ann"}));
    assert_eq!(names(&with_ip), ["per-client", "per-ip"]);
}

#[test]
fn beyond_the_cap_on_keys_a_stand_in_decides_and_the_answer_says_so() {
    let node = Setup::policy(&policy(&[], &[log("x", r#"["tenant", "client"]"#, 5)]))
        .section("[limits]\nworkers = 1\nkeys_per_tenant = 2")
        .start();
    for client in ["ann", "bob"] {
        let decision = node.check(json!({"tenant": "acme", "client": client}));
        assert_eq!((&decision["mode"], decision.get("degraded")), (&json!("exact"), None));
    }
    // All further clients share one bucket; nobody is refunded.
    for (client, left) in [("cid", 4), ("dan", 3), ("eve", 2)] {
        let decision = node.check(json!({"tenant": "acme", "client": client}));
        assert_eq!(
            (&decision["mode"], &decision["degraded"]["reason"], &decision["remaining"]),
            (&json!("approximate"), &json!("key_cap"), &json!(left)),
            "{client}"
        );
    }
    assert_eq!(node.check(json!({"tenant": "acme", "client": "ann"}))["remaining"], 3);
}

// -------------------------------------------------------------------------------- what isn't a
// check

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
