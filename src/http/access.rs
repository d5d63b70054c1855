//! `/v1/access`: the allow and deny lists, entry by entry.
//!
//! An entry comes with what it names and why; who added it and when is for the node to say, so a
//! body that says so itself is refused. (A whole policy document may carry both: it is a record of
//! what was.) An API key is hashed as it arrives.
//!
//! ```text
//! POST {"list":"deny","ip":"192.0.2.0/24","reason":"abuse"}
//! 201  {"id":"5f3c0a1be2d47796","version":13,"pending":[]}      Location: /v1/access/5f3c0a1be2d47796
//! ```

use std::ops::Bound;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::App;
use super::auth::Caller;
use super::observe::second;
use super::policy::{Terms, make_or_show, name, part, versioned, write};
use super::problem::{PathOf, Problem};
use super::query::Query;
use super::read::api_key;
use crate::check::Name;
use crate::clock::SECOND;
use crate::input::{Reader, Tree};
use crate::policy::{
    AccessEntry, Change, List, SUBJECTS, Subject, print_instant, read_access_members,
};

/// Entries on one page.
pub const PAGE_MAX: u64 = 1_000;
/// Entries on a page where nothing else is said.
pub const PAGE_DEFAULT: u64 = 100;
/// Hexadecimal digits of an id that is made here: by chance two of a hundred thousand entries have
/// the same once in a billion lists, and then the second is refused.
const ID_DIGITS: usize = 16;
/// What the node says of an entry, and nobody else.
const OURS: [&str; 2] = ["added_by", "added_at"];

/// `GET /v1/access`: the entries in the order of their ids, of both lists or of one.
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::of(&uri)?;
    let mut r = Reader::default();
    let most = query.whole(&mut r, "limit", 1..=PAGE_MAX).unwrap_or(PAGE_DEFAULT) as usize;
    let after = query.get("after").filter(|after| !after.is_empty());
    if after.is_some_and(|after| Name::new(after).is_none()) {
        r.fault_at("after", "is not a cursor of an earlier page");
    }
    let of = query.get("list").and_then(|list| {
        let words = [List::Allow, List::Deny].map(|list| (list.word(), list));
        r.member("list", |r| r.choice(&Tree::Text(list.into()), &words))
    });
    r.finish(Some(())).map_err(Problem::bad_input)?;
    let policy = app.store.current();
    let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    let entries = policy.document().access.range::<(Bound<&str>, Bound<&str>), str>(from);
    let mut wanted = entries.filter(|(_, entry)| of.is_none_or(|of| entry.list == of));
    let page: Vec<_> = wanted.by_ref().take(most).collect();
    let next = wanted.next().and(page.last()).map(|(id, _)| id);
    let entries: Vec<_> = page.iter().map(|(id, entry)| shown(id, entry)).collect();
    Ok(versioned(policy.version(), json!({"entries": entries, "next": next})))
}

/// An entry as the document shows it, with its id.
fn shown(id: &Name, entry: &AccessEntry) -> Value {
    let mut shown = entry.to_json();
    shown["id"] = json!(id);
    shown
}

/// `GET /v1/access/{id}`.
pub async fn get(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
) -> Result<Response, Problem> {
    let (policy, id) = (app.store.current(), name("id", &id)?);
    match policy.document().access.get(&id) {
        Some(entry) => Ok(versioned(policy.version(), shown(&id, entry))),
        None => Err(Problem::not_found(format!("list entry {id}"))),
    }
}

/// `POST /v1/access`: a new entry.
pub async fn add(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let wall = app.router.wall();
    let ((id, entry), terms) = part(&app, request, |r, tree| new_entry(r, tree, &by, wall)).await?;
    let id = id.unwrap_or_else(|| fresh_id(&app));
    let change = Change::AddAccess(id.clone(), Box::new(entry));
    let written = match make_or_show(&app, by, change, terms).await? {
        Ok(written) => written,
        Err(shown) => return Ok(shown),
    };
    let answer = json!({"id": id, "version": written.version, "pending": written.pending});
    let mut response = versioned(written.version, answer);
    *response.status_mut() = StatusCode::CREATED;
    let location = HeaderValue::from_str(&format!("/v1/access/{id}"));
    response.headers_mut().extend(location.ok().map(|location| (header::LOCATION, location)));
    Ok(response)
}

/// An id that nobody chose, from where the names of requests come from too.
fn fresh_id(app: &App) -> Name {
    let digits = app.telemetry.request_ids().fresh();
    Name::new(&digits[..ID_DIGITS.min(digits.len())])
        .unwrap_or_else(|| unreachable!("hexadecimal digits are a name"))
}

/// The entry that a body asks for, added by its sender now; and the id that it is to have, if it
/// says.
fn new_entry(
    r: &mut Reader,
    tree: &Tree,
    by: &Caller,
    wall: u64,
) -> Option<(Option<Name>, AccessEntry)> {
    let mut fields = r.fields(tree)?;
    let id = fields.optional(r, "id", |r, t| r.parsed(t, Name::EXPECTED, Name::new));
    let key = fields.optional(r, "api_key", api_key).map(Subject::ApiKey);
    for ours in OURS.into_iter().filter(|ours| fields.has(ours)) {
        r.fault_at(ours, "is set by the node; leave it out");
    }
    let subjects: Vec<_> = SUBJECTS.into_iter().chain(["api_key"]).collect();
    let entry = read_access_members(r, &mut fields, &subjects, key);
    fields.finish(r);
    let entry = entry?;
    if let Some(at) = entry.expires.filter(|at| *at <= wall) {
        r.fault_at(
            "expires",
            format!("{} is over: it is {} here", print_instant(at), second(wall)),
        );
    }
    let (added_by, added_at) = (Some(by.0.clone()), Some(wall - wall % SECOND));
    Some((id, AccessEntry { added_by, added_at, ..entry }))
}

/// `DELETE /v1/access/{id}`.
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = name("id", &id)?;
    let terms = Terms::of(&app, &uri, &headers)?;
    write(&app, by, Change::DeleteAccess(id), terms).await
}
