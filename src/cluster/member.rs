//! This node as a member of its cluster: what it proposes, and how what was agreed on comes into
//! force here.
//!
//! Who it is stands with its log ([`Claim`]); at the very first start its place in the
//! configuration's list says it.
//!
//! ```text
//! first start     n1 begins the cluster, once n2 and n3 say that they are empty: policy, secret, members, placement
//! every start     a node says that it is there, in this life: Seat(2, boot 9c…); the log gives it its partitions
//! a write         any node → leader → log → every node puts the version into force → the answer, with who hasn't yet
//! ```
//!
//! What is applied is put into force by one task, in the log's order: policy, placement, the links
//! to the members. A write (`policy_store`) is answered once every member that can be reached has
//! done so, and after a second at the latest; the others are named. How all of it stands is in
//! `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::InForce;
use super::acquaintances::{acquaintances, number};
use super::claim::{Claim, Found};
use super::handoff;
use super::links::Links;
use super::lost::Newcomer;
use super::peer_keys::{cluster_id, older_members};
use super::raft::{self, Address, Node, ProposeError, Settings, Timers, Transport, View};
use super::readiness::Startup;
use super::settings::RoundTripSetting;
use super::state::{
    Agreed, Command, Done, Edit, LogIndex, MOVES_MAX, NewMember, RequestId, Seating, What,
};
use crate::cluster::membership::Reconciler;

use crate::check::Name;
use crate::clock::{SECOND, SharedClock};
use crate::input::Fault;
use crate::peer::{Ask, Kind, Lineage};
use crate::placement::{
    BootId, FormatLevel, NodeId, Partition, Places, Seat, Secret, TableVersion, Weight,
};
use crate::policy::{Document, Policy, document_level};
use crate::random::{Generator, Seed};
use crate::watch;

/// How long a change may take to be agreed on before whoever asked hears that nothing is known.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before trying again what the cluster couldn't do just now.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often a node looks whether a majority is with it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After how many of those looks the leader looks for what has to be tidied up: expired entries.
const TIDY_EVERY: u32 = 50;

/// After how many of those looks the leader looks whether every member reads a higher format level.
const RAISE_EVERY: u32 = 5;

/// How long the others have to say that they know of no such member until a node believes it:
/// longer than any of them takes to catch up after a restart.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);
/// Who the audit log says has tidied up.
pub(super) const TIDIER: &str = "the cluster";

/// How long a node that stops waits for a majority, or for another node that can be reached, in
/// nanoseconds: an election takes as long.
const ALONE_MAX: u64 = 2 * SECOND;
/// How long a move may be under way before the leader gives it up, in nanoseconds: its source or
/// its target is not what it was.
const MOVE_MAX: u64 = 10 * SECOND;

/// A node as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedNode {
    /// Its name.
    pub name: Name,
    /// Where its door is.
    pub http: String,
    /// Where other nodes reach it; empty for a node that is alone.
    pub peer: String,
    /// How much of the load it takes, beside the others.
    pub weight: Weight,
}

/// The policy of a cluster that hasn't begun.
pub type Initial = Box<dyn Fn() -> Result<Document, Vec<Fault>> + Send + Sync>;

/// What a member is made of.
pub struct MemberArgs {
    /// The cluster's name.
    pub cluster: Name,
    /// This node.
    pub own: SeedNode,
    /// The nodes that the configuration lists: those that the cluster begins with, if it hasn't
    /// begun.
    pub seeds: Vec<SeedNode>,
    /// Which life of it.
    pub boot: BootId,
    /// Which of the policy's environments it runs in.
    pub environment: Option<Name>,
    /// Where its log is.
    pub place: raft::Place,
    /// The round trip, in milliseconds, that the configuration says. The log's wins where it says
    /// one.
    pub round_trip_ms: Option<u64>,
    /// The links to the others.
    pub links: Arc<Links>,
    /// Where it reads the time.
    pub clock: SharedClock,
    /// Where its random choices come from.
    pub seed: Seed,
    /// The policy of the very first start; asked on the first of the seeds alone.
    pub initial: Initial,
    /// What it does if it begins with nothing and finds a cluster there.
    pub newcomer: Newcomer,
    /// Whether it was admitted by a node whose program is older than the proof that peers give each
    /// other.
    pub admitted_by_older: bool,
}

/// Why a node can't take part.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Its log can't be opened or gone on from.
    #[error(transparent)]
    Raft(#[from] raft::StartError),
    /// Where its data should be, nothing can be read.
    #[error(transparent)]
    Place(#[from] raft::OpenError),
    /// It has left.
    #[error(
        "{0} has left, and its number is spent: nobody can begin with its data again. With an \
         empty directory and --join it can come back as another node"
    )]
    HasLeft(Box<Claim>),
    /// Neither the list nor its data says who it is.
    #[error(
        "there is no node {name} in the list of the nodes that the cluster {cluster} begins with; \
         with --join it asks to be admitted"
    )]
    NotListed {
        /// Its name.
        name: Name,
        /// The cluster's.
        cluster: Name,
    },
    /// The policy of the very first start isn't valid.
    #[error("the policy is not valid: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Fault>),
}

/// That everything up to an entry of the log be in force: answered once it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForceAsk {
    /// The entry.
    pub at: LogIndex,
}

impl Ask for InForceAsk {
    const KIND: Kind = Kind(Kind::RAFT.0 + 0x10);
    type Answer = ();
}

/// The other members that may take partitions over.
enum Takers {
    /// There is none.
    None,
    /// None can be reached, or there is no majority.
    Unreachable,
    /// At least one is reachable.
    Reachable,
}

/// A node's part in its cluster.
pub struct Member {
    pub(super) claim: Claim,
    pub(super) lineage: Lineage,
    pub(super) own: SeedNode,
    pub(super) seeds: Vec<SeedNode>,
    pub(super) me: Seat,
    pub(super) environment: Option<Name>,
    pub(super) raft: Arc<Node>,
    pub(super) links: Arc<Links>,
    pub(super) in_force: Arc<InForce>,
    /// The last entry of the log that is in force.
    reached: watch::Sender<LogIndex>,
    pub(super) clock: SharedClock,
    chance: Mutex<Generator>,
    secret: Secret,
    initial: Initial,
    pub(super) newcomer: Newcomer,
    /// Whether it is to join a cluster that exists.
    pub(super) to_join: watch::Sender<bool>,
    pub(super) timers: Timers,
    pub(super) round_trip: RoundTripSetting,
    pub(super) contact_ms: AtomicU64,
    pub(super) startup: Startup,
    /// Whether this node began with the log or the admission of a cluster that has formed.
    pub(super) knows_cluster: bool,
    pub(super) recovered: AtomicBool,
    /// Whether this node is a member no more.
    left: watch::Sender<bool>,
    /// Why it can't take part, if it has found that out.
    ended: watch::Sender<Option<String>>,
    reconciler: Mutex<Reconciler>,
    pub(super) handoffs: handoff::Counts,
}

/// Stands for a contact that there never was.
pub(super) const NO_CONTACT: u64 = u64::MAX;

impl Member {
    /// Opens the log and takes part in whatever cluster it belongs to. What it does there,
    /// [`Member::run`] does.
    pub async fn start(args: MemberArgs) -> Result<Self, MemberError> {
        let MemberArgs { cluster, own, seeds, boot, environment, place, round_trip_ms, .. } = args;
        let MemberArgs { links, clock, seed, initial, newcomer, admitted_by_older, .. } = args;
        let found = place.found()?;
        // Who begins with nothing among several may have had something.
        let has_log = found.as_ref().is_some_and(|found| !found.is_blank);
        // The log says of each member how old its program is. A node without a log goes by who
        // admitted it.
        let is_first = |found: &Found| !found.is_blank && found.level == FormatLevel::FIRST;
        let trusts_older = (admitted_by_older && !has_log) || found.as_ref().is_some_and(is_first);
        let listens = has_log || seeds.len() < 2;
        let lineage = found.as_ref().map(|found| found.lineage.clone()).unwrap_or_default();
        let kept = found.as_ref().and_then(|found| found.round_trip_ms);
        let round_trip = RoundTripSetting::new(round_trip_ms, kept);
        let timers = Timers::for_round_trip(round_trip.runs_with());
        let claim = claim(found, cluster, &own, &seeds)?;
        let me = Seat { node: claim.node, boot };
        let knows_cluster = has_log || claim.admission.is_some();
        let listens = listens || claim.admission.is_some();
        let settings =
            Settings { timers, listens, ..Settings::new(claim.clone(), place, seed.clone()) };
        let raft = Arc::new(Node::start(settings, links.clone() as Arc<dyn Transport>).await?);
        if begins(&claim, &own, &seeds) && !raft.is_initialized().await {
            // A fault is to be heard of now, by whoever starts the first node.
            initial().map_err(MemberError::Invalid)?;
        }
        let placeholder = Policy::new(0, crate::policy::builtin(), None);
        let mut secret = seed.fork("cluster secret", 0);
        let member = Self {
            claim,
            lineage,
            own,
            seeds,
            me,
            environment,
            raft,
            links,
            in_force: Arc::new(InForce::new(me, placeholder)),
            reached: watch::Sender::new(LogIndex(0)),
            clock,
            chance: Mutex::new(seed.fork("commands", boot.0)),
            secret: Secret::new(secret.next_u64(), secret.next_u64()),
            initial,
            newcomer,
            to_join: watch::Sender::new(false),
            timers,
            round_trip,
            contact_ms: AtomicU64::new(NO_CONTACT),
            startup: Startup::new(),
            knows_cluster,
            recovered: AtomicBool::new(false),
            left: watch::Sender::new(false),
            ended: watch::Sender::new(None),
            reconciler: Mutex::default(),
            handoffs: handoff::Counts::default(),
        };
        let listed = member.seeds.iter().map(|seed| (seed.name.clone(), seed.peer.clone()));
        member.links.may_be_at(listed.filter(|(_, peer)| !peer.is_empty()).collect());
        let view = View { nodes: member.raft.roster().nodes, ..View::default() };
        // Before the first dial: what a peer without a proof says would be believed.
        let older: BTreeSet<_> = match member.raft.view().state.agreed() {
            Some(agreed) => older_members(agreed).collect(),
            None if trusts_older => {
                let known = acquaintances(&member.claim, &view, &member.seeds);
                known.into_iter().map(|(_, name, _)| name).collect()
            }
            None => BTreeSet::new(),
        };
        member.links.guard().may_be_older(older);
        member.look_up_others(&view);
        Ok(member)
    }

    /// What this node goes by.
    pub fn in_force(&self) -> &Arc<InForce> {
        &self.in_force
    }

    /// Whether this node listens to whoever of its cluster speaks with it about the log, known or
    /// not. As long as it hears of no leader it may have been away for long, and the leader be one
    /// that it has never heard of.
    pub fn listens_to_strangers(&self) -> bool {
        !self.has_quorum() || !self.recovered.load(Ordering::Relaxed)
    }

    /// This node in this life.
    pub fn me(&self) -> Seat {
        self.me
    }

    /// The node's part in the log, for what other nodes send.
    pub fn raft(&self) -> &Arc<Node> {
        &self.raft
    }

    /// Takes part, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            self.follow(),
            self.begin(),
            self.keep_seat(),
            self.look_around(),
            self.keep_contact(),
            self.watch_round_trip(),
            self.recover(),
            self.keep_house(),
            self.make_sure(),
            self.meet()
        );
    }

    /// Resolves, with the reason, when this node can take part no more; the process has to end
    /// then.
    pub async fn failed(&self) -> String {
        let mut ended = self.ended.subscribe();
        tokio::select! {
            biased;
            why = self.raft.failed() => why,
            // Its sender lives as long as this node takes part.
            Ok(why) = ended.wait_for(Option::is_some) => why.clone().unwrap_or_default(),
        }
    }

    /// Resolves when this node is a member no more: its number is spent, and its data is of no use
    /// to anybody.
    pub async fn left(&self) {
        // Its sender lives as long as this node takes part.
        let _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    /// Gives up leading, if it leads, to a voter that can be reached.
    pub async fn step_down(&self) {
        if !self.raft.is_leader() {
            return;
        }
        let voters = self.raft.members().into_iter().filter(|(_, votes)| *votes).map(|(id, _)| id);
        if let Some(to) = voters.into_iter().find(|id| *id != self.me.node && self.links.is_up(*id))
            && let Err(error) = self.raft.hand_leadership_to(to).await
        {
            tracing::warn!(%error, "nobody was asked to lead instead");
        }
    }

    /// Hands over all that this node owns, as long as another member may take it, and `within` at
    /// most. A majority or a member that is out of reach is waited for: a moment without them must
    /// not end a hand-over.
    pub async fn hand_over(&self, within: Duration) {
        if tokio::time::timeout(within, self.hand_over_all()).await.is_err() {
            let left = self.in_force.places().load().count_here();
            tracing::warn!(
                left,
                "not all partitions were handed over in time: their counts are saved"
            );
        }
    }

    async fn hand_over_all(&self) {
        let mut ticker = tokio::time::interval(LOOK_EVERY);
        let (mut is_told, mut alone_since) = (false, None);
        loop {
            ticker.tick().await;
            let now = self.clock.now().boot;
            match self.takers() {
                Takers::None => return,
                Takers::Unreachable => {
                    if now.saturating_sub(*alone_since.get_or_insert(now)) >= ALONE_MAX {
                        return tracing::warn!("no other node can be reached that takes over");
                    }
                }
                Takers::Reachable => {
                    alone_since = None;
                    if !is_told {
                        let stop = What::Stop(self.me.node, self.me.boot);
                        is_told = self.propose_own(stop).await.is_ok();
                    }
                    if is_told && self.in_force.places().load().count_here() == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Which other members there are that may own partitions, and a majority to agree on it.
    fn takers(&self) -> Takers {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return Takers::None };
        let others = agreed.members.iter();
        let mut others = others
            .filter(|(id, member)| *id != self.me.node && !member.draining && !member.stopping)
            .peekable();
        if others.peek().is_none() {
            return Takers::None;
        }
        match self.has_quorum() && others.any(|(id, _)| self.links.is_up(id)) {
            true => Takers::Reachable,
            false => Takers::Unreachable,
        }
    }

    /// Takes part no more.
    pub async fn stop(&self) {
        self.raft.shut_down().await;
    }

    /// Answers once everything up to the entry is in force here. Who waits bounds it.
    pub async fn reach(&self, at: LogIndex) {
        let mut reached = self.reached.subscribe();
        // Its sender lives as long as this node takes part.
        let _ = reached.wait_for(|reached| *reached >= at).await;
    }

    /// Puts what is applied into force.
    async fn follow(&self) {
        let mut views = self.raft.watch();
        loop {
            let view = views.borrow_and_update().clone();
            if let Some(agreed) = view.state.agreed() {
                self.put_in_force(agreed);
                self.keep_settings().await;
                self.links.guard().is_of(cluster_id(agreed.secret()));
                self.links.guard().may_be_older(older_members(agreed).collect());
                self.look_up_others(&view);
                self.in_force.announce();
                if agreed.members.has_left(self.me.node) && !*self.left.borrow() {
                    self.leave().await;
                }
            }
            self.reached.send_replace(view.applied);
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    fn put_in_force(&self, agreed: &Agreed) {
        let current = self.in_force.policy().load().clone();
        if agreed.version != current.version() {
            let document = agreed.document.clone();
            let next = match current.version() {
                0 => Policy::new(agreed.version, document, self.environment.clone()),
                _ => current.next(agreed.version, document),
            };
            self.in_force.policy().store(Arc::new(next));
            tracing::info!(version = agreed.version, "policy in force");
        }
        if agreed.table.version() != self.in_force.places().load().version() {
            self.in_force.places().store(Places::new(self.me, agreed.table.clone()));
        }
        self.in_force.begin(agreed.secret());
    }

    async fn leave(&self) {
        if let Err(error) = self.raft.leave().await {
            tracing::error!(%error, "that this node has left can't be written down");
        }
        tracing::info!(node = %self.claim, "this node has left its cluster");
        self.left.send_replace(true);
    }

    /// Keeps links to whoever this node has to do with, by `view`.
    fn look_up_others(&self, view: &View) {
        self.links.update(&acquaintances(&self.claim, view, &self.seeds));
    }

    /// Begins the cluster, if this is the first of the seeds and nobody has.
    async fn begin(&self) {
        if !begins(&self.claim, &self.own, &self.seeds) {
            return;
        }
        let address = |seed: &SeedNode| Address::new(seed.name.as_str(), seed.peer.as_str());
        let seeds: Vec<_> =
            (0..).zip(&self.seeds).map(|(at, seed)| (number(at), address(seed))).collect();
        let member = |SeedNode { name, http, peer, weight }| NewMember { name, http, peer, weight };
        let members: Vec<_> = self.seeds.iter().cloned().map(member).collect();
        let mut told = String::new();
        while self.raft.view().state.agreed().is_none() {
            let document = match (self.initial)() {
                Ok(document) => document,
                Err(faults) => {
                    let fault = faults.first().map(ToString::to_string);
                    tracing::error!(?fault, "the cluster can't begin: the policy is not valid");
                    return;
                }
            };
            let what = match self.beginning(document, &members).await {
                Ok(what) => what,
                Err(why) => {
                    if why != told {
                        tracing::info!(%why, "the cluster can't begin yet");
                    }
                    told = why;
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
            };
            let begin = self.command(what, "the first start".into());
            match self.raft.bootstrap(&seeds, begin, WRITE_WITHIN).await {
                Ok(()) => return tracing::info!(members = seeds.len(), "the cluster has begun"),
                Err(error) => {
                    let why = error.to_string();
                    if why != told {
                        tracing::info!(%why, "the cluster can't begin yet");
                    }
                    told = why;
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// The first command, at the level of all founders. Errs as long as one of them hasn't greeted,
    /// unless a majority may have taken an earlier first command already, and where one of them
    /// can't read the policy.
    async fn beginning(&self, document: Document, members: &[NewMember]) -> Result<What, String> {
        let greeted = (1..self.seeds.len()).map(|at| self.links.level_of(number(at)));
        let greeted: Vec<_> = greeted.map(|greeted| greeted.map(|(_, level)| level)).collect();
        if greeted.contains(&None) && !self.raft.is_initialized().await {
            return Err("a founder has not greeted this node yet".into());
        }
        let levels = greeted.into_iter().map(Option::unwrap_or_default);
        let level = levels.fold(self.links.level(), FormatLevel::min);
        let (secret, members) = (self.secret.into(), members.to_vec());
        if level > FormatLevel::FIRST {
            let (document, round_trip_ms) = (document.to_stored(), self.round_trip.runs_with());
            return Ok(What::Found { level, secret, document, members, round_trip_ms });
        }
        let document = document.at_first_level();
        if document_level(&document) > FormatLevel::FIRST {
            return Err("a founder runs an older program, which can't read the policy".into());
        }
        Ok(What::Begin { secret, document: document.to_stored(), members })
    }

    /// Raises the cluster's format level, as the leader, once every member's process reads more: as
    /// its registration says, or the greeting of the process that is registered.
    async fn raise_level(&self) {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return };
        let levels = agreed.members.iter().map(|(id, member)| self.level_of(id, member));
        let Some(least) = levels.min() else { return };
        if least <= agreed.level {
            return;
        }
        match self.propose(What::RaiseLevel(least, agreed.members.newest()), TIDIER.into()).await {
            Ok(_) => {
                tracing::info!(level = least.number(), "the cluster's format level was raised")
            }
            Err(error) => tracing::debug!(%error, "the format level was not raised"),
        }
    }

    /// The format level of a member's process: as its registration says, or its greeting.
    fn level_of(&self, id: NodeId, member: &super::state::Member) -> FormatLevel {
        let own = (id == self.me.node).then(|| (self.me.boot, self.links.level()));
        match own.or_else(|| self.links.level_of(id)) {
            Some((boot, level)) if boot == member.boot => level.max(member.level),
            _ => member.level,
        }
    }

    /// Says that this life of the node is there, whenever the log doesn't know it.
    async fn keep_seat(&self) {
        let mut views = self.raft.watch();
        loop {
            let known =
                views.borrow_and_update().state.agreed().map(|agreed| self.is_seated(agreed));
            match known {
                Some(false) => {
                    let SeedNode { name, http, peer, .. } = self.own.clone();
                    let seating = Seating { boot: self.me.boot, http, peer };
                    let what = match self.raft.view().state.level() {
                        FormatLevel::FIRST => What::Seat(self.me.node, seating),
                        _ => What::Register(
                            self.me.node,
                            seating,
                            self.links.level(),
                            self.round_trip.runs_with(),
                        ),
                    };
                    match self.propose(what, name.to_string()).await {
                        // What comes before it in the log may still say otherwise here.
                        Ok(done) => self.reach(done.at).await,
                        Err(error) => {
                            tracing::warn!(%error, "this node is not in its seat yet");
                            tokio::time::sleep(AGAIN_AFTER).await;
                        }
                    }
                }
                // A proposal of an earlier life that comes late would give the seat back to it.
                Some(true) | None => {
                    if views.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn is_seated(&self, agreed: &Agreed) -> bool {
        // Who is no member any more has no seat to keep.
        agreed.members.get(self.me.node).is_none_or(|member| {
            (member.boot, &member.http, &member.peer)
                == (self.me.boot, &self.own.http, &self.own.peer)
                && (agreed.level == FormatLevel::FIRST
                    || member.round_trip_ms == Some(self.round_trip.runs_with()))
        })
    }

    /// Looks whether a majority is there, and, as the leader, whether something is to be tidied up.
    async fn look_around(&self) {
        let mut ticker = tokio::time::interval(LOOK_EVERY);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut moving = BTreeMap::new();
        for turn in 1u32.. {
            ticker.tick().await;
            let age = self.raft.contact_age().await;
            let ms =
                age.map_or(NO_CONTACT, |age| u64::try_from(age.as_millis()).unwrap_or(NO_CONTACT));
            self.contact_ms.store(ms, Ordering::Relaxed);
            if self.has_quorum() {
                self.startup.note_majority(self.clock.now().boot);
            }
            if let Some(peer) = self.links.gave_up().filter(|_| !self.may_join()) {
                self.end(format!(
                    "{} is nobody any more: the cluster was made anew without it, says {peer}, and \
                     what its data says was given up; with an empty directory and --join it comes \
                     back as another node",
                    self.claim
                ));
            }
            if !self.has_quorum() && self.is_unknown() {
                self.end(format!(
                    "{} is no member, say the others; if it has left, nobody can begin with its \
                     data again, and if it is new, it has to ask with --join",
                    self.claim
                ));
            }
            if self.raft.is_leader() && self.has_quorum() {
                self.rebalance(&mut moving).await;
                if turn.is_multiple_of(RAISE_EVERY) {
                    self.raise_level().await;
                    self.seed_settings().await;
                }
                if turn.is_multiple_of(TIDY_EVERY) {
                    self.tidy_up().await;
                }
            }
        }
    }

    pub(super) fn end(&self, why: String) {
        self.ended.send_if_modified(|ended| {
            let is_new = ended.is_none();
            if is_new {
                *ended = Some(why);
            }
            is_new
        });
    }

    /// Whether most of those who vote, or of all it knows if it doesn't know who does, have long
    /// said that this node is no member: it was removed while it was away, or was never admitted.
    fn is_unknown(&self) -> bool {
        let unknown_for = self.links.unknown_for(self.clock.now().boot);
        let voters = self.raft.roster().voters;
        let asked = unknown_for.iter().filter(|(id, _)| voters.is_empty() || voters.contains(id));
        let refused = asked.clone().filter(|(_, unknown)| {
            unknown.is_some_and(|unknown| u128::from(unknown) >= UNKNOWN_AFTER.as_nanos())
        });
        refused.count() * 2 > asked.count()
    }

    /// Begins what is to move next, and gives up what has been under way for too long; `moving` is
    /// since when each move is.
    async fn rebalance(&self, moving: &mut BTreeMap<(TableVersion, Partition), u64>) {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return };
        let now = self.clock.now().boot;
        let under_way: Vec<_> = agreed.table.moves().map(|(p, _, moving)| (moving.id, p)).collect();
        moving.retain(|key, _| under_way.contains(key));
        for key in under_way {
            moving.entry(key).or_insert(now);
        }
        let late = moving.iter().filter(|(_, since)| now.saturating_sub(**since) > MOVE_MAX);
        let late: Vec<_> =
            late.take(MOVES_MAX).map(|((id, partition), _)| (*partition, LogIndex(id.0))).collect();
        let what = match late.is_empty() {
            false => What::AbortMoves(late),
            true => {
                let others = agreed.members.iter().map(|(id, _)| id);
                let reachable = others.filter(|id| *id == self.me.node || self.links.is_up(*id));
                let moves = handoff::next_moves(agreed, &reachable.collect());
                if moves.is_empty() {
                    return;
                }
                What::BeginMoves(moves)
            }
        };
        if let Err(error) = self.propose_own(what).await {
            tracing::debug!(%error, "the placement was not changed");
        }
    }

    async fn tidy_up(&self) {
        let wall = self.clock.now().wall;
        if self.in_force.policy().load().has_expired(wall) {
            let what = What::Edit { expected: None, edit: Edit::DropExpired(wall) };
            match self.propose(what, TIDIER.into()).await {
                // Where somebody was quicker there is nothing left to drop.
                Ok(_) | Err(ProposeError::Refused(_)) => {}
                Err(error) => tracing::debug!(%error, "expired list entries are still there"),
            }
        }
    }

    async fn recover(&self) {
        while let Err(error) = self.raft.recovered(WRITE_WITHIN).await {
            tracing::debug!(%error, "the log isn't known to be applied yet");
            // Where Raft has stopped this fails at once, and whatever else this task does is to go
            // on until the process ends.
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        self.recovered.store(true, Ordering::Relaxed);
        self.keep_settings().await;
    }

    pub(super) fn reconciler(&self) -> MutexGuard<'_, Reconciler> {
        self.reconciler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn command(&self, what: What, by: String) -> Command {
        let request = self.chance.lock().unwrap_or_else(PoisonError::into_inner).next_u128();
        Command { request: RequestId(request), time: self.clock.now().wall, by, what }
    }

    pub(super) async fn propose(&self, what: What, by: String) -> Result<Done, ProposeError> {
        self.propose_command(self.command(what, by)).await
    }

    /// Proposes a command. Errs with [`ProposeError::OlderMembers`] where a member's program
    /// couldn't read it.
    pub(super) async fn propose_command(&self, command: Command) -> Result<Done, ProposeError> {
        if let Some(agreed) = self.raft.view().state.agreed() {
            agreed.refuse_older(&command.what, |id, member| self.level_of(id, member))?;
        }
        // On the heap: the way to the leader is deep, and the compiler bounds how deep futures
        // nest.
        Box::pin(self.raft.propose(command, WRITE_WITHIN)).await
    }

    /// Proposes something in this node's own name.
    pub(super) async fn propose_own(&self, what: What) -> Result<Done, ProposeError> {
        self.propose(what, self.own.name.to_string()).await
    }
}

/// Who the node `own` is: who its data says, or else its place in the list.
fn claim(
    found: Option<Found>,
    cluster: Name,
    own: &SeedNode,
    seeds: &[SeedNode],
) -> Result<Claim, MemberError> {
    match found {
        Some(Found { claim, has_left: true, .. }) => Err(MemberError::HasLeft(Box::new(claim))),
        // Whether name and cluster are the same too is looked at as the log is opened.
        Some(Found { claim, .. }) => Ok(Claim { name: own.name.clone(), cluster, ..claim }),
        None => match seeds.iter().position(|seed| seed.name == own.name) {
            Some(at) => Ok(Claim::first(number(at), own.name.clone(), cluster)),
            None => Err(MemberError::NotListed { name: own.name.clone(), cluster }),
        },
    }
}

/// Whether it is this node that begins a cluster which hasn't begun: the first of the list, then
/// and now.
fn begins(claim: &Claim, own: &SeedNode, seeds: &[SeedNode]) -> bool {
    let is_first = seeds.first().is_some_and(|first| first.name == own.name);
    is_first && claim.node == number(0) && claim.admission.is_none()
}
