//! `tidegate [serve]`: runs a node on real sockets until it is told to stop.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use tidegate::clock::SystemClock;
use tidegate::cluster::{LocalStore, OpenError, PolicyStore, Where};
use tidegate::config::Config;
use tidegate::input::Fault;
use tidegate::node::{self, Parts, Workers};
use tidegate::policy::Document;
use tidegate::random::Seed;

use super::ServeArgs;

/// Something was wrong while running.
const FAILED: u8 = 1;
/// The command line or a file it names is wrong.
const USAGE: u8 = 2;
/// What a node remembers over a graceful stop, in its data directory.
const STATE_FILE: &str = "counts.state";
/// The statistics of past hours, beside it.
const STATISTICS_FILE: &str = "stats.redb";

/// Runs the node that the arguments describe.
pub fn run(arguments: ServeArgs) -> ExitCode {
    let ServeArgs { config, node, log, log_format } = arguments;
    tidegate::telemetry::log::start(log_format.into(), &log);
    let loaded = match &config {
        Some(path) => Config::load(path, node.as_deref(), |name| std::env::var(name).ok()),
        None => Ok(Config::standalone()),
    };
    let config = match loaded {
        Ok(config) => config,
        Err(faults) => return refuse("the configuration", &faults),
    };
    // Two threads: accepting goes on while a large policy is being read.
    let mut control = tokio::runtime::Builder::new_multi_thread();
    match control.worker_threads(2).thread_name("control").enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => fail(error),
    }
}

fn fail(error: impl Display) -> ExitCode {
    eprintln!("tidegate: {error}");
    ExitCode::from(FAILED)
}

fn refuse(what: &str, faults: &[Fault]) -> ExitCode {
    eprintln!("tidegate: {what} is not valid");
    faults.iter().for_each(|fault| eprintln!("  {fault}"));
    ExitCode::from(USAGE)
}

async fn serve(config: Config) -> ExitCode {
    raise_descriptor_limit();
    let seed = match Seed::from_system() {
        Ok(seed) => seed,
        Err(error) => return fail(format!("the system gives no randomness: {error}")),
    };
    let listener = match TcpListener::bind(config.http).await {
        Ok(listener) => listener,
        Err(error) => return fail(format!("can't listen on {}: {error}", config.http)),
    };
    let place = Where::Directory(config.data_dir.clone());
    let store = match LocalStore::open(place, Some(config.environment.clone()), &seed, || initial(&config)) {
        Ok(store) => store,
        Err(OpenError::Invalid(faults)) => return refuse("the policy", &faults),
        Err(error) => return fail(error),
    };
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => return fail(error),
    };
    let http = listener.local_addr().unwrap_or(config.http);
    introduce(&config, http, &store);
    let parts = Parts {
        state_file: Some(config.data_dir.join(STATE_FILE)),
        statistics_file: Some(config.data_dir.join(STATISTICS_FILE)),
        config,
        listener,
        clock: Arc::new(SystemClock::new()),
        seed,
        store,
        workers: Workers::Threads,
    };
    match node::run(parts, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// The policy of the very first start.
fn initial(config: &Config) -> Result<Document, Vec<Fault>> {
    let Some(path) = &config.policy_file else {
        return Ok(tidegate::policy::builtin());
    };
    let bytes = std::fs::read(path).map_err(|e| vec![Fault::new("", format!("{}: {e}", path.display()))])?;
    match path.extension().is_some_and(|extension| extension == "json") {
        true => Document::from_json(&bytes),
        false => Document::from_toml(&bytes),
    }
}

/// Every connection takes a descriptor, and the usual soft limit of 1024 is less than a node may have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}

/// Done at the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(i32::from(FAILED));
        });
    })
}

/// A few lines on what runs where, and one to paste.
fn introduce(config: &Config, http: std::net::SocketAddr, store: &LocalStore) {
    let policy = store.current();
    let (tiers, tenants) = (policy.document().tiers.len(), policy.document().tenants.len());
    println!("tidegate {}  node {}  http://{http}", env!("CARGO_PKG_VERSION"), config.node);
    println!(
        "  policy  version {}, {tiers} tiers, {tenants} tenants, default tier {}",
        policy.version(),
        policy.document().default_tier
    );
    println!("  data    {}", config.data_dir.display());
    println!(
        "  access  {}",
        if config.tokens.is_empty() { "open (no [auth]; loopback only)" } else { "by token" }
    );
    if config.nodes.len() > 1 {
        println!(
            "  note    the file lists {} other nodes; this version's nodes don't share their counts",
            config.nodes.len() - 1
        );
    }
    println!("  try     curl -s http://{http}/v1/check -d '{{\"tenant\":\"acme\"}}'");
}
