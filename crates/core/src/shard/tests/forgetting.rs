//! Forgetting: what holds no information goes, and nothing else.

use super::*;

/// A token a second up to ten; an address may ask a hundred times a minute.
const POLICY: &str = r#"
    default_tier = "t"
    limits = [{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = 100, window = "1m" }]
    [tiers.t]
    max_concurrent = 5
    limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/s", burst = 10 }]
"#;

#[test]
fn an_account_goes_when_it_has_refilled_and_not_a_nanosecond_before() {
    let mut world = World::new(2, POLICY, ROOM, 0);
    for i in 0..100 {
        world.decide(&costing(1 + i % 2 * 4, &of(&format!("t{i}"))));
    }
    for (nanos, left) in [(SECOND - 1, 100), (1, 50), (4 * SECOND - 1, 50), (1, 0)] {
        world.pass(nanos);
        world.sweep();
        assert_eq!((world.tenants(), world.buckets()), (left, left));
    }
}

#[test]
fn a_shared_bucket_goes_when_its_window_is_over() {
    let mut world = World::new(2, POLICY, ROOM, 0);
    for i in 0..100 {
        world.decide(&from_ip(&format!("192.0.2.{i}"), &of(&format!("t{i}"))));
    }
    for (nanos, left) in [(MINUTE - 1, 100), (1, 0)] {
        world.pass(nanos);
        world.sweep();
        assert_eq!(world.shared_keys(), left);
    }
}

#[test]
fn an_account_stays_while_a_permit_is_out_or_a_request_id_is_remembered() {
    let mut world = World::alone(POLICY);
    world.decide(&with_permit(40_000, &of("permit")));
    let replayed = with_id("a", &of("id"));
    world.decide(&replayed);
    for (nanos, left) in [(40 * SECOND - 1, 2), (1, 1), (20 * SECOND - 1, 1)] {
        world.pass(nanos);
        world.sweep();
        assert_eq!(world.tenants(), left);
    }
    assert!(world.decide(&replayed).replayed);
    world.pass(1);
    world.sweep();
    assert_eq!((world.tenants(), world.buckets(), world.request_ids()), (0, 0, 0));
}

#[test]
fn an_account_stays_while_a_check_of_it_is_open() {
    for seed in seeds(10) {
        let mut world = World::new(3, POLICY, ROOM, seed);
        let checks: Vec<_> =
            (0..20).map(|i| from_ip(&format!("192.0.2.{i}"), &of(&format!("t{i}")))).collect();
        let mut answers: Vec<_> = checks.iter().map(|check| world.start(check)).collect();
        for _ in 0..10 {
            world.deliver();
            world.pass(90 * crate::time::MS);
            world.sweep();
        }
        world.deliver_all();
        assert!(answers.iter_mut().all(|answer| only(now(answer)).unwrap().allowed));
        world.pass(MINUTE);
        world.sweep();
        assert_eq!((world.tenants(), world.shared_keys()), (0, 0));
    }
}

#[test]
fn a_reset_forgets_what_a_tenant_spent_and_no_permit() {
    let mut world = World::alone(POLICY);
    let check = with_permit(60_000, &of("acme"));
    assert_eq!(world.admits(&check, 5), 5);
    assert!(world.decide(&costing(5, &of("acme"))).allowed);
    let hash = world.secret.account("acme");
    world.on(0, |s, _, _| s.forget_spent("acme", hash, false));
    assert_eq!((world.describe(&check).permits, world.buckets()), (5, 0));
    assert!(world.decide(&costing(10, &of("acme"))).allowed);
    assert_eq!(denier(&world.decide(&of("acme"))), "rate");
}

#[test]
fn the_pages_of_a_listing_hold_every_tenant_once() {
    let mut world = World::alone(POLICY);
    for i in 0..100 {
        world.decide(&of(&format!("t{i}")));
    }
    let (mut ids, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = world.shards[0].list(from, 7);
        assert!(page.ids.len() <= 7);
        ids.extend(page.ids);
        next = page.next;
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

#[test]
fn a_check_that_is_open_during_a_reset_is_charged_after_it() {
    let policy =
        POLICY.replace(r#"name = "address", per = ["ip"]"#, r#"name = "everybody", per = []"#);
    let mut world = World::new(2, &policy, ROOM, 0);
    let [_, far] = world.near_and_far();
    let mut open = world.start(&costing(4, &far));
    let (home, hash) = (world.home(&far), world.secret.account(&far.account()));
    world.on(home, |s, _, _| s.forget_spent(far.tenant.as_str(), hash, false));
    world.deliver_all();
    assert!(only(now(&mut open)).unwrap().allowed);
    assert_eq!(verdict(&world.decide(&far), "rate").remaining, 5);
}
