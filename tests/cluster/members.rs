//! Nodes come and go, and each stays who it is.

use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::{Value, json};
use tidegate::check::Name;
use tidegate::net::{Listen as _, PlainListener};
use tidegate::peer::{BootId, Doorstep, Identity, Lineage, VERSIONS};

use crate::harness::{Cluster, HUNDRED_A_DAY};
use crate::moves::{restart, under_traffic};
use crate::rig::until;

/// Name, number and address of every member, as node `i` sees them.
fn members(cluster: &Cluster, i: usize) -> Vec<(String, u64, String)> {
    let nodes = cluster.status(i)["nodes"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let member =
        |node: &Value| (text(&node["id"]), node["number"].as_u64().unwrap(), text(&node["peer"]));
    nodes.as_array().unwrap().iter().map(member).collect()
}

#[test]
fn a_list_in_another_order_changes_nobody_and_nothing_that_was_counted() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
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
        assert_eq!(left["remaining"], 40, "{owner}");
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
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let before = members(&cluster, 0);
    (0..3).for_each(|i| cluster.stop(i));
    cluster.move_away();
    (0..2).for_each(|i| cluster.begin(i));
    // The last comes when the others have caught up with a log that knows its old address alone.
    // They own nothing until then: it was the last to be stopped.
    for i in 0..2 {
        until("the two are ready", || {
            (cluster.node(i).call("GET", "/readyz", "").status == 200).then_some(())
        });
    }
    cluster.begin(2);
    (0..3).for_each(|i| cluster.wait_ready(i));
    let after = members(&cluster, 2);
    assert!(
        after.iter().zip(&before).all(|(after, before)| after.1 == before.1 && after.2 != before.2)
    );
    assert_eq!(members(&cluster, 0), after);
}

#[test]
fn nobody_begins_with_the_data_of_another() {
    let mut cluster = Cluster::start(2, HUNDRED_A_DAY);
    cluster.stop(1);
    let began = |words: &[&str]| {
        let mut process = cluster.home.run_words(words);
        (process.end().code(), process.log())
    };
    std::fs::rename(cluster.home.path("data/n2"), cluster.home.path("data/n3")).unwrap();
    let config = std::fs::read_to_string(cluster.home.path("cluster.toml")).unwrap();
    for (file, cluster_name, node) in [("renamed.toml", "test", "n3"), ("other.toml", "prod", "n2")]
    {
        let config = config.replace("\"n2\"", &format!("{node:?}\ndata_dir = \"data/n3\""));
        let config = config.replace("\"test\"", &format!("{cluster_name:?}"));
        cluster.home.write(file, config.as_bytes());
        let path = cluster.home.path(file);
        let (code, log) = began(&["serve", "--config", path.to_str().unwrap(), "--node", node]);
        let why = format!(
            "the data there is that of n2 of the cluster test (node 2); this is {node} of the \
             cluster {cluster_name} (node 2)"
        );
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&why), "{log}");
    }
}

/// The names of those that vote, as node `via` sees them.
fn voters(cluster: &Cluster, via: usize) -> Vec<String> {
    let nodes = cluster.status(via)["nodes"].clone();
    let voters = nodes.as_array().unwrap().iter().filter(|node| node["voter"] == true);
    voters.map(|node| node["id"].as_str().unwrap().to_string()).collect()
}

fn delete(cluster: &Cluster, via: usize, path: &str) -> (u16, Value) {
    let answer = cluster.call(via, "DELETE", &format!("/v1/cluster/nodes/{path}"), Value::Null);
    (answer.status, answer.json())
}

#[test]
fn a_fourth_node_joins_and_answers_for_the_tenants_of_others() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let tenants: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
    let line = cluster.joins(3, 1, &[]);
    cluster.start_line(3, &line);
    cluster.wait_seated(3, 0);
    let number = cluster.member(0, 3).unwrap()["number"].as_u64().unwrap();
    assert!(number > 3, "{number}");
    for tenant in &tenants {
        assert_eq!(cluster.check(0, json!({"tenant": tenant, "cost": 60}))["remaining"], 40);
        assert_eq!(cluster.check(3, json!({"tenant": tenant}))["remaining"], 39);
    }
    // What is written there is in force everywhere, and the other way round.
    for (writer, reader) in [(3, 0), (0, 3)] {
        let path = format!("/v1/tenants/w{writer}");
        let answer = cluster.call(writer, "PUT", &path, json!({"tier": "free"}));
        assert_eq!(
            (answer.status, &answer.json()["pending"]),
            (200, &json!([])),
            "{}",
            answer.text()
        );
        assert!(cluster.get(reader, "/v1/policy")["tenants"].get(format!("w{writer}")).is_some());
    }
    // Of four nodes three vote.
    assert_eq!(voters(&cluster, 3), ["n1", "n2", "n3"]);
    // The same line starts it again, as who it is, whether or not the cluster can be asked; and so
    // does one without --join.
    let without = line.iter().take_while(|word| *word != "--join").cloned().collect::<Vec<_>>();
    let elsewhere = [&without[..], &["--join".into(), "http://127.0.0.1:1".into()]].concat();
    for line in [&line, &elsewhere, &without] {
        cluster.kill(3);
        cluster.start_line(3, line);
        cluster.wait_seated(3, 0);
        assert_eq!(cluster.member(3, 3).unwrap()["number"], number);
        // What it had counted went with its process, so this one may have to wait; it is decided
        // all the same.
        until("its next life decides", || {
            (cluster.call(3, "POST", "/v1/check", json!({"tenant": tenants[0]})).status == 200)
                .then_some(())
        });
    }
    let audit = cluster.get(2, "/v1/audit").to_string();
    assert!(audit.contains(&format!("admitted n4 as node {number}")), "{audit}");
}

#[test]
fn one_node_grows_to_three_that_vote_and_goes_on_without_the_first() {
    let mut cluster = Cluster::start(1, HUNDRED_A_DAY);
    cluster.join(1, 0);
    let warned = cluster.status(0)["warnings"].to_string();
    assert!(warned.contains("of two nodes one votes"), "{warned}");
    cluster.join(2, 1);
    until("all three vote", || (voters(&cluster, 0) == ["n1", "n2", "n3"]).then_some(()));
    cluster.wait_balanced(0);
    let tenant = cluster.tenant_of(0, 1, "t");
    cluster.check(2, json!({"tenant": tenant, "cost": 60}));
    cluster.kill(0);
    until("one of the others leads", || cluster.status(1)["leader"].is_string().then_some(()));
    let edit = cluster.call(2, "PUT", "/v1/tenants/acme", json!({"tier": "free"}));
    assert_eq!((edit.status, &edit.json()["pending"]), (200, &json!(["n1"])), "{}", edit.text());
    // What it owns can't be handed over any more.
    until("the leader has missed it for a second", || {
        let (status, problem) = delete(&cluster, 1, "n1");
        match status {
            // A little too early; it is called back.
            202 => assert_eq!(delete(&cluster, 1, "n1/drain").0, 200),
            503 => {}
            _ => {
                assert_eq!((status, &problem["type"]), (409, &json!("urn:tidegate:problem:unsafe")))
            }
        }
        problem["detail"]
            .as_str()
            .unwrap_or_default()
            .starts_with("n1 can't be reached, so the ")
            .then_some(())
    });
    let (exit, data, notes) = until("it has been silent for long enough", || {
        let ran = cluster.command(1, &["cluster", "leave", "n1", "--force", "--wait"]);
        assert!([0, 5].contains(&ran.0), "{ran:?}");
        (ran.0 == 0).then_some(ran)
    });
    assert_eq!((exit, data.as_str()), (0, "n1: gone\n"), "{notes}");
    assert!(notes.starts_with("what n1 has counted is lost: its "), "{notes}");
    assert_eq!(voters(&cluster, 1).len(), 1);
    // Its tenants begin as spent, on those who are left: what they had taken nobody knows.
    let decided = until("somebody decides for its tenants", || {
        let answer = cluster.call(1, "POST", "/v1/check", json!({"tenant": tenant}));
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(
        (&decided["allowed"], &decided["remaining"]),
        (&json!(false), &json!(0)),
        "{decided}"
    );
    let owned = cluster.status(2)["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["partitions"].as_u64().unwrap())
        .sum::<u64>();
    assert_eq!(owned, 4096);
    // Back with its old data it hears that it is nobody: by the log, if that was just now, or by
    // the others.
    let mut back = cluster.home.run_as("n1");
    let (code, log) = (back.end().code(), back.log());
    let by_the_log = code == Some(0) && log.contains("this node has left its cluster");
    let by_the_others =
        code == Some(1) && log.contains("n1 of the cluster test (node 1) is no member");
    assert!(by_the_log || by_the_others, "{code:?}: {log}");
}

#[test]
fn a_node_that_leaves_ends_by_itself_and_comes_back_only_as_another() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    cluster.join(3, 0);
    let first = cluster.member(0, 3).unwrap()["number"].as_u64().unwrap();
    cluster.wait_balanced(0);
    let tenants: Vec<_> = (0..4).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
    for tenant in &tenants {
        cluster.check(0, json!({"tenant": tenant, "cost": 60}));
    }
    let (exit, data, notes) = cluster.command(1, &["cluster", "leave", "n4", "--wait"]);
    assert_eq!((exit, data.as_str()), (0, "n4: gone\n"), "{notes}");
    assert!(notes.contains("partitions are to be handed over"), "{notes}");
    for tenant in &tenants {
        assert_eq!(cluster.check(1, json!({"tenant": tenant}))["remaining"], 39);
    }
    let (code, log) = cluster.wait_ended(3);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("this node has left its cluster"), "{log}");
    let line = cluster.joins(3, 0, &[]);
    let mut again = cluster.run_line(&line);
    assert_eq!(again.end().code(), Some(1));
    let why = format!("n4 of the cluster test (node {first}) has left, and its number is spent");
    assert!(again.log().contains(&why), "{}", again.log());
    // With an empty folder it is a new node of the same name.
    std::fs::remove_dir_all(cluster.home.path("data/n4")).unwrap();
    cluster.start_line(3, &line);
    cluster.wait_seated(3, 0);
    let second = cluster.member(0, 3).unwrap()["number"].as_u64().unwrap();
    assert!(second > first, "{first} {second}");
    let audit = cluster.get(2, "/v1/audit");
    let told: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["what"].as_str().unwrap())
        .collect();
    for what in ["is to leave", "removed n4"] {
        assert!(told.iter().any(|told| told.contains(what)), "{what}: {told:?}");
    }
}

#[test]
fn one_joins_one_leaves_and_one_restarts_under_traffic_and_every_tenant_gets_exactly_its_limit() {
    const HUNDRED: &str = r#"
        default_tier = "free"
        [tiers.free]
        limits = [{ name = "hour", algorithm = "token_bucket", rate = "1/24h", burst = 100 }]
    "#;
    let cluster = Mutex::new(Cluster::start(3, HUNDRED));
    let locked = || cluster.lock().unwrap();
    let seen = under_traffic(&cluster, || {
        let line = locked().joins(3, 0, &[]);
        let process = locked().run_line(&line);
        let node = process.started();
        until("the new node may be asked", || {
            (node.call("GET", "/readyz", "").status == 200).then_some(())
        });
        locked().put(3, node);
        until("the new node owns its share", || locked().is_balanced(0).then_some(()));
        // Nobody asks it any more; it decides what it owns until it has handed it over.
        let leaves = locked().take_away(1);
        assert_eq!(delete(&locked(), 0, "n2").0, 202);
        let mut leaves = leaves.process;
        assert_eq!(leaves.end().code(), Some(0), "{}", leaves.log());
        assert!(locked().member(0, 1).is_none() && locked().is_balanced(0));
        restart(&cluster, 2, 0);
    });
    seen.is_exact();
}

#[test]
fn nodes_own_what_their_weights_say_and_nothing_that_was_counted_is_lost_on_the_way() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let tenants: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
    for tenant in &tenants {
        cluster.check(1, json!({"tenant": tenant, "cost": 60}));
    }
    let owned =
        |cluster: &Cluster, i: usize| cluster.member(0, i).map(|node| node["partitions"].clone());
    let (exit, data, notes) = cluster.command(1, &["cluster", "weight", "n3", "2"]);
    assert_eq!((exit, data.as_str()), (0, "n3: weight 2\n"), "{notes}");
    let (line, mut seen) = ("n1 to n3: ", false);
    until("the third owns twice as much", || {
        seen |= cluster.command(0, &["cluster", "status"]).1.contains(line);
        (owned(&cluster, 2) == Some(json!(2048)) && owned(&cluster, 0) == Some(json!(1024)))
            .then_some(())
    });
    assert!(seen, "nobody was shown what moves");
    // Who joins says how much it takes; of weight 0 it owns nothing, and answers.
    let line = cluster.joins(3, 1, &["--weight", "0"]);
    cluster.start_line(3, &line);
    cluster.wait_seated(3, 0);
    let (exit, ..) = cluster.command(3, &["cluster", "weight", "n1", "0"]);
    assert_eq!(exit, 0);
    until("the first owns nothing", || (owned(&cluster, 0) == Some(json!(0))).then_some(()));
    until("nothing moves any more", || (cluster.status(2)["moves"] == json!([])).then_some(()));
    assert_eq!(owned(&cluster, 3), Some(json!(0)));
    for tenant in &tenants {
        assert_eq!(cluster.check(3, json!({"tenant": tenant}))["remaining"], 39);
    }
}

#[test]
fn a_voter_that_is_gone_and_given_up_is_replaced_in_one_change() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    cluster.join(3, 0);
    cluster.wait_balanced(0);
    let tenant = cluster.tenant_of(1, 0, "t");
    cluster.check(0, json!({"tenant": tenant, "cost": 60}));
    cluster.kill(1);
    let (exit, _, notes) = until("it has been silent for long enough", || {
        let ran = cluster.command(3, &["cluster", "leave", "n2", "--force", "--wait"]);
        assert!([0, 1, 5].contains(&ran.0), "{ran:?}");
        (ran.0 == 0).then_some(ran)
    });
    assert_eq!(exit, 0, "{notes}");
    assert_eq!(voters(&cluster, 0), ["n1", "n3", "n4"]);
    let decided = until("somebody decides for its tenants", || {
        let answer = cluster.call(3, "POST", "/v1/check", json!({"tenant": tenant}));
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(
        (&decided["allowed"], &decided["remaining"]),
        (&json!(false), &json!(0)),
        "{decided}"
    );
    // Two of the new three are a majority.
    cluster.kill(0);
    until("one of the others leads", || cluster.status(3)["leader"].is_string().then_some(()));
    let edit = cluster.call(3, "PUT", "/v1/tenants/acme", json!({"tier": "free"}));
    assert_eq!(edit.status, 200, "{}", edit.text());
}

#[test]
fn what_would_cost_the_majority_or_what_was_counted_is_refused() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let unsafe_now = |cluster: &Cluster, via: usize, words: &[&str], why: &str| {
        let (exit, data, notes) = cluster.command(via, words);
        assert_eq!((exit, data.as_str()), (5, ""), "{words:?}: {notes}");
        assert!(notes.contains(why), "{notes}");
    };
    let live = "n2 was heard of in the last 5s: it can hand over what it has counted";
    unsafe_now(&cluster, 2, &["cluster", "leave", "n2", "--force"], live);
    // What is drained is shown, and called back.
    for node in ["n1", "n2"] {
        let (exit, data, notes) = cluster.command(0, &["cluster", "drain", node]);
        assert!(exit == 0 && data.starts_with(&format!("{node}: draining, ")), "{data}{notes}");
    }
    let last = "n3 is the last node that may own partitions";
    unsafe_now(&cluster, 1, &["cluster", "drain", "n3"], last);
    unsafe_now(&cluster, 1, &["cluster", "leave", "n3"], last);
    for node in ["n1", "n2"] {
        let (exit, data, notes) = cluster.command(2, &["cluster", "drain", node, "--end"]);
        assert!(exit == 0 && data.starts_with(&format!("{node}: up, ")), "{data}{notes}");
    }
    let leader = cluster.status(0)["leader"].as_str().unwrap().to_string();
    let dead = if leader == "n2" { 2 } else { 1 };
    let other = if leader == "n1" { "n3" } else { "n1" };
    cluster.kill(dead);
    until("the leader misses it", || {
        let via = (0..3).find(|i| *i != dead).unwrap();
        let (exit, _, notes) = cluster.command(via, &["cluster", "leave", other]);
        // A little too early it would be fine; then it is called back.
        if exit == 0 {
            cluster.command(via, &["cluster", "drain", other, "--end"]);
        }
        notes.contains("the cluster can't do without the vote of").then_some(())
    });
}

#[test]
fn whoever_is_not_there_or_not_new_is_not_admitted() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let admit = |body: Value| {
        let answer = cluster.call(1, "POST", "/v1/cluster/nodes", body);
        (answer.status, answer.json())
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (status, problem) = admit(json!({"id": "n4", "http": "127.0.0.1:1", "peer": nobody}));
    let why = format!("n4 does not answer at {nobody}: ");
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().starts_with(&why), "{problem}");
    assert_eq!(problem["errors"][0]["path"], "peer");
    // Somebody else's door is no peer of ours, nor is another member.
    let door = cluster.node(0).addr;
    assert_eq!(admit(json!({"id": "n4", "http": "127.0.0.1:1", "peer": door})).0, 422);
    let taken = cluster.member(0, 2).unwrap()["peer"].clone();
    let (status, problem) = admit(json!({"id": "n4", "http": "127.0.0.1:1", "peer": taken}));
    assert!(
        status == 422 && problem["detail"].to_string().contains("is the peer address of n3"),
        "{problem}"
    );
    let far = json!({"id": "n4", "http": "127.0.0.1:1", "peer": "192.0.2.1:7171"});
    let (status, problem) = admit(far);
    assert!(status == 422 && problem["detail"].to_string().contains("loopback"), "{problem}");
    assert_eq!(cluster.status(0)["nodes"].as_array().unwrap().len(), 3);
    // Nor a process that calls itself as a member, or is told nonsense.
    let line = cluster.joins(3, 0, &[]);
    let as_ours: Vec<_> =
        line.iter().map(|word| if word == "n4" { "n2".into() } else { word.clone() }).collect();
    let mut twin = cluster.run_line(&as_ours);
    assert_eq!(twin.end().code(), Some(1));
    assert!(twin.log().contains("n2 is a member already, as node 2"), "{}", twin.log());
    for (without, why) in [("--node", "says with --node"), ("--peer", "says with --peer")] {
        let at = line.iter().position(|word| word == without).unwrap();
        let mut short = line.clone();
        short.drain(at..at + 2);
        let mut process = cluster.run_line(&short);
        assert_eq!(process.end().code(), Some(2), "{}", process.log());
        assert!(process.log().contains(why), "{}", process.log());
    }
    assert_eq!(cluster.status(0)["nodes"].as_array().unwrap().len(), 3);
}

#[test]
fn a_node_whose_data_is_lost_does_not_begin_anew_in_its_own_place() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.home.path("data/n3")).unwrap();
    let mut lost = cluster.home.run_as("n3");
    assert_eq!(lost.end().code(), Some(1), "{}", lost.log());
    assert!(
        lost.log()
            .contains("n3 of the cluster test (node 3) was there before, and its data is lost"),
        "{}",
        lost.log()
    );
    // Given up, and admitted under another number, it is there again.
    until("it has been silent for long enough", || {
        (cluster.command(0, &["cluster", "leave", "n3", "--force", "--wait"]).0 == 0).then_some(())
    });
    std::fs::remove_dir_all(cluster.home.path("data/n3")).unwrap();
    cluster.join(2, 1);
    assert!(cluster.member(0, 2).unwrap()["number"].as_u64().unwrap() > 3);
    until("all three vote", || (voters(&cluster, 2) == ["n1", "n2", "n3"]).then_some(()));
}

#[test]
fn a_node_that_is_only_added_to_the_file_is_told_to_ask() {
    let mut cluster = Cluster::start(2, HUNDRED_A_DAY);
    cluster.joins(2, 0, &[]);
    cluster.list(&[0, 1, 2]);
    let mut added = cluster.home.run_as("n3");
    assert_eq!(added.end().code(), Some(1), "{}", added.log());
    assert!(
        added.log().contains("n3 of the cluster test (node 3) is no member"),
        "{}",
        added.log()
    );
    assert!(added.log().contains("--join"), "{}", added.log());
    // Its line in the file and --join go together.
    let url = format!("http://{}", cluster.node(0).addr);
    let node = cluster.home.run_words_as(&["serve", "--join", &url], "n3").started();
    cluster.put(2, node);
    cluster.wait_seated(2, 0);
}

/// Stands on the doorstep of a node `n4` of the cluster `test` while `look` runs, which hears where
/// that is.
fn on_a_doorstep<T: Send>(look: impl FnOnce(SocketAddr) -> T + Send) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut listener = runtime.block_on(PlainListener::bind(([127, 0, 0, 1], 0).into())).unwrap();
    let at = listener.local_addr().unwrap();
    let name = |text| Name::new(text).unwrap();
    let us = Identity {
        cluster: name("test"),
        node: name("n4"),
        boot: BootId(1),
        versions: VERSIONS,
        lineage: Lineage::default(),
        level: tidegate::placement::FormatLevel::OWN,
    };
    let (done, is_done) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        let looking = scope.spawn(move || (look(at), done.send(())).0);
        runtime.block_on(async {
            tokio::select! {
                () = Doorstep::new(&mut listener, us).greet() => unreachable!(),
                _ = is_done => {}
            }
        });
        looking.join().unwrap()
    })
}

#[test]
fn whoever_was_admitted_and_never_came_may_ask_again_and_can_be_let_go() {
    let cluster = Cluster::start(1, HUNDRED_A_DAY);
    let numbers = on_a_doorstep(|peer| {
        let body = json!({"id": "n4", "http": "127.0.0.1:7", "peer": peer});
        let admit = |body: &Value| cluster.call(0, "POST", "/v1/cluster/nodes", body.clone());
        let (first, again) = (admit(&body), admit(&body));
        assert_eq!((first.status, again.status), (201, 200), "{} {}", first.text(), again.text());
        assert_eq!(first.json(), again.json());
        // Before it was ever there it may turn up at another address, as containers do.
        let elsewhere = admit(&json!({"id": "n4", "http": "127.0.0.1:8", "peer": peer}));
        assert_eq!(elsewhere.status, 200, "{}", elsewhere.text());
        assert_eq!(elsewhere.json()["number"], first.json()["number"]);
        let moved = cluster.member(0, 3).unwrap();
        assert_eq!((&moved["http"], &moved["boot"]), (&json!("127.0.0.1:8"), &Value::Null));
        let (status, left) = delete(&cluster, 0, "n4");
        assert_eq!(status, 202, "{left}");
        until("it is let go", || cluster.member(0, 3).is_none().then_some(()));
        [first, admit(&body)].map(|answer| answer.json()["number"].as_u64().unwrap())
    });
    assert!(numbers[0] < numbers[1], "{numbers:?}");
    let (status, problem) = delete(&cluster, 0, "n1");
    assert!(
        status == 409
            && problem["detail"]
                == "n1 is the last node that may own partitions: nobody could decide",
        "{problem}"
    );
}

#[test]
fn a_node_that_joins_gets_the_tokens_and_needs_one_to_get_in() {
    let auth = "[auth]\nadmin_tokens = [\"open-sesame-for-all\"]\nread_tokens = \
                [\"open-sesame-to-see\"]\n";
    let mut cluster = Cluster::with_auth(1, HUNDRED_A_DAY, auth, "open-sesame-for-all");
    for (token, status) in [("open-sesame-to-see", 403), ("nonsense", 401)] {
        let line = cluster.joins(1, 0, &["--token", token]);
        let mut refused = cluster.run_line(&line);
        assert_eq!(refused.end().code(), Some(1), "{}", refused.log());
        assert!(refused.log().contains(&format!("(HTTP {status})")), "{}", refused.log());
    }
    let line = cluster.joins(1, 0, &["--token", "open-sesame-for-all"]);
    cluster.start_line(1, &line);
    cluster.wait_seated(1, 0);
    let ask = |token: &[(&str, &str)], method: &str| {
        let body: &[u8] = if method == "PUT" { br#"{"tier":"free"}"# } else { b"" };
        cluster.node(1).connect().call(method, "/v1/tenants/acme", token, body).status
    };
    let bearer = |token: &'static str| [("authorization", token)];
    assert_eq!(ask(&[], "GET"), 401);
    assert_eq!(ask(&bearer("Bearer open-sesame-to-see"), "GET"), 200);
    assert_eq!(ask(&bearer("Bearer open-sesame-to-see"), "PUT"), 403);
    assert_eq!(ask(&bearer("Bearer open-sesame-for-all"), "PUT"), 200);
    // Without the secret in anything that was written down.
    let kept = std::fs::read(cluster.home.path("data/n2/raft.redb")).unwrap();
    let holds = |secret: &str| kept.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(holds("admin-1") && !holds("sesame"));
}
