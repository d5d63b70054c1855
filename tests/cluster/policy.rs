//! A policy that is written anywhere is in force everywhere.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tidegate::clock::{Clock, SECOND, SystemClock};

use crate::harness::{Cluster, HUNDRED_A_DAY};
use crate::rig::{Wire, until};

fn tier(limit: u64) -> Value {
    let day = json!({"name": "day", "algorithm": "fixed_window", "limit": limit, "per": ["tenant"], "window": "1d"});
    json!({"limits": [day]})
}

#[test]
fn a_write_through_any_node_is_in_force_through_all_as_soon_as_it_is_answered() {
    let cluster = Cluster::start(3, HUNDRED_A_DAY);
    for round in 0..30 {
        let (writer, limit) = (round % 3, 200 + round as u64);
        let answer = cluster.call(writer, "PUT", "/v1/tiers/free", tier(limit));
        let said = answer.json();
        assert_eq!((answer.status, &said["pending"]), (200, &json!([])), "{said}");
        assert_eq!(
            answer.header("etag"),
            Some(format!("{:?}", said["version"].to_string()).as_str())
        );
        for through in 0..3 {
            let decision = cluster.check(through, json!({"tenant": format!("t{round}-{through}")}));
            assert_eq!(
                (&decision["limit"], &decision["policy_version"]),
                (&json!(limit), &said["version"])
            );
            assert_eq!(cluster.get(through, "/v1/policy")["tiers"]["free"], tier(limit));
        }
    }
}

#[test]
fn a_write_for_another_version_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(3, HUNDRED_A_DAY);
    let put = |i: usize, tag: &str, limit| {
        let mut wire = cluster.node(i).connect();
        let body = tier(limit).to_string();
        wire.call("PUT", "/v1/tiers/free", &[("if-match", tag)], body.as_bytes()).status
    };
    assert_eq!(put(0, "\"1\"", 101), 200);
    assert_eq!([put(1, "\"1\"", 102), put(2, "\"1\"", 103)], [412, 412]);
    assert_eq!(put(2, "\"2\"", 104), 200);
    assert!((0..3).all(|i| cluster.get(i, "/v1/policy")["tiers"]["free"] == tier(104)));
}

#[test]
fn of_a_thousand_edits_with_preconditions_none_is_lost() {
    let cluster = Cluster::start(3, HUNDRED_A_DAY);
    const EDITS: usize = 1_000;
    let (next, tried) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for caller in 0..12 {
            let (next, tried) = (&next, &tried);
            let mut wire: Wire = cluster.node(caller % 3).connect();
            scope.spawn(move || {
                loop {
                    let edit = next.fetch_add(1, Ordering::Relaxed);
                    if edit >= EDITS {
                        return;
                    }
                    let path = format!("/v1/tenants/e{edit}");
                    loop {
                        let current = wire.call("GET", "/v1/tiers/free", &[], b"");
                        let tag = current.header("etag").unwrap().to_string();
                        let answer =
                            wire.call("PUT", &path, &[("if-match", &tag)], br#"{"tier":"free"}"#);
                        tried.fetch_add(1, Ordering::Relaxed);
                        match answer.status {
                            200 => break,
                            412 => {}
                            other => panic!("{other}: {}", answer.text()),
                        }
                    }
                }
            });
        }
    });
    // Each that was answered made a version of its own, and is there.
    let policies: Vec<_> = (0..3).map(|i| cluster.get(i, "/v1/policy")).collect();
    assert_eq!(policies[0]["tenants"].as_object().unwrap().len(), EDITS);
    assert!(policies.iter().all(|policy| *policy == policies[0]));
    let version = cluster.call(0, "GET", "/v1/policy", Value::Null);
    assert_eq!(version.header("etag"), Some(format!("\"{}\"", EDITS + 1).as_str()));
    assert!(tried.into_inner() >= EDITS);
}

#[test]
fn a_rollback_restores_the_old_numbers_through_all_nodes_and_spent_stays_spent() {
    let cluster = Cluster::start(3, HUNDRED_A_DAY);
    assert_eq!(cluster.check(0, json!({"tenant": "acme", "cost": 60}))["remaining"], 40);
    assert_eq!(cluster.call(1, "PUT", "/v1/tiers/free", tier(500)).status, 200);
    assert_eq!(cluster.check(2, json!({"tenant": "acme"}))["remaining"], 439);
    let back = cluster.call(2, "POST", "/v1/policy/rollback", json!({"version": 1}));
    assert_eq!((back.status, &back.json()["version"]), (200, &json!(3)), "{}", back.text());
    for i in 0..3 {
        let decision = cluster.check(i, json!({"tenant": "acme"}));
        assert_eq!((&decision["limit"], &decision["policy_version"]), (&json!(100), &json!(3)));
    }
    let history = cluster.get(0, "/v1/policy/history");
    let versions: Vec<_> =
        history["versions"].as_array().unwrap().iter().map(|v| v["version"].clone()).collect();
    assert_eq!(versions, [3, 2], "{history}");
    assert_eq!(cluster.get(1, "/v1/audit"), cluster.get(2, "/v1/audit"));
}

#[test]
fn lists_that_are_changed_anywhere_decide_everywhere() {
    let cluster = Cluster::start(3, HUNDRED_A_DAY);
    let entry = json!({"list": "deny", "ip": "198.51.100.0/24", "reason": "scraping"});
    let added = cluster.call(1, "POST", "/v1/access", entry);
    assert_eq!(added.status, 201, "{}", added.text());
    let asked = json!({"tenant": "acme", "ip": "198.51.100.7"});
    assert!((0..3).all(|i| cluster.check(i, asked.clone())["denied_by"]["reason"] == "deny_list"));
    let id = added.json()["id"].as_str().unwrap().to_string();
    assert_eq!(cluster.call(2, "DELETE", &format!("/v1/access/{id}"), Value::Null).status, 200);
    assert!((0..3).all(|i| cluster.check(i, asked.clone())["allowed"] == true));
    // One that has expired is cleaned up by itself, and the audit log says so.
    let soon = i128::from(SystemClock::new().now().wall + 2 * SECOND);
    let soon = jiff::Timestamp::from_nanosecond(soon).unwrap().to_string();
    let entry = json!({"list": "deny", "ip": "198.51.100.0/24", "expires": soon});
    assert_eq!(cluster.call(0, "POST", "/v1/access", entry).status, 201);
    until("the entry is cleaned up", || {
        cluster.get(2, "/v1/access")["entries"].as_array().unwrap().is_empty().then_some(())
    });
    assert!(cluster.get(0, "/v1/audit").to_string().contains("expired"));
}
