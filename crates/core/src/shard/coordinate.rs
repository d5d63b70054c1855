//! The way of an op: its own limits, the shared ones, everything taken or nothing.
//!
//! If its own limits pass and limits under shared keys are left, the op holds its own units and
//! asks those shards, in parallel and without waiting; should one of them be blocked by somebody
//! else's hold, it gives everything back and asks again, one key after another in their order,
//! willing to wait at each. When the last has answered, everything is taken, or nothing.
//!
//! While units of an account are held, other checks of that account that would fail only because of
//! them are parked until the outcome is known. Own limits come before all shared ones and shared
//! ones have an order, so nobody ever waits for somebody who waits for him.

use smallvec::SmallVec;

use super::Refusal;
use super::account::{OwnHold, Replay, ReplayKey};
use super::accounts::AccountIx;
use super::core::{Shard, Stop};
use super::effect::Effect;
use super::op::{Demand, Home, Kind, Op, OpRef};
use super::shared::{Ask, Reply};
use crate::check::{Decision, PermitId};
use crate::limit::Outcome;
use crate::policy::BucketKey;
use crate::time::{MS, Now, SECOND};

/// How long an answer is remembered for its request id, in nanoseconds.
const REPLAY_FOR: u64 = 60 * SECOND;
/// Request ids remembered for one tenant; the oldest goes first.
pub(super) const REPLAYS_PER_TENANT_MAX: usize = 1_000;

impl Shard {
    /// Works out what the op demands, judges its own limits, and answers or asks on.
    pub(super) fn proceed(&mut self, mut op: Box<Op>, now: Now, effects: &mut Vec<Effect>) {
        match self.prepare(&mut op, now) {
            Ok(()) => {}
            Err(Stop::Refused(refusal)) => {
                return self.answer(op.answer_to, Some(op.id), Err(refusal), effects);
            }
            Err(Stop::Parked) => return self.park(op),
        }
        self.judge_own(&mut op, now);
        if op.is_held() && !op.is_denied() && !op.peek {
            return self.park(op);
        }
        self.ask_shared(op, now, effects);
    }

    pub(super) fn park(&mut self, op: Box<Op>) {
        self.parked += 1;
        self.parked_in.insert(op.account);
        self.accounts.get_mut(op.account).extras().parked.push_back(op);
    }

    /// Asks the limits under shared keys; an op that has none is done.
    pub(super) fn ask_shared(&mut self, mut op: Box<Op>, now: Now, effects: &mut Vec<Effect>) {
        let shared = op.demands.iter().any(|d| matches!(d.kind, Kind::Shared { .. }));
        if !shared {
            // It held nothing, so nobody waits for it.
            let allowed = op.passes();
            return self.conclude(op, allowed, now, effects);
        }
        // Without a chance to pass there is nothing to hold: the rest is asked only for how long to
        // wait.
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

    pub(super) fn ask_of(
        &self,
        op: &Op,
        i: usize,
        hold: bool,
        until: Option<u64>,
    ) -> Option<(Home, Ask)> {
        let demand = &op.demands[i];
        let Kind::Shared { home, key } = demand.kind else {
            return None;
        };
        let BucketKey::Shared(overflow_key) = demand.selected.overflow_key(&self.secret) else {
            return None;
        };
        let ask = Ask {
            op: self.op_ref(op.id),
            demand: i,
            key,
            overflow_key,
            limit: demand.selected.limit.clone(),
            cost: match until {
                // Whoever waits asks for all he wants of a bucket at once: two who each have a part
                // would wait for ever.
                Some(_) => op.wanted_of(demand.kind),
                None => demand.cost,
            },
            hold,
            until,
            deadline: op.deadline,
        };
        Some((home, ask))
    }

    /// Sends the questions; those to this very shard are answered on the spot.
    pub(super) fn open_and_send(
        &mut self,
        op: Box<Op>,
        asks: Vec<(Home, Ask)>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.open.insert(op.id, op);
        for (home, ask) in asks {
            if home == Home::Here(self.index) {
                let Some(ask) = self.hold_back_ask(ask, effects) else { continue };
                self.inbox.extend(self.shared.ask(ask, &self.plans, &self.lost, now));
            } else {
                effects.push(Effect::Ask(home, ask));
            }
        }
    }

    /// Goes on with the ops that buckets of this very shard have answered, one after another: each
    /// may lead to further answers, and a long queue for one bucket would else be a deep stack.
    pub(super) fn work_off(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(reply) = self.inbox.pop_front() {
            self.one_replied(reply, now, effects);
        }
    }

    /// A shared bucket has answered one of this shard's ops.
    pub fn replied(&mut self, reply: Reply, now: Now, effects: &mut Vec<Effect>) {
        self.one_replied(reply, now, effects);
        self.work_off(now, effects);
    }

    fn one_replied(&mut self, reply: Reply, now: Now, effects: &mut Vec<Effect>) {
        let Some(op) = self.open.get_mut(&reply.op.op) else {
            // The op gave up before the answer came; what it may hold there is given back.
            return self.settle_at(reply.from, reply.op, reply.key, false, now, effects);
        };
        // A patient op has asked for all its demands of that bucket at once.
        let (asked, all) = (op.demands[reply.demand].kind, op.patient);
        for (i, demand) in op.demands.iter_mut().enumerate() {
            let meant = i == reply.demand || (all && demand.kind == asked && demand.said.is_none());
            if meant && let Kind::Shared { key, .. } = asked {
                op.moved |= key != reply.key;
                // Its partition may have moved since it was asked.
                demand.kind = Kind::Shared { home: reply.from, key: reply.key };
                demand.said = Some(reply.said);
            }
        }
        op.pending -= 1;
        if op.pending > 0 {
            return;
        }
        let Some(op) = self.open.remove(&reply.op.op) else { return };
        self.all_replied(op, now, effects);
    }

    pub(super) fn all_replied(&mut self, mut op: Box<Op>, now: Now, effects: &mut Vec<Effect>) {
        let blocked = op.holding && op.is_held() && !op.is_denied();
        if blocked && (!op.patient || op.moved) {
            // Somebody else's hold is in the way: give all back, and go from key to key, waiting at
            // each. It does so under another number, since what it gives back and what it asks next
            // may overtake each other between nodes.
            self.settle_shared(&op, false, now, effects);
            self.renumber(&mut op);
            (op.patient, op.moved) = (true, false);
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
                self.ask_of(&op, next, true, Some(op.deadline)).into_iter().collect()
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
            self.answer(op.answer_to, Some(op.id), Err(Refusal::Busy), effects);
            return self.unpark(account, now, effects);
        }
        let account = op.account;
        self.conclude(op, allowed, now, effects);
        self.unpark(account, now, effects);
    }

    /// Takes or cancels everything that the op holds of shared buckets.
    pub(super) fn settle_shared(
        &mut self,
        op: &Op,
        take: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if !op.holding {
            return;
        }
        let me = self.op_ref(op.id);
        for demand in &op.demands {
            let Kind::Shared { home, key } = demand.kind else {
                continue;
            };
            if demand.said.is_some_and(|said| said.outcome == Outcome::Pass) {
                self.settle_at(home, me, key, take, now, effects);
            }
        }
    }

    pub(super) fn settle_at(
        &mut self,
        home: Home,
        op: OpRef,
        key: u128,
        take: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if home == Home::Here(self.index) {
            self.settle_here(op, key, take, now, effects);
        } else {
            effects.push(Effect::Settle { home, op, key, take });
        }
    }

    /// Another shard asks a bucket that is kept here.
    pub fn asked(&mut self, ask: Ask, now: Now, effects: &mut Vec<Effect>) {
        let Some(ask) = self.hold_back_ask(ask, effects) else { return };
        if let Some(reply) = self.shared.ask(ask, &self.plans, &self.lost, now) {
            self.send_reply(reply, effects);
        }
        self.work_off(now, effects);
    }

    /// An op's hold on a bucket here is taken or cancelled.
    pub fn settled(
        &mut self,
        op: OpRef,
        key: u128,
        take: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.settle_here(op, key, take, now, effects);
        self.work_off(now, effects);
    }

    fn settle_here(
        &mut self,
        op: OpRef,
        key: u128,
        take: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let mut replies = Vec::new();
        self.shared.settle(op, key, take, self.plans.since(), now, &mut replies);
        replies.into_iter().for_each(|reply| self.send_reply(reply, effects));
    }

    pub(super) fn send_reply(&mut self, reply: Reply, effects: &mut Vec<Effect>) {
        if reply.op == self.op_ref(reply.op.op) {
            self.inbox.push_back(reply);
        } else {
            effects.push(Effect::Reply(reply));
        }
    }

    /// Holds the op's own units while it is open. One that holds nothing still keeps its account
    /// from being forgotten.
    pub(super) fn hold_own(&mut self, op: &Op) {
        let passed =
            |d: &&Demand| op.holding && d.said.is_some_and(|said| said.outcome == Outcome::Pass);
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
            .filter_map(|p| Some((op.hash.0, p.check.request_id.clone()?)))
            .collect();
        let hold = OwnHold { op: op.id, keys, slots, request_ids };
        self.accounts.get_mut(op.account).extras().holds.push(hold);
    }

    fn renumber(&mut self, op: &mut Op) {
        let before = std::mem::replace(&mut op.id, self.fresh_id());
        let holds = &mut self.accounts.get_mut(op.account).extras().holds;
        holds.iter_mut().filter(|hold| hold.op == before).for_each(|hold| hold.op = op.id);
    }

    pub(super) fn release_own(&mut self, op: &Op) {
        self.accounts.get_mut(op.account).extras().holds.retain(|hold| hold.op != op.id);
    }

    /// The op is decided: takes from its own buckets, remembers what must be, and answers.
    pub(super) fn conclude(
        &mut self,
        op: Box<Op>,
        allowed: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let (id, account, hash, peek) = (op.id, op.account, op.hash, op.peek);
        let permits = if allowed && !peek { self.take_own(&op, now) } else { SmallVec::new() };
        self.accounts.permits += permits.len() as u64;
        let (answer_to, decisions, checks) = op.decisions(allowed, &permits);
        for decision in &decisions {
            match peek {
                true => self.tally.peeked(decision),
                false => self.tally.decided(hash, decision),
            }
        }
        if allowed && !peek {
            for (decision, (check, fingerprint)) in decisions.iter().zip(checks) {
                if let Some(id) = check.request_id.filter(|_| !decision.replayed) {
                    self.remember(account, (hash.0, id), fingerprint, decision, now);
                }
            }
        }
        self.answer(answer_to, Some(id), Ok(decisions), effects);
    }

    pub(super) fn take_own(&mut self, op: &Op, now: Now) -> SmallVec<[PermitId; 1]> {
        for demand in &op.demands {
            let Kind::Own(key) = demand.kind else { continue };
            if demand.said.is_none_or(|said| said.outcome != Outcome::Pass) {
                continue;
            }
            let rule = &demand.selected.limit.rule;
            // The bucket may have been forgotten while the op was open: it was like a fresh one.
            self.keep(op.account, key, rule, now);
            if let Some(state) = self.accounts.get_mut(op.account).buckets.get_mut(key) {
                state.advance(rule, self.plans.since(), now);
                state.take(rule, demand.cost, now);
            }
        }
        let mut granted = SmallVec::new();
        for part in op.parts.iter().filter(|part| part.wants_permit && part.replay.is_none()) {
            let hash = op.hash;
            let secret = u128::from(hash.0) << 64 | u128::from(self.generator.next_u64());
            let id = PermitId { partition: hash.partition().number(), secret };
            let until = now.boot.saturating_add(part.check.permit_ttl_ms.unwrap_or(0) * MS);
            self.accounts.get_mut(op.account).extras().permits.grant(id, until);
            granted.push(id);
        }
        granted
    }

    pub(super) fn remember(
        &mut self,
        account: AccountIx,
        id: ReplayKey,
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
        extras
            .replays
            .insert(id, Replay { fingerprint, expires, decision: Box::new(decision.clone()) });
        self.accounts.request_ids =
            self.accounts.request_ids + self.accounts.get(account).replays() - before;
    }

    pub(super) fn unpark(&mut self, account: AccountIx, now: Now, effects: &mut Vec<Effect>) {
        // Each goes on as if it had just come; who still has to wait parks himself again.
        let Some(extras) = &mut self.accounts.get_mut(account).extras else {
            return;
        };
        if extras.parked.is_empty() {
            return;
        }
        let parked = std::mem::take(&mut extras.parked);
        self.parked -= parked.len();
        self.parked_in.remove(&account);
        for op in parked {
            if op.deadline <= now.boot {
                // Its caller has left: charging it now would serve nobody.
                self.answer(op.answer_to, Some(op.id), Err(Refusal::Busy), effects);
            } else {
                self.proceed(op, now, effects);
            }
        }
    }
}
