//! What the nodes agree on: the policy and its version, who the members are, who owns which partition, and the secret under
//! which keys are hashed.
//!
//! `state` is all that and how an entry of the log changes it, pure; `raft` is the log. `claim` says who a node is, `links` are
//! the ways to the other members, `handoff` moves partitions between them, `member` is this node's part: it proposes, and puts
//! what was agreed on into force (`in_force`), which is what shards and routing go by. `lost` makes sure that nobody begins anew
//! whose data is lost, `admin` takes orders about the members, `steward` carries them out on the leader, and `voters` says who
//! should vote. `anew` makes a cluster anew of one node that is left or of a
//! back-up, which `backup` reads and writes. The door sees the cluster through two traits: [`PolicyStore`] and [`Membership`].

mod acquaintances;
mod admin;
pub mod anew;
pub mod backup;
pub mod claim;
pub mod handoff;
mod in_force;
pub mod links;
mod lost;
mod member;
pub mod raft;
pub mod state;
mod status;
mod steward;
mod voters;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use crate::peer::{Lineage, RECOVERIES_MAX};
pub use admin::{Administering, Denied, Granted, Order, OrderAsk};
pub use in_force::InForce;
pub use lost::{Known, KnownAsk};
pub use member::{InForceAsk, Initial, Member, MemberArgs, MemberError, SeedNode};
pub use status::{
    BreakerStatus, ClusterStatus, Looking, Membership, MovesStatus, NodeState, NodeStatus, Readiness,
};

use crate::policy::{Change, ChangeError, Document, Policy};

/// What somebody wants of the policy.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A change.
    Change(Change),
    /// An earlier version, as a new one.
    Rollback(u64),
}

/// A change that somebody wants made.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The change.
    pub wanted: Wanted,
    /// The version it was made for; none takes whatever is there.
    pub expected: Option<u64>,
    /// The name of the token that asks for it.
    pub by: String,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version it made.
    pub version: u64,
    /// Nodes that hadn't put it into force when the answer was given.
    pub pending: Vec<String>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else was quicker.
    #[error("the policy is at version {actual}, the change expects {expected}")]
    Stale {
        /// What the change was made for.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// The change itself can't be made.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A version that is asked for isn't remembered.
    #[error("version {version} is not remembered: there are {oldest} to {newest}")]
    NoSuchVersion {
        /// What was asked for.
        version: u64,
        /// The oldest that there is.
        oldest: u64,
        /// The newest that there is.
        newest: u64,
    },
    /// It can't be made durable. Nothing has changed.
    #[error("can't store the policy: {0}")]
    Storage(String),
    /// No leader was found in time. Nothing has changed.
    #[error("the cluster has no leader at the moment; nothing was changed")]
    NoLeader,
    /// The time was up while the change was on its way.
    #[error("whether the change was made is not known: look at the policy's version before asking again")]
    Unknown,
}

/// A version of the policy, and what made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastVersion {
    /// The version.
    pub version: u64,
    /// When, wall nanoseconds.
    pub time: u64,
    /// The name of the token that asked for it.
    pub by: String,
    /// What was done, in a few words.
    pub what: String,
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The entry of the log that it was: rises, and names the line.
    pub index: u64,
    /// When, wall nanoseconds.
    pub time: u64,
    /// The name of the token that asked for it.
    pub by: String,
    /// What was done, in a few words.
    pub what: String,
}

/// The outcome of a write, when it comes.
pub type Writing<'a> = Pin<Box<dyn Future<Output = Result<Written, WriteError>> + Send + 'a>>;

/// The versioned policy of a cluster: read at once, written in one order, durable before an answer is given.
pub trait PolicyStore: Send + Sync + 'static {
    /// The policy in force on this node.
    fn current(&self) -> Arc<Policy>;

    /// Whether the last change that was asked for could be made durable; true where none was.
    fn is_writable(&self) -> bool;

    /// Makes a change: whole, or not at all. Once it answers, every check asked from then on is decided by that version or
    /// a later one, on every node that is not named as pending.
    fn write(&self, proposal: Proposal) -> Writing<'_>;

    /// What made the versions that can be gone back to, newest first.
    fn history(&self) -> Vec<PastVersion>;

    /// The document at a version.
    fn document_at(&self, version: u64) -> Result<Document, WriteError>;

    /// The newest lines of the audit log before the one with the index `before`, newest first; at most `most`.
    fn audit(&self, before: Option<u64>, most: usize) -> Vec<AuditEntry>;
}
