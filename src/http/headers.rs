//! The response headers of a decision: the field syntax of draft-ietf-httpapi-ratelimit-headers -08 to -11.
//!
//! ```text
//! RateLimit-Policy: "minute";q=100;w=60, "hour";q=1000;w=3600
//! RateLimit: "minute";r=97;t=2, "hour";r=901;t=412
//! Retry-After: 2
//! ```
//!
//! `t` is rounded up to seconds; for a limit that denies it is the time until it would let this check pass, so that
//! `Retry-After`, the longest of them, is never earlier than any.

use std::fmt::Write;

use axum::http::{HeaderMap, HeaderValue, header};

use crate::check::{Decision, Verdict};
use crate::clock::SECOND;
use crate::limit::{Outcome, Rule};

/// Writes the headers of `decision`.
pub fn write(decision: &Decision, headers: &mut HeaderMap) {
    let (mut policy, mut state) = (String::new(), String::new());
    for verdict in decision.verdicts.iter().filter(|verdict| verdict.limit.enforce) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let (name, rule) = (&verdict.limit.name, &verdict.limit.rule);
        // Writing to a string doesn't fail.
        let _ = write!(policy, "{separator}\"{name}\";q={}", rule.capacity());
        if let Some(seconds) = rule.window().map(|nanos| nanos.div_ceil(SECOND)) {
            let _ = write!(policy, ";w={}", seconds.max(1));
        }
        if matches!(rule, Rule::Concurrency { .. }) {
            policy.push_str(";qu=\"concurrent-requests\"");
        }
        let _ = write!(state, "{separator}\"{name}\";r={};t={}", verdict.remaining, more_after(verdict));
    }
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
        if let Some(value) = (!value.is_empty()).then(|| HeaderValue::from_str(&value).ok()).flatten() {
            headers.insert(name, value);
        }
    }
    if let Some(retry_after) = decision.retry_after.filter(|_| !decision.allowed) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.div_ceil(SECOND).max(1)));
    }
}

/// Seconds until there is more of a limit.
fn more_after(verdict: &Verdict) -> u64 {
    match verdict.outcome {
        Outcome::Wait(nanos) => nanos.div_ceil(SECOND),
        Outcome::Pass | Outcome::Held | Outcome::Never => verdict.reset_after.div_ceil(SECOND),
    }
}
