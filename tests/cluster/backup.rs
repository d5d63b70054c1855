//! A cluster is made anew of a back-up: what it agreed on, and what it counted of long limits.

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::recovery::{names, offline, wait_up};
use crate::rig::{program, until};

/// A node without tokens gives no back-ups.
const AUTH: &str = "[auth]\nadmin_tokens = [\"admin-of-the-cluster\"]\nread_tokens = \
                    [\"reader-of-the-cluster\"]\n";
const TOKEN: &str = "admin-of-the-cluster";

const POLICY: &str = r#"
    default_tier = "free"
    [[limits]]
    name = "per-ip"
    per = ["ip"]
    algorithm = "sliding_log"
    limit = 50
    window = "1d"
    [tiers.free]
    limits = [
      { name = "month", algorithm = "quota", limit = 100, period = "month" },
      { name = "minute", algorithm = "fixed_window", limit = 500, window = "1m" },
      { name = "bucket", per = ["tenant", "client"], algorithm = "token_bucket", rate = "100/w", burst = 100 },
    ]
"#;

fn left(cluster: &Cluster, via: usize, check: Value) -> Vec<(String, u64)> {
    let peeked = cluster.call(via, "POST", "/v1/peek", check).json();
    let limits = peeked["limits"].as_array().unwrap_or_else(|| panic!("{peeked}"));
    let left = |limit: &Value| {
        (limit["name"].as_str().unwrap().to_string(), limit["remaining"].as_u64().unwrap())
    };
    limits.iter().map(left).collect()
}

/// Kills the third node and backs up without it: there is no back-up, unless a partial one is
/// allowed.
fn back_up_without_the_third(cluster: &mut Cluster) {
    cluster.kill(2);
    let elsewhere = cluster.home().path("b.backup");
    let elsewhere = elsewhere.to_str().unwrap();
    let (code, _, notes) = until("the others lead and miss it", || {
        let ran = cluster.command(0, &["cluster", "backup", elsewhere]);
        ran.2.contains("what was counted by n3 can't be had").then_some(ran)
    });
    assert_eq!(code, 1, "{notes}");
    assert!(!std::path::Path::new(elsewhere).exists());
    let (code, data, notes) = cluster.command(0, &["cluster", "backup", elsewhere, "--partial"]);
    assert_eq!(code, 0, "{notes}");
    // Addresses hash to other nodes than their tenants.
    assert!(data.contains(" of long limits, 2 tenants have them"), "{data}");
    assert_eq!(notes, "warning: what n3 had counted is not in it\n");
}

/// Restores the cluster as its first node, whose data directory is empty; a second time there is an
/// error.
fn restore_as_the_first(cluster: &Cluster, file: &str) {
    let restore = ["cluster", "restore", file, "--config", "cluster.toml", "--node", "n1"];
    let (code, data, notes) = offline(cluster, &restore);
    assert_eq!(code, 0, "{notes}");
    assert!(data.contains("counters     9 of long limits"), "{data}");
    let line = "n2 comes back with an empty data directory and: tidegate serve --node n2 --config \
                cluster.toml --join http://127.0.0.1:";
    assert!(notes.starts_with(line), "{notes}");
    let (code, _, notes) = offline(cluster, &restore);
    assert_eq!(code, 5, "{notes}");
    assert!(
        notes.contains("data/n1 is not empty: a back-up is restored where nothing is"),
        "{notes}"
    );
}

#[test]
fn a_cluster_of_three_is_restored_as_one_and_grows_and_has_lost_nothing_but_the_minute() {
    let mut cluster = Cluster::with_auth(3, POLICY, AUTH, TOKEN);
    let tenants: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
    assert_eq!(cluster.call(1, "PUT", "/v1/tenants/acme", json!({"tier": "free"})).status, 200);
    let set = cluster.call(0, "PUT", "/v1/cluster/settings", json!({"round_trip_ms": 200}));
    assert_eq!(set.status, 200, "{}", set.text());
    let entry = json!({"list": "deny", "client": "spammer", "reason": "sends spam"});
    assert_eq!(cluster.call(2, "POST", "/v1/access", entry).status, 201);
    for (owner, tenant) in tenants.iter().enumerate() {
        let check = json!({"tenant": tenant, "client": "c", "ip": format!("203.0.113.{owner}"), "cost": 30 + owner});
        assert_eq!(cluster.check(1, check)["allowed"], true);
    }
    let look = |owner: usize| json!({"tenant": tenants[owner], "client": "c", "ip": format!("203.0.113.{owner}")});
    let before: Vec<_> = (0..3).map(|owner| left(&cluster, 0, look(owner))).collect();
    let seen = |cluster: &Cluster, via: usize| {
        ["/v1/policy", "/v1/policy/history", "/v1/access"]
            .map(|path| cluster.call(via, "GET", path, Value::Null).text().to_string())
    };
    let agreed = seen(&cluster, 0);

    // Any node makes one; the newest is what matters.
    let file = cluster.home().path("a.backup");
    let file = file.to_str().unwrap();
    for via in 0..3 {
        let (code, data, notes) = cluster.command(via, &["cluster", "backup", file]);
        assert_eq!((code, notes.as_str()), (0, ""), "{data}{notes}");
        assert!(data.contains("members      n1 (node 1), n2 (node 2), n3 (node 3)"), "{data}");
        // A month, a token bucket and an address for each of the three; the minutes aren't there.
        assert!(data.contains("counters     9 of long limits, 3 tenants have them"), "{data}");
    }
    back_up_without_the_third(&mut cluster);
    for i in [0, 1] {
        cluster.kill(i);
    }
    std::fs::remove_dir_all(cluster.home().path("data")).unwrap();
    restore_as_the_first(&cluster, file);
    cluster.begin(0);
    wait_up(&cluster, 0);
    let number = names(&cluster, 0)[0].1;
    assert!(number > 3, "{number}");
    assert_eq!(seen(&cluster, 0), agreed);
    let set = json!({"version": 2, "round_trip_ms": 200, "restart": []});
    assert_eq!(cluster.status(0)["settings"], set);
    assert_eq!(cluster.status(0)["round_trip_ms_max"], 230);
    for owner in 0..3 {
        let now = left(&cluster, 0, look(owner));
        for ((name, before), (_, now)) in before[owner].iter().zip(&now) {
            let expected = if name == "minute" { 500 } else { *before };
            assert_eq!(*now, expected, "{name} of {owner}");
        }
    }
    let audit = cluster.get(0, "/v1/audit").to_string();
    assert!(audit.contains("restored the cluster from a back-up of 20"), "{audit}");
    assert!(audit.contains("gave up n1 (node 1), n2 (node 2), n3 (node 3)"), "{audit}");

    for i in [1, 2] {
        cluster.join(i, 0);
    }
    cluster.wait_balanced(1);
    for (owner, tenant) in tenants.iter().enumerate() {
        let admitted =
            cluster.admitted(6, 150, |_| json!({"tenant": tenant, "client": format!("d{owner}")}));
        assert_eq!(admitted, 100 - 30 - owner, "{tenant}");
    }
    // The counts were loaded once: the node's next life knows what it decided since, and no more
    // than that.
    assert!(!cluster.home().path("data/n1/counts.state").exists());
    assert_eq!(seen(&cluster, 2), agreed);
}

#[test]
fn a_node_is_restored_without_a_file_and_joined_without_one() {
    let mut cluster = Cluster::with_auth(1, POLICY, AUTH, TOKEN);
    assert_eq!(cluster.check(0, json!({"tenant": "t", "cost": 60}))["remaining"], 40);
    let file = cluster.home().path("a.backup");
    assert_eq!(cluster.command(0, &["cluster", "backup", file.to_str().unwrap()]).0, 0);
    // A node that only was cut off goes on meanwhile, and is told as soon as it calls.
    let mut line = cluster.joins(1, 0, &[]);
    line.truncate(line.len() - 2);
    let words: Vec<&str> = line[1..].iter().map(String::as_str).collect();
    let (code, data, notes) = offline(
        &cluster,
        &[&["cluster", "restore", "a.backup", "-o", "json"], &words[..]].concat(),
    );
    assert_eq!(code, 0, "{notes}");
    let said: Value = serde_json::from_str(&data).unwrap();
    assert_eq!((&said["id"], &said["cluster"]), (&json!("n2"), &json!("test")), "{said}");
    cluster.stop(0);
    cluster.start_line(1, &line);
    wait_up(&cluster, 1);
    assert_eq!(cluster.check(1, json!({"tenant": "t"}))["remaining"], 39);
    cluster.join(2, 1);
    assert_eq!(cluster.check(2, json!({"tenant": "t"}))["remaining"], 38);
}

#[test]
fn what_is_damaged_or_something_else_is_not_restored_and_leaves_nothing_behind() {
    let cluster = Cluster::with_auth(1, POLICY, AUTH, TOKEN);
    let file = cluster.home().path("a.backup");
    assert_eq!(cluster.command(0, &["cluster", "backup", file.to_str().unwrap()]).0, 0);
    let whole = std::fs::read(&file).unwrap();
    let other = std::fs::read_to_string(cluster.home().path("cluster.toml")).unwrap();
    cluster.home().write("other.toml", other.replace("\"test\"", "\"prod\"").as_bytes());
    let refused = |name: &str, bytes: &[u8], config: &str, why: &str| {
        cluster.home().write(name, bytes);
        let words =
            ["cluster", "restore", name, "--config", config, "--node", "n1", "--data-dir", "fresh"];
        let (code, data, notes) = offline(&cluster, &words);
        assert_eq!((code, data.as_str()), (1, ""), "{notes}");
        assert!(notes.contains(why), "{notes}");
        assert!(
            !cluster.home().path("fresh").exists()
                && !cluster.home().path("fresh.restoring").exists()
        );
    };
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    refused("damaged", &damaged, "cluster.toml", "damaged: its checksum is not that of its bytes");
    refused(
        "short",
        &whole[..whole.len() - 7],
        "cluster.toml",
        "damaged: its checksum is not that of its bytes",
    );
    let mut later = whole.clone();
    later[8] = 9;
    refused("later", &later, "cluster.toml", "it has format 9, this program reads 1");
    refused("odd", b"PK", "cluster.toml", "it is no back-up of Tidegate");
    refused(
        "whole",
        &whole,
        "other.toml",
        "is a back-up of the cluster test, and the configuration is for prod",
    );
    let (code, _, notes) = offline(
        &cluster,
        &["cluster", "restore", "none", "--config", "cluster.toml", "--data-dir", "fresh"],
    );
    assert_eq!(code, 1, "{notes}");
    let (code, _, notes) = offline(&cluster, &["cluster", "restore", "whole", "--node", "n1"]);
    assert_eq!(
        (code, notes.contains("--node, --http, --peer and --data-dir")),
        (2, true),
        "{notes}"
    );
}

#[test]
fn checks_go_on_while_back_ups_are_made_and_each_of_them_can_be_read() {
    let cluster = Cluster::with_auth(3, POLICY, AUTH, TOKEN);
    let url = format!("http://{}", cluster.node(1).addr);
    let file = cluster.home().path("a.backup");
    let back_up = || {
        let words = ["cluster", "backup", "--url", &url, "--token", TOKEN];
        let made = program().args(words).arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    std::thread::scope(|scope| {
        let making = scope.spawn(|| (0..20).for_each(|_| back_up()));
        while !making.is_finished() {
            // Every check is answered; what is written while it is read is neither lost nor there
            // twice.
            cluster.admitted(6, 300, |i| json!({"tenant": format!("t{}", i % 40), "client": "c"}));
        }
        making.join().unwrap();
    });
    let spent = (0..40).map(|i| {
        let look = json!({"tenant": format!("t{i}"), "client": "c"});
        100 - left(&cluster, 0, look).into_iter().find(|(name, _)| name == "month").unwrap().1
    });
    assert!(spent.sum::<u64>() > 0);
    back_up();
    let (code, data, notes) = offline(&cluster, &["cluster", "backup", "--show", "a.backup"]);
    assert_eq!(code, 0, "{notes}");
    assert!(data.contains("counters     80 of long limits, 40 tenants have them"), "{data}");
}

#[test]
fn a_back_up_is_for_administrators() {
    let cluster = Cluster::with_auth(1, POLICY, AUTH, TOKEN);
    let file = cluster.home().path("a.backup");
    for (token, expected) in [("reader-of-the-cluster", 1), (TOKEN, 0)] {
        let words = ["cluster", "backup", file.to_str().unwrap(), "--token", token];
        let (code, _, notes) = cluster.command(0, &words);
        assert_eq!(code, expected, "{notes}");
        assert_eq!(file.exists(), expected == 0);
    }
}

#[test]
fn a_node_without_tokens_is_backed_up_while_it_is_stopped() {
    let mut cluster = Cluster::start(1, POLICY);
    assert_eq!(cluster.call(0, "PUT", "/v1/tenants/acme", json!({"tier": "free"})).status, 200);
    let spend = json!({"tenant": "acme", "client": "c", "ip": "203.0.113.9", "cost": 30});
    assert_eq!(cluster.check(0, spend)["allowed"], true);
    let look = json!({"tenant": "acme", "client": "c", "ip": "203.0.113.9"});
    let before = left(&cluster, 0, look.clone());

    // While it runs it gives none, and its data is locked.
    let (code, _, notes) = cluster.command(0, &["cluster", "backup", "a.backup"]);
    assert_eq!((code, notes.contains("configure [auth] to take back-ups")), (1, true), "{notes}");
    let stopped = ["backup", "a.backup", "--data-dir", "data/n1"];
    let (code, _, notes) = offline(&cluster, &stopped);
    assert_eq!(
        (code, notes.contains("is in use by another process: stop the node first")),
        (5, true),
        "{notes}"
    );

    cluster.stop(0);
    let (code, data, notes) = offline(&cluster, &stopped);
    assert_eq!((code, notes.as_str()), (0, ""), "{data}{notes}");
    // The month, the bucket and the address; not the minute.
    assert!(data.contains("counters     3 of long limits, 1 tenants have them"), "{data}");
    assert!(data.contains("policy       version 2, names 1 tenants"), "{data}");
    // Written to standard output it is the same file, but for when it was made.
    let words = ["backup", "--data-dir", "data/n1"];
    let ran = program().args(words).current_dir(cluster.home().path("")).output();
    let shown = ran.unwrap().stdout;
    let file = std::fs::read(cluster.home().path("a.backup")).unwrap();
    assert!(
        shown.starts_with(b"TGBACKUP") && shown.len().abs_diff(file.len()) < 64,
        "{}",
        shown.len()
    );

    // The node goes on with its counts: they were left where they were.
    cluster.begin(0);
    wait_up(&cluster, 0);
    assert_eq!(left(&cluster, 0, look.clone())[0], before[0], "{before:?}");
    cluster.kill(0);
    std::fs::remove_dir_all(cluster.home().path("data")).unwrap();
    let restore = ["cluster", "restore", "a.backup", "--config", "cluster.toml", "--node", "n1"];
    let (code, _, notes) = offline(&cluster, &restore);
    assert_eq!(code, 0, "{notes}");
    cluster.begin(0);
    wait_up(&cluster, 0);
    for ((name, before), (_, now)) in before.iter().zip(&left(&cluster, 0, look)) {
        assert_eq!(now, if name == "minute" { &500 } else { before }, "{name}");
    }
}

#[test]
fn counts_that_a_stopped_node_did_not_save_are_missing() {
    let mut cluster = Cluster::start(1, POLICY);
    assert_eq!(cluster.check(0, json!({"tenant": "t", "cost": 60}))["remaining"], 40);
    cluster.kill(0);
    let words = ["backup", "a.backup", "--data-dir", "data/n1"];
    let (code, _, notes) = offline(&cluster, &words);
    assert_eq!(
        (code, notes.contains("data/n1: the counts of n1 are not there")),
        (1, true),
        "{notes}"
    );
    assert!(!cluster.home().path("a.backup").exists());
    let (code, data, notes) = offline(&cluster, &[&words[..], &["--partial"]].concat());
    // A killed node may not know of its last entries whether a majority has them.
    let warned = notes.ends_with("warning: what n1 had counted is not in it\n");
    assert_eq!((code, warned), (0, true), "{data}{notes}");
    assert!(data.contains("counters     0 of long limits"), "{data}");
    let (code, _, notes) = offline(&cluster, &["backup", "b.backup", "--data-dir", "elsewhere"]);
    assert_eq!((code, notes.contains("there is no node's data there")), (2, true), "{notes}");
    assert!(!cluster.home().path("elsewhere").exists());
}
