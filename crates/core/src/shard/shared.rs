//! Buckets that tenants share (global, per IP, per endpoint, per API key), and the holds that
//! tenants' shards have on them.
//!
//! Such a bucket lies in the shard that its key hashes to, which may be another than the tenant's.
//! The tenant's shard coordinates: it asks for a *hold* of the cost on every shared bucket, and
//! when all limits have said yes, its own included, it takes them all; otherwise it cancels. A hold
//! is not taken yet: the bucket goes on refilling as if it weren't there, and counts it only when
//! it judges others. So a cancel restores exactly what was, whatever happened in between, and no
//! order of events admits more than the limit.
//!
//! A check that fails only because of somebody's open hold isn't denied, it *waits* for the
//! outcome, if it may: a check that asks its buckets in the order of their keys may wait at each,
//! since nobody who waits holds a later one. A hold whose outcome hasn't come within [`HOLD_MAX`]
//! is taken: what may have been admitted stays spent.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::check::Limit;
use crate::limit::{Outcome, State};
use crate::placement::{EachPartition, Partition};
use crate::time::{Now, SECOND};

use super::lost::Lost;
use super::op::{Home, OpRef, Said};
use super::plans::Plans;

/// How long a hold may stay open, in nanoseconds.
pub const HOLD_MAX: u64 = SECOND;
/// How many buckets an insertion at the cap looks at, in search of one to forget.
const SWEEP_PER_INSERT: usize = 16;
/// A tick looks at one in this many buckets, and at least at [`SWEEP_MIN`].
const SWEEP_PART: usize = 64;
const SWEEP_MIN: usize = 1024;

/// One question to a shared bucket.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The check that asks.
    pub op: OpRef,
    /// Which of the op's demands this is.
    pub demand: usize,
    /// The bucket.
    pub key: u128,
    /// The bucket that stands in where a cap leaves no room for `key`.
    pub overflow_key: u128,
    /// By which the bucket is kept.
    pub limit: Arc<Limit>,
    /// Units.
    pub cost: u64,
    /// Hold the cost if it passes, or only look.
    pub hold: bool,
    /// Wait for others' holds until this boot time; none doesn't wait.
    pub until: Option<u64>,
    /// Boot time after which nobody waits for the answer.
    pub deadline: u64,
}

/// Its answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// Where the bucket is, for the op that asked.
    pub from: Home,
    /// The check that asked.
    pub op: OpRef,
    /// Which of its demands.
    pub demand: usize,
    /// The bucket that answered; a hold is settled under it.
    pub key: u128,
    /// What it said.
    pub said: Said,
}

#[derive(Debug)]
struct Hold {
    op: OpRef,
    demand: usize,
    limit: Arc<Limit>,
    cost: u64,
    expires: u64,
}

struct SharedBucket {
    state: State,
    overflow: bool,
    holds: Vec<Hold>,
    waiting: VecDeque<Ask>,
    /// Whether it is as the copy says that was made of its partition last.
    copied: bool,
}

/// Those of one partition, by their key.
type Buckets = HashMap<u128, SharedBucket, KeyIsHash>;

/// The shared buckets of one shard.
pub struct SharedBuckets {
    index: usize,
    buckets: EachPartition<Buckets>,
    count: usize,
    /// All keys, in the order in which they are looked at for ones to forget.
    sweep: VecDeque<u128>,
    max: usize,
    /// Keys with holds or waiting questions: a tick looks at these alone.
    busy: BTreeSet<u128>,
}

/// The keys are keyed hashes already.
#[derive(Clone, Default)]
struct KeyIsHash;

impl std::hash::BuildHasher for KeyIsHash {
    type Hasher = LowerHalf;
    fn build_hasher(&self) -> LowerHalf {
        LowerHalf(0)
    }
}

struct LowerHalf(u64);

impl std::hash::Hasher for LowerHalf {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().take(8).fold(self.0, |h, b| h << 8 | u64::from(*b));
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

impl SharedBuckets {
    /// No buckets yet in shard `index`, and at most `max`, overflow buckets aside.
    pub fn new(index: usize, max: usize) -> Self {
        Self {
            index,
            buckets: EachPartition::default(),
            count: 0,
            sweep: VecDeque::new(),
            max,
            busy: BTreeSet::new(),
        }
    }

    /// Buckets in memory.
    pub fn len(&self) -> usize {
        self.count
    }

    fn get(&self, key: u128) -> Option<&SharedBucket> {
        self.buckets[Partition::of_key(key)].get(&key)
    }

    /// Whether some hold or waiting question needs the clock to be looked at.
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Answers a question, unless it has to wait.
    pub fn ask(&mut self, mut ask: Ask, plans: &Plans, lost: &Lost, now: Now) -> Option<Reply> {
        let (since, index) = (plans.since(), self.index);
        if self.get(ask.key).is_none() && self.count >= self.max {
            self.forget(SWEEP_PER_INSERT, plans, now);
            if self.count >= self.max && ask.key != ask.overflow_key {
                // It asked in the order of its keys, and this one has another place: it may not
                // wait here.
                (ask.key, ask.until) = (ask.overflow_key, None);
            }
        }
        let overflow = ask.key == ask.overflow_key;
        let rule = &ask.limit.rule;
        let fresh = || match overflow {
            true => SharedBucket::new(State::fresh(rule, now), true),
            false => SharedBucket::new(lost.newborn(Partition::of_key(ask.key), rule, now), false),
        };
        if !ask.hold && self.get(ask.key).is_none() {
            // Looking makes no bucket.
            return fresh().ask(&ask, self.index, since, now);
        }
        let bucket = self.bucket(ask.key, fresh);
        bucket.waiting.retain(|waiting| (waiting.op, waiting.demand) != (ask.op, ask.demand));
        let reply = bucket.ask(&ask, index, since, now);
        let key = ask.key;
        if reply.is_none() {
            bucket.waiting.push_back(ask);
        }
        if bucket.open() > 0 {
            self.busy.insert(key);
        }
        reply
    }

    /// Takes or cancels what `op` holds of bucket `key`; questions that waited for it may be
    /// answered by that. Settling twice, or what has expired, does nothing.
    pub fn settle(
        &mut self,
        op: OpRef,
        key: u128,
        take: bool,
        since: u64,
        now: Now,
        replies: &mut Vec<Reply>,
    ) {
        let Some(bucket) = self.buckets[Partition::of_key(key)].get_mut(&key) else {
            return;
        };
        while let Some(at) = bucket.holds.iter().position(|hold| hold.op == op) {
            let hold = bucket.holds.swap_remove(at);
            if take {
                bucket.take(&hold, since, now);
            }
        }
        bucket.waiting.retain(|ask| ask.op != op);
        bucket.answer_waiting(self.index, since, now, replies);
        if bucket.open() == 0 {
            self.busy.remove(&key);
        }
    }

    /// Takes holds that have been open for too long and gives up on questions that nobody waits for
    /// any more.
    pub fn tick(&mut self, since: u64, now: Now, replies: &mut Vec<Reply>) {
        let buckets = &mut self.buckets;
        self.busy.retain(|key| {
            let Some(bucket) = buckets[Partition::of_key(*key)].get_mut(key) else { return false };
            while let Some(at) = bucket.holds.iter().position(|hold| hold.expires <= now.boot) {
                let hold = bucket.holds.swap_remove(at);
                bucket.take(&hold, since, now);
            }
            bucket.waiting.retain(|ask| ask.until.is_some_and(|until| until > now.boot));
            bucket.answer_waiting(self.index, since, now, replies);
            bucket.open() > 0
        });
    }

    /// One tick's share of the sweep.
    pub fn sweep(&mut self, plans: &Plans, now: Now) {
        self.forget((self.sweep.len() / SWEEP_PART).max(SWEEP_MIN), plans, now);
    }

    /// Looks at the next `count` buckets and forgets those that are like fresh ones and that nobody
    /// is busy with.
    fn forget(&mut self, count: usize, plans: &Plans, now: Now) {
        for _ in 0..count.min(self.sweep.len()) {
            let Some(key) = self.sweep.pop_front() else { return };
            match self.get(key) {
                Some(bucket) if bucket.open() == 0 && plans.forgets_shared(&bucket.state, now) => {
                    self.buckets[Partition::of_key(key)].remove(&key);
                    self.count -= 1;
                }
                Some(_) => self.sweep.push_back(key),
                None => {}
            }
        }
    }

    /// All buckets, to be saved, and whether they stand in for others.
    pub fn states(&self) -> impl Iterator<Item = (u128, &State, bool)> {
        Partition::all().flat_map(move |partition| self.states_of(partition))
    }

    /// The same of one partition.
    pub fn states_of(
        &self,
        partition: Partition,
    ) -> impl ExactSizeIterator<Item = (u128, &State, bool)> {
        self.buckets[partition].iter().map(|(key, bucket)| (*key, &bucket.state, bucket.overflow))
    }

    /// The buckets of a partition; those that stand in for others belong to none. Later
    /// [`SharedBuckets::changed`] says what is not so any more.
    pub fn copy(&mut self, partition: Partition) -> Vec<(u128, State)> {
        self.buckets[partition].values_mut().for_each(|bucket| bucket.copied = false);
        self.changed(partition)
    }

    /// Those that were asked or taken from since they were copied; from here on they count as
    /// copied.
    pub fn changed(&mut self, partition: Partition) -> Vec<(u128, State)> {
        let all = self.buckets[partition].iter_mut();
        let changed = all.filter(|(_, bucket)| !bucket.copied && !bucket.overflow);
        let told = changed.map(|(key, bucket)| {
            bucket.copied = true;
            (*key, bucket.state.clone())
        });
        told.collect()
    }

    /// The keys of buckets with holds or waiting questions.
    pub fn busy_keys(&self) -> impl Iterator<Item = u128> {
        self.busy.iter().copied()
    }

    /// Forgets the buckets of a partition; those that stand in for others stay.
    pub fn forget_partition(&mut self, partition: Partition) {
        let buckets = &mut self.buckets[partition];
        let before = buckets.len();
        buckets.retain(|_, bucket| bucket.overflow);
        self.count -= before - buckets.len();
        let buckets = &self.buckets[partition];
        self.busy.retain(|key| Partition::of_key(*key) != partition || buckets.contains_key(key));
    }

    /// Puts back a saved bucket, unless there is one.
    pub fn restore(&mut self, key: u128, state: State, overflow: bool) {
        self.bucket(key, || SharedBucket::new(state, overflow));
    }

    /// Makes what another node says of a bucket what is known of it here.
    pub fn take_over(&mut self, key: u128, state: State) {
        let bucket = self.bucket(key, || SharedBucket::new(state.clone(), false));
        bucket.state = state;
    }

    /// The bucket under `key`, made by `fresh` if it isn't there.
    fn bucket(&mut self, key: u128, fresh: impl FnOnce() -> SharedBucket) -> &mut SharedBucket {
        self.buckets[Partition::of_key(key)].entry(key).or_insert_with(|| {
            self.sweep.push_back(key);
            self.count += 1;
            fresh()
        })
    }
}

impl SharedBucket {
    fn new(state: State, overflow: bool) -> Self {
        Self { state, overflow, holds: Vec::new(), waiting: VecDeque::new(), copied: false }
    }

    fn open(&self) -> usize {
        self.holds.len() + self.waiting.len()
    }

    fn ask(&mut self, ask: &Ask, index: usize, since: u64, now: Now) -> Option<Reply> {
        let rule = &ask.limit.rule;
        self.copied = false;
        self.state.advance(rule, since, now);
        // A question that comes a second time, because its answer was lost on its way, replaces
        // what it holds.
        self.holds.retain(|hold| (hold.op, hold.demand) != (ask.op, ask.demand));
        // Beyond a cap several demands of one op may meet here: what it holds itself it doesn't
        // wait for.
        let sum = |mine: bool| {
            let holds = self.holds.iter().filter(|hold| (hold.op == ask.op) == mine);
            holds.fold(0u64, |sum, hold| sum.saturating_add(hold.cost))
        };
        let (mine, others) = (sum(true), sum(false));
        let held = mine.saturating_add(others);
        let outcome = self.state.judge(rule, ask.cost.saturating_add(mine), others, now);
        // Shadow limits hold nothing up: who would have to wait is reported as passing, and takes
        // nothing.
        let waits = outcome == Outcome::Held && ask.hold && ask.limit.enforce;
        if waits && ask.until.is_some_and(|until| until > now.boot) {
            return None;
        }
        if outcome == Outcome::Pass && ask.hold {
            self.holds.push(Hold {
                op: ask.op,
                demand: ask.demand,
                limit: ask.limit.clone(),
                cost: ask.cost,
                expires: now.boot.saturating_add(HOLD_MAX),
            });
        }
        let said = Said {
            outcome,
            remaining: self.state.remaining(rule, now).saturating_sub(held),
            reset: self.state.reset_after(rule, 0, now),
            reset_if_taken: self.state.reset_after(rule, ask.cost, now),
            overflow: self.overflow,
            cold: false,
        };
        Some(Reply { from: Home::Here(index), op: ask.op, demand: ask.demand, key: ask.key, said })
    }

    fn take(&mut self, hold: &Hold, since: u64, now: Now) {
        self.copied = false;
        self.state.advance(&hold.limit.rule, since, now);
        self.state.take(&hold.limit.rule, hold.cost, now);
    }

    /// First come, first served: the first that still has to wait makes the rest wait too.
    fn answer_waiting(&mut self, index: usize, since: u64, now: Now, replies: &mut Vec<Reply>) {
        while let Some(ask) = self.waiting.pop_front() {
            match self.ask(&ask, index, since, now) {
                Some(reply) => replies.push(reply),
                None => {
                    self.waiting.push_front(ask);
                    break;
                }
            }
        }
    }
}
