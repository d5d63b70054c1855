//! Host names: looked up by the system at each dial, on threads of their own, and every address
//! tried.
//!
//! ```text
//! n2.example:7171     [2001:db8::2]:7171, 192.0.2.2:7171       IPv6 and IPv4 in turn, at most 8
//! dial                the first; after 250 ms, or once it has failed, the next beside it; the first connection wins
//! n9.example:7171     "n9.example can't be resolved: …": the dial fails, and a link tries again like any other
//! ```
//!
//! Nothing is cached: containers get new addresses, and a name server knows better than this
//! process does. The system's resolver blocks for as long as it likes, so each look-up has a thread
//! that nothing waits for at the end of the process. A dial gives up on it after five seconds; the
//! next dial waits for the look-up that is still under way instead of starting another one, so a
//! dead name server costs one thread a name.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::Shared;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How long a dial waits for a name to be resolved.
pub(super) const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// How long one address is given to take a connection.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(1);
/// The head start of an address before the next one is tried beside it (RFC 8305 recommends 250
/// ms).
const NEXT_AFTER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Look-ups under way: more distinct names than that at once only happen if the name server is
/// dead.
const LOOKUPS_MAX: usize = 64;

/// Resolves a host and a port, and may block for as long as it likes.
type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;
/// What every dial that waits for one look-up is told.
type Resolved = Result<Vec<SocketAddr>, String>;
type Flight = Shared<oneshot::Receiver<Resolved>>;

/// Resolves names. Clones share the look-ups that are under way.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

struct Inner {
    lookup: Box<Lookup>,
    flights: Mutex<BTreeMap<String, Flight>>,
}

impl Default for Names {
    /// Asks the system, as every other program on the machine does: /etc/hosts, DNS.
    fn default() -> Self {
        Self::by(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names(..)")
    }
}

impl Names {
    /// Asks `lookup`, for tests that have hosts of their own.
    pub fn by(
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { lookup: Box::new(lookup), flights: Mutex::default() }))
    }

    /// Returns the socket addresses of `HOST:PORT`, IPv6 and IPv4 in turn, at least one and at most
    /// eight. Errors where the text is no such address, or the name has no address, or after five
    /// seconds.
    pub(super) async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let (host, _) = host_and_port(address).ok_or_else(|| no_address(address))?;
        let failed = |why: &str| io::Error::other(format!("{host} can't be resolved: {why}"));
        let flight = self.flight(address)?;
        match tokio::time::timeout(RESOLVE_MAX, flight).await {
            Ok(Ok(Ok(found))) if found.is_empty() => Err(failed("it has no address")),
            Ok(Ok(Ok(found))) => Ok(in_turn(&found)),
            Ok(Ok(Err(why))) => Err(failed(&why)),
            Ok(Err(_)) => Err(failed("the look-up broke off")),
            Err(_) => Err(failed(&format!("no answer within {RESOLVE_MAX:?}"))),
        }
    }

    /// The look-up of `address` that is under way, or a new one.
    fn flight(&self, address: &str) -> io::Result<Flight> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(address) {
            return Ok(flight.clone());
        }
        if flights.len() >= LOOKUPS_MAX {
            return Err(io::Error::other(format!(
                "{LOOKUPS_MAX} look-ups of names are under way already"
            )));
        }
        let (answer, answered) = oneshot::channel();
        let (names, wanted) = (self.clone(), address.to_string());
        std::thread::Builder::new().name("resolver".into()).spawn(move || {
            // A look-up that panics must not stay "under way" for ever.
            let landed = Landed { names: &names, address: &wanted };
            let (host, port) = host_and_port(&wanted).unwrap_or_default();
            let found = (names.0.lookup)(host, port).map_err(|error| error.to_string());
            drop(landed);
            // Every dial that waited for it may have given up.
            let _ = answer.send(found);
        })?;
        let flight = answered.shared();
        flights.insert(address.into(), flight.clone());
        Ok(flight)
    }

    fn flights(&self) -> MutexGuard<'_, BTreeMap<String, Flight>> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a look-up: the next dial starts another one.
struct Landed<'a> {
    names: &'a Names,
    address: &'a str,
}

impl Drop for Landed<'_> {
    fn drop(&mut self) {
        self.names.flights().remove(self.address);
    }
}

/// The host and the port of `HOST:PORT`; none where there is no host, or no port from 1 to 65535.
/// An IPv6 address in brackets has both too.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && !host.contains(':')).then_some((host, port))
}

/// The error of a text that is no address.
pub(super) fn no_address(text: &str) -> io::Error {
    let why = format!("{text:?} is not the address of a peer: a host and a port are expected");
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Addresses of both families in turn, IPv6 first, each once: where one family leads nowhere, the
/// other is next.
fn in_turn(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut six = found.iter().copied().filter(SocketAddr::is_ipv6);
    let mut four = found.iter().copied().filter(SocketAddr::is_ipv4);
    let mut ordered = Vec::new();
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] || ordered.len() >= ADDRESSES_MAX {
            ordered.truncate(ADDRESSES_MAX);
            return ordered;
        }
        for address in pair.into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
}

/// One peer's address, dialled again and again.
#[derive(Debug)]
pub(super) struct Way {
    names: Names,
    address: String,
    /// Which of several addresses is tried first, next time: the first may be reached and be
    /// another node's.
    turn: usize,
}

impl Way {
    pub(super) fn to(names: &Names, address: &str) -> Self {
        Self { names: names.clone(), address: address.into(), turn: 0 }
    }

    /// Connects to the first of the name's addresses that takes a connection, of those that `may`
    /// be dialled. `may` errs with the reason where an address must not be dialled.
    pub(super) async fn connect(
        &mut self,
        may: impl Fn(SocketAddr) -> io::Result<()>,
    ) -> io::Result<TcpStream> {
        let found = self.names.resolve(&self.address).await?;
        let mut refused = None;
        let mut addresses: Vec<_> = found.into_iter().collect();
        addresses.retain(|address| match may(*address) {
            Ok(()) => true,
            Err(error) => {
                refused.get_or_insert(error);
                false
            }
        });
        if let (true, Some(refused)) = (addresses.is_empty(), refused) {
            return Err(refused);
        }
        let first = self.turn % addresses.len().max(1);
        addresses.rotate_left(first);
        self.turn = first + 1;
        let stream = first_of(&addresses).await.map_err(|error| self.told(&addresses, &error))?;
        // Frames are gathered before they are written: waiting for more would only cost time.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The error with what the name was resolved to, since the operator sees only the name
    /// elsewhere.
    fn told(&self, tried: &[SocketAddr], error: &io::Error) -> io::Error {
        if self.address.parse::<SocketAddr>().is_ok() {
            return io::Error::new(error.kind(), error.to_string());
        }
        let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
        io::Error::new(error.kind(), format!("{} ({}): {error}", self.address, tried.join(", ")))
    }
}

/// A connection to the first address that takes one; the error of the first address where none
/// does.
async fn first_of(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut next = addresses.iter().copied();
    let (mut under_way, mut why) = (FuturesUnordered::new(), None);
    loop {
        let began = next.next();
        let may_wait = began.is_some();
        under_way.extend(began.map(attempt));
        tokio::select! {
            biased;
            ended = under_way.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => { why.get_or_insert(error); }
                None => {
                    let none = || io::Error::new(io::ErrorKind::InvalidInput, "there is no address");
                    return Err(why.unwrap_or_else(none));
                }
            },
            () = tokio::time::sleep(NEXT_AFTER), if may_wait => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT_MAX:?}"));
    tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// A machine with these hosts; the port is that of the question.
    fn hosts(of: &'static [(&'static str, &'static [&'static str])]) -> Names {
        Names::by(move |host, port| {
            let found = of.iter().find(|(name, _)| *name == host);
            let (_, addresses) = found.ok_or_else(|| io::Error::other("no such host"))?;
            Ok(addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
        })
    }

    #[tokio::test]
    async fn a_name_has_the_addresses_of_both_families_in_turn() {
        let names =
            hosts(&[("n2", &["192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.1"]), ("n3", &[])]);
        let expected = parsed(&["[2001:db8::1]:7171", "192.0.2.1:7171", "192.0.2.2:7171"]);
        assert_eq!(names.resolve("n2:7171").await.unwrap(), expected);
        for literal in ["192.0.2.9:1", "[2001:db8::9]:1"] {
            assert_eq!(names.resolve(literal).await.unwrap(), parsed(&[literal]));
        }
        for (address, why) in [
            ("n9:7171", "n9 can't be resolved: no such host"),
            ("n3:7171", "n3 can't be resolved: it has no address"),
            ("n2", "\"n2\" is not the address of a peer: a host and a port are expected"),
        ] {
            assert_eq!(names.resolve(address).await.unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn at_most_eight_addresses_of_a_name_are_tried() {
        let many: Vec<_> = (0..20).map(|i| SocketAddr::from(([192, 0, 2, i], 1))).collect();
        assert_eq!(in_turn(&many), many[..8]);
        let six = parsed(&["[2001:db8::1]:1"]);
        let both = in_turn(&[&many[..], &six].concat());
        assert_eq!((both.len(), both[0]), (8, six[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_is_given_up_after_five_seconds_and_shared() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let (gate, seen) = (Mutex::new(gate), asked.clone());
        let names = Names::by(move |_, port| {
            seen.fetch_add(1, Ordering::Relaxed);
            let _ = gate.lock().unwrap().recv();
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        });
        for _ in 0..3 {
            let why = names.resolve("n2:7171").await.unwrap_err().to_string();
            assert_eq!(why, "n2 can't be resolved: no answer within 5s");
        }
        assert_eq!(names.flights().len(), 1);
        // Its answer is for the dials that wait for it then; the one after that asks again. Without
        // a bound: time is paused and would pass at once.
        let answer = async |names: &Names| names.flight("n2:7171").unwrap().await.unwrap().unwrap();
        let (waiting, opened) = tokio::join!(answer(&names), async { open.send(()) });
        assert_eq!((waiting, opened), (parsed(&["127.0.0.1:7171"]), Ok(())));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        open.send(()).unwrap();
        assert_eq!(answer(&names).await, parsed(&["127.0.0.1:7171"]));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn of_several_addresses_the_one_that_answers_is_found() {
        let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // At the first two of them no program listens.
        let names = hosts(&[("n2", &["127.0.0.1", "127.0.0.2", "127.0.0.3"])]);
        let mut way = Way::to(&names, &format!("n2:{port}"));
        for _ in 0..3 {
            let stream = way.connect(|_| Ok(())).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        }
        drop(listener);
        let why = way.connect(|_| Ok(())).await.unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::ConnectionRefused);
        assert!(why.to_string().starts_with(&format!("n2:{port} (127.0.0.")), "{why}");
    }

    #[tokio::test]
    async fn where_an_address_is_another_nodes_the_next_dial_tries_the_next() {
        let one = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        let Ok(other) = TcpListener::bind(("127.0.0.3", port)).await else { return };
        let names = hosts(&[("n2", &["127.0.0.2", "127.0.0.3"])]);
        let mut way = Way::to(&names, &format!("n2:{port}"));
        let mut reached = Vec::new();
        for _ in 0..4 {
            reached.push(way.connect(|_| Ok(())).await.unwrap().peer_addr().unwrap());
        }
        let both = [one.local_addr().unwrap(), other.local_addr().unwrap()];
        assert_eq!(reached, [both[0], both[1], both[0], both[1]]);
    }

    #[tokio::test]
    async fn an_address_that_must_not_be_dialled_is_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = hosts(&[("n2", &["192.0.2.1", "127.0.0.1"]), ("n3", &["192.0.2.1"])]);
        let loopback = |address: SocketAddr| match address.ip().is_loopback() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{address} is far"))),
        };
        assert!(Way::to(&names, &format!("n2:{port}")).connect(loopback).await.is_ok());
        let why = Way::to(&names, "n3:1").connect(loopback).await.unwrap_err();
        assert_eq!(why.to_string(), "192.0.2.1:1 is far");
    }
}
