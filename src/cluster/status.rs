//! How a cluster stands, as one of its nodes sees it: what operators are shown.
//!
//! Everything here is one node's word. Who is reachable, whose breaker is open and how old the last
//! word of the majority is may look otherwise from another node, and that difference is often what
//! an operator is looking for.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use super::admin::{Administering, Order};
use super::handoff::{self, Flow, HandOffs};
use super::member::Member;
use super::policy_store::WriteError;
use super::quorum::RoundTrip;
use super::readiness::Readiness;
use super::settings::{SetOutcome, SettingChange, SettingsStatus};
use super::state::{Agreed, Leaving};
use crate::check::Name;
use crate::peer::Lineage;
use crate::placement::{BootId, NodeId, Seat};

/// How a cluster stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub name: Name,
    /// The node that says so.
    pub node: Name,
    /// Which cluster of that name it is: it may have been made anew.
    pub lineage: Lineage,
    /// Who leads, as far as this node knows and as long as it hears of a majority.
    pub leader: Option<Name>,
    /// Raft's term, which rises with each election.
    pub term: u64,
    /// The last entry of the log that this node has applied.
    pub applied: u64,
    /// Milliseconds since this node last knew that a majority is with it; none if it never did.
    pub contact_ms: Option<u64>,
    /// Whether that is recent enough for a leader to be there.
    pub quorum: bool,
    /// How long messages between this node and a majority of the voters take.
    pub round_trip: RoundTrip,
    /// What operators have set for all nodes.
    pub settings: SettingsStatus,
    /// The version of the policy in force on this node.
    pub policy_version: u64,
    /// Whether limits deny; false while the policy's kill switch is thrown.
    pub enforce: bool,
    /// The entry of the log that last changed the placement; none before partitions are placed.
    pub placement_version: Option<u64>,
    /// The members, by their number.
    pub nodes: Vec<NodeStatus>,
    /// What moves, and how much of it is still to come; empty where every partition is where it
    /// should be.
    pub moves: Vec<MovesStatus>,
    /// What is unwise about the cluster as it is, in whole sentences: two nodes of which one votes,
    /// say.
    pub warnings: Vec<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub id: Name,
    /// Its number in the log, never given again.
    pub number: u64,
    /// Where its door is.
    pub http: String,
    /// Where other nodes reach it; none where it has no others.
    pub peer: Option<String>,
    /// How this node sees it.
    pub state: NodeState,
    /// What it is waiting for that is drained or leaves, in words; none for any other.
    pub waits_for: Option<String>,
    /// Whether it votes; else it only gets the log.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// The run of its process that owns its partitions, in hexadecimal; none before it has been
    /// seated.
    pub boot: Option<String>,
    /// Partitions that it owns.
    pub partitions: usize,
    /// How much of the load it takes, beside the others.
    pub weight: u8,
}

/// Partitions that move from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovesStatus {
    /// Who owns them.
    pub from: Name,
    /// Who is to own them.
    pub to: Name,
    /// Those on their way.
    pub moving: usize,
    /// Those that are still to begin.
    pub waiting: usize,
}

/// How a node sees a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It is this node, or there is a connection to it and its breaker is not open.
    Up,
    /// It is up, and to own nothing any more.
    Draining,
    /// It is to be no member any more, whether or not there is a connection to it.
    Leaving,
    /// It can't be reached: there is no connection for checks or for the log, or the breaker is
    /// open.
    Unreachable,
}

impl NodeState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Draining, Self::Leaving, Self::Unreachable];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The breaker of this node's link to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// The peer.
    pub id: Name,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Failures in a row.
    pub failures: u32,
    /// Times that it has opened since the process began.
    pub opened: u64,
    /// Milliseconds until it lets a call through again; none unless it is open.
    pub retry_after_ms: Option<u64>,
    /// Whether there is a connection.
    pub connected: bool,
    /// Why there is none, or why the last call failed.
    pub why: Option<String>,
}

/// A status, when it comes.
pub type Looking<'a> = Pin<Box<dyn Future<Output = ClusterStatus> + Send + 'a>>;

/// The outcome of a change of the settings, when it comes.
pub type SettingLater<'a> =
    Pin<Box<dyn Future<Output = Result<SetOutcome, WriteError>> + Send + 'a>>;

/// What the door may know of the cluster.
pub trait Membership: Send + Sync + 'static {
    /// How it stands.
    fn status(&self) -> Looking<'_>;

    /// The breakers of this node's links, by peer.
    fn breakers(&self) -> Vec<BreakerStatus>;

    /// What has become of the partitions that were to move away from this node.
    fn handoffs(&self) -> HandOffs;

    /// Closes the breaker of the link to `peer`; false where there is no such peer.
    fn reset_breaker(&self, peer: &Name) -> bool;

    /// Has an order about the members carried out, for whoever has the token named `by`.
    fn administer(&self, order: Order, by: String) -> Administering<'_>;

    /// What operators have set for all nodes.
    fn settings(&self) -> SettingsStatus;

    /// Changes one of those settings.
    fn set(&self, change: SettingChange) -> SettingLater<'_>;

    /// Whether the node may take traffic as far as the cluster is concerned, and what it lacks.
    fn readiness(&self) -> Readiness;
}

impl Membership for Member {
    fn status(&self) -> Looking<'_> {
        Box::pin(async { self.look() })
    }

    fn breakers(&self) -> Vec<BreakerStatus> {
        self.links.breakers(self.clock.now().boot)
    }

    fn handoffs(&self) -> HandOffs {
        self.handoffs.read()
    }

    fn reset_breaker(&self, peer: &Name) -> bool {
        self.links.reset_breaker(peer)
    }

    fn administer(&self, order: Order, by: String) -> Administering<'_> {
        Box::pin(self.order(order, by))
    }

    fn settings(&self) -> SettingsStatus {
        self.look_at_settings()
    }

    fn set(&self, change: SettingChange) -> SettingLater<'_> {
        Box::pin(self.change_setting(change))
    }

    fn readiness(&self) -> Readiness {
        self.look_at_readiness()
    }
}

impl Member {
    fn look(&self) -> ClusterStatus {
        let view = self.raft.view();
        let quorum = self.has_quorum();
        let leader = self.raft.leader().filter(|_| quorum);
        let voters = self.raft.members();
        let agreed = view.state.agreed();
        let policy = self.in_force.policy().load();
        let mut status = ClusterStatus {
            name: self.claim.cluster.clone(),
            node: self.claim.name.clone(),
            lineage: self.lineage.clone(),
            leader: None,
            term: self.raft.term(),
            applied: view.applied.0,
            contact_ms: self.contact(),
            quorum,
            round_trip: self.round_trip(),
            settings: self.look_at_settings(),
            policy_version: policy.version(),
            enforce: policy.document().enforce,
            placement_version: agreed.map(|agreed| agreed.table.version().0),
            nodes: Vec::new(),
            moves: Vec::new(),
            warnings: Vec::new(),
        };
        let Some(agreed) = agreed else {
            let unformed = self.unformed().unwrap_or_else(|| "the log is not applied yet".into());
            status.warnings.push(unformed);
            return status;
        };
        let mut owned = BTreeMap::new();
        for (_, row) in agreed.table.rows() {
            *owned.entry(row.owner).or_insert(0) += 1;
        }
        for (id, member) in agreed.members.iter() {
            let up = id == self.me.node || self.links.is_up(id);
            let votes = voters.get(&id).copied().unwrap_or(false);
            let seat = Seat { node: id, boot: member.boot };
            status.nodes.push(NodeStatus {
                id: member.name.clone(),
                number: id.0,
                http: member.http.clone(),
                peer: Some(member.peer.clone()).filter(|peer| !peer.is_empty()),
                state: match (member.leaving, up, member.draining) {
                    (Some(_), ..) => NodeState::Leaving,
                    (None, false, _) => NodeState::Unreachable,
                    (None, true, true) => NodeState::Draining,
                    (None, true, false) => NodeState::Up,
                },
                waits_for: waits_for(agreed, id, up, votes),
                voter: votes,
                leader: leader == Some(id),
                boot: (member.boot != BootId::NEVER).then(|| member.boot.to_string()),
                partitions: match member.boot == BootId::NEVER {
                    true => 0,
                    false => owned.get(&seat).copied().unwrap_or(0),
                },
                weight: member.weight.get(),
            });
            if leader == Some(id) {
                status.leader = Some(member.name.clone());
            }
        }
        let name = |id| Some(agreed.members.get(id)?.name.clone());
        let flows = handoff::flows(agreed).into_iter();
        status.moves = flows
            .filter_map(|Flow { from, to, moving, waiting }| {
                Some(MovesStatus { from: name(from)?, to: name(to)?, moving, waiting })
            })
            .collect();
        status.warnings = warnings(&status, self.why_no_quorum());
        status.warnings.extend(self.broken_directions(agreed));
        status
    }

    /// What is wrong between this node and others in one direction alone, and that this node isn't
    /// registered.
    fn broken_directions(&self, agreed: &Agreed) -> Vec<String> {
        let now = self.clock.now().boot;
        let own = &self.claim.name;
        let one_sided = self.links.one_sided(now).into_iter();
        let mut warnings: Vec<_> = one_sided
            .map(|(peer, why)| format!("node {peer} reaches {own}, but {own} can't dial it: {why}"))
            .collect();
        warnings.extend(self.links.unanswered(now).into_iter().map(|peer| {
            format!(
                "{own} reaches node {peer}, but {peer} has not connected to {own}: it can't dial it"
            )
        }));
        let incarnation = agreed.members.get(self.me.node).map(|member| member.boot);
        if incarnation.is_some_and(|boot| boot != self.me.boot && boot != BootId::NEVER) {
            warnings.push(format!(
                "{own} is not registered as an owner: the log names another incarnation of it"
            ));
        }
        warnings
    }
}

fn warnings(status: &ClusterStatus, no_quorum: Option<String>) -> Vec<String> {
    let mut warnings = Vec::new();
    if !status.enforce {
        warnings.push(
            "the kill switch is thrown: limits are judged and reported, and none denies".into(),
        );
    }
    if let Some(why) = no_quorum {
        warnings.push(format!("no majority is heard of, so the policy can't be changed: {why}"));
    } else if let Some(excess) = status.round_trip.excess() {
        warnings.push(excess);
    }
    let voters = status.nodes.iter().filter(|node| node.voter);
    let (all, down) =
        (voters.clone().count(), voters.filter(|v| v.state == NodeState::Unreachable).count());
    if status.nodes.len() == 2 {
        warnings.push("of two nodes one votes: without it the policy can't be changed".into());
    }
    warnings.extend(of_voters(all, down, status.quorum));
    warnings.extend(status.settings.warning());
    let unseated = status.nodes.iter().filter(|node| node.boot.is_none());
    warnings.extend(unseated.map(|node| format!("node {} has not been there yet", node.id)));
    warnings
}

/// What it means that so many of all voters can't be reached from this node.
fn of_voters(all: usize, down: usize, quorum: bool) -> Option<String> {
    let (up, majority) = (all - down, all / 2 + 1);
    let unreachable = format!("{down} of {all} voters can't be reached");
    match up {
        _ if all < 2 || down == 0 || up > majority => None,
        up if up == majority => Some(format!("{unreachable}: no more may be lost")),
        _ if quorum => {
            Some(format!("{unreachable} from this node, though the leader has a majority"))
        }
        _ => Some(format!("{unreachable}: a majority is lost, and nothing can be written")),
    }
}

/// What keeps a member that is drained or leaves, in words.
fn waits_for(agreed: &Agreed, id: NodeId, up: bool, votes: bool) -> Option<String> {
    let member = agreed.members.get(id).filter(|member| member.draining)?;
    let owned = agreed.owned_by(id);
    let hands_over = owned > 0 && member.leaving != Some(Leaving::Abandoned);
    match (hands_over, up, member.leaving.is_some(), votes) {
        (true, true, ..) => Some(format!("{owned} partitions are to be handed over")),
        (true, false, ..) => {
            Some(format!("it can't be reached, so its {owned} partitions can't be handed over"))
        }
        (false, _, true, true) => Some("another node has to be able to vote in its place".into()),
        (false, _, true, false) => Some("it is about to be removed".into()),
        (false, _, false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_that_is_lost_is_said_to_be_lost() {
        let of = |all, down, quorum| of_voters(all, down, quorum).unwrap_or_default();
        assert_eq!((of(5, 1, true), of(1, 0, true)), (String::new(), String::new()));
        assert_eq!(of(5, 2, true), "2 of 5 voters can't be reached: no more may be lost");
        let lost = "3 of 5 voters can't be reached: a majority is lost, and nothing can be written";
        assert_eq!(of(5, 3, false), lost);
        let seen =
            "2 of 3 voters can't be reached from this node, though the leader has a majority";
        assert_eq!(of(3, 2, true), seen);
    }
}
