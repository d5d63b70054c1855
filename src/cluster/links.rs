//! The links of this node to all other members.
//!
//! Each of them is a [`Peer`]: three links, one for each class of traffic, and the breaker of the
//! one for checks. Whoever watches the members says who they are ([`Links::update`]); links that
//! are missing are made, those of members that are gone are dropped, and one whose member moved is
//! made anew. All others stay as they are, and so do the calls on them.
//!
//! ```text
//! update n1 n2 n3, on n1     links to n2 and n3; a node has none to itself
//! update n1 n3 n4            n2's are dropped, n4's are made, n3's go on
//! ```
//!
//! A link is kept up by its driver. Drivers of checks run on the workers, in turn, beside those who
//! ask; those of Raft and of bulk transfers run on the control runtime, where a snapshot delays no
//! check. For the same reason Raft's messages that come in on a worker are handled on the control
//! runtime ([`Links::serve_raft`]).
//!
//! Whoever asks looks its peer up in a map that is never changed in place: no lock, whatever the
//! members do meanwhile.

mod inbound;
mod reach;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use self::inbound::Inbound;
use self::reach::{Elsewhere, Reach};
use super::raft::{self, Sending, Traffic, Transport, TransportError};
use super::status::BreakerStatus;
use crate::check::Name;
use crate::clock::{MS, SharedClock};
use crate::net::Network;
use crate::peer::{
    self, Breaker, BreakerState, Call, CallError, Class, Failure, Guard, Hello, Identity, Kind,
    Link, LinkArgs, LinkState, Opaque, Outcome, Pass, link,
};
use crate::placement::{BootId, FormatLevel, NodeId};
use crate::random::{Generator, Seed};

/// Stands for all whose number this node doesn't know; it is nobody's.
const STRANGER: NodeId = NodeId(0);
/// A call that had less time than this says nothing about its peer: callers choose their deadlines,
/// and some who choose them too short must not close the way for all.
const SHORTEST_JUDGED: Duration = Duration::from_millis(50);
/// For how long calls that find no connection say nothing about the peer, in nanoseconds: a peer
/// that restarts is back within that, and its callers wait. Beyond it they open the breaker.
const RECONNECT_MAX: u64 = 500 * MS;

/// What links are made of.
pub struct LinksArgs<N> {
    /// What this node says of itself.
    pub us: Identity,
    /// How it proves that it belongs to the cluster, and what it asks of peers.
    pub guard: Arc<Guard>,
    /// How others are reached.
    pub network: N,
    /// Where the time is read.
    pub clock: SharedClock,
    /// Where the jitter of links and breakers comes from.
    pub seed: Seed,
    /// Where the drivers of Raft and of bulk transfers run, and Raft's messages are handled.
    pub control: Handle,
    /// Where the drivers of checks run, in turn; none, and they run where the others do.
    pub workers: Vec<Handle>,
}

/// See the module.
pub struct Links {
    us: Name,
    level: FormatLevel,
    guard: Arc<Guard>,
    clock: SharedClock,
    control: Handle,
    known: ArcSwap<Known>,
    /// The peers that are connected to this node.
    inbound: Inbound,
    /// Where else peers may be.
    elsewhere: Elsewhere,
    /// Looks for a node at an address that no link leads to.
    knock: Box<dyn Fn(Name, String) -> Knocking + Send + Sync>,
    /// Held while the members are changed.
    maker: Mutex<Maker>,
}

/// The peers, by number and by name.
#[derive(Default)]
struct Known {
    peers: BTreeMap<NodeId, Arc<Peer>>,
    numbers: BTreeMap<Name, NodeId>,
}

/// The format level of a node that was found; if it wasn't, why.
type Knocking = Pin<Box<dyn Future<Output = Result<FormatLevel, String>> + Send>>;

/// Makes links and runs their drivers.
struct Maker {
    /// The one place that knows what kind of network it is.
    make: Box<dyn Fn(Wanted<'_>) -> Link + Send>,
    seed: Seed,
    control: Handle,
    workers: Vec<Handle>,
    /// Peers made so far; says whose turn it is, and which chance is theirs.
    made: u64,
}

/// A link to be made.
struct Wanted<'a> {
    peer: &'a Name,
    address: &'a str,
    class: Class,
    chance: Generator,
    breaker: Option<Arc<Breaker>>,
    runs_on: &'a Handle,
}

/// Another member, and the ways to it.
pub struct Peer {
    number: NodeId,
    name: Name,
    address: String,
    checks: Link,
    raft: Link,
    bulk: Link,
    breaker: Arc<Breaker>,
    clock: SharedClock,
    last_failure: Mutex<Option<String>>,
}

/// How the links to a peer stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its number.
    pub number: NodeId,
    /// Its name.
    pub name: Name,
    /// Where it is dialled.
    pub address: String,
    /// The link for checks.
    pub checks: LinkState,
    /// That of Raft.
    pub raft: LinkState,
    /// That of bulk transfers.
    pub bulk: LinkState,
}

/// Why a peer that was asked gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Its breaker is open. Nothing was sent.
    #[error("{0} is not asked at the moment: it didn't answer before")]
    Open(Name),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl AskError {
    /// Whether the call had no effect, for certain, so that it may be made again elsewhere without
    /// being counted twice.
    pub fn was_not_handled(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Call(error) => error.was_not_handled(),
        }
    }
}

impl Peer {
    /// Its number.
    pub fn number(&self) -> NodeId {
        self.number
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The link for checks, past its breaker.
    pub fn checks(&self) -> &Link {
        &self.checks
    }

    /// That of Raft.
    pub fn raft(&self) -> &Link {
        &self.raft
    }

    /// That of bulk transfers.
    pub fn bulk(&self) -> &Link {
        &self.bulk
    }

    /// The breaker of the link for checks.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Asks over the link for checks, if the breaker lets it, and tells the breaker how that went.
    /// Waits for the answer, at most for `ttl`; a caller that drops the call takes it back.
    pub async fn call(&self, request: Opaque, ttl: Duration) -> Result<Opaque, AskError> {
        let Some(pass) = self.breaker.ask(self.clock.now().boot) else {
            return Err(AskError::Open(self.name.clone()));
        };
        let heard = self.checks.heard();
        let ended = self.checks.call(request, ttl).await;
        match &ended {
            // One answer took longer than somebody was willing to wait, but the peer is there. A
            // pass that is let go says nothing.
            Err(CallError::DeadlinePassed(_))
                if self.checks.heard() != heard || ttl < SHORTEST_JUDGED => {}
            ended => self.judge(pass, ended, self.clock.now().boot),
        }
        Ok(ended?)
    }

    /// Tells the breaker how a call went that it let through, at `now`: for whoever calls
    /// [`Peer::checks`] himself.
    pub fn judge<T>(&self, pass: Pass<'_>, ended: &Result<T, CallError>, now: u64) {
        let outcome = match ended {
            Err(CallError::NotConnected(_)) if self.is_reconnecting(now) => Outcome::Nothing,
            ended => Outcome::of(ended),
        };
        if let (Outcome::Bad, Err(error)) = (outcome, ended) {
            *self.last_failure() = Some(error.to_string());
        }
        pass.end(outcome, now);
    }

    fn last_failure(&self) -> MutexGuard<'_, Option<String>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a connection for checks.
    pub fn carries_checks(&self) -> bool {
        matches!(self.checks.state(), LinkState::Connected { .. })
    }

    /// Whether the connection for checks is missing for so short a time that it is about to come
    /// back.
    fn is_reconnecting(&self, now: u64) -> bool {
        match self.checks.state() {
            LinkState::Connecting { since, .. } => now.saturating_sub(since) < RECONNECT_MAX,
            LinkState::Connected { .. } => false,
        }
    }

    /// Whether the links for checks and for Raft are connected. That for bulk transfers is not
    /// asked: it takes ten seconds to notice a cut.
    fn is_connected(&self) -> bool {
        let links = [&self.checks, &self.raft];
        links.iter().all(|link| matches!(link.state(), LinkState::Connected { .. }))
    }

    /// Whether it can be reached: those links are connected, and the breaker is not open.
    fn is_up(&self) -> bool {
        self.is_connected()
            && !matches!(self.breaker.view(self.clock.now().boot).state, BreakerState::Open { .. })
    }

    fn state(&self) -> PeerState {
        PeerState {
            number: self.number,
            name: self.name.clone(),
            address: self.address.clone(),
            checks: self.checks.state(),
            raft: self.raft.state(),
            bulk: self.bulk.state(),
        }
    }

    fn breaker_status(&self, now: u64) -> BreakerStatus {
        let view = self.breaker.view(now);
        let (connected, why) = match self.checks.state() {
            LinkState::Connecting { why, .. } => (false, why),
            LinkState::Connected { .. } if view.failures == 0 => (true, None),
            LinkState::Connected { .. } => (true, self.last_failure().clone()),
        };
        BreakerStatus {
            id: self.name.clone(),
            state: view.state.word(),
            failures: view.failures,
            opened: view.opened,
            retry_after_ms: match view.state {
                BreakerState::Open { left } => Some(left.div_ceil(MS)),
                BreakerState::Closed | BreakerState::HalfOpen => None,
            },
            connected,
            why,
        }
    }
}

impl Links {
    /// Links to nobody yet.
    pub fn new<N: Network>(args: LinksArgs<N>) -> Self {
        let LinksArgs { us, guard, network, clock, seed, control, workers } = args;
        let (own, level) = (us.node.clone(), us.level);
        let (network, time) = (Arc::new(network), clock.clone());
        let (who, ways, elsewhere) = (us.clone(), network.clone(), Elsewhere::default());
        let knock = move |name: Name, address: String| -> Knocking {
            let (who, network) = (who.clone(), ways.clone());
            Box::pin(async move {
                let mut reach = Reach::new(network, &name, &address, Elsewhere::default());
                peer::knock(&who, &name, &mut reach).await
            })
        };
        let (other_places, guarded) = (elsewhere.clone(), guard.clone());
        let make = move |wanted: Wanted<'_>| {
            let (link, driver) = link(LinkArgs {
                us: us.clone(),
                guard: guarded.clone(),
                peer: wanted.peer.clone(),
                class: wanted.class,
                dial: Reach::new(
                    network.clone(),
                    wanted.peer,
                    wanted.address,
                    other_places.clone(),
                ),
                clock: time.clone(),
                chance: wanted.chance,
                breaker: wanted.breaker,
            });
            wanted.runs_on.spawn(driver);
            link
        };
        let maker =
            Maker { make: Box::new(make), seed, control: control.clone(), workers, made: 0 };
        let (known, knock) = (ArcSwap::default(), Box::new(knock));
        let inbound = Inbound::default();
        let maker = Mutex::new(maker);
        Self { us: own, level, guard, clock, control, known, inbound, elsewhere, knock, maker }
    }

    /// Takes note of where the configuration has peers: they are dialled there too.
    pub fn may_be_at(&self, listed: BTreeMap<Name, String>) {
        self.elsewhere.list(listed);
    }

    /// Takes note of where the peer `name` says that it is. Returns whether that is news; ignored
    /// where there is no such peer.
    pub fn is_at(&self, name: &Name, address: &str) -> bool {
        let known = self.known.load();
        let Some(peer) = known.numbers.get(name).and_then(|number| known.peers.get(number)) else {
            return false;
        };
        let is_news =
            peer.address != address && self.elsewhere.of(name).as_deref() != Some(address);
        self.elsewhere.said_by_itself(name, address);
        is_news
    }

    /// Takes note of where another peer has the peer `number`; ignored where there is no such peer.
    pub fn is_said_to_be_at(&self, number: NodeId, address: &str) {
        if let Some(name) = self.name(number) {
            self.elsewhere.said_by_another(&name, address);
        }
    }

    /// Where each peer is, as far as this node knows: where it says itself that it is, or else what
    /// the log says.
    pub fn addresses(&self) -> Vec<(NodeId, String)> {
        let known = self.known.load();
        let peers = known.peers.values();
        peers
            .map(|p| (p.number, self.elsewhere.of(&p.name).unwrap_or_else(|| p.address.clone())))
            .collect()
    }

    /// Takes note of who the members are: number, name, and where other nodes reach them. This node
    /// may be among them.
    pub fn update(&self, members: &[(NodeId, Name, String)]) {
        // Whole between any two statements: what panicked while holding the lock left it so.
        let mut maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, mut next) = (self.known.load_full(), Known::default());
        for (number, name, address) in members.iter().filter(|(_, name, _)| *name != self.us) {
            let as_it_was =
                before.peers.get(number).filter(|p| p.name == *name && p.address == *address);
            let peer = match as_it_was {
                Some(peer) => peer.clone(),
                None => Arc::new(maker.peer(*number, name, address, &self.clock)),
            };
            next.peers.insert(*number, peer);
            next.numbers.insert(name.clone(), *number);
        }
        self.elsewhere.keep(|name| next.numbers.contains_key(name));
        self.known.store(Arc::new(next));
    }

    /// Looks for the node `name` at `address`, where it isn't a peer yet. Returns the format level
    /// of its program, or why it isn't found. The caller must bound the wait.
    pub async fn knock(&self, name: &Name, address: &str) -> Result<FormatLevel, String> {
        (self.knock)(name.clone(), address.into()).await
    }

    /// For how long each peer has refused this node as no member, in nanoseconds up to `now`; none
    /// for one that it hasn't.
    pub fn unknown_for(&self, now: u64) -> BTreeMap<NodeId, Option<u64>> {
        let unknown = |peer: &Arc<Peer>| match peer.raft.state() {
            LinkState::Connecting { no_member_since, .. } => {
                no_member_since.map(|at| now.saturating_sub(at))
            }
            LinkState::Connected { .. } => None,
        };
        self.known.load().peers.iter().map(|(number, peer)| (*number, unknown(peer))).collect()
    }

    /// Somebody whose cluster was made anew without this node, if anybody has said so.
    pub fn gave_up(&self) -> Option<Name> {
        let known = self.known.load();
        let gave_up = |peer: &&Arc<Peer>| {
            matches!(peer.raft.state(), LinkState::Connecting { given_up: true, .. })
        };
        known.peers.values().find(gave_up).map(|peer| peer.name.clone())
    }

    /// What this node asks of peers before it speaks with them.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Returns a peer that is there and that this node can't speak with, since one of the two
    /// refuses the other, and why.
    pub fn refused(&self) -> Option<(Name, String)> {
        let known = self.known.load();
        known.peers.values().find_map(|peer| match peer.raft.state() {
            LinkState::Connecting { refused: true, why: Some(why), .. } => {
                Some((peer.name.clone(), why))
            }
            _ => None,
        })
    }

    /// The format level of this node's own program.
    pub fn level(&self) -> FormatLevel {
        self.level
    }

    /// Which process of the peer is connected, and the format level of its program, as it greeted;
    /// none without a connection. Ask this before sending a message that not every program reads.
    pub fn level_of(&self, number: NodeId) -> Option<(BootId, FormatLevel)> {
        let peer = self.peer(number)?;
        [&peer.raft, &peer.checks, &peer.bulk].into_iter().find_map(|link| match link.state() {
            LinkState::Connected { boot, level, .. } => Some((boot, level)),
            LinkState::Connecting { .. } => None,
        })
    }

    /// The peer of that number.
    pub fn peer(&self, number: NodeId) -> Option<Arc<Peer>> {
        self.known.load().peers.get(&number).cloned()
    }

    /// Its name.
    pub fn name(&self, number: NodeId) -> Option<Name> {
        self.known.load().peers.get(&number).map(|peer| peer.name.clone())
    }

    /// Whether the peer can be reached: its links for checks and for Raft are connected, and its
    /// breaker is not open.
    pub fn is_up(&self, number: NodeId) -> bool {
        self.known.load().peers.get(&number).is_some_and(|peer| peer.is_up())
    }

    /// The round trip to a peer over the link for Raft; none where that is not connected or not yet
    /// measured.
    pub fn round_trip(&self, number: NodeId) -> Option<Duration> {
        self.known.load().peers.get(&number)?.raft.round_trip()
    }

    /// Takes note of a peer that has connected to this node. It is up, so it is dialled now where
    /// there is no connection to it, not after the back-off.
    pub fn peer_connected(&self, hello: &Hello) {
        if hello.class == Class::Checks {
            self.inbound.connected(&hello.who.node, self.clock.now().boot);
        }
        if let Some(peer) = self.number_of(&hello.who.node).and_then(|number| self.peer(number)) {
            for link in [&peer.checks, &peer.raft, &peer.bulk] {
                link.redial();
            }
        }
    }

    /// Takes note of a peer's connection that has ended.
    pub fn peer_disconnected(&self, hello: &Hello) {
        if hello.class == Class::Checks {
            self.inbound.disconnected(&hello.who.node, self.clock.now().boot);
        }
    }

    /// The peers that reach this node and that this node has not been able to dial for a while, and
    /// why it can't.
    pub fn one_sided(&self, now: u64) -> Vec<(Name, String)> {
        let known = self.known.load();
        let one_sided = known.peers.values().filter(|peer| self.inbound.is_up(&peer.name, now));
        one_sided
            .filter_map(|peer| {
                Some((peer.name.clone(), inbound::undialled(&peer.checks.state(), now)?))
            })
            .collect()
    }

    /// The peers that this node has been connected to for a while without a connection from their
    /// side.
    pub fn unanswered(&self, now: u64) -> Vec<Name> {
        let known = self.known.load();
        let is_silent = |peer: &&Arc<Peer>| {
            inbound::is_steady(&peer.checks.state(), now) && self.inbound.is_down(&peer.name, now)
        };
        known.peers.values().filter(is_silent).map(|peer| peer.name.clone()).collect()
    }

    /// The number of the peer of that name; none where this node knows of no such member.
    pub fn number_of(&self, name: &Name) -> Option<NodeId> {
        self.known.load().numbers.get(name).copied()
    }

    /// How all links stand, by number.
    pub fn states(&self) -> Vec<PeerState> {
        self.known.load().peers.values().map(|peer| peer.state()).collect()
    }

    /// The breakers at `now`, in nanoseconds of boot time, by number.
    pub fn breakers(&self, now: u64) -> Vec<BreakerStatus> {
        self.known.load().peers.values().map(|peer| peer.breaker_status(now)).collect()
    }

    /// Closes the breaker of the link to `peer`; false where there is no such peer.
    pub fn reset_breaker(&self, peer: &Name) -> bool {
        let found = self.number_of(peer).and_then(|number| self.peer(number));
        found.inspect(|peer| peer.breaker.reset()).is_some()
    }

    /// Answers a call of the kind [`Kind::RAFT`] or [`Kind::RAFT_LATER`] that a peer has made: its
    /// bytes are for the Raft that `node` has.
    pub async fn serve_raft<N>(&self, node: &Arc<N>, call: Call) -> Result<Opaque, Failure>
    where
        N: AsRef<raft::Node> + Send + Sync + 'static,
    {
        // Whom this node doesn't know yet it may learn of by just this call.
        let from = self.number_of(&call.from.who.node).unwrap_or(STRANGER);
        let (node, kind) = (node.clone(), call.request.kind);
        // A snapshot or a large policy takes its time to be read: not on a worker.
        let handling = self
            .control
            .spawn(async move { (*node).as_ref().serve(from, &call.request.bytes).await });
        let answer = AbortOnDropHandle::new(handling).await;
        let bytes = answer.map_err(|error| Failure::Failed(error.to_string()))?.into();
        Ok(Opaque { kind, bytes })
    }
}

impl Maker {
    fn peer(&mut self, number: NodeId, name: &Name, address: &str, clock: &SharedClock) -> Peer {
        let turn = self.made;
        self.made += 1;
        let worker = match self.workers.len() {
            0 => &self.control,
            workers => &self.workers[(turn % workers as u64) as usize],
        };
        let breaker = Arc::new(Breaker::new(self.seed.fork("breaker", turn)));
        let made = |class, runs_on| {
            let chance = self.seed.fork(Class::word(class), turn);
            let breaker = (class == Class::Checks).then(|| breaker.clone());
            (self.make)(Wanted { peer: name, address, class, chance, breaker, runs_on })
        };
        Peer {
            number,
            name: name.clone(),
            address: address.into(),
            checks: made(Class::Checks, worker),
            raft: made(Class::Raft, &self.control),
            bulk: made(Class::Bulk, &self.control),
            breaker,
            clock: clock.clone(),
            last_failure: Mutex::default(),
        }
    }
}

impl Transport for Links {
    // The breaker says nothing about the link for Raft: where checks come too late, a command that
    // waits for the leader's disk must not be given up.
    fn is_up(&self, to: NodeId) -> bool {
        self.peer(to).is_some_and(|peer| peer.is_connected())
    }

    // Who is asked before the log names any members has been told to `update` as well.
    fn send<'a>(
        &'a self,
        to: NodeId,
        _address: &'a str,
        traffic: Traffic,
        bytes: Vec<u8>,
        within: Duration,
    ) -> Sending<'a> {
        Box::pin(async move {
            let Some(peer) = self.peer(to) else {
                return Err(TransportError::NotSent(format!("there is no link to node {to}")));
            };
            let (link, kind) = match traffic {
                Traffic::Raft | Traffic::Commands => (&peer.raft, Kind::RAFT),
                Traffic::Bulk => (&peer.bulk, Kind::RAFT),
                Traffic::Later => (&peer.raft, Kind::RAFT_LATER),
            };
            let request = Opaque { kind, bytes: bytes.into() };
            match link.call(request, within).await {
                Ok(answer) => Ok(answer.bytes.into()),
                Err(CallError::Failed(_, Failure::UnknownKind)) => Err(TransportError::Unknown),
                Err(error) if error.was_not_handled() => {
                    Err(TransportError::NotSent(error.to_string()))
                }
                Err(CallError::DeadlinePassed(_)) => Err(TransportError::Late(within)),
                Err(error) => Err(TransportError::NoAnswer(error.to_string())),
            }
        })
    }
}

#[cfg(test)]
mod tests;
