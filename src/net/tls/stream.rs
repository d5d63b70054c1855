//! Streams under TLS: taken as plain TCP on the runtime that accepts, with the handshake where they
//! are served.
//!
//! A handshake costs a signature or two and several round trips, and whoever dials may take his
//! time with it. So nobody but the connection itself waits for it; whoever serves that bounds it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Certified, Tls};
use crate::net::names::{Names, Way};
use crate::net::{Carried, Dial, Listen, Network, Stream};

/// How long the handshake of a connection that was dialled may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(1);

/// Who is expected to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Nodes, who show a certificate.
    Peers,
    /// Anybody.
    Clients,
}

/// TCP on which TLS is to be spoken.
#[derive(Debug)]
pub struct TlsListener<L = TcpListener> {
    tcp: L,
    tls: Tls,
    from: From,
}

impl<L> TlsListener<L> {
    pub(super) fn of_peers(tcp: L, tls: Tls) -> Self {
        Self { tcp, tls, from: From::Peers }
    }

    pub(super) fn of_clients(tcp: L, tls: Tls) -> Self {
        Self { tcp, tls, from: From::Clients }
    }
}

impl<L: Listen<Stream = TcpStream>> Listen for TlsListener<L> {
    type Stream = Accepted;
    fn open(&mut self) -> io::Result<()> {
        self.tcp.open()
    }
    async fn accept(&mut self) -> io::Result<(Accepted, SocketAddr)> {
        let (tcp, address) = self.tcp.accept().await?;
        Ok((Accepted { tcp, tls: self.tls.clone(), from: self.from }, address))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A connection that was taken, before its handshake.
pub struct Accepted<T = TcpStream> {
    tcp: T,
    tls: Tls,
    from: From,
}

impl Carried for Accepted {
    type Parcel = Accepted<std::net::TcpStream>;
    type Served = TlsStream;
    fn pack(self) -> io::Result<Self::Parcel> {
        Ok(Accepted { tcp: self.tcp.pack()?, tls: self.tls, from: self.from })
    }
    async fn unpack(parcel: Self::Parcel) -> io::Result<TlsStream> {
        let Accepted { tcp, tls, from } = parcel;
        let (tcp, material) = (TcpStream::unpack(tcp).await?, tls.material());
        let accept = |config| TlsAcceptor::from(config).accept(tcp);
        match from {
            From::Clients => Ok(TlsStream::of_client(accept(material.door.clone()).await?.into())),
            From::Peers => TlsStream::of_peer(accept(material.accept.clone()).await?.into()),
        }
    }
}

/// Peers under TLS; an address is `HOST:PORT`.
#[derive(Clone, Debug)]
pub struct TlsNetwork {
    tls: Tls,
    names: Names,
}

impl TlsNetwork {
    pub(super) fn new(tls: Tls) -> Self {
        Self { tls, names: Names::default() }
    }
}

impl Network for TlsNetwork {
    type Dial = TlsDial;
    fn dial(&self, address: &str) -> io::Result<TlsDial> {
        Ok(TlsDial { tls: self.tls.clone(), way: Way::to(&self.names, address) })
    }
}

/// TCP under TLS, to one peer.
#[derive(Debug)]
pub struct TlsDial {
    tls: Tls,
    way: Way,
}

impl Dial for TlsDial {
    type Stream = TlsStream;
    async fn dial(&mut self) -> io::Result<TlsStream> {
        let tcp = self.way.connect(|_| Ok(())).await?;
        // The name is not compared: a peer is who the URI in its certificate says.
        let nameless = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let connector = TlsConnector::from(self.tls.material().dial.clone());
        let greeting = tokio::time::timeout(HANDSHAKE_MAX, connector.connect(nameless, tcp)).await;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake within 1s");
        TlsStream::of_peer(greeting.map_err(late)?.map_err(explained)?.into())
    }
}

/// The error of a handshake, and what to do about it where the other end speaks no TLS: it then
/// closes the connection, or answers with bytes that are no TLS.
fn explained(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let is_foreign = matches!(cause, Some(rustls::Error::InvalidMessage(_)));
    if error.kind() != io::ErrorKind::UnexpectedEof && !is_foreign {
        return error;
    }
    let why = format!(
        "this cluster uses TLS, and the node there does not answer with TLS ({error}): start it \
         with a configuration (--config) that has [tls], and a certificate that the cluster's \
         authority has signed"
    );
    io::Error::new(error.kind(), why)
}

/// A stream under TLS, at either end.
#[derive(Debug)]
pub struct TlsStream {
    stream: tokio_rustls::TlsStream<TcpStream>,
    certified: Option<Certified>,
}

impl TlsStream {
    fn of_client(stream: tokio_rustls::TlsStream<TcpStream>) -> Self {
        Self { stream, certified: None }
    }

    /// Fails where the peer's certificate, which its authority has signed, is no node's.
    fn of_peer(stream: tokio_rustls::TlsStream<TcpStream>) -> io::Result<Self> {
        let refused = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = shown.ok_or_else(|| refused("the peer has shown no certificate".into()))?;
        match Certified::of(shown) {
            Ok(certified) => Ok(Self { certified: Some(certified), stream }),
            Err(why) => Err(refused(format!("the peer's certificate {why}"))),
        }
    }
}

impl Stream for TlsStream {
    fn certified(&self) -> Option<&Certified> {
        self.certified.as_ref()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
