//! `POST /v1/check`: what an answer holds, and which limits, tiers, lists and costs decide it.
//!
//! Buckets here refill once an hour or slower, so that no number depends on how long a test takes.

mod answer;
mod buckets;
mod faults;
mod limits;
mod tiers;

use serde_json::Value;

/// Ten at once and a hundred an hour.
const BURST_AND_HOUR: &str = r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "burst", algorithm = "token_bucket", rate = "1/h", burst = 10 },
  { name = "hour", algorithm = "sliding_log", limit = 100, window = "1h" },
]
"#;

fn names(decision: &Value) -> Vec<&str> {
    let limits = decision["limits"].as_array().unwrap();
    limits.iter().map(|limit| limit["name"].as_str().unwrap()).collect()
}
