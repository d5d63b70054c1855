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
mod tests {
    use super::testing::words;
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Line::read(words(line)).map(|line| line.0)
    }

    fn serving(line: &str) -> (Option<String>, Option<String>) {
        let cli = read(line).unwrap();
        let serve = match cli.command {
            Some(Command::Serve(serve)) => serve,
            None => cli.serve,
            Some(_) => panic!("{line} doesn't serve"),
        };
        (serve.place.config.map(|path| path.to_string_lossy().into_owned()), serve.place.node)
    }

    #[test]
    fn a_node_is_run_with_and_without_the_word_serve() {
        let n1 = (Some("a.toml".into()), Some("n1".into()));
        for line in [
            "tidegate --config a.toml --node n1",
            "tidegate serve --config a.toml --node n1",
            "tidegate --config a.toml serve --node n1",
            "tidegate --config b.toml serve --node n1 --config a.toml",
        ] {
            assert_eq!(serving(line), n1, "{line}");
        }
        assert_eq!(serving("tidegate"), (None, None));
    }

    #[test]
    fn where_a_node_is_and_whom_it_asks_is_said_before_or_after_the_word_serve() {
        for line in [
            "tidegate --http 127.0.0.1:7074 --peer 127.0.0.1:7174 --data-dir d --join http://h:1",
            "tidegate serve --http 127.0.0.1:7074 --peer 127.0.0.1:7174 --data-dir d --join \
             http://h:1",
            "tidegate --http 127.0.0.1:7074 --data-dir d serve --peer 127.0.0.1:7174 --join \
             http://h:1",
            "tidegate --http 127.0.0.1:1 --data-dir e --peer 127.0.0.1:7174 serve --http \
             127.0.0.1:7074 --data-dir d --join http://h:1",
        ] {
            let cli = read(line).unwrap();
            let serve = match cli.command {
                Some(Command::Serve(serve)) => serve,
                _ => cli.serve,
            };
            let ports =
                (serve.place.http.map(|at| at.port()), serve.place.peer.map(|at| at.port()));
            assert_eq!(ports, (Some(7074), Some(7174)), "{line}");
            assert_eq!(serve.place.data_dir.as_deref(), Some(std::path::Path::new("d")), "{line}");
            assert_eq!(serve.join.as_deref(), Some("http://h:1"), "{line}");
        }
    }

    #[test]
    fn a_flag_for_running_a_node_is_refused_before_another_command() {
        let refused = read("tidegate --node n2 check acme").err().unwrap();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--node is for running a node"), "{refused}");
    }

    #[test]
    fn the_global_flags_work_anywhere_on_the_line() {
        for line in [
            "tidegate --url http://h:1 --token t -o json policy get",
            "tidegate policy --url http://h:1 --token t -o json get",
            "tidegate policy get --url http://h:1 --token=t --output=json",
        ] {
            let cli = read(line).unwrap();
            assert_eq!(cli.output, Format::Json, "{line}");
            assert_eq!(cli.server.url, "http://h:1", "{line}");
            assert_eq!(cli.server.token.as_deref(), Some("t"), "{line}");
        }
    }

    #[test]
    fn only_connection_and_node_settings_have_variables() {
        const WITH: [&str; 19] = [
            "url",
            "token",
            "ca-cert",
            "output",
            "api-key",
            "config",
            "node",
            "http",
            "peer",
            "http-advertise",
            "peer-advertise",
            "data-dir",
            "join",
            "weight",
            "http-hosts",
            "insecure-no-auth",
            "log",
            "log-format",
            "stop-at-eof",
        ];
        for (name, command) in commands() {
            for argument in command.get_arguments() {
                let flag = argument.get_long().unwrap_or_default();
                let is_for_one_entry = name == "tidegate access add" && flag == "api-key";
                // A variable that says where a node keeps its data must not make this another
                // command.
                let is_of_stopped = name.ends_with(" backup") && flag == "data-dir";
                let may = WITH.contains(&flag) && !is_for_one_entry && !is_of_stopped;
                let variable =
                    argument.get_env().map(|variable| variable.to_string_lossy().into_owned());
                assert_eq!(variable.is_some(), may && name != "tidegate dev", "{name} --{flag}");
                assert!(
                    variables::warnings(variable.into_iter(), &BTreeSet::new()).is_empty(),
                    "{name} --{flag}"
                );
            }
        }
    }

    #[test]
    fn every_command_has_an_example() {
        for (name, command) in commands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  "), "{name}");
        }
    }

    #[test]
    fn no_two_flags_share_a_variable_but_those_that_say_where_a_node_is() {
        let place = NodeArgs::augment_args(clap::Command::new("node"));
        let of_place: Vec<_> = place.get_arguments().map(|argument| argument.get_id()).collect();
        let mut seen = std::collections::BTreeMap::new();
        // These two are there a second time, under a longer or a shorter name.
        let again = ["tidegate serve", "tidegate backup"];
        for (name, command) in
            commands().into_iter().filter(|(name, _)| !again.contains(&name.as_str()))
        {
            for argument in command.get_arguments() {
                if let Some(variable) = argument.get_env() {
                    let flag = format!("{name} {}", argument.get_id());
                    let other = seen.insert(variable.to_owned(), flag.clone());
                    assert!(
                        other.is_none() || of_place.contains(&argument.get_id()),
                        "{flag}: {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_example_is_understood() {
        let mut examples = 0;
        for (_, command) in commands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                // `VARIABLE=x tidegate …`, `… | tidegate …` and `tidegate …     what it does`
                let from = line.find("tidegate ").or(line.find("tidegate")).unwrap();
                let call = line[from..].split("  ").next().unwrap();
                let call = call.split([';', '|', '>']).next().unwrap();
                assert!(read(call).is_ok(), "{line}: {:?}", read(call).err());
                examples += 1;
            }
        }
        assert!(examples > 15, "{examples}");
    }

    #[test]
    fn a_misused_line_exits_2_and_help_exits_0() {
        for line in [
            "tidegate --colour",
            "tidegate check",
            "tidegate check acme --cost 0",
            "tidegate dev --nodes 0",
            "tidegate dev --nodes 10",
            "tidegate dev --http-port 65536",
            "tidegate policy",
            "tidegate tenant show",
            "tidegate completions",
            "tidegate -o yaml policy get",
        ] {
            assert_eq!(read(line).err().map(|e| e.exit_code()), Some(2), "{line}");
        }
        for line in ["tidegate --help", "tidegate policy diff --help", "tidegate --version"] {
            assert_eq!(read(line).err().map(|e| e.exit_code()), Some(0), "{line}");
        }
    }

    #[test]
    fn colour_is_for_terminals_alone_and_never_with_no_color() {
        let set = |value: &str| Some(value.into());
        for (is_terminal, no_color, coloured) in [
            (true, None, true),
            (true, set(""), true),
            (true, set("1"), false),
            (true, set("0"), false),
            (false, None, false),
            (false, set("1"), false),
        ] {
            assert_eq!(
                is_coloured(is_terminal, no_color.clone()),
                coloured,
                "{is_terminal} {no_color:?}"
            );
        }
    }

    #[test]
    fn the_parser_holds_together() {
        Cli::command().debug_assert();
    }
}
