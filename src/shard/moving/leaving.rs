//! Partitions that leave.

use std::collections::{BTreeSet, VecDeque};

use smallvec::SmallVec;

use super::{Moved, MovedAccount, MovedReplay};
use crate::clock::{MS, Now};
use crate::placement::{AccountHash, Partition, TableVersion};
use crate::shard::account::{Account, Replay, ReplayKey};
use crate::shard::core::{Effect, Shard};
use crate::shard::op::{AnswerTo, Home};
use crate::shard::shared::Ask;
use crate::shard::{Question, Refusal, Returned};

/// Checks that wait in one shard for frozen partitions: what comes in the tens of milliseconds that it takes, and no flood.
const WAITING_MAX: usize = 16_384;

/// A check, or several, that came for a frozen partition.
pub(super) struct Waiting {
    questions: SmallVec<[Question; 1]>,
    answer_to: AnswerTo,
    peek: bool,
    deadline: u64,
}

impl Shard {
    /// What is known of `partition`, for the move `of`; from now on it is known what changes of it.
    pub fn copy(&mut self, partition: Partition, of: TableVersion, now: Now) -> Moved {
        let mut moved = Moved::at(now.boot);
        let accounts = self.accounts.of(partition).map(|ix| self.accounts.get(ix));
        moved.accounts = accounts.filter(|account| !account.is_fresh(now)).map(described).collect();
        moved.shared = self.shared.copy(partition, now);
        moved.lost = self.lost_of(partition);
        self.accounts.set_copied(partition);
        self.moves.copied.insert(partition, of);
        moved
    }

    /// What has changed of `partitions` since they were copied for the move `of`; none where one of them was not, or was copied for
    /// another move since. They must be drained.
    pub fn rest(&mut self, partitions: &BTreeSet<Partition>, of: TableVersion, now: Now) -> Option<Moved> {
        let mut moved = Moved::at(now.boot);
        for partition in partitions.iter().filter(|p| p.shard(self.shards) == self.index) {
            if self.moves.copied.remove(partition) != Some(of) {
                return None;
            }
            moved.gone.extend(self.accounts.end_copied(*partition).into_iter().map(String::from));
            let changed = self.accounts.of(*partition).map(|ix| self.accounts.get(ix));
            for account in changed.filter(|account| !account.copied) {
                match account.is_fresh(now) {
                    true => moved.gone.push(account.id.to_string()),
                    false => moved.accounts.push(described(account)),
                }
            }
            moved.shared.extend(self.shared.changed(*partition, now));
            moved.lost.extend(self.lost_of(*partition));
        }
        // Who was forgotten and has come back is told of as it is now.
        let back: BTreeSet<_> = moved.accounts.iter().map(|account| &account.id).collect();
        moved.gone.retain(|id| !back.contains(id));
        Some(moved)
    }

    fn lost_of(&self, partition: Partition) -> Vec<(Partition, Now)> {
        self.lost.get(partition).map(|then| (partition, then)).into_iter().collect()
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

    /// Lets go on whoever waited for a partition that was to leave and about which the log has decided.
    pub(super) fn let_go(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_leaving =
            |partition: Partition| self.places.table().row(partition).moving.map(|moving| moving.id);
        let over = self.moves.copied.iter().filter(|(partition, of)| is_leaving(**partition) != Some(**of));
        for partition in over.map(|(partition, _)| *partition).collect::<Vec<_>>() {
            self.moves.copied.remove(&partition);
            self.accounts.end_copied(partition);
        }
        let frozen: Vec<_> = self.moves.frozen.keys().copied().collect();
        for partition in frozen {
            if !self.places.is_here(partition) {
                let Some(waiting) = self.moves.frozen.remove(&partition) else { continue };
                self.moves.waiting -= waiting.len();
                for Waiting { questions, answer_to, .. } in waiting {
                    self.answer(answer_to, Err(Refusal::Moved(Returned::new(questions))));
                }
            } else if self.places.table().row(partition).moving.is_none() {
                self.thaw(&BTreeSet::from([partition]), now, effects);
            }
        }
    }

    /// Asks buckets of partitions that were frozen: here, or wherever they are now.
    pub(super) fn ask_again(&mut self, now: Now, effects: &mut Vec<Effect>) {
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
    pub(in crate::shard) fn hold_back(
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
    pub(in crate::shard) fn hold_back_ask(&mut self, ask: Ask, effects: &mut Vec<Effect>) -> Option<Ask> {
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
    pub(in crate::shard) fn dismiss_waiting(&mut self, now: Now) {
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

    /// Forgets what is known of partitions that others own.
    pub(super) fn forget(&mut self, partitions: &BTreeSet<Partition>) {
        for partition in partitions {
            for ix in self.accounts.of(*partition).collect::<Vec<_>>() {
                // An op that is open in it ends by itself; what it was about is not this node's any more.
                let extras = self.accounts.get(ix).extras.as_ref();
                if extras.is_none_or(|extras| extras.holds.is_empty() && extras.parked.is_empty()) {
                    self.accounts.remove(ix);
                }
            }
            self.lost.remove(*partition);
        }
        self.shared.forget_partitions(partitions);
    }
}

/// An account as it is told to another node.
fn described(account: &Account) -> MovedAccount {
    let extras = account.extras.as_ref();
    let replay = |(key, replay): (&ReplayKey, &Replay)| MovedReplay {
        key: key.clone(),
        fingerprint: replay.fingerprint,
        expires: replay.expires,
        decision: (*replay.decision).clone(),
    };
    MovedAccount {
        id: account.id.to_string(),
        buckets: account.buckets.iter().map(|(key, state)| (key, state.clone())).collect(),
        permits: extras.map(|extras| extras.permits.clone()).unwrap_or_default(),
        replays: extras.map_or(Vec::new(), |extras| extras.replays.iter().map(replay).collect()),
    }
}
