//! The clock of a simulated node: the simulation's time, from a boot of its own on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::clock::{Clock, Now, SECOND};

/// When simulations begin, since the Unix epoch.
const EPOCH: u64 = 1_800_000_000 * SECOND;

/// See the module.
pub struct SimulatedClock {
    boot: u64,
    /// For whoever asks while the host is being taken down, where turmoil knows no time.
    latest: AtomicU64,
}

impl SimulatedClock {
    /// Of a machine that has been up for so long when the simulation begins.
    pub fn up_for(time: Duration) -> Self {
        Self { boot: time.as_nanos() as u64, latest: AtomicU64::new(0) }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Now {
        let elapsed = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_nanos() as u64);
        let elapsed = self.latest.fetch_max(elapsed, Ordering::Relaxed).max(elapsed);
        Now { boot: self.boot + elapsed, wall: EPOCH + elapsed }
    }
}
