//! `/v1/policy` and `/v1/tiers`: the document, whole or by tier.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::auth::Caller;
use super::problem::{PathOf, Problem};
use super::query::Query;
use super::{App, body};
use crate::check::Name;
use crate::cluster::{Proposal, Wanted, WriteError};
use crate::input::{Fault, Reader, Tree};
use crate::policy::{Change, ChangeError, Document, differences, read_tier};

const TOML: &str = "application/toml";

/// `GET /v1/policy`: JSON, or TOML if `Accept` prefers it.
pub async fn get(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let policy = app.store.current();
    let toml = headers.get(header::ACCEPT).is_some_and(|v| v.as_bytes().starts_with(TOML.as_bytes()));
    let (kind, text) = match toml {
        true => (TOML, policy.document().to_toml()),
        false => ("application/json", policy.document().to_json().to_string()),
    };
    let etag = etag(policy.version());
    (StatusCode::OK, [(header::CONTENT_TYPE, kind.to_string()), (header::ETAG, etag)], text).into_response()
}

/// `PUT /v1/policy`: the whole document anew. With `?dry_run=true` only the differences.
pub async fn put(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    mut request: Request,
) -> Result<Response, Problem> {
    let dry_run = Query::of(request.uri())?.flag("dry_run")?;
    let expected = fresh(&app, request.headers())?;
    let bytes = body::read(&app, &mut request, app.limits.policy_body_bytes).await?;
    let document = document(request.headers(), &bytes)?;
    if dry_run {
        let current = app.store.current();
        let changes = differences(&current.document().to_json(), &document.to_json());
        return Ok(
            Json(json!({"dry_run": true, "version": current.version(), "changes": changes})).into_response()
        );
    }
    write(&app, by, Change::Replace(Box::new(document)), expected).await
}

/// The document in a body: what can't be parsed is 400, what can't be is 422.
fn document(headers: &HeaderMap, bytes: &Bytes) -> Result<Document, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let tree =
        if kind.starts_with(TOML.as_bytes()) { Tree::from_toml(bytes) } else { Tree::from_json(bytes) };
    let tree = tree.map_err(|fault| Problem::bad_input(vec![fault]))?;
    Document::read(&tree).map_err(invalid)
}

fn invalid(faults: Vec<Fault>) -> Problem {
    Problem::from(WriteError::Change(ChangeError::Invalid(faults)))
}

/// The version that `If-Match` names, if it is still the current one. Judged before the body is looked at.
pub fn fresh(app: &App, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let actual = app.store.current().version();
    let tags = text.split(',').map(|tag| tag.trim().trim_matches('"').parse::<u64>().ok());
    let mut known = tags.flatten().peekable();
    match (known.peek().copied(), known.any(|version| version == actual)) {
        (_, true) => Ok(Some(actual)),
        (Some(expected), false) => Err(WriteError::Stale { expected, actual }.into()),
        // A tag that was never ours matches nothing.
        (None, _) => {
            let detail = format!("If-Match {text} is no version of the policy; it is at {actual}");
            Err(Problem::new(412, detail, "stale").with_header(header::ETAG, &etag(actual)))
        }
    }
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Makes a change, and answers with the version it made.
pub async fn write(
    app: &App,
    by: Caller,
    change: Change,
    expected: Option<u64>,
) -> Result<Response, Problem> {
    let written = app.store.write(Proposal { wanted: Wanted::Change(change), expected, by: by.0 }).await?;
    let answer = json!({"version": written.version, "pending": written.pending});
    Ok(([(header::ETAG, etag(written.version))], Json(answer)).into_response())
}

/// JSON with the version it belongs to.
pub fn versioned(version: u64, value: Value) -> Response {
    ([(header::ETAG, etag(version))], Json(value)).into_response()
}

/// The part of a document in a body. What it says can't be is 422, as for the whole document.
pub async fn part<T>(
    app: &App,
    mut request: Request,
    read: impl FnOnce(&mut Reader, &Tree) -> Option<T>,
) -> Result<(T, Option<u64>), Problem> {
    let expected = fresh(app, request.headers())?;
    let tree = body::json(app, &mut request, app.limits.batch_body_bytes).await?;
    let mut r = Reader::default();
    let value = read(&mut r, &tree);
    Ok((r.finish(value).map_err(invalid)?, expected))
}

/// A name in the path of a call.
pub fn name(member: &str, text: &str) -> Result<Name, Problem> {
    let fault =
        || Problem::bad_input(vec![Fault::new(member, format!("{text:?} is not {}", Name::EXPECTED))]);
    Name::new(text).ok_or_else(fault)
}

/// `GET /v1/tiers/{tier}`.
pub async fn get_tier(
    State(app): State<Arc<App>>,
    PathOf(tier): PathOf<String>,
) -> Result<Response, Problem> {
    let (policy, name) = (app.store.current(), name("tier", &tier)?);
    match policy.document().tiers.get(&name) {
        Some(tier) => Ok(versioned(policy.version(), tier.to_json())),
        None => Err(Problem::not_found(format!("tier {name}"))),
    }
}

/// `PUT /v1/tiers/{tier}`.
pub async fn put_tier(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(tier): PathOf<String>,
    request: Request,
) -> Result<Response, Problem> {
    let name = name("tier", &tier)?;
    let (tier, expected) = part(&app, request, read_tier).await?;
    write(&app, by, Change::PutTier(name, Box::new(tier)), expected).await
}

/// `DELETE /v1/tiers/{tier}`.
pub async fn delete_tier(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(tier): PathOf<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = name("tier", &tier)?;
    let expected = fresh(&app, &headers)?;
    write(&app, by, Change::DeleteTier(name), expected).await
}
