//! `/v1/check`, `/v1/check/batch` and `/v1/peek`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use serde_json::json;

use super::problem::{Answer, Problem, whole};
use super::{App, body, denial, headers, plain, query, read, reads, render};
use crate::check::{Check, Decision};
use crate::input::{Fault, Reader, Tree};
use crate::shard::Refusal;
use crate::telemetry::Call;

/// Checks in one batch.
pub const BATCH_MAX: usize = 1_000;

/// `POST /v1/check`: one decision.
pub async fn check(
    State(app): State<Arc<App>>,
    mut request: Request<Body>,
) -> Result<Response, Problem> {
    Ok(decide(&app, &mut request).await?.map(Body::new))
}

/// The decision for a request, from wherever it comes.
pub async fn decide<B>(app: &App, request: &mut Request<B>) -> Result<Answer, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let _timed = app.telemetry.time(Call::Check);
    app.tokens.admit_decision(request.headers())?;
    reads::query(&Method::POST, "/v1/check", request.uri())?;
    let as_429 = query::wants_429(request.uri())?;
    let body = body::read(app, request, app.limits.body_bytes).await?;
    let asked = app.router.check(one(request.headers(), &body)?);
    Ok(answer(app, &asked.await?, as_429.then(|| request.uri().path())))
}

/// `POST /v1/peek`: the same question, and nothing is taken.
pub async fn peek(
    State(app): State<Arc<App>>,
    mut request: Request<Body>,
) -> Result<Response, Problem> {
    let _timed = app.telemetry.time(Call::Peek);
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

const MODES: [(&str, Mode); 2] =
    [("independent", Mode::Independent), ("all_or_nothing", Mode::AllOrNothing)];

/// `POST /v1/check/batch`: up to a thousand decisions.
pub async fn batch(
    State(app): State<Arc<App>>,
    mut request: Request<Body>,
) -> Result<Response, Problem> {
    Ok(decide_batch(&app, &mut request).await?.map(Body::new))
}

/// The decisions for a request, from wherever it comes.
pub async fn decide_batch<B>(app: &App, request: &mut Request<B>) -> Result<Answer, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let _timed = app.telemetry.time(Call::Batch);
    app.tokens.admit_decision(request.headers())?;
    reads::query(&Method::POST, "/v1/check/batch", request.uri())?;
    let bytes = body::read(app, request, app.limits.batch_body_bytes).await?;
    let batch = match Batch::plain(&bytes) {
        Some(batch) => batch,
        None => Batch::any(&bytes)?,
    };
    match batch.mode {
        Mode::Independent => Ok(independent(app, batch).await),
        Mode::AllOrNothing => all_or_nothing(app, batch).await,
    }
}

/// What a batch asks.
struct Batch {
    mode: Mode,
    checks: Vec<Check>,
    /// What is wrong with those that can't be read, by their places.
    faulty: BTreeMap<usize, Vec<Fault>>,
}

impl Batch {
    /// One of plain checks, within its bounds.
    fn plain(bytes: &[u8]) -> Option<Self> {
        let (word, checks) = plain::batch(bytes)?;
        let mode = word.map_or(Some(Mode::Independent), |word| {
            MODES.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode)
        })?;
        (1..=BATCH_MAX).contains(&checks.len()).then_some(Self {
            mode,
            checks,
            faulty: BTreeMap::new(),
        })
    }

    /// Any one, with its faults.
    fn any(bytes: &[u8]) -> Result<Self, Problem> {
        let tree = body::tree(bytes)?;
        let (mode, items) = envelope(&tree)?;
        let mut batch =
            Self { mode, checks: Vec::with_capacity(items.len()), faulty: BTreeMap::new() };
        for (i, item) in items.iter().enumerate() {
            let mut r = Reader::within(format!("checks[{i}]"));
            let check = read::check(&mut r, item);
            match r.finish(check) {
                Ok(check) => batch.checks.push(check),
                Err(faults) => drop(batch.faulty.insert(i, faults)),
            }
        }
        Ok(batch)
    }
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

/// Every check by itself: one that can't be read or decided has an error in its place.
async fn independent(app: &App, batch: Batch) -> Answer {
    let Batch { checks, mut faulty, .. } = batch;
    let count = checks.len() + faulty.len();
    let answers = app.router.check_each(checks).await;
    let allowed =
        |answer: &Result<Decision, Refusal>| answer.as_ref().is_ok_and(|decision| decision.allowed);
    let all_allowed = faulty.is_empty() && answers.iter().all(allowed);
    let mut answers = answers.iter();
    outcomes(app, count, all_allowed, |i| match faulty.remove(&i) {
        Some(faults) => Err(Problem::bad_input(faults)),
        None => match answers.next().unwrap_or(&Err(Refusal::Busy)) {
            Ok(decision) => Ok(decision),
            Err(refusal) => Err(Problem::from(refusal.clone()).within(&format!("checks[{i}]"))),
        },
    })
}

/// The outcomes of a batch, in the order of its checks.
fn outcomes<'d>(
    app: &App,
    count: usize,
    all_allowed: bool,
    mut outcome: impl FnMut(usize) -> Result<&'d Decision, Problem>,
) -> Answer {
    let mut out = Vec::with_capacity(count * render::DECISION_BYTES);
    out.extend_from_slice(if all_allowed {
        br#"{"allowed":true,"#
    } else {
        br#"{"allowed":false,"#
    });
    out.extend_from_slice(br#""decisions":"#);
    render::list(&mut out, 0..count, |out, i| match outcome(i) {
        Ok(decision) => render::decision(out, decision, &app.node),
        Err(problem) => render::json(out, &json!({"error": problem.document()})),
    });
    out.push(b'}');
    whole(StatusCode::OK, "application/json", out)
}

/// All checks together: one that can't be read spoils the batch.
async fn all_or_nothing(app: &App, batch: Batch) -> Result<Answer, Problem> {
    let Batch { checks, faulty, .. } = batch;
    let mut faults: Vec<_> = faulty.into_values().flatten().collect();
    let mut ids = std::collections::BTreeSet::new();
    let readable = if faults.is_empty() { checks.as_slice() } else { &[] };
    for (i, check) in readable.iter().enumerate() {
        if check.account() != checks[0].account() {
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
    let decisions = app.router.check_all(checks).await?;
    let all_allowed = decisions.iter().all(|decision| decision.allowed);
    Ok(outcomes(app, decisions.len(), all_allowed, |i| Ok(&decisions[i])))
}
