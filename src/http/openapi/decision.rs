//! What a check answers, and a batch of them.

use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder};

use super::limit::Dimension;
use super::problem::Problem;
use super::words::{
    Millis, Name, PermitId, PolicyVersion, Shown, TenantId, TierName, Units, UnitsOrNone,
    components, one_of, only, reference,
};
use crate::http::check::BATCH_MAX;

components! {
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
    /// `exact`; or `approximate`, where a cap on keys was reached and the bucket is shared with
    /// other keys, or where the owner lost which permits are in flight and grants none for a while.
    Mode = one_of(["exact", "approximate"]), "exact";
    /// `key_cap`: a cap on keys was reached, so that the bucket is shared with other keys.
    /// `cold_start`: the node that owns the tenant crashed, and grants no permit until those that
    /// may be in flight have expired.
    DegradedReason = one_of(["key_cap", "cold_start"]), "key_cap";
    /// What is decided of each check of a batch, in its order: a decision, or why there is none.
    Decisions [BatchItem] = ArrayBuilder::new().items(reference::<BatchItem>()).max_items(Some(BATCH_MAX)), [
        {"error": {"type": "urn:tidegate:problem:impossible", "title": "Unprocessable Entity", "status": 422,
            "detail": "there is no tier gold", "errors": [{"path": "checks[0].tier", "detail": "there is no tier gold"}]}}
    ];
}

/// The answer to a check. On top stands the tightest limit: when allowed the one with the least
/// `remaining`, when denied the one with the longest wait.
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
    /// The capacity of the tightest limit in units; `unlimited` where none applies, 0 where a list
    /// denied.
    limit: Amount,
    /// Units left of the tightest limit; null where none applies.
    #[schema(required)]
    remaining: Option<UnitsOrNone>,
    /// Milliseconds until the tightest limit is whole again if nothing more is taken; for windows
    /// and quotas, until their end.
    #[schema(required)]
    reset_after_ms: Option<Millis>,
    /// Milliseconds after which the same check is admitted, if nobody else asks and no rule
    /// changes; rounded up. An upper bound for concurrency. Null when allowed, and where waiting
    /// doesn't help: a cost above the capacity, a deny list.
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
    /// True where this is the answer to an earlier check of the same request id; nothing was taken
    /// again.
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
    /// Its window in milliseconds; for buckets, the time that they take to fill. Null for quotas,
    /// whose periods vary, and for permits.
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

/// Why a check is denied: a rate is used up, too many are in flight, the quota of the day or month
/// is used up, the deny list names it, or it costs more than the limit can ever hold.
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
    reason: DegradedReason,
    /// The share of the limit that was decided by; null where it is the whole.
    #[schema(required, examples("0"))]
    share: Option<String>,
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
