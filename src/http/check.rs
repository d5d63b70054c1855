//! `/v1/check`, `/v1/check/batch` and `/v1/peek`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body as HttpBody;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::problem::{Problem, document};
use super::render::DecisionView;
use super::{App, body, headers, plain, query, read};
use crate::check::{Check, Decision};
use crate::input::{Fault, Reader, Tree};
use crate::shard::Refusal;

/// Checks in one batch.
pub const BATCH_MAX: usize = 1_000;

/// An answer whose body is all there.
pub type Answer = Response<Full<Bytes>>;

/// `POST /v1/check`: one decision.
pub async fn check(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Ok(decide(&app, request).await?.map(Body::new))
}

/// The decision for a request, from wherever it comes.
pub async fn decide<B>(app: &App, request: Request<B>) -> Result<Answer, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    app.tokens.admit_decision(request.headers())?;
    let as_429 = query::wants_429(request.uri())?;
    let (parts, body) = request.into_parts();
    let check = one(app, &parts.headers, body).await?;
    let decision = app.router.check(check).await?;
    Ok(answer(app, &decision, as_429.then(|| parts.uri.path())))
}

/// `POST /v1/peek`: the same question, and nothing is taken.
pub async fn peek(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    app.tokens.admit_decision(request.headers())?;
    let (parts, body) = request.into_parts();
    let check = one(&app, &parts.headers, body).await?;
    let decision = app.router.peek(check).await?;
    Ok(answer(&app, &decision, None).map(Body::new))
}

async fn one<B>(app: &App, headers: &HeaderMap, body: B) -> Result<Check, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let bytes = body::read(app, headers, body, app.limits.body_bytes).await?;
    let mut check = match plain::check(&bytes) {
        Some(check) => check,
        None => {
            let tree = body::tree(&bytes)?;
            let mut r = Reader::default();
            let check = read::check(&mut r, &tree);
            r.finish(check).map_err(Problem::bad_input)?
        }
    };
    read::idempotency_key(headers, &mut check).map_err(|fault| Problem::bad_input(vec![fault]))?;
    Ok(check)
}

/// An answer with its headers. A denial is 200, or for `denied_at` a problem document of status 429 with the same members.
pub fn answer(app: &App, decision: &Decision, denied_at: Option<&str>) -> Answer {
    let view = DecisionView::new(decision, &app.node);
    let mut response = match denied_at.filter(|_| !decision.allowed) {
        None => json_answer(&view, ANSWER_BYTES),
        Some(instance) => {
            document(StatusCode::TOO_MANY_REQUESTS, bytes(&denial(&view, decision, instance), ANSWER_BYTES))
        }
    };
    headers::write(decision, response.headers_mut());
    response
}

/// The room that is made for an answer beforehand: most fit, and a larger one grows.
const ANSWER_BYTES: usize = 1_024;

fn json_answer(value: &impl Serialize, room: usize) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(bytes(value, room))));
    response.headers_mut().reserve(HEADERS_MOST);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Headers for which room is made beforehand.
const HEADERS_MOST: usize = 8;

fn bytes(value: &impl Serialize, room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(room);
    // A view holds nothing that JSON can't say, and writing to memory doesn't fail.
    let _ = serde_json::to_writer(&mut bytes, value);
    bytes
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

const MODES: [(&str, Mode); 2] = [("independent", Mode::Independent), ("all_or_nothing", Mode::AllOrNothing)];

/// `POST /v1/check/batch`: up to a thousand decisions.
pub async fn batch(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Ok(decide_batch(&app, request).await?.map(Body::new))
}

/// The decisions for a request, from wherever it comes.
pub async fn decide_batch<B>(app: &App, request: Request<B>) -> Result<Answer, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    app.tokens.admit_decision(request.headers())?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(app, &parts.headers, body, app.limits.batch_body_bytes).await?;
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
    let view = BatchView { allowed, decisions: Items { outcomes: &outcomes, node: &app.node } };
    Ok(json_answer(&view, count * ANSWER_BYTES))
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

#[derive(Serialize)]
struct BatchView<'a> {
    allowed: bool,
    decisions: Items<'a>,
}

/// The outcomes of a batch in its order.
struct Items<'a> {
    outcomes: &'a [Result<Decision, Problem>],
    node: &'a str,
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.outcomes.iter().map(|outcome| match outcome {
            Ok(decision) => Item::Decision(DecisionView::new(decision, self.node)),
            Err(problem) => Item::Failed { error: problem.document() },
        }))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it lives for as long as it takes to write it")]
enum Item<'a> {
    Decision(DecisionView<'a>),
    Failed { error: Map<String, Value> },
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
