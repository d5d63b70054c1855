//! What an answer holds: its members, its headers, and what each algorithm admits.

use serde_json::{Value, json};

use super::BURST_AND_HOUR;
use crate::support::{Request, limit, node, take_number, wait_ms};

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
