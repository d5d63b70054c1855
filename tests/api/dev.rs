//! `tidegate dev`: a cluster of real processes comes up, is told of, and leaves nothing behind,
//! however it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::{self, Home, Process, Wire, until};

const POLICY: &str = r#"
default_tier = "tiny"
[tiers.tiny]
limits = [{ name = "day", algorithm = "sliding_log", limit = 5, window = "1d" }]
"#;

/// A local cluster whose folder is in a folder of the test's own.
struct Dev {
    process: Process,
    nodes: Vec<DevNode>,
    config: PathBuf,
    home: Home,
}

struct DevNode {
    http: SocketAddr,
    pid: i32,
    data_dir: PathBuf,
}

impl Dev {
    fn start(words: &[&str]) -> Self {
        let home = home();
        let words =
            [&["dev", "--http-port", "0", "--peer-port", "0", "-o", "json"], words].concat();
        let mut process = home.run_words(&words);
        let said: Value = until("the nodes' addresses", || {
            assert!(process.is_running(), "{}", process.log());
            serde_json::from_str(&process.out()).ok()
        });
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let nodes = said["nodes"].as_array().unwrap().iter().map(|node| DevNode {
            http: text(&node["http"]).parse().unwrap(),
            pid: node["pid"].as_i64().unwrap().try_into().unwrap(),
            data_dir: text(&node["data_dir"]).into(),
        });
        Self { nodes: nodes.collect(), config: text(&said["config"]).into(), process, home }
    }

    fn url(&self, node: usize) -> String {
        format!("http://{}", self.nodes[node].http)
    }

    /// Waits until it has said this.
    fn says(&self, what: &str) {
        until(what, || self.process.log().contains(what).then_some(()));
    }
}

impl DevNode {
    fn answers(&self, path: &str) -> String {
        let answer = Wire::to(self.http).unwrap().call("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid).unwrap(), signal).unwrap();
    }

    /// Whether its process is over. One whose parent was killed may stay a zombie for as long as
    /// its new parent likes.
    fn is_gone(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
            || !Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

fn home() -> Home {
    let home = Home::empty();
    let temporary = home.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    home.set_variable("TMPDIR", temporary.to_str().unwrap())
}

/// What is left in the folder for temporary ones.
fn left(home: &Home) -> Vec<PathBuf> {
    std::fs::read_dir(home.path("temporary")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_cluster_comes_up_and_leaves_nothing_behind() {
    let mut dev = Dev::start(&[]);
    assert_eq!(dev.nodes.len(), 3);
    for (number, node) in (1..).zip(&dev.nodes) {
        assert_eq!(node.answers("/readyz"), "ready\n");
        assert!(node.answers("/version").contains(&format!("\"node\":\"n{number}\"")));
        assert!(node.data_dir.starts_with(dev.home.path("temporary")) && node.data_dir.is_dir());
    }
    let config = std::fs::read_to_string(&dev.config).unwrap();
    assert_eq!(config.matches("[[nodes]]").count(), 3, "{config}");
    dev.process.signal(Signal::TERM);
    assert_eq!(dev.process.end().code(), Some(0), "{}", dev.process.log());
    assert!(dev.nodes.iter().all(DevNode::is_gone));
    assert_eq!(left(&dev.home), Vec::<PathBuf>::new());
    let log = dev.process.log();
    for node in ["n1", "n2", "n3"] {
        let stopping =
            |line: &str| line.starts_with(&format!("{node} | ")) && line.ends_with("stopping");
        assert!(log.lines().any(stopping), "{log}");
    }
    assert!(!log.contains("killed"), "{log}");
}

/// The sum of a metric's series over all nodes.
fn sum(dev: &Dev, series: &str) -> f64 {
    let of = |text: &str| -> f64 {
        let lines = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        lines.map(|value| value.parse::<f64>().unwrap()).sum()
    };
    dev.nodes.iter().map(|node| of(&node.answers("/metrics"))).sum()
}

#[test]
fn its_nodes_are_one_cluster() {
    let files = Home::empty();
    files.write("policy.toml", POLICY.as_bytes());
    let dev = Dev::start(&["--policy", files.path("policy.toml").to_str().unwrap()]);
    until("every partition is owned", || {
        (sum(&dev, r#"tidegate_partitions{role="owner"}"#) == 4096.0).then_some(())
    });
    assert_eq!(sum(&dev, "tidegate_raft_is_leader"), 1.0);
    assert_eq!(sum(&dev, r#"tidegate_members{state="up"}"#), 9.0);
    until("all links are up", || (sum_connected(&dev) == 6.0).then_some(()));
    // A tenant has one owner, so two of three nodes pass its check on.
    for (used, node) in (1..).zip(&dev.nodes) {
        let answer =
            Wire::to(node.http).unwrap().call("POST", "/v1/check", &[], br#"{"tenant":"acme"}"#);
        let decision = answer.json();
        let (left, limit) = (&decision["remaining"], &decision["limit"]);
        assert_eq!((left.as_u64(), limit.as_u64()), (Some(5 - used), Some(5)), "{decision}");
    }
    assert_eq!(sum(&dev, r#"tidegate_forwarded_checks_total{result="answered"}"#), 2.0);
    assert_eq!(sum(&dev, r#"tidegate_received_checks_total{result="decided"}"#), 2.0);
    let printed =
        rig::program().args(["cluster", "status", "--url", &dev.url(1)]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.starts_with("cluster      dev, as n2 sees it\nleader       n"), "{printed}");
    assert_eq!(printed.matches("  up     ").count(), 3, "{printed}");
    let breakers = ["cluster", "breakers", "--reset", "n3", "--url", &dev.url(0)];
    let printed = rig::program().args(breakers).output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), "n3: breaker closed\n");
}

fn sum_connected(dev: &Dev) -> f64 {
    ["n1", "n2", "n3"]
        .iter()
        .map(|peer| sum(dev, &format!("tidegate_peer_connected{{peer=\"{peer}\"}}")))
        .sum()
}

#[test]
fn it_says_who_is_where_and_what_to_try() {
    let home = home();
    home.write("policy.toml", POLICY.as_bytes());
    let policy = home.path("policy.toml");
    let words = ["dev", "--nodes", "2", "--http-port", "0", "--peer-port", "0", "--policy"];
    let mut process = home.run_words(&[&words[..], &[policy.to_str().unwrap()]].concat());
    let said = until("the table", || {
        assert!(process.is_running(), "{}", process.log());
        Some(process.out()).filter(|said| said.contains("Ctrl-C\n"))
    });
    let lines: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NODE", "HTTP", "PEER", "PID", "DATA"]);
    assert_eq!((lines[1][0], lines[2][0], lines[3].len()), ("n1", "n2", 0), "{said}");
    let url = lines[1][1];
    let line = format!("try     curl -s {url}/v1/check -d '{{\"tenant\":\"acme\"}}'");
    assert!(said.contains(&line), "{said}");
    assert!(said.contains(&format!("ask     export TIDEGATE_URL={url}\n")), "{said}");
    for node in &lines[1..3] {
        let http = node[1].trim_start_matches("http://").parse().unwrap();
        let policy = Wire::to(http).unwrap().call("GET", "/v1/policy", &[], b"").json();
        assert_eq!(policy["default_tier"], "tiny", "{policy}");
    }
    process.signal(Signal::INT);
    assert_eq!(process.end().code(), Some(0), "{}", process.log());
    assert_eq!(left(&home), Vec::<PathBuf>::new());
}

#[test]
fn its_nodes_keep_their_data_apart_whatever_the_environment_says() {
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("data");
    let home = home().set_variable("TIDEGATE_DATA_DIR", folder.to_str().unwrap());
    let home = home.set_variable("TIDEGATE_ADMIN_TOKEN", "a-token-that-nodes-of-dev-ignore");
    let mut process =
        home.run_words(&["dev", "--nodes", "2", "--http-port", "0", "--peer-port", "0"]);
    until("the table", || {
        assert!(process.is_running(), "{}", process.log());
        process.out().contains("Ctrl-C\n").then_some(())
    });
    assert!(!folder.exists());
    process.signal(Signal::INT);
    assert_eq!(process.end().code(), Some(0), "{}", process.log());
}

#[test]
fn a_node_that_dies_is_told_of_and_the_others_go_on() {
    let mut dev = Dev::start(&["--nodes", "2"]);
    dev.nodes[0].signal(Signal::KILL);
    dev.says("n1 has ended (signal: 9 (SIGKILL)); the others go on");
    assert_eq!(dev.nodes[1].answers("/livez"), "ok\n");
    dev.nodes[1].signal(Signal::TERM);
    assert_eq!(dev.process.end().code(), Some(1));
    dev.says("n2 has ended (exit status: 0)\nerror: no node is left\n");
    assert_eq!(left(&dev.home), Vec::<PathBuf>::new());
}

#[test]
fn nodes_end_with_the_program_even_if_it_is_killed() {
    let mut dev = Dev::start(&["--nodes", "2"]);
    dev.process.signal(Signal::KILL);
    assert_eq!(dev.process.end().code(), None);
    for node in &dev.nodes {
        until("the node's end", || node.is_gone().then_some(()));
        assert!(Wire::to(node.http).is_err());
    }
}

#[test]
fn told_twice_it_waits_no_longer_for_a_node_that_hangs() {
    let mut dev = Dev::start(&["--nodes", "2"]);
    dev.nodes[0].signal(Signal::STOP);
    dev.process.signal(Signal::TERM);
    until("the other node's end", || dev.nodes[1].is_gone().then_some(()));
    assert!(dev.process.is_running());
    dev.process.signal(Signal::INT);
    assert_eq!(dev.process.end().code(), Some(0));
    dev.says("n1 did not stop and is killed");
    assert!(dev.nodes[0].is_gone());
    assert_eq!(left(&dev.home), Vec::<PathBuf>::new());
}
