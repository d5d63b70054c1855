//! `GET /v1/cluster/backup`: all that the cluster would have to be made anew of, in one file.
//!
//! It takes the role of an administrator: the secret of the hashes is in it. What of it can't be
//! had is named and refused, unless `?partial` says that less is better than nothing.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::auth::Caller;
use super::problem::Problem;
use super::query::Query;
use crate::cluster::backup::BackUpError;

/// Bytes of a back-up that are written before others have their turn: a few microseconds.
const TURN_BYTES: usize = 64 << 10;

/// See the module.
pub async fn get(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Problem> {
    let partial = Query::of(&uri)?.flag("partial")?;
    let bytes = app.backups.back_up(partial).await?;
    tracing::info!(by = by.0, bytes = bytes.len(), "backed up");
    let length = bytes.len().to_string();
    let head =
        [(header::CONTENT_TYPE, "application/octet-stream"), (header::CONTENT_LENGTH, &length)];
    Ok((head, in_turns(bytes)).into_response())
}

/// A long body, a little at a time: written in one go, it would keep the worker from whoever else
/// is connected to it.
fn in_turns(bytes: Bytes) -> Body {
    Body::from_stream(futures_util::stream::unfold(bytes, async |mut rest| {
        tokio::task::yield_now().await;
        let turn = rest.split_to(TURN_BYTES.min(rest.len()));
        (!turn.is_empty()).then_some((Ok::<_, Infallible>(turn), rest))
    }))
}

impl From<BackUpError> for Problem {
    fn from(error: BackUpError) -> Self {
        let kind = match error {
            BackUpError::NotBegun => "not-begun",
            BackUpError::Busy => "busy",
            BackUpError::NoMajority => "no-leader",
            BackUpError::Missing(_) => "unreachable",
            BackUpError::Moving => "moving",
            BackUpError::TooLarge => return Self::new(500, error.to_string(), "too-large"),
            BackUpError::Encode(_) => return Self::new(500, error.to_string(), "internal-error"),
        };
        Self::new(503, error.to_string(), kind).with_header(header::RETRY_AFTER, "5")
    }
}
