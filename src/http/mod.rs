//! The door: HTTP in, checks and changes out. One file a resource.
//!
//! Decisions are handled where their connection lives, on the worker that will most likely decide them too. Everything
//! else (`guarded`) needs a token's role and runs on the control runtime, so that a large policy or a long listing never
//! delays a check.

mod auth;
mod body;
mod check;
mod compat;
mod head;
mod headers;
mod openapi;
mod ops;
mod permits;
mod plain;
mod policy;
mod problem;
mod query;
mod read;
mod render;
pub mod server;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router as Routes;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post, put};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tower::Service;

pub use auth::Tokens;
pub use read::fuzz_check_body;

use crate::cluster::PolicyStore;
use crate::config::Limits;
use crate::routing::Router;
use problem::Problem;

/// What every handler can reach.
pub struct App {
    /// This node's id.
    pub node: String,
    /// The way to the shards.
    pub router: Router,
    /// The policy.
    pub store: Arc<dyn PolicyStore>,
    /// Who may do what.
    pub tokens: Tokens,
    /// Bounds of bodies and times.
    pub limits: Limits,
    /// Whether the node wants new work.
    pub ready: AtomicBool,
    /// The control runtime.
    pub control: tokio::runtime::Handle,
}

/// The way in for every request.
///
/// The two calls that are asked all day have a short cut before the router: its work for each request, boxes and extensions
/// for the most part, costs more than a decision does.
pub struct Door {
    app: Arc<App>,
    routes: Routes,
}

impl Door {
    /// The door of a node.
    pub fn new(app: Arc<App>) -> Self {
        Self { routes: routes(app.clone()), app }
    }

    /// Answers one request.
    async fn answer(&self, request: hyper::Request<Incoming>) -> hyper::Response<Body> {
        let answered = match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/check") => check::decide(&self.app, request).await,
            (&Method::POST, "/v1/check/batch") => check::decide_batch(&self.app, request).await,
            _ => {
                let Ok(response) = self.routes.clone().call(request).await;
                return response.map(Either::Right);
            }
        };
        answered.unwrap_or_else(Problem::answer).map(Either::Left)
    }
}

/// A body that is all there, or one from the routes.
type Body = Either<Full<Bytes>, axum::body::Body>;

/// All routes of a node.
fn routes(app: Arc<App>) -> Routes {
    let decisions = Routes::new()
        .route("/v1/check", post(check::check))
        .route("/v1/check/batch", post(check::batch))
        .route("/v1/peek", post(check::peek))
        .route("/v1/permits/{id}", delete(permits::release))
        .route("/v1/permits/{id}/renew", post(permits::renew))
        .route("/api/check_and_consume", post(compat::api::check_and_consume))
        .route("/api/status/{tenant}/{client}/{action}", get(compat::api::status));
    let open = Routes::new()
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/version", get(ops::version))
        .route("/api/health", get(compat::api::health));
    let guarded = Routes::new()
        .route("/v1/policy", get(policy::get).put(policy::put))
        .route("/v1/tiers/{tier}", get(policy::get_tier).put(policy::put_tier).delete(policy::delete_tier))
        .route("/v1/tenants", get(tenants::list))
        .route("/v1/tenants/{tenant}", get(tenants::get).put(tenants::put).delete(tenants::delete))
        .route("/v1/tenants/{tenant}/limits/{name}", put(tenants::put_limit).delete(tenants::delete_limit))
        .route("/v1/tenants/{tenant}/reset", post(tenants::reset))
        .layer(from_fn_with_state(app.clone(), guard));
    decisions
        .merge(open)
        .merge(openapi::routes())
        .merge(guarded)
        .fallback(any(no_such_path))
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

/// Lets in whoever has the role, and moves the work to the control runtime.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match app.tokens.admit(request.method(), request.headers()) {
        Ok(name) => drop(request.extensions_mut().insert(name)),
        Err(problem) => return problem.into_response(),
    }
    match app.control.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(500, "the handler failed", "internal-error").into_response(),
    }
}

async fn no_such_path(request: Request) -> Problem {
    Problem::new(404, format!("there is nothing at {}", request.uri().path()), "not-found")
}

async fn no_such_method(request: Request) -> Problem {
    let detail = format!("{} takes no {}", request.uri().path(), request.method());
    Problem::new(405, detail, "method-not-allowed")
}
