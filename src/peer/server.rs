//! The end that is asked: takes connections, greets, hands each request to a [`Handler`], sends
//! answers as they come.
//!
//! Connections are accepted on the control runtime ([`accept`]) and served on the workers
//! ([`serve`], once on each), greeting included: a check that comes in is decided where it was
//! read. A connection is one task. The requests on it run side by side in that task, each for as
//! long as its deadline says and nobody cancels it; so a handler must not block, and one that has
//! much to do gives it to somebody else. What bounds a connection: the requests that may be open at
//! a time (beyond them the answer is [`Failure::Busy`], at once) and the answers that wait to be
//! sent. While a peer doesn't take its answers, nothing more is read from it.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::frame::{Frame, FrameError, FrameKind, HEADER_BYTES};
use super::handshake::{
    self, Agreed, HANDSHAKE_MAX, HandshakeError, Hello, Identity, Reader, Refusal, Us,
};
use super::message::{Failure, Opaque};
use super::proof::Guard;
use super::writer::{self, Outgoing, WriteError};
use crate::clock::SharedClock;
use crate::net::{self, Carried, Listen, Receiver, Sender, Stream};
use crate::watch;

/// Looks at a silent connection in the time that its peer may be silent.
const LOOKS_IN_SILENCE: u32 = 4;
/// Open connections on all workers: three from each of a hundred peers, and as many again that they
/// haven't noticed to be gone.
const CONNECTIONS_MAX: usize = 600;
/// Answers of one connection that wait to be sent: a few flushes. Beyond that the peer is not read
/// from.
const ANSWERS_MAX: usize = 1_024;
/// How long requests that were accepted may go on after the stop.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A request, and what is known of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks, on a connection for what.
    pub from: Arc<Hello>,
    /// The wire version that is spoken with it; the answer is to be understood by that one.
    pub version: u8,
    /// The time that was left when the request was sent. When it has passed, the handler is
    /// dropped.
    pub ttl: Duration,
    /// What is asked.
    pub request: Opaque,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Whether a node is a member, and may ask. Its cluster's name and its versions have been
    /// looked at. Asked at the greeting, and every so often after it: members change.
    fn admits(&self, hello: &Hello) -> bool;
    /// Called when a connection of a node that was admitted is up.
    fn connected(&self, _hello: &Hello) {}
    /// Called when such a connection has ended.
    fn disconnected(&self, _hello: &Hello) {}
    /// The answer, or why there is none. Dropped where it is cancelled or late, at any await.
    fn handle(&self, call: Call) -> impl Future<Output = Result<Opaque, Failure>> + Send;
}

/// Takes the connections of peers and hands them to the workers in turn, until told to stop; beyond
/// [`CONNECTIONS_MAX`] they are closed at once.
pub async fn accept<L: Listen>(
    listener: L,
    workers: Vec<Sender<L::Stream>>,
    stop: watch::Receiver<bool>,
) {
    let refused = |from| {
        tracing::warn!(%from, most = CONNECTIONS_MAX, "too many connections of peers: one was \
                                                       closed");
    };
    net::accept(listener, workers, CONNECTIONS_MAX, Arc::default(), refused, stop).await;
}

/// Serves, on one worker, the peers whose connections are handed to it. Told to stop, it finishes
/// within two seconds what was begun.
pub async fn serve<S: Carried, H: Handler>(
    mut parcels: Receiver<S>,
    us: Identity,
    handler: Arc<H>,
    guard: Arc<Guard>,
    clock: SharedClock,
    stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        let parcel = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            parcel = parcels.recv() => match parcel {
                Some(parcel) => parcel,
                None => break,
            },
        };
        let connection = Connection {
            us: us.clone(),
            handler: handler.clone(),
            guard: guard.clone(),
            clock: clock.clone(),
        };
        let stopped = stop.clone();
        connections.spawn(async move {
            connection.run::<S>(parcel.stream, parcel.from, stopped).await;
            drop(parcel.counted);
        });
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "connections of peers were cut: their requests took too long"
        );
    }
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
    #[error("the peer sent a frame out of place")]
    OutOfPlace,
    #[error("the peer numbered two open calls {0}")]
    SameId(u64),
}

/// A peer that is connected, until this is dropped.
struct Present<H: Handler> {
    handler: Arc<H>,
    peer: Hello,
}

impl<H: Handler> Present<H> {
    fn new(handler: Arc<H>, peer: Hello) -> Self {
        handler.connected(&peer);
        Self { handler, peer }
    }
}

impl<H: Handler> Drop for Present<H> {
    fn drop(&mut self) {
        self.handler.disconnected(&self.peer);
    }
}

struct Connection<H> {
    us: Identity,
    handler: Arc<H>,
    guard: Arc<Guard>,
    clock: SharedClock,
}

impl<H: Handler> Connection<H> {
    async fn run<S: Carried>(
        self,
        parcel: S::Parcel,
        from: SocketAddr,
        stopped: watch::Receiver<bool>,
    ) {
        let (agreed, reader, writer) = match self.greet::<S>(parcel).await {
            Ok(greeted) => greeted,
            Err(error) => return tracing::warn!(%from, %error, "a peer was not let in"),
        };
        let (peer, class, version) =
            (agreed.peer.who.node.clone(), agreed.peer.class, agreed.version);
        tracing::info!(%peer, %class, version, boot = %agreed.peer.who.boot, %from, "a peer has connected");
        let _present = Present::new(self.handler.clone(), agreed.peer.clone());
        match self.carry(agreed, reader, writer, stopped).await {
            Ok(()) => tracing::info!(%peer, %class, "a peer's connection ended"),
            Err(error) => tracing::warn!(%peer, %class, %error, "a peer's connection was given up"),
        }
    }

    async fn greet<S: Carried>(
        &self,
        parcel: S::Parcel,
    ) -> Result<(Agreed, Reader<S::Served>, handshake::Writer<S::Served>), HandshakeError> {
        let unpacked = tokio::time::timeout(HANDSHAKE_MAX, S::unpack(parcel)).await;
        let stream = unpacked.map_err(|_| HandshakeError::TooSlow)?.map_err(FrameError::Io)?;
        let certified = stream.certified().cloned();
        let (mut reader, mut writer) = handshake::framed(stream);
        let admits = |hello: &Hello| self.handler.admits(hello);
        let us = Us { identity: &self.us, guard: &self.guard };
        let agreed =
            handshake::answer(&mut reader, &mut writer, us, certified.as_ref(), admits).await?;
        Ok((agreed, reader, writer))
    }

    /// Answers until the peer closes, breaks the rules or goes silent, or until the stop.
    async fn carry<S: Stream>(
        self,
        agreed: Agreed,
        reader: Reader<S>,
        writer: handshake::Writer<S>,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        let (out, queue) = mpsc::channel(ANSWERS_MAX);
        let stall_max = agreed.peer.class.silence_max();
        let writing = writer::write(writer, queue, self.clock.clone(), stall_max);
        let answering = self.answer(agreed, reader, out, stopped);
        tokio::pin!(writing, answering);
        tokio::select! {
            biased;
            answered = &mut answering => answered?,
            written = &mut writing => return Ok(written?),
        }
        // The queue's sender is gone: what is left in it goes out, and that is the end.
        Ok(writing.await?)
    }

    async fn answer<S: Stream>(
        &self,
        agreed: Agreed,
        mut reader: Reader<S>,
        out: mpsc::Sender<Outgoing>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        let class = agreed.peer.class;
        let (peer, version) = (Arc::new(agreed.peer), agreed.version);
        let mut running = FuturesUnordered::new();
        let mut open = BTreeMap::new();
        let mut ticks = tokio::time::interval(class.silence_max() / LOOKS_IN_SILENCE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut silent, mut stopping) = (0, false);
        while !stopping || !running.is_empty() {
            // Each turn has at most one thing to say. Without room for it nothing is read: that is
            // what holds a peer back that asks more than it listens.
            let Ok(room) = out.reserve().await else { return Ok(()) };
            let frame = tokio::select! {
                biased;
                Some((id, answer)) = next(&mut running) => {
                    open.remove(&id);
                    if let Some(frame) = answer {
                        room.send(Outgoing::lasting(frame));
                    }
                    continue;
                }
                _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                    stopping = true;
                    continue;
                }
                frame = reader.next(), if !stopping => frame,
                _ = ticks.tick() => {
                    // Who was a member at the greeting may be none by now.
                    if self.guard.misses_proof(&peer.who.node, &peer.marks) {
                        room.send(Outgoing::lasting(Refusal::NoProof(peer.who.node.clone()).frame()));
                        return Ok(());
                    }
                    if !self.handler.admits(&peer) {
                        room.send(Outgoing::lasting(Refusal::NoMember(peer.who.node.clone()).frame()));
                        return Ok(());
                    }
                    silent += 1;
                    if silent > LOOKS_IN_SILENCE && !stopping {
                        return Err(ServeError::Silent(class.silence_max()));
                    }
                    continue;
                }
            };
            silent = 0;
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame?;
            // A peer that sends without a pause leaves no turn to the ticks.
            if frame.kind == FrameKind::Request
                && self.guard.misses_proof(&peer.who.node, &peer.marks)
            {
                room.send(Outgoing::lasting(Refusal::NoProof(peer.who.node.clone()).frame()));
                return Ok(());
            }
            match frame.kind {
                FrameKind::Request if open.contains_key(&frame.id) => {
                    return Err(ServeError::SameId(frame.id));
                }
                FrameKind::Request if running.len() >= class.calls_max() => {
                    room.send(Outgoing::lasting(Failure::Busy.frame(frame.id)));
                }
                FrameKind::Request => {
                    let (handle, registration) = AbortHandle::new_pair();
                    open.insert(frame.id, handle);
                    let (id, ttl) = (frame.id, Duration::from_micros(u64::from(frame.ttl_us)));
                    let call =
                        Call { from: peer.clone(), version, ttl, request: Opaque::of(frame) };
                    let answer = Abortable::new(self.one(id, call), registration);
                    // An aborted one has nobody to answer.
                    running.push(async move { (id, answer.await.ok()) });
                }
                FrameKind::Cancel => {
                    // It may have crossed the answer; then there is nothing to cancel.
                    if let Some(handle) = open.get(&frame.id) {
                        handle.abort();
                    }
                }
                FrameKind::Ping => {
                    room.send(Outgoing::lasting(Frame::bare(FrameKind::Pong, frame.id)))
                }
                FrameKind::Refusal => {
                    return Err(HandshakeError::refused_by(&frame).into());
                }
                FrameKind::Hello
                | FrameKind::Proof
                | FrameKind::Answer
                | FrameKind::Failure
                | FrameKind::Pong => {
                    return Err(ServeError::OutOfPlace);
                }
            }
        }
        Ok(())
    }

    /// The frame that answers one request, in time.
    async fn one(&self, id: u64, call: Call) -> Frame {
        let (ttl, bytes_max) = (call.ttl, call.from.class.frame_bytes_max());
        if ttl.is_zero() {
            return Failure::DeadlinePassed.frame(id);
        }
        let answer = tokio::time::timeout(ttl, self.handler.handle(call)).await;
        match answer.unwrap_or(Err(Failure::DeadlinePassed)) {
            Ok(answer) if HEADER_BYTES + answer.bytes.len() > bytes_max => {
                let text = format!(
                    "its answer has {} bytes, more than fit in a frame",
                    answer.bytes.len()
                );
                Failure::Failed(text).frame(id)
            }
            Ok(answer) => answer.reply(id),
            Err(failure) => failure.frame(id),
        }
    }
}

/// The next request that is done. Without any it waits for ever, where the bare stream would say
/// that it has ended.
async fn next<F: Future<Output = (u64, Option<Frame>)>>(
    running: &mut FuturesUnordered<F>,
) -> Option<(u64, Option<Frame>)> {
    if running.is_empty() { pending().await } else { running.next().await }
}
