//! What a shard knows, as records: all that a graceful stop keeps, a partition for its next owner,
//! what has changed of it since, or long limits for a back-up.
//!
//! Long limits come a piece at a time, while the shard goes on deciding. A piece looks at
//! [`POSITIONS_MAX`] accounts at most and holds about [`PIECE_BYTES`], so that no check waits
//! noticeably for it. Between two pieces checks are decided, so the whole is of no single instant:
//! each bucket is as it was when its piece was made.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::core::Shard;
use super::record::RecordId;
use super::snapshot::{AccountRecord, PartitionDelta, PartitionSnapshot};
use crate::limit::State;
use crate::placement::{Partition, TableVersion};
use crate::time::Now;

/// Accounts that one piece looks at.
const POSITIONS_MAX: usize = 4_096;
/// Bytes of one piece, about: a few fit into a frame for bulk.
const PIECE_BYTES: usize = 1 << 20;
/// Shared buckets of one piece: with their keys they take less than [`PIECE_BYTES`], but for logs.
/// It looks at no more than so many and those of one partition.
const SHARED_MAX: usize = 8_192;

/// What is exported.
#[derive(Clone, Copy)]
pub enum Filter<'a> {
    /// All that the node's next incarnation must know: the partitions that are here or have arrived
    /// in full, and what stands in for tenants and keys beyond a cap.
    Kept,
    /// All of one partition. What changes of it from here on is in the next `Changed`.
    Whole(Partition),
    /// What has changed of these partitions since they were exported whole.
    Changed(&'a BTreeSet<Partition>),
    /// The counts of long limits of the partitions that are here, from a cursor on: one piece.
    Long(Cursor),
}

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

/// What was exported.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// The placement by which it was known what is here.
    pub places: TableVersion,
    /// The records. Ids of accounts that are gone are in an export of what has changed alone.
    pub delta: PartitionDelta,
    /// Where the next piece begins; none where this is all.
    pub next: Option<Cursor>,
}

impl Shard {
    /// Returns what the shard knows, as far as `filter` wants it.
    pub fn export(&mut self, filter: Filter<'_>, now: Now) -> Export {
        let mut delta = PartitionDelta::at(now);
        let next = match filter {
            Filter::Kept => {
                self.export_kept(&mut delta.known);
                None
            }
            Filter::Whole(partition) => {
                self.export_partition(partition, &mut delta.known, |_| true);
                delta.known.shared = self.shared.copy(partition);
                None
            }
            Filter::Changed(partitions) => {
                for partition in self.mine(partitions) {
                    self.export_changed(partition, &mut delta);
                }
                None
            }
            Filter::Long(cursor) => self.export_long(cursor, &mut delta.known, now),
        };
        Export { places: self.places_version(), delta, next }
    }

    fn export_kept(&self, known: &mut PartitionSnapshot) {
        let mine = |(partition, _): &(Partition, _)| partition.shard(self.shards) == self.index;
        // A partition that has arrived in full is this node's as soon as the log says so, which it
        // may do after this incarnation.
        known.epochs = self.places.here().filter(mine).chain(self.moves.have_come()).collect();
        let overflow = self.accounts.get(self.accounts.overflow());
        if !overflow.is_blank() {
            // Every shard has an overflow account of its own.
            known.accounts.push(AccountRecord::of(overflow, RecordId::Overflow(self.index)));
        }
        let kept: BTreeSet<_> = known.epochs.iter().map(|(partition, _)| *partition).collect();
        for partition in &kept {
            self.export_partition(*partition, known, |_| true);
        }
        for (key, state, overflow) in self.shared.states() {
            match overflow {
                true => known.overflow.push((self.index, key, state.clone())),
                false if kept.contains(&Partition::of_key(key)) => {
                    known.shared.push((key, state.clone()));
                }
                false => {}
            }
        }
    }

    /// Adds the accounts of a partition that hold something, as far as `is_wanted`, and when counts
    /// and permits of it were lost.
    fn export_partition(
        &self,
        partition: Partition,
        known: &mut PartitionSnapshot,
        is_wanted: impl Fn(&Account) -> bool,
    ) {
        let accounts = self.accounts.of(partition).map(|ix| self.accounts.get(ix));
        let wanted = accounts.filter(|account| !account.is_blank() && is_wanted(account));
        known
            .accounts
            .extend(wanted.map(|account| AccountRecord::of(account, RecordId::of(&account.id))));
        let lost = self.lost.get(partition).or(self.moves.lost_of(partition));
        known.lost.extend(lost.map(|then| (partition, then)));
        let permits = self.lost.permits_alone(partition);
        let permits = permits.or(self.moves.permits_lost_of(partition));
        known.accounts.extend(permits.map(|then| AccountRecord::permits_lost(partition, then)));
    }

    /// Adds what has changed of a partition since it was exported whole.
    fn export_changed(&mut self, partition: Partition, delta: &mut PartitionDelta) {
        self.export_partition(partition, &mut delta.known, |account| !account.copied);
        let accounts = self.accounts.of(partition).map(|ix| self.accounts.get(ix));
        let emptied = accounts.filter(|account| !account.copied && account.is_blank());
        delta.gone.extend(emptied.map(|account| account.id.to_string()));
        delta.known.shared.extend(self.shared.changed(partition));
    }

    fn export_long(
        &self,
        cursor: Cursor,
        known: &mut PartitionSnapshot,
        now: Now,
    ) -> Option<Cursor> {
        if cursor == Cursor::FIRST {
            let mine = |(partition, _): &(Partition, _)| partition.shard(self.shards) == self.index;
            let here = self.places.here().filter(mine);
            let lost =
                here.filter_map(|(partition, _)| Some((partition, self.lost.get(partition)?)));
            known.lost = lost.collect();
        }
        match cursor {
            Cursor::Accounts(position, after) => {
                Some(self.accounts_from(position, after, known, now))
            }
            Cursor::Shared(after) => self.shared_after(after, known, now),
        }
    }

    fn accounts_from(
        &self,
        from: usize,
        after: Option<u64>,
        known: &mut PartitionSnapshot,
        now: Now,
    ) -> Cursor {
        // Position 0 is the overflow account, which stands in for tenants that can't be told apart.
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
                let empty = AccountRecord::empty(account.id.to_string());
                known.accounts.push(AccountRecord { buckets, ..empty });
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
        known: &mut PartitionSnapshot,
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
                if bytes >= PIECE_BYTES || known.shared.len() >= SHARED_MAX {
                    return known.shared.last().map(|(key, _)| Cursor::Shared(Some(*key)));
                }
                bytes += bucket.bytes();
                known.shared.push((key, bucket.clone()));
            }
        }
        None
    }
}
