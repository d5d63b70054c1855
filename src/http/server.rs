//! Connections of clients: handed to the workers in turn (as [`net::accept`] says), bounded in
//! number and in time.
//!
//! Each connection has a `Pulse`: idle, in the head of a request, or busy with one. A worker looks
//! at all pulses every `PULSE_TICK` and closes connections that were idle, or took for a head,
//! longer than allowed; TLS's handshake has as long as a head. That bounds slow senders without a
//! timer for each request. (Bodies have a timeout of their own, where they are read.)
//!
//! A node that stops says so before it closes anything. From the notice on every HTTP/1.1 answer
//! carries `Connection: close`, and every HTTP/2 connection gets GOAWAY behind its first request;
//! idle HTTP/1.1 connections stay open, so that no request is sent into a connection that is being
//! closed. At the stop they are closed too.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{HeaderValue, Version, header};
use futures_util::task::AtomicWaker;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::TaskTracker;

use super::forward_auth;
use super::head::HeadScan;
use super::problem::Problem;
use super::{Body, Door, request_id};
use crate::config::Limits;
use crate::net::{self, Carried, Listen, Receiver, Sender, Stream};
use crate::telemetry::Telemetry;
use crate::watch;

/// How often connections are looked at for having taken too long; how exact the times are.
const PULSE_TICK: Duration = Duration::from_millis(250);
/// Streams on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 100;
/// Unread bytes on one HTTP/2 stream and on a whole connection.
const H2_STREAM_WINDOW: u32 = 64 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that a client may open and reset before they are handled.
const H2_RESETS_MAX: usize = 20;
/// Bytes that are taken from a client whose head was refused, so that it can read why; it has as
/// long for them as for a head.
const UNREAD_BYTES_MAX: usize = 1 << 20;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Accepts connections and hands them to the workers in turn, until told to stop. Beyond `most`
/// they are closed at once, without a line in the log for each: whoever floods must not fill that
/// too. `open` counts them.
pub async fn accept<L: Listen>(
    listener: L,
    workers: Vec<Sender<L::Stream>>,
    most: usize,
    open: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
) {
    net::accept(listener, workers, most, open, |_| {}, stop).await;
}

/// How far the end of a node has come, for its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It serves.
    Not,
    /// It is about to stop, and still serves: callers are sent away.
    Notice,
    /// The time for what was begun is over.
    Cut,
}

/// Serves the connections that are handed over, until [`accept`] has ended; then finishes what was
/// begun. From the notice on connections are told that this node is about to stop.
pub async fn serve<S: Carried>(
    mut parcels: Receiver<S>,
    door: Arc<Door>,
    limits: Limits,
    telemetry: Arc<Telemetry>,
    mut ending: watch::Receiver<Ending>,
) {
    let limits = Arc::new(limits);
    let tasks = TaskTracker::new();
    let pulses = Arc::new(Pulses::new(&limits));
    let watcher = tokio::spawn(watch_pulses(pulses.clone()));
    let mut noticed = false;
    loop {
        let parcel = tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending >= Ending::Notice), if !noticed => {
                noticed = true;
                pulses.order_all(AWAY);
                continue;
            }
            // What was accepted is served: the other end drops its sender once it accepts no more.
            parcel = parcels.recv() => match parcel {
                Some(parcel) => parcel,
                None => break,
            },
        };
        let pulse = pulses.begin(if noticed { AWAY } else { GO_ON });
        let (door, telemetry, limits) = (door.clone(), telemetry.clone(), limits.clone());
        tasks.spawn(async move {
            if let Some(stream) = open::<S>(parcel.stream, parcel.from, &pulse).await {
                connection(stream, Peer(parcel.from), pulse, door, telemetry, &limits).await;
            }
            drop(parcel.counted);
        });
    }
    pulses.order_all(FINISH);
    tasks.close();
    tokio::select! {
        biased;
        () = tasks.wait() => {}
        _ = ending.wait_for(|ending| *ending == Ending::Cut) => {
            tracing::warn!(open = tasks.len(), "connections were cut: their requests didn't finish \
                                                in time");
        }
    }
    watcher.abort();
}

/// The stream to be served. Where TLS's handshake comes before it, that has as long as a head.
async fn open<S: Carried>(parcel: S::Parcel, from: SocketAddr, pulse: &Pulse) -> Option<S::Served> {
    pulse.enter(HEAD);
    let mut opening = pin!(S::unpack(parcel));
    let opened = poll_fn(|cx| {
        pulse.told.register(cx.waker());
        // Nothing was asked yet, so an order to finish ends a handshake too.
        match (opening.as_mut().poll(cx), pulse.orders.load(Ordering::Acquire)) {
            (Poll::Pending, FINISH | CLOSE) => Poll::Ready(None),
            (opened, _) => opened.map(Some),
        }
    });
    match opened.await? {
        Ok(stream) => {
            pulse.enter(IDLE);
            Some(stream)
        }
        Err(error) => {
            // Whoever asks for something else than there is hears so himself; a line for each would
            // be for him to write.
            tracing::debug!(%from, %error, "a connection came to nothing");
            None
        }
    }
}

fn connection<S: Stream>(
    stream: S,
    peer: Peer,
    pulse: Arc<Pulse>,
    door: Arc<Door>,
    telemetry: Arc<Telemetry>,
    limits: &Limits,
) -> impl Future<Output = ()> + use<S> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client that has sent its request may close its sending half and still wait for the
        // answer.
        .half_close(true)
        // Answers are small: copied behind their head they cost less than a second piece to send
        // does.
        .writev(false)
        .max_buf_size(usize::try_from(limits.header_bytes).unwrap_or(usize::MAX))
        .max_headers(usize::try_from(limits.headers).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(H2_RESETS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    let service = {
        let pulse = pulse.clone();
        hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            let request_id = if request.uri().path().starts_with(forward_auth::PATH) {
                // Only this call asks who is at the other end, and its headers are another
                // request's: they stay as they are.
                request.extensions_mut().insert(peer);
                request_id::fit(request.headers())
            } else {
                request_id::incoming(telemetry.request_ids(), request.headers_mut())
            };
            let busy = Pulse::busy(&pulse);
            let number = pulse.calls.fetch_add(1, Ordering::Relaxed) + 1;
            let ambiguous = (1..=number).contains(&pulse.ambiguous.load(Ordering::Relaxed));
            let (door, is_http1) = (door.clone(), request.version() <= Version::HTTP_11);
            async move {
                let mut answer = match ambiguous {
                    false => door.answer(request).await,
                    true => refuse_head(),
                };
                drop(busy);
                if is_http1 && door.is_stopping() {
                    answer
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                if let Some(id) = request_id {
                    answer.headers_mut().insert(request_id::REQUEST_ID, id);
                }
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let stream = TokioIo::new(Watched {
        stream,
        pulse: pulse.clone(),
        head: HeadScan::default(),
        unread: None,
    });
    let mut connection = Box::pin(builder.serve_connection(stream, service).into_owned());
    let mut stopping = false;
    // A `select!` over channels would cost every request several locks; here it is two plain reads.
    poll_fn(move |cx| {
        pulse.told.register(cx.waker());
        let order = pulse.orders.load(Ordering::Acquire);
        if order == CLOSE {
            return Poll::Ready(());
        }
        // Before an order to end is followed: a request that has arrived already is read and
        // answered. Broken connections are their clients' business.
        let ended = connection.as_mut().poll(cx).map(drop);
        let ends = order == FINISH || (order == AWAY && pulse.has_served_http2());
        if ended.is_ready() || !ends || stopping {
            return ended;
        }
        stopping = true;
        connection.as_mut().graceful_shutdown();
        connection.as_mut().poll(cx).map(drop)
    })
}

/// The answer to a head that two servers could read differently; the connection ends with it.
fn refuse_head() -> hyper::Response<Body> {
    Problem::new(
        400,
        "the head is ambiguous: bare line feeds, a length told twice, or one beside chunks",
        "bad-input",
    )
    .with_header(header::CONNECTION, "close")
    .answer()
    .map(Either::Left)
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// What a connection is told to do: nothing in particular, to send its client away behind a
/// request, to end behind the request it has, to end at once.
const GO_ON: u8 = 0;
const AWAY: u8 = 1;
const FINISH: u8 = 2;
const CLOSE: u8 = 3;

/// What one connection is doing, and since which tick of its worker's pulse.
struct Pulse {
    phase: AtomicU8,
    since: AtomicU32,
    /// Requests being answered; more than one on HTTP/2.
    requests: AtomicU32,
    /// HTTP/2 sends more than requests, so a first byte there doesn't mean that a head has begun.
    multiplexed: AtomicBool,
    /// Requests so far.
    calls: AtomicU64,
    /// Which of them is the first that can be read in two ways; 0 is none.
    ambiguous: AtomicU64,
    tick: Arc<AtomicU32>,
    orders: AtomicU8,
    told: AtomicWaker,
}

impl Pulse {
    /// Gives an order. One to close stands over one to finish.
    fn order(&self, order: u8) {
        self.orders.fetch_max(order, Ordering::Release);
        self.told.wake();
    }

    /// Whether it is an HTTP/2 connection on which something was asked.
    fn has_served_http2(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed) && self.calls.load(Ordering::Relaxed) > 0
    }

    fn enter(&self, phase: u8) {
        self.since.store(self.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn busy(pulse: &Arc<Self>) -> Busy {
        pulse.requests.fetch_add(1, Ordering::Relaxed);
        pulse.enter(BUSY);
        Busy(pulse.clone())
    }

    /// Notices bytes that came in. Those of a head are looked at by `head`.
    fn bytes_came(&self, bytes: &[u8], head: &mut HeadScan) {
        if self.multiplexed.load(Ordering::Relaxed) {
            return;
        }
        self.ambiguous.store(head.feed(bytes), Ordering::Relaxed);
        if head.is_http2() {
            // A first piece of its preface may have looked like a head.
            self.multiplexed.store(true, Ordering::Relaxed);
            self.enter(IDLE);
        } else if self.phase.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }
}

/// A request being answered.
struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter(IDLE);
        }
    }
}

/// The pulses of one worker.
struct Pulses {
    tick: Arc<AtomicU32>,
    all: Mutex<Vec<Weak<Pulse>>>,
    head_ticks: u32,
    idle_ticks: u32,
}

impl Pulses {
    fn new(limits: &Limits) -> Self {
        let ticks =
            |ms: u64| u32::try_from(ms.div_ceil(PULSE_TICK.as_millis() as u64)).unwrap_or(u32::MAX);
        Self {
            tick: Arc::default(),
            all: Mutex::default(),
            head_ticks: ticks(limits.header_ms),
            idle_ticks: ticks(limits.idle_ms),
        }
    }

    /// The pulse of a connection that begins under this order.
    fn begin(&self, order: u8) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse {
            phase: AtomicU8::new(IDLE),
            since: AtomicU32::new(self.tick.load(Ordering::Relaxed)),
            requests: AtomicU32::new(0),
            multiplexed: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            ambiguous: AtomicU64::new(0),
            tick: self.tick.clone(),
            orders: AtomicU8::new(order),
            told: AtomicWaker::new(),
        });
        if let Ok(mut all) = self.all.lock() {
            all.push(Arc::downgrade(&pulse));
        }
        pulse
    }

    /// Gives all connections an order.
    fn order_all(&self, order: u8) {
        let Ok(all) = self.all.lock() else { return };
        all.iter().filter_map(Weak::upgrade).for_each(|pulse| pulse.order(order));
    }

    /// Lets one tick pass: closes what took too long, forgets what has ended.
    fn beat(&self) {
        let now = self.tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let Ok(mut all) = self.all.lock() else { return };
        all.retain(|pulse| {
            let Some(pulse) = pulse.upgrade() else {
                return false;
            };
            let age = now.wrapping_sub(pulse.since.load(Ordering::Relaxed));
            let overdue = match pulse.phase.load(Ordering::Relaxed) {
                IDLE => age > self.idle_ticks,
                HEAD => age > self.head_ticks,
                _ => false,
            };
            if overdue {
                pulse.order(CLOSE);
            }
            !overdue
        });
    }
}

async fn watch_pulses(pulses: Arc<Pulses>) {
    let mut ticker = tokio::time::interval(PULSE_TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        pulses.beat();
    }
}

/// A stream whose incoming bytes are noticed.
struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    head: HeadScan,
    /// Once the writing half is shut: bytes that may still come and are not looked at any more.
    unread: Option<usize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Self { stream, pulse, head, .. } = &mut *self;
        let polled = Pin::new(stream).poll_read(cx, buf);
        if let Some(bytes) = buf.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            pulse.bytes_came(bytes, head);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, pulse, unread, .. } = &mut *self;
        if unread.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
        }
        // A head that was begun and not handled is one that hyper has refused by itself, and its
        // sender may be at it still: closing now would reset the connection, and the refusal be
        // lost with it. A proxy takes that for a dead node.
        let refused = pulse.phase.load(Ordering::Relaxed) == HEAD;
        let unread = unread.get_or_insert(if refused { UNREAD_BYTES_MAX } else { 0 });
        let mut scrap = [0; 4 << 10];
        while *unread > 0 {
            let mut buf = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    *unread = unread.saturating_sub(buf.filled().len())
                }
                _ => *unread = 0,
            }
        }
        Poll::Ready(Ok(()))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
