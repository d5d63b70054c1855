//! A check on its way through its tenant's shard: what it asks of which bucket, and what has
//! answered so far.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::check::{Check, Decision, Exactness, Name, Permit, PermitId, Verdict};
use crate::limit::Outcome;
use crate::placement::{AccountHash, BootId, Epoch, Partition, Places};
use crate::policy::{BucketKey, Selected};
use crate::time::MS;

use super::Refusal;
use super::accounts::AccountIx;
use super::effect::ReplyId;

/// The number of an open check within its shard; never reused.
pub type OpId = u64;

/// An open check as other shards know it, on its own node and on others: by its life a node is told
/// from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpRef {
    /// The life of the node that it is open on.
    pub boot: BootId,
    /// The shard there.
    pub shard: u32,
    /// The check in that shard.
    pub op: OpId,
}

/// Where a bucket that tenants share is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// In that shard of this node.
    Here(usize),
    /// On the node that owns that partition.
    Far(Partition),
}

/// What a whole op answers: a decision for each of its checks, or why there is none.
pub type Answer = Result<Decisions, Refusal>;

/// One decision, mostly.
pub type Decisions = SmallVec<[Decision; 1]>;

/// Where an answer goes.
#[derive(Clone, Copy)]
pub enum AnswerTo {
    /// To the caller.
    Caller(ReplyId),
    /// Into place `index` of a batch that is gathered here.
    Gather { batch: u64, index: usize },
}

/// One check of an op.
pub struct Part {
    pub check: Check,
    pub tier: Name,
    pub cost: u64,
    /// Of everything that makes this check this check; only where it has a request id.
    pub fingerprint: u64,
    /// Which demands are its own; several checks of one op may share a bucket.
    pub demands: Vec<usize>,
    /// It asks for a permit.
    pub wants_permit: bool,
    /// The answer it gets without being judged, because it repeats an earlier one.
    pub replay: Option<Decision>,
}

/// What an op wants of one bucket.
pub struct Demand {
    pub selected: Selected,
    pub cost: u64,
    pub kind: Kind,
    pub said: Option<Said>,
}

/// Where the bucket of a demand is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In the account.
    Own(u64),
    /// The account's permits.
    Slots,
    /// Under a key of its own, which has a home of its own.
    Shared { home: Home, key: u128 },
}

/// What a bucket said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether it lets the cost pass.
    pub outcome: Outcome,
    /// Units left before this op takes anything.
    pub remaining: u64,
    /// Nanoseconds until whole, if nothing is taken.
    pub reset: u64,
    /// The same if this op takes its cost.
    pub reset_if_taken: u64,
    /// It is a bucket that stands in beyond a cap on keys.
    pub overflow: bool,
    /// It is not known which permits are in flight.
    pub cold: bool,
}

/// A check, or several that pass together or not at all.
pub struct Op {
    pub id: OpId,
    /// Of the account that asks; beyond a cap, `account` is another.
    pub hash: AccountHash,
    /// Under which the question was sent here.
    pub epoch: Epoch,
    pub account: AccountIx,
    pub parts: Vec<Part>,
    pub demands: Vec<Demand>,
    pub answer_to: AnswerTo,
    /// Boot nanoseconds after which nobody waits for the answer any more.
    pub deadline: u64,
    /// Boot nanoseconds until which the partition grants no permit of this kind; 0 where it does.
    pub cold_until: u64,
    /// Only looks: takes nothing and holds nothing.
    pub peek: bool,
    /// Its own limits have passed, and it holds their units and those of the shared ones that pass.
    pub holding: bool,
    pub policy_version: u64,
    /// Shared buckets that have been asked and haven't answered.
    pub pending: usize,
    /// Shared buckets are asked one after another in the order of their keys, and each may wait for
    /// the holds of others.
    pub patient: bool,
    /// A bucket answered under another key than it was asked by, so that the order of the keys is
    /// another now.
    pub moved: bool,
}

impl Op {
    /// Whether every limit that counts has said yes.
    pub fn passes(&self) -> bool {
        let mut enforced = self.demands.iter().filter(|d| d.selected.limit.enforce);
        // A check would wait for what is held; a look takes it that the holder gives it back.
        enforced.all(|d| match d.said.map(|said| said.outcome) {
            None | Some(Outcome::Pass) => true,
            Some(Outcome::Held) => self.peek,
            Some(Outcome::Wait(_) | Outcome::Never) => false,
        })
    }

    /// Whether no request id stands twice among its checks.
    pub fn ids_differ(&self) -> bool {
        let mut ids: Vec<_> =
            self.parts.iter().filter_map(|part| part.check.request_id.as_ref()).collect();
        ids.sort();
        ids.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// Units that the op wants of one bucket.
    pub fn wanted_of(&self, kind: Kind) -> u64 {
        let there = self.demands.iter().filter(|d| d.kind == kind);
        there.fold(0, |sum, d| sum.saturating_add(d.cost))
    }

    /// Whether every limit of its own that counts has said yes.
    pub fn passes_own(&self) -> bool {
        let own = self
            .demands
            .iter()
            .filter(|d| !matches!(d.kind, Kind::Shared { .. }) && d.selected.limit.enforce);
        own.into_iter().all(|d| d.said.is_some_and(|s| s.outcome == Outcome::Pass))
    }

    /// The shared bucket with the lowest key that hasn't been asked.
    ///
    /// Keys are the same for everybody, so nobody waits in a circle. The exception are buckets that
    /// stand in for others beyond a cap, if they are on different nodes: two checks may then wait
    /// for each other until a hold has been open for too long.
    pub fn unasked(&self) -> Option<usize> {
        let open = self.demands.iter().enumerate().filter(|(_, d)| d.said.is_none());
        let keyed = open.filter_map(|(i, d)| match d.kind {
            // Buckets that stand in for others have the same key wherever they are.
            Kind::Shared { home, key } => Some((key, home, i)),
            _ => None,
        });
        keyed.min().map(|(.., i)| i)
    }

    /// Whether a demand that counts would pass but for somebody's open hold.
    pub fn is_held(&self) -> bool {
        self.demands
            .iter()
            .any(|d| d.selected.limit.enforce && d.said.is_some_and(|s| s.outcome == Outcome::Held))
    }

    /// Whether an enforced demand was refused for good or for a while.
    pub fn is_denied(&self) -> bool {
        self.demands.iter().any(|d| {
            d.selected.limit.enforce
                && d.said.is_some_and(|s| matches!(s.outcome, Outcome::Wait(_) | Outcome::Never))
        })
    }

    /// The decisions of all parts. `permits` are those that were granted, in the order of the parts
    /// that asked.
    pub fn decisions(
        self,
        allowed: bool,
        permits: &[PermitId],
    ) -> (AnswerTo, Decisions, Vec<(Check, u64)>) {
        let mut granted = permits.iter();
        let demands = &self.demands;
        let mut decisions = Decisions::with_capacity(self.parts.len());
        let mut checks = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            if let Some(replay) = part.replay {
                decisions.push(replay);
                checks.push((part.check, part.fingerprint));
                continue;
            }
            let verdicts =
                part.demands.iter().map(|&i| verdict(&demands[i], allowed && !self.peek)).collect();
            let permit = if part.wants_permit { granted.next() } else { None };
            let permit = permit
                .zip(part.check.permit_ttl_ms)
                .map(|(id, ttl)| Permit { id: *id, expires_in: ttl * MS });
            let mut decision = Decision {
                allowed,
                tenant: part.check.tenant.clone(),
                tier: Some(part.tier),
                cost: part.cost,
                verdicts,
                denied_by: None,
                retry_after: None,
                permit,
                replayed: false,
                bypass: None,
                policy_version: self.policy_version,
                epoch: self.epoch.number(),
                node: None,
            };
            if !allowed {
                decision.deny();
            }
            decisions.push(decision);
            checks.push((part.check, part.fingerprint));
        }
        if !allowed {
            share_denial(&mut decisions);
        }
        (self.answer_to, decisions, checks)
    }
}

/// A check that would have passed alone was denied with its batch: it names the limit that denied
/// the batch, so that nobody takes it for admitted.
fn share_denial(decisions: &mut [Decision]) {
    let denier = decisions
        .iter()
        .filter(|d| d.denied_by.is_some())
        .max_by_key(|d| d.retry_after.unwrap_or(u64::MAX));
    let Some((denied_by, retry_after)) = denier.map(|d| (d.denied_by.clone(), d.retry_after))
    else {
        return;
    };
    for decision in decisions.iter_mut().filter(|d| d.denied_by.is_none()) {
        decision.allowed = false;
        (decision.denied_by, decision.retry_after) = (denied_by.clone(), retry_after);
    }
}

fn verdict(demand: &Demand, taking: bool) -> Verdict {
    let said = demand.said.unwrap_or(Said {
        outcome: Outcome::Pass,
        remaining: 0,
        reset: 0,
        reset_if_taken: 0,
        overflow: false,
        cold: false,
    });
    let taken = taking && said.outcome == Outcome::Pass;
    Verdict {
        limit: Arc::clone(&demand.selected.limit),
        outcome: said.outcome,
        remaining: if taken { said.remaining.saturating_sub(demand.cost) } else { said.remaining },
        reset_after: if taken { said.reset_if_taken } else { said.reset },
        exactness: match (said.cold, said.overflow) {
            (true, _) => Exactness::ColdStart,
            (false, true) => Exactness::KeyCap,
            (false, false) => Exactness::Exact,
        },
    }
}

/// The key under which a selected limit's bucket is looked for, on a node of so many shards.
pub fn kind_of(key: BucketKey, places: &Places, shards: usize) -> Kind {
    match key {
        BucketKey::Own(key) => Kind::Own(key),
        BucketKey::Shared(key) => {
            let partition = Partition::of_key(key);
            let home = match places.is_here(partition) {
                true => Home::Here(partition.shard(shards)),
                false => Home::Far(partition),
            };
            Kind::Shared { home, key }
        }
    }
}
