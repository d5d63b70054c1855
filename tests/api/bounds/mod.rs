//! The door bounds what a caller may send, how slowly, and over how many connections; good callers
//! don't notice the others.

mod heads;
mod http2;
mod sizes;

use serde_json::json;

use crate::rig::{Home, Node};

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
