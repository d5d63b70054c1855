//! A denial as a 429, where the one who asks is the limited request itself: `?status=429`.
//!
//! Its body is what the policy's `responses.denial_body` says, the status and the headers are the
//! same for all:
//!
//! ```text
//! problem            {"type":"https://iana.org/…#quota-exceeded","title":"Quota exceeded","status":429,"detail":"…",
//!                     "instance":"/v1/check","retry_after":30,"scope":["tenant"],"violated-policies":["minute"],
//!                     …and all members of the decision: allowed, limit, remaining, denied_by, …}
//! enveloped_problem  {"error":{"type":"…","title":"…","detail":"…","retry_after":30,"instance":"/v1/check"}}
//! enveloped_code     {"error":{"code":"rate_limit_exceeded","message":"…","retry_after":30,"scope":"tenant"}}
//! ```
//!
//! `retry_after` is the header's, in seconds; null where waiting doesn't help.

use axum::http::StatusCode;
use serde::Serialize;

use super::problem::{Answer, whole};
use super::render::{self, Scope, ms};
use super::{App, headers};
use crate::check::{Decision, Dimension, Exactness, Reason, Verdict};
use crate::limit::Outcome;
use crate::policy::DenialBody;

/// The problem type that the rate limit header draft registers.
const QUOTA_EXCEEDED: (&str, &str) =
    ("https://iana.org/assignments/http-problem-types#quota-exceeded", "Quota exceeded");
/// A list is no quota: there is nothing to be used up.
const ACCESS_DENIED: (&str, &str) = ("urn:tidegate:problem:access-denied", "Access denied");

/// The 429 of a `decision` that denies the request at `instance`, with its headers.
pub fn response(app: &App, decision: &Decision, instance: &str) -> Answer {
    let policy = app.router.policy();
    let (kind, body) = body(policy.responses().denial_body, decision, &app.node, instance);
    let mut response = whole(StatusCode::TOO_MANY_REQUESTS, kind, body);
    headers::write_under(&policy, || app.router.wall(), decision, response.headers_mut());
    response
}

/// Why it was denied, in a word for programs: `X-RateLimit-Error`, and the code of an envelope.
pub fn code(decision: &Decision) -> &'static str {
    match reason(decision) {
        Reason::Rate => "rate_limit_exceeded",
        Reason::Concurrency => "concurrent_limit_exceeded",
        Reason::Quota => "quota_exceeded",
        Reason::DenyList => "access_denied",
        Reason::CostExceedsCapacity => "cost_exceeds_capacity",
    }
}

fn reason(decision: &Decision) -> Reason {
    decision.denied_by.as_ref().map_or(Reason::Rate, |by| by.reason)
}

#[derive(Serialize)]
struct ProblemView<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    instance: &'a str,
    retry_after: Option<u64>,
    scope: Scope<'a>,
    #[serde(rename = "violated-policies")]
    violated_policies: Vec<&'a str>,
}

#[derive(Serialize)]
struct Envelope<T> {
    error: T,
}

#[derive(Serialize)]
struct EnvelopedProblem<'a> {
    r#type: &'static str,
    title: &'static str,
    detail: String,
    retry_after: Option<u64>,
    instance: &'a str,
}

#[derive(Serialize)]
struct EnvelopedCode<'a> {
    code: &'static str,
    message: String,
    retry_after: Option<u64>,
    scope: std::borrow::Cow<'a, str>,
}

/// Every limit that denies, or the entry of the list.
fn violated(decision: &Decision) -> Vec<&str> {
    let denies = |verdict: &&Verdict| {
        verdict.limit.enforce && matches!(verdict.outcome, Outcome::Wait(_) | Outcome::Never)
    };
    let mut names: Vec<_> = decision
        .verdicts
        .iter()
        .filter(denies)
        .map(|verdict| verdict.limit.name.as_str())
        .collect();
    if names.is_empty() {
        names.extend(decision.denied_by.as_ref().map(|by| by.name.as_str()));
    }
    names
}

/// The body and its content type.
fn body(
    form: DenialBody,
    decision: &Decision,
    node: &str,
    instance: &str,
) -> (&'static str, Vec<u8>) {
    let (r#type, title) = match reason(decision) {
        Reason::DenyList => ACCESS_DENIED,
        Reason::Rate | Reason::Concurrency | Reason::Quota | Reason::CostExceedsCapacity => {
            QUOTA_EXCEEDED
        }
    };
    let (detail, retry_after) = (detail(decision), headers::retry_after(decision));
    let by = decision.denied_by.as_ref();
    let scope: &[Dimension] = by.map_or(&[], |by| &by.scope);
    let mut out = Vec::with_capacity(2 * render::DECISION_BYTES);
    match form {
        DenialBody::Problem => {
            let problem = ProblemView {
                r#type,
                title,
                status: StatusCode::TOO_MANY_REQUESTS.as_u16(),
                detail,
                instance,
                retry_after,
                scope: Scope(scope),
                violated_policies: violated(decision),
            };
            // The decision's members stand behind its own.
            render::json(&mut out, &problem);
            out.pop();
            out.push(b',');
            render::members(&mut out, decision, node);
            out.push(b'}');
        }
        DenialBody::EnvelopedProblem => {
            let error = EnvelopedProblem { r#type, title, detail, retry_after, instance };
            render::json(&mut out, &Envelope { error });
        }
        DenialBody::EnvelopedCode => {
            let (code, scope) = (code(decision), headers::scope_text(scope));
            render::json(
                &mut out,
                &Envelope { error: EnvelopedCode { code, message: detail, retry_after, scope } },
            );
        }
    }
    let kind = match form {
        DenialBody::Problem => "application/problem+json",
        DenialBody::EnvelopedProblem | DenialBody::EnvelopedCode => "application/json",
    };
    (kind, out)
}

/// Why it was denied, in words for people.
fn detail(decision: &Decision) -> String {
    let name = decision.denied_by.as_ref().map_or("", |by| by.name.as_str());
    match (reason(decision), decision.retry_after.map(ms)) {
        (Reason::Rate | Reason::Quota, Some(wait)) => {
            format!("limit {name} is used up; it lets this pass in {wait} ms")
        }
        (Reason::Concurrency, Some(wait)) if decision.exactness() == Exactness::ColdStart => {
            format!(
                "the node that owns this tenant has restarted and doesn't know which permits are \
                 in flight; limit {name} grants none for another {wait} ms"
            )
        }
        (Reason::Concurrency, Some(wait)) => {
            format!(
                "all permits of limit {name} are out; one expires in {wait} ms, if none is \
                 released before"
            )
        }
        (Reason::DenyList, Some(wait)) => {
            format!("entry {name} of the deny list holds for another {wait} ms")
        }
        (Reason::DenyList, None) => format!("entry {name} of the deny list denies this"),
        (Reason::CostExceedsCapacity, _) => {
            format!("a cost of {} is more than limit {name} can ever hold", decision.cost)
        }
        (Reason::Rate | Reason::Quota | Reason::Concurrency, None) => {
            format!("limit {name} doesn't let this pass, now or later")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::check::{DeniedBy, Limit, Match, Name, TenantId};
    use crate::clock::SECOND;
    use crate::limit::{Rule, Window};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn verdict(limit: &str, outcome: Outcome) -> Verdict {
        let rule = Rule::SlidingLog(Window { limit: 10, length: 60 * SECOND });
        let per = vec![Dimension::Tenant, Dimension::Client];
        let limit = Limit { name: name(limit), per, when: Match::default(), rule, enforce: true };
        Verdict {
            limit: Arc::new(limit),
            outcome,
            remaining: 0,
            reset_after: 50 * SECOND,
            exactness: Exactness::Exact,
        }
    }

    fn denied(verdicts: Vec<Verdict>) -> Decision {
        let mut decision = Decision {
            allowed: false,
            tenant: TenantId::new("acme").unwrap(),
            tier: Some(name("pro")),
            cost: 20,
            verdicts: verdicts.into(),
            denied_by: None,
            retry_after: None,
            permit: None,
            replayed: false,
            bypass: None,
            policy_version: 7,
            epoch: 1,
            node: None,
        };
        decision.deny();
        decision
    }

    fn by_list(retry_after: Option<u64>) -> Decision {
        let by =
            DeniedBy { name: name("abuse"), scope: vec![Dimension::Ip], reason: Reason::DenyList };
        Decision { tier: None, denied_by: Some(Box::new(by)), retry_after, ..denied(Vec::new()) }
    }

    fn shown(form: DenialBody, decision: &Decision) -> (&'static str, Value) {
        let (kind, bytes) = body(form, decision, "n1", "/v1/check");
        (kind, serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn a_problem_has_its_own_members_and_the_decisions_and_names_every_limit_that_denies() {
        let decision = denied(vec![
            verdict("hour", Outcome::Wait(29_250_000_000)),
            verdict("minute", Outcome::Wait(1)),
            verdict("month", Outcome::Pass),
        ]);
        let (kind, problem) = shown(DenialBody::Problem, &decision);
        assert_eq!(kind, "application/problem+json");
        let own = json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Quota exceeded",
            "status": 429,
            "detail": "limit hour is used up; it lets this pass in 29250 ms",
            "instance": "/v1/check",
            "retry_after": 30,
            "scope": ["tenant", "client"],
            "violated-policies": ["hour", "minute"],
        });
        let mut view = Vec::new();
        render::decision(&mut view, &decision, "n1");
        let view = serde_json::from_slice(&view).unwrap();
        let all: serde_json::Map<_, _> =
            [own, view].iter().flat_map(|part| part.as_object().unwrap().clone()).collect();
        assert_eq!(problem, Value::Object(all));
    }

    #[test]
    fn the_envelopes_have_exactly_their_members() {
        let decision = denied(vec![verdict("hour", Outcome::Wait(29_250_000_000))]);
        assert_eq!(
            shown(DenialBody::EnvelopedProblem, &decision),
            (
                "application/json",
                json!({"error": {
                    "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                    "title": "Quota exceeded",
                    "detail": "limit hour is used up; it lets this pass in 29250 ms",
                    "retry_after": 30,
                    "instance": "/v1/check",
                }})
            )
        );
        assert_eq!(
            shown(DenialBody::EnvelopedCode, &decision),
            (
                "application/json",
                json!({"error": {
                    "code": "rate_limit_exceeded",
                    "message": "limit hour is used up; it lets this pass in 29250 ms",
                    "retry_after": 30,
                    "scope": "tenant,client",
                }})
            )
        );
    }

    #[test]
    fn a_list_is_no_quota_and_says_how_long_it_holds() {
        let (_, problem) = shown(DenialBody::Problem, &by_list(Some(1_500_000_000)));
        assert_eq!(
            (
                &problem["type"],
                &problem["detail"],
                &problem["retry_after"],
                &problem["violated-policies"]
            ),
            (
                &json!("urn:tidegate:problem:access-denied"),
                &json!("entry abuse of the deny list holds for another 1500 ms"),
                &json!(2),
                &json!(["abuse"])
            )
        );
        let (_, envelope) = shown(DenialBody::EnvelopedCode, &by_list(None));
        assert_eq!(
            envelope["error"],
            json!({
                "code": "access_denied",
                "message": "entry abuse of the deny list denies this",
                "retry_after": null,
                "scope": "ip",
            })
        );
    }

    #[test]
    fn what_will_never_pass_has_no_wait() {
        let decision =
            denied(vec![verdict("hour", Outcome::Never), verdict("minute", Outcome::Wait(1))]);
        let (_, envelope) = shown(DenialBody::EnvelopedCode, &decision);
        assert_eq!(
            (
                &envelope["error"]["code"],
                &envelope["error"]["message"],
                &envelope["error"]["retry_after"]
            ),
            (
                &json!("cost_exceeds_capacity"),
                &json!("a cost of 20 is more than limit hour can ever hold"),
                &Value::Null
            )
        );
    }
}
