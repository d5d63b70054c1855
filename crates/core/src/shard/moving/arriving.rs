//! Partitions that come.
//!
//! What is known of one is put where it will be needed as it comes, a few accounts at a time, so
//! that nothing is left to do when the log says that the partition is here: that moment is one in
//! which checks wait. Until then nobody asks for it, since it isn't here.

use std::collections::BTreeSet;

use super::Moves;
use crate::placement::{Began, Epoch, Partition, Place, TableVersion};
use crate::shard::core::Shard;
use crate::shard::import::Mode;
use crate::shard::record::RecordId;
use crate::shard::snapshot::PartitionDelta;
use crate::time::Now;

/// A partition that another node hands over to this one: what that knows lies among this one's
/// accounts and buckets, as far as it has come.
#[derive(Clone, Copy)]
pub(super) struct Staged {
    /// The move that it is for.
    of: TableVersion,
    /// The epoch under which the partition will be here.
    epoch: Epoch,
    /// Whether it is all.
    is_complete: bool,
    lost: Option<Now>,
    /// When its permits were lost, boot nanoseconds, where `lost` doesn't say it.
    permits_lost: Option<u64>,
}

impl Staged {
    /// Nothing has come yet of a partition that the move `of` brings.
    fn begun(of: TableVersion, epoch: Epoch) -> Self {
        Self { of, epoch, is_complete: false, lost: None, permits_lost: None }
    }
}

impl Moves {
    /// Whether a partition is being staged for the move `of`, and not all of it has come.
    fn stages(&self, partition: Partition, of: TableVersion) -> bool {
        self.staged.get(&partition).is_some_and(|staged| staged.of == of && !staged.is_complete)
    }

    /// Partitions that are being staged for the move `of`, and of which not all has come.
    pub(in crate::shard) fn staged_for(&self, of: TableVersion) -> BTreeSet<Partition> {
        let staged = self.staged.iter();
        let awaited = staged.filter(|(_, staged)| staged.of == of && !staged.is_complete);
        awaited.map(|(partition, _)| *partition).collect()
    }

    /// The counts of a partition that is to come were lost at `then`.
    pub(in crate::shard) fn stage_lost(&mut self, partition: Partition, then: Now) {
        self.staged.entry(partition).and_modify(|staged| staged.lost = Some(then));
    }

    /// The permits of a partition that is to come were lost at `then`, boot nanoseconds.
    pub(in crate::shard) fn stage_permits_lost(&mut self, partition: Partition, then: Option<u64>) {
        self.staged.entry(partition).and_modify(|staged| staged.permits_lost = then);
    }

    /// Partitions that have come whole and may be here soon, and the epochs under which they will
    /// be.
    pub(in crate::shard) fn have_come(&self) -> impl Iterator<Item = (Partition, Epoch)> {
        let whole = self.staged.iter().filter(|(_, staged)| staged.is_complete);
        whole.map(|(partition, staged)| (*partition, staged.epoch))
    }

    /// When the counts of a partition that is to come were lost, if they were.
    pub(in crate::shard) fn lost_of(&self, partition: Partition) -> Option<Now> {
        self.staged.get(&partition).and_then(|staged| staged.lost)
    }

    /// When the permits of a partition that is to come were lost, where [`Moves::lost_of`] doesn't
    /// say it.
    pub(in crate::shard) fn permits_lost_of(&self, partition: Partition) -> Option<u64> {
        self.staged.get(&partition).and_then(|staged| staged.permits_lost)
    }
}

impl Shard {
    /// Takes over what another node knows of `partitions`, which the move `of` brings here: no
    /// check is decided by it until the log says that they are here, and with the last part it is
    /// all.
    /// What is for another move than the one under way is dropped, and so is what arrives behind
    /// the last part.
    pub fn stage(
        &mut self,
        partitions: &[Partition],
        of: TableVersion,
        delta: PartitionDelta,
        is_last: bool,
        now: Now,
    ) {
        let (index, shards) = (self.index, self.shards);
        for partition in partitions.iter().filter(|partition| partition.shard(shards) == index) {
            let row = self.places.table().row(*partition);
            if row.moving.is_none_or(|moving| moving.id != of || moving.to != self.places.me()) {
                continue;
            }
            let epoch = Epoch::new(row.epoch.number() + 1);
            if self.moves.staged.get(partition).is_none_or(|staged| staged.of != of) {
                // What an earlier move has brought, or a check that ended late has left behind, is
                // not what is known of it.
                self.forget(*partition);
                self.moves.staged.insert(*partition, Staged::begun(of, epoch));
            }
        }
        let PartitionDelta { known, gone } = delta;
        for id in gone {
            let Some(hash) = RecordId::of(&id).hash(&self.secret) else { continue };
            if self.moves.stages(hash.partition(), of)
                && let Some(ix) = self.accounts.find(hash, &id)
            {
                self.forget_account(ix);
            }
        }
        self.import(&known.as_read_at(now), Mode::Stage(of), now);
        for partition in partitions.iter().filter(|_| is_last) {
            if self.moves.stages(*partition, of) {
                self.moves.staged.entry(*partition).and_modify(|staged| staged.is_complete = true);
            }
        }
    }

    /// Goes by what was staged for partitions that are here now, which it answers with, and drops
    /// what was staged for moves that came to nothing.
    pub(super) fn take_in(&mut self) -> BTreeSet<Partition> {
        let mut come = BTreeSet::new();
        for (partition, staged) in std::mem::take(&mut self.moves.staged) {
            let row = self.places.table().row(partition);
            let is_awaited = row
                .moving
                .is_some_and(|moving| moving.id == staged.of && moving.to == self.places.me());
            // Its epoch may also have risen because the source was given up after the move was:
            // what the source admitted in between is not in the copy.
            let was_moved = match row.began {
                Began::Moved(id) => id == staged.of,
                Began::Registered(_) | Began::Reassigned(_) => false,
                Began::Unknown => true,
            };
            match self.places.of(partition) {
                Place::Here(actual)
                    if actual == staged.epoch && staged.is_complete && was_moved =>
                {
                    staged.lost.into_iter().for_each(|then| self.lost.insert(partition, then));
                    let permits = staged.permits_lost.into_iter();
                    permits.for_each(|then| self.lost.insert_permits(partition, then));
                    come.insert(partition);
                }
                Place::There(..) if is_awaited => drop(self.moves.staged.insert(partition, staged)),
                _ => drop(self.moves.left_behind.insert(partition)),
            }
        }
        come
    }
}
