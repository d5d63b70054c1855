//! Nodes in one process, over a network that can be cut.

mod cluster;
mod golden;
mod golden_2;
mod golden_3;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::check::Name;
use crate::cluster::claim::Claim;
use crate::cluster::state::*;
use crate::placement::{NodeId, Secret, Weight};
use crate::random::Seed;

const WITHIN: Duration = Duration::from_secs(10);
const POLICY: &str = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]},"t1":{"limits":[]}}}"#;

/// The network: who is there, and which pairs don't hear each other.
#[derive(Default)]
struct Hub {
    nodes: Mutex<BTreeMap<NodeId, Arc<Node>>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Pairs, the lower first, that know that there is no link between them.
    unlinked: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Nodes whose links are slow, and how long a message takes on them each way.
    slow: Mutex<BTreeMap<NodeId, Duration>>,
}

impl Hub {
    fn severed(&self, a: NodeId, b: NodeId) -> bool {
        let cut = self.cut.lock().unwrap();
        cut.contains(&a) || cut.contains(&b)
    }

    fn node(&self, id: u64) -> Arc<Node> {
        self.nodes.lock().unwrap()[&NodeId(id)].clone()
    }

    fn isolate(&self, id: NodeId) {
        self.cut.lock().unwrap().insert(id);
    }

    fn heal(&self) {
        self.cut.lock().unwrap().clear();
        self.unlinked.lock().unwrap().clear();
    }

    fn unlink(&self, a: NodeId, b: NodeId) {
        self.unlinked.lock().unwrap().insert((a.min(b), a.max(b)));
    }

    fn is_unlinked(&self, a: NodeId, b: NodeId) -> bool {
        self.unlinked.lock().unwrap().contains(&(a.min(b), a.max(b)))
    }

    fn slow_down(&self, id: NodeId, delay: Duration) {
        self.slow.lock().unwrap().insert(id, delay);
    }

    /// How long a message between the two takes each way.
    fn delay(&self, a: NodeId, b: NodeId) -> Duration {
        let slow = self.slow.lock().unwrap();
        slow.get(&a).or(slow.get(&b)).copied().unwrap_or_default()
    }
}

struct Wire {
    own: NodeId,
    hub: Arc<Hub>,
}

impl Transport for Wire {
    fn send<'a>(
        &'a self,
        to: NodeId,
        _: &'a str,
        _: Traffic,
        bytes: Vec<u8>,
        within: Duration,
    ) -> Sending<'a> {
        Box::pin(async move {
            let late = || async {
                tokio::time::sleep(within).await;
                Err(TransportError::Late(within))
            };
            if self.hub.severed(self.own, to) {
                return late().await;
            }
            if self.hub.is_unlinked(self.own, to) {
                return Err(TransportError::NotSent("there is no link".into()));
            }
            tokio::time::sleep(self.hub.delay(self.own, to)).await;
            let node = self.hub.nodes.lock().unwrap().get(&to).cloned();
            let Some(node) = node else {
                return Err(TransportError::NotSent("nobody is there".into()));
            };
            let answer = node.serve(self.own, &bytes).await;
            drop(node);
            tokio::time::sleep(self.hub.delay(self.own, to)).await;
            if self.hub.severed(self.own, to) { late().await } else { Ok(answer) }
        })
    }
}

/// A cluster, each node on its own place.
struct Cluster {
    hub: Arc<Hub>,
    places: BTreeMap<NodeId, Place>,
}

fn claim(id: NodeId) -> Claim {
    let name = |text: &str| Name::new(text).unwrap();
    Claim::first(id, name(&format!("n{id}")), name("test"))
}

fn settings(id: NodeId, place: Place) -> Settings {
    let timers = Timers { heartbeat_ms: 50, election_ms_min: 200, election_ms_max: 400 };
    Settings {
        timers,
        keep_behind_snapshot: 5,
        ..Settings::new(claim(id), place, Seed::from_number(id.0))
    }
}

impl Cluster {
    async fn start(nodes: u64, place: impl Fn(u64) -> Place) -> Self {
        let mut cluster = Self { hub: Arc::default(), places: BTreeMap::new() };
        for id in 1..=nodes {
            cluster.join(id, place(id)).await;
        }
        cluster
    }

    async fn in_memory(nodes: u64) -> Self {
        let cluster = Self::start(nodes, |_| Place::Memory).await;
        cluster.begin().await;
        cluster
    }

    async fn join(&mut self, id: u64, place: Place) {
        let wire = Wire { own: NodeId(id), hub: self.hub.clone() };
        let node = Node::start(settings(NodeId(id), place.clone()), Arc::new(wire)).await.unwrap();
        self.places.insert(NodeId(id), place);
        self.hub.nodes.lock().unwrap().insert(NodeId(id), Arc::new(node));
    }

    fn seeds(&self) -> Vec<(NodeId, Address)> {
        self.places
            .keys()
            .map(|id| (*id, Address::new(format!("n{id}"), format!("n{id}:7171"))))
            .collect()
    }

    async fn begin(&self) {
        let members = self.places.keys().map(|id| member(&format!("n{id}"))).collect();
        let what =
            What::Begin { secret: Secret::new(1, 2).into(), document: POLICY.into(), members };
        self.hub.node(1).bootstrap(&self.seeds(), command(1, what), WITHIN).await.unwrap();
        self.settle(1).await;
    }

    fn all(&self) -> Vec<Arc<Node>> {
        self.hub.nodes.lock().unwrap().values().cloned().collect()
    }

    /// Waits until every node is at `version` of the policy.
    async fn settle(&self, version: u64) {
        for node in self.all() {
            let mut watch = node.watch();
            let there =
                watch.wait_for(|view| view.state.agreed().is_some_and(|a| a.version >= version));
            tokio::time::timeout(WITHIN, there).await.expect("a node stays behind").unwrap();
        }
    }

    async fn leader(&self) -> Arc<Node> {
        self.leader_but(None).await
    }

    /// The leader, once all but `without` agree on another one than that.
    async fn leader_but(&self, without: Option<NodeId>) -> Arc<Node> {
        let found = async {
            loop {
                let others: Vec<_> =
                    self.all().into_iter().filter(|n| Some(n.id()) != without).collect();
                let leaders: BTreeSet<_> = others.iter().map(|n| n.leader()).collect();
                if let (1, Some(Some(leader))) = (leaders.len(), leaders.first())
                    && Some(*leader) != without
                {
                    return self.hub.node(leader.0);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WITHIN, found).await.expect("nobody is elected")
    }

    async fn stop(&self, id: NodeId) {
        let mut node = self.hub.nodes.lock().unwrap().remove(&id).unwrap();
        let alone = loop {
            match Arc::try_unwrap(node) {
                Ok(alone) => break alone,
                Err(shared) => node = shared,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        alone.stop().await;
    }
}

fn member(text: &str) -> NewMember {
    NewMember {
        name: Name::new(text).unwrap(),
        http: format!("{text}:7071"),
        peer: format!("{text}:7171"),
        weight: Weight::ONE,
    }
}

fn command(request: u128, what: What) -> Command {
    Command { request: RequestId(request), time: 1_000, by: "ops".into(), what }
}

fn put(request: u128, tenant: &str, expected: Option<u64>) -> Command {
    let tenant = crate::check::TenantId::new(tenant).unwrap();
    command(
        request,
        What::Edit { expected, edit: Edit::PutTenant(tenant, r#"{"tier":"t1"}"#.into()) },
    )
}
