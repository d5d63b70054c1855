//! `legacy`: what the draft said before it had lists, of the tightest limit.
//!
//! ```text
//! RateLimit-Limit: 100
//! RateLimit-Remaining: 97
//! RateLimit-Reset: 2              seconds from now
//! ```
//!
//! None of the names is one of `draft8`'s, so the two can stand side by side.

use axum::http::HeaderName;

use super::{Out, reset};
use crate::check::Decision;
use crate::clock::SECOND;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

pub fn write(decision: &Decision, out: &mut Out<'_>) {
    let Some(verdict) = decision.tightest() else { return };
    out.number(verdict.limit.rule.capacity()).end(LIMIT);
    out.number(verdict.remaining).end(REMAINING);
    out.number(reset(verdict).div_ceil(SECOND)).end(RESET);
}
