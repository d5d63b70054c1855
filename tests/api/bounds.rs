//! The door bounds what a caller may send, how slowly, and over how many connections; good callers
//! don't notice the others.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::rig::{self, Home, Node, Wire, head, instant};

const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "rate", algorithm = "fixed_window", limit = 100000, window = "520w" }]
"#;

const CHECK: &str = r#"{"tenant":"acme"}"#;

fn start(limits: &str) -> Node {
    Home::new(POLICY, &format!("[limits]\n{limits}")).start()
}

/// A good check on a connection of its own is answered.
fn still_serves(node: &Node) {
    assert_eq!(node.check(CHECK)["allowed"], true);
}

fn spent(node: &Node, tenant: &str) -> u64 {
    let answer = node.call("POST", "/v1/peek", json!({"tenant": tenant}).to_string());
    100_000 - answer.json()["remaining"].as_u64().unwrap()
}

/// A head that leaves the length of the body to its chunks.
fn chunked(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

// -------------------------------------------------------------------------------------------------------------
// sizes

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

// -------------------------------------------------------------------------------------------------------------
// times

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

// -------------------------------------------------------------------------------------------------------
// connections

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

// ---------------------------------------------------------------------------------------------------------
// HTTP/1.1

/// Sends bytes that two parsers could read differently, with a check for `smuggled` behind them.
fn is_refused(node: &Node, what: &str, bytes: &[u8]) {
    let mut wire = node.connect();
    let first = wire.ask(bytes);
    if let Some(answer) = first {
        assert!(
            [400, 501, 505].contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
    }
    // And nothing that follows on the connection is taken for a request.
    let _ = wire.send(smuggled());
    assert!(wire.answer().is_none(), "{what}: a second answer");
    assert_eq!(spent(node, "smuggled"), 0, "{what}");
}

fn smuggled() -> String {
    let body = r#"{"tenant":"smuggled"}"#;
    head("POST", "/v1/check", &[], body.len()) + body
}

fn with_headers(headers: &str) -> Vec<u8> {
    let body = r#"{"tenant":"smuggled"}"#;
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    format!("POST /v1/check HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{chunks}").into_bytes()
}

#[test]
fn a_length_that_is_told_twice_or_wrongly_is_refused() {
    let node = start("");
    for headers in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5 5",
        "content-length: 5;q=1",
        "content-length:",
        "content-length: 99999999999999999999",
        "content-length: \u{665}",
        "transfer-encoding: identity",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    ] {
        is_refused(&node, headers, &with_headers(headers));
    }
}

#[test]
fn a_length_and_chunks_together_are_refused() {
    let node = start("");
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: Chunked",
        "content-length: 5\r\ntransfer-encoding: identity, chunked",
    ] {
        is_refused(&node, headers, &with_headers(headers));
    }
    // Also behind good requests, whether they came at the same time or before.
    let both = with_headers("content-length: 5\r\ntransfer-encoding: chunked");
    let good = head("POST", "/v1/check", &[], CHECK.len()) + CHECK;
    let in_chunks =
        [chunked("POST", "/v1/check").as_bytes(), &chunk(CHECK.as_bytes()), b"0\r\n\r\n"].concat();
    for before in [good.as_bytes(), &in_chunks, head("GET", "/livez", &[], 0).as_bytes()] {
        let mut wire = node.connect();
        assert_eq!(wire.ask(before).unwrap().status, 200);
        assert_eq!(wire.ask(&both).unwrap().status, 400);
        assert!(wire.answer().is_none());
        let mut wire = node.connect();
        assert_eq!(wire.ask([before, &both].concat()).unwrap().status, 200);
        assert_eq!(wire.answer().unwrap().status, 400, "{}", String::from_utf8_lossy(before));
        assert!(wire.answer().is_none());
    }
    assert_eq!(spent(&node, "smuggled"), 0);
}

#[test]
fn a_line_that_ends_otherwise_than_in_crlf_is_refused() {
    let node = start("");
    for (what, bytes) in [
        ("bare LF throughout", "GET /livez HTTP/1.1\nhost: x\n\n"),
        ("bare LF after the request line", "GET /livez HTTP/1.1\nhost: x\r\n\r\n"),
        ("bare LF after a header", "GET /livez HTTP/1.1\r\nhost: x\nx: y\r\n\r\n"),
        ("bare LF at the end", "GET /livez HTTP/1.1\r\nhost: x\r\n\n"),
        ("bare CR", "GET /livez HTTP/1.1\r\nhost: x\ry: z\r\n\r\n"),
    ] {
        is_refused(&node, what, bytes.as_bytes());
    }
}

#[test]
fn folded_and_forged_headers_are_refused() {
    let node = start("");
    for (what, bytes) in [
        ("obs-fold with a space", "GET /livez HTTP/1.1\r\nhost: x\r\nx: y\r\n z\r\n\r\n"),
        ("obs-fold with a tab", "GET /livez HTTP/1.1\r\nhost: x\r\nx: y\r\n\tz\r\n\r\n"),
        ("fold of the first", "GET /livez HTTP/1.1\r\n host: x\r\n\r\n"),
        ("space before the colon", "GET /livez HTTP/1.1\r\nhost : x\r\n\r\n"),
        ("no colon", "GET /livez HTTP/1.1\r\nhost\r\n\r\n"),
        ("no name", "GET /livez HTTP/1.1\r\n: x\r\n\r\n"),
        ("NUL in a value", "GET /livez HTTP/1.1\r\nhost: x\0\r\n\r\n"),
        ("NUL in a name", "GET /livez HTTP/1.1\r\nho\0st: x\r\n\r\n"),
        ("a control in the path", "GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("no version", "GET /livez\r\n\r\n"),
        ("a version of its own", "GET /livez HTTP/1.7\r\nhost: x\r\n\r\n"),
        ("chunks in 1.0", "POST /v1/check HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("no HTTP", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n"),
    ] {
        is_refused(&node, what, bytes.as_bytes());
    }
}

#[test]
fn chunks_that_are_none_end_the_connection() {
    let node = start("");
    for chunks in [
        "g\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2;x\ny\r\n{}\r\n0\r\n\r\n",
    ] {
        let bytes = chunked("POST", "/v1/check") + chunks;
        is_refused(&node, chunks, bytes.as_bytes());
    }
}

#[test]
fn requests_sent_together_are_answered_in_their_order() {
    let node = start("");
    let mut wire = node.connect();
    let check = head("POST", "/v1/check", &[], CHECK.len()) + CHECK;
    wire.send(check.clone() + &head("GET", "/livez", &[], 0) + &check).unwrap();
    assert_eq!(wire.answer().unwrap().json()["remaining"], 99_999);
    assert_eq!(wire.answer().unwrap().text(), "ok\n");
    assert_eq!(wire.answer().unwrap().json()["remaining"], 99_998);
}

#[test]
fn an_unknown_path_is_404_and_a_wrong_method_405() {
    let node = start("");
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/check/",
        "/v1/checks",
        "/V1/check",
        "//v1/check",
        "/v1/../livez",
        "/%2e",
    ] {
        node.call("GET", path, "").problem(404);
        node.call("POST", path, CHECK).problem(404);
    }
    for (method, path, allowed) in [
        ("GET", "/v1/check", "POST"),
        ("PUT", "/v1/check", "POST"),
        ("DELETE", "/v1/check/batch", "POST"),
        ("POST", "/v1/policy", "GET,HEAD,PUT"),
        ("POST", "/livez", "GET,HEAD"),
        ("PATCH", "/v1/tenants/x", "GET,HEAD,PUT,DELETE"),
        ("BREW", "/v1/check", "POST"),
    ] {
        let answer = node.call(method, path, "");
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
    assert_eq!(spent(&node, "acme"), 0);
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let node = start("");
    for path in ["/livez", "/readyz", "/v1/policy", "/v1/tenants", "/nowhere"] {
        let mut wire = node.connect();
        wire.send(head("HEAD", path, &[], 0)).unwrap();
        let (status, headers) = wire.answer_head().unwrap();
        let get = wire.call("GET", path, &[], b"");
        assert_eq!(status, get.status, "{path}");
        let length = get.body.len().to_string();
        let said = headers.iter().find(|(name, _)| name == "content-length");
        assert_eq!(said.map(|(_, value)| value), Some(&length), "{path}");
    }
    let mut wire = node.connect();
    wire.send(head("HEAD", "/v1/check", &[], 0)).unwrap();
    assert_eq!(wire.answer_head().unwrap().0, 405);
}

#[test]
fn a_caller_that_expects_100_is_told_to_go_on_or_refused_before_it_sends() {
    let node = start("body_bytes = 2048");
    let expect = [("expect", "100-continue")];
    let mut wire = node.connect();
    let go_on = wire.ask(head("POST", "/v1/check", &expect, CHECK.len())).unwrap();
    assert_eq!(go_on.status, 100);
    assert_eq!(wire.ask(CHECK).unwrap().status, 200);
    let mut wire = node.connect();
    wire.ask(head("POST", "/v1/check", &expect, 2_049)).unwrap().problem(413);
    wire.wait_closed();
}

#[test]
fn half_closed_and_broken_off_requests_charge_nobody() {
    let node = start("");
    for cut in [
        "POST /v1/check HTTP/1.1\r\n".to_string(),
        head("POST", "/v1/check", &[], CHECK.len()),
        head("POST", "/v1/check", &[], CHECK.len() + 1) + CHECK,
        chunked("POST", "/v1/check") + "11\r\n" + CHECK + "\r\n",
    ] {
        let mut wire = node.connect();
        wire.send(cut).unwrap();
        drop(wire);
    }
    still_serves(&node);
    assert_eq!(spent(&node, "acme"), 1);
}

// -----------------------------------------------------------------------------------------------------------
// HTTP/2

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u8 = 11;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Just enough of HTTP/2 to ask, spelt out: frames, and headers as literals.
struct Http2(Wire);

impl Http2 {
    fn to(node: &Node) -> Self {
        let mut wire = node.connect();
        wire.send([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
        Self(wire)
    }

    /// The next frame: its kind, flags, stream and payload.
    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.0.bytes(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.0.bytes(length as usize)?;
        Some((head[3], head[4], stream, payload))
    }

    /// The body of the answer on `stream`.
    fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let (kind, flags, on, payload) = self.next().expect("the connection ended");
            if on != stream {
                assert_ne!(kind, GOAWAY, "{payload:?}");
                continue;
            }
            assert_ne!(kind, RST_STREAM, "{payload:?}");
            if kind == DATA {
                body.extend(payload);
            }
            if flags & END_STREAM != 0 {
                return body;
            }
        }
    }

    /// The body of the answer on `stream`, which may come behind a first GOAWAY.
    fn body_before_farewell(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let (kind, flags, on, payload) = self.next().expect("the connection ended");
            if kind == PING {
                self.0.send(frame(PING, ACK, 0, &payload)).unwrap();
            }
            if on == stream && kind == DATA {
                body.extend(payload);
            }
            if on == stream && flags & END_STREAM != 0 {
                return body;
            }
        }
    }

    /// The reason of the GOAWAY with which the other side ends the connection, once it has ended
    /// it.
    fn sent_away(&mut self) -> Option<u8> {
        let mut reason = None;
        while let Some((kind, flags, _, payload)) = self.next() {
            match kind {
                GOAWAY => reason = Some(payload[7]),
                // It asks whether all that was sent before has come.
                PING if flags & ACK == 0 => drop(self.0.send(frame(PING, ACK, 0, &payload))),
                _ => {}
            }
        }
        reason
    }

    /// The reason for which the other side ends the connection; none where it just closes it.
    fn farewell(&mut self) -> Option<u8> {
        loop {
            let (kind, _, _, payload) = self.next()?;
            if kind == GOAWAY && payload[7] != 0 {
                return Some(payload[7]);
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers as literals without a Huffman code, none longer than 126 bytes.
fn literals(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

fn request(stream: u32, method: &str, path: &str, more: u8) -> Vec<u8> {
    let block = literals(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
    ]);
    frame(HEADERS, END_HEADERS | more, stream, &block)
}

#[test]
fn http2_is_served_to_who_begins_with_it() {
    let node = start("");
    let mut h2 = Http2::to(&node);
    h2.0.send(request(1, "GET", "/livez", END_STREAM)).unwrap();
    assert_eq!(h2.body(1), b"ok\n");
    let check = frame(DATA, END_STREAM, 3, CHECK.as_bytes());
    h2.0.send([request(3, "POST", "/v1/check", 0), check].concat()).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&h2.body(3)).unwrap();
    assert_eq!(answer["allowed"], true);
    h2.0.send(request(5, "GET", "/nowhere", END_STREAM)).unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&h2.body(5)).unwrap();
    assert_eq!(problem["status"], 404);
}

#[test]
fn http2_is_served_however_its_beginning_is_cut() {
    let node = start("");
    for cut in [1, 3, 4, 16, 23] {
        let mut wire = node.connect();
        let (begun, rest) = PREFACE.split_at(cut);
        wire.send(begun).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        wire.send([rest, &frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
        let mut h2 = Http2(wire);
        for stream in [1, 3, 5] {
            let check = frame(DATA, END_STREAM, stream, CHECK.as_bytes());
            h2.0.send([request(stream, "POST", "/v1/check", 0), check].concat()).unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&h2.body(stream)).unwrap();
            assert_eq!(answer["allowed"], true, "cut at {cut}, stream {stream}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_stopping_node_sends_http2_callers_away_behind_their_answer() {
    let node = start("notice_ms = 60000");
    let mut before = Http2::to(&node);
    before.0.send(request(1, "GET", "/livez", END_STREAM)).unwrap();
    assert_eq!(before.body(1), b"ok\n");
    node.process.signal(Signal::TERM);
    // An idle connection hears it at once, a new one behind its first answer.
    assert_eq!(before.sent_away(), Some(0));
    let mut after = Http2::to(&node);
    after.0.send(request(1, "GET", "/readyz", END_STREAM)).unwrap();
    let body = after.body_before_farewell(1);
    assert_eq!(body, b"stopping\n");
    assert_eq!(after.sent_away(), Some(0));
}

#[test]
fn http2_has_the_same_bounds() {
    let node = start("body_bytes = 2048\nbody_ms = 600\nidle_ms = 1500");
    let mut h2 = Http2::to(&node);
    let body = frame(DATA, END_STREAM, 1, &[b' '; 2_049]);
    h2.0.send([request(1, "POST", "/v1/check", 0), body].concat()).unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&h2.body(1)).unwrap();
    assert_eq!(problem["status"], 413);
    h2.0.send(request(3, "POST", "/v1/check", 0)).unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&h2.body(3)).unwrap();
    assert_eq!(problem["status"], 408);
    // Idle from here on.
    let waited = h2.0.wait_closed();
    assert!(waited < Duration::from_secs(15), "{waited:?}");
    assert_eq!(spent(&node, "acme"), 0);
}

#[test]
fn http2_streams_opened_only_to_be_reset_end_the_connection() {
    let node = start("");
    let mut h2 = Http2::to(&node);
    let pair = |stream| {
        [request(stream, "GET", "/livez", END_STREAM), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            .concat()
    };
    let flood: Vec<u8> = (0..2_000).flat_map(|i| pair(2 * i + 1)).collect();
    let _ = h2.0.send(flood);
    let reason = h2.farewell();
    assert!(reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM), "{reason:?}");
    still_serves(&node);
}

#[test]
fn http2_headers_without_an_end_end_the_connection() {
    let node = start("");
    let mut h2 = Http2::to(&node);
    let block = literals(&[(":method", "GET"), (":scheme", "http"), (":path", "/livez")]);
    let mut sent = h2.0.send(frame(HEADERS, END_STREAM, 1, &block));
    let more: Vec<_> = (0..100).map(|i| (format!("x-{i}"), "v".repeat(100))).collect();
    let more: Vec<_> = more.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for _ in 0..1_000 {
        if sent.is_ok() {
            sent = h2.0.send(frame(CONTINUATION, 0, 1, &literals(&more)));
        }
    }
    h2.farewell();
    still_serves(&node);
}
