//! A cluster that has lost its majority goes on with one node that is left, and with nothing else
//! of what it was.

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::rig::{program, until};

const POLICY: &str = r#"
    default_tier = "free"
    [tiers.free]
    limits = [
      { name = "month", algorithm = "quota", limit = 100, period = "month" },
      { name = "minute", algorithm = "fixed_window", limit = 100000, window = "1m" },
    ]
"#;

/// Runs a command where the cluster's folder is: its exit code, what it printed, what it said.
pub fn offline(cluster: &Cluster, words: &[&str]) -> (i32, String, String) {
    let folder = cluster.home().path("");
    let ran = program().args(words).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
}

/// Waits until a node answers that it is ready.
pub fn wait_up(cluster: &Cluster, i: usize) {
    until("the node is ready", || {
        (cluster.node(i).call("GET", "/readyz", "").status == 200).then_some(())
    });
}

/// The line that a command has printed, by which node `i` comes back: its words after the program's
/// name.
pub fn printed_line(notes: &str, i: usize) -> Vec<String> {
    let begins = format!("n{} comes back with an empty data directory and: tidegate ", i + 1);
    let line = notes.lines().find_map(|line| line.strip_prefix(&begins));
    let line = line.unwrap_or_else(|| panic!("no line of n{}: {notes}", i + 1));
    line.split_whitespace().map(String::from).collect()
}

pub fn names(cluster: &Cluster, via: usize) -> Vec<(String, u64)> {
    let nodes = cluster.status(via)["nodes"].clone();
    let name =
        |node: &Value| (node["id"].as_str().unwrap().to_string(), node["number"].as_u64().unwrap());
    nodes.as_array().unwrap().iter().map(name).collect()
}

/// Recovers the cluster from the data of the third node, once that is stopped; returns what the
/// command says to do next.
fn recovered_from_the_third(cluster: &mut Cluster) -> String {
    let words = ["cluster", "recover", "--data-dir", "data/n3", "--force"];
    let (code, _, notes) = offline(cluster, &words);
    assert_eq!(
        (code, notes.contains("in use by another process: stop the node first")),
        (5, true),
        "{notes}"
    );
    cluster.stop(2);

    // Not without being told, and then it says what it costs.
    let before = std::fs::read(cluster.home().path("data/n3/raft.redb")).unwrap();
    let (code, data, notes) = offline(cluster, &words[..4]);
    assert_eq!(code, 5, "{notes}");
    assert!(data.contains("given up     n1 (node 1), n2 (node 2): "), "{data}");
    assert!(data.contains("its counts   are saved: what it has counted stays spent"), "{data}");
    assert!(notes.contains("what n1, n2 counted; where they only can't be reached"), "{notes}");
    let (code, data, notes) = offline(cluster, &words);
    assert_eq!(code, 0, "{data}{notes}");
    let n1 = "n1 comes back with an empty data directory and: tidegate serve --node n1 --http \
              127.0.0.1:";
    assert!(notes.contains(n1), "{notes}");
    assert_ne!(std::fs::read(cluster.home().path("data/n3/raft.redb")).unwrap(), before);
    notes
}

#[test]
fn with_two_of_three_nodes_lost_the_third_goes_on_with_what_it_counted_and_others_join_it() {
    let mut cluster = Cluster::start(3, POLICY);
    let (mine, lost) = (cluster.tenant_of(2, 0, "t"), cluster.tenant_of(0, 0, "t"));
    assert_eq!(cluster.edit(0, "acme").0, 200);
    for tenant in [&mine, &lost] {
        assert_eq!(cluster.check(1, json!({"tenant": tenant, "cost": 60}))["remaining"], 40);
    }
    for i in [0, 1] {
        cluster.kill(i);
        std::fs::remove_dir_all(cluster.home().path(&format!("data/n{}", i + 1))).unwrap();
    }
    let notes = recovered_from_the_third(&mut cluster);
    cluster.begin(2);
    wait_up(&cluster, 2);
    assert_eq!(names(&cluster, 2), [("n3".into(), 3)]);
    assert_eq!(cluster.status(2)["lineage"].as_array().unwrap().len(), 1);
    let (status, said) = cluster.edit(2, "other");
    assert_eq!((status, &said["pending"]), (200, &json!([])), "{said}");
    let tenants = cluster.get(2, "/v1/policy")["tenants"].clone();
    assert!(tenants["acme"].is_object() && tenants["other"].is_object(), "{tenants}");
    // What it counted is spent; what the others counted is nobody's.
    let left = |tenant: &str| {
        cluster.call(2, "POST", "/v1/peek", json!({"tenant": tenant})).json()["remaining"].clone()
    };
    let audit = cluster.get(2, "/v1/audit").to_string();
    let log = cluster.node(2).process.log();
    assert_eq!((left(&mine), left(&lost)), (json!(40), json!(100)), "{audit}\n{log}");
    assert!(
        audit.contains("recovered the cluster as node 3; gave up n1 (node 1), n2 (node 2)"),
        "{audit}"
    );

    for i in [0, 1] {
        cluster.start_line(i, &printed_line(&notes, i));
        cluster.wait_seated(i, 2);
    }
    until("all three vote", || {
        let nodes = cluster.status(0)["nodes"].clone();
        nodes.as_array().unwrap().iter().all(|node| node["voter"] == true).then_some(())
    });
    cluster.wait_balanced(0);
    let joined = names(&cluster, 0);
    assert!(
        joined.len() == 3 && joined.iter().all(|(name, number)| *number > 3 || name == "n3"),
        "{joined:?}"
    );
    assert_eq!(cluster.admitted(6, 200, |_| json!({"tenant": mine})), 40);
    assert_eq!(cluster.admitted(6, 200, |_| json!({"tenant": lost})), 100);
    // It is an ordinary cluster: it can do without the one that was left.
    cluster.kill(2);
    until("the others lead", || (cluster.edit(0, "third").0 == 200).then_some(()));
    // And what was recovered once can be again.
    cluster.stop(0);
    cluster.stop(1);
    let (code, data, notes) = offline(
        &cluster,
        &["cluster", "recover", "--data-dir", "data/n1", "--force", "-o", "json"],
    );
    assert_eq!(code, 0, "{notes}");
    let said: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (&said["id"], &said["recovered"], said["given_up"].as_array().unwrap().len()),
        (&json!("n1"), &json!(true), 2)
    );
    cluster.begin(0);
    wait_up(&cluster, 0);
    assert_eq!(cluster.status(0)["lineage"].as_array().unwrap().len(), 2);
    assert!(cluster.get(0, "/v1/policy")["tenants"]["third"].is_object());
}

#[test]
fn nodes_that_come_back_with_old_data_are_a_cluster_no_more_as_soon_as_they_hear_of_the_new_one() {
    let mut cluster = Cluster::start(3, POLICY);
    cluster.stop(2);
    for i in [0, 1] {
        cluster.kill(i);
    }
    assert_eq!(offline(&cluster, &["cluster", "recover", "--data-dir", "data/n3", "--force"]).0, 0);
    // The two were only cut off: among themselves they are the old majority, and know of nothing.
    for i in [0, 1] {
        cluster.begin(i);
    }
    until("the old majority takes a change", || (cluster.edit(0, "old").0 == 200).then_some(()));
    cluster.begin(2);
    wait_up(&cluster, 2);
    for i in [0, 1] {
        let (code, log) = cluster.wait_ended(i);
        assert_eq!(code, Some(1), "{log}");
        let why = format!(
            "n{} of the cluster test (node {}) is nobody any more: the cluster was made anew \
             without it, says n3",
            i + 1,
            i + 1
        );
        assert!(log.contains(&why), "{log}");
    }
    // Nothing of them has reached the new one, and they can't come back as who they were.
    assert_eq!(names(&cluster, 2), [("n3".into(), 3)]);
    assert_eq!(cluster.get(2, "/v1/policy")["tenants"].get("old"), None);
    let line = cluster.joins(0, 2, &[]);
    let mut again = cluster.run_line(&line);
    assert_eq!(again.end().code(), Some(1), "{}", again.log());
    std::fs::remove_dir_all(cluster.home().path("data/n1")).unwrap();
    // Nor is it one of the file's list that begins for the first time.
    let mut listed = cluster.home().run_as("n1");
    let (code, log) = (listed.end().code(), listed.log());
    assert_eq!((code, log.contains("is nobody any more")), (Some(1), true), "{log}");
    std::fs::remove_dir_all(cluster.home().path("data/n1")).unwrap();
    cluster.join(0, 2);
    assert_eq!(cluster.edit(0, "new").0, 200);
}

#[test]
fn nothing_is_recovered_of_what_is_no_nodes_data() {
    let cluster = Cluster::start(1, POLICY);
    let recover =
        |folder: &str| offline(&cluster, &["cluster", "recover", "--data-dir", folder, "--force"]);
    assert_eq!(recover("data/none").0, 2);
    assert!(!cluster.home().path("data/none").exists());
    assert_eq!(recover("data/n1").0, 5);
    std::fs::create_dir(cluster.home().path("odd")).unwrap();
    cluster.home().write("odd/raft.redb", b"something else");
    assert_eq!(recover("odd").0, 1);
    assert_eq!(std::fs::read(cluster.home().path("odd/raft.redb")).unwrap(), b"something else");
}
