//! Partitions that come.
//!
//! What is known of one is put where it will be needed as it comes, a few accounts at a time, so
//! that nothing is left to do when the log says that the partition is here: that moment is one in
//! which checks wait. Until then nobody asks for it, since it isn't here.

use std::collections::BTreeSet;

use super::{Moved, MovedAccount, MovedReplay, Moves};
use crate::check::TenantId;
use crate::clock::Now;
use crate::limit::Permits;
use crate::placement::{AccountHash, Epoch, Partition, Place, TableVersion};
use crate::shard::account::{Buckets, Replay};
use crate::shard::core::Shard;
use crate::shard::record::RecordId;

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

impl Moved {
    /// Moves all boot times to the clock of a node that reads `now`.
    fn rebase(&mut self, now: Now) {
        let forward = i128::from(now.boot) - i128::from(self.boot);
        for account in &mut self.accounts {
            account.buckets.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
            account.permits.shift_boot(forward);
            for replay in &mut account.replays {
                let expires = i128::from(replay.expires) + forward;
                replay.expires = u64::try_from(expires.max(0)).unwrap_or(u64::MAX);
            }
        }
        self.shared.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
        for (_, then) in &mut self.lost {
            then.boot = u64::try_from((i128::from(then.boot) + forward).max(0)).unwrap_or(u64::MAX);
        }
        self.boot = now.boot;
    }
}

impl Shard {
    /// Takes over what another node knows of `partitions`, which the move `of` brings here: nobody
    /// is decided by it until the log says that they are here, and with the last part it is all.
    /// What is for another move than the one under way is dropped, and so is what comes behind the
    /// last part.
    pub fn stage(
        &mut self,
        partitions: &[Partition],
        of: TableVersion,
        mut moved: Moved,
        is_last: bool,
        now: Now,
    ) {
        moved.rebase(now);
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
        for account in moved.accounts {
            let record = RecordId::of(&account.id);
            let Some(hash) = record.hash(&self.secret) else { continue };
            if !self.moves.stages(hash.partition(), of) {
                continue;
            }
            match record {
                RecordId::PermitsLost(partition) => {
                    let then = account.permits.out().map(|(_, then)| then).max();
                    let staged = self.moves.staged.entry(partition);
                    staged.and_modify(|staged| staged.permits_lost = then);
                }
                _ => self.take_over(account, hash),
            }
        }
        for id in moved.gone {
            let Some(hash) = RecordId::of(&id).hash(&self.secret) else { continue };
            if self.moves.stages(hash.partition(), of)
                && let Some(ix) = self.accounts.find(hash, &id)
            {
                self.forget_account(ix);
            }
        }
        for (key, state) in moved.shared {
            if self.moves.stages(Partition::of_key(key), of) {
                self.shared.take_over(key, state);
            }
        }
        for (partition, then) in moved.lost {
            if self.moves.stages(partition, of) {
                self.moves.staged.entry(partition).and_modify(|staged| staged.lost = Some(then));
            }
        }
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
            let moving = self.places.table().row(partition).moving;
            let is_awaited = moving
                .is_some_and(|moving| moving.id == staged.of && moving.to == self.places.me());
            match self.places.of(partition) {
                Place::Here(actual) if actual == staged.epoch && staged.is_complete => {
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

    /// Makes what another node says of an account what is known of it here, or adds to that if it
    /// goes on with one. It has a place of its own also beyond the cap: what was counted singly
    /// goes on being counted so.
    fn take_over(&mut self, account: MovedAccount, hash: AccountHash) {
        let MovedAccount { id, goes_on, buckets, permits, replays } = account;
        let named = TenantId::new(&id).is_some_and(|tenant| self.plans.policy().names(&tenant));
        let ix = self.accounts.find_or_make(hash, &id, named);
        let account = self.accounts.get_mut(ix);
        let before = (account.buckets.len(), account.permits(), account.replays());
        if !goes_on {
            account.buckets = Buckets::new();
            if let Some(extras) = &mut account.extras {
                extras.permits = Permits::default();
                extras.replays.clear();
                extras.replay_order.clear();
            }
        }
        for (key, state) in buckets {
            account.buckets.insert(key, state);
        }
        if permits.flying() > 0 {
            account.extras().permits.add(permits);
        }
        if !replays.is_empty() {
            let extras = account.extras();
            let mut order: Vec<_> =
                replays.iter().map(|replay| (replay.expires, replay.key.clone())).collect();
            order.sort();
            extras.replay_order.extend(order);
            for MovedReplay { key, fingerprint, expires, decision } in replays {
                extras
                    .replays
                    .insert(key, Replay { fingerprint, expires, decision: Box::new(decision) });
            }
        }
        let after = (account.buckets.len(), account.permits(), account.replays());
        self.accounts.buckets = self.accounts.buckets + after.0 - before.0;
        self.accounts.permits = self.accounts.permits + after.1 - before.1;
        self.accounts.request_ids = self.accounts.request_ids + after.2 - before.2;
    }
}
