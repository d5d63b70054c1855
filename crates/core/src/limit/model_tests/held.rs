//! Units that another check holds: as good as taken, except that the answer says they may come
//! back.

use proptest::collection::vec;
use proptest::prelude::*;

use super::schedule::{Act, any_schedule, pick};
use super::{Run, config};
use crate::limit::Outcome;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_cost_passes_beside_held_units_exactly_if_both_together_would(
        plan in any_schedule(),
        holds in vec(pick(), 40),
    ) {
        let mut run = Run::start(plan.rule, plan.start);
        for (step, hold) in plan.steps.iter().zip(holds) {
            run.pass(step.gap);
            if let Some(rule) = step.act.changed(&run.rule) {
                run.change(rule);
            }
            let Act::Ask(pick) = step.act else { continue };
            let (cost, held) = (pick.cost(run.rule.capacity()), hold.cost(run.rule.capacity()));
            let (alone, together) = (run.judge(cost), run.judge(cost + held));
            let expected = match (alone, together) {
                (Outcome::Pass, Outcome::Pass) => Outcome::Pass,
                (Outcome::Pass, _) => Outcome::Held,
                (denied, _) => denied,
            };
            prop_assert_eq!(run.state.judge(&run.rule, cost, held, run.now), expected, "{} beside {}", cost, held);
            run.ask(cost);
        }
    }
}
