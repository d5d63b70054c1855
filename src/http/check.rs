//! `/v1/check`, `/v1/check/batch` and `/v1/peek`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use serde_json::json;

use super::problem::{Answer, Problem, whole};
use super::{App, body, denial, headers, plain, query, read, render};
use crate::check::{Check, Decision};
use crate::input::{Fault, Reader, Tree};
use crate::shard::Refusal;
use crate::telemetry::Call;

/// Checks in one batch.
pub const BATCH_MAX: usize = 1_000;

/// `POST /v1/check`: one decision.
pub async fn check(State(app): State<Arc<App>>, mut request: Request<Body>) -> Result<Response, Problem> {
    Ok(decide(&app, &mut request).await?.map(Body::new))
}

/// The decision for a request, from wherever it comes.
pub async fn decide<B>(app: &App, request: &mut Request<B>) -> Result<Answer, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let _timed = app.telemetry.time(Call::Check);
    app.tokens.admit_decision(request.headers())?;
    let as_429 = query::wants_429(request.uri())?;
    let body = body::read(app, request, app.limits.body_bytes).await?;
    let asked = app.router.check(one(request.headers(), &body)?);
    Ok(answer(app, &asked.await?, as_429.then(|| request.uri().path())))
}

/// `POST /v1/peek`: the same question, and nothing is taken.
pub async fn peek(State(app): State<Arc<App>>, mut request: Request<Body>) -> Result<Response, Problem> {
    let _timed = app.telemetry.time(Call::Peek);
    app.tokens.admit_decision(request.headers())?;
    let body = body::read(&app, &mut request, app.limits.body_bytes).await?;
    let decision = app.router.peek(one(request.headers(), &body)?).await?;
    Ok(answer(&app, &decision, None).map(Body::new))
}

/// The check in the body of a request.
fn one(headers: &HeaderMap, body: &[u8]) -> Result<Check, Problem> {
    let mut check = match plain::check(body) {
        Some(check) => check,
        None => {
            let tree = body::tree(body)?;
            let mut r = Reader::default();
            let check = read::check(&mut r, &tree);
            r.finish(check).map_err(Problem::bad_input)?
        }
    };
    read::idempotency_key(headers, &mut check).map_err(|fault| Problem::bad_input(vec![fault]))?;
    Ok(check)
}

/// An answer with its headers. A denial is 200, or for `denied_at` a 429.
pub fn answer(app: &App, decision: &Decision, denied_at: Option<&str>) -> Answer {
    if let Some(instance) = denied_at.filter(|_| !decision.allowed) {
        return denial::response(app, decision, instance);
    }
    let mut body = Vec::with_capacity(render::DECISION_BYTES);
    render::decision(&mut body, decision, &app.node);
    let mut response = whole(StatusCode::OK, "application/json", body);
    headers::write(app, decision, response.headers_mut());
    response
}

/// How the checks of a batch belong together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Independent,
    AllOrNothing,
}

const MODES: [(&str, Mode); 2] = [("independent", Mode::Independent), ("all_or_nothing", Mode::AllOrNothing)];

/// `POST /v1/check/batch`: up to a thousand decisions.
pub async fn batch(State(app): State<Arc<App>>, mut request: Request<Body>) -> Result<Response, Problem> {
    Ok(decide_batch(&app, &mut request).await?.map(Body::new))
}

/// The decisions for a request, from wherever it comes.
pub async fn decide_batch<B>(app: &App, request: &mut Request<B>) -> Result<Answer, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let _timed = app.telemetry.time(Call::Batch);
    app.tokens.admit_decision(request.headers())?;
    let bytes = body::read(app, request, app.limits.batch_body_bytes).await?;
    let (mode, checks) = match plain_batch(&bytes) {
        Some(batch) => batch,
        None => any_batch(&bytes)?,
    };
    let count = checks.len();
    let outcomes = match mode {
        Mode::Independent => independent(app, checks).await,
        Mode::AllOrNothing => all_or_nothing(app, checks).await?,
    };
    let allowed = outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|decision| decision.allowed));
    let mut out = Vec::with_capacity(count * render::DECISION_BYTES);
    out.extend_from_slice(if allowed {
        br#"{"allowed":true,"decisions":"#
    } else {
        br#"{"allowed":false,"decisions":"#
    });
    render::list(&mut out, &outcomes, |out, outcome| match outcome {
        Ok(decision) => render::decision(out, decision, &app.node),
        Err(problem) => render::json(out, &json!({"error": problem.document()})),
    });
    out.push(b'}');
    Ok(whole(StatusCode::OK, "application/json", out))
}

/// A batch of plain checks, within its bounds.
fn plain_batch(bytes: &[u8]) -> Option<(Mode, Vec<ReadCheck>)> {
    let (mode, checks) = plain::batch(bytes)?;
    let mode = mode.map_or(Some(Mode::Independent), |word| {
        MODES.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode)
    })?;
    let checks = Some(checks).filter(|checks| (1..=BATCH_MAX).contains(&checks.len()))?;
    Some((mode, checks.into_iter().map(Ok).collect()))
}

/// Any batch, with its faults.
fn any_batch(bytes: &[u8]) -> Result<(Mode, Vec<ReadCheck>), Problem> {
    let tree = body::tree(bytes)?;
    let (mode, items) = envelope(&tree)?;
    let checks = items.iter().enumerate().map(|(i, item)| {
        let mut r = Reader::within(format!("checks[{i}]"));
        let check = read::check(&mut r, item);
        r.finish(check)
    });
    Ok((mode, checks.collect()))
}

fn envelope(tree: &Tree) -> Result<(Mode, &[Tree]), Problem> {
    let mut r = Reader::default();
    let mut too_many = false;
    let found = r.fields(tree).and_then(|mut fields| {
        let mode = fields.optional(&mut r, "mode", |r, t| r.choice(t, &MODES));
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
