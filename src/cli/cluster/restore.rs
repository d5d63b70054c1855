//! `tidegate cluster restore`: a cluster is made anew of a back-up, as one node to begin with.
//!
//! ```text
//! $ tidegate cluster restore monday.backup --data-dir data/n1 --node n1 --http 127.0.0.1:7071 --peer 127.0.0.1:7171
//! cluster      demo, as it was at 2026-11-30T06:00:00Z
//! begins with  n1 (node 4712)
//! policy       version 12
//! counters     40 of long limits
//! n2 comes back with an empty data directory and: tidegate serve --node n2 --http 127.0.0.1:7072 --peer 127.0.0.1:7172 …
//! ```
//!
//! Nobody is asked: a folder is filled, in which the node is then started.

use std::path::PathBuf;

use serde_json::json;
use tidegate::clock::{Clock as _, SystemClock};
use tidegate::cluster::anew::{AnewError, Restoring, restore};
use tidegate::cluster::state::NewMember;
use tidegate::config::{Config, Own};
use tidegate::node::reached_at;
use tidegate::placement::BootId;

use super::super::NodeArgs;
use super::super::failure::{Failure, listed};
use super::super::output::Output;
use super::super::serve::STATE_FILE;
use super::backup::{self, members};
use super::recover::{ComesBack, seed};

/// Make a node of a back-up, with which the cluster begins anew
#[derive(clap::Args)]
#[command(after_help = "\
For a cluster of which nothing is left. In an empty folder it makes the data of one node: the only member, which owns everything.
Start it, and have the others join it with empty folders, as new nodes. Whoever comes back with data from before is refused, and ends.

Examples:
  tidegate cluster restore monday.backup --config cluster.toml --node n1
  tidegate cluster restore monday.backup --node n1 --http 127.0.0.1:7071 --peer 127.0.0.1:7171 --data-dir data/n1")]
pub struct RestoreArgs {
    /// The back-up
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: NodeArgs,
}

impl RestoreArgs {
    /// Makes the node.
    pub fn run(self, out: &mut Output<'_>) -> Result<(), Failure> {
        let has_file = self.place.config.is_some();
        let config = self.config()?;
        let found = backup::load(&self.file)?;
        let (cluster, made) = (found.header.cluster.clone(), backup::time(&found));
        if has_file && cluster != config.cluster {
            return Err(Failure::Failed(format!(
                "{} is a back-up of the cluster {cluster}, and the configuration is for {}",
                self.file.display(),
                config.cluster
            )));
        }
        let own = reached_at(&config, config.http, config.peer);
        let environment = found.header.environment.clone().unwrap_or(config.environment.clone());
        let (drawn, http) = (seed()?, own.http.clone());
        let restoring = Restoring {
            node: NewMember {
                name: own.name.clone(),
                http: own.http,
                peer: own.peer,
                weight: own.weight,
            },
            unlisted: (!has_file).then_some(environment),
            lineage: drawn.fork("lineage", 0).next_u64(),
            boot: BootId(drawn.fork("boot", 0).next_u64().max(BootId::NEVER.0 + 1)),
            time: SystemClock::new().now().wall,
            what: format!("restored the cluster from a back-up of {made}"),
        };
        backup::warn(&found, out);
        let (counters, version) =
            (found.counters(), found.state.agreed().map_or(0, |agreed| agreed.version));
        let given_up = restore(found, &config.data_dir, STATE_FILE, restoring).map_err(failure)?;
        let number = given_up.node;
        if out.is_json() {
            let text = json!({
                "cluster": cluster,
                "made": made,
                "id": own.name,
                "number": number.0,
                "policy_version": version,
                "counters": counters,
                "given_up": members(given_up.members.iter().map(|(id, member)| (*id, member))),
            });
            out.json(&text.to_string())?;
        } else {
            out.facts(&[
                ("cluster", format!("{cluster}, as it was at {made}")),
                ("begins with", format!("{} (node {number})", own.name)),
                ("policy", format!("version {version}")),
                ("counters", format!("{counters} of long limits")),
            ])?;
        }
        let file = self.place.config.as_deref();
        let back = ComesBack { file, config: has_file.then_some(&config), http: &http };
        let others = given_up.members.iter().filter(|(_, member)| member.name != own.name);
        back.tell(others.map(|(_, member)| member), out);
        Ok(())
    }

    /// What is said of the node, in a file and beside it.
    fn config(&self) -> Result<Config, Failure> {
        let NodeArgs { config, node, http, peer, data_dir, .. } = &self.place;
        if config.is_none()
            && (node.is_none() || http.is_none() || peer.is_none() || data_dir.is_none())
        {
            let why = "without --config, a node is said with --node, --http, --peer and --data-dir";
            return Err(Failure::Usage(why.into()));
        }
        let own = Own { may_have_tokens: true, ..self.place.own() };
        let config = self.place.load(&own).0;
        config.map_err(|faults| Failure::Usage(listed("the configuration is not valid", &faults)))
    }
}

fn failure(error: AnewError) -> Failure {
    match error {
        AnewError::NotEmpty(_) => Failure::Unsafe(error.to_string()),
        error => Failure::Failed(error.to_string()),
    }
}
