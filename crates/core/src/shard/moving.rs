//! Partitions on their way to another node, and from one.
//!
//! A partition that leaves is *copied* while it goes on being decided here; from then on it is
//! known which of its accounts are not as the copy says. Then it is *frozen*: what is open is
//! finished, what comes waits (bounded, and no longer than its deadline). When nothing is open any
//! more, the rest is handed out, which is what has changed since the copy, and from then on only
//! the log decides: if it says that the partition has moved, those who waited are sent after it and
//! what was known is forgotten; if it says that the move was given up, they go on here. Freezing
//! has two steps: first checks wait, and what is open may still ask the shared buckets that it
//! needs; once no check of the partitions is open in any shard, questions to their shared buckets
//! wait, too.
//!
//! ```text
//! copy 7         100,000 accounts, a few at a time; checks are decided in between, and 40 accounts change
//! freeze {7}     two checks of partition 7 are open, a third comes and waits; the two end
//! rest {7}       others hold a shared bucket of 7, and settle; nothing is held of any bucket of 7: 42 accounts are handed out
//! places: 7 is at n2, epoch 4       the third is told to ask there; 7 is forgotten, a little at a time
//! places: 7 is here, epoch 3        the third is decided, as if nothing had been
//! ```
//!
//! A partition that comes is *staged*: what its owner knew is put among the shard's own accounts as
//! it comes, and is gone by from the moment in which the log says that the partition is here under
//! the epoch for which it was staged. Whatever else the log says, it is forgotten. Times are moved
//! to this node's clock as they come, so that nothing refills on the way but by the time it took.
//!
//! A move is known by the entry of the log that began it: what was copied or staged for one is
//! worth nothing to another.

mod arriving;
mod leaving;

use std::collections::{BTreeMap, BTreeSet};

use super::core::Shard;
use super::effect::Effect;
use super::shared::Ask;
use super::{Refusal, Returned};
use crate::placement::{Epoch, Partition, Place, Places};
use crate::time::Now;
use arriving::Staged;
use leaving::Frozen;
use smallvec::SmallVec;

/// What a shard does about partitions that leave and come.
#[derive(Default)]
pub struct Moves {
    frozen: BTreeMap<Partition, Frozen>,
    /// Questions of this node's own checks to buckets of closed partitions.
    asks: Vec<(Partition, Ask)>,
    waiting: usize,
    staged: BTreeMap<Partition, Staged>,
    /// Partitions that others own now, and of which this shard still knows something.
    left_behind: BTreeSet<Partition>,
}

impl Moves {
    /// Whether somebody waits whom the clock may have to end.
    pub fn is_busy(&self) -> bool {
        self.waiting > 0 || !self.left_behind.is_empty()
    }

    /// Whether even questions to shared buckets of a partition wait.
    fn is_closed(&self, partition: Partition) -> bool {
        self.frozen.get(&partition).is_some_and(|frozen| frozen.is_closed)
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

    /// Whether a question to a shared bucket is answered here now: what stands in for others beyond
    /// a cap belongs to no partition.
    pub fn takes(&self, ask: &Ask) -> bool {
        let partition = Partition::of_key(ask.key);
        ask.key == ask.overflow_key
            || self.places.is_here(partition) && !self.moves.is_closed(partition)
    }

    /// Takes note of where partitions are now: those that have come are gone by, those that have
    /// left are forgotten, those that were given to this node without what was known of them begin
    /// as lost ones do, and whoever waited for any of them goes on.
    pub(super) fn places_changed(&mut self, before: &Places, now: Now, effects: &mut Vec<Effect>) {
        let come = self.take_in();
        let mine = Partition::all().filter(|partition| partition.shard(self.shards) == self.index);
        let (mut gone, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for partition in mine.filter(|partition| !come.contains(partition)) {
            match (before.of(partition), self.places.of(partition)) {
                (Place::Here(before), Place::Here(now)) if before == now => {}
                // Whoever had it is gone, and what he knew with him; unless nobody ever had it.
                (_, Place::Here(epoch)) if epoch > Epoch::FIRST => drop(lost.insert(partition)),
                (Place::Here(_), _) => drop(gone.insert(partition)),
                _ => {}
            }
        }
        self.moves.left_behind.extend(gone);
        lost.iter().for_each(|partition| self.forget(*partition));
        self.lost.lose(lost.into_iter(), now);
        self.let_go(now, effects);
        self.ask_again(now, effects);
        self.work_off(now, effects);
    }
}
