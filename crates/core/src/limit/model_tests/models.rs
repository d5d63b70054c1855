//! The algorithms as their definitions read, with no thought for time or memory.
//!
//! A model remembers what was admitted since the beginning, and has no notion of advancing. Numbers
//! that change hold from one instant on: what a model has counted by then under the old ones is
//! what is spent under the new.

use std::collections::BTreeMap;

use super::calendar::period_start;
use crate::limit::{Calendar, Rate, Rule, WINDOW_MAX, Window};
use crate::time::Now;

pub trait Model {
    /// Other numbers hold from `at` on.
    fn change(&mut self, rule: &Rule, at: Now);
    /// Whether `cost` may pass at `now`, which is not before anything that has happened.
    fn fits(&self, cost: u64, now: Now) -> bool;
    fn take(&mut self, cost: u64, now: Now);
}

/// The model of a bucket that nobody has asked before `now`.
pub fn model(rule: &Rule, now: Now) -> Box<dyn Model> {
    match rule {
        Rule::TokenBucket(bucket) => Box::new(Replay {
            events: vec![
                (now.boot, Event::Rate(bucket.rate)),
                (now.boot, Event::Take(bucket.burst - bucket.initial)),
            ],
            burst: bucket.burst,
        }),
        Rule::LeakyBucket(bucket) => Box::new(Replay {
            events: vec![(now.boot, Event::Rate(bucket.rate))],
            burst: bucket.burst,
        }),
        Rule::FixedWindow(window) => Box::new(Fixed { window: *window, counts: BTreeMap::new() }),
        Rule::SlidingWindow(window) => {
            Box::new(Sliding { window: *window, counts: BTreeMap::new() })
        }
        Rule::SlidingLog(window) => Box::new(Log { window: *window, admissions: Vec::new() }),
        Rule::Quota(quota) => Box::new(Periods {
            limit: quota.limit,
            calendar: quota.calendar.clone(),
            counts: BTreeMap::new(),
        }),
        Rule::Concurrency { .. } => {
            unreachable!("concurrency has a model of its own, in `permits`")
        }
    }
}

/// Every debt is a number of these parts of a unit: a nanosecond pays a whole number of them at any
/// rate of a schedule.
const PARTS: u128 = 1_001 * WINDOW_MAX as u128;

enum Event {
    Take(u64),
    Rate(Rate),
}

/// A bucket: all that was ever taken and every rate there ever was, gone through from the first
/// instant.
struct Replay {
    events: Vec<(u64, Event)>,
    burst: u64,
}

impl Replay {
    fn owed_parts(&self, boot: u64) -> u128 {
        let (mut owed, mut paid_until) = (0u128, 0);
        let (mut count, mut period) = (0, 1);
        let pay = |owed: u128, count: u64, period: u64, elapsed: u64| {
            assert_eq!(PARTS % u128::from(period), 0);
            // More than fits is more than anybody owes.
            let paid = (u128::from(elapsed) * u128::from(count))
                .saturating_mul(PARTS / u128::from(period));
            owed.saturating_sub(paid)
        };
        for (at, event) in &self.events {
            owed = pay(owed, count, period, at - paid_until);
            paid_until = *at;
            match event {
                Event::Take(cost) => owed += u128::from(*cost) * PARTS,
                Event::Rate(rate) => {
                    (count, period) = (rate.count(), rate.period());
                    // What is owed when a rate comes is rounded up to what one nanosecond pays of
                    // one unit in a period.
                    let grain = PARTS / u128::from(period / common_divisor(count, period));
                    owed = owed.div_ceil(grain) * grain;
                }
            }
        }
        pay(owed, count, period, boot - paid_until)
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

impl Model for Replay {
    fn change(&mut self, rule: &Rule, at: Now) {
        let (rate, burst) = match rule {
            Rule::TokenBucket(bucket) => (bucket.rate, bucket.burst),
            Rule::LeakyBucket(bucket) => (bucket.rate, bucket.burst),
            _ => unreachable!("a schedule keeps to its algorithm"),
        };
        self.events.push((at.boot, Event::Rate(rate)));
        self.burst = burst;
    }

    fn fits(&self, cost: u64, now: Now) -> bool {
        self.owed_parts(now.boot) + u128::from(cost) * PARTS <= u128::from(self.burst) * PARTS
    }

    fn take(&mut self, cost: u64, now: Now) {
        self.events.push((now.boot, Event::Take(cost)));
    }
}

fn window_of(rule: &Rule) -> Window {
    match rule {
        Rule::FixedWindow(window) | Rule::SlidingWindow(window) | Rule::SlidingLog(window) => {
            *window
        }
        _ => unreachable!("a schedule keeps to its algorithm"),
    }
}

/// A fixed window: what each window of the wall clock has admitted, by its number.
struct Fixed {
    window: Window,
    counts: BTreeMap<u64, u64>,
}

impl Fixed {
    fn count(&self, wall: u64) -> u64 {
        self.counts.get(&(wall / self.window.length)).copied().unwrap_or(0)
    }
}

impl Model for Fixed {
    fn change(&mut self, rule: &Rule, at: Now) {
        let spent = self.count(at.wall);
        self.window = window_of(rule);
        self.counts = BTreeMap::from([(at.wall / self.window.length, spent)]);
    }

    fn fits(&self, cost: u64, now: Now) -> bool {
        self.count(now.wall) + cost <= self.window.limit
    }

    fn take(&mut self, cost: u64, now: Now) {
        *self.counts.entry(now.wall / self.window.length).or_default() += cost;
    }
}

/// A sliding window: the same counts, weighed by `current·W + previous·(W − elapsed)`.
struct Sliding {
    window: Window,
    counts: BTreeMap<u64, u64>,
}

impl Sliding {
    fn weighted(&self, wall: u64) -> u128 {
        let (number, elapsed) = (wall / self.window.length, wall % self.window.length);
        let count = |number: u64| self.counts.get(&number).copied().unwrap_or(0);
        let (current, previous) = (count(number), number.checked_sub(1).map_or(0, count));
        u128::from(current) * u128::from(self.window.length)
            + u128::from(previous) * u128::from(self.window.length - elapsed)
    }
}

impl Model for Sliding {
    fn change(&mut self, rule: &Rule, at: Now) {
        let window = window_of(rule);
        if window.length != self.window.length {
            // What counts when the length changes is rounded up to whole units, and counts as taken
            // there and then.
            let spent = self.weighted(at.wall).div_ceil(u128::from(self.window.length));
            self.counts =
                BTreeMap::from([(at.wall / window.length, u64::try_from(spent).unwrap())]);
        }
        self.window = window;
    }

    fn fits(&self, cost: u64, now: Now) -> bool {
        let length = u128::from(self.window.length);
        self.weighted(now.wall) + u128::from(cost) * length
            <= u128::from(self.window.limit) * length
    }

    fn take(&mut self, cost: u64, now: Now) {
        *self.counts.entry(now.wall / self.window.length).or_default() += cost;
    }
}

/// A sliding log: every admission there ever was.
struct Log {
    window: Window,
    admissions: Vec<(u64, u64)>,
}

impl Model for Log {
    fn change(&mut self, rule: &Rule, at: Now) {
        // What has left the old window does not come back with a longer one.
        self.admissions.retain(|(admitted, _)| at.boot - admitted < self.window.length);
        self.window = window_of(rule);
    }

    fn fits(&self, cost: u64, now: Now) -> bool {
        let within =
            self.admissions.iter().filter(|(admitted, _)| now.boot - admitted < self.window.length);
        within.map(|(_, cost)| cost).sum::<u64>() + cost <= self.window.limit
    }

    fn take(&mut self, cost: u64, now: Now) {
        self.admissions.push((now.boot, cost));
    }
}

/// A quota: what each calendar period has admitted, by the instant at which it began.
struct Periods {
    limit: u64,
    calendar: Calendar,
    counts: BTreeMap<u64, u64>,
}

impl Periods {
    fn count(&self, wall: u64) -> u64 {
        self.counts.get(&period_start(&self.calendar, wall)).copied().unwrap_or(0)
    }
}

impl Model for Periods {
    fn change(&mut self, rule: &Rule, at: Now) {
        let Rule::Quota(quota) = rule else { unreachable!("a schedule keeps to its algorithm") };
        let spent = self.count(at.wall);
        (self.limit, self.calendar) = (quota.limit, quota.calendar.clone());
        self.counts = BTreeMap::from([(period_start(&self.calendar, at.wall), spent)]);
    }

    fn fits(&self, cost: u64, now: Now) -> bool {
        self.count(now.wall) + cost <= self.limit
    }

    fn take(&mut self, cost: u64, now: Now) {
        *self.counts.entry(period_start(&self.calendar, now.wall)).or_default() += cost;
    }
}
