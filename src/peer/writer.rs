//! The way out of a connection, of either end: one queue, one writer.
//!
//! Whatever has gathered in the queue is written together and flushed once. So frames travel in
//! batches when there are many, and a lone one leaves at once: there is no timer to wait for.

use std::time::Duration;

use futures_util::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::frame::{Frame, FrameError};
use super::handshake::Writer;
use super::message::ttl_us;
use crate::clock::SharedClock;

/// Frames that are flushed together, at most; then those that wait for their answers get a turn.
const FLUSH_MAX: usize = 256;

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Frame,
    /// The boot time until which it is of use to anybody, in nanoseconds; none has no end.
    pub(super) until: Option<u64>,
}

impl Outgoing {
    pub(super) fn lasting(frame: Frame) -> Self {
        Self { frame, until: None }
    }

    /// The frame with the time that is left to it; none where that has passed.
    fn due(mut self, now: u64) -> Option<Frame> {
        if let Some(until) = self.until {
            self.frame.ttl_us = ttl_us(Duration::from_nanos(until.saturating_sub(now)));
            if self.frame.ttl_us == 0 {
                return None;
            }
        }
        Some(self.frame)
    }
}

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the peer took nothing for {0:?}")]
    Stalled(Duration),
}

/// Writes what comes until all senders are gone. A peer that takes none of a batch for as long as
/// `stall_max` ends it.
pub(super) async fn write<S: AsyncRead + AsyncWrite>(
    mut writer: Writer<S>,
    mut queue: mpsc::Receiver<Outgoing>,
    clock: SharedClock,
    stall_max: Duration,
) -> Result<(), WriteError> {
    let mut batch = Vec::with_capacity(FLUSH_MAX);
    while queue.recv_many(&mut batch, FLUSH_MAX).await > 0 {
        let now = clock.now().boot;
        let flushed = async {
            for frame in batch.drain(..).filter_map(|outgoing| outgoing.due(now)) {
                writer.feed(frame).await?;
            }
            writer.flush().await
        };
        tokio::time::timeout(stall_max, flushed)
            .await
            .map_err(|_| WriteError::Stalled(stall_max))??;
    }
    Ok(())
}
