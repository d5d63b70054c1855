//! What one check costs at a node's HTTP door, measured against a service that does everything but decide.
//!
//! An absolute figure says more about a machine and its afternoon than about a program, so every figure comes
//! with its ratio to a bare axum service: same requests, same answers, same load, in turns (A B A B …),
//! medians of the rounds. Example: if in a round the node spent 3.0 s of processor time on 500,000 decisions
//! and the bare service 3.2 s on as many, the node costs 6.0 µs a decision and 0.94 times the bare service.
//!
//! A scenario starts one server process per candidate, asks once for every tenant, and then, per round and
//! candidate, warms up, reads the server's processor time, loads it for a while, and reads the time again
//! (`load`, `cpu`). An answer that isn't 200, or not the decision that was asked for, fails the run
//! (`answer`).
//!
//! What it can't say: how a node behaves in a cluster (it has no peers here), what a network adds (all is
//! loopback), what callers see who don't wait for their answers (`load`), or what the processor time is made
//! of (use a profiler). The generator shares the machine with the server, so decisions per second depend on
//! both; processor time per decision does much less.

mod answer;
mod bare;
mod clock;
mod cpu;
mod interrupt;
mod load;
mod micro;
mod report;
mod response;
mod scenario;
mod server;
mod stats;

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::cpu::Reading;
use crate::load::{Load, Phase};
use crate::report::{Comparison, Report, Round};
use crate::scenario::{Scenario, TENANTS_MAX, Tier};
use crate::server::{Candidate, Server};

/// Before every measured run: long enough for caches and branch predictors, and for a processor to raise its
/// clock.
const WARM_UP: Duration = Duration::from_millis(500);

/// Times a node's HTTP door against a bare axum service.
#[derive(Parser)]
#[command(name = "tidegate-bench", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Role {
    /// Times deciding alone, without HTTP, beside governor
    Micro(micro::Settings),
    /// Is the bare service; the benchmark starts itself so.
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        tier: Tier,
    },
}

#[derive(Args)]
struct Settings {
    /// The node to measure
    #[arg(long, value_name = "PATH", default_value = "target/release/tidegate")]
    node_binary: PathBuf,
    /// How often every candidate is measured in every scenario
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=25))]
    rounds: u32,
    /// How long one measured run takes
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Keep-alive connections, each with one call under way
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Tenants the checks spread over, but for `hot` (1) and `uniform` (100,000)
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=i64::from(TENANTS_MAX)))]
    tenants: u32,
    /// Measure this scenario; may be given several times [default: all]
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<Scenario>,
    /// Measure these, in this order, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["tidegate", "bare"])]
    candidates: Vec<Candidate>,
    /// How to print the result
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let CommandLine { role, settings } = CommandLine::parse();
    let done = match role {
        Some(Role::Bare { port, tier }) => bare::run(port, tier),
        Some(Role::Micro(settings)) => micro::run(&settings),
        None => compare(&settings),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn compare(settings: &Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its bare service is no yardstick (build with --release)");
    }
    interrupt::listen()?;
    let scenarios =
        if settings.scenarios.is_empty() { Scenario::value_variants() } else { &settings.scenarios };
    let mut comparisons = Vec::new();
    for scenario in once_each(scenarios) {
        let comparison =
            measure(settings, scenario).map_err(|error| format!("{}: {error}", scenario.name()))?;
        comparisons.push(comparison);
    }
    let report = Report {
        rounds: settings.rounds,
        seconds: settings.seconds,
        connections: settings.connections,
        tenants: settings.tenants,
        comparisons,
    };
    match settings.output {
        Output::Table => print!("{}", report.table()),
        Output::Json => println!("{}", report.json()?),
    }
    Ok(())
}

/// A candidate in a scenario: its server, the connections to it, and what its rounds gave.
struct Contender {
    candidate: Candidate,
    load: Load,
    server: Server,
    rounds: Vec<Round>,
}

fn measure(settings: &Settings, scenario: Scenario) -> Result<Comparison, Box<dyn Error + Send + Sync>> {
    let tenants = scenario.tenants(settings.tenants);
    let mut contenders = Vec::new();
    for candidate in once_each(&settings.candidates) {
        let name = candidate.name();
        let mut server = Server::start(candidate, &settings.node_binary, scenario.tier())
            .map_err(|error| format!("{name}: {error}"))?;
        let load = Load::connect(server.address(), scenario, tenants, settings.connections)
            .and_then(|mut load| load.run(Phase::Fill).map(|_| load))
            .map_err(|error| format!("{name}: {error}{}", server.last_words()))?;
        contenders.push(Contender { candidate, load, server, rounds: Vec::new() });
    }
    let length = Duration::from_secs(u64::from(settings.seconds));
    for number in 1..=settings.rounds {
        for contender in &mut contenders {
            let name = contender.candidate.name();
            let round = contender
                .round(length)
                .map_err(|error| format!("{name}: {error}{}", contender.server.last_words()))?;
            eprintln!(
                "{} {number}/{} {name}: {:.2} µs, {:.0}/s",
                scenario.name(),
                settings.rounds,
                round.cpu_us_per_decision,
                round.decisions_per_second
            );
            contender.rounds.push(round);
        }
    }
    let measured: Vec<_> =
        contenders.into_iter().map(|contender| (contender.candidate, contender.rounds)).collect();
    Comparison::new(scenario, &measured).ok_or_else(|| "nothing was measured".into())
}

impl Contender {
    fn round(&mut self, length: Duration) -> Result<Round, Box<dyn Error + Send + Sync>> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.load.run(Phase::For(WARM_UP))?;
        // Between two phases no call is under way: all that the server spends here is spent on the answers
        // counted.
        let before = Reading::take(self.server.pid())?;
        let tally = self.load.run(Phase::For(length))?;
        let spent = Reading::take(self.server.pid())?.since(&before);
        Round::new(&tally, spent, processors).ok_or_else(|| "no call was answered".into())
    }
}

/// In the order given, a second mention dropped.
fn once_each<T: Copy + PartialEq>(items: &[T]) -> Vec<T> {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if !kept.contains(item) {
            kept.push(*item);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_bounded() {
        CommandLine::command().debug_assert();
        for arguments in
            [["--rounds", "0"], ["--seconds", "61"], ["--connections", "1025"], ["--tenants", "10000001"]]
        {
            let given = ["tidegate-bench"].into_iter().chain(arguments);
            assert!(CommandLine::try_parse_from(given).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_scenario_named_twice_is_measured_once() {
        let given = ["tidegate-bench", "--scenario", "hot", "--scenario", "batch-10", "--scenario", "hot"];
        let settings = CommandLine::try_parse_from(given).unwrap().settings;
        assert_eq!(once_each(&settings.scenarios), [Scenario::Hot, Scenario::Batch10]);
        assert_eq!(settings.candidates, [Candidate::Tidegate, Candidate::Bare]);
    }
}
