//! Changed numbers: spent stays spent, and the past is settled by the numbers of the past.

use proptest::collection::vec;
use proptest::prelude::*;

use super::models::model;
use super::schedule::{
    Act, DAY, any_rule, any_schedule, full_bucket, leaky_bucket, limit, schedule, with_limit,
};
use super::{Run, config, later};
use crate::limit::{Calendar, OnExceeded, Outcome, Period, Quota, Rule, UNITS_MAX, Window};
use crate::time::{Now, SECOND};

const START: Now = Now { boot: 77 * SECOND, wall: 1_750_000_000 * SECOND + 1 };

proptest! {
    #![proptest_config(config())]

    #[test]
    fn spent_stays_spent_however_often_the_limit_changes(
        rule in any_rule(),
        spent in 1..=10_000u64,
        limits in vec(limit(), 1..10),
    ) {
        let mut run = Run::start(with_limit(&rule, 10_000), START);
        prop_assert_eq!(run.ask(spent), Outcome::Pass);
        for limit in limits {
            run.change_unseen(with_limit(&run.rule, limit));
            run.advance();
            prop_assert_eq!(run.remaining(), limit.saturating_sub(spent), "{} of {}", spent, limit);
        }
    }

    #[test]
    fn sixty_of_a_hundred_are_sixty_of_two_hundred_and_all_of_fifty_until_refilled_below(rule in any_rule()) {
        let mut run = Run::start(with_limit(&rule, 100), START);
        prop_assert_eq!(run.ask(60), Outcome::Pass);
        run.change(with_limit(&rule, 200));
        prop_assert_eq!(run.remaining(), 140);
        run.change(with_limit(&rule, 50));
        prop_assert_eq!(run.remaining(), 0);
        let Outcome::Wait(wait) = run.judge(1) else { panic!("one of fifty can pass some day") };
        let Some(then) = later(run.now, wait) else { return Ok(()) };
        run.now = later(run.now, wait - 1).unwrap();
        run.advance();
        prop_assert_eq!(run.remaining(), 0);
        run.now = then;
        run.advance();
        prop_assert!(run.remaining() >= 1);
    }

    #[test]
    fn other_numbers_of_the_same_algorithm_find_spent_what_the_old_ones_had(
        plan in any_schedule(),
        limit in limit(),
    ) {
        let mut run = Run::start(plan.rule, plan.start);
        for step in &plan.steps {
            run.pass(step.gap);
            if let Act::Ask(pick) = step.act {
                run.ask(pick.cost(run.rule.capacity()));
            }
            let Some(rule) = step.act.changed(&run.rule) else { continue };
            if matches!(rule, Rule::SlidingLog(_)) {
                // A log knows when each unit was spent, so a shorter window is rid of the older
                // ones at once.
                break;
            }
            // Made wide enough that nothing spent is hidden below zero.
            run.change(with_limit(&run.rule, UNITS_MAX));
            let left = run.remaining();
            run.change(with_limit(&rule, UNITS_MAX));
            prop_assert_eq!(run.remaining(), left, "by {:?}", rule);
            run.change(with_limit(&rule, limit));
        }
    }

    #[test]
    fn a_bucket_that_hears_late_of_a_new_rate_settles_the_past_by_the_old_one(
        plan in prop_oneof![schedule(full_bucket()), schedule(leaky_bucket())],
    ) {
        let mut present = Run::start(plan.rule, plan.start);
        let mut absent = present.clone();
        for step in &plan.steps {
            present.pass(step.gap);
            absent.now = present.now;
            if let Some(rule) = step.act.changed(&present.rule) {
                // Of several changes unheard only the last is remembered, so it asks after each.
                absent.advance();
                absent.change_unseen(rule.clone());
                present.change(rule);
            }
            if let Act::Ask(pick) = step.act {
                let cost = pick.cost(present.rule.capacity());
                prop_assert_eq!(present.ask(cost), absent.ask(cost));
                prop_assert_eq!(&present.state, &absent.state);
            }
        }
    }
}

#[test]
fn windows_that_hear_late_of_new_numbers_hold_them_from_the_instant_of_the_change() {
    let window = |limit, seconds| Window { limit, length: seconds * SECOND };
    let quota = |limit, period| {
        let calendar = Calendar { period, anchor_day: 1, zone: jiff::tz::TimeZone::UTC };
        Rule::Quota(Quota { limit, calendar, on_exceeded: OnExceeded::Deny })
    };
    // Sixty are taken at midnight on 1 June 2025; seconds until the numbers change, and from then
    // until the next check.
    let cases = [
        (Rule::FixedWindow(window(100, 60)), Rule::FixedWindow(window(200, 3_600)), 30, 60, 140),
        (Rule::FixedWindow(window(200, 3_600)), Rule::FixedWindow(window(100, 60)), 30, 60, 100),
        (
            Rule::SlidingWindow(window(100, 60)),
            Rule::SlidingWindow(window(200, 3_600)),
            30,
            120,
            140,
        ),
        (
            Rule::SlidingWindow(window(200, 3_600)),
            Rule::SlidingWindow(window(100, 60)),
            30,
            120,
            100,
        ),
        (Rule::SlidingLog(window(100, 60)), Rule::SlidingLog(window(200, 3_600)), 30, 60, 140),
        (Rule::SlidingLog(window(100, 60)), Rule::SlidingLog(window(200, 3_600)), 90, 60, 200),
        (quota(100, Period::Day), quota(200, Period::Month), 3_600, 86_400, 140),
        (quota(200, Period::Month), quota(100, Period::Day), 3_600, 86_400, 100),
    ];
    let start = Now { boot: 77 * SECOND, wall: 20_240 * DAY };
    let mut wrong = Vec::new();
    for (old, new, until_change, until_check, expected) in cases {
        let (mut run, mut naive) = (Run::start(old.clone(), start), model(&old, start));
        assert_eq!(run.ask(60), Outcome::Pass);
        naive.take(60, start);
        run.now = later(run.now, until_change * SECOND).unwrap();
        run.change_unseen(new.clone());
        naive.change(&new, run.now);
        run.now = later(run.now, until_check * SECOND).unwrap();
        assert!(naive.fits(expected, run.now) && !naive.fits(expected + 1, run.now), "{new:?}");
        run.advance();
        if run.remaining() != expected {
            wrong.push(format!(
                "{expected} remain, not {}, of {old:?} changed to {new:?}",
                run.remaining()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
