//! What is not deciding: time passing, permits coming back, operators looking, saving and
//! restoring.

use super::Refusal;
use super::accounts::AccountIx;
use super::core::{Listed, Shard, TenantState};
use super::effect::Effect;
use super::export::Filter;
use super::import::Mode;
use super::op::Kind;
use super::record::RecordId;
use super::snapshot::PartitionSnapshot;
use super::tally::{Levels, Reading};
use crate::check::{PermitId, TenantId};
use crate::limit::MAX_CONCURRENT_MAX;
use crate::placement::{AccountHash, Epoch, Partition};
use crate::time::{MS, Now};

impl Shard {
    /// What has to be done as time passes: ends overdue ops and holds, and sweeps a part of the
    /// accounts.
    pub fn tick(&mut self, sweep: bool, now: Now, effects: &mut Vec<Effect>) {
        let mut replies = Vec::new();
        self.shared.tick(self.plans.since(), now, &mut replies);
        replies.into_iter().for_each(|reply| self.send_reply(reply, effects));
        self.work_off(now, effects);

        let overdue: Vec<_> =
            self.open.iter().filter(|(_, op)| op.deadline <= now.boot).map(|(id, _)| *id).collect();
        for id in overdue {
            let Some(mut op) = self.open.remove(&id) else {
                continue;
            };
            // What hasn't answered may hold all the same: it is cancelled too, under the key that
            // was asked.
            let me = self.op_ref(id);
            for demand in std::mem::take(&mut op.demands) {
                if let Kind::Shared { home, key } = demand.kind {
                    self.settle_at(home, me, key, false, now, effects);
                }
            }
            self.release_own(&op);
            self.answer(op.answer_to, Some(id), Err(Refusal::Busy), effects);
            self.unpark(op.account, now, effects);
        }
        self.work_off(now, effects);
        self.dismiss_overdue(now, effects);
        self.dismiss_waiting(now, effects);
        self.forget_some();
        if sweep {
            self.accounts.tick(&mut self.plans, now);
            self.lost.expire(now);
            self.shared.sweep(&self.plans, now);
        }
    }

    /// Answers parked ops whose deadline has passed.
    fn dismiss_overdue(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for account in self.parked_in.clone() {
            let Some(extras) = &mut self.accounts.get_mut(account).extras else { continue };
            let parked = std::mem::take(&mut extras.parked).into_iter();
            let (late, in_time): (Vec<_>, Vec<_>) = parked.partition(|op| op.deadline <= now.boot);
            extras.parked = in_time.into();
            self.parked -= late.len();
            if extras.parked.is_empty() {
                self.parked_in.remove(&account);
            }
            for op in late {
                self.answer(op.answer_to, Some(op.id), Err(Refusal::Busy), effects);
            }
        }
    }

    /// Takes a permit back. Doing so twice does nothing.
    pub fn release(&mut self, id: PermitId, now: Now, effects: &mut Vec<Effect>) {
        let Some(account) = self.permit_account(id) else { return };
        if let Some(extras) = &mut self.accounts.get_mut(account).extras
            && extras.permits.release(id)
        {
            self.accounts.permits -= 1;
        }
        self.lost.give_back(id);
        self.unpark(account, now, effects);
        self.work_off(now, effects);
    }

    /// Lets a permit run for `ttl_ms` from now on and returns the milliseconds that it runs; none
    /// where it isn't in flight any more. A permit that a cold partition doesn't know is believed,
    /// and counts from then on. Errs where the permit's tier allows no such time.
    pub fn renew(&mut self, id: PermitId, ttl_ms: u64, now: Now) -> Result<Option<u64>, Refusal> {
        let Some(account) = self.permit_account(id) else { return Ok(None) };
        self.accounts.expire(account, now.boot);
        let tenant = self.accounts.get(account).tenant();
        let known = self.accounts.get(account).extras.as_ref();
        let is_known = known.is_some_and(|extras| extras.permits.contains(id));
        let hash = AccountHash((id.secret >> 64) as u64);
        if !is_known && !self.may_enter(id, account, tenant.as_ref(), now) {
            return Ok(None);
        }
        let ttl_ms = self.plans.policy().renewed_ttl(tenant.as_ref(), now.wall, ttl_ms)?;
        let until = now.boot.saturating_add(ttl_ms * MS);
        if is_known {
            self.accounts.get_mut(account).extras().permits.grant(id, until);
            return Ok(Some(ttl_ms));
        }
        self.lost.enter(id);
        let account = match self.accounts.find_by_hash(hash) {
            Some(known) => known,
            None => self.accounts.find_or_make(hash, &RecordId::Unnamed(hash).to_string(), false),
        };
        self.accounts.get_mut(account).extras().permits.grant(id, until);
        self.accounts.permits += 1;
        Ok(Some(ttl_ms))
    }

    /// Whether a permit that isn't known here may be in flight all the same, and one more may be:
    /// where the tenant is known, no more are entered than it may have.
    fn may_enter(&self, id: PermitId, ix: AccountIx, tenant: Option<&TenantId>, now: Now) -> bool {
        let policy = self.plans.policy();
        let room = tenant.and_then(|tenant| {
            let (tier, ..) = policy.tier_of(tenant, now.wall);
            policy.max_concurrent(tenant, &tier)
        });
        self.lost.may_enter(id, policy.permits_lost_for(tenant, now.wall), now)
            && self.accounts.get(ix).permits() < room.unwrap_or(MAX_CONCURRENT_MAX)
    }

    /// The account that a permit counts in; none where the id is of no permit: one of a partition
    /// names an account of that partition. Without an account in memory it is the one for tenants
    /// beyond a cap.
    pub(super) fn permit_account(&self, id: PermitId) -> Option<AccountIx> {
        let hash = AccountHash((id.secret >> 64) as u64);
        let is_its = hash.partition().number() == id.partition;
        is_its.then(|| self.accounts.find_by_hash(hash).unwrap_or(self.accounts.overflow()))
    }

    /// What is kept of a tenant.
    pub fn describe(&mut self, tenant: &TenantId, hash: AccountHash, now: Now) -> TenantState {
        let (tier, source, _) = self.plans.policy().tier_of(tenant, now.wall);
        let found = self.accounts.find(hash, tenant.as_str());
        let with_permits = found.or_else(|| self.accounts.find_unnamed(hash));
        if let Some(ix) = with_permits {
            self.accounts.expire(ix, now.boot);
        }
        let account = found.map(|ix| self.accounts.get(ix));
        TenantState {
            tier,
            source,
            active: account.is_some(),
            permits: with_permits.map_or(0, |ix| self.accounts.get(ix).permits()),
            keys: account.map_or(0, |account| account.buckets.len()),
            request_ids: account.map_or(0, |account| account.replays()),
        }
    }

    /// What was counted so far, and how the shard stands.
    pub fn read(&self) -> Reading {
        self.tally.read(Levels {
            tenants: self.accounts.len(),
            unknown_tenants: self.accounts.unknown(),
            buckets: self.accounts.buckets,
            shared_buckets: self.shared.len(),
            request_ids: self.accounts.request_ids,
            permits: self.accounts.permits,
            open_checks: self.open.len() + self.parked,
            policy_version: self.policy_version(),
        })
    }

    /// Up to `most` ids of tenants in memory, from a position on.
    pub fn list(&self, from: usize, most: usize) -> Listed {
        let mut listed = Listed::default();
        // Position 0 is the overflow account. A page looks at so many positions at most that nobody
        // waits for it.
        let end = self.accounts.positions().min(from.max(1) + 4_096);
        for position in from.max(1)..end {
            if listed.ids.len() == most {
                listed.next = Some(position);
                return listed;
            }
            let account = self.accounts.at(position).filter(|account| {
                let is_named = RecordId::unnamed(&account.id).is_none();
                is_named && self.places.is_here(account.hash.partition())
            });
            listed.ids.extend(account.map(|account| account.id.clone()));
        }
        listed.next = (end < self.accounts.positions()).then_some(end);
        listed
    }

    /// Returns everything worth keeping over a restart.
    pub fn save(&mut self, now: Now) -> PartitionSnapshot {
        self.export(Filter::Kept, now).delta.known
    }

    /// A process that begins finds what an earlier life of its node owned: what is known of it was
    /// `saved`, or it is lost.
    pub fn find(&mut self, saved: Option<&PartitionSnapshot>, now: Now) {
        let known = saved.map(|saved| saved.still_true(&self.places)).unwrap_or_default();
        let table = self.places.table().clone();
        let is_lost = |(partition, epoch): &(Partition, Epoch)| {
            // Under the first epoch no life has owned it yet.
            let is_mine = partition.shard(self.shards) == self.index;
            is_mine && *epoch > Epoch::FIRST && !known.contains(partition)
        };
        for (partition, _) in self.places.here().filter(is_lost) {
            // A node that is alone begins buckets fresh, and waits with permits as any other.
            match table.row(partition).replica {
                Some(_) => self.lost.insert(partition, now),
                None => self.lost.insert_permits(partition, now.boot),
            }
        }
        saved.into_iter().for_each(|saved| self.restore(saved, now));
    }

    /// Takes over what another process saved, as far as it is still true; what belongs to other
    /// shards is left alone.
    pub fn restore(&mut self, saved: &PartitionSnapshot, now: Now) {
        if !saved.still_true(&self.places).is_empty() {
            self.import(saved, Mode::Restore, now);
        }
    }
}
