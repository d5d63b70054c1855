//! One limit: the same shape in the policy, in an edit and in a check; a variant for each
//! algorithm, since each has its own numbers and refuses those of the others.

use serde_json::json;
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder};
use utoipa::openapi::{AllOfBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::words::{
    Action, Client, NAME, Shown, Units, UnitsOrNone, components, form, list, only, reference, text,
    whole,
};
use crate::check::{DIMENSIONS_MAX, NAME_BYTES_MAX, REQUEST_LIMITS_MAX};
use crate::limit::ENTRIES_MAX;
use crate::policy::LIMITS_MAX;

components! {
    /// The name of a limit. `concurrency` stands for `max_concurrent` in answers, so no limit may
    /// be called that.
    LimitName = text(1..=NAME_BYTES_MAX, &NAME.replace('^', "^(?!concurrency$)")), "minute";
    /// What buckets can be keyed by: `tenant`, `client`, `action`, `ip`, `api_key`, `method`,
    /// `path` (as sent), `endpoint` (method and path, ids folded) or `attribute:NAME`.
    Dimension = form(
        &format!(
            "^(tenant|client|action|ip|api_key|method|path|endpoint|attribute:[A-Za-z0-9._-]{{1,{NAME_BYTES_MAX}}})$"
        ),
        "dimension",
    ), "tenant";
    /// What a bucket is keyed by, each dimension once. Empty: one bucket for everybody.
    Per [Dimension] = list::<Dimension>(0..=DIMENSIONS_MAX).unique_items(true), ["tenant", "client"];
    /// A whole number and `ms`, `s`, `m`, `h`, `d` or `w`: 1 ms to 3660 d (ten years).
    Duration = form("^0*[1-9][0-9]{0,11}(ms|s|m|h|d|w)$", "duration-text"), "1m";
    /// A whole number of 1 to 15 digits per unit or duration: `5/s`, `10/m`, `1/10s`. Exact, never
    /// rounded.
    Rate = form("^0*[1-9][0-9]{0,14}/(0*[1-9][0-9]{0,11})?(ms|s|m|h|d|w)$", "rate-text"), "5/s";
    /// Admissions that a sliding log remembers, each of them to the nanosecond. Above that, take a
    /// sliding window.
    LogUnits = whole(1..=ENTRIES_MAX), 10;
    /// The day of a month on which a month begins; where a month lacks the day, its last day stands
    /// in.
    AnchorDay = whole(1..=31).default(Some(json!(1))), 15;
    /// The name of a time zone in the IANA database.
    TimeZone = form("^[A-Za-z0-9_+/-]{1,64}$", "time-zone").default(Some(json!("UTC"))), "Europe/Berlin";
    /// Limits that a request brings along, each name once. They stand in for those of the tenant's
    /// tier, as the tier's `request_limits` says; limits for everybody and the tenant's own are
    /// judged in any case.
    RequestLimits [Limit] = list::<Limit>(0..=REQUEST_LIMITS_MAX), [
        {"name": "adhoc", "per": ["tenant", "client"], "algorithm": "sliding_log", "limit": 10, "window": "1m"}
    ];
    /// Limits of a tier or a tenant; each name once for each `match`.
    Limits [Limit] = list::<Limit>(0..=LIMITS_MAX), [
        {"name": "minute", "algorithm": "sliding_window", "limit": 100, "window": "1m"}
    ];
    /// Limits for everybody. Here `per` has to be said.
    SharedLimits [Limit] = ArrayBuilder::new().items(RefOr::T(shared_limit())).max_items(Some(LIMITS_MAX)), [
        {"name": "per-ip", "per": ["ip"], "algorithm": "fixed_window", "limit": 10000, "window": "1m"}
    ];
}

fn shared_limit() -> Schema {
    let mut says_per = Object::new();
    says_per.required.push("per".into());
    AllOfBuilder::new().item(reference::<Limit>()).item(Schema::from(says_per)).build().into()
}

/// Which checks a limit is for: those with exactly this action, of exactly this client, or both.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"action": "export"})))]
pub struct Match {
    /// The action.
    action: Option<Action>,
    /// The client.
    client: Option<Client>,
}

/// What is done with checks beyond a quota: they are denied, or only counted (overage).
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("deny"))]
pub enum OnExceeded {
    Deny,
    Count,
}

/// Limits of one algorithm each: what all have in common, then their own numbers.
macro_rules! algorithms {
    ($($(#[doc = $doc:literal])+ $name:ident($algorithm:ident) {
        $($(#[$attribute:meta])+ $field:ident: $type:ty,)+
    })+) => {$(
        $(#[doc = $doc])+
        #[derive(ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Limits of one name replace each other, the more specific the more general.
            name: LimitName,
            /// What its buckets are keyed by; `["tenant"]` if not said, except for limits for
            /// everybody, which have to say.
            per: Option<Per>,
            /// The checks it is for; all if not said.
            #[schema(rename = "match")]
            when: Option<Match>,
            #[schema(schema_with = $algorithm)]
            algorithm: String,
            $($(#[$attribute])+ $field: $type,)+
            /// False is shadow mode: judged, counted and reported, and never denies.
            #[schema(default = true, examples(false))]
            enforce: Option<bool>,
        }
    )+};
}

fn token_bucket() -> ObjectBuilder {
    only("token_bucket", "How it counts. Tells the shapes of limits apart.")
}

fn leaky_bucket() -> ObjectBuilder {
    only("leaky_bucket", "How it counts. Tells the shapes of limits apart.")
}

fn fixed_window() -> ObjectBuilder {
    only("fixed_window", "How it counts. Tells the shapes of limits apart.")
}

fn sliding_window() -> ObjectBuilder {
    only("sliding_window", "How it counts. Tells the shapes of limits apart.")
}

fn sliding_log() -> ObjectBuilder {
    only("sliding_log", "How it counts. Tells the shapes of limits apart.")
}

fn quota() -> ObjectBuilder {
    only("quota", "How it counts. Tells the shapes of limits apart.")
}

fn day() -> ObjectBuilder {
    only("day", "When it begins anew. Tells a day\'s quota from a month\'s.")
}

fn month() -> ObjectBuilder {
    only("month", "When it begins anew. Tells a day\'s quota from a month\'s.")
}

algorithms! {
    /// Holds up to `burst` units and gains `rate`; a cost passes if that much is there.
    TokenBucketLimit(token_bucket) {
        /// What it gains.
        rate: Rate,
        /// The most that passes at once, from idle; if not said, what `rate` gives in a second, at
        /// least 1.
        burst: Option<Units>,
        /// What a new bucket holds, at most `burst`, which is the default.
        initial: Option<UnitsOrNone>,
    }
    /// GCRA: at most `burst` at once from idle, then one every interval of the rate.
    LeakyBucketLimit(leaky_bucket) {
        /// What it lets through, evenly.
        rate: Rate,
        /// The most that passes at once, from idle; 1 if not said.
        burst: Option<Units>,
    }
    /// Windows that begin at multiples of their length since 1970-01-01T00:00:00Z; each forgets the
    /// one before at once.
    FixedWindowLimit(fixed_window) {
        /// Units in one window.
        limit: Units,
        /// Its length.
        window: Duration,
    }
    /// The window before counts for as much of it as still lies within the last `window`.
    SlidingWindowLimit(sliding_window) {
        /// Units in any one window, by that estimate.
        limit: Units,
        /// Its length.
        window: Duration,
    }
    /// Every admission of the last `window` counts, exact to the nanosecond.
    SlidingLogLimit(sliding_log) {
        /// Units in any one window.
        limit: LogUnits,
        /// Its length.
        window: Duration,
    }
    /// So much in a calendar day.
    DailyQuota(quota) {
        /// Units in one day.
        limit: Units,
        #[schema(schema_with = day)]
        period: String,
        /// Whose midnight it is, summer time included.
        time_zone: Option<TimeZone>,
        /// What becomes of checks beyond it; `deny` if not said.
        on_exceeded: Option<OnExceeded>,
    }
    /// So much in a calendar month.
    MonthlyQuota(quota) {
        /// Units in one month.
        limit: Units,
        #[schema(schema_with = month)]
        period: String,
        /// The day on which months begin.
        anchor_day: Option<AnchorDay>,
        /// Whose midnight it is, summer time included.
        time_zone: Option<TimeZone>,
        /// What becomes of checks beyond it; `deny` if not said.
        on_exceeded: Option<OnExceeded>,
    }
}

/// One rule and its numbers. `algorithm` says which numbers; those of another algorithm are errors.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({"name": "minute", "algorithm": "sliding_window", "limit": 100, "window": "1m"})))]
pub enum Limit {
    TokenBucket(TokenBucketLimit),
    LeakyBucket(LeakyBucketLimit),
    FixedWindow(FixedWindowLimit),
    SlidingWindow(SlidingWindowLimit),
    SlidingLog(SlidingLogLimit),
    DailyQuota(DailyQuota),
    MonthlyQuota(MonthlyQuota),
}

/// A limit whose name stands in the path: as [`Limit`], and the name may be left out.
pub struct NamedLimit;

impl PartialSchema for NamedLimit {
    fn schema() -> RefOr<Schema> {
        let mut limit = Limit::schema();
        if let RefOr::T(Schema::OneOf(variants)) = &mut limit {
            variants.items = variants_without_required_name();
            variants.description = Some(
                "One rule and its numbers. Its name stands in the path; the body may repeat it, \
                 and nothing else."
                    .into(),
            );
            variants.examples =
                vec![json!({"algorithm": "sliding_window", "limit": 100, "window": "1m"})];
        }
        limit
    }
}

impl ToSchema for NamedLimit {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Limit::schemas(schemas);
    }
}

fn variants_without_required_name() -> Vec<RefOr<Schema>> {
    let variants = [
        TokenBucketLimit::schema(),
        LeakyBucketLimit::schema(),
        FixedWindowLimit::schema(),
        SlidingWindowLimit::schema(),
        SlidingLogLimit::schema(),
        DailyQuota::schema(),
        MonthlyQuota::schema(),
    ];
    let nameless = |mut variant| {
        if let RefOr::T(Schema::Object(object)) = &mut variant {
            object.required.retain(|member| member != "name");
        }
        variant
    };
    variants.into_iter().map(nameless).collect()
}
