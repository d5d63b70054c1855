//! What passes between this node and others for the sake of checks, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was counted since the process began.
#[derive(Debug, Default)]
pub struct ForwardCounts {
    /// Checks that were forwarded and answered.
    pub forwarded: Count,
    /// Checks whose owner couldn't be asked in time.
    pub unreachable: Count,
    /// Forwards that were sent again under the same number, since the first may have been charged.
    pub resent: Count,
    /// Forwards that an owner declined, because it isn't (under that epoch), and that went on
    /// elsewhere.
    pub moved: Count,
    /// Forwards of others that were decided here.
    pub received: Count,
    /// Forwards of others that came again and were answered as before.
    pub repeated: Count,
    /// Forwards of others that this node declined, because it isn't the owner under their epoch.
    pub not_owner: Count,
    /// Forwards of others whose number is too old to be told from a repetition.
    pub too_old: Count,
    /// Forwards of others that had to wait until this node went by what the router went by.
    pub caught_up: Count,
    /// Questions to shared limits on other nodes.
    pub shared_asks: Count,
    /// Questions of other nodes to shared limits here.
    pub shared_asked: Count,
}
