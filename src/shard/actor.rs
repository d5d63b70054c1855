//! The body of a shard: its mailboxes, its batches, its timer.
//!
//! Callers reach a shard through a bounded mailbox; when it is full they hear "busy" at once.
//! Shards talk to each other through mailboxes of their own, which come first, because somebody
//! waits for every answer in them. Everything that has arrived is handled as one batch under one
//! reading of the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::core::{Caps, Effect, Listed, Shard, TenantState};
use super::forget::{Forget, Forgotten};
use super::moving::Moved;
use super::op::{Answer, Home, OpRef};
use super::piece::{Cursor, Piece};
use super::saved::SavedState;
use super::shared::{Ask, Reply};
use super::tally::Reading;
use super::{Question, Refusal};
use crate::check::{Decision, PermitId, TenantId};
use crate::clock::{Now, SharedClock};
use crate::placement::{AccountHash, Partition, Places, Secret, TableVersion};
use crate::policy::Policy;
use crate::random::Generator;

/// Questions that may wait for a shard: it answers so many in about five milliseconds.
const MAILBOX_MAX: usize = 8_192;
/// Messages handled under one reading of the clock.
const BATCH_MAX: usize = 256;
/// How often open checks are looked at for deadlines. They are rare, so it need not be fine.
const DEADLINE_TICK: Duration = Duration::from_millis(5);
/// How often a share of the accounts is looked at for ones to forget.
const SWEEP_TICK: Duration = Duration::from_secs(1);

/// The policy in force, read by every shard as it starts a batch. What is stored here before an
/// answer is given is in force for every check asked after that answer.
pub struct PolicyCell(ArcSwap<Policy>);

impl PolicyCell {
    /// A cell that holds `policy`.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self(ArcSwap::new(policy))
    }

    /// The policy in force.
    pub fn load(&self) -> arc_swap::Guard<Arc<Policy>> {
        self.0.load()
    }

    /// Puts `policy` into force.
    pub fn store(&self, policy: Arc<Policy>) {
        self.0.store(policy);
    }
}

/// The placement in force, as this node sees it; read by every shard as it starts a batch, and by
/// the router for each check.
pub struct PlacesCell(ArcSwap<Places>);

impl PlacesCell {
    /// A cell that holds `places`.
    pub fn new(places: Places) -> Self {
        Self(ArcSwap::from_pointee(places))
    }

    /// The placement in force.
    pub fn load(&self) -> arc_swap::Guard<Arc<Places>> {
        self.0.load()
    }

    /// Puts `places` into force.
    pub fn store(&self, places: Places) {
        self.0.store(Arc::new(places));
    }
}

/// The way to the buckets that other nodes keep. Nothing here waits: what is asked is sent, and the
/// answer comes by itself.
pub trait Far: Send + Sync + 'static {
    /// Asks a bucket on the node that owns `partition`. Where no answer comes by the question's
    /// deadline, none comes.
    fn ask(&self, partition: Partition, ask: Ask, to: ReplyTo);
    /// Settles what `op` holds of a bucket there. Where that doesn't get through, what is held
    /// there is taken once the hold has been open for too long.
    fn settle(&self, partition: Partition, op: OpRef, key: u128, take: bool);
}

/// Nothing is far: for shards that have all buckets on their own node.
pub struct NothingFar;

impl Far for NothingFar {
    fn ask(&self, _: Partition, _: Ask, _: ReplyTo) {}
    fn settle(&self, _: Partition, _: OpRef, _: u128, _: bool) {}
}

/// Where the answer to a question to another node goes.
pub struct ReplyTo {
    partition: Partition,
    to: mpsc::UnboundedSender<Between>,
}

impl ReplyTo {
    /// Gives the answer to the shard that asked.
    pub fn send(self, reply: Reply) {
        // A shard that has ended waits for nothing.
        let _ = self.to.send(Between::Reply(Reply { from: Home::Far(self.partition), ..reply }));
    }
}

type Decided = Result<Decision, Refusal>;

enum Request {
    Check(Question, oneshot::Sender<Answer>),
    Peek(Question, oneshot::Sender<Answer>),
    All(Vec<Question>, oneshot::Sender<Answer>),
    Each(Vec<Question>, oneshot::Sender<Vec<Decided>>),
    Release(PermitId, oneshot::Sender<Result<(), Refusal>>),
    Renew(PermitId, u64, oneshot::Sender<Result<Option<u64>, Refusal>>),
    Describe(TenantId, AccountHash, oneshot::Sender<Result<TenantState, Refusal>>),
    Forget(TenantId, AccountHash, Forget, oneshot::Sender<Result<Forgotten, Refusal>>),
    Copy(Partition, TableVersion, oneshot::Sender<Option<Moved>>),
    Freeze(Leaving, oneshot::Sender<bool>),
    Rest(Leaving, oneshot::Sender<Option<Moved>>),
    Thaw(Leaving),
    Stage(Staging, oneshot::Sender<()>),
    List(usize, usize, oneshot::Sender<Listed>),
    Piece(Cursor, oneshot::Sender<Piece>),
    Save(oneshot::Sender<SavedState>),
    Tally(oneshot::Sender<Reading>),
}

/// Partitions that are to leave.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// The partitions.
    pub partitions: Arc<BTreeSet<Partition>>,
    /// The entry of the log that began their move.
    pub of: TableVersion,
}

/// What another node knows of partitions that are to come.
#[derive(Debug)]
pub struct Staging {
    /// The partitions.
    pub partitions: Arc<[Partition]>,
    /// The entry of the log that began their move.
    pub of: TableVersion,
    /// What it knows, or a part of that.
    pub moved: Moved,
    /// Whether it is the last part.
    pub is_last: bool,
}

/// What shards tell each other. There is no more of it than open checks have shared limits, so it
/// needs no bound of its own.
enum Between {
    Ask(Ask),
    /// The same from another node, which waits for the answer here.
    AskFrom(Ask, oneshot::Sender<Reply>),
    Reply(Reply),
    Settle {
        op: OpRef,
        key: u128,
        take: bool,
    },
}

/// A shard, as others see it.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    between: mpsc::UnboundedSender<Between>,
    /// Questions that found the mailbox full: the shard itself never hears of them.
    turned_away: Arc<AtomicU64>,
}

impl Handle {
    /// Asks at once; what is waited for is the answer alone, so that no question is carried along
    /// by a future.
    fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Asked<T> {
        let (to, answer) = oneshot::channel();
        // A request that finds no room is dropped with its sender, which the receiver hears.
        if self.requests.try_send(request(to)).is_err() {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        Asked(answer)
    }

    /// Decides one check.
    pub fn check(&self, question: Question) -> impl Future<Output = Decided> + use<> {
        let asked = self.ask(|to| Request::Check(question, to));
        async move { one(asked.answer().await?) }
    }

    /// Says what a check would be answered, and takes nothing.
    pub async fn peek(&self, question: Question) -> Decided {
        one(self.ask(|to| Request::Peek(question, to)).answer().await?)
    }

    /// Decides checks of one tenant that pass together or not at all.
    pub async fn check_all(&self, all: Vec<Question>) -> Answer {
        self.ask(|to| Request::All(all, to)).answer().await?
    }

    /// Decides checks one by one.
    pub async fn check_each(&self, each: Vec<Question>) -> Result<Vec<Decided>, Refusal> {
        self.ask(|to| Request::Each(each, to)).answer().await
    }

    /// Takes a permit back.
    pub async fn release(&self, id: PermitId) -> Result<(), Refusal> {
        self.ask(|to| Request::Release(id, to)).answer().await?
    }

    /// Extends a permit and returns the milliseconds that it runs; none where it isn't in flight
    /// any more.
    pub async fn renew(&self, id: PermitId, ttl_ms: u64) -> Result<Option<u64>, Refusal> {
        self.ask(|to| Request::Renew(id, ttl_ms, to)).answer().await?
    }

    /// What is kept of a tenant.
    pub async fn describe(
        &self,
        tenant: TenantId,
        hash: AccountHash,
    ) -> Result<TenantState, Refusal> {
        self.ask(|to| Request::Describe(tenant, hash, to)).answer().await?
    }

    /// Forgets what is told of a tenant.
    pub async fn forget(
        &self,
        tenant: TenantId,
        hash: AccountHash,
        what: Forget,
    ) -> Result<Forgotten, Refusal> {
        self.ask(|to| Request::Forget(tenant, hash, what, to)).answer().await?
    }

    /// A page of the tenants in memory.
    pub async fn list(&self, from: usize, most: usize) -> Result<Listed, Refusal> {
        self.ask(|to| Request::List(from, most, to)).answer().await
    }

    /// What it has counted so far, and how it stands. Waits for a place in the mailbox: whoever
    /// looks at a shard wants to see it most when it is busiest.
    pub async fn tally(&self) -> Result<Reading, Refusal> {
        self.told(Request::Tally).await
    }

    /// Questions in its mailbox.
    pub fn depth(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// Questions so far that found its mailbox full.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// What a bucket of its answers to a check that is open on another node. None comes where the
    /// shard has ended, or where the question waited for others' holds for as long as it may.
    pub fn ask_from_far(&self, ask: Ask) -> impl Future<Output = Option<Reply>> + use<> {
        let (to, reply) = oneshot::channel();
        // A shard that has ended drops the sender.
        let _ = self.between.send(Between::AskFrom(ask, to));
        async move { reply.await.ok() }
    }

    /// Settles what a check that is open on another node holds of a bucket of its.
    pub fn settle_from_far(&self, op: OpRef, key: u128, take: bool) {
        let _ = self.between.send(Between::Settle { op, key, take });
    }

    /// What it knows of a partition, while it goes on deciding it: for the move that this entry of
    /// the log began. None where that is not under way.
    pub async fn copy(
        &self,
        partition: Partition,
        of: TableVersion,
    ) -> Result<Option<Moved>, Refusal> {
        self.told(|to| Request::Copy(partition, of, to)).await
    }

    /// Freezes partitions: true once no check of them is open any more; false where their move is
    /// over. If whoever asks stops waiting before that, it goes on deciding them.
    pub async fn freeze(&self, leaving: Leaving) -> Result<bool, Refusal> {
        self.told(|to| Request::Freeze(leaving, to)).await
    }

    /// What has changed of frozen partitions since they were copied for their move, once nothing is
    /// held of their shared buckets any more. None where the move is over, or they were copied for
    /// another. If whoever asks stops waiting before that, it goes on deciding them.
    pub async fn rest(&self, leaving: Leaving) -> Result<Option<Moved>, Refusal> {
        self.told(|to| Request::Rest(leaving, to)).await
    }

    /// What it knows of long limits, from `cursor` on, while it goes on deciding.
    pub async fn piece(&self, cursor: Cursor) -> Result<Piece, Refusal> {
        self.told(|to| Request::Piece(cursor, to)).await
    }

    /// Goes on deciding frozen partitions, of which nothing was handed to anybody who may come to
    /// own them by that move.
    pub async fn thaw(&self, leaving: Leaving) {
        let _ = self.requests.send(Request::Thaw(leaving)).await;
    }

    /// Keeps what another node knows of partitions until the log says that they are here.
    pub async fn stage(&self, staging: Staging) -> Result<(), Refusal> {
        self.told(|to| Request::Stage(staging, to)).await
    }

    /// Asks what must not be turned away because others ask more: waits for a place in the mailbox.
    async fn told<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refusal> {
        let (to, answer) = oneshot::channel();
        self.requests.send(request(to)).await.map_err(|_| Refusal::Busy)?;
        answer.await.map_err(|_| Refusal::Busy)
    }

    /// Everything worth keeping over a restart.
    pub async fn save(&self) -> Result<SavedState, Refusal> {
        self.ask(Request::Save).answer().await
    }
}

/// A question on its way.
struct Asked<T>(oneshot::Receiver<T>);

impl<T> Asked<T> {
    async fn answer(self) -> Result<T, Refusal> {
        self.0.await.map_err(|_| Refusal::Busy)
    }
}

fn one(answer: Answer) -> Decided {
    answer.and_then(|mut decisions| decisions.pop().ok_or(Refusal::Busy))
}

/// The receiving ends of one shard, and the sending ends to all.
pub struct Mailboxes {
    requests: mpsc::Receiver<Request>,
    between: mpsc::UnboundedReceiver<Between>,
    others: Vec<mpsc::UnboundedSender<Between>>,
}

/// Handles and mailboxes of `shards` shards that know each other.
pub fn mailboxes(shards: usize) -> (Vec<Handle>, Vec<Mailboxes>) {
    let (others, between): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
    let ends = between.into_iter().zip(&others).map(|(between, own)| {
        let (sender, requests) = mpsc::channel(MAILBOX_MAX);
        let handle = Handle { requests: sender, between: own.clone(), turned_away: Arc::default() };
        (handle, Mailboxes { requests, between, others: others.clone() })
    });
    ends.unzip()
}

/// What a shard is made of.
pub struct ShardArgs {
    /// Which of them it is.
    pub index: usize,
    /// Its bounds.
    pub caps: Caps,
    /// The key of its hashes.
    pub secret: Secret,
    /// The placement in force.
    pub places: Arc<PlacesCell>,
    /// The way to buckets on other nodes.
    pub far: Arc<dyn Far>,
    /// The policy in force.
    pub policy: Arc<PolicyCell>,
    /// Where it reads the time.
    pub clock: SharedClock,
    /// Where its permit ids come from.
    pub generator: Generator,
    /// What an earlier process left behind.
    pub saved: Option<Arc<SavedState>>,
}

/// Runs a shard until all its handles are gone.
pub async fn run(args: ShardArgs, mut mailboxes: Mailboxes) {
    let mut now = args.clock.now();
    let policy = args.policy.load().clone();
    let shards = mailboxes.others.len();
    let places = args.places.load().clone();
    let boot = places.me().boot;
    let mut shard =
        Shard::new(args.index, shards, args.caps, args.secret, places, policy, args.generator);
    let mut foreign = Foreign::default();
    let mut freezing = Vec::new();
    shard.find(args.saved.as_deref(), now);
    drop(args.saved);
    if let cold @ 1.. = shard.cold_partitions() {
        tracing::info!(
            shard = args.index,
            partitions = cold,
            "which permits are in flight was lost: each partition grants permits again once the \
             longest time of a permit has passed (max_permit_ttl of the tier)"
        );
    }
    let mut deadlines = ticker(DEADLINE_TICK);
    let mut sweeps = ticker(SWEEP_TICK);
    let (mut requests, mut between, mut effects) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ticked_at, mut swept_at) = (now.boot, now.boot);
    loop {
        let (mut tick, mut sweep) = (false, false);
        tokio::select! {
            biased;
            // Its own sender is among the others, so this one never ends.
            _ = mailboxes.between.recv_many(&mut between, BATCH_MAX) => {}
            received = mailboxes.requests.recv_many(&mut requests, BATCH_MAX) => {
                if received == 0 {
                    return;
                }
            }
            _ = deadlines.tick(), if shard.is_busy() => tick = true,
            _ = sweeps.tick() => (tick, sweep) = (true, true),
        }
        now = args.clock.now();
        // A mailbox that is never empty must not keep time from passing: what is due is done behind
        // its batch.
        let since = |last: u64| u128::from(now.boot.saturating_sub(last));
        sweep |= since(swept_at) >= SWEEP_TICK.as_nanos();
        tick |= sweep || (shard.is_busy() && since(ticked_at) >= DEADLINE_TICK.as_nanos());
        {
            let policy = args.policy.load();
            if policy.version() != shard.policy_version() {
                shard.set_policy(policy.clone(), now);
            }
            let places = args.places.load();
            if places.version() != shard.places_version() {
                shard.set_places(places.clone(), now, &mut effects);
            }
        }
        for message in between.drain(..) {
            match message {
                Between::Ask(ask) => shard.asked(ask, now, &mut effects),
                // Whoever asks from another node asks again, here or where the bucket is then.
                Between::AskFrom(ask, _) if !shard.takes(&ask) => {}
                Between::AskFrom(ask, to) => {
                    foreign.0.insert((ask.op, ask.demand), to);
                    shard.asked(ask, now, &mut effects);
                }
                Between::Reply(reply) => shard.replied(reply, now, &mut effects),
                Between::Settle { op, key, take } => {
                    shard.settled(op, key, take, now, &mut effects)
                }
            }
        }
        for request in requests.drain(..) {
            handle(&mut shard, request, now, &mut effects, &mut freezing);
        }
        if tick {
            shard.tick(sweep, now, &mut effects);
            ticked_at = now.boot;
            swept_at = if sweep { now.boot } else { swept_at };
        }
        if sweep {
            foreign.sweep();
        }
        freezing.retain_mut(|freeze: &mut Freezing| !freeze.is_over(&mut shard, now, &mut effects));
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask(Home::Here(to), ask) => tell(&mailboxes, to, Between::Ask(ask)),
                Effect::Ask(Home::Far(partition), ask) => {
                    let Some(to) = mailboxes.others.get(ask.op.shard as usize).cloned() else {
                        continue;
                    };
                    args.far.ask(partition, ask, ReplyTo { partition, to });
                }
                Effect::Reply(reply) if reply.op.boot == boot => {
                    tell(&mailboxes, reply.op.shard as usize, Between::Reply(reply));
                }
                Effect::Reply(reply) => foreign.answer(reply),
                Effect::Settle { home: Home::Here(to), op, key, take } => {
                    tell(&mailboxes, to, Between::Settle { op, key, take });
                }
                Effect::Settle { home: Home::Far(partition), op, key, take } => {
                    args.far.settle(partition, op, key, take);
                }
            }
        }
    }
}

fn tell(mailboxes: &Mailboxes, to: usize, message: Between) {
    // A shard that has ended takes its buckets along; the deadline answers whoever waits for it.
    if let Some(other) = mailboxes.others.get(to) {
        let _ = other.send(message);
    }
}

/// The questions of other nodes that wait for an answer here. As many at most as their links carry
/// at a time.
#[derive(Default)]
struct Foreign(BTreeMap<(OpRef, usize), oneshot::Sender<Reply>>);

impl Foreign {
    fn answer(&mut self, reply: Reply) {
        if let Some(to) = self.0.remove(&(reply.op, reply.demand)) {
            // Whoever asked may have given up.
            let _ = to.send(reply);
        }
    }

    /// A question that waited for others' holds for as long as it might is never answered; whoever
    /// asked has left.
    fn sweep(&mut self) {
        self.0.retain(|_, to| !to.is_closed());
    }
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let mut ticker = tokio::time::interval(period);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticker
}

/// Partitions that are frozen and not drained yet, and who waits for that.
struct Freezing {
    leaving: Leaving,
    to: Awaited,
}

/// What is waited for, by whoever hands them over.
enum Awaited {
    /// That no check of them is open.
    Quiet(oneshot::Sender<bool>),
    /// What has changed of them, once nothing of them is held.
    Rest(oneshot::Sender<Option<Moved>>),
    /// Nothing any more.
    Nothing,
}

impl Awaited {
    /// Whether somebody still waits.
    fn is_awaited(&self) -> bool {
        match self {
            Self::Quiet(to) => !to.is_closed(),
            Self::Rest(to) => !to.is_closed(),
            Self::Nothing => false,
        }
    }
}

impl Freezing {
    /// Answers where nothing is open any more. Somebody who has stopped waiting gets nothing, now
    /// or later.
    fn is_over(&mut self, shard: &mut Shard, now: Now, effects: &mut Vec<Effect>) -> bool {
        let Leaving { partitions, of } = &self.leaving;
        let is_told = match std::mem::replace(&mut self.to, Awaited::Nothing) {
            to if !to.is_awaited() => false,
            Awaited::Quiet(to) => match shard.is_quiet(partitions, *of) {
                Some(quiet) => to.send(quiet).is_ok(),
                None => {
                    self.to = Awaited::Quiet(to);
                    return false;
                }
            },
            Awaited::Rest(to) => match shard.rest(partitions, *of, now) {
                Some(rest) => to.send(rest).is_ok(),
                None => {
                    self.to = Awaited::Rest(to);
                    return false;
                }
            },
            Awaited::Nothing => false,
        };
        if !is_told {
            shard.thaw(partitions, *of, now, effects);
        }
        true
    }
}

fn handle(
    shard: &mut Shard,
    request: Request,
    now: Now,
    effects: &mut Vec<Effect>,
    freezing: &mut Vec<Freezing>,
) {
    // Whoever asked may have left; then nobody misses the answer.
    match request {
        Request::Check(question, to) => shard.check(question, to, now, effects),
        Request::Peek(question, to) => shard.peek(question, to, now, effects),
        Request::All(all, to) => shard.check_all(all, to, now, effects),
        Request::Each(each, to) => shard.check_each(each, to, now, effects),
        Request::Release(id, to) => {
            let released =
                shard.if_open(Partition::new(id.partition), |s| s.release(id, now, effects));
            let _ = to.send(released);
        }
        Request::Renew(id, ttl_ms, to) => {
            let renewed = shard.if_open(Partition::new(id.partition), |s| s.renew(id, ttl_ms, now));
            let _ = to.send(renewed.and_then(|renewed| renewed));
        }
        Request::Describe(tenant, hash, to) => {
            let described =
                shard.if_open(Some(hash.partition()), |s| s.describe(&tenant, hash, now));
            let _ = to.send(described);
        }
        Request::Forget(tenant, hash, what, to) => {
            let partition = Some(hash.partition());
            let _ = to.send(shard.if_open(partition, |s| s.forget_of(&tenant, hash, &what, now)));
        }
        Request::Copy(partition, of, to) => drop(to.send(shard.copy(partition, of, now))),
        Request::Freeze(leaving, to) => {
            shard.freeze(&leaving.partitions, leaving.of);
            freezing.push(Freezing { leaving, to: Awaited::Quiet(to) });
        }
        Request::Rest(leaving, to) => {
            shard.close(&leaving.partitions, leaving.of);
            freezing.push(Freezing { leaving, to: Awaited::Rest(to) });
        }
        Request::Thaw(leaving) => shard.thaw(&leaving.partitions, leaving.of, now, effects),
        Request::Stage(Staging { partitions, of, moved, is_last }, to) => {
            shard.stage(&partitions, of, moved, is_last, now);
            let _ = to.send(());
        }
        Request::List(from, most, to) => drop(to.send(shard.list(from, most))),
        Request::Piece(cursor, to) => drop(to.send(shard.piece(cursor, now))),
        Request::Save(to) => drop(to.send(shard.save(now))),
        Request::Tally(to) => drop(to.send(shard.read())),
    }
}
