//! The policy: which limits a check meets, and what a change does to what is spent.

use super::*;
use crate::check::Method;
use crate::check::Path;

fn left(world: &mut World, limit: &str) -> u64 {
    let looked = world.peek(&costing(1_000_000, &of("acme")));
    verdict(&looked, limit).remaining
}

#[test]
fn spent_stays_spent_when_a_number_changes() {
    let policy = |place: &str, numbers: &str| match place {
        "own" => {
            format!("default_tier = \"t\"\n[tiers.t]\nlimits = [{{ name = \"n\", {numbers} }}]")
        }
        _ => format!(
            "default_tier = \"t\"\nlimits = [{{ name = \"n\", per = [], {numbers} }}]\n[tiers.t]"
        ),
    };
    for numbers in [
        r#"algorithm = "fixed_window", window = "1d", limit = "#,
        r#"algorithm = "sliding_window", window = "1d", limit = "#,
        r#"algorithm = "sliding_log", window = "1d", limit = "#,
        r#"algorithm = "quota", period = "day", limit = "#,
        r#"algorithm = "token_bucket", rate = "1/52w", burst = "#,
        r#"algorithm = "leaky_bucket", rate = "1/52w", burst = "#,
    ] {
        for place in ["own", "shared"] {
            let with = |number: u32| policy(place, &format!("{numbers}{number}"));
            let mut world = World::new(2, &with(100), ROOM, 0);
            assert!(world.decide(&costing(60, &of("acme"))).allowed);
            for (number, expected) in [(200, 140), (50, 0), (61, 1)] {
                world.set_policy(&with(number));
                assert_eq!(left(&mut world, "n"), expected, "{place} {numbers}{number}");
            }
            let last = world.decide(&of("acme"));
            assert!(last.allowed && last.policy_version == 4);
            assert!(!world.decide(&of("acme")).allowed);
        }
    }
}

/// A free tier of five, a pro tier of eight, and what is said of acme.
fn tiers(head: &str, acme: &str) -> String {
    format!(
        r#"
        default_tier = "free"
        {head}
        [tiers.free]
        limits = [{{ name = "rate", algorithm = "fixed_window", limit = 5, window = "1d" }}]
        [tiers.pro]
        limits = [{{ name = "rate", algorithm = "fixed_window", limit = 8, window = "1d" }}]
        [tenants.other]
        {acme}"#
    )
}

#[test]
fn a_tenants_new_tier_counts_from_the_next_check_on() {
    let mut world = World::alone(&tiers("", ""));
    assert_eq!(world.admits(&of("acme"), 10), 5);
    world.set_policy(&tiers("", "[tenants.acme]\ntier = \"pro\""));
    assert_eq!(world.admits(&of("acme"), 10), 3);
    world.set_policy(&tiers("", ""));
    let denied = world.decide(&of("acme"));
    assert_eq!((denier(&denied), denied.tier.as_ref().unwrap().as_str()), ("rate", "free"));
}

#[test]
fn a_tier_counts_until_it_expires() {
    // An hour and a second after the world begins, which is the first of a minute.
    let expires = "[tenants.acme]\ntier = \"pro\"\ntier_expires = \"2024-10-04T02:00:01Z\"";
    let mut world = World::alone(&tiers("", expires));
    assert_eq!(world.now.wall, 1_728_003_600 * SECOND);
    assert!(world.decide(&costing(6, &of("acme"))).allowed);
    world.pass(HOUR + SECOND - 1);
    assert!(world.decide(&of("acme")).allowed);
    world.pass(1);
    let denied = world.decide(&of("acme"));
    assert_eq!((denied.allowed, denied.tier.as_ref().unwrap().as_str()), (false, "free"));
}

#[test]
fn the_tier_that_a_request_names_counts_where_the_policy_lets_it() {
    let acme = "[tenants.acme]\ntier = \"free\"";
    for (rule, mapped, unmapped) in [
        ("", "free", "pro"),
        ("request_tier = \"if_unmapped\"", "free", "pro"),
        ("request_tier = \"always\"", "pro", "pro"),
        ("request_tier = \"ignore\"", "free", "free"),
    ] {
        let mut world = World::alone(&tiers(rule, acme));
        for (tenant, expected) in [("acme", mapped), ("stranger", unmapped)] {
            let pro = Check { tier: Some(name("pro")), ..of(tenant) };
            let tier = |d: Decision| d.tier.unwrap().to_string();
            assert_eq!(tier(world.decide(&pro)), expected, "{rule} for {tenant}");
            assert_eq!(tier(world.decide(&of(tenant))), "free");
        }
    }
}

#[test]
fn a_tier_that_does_not_exist_is_refused_and_nothing_is_charged() {
    let mut world = World::alone(&tiers("", ""));
    let nope = Check { tier: Some(name("nope")), ..of("acme") };
    assert_eq!(world.ask(&nope).unwrap_err(), Refusal::UnknownTier(name("nope")));
    assert_eq!(left(&mut world, "rate"), 5);
    let mut world = World::alone(&tiers("request_tier = \"ignore\"", ""));
    assert!(world.decide(&nope).allowed);
}

#[test]
fn limits_of_a_request_stand_in_for_the_tiers_or_beside_them_or_are_refused() {
    let adhoc = with_limits(&[sent("adhoc", &[Dimension::Tenant], 2)], &of("acme"));
    let policy =
        |word: &str| tiers("", "").replace("[tiers.free]", &format!("[tiers.free]\n{word}"));
    for (word, limits) in [
        ("", &["adhoc"][..]),
        ("request_limits = \"instead\"", &["adhoc"]),
        ("request_limits = \"also\"", &["rate", "adhoc"]),
    ] {
        let mut world = World::alone(&policy(word));
        let decision = world.decide(&adhoc);
        let asked: Vec<_> = decision.verdicts.iter().map(|v| v.limit.name.as_str()).collect();
        assert_eq!(asked, limits);
        assert_eq!(world.admits(&adhoc, 5), 1);
        let charged = usize::from(limits.len() == 2) * 2;
        assert_eq!(left(&mut world, "rate"), 5 - charged as u64);
    }
    let mut world = World::alone(&policy("request_limits = \"refuse\""));
    assert_eq!(world.ask(&adhoc).unwrap_err(), Refusal::LimitsRefused(name("free")));
    assert_eq!(left(&mut world, "rate"), 5);
}

#[test]
fn a_parked_check_is_judged_by_the_policy_in_force_when_it_goes_on() {
    let policy = |rate: u32| {
        format!(
            r#"
            default_tier = "t"
            limits = [{{ name = "everybody", per = [], algorithm = "fixed_window", limit = 100, window = "1d" }}]
            [tiers.t]
            limits = [{{ name = "rate", algorithm = "fixed_window", limit = {rate}, window = "1d" }}]"#
        )
    };
    let mut world = World::new(2, &policy(10), ROOM, 0);
    let [_, far] = world.near_and_far();
    let (mut first, mut second) = (world.start(&costing(10, &far)), world.start(&far));
    world.set_policy(&policy(11));
    world.deliver_all();
    let (first, second) = (only(now(&mut first)).unwrap(), only(now(&mut second)).unwrap());
    assert_eq!(
        [(first.allowed, first.policy_version), (second.allowed, second.policy_version)],
        [(true, 1), (true, 2)]
    );
    assert!(!world.decide(&far).allowed);
}

#[test]
fn an_endpoints_cost_times_the_tiers_multiplier_is_charged() {
    let costs = "[[costs]]\nmethod = \"POST\"\npath = \"/ocr\"\ncost = 3";
    let policy = format!("{}\n{costs}", tiers("", ""))
        .replace("[tiers.pro]", "[tiers.pro]\ncost_multiplier = \"1.5\"");
    let mut world = World::alone(&policy);
    let ocr = Check { method: Method::new("POST"), path: Path::new("/ocr"), ..of("acme") };
    assert_eq!(world.decide(&ocr).cost, 3);
    let pro = Check { tier: Some(name("pro")), ..ocr };
    assert_eq!(world.decide(&pro).cost, 5);
    assert_eq!(left(&mut world, "rate"), 0);
}

#[test]
fn a_limit_that_only_watches_is_reported_and_denies_nothing_and_so_is_every_limit_under_the_kill_switch()
 {
    for policy in [
        tiers("", "").replace("limit = 5,", "limit = 5, enforce = false,"),
        tiers("enforce = false", ""),
    ] {
        let mut world = World::alone(&policy);
        assert_eq!(world.admits(&of("acme"), 10), 10);
        assert!(matches!(verdict(&world.decide(&of("acme")), "rate").outcome, Outcome::Wait(_)));
    }
}
