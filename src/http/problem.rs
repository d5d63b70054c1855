//! Problem documents (RFC 9457): the one place where errors become HTTP.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Map, Value, json};

use crate::cluster::{Denied, WriteError};
use crate::input::Fault;
use crate::policy::ChangeError;
use crate::shard::Refusal;

/// An error as its caller sees it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    faults: Vec<Fault>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of a status, in words, of a kind that programs can tell apart.
    pub fn new(status: u16, detail: impl Into<String>, kind: &'static str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, kind, detail: detail.into(), faults: Vec::new(), headers: Vec::new() }
    }

    /// 400: faults of the input, each with its path.
    pub fn bad_input(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [] => "the request is malformed".to_string(),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        Self { faults, ..Self::new(400, detail, "bad-input") }
    }

    /// 422: well-formed, but it can't be.
    pub fn impossible(detail: impl Into<String>, faults: Vec<Fault>) -> Self {
        Self { faults, ..Self::new(422, detail, "impossible") }
    }

    /// 404.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(404, format!("there is no {what}"), "not-found")
    }

    /// 409: it could be done, and would cost what can't be had back.
    pub fn unsafe_now(detail: impl Into<String>) -> Self {
        Self::new(409, detail, "unsafe")
    }

    /// 413: more bytes or items than allowed.
    pub fn too_large(what: &str, most: u64) -> Self {
        Self::new(413, format!("{what}; at most {most} are allowed"), "too-large")
    }

    /// The same of a part of the input: its faults' paths begin with `path`.
    pub fn within(mut self, path: &str) -> Self {
        for fault in &mut self.faults {
            fault.path = format!("{path}.{}", fault.path);
        }
        self
    }

    /// The same under another status, for callers who can tell few apart.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with a header.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// The document's members.
    pub fn document(&self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("type".into(), json!(format!("urn:tidegate:problem:{}", self.kind)));
        out.insert("title".into(), json!(self.status.canonical_reason().unwrap_or("Error")));
        out.insert("status".into(), json!(self.status.as_u16()));
        out.insert("detail".into(), json!(self.detail));
        if !self.faults.is_empty() {
            out.insert("errors".into(), json!(self.faults));
        }
        out
    }
}

/// A problem document of `status` with these members.
fn document(status: StatusCode, members: Vec<u8>) -> Answer {
    whole(status, "application/problem+json", members)
}

/// An answer whose body is all there.
pub type Answer = Response<Full<Bytes>>;

/// Headers for which room is made beforehand: what a decision has in the default dialect, and those
/// of every answer.
const HEADERS_MOST: usize = 8;

/// An answer of a status, with its body and what that is.
pub fn whole(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().reserve(HEADERS_MOST);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Problem {
    /// The whole answer.
    pub fn answer(self) -> Answer {
        let mut response =
            document(self.status, Value::Object(self.document()).to_string().into_bytes());
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.answer().map(Body::new)
    }
}

/// The parts of a call's path; one that isn't text is a problem like any other.
pub struct PathOf<T>(pub T);

impl<T: serde::de::DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(Problem::bad_input(vec![Fault::new("path", rejection.body_text())]))
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let at = |path: &str| vec![Fault::new(path, refusal.to_string())];
        match &refusal {
            Refusal::UnknownTier(_) => Self::impossible(refusal.to_string(), at("tier")),
            Refusal::LimitsRefused(_) => Self::impossible(refusal.to_string(), at("limits")),
            Refusal::PermitTooLong(_) => Self::impossible(refusal.to_string(), at("permit.ttl_ms")),
            Refusal::RequestIdReused => Self::impossible(refusal.to_string(), at("request_id")),
            Refusal::InBatch(at, why) => {
                Self::from((**why).clone()).within(&format!("checks[{at}]"))
            }
            Refusal::Busy => {
                Self::new(503, refusal.to_string(), "busy").with_header(header::RETRY_AFTER, "1")
            }
            Refusal::NotStarted(_) => Self::new(503, refusal.to_string(), "not-started")
                .with_header(header::RETRY_AFTER, "1"),
            Refusal::Older(_) => Self::new(503, refusal.to_string(), "older-node")
                .with_header(header::RETRY_AFTER, "60"),
            // Whoever routes asks again elsewhere; it is an answer only where nobody can be asked.
            Refusal::Unreachable | Refusal::Moved(_) => {
                Self::new(503, refusal.to_string(), "unreachable")
                    .with_header(header::RETRY_AFTER, "1")
            }
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let later =
            |kind| Self::new(503, denied.to_string(), kind).with_header(header::RETRY_AFTER, "1");
        match &denied {
            Denied::NoLeader => later("no-leader"),
            Denied::Unknown => later("outcome-unknown"),
            Denied::NoSuchNode(name) => Self::not_found(format!("node {name}")),
            Denied::Impossible { path, detail } => {
                Self::impossible(detail, vec![Fault::new(path, detail)])
            }
            Denied::Unsafe(detail) => Self::unsafe_now(detail),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stale { actual, .. } | WriteError::StaleSettings { actual, .. } => {
                Self::new(412, error.to_string(), "stale")
                    .with_header(header::ETAG, &format!("\"{actual}\""))
            }
            WriteError::Change(ChangeError::NotFound(what)) => Self::not_found(what),
            WriteError::Change(ChangeError::Invalid(faults)) => {
                let detail = faults
                    .first()
                    .map_or_else(|| "the policy would not be valid".into(), ToString::to_string);
                Self::impossible(detail, faults)
            }
            WriteError::NoSuchVersion { .. } => Self::new(404, error.to_string(), "not-found"),
            WriteError::NoLeader => {
                Self::new(503, error.to_string(), "no-leader").with_header(header::RETRY_AFTER, "1")
            }
            WriteError::Unknown => Self::new(503, error.to_string(), "outcome-unknown")
                .with_header(header::RETRY_AFTER, "1"),
            WriteError::OlderMembers(_) => Self::new(409, error.to_string(), "older-members"),
            WriteError::Storage(_) => {
                tracing::error!(%error, "a policy change was lost");
                Self::new(503, "the change can't be stored; nothing has changed", "storage")
                    .with_header(header::RETRY_AFTER, "1")
            }
        }
    }
}
