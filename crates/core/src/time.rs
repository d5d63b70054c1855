//! Times, as the core is told them.
//!
//! *Boot* time only ever rises and counts suspends: rates, leases, holds and permits live on it.
//! *Wall* time (UTC) serves aligned windows and quotas. Both are nanoseconds in a `u64`.

use serde::{Deserialize, Serialize};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// One reading of both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Now {
    /// Since boot; never goes back.
    pub boot: u64,
    /// Since the Unix epoch, UTC; never goes back within a process.
    pub wall: u64,
}
