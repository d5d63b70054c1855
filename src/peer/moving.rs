//! What one node knows of partitions, on its way to the node that is to own them next.
//!
//! It goes in parts, over the connection for bulk: first a copy, then what has changed since and
//! what is gone since. Every part says which move it is for, and what its sender's boot clock
//! shows, since the times in it are on that clock.

use serde::{Deserialize, Serialize};

use super::message::{Ask, Kind};
use crate::clock::Now;
use crate::limit::State;
use crate::placement::{Partition, TableVersion};
use crate::shard::AccountRecord;

/// A part of what is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstallAsk {
    /// The entry of the log that began the move of these partitions.
    pub of: TableVersion,
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// Nanoseconds of the sender's boot clock, as it sends this.
    pub boot: u64,
    /// Accounts, new or as they are now.
    pub accounts: Vec<AccountRecord>,
    /// Shared buckets, new or as they are now.
    pub shared: Vec<(u128, State)>,
    /// Accounts that may have been in an earlier part and hold no information any more.
    pub gone: Vec<String>,
    /// Partitions whose counts were lost, and when by the sender's clocks.
    pub lost: Vec<(Partition, Now)>,
    /// Whether it is the last part.
    pub is_last: bool,
}

impl Ask for InstallAsk {
    const KIND: Kind = Kind::BULK;
    /// Whether it is kept. It isn't where the log knows of no such move to this node.
    type Answer = bool;
}
