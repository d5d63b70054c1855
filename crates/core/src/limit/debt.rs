//! What a bucket is owed, exactly: the arithmetic that token buckets and leaky buckets share.
//!
//! A bucket of burst B that refills at n units in p nanoseconds is the same as a debt that may
//! reach B and is paid off at that rate. The debt is kept as whole units and a fraction with
//! denominator p, so a nanosecond pays exactly n/p and nothing is ever rounded. Example, 3/s: after
//! a take of one unit, 1 ns leaves 999,999,997/1,000,000,000 owed; after 333,333,333 ns
//! 1/1,000,000,000 is owed still, and a full bucket denies for one nanosecond more.
//!
//! In the terms of GCRA (ITU-T I.371): the theoretical arrival time is `at` + debt·p/n, and the
//! tolerance is (B − 1)·p/n. The first form needs no division for a rate such as 3/s.

use serde::{Deserialize, Serialize};

use super::rate::{Rate, clamp, quotient_up};
use super::{Algorithm, Outcome, shifted};
use crate::time::Now;

/// `whole + part / nanos` units owed at boot time `at`, paid off by `units` in every `nanos`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Debt {
    whole: u64,
    part: u64,
    units: u64,
    nanos: u64,
    at: u64,
    /// A bucket that starts below its burst holds news for good: once full it has more than a fresh
    /// one.
    unlike_fresh: bool,
}

impl Debt {
    /// A debt of `owed` units from `now` on.
    pub fn owing(owed: u64, rate: &Rate, now: Now) -> Self {
        let (units, nanos) = rate.reduced();
        Self { whole: owed, part: 0, units, nanos, at: now.boot, unlike_fresh: owed > 0 }
    }

    fn pay_until(&mut self, boot: u64) {
        let Some(elapsed) = boot.checked_sub(self.at).filter(|&elapsed| elapsed > 0) else {
            return;
        };
        self.at = boot;
        if self.whole == 0 && self.part == 0 {
            return;
        }
        // Everyday numbers fit in 64 bits, where the division is several times faster.
        if let (Some(owed), Some(paid)) = (
            self.whole.checked_mul(self.nanos).and_then(|w| w.checked_add(self.part)),
            elapsed.checked_mul(self.units),
        ) {
            let left = owed.saturating_sub(paid);
            (self.whole, self.part) = (left / self.nanos, left % self.nanos);
        } else {
            self.set(self.owed().saturating_sub(u128::from(elapsed) * u128::from(self.units)));
        }
    }

    /// The debt in parts of a unit.
    fn owed(&self) -> u128 {
        u128::from(self.whole) * u128::from(self.nanos) + u128::from(self.part)
    }

    fn set(&mut self, owed: u128) {
        self.whole = clamp(owed / u128::from(self.nanos));
        self.part = clamp(owed % u128::from(self.nanos));
    }

    /// Nanoseconds until no more than `level` units are owed, rounded up.
    fn time_until(&self, level: u64) -> u64 {
        let level = u128::from(level) * u128::from(self.nanos);
        quotient_up(self.owed().saturating_sub(level), self.units)
    }

    /// See [`super::State::is_fresh`].
    pub fn is_fresh(&self, now: Now) -> bool {
        !self.unlike_fresh
            && now.boot.checked_sub(self.at).is_some_and(|elapsed| self.time_until(0) <= elapsed)
    }

    /// Nanoseconds from `now` on until nothing is owed.
    pub fn paid_in(&self, now: Now) -> u64 {
        self.time_until(0).saturating_sub(now.boot.saturating_sub(self.at))
    }

    /// See [`super::State::shift_boot`].
    pub fn shift_boot(&mut self, forward: i128) {
        self.at = shifted(self.at, forward);
    }
}

/// What the two kinds of bucket say of themselves.
pub trait Bucket {
    /// How the debt is paid off.
    fn rate(&self) -> &Rate;
    /// How large it may grow.
    fn burst(&self) -> u64;
    /// Whether a bucket that nobody has asked yet is full.
    fn starts_full(&self) -> bool;
}

impl<B: Bucket> Algorithm<B> for Debt {
    fn advance(&mut self, bucket: &B, since: u64, now: Now) {
        let (units, nanos) = bucket.rate().reduced();
        if (units, nanos) != (self.units, self.nanos) {
            self.pay_until(since.min(now.boot));
            // The fraction gets the new denominator, rounded up: at most one part in p to the
            // caller's disadvantage.
            let part = (u128::from(self.part) * u128::from(nanos)).div_ceil(u128::from(self.nanos));
            (self.units, self.nanos) = (units, nanos);
            self.set(u128::from(self.whole) * u128::from(nanos) + part);
        }
        self.unlike_fresh = !bucket.starts_full();
        self.pay_until(now.boot);
    }

    fn judge(&self, bucket: &B, cost: u64, _now: Now) -> Outcome {
        let Some(room) = bucket.burst().checked_sub(cost) else {
            return Outcome::Never;
        };
        if self.whole < room || (self.whole == room && self.part == 0) {
            return Outcome::Pass;
        }
        Outcome::Wait(self.time_until(room))
    }

    fn take(&mut self, _bucket: &B, cost: u64, _now: Now) {
        self.whole = self.whole.saturating_add(cost);
    }

    fn remaining(&self, bucket: &B, _now: Now) -> u64 {
        bucket.burst().saturating_sub(self.whole.saturating_add(u64::from(self.part > 0)))
    }

    fn reset_after(&self, _bucket: &B, taking: u64, _now: Now) -> u64 {
        Self { whole: self.whole.saturating_add(taking), ..self.clone() }.time_until(0)
    }
}
