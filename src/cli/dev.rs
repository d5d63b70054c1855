//! `tidegate dev`: a whole cluster on this machine, for as long as it is wanted.
//!
//! ```text
//! $ tidegate dev
//! NODE  HTTP                   PEER              PID  DATA
//! n1    http://127.0.0.1:7071  127.0.0.1:7171  12001  /tmp/tidegate-dev-x7Rk2a/n1
//! n2    http://127.0.0.1:7072  127.0.0.1:7172  12002  /tmp/tidegate-dev-x7Rk2a/n2
//! n3    http://127.0.0.1:7073  127.0.0.1:7173  12003  /tmp/tidegate-dev-x7Rk2a/n3
//!
//! config  /tmp/tidegate-dev-x7Rk2a/cluster.toml
//! try     curl -s http://127.0.0.1:7071/v1/check -d '{"tenant":"acme"}'
//! stop    Ctrl-C
//! ```
//!
//! Each node is a process of its own, so that one can be killed or paused to see what the others
//! do. What they log comes out here, each line with its node's name before it. At the end they are
//! stopped and the folder is removed; nothing stays.
//!
//! `processes` starts, watches and stops them. What a cluster does is the nodes' business.

mod processes;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::client::ServerArgs;
use super::failure::Failure;
use super::output::{Column, Output};
use super::{Exit, serve};
use processes::{Processes, Spec};

/// Nodes of one local cluster: their ports are a base and a digit.
const NODES_MAX: u16 = 9;
/// How long all nodes together may take to be ready. A cluster that elects a leader takes about two
/// seconds.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long they may take to stop before they are killed: [`DRAIN_MS`], and what it takes to save.
const STOP_MAX: Duration = Duration::from_secs(10);
/// What a node may take for the requests it has accepted, when it is told to stop.
const DRAIN_MS: u64 = 5_000;

/// Run a whole cluster on this machine
#[derive(clap::Args)]
#[command(after_help = "\
Each node is a process with its data in a temporary folder; their logs come out on stderr. Ctrl-C stops them all and removes
the folder. Of the variables of this program, TIDEGATE_LOG and TIDEGATE_LOG_FORMAT alone hold for the nodes.

Examples:
  tidegate dev
  tidegate dev --nodes 5 --policy policy.toml
  tidegate dev --http-port 0 --peer-port 0 -o json")]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// The policy, TOML or JSON; without it, the built-in one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The first node's port for HTTP, and the others' after it; 0 for any that are free
    #[arg(long, value_name = "PORT", default_value_t = 7071)]
    http_port: u16,
    /// The first node's port for the other nodes, and theirs after it; 0 for any that are free
    #[arg(long, value_name = "PORT", default_value_t = 7171)]
    peer_port: u16,
}

impl DevArgs {
    /// Runs the cluster until it is told to stop.
    pub fn run(self, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let policy = self.policy.as_deref().map(read_policy).transpose()?;
        let http = Wanted { base: self.http_port, flag: "--http-port", what: "HTTP" };
        let peer = Wanted { base: self.peer_port, flag: "--peer-port", what: "the other nodes" };
        if http.overlaps(&peer, self.nodes) {
            return Err(Failure::Usage(format!(
                "--http-port {} and --peer-port {} give one port to two nodes",
                http.base, peer.base
            )));
        }
        let reserved = (http.reserve(self.nodes)?, peer.reserve(self.nodes)?);
        let folder = tempfile::Builder::new().prefix("tidegate-dev-").tempdir();
        let folder =
            folder.map_err(|e| Failure::Failed(format!("can't make a temporary folder: {e}")))?;
        let nodes = nodes(folder.path(), &reserved.0, &reserved.1)?;
        let config = write_files(folder.path(), &nodes, policy)?;
        let program = std::env::current_exe();
        let program =
            program.map_err(|e| Failure::Failed(format!("can't find this program: {e}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|e| Failure::Failed(format!("can't start a runtime: {e}")))?;
        // They are the nodes' from here on.
        drop(reserved);
        let ran = runtime.block_on(watch(&program, &config, &nodes, out));
        // A node that is asked whether it is ready, and hangs, is not waited for.
        runtime.shutdown_background();
        let path = folder.path().to_path_buf();
        let removed = folder
            .close()
            .map_err(|e| Failure::Failed(format!("can't remove {}: {e}", path.display())));
        ran.and(removed).map(|()| Exit::Done)
    }
}

/// A policy that nodes will take: its file's name in the folder, and its bytes.
fn read_policy(path: &Path) -> Result<(&'static str, Vec<u8>), Failure> {
    let unreadable = |e: std::io::Error| Failure::Usage(format!("{}: {e}", path.display()));
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let name = if serve::is_json(path) { "policy.json" } else { "policy.toml" };
    if let Err(faults) = serve::policy_of(path, &bytes) {
        let faults: Vec<_> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
        let why = format!("{}: the policy is not valid{}", path.display(), faults.concat());
        return Err(Failure::Usage(why));
    }
    Ok((name, bytes))
}

/// Ports that somebody asked for.
struct Wanted {
    base: u16,
    flag: &'static str,
    /// What they are for, in words.
    what: &'static str,
}

impl Wanted {
    fn overlaps(&self, other: &Self, nodes: u16) -> bool {
        self.base != 0 && other.base != 0 && self.base.abs_diff(other.base) < nodes
    }

    /// Takes the ports until the nodes are started, so that one which somebody else has is named
    /// before anything begins.
    fn reserve(&self, nodes: u16) -> Result<Vec<TcpListener>, Failure> {
        let Self { base, flag, what } = self;
        if *base > u16::MAX - nodes {
            return Err(Failure::Usage(format!("{flag} {base} is too high for {nodes} nodes")));
        }
        let take = |at: u16| {
            let port = if *base == 0 { 0 } else { base + at };
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| {
                let why = format!("n{} can't have port {port} for {what}: {e}", at + 1);
                Failure::Failed(format!(
                    "{why}\n  {flag} chooses other ports, and {flag} 0 any that are free"
                ))
            })
        };
        (0..nodes).map(take).collect()
    }
}

/// One node of the cluster.
struct Node {
    id: String,
    http: SocketAddr,
    peer: SocketAddr,
    data_dir: PathBuf,
}

fn nodes(folder: &Path, http: &[TcpListener], peer: &[TcpListener]) -> Result<Vec<Node>, Failure> {
    let addresses =
        http.iter().zip(peer).map(|(http, peer)| Ok((http.local_addr()?, peer.local_addr()?)));
    let addresses: std::io::Result<Vec<_>> = addresses.collect();
    let addresses = addresses.map_err(|e| Failure::Failed(format!("can't take ports: {e}")))?;
    let node = |(number, (http, peer))| {
        let id = format!("n{number}");
        Node { data_dir: folder.join(&id), id, http, peer }
    };
    Ok((1..).zip(addresses).map(node).collect())
}

/// Writes what the nodes read; the answer is the configuration's path.
fn write_files(
    folder: &Path,
    nodes: &[Node],
    policy: Option<(&'static str, Vec<u8>)>,
) -> Result<PathBuf, Failure> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        let written = std::fs::write(&path, bytes);
        written
            .map_err(|e| Failure::Failed(format!("can't write {}: {e}", path.display())))
            .map(|()| path)
    };
    let file = policy.as_ref().map(|(name, _)| *name);
    if let Some((name, bytes)) = &policy {
        write(name, bytes)?;
    }
    write("cluster.toml", configuration(nodes, file).as_bytes())
}

/// `cluster.toml` of a cluster whose nodes share the machine's processors and stop without delay.
fn configuration(nodes: &[Node], policy: Option<&str>) -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = String::from(
        "# Made by `tidegate dev`, and gone when it ends.\n[cluster]\nname = \"dev\"\n",
    );
    for Node { id, http, peer, .. } in nodes {
        text.push_str(&format!(
            "\n[[nodes]]\nid = \"{id}\"\nhttp = \"{http}\"\npeer = \"{peer}\"\ndata_dir = \
             \"{id}\"\n"
        ));
    }
    if let Some(file) = policy {
        text.push_str(&format!("\n[policy]\nfile = \"{file}\"\n"));
    }
    let workers = processors.div_ceil(nodes.len());
    text + &format!("\n[limits]\nworkers = {workers}\nnotice_ms = 0\ndrain_ms = {DRAIN_MS}\n")
}

/// Starts the nodes, says where they are once all are ready, and watches them until it is told to
/// stop.
async fn watch(
    program: &Path,
    config: &Path,
    nodes: &[Node],
    out: &mut Output<'_>,
) -> Result<(), Failure> {
    let mut processes = Processes::new()?;
    let ran = run(&mut processes, program, config, nodes, out).await;
    // Whatever went wrong, none may stay behind.
    processes.stop(STOP_MAX, out).await;
    ran
}

async fn run(
    processes: &mut Processes,
    program: &Path,
    config: &Path,
    nodes: &[Node],
    out: &mut Output<'_>,
) -> Result<(), Failure> {
    for node in nodes {
        let words: [OsString; 6] = [
            "serve".into(),
            "--config".into(),
            config.into(),
            "--node".into(),
            node.id.clone().into(),
            // What ends this process, be it SIGKILL, closes its end of their standard input, and so
            // ends them.
            "--stop-at-eof".into(),
        ];
        let client =
            ServerArgs { url: format!("http://{}", node.http), token: None, ca_cert: None }
                .client()?;
        processes.start(Spec { id: &node.id, program, words: &words, client })?;
    }
    if processes.until_ready(READY_MAX, out).await? {
        introduce(config, nodes, &processes.pids(), out)?;
        processes.until_stopped(out).await?;
    }
    Ok(())
}

/// Says who is where, and what to try.
fn introduce(
    config: &Path,
    nodes: &[Node],
    pids: &[u32],
    out: &mut Output<'_>,
) -> Result<(), Failure> {
    let each = || nodes.iter().zip(pids);
    if out.is_json() {
        let nodes = each().map(|(node, pid)| {
            let Node { id, http, peer, data_dir } = node;
            json!({"id": id, "http": http, "peer": peer, "pid": pid, "data_dir": data_dir})
        });
        return out
            .json(&json!({"config": config, "nodes": nodes.collect::<Vec<_>>()}).to_string());
    }
    let columns = [
        Column::Left("NODE"),
        Column::Left("HTTP"),
        Column::Left("PEER"),
        Column::Right("PID"),
        Column::Left("DATA"),
    ];
    let row = |(node, pid): (&Node, &u32)| {
        let (http, data) = (format!("http://{}", node.http), node.data_dir.display().to_string());
        vec![node.id.clone(), http, node.peer.to_string(), pid.to_string(), data]
    };
    out.table(&columns, &each().map(row).collect::<Vec<_>>())?;
    out.line(&format!("\nconfig  {}", config.display()))?;
    if let Some(first) = nodes.first() {
        out.line(&format!("ask     export TIDEGATE_URL=http://{}", first.http))?;
        out.line(&format!(
            "try     curl -s http://{}/v1/check -d '{{\"tenant\":\"acme\"}}'",
            first.http
        ))?;
    }
    out.line("stop    Ctrl-C")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run_words, words};
    use super::*;
    use tidegate::config::Config;

    fn three() -> Vec<Node> {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let node = |n: u16| Node {
            id: format!("n{n}"),
            http: address(7070 + n),
            peer: address(7170 + n),
            data_dir: PathBuf::from(format!("/tmp/x/n{n}")),
        };
        (1..=3).map(node).collect()
    }

    #[test]
    fn its_configuration_is_one_that_every_node_takes() {
        for policy in [None, Some("policy.json")] {
            let text = configuration(&three(), policy);
            for node in ["n1", "n2", "n3"] {
                let config =
                    Config::read(text.as_bytes(), Path::new("/tmp/x"), Some(node), |_| None)
                        .unwrap();
                assert_eq!(config.data_dir, Path::new("/tmp/x").join(node));
                assert_eq!(config.policy_file, policy.map(|file| Path::new("/tmp/x").join(file)));
                assert_eq!((config.nodes.len(), config.limits.drain_ms), (3, DRAIN_MS));
                assert!(Duration::from_millis(config.limits.drain_ms) < STOP_MAX);
            }
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_named_and_nothing_is_started() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let ran =
            run_words(words(&format!("tidegate dev --nodes 1 --http-port {port} --peer-port 0")));
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Failed, ""));
        let starts = format!("error: n1 can't have port {port} for HTTP: ");
        assert!(ran.notes.starts_with(&starts), "{}", ran.notes);
        assert!(ran.notes.contains("--http-port 0 any that are free"), "{}", ran.notes);
    }

    #[test]
    fn ports_that_meet_or_end_too_high_are_misuse() {
        for line in [
            "tidegate dev --http-port 7170",
            "tidegate dev --nodes 9 --http-port 7179",
            "tidegate dev --http-port 65534",
        ] {
            let ran = run_words(words(line));
            assert_eq!(ran.exit, Exit::Usage, "{line}: {ran:?}");
        }
        let apart = |http, peer, nodes| {
            let wanted = |base| Wanted { base, flag: "", what: "" };
            !wanted(http).overlaps(&wanted(peer), nodes)
        };
        assert!(apart(7071, 7080, 9) && apart(0, 0, 9) && apart(7171, 7170, 1));
        assert!(!apart(7071, 7079, 9) && !apart(7079, 7071, 9) && !apart(7071, 7071, 1));
    }

    #[test]
    fn a_policy_that_is_not_valid_is_refused_with_its_faults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.toml");
        std::fs::write(&file, "default_tier = \"gold\"\n[tiers.free]\nweigth = \"1\"\n").unwrap();
        let ran = run_words(words(&format!("tidegate dev --policy {}", file.display())));
        assert_eq!(ran.exit, Exit::Usage);
        assert!(ran.notes.contains("the policy is not valid\n  "), "{}", ran.notes);
        assert!(ran.notes.contains("tiers.free.weigth: unknown member"), "{}", ran.notes);
        let ran = run_words(words("tidegate dev --policy /none/such.toml"));
        assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
    }
}
