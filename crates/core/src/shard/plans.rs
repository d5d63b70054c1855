//! The policy as a shard applies it: the version in force, since when, and the plans made under it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::{Name, TenantId};
use crate::limit::{Rule, State};
use crate::placement::Secret;
use crate::policy::{Plan, Policy, TierSource};
use crate::time::Now;

use super::account::Account;

/// The policy in force in one shard. Tenants without rules of their own share the plan of their
/// tier.
pub struct Plans {
    policy: Arc<Policy>,
    since: u64,
    secret: Secret,
    by_tier: BTreeMap<(Name, TierSource), Arc<Plan>>,
}

impl Plans {
    /// Plans under `policy`, in force from the beginning.
    pub fn new(policy: Arc<Policy>, secret: Secret) -> Self {
        Self { policy, since: 0, secret, by_tier: BTreeMap::new() }
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether the policy names an account: an address of `anonymous` is not what it names.
    pub fn names(&self, account: &str, tenant: &TenantId) -> bool {
        account == tenant.as_str() && self.policy.names(tenant)
    }

    /// Since when it is in force here, boot nanoseconds.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Puts `policy` into force.
    pub fn set(&mut self, policy: Arc<Policy>, now: Now) {
        (self.policy, self.since) = (policy, now.boot);
        self.by_tier.clear();
    }

    /// The plan of a tenant now.
    pub fn of(&mut self, tenant: &TenantId, now: Now) -> Arc<Plan> {
        let (tier, source, until) = self.policy.tier_of(tenant, now.wall);
        self.make(tenant, &tier, source, until)
    }

    /// The plan of a tenant in a tier that its request names.
    pub fn in_tier(&mut self, tenant: &TenantId, tier: &Name) -> Arc<Plan> {
        self.make(tenant, tier, TierSource::Request, u64::MAX)
    }

    /// The account's plan, made anew where it no longer holds. A new one may find the account named
    /// by the policy, or no longer: [`super::accounts::Accounts::count_named`] counts it as that.
    pub fn keep(&mut self, account: &mut Account, tenant: &TenantId, now: Now) -> Arc<Plan> {
        match &account.plan {
            Some(plan)
                if plan.version() == self.policy.version() && now.wall < plan.valid_until() =>
            {
                plan.clone()
            }
            _ => {
                account.named = self.names(&account.id, tenant);
                account.plan.insert(self.of(tenant, now)).clone()
            }
        }
    }

    fn make(
        &mut self,
        tenant: &TenantId,
        tier: &Name,
        source: TierSource,
        until: u64,
    ) -> Arc<Plan> {
        if self.policy.has_own_rules(tenant) {
            return Arc::new(self.policy.plan(tenant, tier, source, until, &self.secret));
        }
        if let Some(plan) = self.by_tier.get(&(tier.clone(), source)) {
            return plan.clone();
        }
        let plan = Arc::new(self.policy.plan(tenant, tier, source, until, &self.secret));
        self.by_tier.insert((tier.clone(), source), plan.clone());
        plan
    }

    /// Looks at up to `most` buckets of an account and forgets those that hold no information,
    /// under the numbers they were kept by and under all that the account could be judged by now,
    /// and that no open check holds units of. Answers how many went.
    pub fn forget(&mut self, account: &mut Account, most: usize, now: Now) -> usize {
        let plan = account.tenant().map(|tenant| self.keep(account, &tenant, now));
        let (since, held) = (self.since, account.held_keys());
        account.buckets.forget(most, |key, state| match &plan {
            _ if held.contains(&key) => false,
            Some(plan) => state.is_fresh_under(plan.rules(), since, now),
            None => state.is_fresh(now),
        })
    }

    /// Whether a bucket that tenants share holds no information.
    pub fn forgets_shared(&self, state: &State, now: Now) -> bool {
        let rules: Vec<&Rule> = self.policy.shared_rules().collect();
        state.is_fresh_under(rules, self.since, now)
    }
}
