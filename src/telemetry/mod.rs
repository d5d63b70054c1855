//! What a node says of itself: metrics, statistics, alerts, log lines.
//!
//! Shards count their own work (`shard::Tally`); this room adds up what they say, and counts what
//! happens at the door:
//!
//! ```text
//! shard 0 ─┐ readings                        ┌─ metrics     GET /metrics, as Prometheus reads it
//! shard 1 ─┼──────────▶ Telemetry::observe ──┼─ statistics  minutes and hours, GET /v1/stats; history keeps them
//! lists  ──┘            (differences)        └─ alerts      GET /v1/alerts
//! door ─────▶ latency, open connections, request ids
//! ```
//!
//! Nothing here is on the way of a check but [`Telemetry::time`]: two readings of the clock and two
//! additions to counters that belong to the thread.

mod alerts;
mod history;
mod latency;
pub mod log;
mod machine;
mod metrics;
mod request_id;
mod statistics;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use alerts::{Alert, Severity, alerts};
pub use history::{History, HistoryError};
pub use latency::{Call, Timed};
pub use machine::MachineLoad;
pub use metrics::{
    ClusterLevels, DiskProbe, ForwardCounts, HandOffLevels, LinkLevels, ResourceLevels, Scrape,
    render,
};
pub use request_id::{REQUEST_ID_BYTES_MAX, RequestIds};
pub use statistics::{DATES_MAX, Period, Slice, Statistics, Summary, block_rate};

use crate::clock::{Now, SharedClock, processor_time};
use crate::random::Generator;
use crate::shard::{Counts, Reading};
use latency::Latencies;
use machine::Machine;

/// Why a node without tokens takes no part in a request: it may come from a web page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Its Host is not a name of the node.
    Host,
    /// Its Origin or its Sec-Fetch-Site names another site.
    Origin,
}

/// How many requests were refused as foreign.
#[derive(Default)]
struct ForeignCounts {
    host: AtomicU64,
    origin: AtomicU64,
}

/// See the module.
pub struct Telemetry {
    clock: SharedClock,
    /// Boot nanoseconds.
    started: u64,
    latencies: Latencies,
    connections: Arc<AtomicUsize>,
    foreign: ForeignCounts,
    request_ids: RequestIds,
    machine: Machine,
    seen: Mutex<Seen>,
    /// Locked for a whole write, so that an earlier one never overwrites a later one.
    history: Option<Mutex<History>>,
}

/// What was seen so far.
struct Seen {
    /// The last word of each shard.
    shards: Vec<Reading>,
    lists: Counts,
    /// What has gone into the statistics.
    noted: Counts,
    statistics: Statistics,
}

/// All shards together.
pub struct Observed {
    /// The sum of what they have counted, lists included, and of how they stand.
    pub reading: Reading,
    /// How many they are.
    pub shards: usize,
    /// How many of them didn't say anything in time; their last word stands.
    pub silent: usize,
}

impl Telemetry {
    /// Begins now, with what `history` has kept. Request ids come from `generator`.
    pub fn new(clock: SharedClock, generator: Generator, history: Option<History>) -> Self {
        let now = clock.now();
        let mut statistics = Statistics::default();
        if let Some(history) = &history {
            match history.load() {
                Ok(slices) => statistics.restore(slices, now.wall),
                Err(error) => {
                    tracing::error!(%error, "the statistics of earlier hours can't be read")
                }
            }
        }
        let (shards, lists, noted) = (Vec::new(), Counts::default(), Counts::default());
        Self {
            clock,
            started: now.boot,
            latencies: Latencies::default(),
            connections: Arc::default(),
            foreign: ForeignCounts::default(),
            request_ids: RequestIds::new(generator),
            machine: Machine::new(now.boot),
            seen: Mutex::new(Seen { shards, lists, noted, statistics }),
            history: history.map(Mutex::new),
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Nanoseconds since the node was started.
    pub fn uptime(&self) -> u64 {
        self.now().boot.saturating_sub(self.started)
    }

    /// Unix time by the node's clock, in nanoseconds.
    pub fn wall(&self) -> u64 {
        self.now().wall
    }

    /// Measures a call until the returned guard is dropped.
    pub fn time(&self, call: Call) -> Timed<'_> {
        self.latencies.time(call, &*self.clock)
    }

    /// How many connections are open: the counter that whoever accepts them keeps.
    pub fn connections(&self) -> &Arc<AtomicUsize> {
        &self.connections
    }

    /// Counts a request that was refused as foreign.
    pub fn note_foreign(&self, foreign: Foreign) {
        let ForeignCounts { host, origin } = &self.foreign;
        let count = match foreign {
            Foreign::Host => host,
            Foreign::Origin => origin,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were refused for their Host, and how many for their Origin or
    /// Sec-Fetch-Site.
    pub fn foreign(&self) -> (u64, u64) {
        let ForeignCounts { host, origin } = &self.foreign;
        (host.load(Ordering::Relaxed), origin.load(Ordering::Relaxed))
    }

    /// Looks how much of the machine this process uses.
    pub fn sample_machine(&self) {
        self.machine.sample(self.now().boot, processor_time());
    }

    /// How much of the machine this process used when that was looked at last.
    pub fn machine(&self) -> MachineLoad {
        self.machine.load()
    }

    /// Where request ids come from.
    pub fn request_ids(&self) -> &RequestIds {
        &self.request_ids
    }

    /// Takes in what the shards and the lists have counted, and notes what is new in the statistics
    /// of this minute.
    pub fn observe(&self, tallies: Vec<Option<Reading>>, lists: Counts) -> Observed {
        let wall = self.now().wall;
        let mut seen = self.seen();
        let (shards, silent) =
            (tallies.len(), tallies.iter().filter(|tally| tally.is_none()).count());
        seen.shards.resize_with(shards, Reading::default);
        for (kept, said) in seen.shards.iter_mut().zip(tallies) {
            // Of two who look at once, the one who asked first may come second.
            if let Some(said) = said.filter(|said| is_newer(&said.counts, &kept.counts)) {
                *kept = said;
            }
        }
        if is_newer(&lists, &seen.lists) {
            seen.lists = lists;
        }
        let mut reading = Reading::default();
        seen.shards.iter().for_each(|shard| reading.add(shard));
        reading.counts.add(&seen.lists);
        let news = Slice::between(&seen.noted, &reading.counts);
        seen.statistics.record(wall, &news);
        seen.noted = reading.counts.clone();
        Observed { reading, shards, silent }
    }

    /// What was decided in a period that ends now.
    pub fn over(&self, period: Period) -> Summary {
        let wall = self.now().wall;
        self.seen().statistics.over(period, wall)
    }

    /// What was decided on a day, counted from the Unix epoch (UTC); none where it isn't kept, or
    /// hasn't begun.
    pub fn on(&self, day: u64) -> Option<Summary> {
        let wall = self.now().wall;
        self.seen().statistics.on(day, wall)
    }

    /// Whether the statistics outlast this process.
    pub fn is_kept(&self) -> bool {
        self.history.is_some()
    }

    /// Makes durable what has changed in the statistics. Blocks for as long as the disk takes.
    pub fn store(&self) -> Result<(), HistoryError> {
        let Some(history) = &self.history else { return Ok(()) };
        let history = history.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.seen().statistics.take_changed();
        let stored = history.store(&changed, self.now().wall);
        if stored.is_err() {
            self.seen().statistics.changed_again(changed.iter().map(|(place, _)| *place));
        }
        stored
    }

    fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts only rise, so of two readings of one shard the larger is the later one; of equal ones it
/// doesn't matter.
fn is_newer(said: &Counts, kept: &Counts) -> bool {
    said.decisions().total() >= kept.decisions().total()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SECOND};
    use crate::random::Seed;
    use crate::shard::Outcomes;

    fn telemetry() -> Telemetry {
        let clock = ManualClock::at(Now { boot: SECOND, wall: 1_000_000 * SECOND });
        Telemetry::new(Arc::new(clock), Seed::from_number(1).fork("request ids", 0), None)
    }

    fn said(allowed: u64) -> Option<Reading> {
        let counts = Counts { lists: Outcomes { allowed, denied: 0 }, ..Counts::default() };
        Some(Reading { counts, ..Reading::default() })
    }

    fn in_the_last_hour(telemetry: &Telemetry) -> u64 {
        telemetry.over(Period::Hour).slice.decisions.allowed
    }

    #[test]
    fn what_is_seen_twice_is_noted_once() {
        let telemetry = telemetry();
        for _ in 0..3 {
            telemetry.observe(vec![said(5), said(2)], Counts::default());
        }
        assert_eq!(in_the_last_hour(&telemetry), 7);
        telemetry.observe(vec![said(5), said(3)], Counts::default());
        assert_eq!(in_the_last_hour(&telemetry), 8);
    }

    #[test]
    fn a_reading_that_comes_late_counts_nothing_twice() {
        let telemetry = telemetry();
        for allowed in [10, 4, 10, 12] {
            telemetry.observe(vec![said(allowed)], Counts::default());
        }
        assert_eq!(in_the_last_hour(&telemetry), 12);
    }

    #[test]
    fn of_a_silent_shard_the_last_word_stands() {
        let telemetry = telemetry();
        telemetry.observe(vec![said(5), said(2)], Counts::default());
        let observed = telemetry.observe(vec![None, said(3)], Counts::default());
        assert_eq!((observed.shards, observed.silent), (2, 1));
        assert_eq!(observed.reading.counts.decisions().allowed, 8);
    }
}
