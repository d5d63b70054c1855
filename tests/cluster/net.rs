//! A network between the nodes that delays and cuts, link by link.
//!
//! Every node advertises a port of the network instead of its own port for peers. The network takes
//! the connection, reads in the greeting which node has dialled, and carries the bytes of both
//! directions as slowly as the link between the two says. A cut link carries nothing and loses
//! nothing: what was sent arrives after the cut, as TCP would send it again.

use std::collections::BTreeMap;
use std::net::TcpListener as Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::peer::Hello;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes of a frame before its body: its length and its header.
const HEAD_BYTES: usize = 4 + 18;
/// How often a cut link is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a link carries bytes, in each direction.
#[derive(Clone, Copy, Default)]
struct Way {
    delay: Duration,
    is_cut: bool,
}

#[derive(Default)]
struct Ways {
    /// By the two nodes, the lower first.
    links: BTreeMap<(usize, usize), Way>,
}

type Shared = Arc<Mutex<Ways>>;

/// See the module. Nodes go by their place: 0 is `n1`.
pub struct Net {
    ways: Shared,
    runtime: Option<Runtime>,
    bound: Vec<Option<Bound>>,
    ports: Vec<u16>,
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Net {
    /// A network of so many nodes, whole and quick.
    pub fn new(count: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bound: Vec<_> = (0..count).map(|_| Bound::bind("127.0.0.1:0").unwrap()).collect();
        let ports = bound.iter().map(|bound| bound.local_addr().unwrap().port()).collect();
        let bound = bound.into_iter().map(Some).collect();
        Self { ways: Shared::default(), runtime: Some(runtime), bound, ports }
    }

    /// The port that node `i` advertises.
    pub fn port(&self, i: usize) -> u16 {
        self.ports[i]
    }

    /// From now on connections for node `i` go to its port for peers.
    pub fn leads_to(&mut self, i: usize, port: u16) {
        let bound = self.bound[i].take().unwrap();
        bound.set_nonblocking(true).unwrap();
        let (runtime, ways) = (self.runtime.as_ref().unwrap(), self.ways.clone());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(bound).unwrap();
            while let Ok((dialled, _)) = listener.accept().await {
                tokio::spawn(carry(dialled, i, port, ways.clone()));
            }
        });
    }

    /// Messages between two nodes take so long, each way.
    pub fn delay(&self, a: usize, b: usize, delay: Duration) {
        self.change(a, b, |way| way.delay = delay);
    }

    /// The same for all links of a node.
    pub fn delay_all_of(&self, node: usize, delay: Duration) {
        for other in (0..self.ports.len()).filter(|other| *other != node) {
            self.delay(node, other, delay);
        }
    }

    /// The same for every link.
    pub fn delay_everywhere(&self, delay: Duration) {
        (0..self.ports.len()).for_each(|node| self.delay_all_of(node, delay));
    }

    /// Two nodes don't hear each other.
    pub fn cut(&self, a: usize, b: usize) {
        self.change(a, b, |way| way.is_cut = true);
    }

    /// No node of one side hears any of the other.
    pub fn split(&self, side: &[usize], other: &[usize]) {
        for a in side {
            other.iter().for_each(|b| self.cut(*a, *b));
        }
    }

    /// No link is cut.
    pub fn heal(&self) {
        self.ways.lock().unwrap().links.values_mut().for_each(|way| way.is_cut = false);
    }

    fn change(&self, a: usize, b: usize, change: impl FnOnce(&mut Way)) {
        change(self.ways.lock().unwrap().links.entry((a.min(b), a.max(b))).or_default());
    }
}

/// Carries one connection to node `to`.
async fn carry(mut dialled: TcpStream, to: usize, port: u16, ways: Shared) {
    let _ = dialled.set_nodelay(true);
    let Some((from, greeting)) = greeting(&mut dialled).await else { return };
    let Ok(reached) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = reached.set_nodelay(true);
    let link = (from.min(to), from.max(to));
    let (dialled, reached) = (dialled.into_split(), reached.into_split());
    tokio::select! {
        () = pump(dialled.0, reached.1, greeting, link, &ways) => {}
        () = pump(reached.0, dialled.1, Vec::new(), link, &ways) => {}
    }
}

/// Reads the first frame of a connection; returns which node has dialled, and the bytes of the
/// frame.
async fn greeting(dialled: &mut TcpStream) -> Option<(usize, Vec<u8>)> {
    let mut bytes = vec![0; HEAD_BYTES];
    dialled.read_exact(&mut bytes).await.ok()?;
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    bytes.resize(4 + length, 0);
    dialled.read_exact(&mut bytes[HEAD_BYTES..]).await.ok()?;
    let hello = Hello::read(&bytes[HEAD_BYTES..]).ok()?;
    let number: usize = hello.who.node.as_str().strip_prefix('n')?.parse().ok()?;
    Some((number.checked_sub(1)?, bytes))
}

/// Carries the bytes of one direction, `first` before all others, until an end closes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    first: Vec<u8>,
    link: (usize, usize),
    ways: &Shared,
) {
    let way = || ways.lock().unwrap().links.get(&link).copied().unwrap_or_default();
    let (sender, mut queue) = mpsc::unbounded_channel();
    let reading = async move {
        let mut bytes = first;
        loop {
            if !bytes.is_empty() && sender.send((now() + way().delay, bytes)).is_err() {
                return;
            }
            let mut chunk = vec![0; 64 << 10];
            match from.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => chunk.truncate(count),
            }
            bytes = chunk;
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = queue.recv().await {
            tokio::time::sleep_until(at).await;
            while way().is_cut {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // What was closed at one end takes its time to the other, too.
        while way().is_cut {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::join!(reading, writing);
}

#[allow(clippy::disallowed_methods, reason = "the delays of this network are real ones")]
fn now() -> Instant {
    Instant::now()
}
