//! Rates: so many units in so long, exact.
//!
//! `10/m` is ten units in 60,000,000,000 ns; reduced, one unit in 6,000,000,000 ns. `3/s` can't be
//! reduced to one unit in a whole number of nanoseconds, and needn't be: levels are kept in
//! fractions of a unit with the reduced period as their denominator (see `debt`).

/// `count` units in `period` nanoseconds, as written, with the same in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u64,
    period: u64,
    units: u64,
    nanos: u64,
}

impl Rate {
    /// `count` units in every `period` nanoseconds; none where either is 0 or above its bound.
    pub fn new(count: u64, period: u64) -> Option<Self> {
        if count > super::UNITS_MAX || period > super::WINDOW_MAX {
            return None;
        }
        Self::told(count, period)
    }

    /// The rate that another node tells by its [`Rate::count`] and [`Rate::period`]; none where
    /// either is 0. A rate that was scaled may be beyond the bounds of one that is written.
    pub fn told(count: u64, period: u64) -> Option<Self> {
        if count == 0 || period == 0 {
            return None;
        }
        let divisor = gcd(count, period);
        Some(Self { count, period, units: count / divisor, nanos: period / divisor })
    }

    /// The rate times `numerator / denominator`, exact; none where its terms outgrow a `u64`. It is
    /// still so many in the same period where that comes out whole, and in lowest terms otherwise.
    pub fn scaled(&self, numerator: u64, denominator: u64) -> Option<Self> {
        let count = u128::from(self.units) * u128::from(numerator);
        let period = u128::from(self.nanos) * u128::from(denominator);
        if count == 0 || period == 0 {
            return None;
        }
        let divisor = gcd_wide(count, period);
        let (units, nanos) =
            (u64::try_from(count / divisor).ok()?, u64::try_from(period / divisor).ok()?);
        let written = if self.period.is_multiple_of(nanos) {
            units.checked_mul(self.period / nanos).map(|count| (count, self.period))
        } else {
            None
        };
        let (count, period) = written.unwrap_or((units, nanos));
        Some(Self { count, period, units, nanos })
    }

    /// Units, as written.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Nanoseconds in which they come, as written.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// The rate in lowest terms: `units` in every `nanos`.
    pub(super) fn reduced(&self) -> (u64, u64) {
        (self.units, self.nanos)
    }

    /// Nanoseconds in which `units` come, rounded up.
    pub fn time_for(&self, units: u64) -> u64 {
        quotient_up(u128::from(units) * u128::from(self.nanos), self.units)
    }

    /// Units that come in one second, rounded down, at least 1: what a token bucket holds unless it
    /// says otherwise.
    pub fn per_second(&self) -> u64 {
        let whole =
            u128::from(self.units) * u128::from(crate::time::SECOND) / u128::from(self.nanos);
        clamp(whole).clamp(1, super::UNITS_MAX)
    }
}

/// `value / divisor`, or the largest `u64` where that is larger. Everyday numbers fit in 64 bits,
/// where a division is several times faster.
pub(super) fn quotient(value: u128, divisor: u64) -> u64 {
    match u64::try_from(value) {
        Ok(value) => value / divisor,
        Err(_) => clamp(value / u128::from(divisor)),
    }
}

/// The same, rounded up.
pub(super) fn quotient_up(value: u128, divisor: u64) -> u64 {
    match u64::try_from(value) {
        Ok(value) => value.div_ceil(divisor),
        Err(_) => clamp(value.div_ceil(u128::from(divisor))),
    }
}

/// `value`, or the largest `u64` where it is larger.
pub(super) fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn gcd_wide(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    #[test]
    fn a_rate_is_kept_in_lowest_terms() {
        assert_eq!(Rate::new(10, 60 * SECOND).unwrap().reduced(), (1, 6 * SECOND));
        assert_eq!(Rate::new(3, SECOND).unwrap().reduced(), (3, SECOND));
        assert_eq!(Rate::new(0, SECOND), None);
        assert_eq!(Rate::new(1, 0), None);
    }

    #[test]
    fn a_scaled_rate_is_exact() {
        let half = Rate::new(5, SECOND).unwrap().scaled(500_000, 1_000_000).unwrap();
        assert_eq!(half.reduced(), (1, SECOND * 2 / 5));
        assert_eq!((half.count(), half.period()), (1, SECOND * 2 / 5));
    }

    #[test]
    fn a_scaled_rate_keeps_its_period_where_that_comes_out_whole() {
        let half = Rate::new(10, 60 * SECOND).unwrap().scaled(500_000, 1_000_000).unwrap();
        assert_eq!(
            (half.count(), half.period(), half.reduced()),
            (5, 60 * SECOND, (1, 12 * SECOND))
        );
    }

    #[test]
    fn a_scaled_rate_is_the_same_where_it_is_told() {
        let rate = Rate::new(999_999_999, 7 * SECOND).unwrap();
        for (numerator, denominator) in
            [(500_000, 1_000_000), (1_333_333, 1_000_000), (3, 1_000_000)]
        {
            let scaled = rate.scaled(numerator, denominator).unwrap();
            assert_eq!(Rate::told(scaled.count(), scaled.period()), Some(scaled));
        }
    }

    #[test]
    fn one_seconds_worth_is_at_least_one() {
        assert_eq!(Rate::new(1, 3_600 * SECOND).unwrap().per_second(), 1);
        assert_eq!(Rate::new(90, 60 * SECOND).unwrap().per_second(), 1);
        assert_eq!(Rate::new(500, SECOND).unwrap().per_second(), 500);
    }
}
