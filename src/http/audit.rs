//! `/v1/audit`: who changed what, and when.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::App;
use super::observe::second;
use super::problem::Problem;
use super::query::Query;
use crate::cluster::AuditEntry;
use crate::input::Reader;

/// Lines on one page.
pub const PAGE_MAX: u64 = 1_000;
/// Lines on a page where nothing else is said.
pub const PAGE_DEFAULT: u64 = 100;
/// The greatest index that can be asked for.
pub const INDEX_MAX: u64 = i64::MAX as u64;

/// `GET /v1/audit`: the newest lines, or those before a line, newest first.
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query = Query::of(&uri)?;
    let mut r = Reader::default();
    let most = query.whole(&mut r, "limit", 1..=PAGE_MAX).unwrap_or(PAGE_DEFAULT) as usize;
    let before = match query.get("before") {
        // Empty is the beginning, as for every cursor.
        None | Some("") => None,
        Some(_) => query.whole(&mut r, "before", 0..=INDEX_MAX),
    };
    r.finish(Some(())).map_err(Problem::bad_input)?;
    // One more than the page has says whether there is a next one.
    let mut lines = app.store.audit(before, most + 1);
    let more = lines.len() > most;
    lines.truncate(most);
    let next = lines.last().filter(|_| more).map(|line| line.index.to_string());
    let lines: Vec<_> = lines.into_iter().map(shown).collect();
    Ok(Json(json!({"entries": lines, "next": next})))
}

fn shown(line: AuditEntry) -> Value {
    json!({"index": line.index, "time": second(line.time), "by": line.by, "what": line.what})
}
