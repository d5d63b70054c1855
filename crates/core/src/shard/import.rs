//! Taking over what another incarnation, or another node, knows: the records that `export` made.

use std::collections::BTreeSet;

use super::account::{Account, Buckets, Replay};
use super::accounts::AccountIx;
use super::coordinate::REPLAYS_PER_TENANT_MAX;
use super::core::Shard;
use super::record::RecordId;
use super::snapshot::{AccountRecord, PartitionSnapshot, ReplayRecord};
use crate::check::TenantId;
use crate::limit::Permits;
use crate::placement::{AccountHash, Partition, TableVersion};
use crate::time::Now;

/// By what right a snapshot is taken over, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An earlier incarnation of this node saved it. Only partitions are taken that no other
    /// incarnation has owned since; what is known here already stays; the caps hold.
    Restore,
    /// The owner hands partitions over by this move, which is under way. What it says of an account
    /// or a bucket replaces what is known here; an account that the owner counted singly goes on
    /// being counted so, also beyond the caps.
    Stage(TableVersion),
}

impl Shard {
    /// Takes over `known`, whose times are on this node's clocks. Records of partitions that `mode`
    /// doesn't allow, and of those that other shards keep, are passed over.
    pub fn import(&mut self, known: &PartitionSnapshot, mode: Mode, now: Now) {
        let taken = self.takes_over(known, mode);
        for record in &known.accounts {
            let id = RecordId::of(&record.id);
            let hash = id.hash(&self.secret);
            if hash.is_some_and(|hash| !taken.contains(&hash.partition())) {
                continue;
            }
            match (id, hash) {
                (RecordId::PermitsLost(partition), _) => {
                    self.import_permits_lost(partition, record, mode, now);
                }
                (RecordId::Overflow(shard), _) if self.keeps_overflow(shard, mode) => {
                    self.put(self.accounts.overflow(), record, mode, now);
                }
                (RecordId::Account(_) | RecordId::Unnamed(_), Some(hash)) => {
                    let ix = self.account_for(record, id, hash, mode, now);
                    self.put(ix, record, mode, now);
                }
                _ => {}
            }
        }
        for (key, state) in &known.shared {
            if !taken.contains(&Partition::of_key(*key)) {
                continue;
            }
            match mode {
                Mode::Restore => self.shared.restore(*key, state.clone(), false),
                Mode::Stage(_) => self.shared.take_over(*key, state.clone()),
            }
        }
        for (shard, key, state) in &known.overflow {
            if self.keeps_overflow(*shard, mode) {
                self.shared.restore(*key, state.clone(), true);
            }
        }
        for (partition, then) in known.lost.iter().filter(|(p, _)| taken.contains(p)) {
            match mode {
                Mode::Restore => self.lost.insert(*partition, *then),
                Mode::Stage(_) => self.moves.stage_lost(*partition, *then),
            }
        }
    }

    /// The partitions of this shard that are taken over.
    fn takes_over(&self, known: &PartitionSnapshot, mode: Mode) -> BTreeSet<Partition> {
        let mut taken = match mode {
            Mode::Restore => known.still_true(&self.places),
            Mode::Stage(of) => self.moves.staged_for(of),
        };
        taken.retain(|partition| partition.shard(self.shards) == self.index);
        taken
    }

    /// Whether what shard number `shard` of another process kept beyond a cap is kept here. It is
    /// in no partition, and is never handed over.
    fn keeps_overflow(&self, shard: usize, mode: Mode) -> bool {
        mode == Mode::Restore && shard % self.shards == self.index
    }

    fn import_permits_lost(
        &mut self,
        partition: Partition,
        record: &AccountRecord,
        mode: Mode,
        now: Now,
    ) {
        let then = record.permits.out().map(|(_, then)| then).max();
        match mode {
            Mode::Restore => self.lost.insert_permits(partition, then.unwrap_or(now.boot)),
            Mode::Stage(_) => self.moves.stage_permits_lost(partition, then),
        }
    }

    /// The account that a record is about, made if it isn't in memory.
    fn account_for(
        &mut self,
        record: &AccountRecord,
        id: RecordId<'_>,
        hash: AccountHash,
        mode: Mode,
        now: Now,
    ) -> AccountIx {
        let tenant = TenantId::new(&record.id);
        let named = tenant.is_some_and(|tenant| self.plans.policy().names(&tenant));
        match (mode, id) {
            (Mode::Restore, RecordId::Account(id)) => {
                self.accounts.find_or_insert(hash, id, named, &mut self.plans, now)
            }
            _ => self.accounts.find_or_make(hash, &record.id, named),
        }
    }

    /// Puts a record into an account. One that is all of the account replaces what the account
    /// holds, where a staged one does; any other adds to it. A bucket that is there stays.
    fn put(&mut self, ix: AccountIx, record: &AccountRecord, mode: Mode, now: Now) {
        let is_restored = mode == Mode::Restore;
        let room = match mode {
            Mode::Restore => self.caps.request_ids.saturating_sub(self.accounts.request_ids),
            Mode::Stage(_) => usize::MAX,
        };
        let account = self.accounts.get_mut(ix);
        let before = (account.buckets.len(), account.permits(), account.replays());
        if !is_restored && !record.goes_on {
            account.buckets = Buckets::new();
            if let Some(extras) = &mut account.extras {
                extras.permits = Permits::default();
                extras.replays.clear();
                extras.replay_order.clear();
            }
        }
        for (key, state) in &record.buckets {
            if account.buckets.get(*key).is_none() {
                account.buckets.insert(*key, state.clone());
            }
        }
        if record.permits.flying() > 0 {
            account.extras().permits.add(record.permits.clone());
        }
        let remembered = |replay: &&ReplayRecord| !is_restored || replay.expires > now.boot;
        remember(account, record.replays.iter().filter(remembered), room);
        let after = (account.buckets.len(), account.permits(), account.replays());
        self.accounts.buckets = self.accounts.buckets + after.0 - before.0;
        self.accounts.permits = self.accounts.permits + after.1 - before.1;
        self.accounts.request_ids = self.accounts.request_ids + after.2 - before.2;
    }
}

/// Has an account remember answers, those that expire last first, while there is `room` for more.
fn remember<'a>(
    account: &mut Account,
    replays: impl Iterator<Item = &'a ReplayRecord>,
    room: usize,
) {
    let mut replays: Vec<_> = replays.collect();
    if replays.is_empty() {
        return;
    }
    replays.sort_unstable_by(|a, b| (b.expires, &b.key).cmp(&(a.expires, &a.key)));
    let extras = account.extras();
    let room = room.min(REPLAYS_PER_TENANT_MAX.saturating_sub(extras.replays.len()));
    for replay in replays.into_iter().take(room) {
        let ReplayRecord { key, fingerprint, expires, decision } = replay.clone();
        extras.replay_order.push_back((expires, key.clone()));
        let replay = Replay { fingerprint, expires, decision: Box::new(decision) };
        extras.replays.insert(key, replay);
    }
    extras.replay_order.make_contiguous().sort_unstable();
}
