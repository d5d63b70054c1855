//! Nodes are found by their names and at new addresses, and one line starts each of them.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Cluster, HUNDRED_A_DAY};
use crate::rig::until;

/// The words that every node of a cluster is started with, whichever it is: `n1` is asked whether
/// there is a cluster.
fn one_line(cluster: &Cluster) -> String {
    format!("127.0.0.1:{}", cluster.ports(0).0)
}

fn is_ready(cluster: &Cluster, i: usize) -> bool {
    cluster.node(i).call("GET", "/readyz", "").status == 200
}

fn wait_ready(cluster: &Cluster, i: usize) {
    until("the node is ready", || is_ready(cluster, i).then_some(()));
}

/// Waits until node `via` shows node `i` at this peer address.
fn wait_at(cluster: &Cluster, via: usize, i: usize, peer: &str) {
    until("the new address is known", || (cluster.member(via, i)?["peer"] == peer).then_some(()));
}

#[test]
fn nodes_dial_each_other_by_name() {
    let mut cluster = Cluster::unstarted(3, HUNDRED_A_DAY, "", "");
    for i in 0..3 {
        let name = format!("localhost:{}", cluster.ports(i).1);
        let http = format!("localhost:{}", cluster.ports(i).0);
        cluster.begin_with(
            i,
            &["--http", &http, "--peer-advertise", &name, "--http-advertise", "gate.example:80"],
        );
    }
    (0..3).for_each(|i| cluster.wait_ready(i));
    for i in 0..3 {
        let member = cluster.member(1, i).unwrap();
        assert_eq!(member["peer"], format!("localhost:{}", cluster.ports(i).1));
        assert_eq!(member["http"], "gate.example:80");
    }
    cluster.assert_whole("t");
}

#[test]
fn a_peer_whose_name_leads_nowhere_is_down_and_comes_back_under_another() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    cluster.stop(2);
    cluster.begin_with(2, &["--peer-advertise", "nowhere.invalid:7171"]);
    // It reaches the others, which can't dial it under that name; its address in the file leads to
    // it.
    wait_ready(&cluster, 2);
    wait_at(&cluster, 0, 2, "nowhere.invalid:7171");
    cluster.stop(2);
    let (http, peer) = cluster.moves(2);
    let listens = [format!("127.0.0.1:{http}"), format!("127.0.0.1:{peer}")];
    let [http, peer] = &listens;
    cluster.begin_with(
        2,
        &["--http", http, "--peer", peer, "--peer-advertise", "nowhere.invalid:7171"],
    );
    until("the others say why it is down", || {
        let breakers = cluster.get(0, "/v1/cluster/breakers").to_string();
        breakers.contains("nowhere.invalid can't be resolved").then_some(())
    });
    assert_eq!(cluster.node(2).call("GET", "/livez", "").status, 200);
    assert!(!is_ready(&cluster, 2));
    cluster.stop(2);
    cluster.begin_with(2, &["--http", http, "--peer", peer]);
    wait_ready(&cluster, 2);
    wait_at(&cluster, 0, 2, peer);
    cluster.assert_whole("t");
}

#[test]
fn a_node_at_a_new_address_is_found_also_where_the_majority_needs_it() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let tenant = cluster.tenant_of(0, 1, "t");
    cluster.check(1, json!({"tenant": tenant, "cost": 60}));
    let begin_elsewhere = |cluster: &mut Cluster, i: usize| {
        let (http, peer) = cluster.moves(i);
        let (http, peer) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{peer}"));
        cluster.begin_with(i, &["--http", &http, "--peer", &peer]);
        peer
    };
    // Two are there: the leader is found, and has its address changed.
    cluster.stop(2);
    let third = begin_elsewhere(&mut cluster, 2);
    wait_ready(&cluster, 2);
    wait_at(&cluster, 0, 2, &third);
    // Without it there is no majority: the one that is left has to dial it where it says that it
    // is.
    cluster.stop(2);
    cluster.kill(1);
    let third = begin_elsewhere(&mut cluster, 2);
    wait_ready(&cluster, 2);
    wait_at(&cluster, 0, 2, &third);
    // One that was away while another moved hears from the third where that is.
    cluster.begin(1);
    wait_ready(&cluster, 1);
    cluster.stop(1);
    cluster.stop(2);
    let second = begin_elsewhere(&mut cluster, 1);
    wait_ready(&cluster, 1);
    let third = begin_elsewhere(&mut cluster, 2);
    wait_ready(&cluster, 2);
    for via in 0..3 {
        wait_at(&cluster, via, 1, &second);
        wait_at(&cluster, via, 2, &third);
    }
    until("what was counted is still known", || {
        let peeked = cluster.call(1, "POST", "/v1/peek", json!({"tenant": tenant}));
        (peeked.status == 200 && peeked.json()["remaining"] == 40).then_some(())
    });
}

#[test]
fn one_line_starts_the_nodes_of_the_list_and_those_that_join_them() {
    let mut cluster = Cluster::unstarted(3, HUNDRED_A_DAY, "", "");
    let via = one_line(&cluster);
    cluster.begin_with(1, &["--join", &via]);
    cluster.begin_with(2, &["--join", &via]);
    // Without the first of the list nothing is formed, and it is said whom they wait for.
    until("they say whom they wait for", || {
        let log = cluster.node(2).process.log();
        (log.contains("waiting for all nodes of the list") && log.contains("n1 (127.0.0.1:"))
            .then_some(())
    });
    assert!(!is_ready(&cluster, 1) && !is_ready(&cluster, 2));
    cluster.begin_with(0, &["--join", &via]);
    (0..3).for_each(|i| cluster.wait_ready(i));
    let numbers: Vec<_> = (0..3).map(|i| cluster.member(0, i).unwrap()["number"].clone()).collect();
    assert_eq!(numbers, [json!(1), json!(2), json!(3)]);
    // The same line starts it again, and one that the list doesn't have joins.
    cluster.stop(1);
    cluster.begin_with(1, &["--join", &via]);
    wait_ready(&cluster, 1);
    assert!(cluster.node(1).process.log().contains("--join is ignored"));
    let line = cluster.joins(3, 0, &[]);
    cluster.start_line(3, &line);
    cluster.wait_seated(3, 0);
    cluster.assert_whole("t");
}

#[test]
fn a_listed_node_that_finds_a_cluster_without_it_joins_it() {
    let mut cluster = Cluster::start(2, HUNDRED_A_DAY);
    // The list has a third, which the cluster was formed without; the URL doesn't answer, the
    // others of the list do.
    cluster.joins(2, 0, &[]);
    cluster.list(&[0, 1, 2]);
    let via = format!("127.0.0.1:{}", cluster.ports(0).0);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let late = proxy.local_addr().unwrap();
    drop(proxy);
    let process = cluster.home().run_words_as(&["serve", "--join", &late.to_string()], "n3");
    until("it hears of the cluster", || {
        process.log().contains("it asks to be admitted").then_some(())
    });
    drop(process);
    let node = cluster.home().run_words_as(&["serve", "--join", &via], "n3").started();
    cluster.put(2, node);
    cluster.wait_seated(2, 0);
    assert!(cluster.member(0, 2).unwrap()["number"].as_u64().unwrap() > 3);
}

#[test]
fn a_node_with_a_lost_disk_is_refused_and_comes_back_as_another_with_rejoin() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let via = one_line(&cluster);
    let wiped = |cluster: &mut Cluster| {
        cluster.kill(2);
        fs::remove_dir_all(cluster.home().path("data/n3")).unwrap();
    };
    wiped(&mut cluster);
    // By the URL, by the list if the URL says nothing, and without --join.
    for join in [Some(via.as_str()), Some("127.0.0.1:1"), None] {
        let words: Vec<_> =
            ["serve"].into_iter().chain(join.map(|_| "--join")).chain(join).collect();
        let mut refused = cluster.home().run_words_as(&words, "n3");
        assert_eq!(refused.end().code(), Some(1), "{}", refused.log());
        let log = refused.log();
        assert!(
            log.contains("--rejoin") && log.contains("tidegate cluster leave n3 --force"),
            "{log}"
        );
    }
    let node = cluster.home().run_words_as(&["serve", "--join", &via, "--rejoin"], "n3").started();
    cluster.put(2, node);
    cluster.wait_seated(2, 0);
    assert!(cluster.member(0, 2).unwrap()["number"].as_u64().unwrap() > 3);
    // The line stays as it is: where there is data, it does nothing but start the node.
    cluster.stop(2);
    cluster.begin_with(2, &["--join", &via, "--rejoin"]);
    wait_ready(&cluster, 2);
    // What the lost disk had counted begins as spent, so that not every check is allowed; each is
    // decided.
    for i in 0..30 {
        until("the check is decided", || {
            let answer = cluster.call(2, "POST", "/v1/check", json!({"tenant": format!("t{i}")}));
            (answer.status == 200).then_some(())
        });
    }
}

#[test]
fn a_node_that_lives_is_not_given_up_for_another_that_has_its_name() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let line = cluster.joins(3, 0, &["--rejoin"]);
    let as_ours: Vec<_> =
        line.iter().map(|word| if word == "n4" { "n2".into() } else { word.clone() }).collect();
    let twin = cluster.run_line(&as_ours);
    until("the leader refuses", || {
        twin.log().contains("n2 was heard of in the last 5s").then_some(())
    });
    assert_eq!(cluster.member(0, 1).unwrap()["state"], "up");
    assert!(!cluster.home().path("data/n4/raft.redb").exists());
}

#[test]
fn nodes_that_lost_their_data_form_no_second_cluster() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let via = one_line(&cluster);
    cluster.stop(0);
    for i in [1, 2] {
        cluster.kill(i);
        fs::remove_dir_all(cluster.home().path(&format!("data/n{}", i + 1))).unwrap();
    }
    for i in [1, 2] {
        cluster.begin_with(i, &["--join", &via]);
    }
    for i in [1, 2] {
        until("it waits for the first", || {
            cluster
                .node(i)
                .process
                .log()
                .contains("waiting for all nodes of the list")
                .then_some(())
        });
    }
    assert!(!is_ready(&cluster, 1) && !is_ready(&cluster, 2));
    // The one that kept its data tells them that theirs is lost, and goes on with none of them.
    cluster.begin(0);
    for i in [1, 2] {
        let (code, log) = cluster.wait_ended(i);
        assert!(code == Some(1) && log.contains("data is lost"), "{code:?}: {log}");
    }
    assert!(!is_ready(&cluster, 0));
}

#[test]
fn a_node_alone_and_a_node_that_joins_start_from_variables() {
    let mut cluster = Cluster::unstarted(2, HUNDRED_A_DAY, "", "");
    let start = |cluster: &Cluster, i: usize, more: &[(&str, String)]| {
        let (http, peer) = cluster.ports(i);
        let mut home = crate::rig::Home::empty();
        for (name, value) in [
            ("TIDEGATE_NODE", format!("n{}", i + 1)),
            ("TIDEGATE_HTTP", format!("localhost:{http}")),
            ("TIDEGATE_HTTP_ADVERTISE", format!("localhost:{http}")),
            ("TIDEGATE_PEER", format!("127.0.0.1:{peer}")),
            ("TIDEGATE_PEER_ADVERTISE", format!("localhost:{peer}")),
            ("TIDEGATE_DATA_DIR", "data".into()),
            ("TIDEGATE_WEIGHT", "2".into()),
        ] {
            home = home.set_variable(name, &value);
        }
        for (name, value) in more {
            home = home.set_variable(name, value);
        }
        home.run_without_file(&[]).started()
    };
    let first = start(&cluster, 0, &[]);
    cluster.put(0, first);
    wait_ready(&cluster, 0);
    let second =
        start(&cluster, 1, &[("TIDEGATE_JOIN", format!("localhost:{}", cluster.ports(0).0))]);
    cluster.put(1, second);
    cluster.wait_seated(1, 0);
    let joined = cluster.member(0, 1).unwrap();
    assert_eq!(joined["peer"], format!("localhost:{}", cluster.ports(1).1));
    assert_eq!(joined["weight"], 2);
}

/// Whether this machine lets a test have a list of hosts of its own.
fn has_own_hosts() -> bool {
    let hosts = "mount --bind /dev/null /etc/hosts";
    let ran =
        Command::new("unshare").args(["-m", "sh", "-c", hosts]).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

#[test]
fn a_name_is_resolved_at_each_dial() {
    if !has_own_hosts() {
        println!("skipped: needs unshare and the rights to mount");
        return;
    }
    let mut cluster = Cluster::unstarted(3, HUNDRED_A_DAY, "", "");
    let folder = cluster.home().path("");
    let hosts = |of_n3: &str| {
        let text = format!("127.0.0.1 n1.test\n127.0.0.1 n2.test\n{of_n3} n3.test\n");
        cluster.home().write("hosts", text.as_bytes());
    };
    hosts("127.0.0.1");
    let config = fs::read_to_string(cluster.home().path("cluster.toml")).unwrap();
    let named = (0..3).fold(config, |config, i| {
        let peer = cluster.ports(i).1;
        config.replace(
            &format!("peer = \"127.0.0.1:{peer}\""),
            &format!("peer = \"n{}.test:{peer}\"", i + 1),
        )
    });
    cluster.home().write("cluster.toml", named.as_bytes());
    // The shell becomes the node, with /etc/hosts of its own.
    let start = |cluster: &Cluster, i: usize, more: &str| {
        let script = format!(
            "mount --bind hosts /etc/hosts && exec {} serve --config cluster.toml --node n{} \
             {more}",
            env!("CARGO_BIN_EXE_tidegate"),
            i + 1
        );
        cluster.home().run_program("unshare", &["-m", "sh", "-c", &script])
    };
    for i in 0..3 {
        let node = start(&cluster, i, "").started();
        cluster.put(i, node);
    }
    (0..3).for_each(|i| cluster.wait_ready(i));
    assert_eq!(cluster.member(0, 2).unwrap()["peer"], format!("n3.test:{}", cluster.ports(2).1));
    cluster.assert_whole("t");
    // The node moves, and only the name server says where to.
    cluster.stop(2);
    let text = fs::read_to_string(folder.join("hosts")).unwrap();
    cluster
        .home()
        .write("hosts", text.replace("127.0.0.1 n3.test", "127.0.0.9 n3.test").as_bytes());
    let elsewhere = format!("--peer 127.0.0.9:{}", cluster.ports(2).1);
    let node = start(&cluster, 2, &elsewhere).started();
    cluster.put(2, node);
    wait_ready(&cluster, 2);
    assert_eq!(cluster.member(0, 2).unwrap()["peer"], format!("n3.test:{}", cluster.ports(2).1));
    cluster.assert_whole("u");
}
