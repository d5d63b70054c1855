//! What went wrong, in words and as an exit code.
//!
//! A problem document (RFC 9457) becomes a line that sums it up and one for each fault:
//!
//! ```text
//! error: Unprocessable Entity (HTTP 422)
//!   tiers.pro.limits[1].window: "5 mins" is not a duration: a whole number and ms, s, m, h, d or w
//! ```

use std::fmt;

use tidegate::input::Fault;
use ureq::http;

use super::Exit;
use super::output::plain;

/// What is shown of an answer that is no problem document, in characters.
const STRANGE_ANSWER_CHARS_MAX: usize = 200;

/// Why a command didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A value on the line can't be used.
    #[error("{0}")]
    Usage(String),
    /// Something here, or an answer that makes no sense.
    #[error("{0}")]
    Failed(String),
    /// No node answered.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It could be done, and would cost what can't be had back.
    #[error("{0}")]
    Unsafe(String),
    /// The node refused.
    #[error("{0}")]
    Problem(Problem),
}

/// What is wrong with something, and below it each fault on a line of its own.
pub fn listed(what: &str, faults: &[Fault]) -> String {
    let faults: Vec<_> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
    format!("{what}{}", faults.concat())
}

impl Failure {
    /// The command's exit.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Failed(_) => Exit::Failed,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::Unsafe(_) => Exit::Unsafe,
            // Of all refusals only this one says that the request was fine and its consequences
            // were not.
            Self::Problem(problem) if problem.status == http::StatusCode::CONFLICT => Exit::Unsafe,
            Self::Problem(_) => Exit::Failed,
        }
    }

    /// Whether it may be over in a moment: nobody answered, or whoever did can't at the moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Problem(problem) => problem.status == http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Usage(_) | Self::Failed(_) | Self::Unsafe(_) => false,
        }
    }

    /// Whether the cluster didn't find the node that asks to be admitted at its address. A node
    /// there that speaks plain text to a cluster with TLS will not be found later either.
    pub fn is_not_found_at_its_address(&self) -> bool {
        let Self::Problem(problem) = self else { return false };
        let mut faults = problem.faults.iter().filter(|fault| fault.starts_with("peer: "));
        faults.any(|fault| {
            fault.contains("does not answer at") && !fault.contains("this cluster uses TLS")
        })
    }

    /// Whether it is about a state that has changed since it was read.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.status == http::StatusCode::PRECONDITION_FAILED)
    }
}

/// A refusal, as far as the node explained it.
#[derive(Debug)]
pub struct Problem {
    status: http::StatusCode,
    summary: String,
    faults: Vec<String>,
    hints: Vec<String>,
}

/// The members of a problem document that are for people.
#[derive(serde::Deserialize)]
struct ProblemDocument {
    title: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<ProblemFault>,
}

#[derive(serde::Deserialize)]
struct ProblemFault {
    #[serde(default)]
    path: String,
    #[serde(default)]
    detail: String,
}

impl Problem {
    /// What a body says of a refusal with this status.
    pub fn read(status: http::StatusCode, text: &str) -> Self {
        let reason = status.canonical_reason().unwrap_or("Refused");
        let (parts, faults) = match serde_json::from_str::<ProblemDocument>(text) {
            Ok(problem) => {
                let faults: Vec<_> = problem.errors.into_iter().map(ProblemFault::line).collect();
                // A detail that begins with the first fault only says again what stands below it.
                let said =
                    |detail: &String| faults.first().is_some_and(|first| detail.starts_with(first));
                let detail = problem.detail.filter(|detail| !said(detail));
                (
                    vec![
                        problem.title.unwrap_or_else(|| reason.into()),
                        detail.unwrap_or_default(),
                    ],
                    faults,
                )
            }
            Err(_) => {
                let first = text.trim().lines().next().unwrap_or_default();
                let first = first.chars().take(STRANGE_ANSWER_CHARS_MAX).collect();
                (vec![reason.into(), first], Vec::new())
            }
        };
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Self { status, summary: parts.join(": "), faults, hints: Vec::new() }
    }

    /// Adds what to do about it.
    pub fn hint(&mut self, text: impl Into<String>) {
        self.hints.push(text.into());
    }
}

impl ProblemFault {
    fn line(self) -> String {
        if self.path.is_empty() { self.detail } else { format!("{}: {}", self.path, self.detail) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP {})", plain(&self.summary), self.status.as_u16())?;
        let lines = self.faults.iter().chain(&self.hints).flat_map(|text| text.lines());
        lines.into_iter().try_for_each(|line| write!(f, "\n  {}", plain(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: u16, body: &str) -> String {
        Problem::read(http::StatusCode::from_u16(status).unwrap(), body).to_string()
    }

    #[test]
    fn a_problem_reads_as_its_title_its_detail_and_a_line_for_each_fault() {
        let body = r#"{"type":"urn:x","title":"Unprocessable","detail":"2 faults","status":422,
            "errors":[{"path":"tiers.a","detail":"is odd"},{"path":"","detail":"is\u001b[2Jempty"}]}"#;
        assert_eq!(
            shown(422, body),
            "Unprocessable: 2 faults (HTTP 422)\n  tiers.a: is odd\n  is\u{fffd}[2Jempty"
        );
    }

    #[test]
    fn a_detail_that_repeats_the_first_fault_is_left_out() {
        let body = r#"{"title":"Bad Request","detail":"cost: is odd (and 1 more)",
            "errors":[{"path":"cost","detail":"is odd"},{"path":"ip","detail":"is bad"}]}"#;
        assert_eq!(shown(400, body), "Bad Request (HTTP 400)\n  cost: is odd\n  ip: is bad");
    }

    #[test]
    fn a_fault_of_several_lines_keeps_them() {
        let body = r#"{"title":"Bad Request","detail":"not TOML: at line 2\n2 | b","errors":[{"path":"","detail":"not TOML: at line 2\n2 | b"}]}"#;
        assert_eq!(shown(400, body), "Bad Request (HTTP 400)\n  not TOML: at line 2\n  2 | b");
    }

    #[test]
    fn what_is_no_problem_document_shows_its_status_and_its_first_line() {
        assert_eq!(shown(502, "<html>\nbad gateway"), "Bad Gateway: <html> (HTTP 502)");
        assert_eq!(shown(500, ""), "Internal Server Error (HTTP 500)");
        assert_eq!(shown(599, "{}"), "Refused (HTTP 599)");
    }
}
