//! `x`: the names that became customary without a standard, of the tightest limit.
//!
//! ```text
//! X-RateLimit-Limit: 100
//! X-RateLimit-Remaining: 0
//! X-RateLimit-Used: 100
//! X-RateLimit-Scope: tenant,client       what the limit is keyed by; global: nothing
//! X-RateLimit-Reset: 1767225629          Unix seconds, or seconds from now, as `x_reset` says
//! X-RateLimit-Tenant: acme
//! X-RateLimit-Tier: pro
//! X-RateLimit-Error: rate_limit_exceeded
//! ```
//!
//! The last four are `per_window`'s as well. Tenant and tier stay where there is no limit; a list
//! decides before a tier is looked up.

use std::borrow::Cow;

use axum::http::HeaderName;

use super::super::denial;
use super::{Out, reset};
use crate::check::{Decision, Dimension};
use crate::clock::SECOND;
use crate::policy::XReset;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const USED: HeaderName = HeaderName::from_static("x-ratelimit-used");
const SCOPE: HeaderName = HeaderName::from_static("x-ratelimit-scope");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const TENANT: HeaderName = HeaderName::from_static("x-ratelimit-tenant");
const TIER: HeaderName = HeaderName::from_static("x-ratelimit-tier");
const ERROR: HeaderName = HeaderName::from_static("x-ratelimit-error");

/// What `x` has alone.
pub fn write(decision: &Decision, out: &mut Out<'_>) {
    let tightest = decision.tightest();
    if let Some(verdict) = tightest {
        let limit = verdict.limit.rule.capacity();
        out.number(limit).end(LIMIT);
        out.number(verdict.remaining).end(REMAINING);
        out.number(limit.saturating_sub(verdict.remaining)).end(USED);
    }
    let scope = decision.denied_by.as_ref().map(|by| &by.scope).or(tightest.map(|v| &v.limit.per));
    if let Some(scope) = scope {
        out.text(&scope_text(scope)).end(SCOPE);
    }
}

/// What `x` and `per_window` have in common.
pub fn write_common(
    decision: &Decision,
    means: XReset,
    wall: impl FnOnce() -> u64,
    out: &mut Out<'_>,
) {
    if let Some(verdict) = decision.tightest() {
        let from = match means {
            XReset::Epoch => wall(),
            XReset::Delta => 0,
        };
        out.number(from.saturating_add(reset(verdict)).div_ceil(SECOND)).end(RESET);
    }
    out.text(decision.tenant.as_str()).end(TENANT);
    if let Some(tier) = &decision.tier {
        out.text(tier.as_str()).end(TIER);
    }
    if !decision.allowed {
        out.constant(ERROR, denial::code(decision));
    }
}

/// What a bucket is keyed by, in one word: `tenant,client`; `global` where it is for everybody.
pub fn scope_text(scope: &[Dimension]) -> Cow<'static, str> {
    match scope {
        [] => "global".into(),
        [Dimension::Tenant] => "tenant".into(),
        several => several.iter().map(ToString::to_string).collect::<Vec<_>>().join(",").into(),
    }
}
