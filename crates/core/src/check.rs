//! The vocabulary: what a check asks, what a limit is, what a decision answers.
//!
//! Values are validated where they enter, by the constructors here, and trusted afterwards. A
//! [`Check`] says who wants to do what at which cost; a [`Limit`] is one rule with its numbers and
//! what its buckets are keyed by, the same shape whether it comes from the cluster, a tier, a
//! tenant or the request itself; a [`Decision`] is the whole answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::limit::{Outcome, Rule};
pub use crate::permit::PermitId;

/// The longest tenant id, in bytes.
pub const TENANT_BYTES_MAX: usize = 128;
/// The longest limit, tier, environment or attribute name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest client, action or attribute value, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// The longest path, in bytes; what follows a `?` is not part of it.
pub const PATH_BYTES_MAX: usize = 2048;
/// The longest request id, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 256;
/// The longest API key, in bytes.
pub const API_KEY_BYTES_MAX: usize = 1024;
/// The longest HTTP method, in bytes.
pub const METHOD_BYTES_MAX: usize = 32;
/// Dimensions that one limit is keyed by.
pub const DIMENSIONS_MAX: usize = 16;
/// Attributes in one check.
pub const ATTRIBUTES_MAX: usize = 16;
/// Limits sent with one check.
pub const REQUEST_LIMITS_MAX: usize = 16;
/// The shortest and longest time a permit may be asked for, in milliseconds: a second to an hour.
pub const PERMIT_TTL_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// The time of a permit whose check names none, in milliseconds; less where its tier allows less.
pub const PERMIT_TTL_MS_DEFAULT: u64 = 30_000;
/// In a check or a renewal: the caller names no time for its permit. The router replaces it.
pub const PERMIT_TTL_UNSAID: u64 = 0;
/// How long a check may be willing to wait for its answer, in milliseconds.
pub const DEADLINE_MS: std::ops::RangeInclusive<u64> = 1..=60_000;
/// The deadline of a check that names none, in milliseconds: as long as a hold on a shared limit
/// may last.
pub const DEADLINE_MS_DEFAULT: u64 = 1_000;
/// The tenant of requests that name none.
pub const ANONYMOUS: &str = "anonymous";

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(CompactString);

        impl $name {
            /// What a valid one looks like, for error messages.
            pub const EXPECTED: &'static str = $what;

            /// The value, if it is a valid one.
            pub fn new(text: &str) -> Option<Self> {
                let valid: fn(&str) -> bool = $valid;
                valid(text).then(|| Self(text.into()))
            }

            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                Self::new(&text).ok_or_else(|| format!("{text:?} is not {}", $what))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.into()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type! {
    /// Who is limited.
    TenantId, "a tenant id: 1 to 128 of A-Z a-z 0-9 . _ : -",
    |s| (1..=TENANT_BYTES_MAX).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}
text_type! {
    /// The name of a limit, a tier, an environment, an attribute or a list entry.
    Name, "a name: 1 to 64 of A-Z a-z 0-9 . _ -",
    |s| (1..=NAME_BYTES_MAX).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
text_type! {
    /// A client, an action, or the value of an attribute.
    Label, "text of 1 to 256 bytes without control characters",
    |s| (1..=LABEL_BYTES_MAX).contains(&s.len()) && !s.chars().any(char::is_control)
}
text_type! {
    /// An HTTP method.
    Method, "an HTTP method: 1 to 32 letters, digits or -",
    |s| (1..=METHOD_BYTES_MAX).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
text_type! {
    /// The path of a request, without its query.
    Path, "a path: it starts with /, has at most 2048 bytes and no control characters",
    |s| s.starts_with('/') && s.len() <= PATH_BYTES_MAX && !s.chars().any(char::is_control)
}
text_type! {
    /// The caller's name for one check, by which a repetition is known.
    RequestId, "a request id: 1 to 256 visible ASCII characters",
    |s| (1..=REQUEST_ID_BYTES_MAX).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic())
}

/// The SHA-256 of an API key. The key itself is dropped at the door; digests of high-entropy keys
/// give nothing away.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKeyDigest([u8; 32]);

impl ApiKeyDigest {
    /// The digest of `key`.
    pub fn of(key: &str) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(key.as_bytes()).into())
    }

    /// Parses 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The digest that another node tells by its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// The units a check takes from every limit: 1 to 4,294,967,295.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cost(std::num::NonZeroU32);

impl Cost {
    /// The cost of a check that names none.
    pub const ONE: Self = Self(std::num::NonZeroU32::MIN);

    /// A cost of `units`, if that is at least 1.
    pub fn new(units: u32) -> Option<Self> {
        std::num::NonZeroU32::new(units).map(Self)
    }

    /// The units.
    pub fn get(self) -> u64 {
        u64::from(self.0.get())
    }
}

/// What a bucket can be keyed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// The tenant; a limit without it is shared by all tenants.
    Tenant,
    /// The client (a user of the tenant).
    Client,
    /// The action.
    Action,
    /// The IP address.
    Ip,
    /// The API key.
    ApiKey,
    /// The HTTP method.
    Method,
    /// The path as sent.
    Path,
    /// Method and path, ids in the path folded (`GET /users/{id}`).
    Endpoint,
    /// An attribute of the check.
    Attribute(Name),
}

impl Dimension {
    /// What `per` may list, for error messages.
    pub const EXPECTED: &'static str =
        "one of tenant, client, action, ip, api_key, method, path, endpoint, attribute:NAME";

    /// Parses `tenant`, `ip`, `attribute:region`, ….
    pub fn new(text: &str) -> Option<Self> {
        Some(match text {
            "tenant" => Self::Tenant,
            "client" => Self::Client,
            "action" => Self::Action,
            "ip" => Self::Ip,
            "api_key" => Self::ApiKey,
            "method" => Self::Method,
            "path" => Self::Path,
            "endpoint" => Self::Endpoint,
            _ => Self::Attribute(Name::new(text.strip_prefix("attribute:")?)?),
        })
    }
}

impl Dimension {
    /// The word for it; none for attributes, which have names.
    pub fn word(&self) -> Option<&'static str> {
        Some(match self {
            Self::Tenant => "tenant",
            Self::Client => "client",
            Self::Action => "action",
            Self::Ip => "ip",
            Self::ApiKey => "api_key",
            Self::Method => "method",
            Self::Path => "path",
            Self::Endpoint => "endpoint",
            Self::Attribute(_) => return None,
        })
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.word()) {
            (Self::Attribute(name), _) => write!(f, "attribute:{name}"),
            (_, word) => f.write_str(word.unwrap_or_default()),
        }
    }
}

/// Which checks a limit is for, beyond its place: all, those of one action, of one client, or of
/// both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// Only checks with this action.
    pub action: Option<Label>,
    /// Only checks of this client.
    pub client: Option<Label>,
}

impl Match {
    /// Whether the limit is for `check`.
    pub fn fits(&self, check: &Check) -> bool {
        (self.client.is_none() || self.client == check.client)
            && (self.action.is_none() || self.action == check.action)
    }

    /// How specific it is: client over action over neither (P3).
    pub fn rank(&self) -> u8 {
        u8::from(self.client.is_some()) * 2 + u8::from(self.action.is_some())
    }
}

/// ` for action export of client ann`; nothing where all checks match.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(action) = &self.action {
            write!(f, " for action {action}")?;
        }
        if let Some(client) = &self.client {
            write!(f, " of client {client}")?;
        }
        Ok(())
    }
}

/// One rule and its numbers, with what its buckets are keyed by.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// By which a more specific limit replaces it.
    pub name: Name,
    /// What a bucket is keyed by; empty is one bucket for everybody.
    pub per: Vec<Dimension>,
    /// Which checks it is for.
    pub when: Match,
    /// The algorithm and its numbers.
    pub rule: Rule,
    /// False: judged and reported, never denies (P12).
    pub enforce: bool,
}

/// One question: may this tenant do this now, at this cost?
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Who asks.
    pub tenant: TenantId,
    /// The tier the caller names, used where the policy lets it.
    pub tier: Option<Name>,
    /// The user of the tenant.
    pub client: Option<Label>,
    /// What is to be done.
    pub action: Option<Label>,
    /// The method of the request behind the check.
    pub method: Option<Method>,
    /// Its path.
    pub path: Option<Path>,
    /// Where it comes from; IPv4 in IPv6 clothes is IPv4 here.
    pub ip: Option<IpAddr>,
    /// The digest of its API key.
    pub api_key: Option<ApiKeyDigest>,
    /// Further values that limits may be keyed by.
    pub attributes: BTreeMap<Name, Label>,
    /// Units to take; none: the endpoint's cost, or the default.
    pub cost: Option<Cost>,
    /// How long the caller waits for the answer, in milliseconds.
    pub deadline_ms: u64,
    /// By which a repetition is known.
    pub request_id: Option<RequestId>,
    /// For how long a concurrency permit is asked for, in milliseconds, or [`PERMIT_TTL_UNSAID`];
    /// none asks for no permit.
    pub permit_ttl_ms: Option<u64>,
    /// Limits the request brings along (P8).
    pub limits: Vec<Arc<Limit>>,
}

impl Check {
    /// A check of `tenant` with nothing else said.
    pub fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            tier: None,
            client: None,
            action: None,
            method: None,
            path: None,
            ip: None,
            api_key: None,
            attributes: BTreeMap::new(),
            cost: None,
            deadline_ms: DEADLINE_MS_DEFAULT,
            request_id: None,
            permit_ttl_ms: None,
            limits: Vec::new(),
        }
    }

    /// The id of the state that is charged: the tenant's, but for `anonymous` one for each address
    /// as the router counts it (P2). No tenant id contains an `@`, so the two kinds never meet.
    pub fn account(&self) -> Cow<'_, str> {
        match self.ip {
            Some(ip) if self.tenant.as_str() == ANONYMOUS => format!("{ANONYMOUS}@{ip}").into(),
            _ => self.tenant.as_str().into(),
        }
    }
}

/// What one limit says to a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The limit that was asked.
    pub limit: Arc<Limit>,
    /// What it said.
    pub outcome: Outcome,
    /// Units left after this decision.
    pub remaining: u64,
    /// Nanoseconds until it is whole again, or its window ends.
    pub reset_after: u64,
    /// How exactly it was judged.
    pub exactness: Exactness,
}

impl Verdict {
    /// Whether it was judged to the unit.
    pub fn is_exact(&self) -> bool {
        self.exactness == Exactness::Exact
    }
}

/// How exactly a limit was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exactness {
    /// To the unit.
    #[default]
    Exact,
    /// In a bucket shared with other keys, because a cap on keys was reached.
    KeyCap,
    /// By an owner that lost which permits are in flight, so that it grants none for a while.
    ColdStart,
}

/// What the limits of one check said; most checks have one or two.
pub type Verdicts = SmallVec<[Verdict; 2]>;

/// Why a check was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A rate: a bucket or a window is used up.
    Rate,
    /// Too many in flight.
    Concurrency,
    /// The day's or month's quota is used up.
    Quota,
    /// The deny list names it.
    DenyList,
    /// It costs more than the limit can ever hold.
    CostExceedsCapacity,
}

/// The limit or list entry that denied.
#[derive(Clone, Debug, PartialEq)]
pub struct DeniedBy {
    /// Its name.
    pub name: Name,
    /// What its bucket is keyed by, or what kind of thing the list entry names.
    pub scope: Vec<Dimension>,
    /// Why.
    pub reason: Reason,
}

/// A permit that a decision hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// By which it is released or renewed.
    pub id: PermitId,
    /// Nanoseconds until it expires by itself.
    pub expires_in: u64,
}

/// An allow-list entry that let a check pass unjudged.
#[derive(Clone, Debug, PartialEq)]
pub struct Bypass {
    /// The entry's name.
    pub list: Name,
    /// The reason written beside it.
    pub reason: String,
}

/// The whole answer to a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Who asked.
    pub tenant: TenantId,
    /// The tier it was judged by; none where a list decided before any tier was looked up.
    pub tier: Option<Name>,
    /// The units it took, or would have taken.
    pub cost: u64,
    /// What each limit said, in the order of their names.
    pub verdicts: Verdicts,
    /// Who denied it.
    pub denied_by: Option<Box<DeniedBy>>,
    /// Nanoseconds after which a lone caller would be admitted; none: never, or not denied.
    pub retry_after: Option<u64>,
    /// The slot it got, if it asked for one.
    pub permit: Option<Permit>,
    /// True where this is the answer to an earlier check of the same request id.
    pub replayed: bool,
    /// The allow-list entry that let it pass.
    pub bypass: Option<Box<Bypass>>,
    /// The version of the policy it was judged by.
    pub policy_version: u64,
    /// The epoch under which its tenant's partition was owned.
    pub epoch: u64,
    /// The node that decided; none is the one that was asked.
    pub node: Option<Box<Name>>,
}

impl Decision {
    /// The verdict that stands for the whole answer. Allowed: the least remaining, on a tie the
    /// longest reset. Denied: the denying one with the longest wait. Shadow limits never stand for
    /// it.
    pub fn tightest(&self) -> Option<&Verdict> {
        let enforced = self.verdicts.iter().filter(|v| v.limit.enforce);
        if self.allowed {
            enforced.min_by_key(|v| (v.remaining, std::cmp::Reverse(v.reset_after)))
        } else {
            // What somebody else holds may come back: it denies nothing.
            let denying =
                enforced.filter(|v| matches!(v.outcome, Outcome::Wait(_) | Outcome::Never));
            denying.max_by_key(|v| {
                (v.outcome.retry_after().unwrap_or(u64::MAX), std::cmp::Reverse(&v.limit.name))
            })
        }
    }

    /// Fills in who denied it and how long to wait, from the verdicts.
    pub fn deny(&mut self) {
        self.allowed = false;
        let Some(verdict) = self.tightest() else { return };
        let reason = match (&verdict.limit.rule, verdict.outcome) {
            (_, Outcome::Never) => Reason::CostExceedsCapacity,
            (Rule::Concurrency { .. }, _) => Reason::Concurrency,
            (Rule::Quota(_), _) => Reason::Quota,
            _ => Reason::Rate,
        };
        let denied_by =
            DeniedBy { name: verdict.limit.name.clone(), scope: verdict.limit.per.clone(), reason };
        self.retry_after = verdict.outcome.retry_after();
        self.denied_by = Some(Box::new(denied_by));
    }

    /// Whether some verdict is not exact.
    pub fn approximate(&self) -> bool {
        self.exactness() != Exactness::Exact
    }

    /// How exact the whole answer is. A cold start is named before a cap on keys: it ends by
    /// itself.
    pub fn exactness(&self) -> Exactness {
        let is = |exactness| self.verdicts.iter().any(|verdict| verdict.exactness == exactness);
        match (is(Exactness::ColdStart), is(Exactness::KeyCap)) {
            (true, _) => Exactness::ColdStart,
            (false, true) => Exactness::KeyCap,
            (false, false) => Exactness::Exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_small_enough_to_be_handed_on() {
        // It goes from a shard through a channel to the door, and through a vector or two in a
        // batch.
        assert!(size_of::<Decision>() <= 304, "{}", size_of::<Decision>());
    }

    #[test]
    fn tenant_ids_and_names_take_what_the_grammar_says_and_nothing_else() {
        for good in ["a", "acme", "a.b_c:d-e", &"x".repeat(128)] {
            assert!(TenantId::new(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "a\n", "ä", "a/b", "a@b", &"x".repeat(129)] {
            assert!(TenantId::new(bad).is_none(), "{bad}");
        }
        assert!(Name::new("a:b").is_none() && Name::new("a.b_c-d").is_some());
        assert!(
            Label::new("Ärger & co").is_some()
                && Label::new("a\0").is_none()
                && Label::new("").is_none()
        );
    }

    #[test]
    fn anonymous_is_charged_by_address() {
        let mut check = Check::of(TenantId::new(ANONYMOUS).unwrap());
        assert_eq!(&*check.account(), "anonymous");
        check.ip = Some("203.0.113.9".parse().unwrap());
        assert_eq!(&*check.account(), "anonymous@203.0.113.9");
    }
}
