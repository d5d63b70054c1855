//! Permits: how many of a tenant's checks may be in flight.

use super::*;
use crate::check::Reason;

/// Two in flight, ten a day.
const POLICY: &str = r#"
    default_tier = "t"
    [tiers.t]
    max_concurrent = 2
    limits = [{ name = "rate", algorithm = "fixed_window", limit = 10, window = "1d" }]
    [tiers.boundless]
    [tenants.open]
    tier = "boundless"
"#;

fn permit() -> Check {
    with_permit(10_000, &of("acme"))
}

#[test]
fn concurrency_is_judged_only_where_a_permit_is_asked_for() {
    let mut world = World::alone(POLICY);
    assert_eq!(world.admits(&permit(), 2), 2);
    let without = world.decide(&of("acme"));
    assert!(without.allowed && without.permit.is_none());
    assert!(without.verdicts.iter().all(|v| v.limit.name.as_str() != "concurrency"));
    assert_eq!(denier(&world.decide(&permit())), "concurrency");
}

#[test]
fn a_released_permit_makes_room_for_one_and_releasing_it_again_for_none() {
    let mut world = World::new(3, POLICY, ROOM, 0);
    let first = world.decide(&permit()).permit.unwrap();
    assert!(world.decide(&permit()).allowed);
    assert_eq!(world.permit_home(first.id), world.home(&permit()));
    world.release(first.id);
    world.release(first.id);
    assert_eq!(world.describe(&permit()).permits, 1);
    assert_eq!(world.admits(&permit(), 3), 1);
}

#[test]
fn a_guessed_permit_releases_nothing() {
    let mut world = World::alone(POLICY);
    let PermitId { partition, secret } = world.decide(&permit()).permit.unwrap().id;
    for secret in [secret ^ 1, 0, secret ^ 1 << 64] {
        world.release(PermitId { partition, secret });
        assert!(!world.renew(PermitId { partition, secret }, 10_000));
    }
    assert_eq!(world.describe(&permit()).permits, 1);
}

#[test]
fn a_permit_expires_to_the_nanosecond() {
    let mut world = World::alone(POLICY);
    assert_eq!(world.decide(&permit()).permit.unwrap().expires_in, 10 * SECOND);
    world.pass(SECOND);
    assert!(world.decide(&permit()).allowed);
    world.pass(9 * SECOND - 1);
    let denied = world.decide(&permit());
    assert_eq!((denier(&denied), denied.retry_after), ("concurrency", Some(1)));
    assert_eq!(denied.denied_by.unwrap().reason, Reason::Concurrency);
    world.pass(1);
    assert_eq!(world.admits(&permit(), 2), 1);
}

#[test]
fn a_renewed_permit_runs_from_its_renewal() {
    let mut world = World::alone(POLICY);
    let id = world.decide(&permit()).permit.unwrap().id;
    world.pass(8 * SECOND);
    assert!(world.renew(id, 10_000));
    world.pass(10 * SECOND - 1);
    assert_eq!(world.describe(&permit()).permits, 1);
    world.pass(1);
    assert_eq!(world.describe(&permit()).permits, 0);
    assert!(!world.renew(id, 10_000));
    let id = world.decide(&permit()).permit.unwrap().id;
    world.release(id);
    assert!(!world.renew(id, 10_000));
}

#[test]
fn a_check_that_the_rate_denies_gets_no_permit() {
    let mut world = World::alone(POLICY);
    assert!(world.decide(&costing(10, &of("acme"))).allowed);
    let denied = world.decide(&permit());
    assert_eq!((denier(&denied), denied.permit), ("rate", None));
    assert_eq!(world.describe(&permit()).permits, 0);
}

#[test]
fn a_check_that_concurrency_denies_is_not_charged() {
    let mut world = World::alone(POLICY);
    assert_eq!(world.admits(&permit(), 5), 2);
    assert_eq!(verdict(&world.decide(&of("acme")), "rate").remaining, 7);
}

#[test]
fn a_tier_without_a_maximum_hands_out_permits_all_the_same() {
    let mut world = World::alone(POLICY);
    let check = with_permit(10_000, &of("open"));
    assert_eq!(world.admits(&check, 100), 100);
    assert_eq!(world.describe(&check).permits, 100);
}

#[test]
fn a_check_that_lacks_only_a_slot_that_another_holds_waits_for_the_outcome() {
    let policy = format!(
        r#"limits = [{{ name = "everybody", per = [], algorithm = "fixed_window", limit = 3, window = "1d" }}]
        {}"#,
        POLICY.replace("max_concurrent = 2", "max_concurrent = 1")
    );
    for (spent_meanwhile, allowed) in [(0, [true, false]), (1, [false, true])] {
        let mut world = World::new(2, &policy, ROOM, 0);
        let [near, far] = world.near_and_far();
        // The first has the slot if the global limit has three; the second needs only one of them.
        let mut first = world.start(&with_permit(1_000, &costing(3, &far)));
        let mut second = world.start(&with_permit(1_000, &far));
        assert!(answered(&mut second).is_none());
        assert_eq!(world.admits_now(&near, spent_meanwhile), spent_meanwhile);
        world.deliver_all();
        assert_eq!([&mut first, &mut second].map(|a| only(now(a)).unwrap().allowed), allowed);
        assert_eq!(world.describe(&far).permits, 1);
    }
}

#[test]
fn a_released_permit_lets_a_check_go_on_that_waits_for_a_slot() {
    let policy = format!(
        r#"limits = [{{ name = "everybody", per = [], algorithm = "fixed_window", limit = 9, window = "1d" }}]
        {POLICY}"#
    );
    let mut world = World::new(2, &policy, ROOM, 0);
    let [_, far] = world.near_and_far();
    let check = with_permit(60_000, &far);
    let out = world.decide(&check).permit.unwrap();
    // The second slot is held, by a check whose question is lost; that is no reason to wait for the
    // first.
    let mut stuck = world.start(&check);
    let mut waits = world.start(&check);
    world.lose_all();
    assert!(answered(&mut waits).is_none());
    world.release(out.id);
    assert!(only(now(&mut waits)).unwrap().allowed);
    assert!(answered(&mut stuck).is_none());
}
