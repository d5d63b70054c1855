//! Bodies: bounded in bytes and in the time they take to arrive.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::App;
use super::problem::Problem;
use crate::input::{Fault, Tree};

/// All of a body, at most `most` bytes.
pub async fn read(app: &App, headers: &HeaderMap, body: Body, most: u64) -> Result<Bytes, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let too_large = || Problem::too_large("the body has too many bytes", most);
    if declared.is_some_and(|declared| declared > most) {
        return Err(too_large());
    }
    let whole = Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX)).collect();
    match tokio::time::timeout(Duration::from_millis(app.limits.body_ms), whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(400, "the body broke off", "bad-input")),
        Err(_) => {
            Err(Problem::new(408, format!("no whole body within {} ms", app.limits.body_ms), "timeout"))
        }
    }
}

/// A body of JSON.
pub async fn json(app: &App, headers: &HeaderMap, body: Body, most: u64) -> Result<Tree, Problem> {
    let bytes = read(app, headers, body, most).await?;
    if bytes.is_empty() {
        return Err(Problem::bad_input(vec![Fault::new("", "the body is empty; it should be JSON")]));
    }
    Tree::from_json(&bytes).map_err(|fault| Problem::bad_input(vec![fault]))
}
