//! Partitions whose counts were lost with the process that had them.
//!
//! A node that was killed starts again with an empty memory, or is given up for others, and no node
//! knows what its tenants had spent. If their buckets began fresh, every crash would be a refund.
//! So a bucket of such a partition begins exhausted as of the loss: it refills from there on, and
//! admits nothing that an uninterrupted bucket wouldn't have. A limit of ten in an hour lets no
//! check pass for up to an hour after a crash, and never eleven.
//!
//! That is for limits that are full again within [`LOST_MAX`]; a tenant can't be kept out for a
//! month because a machine died, so longer limits begin fresh. A node that is alone begins all
//! buckets fresh: no other node could have been asked meanwhile.
//!
//! **Permits** are different: a permit that was granted before the loss is in flight whether or not
//! any node knows it. So a partition whose permits were lost is *cold*: for as long as a permit of
//! the tier may run it grants none, on a node that is alone too. By then each permit has expired or
//! was renewed, and a renewed permit counts again:
//!
//! ```text
//! max_concurrent = 5, max_permit_ttl = "5m", and five permits are in flight
//! 12:00:00   the owner is killed and starts again: cold until 12:05:00
//! 12:01:00   two of the five are renewed, for 4 minutes each: two are in flight that this node knows
//! 12:02:00   a check is denied for another 180 s: the other three may be in flight
//! 12:04:00   a second crash: cold until 12:09:00, since the two run until 12:05:00 and may be renewed
//! ```
//!
//! What was lost goes along when a partition moves and lies among what a graceful stop saves. It is
//! forgotten once it has no effect any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::PermitId;
use crate::limit::{Rule, State};
use crate::placement::Partition;
use crate::policy::PERMIT_TTL_MOST;
use crate::time::{Now, SECOND};

/// The longest time in which a limit that begins as spent is whole again, in nanoseconds: a day.
pub const LOST_MAX: u64 = 24 * 3_600 * SECOND;
/// Permits of cold partitions that one shard enters again or takes back, until none is cold: some
/// 40 MiB. Beyond it none is entered.
const SEEN_MAX: usize = 262_144;

/// When the counts of which partition were lost, and when its permits.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    counts: BTreeMap<Partition, Now>,
    /// Boot nanoseconds at which it stopped to be known which permits are in flight.
    permits: BTreeMap<Partition, u64>,
    /// Permits of cold partitions that were entered again or given back: from then on it is known
    /// whether they are in flight.
    seen: BTreeSet<PermitId>,
}

impl Lost {
    /// The counts and the permits of these were lost at `now`.
    pub fn lose(&mut self, partitions: impl Iterator<Item = Partition>, now: Now) {
        partitions.for_each(|partition| self.insert(partition, now));
    }

    /// The counts and the permits of a partition were lost at `then`.
    pub fn insert(&mut self, partition: Partition, then: Now) {
        self.counts.insert(partition, then);
        self.insert_permits(partition, then.boot);
    }

    /// The permits of a partition were lost at boot time `then`, or later if that is known already.
    pub fn insert_permits(&mut self, partition: Partition, then: u64) {
        let known = self.permits.entry(partition).or_insert(then);
        *known = then.max(*known);
    }

    /// When the counts of a partition were lost, if they were.
    pub fn get(&self, partition: Partition) -> Option<Now> {
        self.counts.get(&partition).copied()
    }

    /// When the permits of a partition were lost, boot nanoseconds, if they were.
    pub fn permits(&self, partition: Partition) -> Option<u64> {
        self.permits.get(&partition).copied()
    }

    /// When the permits of a partition were lost, where [`Lost::get`] doesn't say it.
    pub fn permits_alone(&self, partition: Partition) -> Option<u64> {
        self.permits(partition)
            .filter(|then| self.get(partition).map(|then| then.boot) != Some(*then))
    }

    /// Partitions whose permits were lost.
    pub fn cold(&self) -> usize {
        self.permits.len()
    }

    /// The boot time until which a partition grants no permit that could run for `most`
    /// nanoseconds; none where it grants permits.
    pub fn cold_until(&self, partition: Partition, most: u64, now: Now) -> Option<u64> {
        let until = self.permits(partition)?.saturating_add(most);
        (until > now.boot).then_some(until)
    }

    /// Takes note that a permit of a cold partition was given back: it is not entered again.
    pub fn give_back(&mut self, id: PermitId) {
        let is_cold = Partition::new(id.partition).is_some_and(|p| self.permits.contains_key(&p));
        if is_cold && self.seen.len() < SEEN_MAX {
            self.seen.insert(id);
        }
    }

    /// Whether a permit of a partition that is cold until `most` nanoseconds after the loss may be
    /// entered as it is renewed: once at most.
    pub fn may_enter(&self, id: PermitId, most: u64, now: Now) -> bool {
        let partition = Partition::new(id.partition);
        let is_cold =
            partition.is_some_and(|partition| self.cold_until(partition, most, now).is_some());
        is_cold && self.seen.len() < SEEN_MAX && !self.seen.contains(&id)
    }

    /// Takes note that a permit was entered again.
    pub fn enter(&mut self, id: PermitId) {
        self.seen.insert(id);
    }

    /// Forgets a loss: the partition is another node's.
    pub fn remove(&mut self, partition: Partition) {
        self.counts.remove(&partition);
        self.permits.remove(&partition);
    }

    /// Forgets what has no effect any more.
    pub fn expire(&mut self, now: Now) {
        self.counts.retain(|_, then| now.boot.saturating_sub(then.boot) < LOST_MAX);
        self.permits.retain(|_, then| now.boot.saturating_sub(*then) < PERMIT_TTL_MOST);
        if self.permits.is_empty() {
            self.seen.clear();
        }
    }

    /// The state of a bucket that no check has asked here yet.
    pub fn newborn(&self, partition: Partition, rule: &Rule, now: Now) -> State {
        if !self.counts.is_empty()
            && let Some(then) = self.get(partition)
            && rule.window().is_some_and(|window| window <= LOST_MAX)
        {
            return State::spent(rule, then, now);
        }
        State::fresh(rule, now)
    }
}
