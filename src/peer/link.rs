//! The end that asks: one connection to one peer for one class of traffic, kept up, with many calls
//! on it at a time.
//!
//! [`link`] gives a [`Link`], which callers clone and share, and a driver, a future that whoever
//! builds the node runs where it likes. The driver dials, greets, pings and dials again; it ends
//! when all links are dropped. Callers never wait for it: a call to a peer that isn't connected
//! fails at once.
//!
//! Between attempts it waits, 50 ms at first and twice as long each time up to a second, half of it
//! by chance: nodes that lost the same peer together don't come back together. A connection that
//! was up starts over at 50 ms, and a peer that has just connected to this node is dialled at once
//! ([`Link::redial`]).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::breaker::Breaker;
use super::frame::{Frame, FrameError, FrameKind, HEADER_BYTES};
use super::handshake::{self, Agreed, HandshakeError, Identity, Reader, Refusal, Us};
use super::message::{Ask, Failure, Opaque, ReadError, ttl_us};
use super::pending::{NotTaken, Pending};
use super::proof::Guard;
use super::writer::{self, Outgoing, WriteError};
use super::{BootId, Class};
use crate::check::Name;
use crate::clock::SharedClock;
use crate::codec::CodecError;
use crate::net::{Dial, Stream};
use crate::placement::FormatLevel;
use crate::random::Generator;
use crate::watch;

/// How long a dial may take, all addresses of the peer together. A dial bounds each step itself
/// (see [`Dial`]): a name five seconds, an address one.
const DIAL_MAX: Duration = Duration::from_secs(30);
/// The first wait between two attempts, and the longest. The longest also bounds how late a link
/// notices that its peer is back.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// Answers to pings that the round trip of a link is the least of: one slow answer of a busy peer
/// does not make a link slow.
const ROUND_TRIPS_KEPT: usize = 4;
/// No round trip has been measured on the present connection.
const NO_ROUND_TRIP: u64 = u64::MAX;

/// What a link is made of.
pub struct LinkArgs<D> {
    /// What this node says of itself.
    pub us: Identity,
    /// How it proves that it belongs to the cluster, and what it asks of the peer.
    pub guard: Arc<Guard>,
    /// The id of the node at the other end; any other that answers there is refused.
    pub peer: Name,
    /// What the link is for.
    pub class: Class,
    /// How the peer is reached.
    pub dial: D,
    /// Where the time is read: queues take from what a call has left.
    pub clock: SharedClock,
    /// Where the jitter of its back-off comes from.
    pub chance: Generator,
    /// The breaker of the calls on this link, which becomes half-open when a connection comes up.
    pub breaker: Option<Arc<Breaker>>,
}

/// How a link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no connection.
    Connecting {
        /// Since when, in nanoseconds of boot time.
        since: u64,
        /// Why the last attempt failed, or the last connection ended; none before the first.
        why: Option<String>,
        /// Since when every attempt has ended in hearing that the peer knows of no such member as
        /// this node.
        no_member_since: Option<u64>,
        /// Whether the last attempt ended in hearing that the peer's cluster was made anew, and
        /// gave up what this node is part of.
        given_up: bool,
        /// Whether the last attempt ended in the refusal of one end: a peer is there, and one of
        /// the two is configured otherwise.
        refused: bool,
    },
    /// There is one.
    Connected {
        /// Since when, in nanoseconds of boot time.
        since: u64,
        /// The wire version that is spoken.
        version: u8,
        /// Which run of the peer it is.
        boot: BootId,
        /// Which forms that run reads.
        level: FormatLevel,
    },
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection to the peer. The call wasn't sent.
    #[error("not connected to {0}")]
    NotConnected(Name),
    /// As many calls are open, or wait to be sent, as the link takes. The call wasn't sent.
    #[error("too many calls to {0} are open")]
    Busy(Name),
    /// The message is longer than the class of traffic allows. The call wasn't sent.
    #[error("a message of {actual} bytes, where {max} are the most")]
    TooLong {
        /// What it has.
        actual: usize,
        /// What it may have.
        max: usize,
    },
    /// The message can't be encoded. The call wasn't sent.
    #[error(transparent)]
    Encode(#[from] CodecError),
    /// The time ran out. The peer was told to drop it; whether it was handled is unknown.
    #[error("{0} didn't answer in time")]
    DeadlinePassed(Name),
    /// The connection broke. Whether the call was handled is unknown.
    #[error("the connection to {0} broke")]
    Lost(Name),
    /// The peer says that it failed.
    #[error("{0}: {1}")]
    Failed(Name, Failure),
    /// The peer answered with something else than an answer to this question.
    #[error("{0} gave an answer that can't be read: {1}")]
    Unreadable(Name, ReadError),
}

impl CallError {
    /// Whether the call had no effect, for certain, so that it may be made again elsewhere without
    /// being counted twice.
    pub fn was_not_handled(&self) -> bool {
        match self {
            Self::NotConnected(_) | Self::Busy(_) | Self::TooLong { .. } | Self::Encode(_) => true,
            Self::Failed(_, failure) => failure.was_not_handled(),
            Self::DeadlinePassed(_) | Self::Lost(_) | Self::Unreadable(..) => false,
        }
    }
}

/// A link to one peer. Clones are the same link.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    state: watch::Receiver<LinkState>,
    /// The last clone's end is the driver's.
    _end: Arc<DropGuard>,
}

struct Shared {
    peer: Name,
    class: Class,
    clock: SharedClock,
    live: ArcSwapOption<Live>,
    /// Numbers go on over connections: an id never means two calls.
    next_id: AtomicU64,
    /// Frames that have come, over all connections.
    heard: AtomicU64,
    /// Nanoseconds of a round trip on the present connection, or [`NO_ROUND_TRIP`].
    round_trip: AtomicU64,
    /// Ends the wait between two attempts to connect.
    redial: Notify,
}

/// A connection that is up.
struct Live {
    queue: mpsc::Sender<Outgoing>,
    pending: Pending,
}

/// A link, and the future that keeps it up.
pub fn link<D: Dial>(args: LinkArgs<D>) -> (Link, impl Future<Output = ()> + Send) {
    let shared = Arc::new(Shared {
        peer: args.peer.clone(),
        class: args.class,
        clock: args.clock.clone(),
        live: ArcSwapOption::empty(),
        next_id: AtomicU64::new(1),
        heard: AtomicU64::new(0),
        round_trip: AtomicU64::new(NO_ROUND_TRIP),
        redial: Notify::new(),
    });
    let (states, state) = watch::channel(LinkState::Connecting {
        since: args.clock.now().boot,
        why: None,
        no_member_since: None,
        given_up: false,
        refused: false,
    });
    let end = CancellationToken::new();
    let driver = Driver {
        us: args.us,
        guard: args.guard,
        shared: shared.clone(),
        states,
        breaker: args.breaker,
    };
    let ended = end.clone();
    let drive = async move {
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = driver.keep_up(args.dial, args.chance) => {}
        }
    };
    (Link { shared, state, _end: Arc::new(end.drop_guard()) }, drive)
}

impl Link {
    /// Asks the peer and waits for the answer, at most for `ttl`. A caller that drops the call
    /// takes it back.
    pub async fn call(&self, request: Opaque, ttl: Duration) -> Result<Opaque, CallError> {
        let (shared, peer) = (&self.shared, || self.shared.peer.clone());
        let (actual, max) = (HEADER_BYTES + request.bytes.len(), shared.class.frame_bytes_max());
        if actual > max {
            return Err(CallError::TooLong { actual, max });
        }
        let Some(live) = shared.live.load_full() else {
            return Err(CallError::NotConnected(peer()));
        };
        let ttl = Duration::from_micros(u64::from(ttl_us(ttl)));
        let until = shared
            .clock
            .now()
            .boot
            .saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        let room = match live.queue.try_reserve() {
            Ok(room) => room,
            Err(mpsc::error::TrySendError::Full(())) => return Err(CallError::Busy(peer())),
            Err(mpsc::error::TrySendError::Closed(())) => {
                return Err(CallError::NotConnected(peer()));
            }
        };
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let answer = live.pending.insert(id).map_err(|not| match not {
            NotTaken::Full => CallError::Busy(peer()),
            NotTaken::Closed => CallError::NotConnected(peer()),
        })?;
        room.send(Outgoing { frame: request.request(id), until: Some(until) });
        let _waiting = Waiting { live: &live, id };
        match tokio::time::timeout(ttl, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(failure))) => Err(CallError::Failed(peer(), failure)),
            Ok(Err(_)) => Err(CallError::Lost(peer())),
            Err(_) => Err(CallError::DeadlinePassed(peer())),
        }
    }

    /// The same for a question that has a type.
    pub async fn ask<A: Ask>(&self, question: &A, ttl: Duration) -> Result<A::Answer, CallError> {
        let answer = self.call(Opaque::question(question)?, ttl).await?;
        answer
            .read_answer::<A>()
            .map_err(|error| CallError::Unreadable(self.shared.peer.clone(), error))
    }

    /// The node at the other end.
    pub fn peer(&self) -> &Name {
        &self.shared.peer
    }

    /// How it stands.
    pub fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    /// Changes of how it stands, for whoever wants to wait for one.
    pub fn states(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Waits until there is a connection.
    pub async fn connected(&self) {
        let mut states = self.states();
        // The driver holds the other end; once it is gone there will be no connection, and no more
        // to wait for.
        let _ = states.wait_for(|state| matches!(state, LinkState::Connected { .. })).await;
    }

    /// Frames that have come from the peer so far: whether it is silent, or only slow with one
    /// answer.
    pub fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// Returns the time that a ping and its answer take on the present connection: the least of the
    /// last few. None while there is no connection, and before the first answer.
    pub fn round_trip(&self) -> Option<Duration> {
        let nanos = self.shared.round_trip.load(Ordering::Relaxed);
        (nanos != NO_ROUND_TRIP).then(|| Duration::from_nanos(nanos))
    }

    /// Dials now rather than after the wait between two attempts, if there is no connection.
    pub fn redial(&self) {
        if self.shared.live.load().is_none() {
            self.shared.redial.notify_one();
        }
    }

    /// Calls that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.shared.live.load().as_ref().map_or(0, |live| live.pending.len())
    }
}

/// A call that waits. Dropped before its answer came, it tells the peer that nobody waits any more.
struct Waiting<'a> {
    live: &'a Live,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.live.pending.remove(self.id).is_some() {
            // Where the queue is full the peer isn't told: the deadline that the request carries
            // ends it there.
            let cancel = Frame::bare(FrameKind::Cancel, self.id);
            let _ = self.live.queue.try_send(Outgoing::lasting(cancel));
        }
    }
}

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("can't connect: {0}")]
    Dial(io::Error),
    #[error("can't connect within {DIAL_MAX:?}")]
    DialTooSlow,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
    #[error("the peer sent a frame out of place")]
    OutOfPlace,
}

struct Driver {
    us: Identity,
    guard: Arc<Guard>,
    shared: Arc<Shared>,
    states: watch::Sender<LinkState>,
    breaker: Option<Arc<Breaker>>,
}

impl Driver {
    async fn keep_up<D: Dial>(self, mut dial: D, mut chance: Generator) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let why = match self.connect(&mut dial).await {
                Ok((agreed, reader, writer)) => {
                    back_off = BACK_OFF_MIN;
                    self.run(agreed, reader, writer).await
                }
                Err(error) => error,
            };
            self.down(&why);
            let wait = tokio::time::sleep(jittered(back_off, &mut chance));
            back_off = tokio::select! {
                biased;
                () = self.shared.redial.notified() => BACK_OFF_MIN,
                () = wait => (back_off * 2).min(BACK_OFF_MAX),
            };
        }
    }

    async fn connect<D: Dial>(
        &self,
        dial: &mut D,
    ) -> Result<(Agreed, Reader<D::Stream>, handshake::Writer<D::Stream>), LinkError> {
        let dialled = tokio::time::timeout(DIAL_MAX, dial.dial())
            .await
            .map_err(|_| LinkError::DialTooSlow)?;
        let stream = dialled.map_err(LinkError::Dial)?;
        let certified = stream.certified().cloned();
        let (mut reader, mut writer) = handshake::framed(stream);
        let us = Us { identity: &self.us, guard: &self.guard };
        let (class, peer) = (self.shared.class, &self.shared.peer);
        let agreed =
            handshake::call(&mut reader, &mut writer, us, certified.as_ref(), class, peer).await?;
        Ok((agreed, reader, writer))
    }

    /// Carries calls until the connection ends; says why it did.
    async fn run<S: Stream>(
        &self,
        agreed: Agreed,
        reader: Reader<S>,
        writer: handshake::Writer<S>,
    ) -> LinkError {
        let (class, shared) = (self.shared.class, &self.shared);
        let (queue, queued) = mpsc::channel(class.calls_max());
        let live = Arc::new(Live { queue, pending: Pending::new(class.calls_max()) });
        shared.live.store(Some(live.clone()));
        // The driver may be dropped in the middle: then, too, whoever waits is to hear of it.
        let _up = Up { shared, live: &live };
        let (version, boot) = (agreed.version, agreed.peer.who.boot);
        let level = agreed.peer.who.level;
        tracing::info!(peer = %shared.peer, %class, version, %boot, "connected to a peer");
        let since = shared.clock.now().boot;
        if let Some(breaker) = &self.breaker {
            breaker.half_open(since);
        }
        self.states.send_replace(LinkState::Connected { since, version, boot, level });
        let written = writer::write(writer, queued, shared.clock.clone(), class.silence_max());
        tokio::select! {
            biased;
            why = read(reader, &live, shared, || self.guard.misses_proof(&agreed.peer.who.node, &agreed.peer.marks)) => why,
            // It doesn't end by itself, since `live` holds a sender.
            written = written => written.map_or_else(LinkError::Write, |()| LinkError::Closed),
        }
    }

    fn down(&self, why: &LinkError) {
        let (peer, class, text) = (&self.shared.peer, self.shared.class, why.to_string());
        let news = match &*self.states.borrow() {
            LinkState::Connected { .. } => true,
            LinkState::Connecting { why: last, .. } => last.as_ref() != Some(&text),
        };
        // A peer that is down for an hour is worth one line, not one for each attempt.
        if news {
            tracing::warn!(%peer, %class, error = %text, "no connection to a peer");
        }
        let now = self.shared.clock.now().boot;
        self.states.send_modify(|state| {
            let (since, before) = match state {
                LinkState::Connecting { since, no_member_since, .. } => (*since, *no_member_since),
                LinkState::Connected { .. } => (now, None),
            };
            let is_unknown = matches!(why, LinkError::Handshake(HandshakeError::NoMemberToPeer(_)));
            let no_member_since = is_unknown.then(|| before.unwrap_or(now));
            let given_up = matches!(why, LinkError::Handshake(HandshakeError::GivenUpByPeer(_)));
            let refused = matches!(
                why,
                LinkError::Handshake(HandshakeError::Refused(_) | HandshakeError::RefusedByPeer(_))
            );
            *state = LinkState::Connecting {
                since,
                why: Some(text),
                no_member_since,
                given_up,
                refused,
            };
        });
    }
}

/// A connection that callers may use; its end fails their calls, all at once.
struct Up<'a> {
    shared: &'a Shared,
    live: &'a Live,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.shared.live.store(None);
        self.shared.round_trip.store(NO_ROUND_TRIP, Ordering::Relaxed);
        self.live.pending.close();
    }
}

/// Resolves what is answered, and pings, until the peer is gone or silent, or `misses_proof`.
async fn read<S: Stream>(
    mut reader: Reader<S>,
    live: &Live,
    shared: &Shared,
    misses_proof: impl Fn() -> bool,
) -> LinkError {
    let (silence_max, pings) = (shared.class.silence_max(), shared.class.pings_in_silence());
    let mut ticks = tokio::time::interval(silence_max / pings);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut silent, mut round_trips) = (0, RoundTrips::default());
    loop {
        let frame = tokio::select! {
            biased;
            _ = ticks.tick() => {
                if misses_proof() {
                    return HandshakeError::Refused(Refusal::NoProof(shared.peer.clone())).into();
                }
                silent += 1;
                if silent > pings {
                    return LinkError::Silent(silence_max);
                }
                let id = round_trips.begin(shared.clock.now().boot);
                let _ = live.queue.try_send(Outgoing::lasting(Frame::bare(FrameKind::Ping, id)));
                continue;
            }
            frame = reader.next() => frame,
        };
        silent = 0;
        shared.heard.fetch_add(1, Ordering::Relaxed);
        match frame {
            None => return LinkError::Closed,
            Some(Err(error)) => return error.into(),
            Some(Ok(frame)) => match frame.kind {
                FrameKind::Answer => live.pending.resolve(frame.id, Ok(Opaque::of(frame))),
                FrameKind::Failure => live.pending.resolve(frame.id, Err(Failure::of(&frame))),
                FrameKind::Pong => {
                    if let Some(least) = round_trips.end(frame.id, shared.clock.now().boot) {
                        shared.round_trip.store(least, Ordering::Relaxed);
                    }
                }
                FrameKind::Refusal => {
                    return HandshakeError::refused_by(&frame).into();
                }
                FrameKind::Hello
                | FrameKind::Proof
                | FrameKind::Request
                | FrameKind::Cancel
                | FrameKind::Ping => {
                    return LinkError::OutOfPlace;
                }
            },
        }
    }
}

/// Measures the round trips of a connection by its pings, whose ids the peer sends back.
#[derive(Default)]
struct RoundTrips {
    next_id: u64,
    /// Pings without an answer yet: id, and nanoseconds of boot time when the ping was sent.
    open: VecDeque<(u64, u64)>,
    last: VecDeque<u64>,
}

impl RoundTrips {
    /// Takes note of a ping that is sent at `now`; returns its id.
    fn begin(&mut self, now: u64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if self.open.len() == ROUND_TRIPS_KEPT {
            self.open.pop_front();
        }
        self.open.push_back((id, now));
        id
    }

    /// Takes note of the answer to the ping `id`; returns the least of the last round trips in
    /// nanoseconds. None if no ping of that id waits for an answer.
    fn end(&mut self, id: u64, now: u64) -> Option<u64> {
        let at = self.open.iter().position(|(open, _)| *open == id)?;
        let (_, sent) = self.open.drain(..=at).next_back()?;
        if self.last.len() == ROUND_TRIPS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(now.saturating_sub(sent));
        self.last.iter().min().copied()
    }
}

/// Between half of `wait` and all of it.
fn jittered(wait: Duration, chance: &mut Generator) -> Duration {
    let half = u64::try_from(wait.as_micros() / 2).unwrap_or(u64::MAX);
    Duration::from_micros(half + chance.next_u64() % (half + 1))
}

#[cfg(test)]
mod tests;
