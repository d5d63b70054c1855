//! `/admin/ratelimit/…` (H3): tenants, quotas and circuit breakers under the paths that another
//! system documents. What is about one tenant is answered by the native calls themselves
//! (`super::super::tenants`).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use super::super::App;
use super::super::auth::Caller;
use super::super::policy::versioned;

/// `GET /admin/ratelimit/quotas`: every tier with its numbers, as the policy has them.
pub async fn quotas(State(app): State<Arc<App>>) -> Response {
    let policy = app.store.current();
    let document = policy.document();
    let tiers: Map<_, _> =
        document.tiers.iter().map(|(name, tier)| (name.to_string(), tier.to_json())).collect();
    let answer = json!({"default_tier": document.default_tier, "tiers": Value::Object(tiers)});
    versioned(policy.version(), answer)
}

/// `POST /admin/ratelimit/circuit-breaker/reset`: closes the breakers of this node's links to all
/// peers.
pub async fn reset_breakers(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
) -> Json<Value> {
    let peers = app.cluster.breakers().into_iter().map(|breaker| breaker.id);
    let reset: Vec<_> = peers.filter(|peer| app.cluster.reset_breaker(peer)).collect();
    tracing::info!(peers = reset.len(), by = by.0, "all breakers reset");
    Json(json!({"status": "reset", "node": app.node, "breakers": reset}))
}
