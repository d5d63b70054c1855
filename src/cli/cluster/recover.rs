//! `tidegate cluster recover`: a cluster that lost its majority goes on with one node that is left.
//!
//! ```text
//! $ tidegate cluster recover --data-dir data/n3
//! cluster      demo
//! goes on      n3 (node 3), with the log up to entry 4711
//! policy       version 12
//! given up     n1 (node 1), n2 (node 2): 2731 partitions begin anew
//! its counts   are saved: what it has counted stays spent
//! error: nothing was changed: entries that only n1, n2 had are lost, and so is what they have counted; …
//! ```
//!
//! No node is asked: this one is stopped, and its data is changed where it lies. With `--config`
//! the lines by which the others come back are right under `[tls]`, too: without, the command can't
//! know how the cluster speaks.

use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate::clock::{Clock as _, SystemClock};
use tidegate::cluster::anew::{AnewError, Plan, Recovery};
use tidegate::cluster::raft::{OpenError, Place};
use tidegate::cluster::state::Member;
use tidegate::config::{Config, Own, Tls, listening};
use tidegate::random::{Seed, system_seed};

use super::super::failure::{Failure, listed};
use super::super::output::{Output, plain};
use super::super::serve::STATE_FILE;
use super::backup::members;

/// Have one node that is left go on alone, after the loss of the majority
#[derive(clap::Args)]
#[command(after_help = "\
For a cluster of which the majority of the voters is lost for good, and for nothing else: run it once, where the data of ONE node
lies that is left and stopped, the one whose log reaches furthest. Without --force it says what it would do, and changes nothing. The
others are given up; they come back with empty directories and `serve --join`, as new nodes. One of them that comes back with its
old data is refused, and ends.

Examples:
  tidegate cluster recover --config cluster.toml --node n3
  tidegate cluster recover --config cluster.toml --node n3 --force
  tidegate cluster recover --data-dir data/n3 --force")]
pub struct RecoverArgs {
    /// The configuration (cluster.toml): where the node keeps its data, and whether the cluster has
    /// TLS
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Which node of the configuration it is
    #[arg(long, value_name = "ID", env = "TIDEGATE_NODE", requires = "config")]
    node: Option<String>,
    /// Where the node keeps its data, rather than where the configuration says
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Do it: the others are lost, and what only they knew with them
    #[arg(long)]
    force: bool,
}

impl RecoverArgs {
    /// Says what it would do, and does it.
    pub fn run(self, out: &mut Output<'_>) -> Result<(), Failure> {
        let config = self.config()?;
        let directory = match (&self.data_dir, &config) {
            (Some(directory), _) => directory.clone(),
            (None, Some(config)) => config.data_dir.clone(),
            (None, None) => {
                let why = "say with --data-dir where the node keeps its data, or with --config and \
                           --node which one it is";
                return Err(Failure::Usage(why.into()));
            }
        };
        let failed = |error: AnewError| failure(&directory, error);
        let recovery = Recovery::of(&Place::Directory(directory.clone())).map_err(failed)?;
        let plan = recovery.plan();
        show(&plan, &directory, self.force, out)?;
        if !self.force {
            return Err(Failure::Unsafe(refusal(&plan)));
        }
        let mut seed = seed()?.fork("lineage", 0);
        recovery.carry_out(seed.next_u64(), SystemClock::new().now().wall).map_err(failed)?;
        let back =
            ComesBack { file: self.config.as_deref(), config: config.as_ref(), http: &plan.http };
        back.tell(plan.given_up.members.iter().map(|(_, member)| member), out);
        Ok(())
    }

    fn config(&self) -> Result<Option<Config>, Failure> {
        let Some(path) = &self.config else { return Ok(None) };
        let own = Own { may_have_tokens: true, ..Own::default() };
        let variable = |name: &str| std::env::var(name).ok();
        let config = Config::load(path, self.node.as_deref(), &own, variable);
        config
            .map(Some)
            .map_err(|faults| Failure::Usage(listed("the configuration is not valid", &faults)))
    }
}

/// The system's chance.
pub fn seed() -> Result<Seed, Failure> {
    system_seed()
        .map_err(|error| Failure::Failed(format!("the system gives no randomness: {error}")))
}

/// How other nodes come back to the one that goes on.
pub struct ComesBack<'a> {
    /// The file that all nodes have; none where it isn't known.
    pub file: Option<&'a Path>,
    /// What it says of the node that goes on.
    pub config: Option<&'a Config>,
    /// Where that node is reached.
    pub http: &'a str,
}

impl ComesBack<'_> {
    /// Prints, for each of the `members` that were given up, the line by which it comes back.
    pub fn tell<'m>(&self, members: impl Iterator<Item = &'m Member>, out: &mut Output<'_>) {
        let lines: Vec<_> = members.map(|member| self.line(member)).collect();
        lines.iter().for_each(|line| out.note(line));
        if lines.is_empty() {
            return;
        }
        match self.config {
            None => out.note(
                "where the cluster has a configuration ([tls], [auth]), each line takes its \
                 --config FILE too",
            ),
            Some(config) if !config.tokens.is_empty() => {
                out.note(
                    "each needs the token of an administrator in TIDEGATE_TOKEN, or with --token",
                );
            }
            Some(_) => {}
        }
    }

    fn line(&self, member: &Member) -> String {
        let name = &member.name;
        let is_listed =
            self.config.is_some_and(|config| config.nodes.iter().any(|node| node.id == *name));
        let mut words = vec![format!("tidegate serve --node {name}")];
        words.extend(self.file.map(|file| format!("--config {}", file.display())));
        if !is_listed {
            words.extend([address("http", &member.http), address("peer", &member.peer)]);
            words.push(format!("--data-dir data/{name}"));
        }
        words.push(format!("--join {}", self.url()));
        let tls = self.config.and_then(|config| config.tls.as_ref()).filter(|tls| tls.http);
        words.extend(tls.and_then(Tls::client_ca).map(|ca| format!("--ca-cert {}", ca.display())));
        format!("{name} comes back with an empty data directory and: {}", words.join(" "))
    }

    fn url(&self) -> String {
        let has_tls =
            self.config.and_then(|config| config.tls.as_ref()).is_some_and(|tls| tls.http);
        format!("{}://{}", if has_tls { "https" } else { "http" }, plain(self.http))
    }
}

/// The flags for where a node is reached: it need not listen there.
fn address(flag: &str, reached: &str) -> String {
    match (reached.is_empty(), listening(reached)) {
        // A node that was alone had no peers that could reach it.
        (true, _) => format!("--{flag} ADDRESS"),
        (false, Some(_)) => format!("--{flag} {reached}"),
        (false, None) => format!("--{flag} ADDRESS --{flag}-advertise {}", plain(reached)),
    }
}

/// Why nothing can be made of that data.
pub fn failure(directory: &Path, error: AnewError) -> Failure {
    match error {
        AnewError::Open(error @ OpenError::InUse(_)) => {
            Failure::Unsafe(format!("{error}: stop the node first"))
        }
        AnewError::Empty => Failure::Usage(format!("{}: {error}", directory.display())),
        error => Failure::Failed(format!("{}: {error}", directory.display())),
    }
}

fn refusal(plan: &Plan) -> String {
    let others = match plan.given_up.members.as_slice() {
        [] => {
            return "nothing was changed: nobody else is a member; --force has it go on alone all \
                    the same"
                .into();
        }
        others => {
            others.iter().map(|(_, other)| other.name.to_string()).collect::<Vec<_>>().join(", ")
        }
    };
    format!(
        "nothing was changed: entries of the log that had not reached this node are lost, and so \
         is what {others} counted; where they only can't be reached, they go on deciding until \
         they hear of it. --force does it"
    )
}

fn show(plan: &Plan, directory: &Path, done: bool, out: &mut Output<'_>) -> Result<(), Failure> {
    let saved = directory.join(STATE_FILE).exists();
    if out.is_json() {
        let text = json!({
            "cluster": plan.cluster,
            "id": plan.name,
            "number": plan.number.0,
            "last": plan.last.0,
            "unconfirmed": plan.unconfirmed,
            "policy_version": plan.policy_version,
            "given_up": members(plan.given_up.members.iter().map(|(id, member)| (*id, member))),
            "partitions": plan.given_up.partitions,
            "saved_counts": saved,
            "recovered": done,
        });
        return out.json(&text.to_string());
    }
    let unconfirmed = match plan.unconfirmed {
        0 => String::new(),
        n => format!("; whether a majority had the last {n} of them it can't say: they are taken"),
    };
    let others: Vec<_> = plan
        .given_up
        .members
        .iter()
        .map(|(id, other)| format!("{} (node {id})", other.name))
        .collect();
    let given_up = match others.is_empty() {
        true => "nobody".into(),
        false => {
            format!("{}: {} partitions begin anew", others.join(", "), plan.given_up.partitions)
        }
    };
    let counts = match saved {
        true => "are saved: what it has counted stays spent",
        false => "are not saved: it was not stopped in order, and what it has counted is lost",
    };
    out.facts(&[
        ("cluster", plan.cluster.to_string()),
        (
            "goes on",
            format!(
                "{} (node {}), with the log up to entry {}{unconfirmed}",
                plan.name, plan.number, plan.last.0
            ),
        ),
        ("policy", format!("version {}", plan.policy_version)),
        ("given up", given_up),
        ("its counts", counts.into()),
    ])?;
    Ok(())
}
