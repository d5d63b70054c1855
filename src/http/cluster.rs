//! `/v1/cluster`: how the cluster stands as this node sees it, and the breakers of its links.
//!
//! Every answer is one node's word, and names it: whom it can reach is often just what others see
//! otherwise.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::App;
use super::auth::Caller;
use super::policy::name;
use super::problem::{PathOf, Problem};
use super::settings::of_settings;
use crate::cluster::{BreakerStatus, ClusterStatus, MovesStatus, NodeStatus};

/// `GET /v1/cluster`.
pub async fn get(State(app): State<Arc<App>>) -> Json<Value> {
    Json(of_cluster(&app.cluster.status().await))
}

/// `GET /v1/cluster/breakers`.
pub async fn breakers(State(app): State<Arc<App>>) -> Json<Value> {
    let breakers: Vec<_> = app.cluster.breakers().iter().map(of_breaker).collect();
    Json(json!({"node": app.node, "breakers": breakers}))
}

/// `POST /v1/cluster/breakers/{id}/reset`: the next call to that peer is tried.
pub async fn reset_breaker(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
) -> Result<Json<Value>, Problem> {
    let peer = name("id", &id)?;
    if !app.cluster.reset_breaker(&peer) {
        return Err(Problem::not_found(format!("peer {peer} of node {}", app.node)));
    }
    tracing::info!(%peer, by = by.0, "breaker reset");
    Ok(Json(json!({"id": peer, "reset": true})))
}

fn of_cluster(status: &ClusterStatus) -> Value {
    json!({
        "name": status.name,
        "node": status.node,
        "lineage": status.lineage.numbers().iter().map(|number| format!("{number:016x}")).collect::<Vec<_>>(),
        "leader": status.leader,
        "term": status.term,
        "applied": status.applied,
        "contact_ms": status.contact_ms,
        "quorum": status.quorum,
        "round_trip_ms": status.round_trip.ms,
        "round_trip_ms_max": status.round_trip.allowed_ms,
        "settings": of_settings(&status.settings),
        "policy_version": status.policy_version,
        "enforce": status.enforce,
        "placement_version": status.placement_version,
        "nodes": status.nodes.iter().map(of_node).collect::<Vec<_>>(),
        "moves": status.moves.iter().map(of_moves).collect::<Vec<_>>(),
        "warnings": status.warnings,
    })
}

fn of_node(node: &NodeStatus) -> Value {
    json!({
        "id": node.id,
        "number": node.number,
        "http": node.http,
        "peer": node.peer,
        "state": node.state.word(),
        "waits_for": node.waits_for,
        "voter": node.voter,
        "leader": node.leader,
        "boot": node.boot,
        "partitions": node.partitions,
        "weight": node.weight,
    })
}

fn of_moves(moves: &MovesStatus) -> Value {
    let MovesStatus { from, to, moving, waiting } = moves;
    json!({"from": from, "to": to, "moving": moving, "waiting": waiting})
}

fn of_breaker(breaker: &BreakerStatus) -> Value {
    json!({
        "id": breaker.id,
        "state": breaker.state,
        "failures": breaker.failures,
        "opened": breaker.opened,
        "retry_after_ms": breaker.retry_after_ms,
        "connected": breaker.connected,
        "why": breaker.why,
    })
}

#[cfg(test)]
mod tests;
