//! What operators and their tools ask: is it alive, does it want work, what is it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use super::query::Query;
use crate::cluster::Readiness;

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Why a node wants no new work, in a few words; none if it does.
pub fn unready(app: &App) -> Option<&'static str> {
    let Readiness { leader, recovered } = app.cluster.readiness();
    match (app.ready.load(Ordering::Relaxed), leader, recovered) {
        (false, ..) => Some("stopping"),
        (true, false, _) => Some("no leader"),
        (true, true, false) => Some("log not applied"),
        (true, true, true) => None,
    }
}

/// `GET /readyz`: it wants new work. With `?verbose`, what that rests on; the status is the same.
pub async fn readyz(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let why = unready(&app);
    let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if uri.query().is_none() || !Query::of(&uri)?.flag("verbose")? {
        return Ok((status, format!("{}\n", why.unwrap_or("ready"))).into_response());
    }
    let control = app.control.clone();
    let checks = control.spawn(async move { checks(&app).await }).await;
    let checks = checks.map_err(|_| Problem::new(500, "the checks failed", "internal-error"))?;
    Ok((status, Json(json!({"ready": why.is_none(), "checks": checks}))).into_response())
}

/// How each part of the node stands. Load has no ok: what is too much of it is for whoever looks to say.
async fn checks(app: &App) -> Value {
    let Readiness { leader, recovered } = app.cluster.readiness();
    let observed = app.observe().await;
    let levels = &observed.reading.levels;
    json!({
        "accepting": {"ok": app.ready.load(Ordering::Relaxed)},
        "leader": {"ok": leader},
        "log": {"ok": recovered},
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

/// `GET /version`.
pub async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"name": "tidegate", "version": env!("CARGO_PKG_VERSION"), "node": app.node}))
}
