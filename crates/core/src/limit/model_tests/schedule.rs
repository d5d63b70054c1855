//! Where schedules come from.

use jiff::tz::TimeZone;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::Run;
use crate::limit::{
    Calendar, LeakyBucket, OnExceeded, Period, Quota, Rate, Rule, TokenBucket, UNITS_MAX,
    WINDOW_MAX, Window,
};
use crate::time::{Now, SECOND};

pub const DAY: u64 = 86_400 * SECOND;

/// The wall time beyond which no schedule goes, in the year 2223; `edges` looks at what lies there.
pub const HORIZON: u64 = 8_000_000_000 * SECOND;

/// The periods of rates. All divide 1,001 times ten years, so the model can keep any debt over one
/// denominator.
const PERIODS: [u64; 9] =
    [1, 7, 1_001, SECOND, 60 * SECOND, 3_600 * SECOND, DAY, 366 * DAY, WINDOW_MAX];

const LENGTHS: [u64; 9] =
    [1, 7, 1_001, 333_333_333, SECOND, 60 * SECOND, 3_600 * SECOND, DAY, WINDOW_MAX];

/// A bucket's numbers, the first instant, and what happens from then on.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub rule: Rule,
    pub start: Now,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub gap: Gap,
    pub act: Act,
}

/// How much time passes before a step.
#[derive(Clone, Copy, Debug)]
pub enum Gap {
    /// None: another check of the same batch.
    None,
    Nanos(u64),
    /// Thousandths of the window, or of the time that an empty bucket takes to fill; the wall clock
    /// slews as NTP may.
    Share(u64, i64),
    /// Until the instant that the last denial named, or a nanosecond to either side.
    Told(i64),
    Years(u64),
}

impl Gap {
    pub fn nanos(self, run: &Run) -> u64 {
        match self {
            Self::None => 0,
            Self::Nanos(nanos) => nanos,
            Self::Share(thousandths, _) => {
                let whole = run.rule.window().unwrap_or(16 * DAY).min(HORIZON);
                (whole / 1_000)
                    .saturating_mul(thousandths)
                    .saturating_add(whole % 1_000 * thousandths / 1_000)
            }
            Self::Told(beside) => {
                run.due.saturating_add_signed(beside).saturating_sub(run.now.boot)
            }
            Self::Years(years) => years * 366 * DAY,
        }
    }

    /// By how much the wall clock moves otherwise than boot time, at most 500 parts per million.
    pub fn slew(self, nanos: u64) -> i64 {
        match self {
            Self::Share(_, slew) => slew * i64::try_from(nanos / 2_000).unwrap_or(0),
            _ => 0,
        }
    }
}

/// What happens at a step.
#[derive(Clone, Debug)]
pub enum Act {
    Ask(Pick),
    /// Other numbers of the same algorithm.
    Change(Rule),
    /// Another limit and nothing else.
    Limit(u64),
}

impl Act {
    /// The rule after this step.
    pub fn changed(&self, rule: &Rule) -> Option<Rule> {
        match self {
            Self::Ask(_) => None,
            Self::Change(rule) => Some(rule.clone()),
            Self::Limit(limit) => Some(with_limit(rule, *limit)),
        }
    }
}

/// A cost from 1 to two more than the limit, which is known only when its step comes.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    Small(u64),
    Any(u64),
    /// So many below two above the limit.
    Top(u64),
}

impl Pick {
    pub fn cost(self, capacity: u64) -> u64 {
        match self {
            Self::Small(cost) => cost.min(capacity + 2),
            Self::Any(number) => 1 + number % (capacity + 2),
            Self::Top(below) => (capacity + 2).saturating_sub(below).max(1),
        }
    }
}

/// `rule` with another limit; a token bucket that started full still does.
pub fn with_limit(rule: &Rule, limit: u64) -> Rule {
    let mut rule = rule.clone();
    match &mut rule {
        Rule::TokenBucket(bucket) => {
            bucket.initial =
                if bucket.initial == bucket.burst { limit } else { bucket.initial.min(limit) };
            bucket.burst = limit;
        }
        Rule::LeakyBucket(bucket) => bucket.burst = limit,
        Rule::FixedWindow(window) | Rule::SlidingWindow(window) | Rule::SlidingLog(window) => {
            window.limit = limit
        }
        Rule::Quota(quota) => quota.limit = limit,
        Rule::Concurrency { max } => *max = limit,
    }
    rule
}

pub fn schedule(rules: BoxedStrategy<Rule>) -> impl Strategy<Value = Schedule> {
    let start = (
        0..=1_000_000 * SECOND,
        (946_684_800..=2_200_000_000u64).prop_map(|seconds| seconds * SECOND),
    );
    (rules.clone(), start, 0..SECOND, vec(step(rules), 1..40)).prop_map(
        |(rule, (boot, wall), nanos, steps)| Schedule {
            rule,
            start: Now { boot, wall: wall + nanos },
            steps,
        },
    )
}

fn step(rules: BoxedStrategy<Rule>) -> impl Strategy<Value = Step> {
    let act = prop_oneof![
        14 => pick().prop_map(Act::Ask),
        1 => limit().prop_map(Act::Limit),
        1 => rules.prop_map(Act::Change),
    ];
    (gap(), act).prop_map(|(gap, act)| Step { gap, act })
}

pub fn gap() -> impl Strategy<Value = Gap> {
    prop_oneof![
        6 => Just(Gap::None),
        1 => (0..=3u64).prop_map(Gap::Nanos),
        1 => (0..=2 * SECOND).prop_map(Gap::Nanos),
        3 => (0..=2_500u64).prop_map(|thousandths| Gap::Share(thousandths, 0)),
        1 => (0..=2_500u64, -1..=1i64).prop_map(|(thousandths, slew)| Gap::Share(thousandths, slew)),
        4 => (-1..=1i64).prop_map(Gap::Told),
        1 => (1..=30u64).prop_map(Gap::Years),
    ]
}

pub fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        3 => (1..=3u64).prop_map(Pick::Small),
        3 => (0..=2 * UNITS_MAX).prop_map(Pick::Any),
        1 => (0..=3u64).prop_map(Pick::Top),
    ]
}

pub fn limit() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1..=20u64, 2 => 1..=10_000u64, 1 => UNITS_MAX - 2..=UNITS_MAX]
}

pub fn rate() -> impl Strategy<Value = Rate> {
    let count = prop_oneof![6 => 1..=20u64, 1 => Just(10_000_000), 1 => UNITS_MAX - 2..=UNITS_MAX];
    (count, select(&PERIODS))
        .prop_map(|(count, period)| Rate::new(count, period).expect("both are in bounds"))
}

fn window() -> impl Strategy<Value = Window> {
    let length = prop_oneof![4 => select(&LENGTHS), 1 => 1..=1_000_000u64];
    (limit(), length).prop_map(|(limit, length)| Window { limit, length })
}

/// Token buckets that start full.
pub fn full_bucket() -> BoxedStrategy<Rule> {
    (rate(), limit())
        .prop_map(|(rate, burst)| Rule::TokenBucket(TokenBucket { rate, burst, initial: burst }))
        .boxed()
}

/// Token buckets that start with anything from nothing to full.
pub fn bucket_with_initial() -> BoxedStrategy<Rule> {
    (rate(), limit(), 0..=UNITS_MAX)
        .prop_map(|(rate, burst, any)| {
            Rule::TokenBucket(TokenBucket { rate, burst, initial: any % (burst + 1) })
        })
        .boxed()
}

pub fn leaky_bucket() -> BoxedStrategy<Rule> {
    (rate(), limit())
        .prop_map(|(rate, burst)| Rule::LeakyBucket(LeakyBucket { rate, burst }))
        .boxed()
}

pub fn fixed_window() -> BoxedStrategy<Rule> {
    window().prop_map(Rule::FixedWindow).boxed()
}

pub fn sliding_window() -> BoxedStrategy<Rule> {
    window().prop_map(Rule::SlidingWindow).boxed()
}

pub fn sliding_log() -> BoxedStrategy<Rule> {
    window().prop_map(Rule::SlidingLog).boxed()
}

/// Daily and monthly quotas in the zone of that name.
pub fn quota(zone: &'static str, on_exceeded: OnExceeded) -> BoxedStrategy<Rule> {
    let zone = TimeZone::get(zone).expect("the zone is in the bundled database");
    (limit(), select(&[Period::Day, Period::Month][..]), 1..=31i8)
        .prop_map(move |(limit, period, anchor_day)| {
            let calendar = Calendar { period, anchor_day, zone: zone.clone() };
            Rule::Quota(Quota { limit, calendar, on_exceeded })
        })
        .boxed()
}

/// One strategy for each algorithm that a `State` is kept for; all start full.
pub fn algorithms() -> Vec<BoxedStrategy<Rule>> {
    vec![
        full_bucket(),
        leaky_bucket(),
        fixed_window(),
        sliding_window(),
        sliding_log(),
        quota("UTC", OnExceeded::Deny),
        quota("Europe/Berlin", OnExceeded::Deny),
    ]
}

/// A rule of any algorithm, starting full.
pub fn any_rule() -> impl Strategy<Value = Rule> {
    proptest::strategy::Union::new(algorithms())
}

/// A schedule of any algorithm, token buckets with `initial` among them; changes keep to the
/// algorithm.
pub fn any_schedule() -> impl Strategy<Value = Schedule> {
    let rules = algorithms().into_iter().chain([bucket_with_initial()]);
    proptest::strategy::Union::new(rules.map(|rules| schedule(rules).boxed()))
}

/// A schedule of any algorithm that starts full.
pub fn any_full_schedule() -> impl Strategy<Value = Schedule> {
    proptest::strategy::Union::new(algorithms().into_iter().map(|rules| schedule(rules).boxed()))
}
