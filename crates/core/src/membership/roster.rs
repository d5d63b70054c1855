//! What Raft's own records say: who gets the log, who votes, and how well each keeps up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::placement::NodeId;

/// Whom a number stands for, and how that node is reached: what Raft's own records say of each, so
/// that a node which has nothing but those knows whom to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Address {
    /// Its name; empty in openraft's own placeholder.
    pub name: String,
    /// Where other nodes reach it.
    pub peer: String,
}

impl Address {
    /// That of the node `name`, reached at `peer`.
    pub fn new(name: impl Into<String>, peer: impl Into<String>) -> Self {
        Self { name: name.into(), peer: peer.into() }
    }
}

/// Raft's own records, as far as this node has them in its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Who gets the log.
    pub nodes: BTreeMap<NodeId, Address>,
    /// Who votes; of a joint configuration, in the old part of it or in the new.
    pub voters: BTreeSet<NodeId>,
    /// A change of voters is half done.
    pub is_joint: bool,
    /// A majority has it, so that it may be changed again.
    pub is_settled: bool,
}

/// How well a node keeps up with the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// Entries that it lacks, as far as the leader knows.
    pub behind: u64,
    /// How long ago it last answered; none if it never did.
    pub silent: Option<Duration>,
}
