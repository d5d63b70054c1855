//! `/v1/forward-auth` (H6): the check of a request that a reverse proxy is about to pass on, read
//! from headers.
//!
//! ```text
//! GET /v1/forward-auth             from a trusted proxy        POST /ocr/process of tenant acme, from 203.0.113.9
//! X-Tenant-ID: acme
//! X-Forwarded-For: 203.0.113.9                                 200, no body: pass it on
//! X-Forwarded-Method: POST                                     429, problem document: answer with that
//! X-Forwarded-Uri: /ocr/process?page=2
//! ```
//!
//! Proxies tell few answers apart: a 204 would be the end of it for one, a 500 opens the door of
//! another. So the answer to whoever may ask is 200 or 429 and nothing else, for any method and any
//! path below. A header that can't be read is a 429 too: read as absent it would lift a limit, read
//! as something else it would charge a stranger. Bodies are not looked at, and permits are not
//! given: nobody would bring them back.
//!
//! `address` finds the client's address, `target` what was asked for and whether it passes unasked,
//! `asked` the rest.

mod address;
mod asked;
mod target;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::query::Query;
use super::server::Peer;
use super::{App, denial, headers};
use crate::check::{Check, Decision};
use crate::config::{ForwardAuth, Origin};
use crate::input::{Fault, Reader};
use crate::shard::Refusal;
use crate::telemetry::Call;

/// Where proxies ask; they may append the path of the request they ask about.
pub const PATH: &str = "/v1/forward-auth";

/// `/v1/forward-auth`, any method: 200 or 429. `?deny_status=403` is for proxies that can't pass a
/// 429 on quietly.
pub async fn forward_auth(State(app): State<Arc<App>>, request: Request) -> Response {
    let _timed = app.telemetry.time(Call::ForwardAuth);
    if let Err(problem) = app.tokens.admit_proxy(request.headers()) {
        return problem.into_response();
    }
    // The body may never come, or never end: nobody waits for it.
    let (parts, _) = request.into_parts();
    let denied = match deny_status(&app.forward_auth, &parts) {
        Ok(denied) => denied,
        Err(problem) => return refuse(problem).into_response(),
    };
    let mut response =
        decide(&app, &parts).await.unwrap_or_else(|problem| refuse(problem).into_response());
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        *response.status_mut() = denied;
    }
    response
}

async fn decide(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let config = &app.forward_auth;
    // The door notes it for every request to this path.
    let Some(Peer(peer)) = parts.extensions.get::<Peer>() else {
        return Err(Problem::new(429, "the address of the peer is not known", "internal-error"));
    };
    let mut r = Reader::default();
    let target = target::read(&mut r, config.original, parts, config.trusts(peer.ip()));
    if r.is_clean() && target.is_under(&config.bypass) {
        return Ok(StatusCode::OK.into_response());
    }
    let check = asked::read(&mut r, config, &parts.headers, peer.ip(), target);
    let check = r.finish(check).map_err(Problem::bad_input)?;
    let instance = check.path.as_ref().map_or(PATH, |path| path.as_str()).to_string();
    let decision = ask(app, check).await?;
    if !decision.allowed {
        return Ok(denial::response(app, &decision, &instance).map(Body::new));
    }
    let mut headers = HeaderMap::new();
    headers::write(app, &decision, &mut headers);
    Ok((StatusCode::OK, headers).into_response())
}

async fn ask(app: &App, check: Check) -> Result<Decision, Problem> {
    let names = &app.forward_auth;
    app.router.check(check).await.map_err(|refusal| {
        // What was refused came in a header, so the fault is named after it.
        let header = match &refusal {
            Refusal::UnknownTier(_) => &names.tier_header,
            Refusal::RequestIdReused => &names.request_id_header,
            _ => &None,
        };
        match header {
            Some(header) => {
                Problem::bad_input(vec![Fault::new(header.as_str(), refusal.to_string())])
            }
            None => Problem::from(refusal),
        }
    })
}

/// What can't be decided is denied: "busy" with its `Retry-After`, the rest with what is wrong.
fn refuse(problem: Problem) -> Problem {
    tracing::debug!(?problem, "a request could not be judged, so it is denied");
    problem.with_status(StatusCode::TOO_MANY_REQUESTS)
}

/// The status of a denial. Where the original request's path and query follow ours, the query is
/// not the proxy's.
fn deny_status(config: &ForwardAuth, parts: &Parts) -> Result<StatusCode, Problem> {
    let suffixed = match config.original {
        Origin::Forwarded | Origin::Original => false,
        Origin::Suffix => true,
        Origin::Auto => parts.uri.path() != PATH,
    };
    if suffixed || parts.uri.query().is_none_or(str::is_empty) {
        return Ok(StatusCode::TOO_MANY_REQUESTS);
    }
    match Query::of(&parts.uri)?.get("deny_status") {
        None | Some("429") => Ok(StatusCode::TOO_MANY_REQUESTS),
        Some("403") => Ok(StatusCode::FORBIDDEN),
        Some(other) => {
            let detail = format!("{other:?} is not one of 403, 429");
            Err(Problem::bad_input(vec![Fault::new("deny_status", detail)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PermitTooLong;
    use axum::http::header;

    #[test]
    fn a_check_that_cannot_be_decided_in_time_is_a_429_to_be_asked_again_in_a_second() {
        let response = refuse(Problem::from(Refusal::Busy)).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn nothing_that_a_shard_refuses_becomes_another_status() {
        let name = || crate::check::Name::new("x").unwrap();
        for refusal in [
            Refusal::UnknownTier(name()),
            Refusal::LimitsRefused(name()),
            Refusal::PermitTooLong(PermitTooLong { tier: name(), most_ms: 1_000 }),
            Refusal::RequestIdReused,
            Refusal::InBatch(0, Box::new(Refusal::Busy)),
            Refusal::Busy,
        ] {
            assert_eq!(
                refuse(Problem::from(refusal)).into_response().status(),
                StatusCode::TOO_MANY_REQUESTS
            );
        }
    }
}
