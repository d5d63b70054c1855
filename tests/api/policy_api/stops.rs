//! What survives a stop and a crash.

use serde_json::json;

use super::POLICY;
use crate::support::{Setup, document, limit, log, node, version};

/// A limit that tenants share, beside the policy above.
fn shared() -> String {
    format!("limits = [{}]\n{POLICY}", log("per-ip", r#"["ip"]"#, 50))
}

#[test]
fn after_a_graceful_stop_the_policy_and_what_was_spent_are_there_again() {
    let node = Setup::policy(&shared()).section("[limits]\nworkers = 3").start();
    node.put("/v1/tenants/globex", json!({"tier": "pro"})).version();
    for i in 0..20 {
        node.check(json!({"tenant": format!("t{i}"), "cost": i + 1, "ip": "192.0.2.1"}));
    }
    let spent = node.check(json!({"tenant": "globex", "cost": 30, "ip": "192.0.2.2"}));
    assert_eq!(spent["allowed"], true);
    let (before, left) = (
        document(&node),
        node.get("/v1/tenants/t4").json()["state"]["limits"][0]["remaining"].clone(),
    );
    let node = node.stop().start();
    assert_eq!((version(&node), document(&node)), (2, before));
    assert_eq!(node.get("/v1/tenants/t4").json()["state"]["limits"][0]["remaining"], left);
    let again = node.peek(json!({"tenant": "globex", "ip": "192.0.2.2"}));
    assert_eq!(
        (&limit(&again, "log")["remaining"], &limit(&again, "per-ip")["remaining"]),
        (&json!(970), &json!(20))
    );
}

#[test]
fn what_was_spent_is_found_again_by_another_number_of_workers() {
    let node = Setup::policy(&shared()).section("[limits]\nworkers = 1").start();
    let check =
        |i: u64| json!({"tenant": format!("t{i}"), "cost": i + 1, "ip": format!("192.0.2.{i}")});
    for i in 0..20 {
        assert_eq!(node.check(check(i))["allowed"], true);
    }
    let place = node.stop();
    let config = std::fs::read_to_string(place.file("cluster.toml")).unwrap();
    std::fs::write(place.file("cluster.toml"), config.replace("workers = 1", "workers = 4"))
        .unwrap();
    let node = place.start();
    for i in 0..20 {
        let left = node.peek(check(i));
        assert_eq!(limit(&left, "log")["remaining"], 99 - i);
        assert_eq!(limit(&left, "per-ip")["remaining"], 49 - i);
    }
}

#[test]
fn the_policy_survives_a_kill_9_right_after_each_answer() {
    let mut node = node(POLICY);
    for round in 1..=5 {
        let version = node.put(&format!("/v1/tenants/t{round}"), json!({"tier": "pro"})).version();
        let before = document(&node);
        node = node.kill().start();
        let answer = node.get("/v1/policy");
        assert_eq!(
            (answer.header("etag"), answer.json()),
            (format!("\"{version}\"").as_str(), before)
        );
        assert_eq!(node.check(json!({"tenant": format!("t{round}")}))["tier"], "pro");
    }
}

#[test]
fn the_policy_file_is_read_at_the_very_first_start_only() {
    let node = node(POLICY);
    node.put("/v1/tiers/gold", json!({})).version();
    let place = node.stop();
    std::fs::write(place.file("policy.toml"), "this is not even TOML").unwrap();
    let node = place.start();
    assert_eq!(version(&node), 2);
    assert_eq!(node.get("/v1/tiers/gold").status, 200);
}

#[test]
fn a_policy_file_with_faults_is_refused_at_the_start_with_all_of_them() {
    let place =
        Setup::policy("default_tier = \"gold\"\ntires = 1\n[tiers.pro]\nmax_concurrent = 0\n")
            .place();
    let (code, stderr) = place.refuse();
    assert_eq!(code, 2, "{stderr}");
    for path in ["tires: ", "tiers.pro.max_concurrent: "] {
        assert!(stderr.contains(path), "{stderr}");
    }
}

#[test]
fn a_second_process_on_the_same_data_exits_1_and_says_why() {
    let first = node(POLICY);
    let data = first.file("data/n1");
    let second = Setup::policy(POLICY).place();
    let config = std::fs::read_to_string(second.file("cluster.toml")).unwrap();
    let config = config
        .replace("id = \"n1\"", &format!("id = \"n1\"\ndata_dir = {:?}", data.to_str().unwrap()));
    std::fs::write(second.file("cluster.toml"), config).unwrap();
    let (code, stderr) = second.refuse();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("in use by another process"), "{stderr}");
    assert_eq!(first.check(json!({"tenant": "acme"}))["allowed"], true);
}

#[test]
fn a_second_process_on_the_same_port_exits_1_and_says_why() {
    let first = node(POLICY);
    let (code, stderr) = Setup::policy(POLICY).http(&first.http.to_string()).place().refuse();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&format!("can't listen on {}", first.http)), "{stderr}");
}
