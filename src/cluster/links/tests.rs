//! Links over pipes; and three nodes whose Raft agrees over sockets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::{Clock as _, ManualClock, SystemClock};
use crate::cluster::claim::Claim;
use crate::cluster::raft::{Address, BootstrapError, Node, Place, Settings};
use crate::cluster::state::{Command, Edit, Made, NewMember, RequestId, What};
use crate::net::pipes::Pipes;
use crate::net::{self, Listen, Plain, PlainListener};
use crate::peer::{self, BootId, Handler, Hello, Lineage, VERSIONS};
use crate::placement::{Secret, Weight};
use crate::watch;

const SECOND: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn identity(node: &str) -> Identity {
    Identity {
        cluster: name("demo"),
        node: name(node),
        boot: BootId(1),
        versions: VERSIONS,
        lineage: Lineage::default(),
        level: Default::default(),
    }
}

/// Members by their number: `n2` at the address `n2`.
fn members(numbers: &[u64]) -> Vec<(NodeId, Name, String)> {
    numbers.iter().map(|id| (NodeId(*id), name(&format!("n{id}")), format!("n{id}"))).collect()
}

fn links_over<N: Network>(network: N) -> Links {
    links_at(ManualClock::default(), network)
}

fn links_at<N: Network>(clock: ManualClock, network: N) -> Links {
    Links::new(LinksArgs {
        us: identity("n1"),
        guard: Default::default(),
        network,
        clock: Arc::new(clock),
        seed: Seed::from_number(1),
        control: Handle::current(),
        workers: Vec::new(),
    })
}

/// Answers with what it was asked, at once, unless that is `never`; counts.
#[derive(Default)]
struct Echo(AtomicUsize);

impl Handler for Echo {
    fn admits(&self, _: &Hello) -> bool {
        true
    }
    async fn handle(&self, call: Call) -> Result<Opaque, Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if call.request.bytes == "never" {
            std::future::pending::<()>().await;
        }
        Ok(call.request)
    }
}

/// Somebody who serves; gone when it is dropped.
struct Serving {
    _stop: watch::Sender<bool>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn serve(node: &str, listener: impl Listen, handler: Arc<impl Handler>) -> Serving {
    let (stop, stopped) = watch::channel(false);
    let (workers, mut parcels) = net::handover(1);
    let clock = Arc::new(ManualClock::default());
    let serving = peer::serve(
        parcels.remove(0),
        identity(node),
        handler,
        Default::default(),
        clock,
        stopped.clone(),
    );
    let accepting = peer::accept(listener, workers, stopped);
    Serving { _stop: stop, tasks: [tokio::spawn(accepting), tokio::spawn(serving)] }
}

fn opaque(text: &'static str) -> Opaque {
    Opaque { kind: Kind(1), bytes: text.into() }
}

async fn all_connected(peer: &Peer) {
    for link in [peer.checks(), peer.raft(), peer.bulk()] {
        link.connected().await;
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_come_get_links_those_that_go_lose_theirs_and_all_others_keep_them() {
    let pipes = Pipes::default();
    let _serving: Vec<_> = [2, 3, 4]
        .map(|id| format!("n{id}"))
        .map(|n| serve(&n, pipes.listen(&n), Arc::new(Echo::default())))
        .into();
    let links = links_over(pipes);
    links.update(&members(&[1, 2, 3]));
    assert!(links.peer(NodeId(1)).is_none(), "a link to itself");
    let (second, third) = (links.peer(NodeId(2)).unwrap(), links.peer(NodeId(3)).unwrap());
    all_connected(&second).await;
    all_connected(&third).await;
    assert!(
        links
            .states()
            .iter()
            .all(|s| matches!(s.raft, LinkState::Connected { boot: BootId(1), .. }))
    );
    links.update(&members(&[1, 3, 4]));
    let numbers: Vec<_> = links.states().iter().map(|state| state.number.0).collect();
    assert_eq!((numbers, links.number_of(&name("n2"))), (vec![3, 4], None));
    assert!(Arc::ptr_eq(&third, &links.peer(NodeId(3)).unwrap()) && links.is_up(NodeId(3)));
    all_connected(&links.peer(NodeId(4)).unwrap()).await;
    // Whoever holds the link of one that is gone may end what he began; then its connections end.
    assert_eq!(second.call(opaque("x"), SECOND).await.unwrap(), opaque("x"));
    let mut state = second.checks().states();
    drop(second);
    while state.changed().await.is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn a_member_that_moved_is_dialled_where_it_is_now() {
    let pipes = Pipes::default();
    let (here, there) = (Arc::new(Echo::default()), Arc::new(Echo::default()));
    let _serving = [
        serve("n2", pipes.listen("n2"), here.clone()),
        serve("n2", pipes.listen("b"), there.clone()),
    ];
    let links = links_over(pipes);
    links.update(&members(&[2]));
    let before = links.peer(NodeId(2)).unwrap();
    before.checks().connected().await;
    links.update(&[(NodeId(2), name("n2"), "b".into())]);
    let after = links.peer(NodeId(2)).unwrap();
    after.checks().connected().await;
    after.call(opaque("x"), SECOND).await.unwrap();
    assert_eq!((here.0.load(Ordering::Relaxed), there.0.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(links.states()[0].address, "b");
}

#[tokio::test]
async fn drivers_of_checks_run_on_the_workers_in_turn_and_the_others_on_the_control_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (control, workers) = (runtime(), [runtime(), runtime()]);
    let links = Links::new(LinksArgs {
        us: identity("n1"),
        guard: Default::default(),
        network: Pipes::default(),
        clock: Arc::new(ManualClock::default()),
        seed: Seed::from_number(1),
        control: control.handle().clone(),
        workers: workers.iter().map(|worker| worker.handle().clone()).collect(),
    });
    links.update(&members(&[1, 2, 3, 4, 5]));
    let tasks: Vec<_> = workers
        .iter()
        .chain([&control])
        .map(|runtime| runtime.metrics().num_alive_tasks())
        .collect();
    assert_eq!(tasks, [2, 2, 8]);
    for runtime in workers.into_iter().chain([control]) {
        runtime.shutdown_background();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_opens_its_breaker_and_a_reset_closes_it() {
    let (pipes, echo) = (Pipes::default(), Arc::new(Echo::default()));
    let _serving = serve("n2", pipes.listen("n2"), echo.clone());
    let clock = ManualClock::default();
    let links = links_at(clock.clone(), pipes);
    links.update(&members(&[2, 3]));
    let (there, gone) = (links.peer(NodeId(2)).unwrap(), links.peer(NodeId(3)).unwrap());
    there.checks().connected().await;
    // A peer that lost its connection a moment ago is about to be back: that says nothing about it.
    for _ in 0..20 {
        let unsent = gone.call(opaque("x"), SECOND).await.unwrap_err();
        assert!(matches!(unsent, AskError::Call(CallError::NotConnected(_))));
    }
    clock.advance(RECONNECT_MAX);
    let now = RECONNECT_MAX;
    for _ in 0..5 {
        // It is there, and slow with one answer: whoever waits has waited in vain, and that is all.
        let late = there.call(opaque("never"), Duration::from_millis(60)).await.unwrap_err();
        assert!(
            matches!(late, AskError::Call(CallError::DeadlinePassed(_))) && !late.was_not_handled()
        );
        let unsent = gone.call(opaque("x"), SECOND).await.unwrap_err();
        assert!(
            matches!(unsent, AskError::Call(CallError::NotConnected(_)))
                && unsent.was_not_handled()
        );
    }
    let error = gone.call(opaque("x"), SECOND).await.unwrap_err();
    assert!(matches!(error, AskError::Open(_)) && error.was_not_handled(), "{error}");
    there.call(opaque("x"), SECOND).await.unwrap();
    let [second, third] = links.breakers(now).try_into().unwrap();
    assert_eq!((second.id.as_str(), second.state, second.connected), ("n2", "closed", true));
    assert_eq!((third.state, third.failures, third.opened), ("open", 5, 1));
    assert!((200..=250).contains(&third.retry_after_ms.unwrap()));
    assert_eq!(
        (third.connected, third.why.as_deref()),
        (false, Some("can't connect: connection refused"))
    );
    assert!(links.reset_breaker(&name("n3")) && !links.reset_breaker(&name("n9")));
    let [_, third] = links.breakers(now).try_into().unwrap();
    assert_eq!((third.state, third.retry_after_ms), ("closed", None));
}

/// What `node` says of itself as it connects to n1 for checks.
fn hello(node: &str) -> Hello {
    Hello { who: identity(node), class: Class::Checks, marks: Default::default() }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_reached_in_one_direction_alone_is_named() {
    let (pipes, clock) = (Pipes::default(), ManualClock::default());
    let _serving = serve("n2", pipes.listen("n2"), Arc::new(Echo::default()));
    let links = links_at(clock.clone(), pipes);
    links.update(&members(&[2, 3]));
    links.peer(NodeId(2)).unwrap().checks().connected().await;
    tokio::time::sleep(SECOND).await;
    links.peer_connected(&hello("n3"));
    assert_eq!((links.one_sided(0), links.unanswered(0)), (vec![], vec![]));
    clock.advance(6 * 1_000 * MS);
    let now = clock.now().boot;
    let why = "can't connect: connection refused".to_string();
    assert_eq!(links.one_sided(now), [(name("n3"), why)]);
    assert_eq!(links.unanswered(now), [name("n2")]);
    links.peer_connected(&hello("n2"));
    links.peer_disconnected(&hello("n3"));
    assert_eq!((links.one_sided(now), links.unanswered(now)), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_frees_the_place_of_its_probe() {
    let pipes = Pipes::default();
    let _serving = serve("n2", pipes.listen("n2"), Arc::new(Echo::default()));
    let clock = ManualClock::default();
    let links = Links::new(LinksArgs {
        us: identity("n1"),
        guard: Default::default(),
        network: pipes,
        clock: Arc::new(clock.clone()),
        seed: Seed::from_number(1),
        control: Handle::current(),
        workers: Vec::new(),
    });
    links.update(&members(&[2]));
    let peer = links.peer(NodeId(2)).unwrap();
    clock.advance(RECONNECT_MAX);
    for _ in 0..5 {
        peer.call(opaque("too early"), SECOND).await.unwrap_err();
    }
    peer.checks().connected().await;
    clock.advance(250 * MS);
    let mut probe = Box::pin(peer.call(opaque("never"), SECOND));
    assert!(futures_util::poll!(&mut probe).is_pending());
    assert!(matches!(peer.call(opaque("x"), SECOND).await, Err(AskError::Open(_))));
    drop(probe);
    assert!(peer.call(opaque("x"), SECOND).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_back_is_dialled_and_probed_at_once() {
    let (pipes, clock) = (Pipes::default(), ManualClock::default());
    clock.advance(1_000 * MS);
    let links = Links::new(LinksArgs {
        us: identity("n1"),
        guard: Default::default(),
        network: pipes.clone(),
        clock: Arc::new(clock.clone()),
        seed: Seed::from_number(1),
        control: Handle::current(),
        workers: Vec::new(),
    });
    links.update(&members(&[2]));
    let peer = links.peer(NodeId(2)).unwrap();
    clock.advance(RECONNECT_MAX);
    for _ in 0..5 {
        peer.call(opaque("too early"), SECOND).await.unwrap_err();
    }
    // By now it waits for up to a second between two attempts.
    tokio::time::sleep(10 * SECOND).await;
    let _serving = serve("n2", pipes.listen("n2"), Arc::new(Echo::default()));
    assert!(!links.is_up(NodeId(2)) && links.breakers(clock.now().boot)[0].state == "open");
    links.peer_connected(&hello("n2"));
    let connected = tokio::time::timeout(Duration::from_millis(20), all_connected(&peer));
    connected.await.expect("it waits before it dials");
    assert_eq!(links.breakers(clock.now().boot)[0].state, "half_open");
    assert!(links.is_up(NodeId(2)));
    for _ in 0..3 {
        peer.call(opaque("x"), SECOND).await.unwrap();
    }
    assert_eq!(links.breakers(clock.now().boot)[0].state, "closed");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_message_of_raft_says_whether_it_was_sent() {
    let pipes = Pipes::default();
    let serving = serve("n2", pipes.listen("n2"), Arc::new(Echo::default()));
    let links = links_over(pipes);
    links.update(&members(&[2]));
    let send = |to, text: &str| links.send(NodeId(to), "", Traffic::Bulk, text.into(), SECOND);
    let nobody = send(9, "x").await.unwrap_err();
    assert_eq!(nobody.to_string(), "not connected: there is no link to node 9");
    let early = send(2, "x").await.unwrap_err();
    assert_eq!(early.to_string(), "not connected: not connected to n2");
    links.peer(NodeId(2)).unwrap().bulk().connected().await;
    assert_eq!(send(2, "x").await.unwrap(), b"x");
    assert!(matches!(send(2, "never").await, Err(TransportError::Late(SECOND))));
    let mut lost = send(2, "never");
    assert!(futures_util::poll!(&mut lost).is_pending());
    drop(serving);
    let lost = lost.await.unwrap_err();
    assert_eq!(lost.to_string(), "no answer: the connection to n2 broke");
}

#[tokio::test]
async fn an_address_that_cant_be_dialled_stands_in_the_state_of_its_link() {
    let links = links_over(Plain::default());
    links.update(&[(NodeId(2), name("n2"), "192.0.2.1:7171".into())]);
    let mut states = links.peer(NodeId(2)).unwrap().raft().states();
    let failed =
        states.wait_for(|state| matches!(state, LinkState::Connecting { why: Some(_), .. }));
    let LinkState::Connecting { why: Some(why), .. } = failed.await.unwrap().clone() else {
        panic!()
    };
    assert!(why.starts_with("can't connect: won't dial 192.0.2.1:7171"), "{why}");
    assert!(!links.is_up(NodeId(2)));
}

/// What a node's peers get to hear.
struct RaftOnly {
    links: Arc<Links>,
    node: Arc<Node>,
}

impl Handler for RaftOnly {
    fn admits(&self, hello: &Hello) -> bool {
        self.links.number_of(&hello.who.node).is_some()
    }
    async fn handle(&self, call: Call) -> Result<Opaque, Failure> {
        match call.request.kind {
            Kind::RAFT | Kind::RAFT_LATER => self.links.serve_raft(&self.node, call).await,
            _ => Err(Failure::UnknownKind),
        }
    }
}

/// A worker as nodes have them: a thread with a runtime that does one thing for ever.
fn worker() -> Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

fn command(request: u128, what: What) -> Command {
    Command { request: RequestId(request), time: 1_000, by: "ops".into(), what }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raft_of_three_nodes_agrees_over_sockets() {
    let (mut listeners, mut members) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        let listener = PlainListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        members.push((
            NodeId(id),
            name(&format!("n{id}")),
            listener.local_addr().unwrap().to_string(),
        ));
        listeners.push(listener);
    }
    let (_stop, stopped) = watch::channel(false);
    let mut nodes = BTreeMap::new();
    for ((number, name, _), listener) in members.iter().zip(listeners) {
        let (us, clock, worker) = (identity(name.as_str()), Arc::new(SystemClock::new()), worker());
        let links = Arc::new(Links::new(LinksArgs {
            us: us.clone(),
            guard: Default::default(),
            network: Plain::default(),
            clock: clock.clone(),
            seed: Seed::from_number(number.0),
            control: Handle::current(),
            workers: vec![worker.clone()],
        }));
        links.update(&members);
        let claim = Claim::first(*number, name.clone(), Name::new("demo").unwrap());
        let settings = Settings::new(claim, Place::Memory, Seed::from_number(number.0));
        let node = Arc::new(Node::start(settings, links.clone()).await.unwrap());
        let handler = Arc::new(RaftOnly { links, node: node.clone() });
        let (workers, mut parcels) = net::handover(1);
        worker.spawn(peer::serve(
            parcels.remove(0),
            us,
            handler,
            Default::default(),
            clock,
            stopped.clone(),
        ));
        tokio::spawn(peer::accept(listener, workers, stopped.clone()));
        nodes.insert(*number, node);
    }
    let seed = |(number, name, at): &(NodeId, Name, String)| {
        (*number, Address::new(name.as_str(), at.as_str()))
    };
    let seeds: Vec<_> = members.iter().map(seed).collect();
    let new = |(_, name, at): &(NodeId, Name, String)| NewMember {
        name: name.clone(),
        http: at.clone(),
        peer: at.clone(),
        weight: Weight::ONE,
    };
    let document = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.to_string();
    let what = What::Begin {
        secret: Secret::new(1, 2).into(),
        document,
        members: members.iter().map(new).collect(),
    };
    let begun = async {
        // Until the links are up, the others are silent.
        while let Err(error) =
            nodes[&NodeId(1)].bootstrap(&seeds, command(1, what.clone()), WITHIN).await
        {
            assert!(matches!(error, BootstrapError::Silent { .. }), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WITHIN, begun).await.expect("the cluster doesn't begin");
    for (number, node) in &nodes {
        let tenant = crate::check::TenantId::new(&format!("t-{number}")).unwrap();
        let what =
            What::Edit { expected: None, edit: Edit::PutTenant(tenant, r#"{"tier":"t0"}"#.into()) };
        let done = node.propose(command(10 + u128::from(number.0), what), WITHIN).await.unwrap();
        assert_eq!(done.made, Made::Version(1 + number.0));
    }
    for node in nodes.values() {
        let mut views = node.watch();
        let seen =
            views.wait_for(|view| view.state.agreed().is_some_and(|agreed| agreed.version == 4));
        tokio::time::timeout(WITHIN, seen).await.expect("a node stays behind").unwrap();
    }
}
