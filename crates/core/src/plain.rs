//! The plain forms of checks and decisions: what they are on the wire and in files, however the
//! types that they stand for change.
//!
//! Names and texts check themselves as they are read. Numbers don't, and a window of length 0 would
//! be a division by it in somebody's shard; so [`PlainLimit::limit`] and its like hold them to the
//! bounds of the door.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::check::{
    ATTRIBUTES_MAX, ApiKeyDigest, Bypass, Check, Cost, DEADLINE_MS, DIMENSIONS_MAX, Decision,
    DeniedBy, Dimension, Exactness, Label, Limit, Match, Method, Name, PERMIT_TTL_MS, Path, Permit,
    PermitId, REQUEST_LIMITS_MAX, Reason, RequestId, TenantId, Verdict,
};
use crate::limit::{
    Calendar, ENTRIES_MAX, LeakyBucket, MAX_CONCURRENT_MAX, OnExceeded, Outcome, Period, Quota,
    Rate, Rule, TokenBucket, UNITS_MAX, WINDOW_MAX, Window,
};
use crate::placement::Partition;

/// Limits that may have spoken to one check: more than any policy gives a tenant.
const VERDICTS_MAX: usize = 4_096;

type Read<T> = Result<T, &'static str>;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum PlainDimension {
    Tenant,
    Client,
    Action,
    Ip,
    ApiKey,
    Method,
    Path,
    Endpoint,
    Attribute(Name),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlainRate {
    count: u64,
    period: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlainWindow {
    limit: u64,
    length: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum PlainRule {
    TokenBucket { rate: PlainRate, burst: u64, initial: u64 },
    LeakyBucket { rate: PlainRate, burst: u64 },
    FixedWindow(PlainWindow),
    SlidingWindow(PlainWindow),
    SlidingLog(PlainWindow),
    Quota { limit: u64, monthly: bool, anchor_day: i8, zone: Option<Label>, counts_on: bool },
    Concurrency { max: u64 },
}

/// A limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainLimit {
    name: Name,
    per: Vec<PlainDimension>,
    action: Option<Label>,
    client: Option<Label>,
    rule: PlainRule,
    enforce: bool,
}

/// A check.
#[derive(Serialize, Deserialize)]
pub struct PlainCheck {
    tenant: TenantId,
    tier: Option<Name>,
    client: Option<Label>,
    action: Option<Label>,
    method: Option<Method>,
    path: Option<Path>,
    ip: Option<IpAddr>,
    api_key: Option<[u8; 32]>,
    attributes: Vec<(Name, Label)>,
    cost: Option<Cost>,
    deadline_ms: u64,
    request_id: Option<RequestId>,
    permit_ttl_ms: Option<u64>,
    limits: Vec<PlainLimit>,
}

/// What a bucket said to a check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PlainOutcome {
    /// It has the units.
    Pass,
    /// It has them once another check's hold is cancelled.
    Held,
    /// It has them in that many nanoseconds.
    Wait(u64),
    /// It never holds as many.
    Never,
}

/// A cold start has no member of its own, so that every version can read it: it is the one wait for
/// permits beyond a cap that leaves them all. Without a cold start, all are left only where none is
/// waited for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlainVerdict {
    limit: PlainLimit,
    outcome: PlainOutcome,
    remaining: u64,
    reset_after: u64,
    overflow: bool,
}

/// A decision.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainDecision {
    allowed: bool,
    tenant: TenantId,
    tier: Option<Name>,
    cost: u64,
    verdicts: Vec<PlainVerdict>,
    denied_by: Option<(Name, Vec<PlainDimension>, Reason)>,
    retry_after: Option<u64>,
    permit: Option<(PermitId, u64)>,
    replayed: bool,
    bypass: Option<(Name, String)>,
    policy_version: u64,
}

impl From<&Dimension> for PlainDimension {
    fn from(dimension: &Dimension) -> Self {
        match dimension {
            Dimension::Tenant => Self::Tenant,
            Dimension::Client => Self::Client,
            Dimension::Action => Self::Action,
            Dimension::Ip => Self::Ip,
            Dimension::ApiKey => Self::ApiKey,
            Dimension::Method => Self::Method,
            Dimension::Path => Self::Path,
            Dimension::Endpoint => Self::Endpoint,
            Dimension::Attribute(name) => Self::Attribute(name.clone()),
        }
    }
}

impl From<PlainDimension> for Dimension {
    fn from(plain: PlainDimension) -> Self {
        match plain {
            PlainDimension::Tenant => Self::Tenant,
            PlainDimension::Client => Self::Client,
            PlainDimension::Action => Self::Action,
            PlainDimension::Ip => Self::Ip,
            PlainDimension::ApiKey => Self::ApiKey,
            PlainDimension::Method => Self::Method,
            PlainDimension::Path => Self::Path,
            PlainDimension::Endpoint => Self::Endpoint,
            PlainDimension::Attribute(name) => Self::Attribute(name),
        }
    }
}

fn plain_scope(per: &[Dimension]) -> Vec<PlainDimension> {
    per.iter().map(PlainDimension::from).collect()
}

fn scope(plain: Vec<PlainDimension>) -> Read<Vec<Dimension>> {
    within(plain.len(), DIMENSIONS_MAX, "too many dimensions")?;
    Ok(plain.into_iter().map(Dimension::from).collect())
}

fn within(count: usize, most: usize, fault: &'static str) -> Read<()> {
    if count <= most { Ok(()) } else { Err(fault) }
}

impl From<&Rule> for PlainRule {
    fn from(rule: &Rule) -> Self {
        let rate = |rate: &Rate| PlainRate { count: rate.count(), period: rate.period() };
        let window = |window: &Window| PlainWindow { limit: window.limit, length: window.length };
        match rule {
            Rule::TokenBucket(b) => {
                Self::TokenBucket { rate: rate(&b.rate), burst: b.burst, initial: b.initial }
            }
            Rule::LeakyBucket(b) => Self::LeakyBucket { rate: rate(&b.rate), burst: b.burst },
            Rule::FixedWindow(w) => Self::FixedWindow(window(w)),
            Rule::SlidingWindow(w) => Self::SlidingWindow(window(w)),
            Rule::SlidingLog(w) => Self::SlidingLog(window(w)),
            Rule::Quota(quota) => Self::Quota {
                limit: quota.limit,
                monthly: quota.calendar.period == Period::Month,
                anchor_day: quota.calendar.anchor_day,
                zone: quota.calendar.zone.iana_name().and_then(Label::new),
                counts_on: quota.on_exceeded == OnExceeded::Count,
            },
            Rule::Concurrency { max } => Self::Concurrency { max: *max },
        }
    }
}

impl PlainRule {
    /// The rule, if its numbers are such that no arithmetic stumbles over them.
    fn rule(self) -> Read<Rule> {
        let units = |units: u64| match units {
            1..=UNITS_MAX => Ok(units),
            _ => Err("a limit's units are out of bounds"),
        };
        let rate =
            |plain: PlainRate| Rate::told(plain.count, plain.period).ok_or("a rate of nothing");
        let window = |plain: PlainWindow| match plain.length {
            1..=WINDOW_MAX => Ok(Window { limit: units(plain.limit)?, length: plain.length }),
            _ => Err("a window's length is out of bounds"),
        };
        Ok(match self {
            Self::TokenBucket { burst, initial, .. } if initial > burst => {
                return Err("a bucket begins with more than it holds");
            }
            Self::TokenBucket { rate: r, burst, initial } => {
                Rule::TokenBucket(TokenBucket { rate: rate(r)?, burst: units(burst)?, initial })
            }
            Self::LeakyBucket { rate: r, burst } => {
                Rule::LeakyBucket(LeakyBucket { rate: rate(r)?, burst: units(burst)? })
            }
            Self::FixedWindow(w) => Rule::FixedWindow(window(w)?),
            Self::SlidingWindow(w) => Rule::SlidingWindow(window(w)?),
            Self::SlidingLog(w) if w.limit > ENTRIES_MAX => {
                return Err("a sliding log is too long");
            }
            Self::SlidingLog(w) => Rule::SlidingLog(window(w)?),
            Self::Quota { limit, monthly, anchor_day, zone, counts_on } => {
                if !(1..=31).contains(&anchor_day) {
                    return Err("a quota's anchor is no day of a month");
                }
                let zone = match zone {
                    Some(name) => {
                        TimeZone::get(name.as_str()).map_err(|_| "a time zone that there is not")?
                    }
                    None => TimeZone::UTC,
                };
                let period = if monthly { Period::Month } else { Period::Day };
                let on_exceeded = if counts_on { OnExceeded::Count } else { OnExceeded::Deny };
                let calendar = Calendar { period, anchor_day, zone };
                Rule::Quota(Quota { limit: units(limit)?, calendar, on_exceeded })
            }
            Self::Concurrency { max: max @ 1..=MAX_CONCURRENT_MAX } => Rule::Concurrency { max },
            Self::Concurrency { .. } => return Err("a number of permits out of bounds"),
        })
    }
}

impl From<&Limit> for PlainLimit {
    fn from(limit: &Limit) -> Self {
        Self {
            name: limit.name.clone(),
            per: plain_scope(&limit.per),
            action: limit.when.action.clone(),
            client: limit.when.client.clone(),
            rule: (&limit.rule).into(),
            enforce: limit.enforce,
        }
    }
}

impl PlainLimit {
    /// The limit, if it is within the bounds.
    pub fn limit(self) -> Read<Arc<Limit>> {
        Ok(Arc::new(Limit {
            name: self.name,
            per: scope(self.per)?,
            when: Match { action: self.action, client: self.client },
            rule: self.rule.rule()?,
            enforce: self.enforce,
        }))
    }
}

impl From<Check> for PlainCheck {
    fn from(check: Check) -> Self {
        Self {
            tenant: check.tenant,
            tier: check.tier,
            client: check.client,
            action: check.action,
            method: check.method,
            path: check.path,
            ip: check.ip,
            api_key: check.api_key.map(|digest| *digest.as_bytes()),
            attributes: check.attributes.into_iter().collect(),
            cost: check.cost,
            deadline_ms: check.deadline_ms,
            request_id: check.request_id,
            permit_ttl_ms: check.permit_ttl_ms,
            limits: check.limits.iter().map(|limit| PlainLimit::from(&**limit)).collect(),
        }
    }
}

impl TryFrom<PlainCheck> for Check {
    type Error = &'static str;
    fn try_from(plain: PlainCheck) -> Read<Self> {
        within(plain.attributes.len(), ATTRIBUTES_MAX, "too many attributes")?;
        within(plain.limits.len(), REQUEST_LIMITS_MAX, "too many limits")?;
        if !DEADLINE_MS.contains(&plain.deadline_ms) {
            return Err("a deadline out of bounds");
        }
        if plain.permit_ttl_ms.is_some_and(|ttl| !PERMIT_TTL_MS.contains(&ttl)) {
            return Err("a permit's time is out of bounds");
        }
        let attributes: BTreeMap<_, _> = plain.attributes.into_iter().collect();
        Ok(Self {
            tenant: plain.tenant,
            tier: plain.tier,
            client: plain.client,
            action: plain.action,
            method: plain.method,
            path: plain.path,
            ip: plain.ip.map(|ip| ip.to_canonical()),
            api_key: plain.api_key.map(ApiKeyDigest::from_bytes),
            attributes,
            cost: plain.cost,
            deadline_ms: plain.deadline_ms,
            request_id: plain.request_id,
            permit_ttl_ms: plain.permit_ttl_ms,
            limits: plain.limits.into_iter().map(PlainLimit::limit).collect::<Read<_>>()?,
        })
    }
}

impl From<Outcome> for PlainOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pass => Self::Pass,
            Outcome::Held => Self::Held,
            Outcome::Wait(nanos) => Self::Wait(nanos),
            Outcome::Never => Self::Never,
        }
    }
}

impl From<PlainOutcome> for Outcome {
    fn from(plain: PlainOutcome) -> Self {
        match plain {
            PlainOutcome::Pass => Self::Pass,
            PlainOutcome::Held => Self::Held,
            PlainOutcome::Wait(nanos) => Self::Wait(nanos),
            PlainOutcome::Never => Self::Never,
        }
    }
}

impl From<Verdict> for PlainVerdict {
    fn from(verdict: Verdict) -> Self {
        let outcome = verdict.outcome.into();
        let limit = (&*verdict.limit).into();
        let Verdict { mut remaining, reset_after, exactness, .. } = verdict;
        if exactness == Exactness::ColdStart {
            remaining = verdict.limit.rule.capacity();
        }
        let overflow = exactness != Exactness::Exact;
        Self { limit, outcome, remaining, reset_after, overflow }
    }
}

impl PlainVerdict {
    fn verdict(self) -> Read<Verdict> {
        let (limit, outcome) = (self.limit.limit()?, self.outcome.into());
        let Self { mut remaining, reset_after, overflow, .. } = self;
        let is_cold = overflow
            && matches!((&limit.rule, outcome), (Rule::Concurrency { .. }, Outcome::Wait(_)))
            && remaining >= limit.rule.capacity();
        let exactness = match (is_cold, overflow) {
            (true, _) => Exactness::ColdStart,
            (false, true) => Exactness::KeyCap,
            (false, false) => Exactness::Exact,
        };
        if is_cold {
            remaining = 0;
        }
        Ok(Verdict { limit, outcome, remaining, reset_after, exactness })
    }
}

impl From<Decision> for PlainDecision {
    fn from(decision: Decision) -> Self {
        let denied_by = decision.denied_by.map(|by| (by.name, plain_scope(&by.scope), by.reason));
        Self {
            allowed: decision.allowed,
            tenant: decision.tenant,
            tier: decision.tier,
            cost: decision.cost,
            verdicts: decision.verdicts.into_iter().map(PlainVerdict::from).collect(),
            denied_by,
            retry_after: decision.retry_after,
            permit: decision.permit.map(|permit| (permit.id, permit.expires_in)),
            replayed: decision.replayed,
            bypass: decision.bypass.map(|bypass| (bypass.list, bypass.reason)),
            policy_version: decision.policy_version,
        }
    }
}

impl TryFrom<PlainDecision> for Decision {
    type Error = &'static str;
    fn try_from(plain: PlainDecision) -> Read<Self> {
        within(plain.verdicts.len(), VERDICTS_MAX, "too many verdicts")?;
        if plain.permit.is_some_and(|(id, _)| Partition::new(id.partition).is_none()) {
            return Err("a permit of no partition");
        }
        let denied_by = match plain.denied_by {
            Some((name, per, reason)) => {
                Some(Box::new(DeniedBy { name, scope: scope(per)?, reason }))
            }
            None => None,
        };
        Ok(Self {
            allowed: plain.allowed,
            tenant: plain.tenant,
            tier: plain.tier,
            cost: plain.cost,
            verdicts: plain.verdicts.into_iter().map(PlainVerdict::verdict).collect::<Read<_>>()?,
            denied_by,
            retry_after: plain.retry_after,
            permit: plain.permit.map(|(id, expires_in)| Permit { id, expires_in }),
            replayed: plain.replayed,
            bypass: plain.bypass.map(|(list, reason)| Box::new(Bypass { list, reason })),
            policy_version: plain.policy_version,
            // Who answers says both of all its decisions at once.
            epoch: 0,
            node: None,
        })
    }
}

/// Serde of a decision that is kept, with its epoch: for `#[serde(with = "crate::plain::kept")]`.
/// Reading errs where a number is out of the bounds of the HTTP API.
pub mod kept {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::PlainDecision;
    use crate::check::Decision;

    /// Writes the plain form and the epoch.
    pub fn serialize<S: Serializer>(decision: &Decision, serializer: S) -> Result<S::Ok, S::Error> {
        (PlainDecision::from(decision.clone()), decision.epoch).serialize(serializer)
    }

    /// Reads what [`serialize`] wrote; errs where a number is out of its bounds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decision, D::Error> {
        let (plain, epoch) = <(PlainDecision, u64)>::deserialize(deserializer)?;
        let decision = Decision::try_from(plain).map_err(D::Error::custom)?;
        Ok(Decision { epoch, ..decision })
    }
}
