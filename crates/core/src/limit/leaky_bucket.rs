//! The leaky bucket as a meter (A5), better known as GCRA: smooth spacing with a burst tolerance.
//!
//! `rate = "1/s"` with the default burst of 1 admits one check a second, evenly; `burst = 5` lets
//! five pass at once from idle and then one a second. `burst` counts what passes at once, so GCRA's
//! own tolerance is `burst − 1` intervals.

use super::debt::Bucket;
use super::rate::Rate;

/// A leaky bucket's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct LeakyBucket {
    /// The spacing.
    pub rate: Rate,
    /// The most that passes at once from idle, at least 1.
    pub burst: u64,
}

impl Bucket for LeakyBucket {
    fn rate(&self) -> &Rate {
        &self.rate
    }
    fn burst(&self) -> u64 {
        self.burst
    }
    fn starts_full(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::limit::{LeakyBucket, Outcome, Rate, Rule, State};
    use crate::time::{MS, Now, SECOND};

    /// The vectors published with throttled and redis-cell: rate 1/s, their burst 4 (ours 5). Each
    /// row: milliseconds, volume, remaining, reset after ms, retry after ms (-1: passed or never).
    const VECTORS: [(u64, u64, u64, u64, i64, bool); 13] = [
        (0, 6, 5, 0, -1, true),
        (0, 1, 4, 1_000, -1, false),
        (0, 1, 3, 2_000, -1, false),
        (0, 1, 2, 3_000, -1, false),
        (0, 1, 1, 4_000, -1, false),
        (0, 1, 0, 5_000, -1, false),
        (0, 1, 0, 5_000, 1_000, true),
        (3_000, 1, 2, 3_000, -1, false),
        (3_100, 1, 1, 3_900, -1, false),
        (4_000, 1, 1, 4_000, -1, false),
        (8_000, 1, 4, 1_000, -1, false),
        (9_500, 1, 4, 1_000, -1, false),
        (9_500, 2, 2, 3_000, -1, false),
    ];

    #[test]
    fn it_answers_the_public_gcra_vectors() {
        let rule = Rule::LeakyBucket(LeakyBucket { rate: Rate::new(1, SECOND).unwrap(), burst: 5 });
        let at = |ms: u64| Now { boot: 1_000 * SECOND + ms * MS, wall: 0 };
        let mut state = State::fresh(&rule, at(0));
        for (row, (ms, volume, remaining, reset, retry, limited)) in VECTORS.into_iter().enumerate()
        {
            state.advance(&rule, 0, at(ms));
            let outcome = state.judge(&rule, volume, 0, at(ms));
            assert_eq!(outcome != Outcome::Pass, limited, "row {row}");
            assert_eq!(
                outcome.retry_after().map_or(-1, |nanos| (nanos / MS) as i64),
                retry,
                "row {row}"
            );
            if outcome == Outcome::Pass {
                state.take(&rule, volume, at(ms));
            }
            assert_eq!(state.remaining(&rule, at(ms)), remaining, "row {row}");
            assert_eq!(state.reset_after(&rule, 0, at(ms)) / MS, reset, "row {row}");
        }
        assert_eq!(state.judge(&rule, 5, 0, at(9_500)), Outcome::Wait(3 * SECOND));
    }
}
