//! The sample policies: each is valid, says what it is there to say, and decides as its comments
//! promise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tidegate::check::{ApiKeyDigest, Check, Cost, Label, Limit, Method, Name, Path, TenantId};
use tidegate::clock::{Now, SECOND};
use tidegate::limit::{Outcome, Rule, State};
use tidegate::placement::Secret;
use tidegate::policy::{
    BucketKey, Document, List, Plan, Policy, Selected, TierSource, limit_to_json,
};

/// Every file in `policies/`, by its name without the extension.
fn samples() -> BTreeMap<String, String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_string();
            (name, std::fs::read_to_string(file).unwrap())
        })
        .collect()
}

fn sample(name: &str) -> Document {
    let text = &samples()[name];
    Document::from_toml(text.as_bytes()).unwrap_or_else(|faults| panic!("{name}: {faults:#?}"))
}

fn policy(name: &str) -> Policy {
    Policy::new(1, sample(name), None)
}

fn secret() -> Secret {
    Secret::new(1, 2)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn check(tenant: &str) -> Check {
    Check::of(TenantId::new(tenant).unwrap())
}

fn call(tenant: &str, method: &str, path: &str) -> Check {
    Check { method: Method::new(method), path: Path::new(path), ..check(tenant) }
}

/// Wall nanoseconds of an instant.
fn wall(instant: &str) -> u64 {
    let instant: jiff::Timestamp = instant.parse().unwrap();
    u64::try_from(instant.as_nanosecond()).unwrap()
}

/// What `check` is planned by at wall time `at`, the tier it names included.
fn plan(policy: &Policy, check: &Check, at: u64) -> Plan {
    let (tier, source, until) = policy.tier_of(&check.tenant, at);
    let (tier, source) = match policy.requested_tier(check, source).unwrap() {
        Some(tier) => (tier.clone(), TierSource::Request),
        None => (tier, source),
    };
    policy.plan(&check.tenant, &tier, source, until, &secret())
}

fn selected_at(policy: &Policy, check: &Check, at: u64) -> Vec<Selected> {
    let mut selected = Vec::new();
    plan(policy, check, at).select(check, &secret(), &mut selected).unwrap();
    selected
}

fn selected(policy: &Policy, check: &Check) -> Vec<Selected> {
    selected_at(policy, check, 0)
}

fn names(selected: &[Selected]) -> Vec<&str> {
    selected.iter().map(|s| s.limit.name.as_str()).collect()
}

fn limit<'s>(selected: &'s [Selected], name: &str) -> &'s Limit {
    let found = selected.iter().find(|s| s.limit.name.as_str() == name);
    &found.unwrap_or_else(|| panic!("no limit {name}")).limit
}

/// A limit's algorithm and numbers, as a person would say them.
fn in_words(limit: &Limit) -> String {
    let json = limit_to_json(limit);
    let text = |member: &str| json[member].as_str().unwrap().to_string();
    let numbers = match &limit.rule {
        Rule::TokenBucket(bucket) if bucket.initial == bucket.burst => {
            format!("{} burst {}", text("rate"), bucket.burst)
        }
        Rule::TokenBucket(bucket) => {
            format!("{} burst {} from {}", text("rate"), bucket.burst, bucket.initial)
        }
        Rule::LeakyBucket(bucket) => format!("{} burst {}", text("rate"), bucket.burst),
        Rule::FixedWindow(window) | Rule::SlidingWindow(window) | Rule::SlidingLog(window) => {
            format!("{} in {}", window.limit, text("window"))
        }
        Rule::Quota(quota) => format!("{} a {}", quota.limit, text("period")),
        Rule::Concurrency { .. } => panic!("max_concurrent is no limit of the document"),
    };
    format!("{} {numbers}", limit.rule.algorithm())
}

#[test]
fn every_sample_is_valid_and_opens_with_two_lines_that_say_what_it_shows() {
    let samples = samples();
    assert!(samples.len() >= 6, "{:?}", samples.keys());
    for (name, text) in samples {
        let document = sample(&name);
        assert!(!document.tiers.is_empty(), "{name}");
        let opening = text.lines().take_while(|line| line.starts_with("# ")).count();
        assert_eq!(opening, 2, "{name}");
    }
}

#[test]
fn every_sample_reads_back_the_same_through_json_and_toml() {
    for name in samples().keys() {
        let document = sample(name);
        let json = document.to_json().to_string();
        assert_eq!(Document::from_json(json.as_bytes()).as_ref(), Ok(&document), "{name}");
        let toml = document.to_toml();
        assert_eq!(Document::from_toml(toml.as_bytes()).as_ref(), Ok(&document), "{name}");
    }
}

/// Sample; tier; weight; permits; limits.
type Row = (&'static str, &'static str, &'static str, Option<u64>, &'static [&'static str]);

const NUMBERS: [Row; 16] = [
    ("builtin", "free", "0.5", Some(50), &["token_bucket 5/s burst 10"]),
    ("builtin", "basic", "0.8", Some(100), &["token_bucket 20/s burst 40"]),
    ("builtin", "premium", "1", Some(500), &["token_bucket 100/s burst 200"]),
    ("builtin", "enterprise", "1.2", Some(1_000), &["token_bucket 500/s burst 1000"]),
    (
        "minute-and-hour-windows",
        "anonymous",
        "1",
        Some(5),
        &["sliding_window 5 in 1m", "sliding_window 50 in 1h", "quota 1000 a month"],
    ),
    (
        "minute-and-hour-windows",
        "starter",
        "1",
        Some(10),
        &["sliding_window 10 in 1m", "sliding_window 100 in 1h", "quota 10000 a month"],
    ),
    (
        "minute-and-hour-windows",
        "professional",
        "1",
        Some(50),
        &["sliding_window 50 in 1m", "sliding_window 1000 in 1h", "quota 100000 a month"],
    ),
    (
        "minute-and-hour-windows",
        "enterprise",
        "1",
        Some(200),
        &["sliding_window 500 in 1m", "sliding_window 10000 in 1h", "quota 1000000 a month"],
    ),
    ("minute-and-hour-windows", "platform_admin", "1", None, &[]),
    ("requests-per-minute", "free", "1", Some(2), &["sliding_log 10 in 1m"]),
    ("requests-per-minute", "pro", "1", Some(20), &["sliding_log 100 in 1m"]),
    ("requests-per-minute", "enterprise", "1", Some(200), &["sliding_log 1000 in 1m"]),
    ("burst-and-sustained", "free", "1", None, &["token_bucket 1/s burst 100"]),
    ("burst-and-sustained", "basic", "1", None, &["token_bucket 10/s burst 500"]),
    ("burst-and-sustained", "premium", "1", None, &["token_bucket 50/s burst 2000"]),
    ("burst-and-sustained", "enterprise", "1", None, &["token_bucket 200/s burst 10000"]),
];

#[test]
fn the_tiers_have_the_numbers_that_they_are_known_for() {
    for (file, tier, weight, max_concurrent, limits) in NUMBERS {
        let document = sample(file);
        let found = &document.tiers[&name(tier)];
        assert_eq!(found.weight.to_string(), weight, "{file} {tier}");
        assert_eq!(found.max_concurrent, max_concurrent, "{file} {tier}");
        let words: Vec<_> = found.limits.iter().map(|limit| in_words(limit)).collect();
        assert_eq!(words, limits, "{file} {tier}");
        let rows = NUMBERS.iter().filter(|row| row.0 == file).count();
        assert_eq!(document.tiers.len(), rows, "{file} has tiers that no row is for");
    }
}

#[test]
fn what_each_sample_calls_default_is_its_smallest_tier() {
    for (file, tier) in [
        ("builtin", "free"),
        ("minute-and-hour-windows", "anonymous"),
        ("requests-per-minute", "free"),
        ("burst-and-sustained", "free"),
        ("multi-level", "free"),
        ("metered-api", "trial"),
    ] {
        let (found, source, _) = policy(file).tier_of(&TenantId::new("whoever").unwrap(), 0);
        assert_eq!((found.as_str(), source), (tier, TierSource::Default), "{file}");
    }
}

#[test]
fn no_endpoint_costs_more_than_a_limit_of_any_tier_can_hold_in_any_environment() {
    for file in samples().keys() {
        let document = sample(file);
        let environments = document.environments.keys().cloned().map(Some);
        for environment in environments.chain([None]) {
            let policy = Policy::new(1, document.clone(), environment);
            for (tier, definition) in &document.tiers {
                let tenant = check("whoever");
                let plan = policy.plan(&tenant.tenant, tier, TierSource::Default, 0, &secret());
                let mut selected = Vec::new();
                plan.select(&tenant, &secret(), &mut selected).unwrap();
                for entry in &document.costs {
                    let cost = definition.cost_multiplier.times_up(entry.cost.get());
                    for Selected { limit, .. } in &selected {
                        assert!(
                            cost <= limit.rule.capacity(),
                            "{file}: {} in {tier}, {}",
                            entry.path,
                            limit.name
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn minute_hour_and_month_are_judged_together() {
    let policy = policy("minute-and-hour-windows");
    let selected = selected(&policy, &check("whoever"));
    assert_eq!(names(&selected), ["hour", "minute", "month"]);
    let keys: BTreeSet<_> = selected.iter().map(|s| s.key).collect();
    assert_eq!(keys.len(), 3);
}

#[test]
fn a_tier_without_limits_has_nothing_to_be_judged_by() {
    let policy = policy("minute-and-hour-windows");
    let admin = Check {
        tier: Some(name("platform_admin")),
        permit_ttl_ms: Some(1_000),
        ..check("whoever")
    };
    assert_eq!(names(&selected(&policy, &admin)), [""; 0]);
    assert_eq!(plan(&policy, &admin, 0).max_concurrent(), None);
}

#[test]
fn an_unlimited_tier_is_still_held_to_what_is_for_everybody() {
    let policy = policy("multi-level");
    let check = check("billing.internal");
    assert_eq!(plan(&policy, &check, 0).tier(), &name("internal"));
    assert_eq!(
        names(&selected(&policy, &check)),
        ["global", "per-region", "per-user", "per-user-and-endpoint", "per-user-and-ip"]
    );
}

#[test]
fn a_tenant_has_its_tier_by_rule_then_pattern_then_request_then_default() {
    let policy = policy("multi-level");
    let expiry = wall("2030-01-01T00:00:00Z");
    for (tenant, asks, at, tier, source) in [
        ("acme", None, expiry - 1, "enterprise", TierSource::Tenant),
        ("acme", None, expiry, "free", TierSource::Default),
        ("acme", Some("internal"), expiry - 1, "enterprise", TierSource::Tenant),
        ("acme", Some("internal"), expiry, "internal", TierSource::Request),
        ("ent-7", None, 0, "enterprise", TierSource::Pattern),
        ("ent-7", Some("free"), 0, "enterprise", TierSource::Pattern),
        // The first pattern that fits.
        ("ent-7.internal", None, 0, "enterprise", TierSource::Pattern),
        ("a.internal", None, 0, "internal", TierSource::Pattern),
        ("a-internal", None, 0, "free", TierSource::Default),
        ("whoever", Some("enterprise"), 0, "enterprise", TierSource::Request),
    ] {
        let check = Check { tier: asks.map(name), ..check(tenant) };
        let plan = plan(&policy, &check, at);
        assert_eq!((plan.tier().as_str(), plan.source()), (tier, source), "{tenant} {asks:?}");
    }
}

#[test]
fn the_most_specific_limit_of_a_name_replaces_the_others() {
    let policy = policy("multi-level");
    for (tenant, client, action, expected) in [
        ("whoever", None, None, "token_bucket 5/s burst 10"),
        ("ent-7", None, None, "token_bucket 500/s burst 1000"),
        ("acme", None, None, "token_bucket 800/s burst 1600"),
        ("acme", Some("bob"), Some("read"), "token_bucket 800/s burst 1600"),
        ("acme", Some("bob"), Some("invite"), "leaky_bucket 1/10s burst 1"),
        ("acme", Some("onboarding"), Some("invite"), "leaky_bucket 1/s burst 5"),
        // The entry for this client is for invitations only.
        ("acme", Some("onboarding"), Some("read"), "token_bucket 800/s burst 1600"),
        ("ent-7", Some("onboarding"), Some("invite"), "token_bucket 500/s burst 1000"),
    ] {
        let check = Check {
            client: client.and_then(Label::new),
            action: action.and_then(Label::new),
            ..check(tenant)
        };
        let selected = selected(&policy, &check);
        assert_eq!(in_words(limit(&selected, "rate")), expected, "{tenant} {client:?} {action:?}");
        assert_eq!(names(&selected).iter().filter(|name| **name == "rate").count(), 1);
    }
}

#[test]
fn a_tenants_own_limits_outlive_the_expiry_of_its_tier() {
    let policy = policy("multi-level");
    let selected = selected_at(&policy, &check("acme"), wall("2030-01-01T00:00:00Z"));
    assert_eq!(in_words(limit(&selected, "rate")), "token_bucket 800/s burst 1600");
    let permits = |tenant| {
        let plan = plan(&policy, &check(tenant), 0);
        plan.max_concurrent().map(|limit| limit.rule.capacity())
    };
    assert_eq!(
        (permits("acme"), permits("ent-7"), permits("whoever")),
        (Some(150), Some(100), Some(10))
    );
}

/// A check that carries everything a limit of `multi-level` can be keyed by.
fn whole() -> Check {
    Check {
        client: Label::new("bob"),
        ip: Some("203.0.113.9".parse().unwrap()),
        api_key: Some(ApiKeyDigest::of("bobs-key")),
        attributes: [(name("region"), Label::new("eu").unwrap())].into(),
        ..call("whoever", "GET", "/users/1")
    }
}

fn buckets(policy: &Policy, check: &Check) -> BTreeMap<String, BucketKey> {
    let selected = selected(policy, check);
    selected.iter().map(|s| (s.limit.name.to_string(), s.key)).collect()
}

#[test]
fn every_level_and_every_pair_of_levels_has_buckets_of_its_own() {
    let policy = policy("multi-level");
    let before = buckets(&policy, &whole());
    assert_eq!(before.len(), 9, "{before:?}");
    assert_eq!(before.values().collect::<BTreeSet<_>>().len(), 9);
    let (user, endpoint, ip) = ("per-user", "per-user-and-endpoint", "per-user-and-ip");
    let with = |change: fn(&mut Check)| {
        let mut check = whole();
        change(&mut check);
        check
    };
    for (other, moved) in [
        (with(|c| c.client = Label::new("eve")), &[user, endpoint, ip][..]),
        (with(|c| c.ip = Some("2001:db8::9".parse().unwrap())), &["per-ip", ip]),
        (with(|c| c.method = Method::new("DELETE")), &["per-endpoint", endpoint]),
        (with(|c| c.path = Path::new("/users")), &["per-endpoint", endpoint]),
        (with(|c| c.path = Path::new("/users/2")), &[]),
        (with(|c| c.api_key = Some(ApiKeyDigest::of("eves-key"))), &["per-api-key"]),
        (
            with(|c| drop(c.attributes.insert(name("region"), Label::new("us").unwrap()))),
            &["per-region"],
        ),
        (with(|c| c.action = Label::new("read")), &[]),
    ] {
        let after = buckets(&policy, &other);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        let differing: Vec<_> = before
            .iter()
            .filter(|(name, key)| after[*name] != **key)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(differing, moved);
    }
}

#[test]
fn leaving_something_out_lifts_no_limit_within_a_tenant() {
    let policy = policy("multi-level");
    let bare = buckets(&policy, &check("whoever"));
    let full = buckets(&policy, &whole());
    for within in ["per-user", "per-user-and-endpoint", "per-user-and-ip", "per-region"] {
        assert_ne!(bare[within], full[within], "{within}");
    }
    // Those shared by tenants are for checks that carry what they are keyed by, and the global one
    // is for all.
    for shared in ["per-ip", "per-endpoint", "per-api-key"] {
        assert!(!bare.contains_key(shared) && full.contains_key(shared), "{shared}");
    }
    assert_eq!(bare["global"], full["global"]);
}

#[test]
fn a_limit_with_a_match_is_for_those_checks_alone() {
    let policy = policy("multi-level");
    let login = Check { action: Label::new("login"), ..whole() };
    assert!(!names(&selected(&policy, &whole())).contains(&"login"));
    assert!(names(&selected(&policy, &login)).contains(&"login"));
}

#[test]
fn a_shadow_limit_is_selected_and_not_enforced_and_the_kill_switch_makes_all_of_them_shadows() {
    let mut document = sample("multi-level");
    let enforced = |document: &Document| {
        let policy = Policy::new(1, document.clone(), None);
        let selected = selected(&policy, &whole());
        let enforced = selected.iter().filter(|s| s.limit.enforce).count();
        let permits = plan(&policy, &whole(), 0).max_concurrent().unwrap().enforce;
        (selected.len(), enforced, permits)
    };
    assert_eq!(enforced(&document), (9, 8, true));
    document.enforce = false;
    assert_eq!(enforced(&document), (9, 0, false));
}

#[test]
fn an_environment_multiplies_every_limit_of_every_sample_and_its_rates_exactly() {
    let rate = |rule: &Rule| match rule {
        Rule::TokenBucket(bucket) => Some(bucket.rate),
        Rule::LeakyBucket(bucket) => Some(bucket.rate),
        _ => None,
    };
    let mut halved = 0;
    for file in samples().keys() {
        let document = sample(file);
        if !document.environments.contains_key(&name("development")) {
            continue;
        }
        let plain = Policy::new(1, document.clone(), Some(name("production")));
        let half = Policy::new(1, document.clone(), Some(name("development")));
        for tenant in document.tiers.keys() {
            let check =
                Check { tier: Some(tenant.clone()), action: Label::new("login"), ..whole() };
            let permits = |policy| {
                let plan = plan(policy, &check, 0);
                plan.max_concurrent().map(|limit| limit.rule.capacity())
            };
            assert_eq!(permits(&half), permits(&plain).map(|max| (max / 2).max(1)));
            for (half, plain) in selected(&half, &check).iter().zip(selected(&plain, &check)) {
                assert_eq!((&half.limit.name, half.key), (&plain.limit.name, plain.key));
                let (half, plain) = (&half.limit.rule, &plain.limit.rule);
                assert_eq!(half.capacity(), (plain.capacity() / 2).max(1), "{file}");
                if let (Some(half), Some(plain)) = (rate(half), rate(plain)) {
                    assert_eq!(half.time_for(1_000_000), plain.time_for(2_000_000), "{file}");
                }
                halved += 1;
            }
        }
    }
    assert!(halved > 40, "{halved}");
}

#[test]
fn ten_a_minute_and_one_in_ten_seconds_admit_exactly_that_for_a_day() {
    let policy = policy("multi-level");
    let login = Check { action: Label::new("login"), ..whole() };
    let invite = Check { action: Label::new("invite"), ..check("acme") };
    for (selected, name, burst, interval) in [
        (selected(&policy, &login), "login", 10, 6 * SECOND),
        (selected(&policy, &invite), "rate", 1, 10 * SECOND),
    ] {
        let rule = &limit(&selected, name).rule;
        let at = |boot| Now { boot, wall: 0 };
        let mut state = State::fresh(rule, at(0));
        assert_eq!(state.remaining(rule, at(0)), burst);
        state.take(rule, burst, at(0));
        for n in 1..=86_400 * SECOND / interval {
            let due = n * interval;
            state.advance(rule, 0, at(due - 1));
            assert_eq!(state.judge(rule, 1, 0, at(due - 1)), Outcome::Wait(1), "{name} {n}");
            state.advance(rule, 0, at(due));
            assert_eq!(state.judge(rule, 1, 0, at(due)), Outcome::Pass, "{name} {n}");
            state.take(rule, 1, at(due));
        }
    }
}

#[test]
fn a_bucket_told_to_start_empty_starts_empty() {
    let policy = policy("burst-and-sustained");
    let selected = selected(&policy, &check("batch-importer"));
    let rule = &limit(&selected, "rate").rule;
    let at = |boot| Now { boot, wall: 0 };
    let mut state = State::fresh(rule, at(0));
    assert_eq!(state.judge(rule, 1, 0, at(0)), Outcome::Wait(SECOND / 50));
    state.advance(rule, 0, at(40 * SECOND));
    assert_eq!(state.remaining(rule, at(40 * SECOND)), 2_000);
}

#[test]
fn a_call_costs_what_it_says_or_its_endpoint_or_the_default_times_its_tiers_multiplier_rounded_up()
{
    let policy = policy("metered-api");
    let own = |units| Check { cost: Cost::new(units), ..call("acme", "POST", "/documents") };
    for (check, trial, invoiced) in [
        (call("acme", "POST", "/documents"), 10, 8),
        (call("acme", "GET", "/documents"), 1, 1),
        (call("acme", "POST", "/documents/7/pages/2/ocr"), 4, 3),
        (call("acme", "post", "/documents/7/pages/2/ocr"), 4, 3),
        (call("acme", "GET", "/reports/2026/november"), 25, 19),
        (check("acme"), 1, 1),
        (own(100), 100, 75),
        (own(1), 1, 1),
    ] {
        let cost = |tier: &str| {
            let tier = &policy.document().tiers[&name(tier)];
            policy.cost(&check, tier.cost_multiplier)
        };
        assert_eq!((cost("trial"), cost("invoiced")), (trial, invoiced), "{check:?}");
    }
}

#[test]
fn periods_begin_at_midnight_of_the_anchor_day_in_the_quotas_own_zone() {
    let policy = policy("metered-api");
    for (tenant, tier, now, ends) in [
        ("x", "trial", "2027-03-14T22:00:00Z", "2027-03-15T00:00:00Z"),
        // Berlin is an hour ahead in winter and two in summer.
        ("x", "prepaid", "2027-03-14T22:00:00Z", "2027-03-14T23:00:00Z"),
        ("x", "prepaid", "2027-07-14T21:00:00Z", "2027-07-14T22:00:00Z"),
        ("x", "invoiced", "2027-02-27T12:00:00Z", "2027-03-01T00:00:00Z"),
        // February's last day stands in for the 31st; New York is five hours behind.
        ("acme", "invoiced", "2027-02-27T12:00:00Z", "2027-02-28T05:00:00Z"),
    ] {
        let check = Check { tier: Some(name(tier)), ..check(tenant) };
        let selected = selected(&policy, &check);
        let rule = &limit(&selected, "units").rule;
        let now = Now { boot: 0, wall: wall(now) };
        assert_eq!(
            State::fresh(rule, now).reset_after(rule, 0, now),
            wall(ends) - now.wall,
            "{tenant} {tier}"
        );
    }
}

#[test]
fn beyond_its_quota_the_prepaid_tier_is_denied_and_the_invoiced_one_counted() {
    let policy = policy("metered-api");
    let now = Now { boot: 0, wall: wall("2027-03-14T22:59:59Z") };
    for (tier, then) in [("prepaid", Outcome::Wait(SECOND)), ("invoiced", Outcome::Pass)] {
        let check = Check { tier: Some(name(tier)), ..check("whoever") };
        let selected = selected(&policy, &check);
        let rule = &limit(&selected, "units").rule;
        let mut state = State::fresh(rule, now);
        state.take(rule, rule.capacity(), now);
        assert_eq!(state.judge(rule, 1, 0, now), then, "{tier}");
    }
}

#[test]
fn comments_of_samples_promise_nothing_that_is_missing() {
    // What this version doesn't have: reservations, usage reports and waiting.
    for (name, text) in samples() {
        for comment in text.lines().filter_map(|line| Some(line.split_once('#')?.1.to_lowercase()))
        {
            for missing in ["reserv", "settle", "usage", "/charges", "queue", "wait_ms"] {
                assert!(!comment.contains(missing), "{name}: {comment}");
            }
        }
    }
}

#[test]
fn the_deny_list_comes_before_the_allow_list_and_entries_expire() {
    let policy = policy("multi-level");
    let expiry = wall("2030-01-01T00:00:00Z");
    let probe_at = |ip: &str| Check {
        client: Label::new("health-probe"),
        ip: Some(ip.parse().unwrap()),
        ..check("whoever")
    };
    let with_key = |key: &str, ip: &str| Check {
        api_key: Some(ApiKeyDigest::of(key)),
        ip: Some(ip.parse().unwrap()),
        ..check("whoever")
    };
    for (check, at, expected) in [
        (with_key("another-key", "203.0.113.9"), 0, None),
        (with_key("another-key", "192.0.2.77"), 0, Some(("office", List::Allow))),
        (with_key("example-api-key", "192.0.2.77"), 0, Some(("leaked-key", List::Deny))),
        (probe_at("203.0.113.9"), 0, Some(("health-probe", List::Allow))),
        (probe_at("2001:db8:bad:1::7"), expiry - 1, Some(("scraper", List::Deny))),
        (probe_at("2001:db8:bad:1::7"), expiry, Some(("health-probe", List::Allow))),
    ] {
        let verdict = policy.access(&check, at);
        let found = verdict.as_ref().map(|v| (v.name.as_str(), v.entry.list));
        assert_eq!(found, expected, "{check:?} at {at}");
    }
}
