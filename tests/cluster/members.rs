//! Nodes come and go, and each stays who it is.

use serde_json::{Value, json};

use crate::harness::Cluster;

const POLICY: &str = r#"
    default_tier = "free"
    [tiers.free]
    limits = [{ name = "day", algorithm = "fixed_window", limit = 100, window = "1d" }]
"#;

/// Name, number and address of every member, as node `i` sees them.
fn members(cluster: &Cluster, i: usize) -> Vec<(String, u64, String)> {
    let nodes = cluster.status(i)["nodes"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let member = |node: &Value| (text(&node["id"]), node["number"].as_u64().unwrap(), text(&node["peer"]));
    nodes.as_array().unwrap().iter().map(member).collect()
}

#[test]
fn a_list_in_another_order_changes_nobody_and_nothing_that_was_counted() {
    let mut cluster = Cluster::start(3, POLICY);
    let tenants: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
    for tenant in &tenants {
        cluster.check(1, json!({"tenant": tenant, "cost": 60}));
    }
    let before = members(&cluster, 0);
    (0..3).for_each(|i| cluster.stop(i));
    cluster.list(&[2, 0, 1]);
    (0..3).for_each(|i| cluster.begin(i));
    (0..3).for_each(|i| cluster.wait_ready(i));
    for (owner, tenant) in tenants.iter().enumerate() {
        let left = cluster.call(2, "POST", "/v1/peek", json!({"tenant": tenant})).json();
        assert_eq!((&left["remaining"], &left["node"]), (&json!(40), &json!(format!("n{}", owner + 1))));
    }
    assert!((0..3).all(|i| members(&cluster, i) == before));
    // Whom the list leaves out is a member all the same, and found.
    cluster.stop(1);
    cluster.list(&[1, 0]);
    cluster.begin(1);
    cluster.wait_ready(1);
    assert_eq!(members(&cluster, 1), before);
    assert_eq!(cluster.check(1, json!({"tenant": tenants[2]}))["remaining"], 39);
}

#[test]
fn a_cluster_that_moved_while_it_was_stopped_finds_itself_by_the_file() {
    let mut cluster = Cluster::start(3, POLICY);
    let before = members(&cluster, 0);
    (0..3).for_each(|i| cluster.stop(i));
    cluster.move_away();
    (0..3).for_each(|i| cluster.begin(i));
    (0..3).for_each(|i| cluster.wait_ready(i));
    let after = members(&cluster, 2);
    assert!(after.iter().zip(&before).all(|(after, before)| after.1 == before.1 && after.2 != before.2));
    assert_eq!(members(&cluster, 0), after);
}

#[test]
fn nobody_begins_with_the_data_of_another() {
    let mut cluster = Cluster::start(2, POLICY);
    cluster.stop(1);
    let began = |words: &[&str]| {
        let mut process = cluster.home.run_words(words);
        (process.end().code(), process.log())
    };
    std::fs::rename(cluster.home.path("data/n2"), cluster.home.path("data/n3")).unwrap();
    let config = std::fs::read_to_string(cluster.home.path("cluster.toml")).unwrap();
    for (file, cluster_name, node) in [("renamed.toml", "test", "n3"), ("other.toml", "prod", "n2")] {
        let config = config.replace("\"n2\"", &format!("{node:?}\ndata_dir = \"data/n3\""));
        let config = config.replace("\"test\"", &format!("{cluster_name:?}"));
        cluster.home.write(file, config.as_bytes());
        let path = cluster.home.path(file);
        let (code, log) = began(&["serve", "--config", path.to_str().unwrap(), "--node", node]);
        let why = format!(
            "the data there is that of n2 of the cluster test (node 2); this is {node} of the cluster {cluster_name} (node 2)"
        );
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&why), "{log}");
    }
}
