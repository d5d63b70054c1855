//! The one seam for the network: where connections come from, and how others are reached.
//!
//! A node takes its listeners and its [`Network`] as arguments. What they give is anything that
//! reads and writes: sockets, a simulated network, pipes in a test. [`Listen`] takes connections
//! and [`Network`] makes them; a stream that was accepted on one runtime and is served on another
//! is [`Carried`] there, and [`accept`] hands such streams to the workers in turn.
//!
//! [`Plain`] is the network of peers without encryption. It dials loopback addresses alone: between
//! machines, a check would show who is whose tenant to everybody on the way, and anybody could pass
//! for a peer. [`tls`] is the one with. An address is `HOST:PORT`, and resolving the host belongs
//! to a dial (`names`), so that a simulation has names of its own.

mod bound;
mod handover;
mod names;
mod plain;
pub mod tls;

#[cfg(test)]
pub(crate) mod pipes;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

pub use bound::Bound;
pub use handover::{Counted, Parcel, Receiver, Sender, accept, handover};
pub use names::Names;
pub use plain::{Plain, PlainDial, PlainListener};
pub use tls::Certified;

/// The round trip between nodes that a cluster's timers allow unless it is told otherwise, in
/// milliseconds.
pub const ROUND_TRIP_MS: u64 = 100;
/// The round trips that they can be told to allow.
pub const ROUND_TRIP_MS_BOUNDS: RangeInclusive<u64> = 50..=300;

/// What a connection reads from and writes to.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whose certificate the other end has shown, and proven to be its own; none where nobody asks
    /// for one.
    fn certified(&self) -> Option<&Certified> {
        None
    }
}

/// A connection that can be carried from the runtime that accepted it to the one that serves it.
pub trait Carried: Sized + Send + 'static {
    /// The connection on its way.
    type Parcel: Send + 'static;
    /// What is served.
    type Served: Stream;
    /// Takes it off the runtime it is on.
    fn pack(self) -> io::Result<Self::Parcel>;
    /// Puts it onto the runtime of the caller, and does what comes before its first byte: the
    /// handshake of TLS. It need not watch the time: whoever calls does.
    fn unpack(parcel: Self::Parcel) -> impl Future<Output = io::Result<Self::Served>> + Send;
}

/// Where connections come from.
pub trait Listen: Send + 'static {
    /// What is accepted.
    type Stream: Carried;
    /// Begins to take connections; those that come before are refused. Does nothing where it takes
    /// them from the beginning. Errs where another process has begun to listen at the address.
    fn open(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// The next connection, and the address of whoever made it.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Makes connections to one peer, again and again.
pub trait Dial: Send + 'static {
    /// What it makes.
    type Stream: Stream;
    /// Returns a new connection. A host name is resolved each time. Errs where the name can't be
    /// resolved within five seconds, or no address of it takes a connection within a second.
    fn dial(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// How a node reaches the addresses of its peers.
pub trait Network: Send + Sync + 'static {
    /// What makes the connections to one of them.
    type Dial: Dial;
    /// Returns the way to `address`, which is `HOST:PORT` as the configuration or the log has it.
    /// Dials nothing and resolves nothing yet; errs where the text can't be dialled at all.
    fn dial(&self, address: &str) -> io::Result<Self::Dial>;
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    async fn accept(&mut self) -> io::Result<(Self::Stream, SocketAddr)> {
        Self::accept(self).await
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

impl Stream for TcpStream {}

impl Carried for TcpStream {
    type Parcel = std::net::TcpStream;
    type Served = Self;
    fn pack(self) -> io::Result<Self::Parcel> {
        // What is written was gathered before: waiting for more would only cost time.
        self.set_nodelay(true)?;
        self.into_std()
    }
    async fn unpack(parcel: Self::Parcel) -> io::Result<Self> {
        Self::from_std(parcel)
    }
}
