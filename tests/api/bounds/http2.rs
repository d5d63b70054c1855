//! HTTP/2: the same bounds, and those of its own.

use std::time::Duration;

use rustix::process::Signal;

use super::{CHECK, spent, start, still_serves};
use crate::rig::{Node, Wire};

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
