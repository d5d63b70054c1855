//! The way of a command into the log: to the leader, wherever that is, until it is answered or the
//! time is up.
//!
//! A node that can't reach the leader has another node pass the command on: any member relays,
//! once. Each attempt carries the command's request id, so a command that arrives twice is done
//! once.

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::error::{ClientWriteError, RaftError};
use serde::{Deserialize, Serialize};

use super::network::{Reply, Request, Traffic, TransportError};
use super::node::Node;
use super::types::Address;
use crate::cluster::state::{Command, Done, Made, OlderMembers, Refusal};
use crate::codec;
use crate::placement::NodeId;

/// Bytes of an encoded command: twice the default bound of a policy's body.
pub const COMMAND_BYTES_MAX: usize = 128 << 20;
/// How long to wait before asking again who leads: a fraction of an election.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why a command wasn't done, as far as one knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// All nodes agree that it isn't to be done, and why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may be done, or be done later, or never: propose it again under its request id.
    #[error("whether the command was done is not known yet")]
    Unknown,
    /// It was not done: no leader was found in time.
    #[error("no leader was found in time; nothing was done")]
    NoLeader,
    /// It was not done: it is too large.
    #[error("the command takes {bytes} bytes, at most {most} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// It was not done: members of the cluster run a program that can't read it.
    #[error(transparent)]
    OlderMembers(#[from] OlderMembers),
    /// This node takes part in nothing any more. As with [`ProposeError::Unknown`], others may
    /// still do it.
    #[error("this node's Raft has stopped")]
    Stopped,
}

/// What became of one attempt, at one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Proposed {
    Answer(Result<Done, Refusal>),
    /// It isn't in that node's log; perhaps the one named leads.
    NotLeader(Option<(NodeId, Address)>),
    /// It may be in the log.
    Unknown,
    Stopped,
}

/// How one attempt went.
enum Attempt {
    /// It was made at the leader, as far as this node knows of one.
    Reached(Proposed),
    /// The leader can't be reached from here.
    CutOff { leader: NodeId, outcome: Proposed },
}

impl Node {
    /// Proposes `command` to the leader, and answers when it is done or refused; after `within` at
    /// the latest.
    ///
    /// It may be proposed several times meanwhile; since it carries its request id, it is done at
    /// most once.
    pub async fn propose(&self, command: Command, within: Duration) -> Result<Done, ProposeError> {
        let bytes = codec::encode(&command).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, most: COMMAND_BYTES_MAX });
        }
        let mut unknown = false;
        let trying = self.try_until_answered(&command, within, &mut unknown);
        match tokio::time::timeout(within, trying).await {
            Ok(Proposed::Answer(answer)) => Ok(answer?),
            Ok(Proposed::Stopped) => Err(ProposeError::Stopped),
            Err(_) if !unknown => Err(ProposeError::NoLeader),
            Ok(_) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    async fn try_until_answered(
        &self,
        command: &Command,
        within: Duration,
        unknown: &mut bool,
    ) -> Proposed {
        loop {
            // Not even tried: an attempt that is still under way when time is up may count as one
            // that was made.
            if self.leader().is_none() && !self.has_stopped() {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            // An attempt that is dropped half-way may be in the log already.
            let before = std::mem::replace(unknown, true);
            let outcome = match self.propose_once(command, within).await {
                Attempt::Reached(outcome) => outcome,
                Attempt::CutOff { leader, outcome } => {
                    self.relay(leader, command, within).await.unwrap_or(outcome)
                }
            };
            match outcome {
                Proposed::NotLeader(_) => *unknown = before,
                Proposed::Unknown => {}
                end @ (Proposed::Answer(_) | Proposed::Stopped) => return end,
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Makes one attempt: here, if this node leads, else at the leader.
    async fn propose_once(&self, command: &Command, within: Duration) -> Attempt {
        match self.propose_here(command.clone()).await {
            Proposed::NotLeader(Some((leader, address))) if leader != self.id() => {
                let request = Request::Propose { command: command.clone(), within_ms: ms(within) };
                self.send(leader, &address, Traffic::Commands, request, within).await
            }
            here => Attempt::Reached(here),
        }
    }

    /// Makes one attempt for a node that can't reach the leader.
    pub(super) async fn propose_for_another(
        &self,
        command: &Command,
        within: Duration,
    ) -> Proposed {
        match self.propose_once(command, within).await {
            Attempt::Reached(outcome) | Attempt::CutOff { outcome, .. } => outcome,
        }
    }

    /// Has other nodes pass the command on to `leader`, which this node can't reach, until one of
    /// them has an answer. None if no other node took it.
    async fn relay(&self, leader: NodeId, command: &Command, within: Duration) -> Option<Proposed> {
        let (mut taken, within_ms) = (None, ms(within));
        let others =
            self.roster().nodes.into_iter().filter(|(id, _)| *id != self.id() && *id != leader);
        for (node, address) in others.filter(|(id, _)| self.post().is_up(*id)) {
            let request = Request::Relay { command: command.clone(), within_ms };
            match self.send(node, &address, Traffic::Later, request, within).await {
                Attempt::Reached(answer @ Proposed::Answer(_)) => return Some(answer),
                // Nothing was done there: the next one may reach the leader.
                Attempt::Reached(Proposed::NotLeader(_))
                | Attempt::CutOff { outcome: Proposed::NotLeader(_), .. } => {}
                Attempt::Reached(_) | Attempt::CutOff { .. } => taken = Some(Proposed::Unknown),
            }
        }
        taken
    }

    /// Sends a command to another node, and waits for what became of it as long as the link is up.
    async fn send(
        &self,
        to: NodeId,
        address: &Address,
        traffic: Traffic,
        request: Request,
        within: Duration,
    ) -> Attempt {
        let calling = self.post().call(to, address, traffic, &request, within);
        let answered = tokio::select! {
            biased;
            answered = calling => answered,
            () = self.is_down(to) => return Attempt::CutOff { leader: to, outcome: Proposed::Unknown },
        };
        match answered {
            // Its Raft has stopped, not ours: another node will lead.
            Ok(Reply::Propose(Proposed::Stopped)) => Attempt::Reached(Proposed::Unknown),
            Ok(Reply::Propose(proposed)) => Attempt::Reached(proposed),
            Err(TransportError::NotSent(_) | TransportError::Unknown) => {
                Attempt::CutOff { leader: to, outcome: Proposed::NotLeader(None) }
            }
            Ok(_) | Err(_) => Attempt::Reached(Proposed::Unknown),
        }
    }

    /// Resolves once the link to a node is seen to be down: a connection that a cut has silenced
    /// fails calls much later.
    async fn is_down(&self, node: NodeId) {
        while self.post().is_up(node) {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    pub(super) async fn propose_here(&self, command: Command) -> Proposed {
        // Boxed: openraft's futures are deep.
        if let Some(done) = Box::pin(self.without_effect(&command)).await {
            return Proposed::Answer(Ok(done));
        }
        match self.raft().client_write(command).await {
            Ok(written) => match written.data {
                Some(answer) => Proposed::Answer(answer),
                None => Proposed::Unknown,
            },
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Proposed::NotLeader(to.leader_id.zip(to.leader_node))
            }
            Err(RaftError::APIError(_)) => Proposed::Unknown,
            Err(RaftError::Fatal(_)) => Proposed::Stopped,
        }
    }

    /// The answer to a command that would leave the policy as it is, if this node leads: no entry
    /// is made for it. None for every other command, and where this node can't confirm that it
    /// still leads.
    async fn without_effect(&self, command: &Command) -> Option<Done> {
        if !self.is_leader() {
            return None;
        }
        let version = self.view().state.agreed()?.version_kept_by(command)?;
        // Another leader may have been elected and may know a newer policy.
        self.raft().ensure_linearizable(ReadPolicy::ReadIndex).await.ok()?;
        let view = self.view();
        let agreed = view.state.agreed()?;
        let is_same = agreed.version == version || agreed.version_kept_by(command).is_some();
        is_same.then_some(Done { at: view.applied, made: Made::Version(agreed.version) })
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
