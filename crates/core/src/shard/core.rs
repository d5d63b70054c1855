//! The mind of a shard: messages and the time in, effects out. No clock, no channel, no task.
//!
//! A check becomes an [`Op`] with one *demand* per limit. The op asks all of them, also after the
//! first no, so that the wait it is told is the longest of all. Here are the questions, and where
//! their answers go; what happens in between is in `resolve`, `judge` and `coordinate`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use compact_str::CompactString;
use smallvec::{SmallVec, smallvec};

use super::accounts::{AccountIx, Accounts};
use super::at_once::AtOnce;
use super::effect::{Effect, ReplyId};
use super::lost::Lost;
use super::moving::Moves;
use super::op::{Answer, AnswerTo, Op, OpId, OpRef, Part};
use super::plans::Plans;
use super::shared::{Reply, SharedBuckets};
use super::tally::Tally;
use super::{Question, Refusal};
use crate::check::{Check, Decision, Name};
use crate::placement::{Places, Secret, TableVersion};
use crate::policy::{Policy, Selected, TierSource};
use crate::random::Generator;
use crate::time::{MS, Now};

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
    pub ids: Vec<CompactString>,
    /// Where the next page begins; none at the end.
    pub next: Option<usize>,
}

/// A batch whose checks are decided one by one.
pub(super) struct Gather {
    /// "Busy" where there is none yet.
    answers: Vec<Result<Decision, Refusal>>,
    left: usize,
    reply: ReplyId,
}

/// One shard.
pub struct Shard {
    pub(super) index: usize,
    pub(super) shards: usize,
    pub(super) caps: Caps,
    pub(super) secret: Secret,
    pub(super) places: Arc<Places>,
    pub(super) plans: Plans,
    pub(super) accounts: Accounts,
    pub(super) shared: SharedBuckets,
    pub(super) tally: Tally,
    pub(super) moves: Moves,
    pub(super) lost: Lost,
    pub(super) open: BTreeMap<OpId, Box<Op>>,
    pub(super) parked: usize,
    /// The accounts that they are parked in.
    pub(super) parked_in: BTreeSet<AccountIx>,
    pub(super) gathers: BTreeMap<u64, Gather>,
    /// Answers of this shard's buckets to its own ops.
    pub(super) inbox: VecDeque<Reply>,
    pub(super) next_id: u64,
    pub(super) generator: Generator,
    pub(super) selected: Vec<Selected>,
}

/// Why an op can't be judged just now.
pub(super) enum Stop {
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
        places: Arc<Places>,
        policy: Arc<Policy>,
        generator: Generator,
    ) -> Self {
        Self {
            index,
            shards,
            caps,
            secret,
            places,
            plans: Plans::new(policy, secret),
            accounts: Accounts::new(caps.named_tenants, caps.unknown_tenants),
            shared: SharedBuckets::new(index, caps.shared_keys),
            tally: Tally::new(shards),
            moves: Moves::default(),
            lost: Lost::default(),
            open: BTreeMap::new(),
            parked: 0,
            parked_in: BTreeSet::new(),
            gathers: BTreeMap::new(),
            inbox: VecDeque::new(),
            next_id: 1,
            generator,
            selected: Vec::new(),
        }
    }

    /// Partitions whose permits were lost.
    pub fn cold_partitions(&self) -> usize {
        self.lost.cold()
    }

    /// The version of the policy in force here.
    pub fn policy_version(&self) -> u64 {
        self.plans.policy().version()
    }

    /// Decides by `policy` from `now` on.
    pub fn set_policy(&mut self, policy: Arc<Policy>, now: Now) {
        self.plans.set(policy, now);
    }

    /// The log entry of the placement that it goes by.
    pub fn places_version(&self) -> TableVersion {
        self.places.version()
    }

    /// Goes by `places` from now on.
    pub fn set_places(&mut self, places: Arc<Places>, now: Now, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.places, places);
        self.places_changed(&before, now, effects);
    }

    /// How other shards know one of its ops.
    pub(super) fn op_ref(&self, op: OpId) -> OpRef {
        OpRef { boot: self.places.me().boot, shard: self.index as u32, op }
    }

    /// Whether something is open that the clock may have to end.
    pub fn is_busy(&self) -> bool {
        !self.open.is_empty() || self.parked > 0 || self.shared.is_busy() || self.moves.is_busy()
    }

    /// Accounts in memory.
    #[cfg(test)]
    pub fn tenants(&self) -> usize {
        self.accounts.len()
    }

    /// Shared buckets in memory.
    #[cfg(test)]
    pub fn shared_keys(&self) -> usize {
        self.shared.len()
    }

    /// Decides one check for which [`Shard::at_once`] has no answer. It decides any other check as
    /// well, at a higher cost.
    pub fn check(
        &mut self,
        question: Question,
        reply: ReplyId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(smallvec![question], AnswerTo::Caller(reply), false, now, effects);
    }

    /// Answers what a check would be answered, and takes nothing.
    pub fn peek(
        &mut self,
        question: Question,
        reply: ReplyId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(smallvec![question], AnswerTo::Caller(reply), true, now, effects);
    }

    /// Decides several checks of one tenant that pass together or not at all.
    pub fn check_all(
        &mut self,
        all: Vec<Question>,
        reply: ReplyId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(all.into(), AnswerTo::Caller(reply), false, now, effects);
    }

    /// Decides several checks one by one and answers them together, in their order.
    pub fn check_each(
        &mut self,
        each: Vec<Question>,
        reply: ReplyId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        // The batch is put away only once one of its checks has to wait for others.
        let count = each.len();
        let mut answers = Vec::with_capacity(count);
        let mut each = each.into_iter();
        let waits = each.find_map(|question| match self.at_once(question, now) {
            AtOnce::Decided(decided) => {
                answers.push(decided);
                None
            }
            AtOnce::NotMine(question) => Some(question),
        });
        let Some(waits) = waits else {
            return effects.push(Effect::AnswerEach { reply, answers, by: None });
        };
        let (batch, decided) = (self.fresh_id(), answers.len());
        answers.resize(count, Err(Refusal::Busy));
        self.gathers.insert(batch, Gather { answers, left: count - decided, reply });
        self.begin(
            smallvec![waits],
            AnswerTo::Gather { batch, index: decided },
            false,
            now,
            effects,
        );
        for (index, question) in (decided + 1..).zip(each) {
            let answer_to = AnswerTo::Gather { batch, index };
            match self.at_once(question, now) {
                AtOnce::Decided(decided) => {
                    let answer = decided.map(|decision| smallvec![decision]);
                    self.answer(answer_to, None, answer, effects);
                }
                AtOnce::NotMine(question) => {
                    self.begin(smallvec![question], answer_to, false, now, effects)
                }
            }
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn begin(
        &mut self,
        questions: SmallVec<[Question; 1]>,
        answer_to: AnswerTo,
        peek: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.open.len() + self.parked >= OPEN_MAX {
            return self.answer(answer_to, None, Err(Refusal::Busy), effects);
        }
        let Some(first) = questions.first() else {
            return self.answer(answer_to, None, Ok(SmallVec::new()), effects);
        };
        if !self.is_open(first.hash.partition()) {
            return self.hold_back(questions, answer_to, peek, now, effects);
        }
        let account = match peek {
            // Looking makes nobody known.
            true => {
                let found = self.accounts.find(first.hash, &first.check.account());
                found.unwrap_or(self.accounts.overflow())
            }
            false => self.account_of(first, now),
        };
        let deadline = questions.iter().map(|q| q.check.deadline_ms).max().unwrap_or(0);
        let op = Box::new(Op {
            id: self.fresh_id(),
            hash: first.hash,
            epoch: first.epoch,
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
                        .unwrap_or_else(|| self.plans.policy().document().default_tier.clone()),
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
            cold_until: 0,
            peek,
            holding: false,
            policy_version: 0,
            pending: 0,
            patient: false,
            moved: false,
        });
        self.proceed(op, now, effects);
        self.work_off(now, effects);
    }

    /// The account of whoever asks, made if it isn't in memory; beyond the cap, the overflow
    /// account.
    pub(super) fn account_of(&mut self, question: &Question, now: Now) -> AccountIx {
        let (id, tenant) = (question.check.account(), &question.check.tenant);
        self.accounts.find(question.hash, &id).unwrap_or_else(|| {
            let named = self.plans.names(&id, tenant);
            let ix = self.accounts.find_or_insert(question.hash, &id, named, &mut self.plans, now);
            self.accounts.name_permits(question.hash, ix);
            ix
        })
    }

    /// Everything that makes this check this check; two that differ in nothing else than their id
    /// and deadline are one.
    pub(super) fn fingerprint(&self, check: &Check) -> u64 {
        let mut hasher = self.secret.hasher();
        (&check.tenant, &check.tier, &check.client, &check.action, &check.method, &check.path)
            .hash(&mut hasher);
        (&check.ip, &check.api_key, &check.attributes, &check.cost, &check.permit_ttl_ms)
            .hash(&mut hasher);
        for limit in &check.limits {
            hasher.write(format!("{limit:?}").as_bytes());
        }
        hasher.finish()
    }

    /// Hands on the answer of the op `by`: to its caller, or into the batch that it is one of.
    pub(super) fn answer(
        &mut self,
        to: AnswerTo,
        by: Option<OpId>,
        answer: Answer,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(refusal) = &answer
            && !matches!(refusal, Refusal::Moved(_))
        {
            self.tally.refused(refusal);
        }
        match to {
            AnswerTo::Caller(reply) => effects.push(Effect::Answer { reply, answer, by }),
            AnswerTo::Gather { batch, index } => {
                let Some(gather) = self.gathers.get_mut(&batch) else {
                    return;
                };
                gather.answers[index] = answer.and_then(|mut all| all.pop().ok_or(Refusal::Busy));
                gather.left -= 1;
                if gather.left == 0
                    && let Some(gather) = self.gathers.remove(&batch)
                {
                    let Gather { reply, answers, .. } = gather;
                    effects.push(Effect::AnswerEach { reply, answers, by: Some(batch) });
                }
            }
        }
    }
}
