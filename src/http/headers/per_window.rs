//! `per_window`: one pair of headers for the minute and one for the hour, and what may be in
//! flight.
//!
//! ```text
//! X-RateLimit-Limit-Minute: 100
//! X-RateLimit-Remaining-Minute: 97
//! X-RateLimit-Limit-Hour: 1000
//! X-RateLimit-Remaining-Hour: 901
//! X-RateLimit-Concurrent-Limit: 5
//! ```
//!
//! A limit is of the minute if its window, or the period of its rate, is exactly 60 s, however that
//! was written; of several the one counts of which the least is left. Limits of other lengths have
//! no name here: that they deny is seen by what `x::write_common` adds.

use axum::http::HeaderName;

use super::{Out, enforced};
use crate::check::Decision;
use crate::clock::SECOND;
use crate::limit::Rule;
use crate::policy::Policy;

/// A length in nanoseconds, and the headers that show a limit of that length and what is left of
/// it.
struct Length(u64, HeaderName, HeaderName);

const MINUTE: Length = Length(
    60 * SECOND,
    HeaderName::from_static("x-ratelimit-limit-minute"),
    HeaderName::from_static("x-ratelimit-remaining-minute"),
);
const HOUR: Length = Length(
    3_600 * SECOND,
    HeaderName::from_static("x-ratelimit-limit-hour"),
    HeaderName::from_static("x-ratelimit-remaining-hour"),
);
const CONCURRENT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-concurrent-limit");

pub fn write(decision: &Decision, policy: &Policy, out: &mut Out<'_>) {
    for Length(nanos, limit, remaining) in [MINUTE, HOUR] {
        let of_length =
            enforced(decision).filter(|verdict| length(&verdict.limit.rule) == Some(nanos));
        let tightest = of_length.min_by_key(|v| (v.remaining, std::cmp::Reverse(v.reset_after)));
        if let Some(verdict) = tightest {
            out.number(verdict.limit.rule.capacity()).end(limit);
            out.number(verdict.remaining).end(remaining);
        }
    }
    if let Some(max) = in_flight(decision, policy) {
        out.number(max).end(CONCURRENT_LIMIT);
    }
}

/// The window of a limit that has one, the period of a rate as the policy writes it.
fn length(rule: &Rule) -> Option<u64> {
    match rule {
        Rule::TokenBucket(bucket) => Some(bucket.rate.period()),
        Rule::LeakyBucket(bucket) => Some(bucket.rate.period()),
        Rule::FixedWindow(_) | Rule::SlidingWindow(_) | Rule::SlidingLog(_) => rule.window(),
        Rule::Quota(_) | Rule::Concurrency { .. } => None,
    }
}

/// What may be in flight: as it was judged, or as the policy has it where the check asked for no
/// permit.
fn in_flight(decision: &Decision, policy: &Policy) -> Option<u64> {
    let judged = enforced(decision).find(|v| matches!(v.limit.rule, Rule::Concurrency { .. }));
    let configured = || policy.max_concurrent(&decision.tenant, decision.tier.as_ref()?);
    judged
        .map(|verdict| verdict.limit.rule.capacity())
        .or_else(|| configured().filter(|_| policy.document().enforce))
}
