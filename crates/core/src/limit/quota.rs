//! Calendar quotas (A7): a count for a day or a month, in a time zone, from an anchor day.
//!
//! A month anchored to day 15 runs from the 15th to the 15th; where a month lacks the anchor day,
//! its last day stands in, so an anchor of 31 begins February's period on the 28th or 29th. Periods
//! begin at midnight in the quota's zone; where the zone skips midnight, at the first instant of
//! that day. The period in which a bucket counts never goes back.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use super::{Algorithm, Outcome, changed_at, shifted};
use crate::time::Now;

/// What a quota counts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Midnight to midnight.
    Day,
    /// Anchor day to anchor day.
    Month,
}

/// What happens beyond the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExceeded {
    /// Checks are denied.
    Deny,
    /// Checks pass and are counted as overage.
    Count,
}

/// When periods begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    /// Day or month.
    pub period: Period,
    /// The day of the month on which a monthly period begins, 1 to 31.
    pub anchor_day: i8,
    /// The zone whose midnight counts.
    pub zone: TimeZone,
}

impl Calendar {
    /// The end of the period that `wall` lies in: nanoseconds since the Unix epoch. An instant or
    /// date outside of what the calendar knows (the year 9999) never ends.
    fn ends_at(&self, wall: u64) -> u64 {
        self.next_start(wall).unwrap_or(NEVER)
    }

    fn next_start(&self, wall: u64) -> Option<u64> {
        let now = Timestamp::from_nanosecond(i128::from(wall)).ok()?.to_zoned(self.zone.clone());
        let today = now.date();
        let next = match self.period {
            Period::Day => today.tomorrow().ok()?,
            Period::Month => {
                let this_month = self.anchored(today);
                if today < this_month {
                    this_month
                } else {
                    self.anchored(today.first_of_month().checked_add(1.month()).ok()?)
                }
            }
        };
        let start = next.to_zoned(self.zone.clone()).ok()?.timestamp();
        // A midnight that comes twice begins the period once it has come for the second time.
        let start = match start.as_nanosecond() <= i128::from(wall) {
            true => self
                .zone
                .to_ambiguous_zoned(next.to_datetime(Time::midnight()))
                .later()
                .ok()?
                .timestamp(),
            false => start,
        };
        u64::try_from(start.as_nanosecond()).ok().filter(|start| *start > wall)
    }

    /// The day on which the period that begins in the month of `date` begins.
    fn anchored(&self, date: Date) -> Date {
        let day = self.anchor_day.clamp(1, date.days_in_month());
        date.with().day(day).build().unwrap_or(date)
    }
}

/// A quota's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// Units in a period.
    pub limit: u64,
    /// When periods begin.
    pub calendar: Calendar,
    /// What happens beyond.
    pub on_exceeded: OnExceeded,
}

/// Units taken in the period that ends at wall time `ends_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    ends_at: u64,
    taken: u64,
    /// With `monthly`, the calendar that `ends_at` was computed by. A changed zone counts from the
    /// next period on.
    anchor_day: i8,
    monthly: bool,
    /// Boot time at which it was last touched.
    at: u64,
}

/// The end of a period that never ends.
const NEVER: u64 = u64::MAX;

impl Spent {
    pub(super) fn fresh(quota: &Quota, now: Now) -> Self {
        Self {
            ends_at: quota.calendar.ends_at(now.wall),
            taken: 0,
            anchor_day: quota.calendar.anchor_day,
            monthly: quota.calendar.period == Period::Month,
            at: now.boot,
        }
    }

    fn is_over(&self, now: Now) -> bool {
        now.wall >= self.ends_at && self.ends_at != NEVER
    }

    pub(super) fn is_fresh(&self, now: Now) -> bool {
        self.taken == 0 || self.is_over(now)
    }

    /// See [`super::State::shift_boot`].
    pub(super) fn shift_boot(&mut self, forward: i128) {
        self.at = shifted(self.at, forward);
    }
}

impl Algorithm<Quota> for Spent {
    fn advance(&mut self, quota: &Quota, since: u64, now: Now) {
        let same = self.anchor_day == quota.calendar.anchor_day
            && self.monthly == (quota.calendar.period == Period::Month);
        if !same {
            // What the period has spent at the change is spent in the new one too.
            let then = changed_at(since, self.at, now);
            let taken = if self.is_over(then) { 0 } else { self.taken };
            *self = Self { taken, ..Self::fresh(quota, then) };
        }
        if self.is_over(now) {
            *self = Self::fresh(quota, now);
        }
        self.at = self.at.max(now.boot);
    }

    fn judge(&self, quota: &Quota, cost: u64, now: Now) -> Outcome {
        if quota.on_exceeded == OnExceeded::Count || self.taken.saturating_add(cost) <= quota.limit
        {
            return Outcome::Pass;
        }
        if cost > quota.limit {
            return Outcome::Never;
        }
        Outcome::Wait(self.ends_at.saturating_sub(now.wall))
    }

    fn take(&mut self, _quota: &Quota, cost: u64, _now: Now) {
        self.taken = self.taken.saturating_add(cost);
    }

    fn remaining(&self, quota: &Quota, _now: Now) -> u64 {
        quota.limit.saturating_sub(self.taken)
    }

    fn reset_after(&self, _quota: &Quota, _taking: u64, now: Now) -> u64 {
        self.ends_at.saturating_sub(now.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    fn wall(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
    }

    fn calendar(period: Period, anchor_day: i8, zone: &str) -> Calendar {
        Calendar { period, anchor_day, zone: TimeZone::get(zone).unwrap() }
    }

    #[test]
    fn periods_end_where_the_calendar_says() {
        for (period, anchor, zone, now, end) in [
            (Period::Day, 1, "UTC", "2026-11-21T03:00:00Z", "2026-11-22T00:00:00Z"),
            (Period::Day, 1, "Asia/Tokyo", "2026-11-21T16:00:00Z", "2026-11-22T15:00:00Z"),
            (Period::Month, 1, "UTC", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            (Period::Month, 15, "UTC", "2026-11-14T23:00:00Z", "2026-11-15T00:00:00Z"),
            (Period::Month, 15, "UTC", "2026-11-15T00:00:00Z", "2026-12-15T00:00:00Z"),
            (Period::Month, 31, "UTC", "2027-02-27T12:00:00Z", "2027-02-28T00:00:00Z"),
            (Period::Month, 31, "UTC", "2028-02-28T12:00:00Z", "2028-02-29T00:00:00Z"),
            (Period::Month, 31, "UTC", "2027-02-28T12:00:00Z", "2027-03-31T00:00:00Z"),
            // The clocks of Berlin go forward on 28 March 2027, so that day has 23 hours.
            (Period::Day, 1, "Europe/Berlin", "2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z"),
        ] {
            let found = calendar(period, anchor, zone).ends_at(wall(now));
            assert_eq!(found, wall(end), "{period:?} anchored {anchor} in {zone} at {now}");
        }
    }

    #[test]
    fn a_quota_denies_to_the_end_of_its_period_or_counts_the_overage() {
        let deny = Quota {
            limit: 10,
            calendar: calendar(Period::Day, 1, "UTC"),
            on_exceeded: OnExceeded::Deny,
        };
        let count = Quota { on_exceeded: OnExceeded::Count, ..deny.clone() };
        let now = Now { boot: 0, wall: wall("2026-11-21T23:59:50Z") };
        let mut spent = Spent::fresh(&deny, now);
        spent.take(&deny, 8, now);
        assert_eq!(spent.judge(&deny, 3, now), Outcome::Wait(10 * SECOND));
        assert_eq!(spent.judge(&deny, 11, now), Outcome::Never);
        assert_eq!(spent.judge(&count, 3, now), Outcome::Pass);
        let later = Now { boot: 0, wall: wall("2026-11-22T00:00:00Z") };
        spent.advance(&deny, 0, later);
        assert_eq!(spent.remaining(&deny, later), 10);
    }

    #[test]
    fn spent_stays_spent_when_the_period_changes() {
        let daily = Quota {
            limit: 100,
            calendar: calendar(Period::Day, 1, "UTC"),
            on_exceeded: OnExceeded::Deny,
        };
        let monthly =
            Quota { limit: 200, calendar: calendar(Period::Month, 1, "UTC"), ..daily.clone() };
        let now = Now { boot: 0, wall: wall("2026-11-21T12:00:00Z") };
        let mut spent = Spent::fresh(&daily, now);
        spent.take(&daily, 60, now);
        spent.advance(&monthly, 0, now);
        assert_eq!(spent.remaining(&monthly, now), 140);
    }

    #[test]
    fn the_far_ends_of_time_are_no_trouble() {
        let day = calendar(Period::Day, 1, "UTC");
        assert_eq!(day.ends_at(0), 86_400 * SECOND);
        assert!(day.ends_at(u64::MAX) >= u64::MAX - 86_400 * SECOND);
    }
}
