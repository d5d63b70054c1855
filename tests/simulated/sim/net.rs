//! A simulated network under the seam that real nodes use: turmoil's streams, carried nowhere since
//! all runs on one thread.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate::net::{Carried, Dial, Listen, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a host is given to take a connection.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// The network. An address is `HOST:PORT`.
#[derive(Clone, Copy)]
pub struct Simulated;

pub struct SimulatedDial(String);

pub struct SimulatedListener(turmoil::net::TcpListener);

pub struct SimulatedStream(pub turmoil::net::TcpStream);

impl Network for Simulated {
    type Dial = SimulatedDial;
    fn dial(&self, address: &str) -> io::Result<SimulatedDial> {
        Ok(SimulatedDial(address.into()))
    }
}

impl Dial for SimulatedDial {
    type Stream = SimulatedStream;
    async fn dial(&mut self) -> io::Result<SimulatedStream> {
        // What a partition swallows is given up as a socket of the system is, and dialled again.
        let dialled =
            tokio::time::timeout(CONNECT_MAX, turmoil::net::TcpStream::connect(self.0.as_str()));
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        dialled.await.map_err(late)?.map(SimulatedStream)
    }
}

impl SimulatedListener {
    /// Listens on `port` of the simulated host that calls.
    pub async fn bind(port: u16) -> io::Result<Self> {
        turmoil::net::TcpListener::bind(("0.0.0.0", port)).await.map(Self)
    }
}

impl Listen for SimulatedListener {
    type Stream = SimulatedStream;
    async fn accept(&mut self) -> io::Result<(SimulatedStream, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((SimulatedStream(stream), from))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Stream for SimulatedStream {}

impl Carried for SimulatedStream {
    type Parcel = Self;
    type Served = Self;
    fn pack(self) -> io::Result<Self> {
        Ok(self)
    }
    async fn unpack(parcel: Self) -> io::Result<Self> {
        Ok(parcel)
    }
}

impl AsyncRead for SimulatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimulatedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
