//! Starts real nodes and asks them in JSON over real sockets. Processes and connections are those
//! of `tests/rig`.
//!
//! ```text
//! // It listens on a port of its own.
//! let node = Setup::policy("default_tier = \"free\"\n[tiers.free]\n").start();
//! assert_eq!(node.check(json!({"tenant": "acme"}))["limit"], "unlimited");
//! // SIGTERM, exit 0, the same data.
//! let node = node.stop().start();
//! ```
//!
//! A node that is dropped is killed. Whatever goes wrong here panics, with what the node wrote to
//! standard error.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate::clock::{Clock, SECOND, SystemClock};

use crate::rig::{self, Home, Wire};

/// A node that is yet to be started.
pub struct Setup {
    environment: Option<String>,
    http: String,
    policy: Option<String>,
    sections: String,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// With the built-in policy.
    pub fn builtin() -> Self {
        Self {
            environment: None,
            http: "127.0.0.1:0".into(),
            policy: None,
            sections: String::new(),
            variables: Vec::new(),
        }
    }

    /// With this policy, in TOML.
    pub fn policy(toml: &str) -> Self {
        Self { policy: Some(toml.into()), ..Self::builtin() }
    }

    /// Running as this environment.
    pub fn environment(mut self, name: &str) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Listening here.
    pub fn http(mut self, address: &str) -> Self {
        self.http = address.into();
        self
    }

    /// With a further section of `cluster.toml`: `[limits]`, `[auth]`.
    pub fn section(mut self, toml: &str) -> Self {
        self.sections.push_str(toml);
        self.sections.push('\n');
        self
    }

    /// With this environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Writes the files.
    pub fn place(self) -> Place {
        let mut home = Home::empty();
        let mut config = String::new();
        if let Some(environment) = &self.environment {
            config.push_str(&format!("environment = {environment:?}\n"));
        }
        config.push_str(&format!("[[nodes]]\nid = \"n1\"\nhttp = {:?}\n", self.http));
        if let Some(policy) = &self.policy {
            config.push_str("[policy]\nfile = \"policy.toml\"\n");
            home.write("policy.toml", policy.as_bytes());
        }
        config.push_str(&self.sections);
        home.write("cluster.toml", config.as_bytes());
        for (name, value) in &self.variables {
            home = home.set_variable(name, value);
        }
        Place { home }
    }

    /// Writes the files and starts the node.
    pub fn start(self) -> Node {
        self.place().start()
    }
}

/// A node with the policy `toml` and nothing else said.
pub fn node(toml: &str) -> Node {
    Setup::policy(toml).start()
}

/// The directory of a node that isn't running: its configuration and its data.
pub struct Place {
    home: Home,
}

impl Place {
    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// Starts the node, and waits until it is ready.
    pub fn start(self) -> Node {
        let started = self.home.start();
        let said = started.process.out();
        assert!(said.starts_with("tidegate ") && said.contains("  node n1  http://"), "{said:?}");
        let node = Node { http: started.addr, process: started.process, place: self };
        eventually("the node is ready", || node.get("/readyz").status == 200);
        node
    }

    /// Starts what should refuse to start: its exit code, and what it says on standard error.
    pub fn refuse(self) -> (i32, String) {
        let mut process = self.home.run();
        let code = process.end().code();
        (code.unwrap_or(-1), process.log())
    }
}

/// A node that is running.
pub struct Node {
    process: rig::Process,
    place: Place,
    /// Where it listens.
    pub http: SocketAddr,
}

impl Node {
    /// Tells it to stop, and waits until it has: it exits 0.
    pub fn stop(mut self) -> Place {
        self.process.signal(Signal::TERM);
        let status = self.process.end();
        assert!(status.success(), "{status}: {}", self.process.log());
        self.place
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) -> Place {
        self.process.signal(Signal::KILL);
        self.process.end();
        self.place
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.place.file(name)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.process.log()
    }

    /// A connection of its own, kept open from one request to the next.
    pub fn client(&self) -> Client {
        Client { wire: Wire::to(self.http).unwrap() }
    }

    /// One request on a connection of its own.
    pub fn send(&self, request: &Request) -> Answer {
        self.client().send(request)
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Answer {
        self.send(&Request::new("GET", path))
    }

    /// `POST` of JSON.
    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.send(&Request::new("POST", path).json(&body))
    }

    /// `PUT` of JSON.
    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.send(&Request::new("PUT", path).json(&body))
    }

    /// `DELETE`.
    pub fn delete(&self, path: &str) -> Answer {
        self.send(&Request::new("DELETE", path))
    }

    /// The decision of one check.
    pub fn check(&self, check: Value) -> Value {
        self.client().check(&check)
    }

    /// How many of `count` equal checks are allowed, one after another.
    pub fn allowed_of(&self, count: usize, check: Value) -> usize {
        let mut client = self.client();
        (0..count).filter(|_| client.check(&check)["allowed"] == true).count()
    }

    /// What a check would be answered.
    pub fn peek(&self, check: Value) -> Value {
        let answer = self.post("/v1/peek", patient(&check));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// A request that is yet to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    /// Without headers and body.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: None }
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body of JSON, and a header that says so.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// With any body, and nothing that says what it is.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// One connection.
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Sends a request and reads its answer.
    pub fn send(&mut self, request: &Request) -> Answer {
        self.send_raw(&request.bytes())
    }

    /// Sends bytes as they are, and reads an answer.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Answer {
        self.wire.send(bytes).unwrap();
        let answer = self.wire.answer().expect("the connection ended without an answer");
        let mut headers = BTreeMap::new();
        for (name, value) in answer.headers {
            let earlier = headers.insert(name.clone(), value);
            assert_eq!(earlier, None, "{name} is there twice");
        }
        let has_length = headers.contains_key("content-length") || answer.status == 204;
        assert!(has_length, "an answer of unknown length: {headers:?}");
        Answer { status: answer.status, headers, body: String::from_utf8(answer.body).unwrap() }
    }

    /// The decision of one check.
    pub fn check(&mut self, check: &Value) -> Value {
        let answer = self.send(&Request::new("POST", "/v1/check").json(&patient(check)));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// The check with as much time for limits that are shared as a machine may need that has other
/// things to do.
pub fn patient(check: &Value) -> Value {
    let mut check = check.clone();
    if check.get("deadline_ms").is_none() {
        check["deadline_ms"] = Value::from(60_000);
    }
    check
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// A header; empty where it isn't there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body of an answer that is a problem document of `status`.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, "application/problem+json"),
            "{self:?}"
        );
        let document = self.json();
        assert_eq!(document["status"], status, "{self:?}");
        document
    }

    /// The paths of the faults that a problem document of `status` names, in their order.
    pub fn fault_paths(&self, status: u16) -> Vec<String> {
        let document = self.problem(status);
        let faults = document["errors"].as_array().cloned().unwrap_or_default();
        faults
            .iter()
            .map(|fault| {
                assert!(
                    fault["detail"].as_str().is_some_and(|detail| !detail.is_empty()),
                    "{fault}"
                );
                fault["path"].as_str().unwrap().to_string()
            })
            .collect()
    }

    /// The version of the policy that a write made.
    pub fn version(&self) -> u64 {
        assert_eq!(self.status, 200, "{self:?}");
        let version = self.json()["version"].as_u64().unwrap();
        assert_eq!(self.header("etag"), format!("\"{version}\""));
        version
    }
}

/// The policy of a node.
pub fn document(node: &Node) -> Value {
    node.get("/v1/policy").json()
}

/// The version of that policy.
pub fn version(node: &Node) -> u64 {
    node.get("/v1/policy").header("etag").trim_matches('"').parse().unwrap()
}

/// A policy with one tier, `free`: `everybodys` limits and the tier's `own`, each as [`log`] writes
/// it.
pub fn policy(everybodys: &[String], own: &[String]) -> String {
    let list = |limits: &[String]| limits.join(", ");
    format!(
        "default_tier = \"free\"\nlimits = [{}]\n[tiers.free]\nlimits = [{}]\n",
        list(everybodys),
        list(own)
    )
}

/// A limit of `most` an hour, exact to the unit: `per` is written as in the policy, `["tenant",
/// "client"]`.
pub fn log(name: &str, per: &str, most: u64) -> String {
    format!(
        r#"{{ name = "{name}", per = {per}, algorithm = "sliding_log", limit = {most}, window = "1h" }}"#
    )
}

/// The same per tenant, as a request sends it or as an edit of one limit has it.
pub fn sent(name: &str, most: u64) -> Value {
    json!({"name": name, "algorithm": "sliding_log", "limit": most, "window": "1h"})
}

/// The limit `name` among those of a decision.
pub fn limit<'a>(decision: &'a Value, name: &str) -> &'a Value {
    decision["limits"]
        .as_array()
        .and_then(|limits| limits.iter().find(|limit| limit["name"] == name))
        .unwrap_or_else(|| panic!("no limit {name} in {decision}"))
}

/// Takes a number out of an object, because it depends on how much time has passed.
pub fn take_number(object: &mut Value, name: &str) -> u64 {
    let taken = object.as_object_mut().and_then(|members| members.remove(name));
    taken
        .as_ref()
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{name} is no number in {object}"))
}

/// Waits until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    rig::until(what, || done().then_some(()));
}

/// Waits for so many milliseconds.
pub fn wait_ms(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// Seconds since the Unix epoch.
pub fn unix_seconds() -> u64 {
    SystemClock::new().now().wall / SECOND
}

/// The instant `ms` milliseconds from now, as the policy writes it.
pub fn instant_in_ms(ms: i64) -> String {
    let wall = i128::from(SystemClock::new().now().wall) + i128::from(ms) * 1_000_000;
    jiff::Timestamp::from_nanosecond(wall).unwrap().to_string()
}

/// A sample policy that is shipped.
pub fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(name);
    std::fs::read_to_string(path).unwrap()
}
