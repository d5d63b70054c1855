//! Starting what is measured, and stopping it again whatever happens: a `Server` that is dropped is killed
//! and waited for.
//!
//! A node gets a directory of its own with `cluster.toml`, `policy.toml`, its data and its log; the directory
//! goes when the node does. No `TIDEGATE_…` variable of the caller's environment reaches it.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use tempfile::TempDir;

use crate::bare;
use crate::clock;
use crate::interrupt;
use crate::scenario::{Tier, policy};

/// A lone node elects itself and listens within a second; a machine busy with a build takes longer.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
const READY_ASK_EVERY: Duration = Duration::from_millis(20);
/// For one question to `/readyz`.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Where a node's output goes, in its directory.
const LOG: &str = "node.log";
/// What an error shows of it.
const LOG_TAIL_LINES: usize = 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Candidate {
    /// A node.
    Tidegate,
    /// The axum service that decides nothing.
    Bare,
}

impl Candidate {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Bare => "bare",
        }
    }
}

/// A server process that answers on its address.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: SocketAddr,
    /// Removed after the process has ended: fields are dropped in this order.
    home: Option<TempDir>,
}

impl Server {
    /// Starts a candidate whose every tenant is in `tier`, and returns once it is ready.
    pub fn start(
        candidate: Candidate,
        node_binary: &Path,
        tier: Tier,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        match candidate {
            Candidate::Tidegate => Self::start_node(node_binary, tier),
            Candidate::Bare => Self::start_bare(tier),
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What can be added to an error that this server may have caused: how it ended, and the end of its log.
    pub fn last_words(&mut self) -> String {
        let mut words = String::new();
        if let Ok(Some(status)) = self.process.0.try_wait() {
            words.push_str(&format!("; the server has ended ({status})"));
        }
        if let Some(home) = &self.home {
            words.push_str(&format!("; its log ends:\n{}", log_tail(&home.path().join(LOG))));
        }
        words
    }

    fn start_node(binary: &Path, tier: Tier) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let binary = fs::canonicalize(binary).map_err(|cause| {
            format!(
                "no node at {}: {cause}; build one with `cargo build --release`, or name it with --node-binary",
                binary.display()
            )
        })?;
        let home = TempDir::with_prefix("tidegate-bench-")?;
        let address = free_address()?;
        fs::write(home.path().join("policy.toml"), policy(tier))?;
        let config = home.path().join("cluster.toml");
        fs::write(&config, cluster(address))?;
        let log = File::create(home.path().join(LOG))?;

        let mut command = Command::new(&binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--node", "n1", "--config"])
            .arg(&config)
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process =
            Process::start(command).map_err(|cause| format!("cannot start {}: {cause}", binary.display()))?;
        let mut server = Self { process, address, home: Some(home) };
        server.wait_until_ready().map_err(|cause| format!("{cause}{}", server.last_words()))?;
        Ok(server)
    }

    fn start_bare(tier: Tier) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bare", "--port", "0", "--tier", tier.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process =
            Process::start(command).map_err(|cause| format!("cannot start the bare service: {cause}"))?;
        let mut line = String::new();
        if let Some(output) = process.0.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line
            .trim_end()
            .strip_prefix(bare::ADDRESS_PREFIX)
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("the bare service told no address but {line:?}"))?;
        let mut server = Self { process, address, home: None };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let deadline = clock::now() + READY_WAIT_MAX;
        while !is_ready(self.address) {
            interrupt::check()?;
            if self.process.0.try_wait()?.is_some() {
                return Err("the server was never ready".into());
            }
            if clock::now() >= deadline {
                return Err(format!("the server was not ready within {READY_WAIT_MAX:?}").into());
            }
            clock::pause(READY_ASK_EVERY);
        }
        Ok(())
    }
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

fn cluster(address: SocketAddr) -> String {
    format!(
        r#"[cluster]
name = "bench"

[[nodes]]
id = "n1"
http = "{address}"
data_dir = "data"

[policy]
file = "policy.toml"
"#
    )
}

/// An address that was free a moment ago. Should somebody take it meanwhile, the node doesn't start and the
/// run fails.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn is_ready(address: SocketAddr) -> bool {
    let probe = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, PROBE_WAIT_MAX)?;
        stream.set_read_timeout(Some(PROBE_WAIT_MAX))?;
        stream.set_write_timeout(Some(PROBE_WAIT_MAX))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    // Refused, cut off or silent all mean the same here: not yet.
    probe().unwrap_or(false)
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
        let error =
            Server::start(Candidate::Tidegate, Path::new("no/such/node"), Tier::Two).unwrap_err().to_string();
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
        assert!(!is_ready(free_address().unwrap()));
    }
}
