//! Asking the limits whose buckets lie in the account: finding or making the bucket, and what
//! stands in at a cap.

use smallvec::SmallVec;

use super::accounts::AccountIx;
use super::core::Shard;
use super::op::{Demand, Kind, Op, Said};
use crate::limit::{Outcome, Permits, Rule, State};
use crate::placement::Partition;
use crate::policy::BucketKey;
use crate::time::{MS, Now};

/// How many buckets of an account that has reached a cap are looked at, in search of one to forget.
const LOOKED_AT_PER_INSERT: usize = 16;

impl Shard {
    /// Asks all limits of `op` that are the account's own.
    pub(super) fn judge_own(&mut self, op: &mut Op, now: Now) {
        // A look at a tenant that isn't in memory finds it as it would be: fresh, and nobody's
        // overflow.
        let absent = op.peek && op.account == self.accounts.overflow();
        let cold_for = op.cold_until.saturating_sub(now.boot);
        let longest_ttl =
            op.parts.iter().filter_map(|part| part.check.permit_ttl_ms).max().unwrap_or(0) * MS;
        let (account, peek) = (op.account, op.peek);
        if !peek {
            self.make_room(op, now);
        }
        // Beyond a cap several demands of one op may meet in one bucket.
        let mut before: SmallVec<[(u64, u64); 4]> = SmallVec::new();
        for demand in &mut op.demands {
            demand.said = match demand.kind {
                Kind::Shared { .. } => None,
                Kind::Slots => {
                    let said = self.judge_slots(account, demand, absent, longest_ttl, now);
                    Some(if cold_for > 0 { cold(said, cold_for) } else { said })
                }
                Kind::Own(key) if peek => {
                    let seen = (!absent).then_some(account);
                    Some(self.look(seen, op.hash.partition(), demand, key, now))
                }
                Kind::Own(key) => Some(self.judge_bucket(account, demand, key, &before, now)),
            };
            if let Kind::Own(key) = demand.kind {
                before.push((key, demand.cost));
            }
        }
    }

    fn judge_slots(
        &self,
        ix: AccountIx,
        demand: &Demand,
        absent: bool,
        ttl: u64,
        now: Now,
    ) -> Said {
        let nobody = Permits::default();
        let account = self.accounts.get(ix);
        let permits =
            account.extras.as_ref().filter(|_| !absent).map_or(&nobody, |extras| &extras.permits);
        let held = if absent { 0 } else { account.held_slots() };
        let max = demand.selected.limit.rule.capacity();
        let reset = permits.reset_after(now.boot);
        Said {
            outcome: permits.judge(max, demand.cost, held, now.boot),
            remaining: max.saturating_sub(permits.flying().saturating_add(held)),
            reset,
            reset_if_taken: reset.max(ttl),
            overflow: !absent && ix == self.accounts.overflow(),
            cold: false,
        }
    }

    /// Judges without leaving a trace.
    fn look(
        &self,
        ix: Option<AccountIx>,
        partition: Partition,
        demand: &Demand,
        key: u64,
        now: Now,
    ) -> Said {
        let account = ix.map(|ix| self.accounts.get(ix));
        let rule = &demand.selected.limit.rule;
        let state = match account.and_then(|account| account.buckets.get(key)) {
            Some(state) => {
                let mut state = state.clone();
                state.advance(rule, self.plans.since(), now);
                state
            }
            None => self.lost.newborn(partition, rule, now),
        };
        said(&state, demand, 0, account.map_or(0, |account| account.held(key)), false, now)
    }

    /// Judges by the bucket under `key`, made if it isn't there; at a cap on keys, by the one that
    /// stands in for it.
    fn judge_bucket(
        &mut self,
        ix: AccountIx,
        demand: &mut Demand,
        key: u64,
        before: &[(u64, u64)],
        now: Now,
    ) -> Said {
        let (key, overflow) = match self.has_room(ix, key) {
            true => (key, false),
            false => match demand.selected.overflow_key(&self.secret) {
                BucketKey::Own(stand_in) => (stand_in, true),
                BucketKey::Shared(_) => (key, false),
            },
        };
        demand.kind = Kind::Own(key);
        let rule = &demand.selected.limit.rule;
        self.keep(ix, key, rule, now);
        let since = self.plans.since();
        let held = self.accounts.get(ix).held(key);
        match self.accounts.get_mut(ix).buckets.get_mut(key) {
            Some(state) => {
                state.advance(rule, since, now);
                let before = before.iter().filter(|(k, _)| *k == key).map(|(_, cost)| cost).sum();
                said(state, demand, before, held, overflow, now)
            }
            None => unreachable!("the bucket was made above"),
        }
    }

    /// At a cap, looks for buckets to forget. Before any bucket of the op is made: those are like
    /// fresh ones until it takes something from them.
    fn make_room(&mut self, op: &Op, now: Now) {
        let account = self.accounts.get_mut(op.account);
        let new = |demand: &Demand| matches!(demand.kind, Kind::Own(key) if account.buckets.get(key).is_none());
        if op.demands.iter().any(new) && !self.has_room_for(op.account, 1) {
            let freed =
                self.plans.forget(self.accounts.get_mut(op.account), LOOKED_AT_PER_INSERT, now);
            self.accounts.buckets -= freed;
        }
    }

    /// Whether the account has the bucket or may have one more.
    fn has_room(&self, ix: AccountIx, key: u64) -> bool {
        // The overflow account serves any number of tenants, and so has room for one bucket a limit
        // only.
        ix != self.accounts.overflow()
            && (self.accounts.get(ix).buckets.get(key).is_some() || self.has_room_for(ix, 1))
    }

    /// Whether the account may have `more` buckets.
    pub(super) fn has_room_for(&self, ix: AccountIx, more: usize) -> bool {
        // What others fill doesn't take a named tenant's exactness: its own cap is its only one.
        let account = self.accounts.get(ix);
        account.buckets.len() + more <= self.caps.keys_per_tenant
            && (account.named || self.accounts.buckets + more <= self.caps.keys)
    }

    /// The state of a bucket of that account that nobody has asked here yet.
    pub(super) fn newborn_in(&self, ix: AccountIx, rule: &Rule, now: Now) -> State {
        match ix == self.accounts.overflow() {
            // It is in no partition in particular.
            true => State::fresh(rule, now),
            false => self.lost.newborn(self.accounts.get(ix).hash.partition(), rule, now),
        }
    }

    /// Makes the bucket if it isn't there.
    pub(super) fn keep(&mut self, ix: AccountIx, key: u64, rule: &Rule, now: Now) {
        if self.accounts.get(ix).buckets.get(key).is_none() {
            let newborn = self.newborn_in(ix, rule, now);
            self.accounts.buckets += 1;
            self.accounts.get_mut(ix).buckets.insert(key, newborn);
        }
    }
}

/// What is said for another `wait` nanoseconds where it is not known which permits are in flight:
/// any number may be. (More than the maximum at a time is never granted, then as now.)
fn cold(said: Said, wait: u64) -> Said {
    let outcome = match said.outcome {
        Outcome::Never => return said,
        Outcome::Wait(known) => Outcome::Wait(known.max(wait)),
        Outcome::Pass | Outcome::Held => Outcome::Wait(wait),
    };
    Said { outcome, remaining: 0, reset: said.reset.max(wait), cold: true, ..said }
}

fn said(state: &State, demand: &Demand, before: u64, held: u64, overflow: bool, now: Now) -> Said {
    let rule = &demand.selected.limit.rule;
    let outcome = state.judge(rule, demand.cost.saturating_add(before), held, now);
    Said {
        outcome,
        remaining: state.remaining(rule, now).saturating_sub(held.saturating_add(before)),
        reset: state.reset_after(rule, 0, now),
        reset_if_taken: if outcome == Outcome::Pass {
            state.reset_after(rule, demand.cost, now)
        } else {
            0
        },
        overflow,
        cold: false,
    }
}
