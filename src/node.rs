//! The composition root: builds a node from its parts, runs it until told to stop, drains it.
//!
//! Everything that differs between a process and a simulation is an argument: the listener, the clock, the seed, the store,
//! and whether workers are threads or tasks of the runtime they are started on. The runtime that calls [`run`] is the
//! control plane; workers are apart from it, so that nothing slow delays a check.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::SharedClock;
use crate::cluster::{LocalStore, PolicyStore};
use crate::config::Config;
use crate::http::server;
use crate::http::{App, Door, Tokens};
use crate::net::{self, Listen};
use crate::random::Seed;
use crate::routing::Router;
use crate::shard::{self, Caps, Handle, Mailboxes, SavedState, ShardArgs};
use crate::telemetry::{History, Telemetry};

/// How often the statistics take in what the shards have counted; how exactly a minute's end is met.
const OBSERVE_EVERY: Duration = Duration::from_secs(5);
/// After how many of those times they are made durable: what a crash can lose is a minute.
const STORE_EVERY: u32 = 12;

/// What a node is made of.
pub struct Parts<L: Listen> {
    /// Its configuration.
    pub config: Config,
    /// Where its connections come from.
    pub listener: L,
    /// Where it reads the time.
    pub clock: SharedClock,
    /// Where its random choices come from.
    pub seed: Seed,
    /// Where its policy is.
    pub store: LocalStore,
    /// Where its counts lie while it is stopped; none keeps none.
    pub state_file: Option<PathBuf>,
    /// Where its statistics are kept; none keeps them as long as it runs.
    pub statistics_file: Option<PathBuf>,
    /// How its workers run.
    pub workers: Workers,
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
    /// A worker can't be started.
    #[error("can't start a worker: {0}")]
    Worker(std::io::Error),
}

/// The task or thread of one worker.
enum Running {
    Thread(JoinHandle<()>),
    Task,
}

/// Runs a node until `stop` is done, then drains it: it stops being ready, finishes what it accepted, saves its counts.
pub async fn run<L: Listen>(parts: Parts<L>, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
    let Parts { config, listener, clock, seed, store, state_file, statistics_file, workers } = parts;
    let count = usize::try_from(config.limits.workers).unwrap_or(1).max(1);
    let saved = match &state_file {
        Some(path) => shard::load(path, clock.now()).map_err(NodeError::Load)?.map(Arc::new),
        None => None,
    };
    let (cell, secret) = (store.cell(), store.secret());
    let (handles, mailboxes) = shard::mailboxes(count);
    let app = Arc::new(App {
        node: config.node.to_string(),
        router: Router::new(handles.clone(), secret, cell.clone(), clock.clone()),
        store: Arc::new(store) as Arc<dyn PolicyStore>,
        tokens: Tokens::new(&config.tokens),
        limits: config.limits.clone(),
        forward_auth: config.forward_auth.clone(),
        ready: AtomicBool::new(true),
        telemetry: Arc::new(Telemetry::new(
            clock.clone(),
            seed.fork("request ids", 0),
            statistics_file.and_then(history),
        )),
        control: tokio::runtime::Handle::current(),
    });
    let (stopping, stopped) = watch::channel(false);
    let (ending, ended) = watch::channel(false);
    let (senders, receivers) = net::handover::<L::Stream>(count);

    let mut tasks = JoinSet::new();
    let mut running = Vec::new();
    for (index, (parcels, mailbox)) in receivers.into_iter().zip(mailboxes).enumerate() {
        let shard = ShardArgs {
            index,
            caps: caps(&config, count),
            secret,
            places: Arc::new(shard::PlacesCell::new(crate::placement::Places::all_here())),
            far: Arc::new(shard::NothingFar),
            policy: cell.clone(),
            clock: clock.clone(),
            generator: seed.fork("permits", index as u64),
            saved: saved.clone(),
        };
        let worker = worker(shard, mailbox, parcels, app.clone(), stopped.clone(), ended.clone());
        running.push(start(workers, index, worker, &mut tasks)?);
    }
    drop(saved);
    tasks.spawn(server::accept(
        listener,
        senders,
        usize::try_from(config.limits.connections).unwrap_or(usize::MAX),
        app.telemetry.connections().clone(),
        stopped,
    ));
    tasks.spawn(keep_statistics(app.clone()));

    stop.await;
    tracing::info!("stopping");
    app.ready.store(false, Ordering::Relaxed);
    tokio::time::sleep(std::time::Duration::from_millis(config.limits.notice_ms)).await;
    let _ = stopping.send(true);
    let drained = drain(&app, handles, state_file, &stopping).await;
    let _ = ending.send(true);
    for worker in running {
        if let Running::Thread(thread) = worker {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
    tasks.shutdown().await;
    drained
}

/// Waits for the workers' connections to end, and saves what the shards remember.
async fn drain(
    app: &App,
    handles: Vec<Handle>,
    state_file: Option<PathBuf>,
    stopping: &watch::Sender<bool>,
) -> Result<(), NodeError> {
    // Each worker holds a receiver while it serves; the last to let go has finished what was accepted.
    let most = std::time::Duration::from_millis(app.limits.drain_ms + 1_000);
    let _ = tokio::time::timeout(most, stopping.closed()).await;
    app.observe().await;
    store_statistics(&app.telemetry).await;
    let Some(path) = state_file else { return Ok(()) };
    let mut state: Option<SavedState> = None;
    for handle in handles {
        let Ok(of_shard) = handle.save().await else {
            continue;
        };
        match &mut state {
            Some(state) => state.add(of_shard),
            None => state = Some(of_shard),
        }
    }
    match state {
        Some(state) => shard::save(&path, &state).map_err(NodeError::Save),
        None => Ok(()),
    }
}

/// Statistics are for looking back: a node without their file serves all the same, and says so.
fn history(path: PathBuf) -> Option<History> {
    match History::open(&path) {
        Ok(history) => Some(history),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "statistics won't outlast this process");
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
        Ok(Err(error)) => tracing::warn!(%error, "the statistics were not stored; the next turn tries again"),
        Err(error) => tracing::warn!(%error, "the statistics were not stored"),
    }
}

/// One worker: its shard, and the connections that are handed to it.
async fn worker<S: net::Carried>(
    shard: ShardArgs,
    mailbox: Mailboxes,
    parcels: net::Receiver<S>,
    app: Arc<App>,
    stop: watch::Receiver<bool>,
    mut end: watch::Receiver<bool>,
) {
    let shard = tokio::spawn(shard::run(shard, mailbox));
    let limits = app.limits.clone();
    let telemetry = app.telemetry.clone();
    server::serve(parcels, Arc::new(Door::new(app)), limits, telemetry, stop).await;
    // Other workers' connections may ask this shard still; it goes on until its counts are saved.
    let _ = end.wait_for(|end| *end).await;
    shard.abort();
}

fn start(
    workers: Workers,
    index: usize,
    worker: impl Future<Output = ()> + Send + 'static,
    tasks: &mut JoinSet<()>,
) -> Result<Running, NodeError> {
    if workers == Workers::Tasks {
        tasks.spawn(worker);
        return Ok(Running::Task);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Worker)?;
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
