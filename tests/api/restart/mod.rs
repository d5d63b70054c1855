//! A node that stops finishes what it accepted and remembers what was spent; one that can't start
//! says why.

mod files;
mod start;
mod stop;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Home, Node};

/// Limits that give nothing back while a test runs.
const POLICY: &str = r#"
default_tier = "bucket"

[[limits]]
name = "global"
per = []
match = { action = "everybody" }
algorithm = "token_bucket"
rate = "1/h"
burst = 5

[[limits]]
name = "per-ip"
per = ["ip"]
algorithm = "sliding_log"
limit = 5
window = "1h"

[tiers.bucket]
limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 5 }]
[tiers.leak]
limits = [{ name = "rate", algorithm = "leaky_bucket", rate = "1/h", burst = 5 }]
[tiers.fixed]
limits = [{ name = "rate", algorithm = "fixed_window", limit = 5, window = "520w" }]
[tiers.sliding]
limits = [{ name = "rate", algorithm = "sliding_window", limit = 5, window = "520w" }]
[tiers.log]
limits = [{ name = "rate", algorithm = "sliding_log", limit = 5, window = "1h" }]
[tiers.quota]
limits = [{ name = "rate", algorithm = "quota", limit = 5, period = "month" }]
[tiers.slots]
max_concurrent = 1
[tiers.clients]
limits = [{ name = "rate", per = ["tenant", "client"], algorithm = "token_bucket", rate = "1/h", burst = 5 }]
[tiers.free]

[tenants.named]
tier = "log"
"#;
const CHECK: &str = r#"{"tenant":"t","tier":"log"}"#;

/// One check for each kind of state that a stop has to keep; each allows five.
fn kinds() -> Vec<Value> {
    let mut kinds: Vec<_> = ["bucket", "leak", "fixed", "sliding", "log", "quota"]
        .iter()
        .map(|tier| json!({"tenant": format!("t-{tier}"), "tier": tier}))
        .collect();
    kinds.extend([
        json!({"tenant": "named"}),
        json!({"tenant": "t-clients", "tier": "clients", "client": "one"}),
        json!({"tenant": "anonymous", "ip": "203.0.113.9"}),
        json!({"tenant": "t-global", "tier": "free", "action": "everybody"}),
        json!({"tenant": "t-ip", "tier": "free", "ip": "2001:db8::9"}),
        json!({"tenant": "t-brought", "limits":
            [{"name": "own", "algorithm": "token_bucket", "rate": "1/h", "burst": 5}]}),
    ]);
    kinds
}

fn allowed(node: &Node, check: &Value) -> bool {
    node.check(check.to_string())["allowed"].as_bool().unwrap()
}

#[test]
fn what_was_spent_before_a_restart_is_still_spent_after_it() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    for kind in kinds() {
        for i in 0..3 {
            assert!(allowed(&node, &kind), "{kind} {i}");
        }
    }
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(home.path("data/counts.state").exists());

    let node = home.start();
    // Loaded is gone: no second process could load it too.
    assert!(!home.path("data/counts.state").exists());
    for kind in kinds() {
        let left: Vec<_> = (0..4).map(|_| allowed(&node, &kind)).collect();
        assert_eq!(left, [true, true, false, false], "{kind}");
    }
    // And once more, from counts that were loaded themselves.
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let node = home.start();
    for kind in kinds() {
        assert!(!allowed(&node, &kind), "{kind}");
    }
}

#[test]
fn a_request_id_is_charged_once_also_over_a_restart() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let check = json!({"tenant": "t", "cost": 2, "request_id": "r-1"});
    let mut first = node.check(check.to_string());
    assert_eq!((&first["replayed"], &first["remaining"]), (&json!(false), &json!(3)));
    node.stop();

    let node = home.start();
    first["replayed"] = json!(true);
    assert_eq!(node.check(check.to_string()), first);
    assert_eq!(node.check(json!({"tenant": "t"}).to_string())["remaining"], 2);
}

#[test]
fn a_permit_outlives_a_restart_and_is_released_after_it() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let check = json!({"tenant": "t", "tier": "slots", "permit": {"ttl_ms": 300_000}});
    let permit = node.check(check.to_string())["permit"]["id"].clone();
    let permit = format!("/v1/permits/{}", permit.as_str().unwrap());
    node.stop();

    let node = home.start();
    assert_eq!(node.check(check.to_string())["denied_by"]["reason"], "concurrency");
    assert_eq!(node.call("POST", &format!("{permit}/renew"), "").status, 200);
    assert_eq!(node.call("DELETE", &permit, "").status, 204);
    assert!(allowed(&node, &check));
}

#[test]
fn a_killed_node_starts_again_with_every_change_of_the_policy_that_was_answered() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let limit = json!({"algorithm": "token_bucket", "rate": "1/h", "burst": 2});
    for i in 1..=20 {
        let answer = node.call("PUT", &format!("/v1/tenants/t{i}/limits/own"), limit.to_string());
        assert_eq!(answer.json()["version"], 1 + i);
    }
    let before = node.call("GET", "/v1/policy", "");
    let mut process = node.process;
    process.signal(Signal::KILL);
    assert_eq!(process.end().code(), None);

    let node = home.start();
    let after = node.call("GET", "/v1/policy", "");
    assert_eq!(after.header("etag"), Some("\"21\""));
    assert_eq!(after.body, before.body);
    let check = json!({"tenant": "t20"});
    let left: Vec<_> = (0..3).map(|_| allowed(&node, &check)).collect();
    assert_eq!(left, [true, true, false]);
}

#[test]
fn a_change_of_the_file_changes_nothing_after_the_first_start() {
    let home = Home::new(POLICY, "");
    home.start().stop();
    home.write("policy.toml", b"no policy at all");
    let node = home.start();
    assert_eq!(node.call("GET", "/v1/policy", "").header("etag"), Some("\"1\""));
}
