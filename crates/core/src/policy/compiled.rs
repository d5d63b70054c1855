//! A document compiled for decisions.
//!
//! A [`Policy`] resolves a tenant to a [`Plan`]: its tier, and all limits that could be for it,
//! grouped by name with the most specific first (client over action over tenant over tier over
//! cluster, P3). A plan depends on the tenant alone, so the shard keeps it with the tenant's state;
//! [`Plan::select`] then picks the limits of one check by its action and client, and works out
//! their buckets' keys. Tenants are compiled when they are first seen, so that an edit costs its
//! own size and a million tenants cost nothing until they come.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::access::{AccessLists, AccessVerdict};
use super::bucket::{BucketKey, key_of, overflow_key_of};
use super::document::{Document, PERMIT_TTL_DEFAULT, RequestLimits, RequestTier, Tier};
use super::endpoint::CostTable;
use super::responses::Responses;
use super::text::Decimal;
use crate::check::{
    Check, Cost, Dimension, Limit, Match, Name, PERMIT_TTL_MS_DEFAULT, PERMIT_TTL_UNSAID, TenantId,
};
use crate::limit::{LeakyBucket, MAX_CONCURRENT_MAX, Quota, Rate, Rule, TokenBucket, Window};
use crate::placement::Secret;
use crate::time::MS;

/// The name under which `max_concurrent` appears among a decision's limits.
pub const CONCURRENCY: &str = "concurrency";

/// A document under a version, ready to decide by.
pub struct Policy {
    version: u64,
    document: Document,
    environment: Option<Name>,
    multiplier: Decimal,
    costs: Arc<CostTable>,
    access: Arc<AccessLists>,
    shared_rules: Vec<Rule>,
}

/// The request named a tier that doesn't exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no tier {0}")]
pub struct UnknownTier(pub Name);

/// A permit is asked for or renewed for longer than its tier allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a permit of tier {tier} runs for at most {most_ms} ms")]
pub struct PermitTooLong {
    /// The tier.
    pub tier: Name,
    /// The milliseconds that it allows.
    pub most_ms: u64,
}

/// How a tenant came by its tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TierSource {
    /// Its own rule says so.
    Tenant,
    /// The form of its id.
    Pattern,
    /// The request said so.
    Request,
    /// Nothing else did.
    Default,
}

impl Policy {
    /// Compiles version `version`, for a node that runs as `environment`.
    pub fn new(version: u64, document: Document, environment: Option<Name>) -> Self {
        let (costs, access) = (CostTable::new(&document.costs), AccessLists::new(&document));
        Self::with(version, document, environment, Arc::new(costs), Arc::new(access))
    }

    /// Compiles the version after this one; what didn't change is shared.
    pub fn next(&self, version: u64, document: Document) -> Self {
        let same_costs = self.document.costs == document.costs;
        let same_access = self.document.access.ptr_eq(&document.access);
        let costs =
            if same_costs { self.costs.clone() } else { Arc::new(CostTable::new(&document.costs)) };
        let access =
            if same_access { self.access.clone() } else { Arc::new(self.access.next(&document)) };
        Self::with(version, document, self.environment.clone(), costs, access)
    }

    fn with(
        version: u64,
        document: Document,
        environment: Option<Name>,
        costs: Arc<CostTable>,
        access: Arc<AccessLists>,
    ) -> Self {
        let multiplier = environment.as_ref().and_then(|name| document.environments.get(name));
        let multiplier = multiplier.map_or(Decimal::ONE, |environment| environment.multiplier);
        let mut policy = Self {
            version,
            document,
            environment,
            multiplier,
            costs,
            access,
            shared_rules: Vec::new(),
        };
        let limits = policy
            .document
            .tiers
            .values()
            .flat_map(|tier| &tier.limits)
            .chain(&policy.document.limits);
        let shared = limits.filter(|limit| !limit.per.contains(&Dimension::Tenant));
        policy.shared_rules = shared.map(|limit| policy.in_force(limit).rule).collect();
        policy
    }

    /// Rises with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it was compiled from.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// How answers look.
    pub fn responses(&self) -> Responses {
        self.document.responses
    }

    /// Whether there are any lists to ask.
    pub fn has_lists(&self) -> bool {
        !self.access.is_empty()
    }

    /// Whether [`Change::DropExpired`](super::Change::DropExpired) would find anything at wall time
    /// `wall`: known at once, however long the lists are.
    pub fn has_expired(&self, wall: u64) -> bool {
        self.access.first_expiry().is_some_and(|at| at <= wall)
    }

    /// What the lists say to `check` at wall time `wall`.
    pub fn access(&self, check: &Check, wall: u64) -> Option<AccessVerdict> {
        self.access.decide(check, wall)
    }

    /// The tier of `tenant` at wall time `wall`, how it came by it, and until when that holds (wall
    /// nanoseconds).
    pub fn tier_of(&self, tenant: &TenantId, wall: u64) -> (Name, TierSource, u64) {
        let rule = self.document.tenants.get(tenant);
        if let Some(rule) = rule
            && let Some(tier) = &rule.tier
        {
            let until = rule.tier_expires.unwrap_or(u64::MAX);
            if wall < until {
                return (tier.clone(), TierSource::Tenant, until);
            }
        }
        match self.document.tier_patterns.iter().find(|pattern| pattern.fits(tenant.as_str())) {
            Some(pattern) => (pattern.tier.clone(), TierSource::Pattern, u64::MAX),
            None => (self.document.default_tier.clone(), TierSource::Default, u64::MAX),
        }
    }

    /// The tier that a request's own word puts it into instead of `source`'s; none where the policy
    /// doesn't listen.
    pub fn requested_tier<'c>(
        &self,
        check: &'c Check,
        source: TierSource,
    ) -> Result<Option<&'c Name>, UnknownTier> {
        let Some(tier) = &check.tier else { return Ok(None) };
        if self.document.request_tier == RequestTier::Ignore {
            return Ok(None);
        }
        if !self.document.tiers.contains_key(tier) {
            return Err(UnknownTier(tier.clone()));
        }
        let listens =
            self.document.request_tier == RequestTier::Always || source == TierSource::Default;
        Ok(listens.then_some(tier))
    }

    /// Whether a plan for `tenant` says the same as one for any other tenant of its tier.
    pub fn has_own_rules(&self, tenant: &TenantId) -> bool {
        self.document.tenants.get(tenant).is_some_and(|rule| {
            !rule.limits.is_empty() || rule.max_concurrent.is_some() || rule.tier_expires.is_some()
        })
    }

    /// Whether the document names `tenant`.
    pub fn names(&self, tenant: &TenantId) -> bool {
        self.document.tenants.contains_key(tenant)
    }

    /// Permits that `tenant` may have out at a time while it is in `tier`; none is any number.
    pub fn max_concurrent(&self, tenant: &TenantId, tier: &Name) -> Option<u64> {
        let own = self.document.tenants.get(tenant).and_then(|rule| rule.max_concurrent);
        let max = own.or_else(|| self.document.tiers.get(tier)?.max_concurrent)?;
        Some(self.multiplier.times_down(max).min(MAX_CONCURRENT_MAX))
    }

    /// The milliseconds of the permit that `check` asks for: its own, or where it names none,
    /// [`PERMIT_TTL_MS_DEFAULT`] or what the tier allows. None where it asks for no permit, or
    /// names a tier that doesn't exist. Errs with the tier and the milliseconds that it allows
    /// where the check asks for more.
    pub fn permit_ttl(&self, check: &Check, wall: u64) -> Result<Option<u64>, PermitTooLong> {
        let Some(asked) = check.permit_ttl_ms else { return Ok(None) };
        let (own, source, _) = self.tier_of(&check.tenant, wall);
        let Ok(requested) = self.requested_tier(check, source) else { return Ok(None) };
        let tier = requested.unwrap_or(&own);
        let Some(definition) = self.document.tiers.get(tier) else { return Ok(None) };
        granted(tier, definition.permit_ttl_most() / MS, asked).map(Some)
    }

    /// The milliseconds for which a permit of `tenant` may be renewed; without a tenant, any
    /// permit. Errs as [`Policy::permit_ttl`] does.
    pub fn renewed_ttl(
        &self,
        tenant: Option<&TenantId>,
        wall: u64,
        asked: u64,
    ) -> Result<u64, PermitTooLong> {
        match self.longest_tier(tenant, wall) {
            Some((name, most)) => granted(name, most / MS, asked),
            None => granted(&self.document.default_tier, PERMIT_TTL_DEFAULT / MS, asked),
        }
    }

    /// How long after a loss permits of `tenant` may be in flight that no node knows, in
    /// nanoseconds; without a tenant, any permits.
    pub fn permits_lost_for(&self, tenant: Option<&TenantId>, wall: u64) -> u64 {
        let own = tenant.and_then(|tenant| self.document.tiers.get(&self.tier_of(tenant, wall).0));
        match own {
            Some(tier) => tier.permit_ttl_most(),
            None => self.longest_tier(None, wall).map_or(PERMIT_TTL_DEFAULT, |(_, most)| most),
        }
    }

    /// Of the tiers that a tenant can be in, the one with the longest permits. Where its requests
    /// may choose the tier, that is any tier.
    fn longest_tier(&self, tenant: Option<&TenantId>, wall: u64) -> Option<(&Name, u64)> {
        let own = tenant.map(|tenant| self.tier_of(tenant, wall));
        let chosen = match (&own, self.document.request_tier) {
            (None, _) | (_, RequestTier::Always) => true,
            (Some((_, source, _)), RequestTier::IfUnmapped) => *source == TierSource::Default,
            (Some(_), RequestTier::Ignore) => false,
        };
        let is_possible = |tier: &Name| chosen || own.as_ref().is_some_and(|(own, ..)| own == tier);
        let possible = self.document.tiers.iter().filter(|(name, _)| is_possible(name));
        possible.map(|(name, tier)| (name, tier.permit_ttl_most())).max_by_key(|(_, most)| *most)
    }

    /// The address by which a check from `ip` is counted.
    pub fn counted_ip(&self, ip: IpAddr) -> IpAddr {
        self.document.ip_prefixes.counted(ip)
    }

    /// All limits that could be for a check of `tenant` in `tier`, which exists.
    pub fn plan(
        &self,
        tenant: &TenantId,
        tier: &Name,
        source: TierSource,
        valid_until: u64,
        secret: &Secret,
    ) -> Plan {
        let fallback = Arc::new(Tier {
            weight: Decimal::ONE,
            max_concurrent: None,
            max_permit_ttl: Some(PERMIT_TTL_DEFAULT),
            cost_multiplier: Decimal::ONE,
            on_isolation: super::OnIsolation::Share,
            request_limits: RequestLimits::Instead,
            limits: Vec::new(),
        });
        let definition = self.document.tiers.get(tier).unwrap_or(&fallback);
        let rule = self.document.tenants.get(tenant);
        let mut groups: BTreeMap<Name, Vec<Candidate>> = BTreeMap::new();
        let own = rule.map_or(&[][..], |rule| &rule.limits);
        for (place, limits) in [
            (Place::Cluster, &self.document.limits[..]),
            (Place::Tier, &definition.limits[..]),
            (Place::Tenant, own),
        ] {
            for limit in limits {
                let limit = self.in_force(limit);
                let key = key_of(&limit, None, secret);
                groups.entry(limit.name.clone()).or_default().push(Candidate {
                    place,
                    limit: Arc::new(limit),
                    key,
                });
            }
        }
        for candidates in groups.values_mut() {
            candidates.sort_by_key(|c| std::cmp::Reverse((c.place, c.limit.when.rank())));
        }
        Plan {
            version: self.version,
            tier: tier.clone(),
            source,
            valid_until,
            cost_multiplier: definition.cost_multiplier,
            request_limits: definition.request_limits,
            enforce: self.document.enforce,
            permit_ttl_most: definition.permit_ttl_most(),
            max_concurrent: self.max_concurrent(tenant, tier).map(|max| {
                Arc::new(Limit {
                    name: Name::new(CONCURRENCY).unwrap_or_else(|| tier.clone()),
                    per: vec![Dimension::Tenant],
                    when: Match::default(),
                    rule: Rule::Concurrency { max },
                    enforce: self.document.enforce,
                })
            }),
            groups: groups.into_values().collect(),
        }
    }

    /// The rules of the limits that tenants share, of everybody and of the tiers. (Those that
    /// single tenants have are few and their own affair.)
    pub fn shared_rules(&self) -> impl Iterator<Item = &Rule> {
        self.shared_rules.iter()
    }

    /// A configured limit as it holds here: multiplied by the environment's factor, silenced by the
    /// kill switch.
    fn in_force(&self, limit: &Limit) -> Limit {
        let mut limit = limit.clone();
        limit.enforce &= self.document.enforce;
        if self.multiplier != Decimal::ONE {
            limit.rule = multiplied(&limit.rule, self.multiplier);
        }
        limit
    }

    /// The units `check` takes under a tier's multiplier: as it says itself, as its endpoint costs,
    /// or the default.
    pub fn cost(&self, check: &Check, multiplier: Decimal) -> u64 {
        let endpoint = || self.costs.cost(check.method.as_ref(), check.path.as_ref()?);
        let base = check.cost.or_else(endpoint).unwrap_or(self.document.default_cost);
        if multiplier == Decimal::ONE { base.get() } else { multiplier.times_up(Cost::get(base)) }
    }
}

/// The time of a permit in `tier`, which allows `most` milliseconds.
fn granted(tier: &Name, most: u64, asked: u64) -> Result<u64, PermitTooLong> {
    match asked {
        PERMIT_TTL_UNSAID => Ok(PERMIT_TTL_MS_DEFAULT.min(most)),
        asked if asked > most => Err(PermitTooLong { tier: tier.clone(), most_ms: most }),
        asked => Ok(asked),
    }
}

/// A rule times a decimal. Rates stay exact as long as their terms fit 64 bits; counts are rounded
/// down, to at least 1.
fn multiplied(rule: &Rule, by: Decimal) -> Rule {
    let rate = |rate: &Rate| {
        let exact = rate.scaled(by.millionths(), Decimal::SCALE);
        exact.or_else(|| Rate::new(by.times_down(rate.count()), rate.period())).unwrap_or(*rate)
    };
    let window = |w: &Window| Window { limit: by.times_down(w.limit), length: w.length };
    match rule {
        Rule::TokenBucket(b) => {
            let burst = by.times_down(b.burst);
            let share =
                u128::from(b.initial) * u128::from(by.millionths()) / u128::from(Decimal::SCALE);
            let initial = u64::try_from(share).map_or(burst, |share| share.min(burst));
            let initial = if b.initial == b.burst { burst } else { initial };
            Rule::TokenBucket(TokenBucket { rate: rate(&b.rate), burst, initial })
        }
        Rule::LeakyBucket(b) => {
            Rule::LeakyBucket(LeakyBucket { rate: rate(&b.rate), burst: by.times_down(b.burst) })
        }
        Rule::FixedWindow(w) => Rule::FixedWindow(window(w)),
        Rule::SlidingWindow(w) => Rule::SlidingWindow(window(w)),
        Rule::SlidingLog(w) => {
            let most = crate::limit::ENTRIES_MAX;
            Rule::SlidingLog(Window { limit: by.times_down(w.limit).min(most), length: w.length })
        }
        Rule::Quota(q) => Rule::Quota(Quota { limit: by.times_down(q.limit), ..q.clone() }),
        Rule::Concurrency { max } => Rule::Concurrency { max: by.times_down(*max) },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Cluster,
    Tier,
    Tenant,
}

struct Candidate {
    place: Place,
    limit: Arc<Limit>,
    /// Known beforehand where the key doesn't depend on the check: limits per tenant, and the
    /// global ones.
    key: Option<BucketKey>,
}

/// What could be asked of one tenant.
pub struct Plan {
    version: u64,
    tier: Name,
    source: TierSource,
    valid_until: u64,
    cost_multiplier: Decimal,
    request_limits: RequestLimits,
    max_concurrent: Option<Arc<Limit>>,
    permit_ttl_most: u64,
    /// False under the kill switch.
    enforce: bool,
    groups: Vec<Vec<Candidate>>,
}

/// A limit that a check is to be judged by, and its bucket.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The limit.
    pub limit: Arc<Limit>,
    /// Its bucket.
    pub key: BucketKey,
    /// The request brought it along.
    pub sent: bool,
}

impl Selected {
    /// The bucket that stands in where a cap leaves no room for one more key: one for each
    /// configured limit, and one for each algorithm of those that requests bring along, whose names
    /// have no bound.
    pub fn overflow_key(&self, secret: &Secret) -> BucketKey {
        overflow_key_of(&self.limit, self.sent, matches!(self.key, BucketKey::Own(_)), secret)
    }
}

/// The check brings limits along, and its tier doesn't take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsRefused;

impl Plan {
    /// The version of the policy it was made under.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The tier's name.
    pub fn tier(&self) -> &Name {
        &self.tier
    }

    /// How the tenant came by the tier.
    pub fn source(&self) -> TierSource {
        self.source
    }

    /// Until when it holds, wall nanoseconds.
    pub fn valid_until(&self) -> u64 {
        self.valid_until
    }

    /// By which every cost is multiplied.
    pub fn cost_multiplier(&self) -> Decimal {
        self.cost_multiplier
    }

    /// The concurrency limit, judged where a permit is asked for.
    pub fn max_concurrent(&self) -> Option<&Arc<Limit>> {
        self.max_concurrent.as_ref()
    }

    /// The longest time of a permit, in nanoseconds: so long an owner that lost which permits are
    /// in flight grants none.
    pub fn permit_ttl_most(&self) -> u64 {
        self.permit_ttl_most
    }

    /// The rules of all limits that could be asked.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flatten().map(|candidate| &candidate.limit.rule)
    }

    /// All limits that could be asked.
    pub fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.groups.iter().flatten().map(|candidate| &*candidate.limit)
    }

    /// Picks the limits that `check` is judged by.
    ///
    /// Limits that the request brings along stand in for the tier's (or beside them, as the tier
    /// says). One of the same name at the cluster, tenant, action or client level overrides the one
    /// sent.
    pub fn select(
        &self,
        check: &Check,
        secret: &Secret,
        selected: &mut Vec<Selected>,
    ) -> Result<(), LimitsRefused> {
        let brought = !check.limits.is_empty();
        if brought && self.request_limits == RequestLimits::Refuse {
            return Err(LimitsRefused);
        }
        let replaced = brought && self.request_limits == RequestLimits::Instead;
        for candidates in &self.groups {
            let best = candidates
                .iter()
                .find(|c| !(replaced && c.place == Place::Tier) && c.limit.when.fits(check));
            if let Some(candidate) = best
                && let Some(key) =
                    candidate.key.or_else(|| key_of(&candidate.limit, Some(check), secret))
            {
                selected.push(Selected { limit: candidate.limit.clone(), key, sent: false });
            }
        }
        let configured = selected.len();
        for limit in &check.limits {
            let overridden = selected[..configured].iter().any(|s| s.limit.name == limit.name);
            if !overridden
                && limit.when.fits(check)
                && let Some(key) = key_of(limit, Some(check), secret)
            {
                let limit = match self.enforce {
                    true => limit.clone(),
                    false => Arc::new(Limit { enforce: false, ..(**limit).clone() }),
                };
                selected.push(Selected { limit, key, sent: true });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
