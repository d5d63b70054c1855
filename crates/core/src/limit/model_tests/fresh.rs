//! Forgetting: a state that says it is fresh can be dropped and made anew, and nobody can tell; and
//! one that still owes never says so.

use proptest::prelude::*;

use super::models::model;
use super::schedule::{Act, any_full_schedule, any_schedule, bucket_with_initial, schedule};
use super::{Run, config, later};
use crate::limit::{LeakyBucket, Outcome, Rate, Rule, State, Window};
use crate::time::{Now, SECOND};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_state_that_says_it_is_fresh_goes_on_as_a_fresh_one_would(plan in any_schedule()) {
        let mut kept = Run::start(plan.rule, plan.start);
        let mut anew: Option<Run> = None;
        for step in &plan.steps {
            kept.pass(step.gap);
            if let Some(anew) = &mut anew {
                (anew.now, anew.since) = (kept.now, kept.since);
            }
            // Asked as the sweep asks: at any time, without advancing it first.
            if kept.state.is_fresh(kept.now) {
                anew = Some(Run { state: State::fresh(&kept.rule, kept.now), ..kept.clone() });
            }
            match (&step.act, step.act.changed(&kept.rule)) {
                (Act::Ask(pick), _) => {
                    let cost = pick.cost(kept.rule.capacity());
                    let outcome = kept.ask(cost);
                    let Some(anew) = &mut anew else { continue };
                    prop_assert_eq!(anew.ask(cost), outcome);
                    prop_assert_eq!(anew.remaining(), kept.remaining());
                    prop_assert_eq!(
                        anew.state.reset_after(&anew.rule, 0, anew.now),
                        kept.state.reset_after(&kept.rule, 0, kept.now)
                    );
                }
                (_, Some(rule)) => {
                    kept.change(rule.clone());
                    if let Some(anew) = &mut anew {
                        anew.change(rule);
                    }
                }
                (_, None) => unreachable!("what does not ask changes"),
            }
        }
    }

    #[test]
    fn a_state_is_fresh_exactly_when_nothing_is_owed(plan in any_full_schedule()) {
        let mut model = model(&plan.rule, plan.start);
        let mut run = Run::start(plan.rule, plan.start);
        for step in &plan.steps {
            run.pass(step.gap);
            let owes_nothing = model.fits(run.rule.capacity(), run.now);
            prop_assert_eq!(run.state.is_fresh(run.now), owes_nothing, "before it is advanced to \
                                                                        {:?}", run.now);
            run.advance();
            prop_assert_eq!(run.state.is_fresh(run.now), owes_nothing, "advanced to {:?}", run.now);
            match (&step.act, step.act.changed(&run.rule)) {
                (Act::Ask(pick), _) => {
                    let cost = pick.cost(run.rule.capacity());
                    if run.ask(cost) == Outcome::Pass {
                        model.take(cost, run.now);
                        prop_assert!(!run.state.is_fresh(run.now), "{} were taken just now", cost);
                    }
                }
                (_, Some(rule)) => {
                    run.change(rule);
                    model.change(&run.rule, run.now);
                }
                (_, None) => unreachable!("what does not ask changes"),
            }
        }
    }

    #[test]
    fn a_bucket_that_starts_below_its_burst_is_never_fresh_again(plan in schedule(bucket_with_initial())) {
        let mut run = Run::start(plan.rule, plan.start);
        for step in &plan.steps {
            run.pass(step.gap);
            match (&step.act, step.act.changed(&run.rule)) {
                (Act::Ask(pick), _) => {
                    run.ask(pick.cost(run.rule.capacity()));
                }
                (_, Some(rule)) => run.change(rule),
                (_, None) => unreachable!("what does not ask changes"),
            }
            let Rule::TokenBucket(bucket) = &run.rule else { unreachable!("a schedule keeps to its \
                                                                           algorithm") };
            prop_assert!(bucket.initial == bucket.burst || !run.state.is_fresh(run.now));
        }
    }
}

#[test]
fn a_state_that_has_yet_to_hear_of_slower_numbers_is_not_forgotten_while_it_owes_by_them() {
    let bucket = |seconds| {
        Rule::LeakyBucket(LeakyBucket { rate: Rate::new(1, seconds * SECOND).unwrap(), burst: 100 })
    };
    let log = |seconds| Rule::SlidingLog(Window { limit: 100, length: seconds * SECOND });
    // Sixty are taken, a second later the numbers become an hour's, and a minute after that comes
    // the sweep.
    let mut wrong = Vec::new();
    for (old, new) in [(bucket(1), bucket(3_600)), (log(60), log(3_600))] {
        let mut run = Run::start(old, Now::default());
        assert_eq!(run.ask(60), Outcome::Pass);
        run.now = later(run.now, SECOND).unwrap();
        run.change_unseen(new);
        run.now = later(run.now, 60 * SECOND).unwrap();
        let forgotten = run.state.is_fresh_under([&run.rule], SECOND, run.now);
        run.advance();
        if forgotten && run.remaining() < 100 {
            wrong.push(format!("{} remain of {:?}, and it was swept", run.remaining(), run.rule));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
