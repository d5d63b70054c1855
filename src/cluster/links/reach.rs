//! The way to a peer that may be in one of several places.
//!
//! ```text
//! log      where the committed membership has it: right unless it moved while it couldn't say so
//! file     where the configuration lists it: right where the cluster was moved while it was stopped, old at other times
//! itself   where it says that it is: it has a new address, and reached this node from there before the log has the address
//! others   where another member has it: this node was away while it moved
//! ```
//!
//! All are tried: the handshake tells whether the node that answers is the one that was meant, and
//! the log has the right address as soon as the peer is reached.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::check::Name;
use crate::net::{Dial, Network};

/// Where peers may be if they aren't where the log says. Clones are the same one.
#[derive(Clone, Default)]
pub struct Elsewhere(Arc<Mutex<BTreeMap<Name, Places>>>);

/// Where one peer may be; one address of each origin, so that what others say is bounded.
#[derive(Clone, Default)]
struct Places {
    by_the_file: Option<String>,
    by_itself: Option<String>,
    by_others: Option<String>,
}

impl Elsewhere {
    /// Takes note of the addresses in the configuration.
    pub fn list(&self, listed: BTreeMap<Name, String>) {
        let mut places = self.places();
        listed
            .into_iter()
            .for_each(|(peer, at)| places.entry(peer).or_default().by_the_file = Some(at));
    }

    /// Takes note of where a peer says that it is.
    pub fn said_by_itself(&self, peer: &Name, at: &str) {
        self.places().entry(peer.clone()).or_default().by_itself = Some(at.into());
    }

    /// Takes note of where another peer says that a peer is.
    pub fn said_by_another(&self, peer: &Name, at: &str) {
        self.places().entry(peer.clone()).or_default().by_others = Some(at.into());
    }

    /// Where a peer says that it is, if it has said so to this node.
    pub fn of(&self, peer: &Name) -> Option<String> {
        self.places().get(peer)?.by_itself.clone()
    }

    /// Forgets what was said of all but these.
    pub fn keep(&self, is_known: impl Fn(&Name) -> bool) {
        self.places().retain(|peer, places| {
            if !is_known(peer) {
                (places.by_itself, places.by_others) = (None, None);
            }
            places.by_the_file.is_some() || places.by_itself.is_some() || places.by_others.is_some()
        });
    }

    /// Every address of a peer, each once; first that of the log.
    fn addresses(&self, peer: &Name, log: &str) -> Vec<String> {
        let places = self.places().get(peer).cloned().unwrap_or_default();
        let mut addresses = vec![log.to_string()];
        for other in [places.by_the_file, places.by_itself, places.by_others].into_iter().flatten()
        {
            if !addresses.contains(&other) {
                addresses.push(other);
            }
        }
        addresses
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<Name, Places>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dials the addresses of one peer. One that can't be dialled is tried again like any other, and
/// the link says why.
pub struct Reach<N: Network> {
    network: Arc<N>,
    peer: Name,
    /// What the log says.
    address: String,
    elsewhere: Elsewhere,
    /// What dials each address: it knows which address of a name is next.
    dials: BTreeMap<String, N::Dial>,
    /// Whose turn it is first, next time.
    turn: usize,
}

impl<N: Network> Reach<N> {
    /// The way to `peer` at `address`, or wherever else it may be.
    pub fn new(network: Arc<N>, peer: &Name, address: &str, elsewhere: Elsewhere) -> Self {
        let (peer, address) = (peer.clone(), address.to_string());
        Self { network, peer, address, elsewhere, dials: BTreeMap::new(), turn: 0 }
    }

    async fn dial_at(&mut self, address: &str) -> io::Result<<N::Dial as Dial>::Stream> {
        if !self.dials.contains_key(address) {
            self.dials.insert(address.into(), self.network.dial(address)?);
        }
        match self.dials.get_mut(address) {
            Some(dial) => dial.dial().await,
            None => Err(io::Error::other("there is no way to it")),
        }
    }
}

impl<N: Network> Dial for Reach<N> {
    type Stream = <N::Dial as Dial>::Stream;

    async fn dial(&mut self) -> io::Result<Self::Stream> {
        let addresses = self.elsewhere.addresses(&self.peer, &self.address);
        self.dials.retain(|address, _| addresses.contains(address));
        let (first, mut why) = (self.turn, None);
        for step in 0..addresses.len() {
            let at = (first + step) % addresses.len();
            // Also if this one never answers, or is another node's: then the link gives up and
            // dials again.
            self.turn = (at + 1) % addresses.len();
            match self.dial_at(&addresses[at]).await {
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

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_peer_is_found_in_any_place_and_the_logs_is_to_blame_if_it_is_in_none() {
        let (pipes, elsewhere) = (Pipes::default(), Elsewhere::default());
        elsewhere.list([(name("n2"), "file".into())].into());
        let mut reach = Reach::new(Arc::new(pipes.clone()), &name("n2"), "log", elsewhere.clone());
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
        // What is said while the link is there counts from its next dial on.
        drop((at_log, at_file));
        elsewhere.said_by_itself(&name("n2"), "new");
        let mut at_new = pipes.listen("new");
        reach.dial().await.unwrap();
        at_new.accept().await.unwrap();
    }

    #[test]
    fn each_address_is_tried_once_and_one_of_each_origin() {
        let elsewhere = Elsewhere::default();
        let addresses = || elsewhere.addresses(&name("n2"), "log");
        assert_eq!(addresses(), ["log"]);
        elsewhere.list([(name("n2"), "log".into())].into());
        elsewhere.said_by_another(&name("n2"), "log");
        elsewhere.said_by_another(&name("n3"), "other");
        assert_eq!(addresses(), ["log"]);
        for at in ["first", "second"] {
            elsewhere.said_by_itself(&name("n2"), at);
            elsewhere.said_by_another(&name("n2"), "third");
        }
        assert_eq!(addresses(), ["log", "second", "third"]);
        elsewhere.keep(|peer| *peer == name("n3"));
        assert_eq!((addresses(), elsewhere.of(&name("n2"))), (vec!["log".to_string()], None));
    }
}
