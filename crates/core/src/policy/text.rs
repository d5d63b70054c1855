//! The little languages inside the document's strings: durations, rates, decimals, instants.
//!
//! Each has a parser, a printer that writes what the parser reads, and a phrase that says what is
//! expected.

use std::fmt;

use jiff::Timestamp;

use crate::limit::{Rate, UNITS_MAX, WINDOW_MAX};
use crate::time::{MS, SECOND};

/// What a duration looks like.
pub const DURATION: &str = "a duration: a whole number and ms, s, m, h, d or w, at most ten years";
pub const RATE: &str = "a rate: a whole number per unit or duration, such as 5/s, 10/m or 1/10s";
pub const DECIMAL: &str = "a decimal above 0 and up to 1000000, of at most six places, as a string";
pub const INSTANT: &str = "an instant, such as 2027-01-01T00:00:00Z";

const UNITS: [(&str, u64); 6] = [
    ("w", 7 * 86_400 * SECOND),
    ("d", 86_400 * SECOND),
    ("h", 3_600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", MS),
];

/// Nanoseconds of `1m`, `500ms`, `2w`; never 0.
pub fn parse_duration(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*nanos).filter(|nanos| (1..=WINDOW_MAX).contains(nanos))
}

/// The duration in the largest unit that divides it.
pub fn print_duration(nanos: u64) -> String {
    let (name, unit) =
        UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(*unit)).unwrap_or(&("ms", MS));
    format!("{}{name}", nanos / unit)
}

/// `5/s`, `10/m`, `1/10s`.
pub fn parse_rate(text: &str) -> Option<Rate> {
    let (count, period) = text.split_once('/')?;
    if !count.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let period = UNITS.iter().find(|(name, _)| *name == period).map(|(_, nanos)| *nanos);
    let period = period.or_else(|| parse_duration(text.split_once('/')?.1))?;
    Rate::new(count.parse().ok().filter(|count| *count <= UNITS_MAX)?, period)
}

/// The rate as it was written.
pub fn print_rate(rate: &Rate) -> String {
    match UNITS.iter().find(|(_, nanos)| *nanos == rate.period()) {
        Some((name, _)) => format!("{}/{name}", rate.count()),
        None => format!("{}/{}", rate.count(), print_duration(rate.period())),
    }
}

/// An instant in wall nanoseconds.
pub fn parse_instant(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

/// The instant in RFC 3339, UTC.
pub fn print_instant(wall: u64) -> String {
    Timestamp::from_nanosecond(i128::from(wall))
        .map_or_else(|_| wall.to_string(), |t| t.to_string())
}

/// A positive decimal of at most six places, exact: its value times 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(u64);

impl Decimal {
    /// One.
    pub const ONE: Self = Self(1_000_000);
    /// What a decimal is a multiple of: a millionth.
    pub const SCALE: u64 = 1_000_000;

    /// Parses `0.5`, `2`, `1.25`.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(places) || places.len() > 6 || whole.len() > 7 {
            return None;
        }
        let value = whole.parse::<u64>().ok()? * Self::SCALE
            + format!("{places:0<6}").parse::<u64>().ok()?;
        (1..=1_000_000 * Self::SCALE).contains(&value).then_some(Self(value))
    }

    /// The value in millionths.
    pub fn millionths(self) -> u64 {
        self.0
    }

    /// `units` times this, exact, rounded up, at least 1.
    pub fn times_up(self, units: u64) -> u64 {
        let product = (u128::from(units) * u128::from(self.0)).div_ceil(u128::from(Self::SCALE));
        u64::try_from(product).unwrap_or(u64::MAX).max(1)
    }

    /// `units` times this, exact, rounded down, at least 1.
    pub fn times_down(self, units: u64) -> u64 {
        let product = u128::from(units) * u128::from(self.0) / u128::from(Self::SCALE);
        u64::try_from(product).unwrap_or(u64::MAX).clamp(1, UNITS_MAX)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, places) = (self.0 / Self::SCALE, self.0 % Self::SCALE);
        if places == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{places:06}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_read_back_as_they_print() {
        for text in ["1ms", "1500ms", "1s", "90s", "1m", "1h", "1d", "2w", "3660d"] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["5/s", "10/m", "1/10s", "100000/d", "1/1500ms", "10000000/s"] {
            assert_eq!(print_rate(&parse_rate(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_duration_rate_or_decimal_is_refused() {
        for text in [
            "",
            "5",
            "5 mins",
            "5mins",
            "-1s",
            "0s",
            "1.5s",
            "s",
            "4000d",
            "99999999999999999999s",
            "1M",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in [
            "",
            "/s",
            "5",
            "5/",
            "0/s",
            "-5/s",
            "5/0s",
            "+5/s",
            "1.5/s",
            "5/s/s",
            "9999999999999999/s",
        ] {
            assert_eq!(parse_rate(text), None, "{text}");
        }
        for text in ["", ".5", "5.", "-1", "0", "0.0000001", "1e3", "1000001", "NaN", "1.2.3", "+1"]
        {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_decimal_multiplies_exactly() {
        let of = |text| Decimal::parse(text).unwrap();
        assert_eq!(of("0.1").times_up(30), 3);
        assert_eq!(of("0.1").times_up(31), 4);
        assert_eq!(of("0.000001").times_up(1), 1);
        assert_eq!(of("0.5").times_down(5), 2);
        assert_eq!(of("0.5").times_down(1), 1);
        assert_eq!(of("1.250").to_string(), "1.25");
    }
}
