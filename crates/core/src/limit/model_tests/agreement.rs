//! Each algorithm says what its model says: the verdict on every cost, what remains before and
//! after, and how long to wait.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::models::{Model, model};
use super::schedule::{
    Act, Schedule, bucket_with_initial, fixed_window, full_bucket, leaky_bucket, quota, schedule,
    sliding_log, sliding_window,
};
use super::{Run, config, later};
use crate::limit::{OnExceeded, Outcome, Quota, Rule};
use crate::time::Now;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_token_bucket_agrees_with_the_replay_of_all_it_admitted(plan in schedule(full_bucket())) {
        agree(plan)?;
    }

    #[test]
    fn a_token_bucket_that_does_not_start_full_agrees_with_its_replay(plan in schedule(bucket_with_initial())) {
        agree(plan)?;
    }

    #[test]
    fn a_leaky_bucket_agrees_with_the_replay_of_all_it_admitted(plan in schedule(leaky_bucket())) {
        agree(plan)?;
    }

    #[test]
    fn a_fixed_window_agrees_with_a_map_of_all_windows(plan in schedule(fixed_window())) {
        agree(plan)?;
    }

    #[test]
    fn a_sliding_window_agrees_with_its_formula_over_a_map_of_all_windows(plan in schedule(sliding_window())) {
        agree(plan)?;
    }

    #[test]
    fn a_sliding_log_agrees_with_a_list_of_all_admissions(plan in schedule(sliding_log())) {
        agree(plan)?;
    }

    #[test]
    fn a_quota_agrees_with_a_calendar_counted_out_by_hand(plan in schedule(quota("UTC", OnExceeded::Deny))) {
        agree(plan)?;
    }

    #[test]
    fn a_quota_follows_berlin_through_its_short_and_long_days(
        plan in schedule(quota("Europe/Berlin", OnExceeded::Deny)),
    ) {
        agree(plan)?;
    }

    #[test]
    fn a_quota_that_counts_passes_everything_and_forgets_nothing(
        plan in schedule(quota("UTC", OnExceeded::Count)),
    ) {
        agree(plan)?;
    }
}

fn agree(plan: Schedule) -> TestCaseResult {
    let mut model = model(&plan.rule, plan.start);
    let mut run = Run::start(plan.rule, plan.start);
    let mut unseen: Option<Now> = None;
    for (number, step) in plan.steps.iter().enumerate() {
        run.pass(step.gap);
        match (&step.act, step.act.changed(&run.rule)) {
            // Buckets hear of new numbers when they are next asked, as the policy has it; of
            // several, only of the last.
            (_, Some(rule)) if is_bucket(&rule) => {
                run.change_unseen(rule);
                unseen = Some(run.now);
            }
            (_, Some(rule)) => {
                run.change(rule);
                model.change(&run.rule, run.now);
            }
            (Act::Ask(pick), None) => {
                if let Some(at) = unseen.take() {
                    model.change(&run.rule, at);
                }
                let cost = pick.cost(run.rule.capacity());
                same_verdict(&mut run, model.as_mut(), cost)
                    .map_err(|error| in_step(number, error))?;
            }
            (_, None) => unreachable!("what does not ask changes"),
        }
    }
    Ok(())
}

fn same_verdict(run: &mut Run, model: &mut dyn Model, cost: u64) -> TestCaseResult {
    let (now, outcome) = (run.now, run.judge(cost));
    let counts = matches!(run.rule, Rule::Quota(Quota { on_exceeded: OnExceeded::Count, .. }));
    same_remaining(run, model)?;
    match outcome {
        Outcome::Pass => {
            prop_assert!(
                counts || model.fits(cost, now),
                "{cost} passed at {now:?} and should not have"
            );
            run.state.take(&run.rule, cost, now);
            model.take(cost, now);
            same_remaining(run, model)?;
        }
        Outcome::Never => {
            prop_assert!(!counts && cost > run.rule.capacity(), "{cost} was said never to pass")
        }
        Outcome::Wait(wait) => {
            prop_assert!(
                !counts && cost <= run.rule.capacity() && !model.fits(cost, now),
                "{cost} should have passed"
            );
            if let Some(then) = later(now, wait).filter(|then| then.wall < u64::MAX / 2) {
                prop_assert!(model.fits(cost, then), "{cost} does not pass after {wait}");
                prop_assert!(
                    !model.fits(cost, later(now, wait - 1).unwrap()),
                    "{cost} passes before {wait}"
                );
            }
        }
        Outcome::Held => prop_assert!(false, "nothing was held"),
    }
    Ok(())
}

/// What remains passes, and a unit more does not.
fn same_remaining(run: &Run, model: &dyn Model) -> TestCaseResult {
    let remaining = run.remaining();
    prop_assert!(
        remaining == 0 || model.fits(remaining, run.now),
        "{remaining} do not remain at {:?}",
        run.now
    );
    prop_assert!(
        !model.fits(remaining + 1, run.now),
        "more than {remaining} remain at {:?}",
        run.now
    );
    Ok(())
}

fn is_bucket(rule: &Rule) -> bool {
    matches!(rule, Rule::TokenBucket(_) | Rule::LeakyBucket(_))
}

fn in_step(number: usize, error: TestCaseError) -> TestCaseError {
    TestCaseError::fail(format!("step {number}: {error}"))
}
