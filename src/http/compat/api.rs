//! `/api/…` (H2): a limit sent with the request, judged by a sliding log per tenant, client and
//! action under the name `api`.
//!
//! A limit named `api` that the policy has for the tenant, action or client (or for everybody)
//! takes the place of the one sent; the calls in `config` set such limits. Above what a sliding log
//! remembers, the sliding window stands in.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::ops::{unready, vitals};
use super::super::problem::{PathOf, Problem};
use super::super::query::Query;
use super::super::{App, body, headers};
use crate::check::{Check, Decision, Dimension, Label, Limit, Match, Name, TenantId};
use crate::clock::SECOND;
use crate::cluster::Purpose;
use crate::input::{Fields, Reader, Tree};
use crate::limit::{ENTRIES_MAX, Rule, UNITS_MAX, WINDOW_MAX, Window};
use crate::telemetry::Call;

/// The limit of these calls.
pub const LIMIT_NAME: &str = "api";
/// The longest window, in seconds.
pub const SECONDS_MAX: u64 = WINDOW_MAX / SECOND;

/// So many requests in so long.
#[derive(Clone, Copy)]
pub struct Quantity {
    /// Requests in any one window.
    pub max_requests: u64,
    /// The length of the window, in seconds.
    pub seconds: u64,
}

impl Quantity {
    /// The two members that say it, of whatever object they are in.
    pub fn read(r: &mut Reader, fields: &mut Fields<'_>) -> Option<Self> {
        let max_requests = fields.required(r, "max_requests", |r, t| r.whole(t, 1..=UNITS_MAX));
        let seconds =
            fields.required(r, "window_duration_seconds", |r, t| r.whole(t, 1..=SECONDS_MAX));
        Some(Self { max_requests: max_requests?, seconds: seconds? })
    }

    /// The limit `api` with these numbers, for checks that match. Its buckets are those of the
    /// limit that a request sends.
    pub fn limit(self, when: Match) -> Limit {
        let window = Window { limit: self.max_requests, length: self.seconds * SECOND };
        let rule = match self.max_requests {
            ..=ENTRIES_MAX => Rule::SlidingLog(window),
            _ => Rule::SlidingWindow(window),
        };
        let per = vec![Dimension::Tenant, Dimension::Client, Dimension::Action];
        Limit { name: limit_name(), per, when, rule, enforce: true }
    }
}

/// The name of the limit.
pub fn limit_name() -> Name {
    Name::new(LIMIT_NAME).unwrap_or_else(|| unreachable!("{LIMIT_NAME} is a name"))
}

fn check(tenant: TenantId, client: Label, action: Label, quantity: Quantity) -> Check {
    let limits = vec![Arc::new(quantity.limit(Match::default()))];
    Check { client: Some(client), action: Some(action), limits, ..Check::of(tenant) }
}

/// `POST /api/check_and_consume`.
pub async fn check_and_consume(
    State(app): State<Arc<App>>,
    mut request: Request,
) -> Result<Response, Problem> {
    let _timed = app.telemetry.time(Call::Api);
    let tree = body::json(&app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let check = consume_body(&mut r, &tree);
    let check = r.finish(check).map_err(Problem::bad_input)?;
    Ok(answer(&app, &app.router.check(check).await?))
}

fn consume_body(r: &mut Reader, tree: &Tree) -> Option<Check> {
    let mut fields = r.fields(tree)?;
    let label = |r: &mut Reader, t: &Tree| r.parsed(t, Label::EXPECTED, Label::new);
    let tenant =
        fields.required(r, "tenant_id", |r, t| r.parsed(t, TenantId::EXPECTED, TenantId::new));
    let client = fields.required(r, "client_id", label);
    let action = fields.required(r, "action_type", label);
    let quantity = Quantity::read(r, &mut fields);
    fields.finish(r);
    Some(check(tenant?, client?, action?, quantity?))
}

/// `GET /api/status/{tenant}/{client}/{action}?max_requests=&window_duration_seconds=`: the same,
/// and nothing is taken.
pub async fn status(
    State(app): State<Arc<App>>,
    PathOf((tenant, client, action)): PathOf<(String, String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _timed = app.telemetry.time(Call::Api);
    let query = Query::of(&uri)?;
    let mut r = Reader::default();
    let tenant = part(&mut r, "tenant", tenant, TenantId::EXPECTED, TenantId::new);
    let client = part(&mut r, "client", client, Label::EXPECTED, Label::new);
    let action = part(&mut r, "action", action, Label::EXPECTED, Label::new);
    let mut number = |name: &str, most| {
        if query.get(name).is_none() {
            r.fault_at(name, "is required");
        }
        query.whole(&mut r, name, 1..=most)
    };
    let (max_requests, seconds) =
        (number("max_requests", UNITS_MAX), number("window_duration_seconds", SECONDS_MAX));
    let quantity = (|| Some(Quantity { max_requests: max_requests?, seconds: seconds? }))();
    let check = (|| Some(check(tenant?, client?, action?, quantity?)))();
    let check = r.finish(check).map_err(Problem::bad_input)?;
    Ok(answer(&app, &app.router.peek(check).await?))
}

/// A part of a path, read like a member of that name.
pub fn part<T>(
    r: &mut Reader,
    name: &str,
    text: String,
    expected: &str,
    parse: fn(&str) -> Option<T>,
) -> Option<T> {
    r.member(name, |r| r.parsed(&Tree::Text(text), expected, parse))
}

/// What `status` says of a request that was decided, whether it is allowed or not.
const PROCESSED: &str = "processed";

fn answer(app: &App, decision: &Decision) -> Response {
    let tightest = decision.tightest();
    // What passes unlimited has no number left, and nothing to reset.
    let reset = decision.retry_after.or(tightest.map(|verdict| verdict.reset_after)).unwrap_or(0);
    let document = json!({
        "allowed": decision.allowed,
        "remaining_requests": match tightest {
            Some(verdict) => json!(verdict.remaining),
            None if decision.allowed => Value::Null,
            None => json!(0),
        },
        "reset_time_seconds": app.router.wall().saturating_add(reset).div_ceil(SECOND),
        "status": PROCESSED,
    });
    let mut response = Json(document).into_response();
    headers::write(app, decision, response.headers_mut());
    response
}

/// `GET /api/health`: what `/readyz` says, with what people look at first.
pub async fn health(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (code, status) = match unready(&app, Purpose::Everything) {
        None => (StatusCode::OK, "healthy".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let control = app.control.clone();
    let described = control.spawn(async move {
        let mut document = vitals(&app).await;
        document.insert("status".into(), json!(status));
        document.insert("node".into(), json!(app.node));
        document
    });
    let document =
        described.await.map_err(|_| Problem::new(500, "the checks failed", "internal-error"))?;
    Ok((code, Json(document)).into_response())
}
