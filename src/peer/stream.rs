//! Where streams come from: sockets, a simulated network, a pipe in a test.
//!
//! [`Dial`] makes connections and [`Listen`] takes them; what they give is anything that reads and writes. [`Plain`] is TCP
//! without encryption. It knows loopback addresses alone: between machines, a check would show who is whose tenant to
//! everybody on the way, and anybody could pass for a peer.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// What frames travel on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Makes connections to one peer.
pub trait Dial: Send + 'static {
    /// What it makes.
    type Stream: Stream;
    /// A new connection. It need not watch the time: whoever calls does.
    fn dial(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Takes connections.
pub trait Listen: Send + 'static {
    /// What it takes.
    type Stream: Stream;
    /// The next connection, and where it comes from.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// TCP in plain text, to a loopback address.
#[derive(Clone, Copy, Debug)]
pub struct Plain(SocketAddr);

impl Plain {
    /// Connections to `address`; refused where that isn't a loopback address.
    pub fn to(address: SocketAddr) -> io::Result<Self> {
        only_loopback(address, "dial")?;
        Ok(Self(address))
    }
}

impl Dial for Plain {
    type Stream = TcpStream;
    async fn dial(&mut self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.0).await?;
        // Frames are gathered before they are written: waiting for more would only cost time.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// TCP in plain text, on a loopback address.
#[derive(Debug)]
pub struct PlainListener(TcpListener);

impl PlainListener {
    /// Listens on `address`, port 0 for any; refused where that isn't a loopback address.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        only_loopback(address, "listen on")?;
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Listen for PlainListener {
    type Stream = TcpStream;
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, from))
    }
}

fn only_loopback(address: SocketAddr, what: &str) -> io::Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let why = format!(
        "won't {what} {address}: peers talk in plain text, and that is for loopback addresses (127.0.0.0/8, ::1) alone"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_text_is_for_loopback_addresses_alone() {
        for far in ["192.0.2.1:7171", "0.0.0.0:0", "[2001:db8::1]:7171", "[::]:0", "[::ffff:192.0.2.1]:1"] {
            let far: SocketAddr = far.parse().unwrap();
            let said = [Plain::to(far).unwrap_err(), PlainListener::bind(far).await.unwrap_err()];
            for error in said {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert!(error.to_string().contains(&format!("{far}: peers talk in plain text")), "{error}");
            }
        }
        for near in ["127.0.0.1:0", "127.8.8.8:0", "[::ffff:127.0.0.1]:0"] {
            assert!(Plain::to(near.parse().unwrap()).is_ok(), "{near}");
        }
        assert!(PlainListener::bind("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }
}
