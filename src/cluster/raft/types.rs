//! The types that openraft is told to work with, and short names for its own.

use openraft::alias;

use super::runtime::Runtime;
use crate::cluster::state::{Command, Done, Refusal};
use crate::placement::NodeId;
use crate::random::Seed;

pub use crate::cluster::membership::Address;

/// What applying an entry answers: nothing for entries of openraft's own, else what became of the
/// command.
pub type Answer = Option<Result<Done, Refusal>>;

openraft::declare_raft_types!(
    /// Tidegate's choice of openraft's types.
    pub TypeConfig:
        D = Command,
        R = Answer,
        NodeId = NodeId,
        Node = Address,
        AsyncRuntime = Runtime,
);

/// Runs `future` where openraft finds a seed: its tasks, and all that they spawn, draw their jitter
/// from there. Outside of it openraft can't begin a task.
pub(super) fn seeded<F: Future>(seed: &Seed, future: F) -> impl Future<Output = F::Output> {
    Runtime::scope(seed.fork("raft", 0).next_u64(), future)
}

pub(super) type Entry = alias::EntryOf<TypeConfig>;
pub(super) type LogId = alias::LogIdOf<TypeConfig>;
pub(super) type Vote = alias::VoteOf<TypeConfig>;
pub(super) type Membership = alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot's data: bytes that only [`super::machine`] understands.
pub(super) type SnapshotData = Vec<u8>;
pub(super) type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;
