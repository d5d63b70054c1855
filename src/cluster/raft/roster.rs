//! Who gets the log and who of them votes: what Raft's own records say, and how they are changed.
//!
//! A change of voters goes through a joint configuration, in which a majority of the old voters and
//! one of the new have to agree. It is two entries; a leader that is lost between them leaves the
//! cluster in the joint one, which works and needs more nodes than either. [`Roster::is_joint`]
//! says so, and [`Node::finish_change`] ends it.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver as _;
use openraft::{ChangeMembers, Instant as _};

use super::node::Node;
use super::types::Address;
use crate::placement::NodeId;

pub use crate::cluster::membership::{Following, Roster};

impl Node {
    /// Raft's own records.
    pub fn roster(&self) -> Roster {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let membership = stored.membership();
        Roster {
            nodes: membership.nodes().map(|(id, address)| (*id, address.clone())).collect(),
            voters: membership.voter_ids().collect(),
            is_joint: membership.get_joint_config().len() > 1,
            is_settled: stored.log_id() == metrics.committed_membership_config.log_id(),
        }
    }

    /// How well the others keep up; empty unless this node leads.
    pub fn following(&self) -> BTreeMap<NodeId, Following> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let heard = |node: &NodeId| metrics.heartbeat.as_ref()?.get(node)?.as_ref();
        let replication =
            metrics.replication.iter().flatten().filter(|(node, _)| **node != self.id());
        let following = replication.map(|(node, matched)| {
            let behind =
                matched.as_ref().map_or(last + 1, |matched| last.saturating_sub(matched.index));
            (*node, Following { behind, silent: heard(node).map(|at| at.elapsed()) })
        });
        following.collect()
    }

    /// Who gets the log, and who of them votes.
    pub fn members(&self) -> BTreeMap<NodeId, bool> {
        let Roster { nodes, voters, .. } = self.roster();
        nodes.into_keys().map(|id| (id, voters.contains(&id))).collect()
    }

    /// Sends the log to those of `nodes` that don't get it yet. Only a leader can; it doesn't wait
    /// until they have it.
    pub async fn add_learners(&self, nodes: &[(NodeId, Address)]) -> Result<(), String> {
        let known = self.roster().nodes;
        for (node, address) in nodes.iter().filter(|(node, _)| !known.contains_key(node)) {
            self.raft()
                .add_learner(*node, address.clone(), false)
                .await
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Notes where a node is reached now: whoever begins without any other knowledge looks for it
    /// there.
    pub async fn note_address(&self, node: NodeId, address: Address) -> Result<(), String> {
        self.change(ChangeMembers::SetNodes([(node, address)].into())).await
    }

    /// Makes `voters` the voters, all at once; those who were and aren't go on as learners. Only a
    /// leader can.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), String> {
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Ends a change of voters that another leader has begun. Only a leader can.
    pub async fn finish_change(&self) -> Result<(), String> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    /// Stops sending the log to `nodes`, which are no voters (any more). Only a leader can.
    pub async fn forget(&self, nodes: BTreeSet<NodeId>) -> Result<(), String> {
        self.change(ChangeMembers::RemoveNodes(nodes)).await
    }

    async fn change(&self, change: ChangeMembers<NodeId, Address>) -> Result<(), String> {
        self.raft().change_membership(change, true).await.map(drop).map_err(|e| e.to_string())
    }
}
