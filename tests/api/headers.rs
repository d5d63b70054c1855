//! What the policy's `[responses]` makes of the headers of an answer and of the body of a denial.
//! Structured fields are read with a parser that is not ours; `support` panics where an answer has
//! a header twice.

use serde_json::{Value, json};
use sfv::{BareItem, ListEntry, Parser};

use crate::support::{Answer, Node, Request, Setup, node, unix_seconds, wait_ms};

/// Three a minute, a hundred an hour, two in flight; a tier without limits; one who is banned and
/// one who is let through.
const LIMITS: &str = r#"
default_tier = "pro"
[tiers.pro]
max_concurrent = 2
limits = [
  { name = "hour", algorithm = "sliding_log", limit = 100, window = "1h" },
  { name = "minute", per = ["tenant", "client"], algorithm = "sliding_log", limit = 3, window = "1m" },
]
[tiers.free]
[access.banned]
list = "deny"
tenant = "mallory"
[access.friend]
list = "allow"
tenant = "bob"
"#;

const ALL: &str = r#"headers = ["draft8", "legacy", "x", "per_window"]"#;

fn with(responses: &str) -> String {
    format!("{LIMITS}[responses]\n{responses}\n")
}

fn check(node: &Node, check: Value) -> Answer {
    node.post("/v1/check", check)
}

/// The names of an answer's headers that are about limits.
fn names(answer: &Answer) -> Vec<&str> {
    let about = |name: &&str| name.contains("ratelimit") || *name == "retry-after";
    answer.headers.keys().map(String::as_str).filter(about).collect()
}

fn number(answer: &Answer, name: &str) -> u64 {
    let item: sfv::Item =
        Parser::new(answer.header(name)).parse().unwrap_or_else(|e| panic!("{name}: {e}"));
    integer(&item.bare_item)
}

fn integer(item: &BareItem) -> u64 {
    let BareItem::Integer(number) = item else { panic!("{item:?} is no integer") };
    u64::try_from(i64::from(*number)).unwrap()
}

/// The items of a list of named limits, each with its integers.
fn limits(answer: &Answer, name: &str) -> Vec<(String, Vec<(String, u64)>)> {
    let list: sfv::List =
        Parser::new(answer.header(name)).parse().unwrap_or_else(|e| panic!("{name}: {e}"));
    let item = |entry: ListEntry| {
        let ListEntry::Item(item) = entry else { panic!("{entry:?} is no item") };
        let BareItem::String(name) = item.bare_item else { panic!("a name that is no string") };
        let whole =
            item.params.into_iter().filter(|(_, value)| matches!(value, BareItem::Integer(_)));
        (
            name.as_str().to_string(),
            whole.map(|(key, value)| (key.as_str().to_string(), integer(&value))).collect(),
        )
    };
    list.into_iter().map(item).collect()
}

fn parameter(limits: &[(String, Vec<(String, u64)>)], limit: &str, key: &str) -> u64 {
    let (_, parameters) = limits.iter().find(|(name, _)| name == limit).unwrap();
    parameters.iter().find(|(name, _)| name == key).unwrap().1
}

fn put_policy(node: &Node, toml: &str) -> Answer {
    let put =
        Request::new("PUT", "/v1/policy").header("content-type", "application/toml").body(toml);
    node.send(&put)
}

// ------------------------------------------------------------------------------------------- the
// dialects

#[test]
fn the_drafts_lists_show_every_limit_on_allow_and_on_deny() {
    let node = node(LIMITS);
    let allowed = check(&node, json!({"tenant": "acme", "permit": {"ttl_ms": 60_000}}));
    assert_eq!(names(&allowed), ["ratelimit", "ratelimit-policy"]);
    let (policies, states) = (limits(&allowed, "ratelimit-policy"), limits(&allowed, "ratelimit"));
    for (limit, quota, window, left) in [("hour", 100, 3_600, 99), ("minute", 3, 60, 2)] {
        assert_eq!(parameter(&policies, limit, "q"), quota);
        assert_eq!(parameter(&policies, limit, "w"), window);
        assert_eq!(parameter(&states, limit, "r"), left);
        assert!((window - 30..=window).contains(&parameter(&states, limit, "t")), "{allowed:?}");
    }
    assert_eq!(
        (parameter(&policies, "concurrency", "q"), parameter(&states, "concurrency", "r")),
        (2, 1),
        "{allowed:?}"
    );
    assert!(
        allowed
            .header("ratelimit-policy")
            .contains(r#""concurrency";q=2;qu="concurrent-requests""#)
    );

    let denied = check(&node, json!({"tenant": "acme", "cost": 3}));
    assert_eq!(names(&denied), ["ratelimit", "ratelimit-policy", "retry-after"]);
    let states = limits(&denied, "ratelimit");
    assert_eq!(parameter(&states, "minute", "r"), 2);
    assert!(number(&denied, "retry-after") >= parameter(&states, "minute", "t"));
    assert!((30..=60).contains(&number(&denied, "retry-after")), "{denied:?}");
}

#[test]
fn the_older_three_show_the_tightest_limit_with_a_reset_in_seconds_from_now() {
    let node = node(&with(r#"headers = ["legacy"]"#));
    let three = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
    let allowed = check(&node, json!({"tenant": "acme", "cost": 3}));
    assert_eq!(names(&allowed), three);
    assert_eq!((number(&allowed, three[0]), number(&allowed, three[1])), (3, 0));
    assert!((30..=60).contains(&number(&allowed, three[2])), "{allowed:?}");
    let denied = check(&node, json!({"tenant": "acme"}));
    assert_eq!(names(&denied), [&three[..], &["retry-after"]].concat());
    assert_eq!(number(&denied, three[2]), number(&denied, "retry-after"));
}

#[test]
fn the_x_headers_say_who_was_limited_by_what_and_until_when() {
    let node = node(&with(r#"headers = ["x"]"#));
    let before = unix_seconds();
    let allowed = check(&node, json!({"tenant": "acme", "client": "ann", "cost": 2}));
    let all = ["limit", "remaining", "reset", "scope", "tenant", "tier", "used"];
    assert_eq!(names(&allowed), all.map(|name| format!("x-ratelimit-{name}")));
    for (name, value) in [("limit", 3), ("remaining", 1), ("used", 2)] {
        assert_eq!(number(&allowed, &format!("x-ratelimit-{name}")), value, "{name}");
    }
    assert!((before + 59..=unix_seconds() + 61).contains(&number(&allowed, "x-ratelimit-reset")));
    let texts = |answer: &Answer| {
        ["scope", "tenant", "tier", "error"]
            .map(|name| answer.header(&format!("x-ratelimit-{name}")).to_string())
    };
    assert_eq!(texts(&allowed), ["tenant,client", "acme", "pro", ""]);
    let denied = check(&node, json!({"tenant": "acme", "client": "ann", "cost": 2}));
    assert_eq!(texts(&denied), ["tenant,client", "acme", "pro", "rate_limit_exceeded"]);
    assert!(names(&denied).contains(&"retry-after"));

    put_policy(&node, &with("headers = [\"x\"]\nx_reset = \"delta\"")).version();
    let denied = check(&node, json!({"tenant": "acme", "client": "ann", "cost": 2}));
    assert_eq!(number(&denied, "x-ratelimit-reset"), number(&denied, "retry-after"));
}

#[test]
fn the_headers_per_window_show_the_minute_the_hour_and_what_may_be_in_flight() {
    let node = node(&with(r#"headers = ["per_window"]"#));
    let allowed = check(&node, json!({"tenant": "acme"}));
    let numbers = [
        ("concurrent-limit", 2),
        ("limit-hour", 100),
        ("limit-minute", 3),
        ("remaining-hour", 99),
        ("remaining-minute", 2),
    ];
    let all: Vec<_> =
        numbers.iter().map(|(name, _)| *name).chain(["reset", "tenant", "tier"]).collect();
    assert_eq!(
        names(&allowed),
        all.iter().map(|name| format!("x-ratelimit-{name}")).collect::<Vec<_>>()
    );
    for (name, value) in numbers {
        assert_eq!(number(&allowed, &format!("x-ratelimit-{name}")), value, "{name}");
    }
    let denied = check(&node, json!({"tenant": "acme", "cost": 3}));
    assert_eq!(denied.header("x-ratelimit-error"), "rate_limit_exceeded");
    assert!(number(&denied, "retry-after") <= 60);
}

#[test]
fn all_dialects_stand_side_by_side() {
    let node = node(&with(ALL));
    let allowed = check(&node, json!({"tenant": "acme"}));
    assert_eq!(names(&allowed).len(), 2 + 3 + 7 + 5, "{:?}", names(&allowed));
    let denied = check(&node, json!({"tenant": "acme", "cost": 3}));
    assert_eq!(names(&denied).len(), 2 + 3 + 7 + 5 + 2, "{:?}", names(&denied));
    let waits = [
        parameter(&limits(&denied, "ratelimit"), "minute", "t"),
        number(&denied, "ratelimit-reset"),
        number(&denied, "retry-after"),
    ];
    assert!(waits.iter().all(|wait| *wait == waits[0]), "{waits:?}");
}

#[test]
fn without_any_dialect_a_denial_still_says_when_to_come_back() {
    let node = node(&with("headers = []"));
    assert!(names(&check(&node, json!({"tenant": "acme", "cost": 3}))).is_empty());
    let denied = check(&node, json!({"tenant": "acme"}));
    assert_eq!(names(&denied), ["retry-after"]);
    // A cost that never fits has no wait.
    assert!(names(&check(&node, json!({"tenant": "acme", "cost": 4}))).is_empty());
}

#[test]
fn who_waits_as_long_as_retry_after_says_is_admitted() {
    let node = node(
        "default_tier = \"free\"\n[responses]\nheaders = [\"legacy\"]\n[tiers.free]\n\
         limits = [{ name = \"rate\", algorithm = \"token_bucket\", rate = \"2/s\", burst = 3 }]\n",
    );
    let mut client = node.client();
    let ask = Request::new("POST", "/v1/check").json(&json!({"tenant": "acme", "cost": 3}));
    // However slow the machine is, some of a hundred at a stretch are denied.
    let denied = (0..100)
        .map(|_| client.send(&ask))
        .find(|answer| answer.json()["allowed"] == false)
        .unwrap();
    let seconds = number(&denied, "retry-after");
    assert!((1..=2).contains(&seconds), "{seconds}");
    wait_ms(seconds * 1_000);
    assert_eq!(client.send(&ask).json()["allowed"], true, "after {seconds} s");
}

#[test]
fn every_reason_has_its_word() {
    let toml = format!(
        "{}[tiers.daily]\nlimits = [{{ name = \"day\", algorithm = \"quota\", limit = 1, period = \
         \"day\" }}]\n",
        with(r#"headers = ["x"]"#)
    );
    let node = node(&toml);
    check(&node, json!({"tenant": "globex", "tier": "daily"}));
    for _ in 0..2 {
        check(&node, json!({"tenant": "initech", "tier": "pro", "permit": {"ttl_ms": 60_000}}));
    }
    for (ask, word, scope) in [
        (json!({"tenant": "globex", "tier": "daily"}), "quota_exceeded", "tenant"),
        (
            json!({"tenant": "initech", "permit": {"ttl_ms": 60_000}}),
            "concurrent_limit_exceeded",
            "tenant",
        ),
        (json!({"tenant": "acme", "cost": 101}), "cost_exceeds_capacity", "tenant"),
        (json!({"tenant": "mallory"}), "access_denied", "tenant"),
    ] {
        let denied = check(&node, ask);
        assert_eq!(denied.json()["allowed"], false);
        assert_eq!(
            (denied.header("x-ratelimit-error"), denied.header("x-ratelimit-scope")),
            (word, scope),
            "{denied:?}"
        );
    }
}

#[test]
fn where_there_is_no_limit_there_are_no_numbers_and_tenant_and_tier_stay() {
    let node = node(&with(ALL));
    let unlimited = check(&node, json!({"tenant": "acme", "tier": "free"}));
    assert_eq!(names(&unlimited), ["x-ratelimit-tenant", "x-ratelimit-tier"]);
    assert_eq!(unlimited.header("x-ratelimit-tier"), "free");
    // A list decides before any tier is looked up.
    assert_eq!(names(&check(&node, json!({"tenant": "bob"}))), ["x-ratelimit-tenant"]);
    assert_eq!(
        names(&check(&node, json!({"tenant": "mallory"}))),
        ["x-ratelimit-error", "x-ratelimit-scope", "x-ratelimit-tenant"]
    );
}

#[test]
fn the_largest_limit_there_is_has_as_many_digits_as_a_header_can_carry() {
    let toml = format!(
        "default_tier = \"free\"\n[responses]\n{ALL}\n[environments.load-test]\nmultiplier = \
         \"1000000\"\n[tiers.free]\nlimits = [{{ name = \"huge\", algorithm = \"fixed_window\", \
         limit = 999999999999999, window = \"1h\" }}]\n"
    );
    let node = Setup::policy(&toml).environment("load-test").start();
    let answer = check(&node, json!({"tenant": "acme", "cost": 4_294_967_295u32}));
    assert_eq!(parameter(&limits(&answer, "ratelimit-policy"), "huge", "q"), 999_999_999_999_999);
    for name in ["ratelimit-limit", "x-ratelimit-limit", "x-ratelimit-limit-hour"] {
        assert_eq!(number(&answer, name), 999_999_999_999_999, "{name}");
    }
    assert_eq!(number(&answer, "x-ratelimit-remaining"), 999_995_705_032_704);
    assert_eq!(number(&answer, "x-ratelimit-used"), 4_294_967_295);
}

#[test]
fn the_calls_that_bring_their_limit_along_have_the_same_headers() {
    let node = node(&with(r#"headers = ["legacy", "per_window"]"#));
    let answer = node.post(
        "/api/check_and_consume",
        json!({"tenant_id": "acme", "client_id": "ann", "action_type": "export", "max_requests": 2,
               "window_duration_seconds": 60}),
    );
    assert_eq!(number(&answer, "ratelimit-limit"), 2);
    assert_eq!(number(&answer, "x-ratelimit-remaining-minute"), 1);
    let status = node.get("/api/status/acme/ann/export?max_requests=2&window_duration_seconds=60");
    assert_eq!(number(&status, "x-ratelimit-limit-minute"), 2);
}

// ------------------------------------------------------------------------------------------ the
// section

#[test]
fn a_change_of_the_section_holds_from_the_next_answer_on_and_outlives_the_process() {
    let node = node(LIMITS);
    let of = |node: &Node| check(node, json!({"tenant": "acme", "tier": "free"}));
    let before = node.get("/v1/policy").json();
    assert_eq!(before.get("responses"), None);
    assert!(names(&of(&node)).is_empty());

    let mut after = before.clone();
    after["responses"] = json!({"headers": ["x"], "denial_body": "enveloped_code"});
    let differences = node.put("/v1/policy?dry_run=true", after.clone()).json();
    assert_eq!(
        differences["changes"],
        json!([{"path": "responses.denial_body", "op": "add", "to": "enveloped_code"},
               {"path": "responses.headers", "op": "add", "to": ["x"]}]),
        "{differences}"
    );
    for _ in 0..3 {
        node.put("/v1/policy", after.clone()).version();
        assert_eq!(names(&of(&node)), ["x-ratelimit-tenant", "x-ratelimit-tier"]);
        node.put("/v1/policy", before.clone()).version();
        assert!(names(&of(&node)).is_empty());
    }
    node.put("/v1/policy", after.clone()).version();
    let node = node.stop().start();
    assert_eq!(node.get("/v1/policy").json(), after);
    assert_eq!(names(&of(&node)), ["x-ratelimit-tenant", "x-ratelimit-tier"]);
    let toml = node.send(&Request::new("GET", "/v1/policy").header("accept", "application/toml"));
    assert!(toml.body.contains("[responses]"), "{}", toml.body);
}

#[test]
fn a_section_that_makes_no_sense_is_refused_with_every_fault() {
    let node = node(LIMITS);
    let wrong = "headers = [\"x\", \"x\", \"draft9\"]\nx_reset = 1\ndenial_body = \"html\"\nbody = \
                 \"problem\"";
    assert_eq!(
        put_policy(&node, &with(wrong)).fault_paths(422),
        [
            "responses.headers[1]",
            "responses.headers[2]",
            "responses.x_reset",
            "responses.denial_body",
            "responses.body"
        ]
    );
    assert_eq!(node.get("/v1/policy").json().get("responses"), None);
}

// ----------------------------------------------------------------------------------------- denial
// bodies

#[test]
fn a_429_has_the_body_that_the_policy_says_and_the_same_headers_whatever_it_says() {
    let node = node(LIMITS);
    let ask = |node: &Node| {
        node.post("/v1/check?status=429", json!({"tenant": "acme", "client": "ann", "cost": 3}))
    };
    assert_eq!(ask(&node).status, 200);

    let denied = ask(&node);
    let problem = denied.problem(429);
    assert_eq!(
        (&problem["retry_after"], &problem["scope"], &problem["limit"], &problem["instance"]),
        (
            &json!(number(&denied, "retry-after")),
            &json!(["tenant", "client"]),
            &json!(3),
            &json!("/v1/check")
        )
    );
    let plain = names(&denied).iter().map(ToString::to_string).collect::<Vec<_>>();

    for (form, members) in [
        ("enveloped_problem", ["detail", "instance", "retry_after", "title", "type"].as_slice()),
        ("enveloped_code", &["code", "message", "retry_after", "scope"]),
    ] {
        put_policy(&node, &with(&format!("denial_body = \"{form}\""))).version();
        let denied = ask(&node);
        assert_eq!(
            (denied.status, denied.header("content-type")),
            (429, "application/json"),
            "{denied:?}"
        );
        assert_eq!(names(&denied), plain, "{form}");
        let body = denied.json();
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
        let error = body["error"].as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), members);
        assert_eq!(error["retry_after"], number(&denied, "retry-after"));
        // An answer of 200 is the decision itself, whatever the policy says of denials.
        let decision = check(&node, json!({"tenant": "acme", "client": "ann", "cost": 3})).json();
        assert_eq!((&decision["allowed"], decision.get("error")), (&json!(false), None));
    }
    let error = ask(&node).json()["error"].clone();
    assert_eq!(
        (&error["code"], &error["scope"]),
        (&json!("rate_limit_exceeded"), &json!("tenant,client"))
    );
}
