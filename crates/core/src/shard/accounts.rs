//! The accounts of one shard: a slab, an index by hash, caps, and a sweep that forgets what holds
//! no information.
//!
//! The index keeps 32-bit slab positions and the slab is dense, so that an idle tenant costs its
//! account and little else. Each partition has an index of its own: whoever moves one looks at its
//! accounts and at no others, and no index is ever so large that somebody waits while it grows.
//! Named tenants and unknown ones have caps of their own: a flood of invented ids fills the unknown
//! half and then shares one overflow account, which pushes nobody out and refunds nobody.

use std::collections::BTreeMap;

use compact_str::CompactString;
use hashbrown::HashTable;

use super::account::Account;
use super::plans::Plans;
use super::record::RecordId;
use super::slab::Slab;
use crate::placement::{AccountHash, EachPartition, Partition, TableVersion};
use crate::time::Now;

/// Where an account lies in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountIx(u32);

/// How many accounts an insertion at the cap looks at, in search of one to forget.
const SWEEP_PER_INSERT: usize = 16;
/// A tick looks at one in this many accounts, and at least at [`SWEEP_MIN`]: all of them in about a
/// minute.
const SWEEP_PART: usize = 64;
const SWEEP_MIN: usize = 1024;
/// How many buckets of one account a look at it checks.
const BUCKETS_PER_LOOK: usize = 256;

/// The accounts of one shard.
pub struct Accounts {
    slab: Slab,
    free: Vec<u32>,
    index: EachPartition<HashTable<u32>>,
    /// Accounts in the index.
    count: usize,
    /// Partitions that were copied, each with the move that it was for and the accounts that were
    /// forgotten since and were not as the copy says.
    copied: BTreeMap<Partition, (TableVersion, Vec<CompactString>)>,
    hand: usize,
    named: usize,
    unknown_max: usize,
    named_max: usize,
    /// Buckets in all accounts together.
    pub buckets: usize,
    /// Request ids remembered in all accounts together.
    pub request_ids: usize,
    /// Permits that are out, of all accounts together; expired ones until their account is looked
    /// at.
    pub permits: u64,
    overflow: AccountIx,
}

impl Accounts {
    /// No accounts yet; at most `named_max` of tenants that the policy names and `unknown_max`
    /// others.
    pub fn new(named_max: usize, unknown_max: usize) -> Self {
        // No tenant id contains a *, so the overflow account is nobody's.
        let mut slab = Slab::default();
        let overflow = slab.push(Account::new("*".into(), AccountHash(0), true));
        Self {
            slab,
            free: Vec::new(),
            index: EachPartition::default(),
            count: 0,
            copied: BTreeMap::new(),
            hand: 0,
            named: 0,
            unknown_max,
            named_max,
            buckets: 0,
            request_ids: 0,
            permits: 0,
            overflow: AccountIx(overflow as u32),
        }
    }

    /// How many of them the policy does not name.
    pub fn unknown(&self) -> usize {
        self.len() - self.named
    }

    /// Accounts in memory, the overflow account aside.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The slab's length: where a walk over it ends.
    pub fn positions(&self) -> usize {
        self.slab.len()
    }

    /// The account at a position of the slab.
    pub fn at(&self, position: usize) -> Option<&Account> {
        self.slab.get(position)
    }

    /// The account that stands in for unknown ids beyond the cap.
    pub fn overflow(&self) -> AccountIx {
        self.overflow
    }

    /// The account of `id`, if it is in memory.
    pub fn find(&self, hash: AccountHash, id: &str) -> Option<AccountIx> {
        let slab = &self.slab;
        let index = &self.index[hash.partition()];
        let found =
            index.find(spread(hash), |&ix| slab.get(ix as usize).is_some_and(|a| *a.id == *id));
        found.map(|ix| AccountIx(*ix))
    }

    /// The account of which the hash alone is known, if it is in memory.
    pub fn find_unnamed(&self, hash: AccountHash) -> Option<AccountIx> {
        let is_it = |a: &Account| a.hash == hash && RecordId::unnamed(&a.id).is_some();
        let slab = &self.slab;
        let index = &self.index[hash.partition()];
        let found = index.find(spread(hash), |&ix| slab.get(ix as usize).is_some_and(is_it));
        found.map(|ix| AccountIx(*ix))
    }

    /// Gives the permits that are known by the hash alone to the account at `ix`, whose hash it is.
    pub fn name_permits(&mut self, hash: AccountHash, ix: AccountIx) {
        let Some(unnamed) = self.find_unnamed(hash).filter(|unnamed| *unnamed != ix) else {
            return;
        };
        let extras = self.get_mut(unnamed).extras.take();
        if let Some(permits) = extras.map(|extras| extras.permits).filter(|p| p.flying() > 0) {
            self.get_mut(ix).extras().permits.add(permits);
        }
        self.remove(unnamed);
    }

    /// The account with that hash, if it is in memory.
    pub fn find_by_hash(&self, hash: AccountHash) -> Option<AccountIx> {
        let slab = &self.slab;
        let index = &self.index[hash.partition()];
        let found =
            index.find(spread(hash), |&ix| slab.get(ix as usize).is_some_and(|a| a.hash == hash));
        found.map(|ix| AccountIx(*ix))
    }

    /// The accounts of a partition.
    pub fn of(&self, partition: Partition) -> impl Iterator<Item = AccountIx> {
        self.index[partition].iter().map(|ix| AccountIx(*ix))
    }

    /// A copy of a partition was made just now, for the move `of`.
    pub fn set_copied(&mut self, partition: Partition, of: TableVersion) {
        self.copied.insert(partition, (of, Vec::new()));
        for ix in &self.index[partition] {
            if let Some(account) = self.slab.get_mut(*ix as usize) {
                account.copied = true;
            }
        }
    }

    /// The accounts that are gone since a partition was copied for the move `of`, and were not as
    /// the copy says. None where that wasn't the last copy. Nobody will ask again.
    pub fn end_copied(
        &mut self,
        partition: Partition,
        of: TableVersion,
    ) -> Option<Vec<CompactString>> {
        let (_, gone) =
            self.copied.remove(&partition).filter(|(copied_for, _)| *copied_for == of)?;
        Some(gone)
    }

    /// Ends the copies that were made for moves which `is_over`.
    pub fn end_copies(&mut self, is_over: impl Fn(Partition, TableVersion) -> bool) {
        self.copied.retain(|partition, (of, _)| !is_over(*partition, *of));
    }

    /// The account of `id`, made if it isn't in memory; beyond the cap, the overflow account.
    pub fn find_or_insert(
        &mut self,
        hash: AccountHash,
        id: &str,
        named: bool,
        plans: &mut Plans,
        now: Now,
    ) -> AccountIx {
        if let Some(found) = self.find(hash, id) {
            return found;
        }
        let (count, max) =
            if named { (self.named, self.named_max) } else { (self.unknown(), self.unknown_max) };
        if count >= max {
            self.sweep(SWEEP_PER_INSERT, plans, now);
            let count = if named { self.named } else { self.len() - self.named };
            if count >= max {
                return self.overflow;
            }
        }
        self.find_or_make(hash, id, named)
    }

    /// The same, whatever the cap: for what another node has kept within its own.
    pub fn find_or_make(&mut self, hash: AccountHash, id: &str, named: bool) -> AccountIx {
        if let Some(found) = self.find(hash, id) {
            return found;
        }
        let account = Account::new(id.into(), hash, named);
        let ix = match self.free.pop() {
            Some(ix) => {
                self.slab.put(ix as usize, account);
                ix
            }
            None => self.slab.push(account) as u32,
        };
        self.named += usize::from(named);
        let slab = &self.slab;
        let index = &mut self.index[hash.partition()];
        index.insert_unique(spread(hash), ix, |&ix| {
            slab.get(ix as usize).map_or(0, |a| spread(a.hash))
        });
        self.count += 1;
        AccountIx(ix)
    }

    /// The account at `ix`, which its holder keeps from being forgotten or has just looked up.
    pub fn get(&self, ix: AccountIx) -> &Account {
        match self.slab.get(ix.0 as usize) {
            Some(account) => account,
            None => unreachable!("an account in use is not forgotten"),
        }
    }

    /// The account at `ix`, to be changed.
    pub fn get_mut(&mut self, ix: AccountIx) -> &mut Account {
        match self.slab.get_mut(ix.0 as usize) {
            Some(account) => {
                account.copied = false;
                account
            }
            None => unreachable!("an account in use is not forgotten"),
        }
    }

    /// Drops what has expired of an account.
    pub fn expire(&mut self, ix: AccountIx, boot: u64) {
        let account = self.get_mut(ix);
        let permits = account.permits();
        let request_ids = account.expire(boot);
        let permits = permits - account.permits();
        self.request_ids -= request_ids;
        self.permits -= permits;
    }

    /// Forgets the permits and request ids of an account. Open checks of it go on.
    pub fn forget_extras(&mut self, ix: AccountIx) {
        let Some(extras) = &mut self.get_mut(ix).extras else { return };
        let permits = std::mem::take(&mut extras.permits).flying();
        let request_ids = std::mem::take(&mut extras.replays).len();
        extras.replay_order.clear();
        if extras.holds.is_empty() && extras.parked.is_empty() {
            self.get_mut(ix).extras = None;
        }
        self.permits -= permits;
        self.request_ids -= request_ids;
    }

    /// Forgets an account.
    pub fn remove(&mut self, ix: AccountIx) {
        if ix == self.overflow {
            return;
        }
        let Some(account) = self.slab.take(ix.0 as usize) else {
            return;
        };
        self.named -= usize::from(account.counted_as_named);
        self.buckets -= account.buckets.len();
        self.request_ids -= account.extras.as_ref().map_or(0, |extras| extras.replays.len());
        self.permits -= account.permits();
        let partition = account.hash.partition();
        if let Ok(entry) =
            self.index[partition].find_entry(spread(account.hash), |&other| other == ix.0)
        {
            entry.remove();
            self.count -= 1;
        }
        if !account.copied
            && let Some((_, gone)) = self.copied.get_mut(&partition)
        {
            gone.push(account.id);
        }
        self.free.push(ix.0);
    }

    /// One tick's share of the sweep.
    pub fn tick(&mut self, plans: &mut Plans, now: Now) {
        self.sweep((self.slab.len() / SWEEP_PART).max(SWEEP_MIN).min(self.slab.len()), plans, now);
    }

    /// Looks at the next `count` accounts and forgets those that hold no information.
    fn sweep(&mut self, count: usize, plans: &mut Plans, now: Now) {
        for _ in 0..count {
            self.hand = (self.hand + 1) % self.slab.len();
            let Some(account) = self.slab.get_mut(self.hand) else {
                continue;
            };
            let permits = account.permits();
            self.request_ids -= account.expire(now.boot);
            self.permits -= permits - account.permits();
            if account.extras.is_none() {
                self.buckets -= plans.forget(account, BUCKETS_PER_LOOK, now);
                let (ix, empty) = (AccountIx(self.hand as u32), account.buckets.len() == 0);
                self.count_named(ix);
                if empty {
                    self.remove(ix);
                }
            }
        }
    }

    /// Counts the account under the cap it belongs to: a change of the policy can turn one kind
    /// into the other.
    pub fn count_named(&mut self, ix: AccountIx) {
        let account = self.get(ix);
        let (named, before) = (account.named, account.counted_as_named);
        if named != before && ix != self.overflow {
            self.get_mut(ix).counted_as_named = named;
            self.named = self.named + usize::from(named) - usize::from(before);
        }
    }
}

/// The hash by which a partition's index finds an account. Its uppermost bits are the same in all
/// accounts of a partition, and both ends of a hash matter to the table.
fn spread(hash: AccountHash) -> u64 {
    hash.0.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limit::{Rule, State, Window};
    use crate::placement::Secret;
    use crate::time::SECOND;

    fn now() -> Now {
        Now { boot: 10 * SECOND, wall: 10 * SECOND }
    }

    fn plans() -> Plans {
        let policy = crate::policy::Policy::new(1, crate::policy::builtin(), None);
        Plans::new(Arc::new(policy), Secret::new(1, 2))
    }

    fn insert(accounts: &mut Accounts, id: &str, named: bool) -> AccountIx {
        accounts.find_or_insert(Secret::new(1, 2).account(id), id, named, &mut plans(), now())
    }

    fn spend(accounts: &mut Accounts, ix: AccountIx) {
        let rule = Rule::FixedWindow(Window { limit: 10, length: 60 * SECOND });
        let mut state = State::fresh(&rule, now());
        state.take(&rule, 1, now());
        accounts.get_mut(ix).buckets.insert(1, state);
        accounts.buckets += 1;
    }

    #[test]
    fn beyond_the_cap_unknown_ids_share_one_account_and_named_ones_keep_their_own() {
        let mut accounts = Accounts::new(10, 100);
        for i in 0..1_000 {
            let ix = insert(&mut accounts, &format!("flood-{i}"), false);
            assert_eq!(ix == accounts.overflow(), i >= 100);
            if i < 100 {
                spend(&mut accounts, ix);
            }
        }
        assert_eq!(accounts.len(), 100);
        let acme = insert(&mut accounts, "acme", true);
        assert_ne!(acme, accounts.overflow());
        assert!(accounts.find(Secret::new(1, 2).account("flood-0"), "flood-0").is_some());
    }

    #[test]
    fn only_accounts_without_information_are_forgotten() {
        let mut accounts = Accounts::new(10, 10);
        let spent = insert(&mut accounts, "spent", false);
        spend(&mut accounts, spent);
        insert(&mut accounts, "idle", false);
        accounts.tick(&mut plans(), now());
        assert_eq!(accounts.len(), 1);
        let later = Now { boot: 60 * SECOND, wall: 60 * SECOND };
        accounts.tick(&mut plans(), later);
        assert_eq!((accounts.len(), accounts.buckets), (0, 0));
    }
}
