//! `/v1/permits/{id}`: giving a concurrency slot back, or keeping it for longer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::problem::{PathOf, Problem};
use super::{App, body, read};
use crate::check::PermitId;
use crate::input::{Fault, Reader};
use crate::shard::Refusal;

fn parse(id: &str) -> Result<PermitId, Problem> {
    let fault = || Problem::bad_input(vec![Fault::new("id", "is not a permit's id")]);
    PermitId::parse(id).ok_or_else(fault)
}

/// `DELETE /v1/permits/{id}`: 204, also the second time.
pub async fn release(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
) -> Result<StatusCode, Problem> {
    app.router.release(parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/permits/{id}/renew`: 200, or 404 where it isn't out any more. The body may say
/// `{"ttl_ms": …}`.
pub async fn renew(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
    mut request: Request,
) -> Result<Response, Problem> {
    let permit = parse(&id)?;
    let tree = body::optional(&app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let ttl_ms = read::ttl_ms(&mut r, &tree);
    let ttl_ms = r.finish(ttl_ms).map_err(Problem::bad_input)?;
    let renewed = app.router.renew(permit, ttl_ms).await.map_err(|refusal| match &refusal {
        Refusal::PermitTooLong(_) => Problem::impossible(
            refusal.to_string(),
            vec![Fault::new("ttl_ms", refusal.to_string())],
        ),
        _ => Problem::from(refusal),
    })?;
    match renewed {
        Some(runs_ms) => Ok(Json(json!({"id": id, "expires_in_ms": runs_ms})).into_response()),
        None => Err(Problem::not_found(format!("permit {id}; it was released or has expired"))),
    }
}
