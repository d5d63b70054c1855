//! HTTP/1.1: heads and bodies that two parsers could read differently, and those at the edge of
//! the protocol.

use super::{CHECK, chunk, chunked, spent, start, still_serves};
use crate::rig::{Node, head};

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
