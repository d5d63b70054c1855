//! Partitions that leave.

use std::collections::{BTreeSet, VecDeque};

use smallvec::SmallVec;

use crate::placement::{AccountHash, Partition, TableVersion};
use crate::shard::accounts::AccountIx;
use crate::shard::core::Shard;
use crate::shard::effect::Effect;
use crate::shard::export::Filter;
use crate::shard::op::{AnswerTo, Home};
use crate::shard::shared::Ask;
use crate::shard::snapshot::{PartitionDelta, PartitionSnapshot};
use crate::shard::{Question, Refusal, Returned};
use crate::time::{MS, Now};

/// Checks that wait in one shard for frozen partitions: what comes in the tens of milliseconds that
/// it takes, and no flood.
const WAITING_MAX: usize = 16_384;

/// Partitions of which what others own is forgotten, at each tick.
const FORGOTTEN_PER_TICK: usize = 2;

/// A partition of which no check is decided, since the move `of` is about to take it away.
pub(super) struct Frozen {
    of: TableVersion,
    /// Whether questions to its shared buckets wait, too.
    pub(super) is_closed: bool,
    waiting: VecDeque<Waiting>,
}

/// A check, or several, that came for a frozen partition.
struct Waiting {
    questions: SmallVec<[Question; 1]>,
    answer_to: AnswerTo,
    peek: bool,
    deadline: u64,
}

impl Shard {
    /// Those of `partitions` that are this shard's.
    pub(in crate::shard) fn mine(&self, partitions: &BTreeSet<Partition>) -> Vec<Partition> {
        partitions
            .iter()
            .copied()
            .filter(|partition| partition.shard(self.shards) == self.index)
            .collect()
    }

    /// Returns what is known of `partition`, for the move `of`; from now on its changes are tracked.
    /// None where no such move is under way.
    pub fn copy(
        &mut self,
        partition: Partition,
        of: TableVersion,
        now: Now,
    ) -> Option<PartitionSnapshot> {
        if self.leaves_by(partition) != Some(of) {
            return None;
        }
        let whole = self.export(Filter::Whole(partition), now).delta.known;
        self.accounts.set_copied(partition, of);
        Some(whole)
    }

    /// Returns what has changed of `partitions` since they were copied for the move `of`, for which
    /// they are frozen and drained; none where one of them was not, or was copied for another move
    /// since.
    fn changed(
        &mut self,
        partitions: &BTreeSet<Partition>,
        of: TableVersion,
        now: Now,
    ) -> Option<PartitionDelta> {
        let mut gone = Vec::new();
        for partition in self.mine(partitions) {
            gone.extend(self.accounts.end_copied(partition, of)?.into_iter().map(String::from));
        }
        let mut delta = self.export(Filter::Changed(partitions), now).delta;
        delta.gone.extend(gone);
        // An account that was forgotten and made again is told as it is now.
        let again: BTreeSet<_> = delta.known.accounts.iter().map(|account| &account.id).collect();
        delta.gone.retain(|id| !again.contains(id));
        Some(delta)
    }

    /// The move by which a partition that is here is about to leave.
    fn leaves_by(&self, partition: Partition) -> Option<TableVersion> {
        let moving =
            self.places.table().row(partition).moving.filter(|_| self.places.is_here(partition));
        moving.map(|moving| moving.id)
    }

    /// Decides no check of `partitions` any more, but for what is open: for the move `of`, if it is
    /// under way.
    pub fn freeze(&mut self, partitions: &BTreeSet<Partition>, of: TableVersion) {
        for partition in self.mine(partitions) {
            if self.leaves_by(partition) == Some(of) {
                let fresh = || Frozen { of, is_closed: false, waiting: VecDeque::new() };
                let frozen = self.moves.frozen.entry(partition).or_insert_with(fresh);
                (frozen.of, frozen.is_closed) = (of, false);
            }
        }
    }

    /// Answers no question to shared buckets of `partitions` any more, but for what is held. False
    /// where they aren't all frozen for the move `of`.
    pub fn close(&mut self, partitions: &BTreeSet<Partition>, of: TableVersion) -> bool {
        let mine = self.mine(partitions);
        let is_frozen = self.are_frozen(partitions, of);
        for partition in mine.into_iter().filter(|_| is_frozen) {
            self.moves.frozen.entry(partition).and_modify(|frozen| frozen.is_closed = true);
        }
        is_frozen
    }

    /// Whether those of `partitions` that are this shard's are frozen for the move `of`, all of
    /// them.
    fn are_frozen(&self, partitions: &BTreeSet<Partition>, of: TableVersion) -> bool {
        let frozen =
            |partition| self.moves.frozen.get(&partition).is_some_and(|frozen| frozen.of == of);
        self.mine(partitions).into_iter().all(frozen)
    }

    /// Once no check of `partitions` is open: true; false where they are frozen for the move `of`
    /// no more.
    pub fn is_quiet(&self, partitions: &BTreeSet<Partition>, of: TableVersion) -> Option<bool> {
        if !self.are_frozen(partitions, of) {
            return Some(false);
        }
        let is_of = |hash: AccountHash| partitions.contains(&hash.partition());
        let parked = || {
            let extras =
                self.parked_in.iter().filter_map(|ix| self.accounts.get(*ix).extras.as_ref());
            extras.flat_map(|extras| &extras.parked).any(|op| is_of(op.hash))
        };
        let is_open = self.open.values().any(|op| is_of(op.hash)) || parked();
        (!is_open).then_some(true)
    }

    /// Once nothing is held of any shared bucket of `partitions`, which are closed: what has
    /// changed since they were copied for the move `of`. That is nothing where they are frozen for
    /// it no more, or were copied for another.
    pub fn rest(
        &mut self,
        partitions: &BTreeSet<Partition>,
        of: TableVersion,
        now: Now,
    ) -> Option<Option<PartitionDelta>> {
        if !self.are_frozen(partitions, of) {
            return Some(None);
        }
        let is_held =
            self.shared.busy_keys().any(|key| partitions.contains(&Partition::of_key(key)));
        (!is_held).then(|| self.changed(partitions, of, now))
    }

    /// Goes on deciding `partitions`, of which nothing was handed to anybody who may come to own
    /// them by the move `of`.
    pub fn thaw(
        &mut self,
        partitions: &BTreeSet<Partition>,
        of: TableVersion,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for partition in partitions {
            if self.moves.frozen.get(partition).is_none_or(|frozen| frozen.of != of) {
                continue;
            }
            let Some(frozen) = self.moves.frozen.remove(partition) else { continue };
            self.moves.waiting -= frozen.waiting.len();
            for Waiting { questions, answer_to, peek, .. } in frozen.waiting {
                self.begin(questions, answer_to, peek, now, effects);
            }
        }
        self.ask_again(now, effects);
    }

    /// Lets go on whoever waited for a partition that was to leave and about which the log has
    /// decided.
    pub(super) fn let_go(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let (places, me) = (self.places.clone(), self.places.me());
        self.accounts.end_copies(|partition, of| {
            let row = places.table().row(partition);
            row.owner != me || row.moving.is_none_or(|moving| moving.id != of)
        });
        let frozen: Vec<_> =
            self.moves.frozen.iter().map(|(partition, frozen)| (*partition, frozen.of)).collect();
        for (partition, of) in frozen {
            if !self.places.is_here(partition) {
                let Some(frozen) = self.moves.frozen.remove(&partition) else { continue };
                self.moves.waiting -= frozen.waiting.len();
                for Waiting { questions, answer_to, .. } in frozen.waiting {
                    let refusal = Refusal::Moved(Returned::new(questions));
                    self.answer(answer_to, None, Err(refusal), effects);
                }
            } else if self.leaves_by(partition) != Some(of) {
                self.thaw(&BTreeSet::from([partition]), of, now, effects);
            }
        }
    }

    /// Asks buckets of partitions that were frozen: here, or wherever they are now.
    pub(super) fn ask_again(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (partition, ask) in std::mem::take(&mut self.moves.asks) {
            if self.moves.is_closed(partition) {
                self.moves.asks.push((partition, ask));
            } else if self.places.is_here(partition) {
                self.asked(ask, now, effects);
            } else {
                effects.push(Effect::Ask(Home::Far(partition), ask));
            }
        }
    }

    /// What comes for a partition that is not open: it waits where it is frozen, and is sent back
    /// where it isn't here.
    pub(in crate::shard) fn hold_back(
        &mut self,
        questions: SmallVec<[Question; 1]>,
        answer_to: AnswerTo,
        peek: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let partition = questions.first().map(|question| question.hash.partition());
        let frozen = partition.and_then(|partition| self.moves.frozen.get_mut(&partition));
        let Some(frozen) = frozen else {
            let refusal = Refusal::Moved(Returned::new(questions));
            return self.answer(answer_to, None, Err(refusal), effects);
        };
        if self.moves.waiting >= WAITING_MAX {
            return self.answer(answer_to, None, Err(Refusal::Busy), effects);
        }
        let deadline_ms =
            questions.iter().map(|question| question.check.deadline_ms).max().unwrap_or(0);
        let deadline = now.boot.saturating_add(deadline_ms.saturating_mul(MS));
        self.moves.waiting += 1;
        frozen.waiting.push_back(Waiting { questions, answer_to, peek, deadline });
    }

    /// A question of this node's own to a bucket of a partition that is not open; back, where it
    /// is.
    pub(in crate::shard) fn hold_back_ask(
        &mut self,
        ask: Ask,
        effects: &mut Vec<Effect>,
    ) -> Option<Ask> {
        if self.takes(&ask) {
            return Some(ask);
        }
        let partition = Partition::of_key(ask.key);
        if self.moves.is_closed(partition) {
            self.moves.asks.push((partition, ask));
        } else {
            effects.push(Effect::Ask(Home::Far(partition), ask));
        }
        None
    }

    /// Answers those who have waited for as long as they could.
    pub(in crate::shard) fn dismiss_waiting(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.moves.waiting == 0 {
            return;
        }
        let mut late = Vec::new();
        for Frozen { waiting, .. } in self.moves.frozen.values_mut() {
            let (over, left): (VecDeque<_>, _) = std::mem::take(waiting)
                .into_iter()
                .partition(|waiting| waiting.deadline <= now.boot);
            *waiting = left;
            late.extend(over);
        }
        self.moves.waiting -= late.len();
        for waiting in late {
            self.answer(waiting.answer_to, None, Err(Refusal::Busy), effects);
        }
        self.moves.asks.retain(|(_, ask)| ask.deadline > now.boot);
    }

    /// Forgets some of what is known of partitions that others own. Nobody asks for it, so it has
    /// time.
    pub(in crate::shard) fn forget_some(&mut self) {
        for _ in 0..FORGOTTEN_PER_TICK {
            let Some(partition) = self.moves.left_behind.pop_first() else { return };
            if !self.places.is_here(partition) {
                self.forget(partition);
            }
        }
    }

    /// Forgets what is known of a partition.
    pub(super) fn forget(&mut self, partition: Partition) {
        self.moves.left_behind.remove(&partition);
        for ix in self.accounts.of(partition).collect::<Vec<_>>() {
            self.forget_account(ix);
        }
        self.shared.forget_partition(partition);
        self.lost.remove(partition);
    }

    /// Forgets an account, unless a check is open in it, which ends by itself; what it is about is
    /// not this node's any more.
    pub(super) fn forget_account(&mut self, ix: AccountIx) {
        let extras = self.accounts.get(ix).extras.as_ref();
        if extras.is_none_or(|extras| extras.holds.is_empty() && extras.parked.is_empty()) {
            self.accounts.remove(ix);
        }
    }
}
