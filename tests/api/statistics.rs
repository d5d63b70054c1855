//! Statistics and alerts: what was decided in the last hour, day and week, and on a date; kept over
//! a restart.

use serde_json::{Value, json};
use tidegate::clock::{Clock, SECOND, SystemClock};

use crate::support::{Node, Setup, node};

/// Ten an hour for everybody of `free`, and two addresses.
const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 10 }]
[tiers.pro]
limits = [{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = 1, window = "520w" }]
[tenants.globex]
tier = "pro"
[access.banned]
list = "deny"
tenant = "mallory"
"#;

fn stats(node: &Node, query: &str) -> Value {
    let answer = node.get(&format!("/v1/stats{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Sixteen checks: twelve of one tier, three of another, one by a list; ten and one of them pass.
fn ask_sixteen(node: &Node) {
    assert_eq!(node.allowed_of(12, json!({"tenant": "acme"})), 10);
    assert_eq!(node.allowed_of(3, json!({"tenant": "globex", "ip": "192.0.2.1"})), 1);
    node.check(json!({"tenant": "mallory"}));
}

fn expect_sixteen(summary: &Value) {
    assert_eq!(
        (&summary["total"], &summary["allowed"], &summary["blocked"], &summary["block_rate"]),
        (&json!(16), &json!(11), &json!(5), &json!(0.3125))
    );
    let free = json!({"total": 12, "allowed": 10, "blocked": 2, "block_rate": 2.0 / 12.0});
    let pro = json!({"total": 3, "allowed": 1, "blocked": 2, "block_rate": 2.0 / 3.0});
    assert_eq!(summary["by_tier"], json!({"free": free, "pro": pro}));
    assert_eq!(summary["by_list"], json!({"allow": 0, "deny": 1}));
    assert_eq!(summary["blocked_by_scope"], json!({"tenant": 3, "ip": 2}));
}

/// A date so many days from today, UTC.
fn date(days: i64) -> String {
    let wall =
        i128::from(SystemClock::new().now().wall) + i128::from(days) * 86_400 * i128::from(SECOND);
    jiff::Timestamp::from_nanosecond(wall).unwrap().to_string()[..10].to_string()
}

#[test]
fn every_period_counts_what_was_just_decided() {
    let node = node(POLICY);
    ask_sixteen(&node);
    let all = stats(&node, "");
    for period in ["1h", "24h", "7d"] {
        expect_sixteen(&all["periods"][period]);
        let one = stats(&node, &format!("?period={period}"));
        expect_sixteen(&one);
        assert_eq!(one["period"], period);
        assert!(one["from"].as_str() < one["to"].as_str(), "{one}");
    }
    expect_sixteen(&stats(&node, &format!("?date={}", date(0))));
}

#[test]
fn looks_repetitions_and_refusals_are_no_decisions() {
    let node = node(POLICY);
    for _ in 0..3 {
        node.check(json!({"tenant": "acme", "request_id": "r-1"}));
        node.peek(json!({"tenant": "acme"}));
        node.post("/v1/check", json!({"tenant": "acme", "tier": "none-such"})).problem(422);
    }
    assert_eq!(stats(&node, "?period=1h")["total"], 1);
}

#[test]
fn a_date_is_one_of_the_last_thirty_days_or_today() {
    let node = node(POLICY);
    assert_eq!(stats(&node, &format!("?date={}", date(-30)))["total"], 0);
    for days in [-31, -400, 2] {
        let path = format!("/v1/stats?date={}", date(days));
        assert_eq!(node.get(&path).fault_paths(422), ["date"], "{path}");
    }
    for (query, member) in [
        ("?date=yesterday", "date"),
        ("?date=2024-02-30", "date"),
        ("?period=2h", "period"),
        ("?period=1h&date=2024-02-01", "date"),
    ] {
        assert_eq!(node.get(&format!("/v1/stats{query}")).fault_paths(400), [member], "{query}");
    }
}

#[test]
fn a_graceful_stop_keeps_the_statistics_and_the_next_start_goes_on_from_them() {
    let node = node(POLICY);
    ask_sixteen(&node);
    let node = node.stop().start();
    for period in ["1h", "24h", "7d"] {
        expect_sixteen(&stats(&node, &format!("?period={period}")));
    }
    node.check(json!({"tenant": "hooli"}));
    assert_eq!(stats(&node, "?period=24h")["total"], 17);
    let node = node.stop().start();
    assert_eq!(stats(&node, "?period=7d")["total"], 17);
}

#[test]
fn a_file_of_statistics_that_cannot_be_read_keeps_no_node_from_serving() {
    let place = node(POLICY).stop();
    std::fs::write(place.file("data/n1/stats.redb"), b"nonsense").unwrap();
    let node = place.start();
    node.check(json!({"tenant": "acme"}));
    assert_eq!(stats(&node, "?period=1h")["total"], 1);
    assert!(node.stderr().contains("statistics won't outlast this process"), "{}", node.stderr());
}

fn alerts(node: &Node) -> Vec<(String, String)> {
    let document = node.get("/v1/alerts").json();
    let text = |alert: &Value, member: &str| alert[member].as_str().unwrap().to_string();
    let alerts = document["alerts"].as_array().unwrap();
    alerts.iter().map(|alert| (text(alert, "severity"), text(alert, "name"))).collect()
}

#[test]
fn a_share_of_denials_raises_an_alert_by_its_size() {
    let node = Setup::policy(POLICY).start();
    let block_rate = |severity: &str| vec![(severity.to_string(), "block_rate".to_string())];
    // Ten of 15 pass: a third is denied, but of too few.
    node.allowed_of(15, json!({"tenant": "a"}));
    assert_eq!(alerts(&node), []);
    // Twenty of 30.
    node.allowed_of(15, json!({"tenant": "b"}));
    assert_eq!(alerts(&node), block_rate("warning"));
    // Thirty of 61.
    node.allowed_of(31, json!({"tenant": "c"}));
    assert_eq!(alerts(&node), block_rate("critical"));
    let first = &node.get("/v1/alerts").json()["alerts"][0];
    assert_eq!((&first["threshold"], &first["value"]), (&json!(0.5), &json!(31.0 / 61.0)));
}

#[test]
fn the_calls_under_api_say_the_same() {
    let node = node(POLICY);
    ask_sixteen(&node);
    let answer = node.get("/api/stats");
    assert_eq!(answer.status, 200);
    expect_sixteen(&answer.json()["periods"]["1h"]);
    assert_eq!(node.get("/api/alerts").json()["alerts"], json!([]));
}
