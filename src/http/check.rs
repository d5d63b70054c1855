//! `/v1/check`, `/v1/check/batch` and `/v1/peek`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::problem::{Problem, document};
use super::render::DecisionView;
use super::{App, body, headers, query, read};
use crate::check::{Check, Decision};
use crate::input::{Fault, Reader, Tree};
use crate::shard::Refusal;
use crate::telemetry::Call;

/// Checks in one batch.
const BATCH_MAX: usize = 1_000;

/// `POST /v1/check`: one decision.
pub async fn check(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let _timed = app.telemetry.time(Call::Check);
    app.tokens.admit_decision(request.headers())?;
    let as_429 = query::wants_429(request.uri())?;
    let (parts, body) = request.into_parts();
    let check = one(&app, &parts.headers, body).await?;
    let decision = app.router.check(check).await?;
    Ok(answer(&app, &decision, as_429.then(|| parts.uri.path())))
}

/// `POST /v1/peek`: the same question, and nothing is taken.
pub async fn peek(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let _timed = app.telemetry.time(Call::Peek);
    app.tokens.admit_decision(request.headers())?;
    let (parts, body) = request.into_parts();
    let check = one(&app, &parts.headers, body).await?;
    let decision = app.router.peek(check).await?;
    Ok(answer(&app, &decision, None))
}

async fn one(app: &App, headers: &HeaderMap, body: Body) -> Result<Check, Problem> {
    let tree = body::json(app, headers, body, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let check = read::check(&mut r, &tree);
    let mut check = r.finish(check).map_err(Problem::bad_input)?;
    read::idempotency_key(headers, &mut check).map_err(|fault| Problem::bad_input(vec![fault]))?;
    Ok(check)
}

/// An answer with its headers. A denial is 200, or for `denied_at` a problem document of status 429 with the same members.
pub fn answer(app: &App, decision: &Decision, denied_at: Option<&str>) -> Response {
    let view = DecisionView::new(decision, &app.node);
    let mut response = match denied_at.filter(|_| !decision.allowed) {
        None => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], bytes(&view)).into_response(),
        Some(instance) => document(StatusCode::TOO_MANY_REQUESTS, bytes(&denial(&view, decision, instance))),
    };
    headers::write(decision, response.headers_mut());
    response
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    // A view holds nothing that JSON can't say.
    serde_json::to_vec(value).unwrap_or_default()
}

/// A denial as the problem type that the rate limit header draft registers.
fn denial(view: &DecisionView<'_>, decision: &Decision, instance: &str) -> Map<String, Value> {
    let Value::Object(mut members) = json!(view) else {
        return Map::new();
    };
    let name = decision.denied_by.as_ref().map_or("", |by| by.name.as_str());
    let detail = match decision.retry_after {
        Some(nanos) => {
            format!("limit {name} is used up; it lets this pass in {} ms", super::render::ms(nanos))
        }
        None => format!("{name} doesn't let this pass, now or later"),
    };
    let of_problem = json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 429,
        "detail": detail,
        "instance": instance,
        "violated-policies": [name],
    });
    members.extend(of_problem.as_object().cloned().unwrap_or_default());
    members
}

/// How the checks of a batch belong together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Independent,
    AllOrNothing,
}

/// `POST /v1/check/batch`: up to a thousand decisions.
pub async fn batch(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let _timed = app.telemetry.time(Call::Batch);
    app.tokens.admit_decision(request.headers())?;
    let (parts, body) = request.into_parts();
    let tree = body::json(&app, &parts.headers, body, app.limits.batch_body_bytes).await?;
    let (mode, items) = envelope(&tree)?;
    let checks = items.iter().enumerate().map(|(i, item)| {
        let mut r = Reader::within(format!("checks[{i}]"));
        let check = read::check(&mut r, item);
        r.finish(check)
    });
    let outcomes = match mode {
        Mode::Independent => independent(&app, checks.collect()).await,
        Mode::AllOrNothing => all_or_nothing(&app, checks.collect()).await?,
    };
    let allowed = outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|decision| decision.allowed));
    let decisions = outcomes.iter().map(|outcome| match outcome {
        Ok(decision) => Item::Decision(Box::new(DecisionView::new(decision, &app.node))),
        Err(problem) => Item::Failed { error: problem.document() },
    });
    let view = BatchView { allowed, decisions: decisions.collect() };
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], bytes(&view)).into_response())
}

#[derive(Serialize)]
struct BatchView<'a> {
    allowed: bool,
    decisions: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Decision(Box<DecisionView<'a>>),
    Failed { error: Map<String, Value> },
}

fn envelope(tree: &Tree) -> Result<(Mode, &[Tree]), Problem> {
    let mut r = Reader::default();
    let mut too_many = false;
    let found = r.fields(tree).and_then(|mut fields| {
        let words = [("independent", Mode::Independent), ("all_or_nothing", Mode::AllOrNothing)];
        let mode = fields.optional(&mut r, "mode", |r, t| r.choice(t, &words));
        let items = fields.required(&mut r, "checks", |r, t| match t {
            Tree::List(items) => Some(items.as_slice()),
            other => {
                r.fault(format!("{other} is not a list"));
                None
            }
        });
        if items.is_some_and(<[Tree]>::is_empty) {
            r.fault_at("checks", "is empty");
        }
        too_many = items.is_some_and(|items| items.len() > BATCH_MAX);
        fields.finish(&mut r);
        Some((mode.unwrap_or(Mode::Independent), items?))
    });
    if too_many {
        return Err(Problem::too_large("the batch has too many checks", BATCH_MAX as u64));
    }
    r.finish(found).map_err(Problem::bad_input)
}

type ReadCheck = Result<Check, Vec<Fault>>;

/// Every check by itself: one that can't be read or decided has an error in its place.
async fn independent(app: &App, checks: Vec<ReadCheck>) -> Vec<Result<Decision, Problem>> {
    let mut good = Vec::with_capacity(checks.len());
    let places: Vec<Option<Vec<Fault>>> = checks
        .into_iter()
        .map(|check| match check {
            Ok(check) => {
                good.push(check);
                None
            }
            Err(faults) => Some(faults),
        })
        .collect();
    let mut decided = app.router.check_each(good).await.into_iter();
    let place = |(i, faults): (usize, Option<Vec<Fault>>)| match faults {
        Some(faults) => Err(Problem::bad_input(faults)),
        None => {
            let refused = |refusal| Problem::from(refusal).within(&format!("checks[{i}]"));
            decided.next().unwrap_or(Err(Refusal::Busy)).map_err(refused)
        }
    };
    places.into_iter().enumerate().map(place).collect()
}

/// All checks together: one that can't be read spoils the batch.
async fn all_or_nothing(
    app: &App,
    checks: Vec<ReadCheck>,
) -> Result<Vec<Result<Decision, Problem>>, Problem> {
    let (mut good, mut faults) = (Vec::with_capacity(checks.len()), Vec::new());
    for check in checks {
        match check {
            Ok(check) => good.push(check),
            Err(of_one) => faults.extend(of_one),
        }
    }
    let mut ids = std::collections::BTreeSet::new();
    let readable = if faults.is_empty() { good.as_slice() } else { &[] };
    for (i, check) in readable.iter().enumerate() {
        if check.account() != good[0].account() {
            faults.push(Fault::new(
                format!("checks[{i}].tenant"),
                "all_or_nothing is for the checks of one tenant",
            ));
        }
        if check.request_id.as_ref().is_some_and(|id| !ids.insert(id)) {
            faults.push(Fault::new(format!("checks[{i}].request_id"), "stands in the batch twice"));
        }
    }
    if !faults.is_empty() {
        faults.truncate(crate::input::FAULTS_MAX);
        return Err(Problem::bad_input(faults));
    }
    Ok(app.router.check_all(good).await?.into_iter().map(Ok).collect())
}
