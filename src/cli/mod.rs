//! The command line: what can be asked for, and what each outcome's exit code is.
//!
//! A line is read into a [`Line`] by clap and then run: `serve` becomes a node, and `dev` starts
//! several; every other command asks a node over HTTP (or nobody: `policy validate`, `completions`,
//! `man`), prints its data on stdout and everything else on stderr, and ends with an [`Exit`]. One
//! file a verb group; `client` and `output` are what the groups share.
//!
//! ```text
//! $ tidegate check acme --cost 3 ; echo $?
//! denied: acme (tier free, cost 3)
//! by rate (per tenant), reason rate; retry in 0.4s
//! …
//! 3
//! ```
//!
//! Three sources, in this order: the flag, its environment variable, the default. Connection and
//! node settings have a variable ([`variables`]), and an empty variable counts as absent. What a
//! node does once it runs is the library's business.

mod access;
mod certs;
mod check;
mod client;
mod cluster;
mod completions;
mod dev;
mod diff;
mod failure;
mod health;
mod limits;
mod man;
mod output;
mod pages;
mod policy;
mod serve;
mod tenant;
#[cfg(test)]
mod testing;
mod variables;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tidegate::config::{self, ADVERTISED, Config, LISTEN, Own, advertised, listening};
use tidegate::input::Fault;
use tidegate::placement::{WEIGHT_MAX, Weight};
use tidegate::telemetry::log::{self, Filter};

use client::ServerArgs;
use failure::Failure;
use output::{Format, Output};

/// How a command ended. The codes are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// It did what was asked.
    Done,
    /// It didn't, and said why; for `policy validate` and `policy diff`: it found something.
    Failed,
    /// The line was misused; for `policy diff`: there is no comparison.
    Usage,
    /// A check was denied.
    Denied,
    /// No node answered.
    Unreachable,
    /// The cluster could do it, but it would cost data or availability.
    Unsafe,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::Unreachable => 4,
            Self::Unsafe => 5,
        }
    }
}

#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    about = "A clustered rate limiter: runs a node, or asks one",
    long_about = "A clustered rate limiter. Without a command it runs a node, as `tidegate serve` \
                  does; the other commands ask the node at --url.",
    after_help = "\
Examples:
  tidegate                                      one node on 127.0.0.1:7070, the built-in policy
  tidegate --config cluster.toml --node n1      a node of a cluster
  tidegate dev                                  a whole cluster on this machine
  tidegate check acme --cost 3                  may acme do this now?
  tidegate policy get -o json --url http://10.0.0.2:7070

Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 unreachable, 5 refused as unsafe."
)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    /// How to print data
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table",
        env = "TIDEGATE_OUTPUT",
        help_heading = "Global options"
    )]
    output: Format,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node
    #[command(after_help = "\
Without --config it is one node on 127.0.0.1:7070 with the built-in policy and its data in ./tidegate-data. With --join it asks a
cluster to admit it, with the --token of an administrator, and gets from there what it needs; once its folder holds its data,
--join is ignored, and the same line starts it again.

Examples:
  tidegate serve
  tidegate serve --config cluster.toml --node n1 --log-format json
  tidegate serve --node n4 --http 127.0.0.1:7074 --peer 127.0.0.1:7174 --data-dir data/n4 --join http://127.0.0.1:7071
  TIDEGATE_CONFIG=cluster.toml TIDEGATE_NODE=n1 tidegate serve")]
    Serve(ServeArgs),
    Dev(dev::DevArgs),
    Check(Box<check::CheckArgs>),
    Health(health::HealthArgs),
    Policy(policy::PolicyArgs),
    Access(access::AccessArgs),
    Tenant(tenant::TenantArgs),
    Cluster(cluster::ClusterArgs),
    Backup(cluster::backup::BackupArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// What running a node takes.
#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    place: NodeArgs,
    /// Join the cluster of the node at this URL (or host and port), or form one with the nodes that
    /// the configuration lists, if this is one of them and there is no cluster yet; ignored where
    /// the folder holds a node already
    #[arg(long, value_name = "URL", env = "TIDEGATE_JOIN", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    join: Option<String>,
    /// With --join: if a member of this name has lost its data, give it up and join in its place,
    /// under a new number
    #[arg(long)]
    rejoin: bool,
    /// How much of the load it takes beside the others, if it joins: from 0, which owns nothing, to
    /// 16
    #[arg(long, value_name = "N", env = "TIDEGATE_WEIGHT", value_parser = weight)]
    weight: Option<Weight>,
    /// Names under which callers reach it, with commas between them: beside IP addresses and what
    /// is advertised, and in place of those that the configuration lists
    #[arg(long, value_name = "NAMES", env = "TIDEGATE_HTTP_HOSTS", value_delimiter = ',', value_parser = host)]
    http_hosts: Option<Vec<String>>,
    /// Listen on an address that is open to other machines without any token: whoever reaches it
    /// may change the policy
    #[arg(long, env = "TIDEGATE_INSECURE_NO_AUTH", value_parser = BoolishValueParser::new())]
    insecure_no_auth: bool,
    /// What is logged: info, tidegate=debug, warn,tidegate::http=trace, …; without it, what [log]
    /// of the configuration says, or info,openraft=error,rustls=error
    #[arg(long, value_name = "FILTER", env = "TIDEGATE_LOG")]
    log: Option<Filter>,
    /// What a log line looks like
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "TIDEGATE_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
    /// Stop, as at SIGTERM, when standard input ends: for programs that start a node and may die
    /// without stopping it
    #[arg(long, env = "TIDEGATE_STOP_AT_EOF", value_parser = BoolishValueParser::new())]
    stop_at_eof: bool,
}

/// Which node is meant, and where it is: in a file, and beside it.
#[derive(Args)]
struct NodeArgs {
    /// The configuration (cluster.toml)
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Which node this one is: one of the configuration's, or a new one
    #[arg(long, value_name = "ID", env = "TIDEGATE_NODE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    node: Option<String>,
    /// Where it listens for HTTP, rather than where the configuration says: an IP address or
    /// localhost, and a port
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_HTTP", value_parser = listen_at)]
    http: Option<SocketAddr>,
    /// Where clients reach it, if not where it listens: a host and a port
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_HTTP_ADVERTISE", value_parser = reached_at)]
    http_advertise: Option<String>,
    /// Where it listens for the other nodes, rather than where the configuration says
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_PEER", value_parser = listen_at)]
    peer: Option<SocketAddr>,
    /// Where the other nodes reach it, if not where it listens: a host and a port
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_PEER_ADVERTISE", value_parser = reached_at)]
    peer_advertise: Option<String>,
    /// Where it keeps its data, rather than where the configuration says
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl NodeArgs {
    /// What is said of the node on the line. Without a file its tokens may come from elsewhere.
    fn own(&self) -> Own {
        let Self { http, peer, .. } = *self;
        let (http_advertise, peer_advertise) =
            (self.http_advertise.clone(), self.peer_advertise.clone());
        let (data_dir, may_have_tokens) = (self.data_dir.clone(), self.config.is_none());
        Own {
            http,
            http_advertise,
            peer,
            peer_advertise,
            data_dir,
            may_have_tokens,
            ..Own::default()
        }
    }

    /// The configuration of that node, and the variables that it looks up.
    fn load(&self, own: &Own) -> (Result<Config, Vec<Fault>>, BTreeSet<String>) {
        let looked_up = RefCell::new(BTreeSet::new());
        let variable = |name: &str| {
            looked_up.borrow_mut().insert(name.to_string());
            std::env::var(name).ok()
        };
        let config = match &self.config {
            Some(path) => Config::load(path, self.node.as_deref(), own, variable),
            None => Config::standalone_as(self.node.as_deref(), own, variable),
        };
        (config, looked_up.into_inner())
    }
}

/// The flags that only running a node takes.
const SERVING: [&str; 15] = [
    "config",
    "node",
    "http",
    "http_advertise",
    "peer",
    "peer_advertise",
    "data_dir",
    "http_hosts",
    "join",
    "rejoin",
    "weight",
    "insecure_no_auth",
    "log",
    "log_format",
    "stop_at_eof",
];

fn listen_at(text: &str) -> Result<SocketAddr, String> {
    listening(text).ok_or_else(|| format!("{text:?} is not {LISTEN}"))
}

fn reached_at(text: &str) -> Result<String, String> {
    advertised(text).ok_or_else(|| format!("{text:?} is not {ADVERTISED}"))
}

/// A name under which callers reach a node.
fn host(text: &str) -> Result<String, String> {
    config::host(text).ok_or_else(|| format!("{text:?} is not {}", config::HOST))
}

fn weight(text: &str) -> Result<Weight, String> {
    let weight = text.parse().ok().and_then(Weight::new);
    weight.ok_or_else(|| format!("{text:?} is not a number from 0 to {WEIGHT_MAX}"))
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl From<LogFormat> for log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// A command line, understood.
pub struct Line(Cli);

impl Line {
    /// Reads the program's arguments, and the environment where they leave something open. The
    /// error is also how `--help` and `--version` come out.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = without_empty_variables(Cli::command());
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        match (&mut cli.command, matches.subcommand()) {
            (Some(Command::Serve(serve)), Some((_, after))) => {
                // What follows the word `serve` counts before what precedes it, and anything typed
                // before a variable.
                if !typed(after, "config") {
                    serve.place.config = cli.serve.place.config.take();
                }
                if !typed(after, "node") {
                    serve.place.node = cli.serve.place.node.take();
                }
                if !typed(after, "http") {
                    serve.place.http = cli.serve.place.http;
                }
                if !typed(after, "http_advertise") {
                    serve.place.http_advertise = cli.serve.place.http_advertise.take();
                }
                if !typed(after, "peer") {
                    serve.place.peer = cli.serve.place.peer;
                }
                if !typed(after, "peer_advertise") {
                    serve.place.peer_advertise = cli.serve.place.peer_advertise.take();
                }
                if !typed(after, "data_dir") {
                    serve.place.data_dir = cli.serve.place.data_dir.take();
                }
                if !typed(after, "http_hosts") {
                    serve.http_hosts = cli.serve.http_hosts.take();
                }
                if !typed(after, "join") {
                    serve.join = cli.serve.join.take();
                }
                if !typed(after, "rejoin") {
                    serve.rejoin = cli.serve.rejoin;
                }
                if !typed(after, "weight") {
                    serve.weight = cli.serve.weight;
                }
                if !typed(after, "insecure_no_auth") {
                    serve.insecure_no_auth = cli.serve.insecure_no_auth;
                }
                if !typed(after, "log") {
                    serve.log = cli.serve.log.take();
                }
                if !typed(after, "log_format") {
                    serve.log_format = cli.serve.log_format;
                }
                if !typed(after, "stop_at_eof") {
                    serve.stop_at_eof = cli.serve.stop_at_eof;
                }
            }
            (Some(_), Some((name, _))) => {
                // Else `tidegate --node n2 check acme` would ask the default node and look as if it
                // had asked n2.
                let misplaced = SERVING.into_iter().find(|id| typed(&matches, id));
                if let Some(id) = misplaced {
                    let id = id.replace('_', "-");
                    let why =
                        format!("--{id} is for running a node: `tidegate {name}` doesn't take it");
                    return Err(command.error(ErrorKind::ArgumentConflict, why));
                }
            }
            _ => {}
        }
        Ok(Self(cli))
    }

    /// Does what the line asks for.
    pub fn run(self) -> ExitCode {
        match self.0.command {
            None => serve::run(self.0.serve, self.0.server),
            Some(Command::Serve(serve)) => serve::run(serve, self.0.server),
            Some(command) => {
                let stdout = std::io::stdout();
                let colour = is_coloured(stdout.is_terminal(), std::env::var_os("NO_COLOR"));
                let (mut data, mut notes) = (stdout.lock(), std::io::stderr().lock());
                let mut out = Output::new(self.0.output, colour, &mut data, &mut notes);
                for warning in variables::warnings(variables::ours(), &BTreeSet::new()) {
                    out.note(&format!("warning: {warning}"));
                }
                ExitCode::from(ask(command, &self.0.server, &mut out).code())
            }
        }
    }
}

/// Runs a command that asks, and says on stderr why it failed if it did.
fn ask(command: Command, server: &ServerArgs, out: &mut Output<'_>) -> Exit {
    let answer = match command {
        Command::Serve(_) => unreachable!("serving is not asking"),
        Command::Dev(arguments) => arguments.run(out),
        Command::Check(arguments) => arguments.run(server, out),
        Command::Health(arguments) => arguments.run(server, out),
        Command::Policy(arguments) => arguments.run(server, out),
        Command::Access(arguments) => arguments.run(server, out),
        Command::Tenant(arguments) => arguments.run(server, out),
        Command::Cluster(arguments) => arguments.run(server, out),
        Command::Backup(arguments) => arguments.run(server, out).map(|()| Exit::Done),
        Command::Completions(arguments) => arguments.run(out),
        Command::Man(arguments) => arguments.run(out),
    };
    answer.unwrap_or_else(|failure: Failure| {
        out.note(&format!("error: {failure}"));
        failure.exit()
    })
}

/// Colour is for a terminal, unless its owner wants none: <https://no-color.org>.
fn is_coloured(is_terminal: bool, no_color: Option<OsString>) -> bool {
    is_terminal && no_color.is_none_or(|value| value.is_empty())
}

fn typed(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// An empty variable is an absent one: compose files and unit files set `TIDEGATE_TOKEN=` to mean
/// nothing.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| {
            let value = argument.get_env().and_then(std::env::var_os);
            if value.is_some_and(|value| value.is_empty()) {
                argument.env(Resettable::Reset)
            } else {
                argument
            }
        })
        .mut_subcommands(without_empty_variables)
}

/// Every command, with the words that name it, for tests that promise something of all of them.
#[cfg(test)]
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(prefix: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        let name = format!("{prefix} {}", command.get_name()).trim_start().to_string();
        found.push((name.clone(), command.clone()));
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            walk(&name, sub, found);
        }
    }
    let mut found = Vec::new();
    walk("", &Cli::command(), &mut found);
    found
}

#[cfg(test)]
mod tests;
