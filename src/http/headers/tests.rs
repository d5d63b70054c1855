//! Every dialect, read with a parser of structured fields that is not ours.

use std::sync::Arc;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sfv::{BareItem, ListEntry, Parser};

use super::*;
use crate::check::{Dimension, Exactness, Limit, Match, Name, TenantId};
use crate::limit::{
    Calendar, LeakyBucket, OnExceeded, Period, Quota, Rate, Rule, TokenBucket, WINDOW_MAX, Window,
};
use crate::policy::{Dialects, Document, Responses, XReset};

/// 2026-01-01, and a bit.
const WALL: u64 = 1_767_225_600 * SECOND + 1;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn responses(dialects: &[Dialect], x_reset: XReset) -> Responses {
    let headers = dialects.iter().fold(Dialects::NONE, |all, dialect| all.with(*dialect));
    Responses { headers, x_reset, ..Responses::default() }
}

const ALL: [Dialect; 4] = [Dialect::Draft8, Dialect::Legacy, Dialect::X, Dialect::PerWindow];

/// A tenant `acme` in a tier with five permits.
fn policy(responses: Responses) -> Policy {
    let toml = b"default_tier = \"pro\"\n[tiers.pro]\nmax_concurrent = 5\n[tiers.free]\n";
    Policy::new(1, Document { responses, ..Document::from_toml(toml).unwrap() }, None)
}

fn verdict(limit: &str, rule: Rule, outcome: Outcome, remaining: u64, reset_after: u64) -> Verdict {
    let per = vec![Dimension::Tenant];
    let limit = Limit { name: name(limit), per, when: Match::default(), rule, enforce: true };
    Verdict { limit: Arc::new(limit), outcome, remaining, reset_after, exactness: Exactness::Exact }
}

/// The decision that follows from the verdicts.
fn decision(verdicts: Vec<Verdict>) -> Decision {
    let passes = verdicts.iter().all(|v| matches!(v.outcome, Outcome::Pass | Outcome::Held));
    let mut decision = Decision {
        allowed: true,
        tenant: TenantId::new("acme").unwrap(),
        tier: Some(name("pro")),
        cost: 1,
        verdicts: verdicts.into(),
        denied_by: None,
        retry_after: None,
        permit: None,
        replayed: false,
        bypass: None,
        policy_version: 1,
        epoch: 1,
        node: None,
    };
    if !passes {
        decision.deny();
    }
    decision
}

/// The headers as lines, sorted.
fn written(policy: &Policy, decision: &Decision) -> Vec<String> {
    let mut headers = HeaderMap::new();
    write_under(policy, || WALL, decision, &mut headers);
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

/// 97 of 100 a minute are left, and 12 s until the window's end; of 1000 an hour 901.
fn minute_and_hour() -> Vec<Verdict> {
    let window = |limit, seconds| Rule::SlidingWindow(Window { limit, length: seconds * SECOND });
    vec![
        verdict("hour", window(1_000, 3_600), Outcome::Pass, 901, 412 * SECOND - 1),
        verdict("minute", window(100, 60), Outcome::Pass, 97, 12 * SECOND),
    ]
}

#[test]
fn each_dialect_has_its_headers_and_no_others() {
    let decision = decision(minute_and_hour());
    let of =
        |dialects: &[Dialect], x_reset| written(&policy(responses(dialects, x_reset)), &decision);
    assert_eq!(
        of(&[Dialect::Draft8], XReset::Epoch),
        [
            r#"ratelimit-policy: "hour";q=1000;w=3600, "minute";q=100;w=60"#,
            r#"ratelimit: "hour";r=901;t=412, "minute";r=97;t=12"#,
        ]
    );
    assert_eq!(
        of(&[Dialect::Legacy], XReset::Epoch),
        ["ratelimit-limit: 100", "ratelimit-remaining: 97", "ratelimit-reset: 12"]
    );
    let x = [
        "x-ratelimit-limit: 100",
        "x-ratelimit-remaining: 97",
        "x-ratelimit-reset: 1767225613",
        "x-ratelimit-scope: tenant",
        "x-ratelimit-tenant: acme",
        "x-ratelimit-tier: pro",
        "x-ratelimit-used: 3",
    ];
    assert_eq!(of(&[Dialect::X], XReset::Epoch), x);
    assert_eq!(of(&[Dialect::X], XReset::Delta)[2], "x-ratelimit-reset: 12");
    assert_eq!(
        of(&[Dialect::PerWindow], XReset::Delta),
        [
            "x-ratelimit-concurrent-limit: 5",
            "x-ratelimit-limit-hour: 1000",
            "x-ratelimit-limit-minute: 100",
            "x-ratelimit-remaining-hour: 901",
            "x-ratelimit-remaining-minute: 97",
            "x-ratelimit-reset: 12",
            "x-ratelimit-tenant: acme",
            "x-ratelimit-tier: pro",
        ]
    );
    assert!(of(&[], XReset::Epoch).is_empty());
}

#[test]
fn a_denial_has_its_wait_in_every_dialect_and_its_reason_in_two() {
    let mut verdicts = minute_and_hour();
    verdicts[1].outcome = Outcome::Wait(1_000_000_001);
    verdicts[1].remaining = 0;
    let decision = decision(verdicts);
    let lines =
        |dialect: &[Dialect]| written(&policy(responses(dialect, XReset::Delta)), &decision);
    assert_eq!(lines(&[]), ["retry-after: 2"]);
    let draft8 = r#"ratelimit: "hour";r=901;t=412, "minute";r=0;t=2"#;
    assert!(lines(&[Dialect::Draft8]).contains(&draft8.to_string()));
    assert!(lines(&[Dialect::Legacy]).contains(&"ratelimit-reset: 2".to_string()));
    for dialect in [Dialect::X, Dialect::PerWindow] {
        let lines = lines(&[dialect]);
        for line in
            ["retry-after: 2", "x-ratelimit-error: rate_limit_exceeded", "x-ratelimit-reset: 2"]
        {
            assert!(lines.contains(&line.to_string()), "{line} in {lines:?}");
        }
    }
}

#[test]
fn where_there_is_no_limit_tenant_and_tier_stay() {
    let unlimited = Decision { tier: Some(name("free")), ..decision(Vec::new()) };
    let all = policy(responses(&ALL, XReset::Epoch));
    assert_eq!(written(&all, &unlimited), ["x-ratelimit-tenant: acme", "x-ratelimit-tier: free"]);
    let by_list = Decision { tier: None, ..unlimited };
    assert_eq!(written(&all, &by_list), ["x-ratelimit-tenant: acme"]);
}

#[test]
fn numbers_beyond_fifteen_digits_are_cut_to_fifteen_nines() {
    let huge = Rule::FixedWindow(Window { limit: u64::MAX, length: 60 * SECOND });
    let decision = decision(vec![verdict("m", huge, Outcome::Pass, u64::MAX - 1, u64::MAX)]);
    let lines = written(&policy(responses(&ALL, XReset::Epoch)), &decision);
    for line in [
        r#"ratelimit-policy: "m";q=999999999999999;w=60"#,
        "ratelimit-limit: 999999999999999",
        "x-ratelimit-limit-minute: 999999999999999",
        "x-ratelimit-remaining-minute: 999999999999999",
        "x-ratelimit-used: 1",
    ] {
        assert!(lines.contains(&line.to_string()), "{line} in {lines:?}");
    }
}

#[test]
fn a_rate_is_of_the_minute_if_it_is_so_many_a_minute_and_the_least_that_is_left_counts() {
    let bucket = |count, seconds: u64, burst| {
        let rate = Rate::new(count, seconds * SECOND).unwrap();
        Rule::TokenBucket(TokenBucket { rate, burst, initial: burst })
    };
    let leaky =
        Rule::LeakyBucket(LeakyBucket { rate: Rate::new(30, 3_600 * SECOND).unwrap(), burst: 2 });
    let decision = decision(vec![
        verdict("a", bucket(90, 60, 40), Outcome::Pass, 30, SECOND),
        verdict("b", bucket(10, 60, 20), Outcome::Pass, 19, SECOND),
        verdict("c", bucket(1, 6, 3), Outcome::Pass, 1, SECOND),
        verdict("d", leaky, Outcome::Pass, 2, 0),
    ]);
    let lines = written(&policy(responses(&[Dialect::PerWindow], XReset::Delta)), &decision);
    assert_eq!(
        lines[1..5],
        [
            "x-ratelimit-limit-hour: 2",
            "x-ratelimit-limit-minute: 20",
            "x-ratelimit-remaining-hour: 2",
            "x-ratelimit-remaining-minute: 19",
        ]
    );
}

#[test]
fn limits_that_deny_nothing_are_in_no_header() {
    let mut shadow = minute_and_hour();
    for verdict in &mut shadow {
        Arc::get_mut(&mut verdict.limit).unwrap().enforce = false;
    }
    // Under the kill switch, what may be in flight is a shadow too.
    let mut document = policy(responses(&ALL, XReset::Epoch)).document().clone();
    document.enforce = false;
    let lines = written(&Policy::new(2, document, None), &decision(shadow));
    assert_eq!(lines, ["x-ratelimit-tenant: acme", "x-ratelimit-tier: pro"]);
}

#[test]
fn the_clock_is_asked_only_for_unix_seconds() {
    for (dialects, x_reset) in [
        (&[Dialect::Draft8, Dialect::Legacy][..], XReset::Epoch),
        (&[Dialect::X, Dialect::PerWindow], XReset::Delta),
    ] {
        let mut headers = HeaderMap::new();
        let clock = || unreachable!("nobody needs the time");
        write_under(
            &policy(responses(dialects, x_reset)),
            clock,
            &decision(minute_and_hour()),
            &mut headers,
        );
        assert!(!headers.is_empty());
    }
}

#[test]
fn a_scope_is_one_word() {
    let of = |dimensions: &[&str]| {
        let dimensions: Vec<_> = dimensions.iter().map(|d| Dimension::new(d).unwrap()).collect();
        scope_text(&dimensions).into_owned()
    };
    assert_eq!(of(&[]), "global");
    assert_eq!(of(&["tenant"]), "tenant");
    assert_eq!(of(&["tenant", "attribute:region"]), "tenant,attribute:region");
}

// ---------------------------------------------------------------------------------------- all
// there is

fn any_rule() -> impl Strategy<Value = Rule> {
    let rate = (1..=UNITS_MAX, 1..=WINDOW_MAX)
        .prop_map(|(count, period)| Rate::new(count, period).unwrap());
    let minutes = (1..=UNITS_MAX).prop_map(|count| Rate::new(count, 60 * SECOND).unwrap());
    let rate = prop_oneof![rate, minutes];
    let length = prop_oneof![1..=u64::MAX, Just(60 * SECOND), Just(3_600 * SECOND), Just(1)];
    let window = (1..=u64::MAX, length).prop_map(|(limit, length)| Window { limit, length });
    prop_oneof![
        (rate.clone(), 1..=u64::MAX).prop_map(|(rate, burst)| Rule::TokenBucket(TokenBucket {
            rate,
            burst,
            initial: burst
        })),
        (rate, 1..=u64::MAX)
            .prop_map(|(rate, burst)| Rule::LeakyBucket(LeakyBucket { rate, burst })),
        window.clone().prop_map(Rule::FixedWindow),
        window.clone().prop_map(Rule::SlidingWindow),
        window.prop_map(Rule::SlidingLog),
        (1..=u64::MAX).prop_map(|limit| {
            let calendar = Calendar { period: Period::Day, anchor_day: 1, zone: TimeZone::UTC };
            Rule::Quota(Quota { limit, calendar, on_exceeded: OnExceeded::Deny })
        }),
        (1..=u64::MAX).prop_map(|max| Rule::Concurrency { max }),
    ]
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Pass),
        1 => Just(Outcome::Held),
        2 => any::<u64>().prop_map(Outcome::Wait),
        1 => (0..3 * SECOND).prop_map(Outcome::Wait),
        1 => Just(Outcome::Never),
    ];
    ("[A-Za-z0-9._-]{1,64}", any_rule(), outcome, any::<u64>(), any::<u64>()).prop_map(
        |(name, rule, outcome, remaining, reset_after)| {
            verdict(&name, rule, outcome, remaining, reset_after)
        },
    )
}

/// The items of a list: a string each, with parameters that are integers or strings.
fn items(headers: &HeaderMap, name: &str) -> Vec<(String, Vec<(String, BareItem)>)> {
    let list: sfv::List = Parser::new(headers[name].as_bytes()).parse().unwrap();
    let item = |entry: ListEntry| match entry {
        ListEntry::Item(sfv::Item { bare_item: BareItem::String(name), params }) => (
            name.as_str().to_string(),
            params.into_iter().map(|(key, value)| (key.as_str().to_string(), value)).collect(),
        ),
        other => panic!("{other:?} is no item with a name"),
    };
    list.into_iter().map(item).collect()
}

fn whole(item: &BareItem) -> u64 {
    match item {
        BareItem::Integer(number) => u64::try_from(i64::from(*number)).unwrap(),
        other => panic!("{other:?} is no integer"),
    }
}

fn config() -> ProptestConfig {
    let beside = FileFailurePersistence::SourceParallel("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_header_of_every_dialect_parses_whatever_the_limits_are(
        verdicts in proptest::collection::vec(any_verdict(), 0..5),
        delta in any::<bool>(),
    ) {
        let x_reset = if delta { XReset::Delta } else { XReset::Epoch };
        let decision = decision(verdicts);
        let mut headers = HeaderMap::new();
        write_under(&policy(responses(&ALL, x_reset)), || WALL, &decision, &mut headers);

        if !decision.verdicts.is_empty() {
            let (policies, states) = (items(&headers, "ratelimit-policy"), items(&headers, "ratelimit"));
            prop_assert_eq!(policies.len(), decision.verdicts.len());
            prop_assert_eq!(states.len(), decision.verdicts.len());
            for ((verdict, policy), state) in decision.verdicts.iter().zip(policies).zip(states) {
                prop_assert_eq!(verdict.limit.name.as_str(), &policy.0);
                prop_assert_eq!(verdict.limit.name.as_str(), &state.0);
                let of = |part: &[(String, BareItem)], key: &str| {
                    part.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
                };
                let capped = |number: u64| number.min(999_999_999_999_999);
                prop_assert_eq!(of(&policy.1, "q").as_ref().map(whole), Some(capped(verdict.limit.rule.capacity())));
                prop_assert_eq!(of(&state.1, "r").as_ref().map(whole), Some(capped(verdict.remaining)));
                let window = of(&policy.1, "w").as_ref().map(whole);
                prop_assert!(window.is_none_or(|window| window >= 1));
                prop_assert_eq!(window.is_some(), verdict.limit.rule.window().is_some());
                let concurrency = matches!(verdict.limit.rule, Rule::Concurrency { .. });
                prop_assert_eq!(of(&policy.1, "qu").is_some(), concurrency);
                let again = of(&state.1, "t").as_ref().map(whole).unwrap();
                if let (Outcome::Wait(nanos), Some(after)) = (verdict.outcome, headers.get("retry-after")) {
                    let after = after.to_str().unwrap().parse::<u64>().unwrap();
                    prop_assert!(after >= again.max(1), "retry after {}, t {}", after, again);
                    prop_assert!(u128::from(again) * u128::from(SECOND) >= u128::from(nanos));
                }
            }
        }
        for (name, value) in &headers {
            if ["ratelimit", "ratelimit-policy"].contains(&name.as_str()) {
                continue;
            }
            let text = value.to_str().unwrap();
            match name.as_str() {
                "x-ratelimit-tenant" => prop_assert_eq!(text, "acme"),
                "x-ratelimit-tier" => prop_assert_eq!(text, "pro"),
                "x-ratelimit-scope" => prop_assert_eq!(text, "tenant"),
                "x-ratelimit-error" => prop_assert!(!decision.allowed),
                name => {
                    let item: sfv::Item = Parser::new(value.as_bytes()).parse().unwrap();
                    prop_assert!(whole(&item.bare_item) <= 999_999_999_999_999, "{} {}", name, text);
                }
            }
        }
        prop_assert_eq!(headers.contains_key("retry-after"), decision.retry_after.is_some());
        // A map can hold a name twice; an answer must not.
        prop_assert_eq!(headers.keys_len(), headers.len());
    }
}
