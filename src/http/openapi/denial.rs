//! A denial that is sent as a 429, in each of its forms, and the headers of a decision.

use utoipa::openapi::schema::{AllOfBuilder, ArrayBuilder, OneOfBuilder};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::call::{Answer, Schemas, collect};
use super::decision::{Decision, Scope};
use super::words::{
    Name, Shown, TenantId, TierName, UnitsOrNone, components, form, one_of, reference, whole,
};
use crate::clock::SECOND;

components! {
    /// Enforced limits with their capacities `q` and windows `w` in seconds: a list of structured
    /// fields.
    RateLimitPolicy = form("^\"[^\"]+\";q=[0-9]+.*$", "structured-field"), "\"minute\";q=100;w=60";
    /// Enforced limits with what remains, `r`, and the seconds `t` until there is more: a list of
    /// structured fields.
    RateLimit = form("^\"[^\"]+\";r=[0-9]+;t=[0-9]+.*$", "structured-field"), "\"minute\";r=97;t=2";
    /// Whole seconds after which the same check is admitted, as in `Retry-After`.
    RetryAfter = whole(1..=u64::MAX / SECOND + 1), 30;
    /// Unix seconds, or seconds from now, as the policy's `responses.x_reset` says.
    HeaderReset = whole(0..=u64::MAX / SECOND + 1), 1767225629;
    /// What a limit is keyed by, in one word: dimensions joined by commas, or `global`.
    ScopeText = form("^[A-Za-z0-9._:,-]+$", "scope"), "tenant,client";
    /// What kind of denial it is: the type that the draft of the rate limit header fields
    /// registers, or a deny list.
    DenialType = one_of([
        "https://iana.org/assignments/http-problem-types#quota-exceeded", "urn:tidegate:problem:access-denied",
    ]), "https://iana.org/assignments/http-problem-types#quota-exceeded";
    /// Why it was denied, in a word for programs.
    DenialCode = one_of([
        "rate_limit_exceeded", "concurrent_limit_exceeded", "quota_exceeded", "access_denied", "cost_exceeds_capacity",
    ]), "rate_limit_exceeded";
    /// The status of a denial.
    Status429 = whole(429..=429), 429;
    /// The limits that denied.
    Violated [Name] = ArrayBuilder::new().items(reference::<Name>()), ["minute"];
    /// What is wrong with a denied request; which form it has is for the policy's
    /// `responses.denial_body` to say.
    EnvelopedError [EnvelopedProblem, EnvelopedCode] =
        OneOfBuilder::new().item(reference::<EnvelopedProblem>()).item(reference::<EnvelopedCode>()),
        {"code": "rate_limit_exceeded", "message": "limit minute is used up; it lets this pass in \
                                                    600 ms",
         "retry_after": 1, "scope": "tenant"};
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
    /// What the buckets of the denying limit are keyed by, or what kind of thing the list entry
    /// names.
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
        let both =
            AllOfBuilder::new().item(reference::<Decision>()).item(reference::<DenialMembers>());
        let says = "A denial as a problem document: the members of the decision, and those of a \
                    problem beside them.";
        Schema::from(both.description(Some(says)).build()).into()
    }
}

impl ToSchema for Denial {
    fn schemas(schemas: &mut Schemas) {
        collect::<Decision>(schemas);
        collect::<DenialMembers>(schemas);
    }
}

/// The headers of a decision. Which forms an answer has is for the policy's `responses.headers` to
/// say.
pub fn with_rate_limits(answer: Answer) -> Answer {
    let answer = answer
        .header::<RateLimitPolicy>(
            "RateLimit-Policy",
            "`draft8`: the limits that were judged, in the field syntax of \
             draft-ietf-httpapi-ratelimit-headers -08 to -11.",
        )
        .header::<RateLimit>("RateLimit", "`draft8`: what is left of them, in the same syntax.")
        .header::<RetryAfter>(
            "Retry-After",
            "Seconds to wait, on a denial that has a wait; never earlier than any reset.",
        )
        .header::<HeaderReset>(
            "X-RateLimit-Reset",
            "`x`, `per_window`: when the tightest limit is whole, or lets this pass.",
        )
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
        (
            "X-RateLimit-Limit-Minute",
            "`per_window`: the capacity of the tightest limit of a minute.",
        ),
        ("X-RateLimit-Remaining-Minute", "`per_window`: units left of it."),
        ("X-RateLimit-Limit-Hour", "`per_window`: the capacity of the tightest limit of an hour."),
        ("X-RateLimit-Remaining-Hour", "`per_window`: units left of it."),
        ("X-RateLimit-Concurrent-Limit", "`per_window`: permits that may be out."),
    ];
    numbers
        .into_iter()
        .fold(answer, |answer, (name, says)| answer.header::<UnitsOrNone>(name, says))
}
