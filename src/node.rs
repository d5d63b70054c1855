//! The composition root: builds a node from its parts, runs it until told to stop, drains it.
//!
//! Everything that differs between a process and a simulation is an argument: the listeners, the
//! network, the clock, the seed, where the log is, and whether workers are threads or tasks of the
//! runtime they are started on. The runtime that starts a node is its control plane: Raft,
//! membership, and whatever is asked seldom. Workers are apart from it, so that nothing slow delays
//! a check, and a flood of checks doesn't cost a leader.
//!
//! A node answers at its door from the first moment. It decides once its log says that it is there,
//! in this life, and what it owns; until then its shards wait, and with them what an earlier life
//! has saved.

mod peers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::actor::{self, Far, Handle, Mailboxes, ShardArgs, counts_file};
use crate::clock::SharedClock;
use crate::cluster::backup::BackUps;
use crate::cluster::claim::Found;
use crate::cluster::handoff::{Mover, Target};
use crate::cluster::links::{Links, LinksArgs};
use crate::cluster::raft::Place;
use crate::cluster::{
    InForce, Initial, Member, MemberArgs, MemberError, Newcomer, Purpose, SeedNode,
};
use crate::config::Config;
use crate::http::server::{self, Ending};
use crate::http::{App, Door, SiteGuard, Tokens, unready};
use crate::net::{self, Carried, Listen, Network};
use crate::peer::{self, Guard, Identity, Key, VERSIONS};
use crate::placement::{BootId, FormatLevel, Weight};
use crate::random::Seed;
use crate::routing::{FarLimits, ForwardCounts, Forwarder, ForwarderArgs, Owner, Router};
use crate::shard::{Caps, PartitionSnapshot};
use crate::telemetry::{DiskProbe, History, Telemetry};
use crate::watch;
use peers::Peers;

/// How often the statistics take in what the shards have counted; how exactly a minute's end is
/// met.
const OBSERVE_EVERY: Duration = Duration::from_secs(5);
/// After how many of those times they are made durable: what a crash can lose is a minute.
const STORE_EVERY: u32 = 12;

/// What a node is made of.
pub struct Parts<L, P, N> {
    /// Its configuration.
    pub config: Config,
    /// Where its connections come from.
    pub listener: L,
    /// Where those of other nodes come from; none where there are no others.
    pub peers: Option<P>,
    /// How it reaches other nodes.
    pub network: N,
    /// Where it reads the time.
    pub clock: SharedClock,
    /// Where its random choices come from.
    pub seed: Seed,
    /// Where its log is.
    pub place: Place,
    /// The policy of a cluster that hasn't begun.
    pub initial: Initial,
    /// What it does if it begins with nothing and finds a cluster there.
    pub newcomer: Newcomer,
    /// The keys by which it and its peers know each other; without any, no peer has to prove
    /// anything.
    pub peer_keys: PeerKeys,
    /// Where its counts lie while it is stopped; none keeps none.
    pub state_file: Option<PathBuf>,
    /// Where its statistics are kept; none keeps them as long as it runs.
    pub statistics_file: Option<PathBuf>,
    /// How its workers run.
    pub workers: Workers,
}

/// The keys by which nodes know each other.
#[derive(Clone, Debug, Default)]
pub struct PeerKeys {
    /// The one to prove with first.
    pub keys: Vec<Key>,
    /// Whether keys, or that there are none, are kept in the data directory.
    pub are_kept: bool,
}

/// How workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Each on a thread of its own.
    Threads,
    /// As tasks of the runtime that runs the node: for simulations.
    Tasks,
}

/// Why a node didn't start or stop well.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The saved counts can't be read.
    #[error("can't load the saved counts: {0}")]
    Load(std::io::Error),
    /// The counts can't be saved.
    #[error("can't save the counts: {0}")]
    Save(std::io::Error),
    /// Another process listens at its address.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A worker can't be started.
    #[error("can't start a worker: {0}")]
    Worker(std::io::Error),
    /// It can't take part in its cluster.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// It took part, and can't any more.
    #[error("this node's part in the cluster has ended: {0}")]
    Ended(String),
}

/// The task or thread of one worker.
enum Running {
    Thread(JoinHandle<()>),
    Task,
}

/// A node that runs.
pub struct Node {
    app: Arc<App>,
    member: Arc<Member>,
    handles: Vec<Handle>,
    state_file: Option<PathBuf>,
    /// What an earlier life saved, as long as the shards wait for their seat with it.
    saved: Weak<PartitionSnapshot>,
    tasks: JoinSet<()>,
    running: Vec<Running>,
    stops: Stops,
}

/// What the parts of a node are told at its end, in this order.
struct Stops {
    /// What the connections of clients are told.
    ending: watch::Sender<Ending>,
    /// No more connections, and no more requests than those that were accepted.
    door: watch::Sender<bool>,
    /// Nor any of other nodes.
    peers: watch::Sender<bool>,
    /// Nothing at all.
    all: watch::Sender<bool>,
}

impl Node {
    /// The tokens that its callers are told by.
    pub fn tokens(&self) -> Arc<Tokens> {
        self.app.tokens.clone()
    }

    /// Starts a node. It answers at its door when this returns; see [`Node::is_started`] for more.
    pub async fn start<L: Listen, P: Listen, N: Network>(
        parts: Parts<L, P, N>,
    ) -> Result<Self, NodeError> {
        let Parts { config, mut listener, peers, network, clock, seed, .. } = parts;
        let count = usize::try_from(config.limits.workers).unwrap_or(1).max(1);
        let runtimes = runtimes(parts.workers, count)?;
        let boot = BootId(seed.fork("boot", 0).next_u64().max(BootId::NEVER.0 + 1));
        let peers_at = peers.as_ref().and_then(|peers| peers.local_addr().ok());
        let http = listener.local_addr().unwrap_or(config.http);
        let own = reached_at(&config, http, peers_at);
        let found = parts.place.found().map_err(MemberError::Place)?;
        let us = Identity {
            cluster: config.cluster.clone(),
            node: config.node.clone(),
            boot,
            versions: VERSIONS,
            lineage: found.as_ref().map(|found| found.lineage.clone()).unwrap_or_default(),
            level: FormatLevel::OWN,
        };
        let guard = Arc::new(guard(&config, &parts.peer_keys, found.as_ref(), &seed));
        let was_admitted = found.as_ref().is_some_and(|found| found.claim.admission.is_some());
        let links = Arc::new(Links::new(LinksArgs {
            us: us.clone(),
            guard: guard.clone(),
            network,
            clock: clock.clone(),
            seed: seed.clone(),
            control: tokio::runtime::Handle::current(),
            workers: runtimes
                .iter()
                .filter_map(|runtime| Some(runtime.0.as_ref()?.handle().clone()))
                .collect(),
        }));
        let member = Member::start(MemberArgs {
            cluster: config.cluster.clone(),
            seeds: seeds(&config, &own),
            own,
            boot,
            environment: Some(config.environment.clone()),
            place: parts.place,
            round_trip_ms: config.round_trip_ms,
            links: links.clone(),
            clock: clock.clone(),
            seed: seed.clone(),
            initial: parts.initial,
            newcomer: parts.newcomer,
            admitted_by_older: was_admitted && !parts.peer_keys.are_kept,
        });
        let member = Arc::new(member.await?);
        // Only who has the data directory for himself may take what lies in it.
        let saved = match &parts.state_file {
            Some(path) => {
                counts_file::load(path, clock.now()).map_err(NodeError::Load)?.map(Arc::new)
            }
            None => None,
        };
        let in_force = member.in_force().clone();
        let (handles, mailboxes) = actor::mailboxes(count);
        let counts = Arc::new(ForwardCounts::default());
        let forward = Arc::new(Forwarder::new(ForwarderArgs {
            shards: handles.clone(),
            in_force: in_force.clone(),
            links: links.clone(),
            clock: clock.clone(),
            router: config.node.clone(),
            boot,
            counts: counts.clone(),
        }));
        let owner = Owner::new(
            handles.clone(),
            in_force.clone(),
            links.clone(),
            clock.clone(),
            counts.clone(),
        );
        let target = Target::new(handles.clone(), in_force.clone());
        let far: Arc<dyn Far> =
            Arc::new(FarLimits::new(in_force.clone(), links.clone(), clock.clone(), counts));
        let backups =
            Arc::new(BackUps::new(handles.clone(), member.clone(), links.clone(), clock.clone()));
        let handler =
            Arc::new(Peers::new(owner, member.clone(), links.clone(), target, backups.clone()));
        let app = Arc::new(App {
            node: config.node.to_string(),
            router: Router::new(handles.clone(), in_force.clone(), forward, clock.clone()),
            store: member.clone(),
            cluster: member.clone(),
            backups,
            environment: config.environment.clone(),
            tokens: Arc::new(Tokens::new(&config.tokens).with_metrics(config.metrics)),
            site: SiteGuard::of(&config),
            insecure_no_auth: config.insecure_no_auth,
            peer_keys: guard.keys().iter().map(|key| *key.bytes()).collect(),
            limits: config.limits.clone(),
            disk: Arc::new(DiskProbe::new(config.data_dir.clone())),
            tls: config.tls.clone(),
            forward_auth: config.forward_auth.clone(),
            ready: AtomicBool::new(true),
            telemetry: Arc::new(Telemetry::new(
                clock.clone(),
                seed.fork("request ids", 0),
                parts.statistics_file.and_then(history),
            )),
            control: tokio::runtime::Handle::current(),
        });

        let stops = Stops {
            ending: watch::Sender::new(Ending::Not),
            door: watch::Sender::new(false),
            peers: watch::Sender::new(false),
            all: watch::Sender::new(false),
        };
        let mut tasks = JoinSet::new();
        let mut running = Vec::new();
        let (to_workers, parcels) = net::handover::<L::Stream>(count);
        let (peers_to_workers, peer_parcels) = net::handover::<P::Stream>(count);
        let ends = parcels.into_iter().zip(peer_parcels).zip(mailboxes).zip(runtimes);
        for (index, (((parcels, peer_parcels), mailbox), runtime)) in ends.enumerate() {
            let shard = NewShard {
                index,
                caps: caps(&config, count),
                far: far.clone(),
                in_force: in_force.clone(),
                clock: clock.clone(),
                seed: seed.clone(),
                saved: saved.clone(),
            };
            let stopped = stops.peers.subscribe();
            let (us, guard) = (us.clone(), guard.clone());
            let peers =
                peer::serve(peer_parcels, us, handler.clone(), guard, clock.clone(), stopped);
            let ends = (stops.ending.subscribe(), stops.all.subscribe());
            let worker = worker(shard.run(mailbox), peers, parcels, app.clone(), ends);
            running.push(start(runtime, index, worker, &mut tasks)?);
        }
        // The shards alone keep it, until they have taken what is theirs.
        let saved = saved.map(|saved| Arc::downgrade(&saved)).unwrap_or_default();
        // Connections are refused until here, where each is answered at once.
        listener.open().map_err(|error| NodeError::Listen(http, error))?;
        tasks.spawn(server::accept(
            listener,
            to_workers,
            usize::try_from(config.limits.connections).unwrap_or(usize::MAX),
            app.telemetry.connections().clone(),
            stops.door.subscribe(),
        ));
        if let Some(peers) = peers {
            tasks.spawn(peer::accept(peers, peers_to_workers, stops.peers.subscribe()));
        }
        tasks.spawn(member.clone().run());
        tasks.spawn(start_up(member.clone(), handles.clone()));
        let mover = Mover::new(handles.clone(), member.clone(), links, clock.clone());
        tasks.spawn(Arc::new(mover).run());
        tasks.spawn(keep_statistics(app.clone()));
        Ok(Self {
            app,
            member,
            handles,
            state_file: parts.state_file,
            saved,
            tasks,
            running,
            stops,
        })
    }

    /// This node as a member of its cluster.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Waits until this node may be asked. The caller bounds the wait.
    pub async fn is_started(&self) {
        self.member.started().await;
    }

    /// Returns a function that says what this node waits for before it is ready, as `/readyz` does;
    /// it returns `None` while the node is ready.
    pub fn unready(&self) -> impl Fn() -> Option<String> + Send + Sync + 'static {
        let app = self.app.clone();
        move || unready(&app, Purpose::Everything)
    }

    /// Runs until `stop` is done, then drains the node: it stops being ready, gives up leading,
    /// finishes what it accepted, saves its counts. A node that has left its cluster does the same,
    /// a little later: whoever waits for that at its door is to see it. Where it can take part in
    /// its cluster no more, it ends at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        let mut is_member = true;
        tokio::select! {
            biased;
            () = stop => {}
            () = self.has_left() => is_member = false,
            why = self.member.failed() => return Err(NodeError::Ended(why)),
        }
        tracing::info!("stopping");
        self.app.ready.store(false, Ordering::Relaxed);
        self.stops.ending.send_replace(Ending::Notice);
        tokio::time::sleep(Duration::from_millis(self.app.limits.notice_ms)).await;
        let drain_max = Duration::from_millis(self.app.limits.drain_ms);
        let begun = self.app.telemetry.now().boot;
        if is_member {
            self.member.hand_over(drain_max).await;
            let _ = tokio::time::timeout(STEP_DOWN_MAX, self.member.step_down()).await;
        }
        let spent = Duration::from_nanos(self.app.telemetry.now().boot.saturating_sub(begun));
        // Requests that were accepted before the hand-over have had that time already.
        let drained =
            self.drain(drain_max.saturating_sub(spent).max(drain_max.min(REQUESTS_MIN))).await;
        self.member.stop().await;
        self.stops.all.send_replace(true);
        for worker in self.running {
            if let Running::Thread(thread) = worker {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
        }
        self.tasks.shutdown().await;
        drained
    }

    async fn has_left(&self) {
        self.member.left().await;
        tokio::time::sleep(LEFT_LINGER).await;
    }

    /// Waits for the connections to end, first those of clients, `most` at most, then those of
    /// peers, and saves what the shards remember.
    async fn drain(&mut self, most: Duration) -> Result<(), NodeError> {
        self.stops.door.send_replace(true);
        // Each worker holds a receiver while it serves; the last to let go has finished what was
        // accepted.
        if tokio::time::timeout(most, self.stops.ending.closed()).await.is_err() {
            self.stops.ending.send_replace(Ending::Cut);
            let _ = tokio::time::timeout(CUT_MAX, self.stops.ending.closed()).await;
        }
        self.stops.peers.send_replace(true);
        let _ = tokio::time::timeout(PEERS_DRAIN_MAX, self.stops.peers.closed()).await;
        self.app.observe().await;
        store_statistics(&self.app.telemetry).await;
        let Some(path) = self.state_file.take() else { return Ok(()) };
        let state = match self.member.in_force().is_registered() {
            true => {
                let mut saved = Vec::new();
                for handle in &self.handles {
                    saved.extend(handle.save().await.ok());
                }
                PartitionSnapshot::joined(saved)
            }
            // Shards that wait for the node to be registered have decided nothing: what was saved
            // before them is for the next incarnation.
            false => self.saved.upgrade().map(|saved| saved.passed_on()),
        };
        let level = self.member.raft().view().state.level();
        let saved = state.map_or(Ok(()), |state| counts_file::save(&path, state, level));
        saved.map_err(NodeError::Save)
    }
}

/// How long a node that has left goes on answering at its door.
const LEFT_LINGER: Duration = Duration::from_secs(2);
/// How long giving up the leadership may take.
const STEP_DOWN_MAX: Duration = Duration::from_secs(2);
/// How long accepted requests may go on at a stop after a hand-over that took all of `drain_ms`. So
/// a stop takes `notice_ms`, `drain_ms` and ten seconds at most: supervisors give a node 45 s.
const REQUESTS_MIN: Duration = Duration::from_secs(4);
/// How long connections that are cut may take to notice.
const CUT_MAX: Duration = Duration::from_secs(1);
/// How long requests of peers may go on at a stop: they finish within two seconds by themselves.
const PEERS_DRAIN_MAX: Duration = Duration::from_secs(3);

/// The node of `config` as others reach it, once it listens at `http` and `peer`: it may have left
/// the ports to the system to choose.
pub fn reached_at(config: &Config, http: SocketAddr, peer: Option<SocketAddr>) -> SeedNode {
    let listed =
        config.nodes.iter().find(|node| node.id == config.node).or(config.unlisted.as_ref());
    let said = listed.map_or_else(|| config.http.to_string(), |node| node.http.clone());
    let peer_said = listed.and_then(|node| node.peer.clone()).unwrap_or_default();
    let peer_chosen =
        config.peer.filter(|asked| asked.port() == 0 && asked.to_string() == peer_said).and(peer);
    SeedNode {
        name: config.node.clone(),
        http: if said == config.http.to_string() { http.to_string() } else { said },
        peer: peer_chosen.map_or(peer_said, |chosen| chosen.to_string()),
        weight: listed.map_or(Weight::ONE, |node| node.weight),
    }
}

/// The nodes that the configuration lists, in its order; `own` is this one.
fn seeds(config: &Config, own: &SeedNode) -> Vec<SeedNode> {
    let listed = config.nodes.iter().map(|node| match node.id == own.name {
        true => own.clone(),
        false => SeedNode {
            name: node.id.clone(),
            http: node.http.clone(),
            peer: node.peer.clone().unwrap_or_default(),
            weight: node.weight,
        },
    });
    listed.collect()
}

/// What this node asks of peers, and how it proves itself to them. A node that has a log, or was
/// admitted, forms no cluster.
fn guard(config: &Config, peer_keys: &PeerKeys, found: Option<&Found>, seed: &Seed) -> Guard {
    let was_admitted = found.is_some_and(|found| found.claim.admission.is_some());
    let forms = found.is_none_or(|found| found.is_blank);
    let founders = config.founders.filter(|_| !was_admitted);
    Guard::new(peer_keys.keys.clone(), seed).with_founders(founders, forms)
}

/// Statistics are for looking back: a node without their file serves all the same, and says so.
fn history(path: PathBuf) -> Option<History> {
    match History::open(&path) {
        Ok(history) => Some(history),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "statistics won't outlast this \
                                                             process");
            None
        }
    }
}

/// Takes what the shards have counted into the statistics, and keeps those.
async fn keep_statistics(app: Arc<App>) {
    let mut ticker = tokio::time::interval(OBSERVE_EVERY);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 1u32.. {
        ticker.tick().await;
        app.telemetry.sample_machine();
        app.observe().await;
        if turn.is_multiple_of(STORE_EVERY) {
            store_statistics(&app.telemetry).await;
        }
    }
}

async fn store_statistics(telemetry: &Arc<Telemetry>) {
    if !telemetry.is_kept() {
        return;
    }
    let telemetry = telemetry.clone();
    match tokio::task::spawn_blocking(move || telemetry.store()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the statistics were not stored; the next turn tries again")
        }
        Err(error) => tracing::warn!(%error, "the statistics were not stored"),
    }
}

/// Makes the node ready once it may be asked.
async fn start_up(member: Arc<Member>, handles: Vec<Handle>) {
    // A shard answers once it runs, which it does with all that was saved for it.
    let loaded = async {
        for handle in &handles {
            let _ = handle.tally().await;
        }
    };
    member.start_up(loaded).await;
}

/// A shard that waits for its node's seat.
struct NewShard {
    index: usize,
    caps: Caps,
    far: Arc<dyn Far>,
    in_force: Arc<InForce>,
    clock: SharedClock,
    seed: Seed,
    saved: Option<Arc<PartitionSnapshot>>,
}

impl NewShard {
    async fn run(self, mailbox: Mailboxes) {
        let Self { index, caps, far, in_force, clock, seed, saved } = self;
        in_force.until(|in_force| in_force.is_registered() && in_force.secret().is_some()).await;
        let Some(secret) = in_force.secret() else { return };
        let (policy, places) = (in_force.policy().clone(), in_force.places().clone());
        let generator = seed.fork("permits", index as u64);
        drop(in_force);
        let args = ShardArgs { index, caps, secret, places, far, policy, clock, generator, saved };
        actor::run(args, mailbox).await;
    }
}

/// One worker: its shard, the peers and the connections that are handed to it.
async fn worker<S: Carried>(
    shard: impl Future<Output = ()> + Send + 'static,
    peers: impl Future<Output = ()> + Send + 'static,
    parcels: net::Receiver<S>,
    app: Arc<App>,
    (ending, mut end): (watch::Receiver<Ending>, watch::Receiver<bool>),
) {
    let (shard, peers) = (tokio::spawn(shard), tokio::spawn(peers));
    let limits = app.limits.clone();
    let telemetry = app.telemetry.clone();
    server::serve(parcels, Arc::new(Door::new(app)), limits, telemetry, ending).await;
    // Other workers' connections and other nodes may ask this shard still; it goes on until its
    // counts are saved.
    let _ = end.wait_for(|end| *end).await;
    shard.abort();
    peers.abort();
}

/// The runtime of a worker. A node that doesn't start lets it go where nobody may wait for it.
struct WorkerRuntime(Option<Runtime>);

impl Drop for WorkerRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime for each worker that is to be a thread; none for each that is not.
fn runtimes(workers: Workers, count: usize) -> Result<Vec<WorkerRuntime>, NodeError> {
    let runtime = |_| match workers {
        Workers::Tasks => Ok(WorkerRuntime(None)),
        Workers::Threads => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Ok(WorkerRuntime(Some(runtime.map_err(NodeError::Worker)?)))
        }
    };
    (0..count).map(runtime).collect()
}

fn start(
    mut runtime: WorkerRuntime,
    index: usize,
    worker: impl Future<Output = ()> + Send + 'static,
    tasks: &mut JoinSet<()>,
) -> Result<Running, NodeError> {
    let Some(runtime) = runtime.0.take() else {
        tasks.spawn(worker);
        return Ok(Running::Task);
    };
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    thread.spawn(move || runtime.block_on(worker)).map(Running::Thread).map_err(NodeError::Worker)
}

/// Each shard has an equal part of what the node may hold.
fn caps(config: &Config, shards: usize) -> Caps {
    let part = |whole: u64| usize::try_from(whole).unwrap_or(usize::MAX).div_ceil(shards);
    Caps {
        named_tenants: part(config.limits.named_tenants),
        unknown_tenants: part(config.limits.unknown_tenants),
        keys_per_tenant: usize::try_from(config.limits.keys_per_tenant).unwrap_or(usize::MAX),
        keys: part(config.limits.keys),
        shared_keys: part(config.limits.shared_keys),
        request_ids: part(config.limits.request_ids),
    }
}

#[cfg(test)]
mod tests;
