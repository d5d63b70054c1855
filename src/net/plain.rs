//! TCP in plain text between peers, on loopback addresses alone.
//!
//! A name is resolved at each dial, and has to lead to a loopback address then: other addresses of
//! it are passed over.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::names::{Names, Way, host_and_port, no_address};
use super::{Dial, Listen, Network};

/// The network that [`PlainDial`] and [`PlainListener`] make; addresses are `HOST:PORT`.
#[derive(Clone, Debug, Default)]
pub struct Plain(Names);

impl Plain {
    /// A network whose names are resolved by `names`.
    pub fn with(names: Names) -> Self {
        Self(names)
    }
}

impl Network for Plain {
    type Dial = PlainDial;
    fn dial(&self, address: &str) -> io::Result<PlainDial> {
        match address.parse() {
            Ok(address) => only_loopback(address, &format!("won't dial {address}"))?,
            Err(_) if host_and_port(address).is_none() => return Err(no_address(address)),
            Err(_) => {}
        }
        Ok(PlainDial { way: Way::to(&self.0, address), address: address.into() })
    }
}

/// TCP in plain text, to a loopback address.
#[derive(Debug)]
pub struct PlainDial {
    way: Way,
    address: String,
}

impl Dial for PlainDial {
    type Stream = TcpStream;
    async fn dial(&mut self) -> io::Result<TcpStream> {
        let name = &self.address;
        self.way.connect(|to| only_loopback(to, &format!("won't dial {name}, which is {to}"))).await
    }
}

/// TCP in plain text, on a loopback address.
#[derive(Debug)]
pub struct PlainListener(TcpListener);

impl PlainListener {
    /// Listens on `address`, port 0 for any; refused where that isn't a loopback address.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        only_loopback(address, &format!("won't listen on {address}"))?;
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

/// Errs, beginning with `refused`, where `address` is not a loopback address.
fn only_loopback(address: SocketAddr, refused: &str) -> io::Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let why = format!(
        "{refused}: peers talk in plain text, and that is for loopback addresses (127.0.0.0/8, \
         ::1) alone"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_text_is_for_loopback_addresses_alone() {
        for far in
            ["192.0.2.1:7171", "0.0.0.0:0", "[2001:db8::1]:7171", "[::]:0", "[::ffff:192.0.2.1]:1"]
        {
            let address: SocketAddr = far.parse().unwrap();
            let said = [
                Plain::default().dial(far).unwrap_err(),
                PlainListener::bind(address).await.unwrap_err(),
            ];
            for error in said {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert!(
                    error.to_string().contains(&format!("{far}: peers talk in plain text")),
                    "{error}"
                );
            }
        }
        for near in ["127.0.0.1:0", "127.8.8.8:0", "[::ffff:127.0.0.1]:0"] {
            assert!(Plain::default().dial(near).is_ok(), "{near}");
        }
        assert!(PlainListener::bind("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn a_name_is_dialled_where_it_leads_to_this_machine() {
        let listener = PlainListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = Names::by(|host, port| match host {
            "near" => Ok(vec![([192, 0, 2, 1], port).into(), ([127, 0, 0, 1], port).into()]),
            "far" => Ok(vec![([192, 0, 2, 1], port).into()]),
            _ => Err(io::Error::other("no such host")),
        });
        let plain = Plain::with(names);
        assert!(plain.dial(&format!("near:{port}")).unwrap().dial().await.is_ok());
        let error = plain.dial("far:1").unwrap().dial().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let why = "won't dial far:1, which is 192.0.2.1:1: peers talk in plain text";
        assert!(error.to_string().starts_with(why), "{error}");
        let error = plain.dial("nowhere:1").unwrap().dial().await.unwrap_err();
        assert_eq!(error.to_string(), "nowhere can't be resolved: no such host");
    }

    #[test]
    fn what_is_no_address_is_named_as_it_was_written() {
        for text in ["", "n2", "n2:0", ":7171", "127.0.0.1", "127.0.0.1:99999", "::1:7171"] {
            let error = Plain::default().dial(text).unwrap_err();
            let why = format!("{text:?} is not the address of a peer");
            assert!(error.to_string().starts_with(&why), "{error}");
        }
    }
}
