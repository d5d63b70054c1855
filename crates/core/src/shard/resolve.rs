//! What a check demands: its limits by the policy in force, their buckets' keys, its cost, and the
//! answer to its request id where there is one.

use std::sync::Arc;

use super::Refusal;
use super::accounts::{AccountIx, Accounts};
use super::core::{Shard, Stop};
use super::op::{Demand, Kind, Op, Part, kind_of};
use crate::check::{Check, Decision, PERMIT_TTL_MS_DEFAULT, PERMIT_TTL_UNSAID};
use crate::placement::AccountHash;
use crate::policy::{BucketKey, Plan, Selected};
use crate::time::{MS, Now};

impl Shard {
    /// Resolves the limits of every part, and looks up its request id.
    pub(super) fn prepare(&mut self, op: &mut Op, now: Now) -> Result<(), Stop> {
        let alone = op.parts.len() == 1;
        self.prepare_parts(op, now).map_err(|(i, stop)| match stop {
            Stop::Refused(refusal) if !alone => {
                Stop::Refused(Refusal::InBatch(i, Box::new(refusal)))
            }
            stop => stop,
        })
    }

    /// The error names the part that stopped the op.
    fn prepare_parts(&mut self, op: &mut Op, now: Now) -> Result<(), (usize, Stop)> {
        op.demands.clear();
        op.cold_until = 0;
        op.policy_version = self.plans.policy().version();
        self.accounts.expire(op.account, now.boot);
        let single = op.parts.len() == 1;
        if !single && !op.ids_differ() {
            return Err((0, Stop::Refused(Refusal::RequestIdReused)));
        }
        for i in 0..op.parts.len() {
            let part = &mut op.parts[i];
            part.demands.clear();
            part.replay = None;
            if let Some(replay) = repeated(&self.accounts, op.account, op.hash, part, op.peek)
                .map_err(|stop| (i, stop))?
            {
                part.replay = Some(replay);
                continue;
            }
            let plan = self
                .plan(op.account, &op.parts[i].check, now)
                .map_err(|refusal| (i, Stop::Refused(refusal)))?;
            let part = &mut op.parts[i];
            part.tier = plan.tier().clone();
            part.cost = self.plans.policy().cost(&part.check, plan.cost_multiplier());
            let mut selected = std::mem::take(&mut self.selected);
            let taken = plan.select(&part.check, &self.secret, &mut selected);
            for selected in selected.drain(..) {
                let kind = kind_of(selected.key, &self.places, self.shards);
                let cost = part.cost;
                let same =
                    (!single).then(|| op.demands.iter().position(|d| d.kind == kind)).flatten();
                let at = demand(&mut op.demands, same, Demand { selected, cost, kind, said: None });
                part.demands.push(at);
            }
            self.selected = selected;
            if taken.is_err() {
                return Err((i, Stop::Refused(Refusal::LimitsRefused(part.tier.clone()))));
            }
            // A tier without a maximum hands out permits all the same.
            part.wants_permit = part.check.permit_ttl_ms.is_some();
            let most = plan.permit_ttl_most();
            // The router may have gone by another version: a permit never runs for longer than the
            // version allows under which it is granted, since a cold partition waits no longer.
            part.check.permit_ttl_ms = part.check.permit_ttl_ms.map(|asked| match asked {
                PERMIT_TTL_UNSAID => PERMIT_TTL_MS_DEFAULT.min(most / MS),
                asked => asked.min(most / MS),
            });
            let cold_until = self.lost.cold_until(op.hash.partition(), most, now);
            op.cold_until = op.cold_until.max(cold_until.unwrap_or(0));
            if let Some(limit) = plan.max_concurrent().filter(|_| part.wants_permit) {
                let selected =
                    Selected { limit: limit.clone(), key: BucketKey::Own(0), sent: false };
                let same = op.demands.iter().position(|d| d.kind == Kind::Slots);
                let at = demand(
                    &mut op.demands,
                    same,
                    Demand { selected, cost: 1, kind: Kind::Slots, said: None },
                );
                part.demands.push(at);
            }
        }
        Ok(())
    }

    /// The plan for a check: the account's, or that of the tier that the request names.
    pub(super) fn plan(
        &mut self,
        ix: AccountIx,
        check: &Check,
        now: Now,
    ) -> Result<Arc<Plan>, Refusal> {
        let overflow = ix == self.accounts.overflow();
        let plan = match overflow {
            // It is nobody's account in particular.
            true => self.plans.of(&check.tenant, now),
            false => {
                let plan = self.plans.keep(self.accounts.get_mut(ix), &check.tenant, now);
                self.accounts.count_named(ix);
                plan
            }
        };
        let requested = self.plans.policy().requested_tier(check, plan.source());
        match requested.map_err(|unknown| Refusal::UnknownTier(unknown.0))? {
            Some(tier) if tier != plan.tier() => Ok(self.plans.in_tier(&check.tenant, tier)),
            _ => Ok(plan),
        }
    }
}

/// The answer that a part's request id was given before, if it was; parks the op where that answer
/// is still open.
fn repeated(
    accounts: &Accounts,
    ix: AccountIx,
    hash: AccountHash,
    part: &Part,
    peek: bool,
) -> Result<Option<Decision>, Stop> {
    let (Some(id), Some(extras)) = (part.check.request_id.clone(), &accounts.get(ix).extras) else {
        return Ok(None);
    };
    let id = &(hash.0, id);
    if peek {
        return Ok(None);
    }
    if let Some(replay) = extras.replays.get(id) {
        if replay.fingerprint != part.fingerprint {
            return Err(Stop::Refused(Refusal::RequestIdReused));
        }
        return Ok(Some(Decision { replayed: true, ..(*replay.decision).clone() }));
    }
    if extras.holds.iter().any(|hold| hold.request_ids.contains(id)) {
        return Err(Stop::Parked);
    }
    Ok(None)
}

/// Adds a demand, or its cost to the one that asks the same bucket.
fn demand(demands: &mut Vec<Demand>, same: Option<usize>, demand: Demand) -> usize {
    match same {
        Some(at) => {
            demands[at].cost = demands[at].cost.saturating_add(demand.cost);
            at
        }
        None => {
            demands.push(demand);
            demands.len() - 1
        }
    }
}
