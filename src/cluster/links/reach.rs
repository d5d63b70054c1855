//! The way to a peer that may be in one of several places.
//!
//! Where it is, the log says. But a cluster may have been moved to other ports while it was stopped, and then the log isn't right
//! before the peer has said so itself, for which it has to be reached; while the configuration, which is right then, may be
//! an old one at any other time. So both are tried: the handshake tells whether whoever answers is the one that was meant.

use std::io;
use std::sync::Arc;

use crate::net::{Dial, Network};

/// Dials the addresses of one peer. One that can't be dialled is tried again like any other, and the link says why.
pub struct Reach<N> {
    network: Arc<N>,
    /// What the log says, and what else may be right.
    addresses: Vec<String>,
    /// Whose turn it is first, next time.
    turn: usize,
}

impl<N> Reach<N> {
    /// The way to `address`, or else to `elsewhere`.
    pub fn new(network: Arc<N>, address: &str, elsewhere: Option<&str>) -> Self {
        let elsewhere = elsewhere.filter(|other| *other != address);
        let addresses = [address].into_iter().chain(elsewhere).map(String::from).collect();
        Self { network, addresses, turn: 0 }
    }
}

impl<N: Network> Dial for Reach<N> {
    type Stream = <N::Dial as Dial>::Stream;

    async fn dial(&mut self) -> io::Result<Self::Stream> {
        let mut why = None;
        for _ in 0..self.addresses.len() {
            let at = self.turn;
            // Also if this one never answers, or is somebody else's: then the link gives up and dials again.
            self.turn = (at + 1) % self.addresses.len();
            let dialled = match self.network.dial(&self.addresses[at]) {
                Ok(mut dial) => dial.dial().await,
                Err(error) => Err(error),
            };
            match dialled {
                Ok(stream) => return Ok(stream),
                // What is said of the address that should be right tells people more.
                Err(error) if at == 0 => why = Some(error),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or_else(|| io::Error::other("there is no address")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Listen as _;
    use crate::net::pipes::Pipes;

    #[tokio::test]
    async fn a_peer_is_found_wherever_of_both_it_is_and_the_first_is_to_blame_if_it_is_nowhere() {
        let pipes = Pipes::default();
        let mut reach = Reach::new(Arc::new(pipes.clone()), "log", Some("file"));
        assert_eq!(reach.dial().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let mut at_file = pipes.listen("file");
        for _ in 0..3 {
            reach.dial().await.unwrap();
            at_file.accept().await.unwrap();
        }
        // Where both answer, and the handshake is for nothing at one, it is the other's turn.
        let mut at_log = pipes.listen("log");
        for _ in 0..2 {
            let (first, second) = (reach.dial().await.unwrap(), reach.dial().await.unwrap());
            at_log.accept().await.unwrap();
            at_file.accept().await.unwrap();
            drop((first, second));
        }
    }

    #[test]
    fn an_address_that_is_the_same_is_tried_once() {
        let addresses = |elsewhere| Reach::new(Arc::new(()), "log", elsewhere).addresses;
        assert_eq!(addresses(Some("log")), ["log"]);
        assert_eq!(addresses(None), ["log"]);
        assert_eq!(addresses(Some("file")), ["log", "file"]);
    }
}
