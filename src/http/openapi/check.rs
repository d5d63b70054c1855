//! Deciding: a check, a batch of them, a peek.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::Post;

use super::call::{Access, Answer, Call};
use super::decision::{BatchDecision, Decision};
use super::denial::{Denial, DenialEnvelope, with_rate_limits};
use super::limit::RequestLimits;
use super::words::{
    Action, Client, Cost, IpAddress, Method, NAME, NO_CONTROLS, Path, PermitTtlMs, RequestId,
    Shown, TenantId, TierName, bytes, components, form, label, list, map, one_of, text, whole,
};
use crate::check::{
    API_KEY_BYTES_MAX, ATTRIBUTES_MAX, DEADLINE_MS, DEADLINE_MS_DEFAULT, NAME_BYTES_MAX,
    REQUEST_ID_BYTES_MAX,
};
use crate::http::check::BATCH_MAX;

/// The tag of these calls.
pub const DECISIONS: &str = "decisions";

components! {
    /// The name of an attribute.
    AttributeName = text(1..=NAME_BYTES_MAX, NAME), "region";
    /// The value of an attribute: text without control characters, at most 256 bytes of UTF-8.
    AttributeValue = label(), "eu";
    /// An API key: text without control characters, at most 1024 bytes of UTF-8. It is hashed as it
    /// arrives; the key itself is neither kept nor logged.
    ApiKey = text(1..=API_KEY_BYTES_MAX, NO_CONTROLS).format(Some(bytes(API_KEY_BYTES_MAX))).write_only(true),
        "k-3f9c2a";
    /// How long the caller is willing to queue, in milliseconds. This version doesn't queue checks,
    /// so only 0 is possible.
    WaitMs = whole(0..=0), 0;
    /// How long the caller waits for limits that tenants share, in milliseconds; past it 503, and
    /// nothing is taken.
    DeadlineMs = whole(DEADLINE_MS).default(Some(json!(DEADLINE_MS_DEFAULT))), 100;
    /// Further values that limits may be keyed by, as `attribute:NAME`.
    Attributes [AttributeValue] = map::<AttributeName, AttributeValue>(ATTRIBUTES_MAX), {"region": "eu"};
    /// The checks of a batch, decided in this order.
    Checks [CheckBody] = list::<CheckBody>(1..=BATCH_MAX), [{"tenant": "acme"}, {"tenant": "acme", "cost": 3}];
    /// Which status a denial has.
    DenialStatus = one_of(["200", "429"]).default(Some(json!("200"))), "429";
    /// A request id, quoted or bare.
    IdempotencyKey = form(
        &format!("^(\"[!-~]{{1,{REQUEST_ID_BYTES_MAX}}}\"|[!#-~][!-~]{{0,{}}})$", REQUEST_ID_BYTES_MAX - 1),
        "idempotency-key",
    ), "\"8e03978e-40d5-43e8-bc93\"";
}

/// One question: may this tenant do this now, at this cost? Unknown members are errors; `null` is
/// the same as leaving one out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(
    json!({"tenant": "acme", "cost": 3}),
    json!({"tenant": "acme", "client": "user-1", "action": "export", "permit": {"ttl_ms": 30000}})
))]
pub struct CheckBody {
    /// Who is limited. `anonymous` has an account of its own for each IP address.
    tenant: TenantId,
    /// Its tier, used where the policy's `request_tier` lets it. A tier that doesn't exist is 422
    /// unless it is ignored.
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
    /// Units to take from every limit; without it the endpoint's cost or the default. The tier's
    /// `cost_multiplier` applies.
    cost: Option<Cost>,
    /// How long to queue.
    wait_ms: Option<WaitMs>,
    /// How long to wait for limits that tenants share.
    deadline_ms: Option<DeadlineMs>,
    /// The same id within 60 s is charged once: an allowed answer comes again with `replayed`, the
    /// same id with another body is 422, and a denial is never remembered. At most 1,000 ids a
    /// tenant.
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

/// Each check by itself; or, for the checks of one tenant, all or nothing: one denial denies all
/// and nothing is taken.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("independent"))]
pub enum BatchMode {
    Independent,
    AllOrNothing,
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let key = "The request id, if the body doesn't name it: a quoted string, or bare. Both may say \
               the same.";
    vec![
        Call::new(Post, "/v1/check", "check", DECISIONS)
            .open_to(Access::Decide)
            .does(
                "Decide one check",
                "Asks all limits that apply, and takes the cost from all of them or from none. A \
                 denial is an answer, not an error: 200 with `allowed: false`, unless \
                 `?status=429` asks for a 429. The content type is not insisted on.",
            )
            .query::<DenialStatus>("status", "Which status a denial has.")
            .header::<IdempotencyKey>("Idempotency-Key", key)
            .takes::<CheckBody>("The question; at most `body_bytes` (16 KiB by default).")
            .answers(200, with_rate_limits(Answer::json::<Decision>("The decision.")))
            .answers(
                429,
                with_rate_limits(
                    Answer::problem::<Denial>("Denied, and `?status=429` was asked for.")
                        .also::<DenialEnvelope>("application/json"),
                ),
            )
            .fails(&[422, 503]),
        Call::new(Post, "/v1/check/batch", "checkBatch", DECISIONS)
            .open_to(Access::Decide)
            .does(
                "Decide up to 1,000 checks",
                "In one call, in their order. `independent`: each by itself; one that can't be \
                 read or decided has an `error` in its place. `all_or_nothing`: the checks of one \
                 tenant, of which all are allowed or nothing is taken; a fault in one is a fault \
                 of the whole.",
            )
            .takes::<BatchBody>("The checks; at most `batch_body_bytes` (1 MiB by default).")
            .answers(200, Answer::json::<BatchDecision>("A decision or an error for each check."))
            .fails(&[422, 503]),
        Call::new(Post, "/v1/peek", "peek", DECISIONS)
            .open_to(Access::Decide)
            .does(
                "See what a check would be answered",
                "The same question as a check, and nothing is taken.",
            )
            .header::<IdempotencyKey>("Idempotency-Key", key)
            .takes::<CheckBody>("The question; at most `body_bytes` (16 KiB by default).")
            .answers(200, with_rate_limits(Answer::json::<Decision>("What the answer would be.")))
            .fails(&[422, 503]),
    ]
}
