//! Conservation: however greedy the callers, no more flows than the numbers say.

use proptest::collection::vec;
use proptest::prelude::*;

use super::schedule::{
    Gap, Pick, bucket_with_initial, fixed_window, full_bucket, gap, leaky_bucket, pick,
    sliding_log, sliding_window,
};
use super::{Run, config};
use crate::limit::{Outcome, Rule};
use crate::time::{Now, SECOND};

const START: Now = Now { boot: 77 * SECOND, wall: 1_750_000_000 * SECOND + 1 };

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_bucket_admits_at_most_its_burst_and_what_flows_in(
        rule in prop_oneof![full_bucket(), bucket_with_initial(), leaky_bucket()],
        steps in vec((gap(), pick()), 1..40),
    ) {
        let (rate, burst) = match &rule {
            Rule::TokenBucket(bucket) => (bucket.rate, bucket.burst),
            Rule::LeakyBucket(bucket) => (bucket.rate, bucket.burst),
            _ => unreachable!("only buckets are drawn"),
        };
        let admitted = greedily(rule, steps);
        for (i, (s, _)) in admitted.iter().enumerate() {
            let mut units = 0u128;
            for (t, cost) in &admitted[i..] {
                units += u128::from(*cost);
                // units ≤ burst + rate·(t − s), times the period.
                let burst = u128::from(burst) * u128::from(rate.period());
                let inflow = u128::from(rate.count()) * u128::from(t.boot - s.boot);
                prop_assert!(units * u128::from(rate.period()) <= burst + inflow, "{units} from \
                                                                                   {s:?} to {t:?}");
            }
        }
    }

    #[test]
    fn a_log_admits_at_most_its_limit_in_any_window(rule in sliding_log(), steps in vec((gap(), pick()), 1..40)) {
        let Rule::SlidingLog(window) = rule else { unreachable!("only logs are drawn") };
        let admitted = greedily(rule, steps);
        for (i, (s, _)) in admitted.iter().enumerate() {
            let within = admitted[i..].iter().take_while(|(t, _)| t.boot - s.boot < window.length);
            let units: u64 = within.map(|(_, cost)| cost).sum();
            prop_assert!(units <= window.limit, "{units} within a window from {s:?}");
        }
    }

    #[test]
    fn an_aligned_window_admits_at_most_its_limit(
        rule in prop_oneof![fixed_window(), sliding_window()],
        steps in vec((gap(), pick()), 1..40),
    ) {
        let (Rule::FixedWindow(window) | Rule::SlidingWindow(window)) = rule else {
            unreachable!("only aligned windows are drawn")
        };
        let admitted = greedily(rule, steps);
        for same in admitted.chunk_by(|(s, _), (t, _)| s.wall / window.length == t.wall / window.length) {
            let units: u64 = same.iter().map(|(_, cost)| cost).sum();
            prop_assert!(units <= window.limit, "{units} in the window of {:?}", same[0].0);
        }
    }
}

/// Asks for each cost, and then for all that remains: what was admitted, and when.
fn greedily(rule: Rule, steps: Vec<(Gap, Pick)>) -> Vec<(Now, u64)> {
    let mut run = Run::start(rule, START);
    let mut admitted = Vec::new();
    for (gap, pick) in steps {
        run.pass(gap);
        for cost in [pick.cost(run.rule.capacity()), run.remaining().max(1), 1] {
            if run.ask(cost) == Outcome::Pass {
                admitted.push((run.now, cost));
            }
        }
    }
    admitted
}
