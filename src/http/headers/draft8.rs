//! `draft8`: the field syntax of draft-ietf-httpapi-ratelimit-headers -08 to -11, two lists of
//! structured fields (RFC 9651).
//!
//! ```text
//! RateLimit-Policy: "minute";q=100;w=60, "concurrency";q=5;qu="concurrent-requests"
//! RateLimit: "minute";r=0;t=29, "concurrency";r=4;t=30
//! ```
//!
//! A limit is known by its name, of whose characters none needs an escape. `q` is its capacity, `w`
//! its window in whole seconds, rounded up, at least 1; what has no window of constant length has
//! no `w`. `r` is what is left, `t` the reset.

use axum::http::HeaderName;

use super::{Out, enforced, reset};
use crate::check::{Decision, Verdict};
use crate::clock::SECOND;
use crate::limit::Rule;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

pub fn write(decision: &Decision, out: &mut Out<'_>) {
    for verdict in enforced(decision) {
        let rule = &verdict.limit.rule;
        name(verdict, out).text(";q=").number(rule.capacity());
        if let Some(nanos) = rule.window() {
            out.text(";w=").number(nanos.div_ceil(SECOND).max(1));
        }
        if matches!(rule, Rule::Concurrency { .. }) {
            out.text(";qu=\"concurrent-requests\"");
        }
    }
    out.end(POLICY);
    for verdict in enforced(decision) {
        name(verdict, out).text(";r=").number(verdict.remaining);
        out.text(";t=").number(reset(verdict).div_ceil(SECOND));
    }
    out.end(STATE);
}

/// Begins a list's next item.
fn name<'o, 'h>(verdict: &Verdict, out: &'o mut Out<'h>) -> &'o mut Out<'h> {
    let opening = if out.is_empty() { "\"" } else { ", \"" };
    out.text(opening).text(verdict.limit.name.as_str()).text("\"")
}
