//! Some nodes of one cluster, each a process, in one folder.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::machine::{self, Share};
use crate::net::Net;
use crate::rig::{Answer, Home, Node, Process, Wire, program, until};

/// A policy of a hundred units a day for each tenant.
pub const HUNDRED_A_DAY: &str = r#"
    default_tier = "free"
    [tiers.free]
    limits = [{ name = "day", algorithm = "fixed_window", limit = 100, window = "1d" }]
"#;
/// The same with more units than a test takes.
pub const PLENTY_A_DAY: &str = r#"
    default_tier = "free"
    [tiers.free]
    limits = [{ name = "day", algorithm = "fixed_window", limit = 100000, window = "1d" }]
"#;
/// The administrator's token in a cluster that is configured [`with_token`].
pub const TOKEN: &str = "a-token-of-an-administrator";

/// The section of `cluster.toml` that asks for [`TOKEN`].
pub fn with_token() -> String {
    format!("[auth]\nadmin_tokens = [\"{TOKEN}\"]\n")
}

/// Nodes `n1`, `n2`, …; those that are dropped are killed.
pub struct Cluster {
    pub home: Home,
    nodes: Vec<Option<Node>>,
    /// Where each listens: for HTTP, and for the others.
    ports: Vec<(u16, u16)>,
    /// What is between the nodes, where that isn't the machine's own network.
    net: Option<Net>,
    /// Further lines of the section `[cluster]`.
    settings: String,
    sections: String,
    /// Who asks in [`Cluster::call`]; nobody if it is empty.
    token: String,
    _share: Share,
}

/// A port that is given once in a run, from below those that the system gives to whoever connects:
/// a node that is started again finds it free.
fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u32 = 20_000;
    // Programs that run side by side have numbers side by side: their ports lie far from each
    // other.
    let from = std::process::id().wrapping_mul(1_009) % COUNT;
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < COUNT, "no port is free");
        let port = FIRST + ((from + given) % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Cluster {
    /// So many nodes with this policy, all of them ready.
    pub fn start(count: usize, policy: &str) -> Self {
        Self::start_with(count, policy, "")
    }

    /// The same, with further sections of `cluster.toml`.
    pub fn start_with(count: usize, policy: &str, sections: &str) -> Self {
        Self::with_auth(count, policy, sections, "")
    }

    /// The same, and this token where one is needed.
    pub fn with_auth(count: usize, policy: &str, sections: &str, token: &str) -> Self {
        Self::start_all(Home::empty(), count, policy, sections, token)
    }

    /// The same, in a folder in which something lies already.
    pub fn start_in(home: Home, count: usize, policy: &str, sections: &str) -> Self {
        Self::start_all(home, count, policy, sections, "")
    }

    /// So many nodes that reach each other over `net`, with further lines of `[cluster]`; doesn't
    /// wait until they are ready.
    pub fn begin_over(mut net: Net, count: usize, policy: &str, settings: &str) -> Self {
        let mut cluster = Self::with_ports(Home::empty(), count, policy);
        (0..count).for_each(|i| net.leads_to(i, cluster.ports[i].1));
        (cluster.net, cluster.settings) = (Some(net), settings.into());
        cluster.list(&(0..count).collect::<Vec<_>>());
        (0..count).for_each(|i| cluster.begin(i));
        cluster
    }

    /// What is between the nodes of [`Cluster::begin_over`].
    pub fn net(&self) -> &Net {
        self.net.as_ref().unwrap()
    }

    /// So many nodes, none of them started.
    pub fn configured(count: usize, policy: &str, sections: &str) -> Self {
        Self::configured_in(Home::empty(), count, policy, sections, "")
    }

    fn start_all(home: Home, count: usize, policy: &str, sections: &str, token: &str) -> Self {
        let mut cluster = Self::configured_in(home, count, policy, sections, token);
        (0..count).for_each(|i| cluster.begin(i));
        (0..count).for_each(|i| cluster.wait_ready(i));
        cluster
    }

    /// Nodes that don't run yet.
    fn with_ports(home: Home, count: usize, policy: &str) -> Self {
        home.write("policy.toml", policy.as_bytes());
        let ports = (0..count).map(|_| (free_port(), free_port())).collect();
        let nodes = (0..count).map(|_| None).collect();
        let (sections, token, settings) = (String::new(), String::new(), String::new());
        Self { home, nodes, ports, net: None, settings, sections, token, _share: machine::share() }
    }

    fn configured_in(home: Home, count: usize, policy: &str, sections: &str, token: &str) -> Self {
        // Nodes that ask a cluster to admit them do so with the same token.
        let home = if token.is_empty() { home } else { home.set_variable("TIDEGATE_TOKEN", token) };
        let mut cluster = Self::with_ports(home, count, policy);
        (cluster.sections, cluster.token) = (sections.into(), token.into());
        cluster.list(&(0..count).collect::<Vec<_>>());
        cluster
    }

    /// Where a node listens: for HTTP, and for the others.
    pub fn ports(&self, i: usize) -> (u16, u16) {
        self.ports[i]
    }

    /// Other ports for a node, which no list has.
    pub fn moves(&mut self, i: usize) -> (u16, u16) {
        self.ports[i] = (free_port(), free_port());
        self.ports[i]
    }

    /// Starts node `i` of the list with these words, and waits until it says where it listens.
    pub fn begin_with(&mut self, i: usize, words: &[&str]) {
        let line = [&["serve"][..], words].concat();
        self.nodes[i] = Some(self.home.run_words_as(&line, &format!("n{}", i + 1)).started());
    }

    /// Has a node listen where that of another cluster does, from its next start on.
    pub fn takes_ports_of(&mut self, i: usize, other: &Self) {
        self.ports[i] = other.ports[i];
        self.list(&(0..self.nodes.len()).collect::<Vec<_>>());
    }

    /// Writes the configuration: these nodes, in this order.
    pub fn list(&self, order: &[usize]) {
        let settings = &self.settings;
        let mut config =
            format!("[cluster]\nname = \"test\"\n{settings}[policy]\nfile = \"policy.toml\"\n");
        for i in order {
            let (id, (http, peer)) = (i + 1, self.ports[*i]);
            config.push_str(&format!(
                "[[nodes]]\nid = \"n{id}\"\nhttp = \"127.0.0.1:{http}\"\npeer = \
                 \"127.0.0.1:{peer}\"\n"
            ));
            if let Some(net) = &self.net {
                config.push_str(&format!("peer_advertise = \"127.0.0.1:{}\"\n", net.port(*i)));
            }
        }
        config.push_str(&self.sections);
        self.home.write("cluster.toml", config.as_bytes());
    }

    /// The line of a node that no list has, and that asks node `via` to be admitted; with further
    /// words.
    pub fn joins(&mut self, i: usize, via: usize, more: &[&str]) -> Vec<String> {
        while self.ports.len() <= i {
            self.ports.push((free_port(), free_port()));
            self.nodes.push(None);
        }
        let (http, peer) = self.ports[i];
        let mut line: Vec<_> = ["serve", "--node"].map(String::from).into();
        line.push(format!("n{}", i + 1));
        line.extend([
            "--http".into(),
            format!("127.0.0.1:{http}"),
            "--peer".into(),
            format!("127.0.0.1:{peer}"),
        ]);
        line.extend(["--data-dir".into(), format!("data/n{}", i + 1)]);
        line.extend(["--join".into(), format!("http://{}", self.node(via).addr)]);
        line.extend(more.iter().map(|word| word.to_string()));
        line
    }

    /// Starts such a line, and waits until the node says where it listens.
    pub fn start_line(&mut self, i: usize, line: &[String]) {
        self.nodes[i] = Some(self.run_line(line).started());
    }

    /// Takes a node that was started in some other way.
    pub fn put(&mut self, i: usize, node: Node) {
        self.nodes[i] = Some(node);
    }

    /// Starts such a line, and doesn't wait.
    pub fn run_line(&self, line: &[String]) -> Process {
        self.home.run_without_file(&line.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Has a node join, and waits until node `via` sees that it is there.
    pub fn join(&mut self, i: usize, via: usize) {
        let line = self.joins(i, via, &[]);
        self.start_line(i, &line);
        self.wait_seated(i, via);
    }

    pub fn wait_seated(&self, i: usize, via: usize) {
        until("the new node is there", || {
            let known = self.member(via, i)?["boot"].is_string();
            (known && self.node(i).call("GET", "/readyz", "").status == 200).then_some(())
        });
    }

    /// Waits until every member owns its share, as node `via` sees it.
    pub fn wait_balanced(&self, via: usize) {
        until("every member owns its share", || self.is_balanced(via).then_some(()));
    }

    pub fn is_balanced(&self, via: usize) -> bool {
        let nodes = self.status(via)["nodes"].clone();
        let owned =
            nodes.as_array().unwrap().iter().map(|node| node["partitions"].as_u64().unwrap());
        let (least, most) = (owned.clone().min().unwrap(), owned.clone().max().unwrap());
        owned.sum::<u64>() == 4096 && most - least <= 1
    }

    /// How node `via` sees the member `n{i + 1}`; none if it is no member.
    pub fn member(&self, via: usize, i: usize) -> Option<Value> {
        let status = self.status(via);
        let id = format!("n{}", i + 1);
        status["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).cloned()
    }

    /// Waits until node `i` has ended by itself; its exit code and its log.
    pub fn wait_ended(&mut self, i: usize) -> (Option<i32>, String) {
        let mut node = self.nodes[i].take().unwrap();
        (node.process.end().code(), node.process.log())
    }

    /// Runs a command against node `via`: its exit code, what it printed, what it said.
    pub fn command(&self, via: usize, words: &[&str]) -> (i32, String, String) {
        let url = format!("http://{}", self.node(via).addr);
        let mut command = program();
        if !self.token.is_empty() {
            command.env("TIDEGATE_TOKEN", &self.token);
        }
        let ran = command
            .args(words)
            .args(["--url", &url])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
    }

    /// Has every node listen elsewhere, once it is started the next time.
    pub fn move_away(&mut self) {
        self.ports.iter_mut().for_each(|ports| *ports = (free_port(), free_port()));
        self.list(&(0..self.nodes.len()).collect::<Vec<_>>());
    }

    /// Starts a node that isn't running, and doesn't wait until it is ready.
    pub fn begin(&mut self, i: usize) {
        self.nodes[i] = Some(self.home.start_as(&format!("n{}", i + 1)));
    }

    /// Starts a node that isn't running with another program, and doesn't wait until it is ready.
    pub fn begin_other(&mut self, i: usize, program: std::process::Command) {
        self.nodes[i] = Some(self.home.start_other(program, &format!("n{}", i + 1)));
    }

    /// Nodes `n1`, `n2`, …, none of which is started.
    pub fn unstarted(count: usize, policy: &str, sections: &str, token: &str) -> Self {
        let mut cluster = Self::with_ports(Home::empty(), count, policy);
        (cluster.sections, cluster.token) = (sections.into(), token.into());
        cluster.list(&(0..count).collect::<Vec<_>>());
        cluster
    }

    pub fn wait_ready(&self, i: usize) {
        until("the node is ready", || {
            let verbose = self.node(i).call("GET", "/readyz?verbose", "");
            // Ready is what may be asked; in its seat is who owns something.
            let seated =
                self.status(i)["nodes"][i]["partitions"].as_u64().is_some_and(|owned| owned > 0);
            (verbose.status == 200 && seated).then_some(())
        });
    }

    /// Kills a node as `kill -9` does.
    pub fn kill(&mut self, i: usize) {
        let mut node = self.nodes[i].take().unwrap();
        node.process.signal(Signal::KILL);
        node.process.end();
    }

    /// Tells a node to stop, and waits until it has.
    pub fn stop(&mut self, i: usize) {
        let (status, log) = self.nodes[i].take().unwrap().stop();
        assert!(status.success(), "{status}: {log}");
    }

    /// A node, to be stopped by the caller: it is among those that run no more.
    pub fn take_away(&mut self, i: usize) -> Node {
        self.nodes[i].take().unwrap()
    }

    /// Where a node listens for HTTP, whether it runs or not.
    pub fn http(&self, i: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[i].0))
    }

    /// Where the nodes that run are asked.
    pub fn ready(&self) -> Vec<SocketAddr> {
        self.running().iter().map(|i| self.node(*i).addr).collect()
    }

    /// The folder of all nodes.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Where a node listens for the others.
    pub fn peer(&self, i: usize) -> String {
        self.status(self.running()[0])["nodes"][i]["peer"].as_str().unwrap().into()
    }

    pub fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().unwrap()
    }

    /// The nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].is_some()).collect()
    }

    /// Writes the rules of a tenant through a node; the answer's status and body.
    pub fn edit(&self, through: usize, tenant: &str) -> (u16, Value) {
        let path = format!("/v1/tenants/{tenant}");
        let answer = self.call(through, "PUT", &path, json!({"tier": "free"}));
        (answer.status, answer.json())
    }

    /// Every node that runs decides what it owns, asked through every other.
    pub fn assert_whole(&self, prefix: &str) {
        for through in self.running() {
            for owner in self.running() {
                let tenant = self.tenant_of(owner, through, &format!("{prefix}{through}"));
                assert_eq!(self.check(through, json!({"tenant": tenant}))["allowed"], true);
            }
        }
    }

    pub fn call(&self, i: usize, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str())];
        let headers = if self.token.is_empty() { &[][..] } else { &headers };
        self.node(i).connect().call(method, path, headers, &body)
    }

    pub fn get(&self, i: usize, path: &str) -> Value {
        let answer = self.call(i, "GET", path, Value::Null);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub fn check(&self, i: usize, check: Value) -> Value {
        self.node(i).check(check.to_string())
    }

    pub fn status(&self, i: usize) -> Value {
        self.get(i, "/v1/cluster")
    }

    /// A tenant that node `owner` decides, by its answers through node `through`.
    pub fn tenant_of(&self, owner: usize, through: usize, prefix: &str) -> String {
        let name = format!("n{}", owner + 1);
        let tenants = (0..).map(|i| format!("{prefix}{i}"));
        let mut owned = tenants.filter(|tenant| {
            let peeked = self.call(through, "POST", "/v1/peek", json!({"tenant": tenant}));
            peeked.status == 200 && peeked.json()["node"] == name
        });
        owned.next().unwrap()
    }

    /// Asks `count` times, by so many callers at once over all nodes that run; how many were
    /// allowed.
    pub fn admitted(
        &self,
        callers: usize,
        count: usize,
        check: impl Fn(usize) -> Value + Sync,
    ) -> usize {
        let (next, allowed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let addresses: Vec<SocketAddr> =
            self.running().iter().map(|i| self.node(*i).addr).collect();
        std::thread::scope(|scope| {
            for caller in 0..callers {
                let (next, allowed, check) = (&next, &allowed, &check);
                let mut wire = Wire::to(addresses[caller % addresses.len()]).unwrap();
                scope.spawn(move || {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= count {
                            return;
                        }
                        let answer =
                            wire.call("POST", "/v1/check", &[], check(i).to_string().as_bytes());
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        if answer.json()["allowed"] == true {
                            allowed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        allowed.into_inner()
    }
}
