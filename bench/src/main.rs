//! What one check costs at a node's HTTP door, measured against a service that does everything but
//! decide.
//!
//! An absolute figure says more about a machine and its afternoon than about a program, so every
//! figure comes with its ratio to a bare axum service: same requests, same answers, same load, in
//! turns (A B A B …), medians of the rounds. Example: if in a round the node spent 3.0 s of
//! processor time on 500,000 decisions and the bare service 3.2 s on as many, the node costs 6.0 µs
//! a decision and 0.94 times the bare service.
//!
//! A scenario starts one server process per candidate, asks once for every tenant, and then, per
//! round and candidate, warms up, reads the server's processor time, loads it for a while, and
//! reads the time again (`load`, `cpu`). An answer that isn't 200, or not the decision that was
//! asked for, fails the run (`answer`).
//!
//! What a node costs that passes checks on to other nodes is measured in the same way, against a
//! node that doesn't (`cluster`). Whether a node that says ready decides its first check is counted
//! over many starts (`starts`).
//!
//! What it can't say: what a network adds (all is loopback), what callers see who don't wait for
//! their answers (`load`), or what the processor time is made of (use a profiler). The generator
//! shares the machine with the server, so decisions per second depend on both; processor time per
//! decision does much less.

mod answer;
mod bare;
mod clock;
mod cluster;
mod cpu;
mod interrupt;
mod load;
mod micro;
mod moves;
mod report;
mod response;
mod rounds;
mod scenario;
mod server;
mod starts;
mod stats;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use serde::Serialize;

use crate::load::{Deciders, Load, Phase, Plan, Tenants};
use crate::report::{Comparison, Report};
use crate::rounds::Contender;
use crate::scenario::{Scenario, TENANTS_MAX};
use crate::server::{Candidate, Server};

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
    /// Times a cluster of three nodes against one, and checks passed on against checks decided at
    /// once
    Cluster(cluster::Settings),
    /// Times a million tenants moving from one node to another while checks go on
    Moves(moves::Settings),
    /// Starts nodes again and again, and asks each the moment it says ready
    Starts(starts::Settings),
    /// Is the bare service; the benchmark starts itself so.
    #[command(hide = true)]
    Bare(bare::Part),
}

#[derive(Args)]
struct Settings {
    /// The node to measure
    #[arg(long, value_name = "PATH", default_value = "target/dist/tidegate")]
    node_binary: PathBuf,
    /// The node to measure as the candidate `release`
    #[arg(long, value_name = "PATH", default_value = "target/release/tidegate")]
    release_binary: PathBuf,
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

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl Output {
    /// Prints the figures, in their own words or as JSON.
    fn print(
        self,
        table: impl FnOnce() -> String,
        figures: &impl Serialize,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self {
            Self::Table => print!("{}", table()),
            Self::Json => println!("{}", serde_json::to_string_pretty(figures)?),
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let CommandLine { role, settings } = CommandLine::parse();
    let done = match role {
        Some(Role::Bare(part)) => bare::run(part),
        Some(Role::Micro(settings)) => micro::run(&settings),
        Some(Role::Cluster(settings)) => cluster::run(&settings),
        Some(Role::Moves(settings)) => moves::run(&settings),
        Some(Role::Starts(settings)) => starts::run(&settings),
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
        eprintln!(
            "warning: this is a debug build; its bare service is no yardstick (build with \
             --profile dist)"
        );
    }
    interrupt::listen()?;
    let scenarios = if settings.scenarios.is_empty() {
        Scenario::value_variants()
    } else {
        &settings.scenarios
    };
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
    settings.output.print(|| report.table(), &report)
}

fn measure(
    settings: &Settings,
    scenario: Scenario,
) -> Result<Comparison, Box<dyn Error + Send + Sync>> {
    let plan = Plan {
        call: scenario.call(),
        tier: scenario.tier(),
        tenants: vec![Tenants::First(scenario.tenants(settings.tenants))],
        deciders: Deciders::Asked,
        connections: settings.connections,
        rate: None,
    };
    let (mut servers, mut contenders) = (Vec::new(), Vec::new());
    for candidate in once_each(&settings.candidates) {
        let name = candidate.name();
        let binary = match candidate {
            Candidate::Release => &settings.release_binary,
            Candidate::Tidegate | Candidate::Bare => &settings.node_binary,
        };
        let mut server = Server::start(candidate, binary, scenario.tier())
            .map_err(|error| format!("{name}: {error}"))?;
        let load = Load::connect(server.addresses(), plan.clone())
            .and_then(|mut load| load.run(Phase::Fill).map(|_| load))
            .map_err(|error| format!("{name}: {error}{}", server.last_words()))?;
        contenders.push(Contender { name, server: servers.len(), load });
        servers.push(server);
    }
    let length = Duration::from_secs(u64::from(settings.seconds));
    let measured =
        rounds::measure(scenario.name(), &mut servers, &mut contenders, settings.rounds, length)?;
    Comparison::new(scenario.name(), Candidate::Bare.name(), &measured)
        .ok_or_else(|| "nothing was measured".into())
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
        for arguments in [
            ["--rounds", "0"],
            ["--seconds", "61"],
            ["--connections", "1025"],
            ["--tenants", "10000001"],
        ] {
            let given = ["tidegate-bench"].into_iter().chain(arguments);
            assert!(CommandLine::try_parse_from(given).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_scenario_named_twice_is_measured_once() {
        let given =
            ["tidegate-bench", "--scenario", "hot", "--scenario", "batch-10", "--scenario", "hot"];
        let settings = CommandLine::try_parse_from(given).unwrap().settings;
        assert_eq!(once_each(&settings.scenarios), [Scenario::Hot, Scenario::Batch10]);
        assert_eq!(settings.candidates, [Candidate::Tidegate, Candidate::Bare]);
    }
}
