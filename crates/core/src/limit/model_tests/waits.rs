//! A wait is exact: whoever comes back after it passes, whoever comes a nanosecond sooner does not.

use proptest::collection::vec;
use proptest::prelude::*;

use super::schedule::{Act, Gap, Pick, any_rule, any_schedule, gap, pick};
use super::{Run, config, later};
use crate::limit::{Outcome, Permits};
use crate::permit::PermitId;
use crate::time::{Now, SECOND};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_denied_cost_passes_after_its_wait_and_not_a_nanosecond_sooner(plan in any_schedule()) {
        let mut run = Run::start(plan.rule, plan.start);
        for step in &plan.steps {
            run.pass(step.gap);
            if let Some(rule) = step.act.changed(&run.rule) {
                run.change(rule);
            }
            let Act::Ask(pick) = step.act else { continue };
            let cost = pick.cost(run.rule.capacity());
            let Outcome::Wait(wait) = run.ask(cost) else { continue };
            prop_assert!(wait > 0, "a wait of nothing is no denial");
            let Some(then) = later(run.now, wait) else { continue };
            prop_assert!(run.would_pass(cost, then), "{cost} does not pass {wait} ns after {:?}", run.now);
            let sooner = later(run.now, wait - 1).unwrap();
            prop_assert!(!run.would_pass(cost, sooner), "{cost} passes before {wait} ns after \
                                                         {:?}", run.now);
        }
    }

    #[test]
    fn the_longest_wait_of_several_limits_admits_the_check_and_a_nanosecond_less_does_not(
        rules in vec(any_rule(), 2..6),
        max in 1..=4u64,
        boot in 0..=1_000 * SECOND,
        wall in 1_700_000_000 * SECOND..=1_800_000_000 * SECOND,
        steps in vec((gap(), pick()), 1..40),
    ) {
        let now = Now { boot, wall };
        let mut limits = Limits {
            runs: rules.into_iter().map(|rule| Run::start(rule, now)).collect(),
            permits: Permits::default(),
            max,
            granted: 0,
        };
        for (gap, pick) in steps {
            limits.pass(gap);
            let cost = limits.cost(pick);
            let now = limits.runs[0].now;
            let outcomes = limits.outcomes(cost);
            if outcomes.iter().all(|outcome| *outcome == Outcome::Pass) {
                limits.take(cost);
                continue;
            }
            if outcomes.contains(&Outcome::Never) {
                continue;
            }
            let wait = outcomes.iter().filter_map(|outcome| outcome.retry_after()).max().unwrap();
            let Some(then) = later(now, wait) else { continue };
            prop_assert!(limits.would_pass(cost, then), "{cost} does not pass after {wait} ns: \
                                                         {outcomes:?}");
            let sooner = later(now, wait - 1).unwrap();
            prop_assert!(!limits.would_pass(cost, sooner), "{cost} passes before {wait} ns: \
                                                            {outcomes:?}");
        }
    }
}

/// Several limits asked together: all must pass, and nothing is taken unless all do.
#[derive(Clone)]
struct Limits {
    runs: Vec<Run>,
    permits: Permits,
    max: u64,
    granted: u128,
}

impl Limits {
    /// Lets time pass for all, as much as the gap is for the first.
    fn pass(&mut self, gap: Gap) {
        self.runs[0].pass(gap);
        let now = self.runs[0].now;
        self.set(now);
    }

    fn set(&mut self, now: Now) {
        self.runs.iter_mut().for_each(|run| run.now = now);
        self.permits.advance(now.boot);
    }

    /// A cost around the smallest of the limits.
    fn cost(&self, pick: Pick) -> u64 {
        pick.cost(self.runs.iter().map(|run| run.rule.capacity()).min().unwrap())
    }

    fn outcomes(&mut self, cost: u64) -> Vec<Outcome> {
        let boot = self.runs[0].now.boot;
        let mut outcomes: Vec<_> = self.runs.iter_mut().map(|run| run.judge(cost)).collect();
        // The next gap looks at what the first run was told; let it be what the check was told.
        self.runs[0].due = self.runs.iter().map(|run| run.due).max().unwrap();
        outcomes.push(self.permits.judge(self.max, 1, 0, boot));
        outcomes
    }

    fn take(&mut self, cost: u64) {
        self.runs.iter_mut().for_each(|run| run.state.take(&run.rule, cost, run.now));
        self.granted += 1;
        let until = self.runs[0].now.boot + SECOND;
        self.permits.grant(PermitId { partition: 0, secret: self.granted }, until);
    }

    fn would_pass(&self, cost: u64, then: Now) -> bool {
        let mut limits = self.clone();
        limits.set(then);
        limits.outcomes(cost).iter().all(|outcome| *outcome == Outcome::Pass)
    }
}
