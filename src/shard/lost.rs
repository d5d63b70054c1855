//! Partitions whose counts were lost with the process that had them.
//!
//! A node that was killed comes back with an empty memory, or is given up for others, and what its tenants had spent is known to nobody. If it began them
//! afresh, every crash would be a refund. So a bucket of such a partition begins as if everything had been taken of it when it
//! was lost: it refills from there on, and admits nothing that an uninterrupted one wouldn't have. A limit of ten in an hour lets
//! nobody pass for up to an hour after a crash, and never eleven.
//!
//! That is for limits that are whole again within [`LOST_MAX`]; a tenant can't be kept out for a month because a machine died, so
//! longer ones begin afresh. What was lost goes along when a partition moves, and is forgotten once it has no effect any more.
//! A node that is alone begins everything afresh: nobody else could have been asked meanwhile.

use std::collections::BTreeMap;

use crate::clock::{Now, SECOND};
use crate::limit::{Rule, State};
use crate::placement::Partition;

/// The longest time in which a limit that begins as spent is whole again, in nanoseconds: a day.
pub const LOST_MAX: u64 = 24 * 3_600 * SECOND;

/// When which partition was lost.
#[derive(Clone, Debug, Default)]
pub struct Lost(BTreeMap<Partition, Now>);

impl Lost {
    /// These were lost at `now`.
    pub fn lose(&mut self, partitions: impl Iterator<Item = Partition>, now: Now) {
        self.0.extend(partitions.map(|partition| (partition, now)));
    }

    /// This one was lost at `then`.
    pub fn insert(&mut self, partition: Partition, then: Now) {
        self.0.insert(partition, then);
    }

    /// When it was lost, if it was.
    pub fn get(&self, partition: Partition) -> Option<Now> {
        self.0.get(&partition).copied()
    }

    /// Forgets that it was: it is somebody else's.
    pub fn remove(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Forgets what has no effect any more.
    pub fn expire(&mut self, now: Now) {
        self.0.retain(|_, then| now.boot.saturating_sub(then.boot) < LOST_MAX);
    }

    /// The state of a bucket that nobody has asked here yet.
    pub fn newborn(&self, partition: Partition, rule: &Rule, now: Now) -> State {
        if !self.0.is_empty()
            && let Some(then) = self.get(partition)
            && rule.window().is_some_and(|window| window <= LOST_MAX)
        {
            return State::spent(rule, then, now);
        }
        State::fresh(rule, now)
    }
}
