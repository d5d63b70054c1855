//! Alerts: what an operator should look at, from the statistics of the last hour (O3).
//!
//! They are judged whenever somebody asks; nothing is sent from here. Prometheus does that better,
//! by the same numbers.

use std::fmt;

use super::statistics::Slice;

/// Above this share of denials somebody should look, in percent.
pub const BLOCK_RATE_WARNING_PERCENT: u64 = 30;
/// Above this one, now.
pub const BLOCK_RATE_CRITICAL_PERCENT: u64 = 50;
/// Fewer checks than this say nothing about a share.
pub const CHECKS_MIN: u64 = 20;
/// Above so many checks in an hour, it is worth knowing.
pub const VOLUME_INFO: u64 = 100_000;

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Should be looked at.
    Warning,
    /// Now.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// How urgent it is.
    pub severity: Severity,
    /// What it is about: `block_rate`, `volume` or `kill_switch`.
    pub name: &'static str,
    /// In words.
    pub detail: String,
    /// What was measured: a share from 0 to 1, checks, or 1 for a kill switch that is thrown.
    pub value: f64,
    /// What it is above of.
    pub threshold: f64,
}

/// The alerts of an hour, and whether limits deny now (`enforce`).
pub fn alerts(hour: &Slice, enforce: bool) -> Vec<Alert> {
    let mut alerts = Vec::new();
    if !enforce {
        alerts.push(Alert {
            severity: Severity::Warning,
            name: "kill_switch",
            detail: "the kill switch is thrown: limits are judged and reported, and none denies"
                .into(),
            value: 1.0,
            threshold: 0.0,
        });
    }
    let (total, denied) = (hour.decisions.total(), hour.decisions.denied);
    let above = |percent: u64| u128::from(denied) * 100 > u128::from(total) * u128::from(percent);
    let levels = [
        (BLOCK_RATE_CRITICAL_PERCENT, Severity::Critical),
        (BLOCK_RATE_WARNING_PERCENT, Severity::Warning),
    ];
    let level = levels.into_iter().find(|(percent, _)| total >= CHECKS_MIN && above(*percent));
    if let Some((percent, severity)) = level {
        alerts.push(Alert {
            severity,
            name: "block_rate",
            detail: format!(
                "{denied} of {total} checks in the last hour were denied: more than {percent} %"
            ),
            value: hour.block_rate(),
            threshold: percent as f64 / 100.0,
        });
    }
    if total > VOLUME_INFO {
        alerts.push(Alert {
            severity: Severity::Info,
            name: "volume",
            detail: format!("{total} checks in the last hour: more than {VOLUME_INFO}"),
            value: total as f64,
            threshold: VOLUME_INFO as f64,
        });
    }
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Outcomes;

    fn of(allowed: u64, denied: u64) -> Vec<(Severity, &'static str)> {
        let slice = Slice { decisions: Outcomes { allowed, denied }, ..Slice::default() };
        alerts(&slice, true).into_iter().map(|alert| (alert.severity, alert.name)).collect()
    }

    #[test]
    fn a_share_of_denials_above_thirty_percent_warns_and_above_fifty_is_critical() {
        use Severity::{Critical, Warning};
        for (allowed, denied, expected) in [
            (0, 0, vec![]),
            (100, 0, vec![]),
            (70, 30, vec![]),
            (69, 31, vec![(Warning, "block_rate")]),
            (50, 50, vec![(Warning, "block_rate")]),
            (49, 51, vec![(Critical, "block_rate")]),
            (0, CHECKS_MIN, vec![(Critical, "block_rate")]),
            (0, CHECKS_MIN - 1, vec![]),
        ] {
            assert_eq!(of(allowed, denied), expected, "{allowed} and {denied}");
        }
    }

    #[test]
    fn a_kill_switch_that_is_thrown_is_a_warning() {
        let alerts = alerts(&Slice::default(), false);
        let said: Vec<_> = alerts.iter().map(|alert| (alert.severity, alert.name)).collect();
        assert_eq!(said, [(Severity::Warning, "kill_switch")]);
    }

    #[test]
    fn a_hundred_thousand_checks_an_hour_are_nothing_and_one_more_is_worth_knowing() {
        assert_eq!(of(100_000, 0), []);
        assert_eq!(of(100_001, 0), [(Severity::Info, "volume")]);
        assert_eq!(
            of(1, 100_000),
            [(Severity::Critical, "block_rate"), (Severity::Info, "volume")]
        );
    }
}
