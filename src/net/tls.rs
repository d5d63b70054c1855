//! TLS: between peers, who prove to each other who they are, and at the door, where the node alone
//! does.
//!
//! ```text
//! n1 dials n2      TLS 1.3, both show a certificate that the cluster's authority has signed
//!                  n2's says urn:tidegate:node:demo:n2, and n1's the same of n1
//! n1 -> n2         Hello, I am n1 of demo: n2 compares it with what the certificate says, and n1 likewise
//! a client dials   TLS 1.3 or 1.2, HTTP/2 or HTTP/1.1; only the node shows a certificate, the client has a token
//! ```
//!
//! A chain that leads to the authority says that somebody may take part; who that is, [`Certified`]
//! says. The streams carry it with them, and `peer` compares it with the greeting. Between peers
//! nothing is resumed: each connection proves all of it anew.
//!
//! [`Trusted`] is whose signatures are believed, [`Own`] a certificate with its key, and
//! [`Material`] what is made of them. A [`Tls`] holds the material that is in force; another may
//! take its place while the node runs, for the connections from then on. [`Authority`] makes
//! certificates where nobody else does.
//!
//! The provider of cryptography is ring. Certificates are judged by the machine's wall clock, since
//! their makers went by one.

mod authority;
mod certified;
mod material;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};

use super::Listen;

pub use authority::{Authority, AuthorityError, CA_DAYS, Issued, NODE_DAYS};
pub use certified::{Certified, NotCertified};
pub use material::{Chain, Expiries, Material, Own, PrivateKey, TlsError, Trusted, provider};
pub use stream::{Accepted, TlsDial, TlsListener, TlsNetwork, TlsStream};

/// The material in force. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ArcSwap<Material>>);

impl Tls {
    /// Begins with `material`.
    pub fn new(material: Material) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(material)))
    }

    /// Puts other material in force. Connections that are there stay as they are.
    pub fn replace(&self, material: Material) {
        self.0.store(Arc::new(material));
    }

    /// When the certificates in force expire.
    pub fn expiries(&self) -> Expiries {
        self.material().expiries
    }

    /// The way to peers.
    pub fn network(&self) -> TlsNetwork {
        TlsNetwork::new(self.clone())
    }

    /// Where peers come from.
    pub fn peers(&self, listener: TcpListener) -> TlsListener {
        TlsListener::of_peers(listener, self.clone())
    }

    /// Where clients come from.
    pub fn door<L: Listen<Stream = TcpStream>>(&self, listener: L) -> TlsListener<L> {
        TlsListener::of_clients(listener, self.clone())
    }

    fn material(&self) -> Arc<Material> {
        self.0.load_full()
    }
}
