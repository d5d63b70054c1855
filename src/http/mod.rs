//! The door: HTTP in, checks and changes out. One file a resource.
//!
//! Decisions are handled where their connection lives, on the worker that will most likely decide
//! them too. Everything else (`guarded`) needs a token's role and runs on the control runtime, so
//! that a large policy or a long listing never delays a check.

mod access;
mod audit;
mod auth;
mod backup;
mod body;
mod check;
mod cluster;
mod compat;
mod denial;
mod forward_auth;
mod head;
mod headers;
mod members;
mod observe;
mod openapi;
mod ops;
mod permits;
mod plain;
mod policy;
mod problem;
mod query;
mod read;
mod reads;
mod render;
mod request_id;
pub mod server;
mod settings;
mod site;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router as Routes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post, put};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tower::Service;

pub use auth::Tokens;
pub(crate) use ops::unready;
pub use read::fuzz_check_body;
pub use site::SiteGuard;

use crate::check::Name;
use crate::clock::MS;
use crate::cluster::backup::BackUp;
use crate::cluster::{Membership, PolicyStore};
use crate::config::{ForwardAuth, Limits, Tls};
use crate::routing::Router;
use crate::telemetry::{DiskProbe, Telemetry};
use compat::{admin, config};
use problem::Problem;
use site::Refused;

/// What every handler can reach.
pub struct App {
    /// This node's id.
    pub node: String,
    /// The way to the shards.
    pub router: Router,
    /// The policy.
    pub store: Arc<dyn PolicyStore>,
    /// The cluster.
    pub cluster: Arc<dyn Membership>,
    /// All that a back-up holds.
    pub backups: Arc<dyn BackUp>,
    /// Which of the policy's environments this node runs in.
    pub environment: Name,
    /// Who may do what.
    pub tokens: Arc<Tokens>,
    /// Keeps web pages out; none where there are tokens.
    pub site: Option<SiteGuard>,
    /// Whether nodes may be open to other machines without any token.
    pub insecure_no_auth: bool,
    /// The keys by which the nodes know each other, for a node that is admitted.
    pub peer_keys: Vec<[u8; 32]>,
    /// Bounds of bodies and times.
    pub limits: Limits,
    /// The file system of the data directory; metrics report the free space there.
    pub disk: Arc<DiskProbe>,
    /// The certificates, where the node has any.
    pub tls: Option<Tls>,
    /// How requests that a proxy asks about are read.
    pub forward_auth: ForwardAuth,
    /// Whether the node wants new work, as far as it alone is concerned.
    pub ready: AtomicBool,
    /// What it says of itself.
    pub telemetry: Arc<Telemetry>,
    /// The control runtime.
    pub control: tokio::runtime::Handle,
}

/// The way in for every request.
///
/// The two calls that are asked all day have a short cut before the router: its work for each
/// request, boxes and extensions for the most part, costs more than a decision does.
pub struct Door {
    app: Arc<App>,
    routes: Routes,
}

impl Door {
    /// The door of a node.
    pub fn new(app: Arc<App>) -> Self {
        Self { routes: routes(app.clone()), app }
    }

    /// Whether this node was told to stop.
    fn is_stopping(&self) -> bool {
        !self.app.ready.load(Ordering::Relaxed)
    }

    /// Answers one request.
    async fn answer(&self, mut request: hyper::Request<Incoming>) -> hyper::Response<Body> {
        if let Some(Err(refused)) = self.app.site.as_ref().map(|site| site.judge(&request)) {
            return self.refuse(request, refused);
        }
        let answered = match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/check") => check::decide(&self.app, &mut request).await,
            (&Method::POST, "/v1/check/batch") => {
                check::decide_batch(&self.app, &mut request).await
            }
            _ => {
                let Ok(response) = self.routes.clone().call(request).await;
                return response.map(Either::Right);
            }
        };
        answered.unwrap_or_else(Problem::answer).map(Either::Left)
    }

    /// Answers a request that the node takes from no web page. Pages can repeat such requests as
    /// often as they like, so it is logged for operators that ask for it alone.
    fn refuse(
        &self,
        mut request: hyper::Request<Incoming>,
        refused: Refused,
    ) -> hyper::Response<Body> {
        let Refused { problem, foreign } = refused;
        foreign.into_iter().for_each(|foreign| self.app.telemetry.note_foreign(foreign));
        let path = request.uri().path();
        tracing::debug!(method = %request.method(), ?path, ?problem, "request of a web page \
                                                                      refused");
        let id = request_id::ensured(self.app.telemetry.request_ids(), request.headers_mut());
        let mut response = problem.answer();
        response.headers_mut().insert(request_id::REQUEST_ID, id);
        response.map(Either::Left)
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
        .route("/api/status/{tenant}/{client}/{action}", get(compat::api::status))
        .layer(from_fn_with_state(app.clone(), reads::judge))
        .layer(from_fn_with_state(app.clone(), admit_decision))
        .route("/v1/forward-auth", any(forward_auth::forward_auth))
        .route("/v1/forward-auth/", any(forward_auth::forward_auth))
        .route("/v1/forward-auth/{*suffix}", any(forward_auth::forward_auth));
    let open = Routes::new()
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/version", get(ops::version))
        .route("/metrics", get(observe::metrics))
        .route("/api/health", get(compat::api::health))
        .merge(openapi::routes())
        .layer(from_fn_with_state(app.clone(), reads::judge))
        .layer(from_fn_with_state(app.clone(), request_id::identify));
    let guarded = Routes::new()
        .route("/v1/policy", get(policy::get).put(policy::put))
        .route("/v1/policy/enforce", put(policy::put_enforce))
        .route("/v1/policy/history", get(policy::history))
        .route("/v1/policy/rollback", post(policy::rollback))
        .route("/v1/audit", get(audit::list))
        .route("/v1/access", get(access::list).post(access::add))
        .route("/v1/access/{id}", get(access::get).delete(access::delete))
        .route(
            "/v1/tiers/{tier}",
            get(policy::get_tier).put(policy::put_tier).delete(policy::delete_tier),
        )
        .route("/v1/tenants", get(tenants::list))
        .route("/v1/tenants/{tenant}", get(tenants::get).put(tenants::put).delete(tenants::delete))
        .route(
            "/v1/tenants/{tenant}/limits/{name}",
            put(tenants::put_limit).delete(tenants::delete_limit),
        )
        .route("/v1/tenants/{tenant}/reset", post(tenants::reset))
        .route("/v1/stats", get(observe::stats))
        .route("/v1/alerts", get(observe::get_alerts))
        .route("/v1/cluster", get(cluster::get))
        .route("/v1/cluster/settings", get(settings::get).put(settings::put))
        .route("/v1/cluster/backup", get(backup::get))
        .route("/v1/cluster/nodes", post(members::admit))
        .route("/v1/cluster/nodes/{id}", delete(members::leave))
        .route("/v1/cluster/nodes/{id}/weight", put(members::weigh))
        .route("/v1/cluster/nodes/{id}/drain", post(members::drain).delete(members::end_drain))
        .route("/v1/cluster/breakers", get(cluster::breakers))
        .route("/v1/cluster/breakers/{id}/reset", post(cluster::reset_breaker))
        .route("/api/config", get(config::list))
        .route("/api/config/global", put(config::put_global))
        .route("/api/config/tenant/{tenant}", get(config::get))
        .route(
            "/api/config/tenant/{tenant}/action/{action}",
            put(config::put_action).delete(config::delete_action),
        )
        .route(
            "/api/config/tenant/{tenant}/client/{client}/action/{action}",
            put(config::put_client_action).delete(config::delete_client_action),
        )
        .route("/admin/ratelimit/tenants", get(tenants::list))
        .route("/admin/ratelimit/tenants/{tenant}", get(tenants::get))
        .route("/admin/ratelimit/tenants/{tenant}/reset", delete(tenants::reset_whole))
        .route("/admin/ratelimit/circuit-breaker/reset", post(admin::reset_breakers))
        .route("/admin/ratelimit/quotas", get(admin::quotas))
        .route("/api/stats", get(observe::stats))
        .route("/api/alerts", get(observe::get_alerts))
        .layer(from_fn_with_state(app.clone(), reads::judge))
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(from_fn_with_state(app.clone(), request_id::identify));
    decisions
        .merge(open)
        .merge(guarded)
        .fallback(any(no_such_path))
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

/// Where a back-up is had.
const BACKUP: &str = "/v1/cluster/backup";

/// The calls, by the beginning of their paths, that are answered before the cluster has begun: by
/// them one finds out why it hasn't.
const BEFORE_THE_BEGINNING: [&str; 2] = ["/v1/cluster", "/admin/ratelimit/circuit-breaker"];

/// Lets a decision call in whose token may decide. `/v1/check` and `/v1/check/batch` mostly don't
/// pass here: they judge their tokens themselves.
async fn admit_decision(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.tokens.admit_decision(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Lets in whoever has the role, and moves the work to the control runtime.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let line = Line::begin(&app, &request);
    let admitted = match request.uri().path() {
        BACKUP => app.tokens.admit_backup(request.headers()),
        _ => app.tokens.admit(request.method(), request.headers()),
    };
    let caller = match admitted {
        Ok(caller) => caller,
        Err(problem) => {
            let response = problem.into_response();
            line.end(&app, None, response.status());
            return response;
        }
    };
    let path = request.uri().path();
    if !app.router.has_begun() && !BEFORE_THE_BEGINNING.iter().any(|calls| path.starts_with(calls))
    {
        let detail = app.router.missing();
        let problem =
            Problem::new(503, detail.as_str(), "not-started").with_header(header::RETRY_AFTER, "1");
        let response = problem.into_response();
        line.end(&app, Some(&caller), response.status());
        return response;
    }
    request.extensions_mut().insert(caller.clone());
    let response = match app.control.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(500, "the handler failed", "internal-error").into_response(),
    };
    line.end(&app, Some(&caller), response.status());
    response
}

/// The log line of a guarded call: who, what, and how it ended. No query is in it and no header but
/// the request id: they may hold secrets.
struct Line {
    method: Method,
    path: String,
    request_id: String,
    /// Boot nanoseconds.
    began: u64,
}

impl Line {
    fn begin(app: &App, request: &Request) -> Self {
        let id = request.headers().get(request_id::REQUEST_ID).and_then(|id| id.to_str().ok());
        Self {
            method: request.method().clone(),
            path: request.uri().path().into(),
            request_id: id.unwrap_or_default().into(),
            began: app.telemetry.now().boot,
        }
    }

    /// Whoever isn't let in is logged for those who look for him alone: he can't be made to stop
    /// asking.
    fn end(self, app: &App, by: Option<&auth::Caller>, status: StatusCode) {
        let Self { method, path, request_id, began } = self;
        let ms = app.telemetry.now().boot.saturating_sub(began) / MS;
        let (by, status) = (by.map(|caller| caller.0.as_str()), status.as_u16());
        match by {
            Some(by) if !method.is_safe() => {
                tracing::info!(request_id, by, %method, ?path, status, ms, "change asked for")
            }
            by => tracing::debug!(request_id, by, %method, ?path, status, ms, "guarded call"),
        }
    }
}

async fn no_such_path(State(app): State<Arc<App>>, request: Request) -> Response {
    let detail = format!("there is nothing at {}", request.uri().path());
    identified(&app, request, Problem::new(404, detail, "not-found"))
}

async fn no_such_method(State(app): State<Arc<App>>, request: Request) -> Response {
    let detail = format!("{} takes no {}", request.uri().path(), request.method());
    identified(&app, request, Problem::new(405, detail, "method-not-allowed"))
}

fn identified(app: &App, mut request: Request, problem: Problem) -> Response {
    let id = request_id::ensured(app.telemetry.request_ids(), request.headers_mut());
    let mut response = problem.into_response();
    response.headers_mut().insert(request_id::REQUEST_ID, id);
    response
}
