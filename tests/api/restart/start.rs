//! A node that starts: when it says that it is ready, and what it says where it can't.

use std::os::unix::net::UnixDatagram;

use super::{CHECK, POLICY};
use crate::rig::{self, Home, PATIENCE};

/// Runs the program to its end, which has to be `code`, and answers what it said of it.
fn fails(home: &Home, code: i32) -> String {
    let mut process = home.run();
    let status = process.end();
    let log = process.log();
    assert_eq!(status.code(), Some(code), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let log = fails(&home, 1);
    let data = home.path("data").display().to_string();
    assert!(log.contains(&format!("the data directory {data} is in use")), "{log}");
    assert_eq!(node.check(CHECK)["remaining"], 4);
    // The one that was refused has taken nothing along.
    node.stop();
    assert_eq!(home.start().check(CHECK)["remaining"], 3);
}

#[test]
fn a_second_process_on_the_same_port_is_refused_and_the_first_goes_on() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let other = Home::new(POLICY, "");
    other.configure(&node.addr.to_string(), "data", "");
    let log = fails(&other, 1);
    assert!(log.contains(&format!("can't listen on {}", node.addr)), "{log}");
    assert!(log.contains("in use"), "{log}");
    // It is told before the log is opened.
    assert!(!other.path("data").exists());
    assert_eq!(node.check(CHECK)["remaining"], 4);
}

#[test]
fn the_first_check_after_a_node_says_that_it_is_ready_is_decided() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for start in 0..20 {
        let home = Home::new(POLICY, "");
        home.configure(&port.to_string(), "data", "");
        let mut process = home.run();
        let answer = rig::until("it says ready", || {
            assert!(process.is_running(), "{}", process.log());
            let mut wire = rig::Wire::to(port).ok()?;
            let ready = wire.call("GET", "/readyz", &[], b"");
            let check = wire.call("POST", "/v1/check", &[], CHECK.as_bytes());
            // One that was asked before may have waited for the start, and is decided too.
            assert!(ready.status == 503 || check.status == 200, "start {start}: {}", check.text());
            (ready.status == 200).then_some(check)
        });
        // Checks before it may have waited for the start and taken all that there was.
        assert!(answer.json()["allowed"].is_boolean(), "start {start}: {}", answer.text());
    }
}

#[test]
fn damaged_counts_are_refused_by_name_and_kept() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    assert_eq!(node.check(CHECK)["remaining"], 4);
    node.stop();
    let path = home.path("data/counts.state");
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (damaged, why) in [
        (flipped, "the checksum differs"),
        (good[..20].to_vec(), "too short"),
        (good[..good.len() - 1].to_vec(), "the checksum differs"),
        (Vec::new(), "too short"),
        (vec![b'x'; 100], "not a state file of this version"),
    ] {
        std::fs::write(&path, &damaged).unwrap();
        let log = fails(&home, 1);
        assert!(log.contains("can't load the saved counts"), "{log}");
        assert!(log.contains(&format!("{}: {why}", path.display())), "{log}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(home.start().check(CHECK)["remaining"], 3);
}

#[test]
fn a_damaged_log_is_refused() {
    let home = Home::new(POLICY, "");
    home.start().stop();
    let path = home.path("data/raft.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.iter_mut().take(4_096).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, bytes).unwrap();
    let log = fails(&home, 1);
    assert!(log.contains("can't open the log"), "{log}");
}

#[test]
fn every_fault_of_the_configuration_is_told_and_the_exit_is_2() {
    let home = Home::new(POLICY, "");
    home.write(
        "cluster.toml",
        br#"
        environment = "pro duction"
        colour = "red"
        [[nodes]]
        id = "n1"
        http = "localhost"
        [[nodes]]
        id = "n1"
        http = "127.0.0.1:0"
        [limits]
        body_bytes = 7
        hedaer_ms = 5
        connections = -1
        workers = 1.5
        [auth]
        admin_tokens = ["env:TIDEGATE_TEST_UNSET", "canary with spaces"]
        "#,
    );
    let log = fails(&home, 2);
    for fault in [
        "environment: ",
        "colour: unknown member",
        "nodes[0].http: ",
        "nodes[0].peer: is required where there are several nodes",
        "nodes[1].http: port 0 is for a node alone",
        "limits.body_bytes: ",
        "limits.hedaer_ms: unknown member; did you mean header_ms?",
        "limits.connections: ",
        "limits.workers: ",
        "auth.admin_tokens[0]: the environment variable TIDEGATE_TEST_UNSET is not set",
        "auth.admin_tokens[1]: ",
    ] {
        assert!(log.contains(&format!("\n  {fault}")), "{fault} isn't in {log}");
    }
    assert!(!log.contains("canary"), "{log}");

    for (config, fault) in [
        (&b"[[nodes]]\nid = \"n2\"\nhttp = \"127.0.0.1:0\""[..], "nodes: there is no node n1"),
        (b"[[nodes]]\nid = \"n1\"\nhttp = \"0.0.0.0:0\"", "nodes[0].http: "),
        (b"[[nodes]]\nid = \"n1\"\nhttp = \"127.0.0.1:0\"\n[auth]", "auth: has no token"),
        (b"nodes = []", "nodes: lists no node"),
        (b"", "nodes: is required"),
        (b"nodes = ", "not TOML"),
        (b"\xff", "not UTF-8"),
        // A slip beside a secret.
        (b"[auth]\nadmin_tokens = [\"canary\", ,]", "not TOML"),
        (b"[auth]\nadmin_tokens = [\"canary]", "not TOML"),
    ] {
        home.write("cluster.toml", config);
        let log = fails(&home, 2);
        assert!(log.contains(fault), "{fault} isn't in {log}");
        assert!(!log.contains("canary"), "{log}");
    }
    std::fs::remove_file(home.path("cluster.toml")).unwrap();
    let log = fails(&home, 2);
    assert!(log.contains("cluster.toml"), "{log}");
    assert!(!home.path("data").exists());
}

#[test]
fn every_fault_of_the_first_policy_is_told_and_the_exit_is_2() {
    let home = Home::new(
        r#"
        default_tier = "gold"
        [tiers.pro]
        max_concurrent = 0
        limits = [{ name = "rate", algorithm = "fixed_window", limit = 1, window = "5 mins" }]
        [tenants.acme]
        tier = "iron"
        "#,
        "",
    );
    let log = fails(&home, 2);
    for fault in [
        "tiers.pro.max_concurrent: ",
        "tiers.pro.limits[0].window: ",
        "default_tier: there is no tier gold",
        "tenants.acme.tier: there is no tier iron",
    ] {
        assert!(log.contains(&format!("\n  {fault}")), "{fault} isn't in {log}");
    }
    std::fs::remove_file(home.path("policy.toml")).unwrap();
    let log = fails(&home, 2);
    assert!(log.contains("policy.toml"), "{log}");
    // A first start that failed leaves nothing that a second would trip over.
    home.write("policy.toml", POLICY.as_bytes());
    assert_eq!(home.start().check(CHECK)["remaining"], 4);
}

#[test]
fn systemd_hears_when_a_node_is_ready_and_when_it_stops() {
    let home = Home::new(POLICY, "");
    let path = home.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut said = [0; 512];
        let length = manager.recv(&mut said).unwrap();
        String::from_utf8(said[..length].to_vec()).unwrap()
    };
    let node = home.set_variable("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    let mut said = hear();
    while said != "READY=1\n" {
        assert!(said.starts_with("STATUS="), "{said}");
        said = hear();
    }
    assert_eq!(node.call("GET", "/readyz", "").status, 200);
    let (status, log) = node.stop();
    assert!(status.success(), "{log}");
    let mut said = hear();
    while said.starts_with("STATUS=") {
        said = hear();
    }
    assert_eq!(said, "STOPPING=1\nSTATUS=stopping\n");
}
