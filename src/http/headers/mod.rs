//! The response headers of a decision, in the dialects that the policy's `[responses]` names: one
//! file each.
//!
//! ```text
//! draft8      RateLimit-Policy: "minute";q=100;w=60, "hour";q=1000;w=3600
//!             RateLimit: "minute";r=97;t=2, "hour";r=901;t=412
//! legacy      RateLimit-Limit: 100                  the tightest limit, as the answer's body has it on top
//! x           X-RateLimit-Limit: 100
//! per_window  X-RateLimit-Limit-Minute: 100
//! any, none   Retry-After: 2                        on every denial that has a wait
//! ```
//!
//! A reset is the time until the limit would let this check pass where it denies, and otherwise
//! until it is whole again, or its window ends. Times are rounded up to seconds, so that
//! `Retry-After`, the longest wait, is never earlier than the reset of a limit that denies; Unix
//! seconds are counted from when the answer is written, and may be one too late. Shadow limits are
//! in no header. Numbers are capped at fifteen digits, all that a structured field may carry (RFC
//! 9651): with one digit more a client would drop the whole field.
//!
//! Every value is written into one buffer, of which it is a slice.

mod draft8;
mod legacy;
mod per_window;
#[cfg(test)]
mod tests;
mod x;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::{Bytes, BytesMut};

pub use x::scope_text;

use super::App;
use crate::check::{Decision, Verdict};
use crate::clock::SECOND;
use crate::limit::{Outcome, UNITS_MAX};
use crate::policy::{Dialect, Policy};

/// Writes the headers of `decision` as the policy in force has them.
pub fn write(app: &App, decision: &Decision, headers: &mut HeaderMap) {
    write_under(&app.router.policy(), || app.router.wall(), decision, headers);
}

/// The same under a policy that is at hand; `wall` is asked for the time (nanoseconds) if a header
/// shows it.
pub fn write_under(
    policy: &Policy,
    wall: impl FnOnce() -> u64,
    decision: &Decision,
    headers: &mut HeaderMap,
) {
    let responses = policy.responses();
    let has = |dialect| responses.headers.has(dialect);
    let mut out = Out::new(headers, decision.verdicts.len());
    if has(Dialect::Draft8) {
        draft8::write(decision, &mut out);
    }
    if has(Dialect::Legacy) {
        legacy::write(decision, &mut out);
    }
    // What these two have in common is written once.
    if has(Dialect::X) || has(Dialect::PerWindow) {
        x::write_common(decision, responses.x_reset, wall, &mut out);
    }
    if has(Dialect::X) {
        x::write(decision, &mut out);
    }
    if has(Dialect::PerWindow) {
        per_window::write(decision, policy, &mut out);
    }
    if let Some(seconds) = retry_after(decision) {
        out.number(seconds).end(header::RETRY_AFTER);
    }
}

/// Whole seconds after which a lone caller that was denied would be admitted, at least 1; none:
/// never, or not denied.
pub fn retry_after(decision: &Decision) -> Option<u64> {
    decision.retry_after.filter(|_| !decision.allowed).map(|nanos| nanos.div_ceil(SECOND).max(1))
}

/// The verdicts that headers show.
fn enforced(decision: &Decision) -> impl Iterator<Item = &Verdict> {
    decision.verdicts.iter().filter(|verdict| verdict.limit.enforce)
}

/// Nanoseconds until there is more of a limit: enough for this check where it denies.
fn reset(verdict: &Verdict) -> u64 {
    match verdict.outcome {
        Outcome::Wait(nanos) => nanos,
        Outcome::Pass | Outcome::Held | Outcome::Never => verdict.reset_after,
    }
}

/// Values on their way into the headers.
struct Out<'h> {
    headers: &'h mut HeaderMap,
    buffer: BytesMut,
}

impl<'h> Out<'h> {
    /// With room for the default dialect's two lines about so many limits.
    fn new(headers: &'h mut HeaderMap, limits: usize) -> Self {
        const BYTES_PER_LIMIT: usize = 96;
        Self { headers, buffer: BytesMut::with_capacity(BYTES_PER_LIMIT * limits.max(1)) }
    }

    /// Goes on with `text`.
    fn text(&mut self, text: &str) -> &mut Self {
        self.buffer.extend_from_slice(text.as_bytes());
        self
    }

    /// Goes on with `number`, or with the largest that a header may carry.
    fn number(&mut self, number: u64) -> &mut Self {
        self.text(itoa::Buffer::new().format(number.min(UNITS_MAX)))
    }

    /// Whether nothing was written since the last header.
    fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What was written since the last header is the value of `name`; nothing is no header.
    fn end(&mut self, name: HeaderName) {
        if self.is_empty() {
            return;
        }
        let value: Bytes = self.buffer.split().freeze();
        // Names, ids and numbers are ASCII: what isn't doesn't get past the parsers at the door.
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            self.headers.insert(name, value);
        }
    }

    /// A header whose value is known beforehand.
    fn constant(&mut self, name: HeaderName, value: &'static str) {
        self.headers.insert(name, HeaderValue::from_static(value));
    }
}
