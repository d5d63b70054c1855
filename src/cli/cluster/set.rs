//! `tidegate cluster set`: what holds for all nodes and is changed while they run.
//!
//! ```text
//! $ tidegate cluster set round_trip_ms=300
//! settings version 2: round_trip_ms 300
//! n1, n2, n3 use it once they are restarted
//! ```
//!
//! The first line is data; which nodes are to be restarted goes to stderr.

use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate::net::ROUND_TRIP_MS_BOUNDS;

use super::super::client::{Client, Request};
use super::super::diff::DryRun;
use super::super::failure::Failure;
use super::super::output::{Output, plain};

/// Change a setting of the cluster
#[derive(clap::Args)]
#[command(after_help = "\
round_trip_ms (50 to 300) is the longest round trip between nodes: Raft's timers are multiples of it.
A node uses a new value from its next start on; restart the nodes that are named one after another.
What cluster.toml says counts only when a cluster is founded. `tidegate cluster status` shows the
settings.

Examples:
  tidegate cluster set round_trip_ms=200
  tidegate cluster set round_trip_ms=200 --dry-run
  tidegate cluster set round_trip_ms=200 --if-version 1")]
pub struct SetArgs {
    /// The setting and its value: round_trip_ms=N
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = assignment)]
    settings: Vec<Assignment>,
    /// Change nothing; print what would change
    #[arg(long)]
    dry_run: bool,
    /// Only if the settings are still at this version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// A setting and its new value.
#[derive(Clone)]
struct Assignment {
    name: &'static str,
    value: u64,
}

fn assignment(text: &str) -> Result<Assignment, String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    match name {
        "round_trip_ms" => {
            let (least, most) = ROUND_TRIP_MS_BOUNDS.into_inner();
            let value = value.parse().ok().filter(|ms| (least..=most).contains(ms));
            let value = value
                .ok_or_else(|| format!("round_trip_ms is a whole number from {least} to {most}"))?;
            Ok(Assignment { name: "round_trip_ms", value })
        }
        _ => Err(format!("there is no setting {name:?}; known is round_trip_ms")),
    }
}

/// What a change answers.
#[derive(Deserialize)]
struct Set {
    version: u64,
    round_trip_ms: u64,
    #[serde(default)]
    restart: Vec<String>,
    #[serde(default)]
    pending: Vec<String>,
    #[serde(default)]
    unchanged: bool,
}

impl SetArgs {
    /// Makes the change, or prints what it would change.
    pub fn run(self, client: &Client, out: &mut Output<'_>) -> Result<(), Failure> {
        let mut body = Map::new();
        for Assignment { name, value } in self.settings {
            if body.insert(name.into(), value.into()).is_some() {
                return Err(Failure::Usage(format!("{name} is set twice")));
            }
        }
        let query = if self.dry_run { "?dry_run=true" } else { "" };
        let mut request =
            Request::put(format!("/v1/cluster/settings{query}")).json(&Value::Object(body));
        if let Some(version) = self.if_version {
            request = request.if_match(format!("\"{version}\""));
        }
        let answer = client.send(request)?;
        match (out.is_json(), self.dry_run) {
            (true, _) => out.json(&answer.text),
            (false, true) => {
                answer.read::<DryRun>()?.print(out)?;
                out.note("a dry run: nothing was changed");
                Ok(())
            }
            (false, false) => answer.read::<Set>()?.print(out),
        }
    }
}

impl Set {
    fn print(&self, out: &mut Output<'_>) -> Result<(), Failure> {
        let unchanged = if self.unchanged { ", unchanged" } else { "" };
        let Self { version, round_trip_ms, restart, pending, .. } = self;
        out.line(&format!("settings version {version}: round_trip_ms {round_trip_ms}{unchanged}"))?;
        if !restart.is_empty() {
            let (uses, are) =
                if restart.len() == 1 { ("uses", "it is") } else { ("use", "they are") };
            out.note(&format!("{} {uses} it once {are} restarted", plain(&restart.join(", "))));
        }
        if !pending.is_empty() {
            out.note(&format!(
                "pending on {}, which will follow once reached",
                plain(&pending.join(", "))
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Exit;
    use super::super::super::testing::{Reply, Server};
    use super::assignment;

    #[test]
    fn a_setting_is_changed_and_nodes_to_restart_are_named() {
        let one = r#"{"version":2,"round_trip_ms":300,"restart":["n1"],"pending":["n3"]}"#;
        let two = r#"{"version":2,"round_trip_ms":300,"restart":["n1","n2"],"pending":[],"unchanged":true}"#;
        let server = Server::replying([Reply::ok(one), Reply::ok(two)]);
        let ran = server.run("tidegate cluster set round_trip_ms=300 --if-version 1");
        let notes =
            "n1 uses it once it is restarted\npending on n3, which will follow once reached\n";
        assert_eq!((ran.exit, ran.notes.as_str()), (Exit::Done, notes), "{ran:?}");
        assert_eq!(ran.data, "settings version 2: round_trip_ms 300\n");
        let ran = server.run("tidegate cluster set round_trip_ms=300");
        assert_eq!(ran.data, "settings version 2: round_trip_ms 300, unchanged\n");
        assert_eq!(ran.notes, "n1, n2 use it once they are restarted\n");
        let seen = server.seen();
        assert_eq!(seen[0].line, "PUT /v1/cluster/settings");
        assert_eq!(seen[0].body, r#"{"round_trip_ms":300}"#);
        assert_eq!((seen[0].header("if-match"), seen[1].header("if-match")), (Some("\"1\""), None));
    }

    #[test]
    fn a_dry_run_of_a_setting_prints_what_would_change() {
        let answer = r#"{"dry_run":true,"version":1,"changes":[
            {"path":"round_trip_ms","op":"change","from":100,"to":300}]}"#;
        let server = Server::replying([Reply::ok(answer)]);
        let ran = server.run("tidegate cluster set round_trip_ms=300 --dry-run");
        assert!(ran.data.contains("~ round_trip_ms: 100 → 300"), "{}", ran.data);
        assert_eq!(ran.notes, "a dry run: nothing was changed\n");
        assert_eq!(server.seen()[0].line, "PUT /v1/cluster/settings?dry_run=true");
    }

    #[test]
    fn a_setting_that_can_not_be_is_refused_before_it_is_sent() {
        for (text, why) in [
            ("round_trip_ms=301", "round_trip_ms is a whole number from 50 to 300"),
            ("round_trip_ms=", "round_trip_ms is a whole number from 50 to 300"),
            ("round_trip=100", "there is no setting \"round_trip\"; known is round_trip_ms"),
            ("round_trip_ms", "is not NAME=VALUE"),
        ] {
            assert_eq!(assignment(text).err().as_deref(), Some(why), "{text}");
        }
        let ran =
            Server::replying([]).run("tidegate cluster set round_trip_ms=100 round_trip_ms=200");
        let twice = "error: round_trip_ms is set twice\n";
        assert_eq!((ran.exit, ran.notes.as_str()), (Exit::Usage, twice), "{ran:?}");
    }
}
