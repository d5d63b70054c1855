//! Bounds of size and of time, and how many connections there may be.

use std::time::Duration;

use super::{CHECK, chunk, chunked, spent, start, still_serves};
use crate::rig::{self, Wire, head, instant};

#[test]
fn a_body_over_its_cap_is_refused_whether_its_length_is_told_or_not() {
    let node = start("body_bytes = 2048\nbatch_body_bytes = 4096\npolicy_body_bytes = 8192");
    for (method, path, most) in [
        ("POST", "/v1/check", 2048),
        ("POST", "/v1/peek", 2048),
        ("POST", "/api/check_and_consume", 2048),
        ("POST", "/v1/permits/p00000000000000000000000000000000000/renew", 2048),
        ("POST", "/v1/check/batch", 4096),
        ("PUT", "/v1/tenants/x", 4096),
        ("PUT", "/v1/policy", 8192),
    ] {
        // Nothing of the body needs to come.
        for declared in [most + 1, 1 << 40] {
            let answer = node.connect().ask(head(method, path, &[], declared)).unwrap();
            answer.problem(413);
        }
        let mut wire = node.connect();
        wire.send(chunked(method, path)).unwrap();
        for _ in 0..most / 1024 {
            wire.send(chunk(&[b' '; 1024])).unwrap();
        }
        wire.ask(chunk(b" ")).unwrap().problem(413);
    }
    assert_eq!(spent(&node, "acme"), 0);
    // Up to the cap a body is read.
    let body = format!("{CHECK}{}", " ".repeat(2048 - CHECK.len()));
    assert_eq!(node.call("POST", "/v1/check", &body).status, 200);
    let mut wire = node.connect();
    wire.send(chunked("POST", "/v1/check")).unwrap();
    wire.send(chunk(&body.as_bytes()[..7])).unwrap();
    wire.send(chunk(&body.as_bytes()[7..])).unwrap();
    assert_eq!(wire.ask("0\r\n\r\n").unwrap().status, 200);
    assert_eq!(spent(&node, "acme"), 2);
}

#[test]
fn a_batch_of_more_than_a_thousand_checks_is_refused_whole() {
    let node = start("");
    let batch = |count: usize| {
        let checks = vec![CHECK; count].join(",");
        node.call("POST", "/v1/check/batch", format!(r#"{{"checks":[{checks}]}}"#))
    };
    batch(1_001).problem(413);
    assert_eq!(spent(&node, "acme"), 0);
    let answer = batch(1_000).json();
    assert_eq!(answer["decisions"].as_array().unwrap().len(), 1_000);
    assert_eq!(spent(&node, "acme"), 1_000);
}

#[test]
fn a_head_over_its_cap_is_refused() {
    let node = start("");
    let padded = |bytes: usize| head("GET", "/livez", &[("x-padding", &"x".repeat(bytes))], 0);
    assert_eq!(node.connect().ask(padded(15 << 10)).unwrap().status, 200);
    assert_eq!(node.connect().ask(padded(16 << 10)).unwrap().status, 431);
    // Whoever is at it still when he is refused hears so, and isn't reset. However much comes, no
    // more is kept.
    for _ in 0..20 {
        assert_eq!(node.connect().ask(padded(500 << 10)).unwrap().status, 431);
    }
    let answer = node.connect().ask(padded(4 << 20));
    assert!(answer.is_none_or(|answer| answer.status == 431));

    let numbered = |count: usize| {
        // Beside `host` and `content-length`.
        let names: Vec<_> = (0..count - 2).map(|i| format!("x-{i}")).collect();
        let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        head("GET", "/livez", &headers, 0)
    };
    assert_eq!(node.connect().ask(numbered(64)).unwrap().status, 200);
    assert_eq!(node.connect().ask(numbered(65)).unwrap().status, 431);

    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(70_000));
    assert!([414, 431].contains(&node.connect().ask(path).unwrap().status));
    still_serves(&node);
}

#[test]
fn a_head_that_trickles_in_is_cut_off_when_its_time_is_up() {
    let node = start("header_ms = 600\nidle_ms = 60000");
    let trickle = |wire: &mut Wire| {
        let start = instant();
        for byte in head("GET", "/livez", &[], 0).bytes().take(60).cycle() {
            if wire.is_closed() || wire.send([byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            assert!(instant() - start < rig::PATIENCE);
        }
        let took = instant() - start;
        assert!(took >= Duration::from_millis(600), "{took:?}");
    };
    trickle(&mut node.connect());
    // Also on a connection that has behaved so far.
    let mut wire = node.connect();
    assert_eq!(wire.call("POST", "/v1/check", &[], CHECK.as_bytes()).status, 200);
    trickle(&mut wire);
    still_serves(&node);
}

#[test]
fn a_body_that_trickles_in_is_answered_408() {
    let node = start("body_ms = 600");
    for (method, path) in
        [("POST", "/v1/check"), ("POST", "/v1/check/batch"), ("PUT", "/v1/policy")]
    {
        let mut wire = node.connect();
        let start = instant();
        wire.send(head(method, path, &[], 100)).unwrap();
        for byte in b"{\"tenant\"" {
            let _ = wire.send([*byte]);
            std::thread::sleep(Duration::from_millis(100));
        }
        wire.answer().unwrap().problem(408);
        assert!(instant() - start >= Duration::from_millis(600));
        wire.wait_closed();
    }
    assert_eq!(spent(&node, "acme"), 0);
}

#[test]
fn a_connection_is_closed_after_idling_and_never_while_it_works() {
    let node = start("idle_ms = 1500\nheader_ms = 1500\nbody_ms = 60000");
    let mut silent = node.connect();
    let mut used = node.connect();
    assert_eq!(used.call("POST", "/v1/check", &[], CHECK.as_bytes()).status, 200);
    // Busy with a body for three times as long as it might be idle.
    let mut slow = node.connect();
    slow.send(head("POST", "/v1/check", &[], CHECK.len())).unwrap();
    let mut regular = node.connect();
    for i in 0..45 {
        assert_eq!(regular.call("GET", "/livez", &[], b"").status, 200, "round {i}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(slow.ask(CHECK).unwrap().status, 200);
    for wire in [&mut silent, &mut used] {
        let waited = wire.wait_closed();
        assert!(waited < Duration::from_secs(10), "{waited:?}");
    }
}

#[test]
fn a_caller_that_reads_nothing_is_closed_too() {
    let node = start("idle_ms = 1000\nheader_ms = 1000");
    let mut deaf = node.connect();
    // Far more answers than the buffers of a connection hold.
    let one = head("GET", "/v1/policy", &[], 0);
    let start = instant();
    while deaf.send(one.repeat(100)).is_ok() {
        assert!(instant() - start < rig::PATIENCE, "it may send for ever");
    }
    still_serves(&node);
}

#[test]
fn beyond_the_cap_a_connection_is_closed_at_once_and_the_others_go_on() {
    let node = start("connections = 20");
    let mut inside: Vec<_> = (0..20).map(|_| node.connect()).collect();
    for wire in &mut inside {
        assert_eq!(wire.call("GET", "/livez", &[], b"").status, 200);
    }
    for _ in 0..50 {
        let waited = node.connect().wait_closed();
        assert!(waited < Duration::from_secs(10), "{waited:?}");
    }
    for wire in &mut inside {
        let answer = wire.call("POST", "/v1/check", &[], CHECK.as_bytes());
        assert_eq!(answer.json()["allowed"], true);
    }
    // Whoever leaves makes room.
    inside.pop();
    rig::until("a place", || {
        let answer = node.connect().ask(head("GET", "/livez", &[], 0));
        answer.filter(|answer| answer.status == 200)
    });
}

#[test]
fn two_hundred_trickling_connections_disturb_no_good_caller() {
    let node = start("header_ms = 60000\nbody_ms = 60000");
    let mut slow: Vec<_> = (0..200).map(|_| node.connect()).collect();
    for (i, wire) in slow.iter_mut().enumerate() {
        match i % 2 {
            0 => wire.send("POST /v1/check HTTP/1.1\r\nx: ").unwrap(),
            _ => wire.send(head("POST", "/v1/check", &[], 10_000)).unwrap(),
        }
    }
    let mut good = node.connect();
    let mut waits = Vec::new();
    for _ in 0..20 {
        slow.iter_mut().for_each(|wire| wire.send(" ").unwrap());
        for _ in 0..10 {
            let asked = instant();
            let answer = good.call("POST", "/v1/check", &[], CHECK.as_bytes());
            waits.push(instant() - asked);
            assert_eq!(answer.json()["allowed"], true);
        }
    }
    waits.sort();
    assert!(waits[waits.len() / 2] < Duration::from_millis(250), "{waits:?}");
    still_serves(&node);
}
