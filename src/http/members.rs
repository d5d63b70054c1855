//! `/v1/cluster/nodes`: who is to be a member, who is to leave, who is to own nothing.
//!
//! ```text
//! POST   /v1/cluster/nodes {"id":"n4","http":"127.0.0.1:7074","peer":"127.0.0.1:7174"}     201, and all it needs to begin
//! DELETE /v1/cluster/nodes/n3            202: it hands over what it owns, gives its vote back, and is gone
//! DELETE /v1/cluster/nodes/n3?force      202: it is gone already, and what it owned begins as spent elsewhere
//! POST   /v1/cluster/nodes/n3/drain      202: it hands over what it owns, and stays
//! DELETE /v1/cluster/nodes/n3/drain      200: it may own again; if it was leaving, it stays
//! PUT    /v1/cluster/nodes/n3/weight {"weight":2}  200: it takes twice the load of a node of weight 1; of weight 0, none
//! ```
//!
//! An order is answered once it stands in the log; what it sets going takes its time, and `GET
//! /v1/cluster` shows how far it has come. What would cost what can't be had back is refused: 409.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::auth::Caller;
use super::policy::name;
use super::problem::{PathOf, Problem};
use super::query::Query;
use super::{App, body};
use crate::check::Name;
use crate::cluster::state::{Leaving, NewMember};
use crate::cluster::{Granted, Order};
use crate::config::{ADVERTISED, advertised, open_without_auth, weight};
use crate::input::{Fault, Reader, Tree};
use crate::placement::Weight;

/// `POST /v1/cluster/nodes`: 201, or 200 where the node was admitted before and has never been
/// there.
pub async fn admit(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    mut request: Request,
) -> Result<Response, Problem> {
    let tree = body::json(&app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let new = new_member(&mut r, &tree);
    let new = r.finish(new).map_err(Problem::bad_input)?;
    if new.peer == new.http {
        let detail = format!("{} is the http address too", new.peer);
        return Err(Problem::impossible(&detail, vec![Fault::new("peer", &detail)]));
    }
    if app.tokens.digests().is_empty() && !app.insecure_no_auth && !is_loopback(&new.http) {
        let detail = open_without_auth(&new.http);
        return Err(Problem::impossible(&detail, vec![Fault::new("http", &detail)]));
    }
    let granted = app.cluster.administer(Order::Admit(new.clone()), by.0.clone()).await?;
    tracing::info!(node = %new.name, by = by.0, number = granted.node.0, "node admitted");
    let status = if granted.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(admission(&app, &new, granted).await)).into_response())
}

fn new_member(r: &mut Reader, tree: &Tree) -> Option<NewMember> {
    let mut fields = r.fields(tree)?;
    let id = fields.required(r, "id", |r, t| r.parsed(t, Name::EXPECTED, Name::new));
    let http = fields.required(r, "http", |r, t| r.parsed(t, ADVERTISED, advertised));
    let peer = fields.required(r, "peer", |r, t| r.parsed(t, ADVERTISED, advertised));
    let weight = fields.optional(r, "weight", weight).unwrap_or(Weight::ONE);
    fields.finish(r);
    Some(NewMember { name: id?, http: http?, peer: peer?, weight })
}

/// Whether an address is on this machine: by its number, or by the one name that says so.
fn is_loopback(address: &str) -> bool {
    match address.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip().to_canonical().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

/// What a node needs to begin.
async fn admission(app: &App, new: &NewMember, granted: Granted) -> Value {
    let status = app.cluster.status().await;
    let member = |node: &crate::cluster::NodeStatus| json!({"id": node.id, "number": node.number, "peer": node.peer});
    let hex = crate::cluster::peer_keys::to_hex;
    let tokens = app.tokens.digests();
    // Without tokens every caller could have them: then a new node is given the secret by its
    // operator.
    let peer_keys: Vec<_> = match tokens.is_empty() {
        true => Vec::new(),
        false => app.peer_keys.iter().map(hex).collect(),
    };
    let tokens = tokens.iter().map(
        |(name, role, sha256)| json!({"name": name, "role": role.word(), "sha256": hex(sha256)}),
    );
    json!({
        "id": new.name,
        "number": granted.node.0,
        "http": new.http,
        "peer": new.peer,
        "cluster": status.name,
        "environment": app.environment,
        "round_trip_ms": status.settings.round_trip_ms,
        "members": status.nodes.iter().map(member).collect::<Vec<_>>(),
        "tokens": tokens.collect::<Vec<_>>(),
        "peer_keys": peer_keys,
    })
}

/// `DELETE /v1/cluster/nodes/{id}`; with `?force` the node is given up.
pub async fn leave(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let how =
        if Query::of(&uri)?.flag("force")? { Leaving::Abandoned } else { Leaving::HandingOver };
    order(&app, by, &id, StatusCode::ACCEPTED, |node| Order::Leave { node, how }).await
}

/// `POST /v1/cluster/nodes/{id}/drain`.
pub async fn drain(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
) -> Result<Response, Problem> {
    order(&app, by, &id, StatusCode::ACCEPTED, |node| Order::Drain { node, draining: true }).await
}

/// `DELETE /v1/cluster/nodes/{id}/drain`.
pub async fn end_drain(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
) -> Result<Response, Problem> {
    order(&app, by, &id, StatusCode::OK, |node| Order::Drain { node, draining: false }).await
}

/// `PUT /v1/cluster/nodes/{id}/weight`.
pub async fn weigh(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
    mut request: Request,
) -> Result<Response, Problem> {
    let tree = body::json(&app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let weight = r.fields(&tree).and_then(|mut fields| {
        let weight = fields.required(&mut r, "weight", weight);
        fields.finish(&mut r);
        weight
    });
    let weight = r.finish(weight).map_err(Problem::bad_input)?;
    order(&app, by, &id, StatusCode::OK, |node| Order::Weigh { node, weight }).await
}

/// Gives an order about the node `id`, and answers how that node stands.
async fn order(
    app: &App,
    by: Caller,
    id: &str,
    status: StatusCode,
    order: impl FnOnce(Name) -> Order,
) -> Result<Response, Problem> {
    let node = name("id", id)?;
    let granted = app.cluster.administer(order(node.clone()), by.0).await?;
    let nodes = app.cluster.status().await.nodes;
    let stands = match nodes.iter().find(|member| member.id == node) {
        Some(member) => json!({
            "id": node,
            "number": member.number,
            "state": member.state.word(),
            "voter": member.voter,
            "partitions": member.partitions,
            "weight": member.weight,
            "waits_for": member.waits_for,
        }),
        None => json!({
            "id": node,
            "number": granted.node.0,
            "state": "gone",
            "voter": false,
            "partitions": 0,
            "weight": 0,
            "waits_for": null,
        }),
    };
    Ok((status, Json(stands)).into_response())
}
