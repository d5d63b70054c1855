//! How many partitions each node should own: its exact share, rounded up or down.
//!
//! A node of weight *w* among nodes of weight *W* in all has the share `4096·w / W`. Its quota is
//! that number without its fraction, or one more; so that the quotas add up to 4096, as many nodes
//! get one more as the fractions add up to. Three nodes of weight 1 have 1365⅓ each: one of them
//! gets 1366.
//!
//! Who gets one more is chosen so that the fewest partitions move: first who has it already (what
//! it keeps need not move), then who has to be given some anyway, and those that have exactly their
//! share without its fraction come last. Among equals the larger fraction comes first, then the
//! lower id.

use std::cmp::Reverse;

use super::{PARTITIONS, Weight};

/// The quota of each node, given the nodes' weights and what they own, in the order of their ids.
/// At least one has weight.
pub(super) fn quotas(weights: impl Iterator<Item = Weight>, owned: &[u32]) -> Vec<u32> {
    let weights: Vec<u32> = weights.map(|weight| u32::from(weight.get())).collect();
    let all: u32 = weights.iter().sum();
    let scaled = |weight: &u32| u32::from(PARTITIONS) * weight;
    let mut quotas: Vec<u32> = weights.iter().map(|weight| scaled(weight) / all).collect();
    let fractions: Vec<u32> = weights.iter().map(|weight| scaled(weight) % all).collect();

    let left_over = u32::from(PARTITIONS) - quotas.iter().sum::<u32>();
    let mut candidates: Vec<usize> =
        (0..quotas.len()).filter(|place| fractions[*place] > 0).collect();
    candidates.sort_by_key(|&place| {
        let keeps_it = owned[place] > quotas[place];
        let is_given_some = owned[place] < quotas[place];
        (Reverse(keeps_it), Reverse(is_given_some), Reverse(fractions[place]), place)
    });
    candidates.iter().take(left_over as usize).for_each(|place| quotas[*place] += 1);
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[u8], owned: &[u32]) -> Vec<u32> {
        quotas(weights.iter().map(|weight| Weight::new(*weight).unwrap()), owned)
    }

    #[test]
    fn what_is_left_over_goes_to_the_larger_fraction_then_to_the_lower_id() {
        assert_eq!(of(&[1, 1, 1], &[0, 0, 0]), [1366, 1365, 1365]);
        // 585 and a seventh, 1170 and two sevenths, 2340 and four sevenths.
        assert_eq!(of(&[1, 2, 4], &[0, 0, 0]), [585, 1170, 2341]);
    }

    #[test]
    fn who_has_one_more_keeps_it() {
        assert_eq!(of(&[1, 1, 1], &[1365, 1365, 1366]), [1365, 1365, 1366]);
    }

    #[test]
    fn who_is_given_some_anyway_is_given_one_more_before_who_needs_nothing() {
        assert_eq!(of(&[1, 1, 1], &[1365, 1365, 0]), [1365, 1365, 1366]);
    }
}
