//! Whether an answer is the one this benchmark pays for. A server that refuses, degrades, leaves
//! out a limit or has another node decide is fast or slow for the wrong reason, so such a run must
//! fail instead of counting.
//!
//! Reading every answer whole would cost the generator as much as the server spends. So the outcome
//! of a single check is looked up in every answer, and everything else in one answer of
//! `READ_EVERY`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::scenario::{Call, Tier};

/// A connection reads its first answer whole, and then every fiftieth: about 1 % of a generator's
/// time.
pub const READ_EVERY: u64 = 50;

/// How many decisions went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub allowed: u64,
    pub denied: u64,
    /// Of those whose answer was read whole: decided by the node that was asked.
    pub by_asked: u64,
    /// And by another one.
    pub by_other: u64,
}

impl Outcomes {
    pub fn count(&mut self, allowed: bool) {
        if allowed {
            self.allowed += 1;
        } else {
            self.denied += 1;
        }
    }

    pub fn add(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.by_asked += other.by_asked;
        self.by_other += other.by_other;
    }

    /// From 0 to 1; `None` if no decision was looked at.
    pub fn denied_share(self) -> Option<f64> {
        let all = self.allowed + self.denied;
        (all > 0).then(|| self.denied as f64 / all as f64)
    }

    /// The share of decisions that another node made than the one asked, from 0 to 1; `None` if no
    /// answer was read whole.
    pub fn forwarded_share(self) -> Option<f64> {
        let all = self.by_asked + self.by_other;
        (all > 0).then(|| self.by_other as f64 / all as f64)
    }
}

/// What is wrong with an answer.
#[derive(Debug)]
pub enum AnswerError {
    Unreadable(serde_json::Error),
    NoOutcome,
    Decisions { expected: usize, actual: usize },
    Limits { expected: usize, actual: usize },
    Mode(String),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(_) => f.write_str("an answer is not the JSON of a decision"),
            Self::NoOutcome => f.write_str("an answer has no \"allowed\""),
            Self::Decisions { expected, actual } => {
                write!(f, "{actual} decisions came back for {expected} checks")
            }
            Self::Limits { expected, actual } => {
                write!(f, "a decision lists {actual} limits, the tier has {expected}")
            }
            Self::Mode(mode) => {
                write!(f, "a decision's mode is {mode:?}: only exact decisions can be compared")
            }
        }
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(cause) => Some(cause),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Decision<'a> {
    allowed: bool,
    #[serde(borrow)]
    mode: Cow<'a, str>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    limits: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Decisions<'a> {
    #[serde(borrow)]
    decisions: Vec<Decision<'a>>,
}

/// Reads an answer of the node `asked` whole, and holds it against what was asked.
pub fn read(body: &[u8], call: Call, tier: Tier, asked: &str) -> Result<Outcomes, AnswerError> {
    let decisions = match call {
        Call::Peek | Call::Single => {
            vec![serde_json::from_slice(body).map_err(AnswerError::Unreadable)?]
        }
        Call::Batch(_) => {
            let batch: Decisions<'_> =
                serde_json::from_slice(body).map_err(AnswerError::Unreadable)?;
            batch.decisions
        }
    };
    if decisions.len() != call.checks() {
        return Err(AnswerError::Decisions { expected: call.checks(), actual: decisions.len() });
    }
    let mut outcomes = Outcomes::default();
    for decision in decisions {
        if decision.mode != "exact" {
            return Err(AnswerError::Mode(decision.mode.into_owned()));
        }
        if decision.limits.len() != tier.limits() {
            return Err(AnswerError::Limits {
                expected: tier.limits(),
                actual: decision.limits.len(),
            });
        }
        outcomes.count(decision.allowed);
        if decision.node == asked {
            outcomes.by_asked += 1;
        } else {
            outcomes.by_other += 1;
        }
    }
    Ok(outcomes)
}

/// The node that decided a single check.
pub fn decider(body: &[u8]) -> Result<String, AnswerError> {
    let decision: Decision<'_> = serde_json::from_slice(body).map_err(AnswerError::Unreadable)?;
    Ok(decision.node.into_owned())
}

/// The outcome of a single check without reading the rest; at once where it is the first member, as
/// it usually is.
pub fn glance(body: &[u8]) -> Result<bool, AnswerError> {
    const MEMBER: &[u8] = br#""allowed":"#;
    let at = body
        .windows(MEMBER.len())
        .position(|window| window == MEMBER)
        .ok_or(AnswerError::NoOutcome)?;
    match &body[at + MEMBER.len()..] {
        [b't', ..] => Ok(true),
        [b'f', ..] => Ok(false),
        _ => Err(AnswerError::NoOutcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &str =
        r#"{"allowed":true,"tenant":"t","limits":[{"name":"second"}],"mode":"exact","node":"n1"}"#;

    #[test]
    fn the_outcome_is_found_wherever_it_stands() {
        assert!(glance(ALLOWED.as_bytes()).unwrap());
        assert!(!glance(br#"{"tenant":"t","allowed":false}"#).unwrap());
        for body in [&b"{}"[..], br#"{"allowed":"#, br#"{"allowed":null}"#] {
            assert!(glance(body).is_err());
        }
    }

    #[test]
    fn a_whole_answer_counts_its_outcome() {
        let outcomes = read(ALLOWED.as_bytes(), Call::Single, Tier::One, "n1").unwrap();
        assert_eq!(outcomes, Outcomes { allowed: 1, by_asked: 1, ..Outcomes::default() });
        assert_eq!((outcomes.denied_share(), outcomes.forwarded_share()), (Some(0.0), Some(0.0)));
        assert_eq!(decider(ALLOWED.as_bytes()).unwrap(), "n1");
    }

    #[test]
    fn a_batch_counts_every_decision() {
        let denied = ALLOWED.replace("true", "false");
        let denied = denied.replace("n1", "n2");
        let body = format!(r#"{{"allowed":false,"decisions":[{ALLOWED},{denied}]}}"#);
        let outcomes = read(body.as_bytes(), Call::Batch(2), Tier::One, "n1").unwrap();
        assert_eq!(outcomes, Outcomes { allowed: 1, denied: 1, by_asked: 1, by_other: 1 });
        assert_eq!((outcomes.denied_share(), outcomes.forwarded_share()), (Some(0.5), Some(0.5)));
        let error = read(body.as_bytes(), Call::Batch(3), Tier::One, "n1").unwrap_err();
        assert_eq!(error.to_string(), "2 decisions came back for 3 checks");
    }

    #[test]
    fn an_answer_with_less_than_was_asked_for_is_an_error() {
        let error = read(ALLOWED.as_bytes(), Call::Single, Tier::Two, "n1").unwrap_err();
        assert_eq!(error.to_string(), "a decision lists 1 limits, the tier has 2");
        let approximate = ALLOWED.replace("exact", "approximate");
        let error = read(approximate.as_bytes(), Call::Single, Tier::One, "n1").unwrap_err();
        assert!(error.to_string().contains("\"approximate\""), "{error}");
    }
}
