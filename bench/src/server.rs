//! Starting what is measured, and stopping it again whatever happens: a `Server` that is dropped is
//! killed and waited for.
//!
//! A node, or the nodes of a cluster, get a directory of their own with `cluster.toml`,
//! `policy.toml`, their data and their logs; the directory goes when they do. No `TIDEGATE_…`
//! variable of the caller's environment reaches them.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::bare;
use crate::clock;
use crate::interrupt;
use crate::scenario::{TENANTS_MAX, Tier, policy};

/// A lone node elects itself and listens within a second, a cluster in two; a machine busy with a
/// build takes longer.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
const READY_ASK_EVERY: Duration = Duration::from_millis(20);
/// A back-up of millions of tenants takes some seconds.
const BACK_UP_WAIT_MAX: Duration = Duration::from_secs(60);
/// For one question to `/readyz` or `/v1/cluster`.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(2);
/// The most bytes of an answer to it.
const PROBE_BYTES_MAX: u64 = 1 << 20;
/// What an error shows of it.
const LOG_TAIL_LINES: usize = 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Candidate {
    /// The node as it is shipped.
    Tidegate,
    /// The node as `cargo build --release` builds it, without link-time optimization.
    Release,
    /// The axum service that decides nothing.
    Bare,
}

impl Candidate {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Release => "release",
            Self::Bare => "bare",
        }
    }
}

/// A candidate's processes, which answer on their addresses: one, or one for each node of a
/// cluster.
#[derive(Debug)]
pub struct Server {
    processes: Vec<Process>,
    addresses: Vec<SocketAddr>,
    /// Removed after the processes have ended: fields are dropped in this order.
    home: Option<TempDir>,
}

/// How a cluster stands as one of its nodes sees it: the part of `/v1/cluster` that matters here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Standing {
    /// The node that leads.
    pub leader: Option<String>,
    /// Raft's term, which rises with every election.
    pub term: u64,
    pub nodes: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    pub id: String,
    /// Of 4096: those that it owns.
    pub partitions: u64,
}

/// The part of `/v1/cluster/breakers` that matters here: whether a node is connected to the others.
#[derive(Deserialize)]
struct Links {
    breakers: Vec<Linked>,
}

#[derive(Deserialize)]
struct Linked {
    connected: bool,
}

impl Server {
    /// Starts a candidate whose every tenant is in `tier`, and returns once it is ready.
    pub fn start(
        candidate: Candidate,
        node_binary: &Path,
        tier: Tier,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        match candidate {
            Candidate::Tidegate | Candidate::Release => Self::start_nodes(node_binary, tier, 1),
            Candidate::Bare => Self::start_bare(tier),
        }
    }

    /// Starts `count` nodes of one cluster, at least one, and returns once each of them owns its
    /// part and is connected to all others.
    pub fn start_nodes(
        binary: &Path,
        tier: Tier,
        count: usize,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut server = Self::begin_nodes(binary, tier, count)?;
        let ready = server
            .wait_until(|node| is_ready(node) && is_placed(node, count) && is_linked(node, count));
        ready.map_err(|cause| format!("{cause}{}", server.last_words()))?;
        Ok(server)
    }

    /// Starts `count` nodes of one cluster, at least one, and returns before any of them is ready.
    pub fn begin_nodes(
        binary: &Path,
        tier: Tier,
        count: usize,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let binary = found(binary)?;
        let home = TempDir::with_prefix("tidegate-bench-")?;
        let nodes = free_addresses(2 * count)?;
        let (addresses, peers) = nodes.split_at(count);
        fs::write(home.path().join("policy.toml"), policy(tier))?;
        fs::write(home.path().join("cluster.toml"), cluster(addresses, peers))?;
        let mut processes = Vec::new();
        for index in 0..count {
            processes.push(start_node(&binary, home.path(), index, [])?);
        }
        Ok(Self { processes, addresses: addresses.to_vec(), home: Some(home) })
    }

    /// Starts one more node, which joins the first one's cluster, and returns once it is admitted.
    /// It is not waited for until it owns anything.
    pub fn join(&mut self, binary: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        let home = self.home.as_ref().ok_or("the bare service has no cluster")?;
        let (index, first) = (self.addresses.len(), self.addresses[0]);
        let (name, nodes) = (node_name(index), free_addresses(2)?);
        let [http, peer] = [nodes[0], nodes[1]].map(|address| address.to_string());
        let joins =
            ["--http", &http, "--peer", &peer, "--data-dir", &format!("data/{name}"), "--join"];
        let joins = joins.into_iter().map(str::to_owned).chain([format!("http://{first}")]);
        self.processes.push(start_node(&found(binary)?, home.path(), index, joins)?);
        self.addresses.push(nodes[0]);
        let joined = self.wait_until(|node| is_ready(node) && is_linked(node, index + 1));
        joined.map_err(|cause| format!("{cause}{}", self.last_words()).into())
    }

    /// Has its first node hand everything over to the others.
    pub fn drain_first(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let answer =
            ask(self.addresses[0], "POST", &format!("/v1/cluster/nodes/{}/drain", node_name(0)))?;
        match answer.starts_with(b"HTTP/1.1 202") {
            true => Ok(()),
            false => {
                Err(format!("it may not be drained: {}", String::from_utf8_lossy(&answer)).into())
            }
        }
    }

    /// Has its first node make a back-up of them all, and reads it; its bytes.
    pub fn back_up(&self) -> Result<usize, Box<dyn Error + Send + Sync>> {
        let answer =
            ask_within(BACK_UP_WAIT_MAX, self.addresses[0], "GET", "/v1/cluster/backup", u64::MAX)?;
        match answer.starts_with(b"HTTP/1.1 200") {
            true => Ok(answer.len()),
            false => {
                Err(format!("there is no back-up: {}", String::from_utf8_lossy(&answer)).into())
            }
        }
    }

    /// What the metrics of its first node say, a line for each.
    pub fn metrics_of_first(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        Ok(String::from_utf8(get(self.addresses[0], "/metrics")?)?)
    }

    /// The process of each node.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.0.id()).collect()
    }

    /// The address of each node, the first one's first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How the cluster stands, as each of its nodes sees it.
    pub fn standings(&self) -> Result<Vec<Standing>, Box<dyn Error + Send + Sync>> {
        self.addresses.iter().map(|node| standing(*node)).collect()
    }

    /// What can be added to an error that this server may have caused: how it ended, and the end of
    /// its log.
    pub fn last_words(&mut self) -> String {
        let mut words = String::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            let name = node_name(index);
            if let Ok(Some(status)) = process.0.try_wait() {
                words.push_str(&format!("; the server {name} has ended ({status})"));
            }
            if let Some(home) = &self.home {
                let tail = log_tail(&log_of(home.path(), index));
                words.push_str(&format!("; the log of {name} ends:\n{tail}"));
            }
        }
        words
    }

    fn start_bare(tier: Tier) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bare", "--port", "0", "--tier", tier.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::start(command)
            .map_err(|cause| format!("cannot start the bare service: {cause}"))?;
        let mut line = String::new();
        if let Some(output) = process.0.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line
            .trim_end()
            .strip_prefix(bare::ADDRESS_PREFIX)
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("the bare service told no address but {line:?}"))?;
        let mut server = Self { processes: vec![process], addresses: vec![address], home: None };
        server.wait_until(is_ready)?;
        Ok(server)
    }

    fn wait_until(
        &mut self,
        fits: impl Fn(SocketAddr) -> bool,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let deadline = clock::now() + READY_WAIT_MAX;
        while !self.addresses.iter().all(|node| fits(*node)) {
            interrupt::check()?;
            for process in &mut self.processes {
                if process.0.try_wait()?.is_some() {
                    return Err("the server was never ready".into());
                }
            }
            if clock::now() >= deadline {
                return Err(format!("the server was not ready within {READY_WAIT_MAX:?}").into());
            }
            clock::pause(READY_ASK_EVERY);
        }
        Ok(())
    }
}

fn found(binary: &Path) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    fs::canonicalize(binary).map_err(|cause| {
        format!(
            "no node at {}: {cause}; build one with `cargo build --profile dist`, or name it with \
             --node-binary",
            binary.display()
        )
        .into()
    })
}

fn start_node(
    binary: &Path,
    home: &Path,
    index: usize,
    more: impl IntoIterator<Item = String>,
) -> Result<Process, Box<dyn Error + Send + Sync>> {
    let log = File::create(log_of(home, index))?;
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
        .args(["serve", "--node", &node_name(index), "--config"])
        .arg(home.join("cluster.toml"))
        .args(more)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Process::start(command)
        .map_err(|cause| format!("cannot start {}: {cause}", binary.display()).into())
}

/// A child that doesn't outlive its handle.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> std::io::Result<Self> {
        command.spawn().map(Self)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if the process has ended by itself, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the node that is started as the `index`-th is called.
pub fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

/// Where its output goes.
fn log_of(home: &Path, index: usize) -> PathBuf {
    home.join(format!("{}.log", node_name(index)))
}

/// The configuration of as many nodes as there are addresses, each of which can take in whoever is
/// asked for.
fn cluster(addresses: &[SocketAddr], peers: &[SocketAddr]) -> String {
    let mut text = format!(
        "[cluster]\nname = \"bench\"\n\n[policy]\nfile = \
         \"policy.toml\"\n\n[limits]\nunknown_tenants = {}\nkeys = {}\n",
        2 * TENANTS_MAX,
        4 * TENANTS_MAX
    );
    for (index, (http, peer)) in addresses.iter().zip(peers).enumerate() {
        let name = node_name(index);
        text.push_str(&format!(
            "\n[[nodes]]\nid = \"{name}\"\nhttp = \"{http}\"\ndata_dir = \"data/{name}\"\npeer = \
             \"{peer}\"\n"
        ));
    }
    text
}

/// Addresses that were free a moment ago, all of them different. Should somebody take one
/// meanwhile, a node doesn't start and the run fails.
fn free_addresses(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let listeners: std::io::Result<Vec<_>> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    listeners?.iter().map(TcpListener::local_addr).collect()
}

/// Refused, cut off or silent all mean the same here: not yet.
pub fn is_ready(node: SocketAddr) -> bool {
    get(node, "/readyz").is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}

/// Whether each of `count` members owns a part of the tenants, as this node sees it.
fn is_placed(node: SocketAddr, count: usize) -> bool {
    let owns =
        |standing: &Standing| standing.nodes.iter().filter(|member| member.partitions > 0).count();
    standing(node).is_ok_and(|standing| owns(&standing) == count)
}

/// Whether it is connected to all others of `count`.
fn is_linked(node: SocketAddr, count: usize) -> bool {
    let links: Result<Links, _> = get_json(node, "/v1/cluster/breakers");
    links
        .is_ok_and(|links| links.breakers.iter().filter(|link| link.connected).count() + 1 == count)
}

fn standing(node: SocketAddr) -> Result<Standing, Box<dyn Error + Send + Sync>> {
    get_json(node, "/v1/cluster")
}

fn get_json<T: DeserializeOwned>(
    node: SocketAddr,
    path: &str,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    let answer = get(node, path)?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    Ok(serde_json::from_slice(body.unwrap_or_default())?)
}

fn get(node: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    ask(node, "GET", path)
}

/// The whole answer to one question, head and body.
pub fn ask(node: SocketAddr, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
    ask_within(PROBE_WAIT_MAX, node, method, path, PROBE_BYTES_MAX)
}

/// The whole answer to a `POST` of JSON.
pub fn post(node: SocketAddr, path: &str, body: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&node, PROBE_WAIT_MAX)?;
    stream.set_read_timeout(Some(PROBE_WAIT_MAX))?;
    stream.set_write_timeout(Some(PROBE_WAIT_MAX))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.take(PROBE_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The same of an answer that may be long, and long in coming.
fn ask_within(
    wait: Duration,
    node: SocketAddr,
    method: &str,
    path: &str,
    most: u64,
) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&node, PROBE_WAIT_MAX)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(most).read_to_end(&mut answer)?;
    Ok(answer)
}

fn log_tail(path: &Path) -> String {
    let log = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(cause) => return format!("({cause})"),
    };
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_is_named_with_the_way_to_get_one() {
        let error = Server::start(Candidate::Tidegate, Path::new("no/such/node"), Tier::Two)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("no node at no/such/node"), "{error}");
        assert!(error.contains("--node-binary"), "{error}");
    }

    #[test]
    fn a_node_that_ends_at_once_is_an_error_that_shows_its_log() {
        let folder = TempDir::new().unwrap();
        let script = folder.path().join("node");
        fs::write(&script, "#!/bin/sh\necho out of tide >&2\nexit 3\n").unwrap();
        let mut permissions = fs::metadata(&script).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(&script, permissions).unwrap();
        let error = Server::start(Candidate::Tidegate, &script, Tier::Two).unwrap_err().to_string();
        assert!(error.contains("out of tide"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn nobody_listening_is_not_ready() {
        assert!(!is_ready(free_addresses(1).unwrap()[0]));
    }

    #[test]
    fn a_cluster_lists_its_nodes_each_with_addresses_of_its_own() {
        let addresses = free_addresses(6).unwrap();
        let mut different = addresses.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 6);
        let text = cluster(&addresses[..3], &addresses[3..]);
        for (index, (http, peer)) in addresses[..3].iter().zip(&addresses[3..]).enumerate() {
            let name = node_name(index);
            assert!(text.contains(&format!("id = \"{name}\"\nhttp = \"{http}\"\n")), "{text}");
            assert!(
                text.contains(&format!("data_dir = \"data/{name}\"\npeer = \"{peer}\"\n")),
                "{text}"
            );
        }
    }
}
