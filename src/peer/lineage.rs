//! Which cluster of a name a node belongs to.
//!
//! A cluster that lost its majority is made anew of one node that is left (`cluster recover`), and
//! one that lost everything of a back-up (`cluster restore`). Nodes of what was before may come
//! back: they hold the same name, the same members and a log that was right once. Two of three such
//! nodes are a majority among themselves. So whoever makes a cluster anew draws a number for it,
//! and nodes speak with each other only under the same number:
//!
//! ```text
//! n1, n2, n3    never made anew                       lineage (first)
//! n3            recovered                             lineage 9f86…, which gave up the first
//! n1 -> n3      greets under the first lineage        refused: it was given up; n1 ends
//! n3 -> n1      greets under 9f86…                    refused: n1 knows nothing of it
//! n4            joins, and is told the lineage        lineage 9f86…
//! ```
//!
//! The number is drawn, not counted: were n2 and n3 recovered each for itself, two clusters of
//! generation 1 would mix.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Recoveries that are remembered: of older ones nodes are still refused, and not told that they
/// were given up.
pub const RECOVERIES_MAX: usize = 64;

/// The numbers that were drawn, newest first; none where the cluster is what it began as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(Vec<u64>);

impl Lineage {
    /// The number of a cluster that was never made anew.
    pub const FIRST: u64 = 0;

    /// That of the numbers, newest first; what is too much or means nothing is left out.
    pub fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        Self(
            numbers
                .into_iter()
                .filter(|number| *number != Self::FIRST)
                .take(RECOVERIES_MAX)
                .collect(),
        )
    }

    /// That of a cluster which is made anew of this one, under a number that was drawn for it.
    pub fn anew(&self, drawn: u64) -> Self {
        Self::of(std::iter::once(drawn.max(Self::FIRST + 1)).chain(self.0.iter().copied()))
    }

    /// The number that its nodes greet with.
    pub fn number(&self) -> u64 {
        self.0.first().copied().unwrap_or(Self::FIRST)
    }

    /// The numbers, newest first.
    pub fn numbers(&self) -> &[u64] {
        &self.0
    }

    /// Whether this cluster was made anew of the one with that number, or of one that was.
    pub fn gave_up(&self, number: u64) -> bool {
        match self.0.split_first() {
            Some((own, before)) => {
                number != *own && (number == Self::FIRST || before.contains(&number))
            }
            None => false,
        }
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Self::FIRST => f.write_str("the first"),
            number => write!(f, "{number:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_is_made_anew_gives_up_all_that_it_was_and_nothing_else() {
        let first = Lineage::default();
        let again = first.anew(7).anew(9);
        assert_eq!((first.number(), again.number(), again.numbers()), (0, 9, &[9, 7][..]));
        for (number, given_up) in [(0, true), (7, true), (9, false), (8, false)] {
            assert_eq!(again.gave_up(number), given_up, "{number}");
            assert!(!first.gave_up(number));
        }
        // Two that were made anew of the same one know nothing of each other.
        assert!(!first.anew(7).gave_up(8) && !first.anew(8).gave_up(7));
        assert_ne!(first.anew(0).number(), Lineage::FIRST);
    }

    #[test]
    fn recoveries_without_end_are_not_remembered_without_end() {
        let lineage = (1..200).fold(Lineage::default(), |lineage, drawn| lineage.anew(drawn));
        assert_eq!((lineage.number(), lineage.numbers().len()), (199, RECOVERIES_MAX));
        assert!(lineage.gave_up(198) && lineage.gave_up(0) && !lineage.gave_up(1));
    }
}
