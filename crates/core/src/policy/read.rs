//! Reading a document: from a tree to a valid [`Document`], with every fault at once.
//!
//! The pieces (a tier, a tenant, a limit) are read by functions of their own, because an edit over
//! HTTP sends one piece.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::compiled::CONCURRENCY;
use super::document::{
    AccessEntry, Document, EndpointCost, Environment, List, OnIsolation, PERMIT_TTL_DEFAULT,
    PERMIT_TTL_MOST, RequestLimits, RequestTier, Subject, TENANTS_MAX, Tenant, Tier, TierPattern,
    canonical_ip,
};
use super::endpoint::CostTable;
use super::prefix::IpPrefixes;
use super::responses::responses;
use super::text::{self, Decimal};
use crate::check::{
    ApiKeyDigest, Cost, DIMENSIONS_MAX, Dimension, Label, Limit, Match, Method, Name,
    PERMIT_TTL_MS, Path, TenantId,
};
use crate::input::{Fault, Fields, Reader, Tree};
use crate::limit::{
    Calendar, ENTRIES_MAX, LeakyBucket, MAX_CONCURRENT_MAX, OnExceeded, Period, Quota, Rate, Rule,
    TokenBucket, UNITS_MAX, Window,
};
use crate::time::MS;

/// Limits in one place (the cluster, a tier, a tenant).
pub const LIMITS_MAX: usize = 256;
/// Tiers, environments, patterns, endpoint costs.
pub const ENTRIES_PER_SECTION_MAX: usize = 10_000;
/// Entries of the allow and deny lists.
pub const ACCESS_MAX: usize = 100_000;
/// Bytes of a reason or a name of whoever added an entry.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Bytes of a pattern of tenant ids.
pub const PATTERN_BYTES_MAX: usize = 128;

impl Document {
    /// Reads a whole document that is written now. All faults come at once, each with its path.
    pub fn read(tree: &Tree) -> Result<Self, Vec<Fault>> {
        Self::read_stored(tree).map(Self::written)
    }

    /// Reads a whole document that may have been stored by an earlier version.
    pub(super) fn read_stored(tree: &Tree) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::default();
        let document = document(&mut reader, tree);
        reader.finish(document)
    }
}

fn document(r: &mut Reader, tree: &Tree) -> Option<Document> {
    let mut fields = r.fields(tree)?;
    let default_tier = fields.required(r, "default_tier", name);
    let default_cost = fields.optional(r, "default_cost", cost).unwrap_or(Cost::ONE);
    let enforce = fields.optional(r, "enforce", Reader::boolean).unwrap_or(true);
    let words = [
        ("if_unmapped", RequestTier::IfUnmapped),
        ("always", RequestTier::Always),
        ("ignore", RequestTier::Ignore),
    ];
    let request_tier = fields
        .optional(r, "request_tier", |r, t| r.choice(t, &words))
        .unwrap_or(RequestTier::IfUnmapped);
    let ip_prefixes = IpPrefixes::read(r, &mut fields);
    let responses = fields.optional(r, "responses", responses).unwrap_or_default();
    let environments = fields.optional(r, "environments", |r, t| {
        map(r, t, ENTRIES_PER_SECTION_MAX, Name::EXPECTED, Name::new, environment)
    });
    let limits = fields.optional(r, "limits", shared_limits).unwrap_or_default();
    let tiers = fields.required(r, "tiers", |r, t| {
        map(r, t, ENTRIES_PER_SECTION_MAX, Name::EXPECTED, Name::new, |r, t| {
            Some(Arc::new(stored_tier(r, t)?))
        })
    });
    let tier_patterns = fields
        .optional(r, "tier_patterns", |r, t| r.list(t, ENTRIES_PER_SECTION_MAX, tier_pattern))
        .unwrap_or_default();
    let tenants = fields
        .optional(r, "tenants", |r, t| {
            map(r, t, TENANTS_MAX, TenantId::EXPECTED, TenantId::new, |r, t| {
                Some(Arc::new(tenant(r, t)?))
            })
        })
        .unwrap_or_default();
    let costs = fields.optional(r, "costs", costs).unwrap_or_default();
    let access = fields.optional(r, "access", access);
    fields.finish(r);

    let document = Document {
        default_tier: default_tier?,
        default_cost,
        enforce,
        request_tier,
        ip_prefixes,
        responses,
        environments: environments.unwrap_or_default(),
        limits,
        tiers: tiers?,
        tier_patterns,
        tenants,
        costs,
        access: access.unwrap_or_default(),
    };
    references(r, &document);
    Some(document)
}

/// Every tier that is named has to exist.
fn references(r: &mut Reader, document: &Document) {
    let missing = |tier: &Name| {
        (!document.tiers.contains_key(tier)).then(|| format!("there is no tier {tier}"))
    };
    if let Some(detail) = missing(&document.default_tier) {
        r.fault_at("default_tier", detail);
    }
    for (i, pattern) in document.tier_patterns.iter().enumerate() {
        if let Some(detail) = missing(&pattern.tier) {
            r.member("tier_patterns", |r| r.item(i, |r| r.fault_at("tier", detail)));
        }
    }
    for (id, tenant) in &document.tenants {
        if let Some(detail) = tenant.tier.as_ref().and_then(missing) {
            r.member("tenants", |r| r.member(id.as_str(), |r| r.fault_at("tier", detail)));
        }
    }
}

/// A map whose keys are data.
fn map<K: Ord + Clone, V: Clone>(
    r: &mut Reader,
    tree: &Tree,
    most: usize,
    expected: &str,
    key: impl Fn(&str) -> Option<K>,
    read: impl Fn(&mut Reader, &Tree) -> Option<V>,
) -> Option<OrdMap<K, V>> {
    let fields = r.fields(tree)?;
    if fields.entries().count() > most {
        r.fault(format!("has {} entries; at most {most} are allowed", fields.entries().count()));
        return None;
    }
    let entries = fields.entries().filter_map(|(name, tree)| {
        r.member(name, |r| {
            let key = key(name);
            if key.is_none() {
                r.fault(format!("its name is not {expected}"));
            }
            Some((key?, read(r, tree)?))
        })
    });
    Some(entries.collect())
}

fn name(r: &mut Reader, tree: &Tree) -> Option<Name> {
    r.parsed(tree, Name::EXPECTED, Name::new)
}

fn label(r: &mut Reader, tree: &Tree) -> Option<Label> {
    r.parsed(tree, Label::EXPECTED, Label::new)
}

fn cost(r: &mut Reader, tree: &Tree) -> Option<Cost> {
    r.whole(tree, 1..=u64::from(u32::MAX)).and_then(|units| Cost::new(u32::try_from(units).ok()?))
}

fn decimal(r: &mut Reader, tree: &Tree) -> Option<Decimal> {
    r.parsed(tree, text::DECIMAL, Decimal::parse)
}

fn instant(r: &mut Reader, tree: &Tree) -> Option<u64> {
    r.parsed(tree, text::INSTANT, text::parse_instant)
}

fn reason(r: &mut Reader, tree: &Tree) -> Option<String> {
    let fits = |s: &str| {
        (s.len() <= REASON_BYTES_MAX && !s.chars().any(char::is_control)).then(|| s.to_string())
    };
    r.parsed(tree, "text of at most 1024 bytes without control characters", fits)
}

fn on_isolation(r: &mut Reader, tree: &Tree) -> Option<OnIsolation> {
    r.choice(
        tree,
        &[("share", OnIsolation::Share), ("deny", OnIsolation::Deny), ("open", OnIsolation::Open)],
    )
}

fn max_concurrent(r: &mut Reader, tree: &Tree) -> Option<u64> {
    r.whole(tree, 1..=MAX_CONCURRENT_MAX)
}

fn environment(r: &mut Reader, tree: &Tree) -> Option<Environment> {
    let mut fields = r.fields(tree)?;
    let multiplier = fields.required(r, "multiplier", decimal);
    fields.finish(r);
    Some(Environment { multiplier: multiplier? })
}

fn max_permit_ttl(r: &mut Reader, tree: &Tree) -> Option<u64> {
    const EXPECTED: &str = "a duration of 1s to 1h, in whole milliseconds";
    let bounds = PERMIT_TTL_MS.start() * MS..=PERMIT_TTL_MOST;
    r.parsed(tree, EXPECTED, |text| text::parse_duration(text).filter(|ttl| bounds.contains(ttl)))
}

/// One tier that is written now.
pub fn tier(r: &mut Reader, tree: &Tree) -> Option<Tier> {
    let tier = stored_tier(r, tree)?;
    let max_permit_ttl = tier.max_permit_ttl.or(Some(PERMIT_TTL_DEFAULT));
    Some(Tier { max_permit_ttl, ..tier })
}

/// One tier that may have been stored by an earlier version.
pub fn stored_tier(r: &mut Reader, tree: &Tree) -> Option<Tier> {
    let mut fields = r.fields(tree)?;
    let request_limits = [
        ("instead", RequestLimits::Instead),
        ("also", RequestLimits::Also),
        ("refuse", RequestLimits::Refuse),
    ];
    let tier = Tier {
        weight: fields.optional(r, "weight", decimal).unwrap_or(Decimal::ONE),
        max_concurrent: fields.optional(r, "max_concurrent", max_concurrent),
        max_permit_ttl: fields.optional(r, "max_permit_ttl", max_permit_ttl),
        cost_multiplier: fields.optional(r, "cost_multiplier", decimal).unwrap_or(Decimal::ONE),
        on_isolation: fields
            .optional(r, "on_isolation", on_isolation)
            .unwrap_or(OnIsolation::Share),
        request_limits: fields
            .optional(r, "request_limits", |r, t| r.choice(t, &request_limits))
            .unwrap_or(RequestLimits::Instead),
        limits: fields.optional(r, "limits", |r, t| limits(r, t, Place::Tier)).unwrap_or_default(),
    };
    fields.finish(r);
    Some(tier)
}

/// One tenant's rules.
pub fn tenant(r: &mut Reader, tree: &Tree) -> Option<Tenant> {
    let mut fields = r.fields(tree)?;
    let tenant = Tenant {
        tier: fields.optional(r, "tier", name),
        tier_expires: fields.optional(r, "tier_expires", instant),
        max_concurrent: fields.optional(r, "max_concurrent", max_concurrent),
        on_isolation: fields.optional(r, "on_isolation", on_isolation),
        limits: fields
            .optional(r, "limits", |r, t| limits(r, t, Place::Tenant))
            .unwrap_or_default(),
    };
    if tenant.tier_expires.is_some() && !fields.has("tier") {
        r.fault_at("tier_expires", "there is no tier here that could expire");
    }
    fields.finish(r);
    Some(tenant)
}

fn tier_pattern(r: &mut Reader, tree: &Tree) -> Option<TierPattern> {
    let mut fields = r.fields(tree)?;
    let pattern = fields.required(r, "pattern", |r, t| {
        r.parsed(t, "a tenant id in which * stands for any text", |s| {
            let id = s.replace('*', "");
            (s.len() <= PATTERN_BYTES_MAX
                && (id.is_empty() && !s.is_empty() || TenantId::new(&id).is_some()))
            .then(|| s.to_string())
        })
    });
    let tier = fields.required(r, "tier", name);
    fields.finish(r);
    Some(TierPattern { pattern: pattern?, tier: tier? })
}

fn costs(r: &mut Reader, tree: &Tree) -> Option<Vec<EndpointCost>> {
    let mut table = CostTable::default();
    r.list(tree, ENTRIES_PER_SECTION_MAX, |r, t| {
        let mut fields = r.fields(t)?;
        let method = fields.optional(r, "method", |r, t| {
            r.parsed(t, Method::EXPECTED, |s| match s {
                "*" => Some(None),
                _ => Method::new(&s.to_ascii_uppercase()).map(Some),
            })
        });
        let path = fields.required(r, "path", |r, t| {
            let fits = |s: &str| {
                (Path::new(s).is_some() && !s.contains(['?', '#'])).then(|| s.to_string())
            };
            r.parsed(t, "a path pattern: it starts with / and has no query", fits)
        });
        let cost = fields.required(r, "cost", cost);
        fields.finish(r);
        let entry = EndpointCost { method: method.flatten(), path: path?, cost: cost? };
        if let Err(detail) = table.insert(&entry) {
            r.fault_at("path", detail);
        }
        Some(entry)
    })
}

/// The allow and deny lists, or several entries of them, by their names.
pub fn access(r: &mut Reader, tree: &Tree) -> Option<OrdMap<Name, Arc<AccessEntry>>> {
    map(r, tree, ACCESS_MAX, Name::EXPECTED, Name::new, |r, t| Some(Arc::new(access_entry(r, t)?)))
}

/// The members of a list entry that say whom it names.
pub const SUBJECTS: [&str; 4] = ["tenant", "client", "ip", "api_key_sha256"];

/// An entry of the allow or deny list.
pub fn access_entry(r: &mut Reader, tree: &Tree) -> Option<AccessEntry> {
    let mut fields = r.fields(tree)?;
    let entry = access_members(r, &mut fields, &SUBJECTS, None);
    fields.finish(r);
    entry
}

/// The members of an entry. Exactly one of `subjects` has to be there; `other` is what the caller
/// has read of those that aren't known here.
pub fn access_members(
    r: &mut Reader,
    fields: &mut Fields<'_>,
    subjects: &[&str],
    other: Option<Subject>,
) -> Option<AccessEntry> {
    let words = [List::Allow, List::Deny].map(|list| (list.word(), list));
    let list = fields.required(r, "list", |r, t| r.choice(t, &words));
    let read = [
        fields.optional(r, "tenant", |r, t| {
            r.parsed(t, TenantId::EXPECTED, TenantId::new).map(Subject::Tenant)
        }),
        fields.optional(r, "client", |r, t| label(r, t).map(Subject::Client)),
        fields.optional(r, "ip", |r, t| {
            r.parsed(t, "an IP address or a CIDR range", network).map(Subject::Ip)
        }),
        fields.optional(r, "api_key_sha256", |r, t| {
            // Whoever wrote the key itself here must not find it in a log.
            let digest = r.text(t).and_then(ApiKeyDigest::from_hex);
            if digest.is_none() {
                r.fault("is not a SHA-256 of 64 hexadecimal digits");
            }
            digest.map(Subject::ApiKey)
        }),
        other,
    ];
    if subjects.iter().filter(|name| fields.has(name)).count() != 1 {
        r.fault(format!("names exactly one of {}", subjects.join(", ")));
    }
    let reason_given = fields.optional(r, "reason", reason).unwrap_or_default();
    let added_by = fields.optional(r, "added_by", reason);
    let added_at = fields.optional(r, "added_at", instant);
    let expires = fields.optional(r, "expires", instant);
    Some(AccessEntry {
        list: list?,
        subject: read.into_iter().flatten().next()?,
        reason: reason_given,
        added_by,
        added_at,
        expires,
    })
}

/// An address or a range, canonical: `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
pub fn network(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<std::net::IpAddr>().ok()?),
    };
    let net = match (canonical_ip(net.addr()), net.prefix_len()) {
        (std::net::IpAddr::V4(v4), bits) if net.addr().is_ipv6() => {
            IpNet::new(v4.into(), bits.checked_sub(96)?).ok()?
        }
        _ => net,
    };
    Some(net.trunc())
}

/// Where a list of limits stands; it decides what an unsaid `per` means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Cluster,
    Tier,
    Tenant,
}

/// The limits for everybody.
pub fn shared_limits(r: &mut Reader, tree: &Tree) -> Option<Vec<Arc<Limit>>> {
    limits(r, tree, Place::Cluster)
}

fn limits(r: &mut Reader, tree: &Tree, place: Place) -> Option<Vec<Arc<Limit>>> {
    let mut seen = BTreeSet::new();
    r.list(tree, LIMITS_MAX, |r, t| {
        let limit = limit_in(r, t, place)?;
        let identity = (limit.name.clone(), limit.when.action.clone(), limit.when.client.clone());
        if !seen.insert(identity) {
            r.fault_at(
                "name",
                format!("there is a limit {} with the same match here already", limit.name),
            );
        }
        Some(Arc::new(limit))
    })
}

/// One limit, as a tier, a tenant or a request has it; without `per` it is per tenant.
pub fn limit(r: &mut Reader, tree: &Tree) -> Option<Limit> {
    limit_in(r, tree, Place::Tenant)
}

fn limit_in(r: &mut Reader, tree: &Tree, place: Place) -> Option<Limit> {
    let mut fields = r.fields(tree)?;
    let name = fields.required(r, "name", name);
    let per = |r: &mut Reader, tree: &Tree| {
        let per =
            r.list(tree, DIMENSIONS_MAX, |r, t| r.parsed(t, Dimension::EXPECTED, Dimension::new))?;
        let mut sorted = per.clone();
        sorted.sort();
        sorted.dedup();
        if sorted.len() < per.len() {
            r.fault("names something twice");
        }
        Some(per)
    };
    let per = if place == Place::Cluster {
        // For everybody together or for each? A guess would be wrong half of the time.
        fields.required(r, "per", per)
    } else if fields.has("per") {
        fields.optional(r, "per", per)
    } else {
        fields.optional(r, "per", per);
        Some(vec![Dimension::Tenant])
    };
    if name.as_ref().is_some_and(|name| name.as_str() == CONCURRENCY) {
        r.fault_at("name", "stands for max_concurrent in answers; take another");
    }
    let when = fields.optional(r, "match", matching).unwrap_or_default();
    let rule = rule(r, &mut fields);
    let enforce = fields.optional(r, "enforce", Reader::boolean).unwrap_or(true);
    fields.finish(r);
    Some(Limit { name: name?, per: per?, when, rule: rule?, enforce })
}

fn matching(r: &mut Reader, tree: &Tree) -> Option<Match> {
    let mut fields = r.fields(tree)?;
    let when = Match {
        action: fields.optional(r, "action", label),
        client: fields.optional(r, "client", label),
    };
    fields.finish(r);
    Some(when)
}

fn units(r: &mut Reader, tree: &Tree) -> Option<u64> {
    r.whole(tree, 1..=UNITS_MAX)
}

fn rule(r: &mut Reader, fields: &mut Fields<'_>) -> Option<Rule> {
    const ALGORITHMS: [(&str, &str); 6] = [
        ("token_bucket", "token_bucket"),
        ("leaky_bucket", "leaky_bucket"),
        ("fixed_window", "fixed_window"),
        ("sliding_window", "sliding_window"),
        ("sliding_log", "sliding_log"),
        ("quota", "quota"),
    ];
    let rate = |r: &mut Reader, fields: &mut Fields<'_>| {
        fields.required(r, "rate", |r, t| r.parsed(t, text::RATE, text::parse_rate))
    };
    match fields.required(r, "algorithm", |r, t| r.choice(t, &ALGORITHMS))? {
        "token_bucket" => {
            let rate: Option<Rate> = rate(r, fields);
            let burst = fields.optional(r, "burst", units);
            let initial = fields.optional(r, "initial", |r, t| r.whole(t, 0..=UNITS_MAX));
            let rate = rate?;
            let burst = burst.unwrap_or_else(|| rate.per_second());
            if let Some(initial) = initial.filter(|initial| *initial > burst) {
                r.fault_at("initial", format!("{initial} is more than the burst of {burst}"));
            }
            Some(Rule::TokenBucket(TokenBucket {
                rate,
                burst,
                initial: initial.unwrap_or(burst).min(burst),
            }))
        }
        "leaky_bucket" => {
            let rate = rate(r, fields);
            let burst = fields.optional(r, "burst", units).unwrap_or(1);
            Some(Rule::LeakyBucket(LeakyBucket { rate: rate?, burst }))
        }
        "quota" => quota(r, fields),
        algorithm => {
            let limit = fields.required(r, "limit", units);
            let length = fields
                .required(r, "window", |r, t| r.parsed(t, text::DURATION, text::parse_duration));
            if algorithm == "sliding_log" && limit.is_some_and(|limit| limit > ENTRIES_MAX) {
                let detail = "a sliding_log is exact up to 10000; above that, take sliding_window";
                r.fault_at("limit", detail);
            }
            let window = Window { limit: limit?, length: length? };
            Some(match algorithm {
                "fixed_window" => Rule::FixedWindow(window),
                "sliding_window" => Rule::SlidingWindow(window),
                _ => Rule::SlidingLog(window),
            })
        }
    }
}

fn quota(r: &mut Reader, fields: &mut Fields<'_>) -> Option<Rule> {
    let limit = fields.required(r, "limit", units);
    let period = fields.required(r, "period", |r, t| {
        r.choice(t, &[("day", Period::Day), ("month", Period::Month)])
    });
    let anchor_day = fields.optional(r, "anchor_day", |r, t| r.whole(t, 1..=31)).unwrap_or(1);
    if period == Some(Period::Day) && anchor_day != 1 {
        r.fault_at("anchor_day", "a daily quota has no anchor day");
    }
    let zone = fields.optional(r, "time_zone", |r, t| {
        r.parsed(t, "a time zone, such as UTC or Europe/Berlin", |name| TimeZone::get(name).ok())
    });
    let words = [("deny", OnExceeded::Deny), ("count", OnExceeded::Count)];
    let on_exceeded =
        fields.optional(r, "on_exceeded", |r, t| r.choice(t, &words)).unwrap_or(OnExceeded::Deny);
    let calendar = Calendar {
        period: period?,
        anchor_day: i8::try_from(anchor_day).ok()?,
        zone: zone.unwrap_or(TimeZone::UTC),
    };
    Some(Rule::Quota(Quota { limit: limit?, calendar, on_exceeded }))
}

#[cfg(test)]
mod tests;
