//! Who can own a partition: a node, in one of its lives.
//!
//! A node keeps its [`NodeId`] for as long as it belongs to the cluster. Its process may end and
//! start again, with its memory empty; so what is owned is owned by a [`Seat`], the node together
//! with the [`BootId`] of one process. Node 3 that crashed in boot 17 and came back in boot 18
//! finds its rows still naming (3, 17), and knows that it owns none of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a node, by which the log and the table know it: given when the node joins, never 0
/// and never again to another. Its name is what people call it, and is told from the number
/// everywhere: the node that is named `n3` may well have the number 117.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl From<u64> for NodeId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a node's process: another one after every start. Only equality means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u64);

impl BootId {
    /// No life at all: who is placed before it has started has lived none yet. No process draws it.
    pub const NEVER: Self = Self(0);
}

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
        write!(f, "node {} in boot {}", self.node, self.boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_tells_its_node_and_its_life() {
        let seat = Seat { node: NodeId(3), boot: BootId(17) };
        assert_eq!(seat.to_string(), "node 3 in boot 0000000000000011");
    }
}
