//! `/v1/policy` and `/v1/tiers`: the document, whole or by tier, and the versions before it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use super::auth::Caller;
use super::observe::second;
use super::problem::{PathOf, Problem};
use super::query::Query;
use super::{App, body};
use crate::check::Name;
use crate::cluster::{PastVersion, Proposal, Wanted, WriteError, Written};
use crate::input::{Fault, Reader, Tree};
use crate::policy::{Change, ChangeError, Document, differences, read_tier};

const TOML: &str = "application/toml";
/// The greatest number of a version that can be asked for: what every reader of JSON takes that has
/// 64 bits.
pub const VERSION_MAX: u64 = i64::MAX as u64;

/// `GET /v1/policy`: JSON, or TOML if `Accept` prefers it. With `?version=n` as it was then.
pub async fn get(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut r = Reader::default();
    let asked = Query::of(&uri)?.whole(&mut r, "version", 1..=VERSION_MAX);
    let asked = r.finish(Some(asked)).map_err(Problem::bad_input)?;
    let current = app.store.current();
    let (version, document) = match asked {
        Some(version) => (version, app.store.document_at(version)?),
        None => (current.version(), current.document().clone()),
    };
    let toml =
        headers.get(header::ACCEPT).is_some_and(|v| v.as_bytes().starts_with(TOML.as_bytes()));
    let (kind, text) = match toml {
        true => (TOML, document.to_toml()),
        false => ("application/json", document.to_json().to_string()),
    };
    let headers = [(header::CONTENT_TYPE, kind.to_string()), (header::ETAG, etag(version))];
    Ok((StatusCode::OK, headers, text).into_response())
}

/// `PUT /v1/policy`: replaces the whole document.
pub async fn put(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    mut request: Request,
) -> Result<Response, Problem> {
    let terms = Terms::of(&app, request.uri(), request.headers())?;
    let bytes = body::read(&app, &mut request, app.limits.policy_body_bytes).await?;
    let document = document(request.headers(), &bytes)?;
    write(&app, by, Change::Replace(Box::new(document)), terms).await
}

/// How a write is meant: which version it was made for, and whether it is only a question.
#[derive(Clone, Copy)]
pub struct Terms {
    /// The version that `If-Match` names; none takes whatever is there.
    expected: Option<u64>,
    /// `?dry_run`: answer with what would change, and write nothing.
    dry_run: bool,
}

impl Terms {
    /// Whether nothing is to be written.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Reads them from the query and `If-Match`. A stale `If-Match` is an error here, before any
    /// body is read.
    pub fn of(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<Self, Problem> {
        let dry_run = Query::of(uri)?.flag("dry_run")?;
        Ok(Self { expected: fresh(app, headers)?, dry_run })
    }
}

/// What the change would make differ in the policy in force. Errs as the write itself would, as far
/// as this node knows.
fn what_would_change(app: &App, change: &Change) -> Result<Response, Problem> {
    let current = app.store.current();
    let before = current.document();
    let after = before.with(change).map_err(WriteError::from)?;
    let [before, after] = [before, &after].map(|document| document.excerpt(change).to_json());
    let changes = differences(&before, &after);
    Ok(Json(json!({"dry_run": true, "version": current.version(), "changes": changes}))
        .into_response())
}

/// `PUT /v1/policy/enforce`: the kill switch, by itself. Nothing else of the policy is read or
/// written.
pub async fn put_enforce(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let read = |r: &mut Reader, tree: &Tree| {
        let mut fields = r.fields(tree)?;
        let enforce = fields.required(r, "enforce", Reader::boolean);
        fields.finish(r);
        enforce
    };
    let (enforce, terms) = part(&app, request, read).await?;
    write(&app, by, Change::Enforce(enforce), terms).await
}

/// `GET /v1/policy/history`: what made each version that is remembered, newest first.
pub async fn history(State(app): State<Arc<App>>) -> Response {
    let current = app.store.current().version();
    let past = |past: PastVersion| json!({"version": past.version, "time": second(past.time), "by": past.by, "what": past.what});
    let versions: Vec<Value> = app.store.history().into_iter().map(past).collect();
    versioned(current, json!({"version": current, "versions": versions}))
}

/// `POST /v1/policy/rollback`: an earlier document again, as a new version.
pub async fn rollback(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    mut request: Request,
) -> Result<Response, Problem> {
    let terms = Terms::of(&app, request.uri(), request.headers())?;
    let tree = body::json(&app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let version = version(&mut r, &tree);
    let version = r.finish(version).map_err(Problem::bad_input)?;
    if terms.dry_run {
        let document = app.store.document_at(version).map_err(not_remembered)?;
        return what_would_change(&app, &Change::Replace(Box::new(document)));
    }
    let written = make(&app, by, Wanted::Rollback(version), terms).await.map_err(not_remembered)?;
    Ok(answer(&written))
}

/// `{"version": n}`.
fn version(r: &mut Reader, tree: &Tree) -> Option<u64> {
    let mut fields = r.fields(tree)?;
    let version = fields.required(r, "version", |r, t| r.whole(t, 1..=VERSION_MAX));
    fields.finish(r);
    version
}

/// A version that a body names and that isn't there is a fault of the body; nobody asked for a
/// resource of its own.
fn not_remembered(error: WriteError) -> Problem {
    match error {
        WriteError::NoSuchVersion { .. } => {
            let detail = error.to_string();
            Problem::impossible(detail.clone(), vec![Fault::new("version", detail)])
        }
        error => error.into(),
    }
}

/// The document in a body: what can't be parsed is 400, what can't be is 422.
fn document(headers: &HeaderMap, bytes: &Bytes) -> Result<Document, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let tree = if kind.starts_with(TOML.as_bytes()) {
        Tree::from_toml(bytes)
    } else {
        Tree::from_json(bytes)
    };
    let tree = tree.map_err(|fault| Problem::bad_input(vec![fault]))?;
    Document::read(&tree).map_err(invalid)
}

fn invalid(faults: Vec<Fault>) -> Problem {
    Problem::from(WriteError::Change(ChangeError::Invalid(faults)))
}

/// The version that `If-Match` names, if it is still the current one. Judged before the body is
/// looked at.
pub fn fresh(app: &App, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let actual = app.store.current().version();
    matching(headers, actual, "the policy", |expected| WriteError::Stale { expected, actual })
}

/// The version of `what` that `If-Match` names, if it is `actual`. Returns the error of `stale`
/// where it is another one.
pub fn matching(
    headers: &HeaderMap,
    actual: u64,
    what: &str,
    stale: impl FnOnce(u64) -> WriteError,
) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let tags = text.split(',').map(|tag| tag.trim().trim_matches('"').parse::<u64>().ok());
    let mut known = tags.flatten().peekable();
    match (known.peek().copied(), known.any(|version| version == actual)) {
        (_, true) => Ok(Some(actual)),
        (Some(expected), false) => Err(stale(expected).into()),
        // A tag that was never ours matches nothing.
        (None, _) => {
            let detail =
                format!("If-Match {text} is no version of {what}; the version is {actual}");
            Err(Problem::new(412, detail, "stale").with_header(header::ETAG, &etag(actual)))
        }
    }
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Makes a change, and answers with the version it made; on a dry run, with what it would change.
pub async fn write(
    app: &App,
    by: Caller,
    change: Change,
    terms: Terms,
) -> Result<Response, Problem> {
    match make_or_show(app, by, change, terms).await? {
        Ok(written) => Ok(answer(&written)),
        Err(shown) => Ok(shown),
    }
}

/// Makes a change. On a dry run nothing is made, and the inner error is the answer that says what
/// would change.
pub async fn make_or_show(
    app: &App,
    by: Caller,
    change: Change,
    terms: Terms,
) -> Result<Result<Written, Response>, Problem> {
    if terms.dry_run {
        return Ok(Err(what_would_change(app, &change)?));
    }
    Ok(Ok(make(app, by, Wanted::Change(change), terms).await?))
}

async fn make(app: &App, by: Caller, wanted: Wanted, terms: Terms) -> Result<Written, WriteError> {
    app.store.write(Proposal { wanted, expected: terms.expected, by: by.0 }).await
}

fn answer(written: &Written) -> Response {
    versioned(written.version, Value::Object(outcome(written)))
}

/// What became of a write, as members of its answer.
pub fn outcome(written: &Written) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("version".into(), json!(written.version));
    members.insert("pending".into(), json!(written.pending));
    if !written.changed {
        members.insert("unchanged".into(), json!(true));
    }
    members
}

/// JSON with the version it belongs to.
pub fn versioned(version: u64, value: Value) -> Response {
    ([(header::ETAG, etag(version))], Json(value)).into_response()
}

/// The part of a document in a body, and how its write is meant. What it says can't be is 422, as
/// for the whole document.
pub async fn part<T>(
    app: &App,
    mut request: Request,
    read: impl FnOnce(&mut Reader, &Tree) -> Option<T>,
) -> Result<(T, Terms), Problem> {
    let terms = Terms::of(app, request.uri(), request.headers())?;
    let tree = body::json(app, &mut request, app.limits.batch_body_bytes).await?;
    let mut r = Reader::default();
    let value = read(&mut r, &tree);
    Ok((r.finish(value).map_err(invalid)?, terms))
}

/// A name in the path of a call.
pub fn name(member: &str, text: &str) -> Result<Name, Problem> {
    let fault = || {
        Problem::bad_input(vec![Fault::new(member, format!("{text:?} is not {}", Name::EXPECTED))])
    };
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
    let (tier, terms) = part(&app, request, read_tier).await?;
    write(&app, by, Change::PutTier(name, Box::new(tier)), terms).await
}

/// `DELETE /v1/tiers/{tier}`.
pub async fn delete_tier(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(tier): PathOf<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = name("tier", &tier)?;
    let terms = Terms::of(&app, &uri, &headers)?;
    write(&app, by, Change::DeleteTier(name), terms).await
}
