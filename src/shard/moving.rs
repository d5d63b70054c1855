//! Partitions on their way to another node, and from one.
//!
//! A partition that leaves is first *frozen*: what is open is finished, what comes waits (bounded, and no longer than its deadline).
//! When nothing is open any more, what the shard knows of the partition is handed out, and from then on only the log decides:
//! if it says that the partition has moved, those who waited are sent after it and what was known is forgotten; if it
//! says that the move was given up, they go on here.
//!
//! ```text
//! freeze {7}     two checks of partition 7 are open, a third comes and waits
//!                the two end; nothing is held of any bucket of 7: its accounts and buckets are handed out
//! places: 7 is at n2, epoch 4       the third is told to ask there; 7 is forgotten
//! places: 7 is here, epoch 3        the third is decided, as if nothing had been
//! ```
//!
//! A partition that comes is *staged*: what its owner knew lies beside the shard's own accounts, and becomes part of them in the
//! moment in which the log says that it is here under the epoch for which it was staged. Whatever else the log says, it is dropped.
//! Times are moved to this node's clock as they are loaded, so that nothing refills on the way but by the time it took.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smallvec::SmallVec;

use super::account::Replay;
use super::accounts::AccountIx;
use super::core::{Effect, Shard};
use super::op::{AnswerTo, Home};
use super::shared::Ask;
use super::{Question, Refusal, Returned};
use crate::check::{Decision, RequestId, TenantId};
use crate::clock::{MS, Now};
use crate::limit::{Permits, State};
use crate::placement::{AccountHash, Epoch, Partition, Place};

/// Checks that wait in one shard for frozen partitions: what comes in the tens of milliseconds that it takes, and no flood.
const WAITING_MAX: usize = 16_384;

/// What a shard knows of some partitions, at an instant.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// The boot time of the node that knew it.
    pub boot: u64,
    /// Accounts that are not like fresh ones.
    pub accounts: Vec<MovedAccount>,
    /// Shared buckets that are not.
    pub shared: Vec<(u128, State)>,
    /// Partitions whose counts were lost, and when.
    pub lost: Vec<(Partition, Now)>,
}

/// One account.
#[derive(Clone, Debug)]
pub struct MovedAccount {
    /// Its id.
    pub id: String,
    /// Its buckets.
    pub buckets: Vec<(u64, State)>,
    /// Its permits.
    pub permits: Permits,
    /// The answers to its request ids.
    pub replays: Vec<MovedReplay>,
}

/// An answer that a repetition of its request id gets again.
#[derive(Clone, Debug)]
pub struct MovedReplay {
    /// Whose id it is, and the id.
    pub key: (u64, RequestId),
    /// Of the check that it answered.
    pub fingerprint: u64,
    /// Boot nanoseconds.
    pub expires: u64,
    /// The answer.
    pub decision: Decision,
}

impl Moved {
    /// Moves all boot times to the clock of a node that reads `now`.
    fn rebase(&mut self, now: Now) {
        let forward = i128::from(now.boot) - i128::from(self.boot);
        for account in &mut self.accounts {
            account.buckets.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
            account.permits.shift_boot(forward);
            for replay in &mut account.replays {
                let expires = i128::from(replay.expires) + forward;
                replay.expires = u64::try_from(expires.max(0)).unwrap_or(u64::MAX);
            }
        }
        self.shared.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
        for (_, then) in &mut self.lost {
            then.boot = u64::try_from((i128::from(then.boot) + forward).max(0)).unwrap_or(u64::MAX);
        }
        self.boot = now.boot;
    }
}

/// A check, or several, that came for a frozen partition.
struct Waiting {
    questions: SmallVec<[Question; 1]>,
    answer_to: AnswerTo,
    peek: bool,
    deadline: u64,
}

/// What a shard does about partitions that leave and come.
#[derive(Default)]
pub struct Moves {
    frozen: BTreeMap<Partition, VecDeque<Waiting>>,
    /// Questions of this node's own checks to buckets of frozen partitions.
    asks: Vec<(Partition, Ask)>,
    waiting: usize,
    staged: BTreeMap<Partition, (Epoch, Moved)>,
}

impl Moves {
    /// Whether somebody waits whom the clock may have to end.
    pub fn is_busy(&self) -> bool {
        self.waiting > 0
    }

    /// What is laid aside for partitions that come, and the epochs under which they would be here.
    pub fn staged(&self) -> impl Iterator<Item = (Partition, Epoch, &Moved)> {
        self.staged.iter().map(|(partition, (epoch, moved))| (*partition, *epoch, moved))
    }
}

impl Shard {
    /// Whether checks of a partition are decided here now.
    pub(super) fn is_open(&self, partition: Partition) -> bool {
        self.places.is_here(partition)
            && (self.moves.frozen.is_empty() || !self.moves.frozen.contains_key(&partition))
    }

    /// Does `work` where `partition` is decided here now; else it is refused unjudged.
    pub fn if_open<T>(
        &mut self,
        partition: Option<Partition>,
        work: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, Refusal> {
        match partition.is_some_and(|partition| self.is_open(partition)) {
            true => Ok(work(self)),
            false => Err(Refusal::Moved(Returned::new(SmallVec::new()))),
        }
    }

    /// Whether a question of another node is answered here now.
    pub fn takes(&self, ask: &Ask) -> bool {
        ask.key == ask.overflow_key || self.is_open(Partition::of_key(ask.key))
    }

    /// Decides nothing of `partitions` any more, but for what is open.
    pub fn freeze(&mut self, partitions: &BTreeSet<Partition>) {
        let mine =
            partitions.iter().filter(|p| p.shard(self.shards) == self.index && self.places.is_here(**p));
        for partition in mine {
            self.moves.frozen.entry(*partition).or_default();
        }
    }

    /// Whether nothing is open or held of `partitions`.
    pub fn is_drained(&self, partitions: &BTreeSet<Partition>) -> bool {
        let of = |hash: AccountHash| partitions.contains(&hash.partition());
        let parked = || {
            let extras = self.parked_in.iter().filter_map(|ix| self.accounts.get(*ix).extras.as_ref());
            extras.flat_map(|extras| &extras.parked).any(|op| of(op.hash))
        };
        !self.open.values().any(|op| of(op.hash))
            && !parked()
            && !self.shared.busy_keys().any(|key| partitions.contains(&Partition::of_key(key)))
    }

    /// What is known of `partitions`.
    pub fn export(&mut self, partitions: &BTreeSet<Partition>, now: Now) -> Moved {
        let mut moved = Moved { boot: now.boot, ..Moved::default() };
        // Position 0 is the overflow account: nobody's in particular, it stays.
        for position in 1..self.accounts.positions() {
            let Some(account) = self.accounts.at(position) else { continue };
            if !partitions.contains(&account.hash.partition()) || account.is_fresh(now) {
                continue;
            }
            let extras = account.extras.as_ref();
            let replay = |(key, replay): (&(u64, RequestId), &Replay)| MovedReplay {
                key: key.clone(),
                fingerprint: replay.fingerprint,
                expires: replay.expires,
                decision: (*replay.decision).clone(),
            };
            moved.accounts.push(MovedAccount {
                id: account.id.to_string(),
                buckets: account.buckets.iter().map(|(key, state)| (key, state.clone())).collect(),
                permits: extras.map(|extras| extras.permits.clone()).unwrap_or_default(),
                replays: extras.map_or(Vec::new(), |extras| extras.replays.iter().map(replay).collect()),
            });
        }
        let shared = self.shared.states(now).filter(|(_, _, overflow)| !overflow);
        let shared = shared.filter(|(key, ..)| partitions.contains(&Partition::of_key(*key)));
        moved.shared = shared.map(|(key, state, _)| (key, state.clone())).collect();
        let mine = partitions.iter().filter(|p| p.shard(self.shards) == self.index);
        moved.lost = mine.filter_map(|p| Some((*p, self.lost.get(*p)?))).collect();
        moved
    }

    /// Goes on deciding `partitions`: nothing of them was handed to anybody who may come to own them.
    pub fn thaw(&mut self, partitions: &BTreeSet<Partition>, now: Now, effects: &mut Vec<Effect>) {
        for partition in partitions {
            let Some(waiting) = self.moves.frozen.remove(partition) else { continue };
            self.moves.waiting -= waiting.len();
            for Waiting { questions, answer_to, peek, .. } in waiting {
                self.begin(questions, answer_to, peek, now, effects);
            }
        }
        self.ask_again(now, effects);
    }

    /// Keeps what another node knows of `partitions`, until the log says that they are here under the epochs that stand beside them.
    pub fn stage(&mut self, partitions: &[(Partition, Epoch)], mut moved: Moved, now: Now) {
        moved.rebase(now);
        let mine = |partition: Partition| partition.shard(self.shards) == self.index;
        let mut staged: BTreeMap<_, _> = partitions
            .iter()
            .filter(|(partition, _)| mine(*partition))
            .map(|(partition, epoch)| (*partition, (*epoch, Moved { boot: now.boot, ..Moved::default() })))
            .collect();
        for account in moved.accounts {
            let partition = self.secret.account(&account.id).partition();
            if let Some((_, moved)) = staged.get_mut(&partition) {
                moved.accounts.push(account);
            }
        }
        for (key, state) in moved.shared {
            if let Some((_, moved)) = staged.get_mut(&Partition::of_key(key)) {
                moved.shared.push((key, state));
            }
        }
        for (partition, then) in moved.lost {
            if let Some((_, moved)) = staged.get_mut(&partition) {
                moved.lost.push((partition, then));
            }
        }
        self.moves.staged.extend(staged);
    }

    /// Takes note of where partitions are now: those that have come are loaded, those that have left are forgotten, and whoever
    /// waited for them goes on.
    pub(super) fn places_changed(
        &mut self,
        before: &crate::placement::Places,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let staged = std::mem::take(&mut self.moves.staged);
        for (partition, (epoch, moved)) in staged {
            let row = *self.places.table().row(partition);
            let awaited = row.moving.is_some_and(|moving| moving.to == self.places.me());
            match self.places.of(partition) {
                Place::Here(actual) if actual == epoch => self.load(moved, now),
                Place::There(..) if awaited => drop(self.moves.staged.insert(partition, (epoch, moved))),
                _ => {}
            }
        }
        let mine = |p: &Partition| p.shard(self.shards) == self.index;
        let gone: BTreeSet<_> = Partition::all()
            .filter(mine)
            .filter(|p| before.is_here(*p) && !self.places.is_here(*p))
            .collect();
        if !gone.is_empty() {
            self.forget(&gone);
        }
        let frozen: Vec<_> = self.moves.frozen.keys().copied().collect();
        for partition in frozen {
            let row = self.places.table().row(partition);
            if !self.places.is_here(partition) {
                let Some(waiting) = self.moves.frozen.remove(&partition) else { continue };
                self.moves.waiting -= waiting.len();
                for Waiting { questions, answer_to, .. } in waiting {
                    self.answer(answer_to, Err(Refusal::Moved(Returned::new(questions))));
                }
            } else if row.moving.is_none() {
                self.thaw(&BTreeSet::from([partition]), now, effects);
            }
        }
        self.ask_again(now, effects);
        self.work_off(now, effects);
    }

    /// Asks buckets of partitions that were frozen: here, or wherever they are now.
    fn ask_again(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (partition, ask) in std::mem::take(&mut self.moves.asks) {
            if self.moves.frozen.contains_key(&partition) {
                self.moves.asks.push((partition, ask));
            } else if self.places.is_here(partition) {
                self.asked(ask, now, effects);
            } else {
                effects.push(Effect::Ask(Home::Far(partition), ask));
            }
        }
    }

    /// What comes for a partition that is not open: it waits where it is frozen, and is sent back where it isn't here.
    pub(super) fn hold_back(
        &mut self,
        questions: SmallVec<[Question; 1]>,
        answer_to: AnswerTo,
        peek: bool,
        now: Now,
    ) {
        let partition = questions.first().map(|question| question.hash.partition());
        let frozen = partition.and_then(|partition| self.moves.frozen.get_mut(&partition));
        let Some(frozen) = frozen else {
            return self.answer(answer_to, Err(Refusal::Moved(Returned::new(questions))));
        };
        if self.moves.waiting >= WAITING_MAX {
            return self.answer(answer_to, Err(Refusal::Busy));
        }
        let deadline_ms = questions.iter().map(|question| question.check.deadline_ms).max().unwrap_or(0);
        let deadline = now.boot.saturating_add(deadline_ms.saturating_mul(MS));
        self.moves.waiting += 1;
        frozen.push_back(Waiting { questions, answer_to, peek, deadline });
    }

    /// A question of this node's own to a bucket of a partition that is not open; back, where it is.
    pub(super) fn hold_back_ask(&mut self, ask: Ask, effects: &mut Vec<Effect>) -> Option<Ask> {
        let partition = Partition::of_key(ask.key);
        // What stands in for others beyond a cap belongs to no partition, and stays.
        if ask.key == ask.overflow_key || self.is_open(partition) {
            return Some(ask);
        }
        if self.moves.frozen.contains_key(&partition) {
            self.moves.asks.push((partition, ask));
        } else {
            effects.push(Effect::Ask(Home::Far(partition), ask));
        }
        None
    }

    /// Answers those who have waited for as long as they could.
    pub(super) fn dismiss_waiting(&mut self, now: Now) {
        if self.moves.waiting == 0 {
            return;
        }
        let mut late = Vec::new();
        for waiting in self.moves.frozen.values_mut() {
            let (over, left): (VecDeque<_>, _) =
                std::mem::take(waiting).into_iter().partition(|waiting| waiting.deadline <= now.boot);
            *waiting = left;
            late.extend(over);
        }
        self.moves.waiting -= late.len();
        late.into_iter().for_each(|waiting| self.answer(waiting.answer_to, Err(Refusal::Busy)));
        self.moves.asks.retain(|(_, ask)| ask.deadline > now.boot);
    }

    /// Makes what another node knew part of what is known here.
    fn load(&mut self, moved: Moved, now: Now) {
        // Time that has passed since it was staged has passed for it too: its times are on this node's clock.
        for account in moved.accounts {
            let hash = self.secret.account(&account.id);
            let named = TenantId::new(&account.id).is_some_and(|tenant| self.plans.policy().names(&tenant));
            let ix = self.accounts.find_or_insert(hash, &account.id, named, &mut self.plans, now);
            for (key, state) in account.buckets {
                if self.accounts.get(ix).buckets.get(key).is_none() {
                    self.accounts.buckets += 1;
                    self.accounts.get_mut(ix).buckets.insert(key, state);
                }
            }
            self.load_extras(ix, account.permits, account.replays);
        }
        for (key, state) in moved.shared {
            self.shared.restore(key, state, false);
        }
        moved.lost.into_iter().for_each(|(partition, then)| self.lost.insert(partition, then));
    }

    fn load_extras(&mut self, ix: AccountIx, permits: Permits, replays: Vec<MovedReplay>) {
        if permits.flying() > 0 {
            let (replaced, flying) = (self.accounts.get(ix).permits(), permits.flying());
            self.accounts.get_mut(ix).extras().permits = permits;
            self.accounts.permits = self.accounts.permits - replaced + flying;
        }
        if replays.is_empty() {
            return;
        }
        let before = self.accounts.get(ix).replays();
        let extras = self.accounts.get_mut(ix).extras();
        let mut order: Vec<_> = replays.iter().map(|replay| (replay.expires, replay.key.clone())).collect();
        order.sort();
        extras.replay_order.extend(order);
        for MovedReplay { key, fingerprint, expires, decision } in replays {
            extras.replays.insert(key, Replay { fingerprint, expires, decision: Box::new(decision) });
        }
        self.accounts.request_ids = self.accounts.request_ids + self.accounts.get(ix).replays() - before;
    }

    /// Forgets what is known of partitions that others own.
    fn forget(&mut self, partitions: &BTreeSet<Partition>) {
        let of = |hash: AccountHash| partitions.contains(&hash.partition());
        for position in 1..self.accounts.positions() {
            let Some(account) = self.accounts.at(position).filter(|account| of(account.hash)) else {
                continue;
            };
            // An op that is open in it ends by itself; what it was about is not this node's any more.
            let extras = account.extras.as_ref();
            if extras.is_none_or(|extras| extras.holds.is_empty() && extras.parked.is_empty()) {
                let ix = self.accounts.find(account.hash, &account.id.clone());
                ix.into_iter().for_each(|ix| self.accounts.remove(ix));
            }
        }
        self.shared.forget_partitions(partitions);
        partitions.iter().for_each(|partition| self.lost.remove(*partition));
    }
}
