//! What a shard counts of its own work: plain numbers, raised where a decision is concluded and
//! read by whoever asks.
//!
//! A [`Tally`] belongs to one shard, so nothing here is atomic and nothing is looked up by text
//! that could be a number: tiers are told apart by their place in a short list, denials by a pair
//! of small enums. A [`Reading`] is a copy of it, together with the shard's levels at that moment;
//! readings add up to those of the node.
//!
//! ```text
//! allowed, tier free            → decisions[free].allowed_exact + 1, cost + 3
//! denied by rate, per ip        → decisions[free].denied_exact + 1, denials[rate, ip] + 1, waits(383 ms) + 1
//! the same request id again     → replays + 1, and no decision: nothing was judged
//! a look                        → peeks + 1, and no decision
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::top::{Outcomes, Top};
use crate::check::{Decision, Dimension, Name, Reason, TenantId};
use crate::limit::Outcome;
use crate::placement::AccountHash;
use crate::time::{MS, SECOND};

/// Tiers with numbers of their own in one shard: the first that are seen. A policy may have
/// thousands, a graph can't.
pub const TIERS_MAX: usize = 64;
/// The name under which tiers and tenants without numbers of their own are counted together.
pub const OTHERS: &str = "_other";

/// What kind of thing a bucket is keyed by first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Nothing: one bucket for everybody.
    Global,
    /// The tenant.
    Tenant,
    /// The client.
    Client,
    /// The action.
    Action,
    /// The address.
    Ip,
    /// The API key.
    ApiKey,
    /// The method.
    Method,
    /// The path.
    Path,
    /// Method and path.
    Endpoint,
    /// Some attribute; which one is the policy's business.
    Attribute,
}

impl Scope {
    /// The scope of a bucket that is keyed by `per`.
    pub fn of(per: &[Dimension]) -> Self {
        match per.first() {
            None => Self::Global,
            Some(Dimension::Tenant) => Self::Tenant,
            Some(Dimension::Client) => Self::Client,
            Some(Dimension::Action) => Self::Action,
            Some(Dimension::Ip) => Self::Ip,
            Some(Dimension::ApiKey) => Self::ApiKey,
            Some(Dimension::Method) => Self::Method,
            Some(Dimension::Path) => Self::Path,
            Some(Dimension::Endpoint) => Self::Endpoint,
            Some(Dimension::Attribute(_)) => Self::Attribute,
        }
    }

    /// Its name, as the policy writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Tenant => "tenant",
            Self::Client => "client",
            Self::Action => "action",
            Self::Ip => "ip",
            Self::ApiKey => "api_key",
            Self::Method => "method",
            Self::Path => "path",
            Self::Endpoint => "endpoint",
            Self::Attribute => "attribute",
        }
    }
}

/// Decisions by outcome, exact ones and those from a bucket that stands in beyond a cap apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByMode {
    /// From buckets of their own.
    pub exact: Outcomes,
    /// From a bucket that stands in for others.
    pub approximate: Outcomes,
}

impl ByMode {
    fn add(&mut self, other: Self) {
        self.exact.add(other.exact);
        self.approximate.add(other.approximate);
    }

    /// Both together.
    pub fn sum(self) -> Outcomes {
        let mut sum = self.exact;
        sum.add(self.approximate);
        sum
    }
}

/// The bounds of [`Waits`], in nanoseconds: a millisecond, to a day.
pub const WAIT_BOUNDS: [u64; 9] = [
    MS,
    10 * MS,
    100 * MS,
    SECOND,
    10 * SECOND,
    60 * SECOND,
    600 * SECOND,
    3_600 * SECOND,
    86_400 * SECOND,
];

/// How long those who were denied have been told to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Waits up to each bound and above the one before; the last are longer than all.
    pub counts: [u64; WAIT_BOUNDS.len() + 1],
    /// Their sum, nanoseconds. A wait can be ten years, so 64 bits wouldn't hold sixty of them.
    pub sum: u128,
}

impl Waits {
    fn count(&mut self, nanos: u64) {
        self.counts[WAIT_BOUNDS.partition_point(|bound| *bound < nanos)] += 1;
        self.sum += u128::from(nanos);
    }

    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, more)| *mine += more);
        self.sum += other.sum;
    }
}

/// Numbers that only rise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Decisions by tier; at most [`TIERS_MAX`] of them from one shard.
    pub tiers: Vec<(Name, ByMode)>,
    /// Decisions in tiers beyond those.
    pub other_tiers: ByMode,
    /// Decisions by an allow or deny list, before any tier was looked up.
    pub lists: Outcomes,
    /// Denials by their reason and by what the denying limit is keyed by first.
    pub denials: Vec<(Reason, Scope, u64)>,
    /// How often a shadow limit would have denied.
    pub shadow_denials: u64,
    /// Answers given again to a request id.
    pub replays: u64,
    /// Looks, by what they said.
    pub peeks: Outcomes,
    /// Permits handed out.
    pub permits_granted: u64,
    /// Units that allowed checks have taken.
    pub cost: u64,
    /// Questions that got no decision, by why.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Waits that denials named.
    pub waits: Waits,
}

impl Counts {
    /// Adds what another shard has counted.
    pub fn add(&mut self, other: &Self) {
        for (tier, counts) in &other.tiers {
            match self.tiers.iter_mut().find(|(name, _)| name == tier) {
                Some((_, mine)) => mine.add(*counts),
                None => self.tiers.push((tier.clone(), *counts)),
            }
        }
        self.other_tiers.add(other.other_tiers);
        self.lists.add(other.lists);
        for (reason, scope, count) in &other.denials {
            self.denied(*reason, *scope, *count);
        }
        self.shadow_denials += other.shadow_denials;
        self.replays += other.replays;
        self.peeks.add(other.peeks);
        self.permits_granted += other.permits_granted;
        self.cost = self.cost.saturating_add(other.cost);
        for (why, count) in &other.refusals {
            *self.refusals.entry(why).or_default() += count;
        }
        self.waits.add(&other.waits);
    }

    /// All decisions.
    pub fn decisions(&self) -> Outcomes {
        let mut all = self.lists;
        all.add(self.other_tiers.sum());
        self.tiers.iter().for_each(|(_, counts)| all.add(counts.sum()));
        all
    }

    /// `count` more denials.
    pub fn denied(&mut self, reason: Reason, scope: Scope, count: u64) {
        match self.denials.iter_mut().find(|(r, s, _)| (*r, *s) == (reason, scope)) {
            Some((.., mine)) => *mine += count,
            None => self.denials.push((reason, scope, count)),
        }
    }

    fn of_tier(&mut self, tier: Option<&Name>) -> &mut ByMode {
        let Some(tier) = tier else { return &mut self.other_tiers };
        if let Some(at) = self.tiers.iter().position(|(name, _)| name == tier) {
            return &mut self.tiers[at].1;
        }
        if self.tiers.len() == TIERS_MAX {
            return &mut self.other_tiers;
        }
        self.tiers.push((tier.clone(), ByMode::default()));
        let last = self.tiers.len() - 1;
        &mut self.tiers[last].1
    }
}

/// Numbers that rise and fall: how a shard stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Tenants in memory; each address of `anonymous` is one.
    pub tenants: usize,
    /// Those of them that the policy does not name.
    pub unknown_tenants: usize,
    /// Buckets of tenants.
    pub buckets: usize,
    /// Buckets that tenants share.
    pub shared_buckets: usize,
    /// Request ids remembered.
    pub request_ids: usize,
    /// Permits that are out; one that has expired may be among them for a minute.
    pub permits: u64,
    /// Checks that wait for shared limits, or for each other.
    pub open_checks: usize,
    /// The version of the policy in force; of several shards, the oldest.
    pub policy_version: u64,
}

/// What a shard has counted so far, and how it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What only rises.
    pub counts: Counts,
    /// What rises and falls.
    pub levels: Levels,
    /// Decisions of the tenants that ask most; at most [`TENANTS_MAX`](super::TENANTS_MAX) of them.
    pub tenants: BTreeMap<TenantId, Outcomes>,
    /// Decisions of all other tenants.
    pub other_tenants: Outcomes,
}

impl Reading {
    /// Adds the reading of another shard.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        for (tenant, outcomes) in &other.tenants {
            self.tenants.entry(tenant.clone()).or_default().add(*outcomes);
        }
        self.other_tenants.add(other.other_tenants);
        let (mine, more) = (&mut self.levels, &other.levels);
        mine.tenants += more.tenants;
        mine.unknown_tenants += more.unknown_tenants;
        mine.buckets += more.buckets;
        mine.shared_buckets += more.shared_buckets;
        mine.request_ids += more.request_ids;
        mine.permits += more.permits;
        mine.open_checks += more.open_checks;
        mine.policy_version = match (mine.policy_version, more.policy_version) {
            (0, version) | (version, 0) => version,
            (a, b) => a.min(b),
        };
    }
}

/// What one shard counts.
pub struct Tally {
    counts: Counts,
    top: Top,
}

impl Tally {
    /// Nothing counted yet, in one of `shards` shards.
    pub fn new(shards: usize) -> Self {
        Self { counts: Counts::default(), top: Top::new(shards) }
    }

    /// Counts a decision for the account with this hash. To be called once for every check whose
    /// answer is given, also where it is the answer to an earlier one; never for a look.
    pub fn decided(&mut self, account: AccountHash, decision: &Decision) {
        if decision.replayed {
            self.counts.replays += 1;
            return;
        }
        let allowed = decision.allowed;
        let (mut approximate, mut shadow_denials) = (false, 0);
        for verdict in &decision.verdicts {
            approximate |= !verdict.is_exact();
            let denies = matches!(verdict.outcome, Outcome::Wait(_) | Outcome::Never);
            shadow_denials += u64::from(denies && !verdict.limit.enforce);
        }
        self.counts.shadow_denials += shadow_denials;
        let of_tier = self.counts.of_tier(decision.tier.as_ref());
        let outcomes = if approximate { &mut of_tier.approximate } else { &mut of_tier.exact };
        outcomes.count(allowed);
        self.top.count(account, &decision.tenant, allowed);
        if allowed {
            self.counts.cost = self.counts.cost.saturating_add(decision.cost);
            self.counts.permits_granted += u64::from(decision.permit.is_some());
            return;
        }
        if let Some(by) = &decision.denied_by {
            self.counts.denied(by.reason, Scope::of(&by.scope), 1);
        }
        if let Some(nanos) = decision.retry_after {
            self.counts.waits.count(nanos);
        }
    }

    /// Counts a look.
    pub fn peeked(&mut self, decision: &Decision) {
        self.counts.peeks.count(decision.allowed);
    }

    /// Counts a question that got no decision.
    pub fn refused(&mut self, refusal: &Refusal) {
        *self.counts.refusals.entry(refusal.kind()).or_default() += 1;
    }

    /// A copy, beside `levels`. Costs what is counted apart: tiers, and tenants with a place.
    pub fn read(&self, levels: Levels) -> Reading {
        let mut reading = Reading {
            counts: self.counts.clone(),
            levels,
            other_tenants: self.top.others(),
            ..Reading::default()
        };
        for (tenant, outcomes) in self.top.named() {
            // A tenant may be called like all others together; then it is one of them.
            match tenant.as_str() {
                OTHERS => reading.other_tenants.add(outcomes),
                _ => drop(reading.tenants.insert(tenant.clone(), outcomes)),
            }
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Secret;

    fn decision(tenant: &str, tier: &str, allowed: bool) -> Decision {
        Decision {
            allowed,
            tenant: TenantId::new(tenant).unwrap(),
            tier: Name::new(tier),
            cost: 3,
            verdicts: crate::check::Verdicts::new(),
            denied_by: None,
            retry_after: (!allowed).then_some(383 * MS),
            permit: None,
            replayed: false,
            bypass: None,
            policy_version: 1,
            epoch: 1,
            node: None,
        }
    }

    fn count(tally: &mut Tally, decision: &Decision) {
        tally.decided(Secret::new(1, 2).account(decision.tenant.as_str()), decision);
    }

    #[test]
    fn only_what_was_decided_is_a_decision() {
        let mut tally = Tally::new(1);
        count(&mut tally, &decision("acme", "free", true));
        count(&mut tally, &decision("acme", "free", false));
        count(&mut tally, &Decision { replayed: true, ..decision("acme", "free", true) });
        tally.peeked(&decision("acme", "free", true));
        tally.refused(&Refusal::Busy);
        let counts = tally.read(Levels::default()).counts;
        assert_eq!(counts.decisions(), Outcomes { allowed: 1, denied: 1 });
        assert_eq!((counts.replays, counts.peeks.allowed, counts.cost), (1, 1, 3));
        assert_eq!(counts.refusals, [("busy", 1)].into());
        assert_eq!((counts.waits.counts[3], counts.waits.sum), (1, u128::from(383 * MS)));
    }

    #[test]
    fn tiers_beyond_the_bound_are_counted_together() {
        let mut tally = Tally::new(1);
        for i in 0..1_000 {
            count(&mut tally, &decision("acme", &format!("tier-{i}"), true));
        }
        let counts = tally.read(Levels::default()).counts;
        assert_eq!(counts.tiers.len(), TIERS_MAX);
        assert_eq!(counts.other_tiers.exact.allowed, 1_000 - TIERS_MAX as u64);
        assert_eq!(counts.decisions().allowed, 1_000);
    }

    #[test]
    fn a_tenant_called_like_all_others_together_is_one_of_them() {
        let mut tally = Tally::new(1);
        count(&mut tally, &decision(OTHERS, "free", true));
        let reading = tally.read(Levels::default());
        assert_eq!((reading.tenants.len(), reading.other_tenants.allowed), (0, 1));
    }

    #[test]
    fn readings_of_two_shards_add_up_by_name() {
        let (mut one, mut two) = (Tally::new(2), Tally::new(2));
        count(&mut one, &decision("acme", "free", true));
        count(&mut two, &decision("globex", "pro", false));
        count(&mut two, &decision("acme", "free", true));
        let mut sum = one.read(Levels { tenants: 1, policy_version: 5, ..Levels::default() });
        sum.add(&two.read(Levels { tenants: 2, policy_version: 4, ..Levels::default() }));
        let free = sum.counts.tiers.iter().find(|(name, _)| name.as_str() == "free").unwrap().1;
        assert_eq!((free.exact.allowed, sum.counts.tiers.len()), (2, 2));
        assert_eq!(sum.tenants[&TenantId::new("acme").unwrap()].allowed, 2);
        assert_eq!((sum.levels.tenants, sum.levels.policy_version), (3, 4));
    }
}
