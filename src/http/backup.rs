//! `GET /v1/cluster/backup`: all that the cluster would have to be made anew of, in one file.
//!
//! It takes the role of an administrator: the secret of the hashes is in it. What of it can't be had is named and refused, unless
//! `?partial` says that less is better than nothing.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::auth::Caller;
use super::problem::Problem;
use super::query::Query;
use crate::cluster::backup::BackUpError;

/// See the module.
pub async fn get(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Problem> {
    let partial = Query::of(&uri)?.flag("partial")?;
    let bytes = app.backups.back_up(partial).await?;
    tracing::info!(by = by.0, bytes = bytes.len(), "backed up");
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
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
