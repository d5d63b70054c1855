//! Medians of a few rounds, and percentiles of millions of latencies in fixed memory.
//!
//! A `Latencies` keeps no single value: it counts how many fell into each of 3,968 slots, 128 to
//! every doubling, so a percentile is off by less than 1 % however long the run was. Example:
//! 1,000,000 ns falls into the slot 999,424 to 1,003,519 ns and is reported as 1,003,519.

use std::time::Duration;

/// Slots to a doubling, as a power of two: 128, hence the 1 %.
const PRECISION_BITS: u32 = 7;
/// Latencies from 2^37 ns (137 s) up share the last slot; no phase of a run waits that long for one
/// answer.
const TOP_BITS: u32 = 37;
const SLOTS: usize = ((TOP_BITS - PRECISION_BITS + 1) as usize) << PRECISION_BITS;

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return values.get(middle).copied();
    }
    let below = values.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(*below, *values.get(middle)?))
}

/// Counts of latencies by size.
#[derive(Clone, Debug)]
pub struct Latencies {
    slots: Vec<u64>,
    count: u64,
}

impl Latencies {
    pub fn new() -> Self {
        Self { slots: vec![0; SLOTS], count: 0 }
    }

    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.slots[slot(nanos)] += 1;
        self.count += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.slots.iter_mut().zip(&other.slots) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    /// The least latency that `percent` of all did not exceed (the nearest rank), rounded up to its
    /// slot's end. `None` if nothing was recorded. `percent` from 1 to 100.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        self.per_mille(percent * 10)
    }

    /// The same of thousandths. From 1 to 1000.
    pub fn per_mille(&self, per_mille: u64) -> Option<Duration> {
        let rank = (self.count * per_mille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let index = self.slots.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(slot_end(index)))
    }
}

/// The first 256 slots hold one value each; from there a value's leading eight bits name its slot.
fn slot(nanos: u64) -> usize {
    let nanos = nanos.min((1 << TOP_BITS) - 1);
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    ((shift as usize) << PRECISION_BITS) + (nanos >> shift) as usize
}

/// The greatest value of a slot.
fn slot_end(index: usize) -> u64 {
    let doubling = (index >> PRECISION_BITS).saturating_sub(1);
    let leading = (index - (doubling << PRECISION_BITS)) as u64;
    ((leading + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(nanos: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new();
        for value in nanos {
            latencies.record(Duration::from_nanos(value));
        }
        latencies
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([4.0]), Some(4.0));
        assert_eq!(median([9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median([9.0, 1.0, 5.0, 7.0]), Some(6.0));
    }

    #[test]
    fn percentiles_of_small_values_are_exact() {
        let latencies = recorded(1..=100);
        assert_eq!(latencies.percentile(50), Some(Duration::from_nanos(50)));
        assert_eq!(latencies.percentile(99), Some(Duration::from_nanos(99)));
        assert_eq!(latencies.percentile(100), Some(Duration::from_nanos(100)));
        assert_eq!(recorded([7]).percentile(1), Some(Duration::from_nanos(7)));
    }

    #[test]
    fn no_latencies_have_no_percentile() {
        assert_eq!(Latencies::new().percentile(50), None);
    }

    #[test]
    fn a_percentile_is_never_too_low_and_at_most_one_percent_too_high() {
        for nanos in [127, 128, 255, 256, 1_000_000, 999_999_999, 100_000_000_000] {
            let told = recorded([nanos]).percentile(50).unwrap().as_nanos();
            let exact = u128::from(nanos);
            assert!(told >= exact && told * 100 <= exact * 101, "{nanos}: {told}");
        }
    }

    #[test]
    fn slots_follow_each_other_without_a_gap() {
        for index in 0..SLOTS - 1 {
            assert_eq!(slot(slot_end(index)), index);
            assert_eq!(slot(slot_end(index) + 1), index + 1);
        }
        assert_eq!(slot(u64::MAX), SLOTS - 1);
    }

    #[test]
    fn two_generators_together_count_as_one() {
        let mut all = recorded([1, 2, 3]);
        all.merge(&recorded([100, 100, 100, 100]));
        assert_eq!(all.percentile(50), Some(Duration::from_nanos(100)));
        assert_eq!(all.percentile(40), Some(Duration::from_nanos(3)));
    }
}
