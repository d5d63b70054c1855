//! Who there is to place partitions on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NodeId;

/// The most nodes that a plan is made for: sixteen partitions each.
pub const MEMBERS_MAX: usize = 256;
/// The heaviest that a node can be. Every unit costs the planner a hash for each partition.
pub const WEIGHT_MAX: u8 = 16;

/// How much of the load a node takes, beside the others: one of weight 2 owns twice what one of
/// weight 1 owns. From 0, which takes none, to [`WEIGHT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weight(u8);

impl Weight {
    /// That of a node that takes none of the load.
    pub const NONE: Self = Self(0);
    /// That of a node of which nothing else is said.
    pub const ONE: Self = Self(1);

    /// The weight `weight`; none above [`WEIGHT_MAX`].
    pub fn new(weight: u8) -> Option<Self> {
        (weight <= WEIGHT_MAX).then_some(Self(weight))
    }

    /// Its number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that is no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no weight: they go from 0 to {WEIGHT_MAX}")]
pub struct NoSuchWeight(pub u8);

impl TryFrom<u8> for Weight {
    type Error = NoSuchWeight;
    fn try_from(weight: u8) -> Result<Self, NoSuchWeight> {
        Self::new(weight).ok_or(NoSuchWeight(weight))
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

/// A node as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// Its weight.
    pub weight: Weight,
    /// Whether it may be given anything at all; a node that is being drained may not.
    pub may_own: bool,
}

impl Member {
    /// Whether there is anything for it: neither owner nor replica is a node that may not own, or
    /// has no weight.
    pub(super) fn is_eligible(&self) -> bool {
        self.may_own && self.weight > Weight::NONE
    }
}

/// Why members are no cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// One node, listed twice.
    #[error("node {id} is listed twice")]
    Twice {
        /// The node.
        id: NodeId,
    },
    /// More than a plan is made for.
    #[error("more than {MEMBERS_MAX} nodes")]
    TooMany,
}

/// The nodes of a cluster, each once, in the order of their ids: however they were learned of, the
/// plan is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(BTreeMap<NodeId, Member>);

impl Members {
    /// These nodes. Fails if one is listed twice, or if there are more than [`MEMBERS_MAX`].
    pub fn new(members: impl IntoIterator<Item = Member>) -> Result<Self, MembersError> {
        let mut known = BTreeMap::new();
        for member in members {
            if known.insert(member.id, member).is_some() {
                return Err(MembersError::Twice { id: member.id });
            }
            if known.len() > MEMBERS_MAX {
                return Err(MembersError::TooMany);
            }
        }
        Ok(Self(known))
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), weight: Weight::ONE, may_own: true }
    }

    #[test]
    fn a_node_is_listed_once() {
        let id = NodeId(2);
        assert_eq!(Members::new([1, 2, 2].map(member)), Err(MembersError::Twice { id }));
    }

    #[test]
    fn there_are_no_more_than_256_nodes() {
        assert!(Members::new((1..=256).map(member)).is_ok());
        assert_eq!(Members::new((1..=257).map(member)), Err(MembersError::TooMany));
    }

    #[test]
    fn a_weight_is_at_most_16() {
        assert_eq!(Weight::new(16).map(Weight::get), Some(16));
        assert_eq!(Weight::new(17), None);
        assert!(serde_json::from_str::<Weight>("17").is_err());
    }
}
