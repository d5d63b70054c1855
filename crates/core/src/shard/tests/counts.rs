//! Counts: whatever the interleaving, a limit admits its number.

use super::run::{Run, below, policy};
use super::*;

#[test]
fn every_limit_admits_exactly_its_number_whatever_the_interleaving() {
    for seed in seeds(40) {
        let mut chance = Seed::from_number(seed).fork("run", 0);
        let shards = 1 + below(&mut chance, 3) as usize;
        let run = Run::of(&mut chance);
        let mut world = World::new(shards, &policy(&mut chance), ROOM, seed);
        let (books, asked) = run.play(&mut world, 120);
        books.assert_none_gave_too_much();
        books.assert_denials_were_needed();
        for check in &asked {
            for (bucket, left, booked) in world.left_of_all(check, &books) {
                assert_eq!(left, booked, "left of {bucket}");
            }
        }
    }
}

#[test]
fn whatever_is_lost_or_late_no_limit_admits_more_than_its_number_and_everybody_is_answered_in_time()
{
    for seed in seeds(40) {
        let mut chance = Seed::from_number(seed).fork("lossy", 0);
        let shards = 2 + below(&mut chance, 2) as usize;
        let run = Run { lossy: true, ..Run::of(&mut chance) };
        let mut world = World::new(shards, &policy(&mut chance), ROOM, seed);
        let (books, asked) = run.play(&mut world, 120);
        books.assert_none_gave_too_much();
        for check in &asked {
            for (bucket, left, booked) in world.left_of_all(check, &books) {
                assert!(
                    left <= booked,
                    "{bucket} has {left} left, and by what was admitted {booked}"
                );
            }
        }
    }
}

#[test]
fn whatever_the_policy_becomes_while_checks_are_open_spent_stays_spent() {
    for seed in seeds(40) {
        let mut chance = Seed::from_number(seed).fork("changes", 0);
        let shards = 1 + below(&mut chance, 3) as usize;
        let run = Run { changing: true, ..Run::of(&mut chance) };
        let mut world = World::new(shards, &policy(&mut chance), ROOM, seed);
        let (books, asked) = run.play(&mut world, 120);
        books.assert_none_gave_too_much();
        books.assert_denials_were_needed();
        let last = policy(&mut chance);
        (0..shards).for_each(|shard| world.change_policy(shard, &last));
        for check in &asked {
            for (bucket, left, booked) in world.left_of_all(check, &books) {
                assert_eq!(left, booked, "left of {bucket}");
            }
        }
    }
}

#[test]
fn beyond_the_caps_too_everybody_is_answered_at_once_and_counts_of_the_others_stay_exact() {
    // The last three once ended with checks that waited for each other in a circle.
    for seed in seeds(40).chain([3_397, 3_904, 18_869]) {
        let mut chance = Seed::from_number(seed).fork("caps", 0);
        let shards = 1 + below(&mut chance, 3) as usize;
        let run = Run::of(&mut chance);
        let caps = Caps {
            unknown_tenants: 1 + below(&mut chance, 3) as usize,
            keys_per_tenant: 1 + below(&mut chance, 3) as usize,
            shared_keys: 1 + below(&mut chance, 3) as usize,
            request_ids: 5,
            ..ROOM
        };
        let mut world = World::together(shards, &policy(&mut chance), caps, seed);
        let (books, _) = run.play(&mut world, 120);
        books.assert_none_gave_too_much();
        books.assert_denials_were_needed();
        for shard in &world.shards {
            let (tenants, ids) = (shard.tenants(), shard.accounts.request_ids);
            assert!(tenants <= caps.unknown_tenants && ids <= caps.request_ids + tenants + 1);
            // Two own limits and four shared ones may each have a bucket that stands in.
            assert!(shard.accounts.buckets <= tenants * (caps.keys_per_tenant + 2) + 2);
            assert!(shard.shared_keys() <= caps.shared_keys + 4);
        }
    }
}

/// One tenant in each of three shards, a global limit of 100 and 50 for each tenant.
const GLOBAL: &str = r#"
    default_tier = "t"
    limits = [{ name = "everybody", per = [], algorithm = "fixed_window", limit = 100, window = "1d" }]
    [tiers.t]
    limits = [{ name = "rate", algorithm = "fixed_window", limit = 50, window = "1d" }]
"#;

#[test]
fn of_three_hundred_checks_in_flight_at_once_a_hundred_pass_a_global_limit_of_a_hundred() {
    for seed in seeds(20) {
        let mut world = World::new(3, GLOBAL, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        let mut answers: Vec<_> = (0..300).map(|i| world.start(&tenants[i % 3])).collect();
        world.deliver_all();
        let decisions: Vec<_> = answers.iter_mut().map(|a| only(now(a)).unwrap()).collect();
        assert_eq!(decisions.iter().filter(|d| d.allowed).count(), 100);
        assert!(!world.is_busy());
    }
}

#[test]
fn the_last_unit_of_a_global_limit_goes_to_one_of_three_that_ask_at_once_and_the_others_wait_for_it()
 {
    let policy = GLOBAL.replace("limit = 100", "limit = 1");
    for seed in seeds(20) {
        let mut world = World::new(3, &policy, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        let mut answers: Vec<_> = tenants.iter().map(|t| world.start(t)).collect();
        world.deliver_all();
        let decisions: Vec<_> = answers.iter_mut().map(|a| only(now(a)).unwrap()).collect();
        assert_eq!(decisions.iter().filter(|d| d.allowed).count(), 1);
    }
}

#[test]
fn a_check_that_a_tenants_own_limit_denies_takes_nothing_of_the_global_one() {
    let policy = GLOBAL.replace("limit = 50", "limit = 2");
    for seed in seeds(10) {
        let mut world = World::new(3, &policy, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        for tenant in &tenants {
            assert_eq!(world.admits(tenant, 10), 2);
        }
        let denied = world.decide(&tenants[0]);
        assert_eq!((denier(&denied), verdict(&denied, "everybody").remaining), ("rate", 94));
    }
}

#[test]
fn a_check_that_the_global_limit_denies_takes_nothing_of_the_tenants_own() {
    let policy = GLOBAL.replace("limit = 100", "limit = 2");
    for seed in seeds(10) {
        let mut world = World::new(3, &policy, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        assert_eq!(world.admits(&tenants[0], 10), 2);
        for (tenant, left) in tenants.iter().zip([48, 50, 50]) {
            assert_eq!(world.admits(tenant, 10), 0);
            let denied = world.decide(tenant);
            assert_eq!((denier(&denied), verdict(&denied, "rate").remaining), ("everybody", left));
        }
    }
}

#[test]
fn a_check_that_one_shared_limit_denies_takes_nothing_of_another() {
    const POLICY: &str = r#"
        default_tier = "t"
        limits = [
            { name = "address", per = ["ip"], algorithm = "fixed_window", limit = 3, window = "1d" },
            { name = "everybody", per = [], algorithm = "fixed_window", limit = 100, window = "1d" },
        ]
        [tiers.t]
    "#;
    for seed in seeds(10) {
        let mut world = World::new(2, POLICY, ROOM, seed);
        let check = from_ip("192.0.2.1", &of("acme"));
        assert_eq!(world.admits(&check, 10), 3);
        let elsewhere = world.decide(&from_ip("192.0.2.2", &of("acme")));
        assert_eq!(verdict(&elsewhere, "everybody").remaining, 96);
    }
}

#[test]
fn a_check_that_its_own_limit_denies_holds_nothing_of_the_shared_ones() {
    let mut world = World::new(2, GLOBAL, ROOM, 0);
    let [near, far] = world.near_and_far();
    let mut denied = world.start(&costing(51, &far));
    world.deliver_asks();
    assert_eq!(world.admits_now(&costing(50, &near), 1), 1);
    let third = world.tenants_of(world.home(&near)).nth(1).unwrap();
    assert_eq!(world.admits_now(&costing(50, &third), 1), 1);
    world.deliver_all();
    assert_eq!(denier(&only(now(&mut denied)).unwrap()), "rate");
}

#[test]
fn a_check_that_is_denied_whatever_becomes_of_a_hold_does_not_wait_for_it() {
    let mut world = World::new(2, GLOBAL, ROOM, 0);
    let [_, far] = world.near_and_far();
    let watched = sent("rate", &[Dimension::Tenant], 50);
    let used_up = sent("adhoc", &[Dimension::Tenant], 1);
    let both = with_limits(&[watched, used_up], &far);
    assert!(world.decide(&both).allowed);
    let mut holder = world.start(&costing(49, &far));
    world.lose_all();
    // Of the rate's fifty one is taken and the others are held; but it is the second limit that has
    // no more.
    let denied = world.decide(&both);
    assert_eq!((denier(&denied), verdict(&denied, "rate").outcome), ("adhoc", Outcome::Held));
    assert!(answered(&mut holder).is_none());
}

/// A check whose own limit denies it asks the shared ones too, and finds one whose rest is held.
#[test]
fn a_denial_names_the_limit_that_is_used_up_and_not_one_that_somebody_holds() {
    let mut world = World::new(2, GLOBAL, ROOM, 0);
    let [near, far] = world.near_and_far();
    assert!(world.decide(&costing(50, &near)).allowed);
    // Fifty of the hundred are left, and the far tenant holds them for as long as the messages are
    // under way.
    let mut holder = world.start(&costing(50, &far));
    world.deliver();
    let denied = only(now(&mut world.start(&near))).unwrap();
    assert_eq!(verdict(&denied, "everybody").outcome, Outcome::Held);
    assert_eq!((denier(&denied), denied.retry_after), ("rate", Some(23 * HOUR)));
    world.deliver_all();
    assert!(only(now(&mut holder)).unwrap().allowed);
}
