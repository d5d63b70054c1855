//! Concurrency permits: given back, or kept for longer.

use utoipa::openapi::path::HttpMethod::{Delete, Post};

use super::call::{Access, Answer, Call};
use super::check::PermitWish;
use super::decision::Permit;
use super::words::PermitId;

/// The tag of these calls.
pub const PERMITS: &str = "permits";

/// The calls.
pub fn calls() -> Vec<Call> {
    let id = "The permit, as the check's answer names it.";
    vec![
        Call::new(Delete, "/v1/permits/{id}", "releasePermit", PERMITS)
            .open_to(Access::Decide)
            .does(
                "Give a permit back",
                "Also of a permit that was given back already, or has expired.",
            )
            .part::<PermitId>("id", id)
            .answers(204, Answer::empty("It isn't out any more."))
            .fails(&[503]),
        Call::new(Post, "/v1/permits/{id}/renew", "renewPermit", PERMITS)
            .open_to(Access::Decide)
            .does("Keep a permit for longer", "It lasts for `ttl_ms` from now on.")
            .part::<PermitId>("id", id)
            .may_take::<PermitWish>("For how long; 30 s without a body.")
            .answers(200, Answer::json::<Permit>("It is still out."))
            .fails(&[404, 422, 503]),
    ]
}
