//! `/metrics`: what was counted, as Prometheus reads it.
//!
//! Nothing is kept for it: each scrape adds up what the shards say and writes it down. Metric
//! families are built directly rather than through the library's vectors of counters: those tell
//! series apart by a hash of their label values run together, so that ("ab", "c") and ("a", "bc")
//! would be one.
//!
//! How many series there can be: a name each of [`TIERS_MAX`](crate::shard::TIERS_MAX) tiers a
//! shard and [`TENANTS_MAX`](crate::shard::TENANTS_MAX) tenants, one series a shard, five a peer,
//! and the fixed rest. A tier or tenant of the name `_other` is counted with the others: one series
//! for both, never two of one name.

mod cluster;
mod resources;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Registry, TextEncoder};

pub use cluster::{ClusterLevels, ForwardCounts, HandOffLevels, LinkLevels};
pub use resources::{DiskProbe, ResourceLevels};

use super::latency::BOUNDS;
use super::log::lost_lines;
use super::{Call, Observed, Telemetry};
use crate::check::Reason;
use crate::clock::SECOND;
use crate::shard::{OTHERS, Outcomes, Scope, WAIT_BOUNDS};

/// Series that are printed from the start, so that a rate over them sees the first count.
const REASONS: [Reason; 5] = [
    Reason::Rate,
    Reason::Concurrency,
    Reason::Quota,
    Reason::DenyList,
    Reason::CostExceedsCapacity,
];
const REFUSALS: [&str; 5] =
    ["busy", "limits_refused", "mailbox_full", "request_id_reused", "unknown_tier"];

/// What a scrape shows beside what telemetry itself knows.
pub struct Scrape {
    /// All shards together.
    pub observed: Observed,
    /// Questions in the mailbox of each shard.
    pub depths: Vec<usize>,
    /// The version of the policy in force.
    pub policy_version: u64,
    /// Entries of the allow and deny lists.
    pub list_entries: usize,
    /// Whether limits deny; false while the kill switch is thrown.
    pub enforce: bool,
    /// Whether the node wants new work.
    pub ready: bool,
    /// What the node uses up.
    pub resources: ResourceLevels,
    /// How the cluster stands.
    pub cluster: ClusterLevels,
    /// What passed between this node and others.
    pub forwards: ForwardCounts,
}

/// The metrics as text (version 0.0.4), and the content type that says so.
pub fn render(
    telemetry: &Telemetry,
    scrape: &Scrape,
) -> Result<(String, &'static str), prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    registry.register(Box::new(Families::of(telemetry, scrape)?))?;
    let text = TextEncoder::new().encode_to_string(&registry.gather())?;
    Ok((text, prometheus::TEXT_FORMAT))
}

/// The families of one scrape.
struct Families {
    families: Vec<MetricFamily>,
    descriptions: Vec<Desc>,
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families.clone()
    }
}

/// Label values, in the order of the label names of their family.
type Labels<const N: usize> = [String; N];

impl Families {
    fn of(telemetry: &Telemetry, scrape: &Scrape) -> Result<Self, prometheus::Error> {
        let mut families = Self { families: Vec::new(), descriptions: Vec::new() };
        families.decisions(scrape)?;
        families.tenants(scrape)?;
        families.work(scrape)?;
        families.levels(scrape)?;
        families.durations(telemetry, scrape)?;
        families.node(telemetry, scrape)?;
        families.resources(telemetry, scrape)?;
        families.cluster(scrape)?;
        Ok(families)
    }

    fn decisions(&mut self, scrape: &Scrape) -> Result<(), prometheus::Error> {
        let counts = &scrape.observed.reading.counts;
        let mut decisions = BTreeMap::<Labels<3>, u64>::new();
        let mut note = |outcomes: Outcomes, tier: &str, mode: &str| {
            for (decision, count) in by_outcome(outcomes) {
                *decisions.entry([decision.into(), tier.into(), mode.into()]).or_default() += count;
            }
        };
        // What a list decides has no tier, and an empty label is none.
        note(counts.lists, "", "exact");
        let others =
            (counts.other_tiers.sum().total() > 0).then_some((OTHERS, &counts.other_tiers));
        for (tier, of_tier) in counts.tiers.iter().map(|(name, c)| (name.as_str(), c)).chain(others)
        {
            note(of_tier.exact, tier, "exact");
            note(of_tier.approximate, tier, "approximate");
        }
        self.counters(
            "tidegate_decisions_total",
            "Decisions by outcome, tier (none: by an allow or deny list) and mode.",
            ["decision", "tier", "mode"],
            decisions,
        )?;
        let zeros = REASONS.map(|reason| (reason, Scope::Tenant, 0));
        let mut denials = BTreeMap::<Labels<2>, u64>::new();
        for (reason, scope, count) in zeros.iter().chain(&counts.denials) {
            // The word that answers use.
            let reason = serde_json::to_value(reason)
                .ok()
                .and_then(|value| value.as_str().map(String::from));
            *denials.entry([reason.unwrap_or_default(), scope.as_str().into()]).or_default() +=
                count;
        }
        self.counters(
            "tidegate_denials_total",
            "Denials by reason and by what the denying limit is keyed by first.",
            ["reason", "scope"],
            denials,
        )?;
        let lists = by_outcome(counts.lists).map(|(decision, count)| {
            let list = if decision == "allowed" { "allow" } else { "deny" };
            ([list.to_string()], count)
        });
        self.counters(
            "tidegate_list_decisions_total",
            "Decisions by an allow or deny list.",
            ["list"],
            lists,
        )
    }

    fn tenants(&mut self, scrape: &Scrape) -> Result<(), prometheus::Error> {
        let reading = &scrape.observed.reading;
        let named = reading.tenants.iter().map(|(tenant, outcomes)| (tenant.as_str(), *outcomes));
        let all = named.chain([(OTHERS, reading.other_tenants)]);
        let series = all.flat_map(|(tenant, outcomes)| {
            by_outcome(outcomes)
                .map(|(decision, count)| ([tenant.to_string(), decision.to_string()], count))
        });
        self.counters(
            "tidegate_tenant_decisions_total",
            "Decisions of the tenants that ask most, by limits; of all others together as _other.",
            ["tenant", "decision"],
            series,
        )?;
        let folded = reading.levels.tenants.saturating_sub(reading.tenants.len());
        self.gauge(
            "tidegate_tenants_folded",
            "Active tenants without series of their own.",
            folded as f64,
        )
    }

    fn work(&mut self, scrape: &Scrape) -> Result<(), prometheus::Error> {
        let counts = &scrape.observed.reading.counts;
        for (name, help, count) in [
            (
                "tidegate_shadow_denials_total",
                "How often a shadow limit would have denied.",
                counts.shadow_denials,
            ),
            ("tidegate_replays_total", "Answers given again to a request id.", counts.replays),
            (
                "tidegate_permits_granted_total",
                "Concurrency permits handed out.",
                counts.permits_granted,
            ),
            ("tidegate_cost_taken_total", "Units that allowed checks have taken.", counts.cost),
        ] {
            self.counters(name, help, [], [([], count)])?;
        }
        let peeks =
            by_outcome(counts.peeks).map(|(decision, count)| ([decision.to_string()], count));
        self.counters("tidegate_peeks_total", "Looks by what they said.", ["decision"], peeks)?;
        let refusals: BTreeMap<_, _> =
            REFUSALS.map(|why| (why, 0)).into_iter().chain(counts.refusals.clone()).collect();
        let refusals = refusals.into_iter().map(|(why, count)| ([why.to_string()], count));
        self.counters(
            "tidegate_refusals_total",
            "Checks that got no decision, by why.",
            ["reason"],
            refusals,
        )
    }

    fn levels(&mut self, scrape: &Scrape) -> Result<(), prometheus::Error> {
        let levels = &scrape.observed.reading.levels;
        for (name, help, level) in [
            (
                "tidegate_active_tenants",
                "Tenants in memory; each address of anonymous is one.",
                levels.tenants as f64,
            ),
            ("tidegate_buckets", "Buckets of tenants in memory.", levels.buckets as f64),
            (
                "tidegate_shared_buckets",
                "Buckets in memory that tenants share.",
                levels.shared_buckets as f64,
            ),
            ("tidegate_request_ids", "Request ids remembered.", levels.request_ids as f64),
            ("tidegate_permits", "Concurrency permits that are out.", levels.permits as f64),
            (
                "tidegate_open_checks",
                "Checks that wait for shared limits or for each other.",
                levels.open_checks as f64,
            ),
            (
                "tidegate_list_entries",
                "Entries of the allow and deny lists.",
                scrape.list_entries as f64,
            ),
            (
                "tidegate_policy_version",
                "Version of the policy in force.",
                scrape.policy_version as f64,
            ),
            ("tidegate_shards", "Shards of this node.", scrape.observed.shards as f64),
            (
                "tidegate_shards_silent",
                "Shards that didn't say in time what they have counted.",
                scrape.observed.silent as f64,
            ),
        ] {
            self.gauge(name, help, level)?;
        }
        let depths = scrape.depths.iter().enumerate();
        let depths = depths.map(|(shard, depth)| ([shard.to_string()], *depth as f64));
        self.gauges("tidegate_mailbox_depth", "Questions that wait for a shard.", ["shard"], depths)
    }

    fn durations(
        &mut self,
        telemetry: &Telemetry,
        scrape: &Scrape,
    ) -> Result<(), prometheus::Error> {
        let waits = &scrape.observed.reading.counts.waits;
        let waits = histogram(&WAIT_BOUNDS, &waits.counts, seconds(waits.sum));
        self.histograms(
            "tidegate_block_duration_seconds",
            "How long those who were denied were told to wait.",
            [],
            [([], waits)],
        )?;
        let calls = Call::ALL.into_iter().map(|call| {
            let took = telemetry.latencies().took(call);
            (
                [call.as_str().to_string()],
                histogram(&BOUNDS, &took.counts, seconds(took.sum.into())),
            )
        });
        self.histograms(
            "tidegate_decision_duration_seconds",
            "From a request's head to its answer, by call.",
            ["call"],
            calls,
        )
    }

    fn node(&mut self, telemetry: &Telemetry, scrape: &Scrape) -> Result<(), prometheus::Error> {
        let connections = telemetry.connections().load(Ordering::Relaxed);
        for (name, help, level) in [
            ("tidegate_connections_open", "Open connections.", connections as f64),
            (
                "tidegate_uptime_seconds",
                "Time since the node was started.",
                seconds(telemetry.uptime().into()),
            ),
            (
                "tidegate_enforce",
                "1 while limits deny; 0 while the policy's kill switch is thrown.",
                f64::from(u8::from(scrape.enforce)),
            ),
            (
                "tidegate_ready",
                "1 while /readyz answers 200: the node has started, a majority is in contact, it \
                 was not told to stop.",
                f64::from(u8::from(scrape.ready)),
            ),
        ] {
            self.gauge(name, help, level)?;
        }
        let (host, origin) = telemetry.foreign();
        self.counters(
            "tidegate_requests_refused_total",
            "Requests that a node without tokens refused: for their Host (421), for their Origin \
             or Sec-Fetch-Site (403).",
            ["reason"],
            [(["host".to_string()], host), (["origin".to_string()], origin)],
        )?;
        self.counters(
            "tidegate_log_lines_lost_total",
            "Log lines that could not be written to standard error.",
            [],
            [([], lost_lines())],
        )?;
        let build =
            [env!("CARGO_PKG_VERSION"), option_env!("TIDEGATE_REVISION").unwrap_or("unknown")];
        self.gauges(
            "tidegate_build_info",
            "1, labelled with what is running.",
            ["version", "revision"],
            [(build.map(String::from), 1.0)],
        )
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        series: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> Result<(), prometheus::Error> {
        let of = |count: u64| {
            let (mut metric, mut counter) = (Metric::default(), Counter::default());
            counter.set_value(count as f64);
            metric.set_counter(counter);
            metric
        };
        let series = series.into_iter().map(|(values, count)| (values, of(count)));
        self.push(name, help, labels, MetricType::COUNTER, series)
    }

    fn gauge(&mut self, name: &str, help: &str, level: f64) -> Result<(), prometheus::Error> {
        self.gauges(name, help, [], [([], level)])
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        series: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) -> Result<(), prometheus::Error> {
        let of = |level: f64| {
            let mut gauge = Gauge::default();
            gauge.set_value(level);
            Metric::from_gauge(gauge)
        };
        let series = series.into_iter().map(|(values, level)| (values, of(level)));
        self.push(name, help, labels, MetricType::GAUGE, series)
    }

    fn histograms<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        series: impl IntoIterator<Item = (Labels<N>, Histogram)>,
    ) -> Result<(), prometheus::Error> {
        let of = |histogram: Histogram| {
            let mut metric = Metric::default();
            metric.set_histogram(histogram);
            metric
        };
        let series = series.into_iter().map(|(values, histogram)| (values, of(histogram)));
        self.push(name, help, labels, MetricType::HISTOGRAM, series)
    }

    fn push<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        kind: MetricType,
        series: impl Iterator<Item = (Labels<N>, Metric)>,
    ) -> Result<(), prometheus::Error> {
        let names = labels.map(String::from).to_vec();
        self.descriptions.push(Desc::new(name.into(), help.into(), names, Default::default())?);
        let labelled = |(values, mut metric): (Labels<N>, Metric)| {
            let pair = |(name, value): (&str, String)| {
                let mut pair = LabelPair::default();
                pair.set_name(name.into());
                pair.set_value(value);
                pair
            };
            metric.set_label(labels.into_iter().zip(values).map(pair).collect());
            metric
        };
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(series.map(labelled).collect());
        self.families.push(family);
        Ok(())
    }
}

fn by_outcome(outcomes: Outcomes) -> impl Iterator<Item = (&'static str, u64)> {
    [("allowed", outcomes.allowed), ("denied", outcomes.denied)].into_iter()
}

fn seconds(nanos: u128) -> f64 {
    nanos as f64 / SECOND as f64
}

/// A histogram of `counts`, each up to its bound and above the one before; the last is above all
/// bounds.
fn histogram(bounds: &[u64], counts: &[u64], sum: f64) -> Histogram {
    let mut below = 0;
    let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(seconds(u128::from(*bound)));
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    histogram
}
