//! Raft's messages to other nodes, over whatever carries bytes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::error::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::contact::Contact;
use super::node::Timers;
use super::parts::{FrameReply, cut};
use super::propose::Proposed;
use super::term;
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
    /// Messages that a node of the first release doesn't know: [`TransportError::Unknown`] says so.
    Later,
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
    /// The other node runs an older release that has no such message. Nothing was done.
    #[error("the other node runs an older release, which doesn't know this message")]
    Unknown,
}

/// An answer, when it comes.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, TransportError>> + Send + 'a>>;

/// Carries bytes to another node, into its [`Node::serve`](super::Node::serve), and the answer
/// back.
pub trait Transport: Send + Sync + 'static {
    /// Sends `bytes` (a little more than [`PART_BYTES`](super::PART_BYTES) at most); gives up after
    /// `within`.
    fn send<'a>(
        &'a self,
        to: NodeId,
        address: &'a str,
        traffic: Traffic,
        bytes: Vec<u8>,
        within: Duration,
    ) -> Sending<'a>;

    /// Whether the node can be reached, as far as this one knows without asking.
    fn is_up(&self, _to: NodeId) -> bool {
        true
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one is made for each message, and written at once")]
pub(super) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        data: SnapshotData,
    },
    Transfer(TransferLeaderRequest<TypeConfig>),
    Propose {
        command: Command,
        within_ms: u64,
    },
    IsEmpty,
    /// How long ago the leader last had the word of a majority. Only as [`Traffic::Later`].
    Contact,
    /// A command of a node that has no connection to the leader: the other node proposes it here or
    /// passes it on to the leader, once. Only as [`Traffic::Later`].
    Relay {
        command: Command,
        within_ms: u64,
    },
}

impl Request {
    /// The vote that the receiver takes over where its term is higher.
    pub(super) fn vote(&self) -> Option<&Vote> {
        match self {
            Self::Append(rpc) => Some(&rpc.vote),
            Self::Vote(rpc) | Self::PreVote(rpc) => Some(&rpc.vote),
            Self::Snapshot { vote, .. } => Some(vote),
            Self::Transfer(rpc) => Some(rpc.from_leader()),
            Self::Propose { .. } | Self::IsEmpty | Self::Contact | Self::Relay { .. } => None,
        }
    }
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
    Contact(Contact),
}

impl Reply {
    /// The vote that the node that asked takes over where its term is higher.
    fn vote(&self) -> Option<&Vote> {
        match self {
            Self::Append(AppendEntriesResponse::HigherVote(vote)) => Some(vote),
            Self::Vote(response) | Self::PreVote(response) => Some(&response.vote),
            Self::Snapshot(response) => Some(&response.vote),
            Self::Append(_)
            | Self::Transfer(_)
            | Self::Propose(_)
            | Self::IsEmpty(_)
            | Self::Stopped(_)
            | Self::Contact(_) => None,
        }
    }
}

/// Sends requests and reads replies; one for a node.
#[derive(Clone)]
pub(super) struct Post {
    own: NodeId,
    transport: Arc<dyn Transport>,
    sent: Arc<AtomicU64>,
    timers: Timers,
}

/// How much sooner than openraft this node gives a message up, so that openraft hears why.
const SOONER: Duration = Duration::from_millis(2);
/// The least speed that entries may have on their way, in bytes a millisecond.
const ENTRIES_SPEED_MIN: usize = 1_024;

impl Post {
    pub(super) fn new(own: NodeId, transport: Arc<dyn Transport>, timers: Timers) -> Self {
        Self { own, transport, sent: Arc::default(), timers }
    }

    pub(super) fn is_up(&self, to: NodeId) -> bool {
        self.transport.is_up(to)
    }

    /// Returns how long entries of so many bytes may take. Openraft sets no bound to them, and a
    /// follower writes them to its disk before it answers: a bound as short as that of a heartbeat
    /// would send them again and again where links are slow.
    fn entries_within(&self, bytes: usize) -> Duration {
        let ms = u64::try_from(bytes / ENTRIES_SPEED_MIN).unwrap_or(u64::MAX);
        Duration::from_millis(self.timers.election_ms_max.saturating_add(ms))
    }

    pub(super) async fn call(
        &self,
        to: NodeId,
        address: &Address,
        traffic: Traffic,
        request: &Request,
        within: Duration,
    ) -> Result<Reply, TransportError> {
        let reply = self.send(to, address, traffic, self.encode(to, request)?, within).await?;
        judged(to, request, reply)
    }

    fn encode(&self, to: NodeId, request: &Request) -> Result<Vec<u8>, TransportError> {
        // The receiver's number goes along: after a mix-up of addresses a node must not answer in
        // the place of another.
        codec::encode(&(to, request)).map_err(|e| TransportError::NotSent(e.to_string()))
    }

    /// Sends entries and waits for as long as their size needs.
    async fn send_entries(
        &self,
        to: NodeId,
        address: &Address,
        request: &Request,
    ) -> Result<Reply, TransportError> {
        let bytes = self.encode(to, request)?;
        let within = self.entries_within(bytes.len());
        let reply = self.send(to, address, Traffic::Raft, bytes, within).await?;
        judged(to, request, reply)
    }

    async fn send(
        &self,
        to: NodeId,
        address: &Address,
        traffic: Traffic,
        bytes: Vec<u8>,
        within: Duration,
    ) -> Result<Reply, TransportError> {
        if to == self.own {
            return Err(TransportError::NotSent("a node has no connection to itself".into()));
        }
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let parts = async {
            for frame in cut(bytes, number) {
                let frame =
                    codec::encode(&frame).map_err(|e| TransportError::NoAnswer(e.to_string()))?;
                let answer = self.transport.send(to, &address.peer, traffic, frame, within).await?;
                match codec::decode::<FrameReply>(&answer) {
                    Ok(FrameReply::More) => {}
                    Ok(FrameReply::Answer(reply)) => {
                        return codec::decode(&reply)
                            .map_err(|e| TransportError::NoAnswer(e.to_string()));
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

/// Refuses a reply whose term can't be, beside that of the request.
fn judged(from: NodeId, request: &Request, reply: Reply) -> Result<Reply, TransportError> {
    if let (Some(ours), Some(theirs)) = (request.vote(), reply.vote())
        && let Err(error) = term::judge(ours.leader_id.term, theirs)
    {
        tracing::error!(%from, %error, "a reply for Raft was refused");
        return Err(TransportError::NoAnswer(error.to_string()));
    }
    Ok(reply)
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
    async fn call(
        &self,
        action: RPCTypes,
        request: Request,
        within: Duration,
    ) -> Result<Reply, RPCError<TypeConfig>> {
        let traffic =
            if action == RPCTypes::InstallSnapshot { Traffic::Bulk } else { Traffic::Raft };
        self.read(
            action,
            self.post.call(self.target, &self.address, traffic, &request, within).await,
        )
    }

    /// Tells openraft what became of a message.
    fn read(
        &self,
        action: RPCTypes,
        answered: Result<Reply, TransportError>,
    ) -> Result<Reply, RPCError<TypeConfig>> {
        match answered {
            Ok(Reply::Stopped(why)) => Err(Unreachable::new(&std::io::Error::other(format!(
                "node {} stopped: {why}",
                self.target
            )))
            .into()),
            Ok(reply) => Ok(reply),
            Err(TransportError::Late(timeout)) => {
                Err(Timeout { action, id: self.post.own, target: self.target, timeout }.into())
            }
            Err(e @ TransportError::NotSent(_)) => Err(Unreachable::new(&e).into()),
            Err(e @ (TransportError::NoAnswer(_) | TransportError::Unknown)) => {
                Err(NetworkError::new(&e).into())
            }
        }
    }
}

/// Returns how long a message may take: nearly all the time that openraft gives it, since the round
/// trips that the timers bear are as long as a heartbeat's.
fn within(option: &RPCOption) -> Duration {
    option.hard_ttl().saturating_sub(SOONER)
}

fn unexpected(reply: &Reply) -> RPCError<TypeConfig> {
    NetworkError::new(&std::io::Error::other(format!("a reply to something else: {reply:?}")))
        .into()
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let (action, is_heartbeat) = (RPCTypes::AppendEntries, rpc.entries.is_empty());
        let request = Request::Append(rpc);
        let reply = match is_heartbeat {
            true => self.call(action, request, within(&option)).await?,
            false => {
                let sent = self.post.send_entries(self.target, &self.address, &request).await;
                self.read(action, sent)?
            }
        };
        match reply {
            Reply::Append(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, Request::Vote(rpc), within(&option)).await? {
            Reply::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    // Without this, openraft takes every node's consent for granted, and a node that comes back
    // deposes the leader.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, Request::PreVote(rpc), within(&option)).await? {
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
        match self
            .call(RPCTypes::TransferLeader, Request::Transfer(request), within(&option))
            .await?
        {
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
