//! The router's side of a forward: to the owner, under a number, until there is an answer or the
//! time is up.
//!
//! What can happen on the way, and what is done:
//!
//! ```text
//! there is no connection, or no room     nothing was charged: again in a moment, for a peer that restarts is back soon
//! the connection breaks, or is silent    it may have been charged: again under the same number, which is charged once
//! "not mine, I am at epoch 6"            nothing was charged: once this node knows epoch 6, to whom that names
//! the breaker of the link is open        an honest "can't be reached", at once; with a connection
//!                                        that is up again the breaker is about to close: again in a moment
//! ```
//!
//! Nothing of it is seen by the caller but the time it takes, which his deadline bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::counts::ForwardCounts;
use super::owner::decided_by;
use crate::actor::Handle;
use crate::check::{
    Check, Decision, Name, PERMIT_TTL_MS_DEFAULT, PERMIT_TTL_UNSAID, PermitId, TenantId,
};
use crate::clock::{MS, SharedClock};
use crate::cluster::InForce;
use crate::cluster::links::{AskError, Links, Peer};
use crate::codec::CodecError;
use crate::peer::batch::{AllAnswer, AllAsk, EachAsk, One};
use crate::peer::check::{CheckAnswer, CheckAsk, Declined, Purpose, Source};
use crate::peer::tenant::{
    DescribeAsk, ForgetAsk, ListAsk, Owned, PermitAsk, PlainForget, PlainForgotten, PlainState,
    RenewAsk, Renewed, ResetAsk,
};
use crate::peer::{Ask, BootId, CallError, Failure, Opaque, ReadError};
use crate::placement::{AccountHash, Epoch, NodeId, Partition, Place, Seat};
use crate::shard::{Forget, Forgotten, Listed, Question, Refusal, TenantState};

/// How long to wait before asking again where nothing says when that is worth it.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// The least time that one attempt gets. What is left is halved with each, so that one that is lost
/// leaves time for another.
const ATTEMPT_MIN: Duration = Duration::from_millis(50);
/// How long a peer that may have charged a check, and owns its tenant no more, is given to be
/// reached again, in nanoseconds.
const DOUBT_MAX: u64 = 300 * MS;
/// How long calls that no check waits for may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A check, the hash of its account, and the epoch of its partition's row.
pub type Placed = (Check, AccountHash, Epoch);

/// The way to the owners.
pub struct Forwarder {
    shards: Vec<Handle>,
    in_force: Arc<InForce>,
    links: Arc<Links>,
    clock: SharedClock,
    router: Name,
    boot: BootId,
    sequence: AtomicU64,
    counts: Arc<ForwardCounts>,
}

/// Who a forwarder is, and what it works with.
pub struct ForwarderArgs {
    /// The shards of this node: what was far may turn out to be here.
    pub shards: Vec<Handle>,
    /// What this node goes by.
    pub in_force: Arc<InForce>,
    /// The links to the others.
    pub links: Arc<Links>,
    /// Where it reads the time.
    pub clock: SharedClock,
    /// This node's name.
    pub router: Name,
    /// This life of it.
    pub boot: BootId,
    /// What it counts.
    pub counts: Arc<ForwardCounts>,
}

/// Where an answer came from.
enum Told<T> {
    /// Nowhere: the partition is here, under this epoch.
    Here(Epoch),
    /// From its owner.
    There(T, Name),
}

impl Forwarder {
    /// A forwarder; its numbers begin at 1.
    pub fn new(args: ForwarderArgs) -> Self {
        let ForwarderArgs { shards, in_force, links, clock, router, boot, counts } = args;
        Self { shards, in_force, links, clock, router, boot, sequence: AtomicU64::new(1), counts }
    }

    /// What it counts.
    pub fn counts(&self) -> &ForwardCounts {
        &self.counts
    }

    /// The owner's decision of a check.
    pub async fn check(&self, check: Check, hash: AccountHash) -> Result<Decision, Refusal> {
        self.one(check, hash, Purpose::Take).await
    }

    /// What the owner would decide.
    pub async fn peek(&self, check: Check, hash: AccountHash) -> Result<Decision, Refusal> {
        self.one(check, hash, Purpose::Look).await
    }

    async fn one(
        &self,
        check: Check,
        hash: AccountHash,
        purpose: Purpose,
    ) -> Result<Decision, Refusal> {
        let (until, partition) = (self.until(check.deadline_ms), hash.partition());
        let source = self.source();
        let mut ask = CheckAsk { source, partition, epoch: 0, policy_version: 0, purpose, check };
        loop {
            let question = |epoch: Epoch| {
                (ask.epoch, ask.policy_version) = (epoch.number(), self.policy_version());
                Opaque::question(&ask)
            };
            let told = self.ask_owner(partition, until, question, |answer| {
                let CheckAnswer { epoch, said } = answer.read_answer::<CheckAsk>()?;
                Ok(said.map(|decision| (epoch, decision)))
            });
            let epoch = match told.await? {
                Told::There((epoch, decision), node) => {
                    return Ok(decided_by(&node, epoch, decision));
                }
                Told::Here(epoch) => epoch,
            };
            let (shard, question) =
                (self.shard(partition), Question { check: ask.check.clone(), hash, epoch });
            let said = match purpose {
                Purpose::Take => shard.check(question).await,
                Purpose::Look => shard.peek(question).await,
            };
            match self.unless_it_moves(said, partition, epoch, until).await {
                Some(said) => return said,
                None => continue,
            }
        }
    }

    /// What a shard here said; none where the partition is on its way to another node, after a
    /// moment.
    async fn unless_it_moves<T>(
        &self,
        said: Result<T, Refusal>,
        partition: Partition,
        epoch: Epoch,
        until: u64,
    ) -> Option<Result<T, Refusal>> {
        match said {
            Err(Refusal::Moved(_)) if self.left(until).is_some() => {
                let here = Place::Here(epoch);
                self.pause(until, |in_force| in_force.places().load().of(partition) != here).await;
                None
            }
            Err(Refusal::Moved(_)) => Some(Err(self.unreachable())),
            said => Some(said),
        }
    }

    /// The owner's decisions of checks that pass together or not at all; their account has this
    /// hash.
    pub async fn check_all(
        &self,
        checks: Vec<Check>,
        hash: AccountHash,
    ) -> Result<Vec<Decision>, Refusal> {
        let deadline_ms = checks.iter().map(|check| check.deadline_ms).max().unwrap_or(0);
        let (until, partition) = (self.until(deadline_ms), hash.partition());
        let mut ask =
            AllAsk { source: self.source(), partition, epoch: 0, policy_version: 0, checks };
        loop {
            let question = |epoch: Epoch| {
                (ask.epoch, ask.policy_version) = (epoch.number(), self.policy_version());
                Opaque::question(&ask)
            };
            let told = self.ask_owner(partition, until, question, |answer| {
                let AllAnswer { epoch, said } = answer.read_answer::<AllAsk>()?;
                Ok(said.map(|decisions| (epoch, decisions)))
            });
            let epoch = match told.await? {
                Told::There((epoch, decisions), node) => {
                    let by = |decision| decided_by(&node, epoch, decision);
                    return Ok(decisions.into_iter().map(by).collect());
                }
                Told::Here(epoch) => epoch,
            };
            let checks = ask.checks.iter().cloned();
            let questions = checks.map(|check| Question { check, hash, epoch }).collect();
            let said = self.shard(partition).check_all(questions).await;
            match self.unless_it_moves(said, partition, epoch, until).await {
                Some(said) => return said.map(|decisions| decisions.into_vec()),
                None => continue,
            }
        }
    }

    /// The decisions of checks that each stand alone and whose partitions `seat` owns, as far as
    /// this node knows.
    pub async fn check_each(
        &self,
        seat: Seat,
        checks: Vec<Placed>,
    ) -> Vec<Result<Decision, Refusal>> {
        let deadline_ms = checks.iter().map(|(check, ..)| check.deadline_ms).max().unwrap_or(0);
        let until = self.until(deadline_ms);
        let one = |(check, hash, epoch): &Placed| One {
            partition: hash.partition(),
            epoch: epoch.number(),
            check: check.clone(),
        };
        let (source, policy_version) = (self.source(), self.policy_version());
        let ask = EachAsk { source, policy_version, checks: checks.iter().map(one).collect() };
        let one_by_one = |checks: Vec<Placed>| {
            join_all(checks.into_iter().map(|(check, hash, _)| self.check(check, hash)))
        };
        let Some(peer) = self.peer(seat) else {
            // Nobody is in that seat yet: each goes by itself to whoever will be.
            return one_by_one(checks).await;
        };
        let said = match Opaque::question(&ask) {
            Ok(question) => self.ask_peer(&peer, until, &question, || false).await,
            Err(_) => Err(Refusal::Busy),
        };
        let said =
            said.and_then(|answer| match answer.map(|answer| answer.read_answer::<EachAsk>()) {
                Some(Ok(answers)) if answers.len() == checks.len() => Ok(answers),
                _ => Err(self.unreachable()),
            });
        let answers = match said {
            Ok(answers) => answers,
            Err(refusal) => return vec![Err(refusal); checks.len()],
        };
        let (mut decided, mut moved) = (Vec::with_capacity(checks.len()), Vec::new());
        for (at, (CheckAnswer { epoch, said }, asked)) in
            answers.into_iter().zip(checks).enumerate()
        {
            decided.push(match said {
                Ok(decision) => {
                    self.counts.forwarded.count();
                    Ok(decided_by(peer.name(), epoch, decision))
                }
                Err(Declined::Refused(refusal)) => Err(refusal),
                Err(Declined::NotOwner { .. } | Declined::TooOld) => {
                    moved.push((at, asked));
                    Err(Refusal::Unreachable)
                }
            });
        }
        // Those that have moved go by themselves to wherever they are now.
        let (places, moved): (Vec<_>, Vec<_>) = moved.into_iter().unzip();
        for (at, answer) in places.into_iter().zip(one_by_one(moved).await) {
            decided[at] = answer;
        }
        decided
    }

    /// Gives a permit back.
    pub async fn release(&self, id: PermitId) -> Result<(), Refusal> {
        let Some(partition) = Partition::new(id.partition) else { return Ok(()) };
        let question = |epoch: Epoch| {
            Opaque::question(&PermitAsk { id, epoch: epoch.number(), renew_ms: None })
        };
        let here = || async move { self.shard(partition).release(id).await.map(|()| true) };
        self.ask_owned::<PermitAsk, _, _>(partition, question, here).await.map(drop)
    }

    /// Extends a permit and returns the milliseconds that it runs; none where it isn't in flight
    /// any more.
    pub async fn renew(&self, id: PermitId, ttl_ms: u64) -> Result<Option<u64>, Refusal> {
        let Some(partition) = Partition::new(id.partition) else { return Ok(None) };
        let question = |epoch: Epoch| {
            let (epoch, policy_version) = (epoch.number(), self.policy_version());
            Opaque::question(&RenewAsk { id, epoch, policy_version, ttl_ms })
        };
        let here = || async move { Renewed::new(self.shard(partition).renew(id, ttl_ms).await) };
        match self.ask_owned::<RenewAsk, _, _>(partition, question, here).await {
            // A node of an earlier version knows no such question.
            Err(Refusal::Older(_)) => self.renew_as_before(id, partition, ttl_ms).await,
            renewed => renewed?.said(),
        }
    }

    /// Extends a permit by the question that every version knows. Its answer can't say that the
    /// time is too long, or that it is shorter than what was asked for.
    async fn renew_as_before(
        &self,
        id: PermitId,
        partition: Partition,
        ttl_ms: u64,
    ) -> Result<Option<u64>, Refusal> {
        let ttl_ms = if ttl_ms == PERMIT_TTL_UNSAID { PERMIT_TTL_MS_DEFAULT } else { ttl_ms };
        let question = |epoch: Epoch| {
            Opaque::question(&PermitAsk { id, epoch: epoch.number(), renew_ms: Some(ttl_ms) })
        };
        let here = || async move {
            self.shard(partition).renew(id, ttl_ms).await.map(|renewed| renewed.is_some())
        };
        let is_in_flight = self.ask_owned::<PermitAsk, _, _>(partition, question, here).await?;
        Ok(is_in_flight.then_some(ttl_ms))
    }

    /// What its owner keeps of a tenant.
    pub async fn describe(
        &self,
        tenant: TenantId,
        hash: AccountHash,
    ) -> Result<TenantState, Refusal> {
        let partition = hash.partition();
        let question = |epoch: Epoch| {
            let (epoch, policy_version) = (epoch.number(), self.policy_version());
            Opaque::question(&DescribeAsk {
                partition,
                epoch,
                policy_version,
                tenant: tenant.clone(),
            })
        };
        let here = || {
            let described = self.shard(partition).describe(tenant.clone(), hash);
            async move { described.await.map(PlainState::from) }
        };
        self.ask_owned::<DescribeAsk, _, _>(partition, question, here).await.map(TenantState::from)
    }

    /// Has its owner forget what is told of a tenant, whose account has that hash.
    pub async fn forget(
        &self,
        tenant: TenantId,
        hash: AccountHash,
        what: Forget,
    ) -> Result<Forgotten, Refusal> {
        let partition = hash.partition();
        let here = || {
            let forgotten = self.shard(partition).forget(tenant.clone(), hash, what.clone());
            async move { forgotten.await.map(PlainForgotten::from) }
        };
        if what == Forget::Spent {
            // Nodes of every format level know this message.
            let question = |epoch: Epoch| {
                Opaque::question(&ResetAsk {
                    partition,
                    epoch: epoch.number(),
                    tenant: tenant.clone(),
                })
            };
            let here = || {
                let forgotten = here();
                async move { forgotten.await.map(drop) }
            };
            self.ask_owned::<ResetAsk, _, _>(partition, question, here).await?;
            return Ok(Forgotten { was_active: true, ..Forgotten::default() });
        }
        let question = |epoch: Epoch| {
            let (epoch, policy_version) = (epoch.number(), self.policy_version());
            let (tenant, what) = (tenant.clone(), PlainForget::from(&what));
            Opaque::question(&ForgetAsk { partition, epoch, policy_version, tenant, what })
        };
        self.ask_owned::<ForgetAsk, _, _>(partition, question, here).await.map(Forgotten::from)
    }

    /// A page of the tenants that another node has in one of its shards' memory; none beyond the
    /// last shard.
    pub async fn list(
        &self,
        node: NodeId,
        shard: usize,
        from: usize,
        most: usize,
    ) -> Option<Result<Listed, Refusal>> {
        let Some(peer) = self.links.peer(node) else { return Some(Err(Refusal::Unreachable)) };
        let ask = ListAsk { shard: shard as u32, from: from as u64, most: most as u32 };
        match peer.checks().ask(&ask, PATIENCE).await {
            Ok(said) => said.map(|said| said.map(Listed::from).map_err(Refusal::from)),
            Err(_) => Some(Err(Refusal::Unreachable)),
        }
    }

    fn source(&self) -> Source {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        Source { router: self.router.clone(), boot: self.boot, sequence }
    }

    fn until(&self, deadline_ms: u64) -> u64 {
        self.clock.now().boot.saturating_add(deadline_ms.saturating_mul(MS))
    }

    /// What is left until boot time `until`; none where it has passed.
    fn left(&self, until: u64) -> Option<Duration> {
        let left = until.saturating_sub(self.clock.now().boot);
        (left > 0).then(|| Duration::from_nanos(left))
    }

    fn policy_version(&self) -> u64 {
        self.in_force.policy().load().version()
    }

    fn shard(&self, partition: Partition) -> &Handle {
        &self.shards[partition.shard(self.shards.len())]
    }

    /// Asks the owner, which may be this node: then `here` asks the shard.
    async fn ask_owned<A, T, H>(
        &self,
        partition: Partition,
        mut question: impl FnMut(Epoch) -> Result<Opaque, CodecError>,
        here: impl Fn() -> H,
    ) -> Result<T, Refusal>
    where
        A: Ask<Answer = Owned<T>>,
        H: Future<Output = Result<T, Refusal>>,
    {
        let until = self.clock.now().boot.saturating_add(PATIENCE.as_nanos() as u64);
        loop {
            let read = |answer: Opaque| Ok(answer.read_answer::<A>()?.said());
            match self.ask_owner(partition, until, &mut question, read).await? {
                Told::There(said, _) => return Ok(said),
                Told::Here(epoch) => {
                    if let Some(said) =
                        self.unless_it_moves(here().await, partition, epoch, until).await
                    {
                        return said;
                    }
                }
            }
        }
    }

    /// Asks whoever owns `partition` until he answers or boot time `until` is over.
    async fn ask_owner<T>(
        &self,
        partition: Partition,
        until: u64,
        mut question: impl FnMut(Epoch) -> Result<Opaque, CodecError>,
        read: impl Fn(Opaque) -> Result<Result<T, Declined>, ReadError>,
    ) -> Result<Told<T>, Refusal> {
        loop {
            let place = self.in_force.places().load().of(partition);
            let (seat, epoch) = match place {
                Place::Here(epoch) => return Ok(Told::Here(epoch)),
                Place::There(seat, epoch) => (seat, epoch),
            };
            if self.left(until).is_none() {
                return Err(self.unreachable());
            }
            let Some(peer) = self.peer(seat) else {
                // Nobody is in that seat yet, or this node is about to be.
                self.pause(until, |in_force| in_force.places().load().of(partition) != place).await;
                continue;
            };
            let question = question(epoch).map_err(|_| Refusal::Busy)?;
            let answer = self.ask_peer(&peer, until, &question, || {
                self.in_force.places().load().of(partition) != place
            });
            let Some(answer) = answer.await? else { continue };
            match read(answer).map_err(|_| self.unreachable())? {
                Ok(said) => {
                    self.counts.forwarded.count();
                    return Ok(Told::There(said, peer.name().clone()));
                }
                Err(Declined::Refused(refusal)) => return Err(refusal),
                Err(Declined::TooOld) => return Err(Refusal::Busy),
                Err(Declined::NotOwner { .. }) => {
                    self.counts.moved.count();
                    // One of the two is behind, and neither for long.
                    self.pause(until, |in_force| in_force.places().load().of(partition) != place)
                        .await;
                }
            }
        }
    }

    /// Asks one peer, again and again under the same number, until it answers, the time is up, or
    /// `is_over` says that another is to be asked: then there is no answer. If it may have charged
    /// what it was asked, it is asked whether it has before it is left for another: one that can't
    /// say within [`DOUBT_MAX`] is as good as dead.
    async fn ask_peer(
        &self,
        peer: &Peer,
        until: u64,
        question: &Opaque,
        is_over: impl Fn() -> bool,
    ) -> Result<Option<Opaque>, Refusal> {
        let (mut may_be_charged, mut doubted_until) = (false, None);
        loop {
            let is_last = is_over();
            if is_last {
                let now = self.clock.now().boot;
                // Whoever is asked instead needs some of the time.
                let doubt = DOUBT_MAX.min(until.saturating_sub(now) / 2);
                if !may_be_charged || *doubted_until.get_or_insert(now + doubt) < now {
                    return Ok(None);
                }
            }
            let Some(left) = self.left(until) else { return Err(self.unreachable()) };
            if may_be_charged {
                self.counts.resent.count();
            }
            match peer.call(question.clone(), (left / 2).max(ATTEMPT_MIN).min(left)).await {
                Ok(answer) => return Ok(Some(answer)),
                // It would say the same again.
                Err(AskError::Call(CallError::Failed(name, Failure::UnknownKind))) => {
                    return Err(Refusal::Older(name));
                }
                // With a connection the breaker is about to close: what waits for its probes is
                // answered in time.
                Err(AskError::Open(_)) if !is_last && !peer.carries_checks() => {
                    return Err(self.unreachable());
                }
                Err(AskError::Call(CallError::TooLong { .. } | CallError::Encode(_))) => {
                    return Err(Refusal::Busy);
                }
                Err(error) => {
                    tracing::debug!(%error, "a forward had no answer");
                    // Whatever becomes of what was sent now, what was sent before may have been
                    // charged.
                    may_be_charged |= !error.was_not_handled();
                }
            }
            self.pause(until, |_| !is_last && is_over()).await;
        }
    }

    /// The node in that seat, where there is one to be asked.
    fn peer(&self, seat: Seat) -> Option<Arc<Peer>> {
        let is_other =
            seat.boot != BootId::NEVER && seat.node != self.in_force.places().load().me().node;
        is_other.then(|| self.links.peer(seat.node)).flatten()
    }

    /// Why there is no answer: the owner can't be reached, or this node hasn't started and lacks
    /// more than that.
    fn unreachable(&self) -> Refusal {
        self.counts.unreachable.count();
        self.in_force.missing().map_or(Refusal::Unreachable, Refusal::NotStarted)
    }

    /// Waits a moment; less, if what this node goes by comes to fit.
    async fn pause(&self, until: u64, fits: impl Fn(&InForce) -> bool) {
        let most = self.left(until).unwrap_or_default().min(AGAIN_AFTER);
        let _ = tokio::time::timeout(most, self.in_force.until(fits)).await;
    }
}
