//! Both ends against each other over pipes, and each against an end that is played frame by frame.

mod breaker;
mod exchanges;
mod greetings;
mod links;
mod messages;
mod servers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::frame::{Frame, FrameKind};
use super::handshake::{self, Identity, Reader, Us, VERSIONS, Writer};
use super::{
    BootId, Call, Class, Failure, Guard, Handler, Hello, Key, Kind, Link, LinkArgs, Opaque,
};
use crate::check::Name;
use crate::clock::{ManualClock, SharedClock};
use crate::net::pipes::{PipeListener, Pipes};
use crate::net::{self, Dial, Listen, Network};
use crate::random::Seed;
use crate::watch;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn identity(node: &str) -> Identity {
    Identity {
        cluster: name("demo"),
        node: name(node),
        boot: BootId(7),
        versions: VERSIONS,
        lineage: Default::default(),
        level: Default::default(),
    }
}

fn clock() -> SharedClock {
    Arc::new(ManualClock::default())
}

/// A link of n1 to n2, its driver, what comes out at the other end, and how often it dialled.
struct Dialled {
    link: Link,
    driver: JoinHandle<()>,
    listener: PipeListener,
    dials: Arc<AtomicUsize>,
}

fn dial(class: Class) -> Dialled {
    dial_as(identity("n1"), class)
}

fn dial_as(us: Identity, class: Class) -> Dialled {
    dial_with(us, Default::default(), class)
}

fn dial_with(us: Identity, guard: Arc<Guard>, class: Class) -> Dialled {
    let pipes = Pipes::default();
    let (listener, dial) = (pipes.listen("n2"), pipes.dial("n2").unwrap());
    let (dials, chance) = (dial.dials.clone(), Seed::from_number(1).fork("links", 0));
    let args = LinkArgs {
        us,
        guard,
        peer: name("n2"),
        class,
        dial,
        clock: clock(),
        chance,
        breaker: None,
    };
    let (link, driver) = super::link(args);
    Dialled { link, driver: tokio::spawn(driver), listener, dials }
}

/// Answers as its requests ask: at once, later, never; keeps count of what it was doing.
#[derive(Default)]
struct Echo {
    handling: AtomicUsize,
    handled: AtomicUsize,
    strangers: bool,
    ttls: Mutex<BTreeMap<Bytes, Duration>>,
}

const NOW: Kind = Kind(1);
const NEVER: Kind = Kind(2);
/// After as many milliseconds as its last byte says.
const LATER: Kind = Kind(3);
const LARGE: Kind = Kind(4);

struct Handling<'a>(&'a AtomicUsize);

impl Drop for Handling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler for Echo {
    fn admits(&self, _: &Hello) -> bool {
        !self.strangers
    }

    async fn handle(&self, call: Call) -> Result<Opaque, Failure> {
        self.handling.fetch_add(1, Ordering::Relaxed);
        let _handling = Handling(&self.handling);
        self.ttls.lock().unwrap().insert(call.request.bytes.clone(), call.ttl);
        match call.request.kind {
            NOW => {}
            LATER => {
                let last = call.request.bytes.last().copied().unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(u64::from(last))).await;
            }
            LARGE => return Ok(Opaque { kind: LARGE, bytes: vec![0; 2 << 20].into() }),
            NEVER => std::future::pending().await,
            _ => return Err(Failure::UnknownKind),
        }
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(call.request)
    }
}

/// Has a key, and takes the program of `older` for one that gives no proof.
fn guard_with(older: &str) -> Arc<Guard> {
    let guard = Guard::new(vec![Key::new([1; 32])], &Seed::from_number(1));
    guard.may_be_older([name(older)].into());
    Arc::new(guard)
}

/// Serves as n2 what comes out of `listener`, on one worker, until told to stop.
async fn serve(listener: impl Listen, echo: Arc<Echo>, stop: watch::Receiver<bool>) {
    serve_guarded(listener, echo, Arc::default(), stop).await;
}

/// The same behind `guard`.
async fn serve_guarded(
    listener: impl Listen,
    echo: Arc<Echo>,
    guard: Arc<Guard>,
    stop: watch::Receiver<bool>,
) {
    let (workers, mut parcels) = net::handover(1);
    let serving =
        super::serve(parcels.remove(0), identity("n2"), echo, guard, clock(), stop.clone());
    tokio::join!(super::accept(listener, workers, stop), serving);
}

/// The same without an end.
fn serve_echo(listener: impl Listen) -> Arc<Echo> {
    serve_with(listener, Echo::default())
}

fn serve_with(listener: impl Listen, echo: Echo) -> Arc<Echo> {
    let echo = Arc::new(echo);
    let serving = echo.clone();
    tokio::spawn(async move {
        let (_stop, never) = watch::channel(false);
        serve(listener, serving, never).await;
    });
    echo
}

/// A link of n1 to an n2 that serves, connected.
async fn connected(class: Class) -> (Link, Arc<Echo>) {
    let Dialled { link, listener, .. } = dial(class);
    let echo = serve_echo(listener);
    link.connected().await;
    (link, echo)
}

/// An n2 that is played frame by frame, behind its handshake.
async fn played(listener: &mut PipeListener) -> (Reader<DuplexStream>, Writer<DuplexStream>) {
    let (stream, _) = listener.accept().await.unwrap();
    let (mut reader, mut writer) = handshake::framed(stream);
    let us = Us { identity: &identity("n2"), guard: &Guard::default() };
    handshake::answer(&mut reader, &mut writer, us, None, |_| true).await.unwrap();
    (reader, writer)
}

/// The next frame that is no ping.
async fn frame(reader: &mut Reader<DuplexStream>) -> Option<Frame> {
    loop {
        match reader.next().await? {
            Ok(frame) if frame.kind == FrameKind::Ping => {}
            frame => return Some(frame.unwrap()),
        }
    }
}

fn opaque(kind: Kind, text: &str) -> Opaque {
    Opaque { kind, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}
