//! TCP in plain text between peers, on loopback addresses alone.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::{Dial, Listen, Network};

/// The network that [`PlainDial`] and [`PlainListener`] make; addresses are `IP:PORT`.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Network for Plain {
    type Dial = PlainDial;
    fn dial(&self, address: &str) -> io::Result<PlainDial> {
        let not_one = |_| {
            let why = format!("{address:?} is no address of a peer: it has to be an IP address and a port");
            io::Error::new(io::ErrorKind::InvalidInput, why)
        };
        PlainDial::to(address.parse().map_err(not_one)?)
    }
}

/// TCP in plain text, to a loopback address.
#[derive(Clone, Copy, Debug)]
pub struct PlainDial(SocketAddr);

impl PlainDial {
    /// Connections to `address`; refused where that isn't a loopback address.
    pub fn to(address: SocketAddr) -> io::Result<Self> {
        only_loopback(address, "dial")?;
        Ok(Self(address))
    }
}

impl Dial for PlainDial {
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
}

impl Listen for PlainListener {
    type Stream = TcpStream;
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
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
            let address: SocketAddr = far.parse().unwrap();
            let said = [Plain.dial(far).unwrap_err(), PlainListener::bind(address).await.unwrap_err()];
            for error in said {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert!(error.to_string().contains(&format!("{far}: peers talk in plain text")), "{error}");
            }
        }
        for near in ["127.0.0.1:0", "127.8.8.8:0", "[::ffff:127.0.0.1]:0"] {
            assert!(Plain.dial(near).is_ok(), "{near}");
        }
        assert!(PlainListener::bind("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }

    #[test]
    fn what_is_no_address_is_named_as_it_was_written() {
        for text in ["", "n2", "localhost:7171", "127.0.0.1", "127.0.0.1:99999"] {
            let error = Plain.dial(text).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?} is no address of a peer")), "{error}");
        }
    }
}
