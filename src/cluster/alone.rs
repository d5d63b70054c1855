//! A node that is its whole cluster: it leads, it is its own majority, and every partition is its own.

use std::sync::Arc;

use super::{BreakerStatus, ClusterStatus, Looking, Membership, NodeState, NodeStatus, Readiness};
use crate::check::Name;
use crate::placement::PARTITIONS;
use crate::shard::PolicyCell;

/// See the module.
pub struct Alone {
    /// The cluster's name.
    pub name: Name,
    /// The node's.
    pub node: Name,
    /// Where its door is.
    pub http: String,
    /// The policy in force.
    pub policy: Arc<PolicyCell>,
}

impl Membership for Alone {
    fn status(&self) -> Looking<'_> {
        let version = self.policy.load().version();
        // Nobody elects it and nothing is logged: it has neither a term nor an entry.
        let status = ClusterStatus {
            name: self.name.clone(),
            node: self.node.clone(),
            leader: Some(self.node.clone()),
            term: 0,
            applied: 0,
            contact_ms: Some(0),
            quorum: true,
            policy_version: version,
            placement_version: None,
            nodes: vec![NodeStatus {
                id: self.node.clone(),
                number: 1,
                http: self.http.clone(),
                peer: String::new(),
                state: NodeState::Up,
                voter: true,
                leader: true,
                boot: None,
                partitions: usize::from(PARTITIONS),
                replicas: 0,
            }],
            warnings: Vec::new(),
        };
        Box::pin(async move { status })
    }

    fn breakers(&self) -> Vec<BreakerStatus> {
        Vec::new()
    }

    fn reset_breaker(&self, _: &Name) -> bool {
        false
    }

    fn readiness(&self) -> Readiness {
        Readiness { leader: true, recovered: true }
    }
}
