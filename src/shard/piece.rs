//! What a shard knows of long limits, a piece at a time: for a back-up, while it goes on deciding.
//!
//! A piece looks at [`POSITIONS_MAX`] accounts at most and gives away about [`PIECE_BYTES`], so
//! that nobody waits noticeably for it. Between two pieces checks are decided, so the whole is of
//! no single instant: each bucket is as it was when its piece was made.

use serde::{Deserialize, Serialize};

use super::core::Shard;
use super::saved::{SavedAccount, SavedState};
use crate::clock::Now;
use crate::limit::State;
use crate::placement::{Partition, TableVersion};

/// Accounts that one piece looks at.
const POSITIONS_MAX: usize = 4_096;
/// Bytes of one piece, about: a few fit into a frame for bulk.
const PIECE_BYTES: usize = 1 << 20;
/// Shared buckets of one piece: with their keys they take less than [`PIECE_BYTES`], but for logs.
/// It looks at no more than so many and those of one partition.
const SHARED_MAX: usize = 8_192;

/// Where the next piece begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cursor {
    /// With the account at this position, behind the bucket with this key.
    Accounts(usize, Option<u64>),
    /// With shared buckets, behind this key.
    Shared(Option<u128>),
}

impl Cursor {
    /// The first piece.
    pub const FIRST: Self = Self::Accounts(0, None);
}

/// A piece.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The placement by which it was known what is here.
    pub places: TableVersion,
    /// Long-lived counts of partitions that are here, and which of those were lost.
    pub state: SavedState,
    /// Where the next one begins; none, and this was the last.
    pub next: Option<Cursor>,
}

impl Shard {
    /// The piece at `cursor`.
    pub fn piece(&self, cursor: Cursor, now: Now) -> Piece {
        let mut state = SavedState::at(now);
        if cursor == Cursor::FIRST {
            let here = self
                .places
                .here()
                .filter(|(partition, _)| partition.shard(self.shards) == self.index);
            let lost =
                here.filter_map(|(partition, _)| Some((partition, self.lost.get(partition)?)));
            state.lost = lost.collect();
        }
        let next = match cursor {
            Cursor::Accounts(position, after) => {
                Some(self.accounts_from(position, after, &mut state, now))
            }
            Cursor::Shared(after) => self.shared_after(after, &mut state, now),
        };
        Piece { places: self.places_version(), state, next }
    }

    fn accounts_from(
        &self,
        from: usize,
        after: Option<u64>,
        state: &mut SavedState,
        now: Now,
    ) -> Cursor {
        // Position 0 is the overflow account: it stands for nobody who could be told apart.
        let from = from.max(1);
        let end = self.accounts.positions().min(from + POSITIONS_MAX);
        let mut bytes = 0;
        for position in from..end {
            let Some(account) = self.accounts.at(position) else { continue };
            if !self.places.is_here(account.hash.partition()) {
                continue;
            }
            let after = after.filter(|_| position == from);
            let is_wanted = |key: u64, bucket: &State| {
                after.is_none_or(|after| key > after) && bucket.is_long(now)
            };
            let mut long: Vec<_> =
                account.buckets.iter().filter(|(key, bucket)| is_wanted(*key, bucket)).collect();
            if long.is_empty() {
                continue;
            }
            long.sort_unstable_by_key(|(key, _)| *key);
            let mut buckets = Vec::new();
            let mut rest = None;
            for (key, bucket) in long {
                if bytes >= PIECE_BYTES {
                    rest = Some(buckets.last().map(|(key, _)| *key).or(after));
                    break;
                }
                bytes += bucket.bytes();
                buckets.push((key, bucket.clone()));
            }
            if !buckets.is_empty() {
                let (id, permits) = (account.id.to_string(), Default::default());
                state.accounts.push(SavedAccount { id, buckets, permits });
            }
            if let Some(after) = rest {
                return Cursor::Accounts(position, after);
            }
        }
        match end < self.accounts.positions() {
            true => Cursor::Accounts(end, None),
            false => Cursor::Shared(None),
        }
    }

    fn shared_after(
        &self,
        after: Option<u128>,
        state: &mut SavedState,
        now: Now,
    ) -> Option<Cursor> {
        // A key begins with the number of its partition.
        let first = after
            .map_or(0, |after| usize::from(Partition::of_key(after.saturating_add(1)).number()));
        let (mut bytes, mut looked_at) = (0, 0);
        for partition in
            Partition::all().skip(first).filter(|partition| self.places.is_here(*partition))
        {
            let is_wanted = |key: u128, bucket: &State, overflow: bool| {
                !overflow && after.is_none_or(|after| key > after) && bucket.is_long(now)
            };
            if looked_at >= SHARED_MAX {
                // Behind the last key that the partition before this one could have.
                return Some(Cursor::Shared(Some(partition.first_key() - 1)));
            }
            let states = self.shared.states_of(partition);
            looked_at += states.len();
            let mut long: Vec<_> = states
                .filter(|(key, bucket, overflow)| is_wanted(*key, bucket, *overflow))
                .collect();
            long.sort_unstable_by_key(|(key, ..)| *key);
            for (key, bucket, _) in long {
                if bytes >= PIECE_BYTES || state.shared.len() >= SHARED_MAX {
                    return state.shared.last().map(|(key, _)| Cursor::Shared(Some(*key)));
                }
                bytes += bucket.bytes();
                state.shared.push((key, bucket.clone()));
            }
        }
        None
    }
}
