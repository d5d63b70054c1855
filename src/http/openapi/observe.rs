//! Metrics, statistics and alerts.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::Get;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, OneOfBuilder, Type};

use super::call::{Access, Answer, Call};
use super::ops::OPERATIONS;
use super::words::{
    Instant, Shown, TierName, at_least, components, form, formatted, map, one_of, reference, whole,
};
use crate::http::audit::{PAGE_DEFAULT, PAGE_MAX};
use crate::shard::TIERS_MAX;

/// The tag of these calls.
pub const OBSERVING: &str = "observing";

components! {
    /// A time that ends now: the last 60 minutes, 1,440 minutes or 168 hours, the running one
    /// included.
    PeriodName = one_of(["1h", "24h", "7d"]), "1h";
    /// A day of UTC, from 1970 on: today, or one of the 30 before.
    Date = formatted(KnownFormat::Date), "2027-01-31";
    /// A number of decisions.
    Count = at_least(0), 1200;
    /// The share of denials, 0 to 1; 0 where nothing was decided.
    BlockRate = utoipa::openapi::schema::ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(1)),
        0.25;
    /// Decisions by the tier they were judged by; `_other` stands for tiers beyond a bound on them.
    ByTier [Amounts] = map::<TierName, Amounts>(TIERS_MAX + 1),
        {"pro": {"total": 1200, "allowed": 900, "blocked": 300, "block_rate": 0.25}};
    /// Denials by the first of what the denying limit is keyed by: `tenant`, `ip`, …; `global`
    /// where it is for everybody.
    ByScope [Count] = map::<ScopeName, Count>(ScopeName::ALL.len()), {"tenant": 280, "ip": 20};
    /// The first of what a limit is keyed by.
    ScopeName = one_of(ScopeName::ALL), "tenant";
    /// What statistics answer: all periods, one of them, or a day.
    Statistics [AllPeriods, OfPeriod, OfDate] = OneOfBuilder::new()
        .item(reference::<AllPeriods>())
        .item(reference::<OfPeriod>())
        .item(reference::<OfDate>()),
        {"period": "1h", "from": "2027-01-31T12:00:00Z", "to": "2027-01-31T12:59:30Z", "total": 1200, "allowed": 900,
         "blocked": 300, "block_rate": 0.25, "by_tier": {}, "by_list": {"allow": 0, "deny": 0}, "blocked_by_scope": {}};
    /// Lines on one page, at most.
    AuditPageLimit = whole(1..=PAGE_MAX).default(Some(serde_json::json!(PAGE_DEFAULT))), 100;
    /// Lines before this one: what `next` said, unchanged. Empty is the newest.
    AuditCursor = form("^[0-9]{0,19}$", "cursor"), "4711";
    /// The entry of the cluster's log that a line tells of. It rises, and names the line.
    AuditIndex = at_least(0), 4711;
    /// The lines on a page, newest first.
    AuditLines [AuditLine] = ArrayBuilder::new().items(reference::<AuditLine>()).max_items(Some(PAGE_MAX as usize)),
        [{"index": 4711, "time": "2027-01-31T12:00:00Z", "by": "ops", "what": "put tier pro"}];
    /// What to look at; empty is well.
    AlertList [Alert] = ArrayBuilder::new().items(reference::<Alert>()), [
        {"severity": "warning", "name": "block_rate", "value": 0.4, "threshold": 0.3,
         "detail": "480 of 1200 checks in the last hour were denied: more than 30 %"}
    ];
}

impl ScopeName {
    const ALL: [&'static str; 10] = [
        "global",
        "tenant",
        "client",
        "action",
        "ip",
        "api_key",
        "method",
        "path",
        "endpoint",
        "attribute",
    ];
}

macro_rules! summaries {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $of:literal])+ $field:ident: $type:ty)? })+) => {$(
        $(#[doc = $doc])+
        #[derive(ToSchema)]
        pub struct $name {
            $($(#[doc = $of])+ $field: $type,)?
            /// Where it begins.
            from: Instant,
            /// Where it ends, to the second.
            to: Instant,
            /// All decisions.
            total: Count,
            /// Those that allowed.
            allowed: Count,
            /// Those that denied.
            blocked: Count,
            /// Those that denied, as a share.
            block_rate: BlockRate,
            /// Decisions by tier.
            by_tier: ByTier,
            /// Decisions of the allow and deny lists, which belong to no tier.
            by_list: ByList,
            /// Denials by scope.
            blocked_by_scope: ByScope,
        }
    )+};
}

summaries! {
    /// What was decided in a period that ends now.
    OfPeriod {
        /// Which.
        period: PeriodName
    }
    /// What was decided on a day.
    OfDate {
        /// Which.
        date: Date
    }
}

/// What was decided in each period.
#[derive(ToSchema)]
pub struct AllPeriods {
    /// By the names of the periods.
    periods: Periods,
}

/// The periods.
#[derive(ToSchema)]
pub struct Periods {
    /// The last 60 minutes.
    #[schema(rename = "1h")]
    hour: OfPeriod,
    /// The last 1,440 minutes.
    #[schema(rename = "24h")]
    day: OfPeriod,
    /// The last 168 hours.
    #[schema(rename = "7d")]
    week: OfPeriod,
}

/// Decisions of one tier.
#[derive(ToSchema)]
pub struct Amounts {
    /// All of them.
    total: Count,
    /// Those that allowed.
    allowed: Count,
    /// Those that denied.
    blocked: Count,
    /// Those that denied, as a share.
    block_rate: BlockRate,
}

/// Decisions of the lists.
#[derive(ToSchema)]
pub struct ByList {
    /// Passed unjudged.
    allow: Count,
    /// Denied at once.
    deny: Count,
}

/// The alerts of the last hour.
#[derive(ToSchema)]
pub struct Alerts {
    /// Where the hour begins.
    from: Instant,
    /// Where it ends.
    to: Instant,
    /// What to look at.
    alerts: AlertList,
}

/// Something to look at.
#[derive(ToSchema)]
pub struct Alert {
    /// How urgent it is.
    severity: Severity,
    /// What it is about.
    name: AlertName,
    /// In words.
    #[schema(examples("480 of 1200 checks in the last hour were denied: more than 30 %"))]
    detail: String,
    /// What was measured: a share from 0 to 1, checks, or 1 for a kill switch that is thrown.
    #[schema(examples(0.4))]
    value: f64,
    /// What it is above of.
    #[schema(examples(0.3))]
    threshold: f64,
}

/// Worth knowing; should be looked at; now.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("warning"))]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// What an alert is about: the share of denials, how much was asked, or limits that deny nothing.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("block_rate"))]
pub enum AlertName {
    BlockRate,
    Volume,
    KillSwitch,
}

/// One page of the audit log.
#[derive(ToSchema)]
pub struct AuditPage {
    /// The lines.
    entries: AuditLines,
    /// What `before` takes for the next page; null on the last.
    #[schema(required, examples("4711"))]
    next: Option<String>,
}

/// One change of the policy, its lists or the membership.
#[derive(ToSchema)]
pub struct AuditLine {
    /// Its place.
    index: AuditIndex,
    /// When it was asked for.
    time: Instant,
    /// The name of the token that asked for it.
    #[schema(examples("ops"))]
    by: String,
    /// What was done.
    #[schema(examples("put tier pro"))]
    what: String,
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let stats = |path, id| {
        Call::new(Get, path, id, OBSERVING)
            .open_to(Access::See)
            .does(
                "See what was decided lately",
                "All periods; or one of them, or a day. Counted to the minute for a day, to the \
                 hour for a month.",
            )
            .query::<PeriodName>("period", "One period alone. Not together with `date`.")
            .query::<Date>("date", "A day, in UTC; 422 where it is no longer kept or hasn't begun.")
            .answers(200, Answer::json::<Statistics>("What was decided, this moment included."))
            .fails(&[422])
    };
    let alerts = |path, id| {
        Call::new(Get, path, id, OBSERVING)
            .open_to(Access::See)
            .does(
                "See what to look at",
                "Judged now, over the last hour: more than 30 % denied is a warning and more than \
                 50 % critical, from 20 checks on; more than 100,000 checks are worth knowing. A \
                 kill switch that is thrown is a warning.",
            )
            .answers(200, Answer::json::<Alerts>("The alerts."))
    };
    vec![
        Call::new(Get, "/metrics", "metrics", OPERATIONS)
            .open_to(Access::Scrape)
            .does(
                "Scrape the metrics",
                "In the text format of Prometheus. Series name the tenants that ask most. `[auth] \
                 metrics` says who may read them: every caller (`open`, the default on loopback) \
                 or the roles `read` and `admin` (`read`, the default elsewhere).",
            )
            .answers(
                200,
                Answer::text("The metrics.", "text/plain", "tidegate_policy_version 12\n"),
            )
            .fails(&[500]),
        stats("/v1/stats", "stats"),
        alerts("/v1/alerts", "alerts"),
        stats("/api/stats", "apiStats"),
        alerts("/api/alerts", "apiAlerts"),
        Call::new(Get, "/v1/audit", "audit", OBSERVING)
            .open_to(Access::See)
            .does(
                "See who changed what",
                "Every change of the policy, its lists and the membership, newest first. Follow \
                 `next` until it is null. The newest 10,000 are kept, and survive whatever the \
                 policy survives.",
            )
            .query::<AuditPageLimit>("limit", "How many.")
            .query::<AuditCursor>("before", "Where to go on.")
            .answers(200, Answer::json::<AuditPage>("A page.")),
    ]
}
