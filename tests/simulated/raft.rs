//! Three nodes whose Raft goes over links, on a simulated network that breaks, with disks that
//! outlive the nodes and lose power in the middle of a write.
//!
//! While faults come and go, a client on each node proposes commands. Whatever happens: a command
//! that was answered as done is in the log for good, one that was answered as not done never is,
//! versions rise with every command and never otherwise, within a term leaders' numbers only rise,
//! and nodes that have applied the same entries have the same state, to the byte. When the faults
//! end, all nodes are expected to agree again, and to do what they are asked, within seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::check::{Name, TenantId};
use tidegate::cluster::claim::Claim;
use tidegate::cluster::links::{Links, LinksArgs};
use tidegate::cluster::raft::{Address, Medium, Node, Place, ProposeError, Settings, View};
use tidegate::cluster::state::{Command, Done, Edit, Made, NewMember, Refusal, RequestId, What};
use tidegate::net;
use tidegate::peer::{
    self, BootId, Call, Failure, Handler, Hello, Identity, Kind, Lineage, Opaque, VERSIONS,
};
use tidegate::placement::{NodeId, Secret, Weight};
use tidegate::random::Generator;
use tidegate::watch;

use crate::sim::{self, Fault, Nemesis, Plan, Simulated, SimulatedClock, SimulatedListener, Trace};

const NODES: usize = 3;
const PORT: u16 = 7171;
const DOCUMENT: &str = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#;

/// Faults come from the second to the last of these times.
const FAULTS_FROM: Duration = Duration::from_secs(2);
const FAULTS_END: Duration = Duration::from_secs(32);
/// How long it may take after that until all agree. A link for bulk notices within some twelve
/// seconds that it leads nowhere and dials within two more; then a node gets the snapshot that it
/// needs.
const HEALED_WITHIN: Duration = Duration::from_secs(15);
/// How long a client waits for the answer to a command.
const WITHIN: Duration = Duration::from_secs(2);
/// Between two commands of a client, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..300;
/// How often a node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What all lives of all nodes and clients have to show, and whoever judges them.
#[derive(Clone)]
struct Books {
    trace: Trace,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    lives: [u64; NODES],
    /// Who has led, by term.
    leaders: BTreeMap<u64, BTreeSet<NodeId>>,
    /// States, encoded, by the last entry applied.
    states: BTreeMap<u64, Vec<u8>>,
    /// What each node has applied in its life.
    views: [Arc<View>; NODES],
    /// Commands that were answered as done: the tenant of each, and the version that it made.
    done: BTreeMap<u64, TenantId>,
    /// Tenants that no log may ever hold.
    never: Vec<TenantId>,
    /// The next node that gives its vote loses its power right after the answer.
    armed: bool,
    /// Who did, and whom it voted for.
    voted: Option<(usize, usize)>,
    /// The faults are over: each client says one last thing.
    healed: bool,
    last_words: [bool; NODES],
}

impl Books {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn check(&self, holds: bool, otherwise: impl Fn() -> String) {
        if !holds {
            self.trace.violation(otherwise());
        }
    }

    /// A node says that it leads. A vote is for a term and a number, and is only ever changed for a
    /// higher one: within a term, whoever comes to lead later has the higher number.
    fn leads(&self, term: u64, leader: NodeId) {
        let mut seen = self.seen();
        let known = seen.leaders.entry(term).or_default();
        let before = known.last().copied();
        let is_new = known.insert(leader);
        drop(seen);
        let fine = !is_new || before.is_none_or(|before| before < leader);
        self.check(fine, || format!("in term {term}, {leader} comes to lead after {before:?}"));
    }

    /// A node has applied entries.
    fn applied(&self, node: usize, view: Arc<View>) {
        let (index, version) = (view.applied.0, version(&view));
        self.trace.note(format_args!("n{} has applied {index}, version {version}", node + 1));
        let state = view.state.encode().unwrap();
        let mut seen = self.seen();
        let same = *seen.states.entry(index).or_insert_with(|| state.clone()) == state;
        let before = std::mem::replace(&mut seen.views[node], view);
        drop(seen);
        let before = (before.applied.0, self::version(&before));
        self.check(same, || format!("after entry {index}, two nodes have different states"));
        let rises = before.0 < index && before.1 <= version;
        self.check(rises, || {
            format!("n{} goes from {before:?} to {:?}", node + 1, (index, version))
        });
    }

    /// A node's process has begun: what it has applied begins anew.
    fn begins(&self, node: usize) -> u64 {
        let mut seen = self.seen();
        seen.views[node] = Arc::default();
        seen.lives[node] += 1;
        self.trace.note(format_args!("n{} begins life {}", node + 1, seen.lives[node]));
        seen.lives[node]
    }

    /// A client was told that its command made a version; it had begun when `newest` was the newest
    /// that anybody knew of.
    fn done(&self, tenant: TenantId, version: u64, newest: u64) {
        let other = self.seen().done.insert(version, tenant);
        self.check(other.is_none(), || format!("version {version} was made twice"));
        self.check(version > newest, || {
            format!("a command began after version {newest} and made {version}")
        });
    }

    /// A node's term has risen with what `candidate` asked of it, and it has answered.
    fn votes(&self, voter: usize, candidate: usize, medium: &Medium) {
        let mut seen = self.seen();
        if std::mem::take(&mut seen.armed) {
            medium.cut_power(0, 0);
            seen.voted = Some((voter, candidate));
            self.trace.note(format_args!("n{} has voted for n{}", voter + 1, candidate + 1));
        }
    }

    fn newest(&self) -> u64 {
        self.seen().done.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// Whether everybody has spoken, and has come as far as everybody else.
    fn is_whole(&self) -> bool {
        let seen = self.seen();
        let reached: BTreeSet<_> = seen.views.iter().map(|view| view.applied).collect();
        seen.last_words.iter().all(|spoken| *spoken) && reached.len() == 1
    }

    /// What must hold once everybody has come to the end.
    fn judge(&self) {
        let seen = self.seen();
        let agreed = seen.views[0].state.agreed().unwrap();
        let tenants = &agreed.document.tenants;
        for (version, tenant) in &seen.done {
            let there = *version <= agreed.version && tenants.contains_key(tenant);
            self.check(there, || format!("{tenant} was done in version {version}, and is lost"));
        }
        for tenant in &seen.never {
            self.check(!tenants.contains_key(tenant), || {
                format!("{tenant} was not to be done, and is there")
            });
        }
        let made = agreed.version - 1;
        let once = made == tenants.len() as u64;
        self.check(once, || format!("{made} versions were made of {} commands", tenants.len()));
        let busy = seen.done.len() > 30 && !seen.leaders.is_empty();
        self.check(busy, || {
            format!("only {} commands were done: this shows nothing", seen.done.len())
        });
    }
}

fn version(view: &View) -> u64 {
    view.state.agreed().map_or(0, |agreed| agreed.version)
}

fn name(node: usize) -> Name {
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
async fn live(seed: u64, own: usize, medium: Medium, books: Books) -> turmoil::Result {
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

/// Takes the power of whoever has just voted, and lets the others vote again. The leader dies; of
/// the two that are left, one votes for the other, and a vote that isn't on its disk is gone. The
/// other leads by it, cut off. The two that died come back: if they don't know of the vote, they
/// agree on entries that the cut-off leader then replaces.
struct LostVotes {
    chance: Generator,
    /// When the next leader dies.
    next: Duration,
    leader: usize,
    todo: Vec<(Duration, Fault)>,
    /// Votes after which the power failed.
    votes: u64,
}

/// Between the end of one such election and the next.
const ELECTION_EVERY: Duration = Duration::from_millis(1_500);
/// How long it may take until somebody votes.
const ELECTED_WITHIN: Duration = Duration::from_secs(4);

/// Makes faults by what happens, beside the plan.
trait Director {
    /// What is to happen at `now`.
    fn next(&mut self, now: Duration, books: &Books) -> Option<Fault>;
    /// Whether enough of what it is about has happened.
    fn has_shown(&self) -> bool;
}

impl LostVotes {
    fn new(seed: u64) -> Self {
        let chance = tidegate::random::Seed::from_number(seed).fork("lost votes", 0);
        Self { chance, next: FAULTS_FROM, leader: 0, todo: Vec::new(), votes: 0 }
    }
}

impl Director for LostVotes {
    fn has_shown(&self) -> bool {
        self.votes > 3
    }

    fn next(&mut self, now: Duration, books: &Books) -> Option<Fault> {
        let mut seen = books.seen();
        if let Some((voter, candidate)) = seen.voted.take() {
            self.votes += 1;
            let mut later = |from: u64, to: u64| {
                now + Duration::from_millis(from + self.chance.next_u64() % (to - from))
            };
            let (back, healed) = (later(15, 60), later(1_500, 3_000));
            self.todo = vec![
                (now + Duration::from_millis(8), Fault::Isolate(candidate)),
                (back, Fault::Start(voter)),
                (back, Fault::Start(self.leader)),
                (healed, Fault::Heal),
            ];
            self.next = healed + ELECTION_EVERY;
        }
        if self.todo.is_empty() && now >= self.next {
            if seen.armed {
                // Nobody voted. Then all are to be there before it is tried again.
                seen.armed = false;
                self.next = now + ELECTION_EVERY;
                return Some(Fault::Start(self.leader));
            }
            self.leader = seen.leaders.last_key_value()?.1.last()?.0 as usize - 1;
            self.next = now + ELECTED_WITHIN;
            seen.armed = true;
            return Some(Fault::Kill(self.leader));
        }
        let is_due = self.todo.first().is_some_and(|(at, _)| *at <= now);
        is_due.then(|| self.todo.remove(0).1)
    }
}

/// Slows all links of the leader down for a while, again and again. Commands keep the contact with
/// a majority alive where heartbeats are too late, so another leader is allowed, and not asked for.
struct SlowLeaders {
    chance: Generator,
    /// When the next leader gets slow.
    next: Duration,
    slow: Option<Slow>,
    times: u64,
}

/// A leader whose links are slow.
struct Slow {
    node: usize,
    until: Duration,
    /// The newest version, and since when it has been that.
    newest: (u64, Duration),
}

/// How long it may take until a command is done, though the leader's links are slow.
const GOES_ON_WITHIN: Duration = Duration::from_secs(5);
/// How long they are slow, and how long they are quick then.
const SLOW_FOR: Duration = Duration::from_secs(7);
const QUICK_FOR: Duration = Duration::from_secs(2);
/// How long a message on a link of a slow leader takes, each way, in milliseconds.
const SLOW_MS: [u64; 4] = [40, 60, 80, 150];
/// The same on any other link.
const QUICK_MS: u64 = 3;

impl SlowLeaders {
    fn new(seed: u64) -> Self {
        let chance = tidegate::random::Seed::from_number(seed).fork("slow leaders", 0);
        Self { chance, next: FAULTS_FROM, slow: None, times: 0 }
    }
}

impl Director for SlowLeaders {
    fn has_shown(&self) -> bool {
        self.times >= 3
    }

    fn next(&mut self, now: Duration, books: &Books) -> Option<Fault> {
        let newest = books.newest();
        let Some(slow) = &mut self.slow else {
            let leader =
                books.seen().leaders.last_key_value().and_then(|(_, by)| by.last().copied())?;
            if now < self.next {
                return None;
            }
            let ms = SLOW_MS[(self.chance.next_u64() % SLOW_MS.len() as u64) as usize];
            let node = leader.0 as usize - 1;
            self.slow = Some(Slow { node, until: now + SLOW_FOR, newest: (newest, now) });
            return Some(Fault::SlowLinks(node, ms));
        };
        if newest > slow.newest.0 {
            slow.newest = (newest, now);
        }
        let silent = now - slow.newest.1;
        let node = slow.node;
        books.check(silent <= GOES_ON_WITHIN, || {
            format!("nothing is done while n{} is slow", node + 1)
        });
        if now < slow.until {
            return None;
        }
        (self.slow, self.next, self.times) = (None, now + QUICK_FOR, self.times + 1);
        Some(Fault::SlowLinks(node, QUICK_MS))
    }
}

/// Runs a seed to its end; what happened.
fn run(seed: u64) -> String {
    run_with(seed, Plan::of(seed, NODES, FAULTS_FROM, FAULTS_END), None)
}

/// The same with these faults, and those of a director.
fn run_with(seed: u64, plan: Plan, mut director: Option<&mut dyn Director>) -> String {
    let _alone = sim::alone();
    let media: Vec<_> = (0..NODES).map(|_| Medium::default()).collect();
    let books = Books { trace: Trace::default(), seen: Arc::default() };
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .repair_rate(0.1)
        .tcp_capacity(1_024)
        .build();
    for (node, medium) in media.iter().enumerate() {
        let (medium, books) = (medium.clone(), books.clone());
        sim.host(name(node).as_str(), move || live(seed, node, medium.clone(), books.clone()));
    }
    let hosts = (0..NODES).map(|node| name(node).to_string()).collect();
    let mut nemesis = Nemesis::new(hosts, media, plan, books.trace.clone());
    let step = |sim: &mut turmoil::Sim<'_>, nemesis: &mut Nemesis| {
        nemesis.step(sim);
        if let Err(error) = sim.step() {
            books.trace.fail(&error.to_string());
        }
        books.trace.assert_sound();
    };
    while sim.elapsed() < FAULTS_END {
        if let Some(fault) =
            director.as_mut().and_then(|director| director.next(sim.elapsed(), &books))
        {
            nemesis.make(&mut sim, fault);
        }
        step(&mut sim, &mut nemesis);
    }
    books.seen().armed = false;
    nemesis.heal(&mut sim);
    books.seen().healed = true;
    while !books.is_whole() {
        if sim.elapsed() > FAULTS_END + HEALED_WITHIN {
            books.trace.fail("it doesn't heal");
        }
        step(&mut sim, &mut nemesis);
    }
    books.judge();
    let shown = director.is_none_or(|director| director.has_shown());
    books.check(shown, || {
        "what the director is about hardly ever happened: this shows nothing".into()
    });
    books.trace.end()
}

#[test]
fn what_was_agreed_on_stays_whatever_breaks() {
    sim::each_seed(8, &[], |seed| drop(run(seed)));
}

#[test]
fn a_vote_that_was_given_is_not_given_again_though_the_power_fails_right_after_it() {
    sim::each_seed(3, &[], |seed| {
        drop(run_with(seed, Plan(Vec::new()), Some(&mut LostVotes::new(seed))));
    });
}

#[test]
fn while_a_leaders_links_are_slow_commands_go_on_within_5_s() {
    sim::each_seed(3, &[], |seed| {
        drop(run_with(seed, Plan(Vec::new()), Some(&mut SlowLeaders::new(seed))));
    });
}

#[test]
fn the_same_seed_gives_the_same_run_line_by_line() {
    sim::each_seed(2, &[], |seed| {
        let (one, other) = (run(seed), run(seed));
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert!(one.len() == other.len() && one.lines().count() > 200, "seed {seed}");
    });
}
