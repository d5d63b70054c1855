//! The way of a command into the log: to the leader, wherever that is, until it is answered or the time is up.

use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use serde::{Deserialize, Serialize};

use super::network::{Reply, Request, Traffic, TransportError};
use super::node::Node;
use super::types::Address;
use crate::cluster::state::{Command, Done, OlderMembers, Refusal};
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
    /// This node takes part in nothing any more. As with [`ProposeError::Unknown`], others may still do it.
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

impl Node {
    /// Proposes `command` to the leader, and answers when it is done or refused; after `within` at the latest.
    ///
    /// It may be proposed several times meanwhile; since it carries its request id, it is done at most once.
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

    async fn try_until_answered(&self, command: &Command, within: Duration, unknown: &mut bool) -> Proposed {
        loop {
            // Not even tried: an attempt that is still under way when time is up may count as one that was made.
            if self.leader().is_none() && !self.has_stopped() {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            // An attempt that is dropped half-way may be in the log already.
            let before = std::mem::replace(unknown, true);
            let here = self.propose_here(command.clone()).await;
            let outcome = match here {
                Proposed::NotLeader(Some((leader, address))) if leader != self.id() => {
                    self.propose_there(leader, &address, command, within).await
                }
                here => here,
            };
            match outcome {
                Proposed::NotLeader(_) => *unknown = before,
                Proposed::Unknown => {}
                end @ (Proposed::Answer(_) | Proposed::Stopped) => return end,
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    pub(super) async fn propose_here(&self, command: Command) -> Proposed {
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

    async fn propose_there(
        &self,
        leader: NodeId,
        address: &Address,
        command: &Command,
        within: Duration,
    ) -> Proposed {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Propose { command: command.clone(), within_ms };
        match self.post().call(leader, address, Traffic::Commands, &request, within).await {
            // Its Raft has stopped, not ours: somebody else will lead.
            Ok(Reply::Propose(Proposed::Stopped)) => Proposed::Unknown,
            Ok(Reply::Propose(proposed)) => proposed,
            Err(TransportError::NotSent(_)) => Proposed::NotLeader(None),
            Ok(_) | Err(_) => Proposed::Unknown,
        }
    }
}
