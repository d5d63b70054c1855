//! This node as a member of its cluster: what it proposes, and how what was agreed on comes into force here.
//!
//! ```text
//! first start     n1 begins the cluster, once n2 and n3 say that they are empty: policy, secret, members, placement
//! every start     a node says that it is there, in this life: Seat(2, boot 9c…); the log gives it its partitions
//! a write         any node → leader → log → every node puts the version into force → the answer, with who hasn't yet
//! ```
//!
//! What is applied is put into force by one task, in the log's order: policy, placement, the links to the members. A write is
//! answered once every member that can be reached has done so, and after a second at the latest; the others are named.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handoff;
use super::links::Links;
use super::raft::{self, Address, Node, ProposeError, Settings, Timers, Transport};
use super::state::{
    Agreed, Command, Done, Edit, LogIndex, MOVES_MAX, Made, NewMember, Refusal, RequestId, Seating, What,
};
use super::status::{BreakerStatus, ClusterStatus, Looking, Membership, NodeState, NodeStatus, Readiness};
use super::{AuditEntry, InForce, PastVersion, PolicyStore, Proposal, Wanted, WriteError, Writing, Written};
use crate::check::Name;
use crate::clock::{SECOND, SharedClock};
use crate::input::Fault;
use crate::peer::{Ask, Kind};
use crate::placement::{BootId, NodeId, Partition, Places, Seat, Secret, TableVersion};
use crate::policy::{ChangeError, Document, Policy};
use crate::random::{Generator, Seed};
use crate::watch;

/// How long a change may take to be agreed on before whoever asked hears that nothing is known.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer to a write waits for members that haven't put it into force.
const PENDING_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before trying again what the cluster couldn't do just now.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often a node looks whether a majority is with it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After how many of those looks the leader looks for what has to be tidied up: members without the log, expired entries.
const TIDY_EVERY: u32 = 50;

/// Who the audit log says has tidied up.
const TIDIER: &str = "the cluster";

/// How long a move may be under way before the leader gives it up, in nanoseconds: its source or its target is not what it was.
const MOVE_MAX: u64 = 10 * SECOND;

/// A node that the configuration lists, in the list's order: a member from the beginning.
#[derive(Clone, Debug)]
pub struct SeedNode {
    /// Its name.
    pub name: Name,
    /// Where its door is.
    pub http: String,
    /// Where other nodes reach it; empty for a node that is alone.
    pub peer: String,
}

/// The policy of a cluster that hasn't begun.
pub type Initial = Box<dyn Fn() -> Result<Document, Vec<Fault>> + Send + Sync>;

/// What a member is made of.
pub struct MemberArgs {
    /// The cluster's name.
    pub cluster: Name,
    /// The nodes that the cluster begins with.
    pub seeds: Vec<SeedNode>,
    /// Which of them this is.
    pub own: usize,
    /// Which life of it.
    pub boot: BootId,
    /// Which of the policy's environments it runs in.
    pub environment: Option<Name>,
    /// Where its log is.
    pub place: raft::Place,
    /// Raft's times.
    pub timers: Timers,
    /// The links to the others.
    pub links: Arc<Links>,
    /// Where it reads the time.
    pub clock: SharedClock,
    /// Where its random choices come from.
    pub seed: Seed,
    /// The policy of the very first start; asked on the first of the seeds alone.
    pub initial: Initial,
}

/// Why a node can't take part.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Its log can't be opened or gone on from.
    #[error(transparent)]
    Raft(#[from] raft::StartError),
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

/// A node's part in its cluster.
pub struct Member {
    cluster: Name,
    seeds: Vec<SeedNode>,
    me: Seat,
    environment: Option<Name>,
    raft: Arc<Node>,
    links: Arc<Links>,
    in_force: Arc<InForce>,
    /// The last entry of the log that is in force.
    reached: watch::Sender<LogIndex>,
    clock: SharedClock,
    chance: Mutex<Generator>,
    secret: Secret,
    initial: Initial,
    election_max: Duration,
    contact_ms: AtomicU64,
    recovered: AtomicBool,
}

/// Stands for a contact that there never was.
const NO_CONTACT: u64 = u64::MAX;

impl Member {
    /// Opens the log and takes part in whatever cluster it belongs to. What it does there, [`Member::run`] does.
    pub async fn start(args: MemberArgs) -> Result<Self, MemberError> {
        let MemberArgs { cluster, seeds, own, boot, environment, place, timers, links, clock, seed, initial } =
            args;
        let me = Seat { node: number(own), boot };
        let settings =
            Settings { timers, ..Settings::new(me.node, cluster.to_string(), place, seed.clone()) };
        links.update(&others(&seeds, me.node));
        let raft = Arc::new(Node::start(settings, links.clone() as Arc<dyn Transport>).await?);
        if own == 0 && !raft.is_initialized().await {
            // A fault is to be heard of now, by whoever starts the first node.
            initial().map_err(MemberError::Invalid)?;
        }
        let placeholder = Policy::new(0, crate::policy::builtin(), None);
        let mut secret = seed.fork("cluster secret", 0);
        Ok(Self {
            cluster,
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
            election_max: Duration::from_millis(timers.election_ms_max),
            contact_ms: AtomicU64::new(NO_CONTACT),
            recovered: AtomicBool::new(false),
        })
    }

    /// What this node goes by.
    pub fn in_force(&self) -> &Arc<InForce> {
        &self.in_force
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
        tokio::join!(self.follow(), self.begin(), self.keep_seat(), self.look_around(), self.recover());
    }

    /// Resolves, with the reason, when this node can take part no more; the process has to end then.
    pub async fn failed(&self) -> String {
        self.raft.failed().await
    }

    /// Gives up leading, if it leads, to a voter that can be reached.
    pub async fn step_down(&self) {
        if !self.raft.is_leader() {
            return;
        }
        let voters = self.raft.members().into_iter().filter(|(_, votes)| *votes).map(|(id, _)| id);
        if let Some(to) = voters.into_iter().find(|id| *id != self.me.node && self.links.is_connected(*id))
            && let Err(error) = self.raft.hand_leadership_to(to).await
        {
            tracing::warn!(%error, "nobody was asked to lead instead");
        }
    }

    /// Hands over all that this node owns, as long as somebody is there who may take it, and `within` at most.
    pub async fn hand_over(&self, within: Duration) {
        let stop = What::Stop(self.me.node, self.me.boot);
        let handing = async {
            if !self.may_hand_over() || self.propose_own(stop).await.is_err() {
                return;
            }
            let mut ticker = tokio::time::interval(LOOK_EVERY);
            while self.in_force.places().load().count_here() > 0 && self.may_hand_over() {
                ticker.tick().await;
            }
        };
        if tokio::time::timeout(within, handing).await.is_err() {
            let left = self.in_force.places().load().count_here();
            tracing::warn!(left, "not all partitions were handed over in time: their counts are saved");
        }
    }

    /// Whether there is a majority to agree on it, and another member that may own.
    fn may_hand_over(&self) -> bool {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return false };
        let takers = agreed.members.iter().filter(|(id, member)| {
            *id != self.me.node && !member.draining && !member.stopping && self.links.is_connected(*id)
        });
        self.has_quorum() && takers.count() > 0
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
        let members = agreed.members.iter().filter(|(id, _)| *id != self.me.node);
        let members: Vec<_> =
            members.map(|(id, member)| (id, member.name.clone(), member.peer.clone())).collect();
        self.links.update(&members);
        self.in_force.begin(agreed.secret());
        self.in_force.announce();
    }

    /// Begins the cluster, if this is the first of the seeds and nobody has.
    async fn begin(&self) {
        let seeds: Vec<_> =
            (0..).zip(&self.seeds).map(|(at, seed)| (number(at), Address(seed.peer.clone()))).collect();
        if seeds.first().is_none_or(|(first, _)| *first != self.me.node) {
            return;
        }
        let members = self.seeds.iter().cloned();
        let members: Vec<_> =
            members.map(|SeedNode { name, http, peer }| NewMember { name, http, peer }).collect();
        let mut told = String::new();
        while self.raft.view().state.agreed().is_none() {
            let document = match (self.initial)() {
                Ok(document) => document.to_json().to_string(),
                Err(faults) => {
                    let fault = faults.first().map(ToString::to_string);
                    tracing::error!(?fault, "the cluster can't begin: the policy is not valid");
                    return;
                }
            };
            let what = What::Begin { secret: self.secret.into(), document, members: members.clone() };
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

    /// Says that this life of the node is there, whenever the log doesn't know it.
    async fn keep_seat(&self) {
        let mut views = self.raft.watch();
        loop {
            let known = views.borrow_and_update().state.agreed().map(|agreed| self.is_seated(agreed));
            match known {
                Some(false) => {
                    let own = self.own();
                    let (http, peer) = (own.http.clone(), own.peer.clone());
                    let what = What::Seat(self.me.node, Seating { boot: self.me.boot, http, peer });
                    if let Err(error) = self.propose(what, own.name.to_string()).await {
                        tracing::warn!(%error, "this node is not in its seat yet");
                        tokio::time::sleep(AGAIN_AFTER).await;
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
        let own = self.own();
        // Who is no member any more has no seat to keep.
        agreed.members.get(self.me.node).is_none_or(|member| {
            (member.boot, &member.http, &member.peer) == (self.me.boot, &own.http, &own.peer)
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
            let ms = age.map_or(NO_CONTACT, |age| u64::try_from(age.as_millis()).unwrap_or(NO_CONTACT));
            self.contact_ms.store(ms, Ordering::Relaxed);
            if self.raft.is_leader() && self.has_quorum() {
                self.rebalance(&mut moving).await;
                if turn.is_multiple_of(TIDY_EVERY) {
                    self.tidy_up().await;
                }
            }
        }
    }

    /// Begins what is to move next, and gives up what has been under way for too long; `moving` is since when each move is.
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
                let reachable = others.filter(|id| *id == self.me.node || self.links.is_connected(*id));
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
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return };
        let members = agreed.members.iter().map(|(id, member)| (id, Address(member.peer.clone())));
        if let Err(error) = self.raft.add_learners(&members.collect::<Vec<_>>()).await {
            tracing::debug!(%error, "a member doesn't get the log yet");
        }
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
        }
        self.recovered.store(true, Ordering::Relaxed);
    }

    fn command(&self, what: What, by: String) -> Command {
        let request = self.chance.lock().unwrap_or_else(PoisonError::into_inner).next_u128();
        Command { request: RequestId(request), time: self.clock.now().wall, by, what }
    }

    async fn propose(&self, what: What, by: String) -> Result<Done, ProposeError> {
        self.raft.propose(self.command(what, by), WRITE_WITHIN).await
    }

    /// Proposes something in this node's own name.
    pub(super) async fn propose_own(&self, what: What) -> Result<Done, ProposeError> {
        self.propose(what, self.own().name.to_string()).await
    }

    fn own(&self) -> &SeedNode {
        &self.seeds[(self.me.node.0 - 1) as usize]
    }

    async fn make(&self, proposal: Proposal) -> Result<Written, WriteError> {
        let Proposal { wanted, expected, by } = proposal;
        let what = match wanted {
            Wanted::Change(change) => What::Edit { expected, edit: Edit::from(&change) },
            Wanted::Rollback(to) => What::Rollback { expected, to },
        };
        let done = self.propose(what, by.clone()).await.map_err(write_error)?;
        let Made::Version(version) = done.made else {
            return Err(WriteError::Storage("an edit made no version".into()));
        };
        let pending = self.pending(done.at).await;
        tracing::info!(version, by, ?pending, "policy changed");
        Ok(Written { version, pending })
    }

    /// The members that haven't put the entry into force when a second has passed, or can't be asked.
    async fn pending(&self, at: LogIndex) -> Vec<String> {
        let view = self.raft.view();
        let members = view.state.agreed().map(|agreed| agreed.members.clone()).unwrap_or_default();
        let asked = members.iter().map(async |(id, member)| {
            let reached = match id == self.me.node {
                true => tokio::time::timeout(PENDING_AFTER, self.reach(at)).await.is_ok(),
                false => match self.links.peer(id) {
                    Some(peer) => peer.raft().ask(&InForceAsk { at }, PENDING_AFTER).await.is_ok(),
                    None => false,
                },
            };
            (!reached).then(|| member.name.to_string())
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    fn contact(&self) -> Option<u64> {
        Some(self.contact_ms.load(Ordering::Relaxed)).filter(|ms| *ms != NO_CONTACT)
    }

    fn has_quorum(&self) -> bool {
        self.contact().is_some_and(|ms| u128::from(ms) <= self.election_max.as_millis())
            && self.raft.leader().is_some()
    }

    fn look(&self) -> ClusterStatus {
        let view = self.raft.view();
        let quorum = self.has_quorum();
        let leader = self.raft.leader().filter(|_| quorum);
        let voters = self.raft.members();
        let agreed = view.state.agreed();
        let mut status = ClusterStatus {
            name: self.cluster.clone(),
            node: self.own().name.clone(),
            leader: None,
            term: self.raft.term(),
            applied: view.applied.0,
            contact_ms: self.contact(),
            quorum,
            policy_version: self.in_force.policy().load().version(),
            placement_version: agreed.map(|agreed| agreed.table.version().0),
            nodes: Vec::new(),
            warnings: Vec::new(),
        };
        let Some(agreed) = agreed else {
            status.warnings.push("the cluster has not begun: not all of its first nodes are there".into());
            return status;
        };
        let (mut owned, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for (_, row) in agreed.table.rows() {
            *owned.entry(row.owner).or_insert(0) += 1;
            row.replica.into_iter().for_each(|replica| *kept.entry(replica).or_insert(0) += 1);
        }
        for (id, member) in agreed.members.iter() {
            let up = id == self.me.node || self.links.is_connected(id);
            let seat = Seat { node: id, boot: member.boot };
            status.nodes.push(NodeStatus {
                id: member.name.clone(),
                number: id.0,
                http: member.http.clone(),
                peer: Some(member.peer.clone()).filter(|peer| !peer.is_empty()),
                state: match (up, member.draining) {
                    (false, _) => NodeState::Unreachable,
                    (true, true) => NodeState::Draining,
                    (true, false) => NodeState::Up,
                },
                voter: voters.get(&id).copied().unwrap_or(false),
                leader: leader == Some(id),
                boot: (member.boot != BootId::NEVER).then(|| member.boot.to_string()),
                partitions: match member.boot == BootId::NEVER {
                    true => 0,
                    false => owned.get(&seat).copied().unwrap_or(0),
                },
                replicas: kept.get(&id).copied().unwrap_or(0),
            });
            if leader == Some(id) {
                status.leader = Some(member.name.clone());
            }
        }
        status.warnings = warnings(&status);
        status
    }
}

fn warnings(status: &ClusterStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    if !status.quorum {
        warnings.push("no majority is heard of: the policy can't be changed".into());
    }
    let voters = status.nodes.iter().filter(|node| node.voter);
    let (all, down) = (voters.clone().count(), voters.filter(|v| v.state == NodeState::Unreachable).count());
    if status.nodes.len() == 2 {
        warnings.push("of two nodes one votes: without it the policy can't be changed".into());
    }
    if all > 1 && down > 0 && all - down <= all / 2 + 1 {
        warnings.push(format!("{down} of {all} voters can't be reached: no more may be lost"));
    }
    let unseated = status.nodes.iter().filter(|node| node.boot.is_none());
    warnings.extend(unseated.map(|node| format!("node {} has not been there yet", node.id)));
    warnings
}

/// The number of a node that was there from the beginning.
fn number(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

fn others(seeds: &[SeedNode], me: NodeId) -> Vec<(NodeId, Name, String)> {
    let numbered = (0..).zip(seeds).map(|(at, seed)| (number(at), seed.name.clone(), seed.peer.clone()));
    numbered.filter(|(id, ..)| *id != me).collect()
}

fn write_error(error: ProposeError) -> WriteError {
    match error {
        ProposeError::NoLeader => WriteError::NoLeader,
        ProposeError::Unknown | ProposeError::Stopped => WriteError::Unknown,
        ProposeError::TooLarge { .. } => {
            WriteError::Change(ChangeError::Invalid(vec![Fault::new("", error.to_string())]))
        }
        ProposeError::Refused(refusal) => match refusal {
            Refusal::Stale { expected, actual } => WriteError::Stale { expected, actual },
            Refusal::NotFound(what) => ChangeError::NotFound(what).into(),
            Refusal::Invalid(_) => ChangeError::Invalid(refusal.faults()).into(),
            Refusal::NoSuchVersion { version, oldest, newest } => {
                WriteError::NoSuchVersion { version, oldest, newest }
            }
            Refusal::NotBegun => WriteError::NoLeader,
            other => WriteError::Storage(other.to_string()),
        },
    }
}

impl PolicyStore for Member {
    fn current(&self) -> Arc<Policy> {
        self.in_force.policy().load().clone()
    }

    fn is_writable(&self) -> bool {
        self.has_quorum()
    }

    fn write(&self, proposal: Proposal) -> Writing<'_> {
        Box::pin(self.make(proposal))
    }

    fn history(&self) -> Vec<PastVersion> {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return Vec::new() };
        let past = agreed.history.iter();
        past.map(|past| PastVersion {
            version: past.version,
            time: past.time,
            by: past.by.clone(),
            what: past.what.clone(),
        })
        .collect()
    }

    fn document_at(&self, version: u64) -> Result<Document, WriteError> {
        let view = self.raft.view();
        let agreed = view.state.agreed().ok_or(WriteError::NoLeader)?;
        agreed.document_at(version).map_err(|refusal| write_error(ProposeError::Refused(refusal)))
    }

    fn audit(&self, before: Option<u64>, most: usize) -> Vec<AuditEntry> {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return Vec::new() };
        let lines = agreed.audit.iter().rev().filter(|line| before.is_none_or(|before| line.at.0 < before));
        lines
            .take(most)
            .map(|line| AuditEntry {
                index: line.at.0,
                time: line.time,
                by: line.by.clone(),
                what: line.what.clone(),
            })
            .collect()
    }
}

impl Membership for Member {
    fn status(&self) -> Looking<'_> {
        Box::pin(async { self.look() })
    }

    fn breakers(&self) -> Vec<BreakerStatus> {
        self.links.breakers(self.clock.now().boot)
    }

    fn reset_breaker(&self, peer: &Name) -> bool {
        self.links.reset_breaker(peer)
    }

    fn readiness(&self) -> Readiness {
        Readiness { leader: self.has_quorum(), recovered: self.recovered.load(Ordering::Relaxed) }
    }
}
