//! `tidegate [serve]`: runs a node on real sockets until it is told to stop, or has left its
//! cluster.
//!
//! Who the node is, its data says, if there is any. A node without data is one of the
//! configuration's; or with `--join` one that asks a cluster to admit it ([`join`]). One that turns
//! out to have to join only while it runs is stopped, and started again.

mod hangup;
mod join;
mod service;

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use tidegate::check::Name;
use tidegate::clock::SystemClock;
use tidegate::cluster::peer_keys::PEER_KEYS_FILE;
use tidegate::cluster::raft::{FILE, Place};
use tidegate::cluster::{InForce, MemberError, PolicyStore, peer_keys};
use tidegate::config::{
    ADMIN_VARIABLE, Config, Own, PEER_VARIABLE, PeerKeySource, PeerSecret, Role, Tls,
    unused_admin_variable,
};
use tidegate::files;
use tidegate::input::Fault;
use tidegate::net::{Bound, Listen, Network, Plain, PlainListener};
use tidegate::node::{Node, NodeError, Parts, PeerKeys, Workers};
use tidegate::peer::Key;
use tidegate::policy::Document;
use tidegate::random::system_seed;
use tidegate::telemetry::log::{Filter, print, print_error};

use super::client::ServerArgs;
use super::failure::Failure;
use super::{ServeArgs, variables};
use hangup::{Hangups, Reloaded};
use join::{Joining, Settled};
use service::Service;

/// A node outlives the reader of its log: a line that can't be written is lost, where the standard
/// macros panic.
macro_rules! println {
    ($($text:tt)*) => { print(&(format!($($text)*) + "\n")) };
}

/// The same on standard error.
macro_rules! eprintln {
    ($($text:tt)*) => { print_error(&(format!($($text)*) + "\n")) };
}

/// Something was wrong while running.
const FAILED: u8 = 1;
/// The command line or a file it names is wrong.
const USAGE: u8 = 2;
/// What a node remembers over a graceful stop, in its data directory.
pub(super) const STATE_FILE: &str = "counts.state";
/// The statistics of past hours, beside it.
const STATISTICS_FILE: &str = "stats.redb";

/// All that a node writes, each in its data directory; `partial` ones are on their way into place.
const KEPT_FILES: [&str; 6] =
    [FILE, STATE_FILE, STATISTICS_FILE, PEER_KEYS_FILE, "counts.partial", "peers.partial"];

/// How long the introduction of a node that is alone waits until it may be asked: a fsync or two.
const STARTED_WITHIN: Duration = Duration::from_secs(5);

/// How long an address that an earlier run of this process had may take to be free, and how often
/// that is tried.
const FREE_WITHIN: Duration = Duration::from_secs(5);
const FREE_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Runs the node that the arguments describe.
pub fn run(arguments: ServeArgs, server: ServerArgs) -> ExitCode {
    // Two threads: accepting goes on while a large policy is being read.
    let mut control = tokio::runtime::Builder::new_multi_thread();
    match control.worker_threads(2).thread_name("control").enable_all().build() {
        Ok(runtime) => runtime.block_on(configured(arguments, server)),
        Err(error) => fail(error),
    }
}

/// Reads the configuration, starts the log by what it says, and runs the node.
async fn configured(arguments: ServeArgs, server: ServerArgs) -> ExitCode {
    let hangups = match Hangups::catch() {
        Ok(hangups) => hangups,
        Err(error) => return fail(error),
    };
    let ServeArgs { place, join, rejoin, weight, http_hosts, insecure_no_auth, .. } = arguments;
    let ServeArgs { log, log_format, stop_at_eof, .. } = arguments;
    let own = place.own();
    // The tokens of a node that was admitted come with its data.
    let may_have_tokens = !insecure_no_auth && (own.may_have_tokens || join.is_some());
    let (config, looked_up) =
        place.load(&Own { weight, hosts: http_hosts, insecure_no_auth, may_have_tokens, ..own });
    let config = match config.and_then(|config| Ok((filter_of(log.clone(), &config)?, config))) {
        Ok(config) => config,
        Err(faults) => return refuse("the configuration", &faults),
    };
    let (filter, config) = config;
    let running = tidegate::telemetry::log::start(log_format.into(), &filter);
    let reloaded = Arc::new(Reloaded::default());
    if let Some(path) =
        place.config.clone().filter(|_| log.is_none() && config.log_filter.is_some())
    {
        reloaded.log_of(running, path);
    }
    tokio::spawn(hangups.answer(reloaded.clone()));
    for warning in variables::warnings(variables::ours(), &looked_up) {
        tracing::warn!("{warning}");
    }
    let admin = std::env::var(ADMIN_VARIABLE).unwrap_or_default();
    if let Some(warning) = unused_admin_variable(&config.tokens, &admin) {
        tracing::warn!("{warning}");
    }
    if config.has_peers_section
        && !looked_up.contains(PEER_VARIABLE)
        && std::env::var_os(PEER_VARIABLE).is_some()
    {
        tracing::warn!("{PEER_VARIABLE} is set and not read: [peers] is configured");
    }
    let (has_file, is_named) = (place.config.is_some(), place.node.is_some());
    let has_tls = config.tls.as_ref().is_some_and(|tls| tls.http);
    let url = join.map(|join| join::url_of(&join, has_tls));
    if rejoin && url.is_none() {
        return fail_usage("--rejoin goes with --join");
    }
    let joining = Joining { url, rejoin, must_join: false, server, has_file, is_named };
    serve(config, joining, reloaded, stop_at_eof).await
}

/// What is logged: what the line says, else what the configuration says.
fn filter_of(log: Option<Filter>, config: &Config) -> Result<Filter, Vec<Fault>> {
    match (log, &config.log_filter) {
        (Some(filter), _) => Ok(filter),
        (None, Some(text)) => {
            text.parse().map_err(|why: String| vec![Fault::new("log.filter", why)])
        }
        (None, None) => Ok(Filter::default()),
    }
}

fn fail(error: impl Display) -> ExitCode {
    eprintln!("tidegate: {error}");
    ExitCode::from(FAILED)
}

fn fail_usage(why: &str) -> ExitCode {
    eprintln!("tidegate: {why}");
    ExitCode::from(USAGE)
}

fn refuse(what: &str, faults: &[Fault]) -> ExitCode {
    eprintln!("tidegate: {what} is not valid");
    faults.iter().for_each(|fault| eprintln!("  {fault}"));
    ExitCode::from(USAGE)
}

/// How a run of the node ended.
enum Run {
    /// The process ends too.
    Ended(ExitCode),
    /// A cluster was found that this node is no member of: it is to be started again, and to ask
    /// for admission.
    Joins,
}

async fn serve(
    config: Config,
    mut joining: Joining,
    reloaded: Arc<Reloaded>,
    stop_at_eof: bool,
) -> ExitCode {
    raise_descriptor_limit();
    if let Err(error) = ignore_other_signals() {
        return fail(error);
    }
    let stop = match stop_signal(stop_at_eof) {
        Ok(stop) => stop,
        Err(error) => return fail(error),
    };
    config.tls.iter().for_each(|tls| reloaded.certificates_of(tls));
    for warning in open_to_others(&config) {
        tracing::warn!("{warning}");
    }
    let mut stop = pin!(stop);
    loop {
        match serve_once((&config, &joining, &reloaded), stop.as_mut()).await {
            Run::Ended(code) => return code,
            Run::Joins => joining.must_join = true,
        }
    }
}

async fn serve_once(
    (config, joining, reloaded): (&Config, &Joining, &Reloaded),
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Run {
    let listener = match bind_again(config.http, joining.must_join).await {
        Ok(listener) => listener,
        Err(error) => return Run::Ended(fail(format!("can't listen on {}: {error}", config.http))),
    };
    let what = (config, joining, reloaded);
    let Some(Tls { http, tls, .. }) = &config.tls else {
        return match listen_for_peers(config.peer, PlainListener::bind).await {
            Ok(peers) => run_node(what, listener, peers, Plain::default(), stop).await,
            Err(error) => Run::Ended(fail(error)),
        };
    };
    let (http, tls) = (*http, tls.clone());
    let peers = match listen_for_peers(config.peer, TcpListener::bind).await {
        Ok(peers) => peers.map(|peers| tls.peers(peers)),
        Err(error) => return Run::Ended(fail(error)),
    };
    match http {
        true => run_node(what, tls.door(listener), peers, tls.network(), stop).await,
        false => run_node(what, listener, peers, tls.network(), stop).await,
    }
}

/// Takes `address`, so that a port in use is told first; it is listened on once the node answers. A
/// run that follows another one of this process waits a moment for the address to be free again.
async fn bind_again(address: SocketAddr, follows: bool) -> std::io::Result<Bound> {
    let mut waited = Duration::ZERO;
    loop {
        match Bound::bind(address) {
            Err(error) if follows && is_taken(&error) && waited < FREE_WITHIN => {
                tokio::time::sleep(FREE_AGAIN_AFTER).await;
                waited += FREE_AGAIN_AFTER;
            }
            bound => return bound,
        }
    }
}

/// What `bind` makes of the address for peers, if there is one.
async fn listen_for_peers<L>(
    address: Option<SocketAddr>,
    bind: impl AsyncFn(SocketAddr) -> std::io::Result<L>,
) -> Result<Option<L>, String> {
    let Some(address) = address else { return Ok(None) };
    let bound = match bind(address).await {
        // All addresses are those of IPv4 where the machine has no others.
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && !is_taken(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into()).await
        }
        bound => bound,
    };
    bound.map(Some).map_err(|error| format!("can't listen for peers on {address}: {error}"))
}

fn is_taken(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrInUse
}

/// Runs the node on what it listens on and dials with.
async fn run_node<L: Listen, P: Listen, N: Network>(
    (config, joining, reloaded): (&Config, &Joining, &Reloaded),
    listener: L,
    mut peers: Option<P>,
    network: N,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Run {
    let seed = match system_seed() {
        Ok(seed) => seed,
        Err(error) => return Run::Ended(fail(format!("the system gives no randomness: {error}"))),
    };
    let service = Service::follow();
    let http = listener.local_addr().unwrap_or(config.http);
    let (place, first) = (Place::Directory(config.data_dir.clone()), config.policy_file.clone());
    let had_data = matches!(place.found(), Ok(Some(found)) if !found.is_blank);
    let mut stop = stop;
    let settling = joining.settle(config.clone(), &place, http, peers.as_mut());
    let Settled { config, members, newcomer } = match or_stopped(settling, stop.as_mut()).await {
        None => return Run::Ended(ExitCode::SUCCESS),
        Some(Ok(settled)) => settled,
        Some(Err(failure)) => return Run::Ended(told(&failure)),
    };
    let (peer_keys, peers_know) = match peer_keys(&config) {
        Ok(keys) => keys,
        Err(error) => return Run::Ended(fail(error)),
    };
    let to_keep = config.keeps_peer_keys(peers_know).then(|| peer_keys.keys.clone());
    let parts = Parts {
        state_file: Some(config.data_dir.join(STATE_FILE)),
        statistics_file: Some(config.data_dir.join(STATISTICS_FILE)),
        config: config.clone(),
        listener,
        peers,
        network,
        clock: Arc::new(SystemClock::new()),
        seed,
        place,
        initial: Box::new(move || initial(first.as_deref())),
        newcomer,
        peer_keys,
        workers: Workers::Threads,
    };
    let node = match Node::start(parts).await {
        Ok(node) => node,
        Err(NodeError::Member(MemberError::Invalid(faults))) => {
            return Run::Ended(refuse("the policy", &faults));
        }
        Err(error) => return Run::Ended(fail(error)),
    };
    reloaded.node_of(&config, node.tokens());
    if let Some(keys) = to_keep {
        tokio::spawn(keep_peer_keys(
            node.member().in_force().clone(),
            config.data_dir.clone(),
            keys,
        ));
    }
    if members.len() == 1 {
        // Nobody else is needed for it. Should it take long, the log says why.
        let _ = tokio::time::timeout(STARTED_WITHIN, node.is_started()).await;
    }
    introduce(&config, (&members, peers_know), http, &node);
    if let Some(file) = config.policy_file.as_deref().filter(|_| had_data) {
        warn_of_ignored_policy(file, &node, &flags_to_ask(&config, http));
    }
    service.has_started(node.unready());
    let (member, mut found) = (node.member().clone(), None);
    let stopping = async {
        tokio::select! {
            () = stop => service.stops(),
            cluster = joining.finds_cluster(&config, http, &member, newcomer) => found = Some(cluster),
        }
        drop(member);
    };
    match (node.run(stopping).await, found) {
        (Ok(()), None) => Run::Ended(ExitCode::SUCCESS),
        (Ok(()), Some(Ok(()))) => Run::Joins,
        (Ok(()), Some(Err(failure))) => Run::Ended(told(&failure)),
        (Err(error), _) => Run::Ended(fail(error)),
    }
}

/// The outcome of `work`, if the node wasn't told to stop before.
async fn or_stopped<T>(
    work: impl Future<Output = T>,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Option<T> {
    tokio::select! {
        biased;
        () = stop => None,
        outcome = work => Some(outcome),
    }
}

fn told(failure: &Failure) -> ExitCode {
    eprintln!("tidegate: {failure}");
    ExitCode::from(failure.exit().code())
}

/// The policy of the very first start.
fn initial(file: Option<&Path>) -> Result<Document, Vec<Fault>> {
    let Some(path) = file else {
        return Ok(tidegate::policy::builtin());
    };
    let bytes = std::fs::read(path)
        .map_err(|e| vec![Fault::new("", format!("{}: {e}", path.display()))])?;
    policy_of(path, &bytes)
}

/// The policy in a file: JSON where its name says so, else TOML.
pub fn policy_of(path: &Path, bytes: &[u8]) -> Result<Document, Vec<Fault>> {
    if is_json(path) { Document::from_json(bytes) } else { Document::from_toml(bytes) }
}

/// Whether a policy file is JSON.
pub fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// Every connection takes a descriptor, and the usual soft limit of 1024 is less than a node may
/// have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}

/// From here on no signal ends the node but those that stop it and SIGKILL. (The standard library
/// ignores SIGPIPE.)
fn ignore_other_signals() -> std::io::Result<()> {
    let ignored = [
        (SignalKind::user_defined1(), "SIGUSR1"),
        (SignalKind::user_defined2(), "SIGUSR2"),
        (SignalKind::quit(), "SIGQUIT"),
    ];
    for (kind, name) in ignored {
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("{name} means nothing to a node: it goes on; SIGTERM stops it");
            }
        });
    }
    Ok(())
}

/// Done at the first SIGTERM or SIGINT, or at the end of standard input where that counts; a signal
/// after that ends the process at once.
fn stop_signal(at_eof: bool) -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let input = at_eof.then(end_of_input).transpose()?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
            Some(Ok(())) = async { Some(input?.await) } => {}
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

/// Says when standard input has ended. A thread waits for it: one of the runtime's would keep the
/// process from ending.
fn end_of_input() -> std::io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("input".into()).spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    })?;
    Ok(receiver)
}

/// A few lines on what runs where, and one to paste.
fn introduce(
    config: &Config,
    (members, peers_know): (&[Name], PeerKeySource),
    http: SocketAddr,
    node: &Node,
) {
    let url = url_of(config, http);
    println!("tidegate {}  node {}  {url}", env!("CARGO_PKG_VERSION"), config.node);
    if members.len() > 1 {
        let names: Vec<_> = members.iter().map(Name::as_str).collect();
        println!("  cluster {}: {}", config.cluster, names.join(", "));
    }
    let policy = node.member().current();
    match policy.version() {
        0 => println!("  policy  the cluster's, once a majority of its nodes is there"),
        version => println!(
            "  policy  version {version}, {} tiers, {} tenants, default tier {}",
            policy.document().tiers.len(),
            policy.document().tenants.len(),
            policy.document().default_tier
        ),
    }
    if policy.version() > 0 && !policy.document().enforce {
        println!("  enforce off: no limit denies until `tidegate policy enforce on`");
    }
    println!("  data    {}", config.data_dir.display());
    if let Some(tls) = &config.tls {
        let until =
            tls.until.map(|until| format!(", certificate until {until}")).unwrap_or_default();
        println!("  tls     {}{until}", if tls.http { "peers and HTTP" } else { "peers" });
    }
    println!("  access  {}", access_of(config, http));
    if config.peer.is_some() {
        println!("  peers   {}", peers_of(config, peers_know));
    }
    let try_it = call_to_try(config, http);
    println!("  try     {try_it}");
}

/// The URL of this node's HTTP API at an address.
fn url_of(config: &Config, http: SocketAddr) -> String {
    let has_tls = config.tls.as_ref().is_some_and(|tls| tls.http);
    format!("{}://{http}", if has_tls { "https" } else { "http" })
}

/// The keys by which this node and its peers know each other, and where the one to prove with is
/// from.
fn peer_keys(config: &Config) -> Result<(PeerKeys, PeerKeySource), String> {
    let kept = peer_keys::load(&config.data_dir).map_err(|error| error.to_string())?;
    let are_kept = kept.is_some();
    let kept: Vec<_> = kept.unwrap_or_default().iter().map(|key| *key.bytes()).collect();
    let (keys, source) = config.peer_keys(&kept);
    let lists_auth = config.peer_secrets.contains(&PeerSecret::Auth);
    if lists_auth && kept.is_empty() && config.tokens.iter().all(|token| token.role != Role::Admin)
    {
        let why = "\"auth\" among the peer secrets is the secret that follows from the admin \
                   tokens, and there is none";
        return Err(why.into());
    }
    Ok((PeerKeys { keys: keys.into_iter().map(Key::new).collect(), are_kept }, source))
}

/// Keeps the keys in the data directory once this node is part of its cluster: until then they may
/// be wrong.
async fn keep_peer_keys(in_force: Arc<InForce>, directory: PathBuf, keys: Vec<Key>) {
    in_force.until(InForce::is_registered).await;
    let saved = tokio::task::spawn_blocking(move || peer_keys::save(&directory, &keys)).await;
    if let Ok(Err(error)) = saved {
        tracing::error!(%error, "the peer keys are not kept: a start without the same secret has \
                                 another key");
    }
}

/// Narrows the modes of the data directory and its files, and returns a warning for what others
/// than this process's user may read all the same: the directory, a TLS key, the file of a token or
/// a peer secret.
fn open_to_others(config: &Config) -> Vec<String> {
    let mut warnings = files::narrow(&config.data_dir, &KEPT_FILES);
    let keys = config.tls.iter().flat_map(Tls::keys).map(|path| ("the TLS key", path));
    let tokens =
        config.tokens.iter().filter_map(|token| Some(("the token file", token.file.as_deref()?)));
    let secrets =
        config.peer_secret_files.iter().map(|path| ("the file of the peer secret", path.as_path()));
    for (what, path) in keys.chain(tokens).chain(secrets) {
        warnings.extend(files::too_open(what, path).filter(|told| !warnings.contains(told)));
    }
    warnings
}

/// How peers are known, in a few words.
fn peers_of(config: &Config, source: PeerKeySource) -> &'static str {
    match (source, config.tls.is_some()) {
        (PeerKeySource::Configured, _) => "by secret ([peers] secret or TIDEGATE_PEER_SECRET)",
        (PeerKeySource::Kept, _) => "by secret (peers.keys in the data directory)",
        (PeerKeySource::AdminTokens, _) => "by secret (from the admin tokens)",
        (PeerKeySource::Nowhere, true) => {
            "by certificate alone (no [peers] secret, no admin token)"
        }
        (PeerKeySource::Nowhere, false) => {
            "open (no [peers] secret, no admin token; loopback only)"
        }
    }
}

/// The flags by which a command on this machine asks this node.
fn flags_to_ask(config: &Config, http: SocketAddr) -> String {
    let mut flags = format!("--url {}", url_of(config, dialled(http)));
    if let Some(ca) = config.tls.as_ref().filter(|tls| tls.http).and_then(Tls::client_ca) {
        flags.push_str(&format!(" --ca-cert {}", quoted(&ca.display().to_string())));
    }
    flags
}

/// Who may ask, in a few words.
fn access_of(config: &Config, http: SocketAddr) -> &'static str {
    match (config.tokens.is_empty(), http.ip().is_loopback()) {
        (false, _) => "by token",
        (true, true) => "open (no [auth]; loopback only)",
        (true, false) => "open to every machine that reaches it (--insecure-no-auth)",
    }
}

/// A line that decides a check when it is pasted into a shell of this machine.
fn call_to_try(config: &Config, http: SocketAddr) -> String {
    let tls = config.tls.as_ref().filter(|tls| tls.http);
    let mut call = String::from("curl -s");
    if let Some(ca) = tls.and_then(Tls::client_ca) {
        call.push_str(&format!(" --cacert {}", quoted(&ca.display().to_string())));
    }
    if config.tokens.iter().any(|token| token.role == Role::Check) {
        // A secret is never printed: the shell puts it in.
        call.push_str(" -H \"Authorization: Bearer $TIDEGATE_TOKEN\"");
    }
    format!("{call} {}/v1/check -d '{{\"tenant\":\"acme\"}}'", url_of(config, dialled(http)))
}

/// An address by which this machine reaches itself: a node that listens everywhere is on loopback
/// too.
fn dialled(http: SocketAddr) -> SocketAddr {
    let ip = match http.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, http.port())
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%".contains(&b);
    match word.bytes().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Warns that the policy of the configuration is not the one in force, where that is so. A node
/// reads the file at its cluster's very first start and never again.
fn warn_of_ignored_policy(file: &Path, node: &Node, server: &str) {
    let current = node.member().current();
    let same = match initial(Some(file)) {
        Ok(document) if current.version() > 0 && document == *current.document() => return,
        Ok(_) => String::new(),
        Err(faults) => faults.first().map(|fault| format!(" ({fault})")).unwrap_or_default(),
    };
    let in_force = match current.version() {
        0 => "the cluster's".into(),
        version => format!("version {version}"),
    };
    tracing::warn!(
        "[policy] file {file} is ignored{same}: this node has data, and the policy in force is \
         {in_force}; to put the file in force: tidegate policy apply {file} {server}",
        file = quoted(&std::path::absolute(file).as_deref().unwrap_or(file).display().to_string()),
    );
}
