//! The ends of time: nothing overflows, and nothing is given away, whatever the clocks do.

use proptest::collection::vec;
use proptest::prelude::*;

use super::schedule::{Pick, algorithms, any_rule, gap, limit, pick, with_limit};
use super::{Run, config};
use crate::limit::{Calendar, OnExceeded, Outcome, Period, Quota, Rule};
use crate::time::{Now, SECOND};

/// A reading of a clock, most likely from one of its ends.
fn reading() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..=3u64,
        3 => u64::MAX - 3..=u64::MAX,
        1 => any::<u64>(),
        1 => (0..=2_000_000_000u64).prop_map(|below| u64::MAX - below),
    ]
}

#[derive(Clone, Debug)]
enum Turn {
    /// The clocks jump, forward or back.
    Jump(Now),
    Ask(Pick, u64),
    /// Other numbers, said to hold since any instant.
    Change(Rule, u64),
    Limit(u64),
    /// The boot clock starts over.
    Shift(i128),
}

fn turn(rules: BoxedStrategy<Rule>) -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => (reading(), reading()).prop_map(|(boot, wall)| Turn::Jump(Now { boot, wall })),
        10 => (pick(), reading()).prop_map(|(pick, held)| Turn::Ask(pick, held)),
        1 => (rules, reading()).prop_map(|(rule, since)| Turn::Change(rule, since)),
        1 => limit().prop_map(Turn::Limit),
        1 => any::<i64>().prop_map(|by| Turn::Shift(i128::from(by) * 2)),
    ]
}

fn turns() -> impl Strategy<Value = (Rule, Vec<Turn>)> {
    let of = |rules: BoxedStrategy<Rule>| (rules.clone(), vec(turn(rules), 1..40)).boxed();
    proptest::strategy::Union::new(algorithms().into_iter().map(of))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn clocks_at_the_ends_of_their_range_break_nothing_and_give_nothing_away((rule, turns) in turns()) {
        let mut run = Run::start(rule, Now::default());
        // Units admitted at the present instant, and the largest limit that there was at it.
        let (mut admitted, mut most) = (0u64, run.rule.capacity());
        for turn in turns {
            match turn {
                Turn::Jump(now) => {
                    run.now = within_calendars(&run.rule, now);
                    (admitted, most) = (0, run.rule.capacity());
                }
                Turn::Ask(pick, held) => {
                    let cost = pick.cost(run.rule.capacity());
                    run.advance();
                    let beside = run.state.judge(&run.rule, cost, held, run.now);
                    let at_the_end = run.now.boot == u64::MAX || run.now.wall == u64::MAX;
                    prop_assert!(beside != Outcome::Wait(0) || at_the_end, "denied, and told to \
                                                                            come at once");
                    if run.ask(cost) == Outcome::Pass {
                        admitted += cost;
                    }
                    prop_assert!(admitted <= most, "{admitted} of {most} at {:?}", run.now);
                }
                Turn::Change(rule, since) => {
                    (run.rule, run.since) = (rule, since);
                    run.advance();
                    most = most.max(run.rule.capacity());
                }
                Turn::Limit(limit) => {
                    run.change(with_limit(&run.rule, limit));
                    most = most.max(limit);
                }
                Turn::Shift(by) => {
                    // A new boot clock is a new instant.
                    run.state.shift_boot(by);
                    (admitted, most) = (0, run.rule.capacity());
                }
            }
            // None of these has a wrong answer here; they must have one.
            let _ = (run.remaining(), run.state.is_fresh(run.now));
            let _ = run.state.reset_after(&run.rule, 1, run.now);
        }
    }

    #[test]
    fn a_clock_that_goes_back_refills_nothing(rule in any_rule(), now in reading(), back in reading()) {
        let now = within_calendars(&rule, Now { boot: now, wall: now });
        let mut run = Run::start(rule, now);
        run.ask(run.rule.capacity());
        prop_assert_eq!(run.remaining(), 0);
        run.now = Now { boot: now.boot.min(back), wall: now.wall.min(back) };
        run.advance();
        prop_assert_eq!(run.remaining(), 0);
        prop_assert!(!run.state.is_fresh(run.now));
    }

    #[test]
    fn a_clock_that_goes_back_takes_no_more_than_was_taken(
        rule in any_rule(),
        costs in (1..=20u64, 1..=20u64),
        gaps in (gap(), gap()),
        back in reading(),
    ) {
        let rule = with_limit(&rule, 100);
        let mut run = Run::start(rule, Now { boot: 77 * SECOND, wall: 1_750_000_000 * SECOND });
        run.ask(costs.0);
        run.pass(gaps.0);
        run.ask(costs.1);
        run.pass(gaps.1);
        run.now = Now { boot: run.now.boot.min(back), wall: run.now.wall.min(back) };
        run.advance();
        prop_assert!(run.remaining() >= 100 - costs.0 - costs.1, "{} remain at {:?}", run.remaining(), run.now);
    }

    #[test]
    fn a_boot_clock_that_starts_over_keeps_nobody_waiting_longer(
        rule in any_rule(),
        boot in reading(),
        wall in reading(),
    ) {
        let now = within_calendars(&rule, Now { boot, wall });
        let mut run = Run::start(rule, now);
        run.ask(run.rule.capacity());
        let Outcome::Wait(before) = run.judge(1) else { panic!("all is taken") };
        run.state.shift_boot(-i128::from(u64::MAX));
        run.now.boot = 0;
        let Outcome::Wait(after) = run.judge(1) else { panic!("a new clock refilled it") };
        // A wait that would end after the end of time was told shorter than it is.
        prop_assert!(after == before || now.boot.checked_add(after).is_none(), "{after}, and \
                                                                                {before} before");
    }
}

/// The last nanosecond of all has a test of its own for quotas, below.
fn within_calendars(rule: &Rule, now: Now) -> Now {
    match rule {
        Rule::Quota(_) => Now { wall: now.wall.min(u64::MAX - 1), ..now },
        _ => now,
    }
}

fn daily(limit: u64, zone: &str) -> Rule {
    let calendar = Calendar {
        period: Period::Day,
        anchor_day: 1,
        zone: jiff::tz::TimeZone::get(zone).unwrap(),
    };
    Rule::Quota(Quota { limit, calendar, on_exceeded: OnExceeded::Deny })
}

#[test]
fn a_quota_counts_in_the_last_nanosecond_of_all() {
    let mut run = Run::start(daily(10, "UTC"), Now { boot: 0, wall: u64::MAX });
    assert_eq!(run.ask(10), Outcome::Pass);
    assert_ne!(run.ask(1), Outcome::Pass);
}

#[test]
fn a_quota_counts_in_the_hour_before_a_midnight_that_comes_twice() {
    // One minute into 7 November 2010 the clocks of St John's went back to 23:01. At the second
    // 23:15 a midnight of that date is behind and another ahead.
    let now: jiff::Timestamp = "2010-11-07T02:45:00Z".parse().unwrap();
    let wall = u64::try_from(now.as_nanosecond()).unwrap();
    let mut run = Run::start(daily(10, "America/St_Johns"), Now { boot: 0, wall });
    assert_eq!(run.ask(10), Outcome::Pass);
    assert_ne!(run.ask(1), Outcome::Pass);
}
