//! `X-Request-Id`: taken over from the caller, or made, and given back with the answer.
//!
//! A decision carries an id only where its caller sent one: making one for each check would cost
//! more than it tells. All other calls have one, by which their log lines are found. An id that
//! can't stand as it is is replaced before anybody sees it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use crate::telemetry::RequestIds;

/// The header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id that the request goes by; none where its caller sent none. Called once for each request,
/// as it comes in.
pub fn incoming(ids: &RequestIds, headers: &mut HeaderMap) -> Option<HeaderValue> {
    if !headers.contains_key(REQUEST_ID) {
        return None;
    }
    Some(fit(headers).unwrap_or_else(|| replace(ids, headers)))
}

/// The id that the caller sent, if it can stand as it is.
pub fn fit(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).filter(|sent| RequestIds::is_fit(sent.as_bytes())).cloned()
}

/// The id that the request goes by, made where it has none.
pub fn ensured(ids: &RequestIds, headers: &mut HeaderMap) -> HeaderValue {
    match headers.get(REQUEST_ID) {
        Some(id) => id.clone(),
        None => replace(ids, headers),
    }
}

fn replace(ids: &RequestIds, headers: &mut HeaderMap) -> HeaderValue {
    // Hexadecimal digits are a header's value.
    let id = HeaderValue::from_str(&ids.fresh()).unwrap_or(HeaderValue::from_static("-"));
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Gives every request an id, and its answer the same.
pub async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = ensured(app.telemetry.request_ids(), request.headers_mut());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}
