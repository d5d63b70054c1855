//! A TCP address that a process holds before it listens there.
//!
//! A node takes its address first, so that a port in use is told before its log is opened, and
//! listens last, when each connection is answered at once. Until then connections are refused, and
//! a balancer goes elsewhere, where an open connection would wait for the start to end.
//!
//! On Linux a bind fails where another socket listens, and `listen` where one has begun to since.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::Listen;

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1_024;

/// See the module.
#[derive(Debug)]
pub struct Bound(State);

#[derive(Debug)]
enum State {
    /// Taken, and not listened on.
    Taken(TcpSocket),
    Listening(TcpListener),
    /// `listen` has failed.
    Failed,
}

impl Bound {
    /// Takes `address`, port 0 for any. Errs where it can't be had, such as where another process
    /// listens there.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A node that is started again finds the connections of its predecessor in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(State::Taken(socket)))
    }
}

impl Listen for Bound {
    type Stream = TcpStream;

    fn open(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.0, State::Failed) {
            State::Taken(socket) => self.0 = State::Listening(socket.listen(BACKLOG)?),
            listening => self.0 = listening,
        }
        Ok(())
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.open()?;
        match &mut self.0 {
            State::Listening(listener) => listener.accept().await,
            State::Taken(_) | State::Failed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            State::Taken(socket) => socket.local_addr(),
            State::Listening(listener) => listener.local_addr(),
            State::Failed => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_taken_at_once_and_takes_connections_once_it_is_open() {
        let mut bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.local_addr().unwrap();
        let early = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::ConnectionRefused);
        bound.open().unwrap();
        let (accepted, dialled) = tokio::join!(bound.accept(), TcpStream::connect(address));
        assert_eq!(accepted.unwrap().1, dialled.unwrap().local_addr().unwrap());
        let other = Bound::bind(address).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn of_two_that_have_taken_one_port_the_second_to_open_it_fails() {
        let mut first = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut second = Bound::bind(first.local_addr().unwrap()).unwrap();
        first.open().unwrap();
        assert_eq!(second.open().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(second.accept().await.is_err());
    }
}
