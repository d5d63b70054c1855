//! One node's Raft: started, asked, told, stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::error::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};

use super::contact::{HeardCell, UNKNOWN_MS};
use super::disk::{OpenError, Place};
use super::machine::{Machine, View};
use super::network::{Network, Post, Reply, Request, Traffic, Transport};
use super::parts::{Arriving, Frame, FrameReply};
use super::propose::{ProposeError, Proposed};
use super::store::{Closed, LogStore};
use super::term;
use super::types::{Address, Snapshot, TypeConfig, seeded};
use crate::cluster::claim::Claim;
use crate::cluster::membership::initial_voters;
use crate::cluster::state::{Command, Refusal};
use crate::codec;
use crate::net::ROUND_TRIP_MS;
use crate::placement::NodeId;
use crate::random::Seed;
use crate::watch;

/// How long a snapshot may take on its way.
const SNAPSHOT_MS_MAX: u64 = 60_000;
/// How long the others are given to say whether they are empty.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);

/// Raft's times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// Without a heartbeat, at least this long until an election.
    pub election_ms_min: u64,
    /// And at most this long; also the leader's lease.
    pub election_ms_max: u64,
}

impl Timers {
    /// Those for nodes whose messages take so long there and back.
    ///
    /// A heartbeat has to be answered before the next one is sent, so it gets half as much again as
    /// the round trip, for nodes that have other work to do; everything else is a multiple of that.
    pub fn for_round_trip(ms: u64) -> Self {
        Self { heartbeat_ms: ms * 3 / 2, election_ms_min: ms * 4, election_ms_max: ms * 8 }
    }

    /// The longest round trip, in milliseconds, that leaves a node enough of a heartbeat's time for
    /// its own work.
    pub fn round_trip_ms_max(self) -> u64 {
        self.heartbeat_ms * 23 / 30
    }

    /// The time after which a leader without a majority sends heartbeats again: until then its
    /// followers may elect another. Two leases of followers are the least that openraft takes; the
    /// rest is for messages on their way.
    fn probe_ms(self) -> u64 {
        self.election_ms_max * 5 / 2
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self::for_round_trip(ROUND_TRIP_MS)
    }
}

/// What a node's Raft is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub claim: Claim,
    /// Where its log is.
    pub place: Place,
    /// Where its chance comes from: two nodes that wait equally long for an election split the
    /// votes.
    pub seed: Seed,
    /// Its times.
    pub timers: Timers,
    /// Whether it takes part from the start, rather than from [`Node::listen`] on.
    pub listens: bool,
    /// Entries after which a snapshot is made.
    pub snapshot_after: u64,
    /// Entries that are kept behind a snapshot, for followers that are a little late. Fewer than a
    /// thousand is for tests: purging and applying would get close to each other.
    pub keep_behind_snapshot: u64,
}

impl Settings {
    /// The usual ones.
    pub fn new(claim: Claim, place: Place, seed: Seed) -> Self {
        Self {
            claim,
            place,
            seed,
            timers: Timers::default(),
            listens: true,
            snapshot_after: 5_000,
            keep_behind_snapshot: 1_000,
        }
    }

    fn config(&self) -> Config {
        Config {
            cluster_name: self.claim.cluster.to_string(),
            heartbeat_interval: self.timers.heartbeat_ms,
            election_timeout_min: self.timers.election_ms_min,
            election_timeout_max: self.timers.election_ms_max,
            install_snapshot_timeout: SNAPSHOT_MS_MAX,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            max_in_snapshot_log_to_keep: self.keep_behind_snapshot,
            enable_pre_vote: Some(true),
            // Without this, a leader whose links are slower than the timers allow keeps its
            // followers from electing another by heartbeats whose answers come too late.
            quorum_loss_probe_interval: Some(self.timers.probe_ms()),
            // Entries go to the others while they go to the disk. One that a leader has sent and
            // not written, it doesn't know of after a power failure; led on in the same term, it
            // would send another under the same number, and nobody could tell.
            enable_leader_restore: Some(false),
            ..Config::default()
        }
    }
}

/// Why a node's Raft can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Its times don't fit each other.
    #[error("Raft's settings: {0}")]
    Settings(String),
    /// What is in the store can't be gone on from.
    #[error("Raft can't start: {0}")]
    Raft(String),
    /// A message has made the stored term jump to where no election can follow.
    #[error(
        "Raft can't start: its term is {0}, which no election has reached. Where other nodes form \
         a majority, start this node with an empty data directory, --join and --rejoin; else make \
         a cluster of it with tidegate cluster recover"
    )]
    Term(u64),
}

/// Why a cluster can't begin yet; trying again later is right.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A node that belongs to it doesn't answer.
    #[error("node {node} does not say whether it is empty: {why}")]
    Silent {
        /// Which.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// A node that belongs to it has a log: it is part of a cluster already.
    #[error("node {0} is part of a cluster already")]
    NotEmpty(NodeId),
    /// The others were not told.
    #[error("Raft refused to begin: {0}")]
    Raft(String),
    /// The first command didn't get through.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// One node's part in the cluster's Raft.
pub struct Node {
    raft: openraft::Raft<TypeConfig, Machine>,
    id: NodeId,
    store: LogStore,
    post: Post,
    view: watch::Receiver<Arc<View>>,
    arriving: Mutex<Arriving>,
    listens: AtomicBool,
    closed: Closed,
    pub(super) heard: HeardCell,
    /// In which time this node reaches a majority, in milliseconds.
    pub(super) round_trip_ms: AtomicU64,
}

impl Node {
    /// Opens the log and takes part in whatever cluster it belongs to; in none, as long as it is
    /// empty.
    pub async fn start(
        settings: Settings,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let id = settings.claim.node;
        let config =
            settings.config().validate().map_err(|e| StartError::Settings(e.to_string()))?;
        let store = LogStore::open(&settings.place, &settings.claim)?;
        let closed = store.closed();
        // Before Raft starts: its first election adds one to the term.
        if let term @ term::TERM_MAX.. = store.term() {
            drop(store);
            closed.wait().await;
            return Err(StartError::Term(term));
        }
        let (machine, view) = Machine::new(store.clone());
        let post = Post::new(id, transport, settings.timers);
        let network = Network(post.clone());
        let raft = openraft::Raft::new(id, Arc::new(config), network, store.clone(), machine);
        let raft =
            seeded(&settings.seed, raft).await.map_err(|e| StartError::Raft(e.to_string()))?;
        let listens = AtomicBool::new(settings.listens);
        let (arriving, heard) = (Mutex::default(), HeardCell::default());
        let round_trip_ms = AtomicU64::new(UNKNOWN_MS);
        let node =
            Self { raft, id, store, post, view, arriving, listens, closed, heard, round_trip_ms };
        if node.roster().voters == BTreeSet::from([id]) {
            // Who votes alone has nobody to wait for.
            node.raft.trigger().elect(false).await.map_err(|e| StartError::Raft(e.to_string()))?;
        }
        Ok(node)
    }

    /// Begins a cluster of `seeds`, in the order of the configuration, with `begin` as its first
    /// command.
    ///
    /// Only the first of them does anything, and only if all say that their logs are empty. What
    /// was begun and not finished, because this process ended, is finished by calling it again.
    /// Answers once the cluster has begun.
    pub async fn bootstrap(
        &self,
        seeds: &[(NodeId, Address)],
        begin: Command,
        within: Duration,
    ) -> Result<(), BootstrapError> {
        if seeds.first().is_none_or(|(first, _)| *first != self.id) {
            return Ok(());
        }
        let raft_error = |e: &dyn std::fmt::Display| BootstrapError::Raft(e.to_string());
        if !self.raft.is_initialized().await.map_err(|e| raft_error(&e))? {
            for (node, address) in &seeds[1..] {
                self.ask_whether_empty(*node, address).await?;
            }
            let voters: BTreeMap<_, _> =
                seeds[..initial_voters(seeds.len())].iter().cloned().collect();
            match self.raft.initialize(voters).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(e) => return Err(raft_error(&e)),
            }
        }
        if self.view().state.agreed().is_none() {
            match self.propose(begin, within).await {
                Ok(_) | Err(ProposeError::Refused(Refusal::Begun)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if self.is_leader() {
            self.add_learners(seeds).await.map_err(BootstrapError::Raft)?;
        }
        Ok(())
    }

    async fn ask_whether_empty(
        &self,
        node: NodeId,
        address: &Address,
    ) -> Result<(), BootstrapError> {
        match self
            .post
            .call(node, address, Traffic::Commands, &Request::IsEmpty, EMPTY_WITHIN)
            .await
        {
            Ok(Reply::IsEmpty(true)) => Ok(()),
            Ok(Reply::IsEmpty(false)) => Err(BootstrapError::NotEmpty(node)),
            Ok(other) => Err(BootstrapError::Silent { node, why: format!("{other:?}") }),
            Err(e) => Err(BootstrapError::Silent { node, why: e.to_string() }),
        }
    }

    /// Asks `node` to lead, if this node does.
    pub async fn hand_leadership_to(&self, node: NodeId) -> Result<(), String> {
        self.raft.trigger().transfer_leader(node).await.map_err(|e| e.to_string())
    }

    /// Writes the state down now, rather than after [`Settings::snapshot_after`] entries.
    pub async fn write_snapshot(&self) -> Result<(), String> {
        self.raft.trigger().snapshot().await.map_err(|e| e.to_string())
    }

    /// Whether its log has a beginning: whether it was ever part of a cluster. A node whose Raft
    /// has stopped was.
    pub async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(true)
    }

    /// Takes part from now on.
    pub fn listen(&self) {
        self.listens.store(true, Ordering::Relaxed);
    }

    /// Whether it takes part.
    pub fn listens(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    /// Whether what takes long may be done on a thread of its own: not in a simulation.
    pub fn has_thread(&self) -> bool {
        self.store.has_thread()
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The state as this node knows it.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Every next state; entries that were applied together are seen together.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Whether this node leads, as far as it knows. A leader that is cut off doesn't know: see
    /// [`Node::contact_age`].
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// The term, which rises with each election.
    pub fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    /// The first entry that is still in the log, and the last one.
    pub fn log_reaches(&self) -> (u64, Option<u64>) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.purged.as_ref().map_or(0, |id| id.index + 1), metrics.last_log_index)
    }

    /// Waits until the state is at least as new as before this node was restarted; only then is it
    /// worth reading.
    pub async fn recovered(&self, within: Duration) -> Result<(), String> {
        self.raft.wait_for_recovery(Some(within)).await.map(drop).map_err(|e| e.to_string())
    }

    /// Whether Raft has stopped on this node, see [`Node::failed`].
    pub(super) fn has_stopped(&self) -> bool {
        self.raft.metrics().borrow_watched().running_state.is_err()
    }

    /// Resolves, with the reason, when Raft has stopped on this node. It never comes back: the
    /// process has to end.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = metrics.borrow_watched().running_state.clone() {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "its core is gone".into();
            }
        }
    }

    /// Takes a frame that `from` sent with a [`Transport`], and answers it.
    pub async fn serve(&self, from: NodeId, frame: &[u8]) -> Vec<u8> {
        let reply = match self.take(from, frame).await {
            Ok(None) => FrameReply::More,
            Ok(Some(reply)) => FrameReply::Answer(reply),
            Err(why) => FrameReply::Refused(why),
        };
        // What can't be encoded is answered with nothing, which the other side can't decode: an
        // error there.
        codec::encode(&reply).unwrap_or_default()
    }

    async fn take(&self, from: NodeId, frame: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let frame: Frame = codec::decode(frame).map_err(|e| e.to_string())?;
        let message =
            self.arriving.lock().unwrap_or_else(PoisonError::into_inner).take(from, frame)?;
        let Some(message) = message else { return Ok(None) };
        let (to, request): (NodeId, Request) =
            codec::decode(&message).map_err(|e| e.to_string())?;
        if to != self.id {
            return Err(format!("this is node {}, not node {to}", self.id));
        }
        // Not even whether it is empty: the cluster is formed once all of its first nodes take
        // part.
        if !self.listens.load(Ordering::Relaxed) {
            return Err(format!("node {} takes no part yet", self.id));
        }
        if let Some(vote) = request.vote()
            && let Err(error) = term::judge(self.term(), vote)
        {
            tracing::error!(%from, %error, "a message for Raft was refused");
            return Err(error.to_string());
        }
        let reply = self.answer(request).await;
        Ok(Some(codec::encode(&reply).map_err(|e| e.to_string())?))
    }

    async fn answer(&self, request: Request) -> Reply {
        let stopped = |e: &dyn std::fmt::Display| Reply::Stopped(e.to_string());
        match request {
            Request::Append(rpc) => {
                self.raft.append_entries(rpc).await.map_or_else(|e| stopped(&e), Reply::Append)
            }
            Request::Vote(rpc) => {
                self.raft.vote(rpc).await.map_or_else(|e| stopped(&e), Reply::Vote)
            }
            Request::PreVote(rpc) => {
                self.raft.pre_vote(rpc).await.map_or_else(|e| stopped(&e), Reply::PreVote)
            }
            Request::Snapshot { vote, meta, data } => {
                let snapshot = Snapshot { meta, snapshot: data };
                let installed = self.raft.install_full_snapshot(vote, snapshot).await;
                installed.map_or_else(|e| stopped(&e), Reply::Snapshot)
            }
            Request::Transfer(request) => {
                let handled = self.raft.handle_transfer_leader(request).await;
                handled.map_or_else(|e| stopped(&e), Reply::Transfer)
            }
            Request::Propose { command, within_ms } => {
                let here = self.propose_here(command);
                let proposed = tokio::time::timeout(Duration::from_millis(within_ms), here).await;
                Reply::Propose(proposed.unwrap_or(Proposed::Unknown))
            }
            Request::Relay { command, within_ms } => {
                let within = Duration::from_millis(within_ms);
                let passed_on =
                    tokio::time::timeout(within, self.propose_for_another(&command, within)).await;
                Reply::Propose(passed_on.unwrap_or(Proposed::Unknown))
            }
            Request::Contact => Reply::Contact(self.contact()),
            Request::IsEmpty => self
                .raft
                .is_initialized()
                .await
                .map_or_else(|e| stopped(&e), |has| Reply::IsEmpty(!has)),
        }
    }

    /// Writes down the round trip that the log says: this node's timers allow it from its next
    /// start on.
    pub async fn keep_round_trip(&self, ms: u64) -> Result<(), String> {
        self.store.keep_round_trip(ms).await.map_err(|e| e.to_string())
    }

    /// Writes down that this node has left its cluster, so that nobody begins with its data again.
    pub async fn leave(&self) -> Result<(), String> {
        self.store.leave().await.map_err(|e| e.to_string())
    }

    /// Leaves Raft.
    pub async fn shut_down(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "Raft did not stop cleanly");
        }
    }

    /// Leaves Raft, and waits until the log's file is closed, so that it can be opened again.
    pub async fn stop(self) {
        self.shut_down().await;
        let Self { raft, closed, store, .. } = self;
        drop((raft, store));
        closed.wait().await;
    }

    pub(super) fn raft(&self) -> &openraft::Raft<TypeConfig, Machine> {
        &self.raft
    }

    pub(super) fn post(&self) -> &Post {
        &self.post
    }
}

impl AsRef<Self> for Node {
    fn as_ref(&self) -> &Self {
        self
    }
}
