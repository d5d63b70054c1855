//! What a check costs in a cluster: passed on to its owner against decided where it was asked, and
//! several nodes on this machine against one.
//!
//! One cluster is started, and one node alone; the scenarios take turns on them as candidates do
//! elsewhere (`rounds`). Example: if the nodes of a cluster spend 4.8 s of processor time together
//! on 400,000 checks of which two thirds are passed on, and the node alone 4.0 s on as many, a
//! check costs 12 µs and 1.20 times what it costs alone.
//!
//! What is compared is the same question with the same answer, but for the name of the node that
//! gives it. To ask one node for tenants of its own and for tenants of others, it is first asked by
//! peeking whose they are (`owners`). A check that is decided elsewhere than its candidate says
//! fails the run.
//!
//! `saturation` is another kind of run: full speed for a minute, after which the cluster must stand
//! as before (`saturation`).

mod owners;
mod saturation;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;

use crate::load::{Deciders, Load, Phase, Plan, Tenants};
use crate::report::{Comparison, Report};
use crate::rounds::{self, Contender};
use crate::scenario::{Call, TENANTS_MAX, Tier};
use crate::server::Server;
use crate::{Output, interrupt, once_each};
use owners::Owners;
use saturation::Saturated;

/// Times a cluster
#[derive(Args)]
pub struct Settings {
    /// The node to measure
    #[arg(long, value_name = "PATH", default_value = "target/dist/tidegate")]
    node_binary: PathBuf,
    /// How many of it are the cluster
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(2..=9))]
    nodes: u32,
    /// How often every candidate is measured in every scenario
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=25))]
    rounds: u32,
    /// How long one measured run takes
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Keep-alive connections, each with one call under way; over all nodes that are asked
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// The same for `calm`
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u32).range(1..=64))]
    calm_connections: u32,
    /// Tenants the checks spread over
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=i64::from(TENANTS_MAX)))]
    tenants: u32,
    /// How long `saturation` takes
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(1..=600))]
    saturation_seconds: u32,
    /// Measure this scenario; may be given several times [default: all]
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<Scenario>,
    /// How to print the result
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Output,
}

/// The name of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// One node of the cluster, asked for tenants of others and for tenants of its own.
    Forwarded,
    /// The same by few callers: what being passed on adds to the time of a call.
    Calm,
    /// All nodes of the cluster, against one node alone.
    Cluster,
    /// The same in batches of a hundred checks.
    #[value(name = "batch-100")]
    Batch100,
    /// All nodes at full speed for long, after which nobody else must lead.
    Saturation,
}

const FORWARDED: &str = "forwarded";
const OWN: &str = "own";
const CLUSTER: &str = "cluster";
const ALONE: &str = "alone";
const APART: &str = "apart";

/// The places of the servers.
const OF_CLUSTER: usize = 0;
const OF_ALONE: usize = 1;

/// Everything that was measured.
#[derive(Serialize)]
struct Figures {
    nodes: u32,
    #[serde(flatten)]
    report: Report,
    saturation: Option<Saturated>,
}

/// Measures what was asked for, and prints it.
pub fn run(settings: &Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    if cfg!(debug_assertions) {
        eprintln!(
            "warning: this is a debug build; its figures say little (build with --profile dist)"
        );
    }
    interrupt::listen()?;
    let scenarios = match settings.scenarios.is_empty() {
        true => Scenario::value_variants(),
        false => &settings.scenarios,
    };
    let scenarios = once_each(scenarios);
    let nodes = |count| Server::start_nodes(&settings.node_binary, Tier::Two, count);
    let mut servers = vec![nodes(settings.nodes as usize)?];
    if scenarios.iter().any(|scenario| scenario.needs_one_alone()) {
        servers.push(nodes(1)?);
    }
    let mut owners = None;
    let (mut comparisons, mut saturation) = (Vec::new(), None);
    for scenario in scenarios {
        let name = scenario.name();
        let failed = |error| format!("{name}: {error}");
        let contenders = match scenario {
            Scenario::Saturation => {
                saturation =
                    Some(saturation::run(settings, &mut servers[OF_CLUSTER]).map_err(failed)?);
                continue;
            }
            Scenario::Forwarded | Scenario::Calm => {
                let owners = known(&mut owners, &servers, settings)?;
                own_and_others(owners, &mut servers, settings.plan(scenario))
            }
            Scenario::Cluster => {
                let owners = known(&mut owners, &servers, settings)?;
                several_and_one(Some(owners), &mut servers, settings.plan(scenario))
            }
            Scenario::Batch100 => several_and_one(None, &mut servers, settings.plan(scenario)),
        };
        let mut contenders = contenders.map_err(failed)?;
        let length = Duration::from_secs(u64::from(settings.seconds));
        let measured =
            rounds::measure(name, &mut servers, &mut contenders, settings.rounds, length);
        let base = if scenario.needs_one_alone() { ALONE } else { OWN };
        let comparison = Comparison::new(name, base, &measured.map_err(failed)?);
        comparisons.push(comparison.ok_or("nothing was measured")?);
    }
    let report = Report {
        rounds: settings.rounds,
        seconds: settings.seconds,
        connections: settings.connections,
        tenants: settings.tenants,
        comparisons,
    };
    let figures = Figures { nodes: settings.nodes, report, saturation };
    settings.output.print(|| figures.table(), &figures)
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Calm => "calm",
            Self::Cluster => "cluster",
            Self::Batch100 => "batch-100",
            Self::Saturation => "saturation",
        }
    }

    fn needs_one_alone(self) -> bool {
        matches!(self, Self::Cluster | Self::Batch100)
    }
}

impl Settings {
    fn plan(&self, scenario: Scenario) -> Plan {
        Plan {
            call: if scenario == Scenario::Batch100 { Call::Batch(100) } else { Call::Single },
            tier: Tier::Two,
            tenants: vec![Tenants::First(self.tenants)],
            deciders: Deciders::Any,
            connections: if scenario == Scenario::Calm {
                self.calm_connections
            } else {
                self.connections
            },
            rate: None,
        }
    }
}

/// Whose the tenants are, asked once.
fn known<'o>(
    owners: &'o mut Option<Owners>,
    servers: &[Server],
    settings: &Settings,
) -> Result<&'o Owners, Box<dyn Error + Send + Sync>> {
    match owners {
        Some(owners) => Ok(owners),
        None => Ok(owners.insert(Owners::ask(&servers[OF_CLUSTER], settings.tenants)?)),
    }
}

/// The first node of the cluster, asked for its own tenants and for those of others: as many of
/// each, so that both miss the caches as often.
fn own_and_others(
    owners: &Owners,
    servers: &mut [Server],
    plan: Plan,
) -> Result<Vec<Contender>, Box<dyn Error + Send + Sync>> {
    let (own, others) = owners.own_and_others();
    let these = |tenants: Vec<u32>| vec![Tenants::These(tenants.into())];
    let own = Plan { tenants: these(own), deciders: Deciders::Asked, ..plan.clone() };
    let others = Plan { tenants: these(others), deciders: Deciders::Others, ..plan };
    [(OWN, own), (FORWARDED, others)]
        .into_iter()
        .map(|(name, plan)| contender(name, OF_CLUSTER, &mut servers[OF_CLUSTER], 1, plan))
        .collect()
}

/// The node alone, and all nodes of the cluster; also each of these for its own tenants, where
/// owners are known: that is what several processes cost that have nothing to do with each other.
fn several_and_one(
    owners: Option<&Owners>,
    servers: &mut [Server],
    plan: Plan,
) -> Result<Vec<Contender>, Box<dyn Error + Send + Sync>> {
    let asked = |tenants: Vec<Tenants>| Plan { tenants, deciders: Deciders::Asked, ..plan.clone() };
    let each = owners.map(|owners| owners.of.iter().cloned().map(Tenants::These).collect());
    let apart = each.map(|each| (APART, OF_CLUSTER, asked(each)));
    [(ALONE, OF_ALONE, asked(plan.tenants.clone()))]
        .into_iter()
        .chain(apart)
        .chain([(CLUSTER, OF_CLUSTER, plan.clone())])
        .map(|(name, at, plan)| contender(name, at, &mut servers[at], usize::MAX, plan))
        .collect()
}

/// Asks up to `nodes` nodes of a server, and has asked for every tenant once.
fn contender(
    name: &'static str,
    at: usize,
    server: &mut Server,
    nodes: usize,
    plan: Plan,
) -> Result<Contender, Box<dyn Error + Send + Sync>> {
    let asked = &server.addresses()[..server.addresses().len().min(nodes)];
    let filled =
        Load::connect(asked, plan).and_then(|mut load| load.run(Phase::Fill).map(|_| load));
    let load = filled.map_err(|error| format!("{name}: {error}{}", server.last_words()))?;
    Ok(Contender { name, server: at, load })
}

impl Figures {
    fn table(&self) -> String {
        let mut text = String::new();
        if !self.report.comparisons.is_empty() {
            text.push_str(&self.report.table());
        }
        if let Some(saturated) = &self.saturation {
            text.push_str(&saturated.text());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::value_variants() {
            assert_eq!(scenario.to_possible_value().unwrap().get_name(), scenario.name());
        }
    }
}
