//! Which node a certificate is for.
//!
//! A certificate names its node in a URI among its subject alternative names:
//!
//! ```text
//! urn:tidegate:node:demo:n2     the node n2 of the cluster demo
//! ```
//!
//! A URI rather than a DNS name: ids and names of clusters may hold dots, underscores and capitals,
//! which as a DNS name could be read in two ways. Addresses, and any other names in a certificate,
//! say nothing about who its holder is among peers.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::check::Name;

/// With what the URI of a node begins.
const PREFIX: &str = "urn:tidegate:node:";

/// Who holds a certificate, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The cluster.
    pub cluster: Name,
    /// The node in it.
    pub node: Name,
}

/// Why a certificate is no node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCertified {
    /// It can't be read.
    #[error("is not a certificate that can be read")]
    Unreadable,
    /// Nothing in it is the name of a node.
    #[error("names no node: it has no subject alternative name such as URI:{PREFIX}demo:n1")]
    NoNode,
    /// The URI is that of a node, and what follows is none.
    #[error("names a node that can't be: {PREFIX} goes on with a cluster, a colon and a node's id")]
    Malformed,
    /// It is for several: whoever holds it could be any of them.
    #[error("names more than one node")]
    SeveralNodes,
}

impl Certified {
    /// Reads a certificate in DER. Whether anybody should believe it is another question.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NotCertified> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| NotCertified::Unreadable)?;
        let names = certificate.subject_alternative_name().map_err(|_| NotCertified::Unreadable)?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let uris = names.filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(PREFIX) => Some(*uri),
            _ => None,
        });
        let mut nodes = uris.map(|uri| Self::from_uri(uri).ok_or(NotCertified::Malformed));
        match (nodes.next(), nodes.next()) {
            (None, _) => Err(NotCertified::NoNode),
            (Some(node), None) => node,
            (Some(_), Some(_)) => Err(NotCertified::SeveralNodes),
        }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (cluster, node) = uri.strip_prefix(PREFIX)?.split_once(':')?;
        Some(Self { cluster: Name::new(cluster)?, node: Name::new(node)? })
    }
}

/// The URI.
impl fmt::Display for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:{}", self.cluster, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certified(cluster: &str, node: &str) -> Certified {
        Certified { cluster: Name::new(cluster).unwrap(), node: Name::new(node).unwrap() }
    }

    fn of(uris: &[&str]) -> Result<Certified, NotCertified> {
        let mut params = CertificateParams::new(vec!["n9.demo".into()]).unwrap();
        params
            .subject_alt_names
            .extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        Certified::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn a_certificate_is_for_the_one_node_that_its_uri_names() {
        assert_eq!(of(&["urn:tidegate:node:demo:n2"]), Ok(certified("demo", "n2")));
        assert_eq!(
            of(&["https://n3.example", "urn:tidegate:node:De.mo_1:N.2"]),
            Ok(certified("De.mo_1", "N.2"))
        );
        assert_eq!(certified("demo", "n2").to_string(), "urn:tidegate:node:demo:n2");
    }

    #[test]
    fn a_certificate_for_nobody_or_for_several_or_for_what_is_no_name_is_no_nodes() {
        assert_eq!(of(&[]), Err(NotCertified::NoNode));
        assert_eq!(
            of(&["URN:tidegate:node:demo:n2", "urn:tidegate:demo:n2"]),
            Err(NotCertified::NoNode)
        );
        let two = ["urn:tidegate:node:demo:n2", "urn:tidegate:node:demo:n3"];
        assert_eq!(of(&two), Err(NotCertified::SeveralNodes));
        let long = format!("urn:tidegate:node:demo:{}", "n".repeat(65));
        for bad in ["demo", "demo:", ":n2", "demo:n2:n3", "demo:n/2", "demo:n2\n"] {
            assert_eq!(
                of(&[&format!("urn:tidegate:node:{bad}")]),
                Err(NotCertified::Malformed),
                "{bad:?}"
            );
        }
        assert_eq!(of(&[&long]), Err(NotCertified::Malformed));
        assert_eq!(
            Certified::of(&CertificateDer::from_slice(b"\x30\x03nonsense")),
            Err(NotCertified::Unreadable)
        );
    }
}
