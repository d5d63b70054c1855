//! What a shard exports of the state that it owns, in one form for every use.
//!
//! ```text
//! AccountRecord       one account: its buckets, its permits, the answers to its request ids
//! PartitionSnapshot   what is known of some partitions at one instant: their accounts, their
//!                     shared buckets, when counts of them were lost
//! PartitionDelta      what has changed since a snapshot: records as they are now, and the ids of
//!                     accounts that are gone
//!
//! graceful stop       Filter::Kept             snapshot → file → Mode::Restore
//! hand-off            Filter::Whole, ::Changed snapshot, delta → wire → Mode::Stage
//! back-up             Filter::Long             snapshot, a piece at a time → file → Mode::Restore
//! ```
//!
//! `export` makes them and `import` takes them. What is saved belongs to partitions under epochs. It
//! is of use only to the incarnation of the node that owns them next: if another one owned a
//! partition in between, the saved counts are not what was spent. Boot times are moved to the new
//! process's boot clock by way of the wall clock, so what refilled while the node was down has
//! refilled.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::account::{Account, Replay, ReplayKey};
use super::record::{self, RecordId};
use crate::check::Decision;
use crate::limit::{Permits, State, shifted};
use crate::placement::{Epoch, Partition, Place, Places, Secret};
use crate::time::Now;

/// Bytes that a permit takes, about.
const PERMIT_BYTES: usize = 64;

/// One account, or a part of a large one.
///
/// This is also its form on the wire of a hand-off: a member that is added or moved changes bytes
/// that older nodes read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// Its id: see [`RecordId`].
    pub id: String,
    /// Whether this adds to what was said of the account before, rather than being all of it.
    pub goes_on: bool,
    /// Its buckets.
    pub buckets: Vec<(u64, State)>,
    /// Its permits.
    pub permits: Permits,
    /// The answers to its request ids.
    pub replays: Vec<ReplayRecord>,
}

/// An answer that a repetition of its request id gets again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// The hash of the account that sent the id, and the id.
    pub key: ReplayKey,
    /// Of the check that it answered.
    pub fingerprint: u64,
    /// Boot nanoseconds.
    pub expires: u64,
    /// The answer.
    #[serde(with = "crate::plain::kept")]
    pub decision: Decision,
}

impl AccountRecord {
    /// An account of which nothing is known yet.
    pub fn empty(id: String) -> Self {
        Self {
            id,
            goes_on: false,
            buckets: Vec::new(),
            permits: Permits::default(),
            replays: Vec::new(),
        }
    }

    /// All of `account`, under the id `id`.
    pub(super) fn of(account: &Account, id: RecordId<'_>) -> Self {
        let extras = account.extras.as_ref();
        let replay = |(key, replay): (&ReplayKey, &Replay)| ReplayRecord {
            key: key.clone(),
            fingerprint: replay.fingerprint,
            expires: replay.expires,
            decision: (*replay.decision).clone(),
        };
        Self {
            id: id.to_string(),
            goes_on: false,
            buckets: account.buckets.iter().map(|(key, state)| (key, state.clone())).collect(),
            permits: extras.map(|extras| extras.permits.clone()).unwrap_or_default(),
            replays: extras.map_or(Vec::new(), |e| e.replays.iter().map(replay).collect()),
        }
    }

    /// Since when, in boot nanoseconds, it is not known which permits of `partition` are in flight.
    pub fn permits_lost(partition: Partition, then: u64) -> Self {
        let id = RecordId::PermitsLost(partition).to_string();
        Self { permits: record::lost_since(partition, then), ..Self::empty(id) }
    }

    /// Bytes it takes, about.
    pub fn bytes(&self) -> usize {
        let buckets: usize = self.buckets.iter().map(|(_, state)| state.bytes()).sum();
        let permits = self.permits.flying() as usize * PERMIT_BYTES;
        self.id.len() + buckets + permits + self.replays.len() * size_of::<ReplayRecord>()
    }

    /// Returns the same in parts of about `most` bytes. The first replaces what was said of the
    /// account before, the others add to it.
    pub fn cut(self, most: usize) -> Vec<Self> {
        if self.bytes() <= most {
            return vec![self];
        }
        let Self { id, goes_on, buckets, permits, replays } = self;
        let empty = |goes_on| Self { goes_on, ..Self::empty(id.clone()) };
        let (mut parts, mut size) = (vec![empty(goes_on)], 0);
        let mut next = |parts: &mut Vec<Self>, bytes: usize| {
            if size + bytes > most {
                parts.push(empty(true));
                size = 0;
            }
            size += bytes;
            parts.len() - 1
        };
        for (key, state) in buckets {
            let at = next(&mut parts, state.bytes());
            parts[at].buckets.push((key, state));
        }
        for (permit, until) in permits.out() {
            let at = next(&mut parts, PERMIT_BYTES);
            parts[at].permits.grant(permit, until);
        }
        for replay in replays {
            let at = next(&mut parts, size_of::<ReplayRecord>());
            parts[at].replays.push(replay);
        }
        parts
    }

    fn shift_boot(&mut self, forward: i128) {
        self.buckets.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
        self.permits.shift_boot(forward);
        self.replays
            .iter_mut()
            .for_each(|replay| replay.expires = shifted(replay.expires, forward));
    }
}

/// What is known of some partitions, at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionSnapshot {
    /// The instant, by the clocks of the node that knew it.
    pub at: Now,
    /// The partitions that were owned, and under which epochs: more than one where incarnations
    /// came in between that decided nothing.
    pub epochs: Vec<(Partition, Epoch)>,
    /// Partitions whose counts were lost earlier, and when.
    pub lost: Vec<(Partition, Now)>,
    /// Accounts that are not empty.
    pub accounts: Vec<AccountRecord>,
    /// Shared buckets.
    pub shared: Vec<(u128, State)>,
    /// Those that stand in for others beyond a cap, with the shard that they are in.
    pub overflow: Vec<(usize, u128, State)>,
}

/// What has changed of some partitions since they were exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionDelta {
    /// What has changed, as it is now.
    pub known: PartitionSnapshot,
    /// Accounts that are empty now and may not have been.
    pub gone: Vec<String>,
}

impl PartitionDelta {
    /// Nothing, as of `now`.
    pub fn at(now: Now) -> Self {
        Self { known: PartitionSnapshot::at(now), ..Self::default() }
    }

    /// Bytes it takes, about.
    pub fn bytes(&self) -> usize {
        self.known.bytes()
    }

    /// Adds what else the node knows.
    pub fn add(&mut self, other: Self) {
        self.known.add(other.known);
        self.gone.extend(other.gone);
    }
}

impl PartitionSnapshot {
    /// Nothing yet, as of `now`.
    pub fn at(now: Now) -> Self {
        Self { at: now, ..Self::default() }
    }

    /// Bytes its accounts and shared buckets take, about.
    pub fn bytes(&self) -> usize {
        let accounts: usize = self.accounts.iter().map(AccountRecord::bytes).sum();
        accounts + self.shared.iter().map(|(_, state)| state.bytes()).sum::<usize>()
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
            all.add(next);
            all
        })
    }

    /// Adds what another shard of the same node knows.
    pub fn add(&mut self, other: Self) {
        self.at = self.at.max(other.at);
        self.epochs.extend(other.epochs);
        self.lost.extend(other.lost);
        self.accounts.extend(other.accounts);
        self.shared.extend(other.shared);
        self.overflow.extend(other.overflow);
    }

    /// Says that the permits of all its partitions were lost at wall time `wall`, which is no
    /// earlier than the instant of this state.
    pub fn lose_permits(&mut self, wall: u64) {
        let then = self.at.boot.saturating_add(wall.saturating_sub(self.at.wall));
        let partitions = self.epochs.iter().map(|(partition, _)| *partition);
        let lost = partitions.map(|partition| AccountRecord::permits_lost(partition, then));
        self.accounts.extend(lost);
    }

    /// The partitions of it that `places` has here as the next that owned them.
    pub fn still_true(&self, places: &Places) -> BTreeSet<Partition> {
        let is_next = |(partition, epoch): &&(Partition, Epoch)| match places.of(*partition) {
            Place::Here(now) => now.follows(*epoch),
            Place::There(..) => false,
        };
        self.epochs.iter().filter(is_next).map(|(partition, _)| *partition).collect()
    }

    /// The same on the clocks of another node, which reads `now` as this one's are read: no time
    /// passes on the way, and the two walls are not compared.
    pub fn as_read_at(mut self, now: Now) -> Self {
        self.at.wall = now.wall;
        self.rebase(now);
        self
    }

    /// What an incarnation leaves to the next that has never heard that it was registered, and so
    /// has decided nothing. It may have been registered all the same: then the partitions are under
    /// one epoch more, and no check was decided under it.
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
        let mut long = Self::at(self.at);
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
                long.accounts.push(AccountRecord { buckets, ..AccountRecord::empty(account.id) });
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
        let down = i128::from(now.wall.saturating_sub(self.at.wall));
        let forward = i128::from(now.boot) - i128::from(self.at.boot) - down;
        self.accounts.iter_mut().for_each(|account| account.shift_boot(forward));
        self.shared.iter_mut().for_each(|(_, state)| state.shift_boot(forward));
        self.lost.iter_mut().for_each(|(_, then)| then.boot = shifted(then.boot, forward));
        self.overflow.iter_mut().for_each(|(_, _, state)| state.shift_boot(forward));
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Rate, Rule, TokenBucket};
    use crate::time::SECOND;

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
        let mut saved = PartitionSnapshot::at(then);
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
    fn what_was_saved_outlives_incarnations_that_decided_nothing() {
        let epoch = |number| Epoch::new(number);
        let saved = PartitionSnapshot {
            epochs: vec![(Partition::all().next().unwrap(), epoch(2))],
            ..PartitionSnapshot::at(Now::default())
        };
        let (once, twice) = (saved.passed_on(), saved.passed_on().passed_on());
        let numbers = |saved: &PartitionSnapshot| {
            saved.epochs.iter().map(|(_, epoch)| epoch.number()).collect::<Vec<_>>()
        };
        assert_eq!((numbers(&once), numbers(&twice)), (vec![2, 3], vec![2, 3, 4]));
        assert!(epoch(4).follows(once.epochs[1].1) && !epoch(5).follows(once.epochs[1].1));
    }
}
