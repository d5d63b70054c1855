//! The mind of a shard, which owns the state of the tenants in its partitions and decides, alone,
//! one message at a time.
//!
//! `core` is a plain struct that takes a message and the time and returns effects (`effect`), so
//! that a test can play any interleaving of several shards without a runtime. Nothing in this
//! folder knows a runtime, a channel, a file or a clock; the body that has them is
//! `crate::actor`.
//!
//! A check on its way is an `op`; `resolve` finds what it demands, `judge` asks its own limits,
//! `coordinate` the shared ones; most checks need none of that and are decided `at_once`.
//! `account`, `accounts` and `slab` are what a shard remembers of tenants, `shared` the buckets
//! that tenants share and the holds on them, `upkeep` the rest of its work. `snapshot` is the form
//! in which accounts and buckets leave a shard and come to one (`export`, `import`): for a graceful
//! stop, a hand-off, a back-up. `tally` is what it counts of its own work, `alone` a shard without anything
//! around it.

mod account;
mod accounts;
mod alone;
mod at_once;
mod coordinate;
mod core;
mod effect;
mod export;
mod forget;
mod import;
mod judge;
mod lost;
mod moving;
mod op;
mod plans;
mod record;
mod resolve;
mod shared;
mod slab;
mod snapshot;
mod stored_counts;
mod tally;
mod top;
mod upkeep;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::check::{Check, Name};
use crate::placement::{AccountHash, Epoch};
use crate::policy::PermitTooLong;

pub use self::core::{Caps, Listed, Shard, TenantState};
pub use alone::Alone;
pub use at_once::AtOnce;
pub use effect::{Effect, ReplyId};
pub use export::{Cursor, Export, Filter};
pub use forget::{Forget, Forgotten, ForgottenLimit, SpentPart};
pub use import::Mode;
pub use op::{Answer, Decisions, Home, OpId, OpRef, Said};
pub use record::partition_of;
pub use shared::{Ask, HOLD_MAX, Reply};
pub use snapshot::{AccountRecord, PartitionDelta, PartitionSnapshot, ReplayRecord};
pub use stored_counts::StoredCounts;
pub use tally::{ByMode, Counts, Levels, OTHERS, Reading, Scope, TIERS_MAX, WAIT_BOUNDS, Waits};
pub use top::{Outcomes, TENANTS_MAX};

/// Why a shard gave no decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request names a tier that doesn't exist.
    #[error("there is no tier {0}")]
    UnknownTier(Name),
    /// The request brings limits along, and its tier refuses that.
    #[error("tier {0} takes no limits from requests")]
    LimitsRefused(Name),
    /// A permit is asked for or renewed for longer than its tier allows.
    #[error(transparent)]
    PermitTooLong(#[from] PermitTooLong),
    /// The request id was used for another check within the last minute.
    #[error("the request id was used for another check")]
    RequestIdReused,
    /// One check of several that belong together was refused, and so all are.
    #[error("{1}")]
    InBatch(usize, Box<Refusal>),
    /// A mailbox or a table is full, or the deadline passed before all limits had answered.
    #[error("too busy to decide in time")]
    Busy,
    /// Nobody who may decide could be asked in time: the tenant's owner is unreachable, or nobody
    /// owns it yet. No shard says so; whoever looks for the owner does.
    #[error("the node that owns this tenant can't be reached")]
    Unreachable,
    /// The node has not started within the check's deadline; the text says what it lacks. No shard
    /// says so.
    #[error("{0}")]
    NotStarted(Arc<String>),
    /// The node that owns the tenant runs an older version, which knows no such order. As above, no
    /// shard says so.
    #[error(
        "node {0}, which owns this tenant, runs an older version that can't do this; nothing was \
         done there"
    )]
    Older(Name),
    /// The partition is not this node's any more, or is about to be another's. Nothing was judged;
    /// the questions come back, to be asked where it is now.
    #[error("the tenant is owned by another node now")]
    Moved(Returned),
}

/// Questions that come back unjudged.
#[derive(Clone, Debug)]
pub struct Returned(Box<SmallVec<[Question; 1]>>);

impl Returned {
    fn new(questions: SmallVec<[Question; 1]>) -> Self {
        Self(Box::new(questions))
    }

    /// The questions, in the order in which they were asked.
    pub fn questions(self) -> impl Iterator<Item = Question> {
        self.0.into_iter()
    }
}

/// Refusals are compared by why they were made.
impl PartialEq for Returned {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Returned {}

impl Refusal {
    /// Its kind in one word, as metrics name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownTier(_) => "unknown_tier",
            Self::LimitsRefused(_) => "limits_refused",
            Self::PermitTooLong(_) => "permit_too_long",
            Self::RequestIdReused => "request_id_reused",
            Self::InBatch(_, why) => why.kind(),
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::NotStarted(_) => "not_started",
            Self::Older(_) => "older",
            Self::Moved(_) => "moved",
        }
    }
}

/// What a caller wants of a shard.
#[derive(Clone, Debug)]
pub struct Question {
    /// The check.
    pub check: Check,
    /// The hash of its account, computed at the door.
    pub hash: AccountHash,
    /// The epoch under which this node owns its partition, as whoever sent it here knows.
    pub epoch: Epoch,
}
