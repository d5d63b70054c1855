//! The calendar, counted out on the fingers: every day from 1970 on, one after the other.
//!
//! Berlin's clocks go forward on the last Sunday of March and back on the last of October, both at
//! 01:00 UTC (so since 1996; no schedule begins before 2000). At midnight, that Sunday is still as
//! the day before.

use std::sync::LazyLock;

use super::schedule::DAY;
use crate::limit::{Calendar, Period};
use crate::time::SECOND;

struct Day {
    month: u64,
    day: u64,
    days_in_month: u64,
    /// 0 is Sunday.
    weekday: u64,
}

/// 1 January 1970, a Thursday, and every day after it until 2600.
static DAYS: LazyLock<Vec<Day>> = LazyLock::new(|| {
    let mut days = Vec::new();
    for year in 1970..2600 {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (month, days_in_month) in (1..).zip(lengths) {
            for day in 1..=days_in_month {
                days.push(Day { month, day, days_in_month, weekday: (4 + days.len() as u64) % 7 });
            }
        }
    }
    days
});

impl Day {
    /// Hours by which a zone is ahead of UTC when this day begins.
    fn hours_ahead(&self, zone: &str) -> u64 {
        let last_sunday_is_behind = || {
            let weekday_of_31st = (self.weekday + 31 - self.day) % 7;
            self.day > 31 - weekday_of_31st
        };
        match (zone, self.month) {
            ("UTC", _) => 0,
            ("Europe/Berlin", 4..=9) => 2,
            ("Europe/Berlin", 3) if last_sunday_is_behind() => 2,
            ("Europe/Berlin", 10) if !last_sunday_is_behind() => 2,
            ("Europe/Berlin", _) => 1,
            _ => panic!("the model does not know {zone}"),
        }
    }

    fn begins_a_period(&self, calendar: &Calendar) -> bool {
        match calendar.period {
            Period::Day => true,
            Period::Month => {
                self.day == u64::from(calendar.anchor_day.unsigned_abs()).min(self.days_in_month)
            }
        }
    }
}

/// The wall time at which the period began that `wall` lies in.
pub fn period_start(calendar: &Calendar, wall: u64) -> u64 {
    let zone = calendar.zone.iana_name().expect("the model's zones have names");
    let begins =
        |number: u64| number * DAY - DAYS[number as usize].hours_ahead(zone) * 3_600 * SECOND;
    // No zone of the model is behind UTC or a day ahead of it.
    let mut number = wall / DAY + 1;
    while begins(number) > wall || !DAYS[number as usize].begins_a_period(calendar) {
        number -= 1;
    }
    begins(number)
}
