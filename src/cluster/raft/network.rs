//! Raft's messages to other nodes, over whatever carries bytes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::parts::{FrameReply, cut};
use super::propose::Proposed;
use super::types::{Address, Snapshot, SnapshotData, SnapshotMeta, TypeConfig, Vote};
use crate::cluster::state::Command;
use crate::codec;
use crate::placement::NodeId;

/// What a message is for: a snapshot on the connection of the heartbeats would hold them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Entries, heartbeats, votes.
    Raft,
    /// Snapshots.
    Bulk,
    /// Commands on their way to the leader.
    Commands,
}

/// Why a message got no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// It was never sent.
    #[error("not connected: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// It may have arrived; the time is up.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// An answer, when it comes.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, TransportError>> + Send + 'a>>;

/// Carries bytes to another node, into its [`Node::serve`](super::Node::serve), and the answer back.
pub trait Transport: Send + Sync + 'static {
    /// Sends `bytes` (a little more than [`PART_BYTES`](super::PART_BYTES) at most); gives up after `within`.
    fn send<'a>(
        &'a self,
        to: NodeId,
        address: &'a str,
        traffic: Traffic,
        bytes: Vec<u8>,
        within: Duration,
    ) -> Sending<'a>;
}

#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one is made for each message, and written at once")]
pub(super) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Snapshot { vote: Vote, meta: SnapshotMeta, data: SnapshotData },
    Transfer(TransferLeaderRequest<TypeConfig>),
    Propose { command: Command, within_ms: u64 },
    IsEmpty,
}

#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one is made for each message, and written at once")]
pub(super) enum Reply {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    PreVote(VoteResponse<TypeConfig>),
    Snapshot(SnapshotResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
    Propose(Proposed),
    IsEmpty(bool),
    /// The other node's Raft has stopped.
    Stopped(String),
}

/// Sends requests and reads replies; one for a node.
#[derive(Clone)]
pub(super) struct Post {
    own: NodeId,
    transport: Arc<dyn Transport>,
    sent: Arc<AtomicU64>,
}

impl Post {
    pub(super) fn new(own: NodeId, transport: Arc<dyn Transport>) -> Self {
        Self { own, transport, sent: Arc::default() }
    }

    pub(super) async fn call(
        &self,
        to: NodeId,
        address: &Address,
        traffic: Traffic,
        request: &Request,
        within: Duration,
    ) -> Result<Reply, TransportError> {
        if to == self.own {
            return Err(TransportError::NotSent("a node has no connection to itself".into()));
        }
        // Whom it is for goes along: after a mix-up of addresses a node must not answer in another's place.
        let bytes = codec::encode(&(to, request)).map_err(|e| TransportError::NotSent(e.to_string()))?;
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let parts = async {
            for frame in cut(bytes, number) {
                let frame = codec::encode(&frame).map_err(|e| TransportError::NoAnswer(e.to_string()))?;
                let answer = self.transport.send(to, &address.peer, traffic, frame, within).await?;
                match codec::decode::<FrameReply>(&answer) {
                    Ok(FrameReply::More) => {}
                    Ok(FrameReply::Answer(reply)) => {
                        return codec::decode(&reply).map_err(|e| TransportError::NoAnswer(e.to_string()));
                    }
                    Ok(FrameReply::Refused(why)) => return Err(TransportError::NoAnswer(why)),
                    Err(e) => return Err(TransportError::NoAnswer(e.to_string())),
                }
            }
            Err(TransportError::NoAnswer("the last part was not answered".into()))
        };
        tokio::time::timeout(within, parts).await.unwrap_or(Err(TransportError::Late(within)))
    }
}

/// Makes a connection to each node that openraft wants to reach.
pub(super) struct Network(pub Post);

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Address) -> Peer {
        Peer { post: self.0.clone(), target, address: node.clone() }
    }
}

/// One other node.
pub(super) struct Peer {
    post: Post,
    target: NodeId,
    address: Address,
}

impl Peer {
    /// Openraft's patience is a hard one; the soft time to live ends before it, so that it hears why.
    async fn call(
        &self,
        action: RPCTypes,
        request: Request,
        within: Duration,
    ) -> Result<Reply, RPCError<TypeConfig>> {
        let traffic = if action == RPCTypes::InstallSnapshot { Traffic::Bulk } else { Traffic::Raft };
        match self.post.call(self.target, &self.address, traffic, &request, within).await {
            Ok(Reply::Stopped(why)) => {
                Err(Unreachable::new(&std::io::Error::other(format!("node {} stopped: {why}", self.target)))
                    .into())
            }
            Ok(reply) => Ok(reply),
            Err(TransportError::Late(timeout)) => {
                Err(Timeout { action, id: self.post.own, target: self.target, timeout }.into())
            }
            Err(e @ TransportError::NotSent(_)) => Err(Unreachable::new(&e).into()),
            Err(e @ TransportError::NoAnswer(_)) => Err(NetworkError::new(&e).into()),
        }
    }
}

fn unexpected(reply: &Reply) -> RPCError<TypeConfig> {
    NetworkError::new(&std::io::Error::other(format!("a reply to something else: {reply:?}"))).into()
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::AppendEntries, Request::Append(rpc), option.soft_ttl()).await? {
            Reply::Append(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, Request::Vote(rpc), option.soft_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    // Without this, openraft takes every node's consent for granted, and a node that comes back deposes the leader.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, Request::PreVote(rpc), option.soft_ttl()).await? {
            Reply::PreVote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let request = Request::Snapshot { vote, meta: snapshot.meta, data: snapshot.snapshot };
        let sending = self.call(RPCTypes::InstallSnapshot, request, option.soft_ttl());
        let reply = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            reply = sending => reply,
        };
        match reply {
            Ok(Reply::Snapshot(response)) => Ok(response),
            Ok(other) => Err(streaming(unexpected(&other))),
            Err(e) => Err(streaming(e)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::TransferLeader, Request::Transfer(request), option.soft_ttl()).await? {
            Reply::Transfer(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }
}

fn streaming(error: RPCError<TypeConfig>) -> StreamingError<TypeConfig> {
    match error {
        RPCError::Timeout(e) => StreamingError::Timeout(e),
        RPCError::Unreachable(e) => StreamingError::Unreachable(e),
        RPCError::Network(e) => StreamingError::Network(e),
        RPCError::RemoteError(e) => StreamingError::Network(NetworkError::new(&e)),
    }
}
