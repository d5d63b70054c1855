//! Tests of `compiled`.

use super::*;
use crate::check::Label;

const SECRET: fn() -> Secret = || Secret::new(1, 2);

fn policy(toml: &str) -> Policy {
    Policy::new(1, Document::from_toml(toml.as_bytes()).unwrap(), Name::new("development"))
}

fn check(tenant: &str) -> Check {
    Check::of(TenantId::new(tenant).unwrap())
}

fn selected(policy: &Policy, check: &Check) -> Vec<(String, u64)> {
    let (tier, source, until) = policy.tier_of(&check.tenant, 0);
    let tier = policy.requested_tier(check, source).unwrap().cloned().unwrap_or(tier);
    let plan = policy.plan(&check.tenant, &tier, source, until, &SECRET());
    let mut found = Vec::new();
    plan.select(check, &SECRET(), &mut found).unwrap();
    found.iter().map(|s| (s.limit.name.to_string(), s.limit.rule.capacity())).collect()
}

const LEVELS: &str = r#"
        default_tier = "t"
        [[limits]]
        name = "rate"
        per = ["tenant"]
        algorithm = "fixed_window"
        limit = 1
        window = "1m"
        [tiers.t]
        limits = [{ name = "rate", algorithm = "fixed_window", limit = 2, window = "1m" }]
        [tenants.acme]
        limits = [
          { name = "rate", algorithm = "fixed_window", limit = 3, window = "1m" },
          { name = "rate", match = { action = "export" }, algorithm = "fixed_window", limit = 4, window = "1m" },
          { name = "rate", match = { client = "bob" }, algorithm = "fixed_window", limit = 5, window = "1m" },
        ]
        [tiers.none]
        [tenants.bare]
        tier = "none"
    "#;

#[test]
fn client_comes_before_action_before_tenant_before_tier_before_cluster() {
    let policy = policy(LEVELS);
    let limit = |tenant: &str, action: Option<&str>, client: Option<&str>| {
        let check = Check {
            action: action.and_then(Label::new),
            client: client.and_then(Label::new),
            ..check(tenant)
        };
        selected(&policy, &check)[0].1
    };
    assert_eq!(limit("bare", None, None), 1);
    assert_eq!(limit("other", None, None), 2);
    assert_eq!(limit("acme", None, None), 3);
    assert_eq!(limit("acme", Some("export"), None), 4);
    assert_eq!(limit("acme", Some("export"), Some("bob")), 5);
}

#[test]
fn limits_of_the_request_stand_in_for_the_tiers_and_configured_ones_override_them() {
    let policy = policy(
        r#"
            default_tier = "t"
            [[limits]]
            name = "everybody"
            per = []
            algorithm = "fixed_window"
            limit = 9
            window = "1m"
            [tiers.t]
            limits = [{ name = "tier", algorithm = "fixed_window", limit = 2, window = "1m" }]
            [tenants.acme]
            limits = [{ name = "api", algorithm = "fixed_window", limit = 3, window = "1m" }]
            "#,
    );
    let api = |limit| {
        Arc::new(Limit {
            name: Name::new("api").unwrap(),
            per: vec![Dimension::Tenant],
            when: Match::default(),
            rule: Rule::FixedWindow(Window { limit, length: 60 }),
            enforce: true,
        })
    };
    let with = |tenant| Check { limits: vec![api(100)], ..check(tenant) };
    let named =
        |list: &[(&str, u64)]| list.iter().map(|(n, c)| (n.to_string(), *c)).collect::<Vec<_>>();
    assert_eq!(selected(&policy, &with("other")), named(&[("everybody", 9), ("api", 100)]));
    assert_eq!(selected(&policy, &with("acme")), named(&[("api", 3), ("everybody", 9)]));
    assert_eq!(selected(&policy, &check("other")), named(&[("everybody", 9), ("tier", 2)]));
}

#[test]
fn the_environment_multiplies_every_configured_limit() {
    let policy = policy(&format!("{LEVELS}\n[environments.development]\nmultiplier = \"0.5\"\n"));
    assert_eq!(selected(&policy, &check("other")), [("rate".to_string(), 1)]);
    let export = Check { action: Label::new("export"), ..check("acme") };
    assert_eq!(selected(&policy, &export), [("rate".to_string(), 2)]);
}

#[test]
fn a_tier_comes_from_the_tenant_its_pattern_the_request_or_the_default() {
    let policy = policy(
        r#"
            default_tier = "a"
            [tiers.a]
            [tiers.b]
            [tiers.c]
            [[tier_patterns]]
            pattern = "ent-*"
            tier = "b"
            [tenants.acme]
            tier = "c"
            tier_expires = "1970-01-01T00:01:00Z"
            "#,
    );
    let tier = |id: &str, wall| {
        let (tier, source, _) = policy.tier_of(&TenantId::new(id).unwrap(), wall);
        (tier.to_string(), source)
    };
    assert_eq!(tier("acme", 0), ("c".into(), TierSource::Tenant));
    assert_eq!(tier("acme", 60_000_000_000), ("a".into(), TierSource::Default));
    assert_eq!(tier("ent-1", 0), ("b".into(), TierSource::Pattern));
    let asks = |id: &str, t: &str| Check { tier: Name::new(t), ..check(id) };
    let b = Name::new("b").unwrap();
    assert_eq!(policy.requested_tier(&asks("x", "b"), TierSource::Default), Ok(Some(&b)));
    assert_eq!(policy.requested_tier(&asks("ent-1", "b"), TierSource::Pattern), Ok(None));
    assert!(policy.requested_tier(&asks("x", "nope"), TierSource::Default).is_err());
}

#[test]
fn a_bucket_is_told_from_others_by_name_algorithm_and_values() {
    let policy = policy(
        r#"
            default_tier = "t"
            [[limits]]
            name = "per-ip"
            per = ["ip"]
            algorithm = "fixed_window"
            limit = 9
            window = "1m"
            [tiers.t]
            limits = [{ name = "c", per = ["tenant", "client"], algorithm = "fixed_window", limit = 2, window = "1m" }]
            "#,
    );
    let keys = |check: &Check| {
        let plan =
            policy.plan(&check.tenant, &Name::new("t").unwrap(), TierSource::Default, 0, &SECRET());
        let mut found = Vec::new();
        plan.select(check, &SECRET(), &mut found).unwrap();
        found.into_iter().map(|s| s.key).collect::<Vec<_>>()
    };
    let bob = Check { client: Label::new("bob"), ..check("x") };
    let eve = Check { client: Label::new("eve"), ..check("x") };
    let at = Check { ip: Some("192.0.2.1".parse().unwrap()), ..check("y") };
    // Without an address the shared limit isn't for the check; without a client the tenant's
    // own still is.
    assert_eq!((keys(&bob).len(), keys(&check("x")).len(), keys(&at).len()), (1, 1, 2));
    assert_ne!(keys(&bob), keys(&eve));
    assert_ne!(keys(&bob), keys(&check("x")));
    assert!(
        matches!(keys(&at)[1], BucketKey::Shared(_)) && matches!(keys(&at)[0], BucketKey::Own(_))
    );
}
