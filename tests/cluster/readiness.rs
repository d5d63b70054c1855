//! When nodes of a cluster say that they may be asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, PLENTY_A_DAY};
use crate::rig::{Wire, instant, until};

/// How long the survivors of a node that died are watched: longer than any election takes.
const WATCHED: Duration = Duration::from_secs(6);

fn text(cluster: &Cluster, i: usize, path: &str) -> (u16, String) {
    let answer = cluster.call(i, "GET", path, Value::Null);
    (answer.status, answer.text())
}

#[test]
fn a_cluster_that_has_not_formed_says_whom_it_waits_for() {
    let mut cluster = Cluster::configured(3, PLENTY_A_DAY, "");
    let missing = "the cluster has not formed: waiting for n2, n3";
    cluster.begin(0);
    for path in ["/readyz", "/readyz?for=checks"] {
        assert_eq!(text(&cluster, 0, path), (503, format!("{missing}\n")), "{path}");
    }
    let (status, verbose) = text(&cluster, 0, "/readyz?verbose");
    let verbose: Value = serde_json::from_str(&verbose).unwrap();
    assert_eq!(
        (status, &verbose["ready"], &verbose["missing"]),
        (503, &json!(false), &json!(missing))
    );
    assert_eq!(cluster.status(0)["warnings"], json!([missing]));
    // A check waits for its deadline, and then both say what is missing.
    let begun = instant();
    let check = cluster.call(0, "POST", "/v1/check", json!({"tenant": "acme", "deadline_ms": 300}));
    assert!(instant() - begun >= Duration::from_millis(300));
    assert_eq!(check.problem(503)["detail"], missing);
    assert_eq!(cluster.call(0, "GET", "/v1/policy", Value::Null).problem(503)["detail"], missing);

    cluster.begin(1);
    let missing = "the cluster has not formed: waiting for n3";
    until("n2 is no longer missing", || {
        (text(&cluster, 0, "/readyz") == (503, format!("{missing}\n"))).then_some(())
    });
    // One that waits is decided as soon as the cluster has formed.
    let address = cluster.http(0);
    let waiting = std::thread::spawn(move || {
        let check = json!({"tenant": "acme", "deadline_ms": 30_000}).to_string();
        Wire::to(address).unwrap().call("POST", "/v1/check", &[], check.as_bytes())
    });
    std::thread::sleep(Duration::from_millis(200));
    cluster.begin(2);
    let answer = waiting.join().unwrap();
    assert_eq!(
        (answer.status, &answer.json()["allowed"]),
        (200, &json!(true)),
        "{}",
        answer.text()
    );
}

#[test]
fn each_of_three_nodes_decides_the_first_check_after_it_says_ready() {
    for start in 0..3 {
        let mut cluster = Cluster::configured(3, PLENTY_A_DAY, "");
        (0..3).for_each(|i| cluster.begin(i));
        let addresses: Vec<_> = (0..3).map(|i| cluster.http(i)).collect();
        let asked: Vec<_> = addresses
            .into_iter()
            .map(|address| {
                std::thread::spawn(move || {
                    until("it says ready", || {
                        let ready = Wire::to(address).ok()?.call("GET", "/readyz", &[], b"");
                        (ready.status == 200).then_some(())
                    });
                    // Of twelve tenants each node owns some.
                    for tenant in 0..12 {
                        let check = json!({"tenant": format!("t{tenant}")}).to_string();
                        let answer = Wire::to(address).unwrap().call(
                            "POST",
                            "/v1/check",
                            &[],
                            check.as_bytes(),
                        );
                        assert_eq!(
                            answer.status,
                            200,
                            "start {start}, tenant {tenant}: {}",
                            answer.text()
                        );
                    }
                })
            })
            .collect();
        asked.into_iter().for_each(|asked| asked.join().unwrap());
    }
}

#[test]
fn with_one_of_three_killed_the_two_others_stay_ready_throughout() {
    let mut cluster = Cluster::start(3, PLENTY_A_DAY);
    for dead in 0..3 {
        let alive: Vec<_> = (0..3).filter(|i| *i != dead).map(|i| cluster.http(i)).collect();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for address in alive {
                let over = &over;
                scope.spawn(move || {
                    let mut wire = Wire::to(address).unwrap();
                    while !over.load(Ordering::Relaxed) {
                        for path in ["/readyz", "/readyz?for=checks"] {
                            let answer = wire.call("GET", path, &[], b"");
                            assert_eq!(answer.status, 200, "{address}{path}: {}", answer.text());
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(100));
            cluster.kill(dead);
            std::thread::sleep(WATCHED);
            over.store(true, Ordering::Relaxed);
        });
        cluster.begin(dead);
        cluster.wait_ready(dead);
    }
}

#[test]
fn without_a_majority_a_node_is_ready_for_checks_alone() {
    let mut cluster = Cluster::start(3, PLENTY_A_DAY);
    let own = cluster.tenant_of(0, 0, "t");
    cluster.kill(1);
    cluster.kill(2);
    until("the node notices", || {
        let (status, said) = text(&cluster, 0, "/readyz");
        (status == 503).then(|| assert!(said.starts_with("no leader"), "{said}"))
    });
    assert_eq!(text(&cluster, 0, "/readyz?for=checks"), (200, "ready\n".into()));
    assert_eq!(cluster.check(0, json!({"tenant": own}))["allowed"], true);
    // One that starts without a majority can't know what it owns.
    cluster.kill(0);
    cluster.begin(0);
    for path in ["/readyz", "/readyz?for=checks"] {
        let (status, said) = text(&cluster, 0, path);
        assert!(status == 503 && said.starts_with("no leader"), "{path}: {status} {said}");
    }
}
