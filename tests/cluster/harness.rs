//! Some nodes of one cluster, each a process, in one folder.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Answer, Home, Node, Wire, until};

/// Nodes `n1`, `n2`, …; those that are dropped are killed.
pub struct Cluster {
    home: Home,
    nodes: Vec<Option<Node>>,
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// So many nodes with this policy, all of them ready.
    pub fn start(count: usize, policy: &str) -> Self {
        Self::start_with(count, policy, "")
    }

    /// The same, with further sections of `cluster.toml`.
    pub fn start_with(count: usize, policy: &str, sections: &str) -> Self {
        Self::start_in(Home::empty(), count, policy, sections)
    }

    /// The same, in a folder in which something lies already.
    pub fn start_in(home: Home, count: usize, policy: &str, sections: &str) -> Self {
        home.write("policy.toml", policy.as_bytes());
        let mut config = String::from("[cluster]\nname = \"test\"\n[policy]\nfile = \"policy.toml\"\n");
        for i in 1..=count {
            let (http, peer) = (free_port(), free_port());
            config.push_str(&format!(
                "[[nodes]]\nid = \"n{i}\"\nhttp = \"127.0.0.1:{http}\"\npeer = \"127.0.0.1:{peer}\"\n"
            ));
        }
        config.push_str(sections);
        home.write("cluster.toml", config.as_bytes());
        let mut cluster = Self { home, nodes: (0..count).map(|_| None).collect() };
        (0..count).for_each(|i| cluster.nodes[i] = Some(cluster.home.start_as(&format!("n{}", i + 1))));
        (0..count).for_each(|i| cluster.wait_ready(i));
        cluster
    }

    /// Starts a node that isn't running, and doesn't wait until it is ready.
    pub fn begin(&mut self, i: usize) {
        self.nodes[i] = Some(self.home.start_as(&format!("n{}", i + 1)));
    }

    pub fn wait_ready(&self, i: usize) {
        until("the node is ready", || {
            let verbose = self.node(i).call("GET", "/readyz?verbose", "");
            // Ready is what may be asked; in its seat is who owns something.
            let seated = self.status(i)["nodes"][i]["partitions"].as_u64().is_some_and(|owned| owned > 0);
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

    pub fn call(&self, i: usize, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.node(i).call(method, path, body)
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

    /// Asks `count` times, by so many callers at once over all nodes that run; how many were allowed.
    pub fn admitted(&self, callers: usize, count: usize, check: impl Fn(usize) -> Value + Sync) -> usize {
        let (next, allowed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let addresses: Vec<SocketAddr> = self.running().iter().map(|i| self.node(*i).addr).collect();
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
                        let answer = wire.call("POST", "/v1/check", &[], check(i).to_string().as_bytes());
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
