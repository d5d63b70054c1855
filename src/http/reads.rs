//! What each call reads: the names of its query, and whether it reads a body. One table for all
//! routes.
//!
//! A call that is not in the table reads neither, so a route that is new and forgotten here refuses
//! what it would ignore. A query name that a call does not read is a 400 that names it:
//! `?dryRun=true` must not apply a policy.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{App, body, forward_auth, policy, query};
use crate::input::Reader;

/// One call, and what it reads.
struct Reads {
    method: &'static str,
    /// As the router has it.
    path: &'static str,
    /// The names in its query.
    query: &'static [&'static str],
    /// Whether it reads a body.
    body: bool,
}

/// A call that reads these names of its query and no body.
const fn asks(method: &'static str, path: &'static str, query: &'static [&'static str]) -> Reads {
    Reads { method, path, query, body: false }
}

/// A call that reads these names of its query and a body.
const fn takes(method: &'static str, path: &'static str, query: &'static [&'static str]) -> Reads {
    Reads { method, path, query, body: true }
}

const DRY_RUN: &[&str] = &["dry_run"];
const PAGE: &[&str] = &["limit", "after"];
const PERIOD: &[&str] = &["period", "date"];

/// The calls that read a query or a body.
static CALLS: [Reads; 36] = [
    takes("POST", "/v1/check", &["status"]),
    takes("POST", "/v1/check/batch", &[]),
    takes("POST", "/v1/peek", &[]),
    takes("POST", "/v1/permits/{id}/renew", &[]),
    asks("GET", "/v1/policy", &["version"]),
    takes("PUT", "/v1/policy", DRY_RUN),
    takes("PUT", "/v1/policy/enforce", DRY_RUN),
    takes("POST", "/v1/policy/rollback", DRY_RUN),
    asks("GET", "/v1/access", &["limit", "after", "list"]),
    takes("POST", "/v1/access", DRY_RUN),
    asks("DELETE", "/v1/access/{id}", DRY_RUN),
    takes("PUT", "/v1/tiers/{tier}", DRY_RUN),
    asks("DELETE", "/v1/tiers/{tier}", DRY_RUN),
    asks("GET", "/v1/tenants", PAGE),
    takes("PUT", "/v1/tenants/{tenant}", DRY_RUN),
    asks("DELETE", "/v1/tenants/{tenant}", &["dry_run", "keep_state"]),
    takes("POST", "/v1/tenants/{tenant}/reset", &[]),
    takes("PUT", "/v1/tenants/{tenant}/limits/{name}", DRY_RUN),
    asks("DELETE", "/v1/tenants/{tenant}/limits/{name}", DRY_RUN),
    asks("GET", "/v1/audit", &["limit", "before"]),
    asks("GET", "/v1/stats", PERIOD),
    asks("GET", "/v1/cluster/backup", &["partial"]),
    takes("PUT", "/v1/cluster/settings", DRY_RUN),
    takes("POST", "/v1/cluster/nodes", &[]),
    asks("DELETE", "/v1/cluster/nodes/{id}", &["force"]),
    takes("PUT", "/v1/cluster/nodes/{id}/weight", &[]),
    takes("POST", "/api/check_and_consume", &[]),
    asks("GET", STATUS, &["max_requests", "window_duration_seconds"]),
    asks("GET", "/api/config", PAGE),
    takes("PUT", "/api/config/global", DRY_RUN),
    takes("PUT", ACTION, DRY_RUN),
    asks("DELETE", ACTION, DRY_RUN),
    takes("PUT", CLIENT_ACTION, DRY_RUN),
    asks("DELETE", CLIENT_ACTION, DRY_RUN),
    asks("GET", "/api/stats", PERIOD),
    asks("GET", "/admin/ratelimit/tenants", PAGE),
];
const STATUS: &str = "/api/status/{tenant}/{client}/{action}";
const ACTION: &str = "/api/config/tenant/{tenant}/action/{action}";
const CLIENT_ACTION: &str = "/api/config/tenant/{tenant}/client/{client}/action/{action}";

/// The calls that refuse no query and no body: probes and scrapers add words of their own, a
/// browser asks for the pages, and what comes with a proxy's question is the end user's.
const LENIENT: [&str; 9] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/docs/",
    "/docs/{file}",
    forward_auth::PATH,
    "/v1/forward-auth/",
    "/v1/forward-auth/{*suffix}",
];

fn of(method: &Method, path: &str) -> Option<&'static Reads> {
    // Whatever answers GET answers HEAD.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    CALLS.iter().find(|call| call.method == method && call.path == path)
}

/// Refuses a query name that the call does not read, or that is there twice.
pub fn query(method: &Method, path: &str, uri: &Uri) -> Result<(), Problem> {
    if uri.query().is_none_or(str::is_empty) {
        return Ok(());
    }
    let known = of(method, path).map_or(&[][..], |call| call.query);
    let query = query::Query::of(uri)?;
    let mut r = Reader::default();
    let mut seen = std::collections::BTreeSet::new();
    for name in query.names() {
        if !known.contains(&name) {
            r.unknown(&shortened(name), "query name", known);
        } else if !seen.insert(name) {
            r.fault_at(name, "named twice");
        }
    }
    r.finish(Some(())).map_err(Problem::bad_input)
}

/// A name as an error shows it.
fn shortened(name: &str) -> Cow<'_, str> {
    const SHOWN_CHARS: usize = 64;
    match name.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &name[..at]).into(),
        None => name.into(),
    }
}

/// Lets a request pass whose query and body its call reads. The caller's token must have been
/// judged before.
pub async fn judge(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        return next.run(request).await;
    };
    let path = path.as_str();
    if LENIENT.contains(&path) {
        return next.run(request).await;
    }
    if let Err(problem) = query(request.method(), path, request.uri()) {
        return problem.into_response();
    }
    let call = of(request.method(), path);
    if call.is_some_and(|call| call.body) {
        return next.run(request).await;
    }
    // A stale `If-Match` is answered before any body is judged.
    let writes = call.is_some_and(|call| call.query.contains(&"dry_run"));
    if writes && let Err(problem) = policy::fresh(&app, request.headers()) {
        return problem.into_response();
    }
    match body::none(&app, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
