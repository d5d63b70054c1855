//! The mind of a shard: messages and the time in, effects out. No clock, no channel, no task.
//!
//! A check becomes an [`Op`] with one *demand* per limit. The op asks all of them, also after the first no, so that the
//! wait it is told is the longest of all. Its own limits are judged at once; if they pass and limits under shared keys are
//! left, the op holds its own units and asks those shards, in parallel and without waiting; should one of them be blocked
//! by somebody else's hold, it gives everything back and asks again, one key after another in their order, willing to
//! wait at each. When the last has answered, everything is taken, or nothing.
//!
//! While units of an account are held, other checks of that account that would fail only because of them are parked until
//! the outcome is known. Own limits come before all shared ones and shared ones have an order, so nobody ever waits for
//! somebody who waits for him.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::account::{Buckets, OwnHold, Replay};
use super::accounts::{AccountIx, Accounts};
use super::op::{Answer, AnswerTo, Demand, Kind, Op, OpId, OpRef, Part, kind_of};
use super::shared::{Ask, Reply, SharedBuckets};
use super::{Question, Refusal};
use crate::check::{Check, Decision, Name, PermitId, TenantId};
use crate::clock::{MS, Now, SECOND};
use crate::limit::Outcome;
use crate::placement::{AccountHash, Secret};
use crate::policy::{BucketKey, Plan, Policy, Selected, TierSource};
use crate::random::Generator;

/// How long an answer is remembered for its request id, in nanoseconds.
const REPLAY_FOR: u64 = 60 * SECOND;
/// Request ids remembered for one tenant; the oldest goes first.
const REPLAYS_PER_TENANT_MAX: usize = 1_000;
/// Checks that may be open in one shard: waiting for shared limits or for each other.
const OPEN_MAX: usize = 16_384;

/// The bounds of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Accounts of tenants that the policy names.
    pub named_tenants: usize,
    /// Accounts of all others.
    pub unknown_tenants: usize,
    /// Buckets of one tenant.
    pub keys_per_tenant: usize,
    /// Buckets of all tenants.
    pub keys: usize,
    /// Buckets shared by tenants.
    pub shared_keys: usize,
    /// Request ids remembered.
    pub request_ids: usize,
}

/// What the mind wants done.
pub enum Effect {
    /// Ask a shared bucket in another shard.
    Ask(usize, Ask),
    /// Answer such a question.
    Reply(usize, Reply),
    /// Take or cancel what an op holds there.
    Settle {
        shard: usize,
        op: OpRef,
        key: u128,
        take: bool,
    },
}

/// What a shard keeps of a tenant.
#[derive(Clone, Debug)]
pub struct TenantState {
    /// Its tier.
    pub tier: Name,
    /// How it came by its tier.
    pub source: TierSource,
    /// Whether it is in memory at all.
    pub active: bool,
    /// Permits that are out.
    pub permits: u64,
    /// Buckets in memory.
    pub keys: usize,
    /// Request ids remembered.
    pub request_ids: usize,
}

/// A page of the tenants in memory.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Their ids.
    pub ids: Vec<Arc<str>>,
    /// Where the next page begins; none at the end.
    pub next: Option<usize>,
}

/// A batch whose checks are decided one by one.
struct Gather {
    answers: Vec<Option<Result<Decision, Refusal>>>,
    left: usize,
    to: oneshot::Sender<Vec<Result<Decision, Refusal>>>,
}

/// One shard.
pub struct Shard {
    pub(super) index: usize,
    pub(super) shards: usize,
    pub(super) caps: Caps,
    pub(super) secret: Secret,
    pub(super) policy: Arc<Policy>,
    /// When the policy came into force here, boot nanoseconds.
    pub(super) since: u64,
    tier_plans: BTreeMap<(Name, TierSource), Arc<Plan>>,
    pub(super) accounts: Accounts,
    shared: SharedBuckets,
    open: BTreeMap<OpId, Box<Op>>,
    parked: usize,
    gathers: BTreeMap<u64, Gather>,
    next_id: u64,
    generator: Generator,
    selected: Vec<Selected>,
}

/// Why an op can't be judged just now.
enum Stop {
    Refused(Refusal),
    Parked,
}

impl Shard {
    /// Shard `index` of `shards`, empty.
    pub fn new(
        index: usize,
        shards: usize,
        caps: Caps,
        secret: Secret,
        policy: Arc<Policy>,
        generator: Generator,
    ) -> Self {
        Self {
            index,
            shards,
            caps,
            secret,
            policy,
            since: 0,
            tier_plans: BTreeMap::new(),
            accounts: Accounts::new(caps.named_tenants, caps.unknown_tenants),
            shared: SharedBuckets::new(caps.shared_keys),
            open: BTreeMap::new(),
            parked: 0,
            gathers: BTreeMap::new(),
            next_id: 1,
            generator,
            selected: Vec::new(),
        }
    }

    /// The version of the policy in force here.
    pub fn policy_version(&self) -> u64 {
        self.policy.version()
    }

    /// Decides by `policy` from `now` on.
    pub fn set_policy(&mut self, policy: Arc<Policy>, now: Now) {
        self.policy = policy;
        self.since = now.boot;
        self.tier_plans.clear();
    }

    /// Whether something is open that the clock may have to end.
    pub fn is_busy(&self) -> bool {
        !self.open.is_empty() || self.parked > 0 || self.shared.is_busy()
    }

    // ------------------------------------------------------------------------------------------------- questions

    /// Decides one check.
    pub fn check(
        &mut self,
        question: Question,
        to: oneshot::Sender<Answer>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(vec![question], AnswerTo::Caller(to), false, now, effects);
    }

    /// Says what a check would be answered, and takes nothing.
    pub fn peek(
        &mut self,
        question: Question,
        to: oneshot::Sender<Answer>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(vec![question], AnswerTo::Caller(to), true, now, effects);
    }

    /// Decides several checks of one tenant that pass together or not at all.
    pub fn check_all(
        &mut self,
        all: Vec<Question>,
        to: oneshot::Sender<Answer>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(all, AnswerTo::Caller(to), false, now, effects);
    }

    /// Decides several checks one by one and answers them together, in their order.
    pub fn check_each(
        &mut self,
        each: Vec<Question>,
        to: oneshot::Sender<Vec<Result<Decision, Refusal>>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let batch = self.fresh_id();
        self.gathers.insert(
            batch,
            Gather {
                answers: vec![None; each.len()],
                left: each.len(),
                to,
            },
        );
        for (index, question) in each.into_iter().enumerate() {
            self.begin(
                vec![question],
                AnswerTo::Gather { batch, index },
                false,
                now,
                effects,
            );
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn begin(
        &mut self,
        questions: Vec<Question>,
        answer_to: AnswerTo,
        peek: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.open.len() + self.parked >= OPEN_MAX {
            return self.answer(answer_to, Err(Refusal::Busy));
        }
        let Some(first) = questions.first() else {
            return self.answer(answer_to, Ok(Vec::new()));
        };
        let named = self.policy.names(&first.check.tenant);
        let id = first.check.account();
        let account = match self.accounts.find(first.hash, &id) {
            Some(found) => found,
            // Looking makes nobody known.
            None if peek => self.accounts.overflow(),
            None => self.accounts.find_or_insert(first.hash, &id, named, now),
        };
        let deadline = questions.iter().map(|q| q.check.deadline_ms).max().unwrap_or(0);
        let op = Box::new(Op {
            id: self.fresh_id(),
            account,
            parts: questions
                .into_iter()
                .map(|question| Part {
                    fingerprint: question
                        .check
                        .request_id
                        .as_ref()
                        .map_or(0, |_| self.fingerprint(&question.check)),
                    tier: question
                        .check
                        .tier
                        .clone()
                        .unwrap_or_else(|| self.policy.document().default_tier.clone()),
                    check: question.check,
                    cost: 0,
                    demands: Vec::new(),
                    wants_permit: false,
                    replay: None,
                })
                .collect(),
            demands: Vec::new(),
            answer_to,
            deadline: now.boot.saturating_add(deadline.saturating_mul(MS)),
            peek,
            holding: false,
            policy_version: 0,
            pending: 0,
            patient: false,
        });
        self.proceed(op, now, effects);
    }

    /// Everything that makes this check this check; two that differ in nothing else than their id and deadline are one.
    fn fingerprint(&self, check: &Check) -> u64 {
        let mut hasher = self.secret.hasher();
        (
            &check.tenant,
            &check.tier,
            &check.client,
            &check.action,
            &check.method,
            &check.path,
        )
            .hash(&mut hasher);
        (
            &check.ip,
            &check.api_key,
            &check.attributes,
            &check.cost,
            &check.permit_ttl_ms,
        )
            .hash(&mut hasher);
        for limit in &check.limits {
            hasher.write(format!("{limit:?}").as_bytes());
        }
        hasher.finish()
    }

    // ---------------------------------------------------------------------------------------------- the way of an op

    /// Works out what the op demands, judges its own limits, and answers or asks on.
    fn proceed(&mut self, mut op: Box<Op>, now: Now, effects: &mut Vec<Effect>) {
        match self.prepare(&mut op, now) {
            Ok(()) => {}
            Err(Stop::Refused(refusal)) => return self.answer(op.answer_to, Err(refusal)),
            Err(Stop::Parked) => return self.park(op),
        }
        self.judge_own(&mut op, now);
        if op.is_held() && !op.is_denied() && !op.peek {
            return self.park(op);
        }
        self.ask_shared(op, now, effects);
    }

    fn park(&mut self, op: Box<Op>) {
        self.parked += 1;
        self.accounts.get_mut(op.account).extras().parked.push_back(op);
    }

    /// Resolves the limits of every part, and looks up its request id.
    fn prepare(&mut self, op: &mut Op, now: Now) -> Result<(), Stop> {
        op.demands.clear();
        op.policy_version = self.policy.version();
        let expired = self.accounts.get_mut(op.account).expire(now.boot);
        self.accounts.request_ids -= expired;
        let single = op.parts.len() == 1;
        for i in 0..op.parts.len() {
            let part = &mut op.parts[i];
            part.demands.clear();
            if let Some(replay) = repeated(&self.accounts, op.account, part, op.peek)? {
                part.replay = Some(replay);
                continue;
            }
            let plan = self
                .plan(op.account, &op.parts[i].check, now)
                .map_err(Stop::Refused)?;
            let part = &mut op.parts[i];
            part.tier = plan.tier().clone();
            part.cost = self.policy.cost(&part.check, plan.cost_multiplier());
            let mut selected = std::mem::take(&mut self.selected);
            let taken = plan.select(&part.check, &self.secret, &mut selected);
            for selected in selected.drain(..) {
                let kind = kind_of(selected.key, self.shards);
                let cost = part.cost;
                let same = (!single)
                    .then(|| op.demands.iter().position(|d| d.kind == kind))
                    .flatten();
                let at = demand(
                    &mut op.demands,
                    same,
                    Demand {
                        selected,
                        cost,
                        kind,
                        said: None,
                    },
                );
                part.demands.push(at);
            }
            self.selected = selected;
            if taken.is_err() {
                return Err(Stop::Refused(Refusal::LimitsRefused(part.tier.clone())));
            }
            // A tier without a maximum hands out permits all the same.
            part.wants_permit = part.check.permit_ttl_ms.is_some();
            if let Some(limit) = plan.max_concurrent().filter(|_| part.wants_permit) {
                let selected = Selected {
                    limit: limit.clone(),
                    key: BucketKey::Own(0),
                    sent: false,
                };
                let same = op.demands.iter().position(|d| d.kind == Kind::Slots);
                let at = demand(
                    &mut op.demands,
                    same,
                    Demand {
                        selected,
                        cost: 1,
                        kind: Kind::Slots,
                        said: None,
                    },
                );
                part.demands.push(at);
            }
        }
        Ok(())
    }

    /// The plan for a check: the account's, kept with it as long as it holds, or that of the tier that the request names.
    fn plan(&mut self, ix: AccountIx, check: &Check, now: Now) -> Result<Arc<Plan>, Refusal> {
        let mine = ix != self.accounts.overflow();
        let kept = self.accounts.get(ix).plan.as_ref().filter(|_| mine);
        let kept =
            kept.filter(|plan| plan.version() == self.policy.version() && now.wall < plan.valid_until());
        let plan = match kept {
            Some(plan) => plan.clone(),
            None => {
                let (tier, source, until) = self.policy.tier_of(&check.tenant, now.wall);
                let plan = self.plan_for(&check.tenant, &tier, source, until);
                if mine {
                    let named = self.policy.names(&check.tenant);
                    self.accounts.set_named(ix, named);
                    self.accounts.get_mut(ix).plan = Some(plan.clone());
                }
                plan
            }
        };
        let requested = self.policy.requested_tier(check, plan.source());
        match requested.map_err(|unknown| Refusal::UnknownTier(unknown.0))? {
            Some(tier) if tier != plan.tier() => {
                Ok(self.plan_for(&check.tenant, tier, TierSource::Request, u64::MAX))
            }
            _ => Ok(plan),
        }
    }

    /// Tenants without rules of their own share the plan of their tier.
    fn plan_for(&mut self, tenant: &TenantId, tier: &Name, source: TierSource, until: u64) -> Arc<Plan> {
        if self.policy.has_own_rules(tenant) {
            return Arc::new(self.policy.plan(tenant, tier, source, until, &self.secret));
        }
        if let Some(plan) = self.tier_plans.get(&(tier.clone(), source)) {
            return plan.clone();
        }
        let plan = Arc::new(self.policy.plan(tenant, tier, source, until, &self.secret));
        self.tier_plans.insert((tier.clone(), source), plan.clone());
        plan
    }

    /// Asks the limits under shared keys; an op that has none is done.
    fn ask_shared(&mut self, mut op: Box<Op>, now: Now, effects: &mut Vec<Effect>) {
        let shared = op.demands.iter().any(|d| matches!(d.kind, Kind::Shared { .. }));
        if !shared {
            let allowed = op.passes();
            return self.conclude(op, allowed, now, effects);
        }
        // Without a chance to pass there is nothing to hold: the rest is asked only for how long to wait.
        op.holding = !op.peek && op.passes_own();
        let hold = op.holding;
        self.hold_own(&op);
        let asks: Vec<_> = (0..op.demands.len())
            .filter(|&i| matches!(op.demands[i].kind, Kind::Shared { .. }))
            .filter_map(|i| self.ask_of(&op, i, hold, None))
            .collect();
        op.pending = asks.len();
        self.open_and_send(op, asks, now, effects);
    }

    fn ask_of(&self, op: &Op, i: usize, hold: bool, until: Option<u64>) -> Option<(usize, Ask)> {
        let demand = &op.demands[i];
        let Kind::Shared { shard, key } = demand.kind else {
            return None;
        };
        let BucketKey::Shared(overflow_key) = demand.selected.overflow_key(&self.secret) else {
            return None;
        };
        let ask = Ask {
            op: OpRef {
                shard: self.index,
                op: op.id,
            },
            demand: i,
            key,
            overflow_key,
            limit: demand.selected.limit.clone(),
            cost: demand.cost,
            hold,
            until,
        };
        Some((shard, ask))
    }

    /// Sends the questions; those to this very shard are answered on the spot.
    fn open_and_send(&mut self, op: Box<Op>, asks: Vec<(usize, Ask)>, now: Now, effects: &mut Vec<Effect>) {
        self.open.insert(op.id, op);
        let mut replies = Vec::new();
        for (shard, ask) in asks {
            if shard == self.index {
                replies.extend(self.shared.ask(ask, self.since, now));
            } else {
                effects.push(Effect::Ask(shard, ask));
            }
        }
        for reply in replies {
            self.replied(reply, now, effects);
        }
    }

    /// A shared bucket has answered one of this shard's ops.
    pub fn replied(&mut self, reply: Reply, now: Now, effects: &mut Vec<Effect>) {
        let Some(op) = self.open.get_mut(&reply.op.op) else {
            // The op gave up before the answer came; what it may hold there is given back.
            let shard = crate::placement::Partition::of_key(reply.key).shard(self.shards);
            return self.settle_at(shard, reply.op, reply.key, false, now, effects);
        };
        let demand = &mut op.demands[reply.demand];
        if let Kind::Shared { shard, .. } = demand.kind {
            demand.kind = Kind::Shared {
                shard,
                key: reply.key,
            };
        }
        demand.said = Some(reply.said);
        op.pending -= 1;
        if op.pending > 0 {
            return;
        }
        let Some(op) = self.open.remove(&reply.op.op) else {
            return;
        };
        self.all_replied(op, now, effects);
    }

    fn all_replied(&mut self, mut op: Box<Op>, now: Now, effects: &mut Vec<Effect>) {
        let blocked = op.holding && op.is_held() && !op.is_denied();
        if blocked && !op.patient {
            // Somebody else's hold is in the way: give all back, and go from key to key, waiting at each.
            self.settle_shared(&op, false, now, effects);
            op.patient = true;
            op.demands
                .iter_mut()
                .filter(|d| matches!(d.kind, Kind::Shared { .. }))
                .for_each(|d| d.said = None);
        }
        if let Some(next) = op.unasked() {
            // One denied on the way asks the rest only for how long to wait.
            let asks: Vec<_> = if op.is_denied() {
                (0..op.demands.len())
                    .filter(|&i| op.demands[i].said.is_none())
                    .filter_map(|i| self.ask_of(&op, i, false, None))
                    .collect()
            } else {
                self.ask_of(&op, next, true, Some(op.deadline))
                    .into_iter()
                    .collect()
            };
            op.pending = asks.len();
            return self.open_and_send(op, asks, now, effects);
        }
        let allowed = op.passes() && !blocked;
        self.settle_shared(&op, allowed, now, effects);
        self.release_own(&op);
        if blocked {
            // It waited as long as it could.
            let account = op.account;
            self.answer(op.answer_to, Err(Refusal::Busy));
            return self.unpark(account, now, effects);
        }
        self.conclude(op, allowed, now, effects);
    }

    /// Takes or cancels everything that the op holds of shared buckets.
    fn settle_shared(&mut self, op: &Op, take: bool, now: Now, effects: &mut Vec<Effect>) {
        if !op.holding {
            return;
        }
        let me = OpRef {
            shard: self.index,
            op: op.id,
        };
        for demand in &op.demands {
            let Kind::Shared { shard, key } = demand.kind else {
                continue;
            };
            if demand.said.is_some_and(|said| said.outcome == Outcome::Pass) {
                self.settle_at(shard, me, key, take, now, effects);
            }
        }
    }

    fn settle_at(
        &mut self,
        shard: usize,
        op: OpRef,
        key: u128,
        take: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if shard == self.index {
            self.settled(op, key, take, now, effects);
        } else {
            effects.push(Effect::Settle { shard, op, key, take });
        }
    }

    /// Another shard (or this one) asks a bucket that is kept here.
    pub fn asked(&mut self, ask: Ask, now: Now, effects: &mut Vec<Effect>) {
        if let Some(reply) = self.shared.ask(ask, self.since, now) {
            self.send_reply(reply, now, effects);
        }
    }

    /// An op's hold on a bucket here is taken or cancelled.
    pub fn settled(&mut self, op: OpRef, key: u128, take: bool, now: Now, effects: &mut Vec<Effect>) {
        let mut replies = Vec::new();
        self.shared.settle(op, key, take, self.since, now, &mut replies);
        replies
            .into_iter()
            .for_each(|reply| self.send_reply(reply, now, effects));
    }

    fn send_reply(&mut self, reply: Reply, now: Now, effects: &mut Vec<Effect>) {
        if reply.op.shard == self.index {
            self.replied(reply, now, effects);
        } else {
            effects.push(Effect::Reply(reply.op.shard, reply));
        }
    }

    /// Holds the op's own units while it is open. One that holds nothing still keeps its account from being forgotten.
    fn hold_own(&mut self, op: &Op) {
        let passed = |d: &&Demand| op.holding && d.said.is_some_and(|said| said.outcome == Outcome::Pass);
        let keys = op.demands.iter().filter(passed).filter_map(|d| match d.kind {
            Kind::Own(key) => Some((key, d.cost)),
            _ => None,
        });
        let keys = keys.collect();
        let slots = op
            .demands
            .iter()
            .filter(passed)
            .filter(|d| d.kind == Kind::Slots)
            .map(|d| d.cost)
            .sum();
        let request_ids = op
            .parts
            .iter()
            .filter_map(|p| p.check.request_id.clone())
            .collect();
        let hold = OwnHold {
            op: op.id,
            keys,
            slots,
            request_ids,
        };
        self.accounts.get_mut(op.account).extras().holds.push(hold);
    }

    fn release_own(&mut self, op: &Op) {
        self.accounts
            .get_mut(op.account)
            .extras()
            .holds
            .retain(|hold| hold.op != op.id);
    }

    /// The op is decided: takes from its own buckets, remembers what must be, answers, and lets parked ops go on.
    fn conclude(&mut self, op: Box<Op>, allowed: bool, now: Now, effects: &mut Vec<Effect>) {
        let (account, peek) = (op.account, op.peek);
        let permits = if allowed && !peek {
            self.take_own(&op, now)
        } else {
            SmallVec::new()
        };
        let (answer_to, decisions, checks) = op.decisions(allowed, &permits);
        if allowed && !peek {
            for (decision, (check, fingerprint)) in decisions.iter().zip(checks) {
                if let Some(id) = check.request_id.filter(|_| !decision.replayed) {
                    self.remember(account, id, fingerprint, decision, now);
                }
            }
        }
        self.answer(answer_to, Ok(decisions));
        self.unpark(account, now, effects);
    }

    fn take_own(&mut self, op: &Op, now: Now) -> SmallVec<[PermitId; 1]> {
        for demand in &op.demands {
            let Kind::Own(key) = demand.kind else { continue };
            if demand.said.is_none_or(|said| said.outcome != Outcome::Pass) {
                continue;
            }
            let rule = &demand.selected.limit.rule;
            // The bucket may have been forgotten while the op was open: it was like a fresh one.
            self.keep(op.account, key, rule, now);
            if let Some(state) = self.accounts.get_mut(op.account).buckets.get_mut(key) {
                state.advance(rule, self.since, now);
                state.take(rule, demand.cost, now);
            }
        }
        let mut granted = SmallVec::new();
        for part in op
            .parts
            .iter()
            .filter(|part| part.wants_permit && part.replay.is_none())
        {
            let hash = self.accounts.get(op.account).hash;
            let secret = u128::from(hash.0) << 64 | u128::from(self.generator.next_u64());
            let id = PermitId {
                partition: hash.partition().number(),
                secret,
            };
            let until = now
                .boot
                .saturating_add(part.check.permit_ttl_ms.unwrap_or(0) * MS);
            self.accounts
                .get_mut(op.account)
                .extras()
                .permits
                .grant(id, until);
            granted.push(id);
        }
        granted
    }

    fn remember(
        &mut self,
        account: AccountIx,
        id: crate::check::RequestId,
        fingerprint: u64,
        decision: &Decision,
        now: Now,
    ) {
        let full = self.accounts.request_ids >= self.caps.request_ids;
        let expires = now.boot.saturating_add(REPLAY_FOR);
        let extras = self.accounts.get_mut(account).extras();
        let before = extras.replays.len();
        let too_many = before >= REPLAYS_PER_TENANT_MAX || (full && before > 0);
        if too_many && let Some((_, oldest)) = extras.replay_order.pop_front() {
            extras.replays.remove(&oldest);
        }
        extras.replay_order.push_back((expires, id.clone()));
        extras.replays.insert(
            id,
            Replay {
                fingerprint,
                expires,
                decision: Box::new(decision.clone()),
            },
        );
        self.accounts.request_ids = self.accounts.request_ids + self.accounts.get(account).replays() - before;
    }

    fn unpark(&mut self, account: AccountIx, now: Now, effects: &mut Vec<Effect>) {
        // Each goes on as if it had just come; who still has to wait parks himself again.
        let Some(extras) = &mut self.accounts.get_mut(account).extras else {
            return;
        };
        if extras.parked.is_empty() {
            return;
        }
        let parked = std::mem::take(&mut extras.parked);
        self.parked -= parked.len();
        for op in parked {
            if op.deadline <= now.boot {
                // Its caller has left: charging it now would serve nobody.
                self.answer(op.answer_to, Err(Refusal::Busy));
            } else {
                self.proceed(op, now, effects);
            }
        }
    }

    fn answer(&mut self, to: AnswerTo, answer: Answer) {
        match to {
            // Whoever stopped waiting doesn't need the answer any more.
            AnswerTo::Caller(sender) => drop(sender.send(answer)),
            AnswerTo::Gather { batch, index } => {
                let Some(gather) = self.gathers.get_mut(&batch) else {
                    return;
                };
                gather.answers[index] = Some(answer.and_then(|mut all| all.pop().ok_or(Refusal::Busy)));
                gather.left -= 1;
                if gather.left == 0
                    && let Some(gather) = self.gathers.remove(&batch)
                {
                    drop(gather.to.send(gather.answers.into_iter().flatten().collect()));
                }
            }
        }
    }

    // ---------------------------------------------------------------------------------------------- the rest

    /// What has to be done as time passes: ends overdue ops and holds, and sweeps a part of the accounts.
    pub fn tick(&mut self, sweep: bool, now: Now, effects: &mut Vec<Effect>) {
        let mut replies = Vec::new();
        self.shared.tick(self.since, now, &mut replies);
        replies
            .into_iter()
            .for_each(|reply| self.send_reply(reply, now, effects));

        let overdue: Vec<_> = self
            .open
            .iter()
            .filter(|(_, op)| op.deadline <= now.boot)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            let Some(mut op) = self.open.remove(&id) else {
                continue;
            };
            // What hasn't answered may hold all the same: it is cancelled too, under the key that was asked.
            let me = OpRef {
                shard: self.index,
                op: id,
            };
            for demand in std::mem::take(&mut op.demands) {
                if let Kind::Shared { shard, key } = demand.kind {
                    self.settle_at(shard, me, key, false, now, effects);
                }
            }
            self.release_own(&op);
            self.answer(op.answer_to, Err(Refusal::Busy));
            self.unpark(op.account, now, effects);
        }
        if sweep {
            self.accounts.tick(now);
            self.shared.sweep(now);
        }
    }

    /// Takes a permit back. Doing so twice does nothing.
    pub fn release(&mut self, id: PermitId, now: Now, effects: &mut Vec<Effect>) {
        let account = self.permit_account(id);
        if let Some(extras) = &mut self.accounts.get_mut(account).extras {
            extras.permits.release(id);
        }
        self.unpark(account, now, effects);
    }

    /// Lets a permit run for `ttl_ms` from now on; false where it isn't out any more.
    pub fn renew(&mut self, id: PermitId, ttl_ms: u64, now: Now) -> bool {
        let account = self.permit_account(id);
        let expired = self.accounts.get_mut(account).expire(now.boot);
        self.accounts.request_ids -= expired;
        let Some(extras) = &mut self.accounts.get_mut(account).extras else {
            return false;
        };
        let out = extras.permits.release(id);
        if out {
            extras.permits.grant(id, now.boot.saturating_add(ttl_ms * MS));
        }
        out
    }

    fn permit_account(&self, id: PermitId) -> AccountIx {
        self.accounts
            .find_by_hash(AccountHash((id.secret >> 64) as u64))
            .unwrap_or(self.accounts.overflow())
    }

    /// What is kept of a tenant.
    pub fn describe(&mut self, tenant: &TenantId, hash: AccountHash, now: Now) -> TenantState {
        let (tier, source, _) = self.policy.tier_of(tenant, now.wall);
        let found = self.accounts.find(hash, tenant.as_str());
        if let Some(ix) = found {
            let expired = self.accounts.get_mut(ix).expire(now.boot);
            self.accounts.request_ids -= expired;
        }
        let account = found.map(|ix| self.accounts.get(ix));
        let extras = account.and_then(|account| account.extras.as_ref());
        TenantState {
            tier,
            source,
            active: account.is_some(),
            permits: extras.map_or(0, |extras| extras.permits.flying()),
            keys: account.map_or(0, |account| account.buckets.len()),
            request_ids: account.map_or(0, |account| account.replays()),
        }
    }

    /// Forgets what a tenant has spent. Permits that are out stay out.
    pub fn reset(&mut self, hash: AccountHash, id: &str) {
        let Some(ix) = self.accounts.find(hash, id) else {
            return;
        };
        let account = self.accounts.get_mut(ix);
        let gone = std::mem::replace(&mut account.buckets, Buckets::new()).len();
        self.accounts.buckets -= gone;
    }

    /// Up to `most` ids of tenants in memory, from a position on.
    pub fn list(&self, from: usize, most: usize) -> Listed {
        let mut listed = Listed::default();
        // Position 0 is the overflow account. A page looks at so many positions at most that nobody waits for it.
        let end = self.accounts.positions().min(from.max(1) + 4_096);
        for position in from.max(1)..end {
            if listed.ids.len() == most {
                listed.next = Some(position);
                return listed;
            }
            listed
                .ids
                .extend(self.accounts.at(position).map(|account| account.id.clone()));
        }
        listed.next = (end < self.accounts.positions()).then_some(end);
        listed
    }

    /// Everything worth keeping over a restart.
    pub fn save(&mut self, now: Now) -> super::saved::SavedState {
        let mut saved = super::saved::SavedState::at(now);
        for position in 0..self.accounts.positions() {
            let Some(account) = self
                .accounts
                .at(position)
                .filter(|account| !account.is_fresh(now))
            else {
                continue;
            };
            saved.accounts.push(super::saved::SavedAccount {
                id: account.id.to_string(),
                buckets: account
                    .buckets
                    .iter()
                    .map(|(key, state)| (key, state.clone()))
                    .collect(),
                permits: account
                    .extras
                    .as_ref()
                    .map(|extras| extras.permits.clone())
                    .unwrap_or_default(),
            });
        }
        saved.shared = self
            .shared
            .states(now)
            .map(|(key, state)| (key, state.clone()))
            .collect();
        saved
    }

    /// Takes over what another process saved; what belongs to other shards is left alone.
    pub fn restore(&mut self, saved: &super::saved::SavedState, now: Now) {
        for account in &saved.accounts {
            let hash = self.secret.account(&account.id);
            let overflow = account.id == *self.accounts.get(self.accounts.overflow()).id;
            if !overflow && hash.partition().shard(self.shards) != self.index {
                continue;
            }
            let named = TenantId::new(&account.id).is_some_and(|tenant| self.policy.names(&tenant));
            let ix = match overflow {
                true => self.accounts.overflow(),
                false => self
                    .accounts
                    .find_or_insert(hash, &account.id.as_str().into(), named, now),
            };
            for (key, state) in &account.buckets {
                self.accounts.buckets += 1;
                self.accounts.get_mut(ix).buckets.insert(*key, state.clone());
            }
            if account.permits.flying() > 0 {
                self.accounts.get_mut(ix).extras().permits = account.permits.clone();
            }
        }
        for (key, state) in &saved.shared {
            if crate::placement::Partition::of_key(*key).shard(self.shards) == self.index {
                self.shared.restore(*key, state.clone());
            }
        }
    }
}

/// The answer that a part's request id was given before, if it was; parks the op where that answer is still open.
fn repeated(accounts: &Accounts, ix: AccountIx, part: &Part, peek: bool) -> Result<Option<Decision>, Stop> {
    let (Some(id), Some(extras)) = (&part.check.request_id, &accounts.get(ix).extras) else {
        return Ok(None);
    };
    if peek {
        return Ok(None);
    }
    if let Some(replay) = extras.replays.get(id) {
        if replay.fingerprint != part.fingerprint {
            return Err(Stop::Refused(Refusal::RequestIdReused));
        }
        return Ok(Some(Decision {
            replayed: true,
            ..(*replay.decision).clone()
        }));
    }
    if extras.holds.iter().any(|hold| hold.request_ids.contains(id)) {
        return Err(Stop::Parked);
    }
    Ok(None)
}

/// Adds a demand, or its cost to the one that asks the same bucket.
fn demand(demands: &mut Vec<Demand>, same: Option<usize>, demand: Demand) -> usize {
    match same {
        Some(at) => {
            demands[at].cost = demands[at].cost.saturating_add(demand.cost);
            at
        }
        None => {
            demands.push(demand);
            demands.len() - 1
        }
    }
}
