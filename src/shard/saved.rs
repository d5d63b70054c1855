//! What a graceful stop leaves behind, so that a restart knows what was spent.
//!
//! What is saved belongs to partitions under epochs. It is of use only to the incarnation of the
//! node that owns them next: if another one owned a partition in between, the saved counts are not
//! what was spent. Boot times are moved to the new process's boot clock by way of the wall clock,
//! so what refilled while the node was down has refilled. The body writes and reads the file
//! (`crate::actor`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::record::{self, RecordId};
use crate::clock::Now;
use crate::limit::{Permits, State};
use crate::placement::{Epoch, Partition, Place, Places, Secret};

/// The states of some shards, at an instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    boot: u64,
    wall: u64,
    /// The partitions that were owned, and under which epochs: more than one where lives came
    /// between that decided nothing.
    pub epochs: Vec<(Partition, Epoch)>,
    /// Partitions whose counts were lost earlier, and when.
    pub lost: Vec<(Partition, Now)>,
    /// Accounts that were not like fresh ones.
    pub accounts: Vec<SavedAccount>,
    /// Shared buckets that were not.
    pub shared: Vec<(u128, State)>,
    /// Those that stand in for others beyond a cap, with the shard that they were in.
    pub overflow: Vec<(usize, u128, State)>,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedAccount {
    /// Its id.
    pub id: String,
    /// Its buckets.
    pub buckets: Vec<(u64, State)>,
    /// Its permits.
    pub permits: Permits,
}

impl SavedAccount {
    /// Since when, in boot nanoseconds, it is not known which permits of `partition` are in flight.
    pub fn permits_lost(partition: Partition, then: u64) -> Self {
        let id = RecordId::PermitsLost(partition).to_string();
        Self { id, buckets: Vec::new(), permits: record::lost_since(partition, then) }
    }
}

impl SavedState {
    /// Nothing yet, as of `now`.
    pub fn at(now: Now) -> Self {
        Self {
            boot: now.boot,
            wall: now.wall,
            epochs: Vec::new(),
            lost: Vec::new(),
            accounts: Vec::new(),
            shared: Vec::new(),
            overflow: Vec::new(),
        }
    }

    /// Whether nothing was counted in it, and nothing lost.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.shared.is_empty()
            && self.overflow.is_empty()
            && self.lost.is_empty()
    }

    /// All of what several hold, which were all read on one node's clocks, as of the last of them.
    pub fn joined(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().reduce(|mut all, next| {
            if next.boot > all.boot {
                (all.boot, all.wall) = (next.boot, next.wall);
            }
            all.add(next);
            all
        })
    }

    /// Adds what another shard saved.
    pub fn add(&mut self, other: Self) {
        self.epochs.extend(other.epochs);
        self.lost.extend(other.lost);
        self.accounts.extend(other.accounts);
        self.shared.extend(other.shared);
        self.overflow.extend(other.overflow);
    }

    /// Says that the permits of all its partitions were lost at wall time `wall`, which is no
    /// earlier than the instant of this state.
    pub fn lose_permits(&mut self, wall: u64) {
        let then = self.boot.saturating_add(wall.saturating_sub(self.wall));
        let lost =
            self.epochs.iter().map(|(partition, _)| SavedAccount::permits_lost(*partition, then));
        self.accounts.extend(lost);
    }

    /// The partitions of it that `places` has here as the next that owned them.
    pub fn still_true(&self, places: &Places) -> BTreeSet<Partition> {
        let is_next = |(partition, epoch): &(Partition, Epoch)| matches!(places.of(*partition), Place::Here(now) if now.follows(*epoch));
        self.epochs.iter().filter(|saved| is_next(saved)).map(|(partition, _)| *partition).collect()
    }

    /// The same on the clocks of another node, which reads `now` as this one's are read: no time
    /// passes on the way, and the two walls are not compared.
    pub fn as_read_at(mut self, now: Now) -> Self {
        self.wall = now.wall;
        self.rebase(now);
        self
    }

    /// What a life leaves to the next that never heard of its seat, and so has decided nothing. It
    /// may have been given the seat all the same: then the partitions stand under one epoch more,
    /// and nobody has gone by it.
    pub fn passed_on(&self) -> Self {
        let later = self
            .epochs
            .iter()
            .map(|(partition, epoch)| (*partition, Epoch::new(epoch.number() + 1)));
        let epochs: BTreeSet<_> = self.epochs.iter().copied().chain(later).collect();
        Self { epochs: epochs.into_iter().collect(), ..self.clone() }
    }

    /// Returns what a back-up holds of it: the counts of long limits of the partitions that
    /// `is_wanted` names, without permits and without what stands in for others beyond a cap.
    pub fn long_counts(
        self,
        secret: Secret,
        is_wanted: impl Fn(Partition) -> bool,
        now: Now,
    ) -> Self {
        let mut long = Self { boot: self.boot, wall: self.wall, ..Self::at(now) };
        long.lost = self.lost.into_iter().filter(|(partition, _)| is_wanted(*partition)).collect();
        for account in self.accounts {
            // Records of other kinds hold permits, or what stands in for tenants beyond a cap.
            let RecordId::Account(id) = RecordId::of(&account.id) else { continue };
            if !is_wanted(secret.account(id).partition()) {
                continue;
            }
            let buckets: Vec<_> =
                account.buckets.into_iter().filter(|(_, bucket)| bucket.is_long(now)).collect();
            if !buckets.is_empty() {
                long.accounts.push(SavedAccount {
                    id: account.id,
                    buckets,
                    permits: Permits::default(),
                });
            }
        }
        let is_long = |(key, bucket): &(u128, State)| {
            is_wanted(Partition::of_key(*key)) && bucket.is_long(now)
        };
        long.shared = self.shared.into_iter().filter(is_long).collect();
        long
    }

    /// Moves all boot times to the clock of a process that reads `now`.
    pub fn rebase(&mut self, now: Now) {
        // A wall clock that went back while the node was down lets no time have passed.
        let down = i128::from(now.wall.saturating_sub(self.wall));
        let forward = i128::from(now.boot) - i128::from(self.boot) - down;
        for account in &mut self.accounts {
            account.buckets.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
            account.permits.shift_boot(forward);
        }
        self.shared.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
        for (_, then) in &mut self.lost {
            then.boot = u64::try_from((i128::from(then.boot) + forward).max(0)).unwrap_or(u64::MAX);
        }
        self.overflow.iter_mut().for_each(|(_, _, state)| state.shift_boot(forward));
        (self.boot, self.wall) = (now.boot, now.wall);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::limit::{Rate, Rule, TokenBucket};

    #[test]
    fn a_saved_bucket_has_refilled_by_the_time_it_was_down() {
        let rule = Rule::TokenBucket(TokenBucket {
            rate: Rate::new(1, SECOND).unwrap(),
            burst: 100,
            initial: 100,
        });
        let then = Now { boot: 5_000 * SECOND, wall: 1_000_000 * SECOND };
        let mut state = State::fresh(&rule, then);
        state.take(&rule, 60, then);
        let mut saved = SavedState::at(then);
        saved.shared.push((7, state));

        // The machine was restarted too: its boot clock is younger, and ten seconds have passed on
        // the wall.
        let now = Now { boot: 3 * SECOND, wall: 1_000_010 * SECOND };
        saved.rebase(now);
        let state = &mut saved.shared[0].1;
        state.advance(&rule, 0, now);
        // What lies before the new boot clock's zero can't be told from zero: three of the ten
        // seconds are known.
        assert_eq!(state.remaining(&rule, now), 43);
    }

    #[test]
    fn what_was_saved_is_true_after_lives_that_decided_nothing_whether_or_not_they_were_given_the_seat()
     {
        let epoch = |number| Epoch::new(number);
        let saved = SavedState {
            epochs: vec![(Partition::all().next().unwrap(), epoch(2))],
            ..SavedState::at(Now::default())
        };
        let (once, twice) = (saved.passed_on(), saved.passed_on().passed_on());
        let numbers = |saved: &SavedState| {
            saved.epochs.iter().map(|(_, epoch)| epoch.number()).collect::<Vec<_>>()
        };
        assert_eq!((numbers(&once), numbers(&twice)), (vec![2, 3], vec![2, 3, 4]));
        assert!(epoch(4).follows(once.epochs[1].1) && !epoch(5).follows(once.epochs[1].1));
    }
}
