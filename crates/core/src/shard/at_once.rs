//! The short way of a check that needs nobody but its own account.
//!
//! Most checks have limits of their tenant alone, ask for no permit, carry no request id, and meet
//! no other check of their tenant on its way. They are decided here in one go: no op is made,
//! nothing can be open or parked. Whatever else a check may be, this way gives it back before
//! anything has changed that anybody could notice, and the check goes the long way (`core`,
//! `resolve`, `judge`, `coordinate`), which knows all cases. Both ask the same plan and the same
//! buckets; a test sends random checks down both and compares.

use smallvec::SmallVec;

use super::account::Buckets;
use super::accounts::AccountIx;
use super::core::Shard;
use super::{Question, Refusal};
use crate::check::{Decision, Exactness, Verdict, Verdicts};
use crate::limit::{Outcome, State};
use crate::policy::BucketKey;
use crate::time::Now;

/// What the short way makes of a question.
pub enum AtOnce {
    /// An answer.
    Decided(Result<Decision, Refusal>),
    /// Nothing: it takes the long way.
    NotMine(Question),
}

impl Shard {
    /// Returns the decision of a check, where this way has one; else the question, unchanged, which
    /// the caller must then ask by [`Shard::check`]. A decision that is returned was charged within
    /// this call.
    pub fn at_once(&mut self, question: Question, now: Now) -> AtOnce {
        let check = &question.check;
        let partition = question.hash.partition();
        if check.request_id.is_some() || check.permit_ttl_ms.is_some() || !self.is_open(partition) {
            return AtOnce::NotMine(question);
        }
        let ix = self.account_of(&question, now);
        if !self.is_alone(ix, now) {
            return AtOnce::NotMine(question);
        }
        let plan = match self.plan(ix, check, now) {
            Ok(plan) => plan,
            Err(refusal) => {
                return self.refused_at_once(refusal);
            }
        };
        // Nobody leaves a limit behind here: whoever selects uses them all, or clears them away.
        if plan.select(check, &self.secret, &mut self.selected).is_err() {
            return self.refused_at_once(Refusal::LimitsRefused(plan.tier().clone()));
        }
        if !self.has_all_buckets(ix, now) {
            self.selected.clear();
            return AtOnce::NotMine(question);
        }
        let cost = self.plans.policy().cost(check, plan.cost_multiplier());
        let (allowed, verdicts) = self.ask_all(ix, cost, now);
        let mut decision = Decision {
            allowed,
            tenant: question.check.tenant,
            tier: Some(plan.tier().clone()),
            cost,
            verdicts,
            denied_by: None,
            retry_after: None,
            permit: None,
            replayed: false,
            bypass: None,
            policy_version: plan.version(),
            epoch: question.epoch.number(),
            node: None,
        };
        if !allowed {
            decision.deny();
        }
        self.tally.decided(question.hash, &decision);
        AtOnce::Decided(Ok(decision))
    }

    fn refused_at_once(&mut self, refusal: Refusal) -> AtOnce {
        self.tally.refused(&refusal);
        AtOnce::Decided(Err(refusal))
    }

    /// Whether no other check of the account is on its way. What strangers share beyond a cap is
    /// never alone.
    fn is_alone(&mut self, ix: AccountIx, now: Now) -> bool {
        if ix == self.accounts.overflow() {
            return false;
        }
        if self.accounts.get(ix).extras.is_some() {
            self.accounts.expire(ix, now.boot);
        }
        let account = self.accounts.get(ix);
        account
            .extras
            .as_ref()
            .is_none_or(|extras| extras.holds.is_empty() && extras.parked.is_empty())
    }

    /// Whether all selected buckets are the account's own and there, or could be made within the
    /// caps; then they are made.
    fn has_all_buckets(&mut self, ix: AccountIx, now: Now) -> bool {
        let account = self.accounts.get(ix);
        let mut missing = 0;
        for selected in &self.selected {
            match selected.key {
                BucketKey::Shared(_) => return false,
                BucketKey::Own(key) => missing += usize::from(account.buckets.get(key).is_none()),
            }
        }
        if missing == 0 {
            return true;
        }
        if !self.has_room_for(ix, missing) {
            return false;
        }
        let lost = &self.lost;
        let account = self.accounts.get_mut(ix);
        let partition = account.hash.partition();
        for selected in &self.selected {
            if let BucketKey::Own(key) = selected.key
                && account.buckets.get(key).is_none()
            {
                account.buckets.insert(key, lost.newborn(partition, &selected.limit.rule, now));
            }
        }
        self.accounts.buckets += missing;
        true
    }

    /// Asks all selected limits, also after the first no, and takes from them if all that count say
    /// yes (P4).
    fn ask_all(&mut self, ix: AccountIx, cost: u64, now: Now) -> (bool, Verdicts) {
        let since = self.plans.since();
        let buckets = &mut self.accounts.get_mut(ix).buckets;
        let mut outcomes: SmallVec<[Outcome; 4]> = SmallVec::new();
        let mut allowed = true;
        for selected in &self.selected {
            let rule = &selected.limit.rule;
            let outcome = match own_state(buckets, selected.key) {
                Some(state) => {
                    state.advance(rule, since, now);
                    state.judge(rule, cost, 0, now)
                }
                None => Outcome::Pass,
            };
            allowed &= outcome == Outcome::Pass || !selected.limit.enforce;
            outcomes.push(outcome);
        }
        let mut verdicts = Verdicts::new();
        for (selected, outcome) in self.selected.drain(..).zip(outcomes) {
            let Some(state) = own_state(buckets, selected.key) else { continue };
            let rule = &selected.limit.rule;
            if allowed && outcome == Outcome::Pass {
                state.take(rule, cost, now);
            }
            let (remaining, reset_after) =
                (state.remaining(rule, now), state.reset_after(rule, 0, now));
            verdicts.push(Verdict {
                limit: selected.limit,
                outcome,
                remaining,
                reset_after,
                exactness: Exactness::Exact,
            });
        }
        (allowed, verdicts)
    }
}

fn own_state(buckets: &mut Buckets, key: BucketKey) -> Option<&mut State> {
    match key {
        BucketKey::Own(key) => buckets.get_mut(key),
        BucketKey::Shared(_) => None,
    }
}
