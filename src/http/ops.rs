//! What operators and their tools ask: is it alive, does it want work, what is it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::App;

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: it wants new work.
pub async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.ready.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

/// `GET /version`.
pub async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"name": "tidegate", "version": env!("CARGO_PKG_VERSION"), "node": app.node}))
}
