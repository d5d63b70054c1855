//! The loop of a shard: takes what has arrived, has the mind decide it, and carries out its
//! effects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::smallvec;
use tokio::sync::{mpsc, oneshot};

use super::cells::{PlacesCell, PolicyCell};
use super::far::{Far, ReplyTo};
use super::handle::{Between, Decided, Leaving, Mailboxes, Request, Staging};
use super::replies::Replies;
use crate::clock::{Now, SharedClock};
use crate::placement::{BootId, Partition, Secret};
use crate::random::Generator;
use crate::shard::{
    Answer, AtOnce, Caps, Effect, Filter, Home, OpRef, PartitionDelta, PartitionSnapshot, Reply,
    Shard,
};

/// Messages handled under one reading of the clock.
const BATCH_MAX: usize = 256;
/// How often open checks are looked at for deadlines. They are rare, so it need not be fine.
const DEADLINE_TICK: Duration = Duration::from_millis(5);
/// How often a share of the accounts is looked at for ones to forget.
const SWEEP_TICK: Duration = Duration::from_secs(1);

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
    pub saved: Option<Arc<PartitionSnapshot>>,
}

/// Runs a shard until all its handles are gone.
pub async fn run(args: ShardArgs, mut mailboxes: Mailboxes) {
    let mut now = args.clock.now();
    let others = std::mem::take(&mut mailboxes.others);
    let mut body = Body::new(args, others, now);
    let mut deadlines = ticker(DEADLINE_TICK);
    let mut sweeps = ticker(SWEEP_TICK);
    let (mut requests, mut between) = (Vec::new(), Vec::new());
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
            _ = deadlines.tick(), if body.shard.is_busy() => tick = true,
            _ = sweeps.tick() => (tick, sweep) = (true, true),
        }
        now = body.clock.now();
        // A mailbox that is never empty must not keep time from passing: what is due is done behind
        // its batch.
        let since = |last: u64| u128::from(now.boot.saturating_sub(last));
        sweep |= since(swept_at) >= SWEEP_TICK.as_nanos();
        tick |= sweep || (body.shard.is_busy() && since(ticked_at) >= DEADLINE_TICK.as_nanos());
        body.catch_up(now);
        for message in between.drain(..) {
            body.told(message, now);
        }
        for request in requests.drain(..) {
            body.asked(request, now);
        }
        if tick {
            body.tick(sweep, now);
            ticked_at = now.boot;
            swept_at = if sweep { now.boot } else { swept_at };
        }
        body.end_freezing(now);
        body.carry_out();
    }
}

/// A shard's mind, and what it needs around it.
struct Body {
    shard: Shard,
    /// The incarnation of this node: replies to it stay on this node.
    boot: BootId,
    policy: Arc<PolicyCell>,
    places: Arc<PlacesCell>,
    clock: SharedClock,
    far: Arc<dyn Far>,
    /// The mailboxes of all shards of this node.
    others: Vec<mpsc::UnboundedSender<Between>>,
    /// Callers of checks, peeks and batches that pass or fail as one.
    replies: Replies<Answer>,
    /// Callers of batches whose checks are decided one by one.
    batches: Replies<Vec<Decided>>,
    foreign: Foreign,
    freezing: Vec<Freezing>,
    effects: Vec<Effect>,
    /// How many of the effects, from the first on, have been searched for answers.
    searched: usize,
}

impl Body {
    /// The body of a shard that finds what an earlier process saved.
    fn new(args: ShardArgs, others: Vec<mpsc::UnboundedSender<Between>>, now: Now) -> Self {
        let ShardArgs { index, caps, secret, places, far, policy, clock, generator, saved } = args;
        let (active, placed) = (policy.load().clone(), places.load().clone());
        let boot = placed.me().boot;
        let mut shard = Shard::new(index, others.len(), caps, secret, placed, active, generator);
        shard.find(saved.as_deref(), now);
        if let cold @ 1.. = shard.cold_partitions() {
            tracing::info!(
                shard = index,
                partitions = cold,
                "which permits are in flight was lost: each partition grants permits again once \
                 the longest time of a permit has passed (max_permit_ttl of the tier)"
            );
        }
        Self {
            shard,
            boot,
            policy,
            places,
            clock,
            far,
            others,
            replies: Replies::default(),
            batches: Replies::default(),
            foreign: Foreign::default(),
            freezing: Vec::new(),
            effects: Vec::new(),
            searched: 0,
        }
    }

    /// Has the mind decide by the policy and the placement that are active now.
    fn catch_up(&mut self, now: Now) {
        let policy = self.policy.load();
        if policy.version() != self.shard.policy_version() {
            self.shard.set_policy(policy.clone(), now);
        }
        let places = self.places.load();
        if places.version() != self.shard.places_version() {
            self.shard.set_places(places.clone(), now, &mut self.effects);
        }
        drop((policy, places));
        self.send_answers();
    }

    /// A message of another shard, or of another node.
    fn told(&mut self, message: Between, now: Now) {
        let (shard, effects) = (&mut self.shard, &mut self.effects);
        match message {
            Between::Ask(ask) => shard.asked(ask, now, effects),
            // The node that asks asks again, here or where the bucket is then.
            Between::AskFrom(ask, _) if !shard.takes(&ask) => {}
            Between::AskFrom(ask, to) => {
                self.foreign.0.insert((ask.op, ask.demand), to);
                shard.asked(ask, now, effects);
            }
            Between::Reply(reply) => shard.replied(reply, now, effects),
            Between::Settle { op, key, take } => shard.settled(op, key, take, now, effects),
        }
        self.send_answers();
    }

    /// A request of a caller.
    fn asked(&mut self, request: Request, now: Now) {
        let (shard, effects) = (&mut self.shard, &mut self.effects);
        // A caller may have stopped waiting; then its answer is dropped.
        match request {
            Request::Check(question, to) => match shard.at_once(question, now) {
                AtOnce::Decided(decided) => drop(to.send(decided.map(|one| smallvec![one]))),
                AtOnce::NotMine(question) => {
                    shard.check(question, self.replies.insert(to), now, effects);
                }
            },
            Request::Peek(question, to) => {
                shard.peek(question, self.replies.insert(to), now, effects);
            }
            Request::All(all, to) => shard.check_all(all, self.replies.insert(to), now, effects),
            Request::Each(each, to) => {
                shard.check_each(each, self.batches.insert(to), now, effects)
            }
            Request::Release(id, to) => {
                let partition = Partition::new(id.partition);
                let _ = to.send(shard.if_open(partition, |s| s.release(id, now, effects)));
            }
            Request::Renew(id, ttl_ms, to) => {
                let partition = Partition::new(id.partition);
                let renewed = shard.if_open(partition, |s| s.renew(id, ttl_ms, now));
                let _ = to.send(renewed.and_then(|renewed| renewed));
            }
            Request::Describe(tenant, hash, to) => {
                let partition = Some(hash.partition());
                let _ = to.send(shard.if_open(partition, |s| s.describe(&tenant, hash, now)));
            }
            Request::Forget(tenant, hash, what, to) => {
                let partition = Some(hash.partition());
                let forget = |s: &mut Shard| s.forget_of(&tenant, hash, &what, now);
                let _ = to.send(shard.if_open(partition, forget));
            }
            Request::Copy(partition, of, to) => drop(to.send(shard.copy(partition, of, now))),
            Request::Freeze(leaving, to) => {
                shard.freeze(&leaving.partitions, leaving.of);
                self.freezing.push(Freezing { leaving, to: Awaited::Quiet(to) });
            }
            Request::Rest(leaving, to) => {
                shard.close(&leaving.partitions, leaving.of);
                self.freezing.push(Freezing { leaving, to: Awaited::Rest(to) });
            }
            Request::Thaw(leaving) => shard.thaw(&leaving.partitions, leaving.of, now, effects),
            Request::Stage(Staging { partitions, of, delta, is_last }, to) => {
                shard.stage(&partitions, of, delta, is_last, now);
                let _ = to.send(());
            }
            Request::List(from, most, to) => drop(to.send(shard.list(from, most))),
            Request::Long(cursor, to) => drop(to.send(shard.export(Filter::Long(cursor), now))),
            Request::Save(to) => drop(to.send(shard.save(now))),
            Request::Tally(to) => drop(to.send(shard.read())),
        }
        self.send_answers();
    }

    /// Lets time pass; with `sweep` also for accounts and buckets that may be forgotten.
    fn tick(&mut self, sweep: bool, now: Now) {
        self.shard.tick(sweep, now, &mut self.effects);
        if sweep {
            self.foreign.sweep();
        }
        self.send_answers();
    }

    /// Answers the nodes' own tasks that wait for partitions to be quiet.
    fn end_freezing(&mut self, now: Now) {
        let (shard, effects) = (&mut self.shard, &mut self.effects);
        self.freezing.retain_mut(|freezing| !freezing.is_over(shard, now, effects));
    }

    /// Sends the answers among the effects that were added since the last call. Callers hear at
    /// once; other shards and nodes are asked at the end of the batch.
    fn send_answers(&mut self) {
        let is_answer = |effect: &mut Effect| {
            matches!(effect, Effect::Answer { .. } | Effect::AnswerEach { .. })
        };
        for effect in self.effects.extract_if(self.searched.., is_answer) {
            match effect {
                Effect::Answer { reply, answer, .. } => self.replies.send(reply, answer),
                Effect::AnswerEach { reply, answers, .. } => self.batches.send(reply, answers),
                _ => {}
            }
        }
        self.searched = self.effects.len();
    }

    /// Carries out all effects that are left.
    fn carry_out(&mut self) {
        self.send_answers();
        self.searched = 0;
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Ask(Home::Here(to), ask) => tell(&self.others, to, Between::Ask(ask)),
                Effect::Ask(Home::Far(partition), ask) => {
                    let Some(to) = self.others.get(ask.op.shard as usize).cloned() else {
                        continue;
                    };
                    self.far.ask(partition, ask, ReplyTo { partition, to });
                }
                Effect::Reply(reply) if reply.op.boot == self.boot => {
                    tell(&self.others, reply.op.shard as usize, Between::Reply(reply));
                }
                Effect::Reply(reply) => self.foreign.answer(reply),
                Effect::Settle { home: Home::Here(to), op, key, take } => {
                    tell(&self.others, to, Between::Settle { op, key, take });
                }
                Effect::Settle { home: Home::Far(partition), op, key, take } => {
                    self.far.settle(partition, op, key, take);
                }
                Effect::Answer { .. } | Effect::AnswerEach { .. } => {}
            }
        }
    }
}

fn tell(others: &[mpsc::UnboundedSender<Between>], to: usize, message: Between) {
    // A shard that has ended takes its buckets along; callers that wait are answered at their
    // deadline.
    if let Some(other) = others.get(to) {
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
            // The node that asked may have given up.
            let _ = to.send(reply);
        }
    }

    /// Drops questions whose node has given up: one that waited for others' holds for as long as it
    /// may is never answered.
    fn sweep(&mut self) {
        self.0.retain(|_, to| !to.is_closed());
    }
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let mut ticker = tokio::time::interval(period);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticker
}

/// Partitions that are frozen and not drained yet, and the task that waits for that.
struct Freezing {
    leaving: Leaving,
    to: Awaited,
}

/// What the task waits for that hands them over.
enum Awaited {
    /// That no check of them is open.
    Quiet(oneshot::Sender<bool>),
    /// What has changed of them, once nothing of them is held.
    Rest(oneshot::Sender<Option<PartitionDelta>>),
    /// Nothing any more.
    Nothing,
}

impl Awaited {
    /// Whether the task still waits.
    fn is_awaited(&self) -> bool {
        match self {
            Self::Quiet(to) => !to.is_closed(),
            Self::Rest(to) => !to.is_closed(),
            Self::Nothing => false,
        }
    }
}

impl Freezing {
    /// Answers where nothing is open any more, and returns whether that is over. Where the task has
    /// stopped waiting, the shard goes on deciding the partitions.
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
