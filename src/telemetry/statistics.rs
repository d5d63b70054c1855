//! Statistics: what was decided, by the minute for a day and by the hour for a month (O3). Pure;
//! the time is passed in.
//!
//! A [`Slice`] is what was decided in one minute or hour of UTC. A period is the slices that it
//! touches, the running one included: *1h* and *24h* are the last 60 and 1,440 minutes, *7d* the
//! last 168 hours, a date its 24 hours. Slices without decisions aren't kept, so a quiet node keeps
//! little; a busy one keeps 2,184 of them at most.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;
use crate::shard::{Counts, OTHERS, Outcomes, Scope, TIERS_MAX};

const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const HOURS_A_DAY: u64 = 24;
const DAY: u64 = HOURS_A_DAY * HOUR;
/// Minutes that are kept.
const MINUTES_MAX: u64 = HOURS_A_DAY * 60;
/// Past days that can be asked for, today aside.
pub const DATES_MAX: u64 = 30;
/// Hours that are kept: those days', and today's.
const HOURS_MAX: u64 = (DATES_MAX + 1) * HOURS_A_DAY;

/// What was decided in some time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// All decisions.
    pub decisions: Outcomes,
    /// Those of an allow or deny list, which belong to no tier.
    pub lists: Outcomes,
    /// Those in each tier; at most [`TIERS_MAX`] and one for the others.
    pub tiers: BTreeMap<String, Outcomes>,
    /// Denials, by what the denying limit is keyed by first.
    pub denied_by_scope: BTreeMap<Scope, u64>,
}

impl Slice {
    /// What was counted between two readings.
    pub fn between(before: &Counts, after: &Counts) -> Self {
        let mut slice = Self {
            decisions: after.decisions().since(before.decisions()),
            lists: after.lists.since(before.lists),
            ..Self::default()
        };
        for (tier, counts) in &after.tiers {
            let earlier = before.tiers.iter().find(|(name, _)| name == tier);
            let earlier = earlier.map_or(Outcomes::default(), |(_, counts)| counts.sum());
            slice.count_tier(tier.as_str(), counts.sum().since(earlier));
        }
        slice.count_tier(OTHERS, after.other_tiers.sum().since(before.other_tiers.sum()));
        for (reason, scope, count) in &after.denials {
            let earlier = before.denials.iter().find(|(r, s, _)| (r, s) == (reason, scope));
            let news = count.saturating_sub(earlier.map_or(0, |(.., count)| *count));
            if news > 0 {
                *slice.denied_by_scope.entry(*scope).or_default() += news;
            }
        }
        slice
    }

    /// Adds what was decided in another time.
    pub fn add(&mut self, other: &Self) {
        self.decisions.add(other.decisions);
        self.lists.add(other.lists);
        for (tier, outcomes) in &other.tiers {
            self.count_tier(tier, *outcomes);
        }
        for (scope, count) in &other.denied_by_scope {
            *self.denied_by_scope.entry(*scope).or_default() += count;
        }
    }

    fn count_tier(&mut self, tier: &str, outcomes: Outcomes) {
        if outcomes.total() == 0 {
            return;
        }
        let full = self.tiers.len() >= TIERS_MAX && !self.tiers.contains_key(tier);
        self.tiers.entry(if full { OTHERS } else { tier }.into()).or_default().add(outcomes);
    }

    /// The share of denials, 0 to 1; 0 where nothing was decided.
    pub fn block_rate(&self) -> f64 {
        block_rate(self.decisions)
    }
}

/// The share of denials, 0 to 1; 0 where nothing was decided.
pub fn block_rate(outcomes: Outcomes) -> f64 {
    match outcomes.total() {
        0 => 0.0,
        total => outcomes.denied as f64 / total as f64,
    }
}

/// A time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// 60 minutes.
    Hour,
    /// 1,440 minutes.
    Day,
    /// 168 hours.
    Week,
}

impl Period {
    /// All of them, by their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("1h", Self::Hour), ("24h", Self::Day), ("7d", Self::Week)];
}

/// Which kind of slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Span {
    fn nanos(self) -> u64 {
        match self {
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
        }
    }

    /// The first slice that is kept at `wall`.
    pub fn first_kept(self, wall: u64) -> u64 {
        let most = match self {
            Self::Minute => MINUTES_MAX,
            Self::Hour => HOURS_MAX,
        };
        (wall / self.nanos()).saturating_sub(most - 1)
    }
}

/// A slice's place: its kind, and its number since the Unix epoch.
pub type Place = (Span, u64);

/// What was decided in a period.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Where it begins, nanoseconds of wall time.
    pub from: u64,
    /// Where it ends, likewise.
    pub to: u64,
    /// What was decided in between.
    pub slice: Slice,
}

/// See the module.
#[derive(Default)]
pub struct Statistics {
    minutes: BTreeMap<u64, Slice>,
    hours: BTreeMap<u64, Slice>,
    changed: BTreeSet<Place>,
}

impl Statistics {
    /// Notes what was decided around `wall`.
    pub fn record(&mut self, wall: u64, news: &Slice) {
        if news.decisions.total() == 0 {
            return;
        }
        for span in [Span::Minute, Span::Hour] {
            let at = wall / span.nanos();
            self.slices(span).entry(at).or_default().add(news);
            self.changed.insert((span, at));
        }
        self.forget(wall);
    }

    /// What was decided in the period that ends at `wall`.
    pub fn over(&self, period: Period, wall: u64) -> Summary {
        let (slices, span, count) = match period {
            Period::Hour => (&self.minutes, Span::Minute, 60),
            Period::Day => (&self.minutes, Span::Minute, MINUTES_MAX),
            Period::Week => (&self.hours, Span::Hour, 7 * HOURS_A_DAY),
        };
        let last = wall / span.nanos();
        let first = (last + 1).saturating_sub(count);
        Summary { from: first * span.nanos(), to: wall, slice: sum(slices, first, last) }
    }

    /// What was decided on day `day` since the Unix epoch; none where it is no longer kept or
    /// hasn't begun.
    pub fn on(&self, day: u64, wall: u64) -> Option<Summary> {
        let today = wall / DAY;
        if day > today || today - day > DATES_MAX {
            return None;
        }
        let first = day * HOURS_A_DAY;
        let slice = sum(&self.hours, first, first + HOURS_A_DAY - 1);
        Some(Summary { from: day * DAY, to: ((day + 1) * DAY).min(wall), slice })
    }

    /// Takes back what an earlier process has kept. What lies ahead of `wall` was kept by a clock
    /// that was wrong.
    pub fn restore(&mut self, slices: Vec<(Place, Slice)>, wall: u64) {
        for ((span, at), slice) in slices {
            if at <= wall / span.nanos() {
                self.slices(span).insert(at, slice);
            }
        }
        self.forget(wall);
    }

    /// The slices that have changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<(Place, Slice)> {
        let changed = std::mem::take(&mut self.changed);
        let slice = |place: Place| Some((place, self.slices(place.0).get(&place.1)?.clone()));
        changed.into_iter().filter_map(slice).collect()
    }

    /// Those slices are to be taken again: they got lost.
    pub fn changed_again(&mut self, places: impl Iterator<Item = Place>) {
        self.changed.extend(places);
    }

    fn slices(&mut self, span: Span) -> &mut BTreeMap<u64, Slice> {
        match span {
            Span::Minute => &mut self.minutes,
            Span::Hour => &mut self.hours,
        }
    }

    fn forget(&mut self, wall: u64) {
        for span in [Span::Minute, Span::Hour] {
            let first = span.first_kept(wall);
            let slices = self.slices(span);
            while slices.first_key_value().is_some_and(|(at, _)| *at < first) {
                slices.pop_first();
            }
        }
        self.changed.retain(|(span, at)| *at >= span.first_kept(wall));
    }
}

fn sum(slices: &BTreeMap<u64, Slice>, first: u64, last: u64) -> Slice {
    let mut sum = Slice::default();
    slices.range(first..=last).for_each(|(_, slice)| sum.add(slice));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes past noon, on some day.
    const NOW: u64 = 20_000 * DAY + 12 * HOUR + 10 * MINUTE;

    fn one(tier: &str, allowed: bool) -> Slice {
        let mut slice = Slice::default();
        slice.decisions.count(allowed);
        slice.count_tier(tier, slice.decisions);
        if !allowed {
            slice.denied_by_scope.insert(Scope::Ip, 1);
        }
        slice
    }

    fn totals(statistics: &Statistics, wall: u64) -> [u64; 3] {
        Period::ALL.map(|(_, period)| statistics.over(period, wall).slice.decisions.total())
    }

    #[test]
    fn a_decision_leaves_each_period_when_its_time_is_up() {
        let mut statistics = Statistics::default();
        statistics.record(NOW, &one("free", true));
        for (later, expected) in [
            (0, [1, 1, 1]),
            (59 * MINUTE, [1, 1, 1]),
            (60 * MINUTE, [0, 1, 1]),
            (DAY - MINUTE, [0, 1, 1]),
            (DAY, [0, 0, 1]),
            (7 * DAY - 11 * MINUTE, [0, 0, 1]),
            (7 * DAY, [0, 0, 0]),
        ] {
            assert_eq!(
                totals(&statistics, NOW + later),
                expected,
                "{} minutes later",
                later / MINUTE
            );
        }
    }

    #[test]
    fn tiers_and_scopes_add_up() {
        let mut statistics = Statistics::default();
        for (at, tier, allowed) in
            [(0, "free", true), (1, "free", false), (2, "pro", true), (2, "free", false)]
        {
            statistics.record(NOW + at * MINUTE, &one(tier, allowed));
        }
        let hour = statistics.over(Period::Hour, NOW + 2 * MINUTE).slice;
        assert_eq!(hour.decisions, Outcomes { allowed: 2, denied: 2 });
        assert_eq!(hour.tiers["free"], Outcomes { allowed: 1, denied: 2 });
        assert_eq!(hour.tiers["pro"], Outcomes { allowed: 1, denied: 0 });
        assert_eq!(hour.denied_by_scope, [(Scope::Ip, 2)].into());
        assert_eq!(hour.block_rate(), 0.5);
        assert_eq!(Slice::default().block_rate(), 0.0);
    }

    #[test]
    fn a_past_date_is_its_own_day_for_thirty_days() {
        let mut statistics = Statistics::default();
        let midnight = 20_000 * DAY;
        statistics.record(midnight - 1, &one("free", true));
        statistics.record(midnight, &one("free", true));
        statistics.record(midnight + DAY - 1, &one("free", true));
        let of = |statistics: &Statistics, day, wall| {
            statistics.on(day, wall).map(|summary| summary.slice.decisions.total())
        };
        assert_eq!(of(&statistics, 19_999, midnight + DAY), Some(1));
        assert_eq!(of(&statistics, 20_000, midnight + DAY), Some(2));
        assert_eq!(of(&statistics, 20_002, midnight + DAY), None);
        let later = midnight + 30 * DAY + 5 * HOUR;
        statistics.record(later, &one("free", true));
        assert_eq!(of(&statistics, 20_000, later), Some(2));
        assert_eq!(of(&statistics, 19_999, later), None);
        let today = statistics.on(20_030, later).unwrap();
        assert_eq!((today.from, today.to), (20_030 * DAY, later));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut statistics = Statistics::default();
        for minute in 0..40 * MINUTES_MAX {
            statistics.record(NOW + minute * MINUTE, &one(&format!("tier-{minute}"), true));
        }
        assert_eq!(statistics.minutes.len() as u64, MINUTES_MAX);
        assert_eq!(statistics.hours.len() as u64, HOURS_MAX);
        assert!(statistics.changed.len() as u64 <= MINUTES_MAX + HOURS_MAX);
        let week = statistics.over(Period::Week, NOW + (40 * MINUTES_MAX - 1) * MINUTE).slice;
        assert_eq!(week.tiers.len(), TIERS_MAX + 1);
        let in_tiers: u64 = week.tiers.values().map(|outcomes| outcomes.total()).sum();
        assert_eq!(in_tiers, week.decisions.total());
    }

    #[test]
    fn what_changed_is_told_once_unless_it_got_lost() {
        let mut statistics = Statistics::default();
        statistics.record(NOW, &one("free", true));
        let changed = statistics.take_changed();
        assert_eq!(
            changed.iter().map(|((span, _), _)| *span).collect::<Vec<_>>(),
            [Span::Minute, Span::Hour]
        );
        assert_eq!(statistics.take_changed(), []);
        statistics.changed_again(changed.iter().map(|(place, _)| *place));
        assert_eq!(statistics.take_changed(), changed);

        let mut next = Statistics::default();
        next.restore(changed, NOW + MINUTE);
        assert_eq!(totals(&next, NOW + MINUTE), [1, 1, 1]);
    }

    #[test]
    fn what_a_wrong_clock_kept_ahead_of_now_is_left_out() {
        let mut statistics = Statistics::default();
        let ahead = vec![((Span::Hour, NOW / HOUR + 1), one("free", true))];
        statistics.restore(ahead, NOW);
        assert_eq!(totals(&statistics, NOW + 2 * HOUR), [0, 0, 0]);
    }
}
