//! The first check after a node says that it is ready, over many starts: each of them has to be
//! decided.
//!
//! A node, or three of one cluster, are started with empty folders. Each is asked for `/readyz`
//! again and again, and the moment it answers 200 it gets checks of several tenants, so that in a
//! cluster every owner is asked through every node. A check that is refused, or not answered, is
//! counted and fails the run. Then the nodes are killed and their folders removed.
//!
//! ```text
//! start    process begins         … /readyz is refused, 503, 503, 200   ready after
//! check    POST /v1/check at once … 200: decided                        first check
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use serde::Serialize;

use crate::scenario::Tier;
use crate::server::{Server, ask, is_ready, post};
use crate::stats::Latencies;
use crate::{Output, clock, interrupt};

/// How long a start may take.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often a node is asked whether it is ready; that is also how exactly the time is known.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// Tenants that are asked about through each node: with three owners each of them gets some.
const TENANTS: usize = 12;
/// Failures that are shown.
const SHOWN_MAX: usize = 10;

/// Starts nodes again and again, and asks each the moment it says ready
#[derive(Args)]
pub struct Settings {
    /// The node to start
    #[arg(long, value_name = "PATH", default_value = "target/release/tidegate")]
    node_binary: PathBuf,
    /// Starts of a node that is alone
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(0..=100_000))]
    single: u32,
    /// Starts of a cluster of three
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(0..=100_000))]
    cluster: u32,
    /// How to print the result
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Output,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Figures {
    rows: Vec<Row>,
}

/// The starts of so many nodes.
#[derive(Serialize)]
struct Row {
    nodes: usize,
    starts: u32,
    checks: u64,
    undecided: u64,
    ready_ms_p50: f64,
    ready_ms_p99: f64,
    ready_ms_max: f64,
    first_check_ms_p50: f64,
    first_check_ms_p99: f64,
    first_check_ms_max: f64,
}

/// What one node did in one start.
struct Started {
    ready: Duration,
    first: Duration,
    /// What was answered to checks that were not decided.
    undecided: Vec<String>,
}

/// Measures it, and prints it. Errs where a check was not decided.
pub fn run(settings: &Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    interrupt::listen()?;
    let mut rows = Vec::new();
    for (nodes, starts) in [(1, settings.single), (3, settings.cluster)] {
        if starts > 0 {
            rows.push(measure(settings, nodes, starts)?);
        }
    }
    let figures = Figures { rows };
    settings.output.print(|| figures.table(), &figures)?;
    match figures.rows.iter().map(|row| row.undecided).sum::<u64>() {
        0 => Ok(()),
        undecided => {
            Err(format!("{undecided} checks were not decided by nodes that had said ready").into())
        }
    }
}

fn measure(
    settings: &Settings,
    nodes: usize,
    starts: u32,
) -> Result<Row, Box<dyn Error + Send + Sync>> {
    let (mut ready, mut first) = (Latencies::new(), Latencies::new());
    let (mut checks, mut undecided, mut shown) = (0, 0, 0);
    for start in 1..=starts {
        interrupt::check()?;
        let begun = clock::now();
        let mut server = Server::begin_nodes(&settings.node_binary, Tier::Two, nodes)?;
        let started: Vec<_> = std::thread::scope(|scope| {
            let asking =
                server.addresses().iter().map(|node| scope.spawn(move || start_of(*node, begun)));
            asking.collect::<Vec<_>>().into_iter().map(|asked| asked.join()).collect()
        });
        for started in started {
            let started = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let started = started.map_err(|error| {
                format!("start {start} of {nodes}: {error}{}", server.last_words())
            })?;
            ready.record(started.ready);
            first.record(started.first);
            checks += TENANTS as u64;
            undecided += started.undecided.len() as u64;
            for said in started.undecided.iter().take(SHOWN_MAX.saturating_sub(shown)) {
                eprintln!("start {start} of {nodes}: {said}");
                shown += 1;
            }
        }
    }
    let ms = |of: &Latencies, per_mille| {
        of.per_mille(per_mille).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    Ok(Row {
        nodes,
        starts,
        checks,
        undecided,
        ready_ms_p50: ms(&ready, 500),
        ready_ms_p99: ms(&ready, 990),
        ready_ms_max: ms(&ready, 1_000),
        first_check_ms_p50: ms(&first, 500),
        first_check_ms_p99: ms(&first, 990),
        first_check_ms_max: ms(&first, 1_000),
    })
}

/// Waits until a node says ready, and asks it at once.
fn start_of(node: SocketAddr, begun: Instant) -> Result<Started, Box<dyn Error + Send + Sync>> {
    while !is_ready(node) {
        if clock::now() - begun > READY_WITHIN {
            let said =
                ask(node, "GET", "/readyz").map(|said| String::from_utf8_lossy(&said).into_owned());
            return Err(format!("{node} was not ready within {READY_WITHIN:?}: {said:?}").into());
        }
        clock::pause(ASK_EVERY);
    }
    let ready = clock::now();
    let mut started =
        Started { ready: ready - begun, first: Duration::ZERO, undecided: Vec::new() };
    for tenant in 0..TENANTS {
        let answer = post(node, "/v1/check", &format!("{{\"tenant\":\"t{tenant}\"}}"));
        if tenant == 0 {
            started.first = clock::now() - ready;
        }
        match answer {
            Ok(answer) if answer.starts_with(b"HTTP/1.1 200") => {}
            Ok(answer) => {
                started.undecided.push(format!("{node}: {}", String::from_utf8_lossy(&answer)))
            }
            Err(error) => started.undecided.push(format!("{node}: {error}")),
        }
    }
    Ok(started)
}

impl Figures {
    fn table(&self) -> String {
        let mut text = format!(
            "{:>5} {:>7} {:>7} {:>9} {:>12} {:>8} {:>8} {:>17} {:>8} {:>8}\n",
            "nodes",
            "starts",
            "checks",
            "undecided",
            "ready ms p50",
            "p99",
            "max",
            "1st check ms p50",
            "p99",
            "max"
        );
        for row in &self.rows {
            text.push_str(&format!(
                "{:>5} {:>7} {:>7} {:>9} {:>12.1} {:>8.1} {:>8.1} {:>17.2} {:>8.2} {:>8.2}\n",
                row.nodes,
                row.starts,
                row.checks,
                row.undecided,
                row.ready_ms_p50,
                row.ready_ms_p99,
                row.ready_ms_max,
                row.first_check_ms_p50,
                row.first_check_ms_p99,
                row.first_check_ms_max,
            ));
        }
        text
    }
}
