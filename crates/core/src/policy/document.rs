//! The policy as written, and valid.
//!
//! Its big parts are persistent maps: the next version shares all that it didn't change with the
//! one before, so an edit costs its own size, and holding several versions costs little more than
//! one.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::prefix::IpPrefixes;
use super::responses::Responses;
use super::text::{self, Decimal};
use crate::check::{ApiKeyDigest, Cost, Label, Limit, Method, Name, TenantId};
use crate::input::{Fault, Tree};
use crate::limit::{OnExceeded, Period, Rule};
use crate::time::SECOND;

/// Tenants that a document may name.
pub const TENANTS_MAX: usize = 1_000_000;
/// The longest time of a permit in a tier that doesn't say one, in nanoseconds: 5 minutes.
pub const PERMIT_TTL_DEFAULT: u64 = 300 * SECOND;
/// The longest time that any tier may allow, in nanoseconds. It holds for tiers that were stored
/// before they could say one, since permits of an hour may be in flight in them.
pub const PERMIT_TTL_MOST: u64 = 3_600 * SECOND;

/// One whole policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The tier of tenants that nothing else maps.
    pub default_tier: Name,
    /// What a check costs where nothing says otherwise.
    pub default_cost: Cost,
    /// False: the kill switch. Every limit is judged and reported, none denies (P12).
    pub enforce: bool,
    /// Where the tier that a request names is used.
    pub request_tier: RequestTier,
    /// How much of an address a limit or an account is keyed by.
    pub ip_prefixes: IpPrefixes,
    /// How answers look.
    pub responses: Responses,
    /// Multipliers of all limits, by environment (P7).
    pub environments: OrdMap<Name, Environment>,
    /// Limits for everybody.
    pub limits: Vec<Arc<Limit>>,
    /// The tiers.
    pub tiers: OrdMap<Name, Arc<Tier>>,
    /// Tiers by the form of a tenant's id; the first that fits counts.
    pub tier_patterns: Vec<TierPattern>,
    /// The tenants with rules of their own.
    pub tenants: OrdMap<TenantId, Arc<Tenant>>,
    /// What endpoints cost (P6).
    pub costs: Vec<EndpointCost>,
    /// Allow and deny lists (P9), by the name of the entry.
    pub access: OrdMap<Name, Arc<AccessEntry>>,
}

/// Where the tier that a request names is used (P2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestTier {
    /// For tenants that neither a rule nor a pattern maps.
    IfUnmapped,
    /// For all.
    Always,
    /// For none.
    Ignore,
}

/// A named environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    /// Every configured limit is multiplied by this.
    pub multiplier: Decimal,
}

/// What a node does that can't reach a tenant's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIsolation {
    /// A node's share of the rate.
    Share,
    /// Deny.
    Deny,
    /// Allow.
    Open,
}

/// What becomes of limits that a request brings along (P8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestLimits {
    /// They stand in for the tier's.
    Instead,
    /// They are judged beside the tier's.
    Also,
    /// The request is refused.
    Refuse,
}

/// A named set of limits (P1).
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Share of scarce capacity, beside other tiers.
    pub weight: Decimal,
    /// Permits out at a time, for each tenant.
    pub max_concurrent: Option<u64>,
    /// The longest time of a permit, in nanoseconds; none in a tier that was stored before it could
    /// say so. [`Tier::permit_ttl_most`] returns what holds.
    pub max_permit_ttl: Option<u64>,
    /// Every cost is multiplied by this.
    pub cost_multiplier: Decimal,
    /// What a cut-off node does.
    pub on_isolation: OnIsolation,
    /// What becomes of limits in requests.
    pub request_limits: RequestLimits,
    /// The limits; none is unlimited.
    pub limits: Vec<Arc<Limit>>,
}

/// Tenants whose id has a certain form.
#[derive(Clone, Debug, PartialEq)]
pub struct TierPattern {
    /// A tenant id in which each `*` stands for any text.
    pub pattern: String,
    /// Their tier.
    pub tier: Name,
}

impl TierPattern {
    /// Whether `tenant` has the form.
    pub fn fits(&self, tenant: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|head| tenant.strip_prefix(head)) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

/// A tenant's own rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenant {
    /// Its tier.
    pub tier: Option<Name>,
    /// When the tier stops counting, wall nanoseconds; pattern, request or default decide from then
    /// on.
    pub tier_expires: Option<u64>,
    /// Instead of the tier's.
    pub max_concurrent: Option<u64>,
    /// Instead of the tier's.
    pub on_isolation: Option<OnIsolation>,
    /// Limits that stand before the tier's of the same name.
    pub limits: Vec<Arc<Limit>>,
}

/// What calls of one endpoint cost.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointCost {
    /// The method; none is any.
    pub method: Option<Method>,
    /// The path, in which `{name}` stands for one part and `{*rest}` at the end for all that
    /// follows.
    pub path: String,
    /// Units.
    pub cost: Cost,
}

/// Which list an entry is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Passes unjudged.
    Allow,
    /// Denied at once.
    Deny,
}

/// Whom a list entry names.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A tenant.
    Tenant(TenantId),
    /// A user, of whatever tenant.
    Client(Label),
    /// An address or a range of addresses.
    Ip(IpNet),
    /// An API key, by its SHA-256.
    ApiKey(ApiKeyDigest),
}

/// One entry of the allow or deny list.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessEntry {
    /// Which list.
    pub list: List,
    /// Whom it names.
    pub subject: Subject,
    /// Why.
    pub reason: String,
    /// By whom.
    pub added_by: Option<String>,
    /// Since when, wall nanoseconds.
    pub added_at: Option<u64>,
    /// Until when, wall nanoseconds.
    pub expires: Option<u64>,
}

/// Who reads a document's JSON. The two forms differ in tiers without `max_permit_ttl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Callers and operators: a tier that doesn't say has [`PERMIT_TTL_DEFAULT`].
    Shown,
    /// The log: a tier that doesn't say was stored before it could, and has [`PERMIT_TTL_MOST`].
    Stored,
}

/// An IPv4 address in IPv6 clothes is the IPv4 address, so that one address has one spelling.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

impl Document {
    /// Reads JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        Self::read(&Tree::from_json(bytes).map_err(|fault| vec![fault])?)
    }

    /// Reads JSON of the form [`Form::Stored`], of this version or an earlier one: it was valid
    /// when it was stored, so a rule that becomes stricter holds for [`Document::from_json`] alone.
    pub fn from_stored(json: &str) -> Result<Self, Vec<Fault>> {
        Self::read_stored(&Tree::from_json(json.as_bytes()).map_err(|fault| vec![fault])?)
    }

    /// Fills in what a document that is written now says by saying nothing.
    pub(super) fn written(mut self) -> Self {
        self.change_tiers(|tier| {
            let max_permit_ttl = tier.max_permit_ttl.or(Some(PERMIT_TTL_DEFAULT));
            Tier { max_permit_ttl, ..tier.clone() }
        });
        self
    }

    /// The document as programs read it that know no `max_permit_ttl`, where that is possible.
    pub fn at_first_level(mut self) -> Self {
        self.change_tiers(Tier::at_first_level);
        self
    }

    fn change_tiers(&mut self, change: impl Fn(&Tier) -> Tier) {
        let changed = self.tiers.iter().map(|(name, tier)| (name.clone(), change(tier)));
        let changed: Vec<_> = changed.filter(|(name, tier)| *self.tiers[name] != *tier).collect();
        for (name, tier) in changed {
            self.tiers.insert(name, Arc::new(tier));
        }
    }

    /// Reads TOML.
    pub fn from_toml(bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        Self::read(&Tree::from_toml(bytes).map_err(|fault| vec![fault])?)
    }

    /// The document in the shape that [`Document::read`] takes.
    pub fn to_json(&self) -> Value {
        self.in_form(Form::Shown)
    }

    /// The document as the log keeps it: [`Document::from_stored`] reads it.
    pub fn to_stored(&self) -> String {
        self.in_form(Form::Stored).to_string()
    }

    fn in_form(&self, form: Form) -> Value {
        let mut out = Map::new();
        out.insert("default_tier".into(), json!(self.default_tier));
        if self.default_cost != Cost::ONE {
            out.insert("default_cost".into(), json!(self.default_cost));
        }
        if !self.enforce {
            out.insert("enforce".into(), json!(false));
        }
        match self.request_tier {
            RequestTier::IfUnmapped => {}
            RequestTier::Always => drop(out.insert("request_tier".into(), json!("always"))),
            RequestTier::Ignore => drop(out.insert("request_tier".into(), json!("ignore"))),
        }
        out.extend(self.ip_prefixes.to_json());
        if let Some(responses) = self.responses.to_json() {
            out.insert("responses".into(), responses);
        }
        let map =
            |entries: Map<String, Value>| (!entries.is_empty()).then_some(Value::Object(entries));
        let list = |items: Vec<Value>| (!items.is_empty()).then_some(Value::Array(items));
        let environments = self.environments.iter();
        let parts = [
            (
                "environments",
                map(environments
                    .map(|(name, e)| {
                        (name.to_string(), json!({"multiplier": e.multiplier.to_string()}))
                    })
                    .collect()),
            ),
            ("limits", list(self.limits.iter().map(|limit| limit_to_json(limit)).collect())),
            (
                "tiers",
                map(self
                    .tiers
                    .iter()
                    .map(|(name, tier)| (name.to_string(), tier.in_form(form)))
                    .collect()),
            ),
            (
                "tier_patterns",
                list(
                    self.tier_patterns
                        .iter()
                        .map(|p| json!({"pattern": p.pattern, "tier": p.tier}))
                        .collect(),
                ),
            ),
            (
                "tenants",
                map(self.tenants.iter().map(|(id, t)| (id.to_string(), t.to_json())).collect()),
            ),
            ("costs", list(self.costs.iter().map(EndpointCost::to_json).collect())),
            (
                "access",
                map(self.access.iter().map(|(name, e)| (name.to_string(), e.to_json())).collect()),
            ),
        ];
        out.extend(parts.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))));
        Value::Object(out)
    }

    /// The document as TOML.
    pub fn to_toml(&self) -> String {
        toml::Value::try_from(self.to_json())
            .ok()
            .and_then(|value| toml::to_string(&value).ok())
            .unwrap_or_else(|| {
                unreachable!("a document has neither nulls nor numbers that TOML lacks")
            })
    }
}

impl Tier {
    /// The tier as the document shows it.
    pub fn to_json(&self) -> Value {
        self.in_form(Form::Shown)
    }

    /// The tier as the log keeps it.
    pub fn to_stored(&self) -> String {
        self.in_form(Form::Stored).to_string()
    }

    /// The longest time of a permit in this tier, in nanoseconds.
    pub fn permit_ttl_most(&self) -> u64 {
        self.max_permit_ttl.unwrap_or(PERMIT_TTL_MOST)
    }

    /// The tier as programs read it that know no `max_permit_ttl`: without the default, and without
    /// the time that such a program allows. Another time stays, and is one that they can't read.
    pub(super) fn at_first_level(&self) -> Self {
        let is_theirs = |ttl: &u64| [PERMIT_TTL_DEFAULT, PERMIT_TTL_MOST].contains(ttl);
        Self { max_permit_ttl: self.max_permit_ttl.filter(|ttl| !is_theirs(ttl)), ..self.clone() }
    }

    fn in_form(&self, form: Form) -> Value {
        let mut out = Map::new();
        if self.weight != Decimal::ONE {
            out.insert("weight".into(), json!(self.weight.to_string()));
        }
        if let Some(max) = self.max_concurrent {
            out.insert("max_concurrent".into(), json!(max));
        }
        let ttl = match form {
            Form::Shown => Some(self.permit_ttl_most()).filter(|ttl| *ttl != PERMIT_TTL_DEFAULT),
            Form::Stored => self.max_permit_ttl,
        };
        if let Some(ttl) = ttl {
            out.insert("max_permit_ttl".into(), json!(text::print_duration(ttl)));
        }
        if self.cost_multiplier != Decimal::ONE {
            out.insert("cost_multiplier".into(), json!(self.cost_multiplier.to_string()));
        }
        if self.on_isolation != OnIsolation::Share {
            out.insert("on_isolation".into(), json!(self.on_isolation.word()));
        }
        match self.request_limits {
            RequestLimits::Instead => {}
            RequestLimits::Also => drop(out.insert("request_limits".into(), json!("also"))),
            RequestLimits::Refuse => drop(out.insert("request_limits".into(), json!("refuse"))),
        }
        out.insert("limits".into(), self.limits.iter().map(|limit| limit_to_json(limit)).collect());
        Value::Object(out)
    }
}

impl OnIsolation {
    fn word(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Deny => "deny",
            Self::Open => "open",
        }
    }
}

impl Tenant {
    /// The tenant's rules as the document shows them.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        if let Some(tier) = &self.tier {
            out.insert("tier".into(), json!(tier));
        }
        if let Some(wall) = self.tier_expires {
            out.insert("tier_expires".into(), json!(text::print_instant(wall)));
        }
        if let Some(max) = self.max_concurrent {
            out.insert("max_concurrent".into(), json!(max));
        }
        if let Some(choice) = self.on_isolation {
            out.insert("on_isolation".into(), json!(choice.word()));
        }
        if !self.limits.is_empty() {
            out.insert(
                "limits".into(),
                self.limits.iter().map(|limit| limit_to_json(limit)).collect(),
            );
        }
        Value::Object(out)
    }
}

impl EndpointCost {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        if let Some(method) = &self.method {
            out.insert("method".into(), json!(method));
        }
        out.insert("path".into(), json!(self.path));
        out.insert("cost".into(), json!(self.cost));
        Value::Object(out)
    }
}

impl List {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl Subject {
    /// The member of an entry that names it, and its value there.
    fn member(&self) -> (&'static str, String) {
        match self {
            Self::Tenant(tenant) => ("tenant", tenant.to_string()),
            Self::Client(client) => ("client", client.to_string()),
            Self::Ip(net) if net.prefix_len() == net.max_prefix_len() => {
                ("ip", net.addr().to_string())
            }
            Self::Ip(net) => ("ip", net.to_string()),
            Self::ApiKey(digest) => ("api_key_sha256", digest.to_string()),
        }
    }
}

/// `deny ip 192.0.2.0/24`: whom it names, without why.
impl fmt::Display for AccessEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value) = self.subject.member();
        write!(f, "{} {kind} {value}", self.list.word())
    }
}

impl AccessEntry {
    /// The entry as the document shows it.
    pub fn to_json(&self) -> Value {
        let (kind, value) = self.subject.member();
        let mut out = Map::new();
        out.insert("list".into(), json!(self.list.word()));
        out.insert(kind.into(), json!(value));
        out.insert("reason".into(), json!(self.reason));
        let optional = [
            ("added_by", self.added_by.clone()),
            ("added_at", self.added_at.map(text::print_instant)),
            ("expires", self.expires.map(text::print_instant)),
        ];
        out.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_string(), json!(value?)))),
        );
        Value::Object(out)
    }
}

/// A limit as the document shows it.
pub fn limit_to_json(limit: &Limit) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), json!(limit.name));
    out.insert(
        "per".into(),
        limit.per.iter().map(|dimension| json!(dimension.to_string())).collect(),
    );
    if limit.when.rank() > 0 {
        let parts = [("action", &limit.when.action), ("client", &limit.when.client)];
        let parts = parts
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_string(), json!(value.as_ref()?))));
        out.insert("match".into(), Value::Object(parts.collect()));
    }
    out.insert("algorithm".into(), json!(limit.rule.algorithm()));
    match &limit.rule {
        Rule::TokenBucket(bucket) => {
            out.insert("rate".into(), json!(text::print_rate(&bucket.rate)));
            out.insert("burst".into(), json!(bucket.burst));
            if bucket.initial != bucket.burst {
                out.insert("initial".into(), json!(bucket.initial));
            }
        }
        Rule::LeakyBucket(bucket) => {
            out.insert("rate".into(), json!(text::print_rate(&bucket.rate)));
            out.insert("burst".into(), json!(bucket.burst));
        }
        Rule::FixedWindow(window) | Rule::SlidingWindow(window) | Rule::SlidingLog(window) => {
            out.insert("limit".into(), json!(window.limit));
            out.insert("window".into(), json!(text::print_duration(window.length)));
        }
        Rule::Quota(quota) => {
            out.insert("limit".into(), json!(quota.limit));
            let monthly = quota.calendar.period == Period::Month;
            out.insert("period".into(), json!(if monthly { "month" } else { "day" }));
            if quota.calendar.anchor_day != 1 {
                out.insert("anchor_day".into(), json!(quota.calendar.anchor_day));
            }
            if let Some(zone) = quota.calendar.zone.iana_name().filter(|zone| *zone != "UTC") {
                out.insert("time_zone".into(), json!(zone));
            }
            if quota.on_exceeded == OnExceeded::Count {
                out.insert("on_exceeded".into(), json!("count"));
            }
        }
        Rule::Concurrency { max } => drop(out.insert("limit".into(), json!(max))),
    }
    if !limit.enforce {
        out.insert("enforce".into(), json!(false));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests;
