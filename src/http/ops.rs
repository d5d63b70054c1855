//! What operators and their tools ask: is it alive, does it want work, what is it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::App;
use super::problem::Problem;
use super::query::Query;
use crate::check::Name;
use crate::cluster::Purpose;
use crate::input::Fault;

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// What keeps a node from taking work for `purpose`, in words; none if it takes it.
pub fn unready(app: &App, purpose: Purpose) -> Option<String> {
    match app.ready.load(Ordering::Relaxed) {
        false => Some("stopping".into()),
        true => app.cluster.readiness().missing(purpose),
    }
}

/// What `?for=` asks about.
const PURPOSES: [(&str, Purpose); 2] =
    [("everything", Purpose::Everything), ("checks", Purpose::Checks)];

fn purpose(query: &Query) -> Result<Purpose, Problem> {
    let Some(word) = query.get("for") else { return Ok(Purpose::Everything) };
    let known = PURPOSES.iter().find(|(known, _)| *known == word);
    known.map(|(_, purpose)| *purpose).ok_or_else(|| {
        Problem::bad_input(vec![Fault::new(
            "for",
            format!("{word:?} is not one of everything, checks"),
        )])
    })
}

/// `GET /readyz`: it takes work; with `?for=checks`, checks. With `?verbose`, what that rests on;
/// the status is the same.
pub async fn readyz(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::of(&uri)?;
    let why = unready(&app, purpose(&query)?);
    let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if uri.query().is_none() || !query.flag("verbose")? {
        return Ok((status, format!("{}\n", why.as_deref().unwrap_or("ready"))).into_response());
    }
    let control = app.control.clone();
    let described = control.spawn(async move {
        let mut document = vitals(&app).await;
        document.insert("ready".into(), json!(why.is_none()));
        document.insert("missing".into(), json!(why));
        document.insert("checks".into(), checks(&app).await);
        document
    });
    let document =
        described.await.map_err(|_| Problem::new(500, "the checks failed", "internal-error"))?;
    Ok((status, Json(document)).into_response())
}

/// What people and dashboards look at first: the breakers of this node's links, its load, and
/// whether limits are enforced.
pub async fn vitals(app: &App) -> Map<String, Value> {
    let load = app.telemetry.machine();
    let breakers = app.cluster.breakers().into_iter();
    let breakers: Vec<_> =
        breakers.map(|breaker| json!({"id": breaker.id, "state": breaker.state})).collect();
    let mut document = Map::new();
    document.insert("enforce".into(), json!(app.store.current().document().enforce));
    document.insert("breakers".into(), json!(breakers));
    document.insert("cpu_percent".into(), json!(load.cpu_percent));
    document.insert("memory_percent".into(), json!(load.memory_percent));
    document.insert("active_tenants".into(), json!(app.observe().await.reading.levels.tenants));
    document
}

/// How each part of the node stands. Load has no ok: what is too much of it is for whoever looks to
/// say.
async fn checks(app: &App) -> Value {
    let readiness = app.cluster.readiness();
    let observed = app.observe().await;
    let levels = &observed.reading.levels;
    json!({
        "accepting": {"ok": app.ready.load(Ordering::Relaxed)},
        "leader": {"ok": readiness.majority},
        "log": {"ok": readiness.recovered},
        "registered": {"ok": readiness.registered},
        "started": {"ok": readiness.started, "waiting_for": names(&readiness.waiting_for)},
        "dialling": {"ok": readiness.cut_off.is_none()},
        "store": {"ok": app.store.is_writable(), "policy_version": app.store.current().version()},
        "shards": {
            "ok": observed.silent == 0,
            "count": observed.shards,
            "silent": observed.silent,
            "policy_version": levels.policy_version,
        },
        "load": {
            "active_tenants": levels.tenants,
            "open_checks": levels.open_checks,
            "mailbox_depth_max": app.router.depths().into_iter().max().unwrap_or(0),
            "connections": app.telemetry.connections().load(Ordering::Relaxed),
        },
    })
}

fn names(names: &[Name]) -> Vec<&str> {
    names.iter().map(Name::as_str).collect()
}

/// `GET /version`.
pub async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"name": "tidegate", "version": env!("CARGO_PKG_VERSION"), "node": app.node}))
}
