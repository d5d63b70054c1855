//! `tidegate cluster`: how the cluster stands, as the node that is asked sees it.
//!
//! ```text
//! $ tidegate cluster status
//! cluster      demo, as n2 sees it
//! leader       n1, term 3
//! majority     yes, heard of 12ms ago
//! policy       version 12
//! settings     version 1: round_trip_ms 100
//!
//! NODE  STATE  ROLE    WEIGHT  PARTITIONS  HTTP
//! n1    up     leader       1        1366  127.0.0.1:7071
//! n2    up     voter        1        1365  127.0.0.1:7072
//! n3    up     voter        1        1365  127.0.0.1:7073
//!
//! n1 to n4: 64 partitions are moving, 277 more to go
//! ```
//!
//! What is unwise about it goes to stderr, a warning a line. Another node may see it otherwise: ask
//! it with `--url`. How nodes leave and are drained is in [`members`], how settings are changed in
//! [`set`]; how a cluster is kept for bad days in [`backup`], and how it goes on after them in
//! [`restore`] and [`recover`].

pub(super) mod backup;
mod members;
mod recover;
mod restore;
mod set;

use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

use super::Exit;
use super::certs::CertsArgs;
use super::client::{Client, Request, ServerArgs, encode};
use super::failure::Failure;
use super::output::{Column, Output, plain, span};

/// The cluster: its nodes, and the links between them
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate cluster status
  tidegate cluster leave n3 --wait
  tidegate cluster set round_trip_ms=200
  tidegate cluster backup monday.backup
  tidegate cluster recover --data-dir data/n3
  tidegate cluster breakers
  tidegate cluster certs --cluster demo n1 n2 n3")]
pub struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Show the leader, the nodes and what each owns
    #[command(after_help = "\
It is what the node at --url sees; another may see it otherwise. Warnings go to stderr.

Examples:
  tidegate cluster status
  tidegate cluster status --url http://127.0.0.1:7072 -o json")]
    Status,
    Leave(members::LeaveArgs),
    Drain(members::DrainArgs),
    Weight(members::WeightArgs),
    Set(set::SetArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Recover(recover::RecoverArgs),
    /// Show the circuit breakers of the links from the node at --url to the others, or close one
    #[command(after_help = "\
While a breaker is open, nothing is sent to that peer. --reset closes it: the next call is tried.

Examples:
  tidegate cluster breakers
  tidegate cluster breakers --reset n2")]
    Breakers {
        /// Close the breaker of the link to this node
        #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        reset: Option<String>,
    },
    Certs(CertsArgs),
}

impl ClusterArgs {
    /// Does what the verb says.
    pub fn run(self, server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Status => status(&server.client()?, out)?,
            Verb::Leave(arguments) => arguments.run(&server.client()?, out)?,
            Verb::Drain(arguments) => arguments.run(&server.client()?, out)?,
            Verb::Weight(arguments) => arguments.run(&server.client()?, out)?,
            Verb::Set(arguments) => arguments.run(&server.client()?, out)?,
            Verb::Backup(arguments) => arguments.run(server, out)?,
            Verb::Restore(arguments) => arguments.run(out)?,
            Verb::Recover(arguments) => arguments.run(out)?,
            Verb::Breakers { reset: None } => breakers(&server.client()?, out)?,
            Verb::Breakers { reset: Some(peer) } => reset(&server.client()?, &peer, out)?,
            Verb::Certs(arguments) => arguments.run(out)?,
        }
        Ok(Exit::Done)
    }
}

/// A cluster, as far as it is shown.
#[derive(Deserialize)]
struct Status {
    name: String,
    node: String,
    leader: Option<String>,
    term: u64,
    contact_ms: Option<u64>,
    quorum: bool,
    /// Absent where the node is older than the settings.
    settings: Option<Settings>,
    policy_version: u64,
    #[serde(default = "enforced")]
    enforce: bool,
    nodes: Vec<Node>,
    #[serde(default)]
    moves: Vec<Moves>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Settings {
    version: u64,
    round_trip_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    state: String,
    #[serde(default)]
    waits_for: Option<String>,
    voter: bool,
    leader: bool,
    partitions: u64,
    #[serde(default = "one")]
    weight: u64,
    http: String,
}

/// What a node says of its limits that is older than this member.
fn enforced() -> bool {
    true
}

/// The weight of a node that is older than weights.
fn one() -> u64 {
    1
}

#[derive(Deserialize)]
struct Moves {
    from: String,
    to: String,
    moving: u64,
    waiting: u64,
}

fn status(client: &Client, out: &mut Output<'_>) -> Result<(), Failure> {
    let answer = client.send(Request::get("/v1/cluster"))?;
    if out.is_json() {
        return out.json(&answer.text);
    }
    let status: Status = answer.read()?;
    out.facts(&[
        ("cluster", format!("{}, as {} sees it", status.name, status.node)),
        ("leader", format!("{}, term {}", status.leader.as_deref().unwrap_or("none"), status.term)),
        ("majority", majority(&status)),
        ("policy", policy(&status)),
    ])?;
    if let Some(settings) = &status.settings {
        out.facts(&[("settings", settings.shown())])?;
    }
    out.line("")?;
    let columns = [
        Column::Left("NODE"),
        Column::Left("STATE"),
        Column::Left("ROLE"),
        Column::Right("WEIGHT"),
        Column::Right("PARTITIONS"),
        Column::Left("HTTP"),
    ];
    let waiting =
        status.nodes.iter().filter_map(|node| Some((node.id.clone(), node.waits_for.clone()?)));
    let waiting: Vec<_> = waiting.collect();
    out.table(&columns, &status.nodes.into_iter().map(row).collect::<Vec<_>>())?;
    for (at, Moves { from, to, moving, waiting }) in status.moves.iter().enumerate() {
        if at == 0 {
            out.line("")?;
        }
        let line = format!("{from} to {to}: {moving} partitions are moving, {waiting} more to go");
        out.line(&plain(&line))?;
    }
    for (id, what) in waiting {
        out.note(&format!("{}: {}", plain(&id), plain(&what)));
    }
    for warning in &status.warnings {
        out.note(&format!("warning: {}", plain(warning)));
    }
    Ok(())
}

impl Settings {
    fn shown(&self) -> String {
        match self.round_trip_ms {
            Some(ms) => format!("version {}: round_trip_ms {ms}", self.version),
            None => "as the configuration of each node says".into(),
        }
    }
}

fn policy(status: &Status) -> String {
    let off = if status.enforce { "" } else { ", kill switch thrown: no limit denies" };
    format!("version {}{off}", status.policy_version)
}

fn majority(status: &Status) -> String {
    let heard = status.contact_ms.map(|ms| format!("heard of {} ago", span(ms)));
    match (status.quorum, heard) {
        (true, Some(heard)) => format!("yes, {heard}"),
        (true, None) => "yes".into(),
        (false, Some(heard)) => format!("no, last {heard}"),
        (false, None) => "no, never heard of".into(),
    }
}

fn row(node: Node) -> Vec<String> {
    let role = match (node.leader, node.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    };
    let partitions = node.partitions.to_string();
    vec![node.id, node.state, role.into(), node.weight.to_string(), partitions, node.http]
}

#[derive(Deserialize)]
struct Breakers {
    node: String,
    breakers: Vec<Breaker>,
}

#[derive(Deserialize)]
struct Breaker {
    id: String,
    state: String,
    failures: u64,
    opened: u64,
    retry_after_ms: Option<u64>,
    connected: bool,
    why: Option<String>,
}

fn breakers(client: &Client, out: &mut Output<'_>) -> Result<(), Failure> {
    let answer = client.send(Request::get("/v1/cluster/breakers"))?;
    if out.is_json() {
        return out.json(&answer.text);
    }
    let Breakers { node, breakers } = answer.read()?;
    if breakers.is_empty() {
        out.note(&format!("{} has no links to other nodes", plain(&node)));
    }
    let columns = [
        Column::Left("PEER"),
        Column::Left("BREAKER"),
        Column::Left("CONNECTED"),
        Column::Right("FAILURES"),
        Column::Right("OPENED"),
        Column::Right("RETRY IN"),
        Column::Left("WHY"),
    ];
    let row = |breaker: Breaker| {
        vec![
            breaker.id,
            breaker.state,
            if breaker.connected { "yes" } else { "no" }.into(),
            breaker.failures.to_string(),
            breaker.opened.to_string(),
            breaker.retry_after_ms.map_or_else(|| "-".into(), span),
            breaker.why.unwrap_or_default(),
        ]
    };
    out.table(&columns, &breakers.into_iter().map(row).collect::<Vec<_>>())
}

fn reset(client: &Client, peer: &str, out: &mut Output<'_>) -> Result<(), Failure> {
    let answer =
        client.send(Request::post(format!("/v1/cluster/breakers/{}/reset", encode(peer))))?;
    match out.is_json() {
        true => out.json(&answer.text),
        false => out.line(&format!("{peer}: breaker closed")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Reply, Server};
    use super::*;

    const ANSWER: &str = r#"{"name":"demo","node":"n2","leader":"n1","term":3,"applied":40,"contact_ms":12,"quorum":true,
        "policy_version":12,"placement_version":9,"nodes":[
        {"id":"n1","number":1,"http":"127.0.0.1:7071","peer":"127.0.0.1:7171","state":"up","voter":true,"leader":true,
         "boot":"0a","partitions":1366},
        {"id":"n2","number":2,"http":"127.0.0.1:7072","peer":"127.0.0.1:7172","state":"draining","waits_for":"it \u0007 hands over","voter":true,"leader":false,
         "boot":"0b","partitions":0,"weight":16},
        {"id":"n3","number":3,"http":"gateway.example:80","peer":"127.0.0.1:7173","state":"unreachable","voter":false,
         "leader":false,"boot":null,"partitions":2730}],
         "moves":[{"from":"n2","to":"n1","moving":64,"waiting":277}],"warnings":["of \u001b[2J"]}"#;

    #[test]
    fn status_says_who_leads_and_what_each_node_owns() {
        let server = Server::replying([Reply::ok(ANSWER)]);
        let ran = server.run("tidegate cluster status");
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        let expected = "\
cluster      demo, as n2 sees it
leader       n1, term 3
majority     yes, heard of 12ms ago
policy       version 12

NODE  STATE        ROLE     WEIGHT  PARTITIONS  HTTP
n1    up           leader        1        1366  127.0.0.1:7071
n2    draining     voter        16           0  127.0.0.1:7072
n3    unreachable  learner       1        2730  gateway.example:80

n2 to n1: 64 partitions are moving, 277 more to go
";
        assert_eq!(ran.data, expected);
        assert_eq!(ran.notes, "n2: it \u{fffd} hands over\nwarning: of \u{fffd}[2J\n");
        assert_eq!(server.seen()[0].line, "GET /v1/cluster");
    }

    #[test]
    fn the_settings_are_a_line_of_the_status() {
        for (settings, shown) in [
            (r#"{"version":2,"round_trip_ms":300,"restart":[]}"#, "version 2: round_trip_ms 300"),
            (
                r#"{"version":0,"round_trip_ms":null,"restart":[]}"#,
                "as the configuration of each node says",
            ),
        ] {
            let settings = format!("\"settings\":{settings},\"policy_version\":12");
            let answer = ANSWER.replace("\"policy_version\":12", &settings);
            let ran = Server::replying([Reply::ok(&answer)]).run("tidegate cluster status");
            assert!(ran.data.contains(&format!("settings     {shown}\n")), "{}", ran.data);
        }
    }

    #[test]
    fn a_kill_switch_that_is_thrown_is_shown() {
        let answer =
            ANSWER.replace("\"policy_version\":12", "\"policy_version\":12,\"enforce\":false");
        let ran = Server::replying([Reply::ok(&answer)]).run("tidegate cluster status");
        let expected = "policy       version 12, kill switch thrown: no limit denies\n";
        assert!(ran.data.contains(expected), "{}", ran.data);
    }

    #[test]
    fn a_majority_that_is_lost_or_was_never_there_is_told_apart() {
        for (contact, quorum, expected) in [
            ("12", true, "yes, heard of 12ms ago"),
            ("5201", false, "no, last heard of 5.3s ago"),
            ("null", false, "no, never heard of"),
        ] {
            let answer = ANSWER
                .replace("\"contact_ms\":12", &format!("\"contact_ms\":{contact}"))
                .replace("\"quorum\":true", &format!("\"quorum\":{quorum}"))
                .replace("\"leader\":\"n1\"", "\"leader\":null");
            let ran = Server::replying([Reply::ok(&answer)]).run("tidegate cluster status");
            assert!(ran.data.contains("leader       none, term 3\n"), "{}", ran.data);
            assert!(ran.data.contains(&format!("majority     {expected}\n")), "{}", ran.data);
        }
    }

    #[test]
    fn json_is_the_nodes_answer() {
        let server =
            Server::replying([Reply::ok(ANSWER), Reply::ok(r#"{"node":"n1","breakers":[]}"#)]);
        let ran = server.run("tidegate cluster status -o json");
        let (printed, answered): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(&ran.data).unwrap(), serde_json::from_str(ANSWER).unwrap());
        assert_eq!((printed, ran.notes.as_str()), (answered, ""));
        let ran = server.run("tidegate cluster breakers -o json");
        assert_eq!(ran.data, "{\n  \"node\": \"n1\",\n  \"breakers\": []\n}\n");
    }

    #[test]
    fn breakers_are_shown_and_closed_by_the_name_of_the_peer() {
        let answer = r#"{"node":"n1","breakers":[
            {"id":"n2","state":"closed","failures":0,"opened":0,"retry_after_ms":null,"connected":true,"why":null},
            {"id":"n3","state":"open","failures":5,"opened":2,"retry_after_ms":250,"connected":false,
             "why":"connection refused"}]}"#;
        let server =
            Server::replying([Reply::ok(answer), Reply::ok(r#"{"id":"n 3","reset":true}"#)]);
        let ran = server.run("tidegate cluster breakers");
        let expected = "\
PEER  BREAKER  CONNECTED  FAILURES  OPENED  RETRY IN  WHY
n2    closed   yes               0       0         -
n3    open     no                5       2     250ms  connection refused
";
        assert_eq!((ran.exit, ran.data.as_str(), ran.notes.as_str()), (Exit::Done, expected, ""));
        let ran = server.run("tidegate cluster breakers --reset n/3");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "n/3: breaker closed\n"));
        assert_eq!(server.seen()[1].line, "POST /v1/cluster/breakers/n%2F3/reset");
    }

    #[test]
    fn a_node_that_nobody_answers_for_is_unreachable() {
        for line in ["tidegate cluster status", "tidegate cluster breakers --reset n2"] {
            let ran = Server::replying([]).run(line);
            assert_eq!((ran.exit, ran.data.as_str()), (Exit::Unreachable, ""), "{line}");
        }
    }
}
