//! One life of a node and of the client on it.

use std::sync::Arc;
use std::time::Duration;

use tidegate::check::{Name, TenantId};
use tidegate::cluster::claim::Claim;
use tidegate::cluster::links::{Links, LinksArgs};
use tidegate::cluster::raft::{Address, Medium, Node, Place, ProposeError, Settings};
use tidegate::cluster::state::{Command, Done, Edit, Made, NewMember, Refusal, RequestId, What};
use tidegate::net;
use tidegate::peer::{
    self, BootId, Call, Failure, Handler, Hello, Identity, Kind, Lineage, Opaque, VERSIONS,
};
use tidegate::placement::{NodeId, Secret, Weight};
use tidegate::random::Generator;
use tidegate::watch;

use super::books::{Books, version};
use super::{DOCUMENT, HEALED_WITHIN, LOOK_EVERY, NODES, PAUSE_MS, PORT, WITHIN};
use crate::sim::{self, Simulated, SimulatedClock, SimulatedListener};

pub(super) fn name(node: usize) -> Name {
    Name::new(&format!("n{}", node + 1)).unwrap()
}

fn number(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn address(node: usize) -> String {
    format!("n{}:{PORT}", node + 1)
}

struct RaftOnly {
    own: usize,
    links: Arc<Links>,
    node: Arc<Node>,
    medium: Medium,
    books: Books,
}

impl Handler for RaftOnly {
    fn admits(&self, hello: &Hello) -> bool {
        self.links.number_of(&hello.who.node).is_some()
    }
    async fn handle(&self, call: Call) -> Result<Opaque, Failure> {
        match call.request.kind {
            Kind::RAFT | Kind::RAFT_LATER => {
                let from = (0..NODES).find(|node| name(*node) == call.from.who.node);
                let before = self.node.term();
                let answer = self.links.serve_raft(&self.node, call).await;
                if let Some(from) = from.filter(|_| self.node.term() > before) {
                    self.books.votes(self.own, from, &self.medium);
                }
                answer
            }
            _ => Err(Failure::UnknownKind),
        }
    }
}

/// One life of one node.
pub(super) async fn live(seed: u64, own: usize, medium: Medium, books: Books) -> turmoil::Result {
    let life = books.begins(own);
    let seed = sim::node_seed(seed, number(own).0, life);
    let us = Identity {
        cluster: Name::new("demo").unwrap(),
        node: name(own),
        boot: BootId(life),
        versions: VERSIONS,
        lineage: Lineage::default(),
        level: tidegate::placement::FormatLevel::OWN,
    };
    let clock = Arc::new(SimulatedClock::up_for(Duration::from_secs(1_000 * (own as u64 + 1))));
    let listener = SimulatedListener::bind(PORT).await?;
    let links = Arc::new(Links::new(LinksArgs {
        us: us.clone(),
        guard: Default::default(),
        network: Simulated,
        clock: clock.clone(),
        seed: seed.clone(),
        control: tokio::runtime::Handle::current(),
        workers: Vec::new(),
    }));
    let members: Vec<_> =
        (0..NODES).map(|node| (number(node), name(node), address(node))).collect();
    links.update(&members);
    let place = Place::Medium(medium.clone());
    let claim = Claim::first(number(own), name(own), us.cluster.clone());
    let settings = Settings {
        snapshot_after: 60,
        keep_behind_snapshot: 20,
        ..Settings::new(claim, place, seed.clone())
    };
    let node = match Node::start(settings, links.clone()).await {
        Ok(node) => Arc::new(node),
        // The power failed again as it began.
        Err(_) if medium.is_off() => return std::future::pending().await,
        Err(error) => return Err(error.into()),
    };
    let (_stop, stopped) = watch::channel(false);
    let (workers, mut parcels) = net::handover(1);
    let (serving, of) = (node.clone(), (medium.clone(), books.clone()));
    let handler = Arc::new(RaftOnly { own, links, node: serving, medium: of.0, books: of.1 });
    tokio::join!(
        peer::accept(listener, workers, stopped.clone()),
        peer::serve(parcels.remove(0), us, handler, Default::default(), clock, stopped),
        begin(own, &node, seed.fork("begin", 0)),
        look_at(own, &node, &books),
        ask(own, life, &node, &books, seed.fork("client", 0)),
        end(&node, &medium, &books),
    );
    Ok(())
}

/// The first of them begins the cluster, however often that takes.
async fn begin(own: usize, node: &Node, mut chance: Generator) {
    let seeds: Vec<_> = (0..NODES)
        .map(|node| (number(node), Address::new(name(node).as_str(), address(node))))
        .collect();
    let member = |node| NewMember {
        name: name(node),
        http: address(node),
        peer: address(node),
        weight: Weight::ONE,
    };
    let members = (0..NODES).map(member).collect();
    let what = What::Begin { secret: Secret::new(1, 2).into(), document: DOCUMENT.into(), members };
    let command = Command {
        request: RequestId(chance.next_u128()),
        time: 1,
        by: "the first start".into(),
        what,
    };
    while own == 0 && node.view().state.agreed().is_none() {
        let _ = node.bootstrap(&seeds, command.clone(), WITHIN).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Writes down what a node shows.
async fn look_at(own: usize, node: &Node, books: &Books) {
    let (mut views, mut known, mut applied) = (node.watch(), (0, None), 0);
    loop {
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, views.changed()).await {
            return;
        }
        let now = (node.term(), node.leader());
        if now != known {
            let leader = now.1.map_or("nobody".into(), |leader| format!("n{leader}"));
            books.trace.note(format_args!("n{} is in term {}, led by {leader}", own + 1, now.0));
            known = now;
        }
        if now.1 == Some(number(own)) {
            books.leads(now.0, number(own));
        }
        let view = views.borrow_and_update().clone();
        if view.applied.0 != applied {
            applied = view.applied.0;
            books.applied(own, view);
        }
    }
}

/// Proposes commands, each for a tenant of its own, as long as there are faults; then one more.
async fn ask(own: usize, life: u64, node: &Node, books: &Books, mut chance: Generator) {
    let client = Client { own, node, books };
    for i in 0u64.. {
        let pause = PAUSE_MS.start + chance.next_u64() % (PAUSE_MS.end - PAUSE_MS.start);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let version = version(&node.view());
        if books.seen().healed {
            break;
        } else if version > 0 {
            let tenant = TenantId::new(&format!("n{}-{life}-{i}", own + 1)).unwrap();
            // Some are for the version that this node knows; where it is behind, or somebody is
            // quicker, they are refused.
            let expected = chance.next_u64().is_multiple_of(4).then_some(version);
            client.propose(tenant, expected, chance.next_u128(), WITHIN).await;
        }
    }
    let last = TenantId::new(&format!("n{}-{life}-last", own + 1)).unwrap();
    let spoken = client.propose(last, None, chance.next_u128(), HEALED_WITHIN).await;
    books.seen().last_words[own] = spoken;
}

struct Client<'a> {
    own: usize,
    node: &'a Node,
    books: &'a Books,
}

impl Client<'_> {
    /// Whether it was done.
    async fn propose(
        &self,
        tenant: TenantId,
        expected: Option<u64>,
        request: u128,
        within: Duration,
    ) -> bool {
        let edit = Edit::PutTenant(tenant.clone(), r#"{"tier":"t0"}"#.into());
        let what = What::Edit { expected, edit };
        let command = Command { request: RequestId(request), time: 1, by: "client".into(), what };
        let newest = self.books.newest();
        let answer = self.node.propose(command, within).await;
        self.books.trace.note(format_args!("n{} hears of {tenant}: {answer:?}", self.own + 1));
        match answer {
            Ok(Done { made: Made::Version(version), .. }) => {
                self.books.done(tenant, version, newest);
                return true;
            }
            Err(ProposeError::Refused(Refusal::Stale { .. }) | ProposeError::NoLeader) => {
                self.books.seen().never.push(tenant);
            }
            Err(ProposeError::Unknown | ProposeError::Stopped) => {}
            other => self.books.trace.violation(format_args!("{tenant}: {other:?}")),
        }
        false
    }
}

/// Raft ends only where the disk fails.
async fn end(node: &Node, medium: &Medium, books: &Books) {
    let why = node.failed().await;
    books.trace.note(format_args!("n{} has stopped: {why}", node.id()));
    books.check(medium.is_off(), || format!("the Raft of n{} has stopped: {why}", node.id()));
    std::future::pending::<()>().await;
}
