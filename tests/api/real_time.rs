//! Over HTTP and in real time every algorithm admits what its definition admits, and whoever waits
//! as told gets in.
//!
//! The caller sees when it sent a check and when the answer came; the node decided somewhere in
//! between. Each model here is the definition of its algorithm, written for such spans: it says
//! *yes* or *no* where every instant in the span leads to the same verdict, whenever in their own
//! spans the admissions before it happened, and holds its tongue otherwise.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::clock::{Clock, MS, Now, SECOND, SystemClock};

use crate::rig::{Home, Node, Wire};

/// By how much two processes may disagree on the wall clock, and a wait on it with one on the boot
/// clock.
const WALL_SLACK: u64 = 2 * MS;

/// What is known of the instant of a decision, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u64,
    to: u64,
}

/// A caller that keeps its connection and looks at the clock before and after every check.
struct Caller<'n> {
    wire: Wire,
    clock: &'n SystemClock,
}

/// One answer, and when it was decided by either clock.
struct Told {
    boot: Span,
    wall: Span,
    answer: Value,
}

impl<'n> Caller<'n> {
    fn new(node: &Node, clock: &'n SystemClock) -> Self {
        Self { wire: node.connect(), clock }
    }

    fn check(&mut self, check: &Value, cost: u64) -> Told {
        let mut check = check.clone();
        check["cost"] = json!(cost);
        let body = check.to_string();
        let sent = self.clock.now();
        let answer = self.wire.call("POST", "/v1/check", &[], body.as_bytes());
        let got = self.clock.now();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let span =
            |of: fn(Now) -> u64, slack: u64| Span { from: of(sent) - slack, to: of(got) + slack };
        Told {
            boot: span(|now| now.boot, 0),
            wall: span(|now| now.wall, WALL_SLACK),
            answer: answer.json(),
        }
    }

    fn sleep_until(&self, boot: u64) {
        let left = boot.saturating_sub(self.clock.now().boot);
        std::thread::sleep(Duration::from_nanos(left));
    }
}

impl Told {
    fn allowed(&self) -> bool {
        self.answer["allowed"].as_bool().unwrap()
    }
}

// ------------------------------------------------------------------------------------------------
// models

trait Model {
    /// Whether a cost decided within the span passes; none where that depends on the instant.
    fn verdict(&self, told: &Told, cost: u64) -> Option<bool>;
    /// Takes a cost that passed.
    fn take(&mut self, told: &Told, cost: u64);
}

/// A debt that `rate` units a second pay off, and that may reach `burst`: token bucket and leaky
/// bucket.
struct Bucket {
    rate: u64,
    burst: u64,
    /// What is owed at most and at least, in units times a second, and since when.
    most: (u64, u64),
    least: (u64, u64),
}

impl Bucket {
    fn new(rate: u64, burst: u64) -> Self {
        Self { rate, burst, most: (0, 0), least: (0, 0) }
    }

    fn owed(&self, (owed, since): (u64, u64), at: u64) -> u64 {
        owed.saturating_sub(at.saturating_sub(since).saturating_mul(self.rate))
    }
}

impl Model for Bucket {
    fn verdict(&self, told: &Told, cost: u64) -> Option<bool> {
        let room = (self.burst - cost) * SECOND;
        if self.owed(self.most, told.boot.from) <= room {
            return Some(true);
        }
        (self.owed(self.least, told.boot.to) > room).then_some(false)
    }

    fn take(&mut self, told: &Told, cost: u64) {
        let Span { from, to } = told.boot;
        self.most = (self.owed(self.most, to) + cost * SECOND, to);
        self.least = (self.owed(self.least, from) + cost * SECOND, from);
    }
}

/// At most `limit` units in the second before any instant.
struct Log {
    limit: u64,
    taken: Vec<(Span, u64)>,
}

impl Model for Log {
    fn verdict(&self, told: &Told, cost: u64) -> Option<bool> {
        let sum = |counts: &dyn Fn(&Span) -> bool| -> u64 {
            let counted = self.taken.iter().filter(|(span, _)| counts(span));
            counted.map(|(_, cost)| cost).sum()
        };
        if sum(&|span| span.to + SECOND > told.boot.from) + cost <= self.limit {
            return Some(true);
        }
        (sum(&|span| span.from + SECOND > told.boot.to) + cost > self.limit).then_some(false)
    }

    fn take(&mut self, told: &Told, cost: u64) {
        self.taken.push((told.boot, cost));
    }
}

/// Seconds of the wall clock: `limit` units in each, or with a falling share of the one before.
struct Windows {
    limit: u64,
    sliding: bool,
    taken: Vec<(Span, u64)>,
}

impl Windows {
    /// Units times a second that count at `at` in window `index`; each admission falls into the
    /// window `of` its span.
    fn counted(&self, index: u64, at: u64, of: impl Fn(&Span) -> u64) -> u64 {
        let in_window = |index: u64| -> u64 {
            let fitting = self.taken.iter().filter(|(span, _)| of(span) == index);
            fitting.map(|(_, cost)| cost).sum()
        };
        let previous = if self.sliding { in_window(index - 1) } else { 0 };
        in_window(index) * SECOND + previous * ((index + 1) * SECOND - at)
    }
}

impl Model for Windows {
    fn verdict(&self, told: &Told, cost: u64) -> Option<bool> {
        let Span { from, to } = told.wall;
        let room = (self.limit - cost) * SECOND;
        let mut verdicts = (from / SECOND..=to / SECOND).map(|index| {
            let (first, last) = (from.max(index * SECOND), to.min((index + 1) * SECOND));
            // An admission counts the more, the later it was.
            if self.counted(index, first, |span| (span.to / SECOND).min(index)) <= room {
                return Some(true);
            }
            (self.counted(index, last, |span| span.from / SECOND) > room).then_some(false)
        });
        let first = verdicts.next()??;
        verdicts.all(|verdict| verdict == Some(first)).then_some(first)
    }

    fn take(&mut self, told: &Told, cost: u64) {
        self.taken.push((told.wall, cost));
    }
}

// ------------------------------------------------------------------------------------------------
// against the models

const MODELLED: &str = r#"
default_tier = "token_bucket"
[tiers.token_bucket]
limits = [{ name = "rate", algorithm = "token_bucket", rate = "10/s", burst = 8 }]
[tiers.leaky_bucket]
limits = [{ name = "rate", algorithm = "leaky_bucket", rate = "7/s", burst = 3 }]
[tiers.fixed_window]
limits = [{ name = "rate", algorithm = "fixed_window", limit = 9, window = "1s" }]
[tiers.sliding_window]
limits = [{ name = "rate", algorithm = "sliding_window", limit = 9, window = "1s" }]
[tiers.sliding_log]
limits = [{ name = "rate", algorithm = "sliding_log", limit = 9, window = "1s" }]
"#;

/// How often a model was sure, and of what.
#[derive(Debug, Default)]
struct Sure {
    yes: u32,
    no: u32,
    silent: u32,
}

/// Checks in bursts and with pauses, for eight seconds.
fn follow(node: &Node, clock: &SystemClock, tier: &str, model: &mut dyn Model) -> Sure {
    let mut caller = Caller::new(node, clock);
    let check = json!({"tenant": format!("of-{tier}"), "tier": tier});
    let mut sure = Sure::default();
    let end = clock.now().boot + 8 * SECOND;
    // A fixed sequence that looks like chance.
    let mut dice = 12_345u64;
    while clock.now().boot < end {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let cost = 1 + (dice >> 33) % 3;
        let told = caller.check(&check, cost);
        let expected = model.verdict(&told, cost);
        match expected {
            Some(true) => sure.yes += 1,
            Some(false) => sure.no += 1,
            None => sure.silent += 1,
        }
        if let Some(expected) = expected {
            assert_eq!(told.allowed(), expected, "{tier}, cost {cost}, {sure:?}: {}", told.answer);
        }
        if told.allowed() {
            model.take(&told, cost);
        }
        // Often where verdicts change: around the instant that a denial names.
        let wait = told.answer["retry_after_ms"].as_u64();
        let pause = match (dice >> 40) % 10 {
            0..=3 => 0,
            4..=6 => wait.map_or(0, |wait| (wait + (dice >> 45) % 40).saturating_sub(20)),
            7..=8 => (dice >> 45) % 60,
            _ => (dice >> 45) % 1_200,
        };
        caller.sleep_until(told.boot.to + pause * MS);
    }
    sure
}

#[test]
fn every_algorithm_admits_what_its_definition_admits() {
    let node = Home::new(MODELLED, "").start();
    let clock = SystemClock::new();
    let windows = |sliding| Windows { limit: 9, sliding, taken: Vec::new() };
    let mut models: [(&str, Box<dyn Model + Send>); 5] = [
        ("token_bucket", Box::new(Bucket::new(10, 8))),
        ("leaky_bucket", Box::new(Bucket::new(7, 3))),
        ("fixed_window", Box::new(windows(false))),
        ("sliding_window", Box::new(windows(true))),
        ("sliding_log", Box::new(Log { limit: 9, taken: Vec::new() })),
    ];
    std::thread::scope(|scope| {
        for (tier, model) in &mut models {
            let (node, clock) = (&node, &clock);
            scope.spawn(move || {
                let sure = follow(node, clock, tier, model.as_mut());
                // A model that is never sure proves nothing.
                assert!(sure.yes >= 10 && sure.no >= 5, "{tier}: {sure:?}");
            });
        }
    });
}

// ------------------------------------------------------------------------------------------------
// waiting as told

const WAITING: &str = r#"
default_tier = "free"
[[limits]]
name = "everybody"
per = ["action"]
match = { action = "shared" }
algorithm = "sliding_log"
limit = 3
window = "900ms"
[tiers.free]
[tiers.token_bucket]
limits = [{ name = "a", algorithm = "token_bucket", rate = "3/s", burst = 3 }]
[tiers.leaky_bucket]
limits = [{ name = "a", algorithm = "leaky_bucket", rate = "7/2s" }]
[tiers.fixed_window]
limits = [{ name = "a", algorithm = "fixed_window", limit = 2, window = "1s" }]
[tiers.sliding_window]
limits = [{ name = "a", algorithm = "sliding_window", limit = 3, window = "1s" }]
[tiers.sliding_log]
limits = [{ name = "a", algorithm = "sliding_log", limit = 2, window = "700ms" }]
[tiers.bucket-and-window]
limits = [
  { name = "a", algorithm = "token_bucket", rate = "4/s", burst = 4 },
  { name = "b", algorithm = "fixed_window", limit = 5, window = "1s" },
]
[tiers.log-and-leak]
limits = [
  { name = "a", algorithm = "sliding_log", limit = 3, window = "800ms" },
  { name = "b", algorithm = "leaky_bucket", rate = "4/s", burst = 2 },
]
[tiers.windows]
limits = [
  { name = "a", algorithm = "sliding_window", limit = 4, window = "1s" },
  { name = "b", algorithm = "fixed_window", limit = 6, window = "2s" },
]
[tiers.and-shared]
limits = [{ name = "a", algorithm = "token_bucket", rate = "5/s", burst = 2 }]
"#;

/// How long before its time a check is tried in vain.
const EARLY: u64 = 30 * MS;
/// Rounds after which it is enough, and after which it is given up.
const ROUNDS: u32 = 4;
const ROUNDS_MAX: u32 = 16;

/// Spends until denied, tries just before the time it was told, and then right after it.
fn wait_as_told(node: &Node, clock: &SystemClock, tier: &str) {
    let mut caller = Caller::new(node, clock);
    let mut check = json!({"tenant": format!("of-{tier}"), "tier": tier});
    if tier == "and-shared" {
        check["action"] = json!("shared");
    }
    let (mut in_vain, mut early_by) = (0, EARLY);
    for round in 0..ROUNDS_MAX {
        let cost = if tier == "leaky_bucket" { 1 } else { 1 + u64::from(round % 2) };
        let denied = (0..50).map(|_| caller.check(&check, cost)).find(|told| !told.allowed());
        let denied = denied.unwrap_or_else(|| panic!("{tier}: never denied"));
        let told = denied.answer["retry_after_ms"].as_u64().unwrap();
        let wait = told * MS;
        if wait > 2 * early_by {
            caller.sleep_until(denied.boot.from + wait - early_by);
            let early = caller.check(&check, cost);
            // Rounding up may have added a millisecond.
            let in_time = early.boot.to + MS + WALL_SLACK <= denied.boot.from + wait;
            if in_time {
                assert!(
                    !early.allowed(),
                    "{tier}: told {told} ms, admitted {early_by} ns before: {}",
                    early.answer
                );
                in_vain += 1;
            } else {
                // The machine is too busy for that.
                early_by += EARLY;
                if early.allowed() {
                    continue;
                }
            }
        }
        caller.sleep_until(denied.boot.to + wait + WALL_SLACK);
        let late = caller.check(&check, cost);
        assert!(late.allowed(), "{tier}: told {told} ms, denied after: {}", late.answer);
        if in_vain >= ROUNDS {
            return;
        }
    }
    assert!(in_vain > 0, "{tier}: not once in time to be early");
}

#[test]
fn whoever_waits_as_told_is_admitted_and_noticeably_earlier_is_not() {
    let node = Home::new(WAITING, "").start();
    let clock = SystemClock::new();
    std::thread::scope(|scope| {
        for tier in [
            "token_bucket",
            "leaky_bucket",
            "fixed_window",
            "sliding_window",
            "sliding_log",
            "bucket-and-window",
            "log-and-leak",
            "windows",
            "and-shared",
        ] {
            let (node, clock) = (&node, &clock);
            scope.spawn(move || wait_as_told(node, clock, tier));
        }
    });
}
