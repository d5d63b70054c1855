//! The arithmetic: one algorithm a file, pure.
//!
//! A [`Rule`] is an algorithm with its numbers, a [`State`] is what one bucket remembers. A
//! decision has two steps, so that several limits can be asked before anything is taken from any of
//! them (P4):
//!
//! ```text
//! state.advance(rule, since, now)        time passes, and numbers that changed are taken over
//! state.judge(rule, cost, held, now)     Pass | Held | Wait(ns) | Never      changes nothing
//! state.take(rule, cost, now)            only after every limit said Pass
//! ```
//!
//! All numbers are integers. A level is exact over any horizon: a rate of 3/s neither drifts after
//! 10⁹ steps nor rounds in anybody's favour. *Spent stays spent*: what a state remembers is what
//! was taken, in units, so a changed limit moves the ceiling and not the count.

mod concurrency;
mod debt;
mod fixed_window;
mod leaky_bucket;
mod quota;
mod rate;
mod sliding_log;
mod sliding_window;
mod token_bucket;

#[cfg(test)]
mod model_tests;

use serde::{Deserialize, Serialize};

pub use concurrency::{MAX_CONCURRENT_MAX, Permits};
pub use leaky_bucket::LeakyBucket;
pub use quota::{Calendar, OnExceeded, Period, Quota};
pub use rate::Rate;
pub use sliding_log::ENTRIES_MAX;
pub use token_bucket::TokenBucket;

use crate::time::Now;

/// The largest number a limit may have: fifteen digits, as many as a structured header field can
/// carry.
pub const UNITS_MAX: u64 = 999_999_999_999_999;
/// The longest window, in nanoseconds: ten years.
pub const WINDOW_MAX: u64 = 3_660 * 86_400 * crate::time::SECOND;

/// The shortest window of a limit that is a long one, in nanoseconds: what it has counted is worth
/// keeping where all is lost.
pub const LONG_WINDOW_MIN: u64 = 3_600 * crate::time::SECOND;
/// The same for token and leaky buckets, whose states don't say how much they hold: how long it
/// takes to pay what is owed. It is a minute, so that of a bucket that fills in an hour no more
/// than a sixtieth is forgotten.
pub const LONG_DEBT_MIN: u64 = 60 * crate::time::SECOND;

/// An algorithm and its numbers. Units are what a check's cost counts; times are nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Refills at a rate up to a burst (A4).
    TokenBucket(TokenBucket),
    /// Smooth spacing with a burst tolerance: GCRA (A5).
    LeakyBucket(LeakyBucket),
    /// A count that starts anew with every window of the wall clock (A1).
    FixedWindow(Window),
    /// The count of this window and a falling share of the one before (A3).
    SlidingWindow(Window),
    /// Every admission remembered until it is a window old (A2).
    SlidingLog(Window),
    /// A count for a calendar day or month (A7).
    Quota(Quota),
    /// At most so many in flight (A6). Its state is the tenant's [`Permits`], not a [`State`].
    Concurrency {
        /// Permits that may be out at a time.
        max: u64,
    },
}

/// So many units in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Units that may pass within one window.
    pub limit: u64,
    /// The window, in nanoseconds.
    pub length: u64,
}

/// The names of the algorithms that a limit can be written with.
pub const ALGORITHMS: [&str; 6] =
    ["token_bucket", "leaky_bucket", "fixed_window", "sliding_window", "sliding_log", "quota"];

impl Rule {
    /// The name in policies and answers.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::TokenBucket(_) => "token_bucket",
            Self::LeakyBucket(_) => "leaky_bucket",
            Self::FixedWindow(_) => "fixed_window",
            Self::SlidingWindow(_) => "sliding_window",
            Self::SlidingLog(_) => "sliding_log",
            Self::Quota(_) => "quota",
            Self::Concurrency { .. } => "concurrency",
        }
    }

    /// The most that can pass at once, from idle: what an answer shows as the limit.
    pub fn capacity(&self) -> u64 {
        match self {
            Self::TokenBucket(bucket) => bucket.burst,
            Self::LeakyBucket(bucket) => bucket.burst,
            Self::FixedWindow(window) | Self::SlidingWindow(window) | Self::SlidingLog(window) => {
                window.limit
            }
            Self::Quota(quota) => quota.limit,
            Self::Concurrency { max } => *max,
        }
    }

    /// The time over which the capacity is granted, in nanoseconds: the window, or how long an
    /// empty bucket takes to fill. None for calendar periods, whose length varies, and for
    /// concurrency.
    pub fn window(&self) -> Option<u64> {
        match self {
            Self::TokenBucket(bucket) => Some(bucket.rate.time_for(bucket.burst)),
            Self::LeakyBucket(bucket) => Some(bucket.rate.time_for(bucket.burst)),
            Self::FixedWindow(window) | Self::SlidingWindow(window) | Self::SlidingLog(window) => {
                Some(window.length)
            }
            Self::Quota(_) | Self::Concurrency { .. } => None,
        }
    }
}

/// What a limit says to a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may pass now.
    Pass,
    /// It would pass but for units that another check holds and may yet give back.
    Held,
    /// Not now; a lone caller that waits so many nanoseconds is admitted, a noticeably earlier one
    /// is not.
    Wait(u64),
    /// Never: it costs more than the limit can hold.
    Never,
}

impl Outcome {
    /// Nanoseconds to wait; none where waiting doesn't help or isn't needed.
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::Wait(nanos) => Some(nanos),
            Self::Pass | Self::Held | Self::Never => None,
        }
    }
}

/// What one bucket remembers. A fresh one is the same as one that has been left alone for long
/// enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Token buckets and leaky buckets: units owed.
    Debt(debt::Debt),
    /// A fixed window's count.
    FixedWindow(fixed_window::Count),
    /// Two windows' counts.
    SlidingWindow(sliding_window::Counts),
    /// The log of admissions.
    SlidingLog(Box<sliding_log::Log>),
    /// A calendar period's count.
    Quota(quota::Spent),
}

/// What every algorithm answers about its state under the numbers `R`. [`State`] documents each
/// call.
trait Algorithm<R> {
    fn advance(&mut self, rule: &R, since: u64, now: Now);
    fn judge(&self, rule: &R, cost: u64, now: Now) -> Outcome;
    fn take(&mut self, rule: &R, cost: u64, now: Now);
    fn remaining(&self, rule: &R, now: Now) -> u64;
    fn reset_after(&self, rule: &R, taking: u64, now: Now) -> u64;
}

/// Pairs each rule with its state, once, for the functions below. A state of another algorithm
/// can't reach a rule, because the algorithm is part of the bucket's key.
macro_rules! paired {
    ($state:expr, $rule:expr, $s:ident, $r:ident => $body:expr, $otherwise:expr) => {
        match ($state, $rule) {
            (State::Debt($s), Rule::TokenBucket($r)) => $body,
            (State::Debt($s), Rule::LeakyBucket($r)) => $body,
            (State::FixedWindow($s), Rule::FixedWindow($r)) => $body,
            (State::SlidingWindow($s), Rule::SlidingWindow($r)) => $body,
            (State::SlidingLog($s), Rule::SlidingLog($r)) => $body,
            (State::Quota($s), Rule::Quota($r)) => $body,
            _ => $otherwise,
        }
    };
}

impl State {
    /// The state of a bucket that nobody has asked yet.
    pub fn fresh(rule: &Rule, now: Now) -> Self {
        match rule {
            Rule::TokenBucket(bucket) => Self::Debt(bucket.fresh(now)),
            Rule::LeakyBucket(bucket) => Self::Debt(debt::Debt::owing(0, &bucket.rate, now)),
            Rule::FixedWindow(window) => Self::FixedWindow(fixed_window::Count::fresh(window, now)),
            Rule::SlidingWindow(window) => {
                Self::SlidingWindow(sliding_window::Counts::fresh(window, now))
            }
            Rule::SlidingLog(window) => {
                Self::SlidingLog(Box::new(sliding_log::Log::fresh(window, now)))
            }
            Rule::Quota(quota) => Self::Quota(quota::Spent::fresh(quota, now)),
            Rule::Concurrency { .. } => unreachable!("concurrency is kept in Permits"),
        }
    }

    /// The state of a bucket of which everything had been taken at `then`: what stands for one that
    /// was lost, since nobody knows what was taken of it.
    pub fn spent(rule: &Rule, then: Now, now: Now) -> Self {
        let mut state = Self::fresh(rule, then);
        state.take(rule, rule.capacity(), then);
        state.advance(rule, 0, now);
        state
    }

    /// Lets time pass until `now`. Numbers that differ from the last ones hold from `since` on
    /// (boot nanoseconds): what lies before it is settled by the old numbers, so that a raised rate
    /// doesn't refill the past.
    pub fn advance(&mut self, rule: &Rule, since: u64, now: Now) {
        paired!(&mut *self, rule, s, r => s.advance(r, since, now), *self = Self::fresh(rule, now));
    }

    /// Asks whether `cost` may pass while other open checks hold `held` units. Changes nothing;
    /// call [`State::advance`] with the same `now` first.
    pub fn judge(&self, rule: &Rule, cost: u64, held: u64, now: Now) -> Outcome {
        if cost > rule.capacity()
            && !matches!(rule, Rule::Quota(Quota { on_exceeded: OnExceeded::Count, .. }))
        {
            return Outcome::Never;
        }
        let ask = |cost| paired!(self, rule, s, r => s.judge(r, cost, now), Outcome::Never);
        let alone = ask(cost);
        if alone == Outcome::Pass && held > 0 && ask(cost.saturating_add(held)) != Outcome::Pass {
            return Outcome::Held;
        }
        alone
    }

    /// Takes `cost`, whether or not it fits: whoever calls has asked before.
    pub fn take(&mut self, rule: &Rule, cost: u64, now: Now) {
        paired!(self, rule, s, r => s.take(r, cost, now), ());
    }

    /// Units that could be taken now.
    pub fn remaining(&self, rule: &Rule, now: Now) -> u64 {
        paired!(self, rule, s, r => s.remaining(r, now), 0)
    }

    /// Nanoseconds until it is whole again if `taking` units are taken now and nothing after that;
    /// for windows and quotas, until they end.
    pub fn reset_after(&self, rule: &Rule, taking: u64, now: Now) -> u64 {
        paired!(self, rule, s, r => s.reset_after(r, taking, now), 0)
    }

    /// Whether it says the same as a fresh one would, so that forgetting it tells nobody anything
    /// and refunds nothing.
    pub fn is_fresh(&self, now: Now) -> bool {
        match self {
            Self::Debt(debt) => debt.is_fresh(now),
            Self::FixedWindow(count) => count.is_fresh(now),
            Self::SlidingWindow(counts) => counts.is_fresh(now),
            Self::SlidingLog(log) => log.is_fresh(now),
            Self::Quota(spent) => spent.is_fresh(now),
        }
    }

    /// Whether it may be forgotten: it is like a fresh one under the numbers it was kept by, and
    /// under each of `rules` that could have taken their place since it was last touched.
    pub fn is_fresh_under<'r>(
        &self,
        rules: impl IntoIterator<Item = &'r Rule>,
        since: u64,
        now: Now,
    ) -> bool {
        let fresh_by = |rule: &Rule| {
            let mut state = self.clone();
            paired!(&mut state, rule, s, r => s.advance(r, since, now), return true);
            state.is_fresh(now)
        };
        self.is_fresh(now) && rules.into_iter().all(fresh_by)
    }

    /// Whether it is worth keeping beyond the life of whatever holds it: it is not like a fresh
    /// one, and will not be for long.
    pub fn is_long(&self, now: Now) -> bool {
        let is_long = match self {
            Self::Debt(debt) => debt.paid_in(now) >= LONG_DEBT_MIN,
            Self::FixedWindow(count) => count.length() >= LONG_WINDOW_MIN,
            Self::SlidingWindow(counts) => counts.length() >= LONG_WINDOW_MIN,
            Self::SlidingLog(log) => log.length() >= LONG_WINDOW_MIN,
            Self::Quota(_) => true,
        };
        is_long && !self.is_fresh(now)
    }

    /// Moves its boot times `forward` nanoseconds (back, if negative): a state saved under one boot
    /// clock goes on under another.
    pub fn shift_boot(&mut self, forward: i128) {
        match self {
            Self::Debt(debt) => debt.shift_boot(forward),
            Self::SlidingLog(log) => log.shift_boot(forward),
            Self::FixedWindow(count) => count.shift_boot(forward),
            Self::SlidingWindow(counts) => counts.shift_boot(forward),
            Self::Quota(spent) => spent.shift_boot(forward),
        }
    }

    /// Bytes it takes with its key and with what it holds on the heap, about.
    pub fn bytes(&self) -> usize {
        KEYED_BYTES
            + match self {
                Self::SlidingLog(log) => log.heap_bytes(),
                _ => 0,
            }
    }
}

/// What a state takes with its key, beside what it holds on the heap, about.
const KEYED_BYTES: usize = 64;

/// When numbers that differ from a state's last ones came into force: at `since`, but no earlier
/// than the state was last touched (`at`), and no later than `now`.
fn changed_at(since: u64, at: u64, now: Now) -> Now {
    let boot = since.max(at).min(now.boot);
    Now { boot, wall: now.wall.saturating_sub(now.boot - boot) }
}

/// `value` moved by `by`, kept within the range of a clock.
pub fn shifted(value: u64, by: i128) -> u64 {
    u64::try_from((i128::from(value) + by).max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    #[test]
    fn quotas_and_windows_from_an_hour_on_are_long_and_debts_that_take_a_minute_to_pay() {
        let now = Now { boot: 10_000 * SECOND, wall: 1_000_000 * SECOND };
        let window = |seconds| Window { limit: 100, length: seconds * SECOND };
        let bucket = |rate, burst| {
            let rate = Rate::new(rate, 3_600 * SECOND).unwrap();
            Rule::TokenBucket(TokenBucket { rate, burst, initial: burst })
        };
        let calendar =
            Calendar { period: Period::Month, anchor_day: 1, zone: jiff::tz::TimeZone::UTC };
        let quota = Quota { limit: 100, calendar, on_exceeded: OnExceeded::Deny };
        for (rule, cost, long) in [
            (Rule::FixedWindow(window(3_599)), 60, false),
            (Rule::FixedWindow(window(3_600)), 60, true),
            (Rule::SlidingWindow(window(60)), 60, false),
            (Rule::SlidingWindow(window(86_400)), 1, true),
            (Rule::SlidingLog(window(60)), 60, false),
            (Rule::SlidingLog(window(3_600)), 1, true),
            (bucket(100, 100), 1, false),
            (bucket(100, 100), 2, true),
            (bucket(360_000, 100), 100, false),
            (Rule::Quota(quota), 1, true),
        ] {
            let mut state = State::fresh(&rule, now);
            assert!(!state.is_long(now), "{rule:?}");
            state.take(&rule, cost, now);
            assert_eq!(state.is_long(now), long, "{rule:?}");
        }
    }

    #[test]
    fn a_state_fits_in_forty_eight_bytes() {
        // The bytes an idle tenant takes hang on this.
        assert!(size_of::<State>() <= 48, "{}", size_of::<State>());
    }
}
