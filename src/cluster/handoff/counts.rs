//! What the hand-overs of this node have come to, counted.

use std::sync::{Mutex, PoisonError};

use crate::clock::MS;

/// Upper bounds of the slots that times are counted in, nanoseconds: from what a check doesn't
/// notice to what a move may take.
pub const FROZEN_BOUNDS: [u64; 9] =
    [MS, 2 * MS, 5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 1_000 * MS];

/// What they have come to since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandOffs {
    /// Partitions that another node has taken over from this one.
    pub moved: u64,
    /// Partitions that were to move, and stayed.
    pub stayed: u64,
    /// Bytes of counts that were sent.
    pub bytes: u64,
    /// How long partitions were frozen, a batch of them once: each up to its bound of
    /// [`FROZEN_BOUNDS`] and above the one before; the last above all.
    pub frozen: [u64; FROZEN_BOUNDS.len() + 1],
    /// All of that together, nanoseconds.
    pub frozen_nanos: u128,
}

/// Counts them.
#[derive(Debug, Default)]
pub struct Counts(Mutex<HandOffs>);

impl Counts {
    /// A batch of partitions has been handed over, or not. `frozen` is for how many nanoseconds;
    /// none if it never was.
    pub fn count(&self, moved: bool, partitions: usize, bytes: usize, frozen: Option<u64>) {
        // Numbers are whole between any two statements: what panicked while holding the lock left
        // them so.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *if moved { &mut all.moved } else { &mut all.stayed } += partitions as u64;
        all.bytes += bytes as u64;
        if let Some(nanos) = frozen {
            let slot = FROZEN_BOUNDS
                .iter()
                .position(|bound| nanos <= *bound)
                .unwrap_or(FROZEN_BOUNDS.len());
            all.frozen[slot] += 1;
            all.frozen_nanos += u128::from(nanos);
        }
    }

    /// What was counted so far.
    pub fn read(&self) -> HandOffs {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_by_what_became_of_it_and_by_how_long_it_was_frozen() {
        let counts = Counts::default();
        counts.count(true, 64, 1_000, Some(2 * MS));
        counts.count(true, 32, 500, Some(2 * MS + 1));
        counts.count(false, 64, 10, None);
        counts.count(false, 1, 0, Some(5_000 * MS));
        let mut frozen = [0; FROZEN_BOUNDS.len() + 1];
        (frozen[1], frozen[2], frozen[FROZEN_BOUNDS.len()]) = (1, 1, 1);
        let frozen_nanos = u128::from(5_004 * MS + 1);
        let expected = HandOffs { moved: 96, stayed: 65, bytes: 1_510, frozen, frozen_nanos };
        assert_eq!(counts.read(), expected);
    }
}
