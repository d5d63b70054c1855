//! Messages that are lost or late: what may have been admitted stays spent, and nobody waits beyond
//! his deadline.

use super::*;
use crate::time::MS;

/// Ten for everybody, one for each address, five for each tenant.
const POLICY: &str = r#"
    default_tier = "t"
    limits = [
        { name = "address", per = ["ip"], algorithm = "fixed_window", limit = 1, window = "1d" },
        { name = "everybody", per = [], algorithm = "fixed_window", limit = 10, window = "1d" },
    ]
    [tiers.t]
    limits = [{ name = "rate", algorithm = "fixed_window", limit = 10, window = "1d" }]
"#;

/// A tenant in the shard of the global bucket, and one in another.
fn world(seed: u64) -> (World, Check, Check) {
    let mut world = World::new(2, POLICY, ROOM, seed);
    let [near, far] = world.near_and_far();
    (world, near, far)
}

/// What everybody and this tenant have left.
fn left(world: &mut World, tenant: &Check) -> [u64; 2] {
    let looked = world.peek(&costing(1_000, tenant));
    ["everybody", "rate"].map(|limit| verdict(&looked, limit).remaining)
}

fn is_settle(message: &Message) -> bool {
    matches!(message, Message::Settle { .. })
}

#[test]
fn a_cancel_that_is_lost_stays_spent_and_holds_up_nobody_for_more_than_a_second() {
    for seed in seeds(10) {
        let (mut world, near, far) = world(seed);
        let here = from_ip("192.0.2.1", &far);
        assert!(world.decide(&here).allowed);
        // The address has no more, and that the global one is given back is lost.
        let mut denied = world.start(&here);
        world.deliver_all_but(is_settle);
        assert_eq!(denier(&only(now(&mut denied)).unwrap()), "address");
        let mut waits = world.start(&costing(9, &near));
        world.deliver_all();
        world.pass(SECOND - 1);
        assert!(answered(&mut waits).is_none() && world.is_busy());
        world.pass(1);
        assert_eq!(denier(&only(now(&mut waits)).unwrap()), "everybody");
        assert_eq!(left(&mut world, &far), [8, 9]);
        assert!(world.decide(&costing(8, &near)).allowed && !world.is_busy());
    }
}

#[test]
fn what_was_admitted_stays_spent_though_the_word_of_it_is_lost() {
    let (mut world, near, far) = world(0);
    let mut first = world.start(&costing(10, &far));
    assert_eq!(world.deliver_all_but(is_settle), 1);
    assert!(only(now(&mut first)).unwrap().allowed);
    let mut second = world.start(&near);
    assert!(answered(&mut second).is_none());
    world.pass(SECOND);
    assert_eq!(denier(&only(now(&mut second)).unwrap()), "everybody");
    assert_eq!(left(&mut world, &near), [0, 10]);
}

#[test]
fn a_check_whose_question_is_lost_hears_busy_at_its_deadline_and_gets_back_what_it_held() {
    let (mut world, _, far) = world(0);
    let mut answer = world.start(&within(100, &costing(4, &far)));
    assert_eq!(world.lose_all(), 1);
    world.pass(100 * MS - 1);
    assert!(answered(&mut answer).is_none());
    world.pass(1);
    assert_eq!(now(&mut answer).unwrap_err(), Refusal::Busy);
    world.deliver_all();
    assert_eq!(left(&mut world, &far), [10, 10]);
    assert!(!world.is_busy());
}

#[test]
fn a_check_whose_answer_is_lost_or_late_gives_back_what_it_held_elsewhere() {
    for late in [false, true] {
        let (mut world, _, far) = world(0);
        let mut answer = world.start(&within(100, &costing(4, &far)));
        world.deliver_asks();
        if !late {
            assert_eq!(world.lose_all(), 1);
        }
        world.pass(100 * MS);
        assert_eq!(now(&mut answer).unwrap_err(), Refusal::Busy);
        world.deliver_all();
        assert!(!world.is_busy());
        assert_eq!(left(&mut world, &far), [10, 10]);
    }
}

#[test]
fn a_late_answer_from_a_bucket_that_stands_in_beyond_a_cap_gives_back_what_it_holds_too() {
    let policy =
        POLICY.replace("limit = 1,", "limit = 100,").replace("limit = 10,", "limit = 10000,");
    for seed in seeds(10) {
        let mut world = World::new(3, &policy, Caps { shared_keys: 4, ..ROOM }, seed);
        let check = |i: u32| from_ip(&format!("10.0.0.{i}"), &of("acme"));
        // Every shard has its four.
        (0..60).for_each(|i| drop(world.decide(&check(i))));
        let before = world.peek(&check(99));
        assert!(before.approximate());
        let mut answer = world.start(&within(100, &check(99)));
        world.deliver_asks();
        world.pass(100 * MS);
        if let Some(Ok(_)) = answered(&mut answer) {
            // Everything lay in its own shard.
            continue;
        }
        world.deliver_all();
        assert!(!world.is_busy(), "something is still held");
        let after = world.peek(&check(99));
        assert_eq!(verdict(&after, "address").remaining, verdict(&before, "address").remaining);
    }
}

#[test]
fn a_check_that_is_parked_behind_a_longer_one_hears_busy_at_its_own_deadline() {
    let (mut world, _, far) = world(0);
    let mut first = world.start(&within(60_000, &costing(10, &far)));
    let mut second = world.start(&within(100, &far));
    world.lose_all();
    world.pass(100 * MS);
    assert_eq!(now(&mut second).unwrap_err(), Refusal::Busy);
    assert!(answered(&mut first).is_none());
    world.pass(60 * SECOND);
    assert_eq!(now(&mut first).unwrap_err(), Refusal::Busy);
}

#[test]
fn a_check_that_waits_for_anothers_hold_hears_busy_at_its_own_deadline_and_leaves_the_other_alone()
{
    let (mut world, near, far) = world(0);
    let mut first = world.start(&costing(10, &far));
    world.deliver_asks();
    let mut second = world.start(&within(100, &near));
    world.pass(100 * MS);
    assert_eq!(now(&mut second).unwrap_err(), Refusal::Busy);
    world.deliver_all();
    assert!(only(now(&mut first)).unwrap().allowed);
    assert_eq!((left(&mut world, &near), world.is_busy()), ([0, 10], false));
}

#[test]
fn a_check_that_heard_busy_is_not_remembered_by_its_id() {
    let (mut world, _, far) = world(0);
    let check = with_id("a", &within(100, &far));
    let mut answer = world.start(&check);
    world.lose_all();
    world.pass(100 * MS);
    assert_eq!(now(&mut answer).unwrap_err(), Refusal::Busy);
    let again = world.decide(&check);
    assert!(again.allowed && !again.replayed);
    assert_eq!(left(&mut world, &far), [9, 9]);
}

/// One unit of `low` goes from hand to hand: each that gets it is denied by `high` and gives it on.
#[test]
fn a_long_queue_is_answered_on_a_short_stack() {
    const TWO: &str = r#"
        default_tier = "t"
        limits = [
            { name = "g", per = ["attribute:g"], algorithm = "fixed_window", limit = 1, window = "1d" },
            { name = "h", per = ["attribute:h"], algorithm = "fixed_window", limit = 1, window = "1d" },
        ]
        [tiers.t]
    "#;
    let with = |names: &[&str], check: &Check| {
        let mut check = check.clone();
        let value = |n: &&str| (name(n), Label::new("x").unwrap());
        check.attributes.extend(names.iter().map(value));
        check
    };
    let mut seed = 0;
    let (near, far) = loop {
        // A seed that puts both buckets into shard 0.
        let mut world = World::new(2, TWO, ROOM, seed);
        let [near, far] = [0, 1].map(|shard| world.tenant_of(shard));
        if answered(&mut world.start_peek(&with(&["g", "h"], &near))).is_some() {
            break (near, far);
        }
        seed += 1;
    };
    // Everybody queues for the bucket with the lower key, whichever that is.
    for (low, high) in [("g", "h"), ("h", "g")] {
        let mut world = World::new(2, TWO, ROOM, seed);
        let mut gives_back = world.start(&within(100, &with(&[low], &far)));
        world.deliver_asks();
        world.lose_all();
        let mut takes = world.start(&with(&[high], &far));
        world.deliver_asks();
        let both = within(30_000, &with(&["g", "h"], &near));
        let mut queue: Vec<_> = (0..3_000).map(|_| world.start(&both)).collect();
        world.deliver_all();
        assert!(only(now(&mut takes)).unwrap().allowed);
        world.pass(100 * MS);
        assert_eq!(now(&mut gives_back).unwrap_err(), Refusal::Busy);
        world.deliver_all();
        for answer in &mut queue {
            assert_eq!(denier(&only(now(answer)).unwrap()), high);
        }
    }
}

#[test]
fn a_check_that_is_parked_behind_one_that_gives_up_goes_on() {
    let (mut world, _, far) = world(0);
    let mut first = world.start(&within(100, &costing(10, &far)));
    let mut second = world.start(&costing(3, &far));
    world.lose_all();
    world.pass(100 * MS);
    assert_eq!(now(&mut first).unwrap_err(), Refusal::Busy);
    world.deliver_all();
    assert!(only(now(&mut second)).unwrap().allowed);
    assert_eq!(left(&mut world, &far), [7, 7]);
}
