//! Nodes come and go under traffic: partitions are handed over, and no count is lost.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::Cluster;
use crate::rig::{Wire, instant, until};

const POLICY: &str = r#"
    default_tier = "free"
    [tiers.free]
    limits = [{ name = "hour", algorithm = "token_bucket", rate = "1/24h", burst = 100 }]
"#;

/// What a caller in the background saw: how many were allowed of each tenant, the slowest answer,
/// and what was no answer.
#[derive(Default, Debug)]
pub struct Seen {
    pub allowed: BTreeMap<String, u64>,
    pub slowest: Duration,
    pub failed: Vec<String>,
    pub asked: usize,
}

/// Asks about sixty tenants in turn, through the nodes that `through` says, until it is told to
/// stop; meanwhile `main` runs.
pub fn under_traffic(cluster: &Mutex<Cluster>, main: impl FnOnce()) -> Seen {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|caller| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    for i in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                        // A node that is about to end says so: whoever balances asks the others.
                        let addresses = cluster.lock().unwrap().ready();
                        let address = addresses[(i + caller) % addresses.len()];
                        let tenant = format!("t{}", (i * 3 + caller) % 60);
                        let begun = instant();
                        let answer = Wire::to(address).map(|mut wire| {
                            wire.call(
                                "POST",
                                "/v1/check",
                                &[],
                                json!({"tenant": tenant}).to_string().as_bytes(),
                            )
                        });
                        seen.slowest = seen.slowest.max(instant() - begun);
                        seen.asked += 1;
                        match answer {
                            Ok(answer) if answer.status == 200 => {
                                if answer.json()["allowed"] == true {
                                    *seen.allowed.entry(tenant).or_default() += 1;
                                }
                            }
                            Ok(answer) => seen.failed.push(format!(
                                "{tenant}: {} {}",
                                answer.status,
                                answer.text()
                            )),
                            Err(error) => seen.failed.push(format!("{tenant}: {error}")),
                        }
                    }
                    seen
                })
            })
            .collect();
        main();
        // Long enough for every tenant to be asked more often than it may.
        until("every tenant has been asked often enough", || {
            std::thread::sleep(Duration::from_millis(100));
            let cluster = cluster.lock().unwrap();
            let through = cluster.running()[0];
            let peek = |i: usize| {
                cluster.call(through, "POST", "/v1/peek", json!({"tenant": format!("t{i}")}))
            };
            (0..60).all(|i| peek(i).json()["allowed"] == false).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for seen in callers.into_iter().map(|caller| caller.join().unwrap()) {
            for (tenant, allowed) in seen.allowed {
                *all.allowed.entry(tenant).or_default() += allowed;
            }
            all.slowest = all.slowest.max(seen.slowest);
            all.failed.extend(seen.failed);
            all.asked += seen.asked;
        }
        all
    })
}

impl Seen {
    /// Every check was answered within a second, and each of the sixty tenants got exactly its
    /// hundred.
    pub fn is_exact(&self) {
        let failed = &self.failed[..self.failed.len().min(5)];
        assert!(self.failed.is_empty(), "{} of {}: {failed:?}", self.failed.len(), self.asked);
        let exact = self.allowed.values().all(|allowed| *allowed == 100);
        assert!(exact && self.allowed.len() == 60, "{:?}", self.allowed);
        assert!(self.slowest < Duration::from_secs(1), "{:?}", self.slowest);
    }
}

/// Stops a node of the file and starts it again, while others go on asking; until it owns
/// something, as node `via` sees it.
pub fn restart(cluster: &Mutex<Cluster>, i: usize, via: usize) {
    let locked = || cluster.lock().unwrap();
    let node = locked().take_away(i);
    let (status, log) = node.stop();
    assert!(status.success(), "{log}");
    let process = locked().home.run_as(&format!("n{}", i + 1));
    let node = process.started();
    until("it may be asked", || (node.call("GET", "/readyz", "").status == 200).then_some(()));
    locked().put(i, node);
    until("it owns something", || {
        let owned = locked().member(via, i)?["partitions"].as_u64()?;
        (owned > 0).then_some(())
    });
}

#[test]
fn each_of_three_nodes_is_restarted_in_turn_under_traffic_and_every_tenant_gets_exactly_its_limit()
{
    let cluster = Mutex::new(Cluster::start(3, POLICY));
    under_traffic(&cluster, || (0..3).for_each(|i| restart(&cluster, i, (i + 1) % 3))).is_exact();
}

#[test]
fn a_node_that_is_killed_and_back_within_200_ms_never_admits_more_than_the_limit() {
    const TEN: &str = r#"
        default_tier = "free"
        [tiers.free]
        limits = [{ name = "hour", algorithm = "sliding_log", limit = 10, window = "1h" }]
    "#;
    for spent in [3, 10] {
        let mut cluster = Cluster::start(3, TEN);
        let tenant = cluster.tenant_of(1, 0, "k");
        let ask = |cluster: &Cluster, through: usize| {
            let answer = cluster.call(through, "POST", "/v1/check", json!({"tenant": tenant}));
            (answer.status == 200).then(|| answer.json()["allowed"] == true)
        };
        let mut allowed = (0..spent).filter(|_| ask(&cluster, 0) == Some(true)).count();
        cluster.kill(1);
        std::thread::sleep(Duration::from_millis(150));
        cluster.begin(1);
        cluster.wait_ready(1);
        // It decides again, and knows that it doesn't know.
        until("its next life decides", || ask(&cluster, 2));
        allowed += (0..30).filter(|i| ask(&cluster, i % 3) == Some(true)).count();
        assert!(allowed <= 10, "{allowed} were allowed");
    }
}

#[test]
fn a_whole_cluster_that_is_stopped_and_started_twice_gives_nothing_back() {
    const TEN: &str = r#"
        default_tier = "free"
        [tiers.free]
        limits = [{ name = "hour", algorithm = "sliding_log", limit = 10, window = "1h" }]
    "#;
    let mut cluster = Cluster::start(3, TEN);
    let tenants: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "w")).collect();
    for tenant in &tenants {
        assert_eq!(cluster.admitted(3, 12, |_| json!({"tenant": tenant})), 10);
    }
    for _ in 0..2 {
        // All at once, as an operator's tool would.
        let nodes: Vec<_> = (0..3).map(|i| cluster.take_away(i)).collect();
        nodes.iter().for_each(|node| node.process.signal(rustix::process::Signal::TERM));
        for mut node in nodes {
            let status = node.process.end();
            assert!(status.success(), "{status}: {}", node.process.log());
        }
        (0..3).for_each(|i| cluster.begin(i));
        (0..3).for_each(|i| cluster.wait_ready(i));
        for tenant in &tenants {
            assert_eq!(cluster.check(1, json!({"tenant": tenant}))["allowed"], false, "{tenant}");
        }
    }
}
