//! `tidegate cluster leave` and `drain`: work that takes its time, and says how far it has come.
//!
//! ```text
//! $ tidegate cluster leave n3 --wait
//! n3: leaving, 1365 partitions, votes: 1365 partitions are to be handed over
//! n3: leaving, 210 partitions, votes: 210 partitions are to be handed over
//! n3: leaving, 0 partitions, votes: another node has to be able to vote in its place
//! n3: leaving, 0 partitions: it is about to be removed
//! n3: gone
//! ```
//!
//! What changes goes to stderr, a line for each change; the last word is data. A node that was told
//! to leave goes on leaving when nobody waits for it any more; `drain ID --end` calls it back.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate::clock::{Clock as _, SystemClock};
use tidegate::placement::Weight;
use tidegate::policy::{DURATION, parse_duration};

use super::super::client::{Client, Request, encode};
use super::super::failure::Failure;
use super::super::output::{Output, plain};
use super::super::weight;

/// How often it is looked how far a node has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a node may be silent that is asked how far another has come: it may be busy, or
/// restarted.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// Have a node leave the cluster
#[derive(clap::Args)]
#[command(after_help = "\
It hands over what it owns, gives its vote back, and is a member no more; its process ends then. Refused (exit 5) where it would
cost the majority, or the last node that may own partitions. A node that is gone can hand over nothing: --force gives it up, and
what it owned begins elsewhere as if everything had been taken.

Examples:
  tidegate cluster leave n3 --wait
  tidegate cluster leave n3 --wait --timeout 10m
  tidegate cluster leave n3 --force")]
pub struct LeaveArgs {
    /// The node
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// Give it up: it is gone, and what it has counted with it
    #[arg(long)]
    force: bool,
    /// Wait until it has left
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this, and say what keeps it
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    timeout: Duration,
}

/// Have a node own nothing, and stay a member
#[derive(clap::Args)]
#[command(after_help = "\
It hands over what it owns and is given nothing more, until --end says that it may own again. A node that was leaving stays then.

Examples:
  tidegate cluster drain n3 --wait
  tidegate cluster drain n3 --end")]
pub struct DrainArgs {
    /// The node
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// It may own again
    #[arg(long, conflicts_with = "wait")]
    end: bool,
    /// Wait until it owns nothing
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this, and say what keeps it
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    timeout: Duration,
}

/// Set how much of the load a node takes
#[derive(clap::Args)]
#[command(after_help = "\
Of two nodes of which one has twice the weight, it owns two thirds. A node of weight 0 owns nothing; it answers all the same, by
asking the others. Partitions move until the load is as the weights say: `tidegate cluster status` shows how far that has come.

Examples:
  tidegate cluster weight n3 2")]
pub struct WeightArgs {
    /// The node
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// From 0 to 16; of a node of which nothing is said it is 1
    #[arg(value_name = "N", value_parser = weight)]
    weight: Weight,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("{text:?} is not {DURATION}"))
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    id: String,
    number: u64,
    state: String,
    voter: bool,
    partitions: u64,
    #[serde(default)]
    weight: u64,
    waits_for: Option<String>,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Progress>,
}

impl LeaveArgs {
    /// Gives the order, and waits where that is wanted.
    pub fn run(self, client: &Client, out: &mut Output<'_>) -> Result<(), Failure> {
        let force = if self.force { "?force=true" } else { "" };
        let began = told(client, Request::delete(format!("{}{force}", path(&self.id))))?;
        if self.force && began.partitions > 0 {
            let lost = format!(
                "what {} has counted is lost: its {} partitions",
                began.id, began.partitions
            );
            out.note(&format!("{} begin as spent elsewhere", plain(&lost)));
        }
        let waiting = Waiting { client, within: self.timeout, what: "left" };
        let ended = match self.wait {
            true => waiting.until(began, out, |now| now.state == "gone")?,
            false => began,
        };
        say(&ended, out)
    }
}

impl DrainArgs {
    /// Gives the order, and waits where that is wanted.
    pub fn run(self, client: &Client, out: &mut Output<'_>) -> Result<(), Failure> {
        let drain = format!("{}/drain", path(&self.id));
        if self.end {
            return say(&told(client, Request::delete(drain))?, out);
        }
        let began = told(client, Request::post(drain))?;
        let waiting = Waiting { client, within: self.timeout, what: "handed over what it owns" };
        let ended = match self.wait {
            true => waiting.until(began, out, |now| now.partitions == 0)?,
            false => began,
        };
        say(&ended, out)
    }
}

impl WeightArgs {
    /// Gives the order.
    pub fn run(self, client: &Client, out: &mut Output<'_>) -> Result<(), Failure> {
        let order = Request::put(format!("{}/weight", path(&self.id)));
        let now = told(client, order.json(&json!({"weight": self.weight.get()})))?;
        match out.is_json() {
            true => say(&now, out),
            false => out.line(&format!("{}: weight {}", plain(&now.id), now.weight)),
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/cluster/nodes/{}", encode(id))
}

fn told(client: &Client, order: Request) -> Result<Progress, Failure> {
    client.send(order)?.read()
}

fn say(progress: &Progress, out: &mut Output<'_>) -> Result<(), Failure> {
    match out.is_json() {
        true => {
            let text = serde_json::to_string(progress);
            out.json(&text.map_err(|error| Failure::Failed(error.to_string()))?)
        }
        false => out.line(&line(progress)),
    }
}

fn line(progress: &Progress) -> String {
    let Progress { id, state, voter, partitions, waits_for, .. } = progress;
    let owns = if state == "gone" { String::new() } else { format!(", {partitions} partitions") };
    let votes = if *voter { ", votes" } else { "" };
    let waits_for = waits_for.as_ref().map(|what| format!(": {what}")).unwrap_or_default();
    plain(&format!("{id}: {state}{owns}{votes}{waits_for}")).into_owned()
}

/// Looks until a node has come where it is to come.
struct Waiting<'c> {
    client: &'c Client,
    within: Duration,
    /// What it is to have done.
    what: &'static str,
}

impl Waiting<'_> {
    fn until(
        &self,
        began: Progress,
        out: &mut Output<'_>,
        is_there: impl Fn(&Progress) -> bool,
    ) -> Result<Progress, Failure> {
        let clock = SystemClock::new();
        let boot = || Duration::from_nanos(clock.now().boot);
        let (start, mut heard, mut last) = (boot(), boot(), began);
        while !is_there(&last) {
            out.note(&line(&last));
            let shown = last.clone();
            while last == shown {
                if boot() - start >= self.within {
                    return Err(self.too_late(&last));
                }
                std::thread::sleep(LOOK_EVERY.min(self.within));
                match self.look(&last) {
                    Ok(now) => (last, heard) = (now, boot()),
                    Err(failure) if failure.is_passing() && boot() - heard < SILENT_MAX => {}
                    Err(failure) => return Err(failure),
                }
            }
            if last.state == "up" {
                return Err(Failure::Failed(format!(
                    "{} stays: somebody has called it back",
                    plain(&last.id)
                )));
            }
        }
        Ok(last)
    }

    /// How the node stands now.
    fn look(&self, before: &Progress) -> Result<Progress, Failure> {
        let Nodes { nodes } = self.client.send(Request::get("/v1/cluster"))?.read()?;
        let found = nodes.into_iter().find(|node| node.number == before.number);
        Ok(found.unwrap_or_else(|| Progress {
            state: "gone".into(),
            voter: false,
            partitions: 0,
            weight: 0,
            waits_for: None,
            ..before.clone()
        }))
    }

    fn too_late(&self, last: &Progress) -> Failure {
        let why = last.waits_for.as_deref().unwrap_or("it isn't known what keeps it");
        let why = format!("{} has not {} within {:?}: {why}", last.id, self.what, self.within);
        Failure::Failed(format!(
            "{}\n  it goes on; `tidegate cluster drain ID --end` calls it back",
            plain(&why)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Exit;
    use super::super::super::testing::{Reply, Server};

    fn node(state: &str, voter: bool, partitions: u64, waits_for: &str) -> String {
        let waits_for = if waits_for.is_empty() { "null".into() } else { format!("{waits_for:?}") };
        format!(
            r#"{{"id":"n3","number":3,"state":"{state}","voter":{voter},"partitions":{partitions},"waits_for":{waits_for}}}"#
        )
    }

    fn cluster(nodes: &str) -> Reply {
        Reply::ok(&format!(r#"{{"name":"demo","nodes":[{nodes}]}}"#))
    }

    #[test]
    fn who_waits_hears_of_every_change_until_the_node_is_gone() {
        let over = "210 partitions are to be handed over";
        let replies = [
            Reply::status(
                202,
                &node("leaving", true, 1365, "1365 partitions are to be handed over"),
            ),
            cluster(&node("leaving", true, 210, over)),
            cluster(&node("leaving", true, 210, over)),
            Reply::status(503, "busy"),
            cluster(&node("leaving", false, 0, "it is about to be removed")),
            cluster(""),
        ];
        let server = Server::replying(replies);
        let ran = server.run("tidegate cluster leave n3 --wait");
        let notes = "\
n3: leaving, 1365 partitions, votes: 1365 partitions are to be handed over
n3: leaving, 210 partitions, votes: 210 partitions are to be handed over
n3: leaving, 0 partitions: it is about to be removed
";
        assert_eq!(
            (ran.exit, ran.data.as_str(), ran.notes.as_str()),
            (Exit::Done, "n3: gone\n", notes)
        );
        let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
        assert_eq!(lines[..2], ["DELETE /v1/cluster/nodes/n3", "GET /v1/cluster"]);
    }

    #[test]
    fn a_wait_that_takes_too_long_says_what_keeps_the_node() {
        let stuck = node("leaving", true, 0, "another node has to be able to vote in its place");
        let replies =
            std::iter::once(Reply::status(202, &stuck)).chain((0..9).map(|_| cluster(&stuck)));
        let ran = Server::replying(replies).run("tidegate cluster leave n3 --wait --timeout 900ms");
        let why = "error: n3 has not left within 900ms: another node has to be able to vote in its \
                   place\n  it goes on; ";
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Failed, ""));
        assert!(ran.notes.contains(why), "{}", ran.notes);
        let back = [Reply::status(202, &stuck), cluster(&node("up", true, 0, ""))];
        let ran = Server::replying(back).run("tidegate cluster leave n3 --wait");
        assert_eq!(ran.exit, Exit::Failed);
        assert!(
            ran.notes.ends_with("error: n3 stays: somebody has called it back\n"),
            "{}",
            ran.notes
        );
    }

    #[test]
    fn what_is_refused_as_unsafe_is_told_apart_and_what_force_costs_is_said() {
        let problem = r#"{"title":"Conflict","detail":"n1 is the last member","status":409}"#;
        let ran = Server::replying([Reply::status(409, problem)]).run("tidegate cluster leave n1");
        assert_eq!(
            (ran.exit, ran.notes.as_str()),
            (Exit::Unsafe, "error: Conflict: n1 is the last member (HTTP 409)\n")
        );
        let given_up =
            node("leaving", true, 1365, "another node has to be able to vote in its place");
        let server = Server::replying([Reply::status(202, &given_up)]);
        let ran = server.run("tidegate cluster leave n3 --force");
        let notes = "what n3 has counted is lost: its 1365 partitions begin as spent elsewhere\n";
        assert_eq!((ran.exit, ran.notes.as_str()), (Exit::Done, notes));
        assert_eq!(server.seen()[0].line, "DELETE /v1/cluster/nodes/n3?force=true");
    }

    #[test]
    fn a_node_is_given_a_weight() {
        let server = Server::replying([Reply::ok(
            r#"{"id":"n3","number":3,"state":"up","voter":true,"partitions":1365,"weight":2,"waits_for":null}"#,
        )]);
        let ran = server.run("tidegate cluster weight n3 2");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "n3: weight 2\n"));
        assert_eq!(server.seen()[0].line, "PUT /v1/cluster/nodes/n3/weight");
    }

    #[test]
    fn a_node_is_drained_and_called_back() {
        let server = Server::replying([
            Reply::status(202, &node("draining", true, 9, "9 partitions are to be handed over")),
            cluster(&node("draining", true, 0, "")),
            Reply::ok(&node("up", true, 0, "")),
        ]);
        let ran = server.run("tidegate cluster drain n3 --wait -o json");
        let shown: serde_json::Value = serde_json::from_str(&ran.data).unwrap();
        assert_eq!((ran.exit, &shown["partitions"]), (Exit::Done, &serde_json::json!(0)));
        let ran = server.run("tidegate cluster drain n3 --end");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "n3: up, 0 partitions, votes\n"));
        let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
        let drain = "/v1/cluster/nodes/n3/drain";
        assert_eq!(
            lines,
            [format!("POST {drain}"), "GET /v1/cluster".into(), format!("DELETE {drain}")]
        );
    }
}
