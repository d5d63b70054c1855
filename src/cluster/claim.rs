//! Whose a node's data is: written down before anything else, and read before the log.
//!
//! A node is who its data says it is, not who a file says. At the first start of a cluster the
//! numbers follow the list of the configuration; a node that was admitted later brings its number
//! along. From then on the number stands here:
//!
//! ```text
//! n2 of demo, node 2              the second of the list, at the first start
//! n4 of demo, node 57             admitted by the log's entry 57, with what it was given to begin with
//! ```
//!
//! So the list may be put in another order afterwards, or name other nodes: who begins with this
//! data is still node 2. And the data of one node is not taken for another's: the number, the name
//! and the cluster's name have to be the same.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::Name;
use crate::peer::{Key, Lineage};
use crate::placement::{FormatLevel, NodeId};

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its number, never given to another.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// The name of its cluster.
    pub cluster: Name,
    /// What it was given as it was admitted; none for one that was there from the beginning.
    pub admission: Option<Admission>,
}

/// What a cluster gives a node that it admits: enough to be found, to find the others, and to know
/// who may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Which of the policy's environments the cluster runs in.
    pub environment: Name,
    /// The members at that time, the new one among them.
    pub members: Vec<Acquaintance>,
    /// Who may do what; empty where anybody may do everything.
    pub tokens: Vec<TokenDigest>,
}

/// Another member, as far as it takes to speak with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquaintance {
    /// Its number.
    pub number: NodeId,
    /// Its name.
    pub name: Name,
    /// Where other nodes reach it.
    pub peer: String,
}

/// A token by which nobody gets in who doesn't have it already.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDigest {
    /// By which logs and the audit know it.
    pub name: String,
    /// The word for what it may do.
    pub role: String,
    /// The SHA-256 of the secret.
    pub sha256: [u8; 32],
}

/// Without the digest: a weak secret could be guessed from it.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({}, {})", self.name, self.role)
    }
}

impl Claim {
    /// That of a node that is there from the beginning.
    pub fn first(node: NodeId, name: Name, cluster: Name) -> Self {
        Self { node, name, cluster, admission: None }
    }

    /// Whether it is the same node, whatever it was given.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.node, &self.name, &self.cluster) == (other.node, &other.name, &other.cluster)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, name, cluster, .. } = self;
        write!(f, "{name} of the cluster {cluster} (node {node})")
    }
}

/// What the door of a cluster answers to a node that it admits.
#[derive(Clone, Deserialize)]
pub struct Admitted {
    id: Name,
    number: u64,
    cluster: Name,
    environment: Name,
    members: Vec<Known>,
    tokens: Vec<Digest>,
    /// Absent where the cluster's program is older.
    #[serde(default)]
    round_trip_ms: Option<u64>,
    /// The keys by which the members know each other; an earlier program doesn't say any.
    #[serde(default)]
    peer_keys: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Known {
    id: Name,
    number: u64,
    peer: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Digest {
    name: String,
    role: String,
    sha256: String,
}

/// A token can't be understood. It must not be left out: without any, everybody may do everything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the cluster says of the token {0} can't be understood")]
pub struct StrangeToken(pub String);

/// A key of the peers can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the cluster says of the keys of its peers can't be understood")]
pub struct StrangeKey;

impl Admitted {
    /// The round trip that the cluster's log says, in milliseconds.
    pub fn round_trip_ms(&self) -> Option<u64> {
        self.round_trip_ms
    }

    /// The keys by which the members know each other; none from a node of an earlier program, and
    /// no key from a cluster that has no secret, or that gives it to no node.
    pub fn peer_keys(&self) -> Result<Option<Vec<Key>>, StrangeKey> {
        let read = |keys: &Vec<String>| {
            keys.iter().map(|hex| bytes(hex).map(Key::new).ok_or(StrangeKey)).collect()
        };
        self.peer_keys.as_ref().map(read).transpose()
    }

    /// The claim of the node that was admitted.
    pub fn claim(self) -> Result<Claim, StrangeToken> {
        let known = |known: Known| Acquaintance {
            number: NodeId(known.number),
            name: known.id,
            peer: known.peer.unwrap_or_default(),
        };
        let digest = |Digest { name, role, sha256 }: Digest| match bytes(&sha256) {
            Some(sha256) => Ok(TokenDigest { name, role, sha256 }),
            None => Err(StrangeToken(name)),
        };
        let admission = Admission {
            environment: self.environment,
            members: self.members.into_iter().map(known).collect(),
            tokens: self.tokens.into_iter().map(digest).collect::<Result<_, _>>()?,
        };
        let (node, name, cluster) = (NodeId(self.number), self.id, self.cluster);
        Ok(Claim { node, name, cluster, admission: Some(admission) })
    }
}

/// 32 bytes in hexadecimal.
pub(super) fn bytes(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 {
        return None;
    }
    let digit = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    let bytes: Option<Vec<_>> = hex.as_bytes().chunks(2).map(digit).collect();
    bytes?.try_into().ok()
}

/// What is found where a node is about to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose it is.
    pub claim: Claim,
    /// Nothing was ever written to its log: it never voted, and nobody counts on what it knows.
    pub is_blank: bool,
    /// The node has left its cluster. Its number is spent.
    pub has_left: bool,
    /// Which cluster of the name it is: it may have been made anew.
    pub lineage: Lineage,
    /// The round trip that the log says, in milliseconds; none before this node has heard of one.
    pub round_trip_ms: Option<u64>,
    /// The format level of what was written.
    pub level: FormatLevel,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_shown_with_all_that_tells_it_from_another_and_no_digest() {
        let name = |text| Name::new(text).unwrap();
        let claim = Claim::first(NodeId(2), name("n2"), name("demo"));
        assert_eq!(claim.to_string(), "n2 of the cluster demo (node 2)");
        let token = TokenDigest { name: "ops".into(), role: "admin".into(), sha256: [0xab; 32] };
        assert_eq!(format!("{token:?}"), "TokenDigest(ops, admin)");
        let admission =
            Admission { environment: name("production"), members: vec![], tokens: vec![token] };
        let admitted = Claim { admission: Some(admission), ..claim.clone() };
        assert!(admitted.is_of(&claim) && admitted != claim);
        for other in [
            Claim { node: NodeId(3), ..claim.clone() },
            Claim { name: name("n3"), ..claim.clone() },
            Claim { cluster: name("prod"), ..claim.clone() },
        ] {
            assert!(!other.is_of(&claim), "{other}");
        }
    }
}
