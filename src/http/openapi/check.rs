//! Deciding: a check, a batch of them, a peek.

use serde_json::json;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::Post;
use utoipa::openapi::schema::{AllOfBuilder, ArrayBuilder, OneOfBuilder};
use utoipa::openapi::{RefOr, Schema};

use super::call::{Access, Answer, Call, Schemas, collect};
use super::limit::{Dimension, RequestLimits};
use super::problem::Problem;
use super::words::{
    Action, Client, Cost, IpAddress, Method, Millis, NAME, NO_CONTROLS, Name, Path, PermitId, PermitTtlMs,
    PolicyVersion, RequestId, Shown, TenantId, TierName, Units, UnitsOrNone, bytes, components, form, label,
    list, map, one_of, only, reference, text, whole,
};
use crate::check::{API_KEY_BYTES_MAX, ATTRIBUTES_MAX, DEADLINE_MS, DEADLINE_MS_DEFAULT, NAME_BYTES_MAX};
use crate::clock::SECOND;
use crate::http::check::BATCH_MAX;

/// The tag of these calls.
pub const DECISIONS: &str = "decisions";

components! {
    /// The name of an attribute.
    AttributeName = text(1..=NAME_BYTES_MAX, NAME), "region";
    /// The value of an attribute: text without control characters, at most 256 bytes of UTF-8.
    AttributeValue = label(), "eu";
    /// An API key: text without control characters, at most 1024 bytes of UTF-8. It is hashed as it arrives; the key itself is
    /// neither kept nor logged.
    ApiKey = text(1..=API_KEY_BYTES_MAX, NO_CONTROLS).format(Some(bytes(API_KEY_BYTES_MAX))).write_only(true),
        "k-3f9c2a";
    /// How long the caller is willing to queue, in milliseconds. This version doesn't queue checks, so only 0 is possible.
    WaitMs = whole(0..=0), 0;
    /// How long the caller waits for limits that tenants share, in milliseconds; past it 503, and nothing is taken.
    DeadlineMs = whole(DEADLINE_MS).default(Some(json!(DEADLINE_MS_DEFAULT))), 100;
    /// Further values that limits may be keyed by, as `attribute:NAME`.
    Attributes [AttributeValue] = map::<AttributeName, AttributeValue>(ATTRIBUTES_MAX), {"region": "eu"};
    /// The checks of a batch, decided in this order.
    Checks [CheckBody] = list::<CheckBody>(1..=BATCH_MAX), [{"tenant": "acme"}, {"tenant": "acme", "cost": 3}];
    /// A number of units, or `unlimited`.
    Amount [UnitsOrNone] = OneOfBuilder::new().item(reference::<UnitsOrNone>()).item(Schema::from(only("unlimited", "No limit applies.").build())),
        100;
    /// What the limits said, each in its own right, in the order of their names.
    Verdicts [LimitVerdict] = ArrayBuilder::new().items(reference::<LimitVerdict>()), [{
        "name": "minute", "scope": ["tenant"], "algorithm": "token_bucket", "limit": 100, "window_ms": 60000,
        "remaining": 97, "reset_after_ms": 1800, "mode": "exact"
    }];
    /// What a bucket is keyed by, or what kind of thing a list entry names.
    Scope [Dimension] = ArrayBuilder::new().items(reference::<Dimension>()), ["tenant"];
    /// How a limit counts; `concurrency` counts permits that are out.
    Algorithm = one_of([
        "token_bucket", "leaky_bucket", "fixed_window", "sliding_window", "sliding_log", "quota", "concurrency",
    ]), "token_bucket";
    /// `exact`; or `approximate`, where a cap on keys was reached and the bucket is shared with other keys.
    Mode = one_of(["exact", "approximate"]), "exact";
    /// Which status a denial has.
    DenialStatus = one_of(["200", "429"]).default(Some(json!("200"))), "429";
    /// A request id, quoted or bare.
    IdempotencyKey = form("^(\"[!-~]{1,256}\"|[!#-~][!-~]{0,255})$", "idempotency-key"), "\"8e03978e-40d5-43e8-bc93\"";
    /// Enforced limits with their capacities `q` and windows `w` in seconds: a list of structured fields.
    RateLimitPolicy = form("^\"[^\"]+\";q=[0-9]+.*$", "structured-field"), "\"minute\";q=100;w=60";
    /// Enforced limits with what remains, `r`, and the seconds `t` until there is more: a list of structured fields.
    RateLimit = form("^\"[^\"]+\";r=[0-9]+;t=[0-9]+.*$", "structured-field"), "\"minute\";r=97;t=2";
    /// What is decided of each check of a batch, in its order: a decision, or why there is none.
    Decisions [BatchItem] = ArrayBuilder::new().items(reference::<BatchItem>()).max_items(Some(BATCH_MAX)), [
        {"error": {"type": "urn:tidegate:problem:impossible", "title": "Unprocessable Entity", "status": 422,
            "detail": "there is no tier gold", "errors": [{"path": "checks[0].tier", "detail": "there is no tier gold"}]}}
    ];
    /// The limits that denied.
    Violated [Name] = ArrayBuilder::new().items(reference::<Name>()), ["minute"];
    /// What kind of denial it is: the type that the draft of the rate limit header fields registers, or a deny list.
    DenialType = one_of([
        "https://iana.org/assignments/http-problem-types#quota-exceeded", "urn:tidegate:problem:access-denied",
    ]), "https://iana.org/assignments/http-problem-types#quota-exceeded";
    /// Whole seconds after which the same check is admitted, as in `Retry-After`.
    RetryAfter = whole(1..=u64::MAX / SECOND + 1), 30;
    /// Why it was denied, in a word for programs.
    DenialCode = one_of([
        "rate_limit_exceeded", "concurrent_limit_exceeded", "quota_exceeded", "access_denied", "cost_exceeds_capacity",
    ]), "rate_limit_exceeded";
    /// What is wrong with a denied request; which form it has is for the policy's `responses.denial_body` to say.
    EnvelopedError [EnvelopedProblem, EnvelopedCode] =
        OneOfBuilder::new().item(reference::<EnvelopedProblem>()).item(reference::<EnvelopedCode>()),
        {"code": "rate_limit_exceeded", "message": "limit minute is used up; it lets this pass in 600 ms",
         "retry_after": 1, "scope": "tenant"};
    /// Unix seconds, or seconds from now, as the policy's `responses.x_reset` says.
    HeaderReset = whole(0..=u64::MAX / SECOND + 1), 1767225629;
    /// What a limit is keyed by, in one word: dimensions joined by commas, or `global`.
    ScopeText = form("^[A-Za-z0-9._:,-]+$", "scope"), "tenant,client";
    /// The status of a denial.
    Status429 = whole(429..=429), 429;
}

/// One question: may this tenant do this now, at this cost? Unknown members are errors; `null` is the same as leaving one out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(
    json!({"tenant": "acme", "cost": 3}),
    json!({"tenant": "acme", "client": "user-1", "action": "export", "permit": {"ttl_ms": 30000}})
))]
pub struct CheckBody {
    /// Who is limited. `anonymous` has an account of its own for each IP address.
    tenant: TenantId,
    /// Its tier, used where the policy's `request_tier` lets it. A tier that doesn't exist is 422 unless it is ignored.
    tier: Option<TierName>,
    /// The user of the tenant.
    client: Option<Client>,
    /// What is to be done.
    action: Option<Action>,
    /// The method of the request behind the check.
    method: Option<Method>,
    /// The path of the request behind the check.
    path: Option<Path>,
    /// Where the request behind the check comes from.
    ip: Option<IpAddress>,
    /// The API key of the request behind the check.
    api_key: Option<ApiKey>,
    /// Further values that limits may be keyed by.
    attributes: Option<Attributes>,
    /// Units to take from every limit; without it the endpoint's cost or the default. The tier's `cost_multiplier` applies.
    cost: Option<Cost>,
    /// How long to queue.
    wait_ms: Option<WaitMs>,
    /// How long to wait for limits that tenants share.
    deadline_ms: Option<DeadlineMs>,
    /// The same id within 60 s is charged once: an allowed answer comes again with `replayed`, the same id with another body is
    /// 422, and a denial is never remembered. At most 1,000 ids a tenant.
    request_id: Option<RequestId>,
    /// Asks for a concurrency permit. Without it `max_concurrent` is not judged.
    permit: Option<PermitWish>,
    /// Limits that the request brings along.
    limits: Option<RequestLimits>,
}

/// A wish for a permit.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PermitWish {
    /// How long it lasts, counted from the answer.
    ttl_ms: Option<PermitTtlMs>,
}

/// The answer to a check. On top stands the tightest limit: when allowed the one with the least `remaining`, when denied the one
/// with the longest wait.
#[derive(ToSchema)]
#[schema(examples(json!({
    "allowed": true, "tenant": "acme", "tier": "pro", "cost": 3, "limit": 100, "remaining": 97, "reset_after_ms": 1800,
    "retry_after_ms": null, "denied_by": null,
    "limits": [{"name": "minute", "scope": ["tenant"], "algorithm": "token_bucket", "limit": 100, "window_ms": 60000,
        "remaining": 97, "reset_after_ms": 1800, "mode": "exact"}],
    "permit": null, "replayed": false, "mode": "exact", "node": "n1", "epoch": 1, "policy_version": 12
})))]
pub struct Decision {
    /// Whether it may be done. If not, nothing was taken from any limit.
    #[schema(examples(true))]
    allowed: bool,
    /// Who asked.
    tenant: TenantId,
    /// The tier it was judged by; null where a list decided before any tier was looked up.
    #[schema(required)]
    tier: Option<TierName>,
    /// Units taken, or that would have been.
    #[schema(examples(3), minimum = 0)]
    cost: u64,
    /// The capacity of the tightest limit in units; `unlimited` where none applies, 0 where a list denied.
    limit: Amount,
    /// Units left of the tightest limit; null where none applies.
    #[schema(required)]
    remaining: Option<UnitsOrNone>,
    /// Milliseconds until the tightest limit is whole again if nothing more is taken; for windows and quotas, until their end.
    #[schema(required)]
    reset_after_ms: Option<Millis>,
    /// Milliseconds after which the same check is admitted, if nobody else asks and no rule changes; rounded up. An upper bound
    /// for concurrency. Null when allowed, and where waiting doesn't help: a cost above the capacity, a deny list.
    #[schema(required)]
    retry_after_ms: Option<Millis>,
    /// Who denied; null when allowed.
    #[schema(required)]
    denied_by: Option<DeniedBy>,
    /// What all limits said.
    limits: Verdicts,
    /// The permit it got; null where it asked for none, or was denied.
    #[schema(required)]
    permit: Option<Permit>,
    /// True where this is the answer to an earlier check of the same request id; nothing was taken again.
    #[schema(examples(false))]
    replayed: bool,
    /// How exact the decision is.
    mode: Mode,
    /// Why it is approximate; absent where it is exact.
    #[schema(nullable = false)]
    degraded: Option<Degraded>,
    /// The list entry that let it pass unjudged; absent where none did.
    #[schema(nullable = false)]
    bypass: Option<Bypass>,
    /// The node that decided.
    node: Name,
    /// The epoch of its ownership.
    #[schema(examples(1), minimum = 1)]
    epoch: u64,
    /// The version of the policy it was decided by.
    policy_version: PolicyVersion,
}

/// What one limit said.
#[derive(ToSchema)]
pub struct LimitVerdict {
    /// Its name.
    name: Name,
    /// What its buckets are keyed by.
    scope: Scope,
    /// How it counts.
    algorithm: Algorithm,
    /// Its capacity in units.
    limit: Units,
    /// Its window in milliseconds; for buckets, the time that they take to fill. Null for quotas, whose periods vary, and for permits.
    #[schema(required)]
    window_ms: Option<Millis>,
    /// Units left after this decision.
    remaining: UnitsOrNone,
    /// Milliseconds until it is whole again, or its window ends.
    reset_after_ms: Millis,
    /// How exact it is.
    mode: Mode,
    /// Whether it would have denied; only of limits that don't enforce (shadow mode).
    #[schema(nullable = false, examples(true))]
    would_deny: Option<bool>,
}

/// The limit or list entry that denied.
#[derive(ToSchema)]
pub struct DeniedBy {
    /// Its name.
    name: Name,
    /// What its buckets are keyed by, or what kind of thing the entry names.
    scope: Scope,
    /// Why.
    reason: DenialReason,
}

/// Why a check is denied: a rate is used up, too many are in flight, the quota of the day or month is used up, the deny list
/// names it, or it costs more than the limit can ever hold.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("rate"))]
pub enum DenialReason {
    Rate,
    Concurrency,
    Quota,
    DenyList,
    CostExceedsCapacity,
}

/// A concurrency slot.
#[derive(ToSchema)]
#[schema(examples(json!({"id": "p309309ab94d488b8edb52c92798c7d4d185", "expires_in_ms": 30000})))]
pub struct Permit {
    /// By which it is released or renewed, at any node.
    id: PermitId,
    /// Milliseconds until it expires by itself.
    expires_in_ms: Millis,
}

/// Why a decision is approximate.
#[derive(ToSchema)]
pub struct Degraded {
    #[schema(schema_with = key_cap)]
    reason: String,
    /// The share of the rate that was decided by; null where it is the whole.
    #[schema(required, examples("1/3"))]
    share: Option<String>,
}

fn key_cap() -> utoipa::openapi::schema::ObjectBuilder {
    only("key_cap", "A cap on keys was reached, so that the bucket is shared with other keys.")
}

/// The entry of the allow list that let a check pass.
#[derive(ToSchema)]
pub struct Bypass {
    /// Its name.
    list: Name,
    /// The reason written beside it.
    #[schema(examples("our own monitoring"))]
    reason: String,
}

/// Up to 1,000 checks in one call.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"mode": "all_or_nothing", "checks": [{"tenant": "acme"}, {"tenant": "acme", "cost": 3}]})))]
pub struct BatchBody {
    /// The checks.
    checks: Checks,
    /// How they belong together; `independent` if not said.
    mode: Option<BatchMode>,
}

/// Each check by itself; or, for the checks of one tenant, all or nothing: one denial denies all and nothing is taken.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("independent"))]
pub enum BatchMode {
    Independent,
    AllOrNothing,
}

/// The answer to a batch.
#[derive(ToSchema)]
pub struct BatchDecision {
    /// Whether all of them are allowed.
    #[schema(examples(false))]
    allowed: bool,
    /// What is decided of each.
    decisions: Decisions,
}

/// One item of the answer to a batch.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({"error": {"type": "urn:tidegate:problem:busy", "title": "Service Unavailable", "status": 503,
    "detail": "no decision in time"}})))]
pub enum BatchItem {
    Decided(Decision),
    Failed(BatchFault),
}

/// Why a check of a batch was not decided.
#[derive(ToSchema)]
pub struct BatchFault {
    /// The problem; the paths of its faults begin with the check's place, as in `checks[3].cost`.
    error: Problem,
}

/// What makes a denial a problem document.
#[derive(ToSchema)]
pub struct DenialMembers {
    /// What kind of problem it is.
    #[schema(rename = "type")]
    kind: DenialType,
    /// The kind in words.
    #[schema(examples("Quota exceeded"))]
    title: String,
    /// The status of the answer.
    status: Status429,
    /// Which limit denied and how long to wait, in words.
    #[schema(examples("limit minute is used up; it lets this pass in 600 ms"))]
    detail: String,
    /// The path of the call.
    #[schema(examples("/v1/check"))]
    instance: String,
    /// Seconds to wait; null where waiting doesn't help.
    #[schema(required)]
    retry_after: Option<RetryAfter>,
    /// What the buckets of the denying limit are keyed by, or what kind of thing the list entry names.
    scope: Scope,
    /// The names of the limits that denied.
    #[schema(rename = "violated-policies")]
    violated_policies: Violated,
}

/// A denial in an envelope, where the policy's `responses.denial_body` asks for one.
#[derive(ToSchema)]
pub struct DenialEnvelope {
    /// What is wrong.
    error: EnvelopedError,
}

/// The members of a problem, enveloped.
#[derive(ToSchema)]
pub struct EnvelopedProblem {
    /// What kind of denial it is.
    #[schema(rename = "type")]
    kind: DenialType,
    /// The kind in words.
    #[schema(examples("Quota exceeded"))]
    title: String,
    /// Which limit denied and how long to wait, in words.
    #[schema(examples("limit minute is used up; it lets this pass in 600 ms"))]
    detail: String,
    /// Seconds to wait; null where waiting doesn't help.
    #[schema(required)]
    retry_after: Option<RetryAfter>,
    /// The path of the call.
    #[schema(examples("/v1/check"))]
    instance: String,
}

/// A code and a message, enveloped.
#[derive(ToSchema)]
pub struct EnvelopedCode {
    /// Why, for programs.
    code: DenialCode,
    /// Which limit denied and how long to wait, in words.
    #[schema(examples("limit minute is used up; it lets this pass in 600 ms"))]
    message: String,
    /// Seconds to wait; null where waiting doesn't help.
    #[schema(required)]
    retry_after: Option<RetryAfter>,
    /// What the denying limit is keyed by.
    scope: ScopeText,
}

/// A denial as a problem document: the members of the decision, and those of a problem beside them.
pub struct Denial;

impl PartialSchema for Denial {
    fn schema() -> RefOr<Schema> {
        let both = AllOfBuilder::new().item(reference::<Decision>()).item(reference::<DenialMembers>());
        let says = "A denial as a problem document: the members of the decision, and those of a problem beside them.";
        Schema::from(both.description(Some(says)).build()).into()
    }
}

impl ToSchema for Denial {
    fn schemas(schemas: &mut Schemas) {
        collect::<Decision>(schemas);
        collect::<DenialMembers>(schemas);
    }
}

/// The headers of a decision. Which forms an answer has is for the policy's `responses.headers` to say.
pub fn with_rate_limits(answer: Answer) -> Answer {
    let answer = answer
        .header::<RateLimitPolicy>(
            "RateLimit-Policy",
            "`draft8`: the limits that were judged, in the field syntax of draft-ietf-httpapi-ratelimit-headers -08 to -11.",
        )
        .header::<RateLimit>("RateLimit", "`draft8`: what is left of them, in the same syntax.")
        .header::<RetryAfter>("Retry-After", "Seconds to wait, on a denial that has a wait; never earlier than any reset.")
        .header::<HeaderReset>("X-RateLimit-Reset", "`x`, `per_window`: when the tightest limit is whole, or lets this pass.")
        .header::<TenantId>("X-RateLimit-Tenant", "`x`, `per_window`: who asked.")
        .header::<TierName>("X-RateLimit-Tier", "`x`, `per_window`: the tier it was judged by.")
        .header::<DenialCode>("X-RateLimit-Error", "`x`, `per_window`: why it was denied.")
        .header::<ScopeText>("X-RateLimit-Scope", "`x`: what the tightest limit is keyed by.");
    let numbers = [
        ("RateLimit-Limit", "`legacy`: the capacity of the tightest limit."),
        ("RateLimit-Remaining", "`legacy`: units left of it."),
        ("RateLimit-Reset", "`legacy`: seconds until it is whole, or lets this pass."),
        ("X-RateLimit-Limit", "`x`: the capacity of the tightest limit."),
        ("X-RateLimit-Remaining", "`x`: units left of it."),
        ("X-RateLimit-Used", "`x`: units taken of it."),
        ("X-RateLimit-Limit-Minute", "`per_window`: the capacity of the tightest limit of a minute."),
        ("X-RateLimit-Remaining-Minute", "`per_window`: units left of it."),
        ("X-RateLimit-Limit-Hour", "`per_window`: the capacity of the tightest limit of an hour."),
        ("X-RateLimit-Remaining-Hour", "`per_window`: units left of it."),
        ("X-RateLimit-Concurrent-Limit", "`per_window`: permits that may be out."),
    ];
    numbers.into_iter().fold(answer, |answer, (name, says)| answer.header::<UnitsOrNone>(name, says))
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let key = "The request id, if the body doesn't name it: a quoted string, or bare. Both may say the same.";
    vec![
        Call::new(Post, "/v1/check", "check", DECISIONS)
            .open_to(Access::Decide)
            .does(
                "Decide one check",
                "Asks all limits that apply, and takes the cost from all of them or from none. A denial is an answer, not an \
                 error: 200 with `allowed: false`, unless `?status=429` asks for a 429. The content type is not insisted on.",
            )
            .query::<DenialStatus>("status", "Which status a denial has.")
            .header::<IdempotencyKey>("Idempotency-Key", key)
            .takes::<CheckBody>("The question; at most `body_bytes` (16 KiB by default).")
            .answers(200, with_rate_limits(Answer::json::<Decision>("The decision.")))
            .answers(429, with_rate_limits(Answer::problem::<Denial>("Denied, and `?status=429` was asked for.").also::<DenialEnvelope>("application/json")))
            .fails(&[422, 503]),
        Call::new(Post, "/v1/check/batch", "checkBatch", DECISIONS)
            .open_to(Access::Decide)
            .does(
                "Decide up to 1,000 checks",
                "In one call, in their order. `independent`: each by itself; one that can't be read or decided has an `error` in \
                 its place. `all_or_nothing`: the checks of one tenant, of which all are allowed or nothing is taken; a fault in \
                 one is a fault of the whole.",
            )
            .takes::<BatchBody>("The checks; at most `batch_body_bytes` (1 MiB by default).")
            .answers(200, Answer::json::<BatchDecision>("A decision or an error for each check."))
            .fails(&[422, 503]),
        Call::new(Post, "/v1/peek", "peek", DECISIONS)
            .open_to(Access::Decide)
            .does("See what a check would be answered", "The same question as a check, and nothing is taken.")
            .header::<IdempotencyKey>("Idempotency-Key", key)
            .takes::<CheckBody>("The question; at most `body_bytes` (16 KiB by default).")
            .answers(200, with_rate_limits(Answer::json::<Decision>("What the answer would be.")))
            .fails(&[422, 503]),
    ]
}
