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
//! Nobody is asked: the node is stopped, and its data is changed where it lies.

use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate::clock::{Clock as _, SystemClock};
use tidegate::cluster::anew::{AnewError, Plan, Recovery};
use tidegate::cluster::raft::{OpenError, Place};
use tidegate::cluster::state::Member;
use tidegate::random::Seed;

use super::super::failure::Failure;
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
  tidegate cluster recover --data-dir data/n3
  tidegate cluster recover --data-dir data/n3 --force")]
pub struct RecoverArgs {
    /// Where the node keeps its data
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_DATA_DIR")]
    data_dir: PathBuf,
    /// Do it: the others are lost, and what only they knew with them
    #[arg(long)]
    force: bool,
}

impl RecoverArgs {
    /// Says what it would do, and does it.
    pub fn run(self, out: &mut Output<'_>) -> Result<(), Failure> {
        let failed = |error: AnewError| failure(&self.data_dir, error);
        let recovery = Recovery::of(&Place::Directory(self.data_dir.clone())).map_err(failed)?;
        let plan = recovery.plan();
        show(&plan, &self.data_dir, self.force, out)?;
        if !self.force {
            return Err(Failure::Unsafe(refusal(&plan)));
        }
        let mut seed = seed()?.fork("lineage", 0);
        recovery.carry_out(seed.next_u64(), SystemClock::new().now().wall).map_err(failed)?;
        for (_, member) in &plan.given_up.members {
            out.note(&joins(member));
        }
        Ok(())
    }
}

/// The system's chance.
pub fn seed() -> Result<Seed, Failure> {
    Seed::from_system().map_err(|error| Failure::Failed(format!("the system gives no randomness: {error}")))
}

/// The line by which a node comes back.
pub fn joins(member: &Member) -> String {
    // A node that was alone had nobody to be reached by.
    let peer = if member.peer.is_empty() { "ADDRESS" } else { &member.peer };
    let (name, http, peer) = (&member.name, plain(&member.http), plain(peer));
    format!(
        "{name} comes back with: tidegate serve --node {name} --http {http} --peer {peer} --data-dir EMPTY --join URL"
    )
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
            return "nothing was changed: nobody else is a member; --force has it go on alone all the same"
                .into();
        }
        others => others.iter().map(|(_, other)| other.name.to_string()).collect::<Vec<_>>().join(", "),
    };
    format!(
        "nothing was changed: entries of the log that had not reached this node are lost, and so is what {others} counted; where \
         they only can't be reached, they go on deciding until they hear of it. --force does it"
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
    let others: Vec<_> =
        plan.given_up.members.iter().map(|(id, other)| format!("{} (node {id})", other.name)).collect();
    let given_up = match others.is_empty() {
        true => "nobody".into(),
        false => format!("{}: {} partitions begin anew", others.join(", "), plan.given_up.partitions),
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
