//! The token bucket (A4): refills at a rate, holds at most a burst, starts full unless `initial`
//! says otherwise.
//!
//! `rate = "5/s", burst = 10`: ten checks pass at once, then one every 200 ms. The arithmetic is in
//! `debt`; a bucket that starts with `initial` tokens is one that owes `burst − initial` from the
//! first moment.

use super::debt::{Bucket, Debt};
use super::rate::Rate;
use crate::time::Now;

/// A token bucket's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenBucket {
    /// The refill.
    pub rate: Rate,
    /// The most it holds, at least 1.
    pub burst: u64,
    /// What it starts with, at most `burst`.
    pub initial: u64,
}

impl TokenBucket {
    /// The state of a bucket that nobody has asked yet.
    pub(super) fn fresh(&self, now: Now) -> Debt {
        Debt::owing(self.burst.saturating_sub(self.initial), &self.rate, now)
    }
}

impl Bucket for TokenBucket {
    fn rate(&self) -> &Rate {
        &self.rate
    }
    fn burst(&self) -> u64 {
        self.burst
    }
    fn starts_full(&self) -> bool {
        self.initial >= self.burst
    }
}

#[cfg(test)]
mod tests {
    use crate::limit::{Outcome, Rate, Rule, State, TokenBucket};
    use crate::time::{Now, SECOND};

    fn bucket(count: u64, period: u64, burst: u64) -> Rule {
        Rule::TokenBucket(TokenBucket {
            rate: Rate::new(count, period).unwrap(),
            burst,
            initial: burst,
        })
    }

    fn at(boot: u64) -> Now {
        Now { boot, wall: boot }
    }

    #[test]
    fn after_a_billion_units_at_three_a_second_the_debt_is_the_exact_fraction() {
        // Never empty on the way, so after `units` taken and `now` ns: owed = units − 3·now/10⁹, to
        // the last 10⁻⁹.
        let rule = bucket(3, SECOND, 2_000_000_000);
        let mut state = State::fresh(&rule, at(0));
        let (mut now, mut units) = (0u64, 0u64);
        let mut step = |taken: u64, elapsed: u64| {
            state.take(&rule, taken, at(now));
            units += taken;
            now += elapsed;
            state.advance(&rule, 0, at(now));
        };
        // A million single steps of uneven length, then strides to a billion; thirds of a second
        // never divide evenly.
        (0..1_000_000).for_each(|i| step(1, 333_333_331 + i % 4));
        (0..999_000).for_each(|i| step(1_000, 333_333_332_999 + i % 3));
        assert_eq!(units, 1_000_000_000);
        let owed = u128::from(units) * 1_000_000_000 - 3 * u128::from(now);
        let wait = state.reset_after(&rule, 0, at(now));
        assert_eq!(u128::from(wait), owed.div_ceil(3));
    }

    #[test]
    fn waiting_as_told_is_never_early_and_at_most_a_nanosecond_late() {
        let rule = bucket(3, SECOND, 1);
        let mut state = State::fresh(&rule, at(0));
        let mut now = 0;
        for taken in 1..=3_000u64 {
            state.advance(&rule, 0, at(now));
            state.take(&rule, 1, at(now));
            let Outcome::Wait(nanos) = state.judge(&rule, 1, 0, at(now)) else {
                panic!("a full bucket must wait")
            };
            assert!((333_333_333..=333_333_334).contains(&nanos));
            now += nanos;
            assert!(3 * now >= taken * SECOND);
        }
    }

    #[test]
    fn one_a_year_and_ten_million_a_second_both_work() {
        let year = 365 * 86_400 * SECOND;
        let yearly = bucket(1, year, 1);
        let mut state = State::fresh(&yearly, at(5));
        state.take(&yearly, 1, at(5));
        assert_eq!(state.judge(&yearly, 1, 0, at(5)), Outcome::Wait(year));
        state.advance(&yearly, 0, at(5 + year - 1));
        assert_eq!(state.judge(&yearly, 1, 0, at(5 + year - 1)), Outcome::Wait(1));
        state.advance(&yearly, 0, at(5 + year));
        assert_eq!(state.judge(&yearly, 1, 0, at(5 + year)), Outcome::Pass);

        let fast = bucket(10_000_000, SECOND, 10_000_000);
        let mut state = State::fresh(&fast, at(0));
        state.take(&fast, 10_000_000, at(0));
        assert_eq!(state.judge(&fast, 1, 0, at(0)), Outcome::Wait(100));
    }

    #[test]
    fn a_bucket_starts_with_what_initial_says_and_is_never_mistaken_for_a_fresh_one() {
        let rule = Rule::TokenBucket(TokenBucket {
            rate: Rate::new(1, SECOND).unwrap(),
            burst: 10,
            initial: 3,
        });
        let mut state = State::fresh(&rule, at(0));
        assert_eq!(state.remaining(&rule, at(0)), 3);
        state.advance(&rule, 0, at(100 * SECOND));
        assert_eq!(state.remaining(&rule, at(100 * SECOND)), 10);
        assert!(!state.is_fresh(at(1_000 * SECOND)));
    }

    #[test]
    fn spent_stays_spent_when_the_burst_changes() {
        let (hundred, two_hundred, fifty) = (
            bucket(1, 3_600 * SECOND, 100),
            bucket(1, 3_600 * SECOND, 200),
            bucket(1, 3_600 * SECOND, 50),
        );
        let mut state = State::fresh(&hundred, at(0));
        state.take(&hundred, 60, at(0));
        assert_eq!(state.remaining(&two_hundred, at(0)), 140);
        assert_eq!(state.remaining(&fifty, at(0)), 0);
        state.advance(&fifty, 0, at(11 * 3_600 * SECOND));
        assert_eq!(state.remaining(&fifty, at(11 * 3_600 * SECOND)), 1);
    }

    #[test]
    fn a_raised_rate_does_not_refill_the_past() {
        let (slow, quick) = (bucket(1, 3_600 * SECOND, 100), bucket(1_000, SECOND, 100));
        let mut state = State::fresh(&slow, at(0));
        state.take(&slow, 60, at(0));
        // Half an hour later the rate is raised, and the tenant asks a millisecond after that.
        let change = 1_800 * SECOND;
        let now = at(change + 1_000_000);
        state.advance(&quick, change, now);
        assert_eq!(state.remaining(&quick, now), 41);
    }
}
