//! Bodies: bounded in bytes and in the time they take to arrive.

use std::time::Duration;

use axum::http::{Request, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

use super::App;
use super::problem::Problem;
use crate::input::{Fault, Reader, Tree};

/// All of a body, at most `most` bytes.
pub async fn read<B>(app: &App, request: &mut Request<B>, most: u64) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > most) {
        return Err(too_large(most));
    }
    match tokio::time::timeout(
        Duration::from_millis(app.limits.body_ms),
        whole(request.body_mut(), most),
    )
    .await
    {
        Ok(whole) => whole,
        Err(_) => Err(Problem::new(
            408,
            format!("no whole body within {} ms", app.limits.body_ms),
            "timeout",
        )),
    }
}

/// The frames of a body put together. Most bodies are one frame, which is handed on as it is.
async fn whole<B: Body<Data = Bytes> + Unpin>(body: &mut B, most: u64) -> Result<Bytes, Problem> {
    let most_here = usize::try_from(most).unwrap_or(usize::MAX);
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Problem::new(400, "the body broke off", "bad-input"));
        };
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > most_here {
            return Err(too_large(most));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Bytes of a body that a call does not read, up to which the members in it are named.
const UNREAD_BYTES_MAX: u64 = 64 << 10;

/// Refuses a body where the call reads none. No bytes, white space, `{}` and `null` are no body.
pub async fn none<B>(app: &App, request: &mut Request<B>) -> Result<(), Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    if request.body().is_end_stream() {
        return Ok(());
    }
    let read = read(app, request, UNREAD_BYTES_MAX).await;
    let read = read.map(|bytes| (Tree::from_json(&bytes).ok(), bytes.trim_ascii().is_empty()));
    let mut r = Reader::default();
    match read {
        Ok((_, true)) | Ok((Some(Tree::Null), _)) => {}
        Ok((Some(Tree::Map(members)), _)) => {
            members.iter().for_each(|(name, _)| r.unknown(name, "member", &[]));
        }
        Ok(_) | Err(_) => r.fault("this call reads no body"),
    }
    r.finish(Some(())).map_err(Problem::bad_input)
}

fn too_large(most: u64) -> Problem {
    Problem::too_large("the body has too many bytes", most)
}

/// A body of JSON.
pub async fn json<B>(app: &App, request: &mut Request<B>, most: u64) -> Result<Tree, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    tree(&read(app, request, most).await?)
}

/// A body of JSON that may be left out: no bytes, white space and `null` are `{}`.
pub async fn optional<B>(app: &App, request: &mut Request<B>, most: u64) -> Result<Tree, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let bytes = read(app, request, most).await?;
    match bytes.trim_ascii().is_empty() {
        true => Ok(Tree::Map(Vec::new())),
        false => Ok(match tree(&bytes)? {
            Tree::Null => Tree::Map(Vec::new()),
            tree => tree,
        }),
    }
}

/// The JSON in the bytes of a body.
pub fn tree(bytes: &[u8]) -> Result<Tree, Problem> {
    if bytes.is_empty() {
        return Err(Problem::bad_input(vec![Fault::new(
            "",
            "the body is empty; it should be JSON",
        )]));
    }
    Tree::from_json(bytes).map_err(|fault| Problem::bad_input(vec![fault]))
}
