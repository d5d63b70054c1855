//! What the nodes agree on: the policy and its version, and the secret under which keys are hashed.
//!
//! Everything that writes or reads the policy does so through [`PolicyStore`]. [`LocalStore`] keeps it durable for one node.

mod local;
pub mod raft;
pub mod state;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use local::{LocalStore, OpenError, Where};

use crate::policy::{Change, ChangeError, Policy};

/// A change that somebody wants made.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The change.
    pub change: Change,
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
    /// It can't be made durable. Nothing has changed.
    #[error("can't store the policy: {0}")]
    Storage(String),
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
}
