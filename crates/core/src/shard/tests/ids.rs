//! Request ids: what was allowed is answered again, and charged once.

use super::*;
use crate::time::MS;

const POLICY: &str = r#"
    default_tier = "t"
    limits = [{ name = "everybody", per = [], algorithm = "fixed_window", limit = 10000, window = "1d" }]
    [tiers.t]
    max_concurrent = 3
    limits = [{ name = "rate", algorithm = "fixed_window", limit = 5000, window = "1d" }]
"#;

fn left(world: &mut World, check: &Check) -> u64 {
    let decision = world.peek(&costing(1_000_000, check));
    verdict(&decision, "rate").remaining
}

#[test]
fn an_allowed_answer_is_replayed_with_the_same_permit_and_charged_once() {
    let mut world = World::alone(POLICY);
    let check = with_id("a", &with_permit(60_000, &costing(7, &of("acme"))));
    let first = world.decide(&check);
    world.pass(59 * SECOND);
    let again = world.decide(&within(5, &check));
    assert_eq!(
        (first.allowed, first.replayed, again.allowed, again.replayed),
        (true, false, true, true)
    );
    assert_eq!(again.permit, first.permit);
    assert_eq!(verdict(&again, "rate").remaining, 4_993);
    assert_eq!((left(&mut world, &check), world.describe(&check).permits), (4_993, 1));
}

#[test]
fn after_a_minute_a_request_id_is_forgotten() {
    let mut world = World::alone(POLICY);
    let check = with_id("a", &of("acme"));
    world.decide(&check);
    world.pass(MINUTE - 1);
    assert!(world.decide(&check).replayed);
    world.pass(1);
    assert!(!world.decide(&check).replayed);
    assert_eq!(left(&mut world, &check), 4_998);
}

#[test]
fn a_denial_is_not_remembered() {
    let policy = POLICY.replace(r#"limit = 5000, window = "1d""#, r#"limit = 1, window = "1s""#);
    let mut world = World::alone(&policy);
    world.decide(&of("acme"));
    let check = with_id("a", &of("acme"));
    assert!(!world.decide(&check).allowed);
    assert_eq!(world.request_ids(), 0);
    world.pass(SECOND);
    let second = world.decide(&check);
    assert!(second.allowed && !second.replayed);
}

#[test]
fn the_same_id_with_another_body_is_refused_and_charges_nothing() {
    let mut world = World::alone(POLICY);
    let check = with_id("a", &of("acme"));
    world.decide(&check);
    for other in [
        costing(2, &check),
        by_client("ann", &check),
        from_ip("192.0.2.1", &check),
        with_permit(1_000, &check),
        with_limits(&[sent("adhoc", &[Dimension::Tenant], 5)], &check),
    ] {
        assert_eq!(world.ask(&other).unwrap_err(), Refusal::RequestIdReused);
    }
    assert_eq!(left(&mut world, &check), 4_999);
}

#[test]
fn the_same_id_of_another_tenant_is_another_id() {
    let mut world = World::alone(POLICY);
    for tenant in ["acme", "globex"] {
        assert!(!world.decide(&with_id("a", &of(tenant))).replayed);
    }
}

/// The first is on its way to the global limit's shard as the second comes.
#[test]
fn a_duplicate_waits_for_the_first_and_gets_its_answer() {
    let mut world = World::new(2, POLICY, ROOM, 0);
    let [_, far] = world.near_and_far();
    let check = with_id("a", &with_permit(60_000, &far));
    let (mut first, mut second) = (world.start(&check), world.start(&check));
    let mut other = world.start(&with_id("a", &costing(2, &far)));
    assert!(answered(&mut second).is_none());
    world.deliver_all();
    let (first, second) = (only(now(&mut first)).unwrap(), only(now(&mut second)).unwrap());
    assert_eq!((first.replayed, second.replayed, second.permit), (false, true, first.permit));
    assert_eq!(only(now(&mut other)).unwrap_err(), Refusal::RequestIdReused);
    assert_eq!((left(&mut world, &far), world.describe(&far).permits), (4_999, 1));
}

/// Both are parked behind a third check before either is remembered.
#[test]
fn duplicates_that_wait_together_get_one_permit() {
    let policy = POLICY.replace("limit = 5000", "limit = 10");
    let mut world = World::new(2, &policy, ROOM, 0);
    let [_, far] = world.near_and_far();
    let check = with_id("a", &with_permit(60_000, &costing(2, &far)));
    let mut holder = world.start(&within(100, &costing(9, &far)));
    let mut twice = [world.start(&check), world.start(&check)];
    world.lose_all();
    world.pass(100 * MS);
    assert_eq!(now(&mut holder).unwrap_err(), Refusal::Busy);
    world.deliver_all();
    let [first, second] = twice.each_mut().map(|answer| only(now(answer)).unwrap());
    assert_eq!((first.replayed, second.replayed, first.permit), (false, true, second.permit));
    assert_eq!((left(&mut world, &far), world.describe(&far).permits), (8, 1));
}

#[test]
fn duplicates_in_one_batch_of_independent_checks_are_charged_once() {
    for seed in seeds(5) {
        let mut world = World::new(2, POLICY, ROOM, seed);
        for tenant in world.near_and_far() {
            let check = with_id("a", &tenant);
            let answers = world.ask_each(&[check.clone(), check.clone(), check]);
            let replayed: Vec<_> = answers.into_iter().map(|a| a.unwrap().replayed).collect();
            assert_eq!(replayed, [false, true, true]);
            assert_eq!(left(&mut world, &tenant), 4_999);
        }
    }
}

#[test]
fn a_duplicate_of_one_that_is_denied_in_the_end_is_judged_for_itself() {
    let policy = POLICY.replace("limit = 10000", "limit = 1");
    let mut world = World::new(2, &policy, ROOM, 0);
    let [near, far] = world.near_and_far();
    let check = with_id("a", &far);
    let (mut first, mut second) = (world.start(&check), world.start(&check));
    assert!(only(now(&mut world.start(&near))).unwrap().allowed);
    world.deliver_all();
    for denied in [&mut first, &mut second] {
        let denied = only(now(denied)).unwrap();
        assert_eq!((denier(&denied), denied.replayed), ("everybody", false));
    }
}

#[test]
fn a_tenant_has_a_thousand_ids_and_the_oldest_goes_first() {
    let mut world = World::alone(POLICY);
    let check = |i: usize| with_id(&format!("id-{i}"), &of("acme"));
    for i in 0..1_001 {
        world.decide(&check(i));
        world.pass(MS);
    }
    assert_eq!((world.describe(&of("acme")).request_ids, world.request_ids()), (1_000, 1_000));
    assert!(world.decide(&check(1)).replayed && world.decide(&check(1_000)).replayed);
    assert!(!world.decide(&check(0)).replayed);
}

/// Each tenant may have one all the same, so that the cap silences nobody.
#[test]
fn the_ids_of_all_tenants_have_a_cap() {
    let caps = Caps { request_ids: 50, ..ROOM };
    let mut world = World::new(1, POLICY, caps, 0);
    for id in 0..30 {
        for tenant in 0..20 {
            let check = with_id(&id.to_string(), &of(&format!("t{tenant}")));
            world.decide(&check);
            assert!(world.decide(&check).replayed);
        }
    }
    assert!((50..=70).contains(&world.request_ids()), "{}", world.request_ids());
    world.pass(MINUTE);
    world.sweep();
    assert_eq!(world.request_ids(), 0);
}
