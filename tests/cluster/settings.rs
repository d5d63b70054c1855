//! The cluster's settings: set on one node, held in the log, used by each node from its next start.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, HUNDRED_A_DAY};
use crate::net::Net;
use crate::rig::until;

const PATH: &str = "/v1/cluster/settings";

/// Three nodes, all ready, with further lines of `[cluster]`.
fn cluster(settings: &str) -> Cluster {
    let cluster = Cluster::begin_over(Net::new(3), 3, HUNDRED_A_DAY, settings);
    (0..3).for_each(|i| cluster.wait_ready(i));
    cluster
}

fn round_trip_max(cluster: &Cluster, i: usize) -> Value {
    cluster.status(i)["round_trip_ms_max"].clone()
}

/// Waits until node `i` says that these nodes have to be restarted.
fn wait_to_restart(cluster: &Cluster, i: usize, names: &[&str]) {
    until("the nodes to restart are named", || {
        (cluster.get(i, PATH)["restart"] == json!(names)).then_some(())
    });
}

#[test]
fn a_round_trip_that_is_set_is_used_from_the_next_start_on() {
    let mut cluster = cluster("round_trip_ms = 100\n");
    let founded = json!({"version": 1, "round_trip_ms": 100, "restart": []});
    (0..3).for_each(|i| assert_eq!(cluster.get(i, PATH), founded));

    let (code, said, notes) = cluster.command(1, &["cluster", "set", "round_trip_ms=300"]);
    assert_eq!((code, said.as_str()), (0, "settings version 2: round_trip_ms 300\n"), "{notes}");
    assert_eq!(notes, "n1, n2, n3 use it once they are restarted\n");
    let shown = json!({"version": 2, "round_trip_ms": 300, "restart": ["n1", "n2", "n3"]});
    let warning =
        "round_trip_ms is 300, and n1, n2, n3 run with another value until they are restarted";
    for i in 0..3 {
        assert_eq!(cluster.get(i, PATH), shown);
        let warnings = cluster.status(i)["warnings"].clone();
        assert!(warnings.as_array().unwrap().contains(&json!(warning)), "{warnings}");
        assert_eq!(round_trip_max(&cluster, i), 115);
    }
    let audit = cluster.get(0, "/v1/audit?limit=1");
    assert_eq!(audit["entries"][0]["what"], "set round_trip_ms to 300");

    // The change was answered, so also a node that is killed has it at its next start.
    for (i, left) in [(0, &["n2", "n3"][..]), (1, &["n3"]), (2, &[])] {
        cluster.kill(i);
        cluster.begin(i);
        cluster.wait_ready(i);
        assert_eq!(round_trip_max(&cluster, i), 345);
        (0..3).for_each(|via| wait_to_restart(&cluster, via, left));
        let ignored = "[cluster] round_trip_ms = 100 in the configuration is ignored: the \
                       cluster's log says 300";
        let log = &cluster.node(i).process;
        until("the log line names both values", || log.log().contains(ignored).then_some(()));
    }
    let warned = cluster.status(0)["warnings"].to_string();
    assert!(!warned.contains("round_trip_ms"), "{warned}");
}

#[test]
fn a_node_that_joins_runs_with_what_the_log_says() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let set = cluster.call(0, "PUT", PATH, json!({"round_trip_ms": 200}));
    assert_eq!(set.status, 200, "{}", set.text());
    cluster.join(3, 1);
    assert_eq!(round_trip_max(&cluster, 3), 230);
    wait_to_restart(&cluster, 3, &["n1", "n2", "n3"]);
}

#[test]
fn of_two_changes_for_one_version_one_is_stale() {
    let cluster = Cluster::start(3, HUNDRED_A_DAY);
    let put = |i: usize, ms: u64| {
        let body = json!({"round_trip_ms": ms}).to_string();
        let headers = [("if-match", "\"1\"")];
        cluster.node(i).connect().call("PUT", PATH, &headers, body.as_bytes()).status
    };
    let mut statuses = std::thread::scope(|scope| {
        let both = [(0, 200), (1, 300)].map(|(i, ms)| scope.spawn(move || put(i, ms)));
        both.map(|one| one.join().unwrap())
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    assert_eq!(cluster.get(2, PATH)["version"], 2);
}

#[test]
fn links_that_became_too_slow_are_cured_by_a_setting() {
    let mut cluster = cluster("");
    cluster.net().delay_everywhere(Duration::from_millis(150));
    until("the links are seen to be too slow", || {
        let warnings = cluster.status(0)["warnings"].to_string();
        warnings.contains("that the timers allow").then_some(())
    });
    // Leaders come and go, and each can write for a moment.
    until("it is set all the same", || {
        let set = cluster.call(0, "PUT", PATH, json!({"round_trip_ms": 300}));
        (set.status == 200 && set.json()["pending"] == json!([])).then_some(())
    });
    for i in 0..3 {
        cluster.kill(i);
        cluster.begin(i);
    }
    (0..3).for_each(|i| cluster.wait_ready(i));
    (0..3).for_each(|i| assert_eq!(round_trip_max(&cluster, i), 345));
    wait_to_restart(&cluster, 0, &[]);
}
