//! Looking changes nothing: however often a state is advanced and asked on the way, it arrives the
//! same.

use proptest::collection::vec;
use proptest::prelude::*;

use super::schedule::{Act, any_schedule, pick};
use super::{Run, config, later};
use crate::limit::Outcome;
use crate::time::{Now, SECOND};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_cost_that_is_judged_and_not_taken_changes_nothing(
        plan in any_schedule(),
        looks in vec((0..=1_000u64, pick()), 40),
    ) {
        let mut watched = Run::start(plan.rule, plan.start);
        let mut left_alone = watched.clone();
        for (step, (thousandths, look)) in plan.steps.iter().zip(looks) {
            left_alone.pass(step.gap);
            let to = left_alone.now;
            // On the way there, and once more on arrival, somebody looks.
            let boot = watched.now.boot + (to.boot - watched.now.boot) / 1_000 * thousandths;
            let wall = watched.now.wall + (to.wall - watched.now.wall) / 1_000 * thousandths;
            (watched.now.boot, watched.now.wall) = (boot, wall);
            watched.judge(look.cost(watched.rule.capacity()));
            watched.now = to;
            watched.judge(look.cost(watched.rule.capacity()));
            watched.due = left_alone.due;
            match (&step.act, step.act.changed(&watched.rule)) {
                (Act::Ask(pick), _) => {
                    let cost = pick.cost(watched.rule.capacity());
                    prop_assert_eq!(watched.ask(cost), left_alone.ask(cost));
                    prop_assert_eq!(watched.remaining(), left_alone.remaining());
                }
                (_, Some(rule)) => {
                    watched.change(rule.clone());
                    left_alone.change(rule);
                }
                (_, None) => unreachable!("what does not ask changes"),
            }
            prop_assert_eq!(&watched.state, &left_alone.state);
        }
    }

    #[test]
    fn one_large_step_in_time_equals_many_small_ones_and_a_step_of_nothing_equals_none(
        plan in any_schedule(),
        gaps in vec(prop_oneof![0..=3u64, 0..=2 * SECOND, 0..=100 * 86_400 * SECOND], 1..12),
    ) {
        let mut small = Run::start(plan.rule, plan.start);
        for step in &plan.steps {
            small.pass(step.gap);
            match step.act.changed(&small.rule) {
                Some(rule) => small.change(rule),
                None => {
                    let Act::Ask(pick) = step.act else { continue };
                    small.ask(pick.cost(small.rule.capacity()));
                }
            }
        }
        let mut large = small.clone();
        for gap in gaps {
            small.now = later(small.now, gap).unwrap();
            small.advance();
        }
        large.now = small.now;
        large.advance();
        prop_assert_eq!(&large.state, &small.state);
        prop_assert_eq!(large.remaining(), small.remaining());
        let once = large.state.clone();
        large.advance();
        prop_assert_eq!(&large.state, &once);
    }

    #[test]
    fn the_reset_foretold_for_a_cost_is_the_reset_once_it_is_taken(plan in any_schedule()) {
        let mut run = Run::start(plan.rule, plan.start);
        for step in &plan.steps {
            run.pass(step.gap);
            if let Some(rule) = step.act.changed(&run.rule) {
                run.change(rule);
            }
            let Act::Ask(pick) = step.act else { continue };
            let cost = pick.cost(run.rule.capacity());
            if run.judge(cost) == Outcome::Pass {
                let foretold = run.state.reset_after(&run.rule, cost, run.now);
                run.state.take(&run.rule, cost, run.now);
                prop_assert_eq!(run.state.reset_after(&run.rule, 0, run.now), foretold);
            }
        }
    }

    #[test]
    fn a_state_goes_on_under_another_boot_clock_as_under_its_own(
        plan in any_schedule(),
        restarts in vec(prop::option::weighted(0.2, 0..=1_000_000_000 * SECOND), 40),
    ) {
        let mut stays = Run::start(plan.rule, plan.start);
        let mut moves = stays.clone();
        let mut ahead = 0;
        for (step, restart) in plan.steps.iter().zip(restarts) {
            stays.pass(step.gap);
            moves.now = Now { boot: stays.now.boot + ahead, wall: stays.now.wall };
            if let Some(other) = restart {
                // A snapshot is read on a machine that has been up for longer, or less long.
                moves.state.shift_boot(i128::from(other) - i128::from(ahead));
                ahead = other;
                moves.now.boot = stays.now.boot + ahead;
            }
            match (&step.act, step.act.changed(&stays.rule)) {
                (Act::Ask(pick), _) => {
                    let cost = pick.cost(stays.rule.capacity());
                    prop_assert_eq!(moves.ask(cost), stays.ask(cost));
                    prop_assert_eq!(moves.remaining(), stays.remaining());
                }
                (_, Some(rule)) => {
                    moves.change(rule.clone());
                    stays.change(rule);
                }
                (_, None) => unreachable!("what does not ask changes"),
            }
            prop_assert_eq!(moves.state.is_fresh(moves.now), stays.state.is_fresh(stays.now));
        }
    }
}
