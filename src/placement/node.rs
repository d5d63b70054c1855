//! Who can own a partition: a node, in one of its lives.
//!
//! A node keeps its [`NodeId`] for as long as it belongs to the cluster. Its process may end and start again, with its memory
//! empty; so what is owned is owned by a [`Seat`], the node together with the [`BootId`] of one process. Node 3 that crashed
//! in boot 17 and came back in boot 18 finds its rows still naming (3, 17), and knows that it owns none of them.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// The number of a node: taken from the log when the node joins, never 0 and never used again.
///
/// It is shown as `n3`, for people who read logs. That is not the node's name: names are what `cluster.toml` calls the
/// nodes, they live in the membership, and the node that is named `n3` there may well have the number 117.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// Node number `number`; none for 0.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One life of a node's process: another one after every start. Only equality means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u64);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who owns: a node in one life of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// The life.
    pub boot: BootId,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in boot {}", self.node, self.boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_the_number_nought() {
        assert_eq!(NodeId::new(0), None);
        assert!(serde_json::from_str::<NodeId>("0").is_err());
        assert_eq!(serde_json::from_str::<NodeId>("3").unwrap(), NodeId::new(3).unwrap());
    }

    #[test]
    fn a_seat_tells_its_node_and_its_life() {
        let seat = Seat { node: NodeId::new(3).unwrap(), boot: BootId(17) };
        assert_eq!(seat.to_string(), "n3 in boot 0000000000000011");
    }
}
