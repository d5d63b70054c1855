//! What one node knows of partitions, on its way to the node that is to own them next.
//!
//! It goes in parts, over the connection for bulk: first a copy, then what has changed since and
//! what is gone since. Every part says which move it is for, and what its sender's boot clock
//! shows, since the times in it are on that clock.

use serde::{Deserialize, Serialize};

use super::message::{Ask, Kind};
use super::plain::PlainDecision;
use crate::check::{Decision, RequestId};
use crate::limit::{Permits, State};
use crate::placement::{Partition, TableVersion};
use crate::shard::{MovedAccount, MovedReplay};

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
    pub accounts: Vec<PlainAccount>,
    /// Shared buckets, new or as they are now.
    pub shared: Vec<(u128, State)>,
    /// Accounts that may have been in an earlier part and hold no information any more.
    pub gone: Vec<String>,
    /// Partitions whose counts were lost, and when by the sender's clocks: boot, then wall
    /// nanoseconds.
    pub lost: Vec<(Partition, u64, u64)>,
    /// Whether it is the last part.
    pub is_last: bool,
}

impl Ask for InstallAsk {
    const KIND: Kind = Kind::BULK;
    /// Whether it is kept. It isn't where the log knows of no such move to this node.
    type Answer = bool;
}

/// An account, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainAccount {
    /// Its id.
    pub id: String,
    goes_on: bool,
    buckets: Vec<(u64, State)>,
    permits: Permits,
    replays: Vec<PlainReplay>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlainReplay {
    key: (u64, RequestId),
    fingerprint: u64,
    expires: u64,
    decision: PlainDecision,
    epoch: u64,
}

impl From<MovedAccount> for PlainAccount {
    fn from(account: MovedAccount) -> Self {
        let replay = |replay: MovedReplay| PlainReplay {
            key: replay.key,
            fingerprint: replay.fingerprint,
            expires: replay.expires,
            epoch: replay.decision.epoch,
            decision: replay.decision.into(),
        };
        Self {
            id: account.id,
            goes_on: account.goes_on,
            buckets: account.buckets,
            permits: account.permits,
            replays: account.replays.into_iter().map(replay).collect(),
        }
    }
}

impl TryFrom<PlainAccount> for MovedAccount {
    type Error = &'static str;
    fn try_from(plain: PlainAccount) -> Result<Self, &'static str> {
        let replay = |plain: PlainReplay| {
            let decision = Decision { epoch: plain.epoch, ..plain.decision.try_into()? };
            Ok(MovedReplay {
                key: plain.key,
                fingerprint: plain.fingerprint,
                expires: plain.expires,
                decision,
            })
        };
        Ok(Self {
            id: plain.id,
            goes_on: plain.goes_on,
            buckets: plain.buckets,
            permits: plain.permits,
            replays: plain.replays.into_iter().map(replay).collect::<Result<_, &'static str>>()?,
        })
    }
}
