//! All tenants of a node move to another while checks go on, and then are backed up: how long that
//! takes, what it sends, and what it costs those who ask.
//!
//! A node is filled with tenants that it has to remember for a day. A second node joins, and the
//! first is drained: all 4096 partitions go over, in batches. Meanwhile checks are asked of the
//! first node at a fixed rate, far below what it could do, each timed from when it was due. The
//! same load runs before, when the first node decides all, and afterwards, when it passes
//! everything on. A check that is refused, or answered approximately, fails the run.
//!
//! ```text
//! before   n1 owns 4096   n1 decides
//! during   n1 → n2        n1 decides, or waits while a partition is frozen, or passes on
//! after    n2 owns 4096   n1 passes on
//! backup   n1 makes a back-up of what n2 has counted, and passes on
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};
use serde::Serialize;

use crate::load::{Deciders, Load, Phase, Plan, Tally, Tenants};
use crate::scenario::{Call, TENANTS_MAX, Tier};
use crate::server::{Server, Standing, node_name};
use crate::{Output, clock, interrupt};

/// What they are to be, all together.
const PARTITIONS: u64 = 4_096;
/// How long they may take.
const MOVED_WITHIN: Duration = Duration::from_secs(600);
/// How often it is looked whether they are done; that is also how exactly their time is known.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// One stretch of the load while something is done.
const STRETCH: Duration = Duration::from_millis(250);
/// Between two stretches, and before the first.
const WARM_UP: Duration = Duration::from_millis(500);

/// Times moves
#[derive(Args)]
pub struct Settings {
    /// The node to measure
    #[arg(long, value_name = "PATH", default_value = "target/dist/tidegate")]
    node_binary: PathBuf,
    /// Tenants that move
    #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u32).range(1..=i64::from(TENANTS_MAX)))]
    tenants: u32,
    /// Checks a second, over all connections
    #[arg(long, default_value_t = 4_000, value_parser = value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Keep-alive connections, each with one call under way
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// How long the load runs before they move, and afterwards
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// How to print the result
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Output,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Figures {
    tenants: u32,
    rate: u32,
    connections: u32,
    /// From the order until the first node owned nothing.
    moving_seconds: f64,
    handed_over: HandedOver,
    before: Waits,
    during: Waits,
    after: Waits,
    backup: BackedUp,
}

/// A back-up while checks went on.
#[derive(Serialize)]
struct BackedUp {
    bytes: usize,
    seconds: f64,
    waits: Waits,
}

/// What the first node counted of it.
#[derive(Debug, PartialEq, Serialize)]
struct HandedOver {
    partitions: u64,
    bytes: u64,
    /// Batches that were frozen, and for how long on average.
    batches: u64,
    frozen_ms_mean: f64,
    /// The least bound of the histogram that none of them exceeded; none if one exceeded all.
    frozen_ms_max: Option<f64>,
}

/// How long calls took.
#[derive(Serialize)]
struct Waits {
    calls: u64,
    /// From 0 to 1, of the answers that were read whole: decided by the other node.
    forwarded_share: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    slowest_us: f64,
}

/// Measures it, and prints it.
pub fn run(settings: &Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    if cfg!(debug_assertions) {
        eprintln!(
            "warning: this is a debug build; its figures say little (build with --profile dist)"
        );
    }
    interrupt::listen()?;
    let mut server = Server::start_nodes(&settings.node_binary, Tier::Day, 1)?;
    let figures = measure(settings, &mut server)
        .map_err(|error| format!("{error}{}", server.last_words()))?;
    settings.output.print(|| figures.table(), &figures)
}

fn measure(
    settings: &Settings,
    server: &mut Server,
) -> Result<Figures, Box<dyn Error + Send + Sync>> {
    let plan = Plan {
        call: Call::Batch(100),
        tier: Tier::Day,
        tenants: vec![Tenants::First(settings.tenants)],
        deciders: Deciders::Any,
        connections: settings.connections,
        rate: None,
    };
    eprintln!("filling {} with {} tenants", node_name(0), settings.tenants);
    Load::connect(server.addresses(), plan.clone())?.run(Phase::Fill)?;
    let singly = Plan { call: Call::Single, rate: Some(settings.rate), ..plan };
    let mut load = Load::connect(server.addresses(), singly)?;
    let length = Duration::from_secs(u64::from(settings.seconds));
    let quietly =
        |load: &mut Load| load.run(Phase::For(WARM_UP)).and_then(|_| load.run(Phase::For(length)));
    let before = quietly(&mut load)?;
    eprintln!("{} joins, and everything moves there", node_name(1));
    server.join(&settings.node_binary)?;
    let (during, ((), moving)) =
        while_doing(&mut load, || server.drain_first().and_then(|()| until_moved(server)))?;
    eprintln!("moved after {:.1} s", moving.as_secs_f64());
    let handed_over = HandedOver::read(&server.metrics_of_first()?)?;
    if handed_over.partitions < PARTITIONS {
        return Err(
            format!("{} partitions have moved, of {PARTITIONS}", handed_over.partitions).into()
        );
    }
    let after = quietly(&mut load)?;
    eprintln!("{} makes a back-up", node_name(0));
    let (backing_up, (bytes, took)) = while_doing(&mut load, || server.back_up())?;
    let Settings { tenants, rate, connections, .. } = *settings;
    Ok(Figures {
        tenants,
        rate,
        connections,
        moving_seconds: moving.as_secs_f64(),
        handed_over,
        before: Waits::of(&before)?,
        during: Waits::of(&during)?,
        after: Waits::of(&after)?,
        backup: BackedUp { bytes, seconds: took.as_secs_f64(), waits: Waits::of(&backing_up)? },
    })
}

/// Asks for as long as `work` takes; what came of it, and how long it took.
fn while_doing<T: Send>(
    load: &mut Load,
    work: impl FnOnce() -> Result<T, Box<dyn Error + Send + Sync>> + Send,
) -> Result<(Tally, (T, Duration)), Box<dyn Error + Send + Sync>> {
    std::thread::scope(|scope| {
        let begun = clock::now();
        let working = scope.spawn(move || work().map(|done| (done, clock::now() - begun)));
        let mut all = Tally::new();
        while !working.is_finished() {
            all.merge(load.run(Phase::For(STRETCH))?);
        }
        let done = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((all, done))
    })
}

fn until_moved(server: &Server) -> Result<(), Box<dyn Error + Send + Sync>> {
    let deadline = clock::now() + MOVED_WITHIN;
    while !server.standings()?.iter().all(has_moved) {
        interrupt::check()?;
        if clock::now() >= deadline {
            return Err(format!("they have not moved within {MOVED_WITHIN:?}").into());
        }
        clock::pause(LOOK_EVERY);
    }
    Ok(())
}

fn has_moved(standing: &Standing) -> bool {
    let owned = |index: usize| {
        let member = standing.nodes.iter().find(|member| member.id == node_name(index));
        member.map_or(0, |member| member.partitions)
    };
    owned(0) == 0 && owned(1) == PARTITIONS
}

impl HandedOver {
    fn read(metrics: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let value = |series: &str| -> Result<f64, Box<dyn Error + Send + Sync>> {
            let line =
                metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            Ok(line.ok_or_else(|| format!("the metrics have no {series}"))?.parse()?)
        };
        const FROZEN: &str = "tidegate_handoff_frozen_seconds";
        let batches = value(&format!("{FROZEN}_count"))?;
        let bucket = |line: &str| {
            let (bound, count) =
                line.strip_prefix(&format!("{FROZEN}_bucket{{le=\""))?.split_once("\"} ")?;
            Some((bound.parse::<f64>().ok()?, count.parse::<f64>().ok()?))
        };
        let bounds = metrics.lines().filter_map(bucket).filter(|(_, count)| *count == batches);
        let least = bounds.map(|(bound, _)| bound * 1e3).fold(f64::INFINITY, f64::min);
        Ok(Self {
            partitions: value("tidegate_handoff_partitions_total{result=\"moved\"}")? as u64,
            bytes: value("tidegate_handoff_bytes_total")? as u64,
            batches: batches as u64,
            frozen_ms_mean: value(&format!("{FROZEN}_sum"))? * 1e3 / batches.max(1.0),
            frozen_ms_max: least.is_finite().then_some(least),
        })
    }
}

impl Waits {
    fn of(tally: &Tally) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let per_mille = |share| {
            let found = tally.latencies.per_mille(share).ok_or("no call was answered");
            found.map(|latency| latency.as_secs_f64() * 1e6)
        };
        Ok(Self {
            calls: tally.answers,
            forwarded_share: tally.outcomes.forwarded_share().unwrap_or(0.0),
            p50_us: per_mille(500)?,
            p99_us: per_mille(990)?,
            p999_us: per_mille(999)?,
            slowest_us: per_mille(1_000)?,
        })
    }
}

impl Figures {
    fn table(&self) -> String {
        let Self { tenants, rate, connections, moving_seconds, handed_over, .. } = self;
        let HandedOver { partitions, bytes, batches, frozen_ms_mean, frozen_ms_max } = handed_over;
        let longest = frozen_ms_max.map_or("one for longer than a second".to_owned(), |ms| {
            format!("none for longer than {ms:.0} ms")
        });
        let mut text = format!(
            "{partitions} partitions of {tenants} tenants moved in {moving_seconds:.1} s: {:.1} \
             MB, {batches} batches, frozen for {frozen_ms_mean:.1} ms on average and \
             {longest}.\n\n{rate} checks a second over {connections} connections, all \
             answered:\n\n{:8} {:>9} {:>10} {:>9} {:>9} {:>9} {:>10}\n",
            *bytes as f64 / 1e6,
            "",
            "calls",
            "forwarded",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "slowest µs",
        );
        let BackedUp { bytes, seconds, waits: backing_up } = &self.backup;
        let all = [
            ("before", &self.before),
            ("during", &self.during),
            ("after", &self.after),
            ("backup", backing_up),
        ];
        for (name, waits) in all {
            let Waits { calls, forwarded_share, p50_us, p99_us, p999_us, slowest_us } = waits;
            let forwarded = format!("{:.0} %", forwarded_share * 100.0);
            text.push_str(&format!(
                "{name:8} {calls:>9} {forwarded:>10} {p50_us:>9.0} {p99_us:>9.0} {p999_us:>9.0} \
                 {slowest_us:>10.0}\n"
            ));
        }
        text.push_str(&format!(
            "\nThe back-up took {seconds:.1} s and has {:.1} MB.\n",
            *bytes as f64 / 1e6
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_is_read_from_the_metrics() {
        let metrics = "\
tidegate_handoff_partitions_total{result=\"moved\"} 128
tidegate_handoff_partitions_total{result=\"stayed\"} 64
tidegate_handoff_bytes_total 5000
tidegate_handoff_frozen_seconds_bucket{le=\"0.001\"} 0
tidegate_handoff_frozen_seconds_bucket{le=\"0.025\"} 2
tidegate_handoff_frozen_seconds_bucket{le=\"1\"} 2
tidegate_handoff_frozen_seconds_bucket{le=\"+Inf\"} 2
tidegate_handoff_frozen_seconds_sum 0.03
tidegate_handoff_frozen_seconds_count 2
";
        let expected = HandedOver {
            partitions: 128,
            bytes: 5_000,
            batches: 2,
            frozen_ms_mean: 15.0,
            frozen_ms_max: Some(25.0),
        };
        assert_eq!(HandedOver::read(metrics).unwrap(), expected);
        let said = HandedOver::read("tidegate_up 1").unwrap_err().to_string();
        assert_eq!(said, "the metrics have no tidegate_handoff_frozen_seconds_count");
    }

    #[test]
    fn everything_has_moved_once_the_second_node_owns_it_all() {
        let standing = |owned: [u64; 2]| -> Standing {
            let node = |id, partitions| serde_json::json!({"id": id, "partitions": partitions});
            let nodes = [node("n1", owned[0]), node("n2", owned[1])];
            serde_json::from_value(serde_json::json!({"leader": "n1", "term": 1, "nodes": nodes}))
                .unwrap()
        };
        assert!(has_moved(&standing([0, 4_096])));
        assert!(!has_moved(&standing([1, 4_095])));
        assert!(!has_moved(&standing([4_096, 0])));
    }
}
