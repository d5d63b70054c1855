//! The policy document and its parts, as they are put and shown.

use serde_json::json;
use utoipa::ToSchema;

use super::limit::{Limits, SharedLimits};
use super::words::{
    Client, Cost, Decimal, Instant, MaxConcurrent, NAME, NO_CONTROLS, Shown, TenantId, TierName,
    bytes, components, form, list, map, text, whole,
};
use crate::check::{METHOD_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::policy::{
    ACCESS_MAX, DIALECTS_MAX, ENTRIES_PER_SECTION_MAX, PATTERN_BYTES_MAX, REASON_BYTES_MAX,
    TENANTS_MAX,
};

components! {
    /// The name of an environment.
    EnvironmentName = text(1..=NAME_BYTES_MAX, NAME), "staging";
    /// The name of an entry of the allow or deny list.
    EntryName = text(1..=NAME_BYTES_MAX, NAME), "office";
    /// A tenant id in which each `*` stands for any text, none included.
    TenantPattern = text(1..=PATTERN_BYTES_MAX, "^[A-Za-z0-9._:*-]+$"), "ent-*";
    /// A path in which `{name}` stands for one part and `{*rest}`, at the end, for all that
    /// follows; `{{` and `}}` stand for braces. At most 2048 bytes of UTF-8, without query.
    PathPattern = text(1..=PATH_BYTES_MAX, r"^/[^\u0000-\u001f\u007f-\u009f?#]*$")
        .format(Some(bytes(PATH_BYTES_MAX))), "/ocr/{job}/process";
    /// An HTTP method, upper and lower case the same; or `*`, which is any.
    MethodOrAny = text(1..=METHOD_BYTES_MAX, r"^([A-Za-z0-9-]+|\*)$"), "POST";
    /// Why, or by whom: text without control characters, at most 1024 bytes of UTF-8.
    Reason = text(0..=REASON_BYTES_MAX, NO_CONTROLS).format(Some(bytes(REASON_BYTES_MAX))), "our own monitoring";
    /// An address or a CIDR range, IPv4 or IPv6. A range is kept from its first address, IPv4
    /// within IPv6 as IPv4.
    IpRange = form("^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$", "ip-range"), "192.0.2.0/24";
    /// The SHA-256 of an API key, 64 hexadecimal digits.
    Sha256 = text(64..=64, "^[0-9A-Fa-f]{64}$"),
        "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    /// The first bits of an IPv4 address, so many as count.
    Ipv4Prefix = whole(1..=32).default(Some(json!(32))), 32;
    /// The first bits of an IPv6 address, so many as count.
    Ipv6Prefix = whole(1..=128).default(Some(json!(64))), 64;
    /// A duration of 1s to 1h, in whole milliseconds.
    PermitTtl = form("^0*[1-9][0-9]{0,6}(ms|s|m|h)$", "duration-text").default(Some(json!("5m"))), "5m";
    /// Tiers by their names.
    Tiers [Tier] = map::<TierName, Tier>(ENTRIES_PER_SECTION_MAX), {"free": {"limits": []}};
    /// Environments by their names.
    Environments [Environment] =
        map::<EnvironmentName, Environment>(ENTRIES_PER_SECTION_MAX), {"staging": {"multiplier": "0.5"}};
    /// Tiers by the form of a tenant's id; the first that fits counts.
    TierPatterns [TierPattern] = list::<TierPattern>(0..=ENTRIES_PER_SECTION_MAX),
        [{"pattern": "ent-*", "tier": "enterprise"}];
    /// Tenants with rules of their own, by their ids.
    Tenants [Tenant] = map::<TenantId, Tenant>(TENANTS_MAX), {"acme": {"tier": "pro"}};
    /// What endpoints cost. Entries for a method come before those for any.
    Costs [EndpointCost] = list::<EndpointCost>(0..=ENTRIES_PER_SECTION_MAX),
        [{"method": "POST", "path": "/ocr/process", "cost": 10}];
    /// Forms of rate limit headers, each once.
    Dialects [Dialect] = list::<Dialect>(0..=DIALECTS_MAX).unique_items(true), ["draft8"];
    /// Entries of the allow and deny lists, by their names.
    Access [AccessEntry] = map::<EntryName, AccessEntry>(ACCESS_MAX),
        {"office": {"list": "allow", "ip": "192.0.2.0/24"}};
}

/// The whole policy: one versioned document of tiers, limits, costs and lists. A `null` is the same
/// as leaving a member out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "default_tier": "free",
    "tiers": {"free": {"limits": [{"name": "rate", "algorithm": "token_bucket", "rate": "5/s", "burst": 10}]}},
    "tenants": {"acme": {"tier": "free"}}
})))]
pub struct Policy {
    /// The tier of tenants that nothing else maps.
    default_tier: TierName,
    /// The tiers. Every tier that is named anywhere has to exist.
    tiers: Tiers,
    /// Of a check that says no cost and whose endpoint has none; 1 if not said.
    default_cost: Option<Cost>,
    /// False is the kill switch: everything is judged and reported, and nothing but the deny list
    /// denies.
    #[schema(default = true, examples(true))]
    enforce: Option<bool>,
    /// Where the tier that a check names is used; `if_unmapped` if not said.
    request_tier: Option<RequestTier>,
    /// The bits of an IPv4 address by which limits and accounts per address count; 32 if not said.
    ipv4_prefix: Option<Ipv4Prefix>,
    /// The bits of an IPv6 address by which limits and accounts per address count; 64 if not said.
    /// An IPv4 address within IPv6 counts as IPv4. The lists know no prefix.
    ipv6_prefix: Option<Ipv6Prefix>,
    /// Multipliers of all configured limits, by environment.
    environments: Option<Environments>,
    /// How answers look. It changes no decision.
    responses: Option<Responses>,
    /// Limits for everybody.
    limits: Option<SharedLimits>,
    /// Tiers by the form of a tenant's id.
    tier_patterns: Option<TierPatterns>,
    /// Tenants with rules of their own.
    tenants: Option<Tenants>,
    /// What endpoints cost.
    costs: Option<Costs>,
    /// The allow and deny lists.
    access: Option<Access>,
}

/// Where the tier that a check names is used: for tenants that neither a rule nor a pattern maps,
/// for all, for none.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("if_unmapped"))]
pub enum RequestTier {
    IfUnmapped,
    Always,
    Ignore,
}

/// How answers look.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"headers": ["draft8", "x"], "x_reset": "epoch", "denial_body": "problem"})))]
pub struct Responses {
    /// The forms of rate limit headers, side by side; `["draft8"]` if not said, none if empty.
    headers: Option<Dialects>,
    /// What `X-RateLimit-Reset` means; `epoch` if not said.
    x_reset: Option<XReset>,
    /// The body of a denial that is sent as 429; `problem` if not said.
    denial_body: Option<DenialBody>,
}

/// One form of rate limit headers: `RateLimit-Policy` and `RateLimit`; `RateLimit-Limit` and its
/// kin; `X-RateLimit-Limit` and its kin; `X-RateLimit-Limit-Minute` and its kin.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("draft8"))]
pub enum Dialect {
    Draft8,
    Legacy,
    X,
    PerWindow,
}

/// Unix seconds, or seconds from now.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("epoch"))]
pub enum XReset {
    Epoch,
    Delta,
}

/// A problem document with the members of the decision; `{"error": …}` with the members of a
/// problem; `{"error": …}` with a code and a message.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("problem"))]
pub enum DenialBody {
    Problem,
    EnvelopedProblem,
    EnvelopedCode,
}

/// One environment.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Every configured limit is multiplied by this on nodes of the environment: rates exactly, the
    /// rest rounded down.
    multiplier: Decimal,
}

/// A named set of limits. Without `limits` and `max_concurrent` it is unlimited.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "max_concurrent": 50,
    "limits": [{"name": "minute", "algorithm": "sliding_window", "limit": 100, "window": "1m"}]
})))]
pub struct Tier {
    /// Its limits.
    limits: Option<Limits>,
    /// Permits out at a time, for each tenant; no bound if not said. Judged for checks that ask for
    /// a permit.
    max_concurrent: Option<MaxConcurrent>,
    /// The longest time of a permit: 1s to 1h, 5m if not said. After a crash of the node that owns
    /// a tenant, no permit of the tenant is granted for as long. A tier that was stored before it
    /// could say so has 1h.
    max_permit_ttl: Option<PermitTtl>,
    /// Its share of scarce capacity, beside waiting tenants of other tiers; 1 if not said.
    weight: Option<Decimal>,
    /// Every cost times this, exact, rounded up, at least 1; 1 if not said.
    cost_multiplier: Option<Decimal>,
    /// What becomes of limits that a check brings along; `instead` if not said.
    request_limits: Option<RequestLimitsUse>,
    /// What a node does that can't reach a tenant's owner; `share` if not said.
    on_isolation: Option<OnIsolation>,
}

/// Limits that a check brings along stand in for the tier's, are judged beside them, or are
/// refused.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("instead"))]
pub enum RequestLimitsUse {
    Instead,
    Also,
    Refuse,
}

/// What a node does that can't reach a tenant's owner: allow its share of the rate, deny, or allow.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("share"))]
pub enum OnIsolation {
    Share,
    Deny,
    Open,
}

/// A tenant's own rules.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"tier": "pro", "tier_expires": "2027-01-01T00:00:00Z"})))]
pub struct Tenant {
    /// Its tier; if not said, pattern, check or default decide.
    tier: Option<TierName>,
    /// From then on its tier doesn't count; only together with `tier`.
    tier_expires: Option<Instant>,
    /// Instead of the tier's.
    max_concurrent: Option<MaxConcurrent>,
    /// Instead of the tier's.
    on_isolation: Option<OnIsolation>,
    /// Limits that stand before the tier's of the same name.
    limits: Option<Limits>,
}

/// Tenants whose id has a certain form.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TierPattern {
    /// The form.
    pattern: TenantPattern,
    /// Their tier.
    tier: TierName,
}

/// What calls of one endpoint cost.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointCost {
    /// The method; any if not said, or `*`.
    method: Option<MethodOrAny>,
    /// The paths.
    path: PathPattern,
    /// Units of a check that says no cost itself.
    cost: Cost,
}

/// Entries of the lists: whom they name, then what all have in common.
macro_rules! access_entries {
    ($($(#[doc = $doc:literal])+ $name:ident { $(#[doc = $of:literal])+ $field:ident: $type:ty })+) => {$(
        $(#[doc = $doc])+
        #[derive(ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Which list. Who is on both is denied.
            list: List,
            $(#[doc = $of])+
            $field: $type,
            /// Shown in answers that the entry decided.
            reason: Option<Reason>,
            /// By whom, for the record.
            added_by: Option<Reason>,
            /// Since when, for the record.
            added_at: Option<Instant>,
            /// From then on the entry doesn't count.
            expires: Option<Instant>,
        }
    )+};
}

access_entries! {
    /// An entry for a tenant.
    TenantEntry {
        /// The tenant it names.
        tenant: TenantId
    }
    /// An entry for a client.
    ClientEntry {
        /// The client it names, whatever its tenant.
        client: Client
    }
    /// An entry for addresses.
    IpEntry {
        /// The address or range it names.
        ip: IpRange
    }
    /// An entry for an API key.
    ApiKeyEntry {
        /// The API key it names.
        api_key_sha256: Sha256
    }
}

/// One entry of the allow or deny list. It names exactly one of a tenant, a client, addresses, an
/// API key.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({"list": "deny", "ip": "198.51.100.0/24", "reason": "abuse"})))]
pub enum AccessEntry {
    Tenant(TenantEntry),
    Client(ClientEntry),
    Ip(IpEntry),
    ApiKey(ApiKeyEntry),
}

/// Allowed passes unjudged and consumes nothing; denied is denied at once.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("allow"))]
pub enum List {
    Allow,
    Deny,
}
