//! How limits stand, as a node tells it: the one table that `check` and `tenant show` share.

use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;
use super::output::{Column, Output, span};

/// One limit in an answer. What is missing is shown as `-`, so that an older or newer node can
/// still be read.
#[derive(Deserialize)]
pub struct LimitState {
    name: String,
    #[serde(default)]
    scope: Vec<String>,
    #[serde(default)]
    algorithm: String,
    /// A number, or the word `unlimited`.
    #[serde(default)]
    limit: Value,
    window_ms: Option<u64>,
    remaining: Option<u64>,
    reset_after_ms: Option<u64>,
    #[serde(default)]
    mode: String,
    /// Only of a limit that denies nobody: whether it would have.
    would_deny: Option<bool>,
}

/// What a bucket is keyed by, in words.
pub fn scope_words(scope: &[String]) -> String {
    if scope.is_empty() { "everybody".into() } else { scope.join("+") }
}

/// Prints the table.
pub fn print(limits: &[LimitState], out: &mut Output<'_>) -> Result<(), Failure> {
    let columns = [
        Column::Left("LIMIT"),
        Column::Left("PER"),
        Column::Left("ALGORITHM"),
        Column::Right("LEFT"),
        Column::Right("OF"),
        Column::Right("WINDOW"),
        Column::Right("RESET"),
        Column::Left("MODE"),
    ];
    let rows: Vec<_> = limits.iter().map(row).collect();
    out.table(&columns, &rows)
}

fn row(limit: &LimitState) -> Vec<String> {
    let or_dash =
        |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    let of = match &limit.limit {
        Value::Null => None,
        Value::String(word) => Some(word.clone()),
        number => Some(number.to_string()),
    };
    let mode = match limit.would_deny {
        Some(true) => format!("{}, shadow: would deny", limit.mode),
        Some(false) => format!("{}, shadow", limit.mode),
        None => limit.mode.clone(),
    };
    vec![
        limit.name.clone(),
        scope_words(&limit.scope),
        or_dash(Some(limit.algorithm.clone())),
        or_dash(limit.remaining.map(|units| units.to_string())),
        or_dash(of),
        or_dash(limit.window_ms.map(span)),
        or_dash(limit.reset_after_ms.map(span)),
        or_dash(Some(mode)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_limit_says_so_and_what_is_missing_is_a_dash() {
        let cells = |json: &str| row(&serde_json::from_str(json).unwrap()).join("|");
        let shadow = r#"{"name":"m","scope":[],"algorithm":"gcra","limit":5,"remaining":0,"mode":"exact","would_deny":true}"#;
        assert_eq!(cells(shadow), "m|everybody|gcra|0|5|-|-|exact, shadow: would deny");
        assert_eq!(cells(r#"{"name":"m","limit":"unlimited"}"#), "m|everybody|-|-|unlimited|-|-|-");
    }
}
