//! A cluster is made anew of one node's data, while no process has it: after the loss of the majority.
//!
//! ```text
//! n1, n2 are lost, n3 is stopped     recover: n3 is the only member and voter, under a lineage of its own
//! n3 is started                      it leads, decides for all tenants, and takes changes of the policy
//! n1, n2 with empty directories      they join, as new nodes
//! n1, n2 with their old data         n3 refuses them, and they end as they hear of it
//! ```
//!
//! What n1 and n2 knew and n3 didn't is lost: entries of the log that had not reached it, and all that they had counted. Nothing of
//! that can be found out here, so a person decides.

use crate::check::Name;
use crate::cluster::raft::{Founding, Lying, OpenError, Place};
use crate::cluster::state::{Alone, GivenUp, LogIndex, Refusal};
use crate::placement::NodeId;

/// Who the audit log says has recovered the cluster.
const RECOVERER: &str = "cluster recover";

/// Why a cluster can't be made anew.
#[derive(Debug, thiserror::Error)]
pub enum AnewError {
    /// The data can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is none.
    #[error("there is no node's data there")]
    Empty,
    /// It is that of a node that has left its cluster.
    #[error("{0} has left, and its number is spent: what it knows was handed over to the others")]
    HasLeft(String),
    /// It never heard of a beginning.
    #[error("{0} was never part of a cluster that has begun: there is nothing to go on from")]
    NotBegun(String),
    /// It is no member, by its own log.
    #[error("{0} is no member, says its own log: it was given up")]
    NoMember(String),
    /// The state can't be made that of one node.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A recovery that could be carried out.
pub struct Recovery {
    lying: Lying,
    /// Where the node is reached.
    peer: String,
    /// What would be given up.
    pub given_up: GivenUp,
}

/// What a person wants to know before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster.
    pub cluster: Name,
    /// The node that goes on.
    pub name: Name,
    /// Its number, which stays.
    pub number: NodeId,
    /// The last entry of the log that it has.
    pub last: LogIndex,
    /// Of the last entries, those of which it doesn't know that a majority has them. They are taken.
    pub unconfirmed: u64,
    /// The version of the policy.
    pub policy_version: u64,
    /// The members that are given up: name, number, door, address for peers.
    pub given_up: Vec<(Name, NodeId, String, String)>,
    /// Partitions that they owned, and that begin anew.
    pub partitions: usize,
}

impl Recovery {
    /// Looks at the data at `place`, and has it alone from here on. Changes nothing.
    pub fn of(place: &Place) -> Result<Self, AnewError> {
        let found = place.found()?.ok_or(AnewError::Empty)?;
        let name = found.claim.to_string();
        if found.has_left {
            return Err(AnewError::HasLeft(name));
        }
        let lying = Lying::open(place)?.ok_or(AnewError::Empty)?;
        let agreed = lying.state.agreed().ok_or_else(|| AnewError::NotBegun(name.clone()))?;
        let member = agreed.members.get(lying.claim.node).ok_or(AnewError::NoMember(name))?;
        let peer = member.peer.clone();
        // The words and the time don't matter to who is given up.
        let who = Alone::Stays(lying.claim.node);
        let (_, given_up) = lying.state.alone(next(&lying), &who, (0, "", ""))?;
        Ok(Self { lying, peer, given_up })
    }

    /// What would be done.
    pub fn plan(&self) -> Plan {
        let Lying { claim, state, last, unconfirmed, .. } = &self.lying;
        let members = self.given_up.members.iter();
        let given_up = members.map(|(id, member)| {
            let (http, peer) = (member.http.clone(), member.peer.clone());
            (member.name.clone(), *id, http, peer)
        });
        Plan {
            cluster: claim.cluster.clone(),
            name: claim.name.clone(),
            number: claim.node,
            last: *last,
            unconfirmed: *unconfirmed,
            policy_version: state.agreed().map_or(0, |agreed| agreed.version),
            given_up: given_up.collect(),
            partitions: self.given_up.partitions,
        }
    }

    /// Does it: durable when it answers. `drawn` is the number of the new lineage, `time` the wall's.
    pub fn carry_out(self, drawn: u64, time: u64) -> Result<(), AnewError> {
        let Self { lying, peer, .. } = self;
        let (at, who) = (next(&lying), Alone::Stays(lying.claim.node));
        let (state, _) = lying.state.alone(at, &who, (time, RECOVERER, "recovered the cluster"))?;
        let (claim, lineage) = (lying.claim.clone(), lying.lineage.anew(drawn));
        let term = lying.term + 1;
        let founding = Founding { claim: &claim, peer, lineage: &lineage, state: &state, at, term };
        Ok(lying.replace(&founding)?)
    }
}

/// The entry at which it is done.
fn next(lying: &Lying) -> LogIndex {
    LogIndex(lying.last.0 + 1)
}
