//! The policy of a cluster, as the door sees it: read at once, written through the log, and
//! answered once it is in force.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::member::{InForceAsk, Member};
use super::raft::ProposeError;
use super::state::{Edit, LogIndex, Made, OlderMembers, Refusal, What};
use crate::input::Fault;
use crate::placement::FormatLevel;
use crate::policy::{Change, ChangeError, Document, Policy};

/// How long an answer to a write waits for members that haven't put it into force.
const PENDING_AFTER: Duration = Duration::from_secs(1);

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

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version it made, or the one that it left as it was.
    pub version: u64,
    /// Whether it made a version. A change that asks for what is there already makes none.
    pub changed: bool,
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
    /// Another change of the settings came first.
    #[error("the settings are at version {actual}, the change expects {expected}")]
    StaleSettings {
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
    /// Members run a program that can't read it. Nothing has changed.
    #[error(transparent)]
    OlderMembers(OlderMembers),
    /// It can't be made durable. Nothing has changed.
    #[error("can't store the policy: {0}")]
    Storage(String),
    /// No leader was found in time. Nothing has changed.
    #[error("the cluster has no leader at the moment; nothing was changed")]
    NoLeader,
    /// The time was up while the change was on its way.
    #[error("whether the change was made is not known: look at the version before asking again")]
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

/// The outcome of a note, when it comes.
pub type Noting<'a> = Pin<Box<dyn Future<Output = Result<(), WriteError>> + Send + 'a>>;

/// The versioned policy of a cluster: read at once, written in one order, durable before an answer
/// is given.
pub trait PolicyStore: Send + Sync + 'static {
    /// The policy in force on this node.
    fn current(&self) -> Arc<Policy>;

    /// Whether the last change that was asked for could be made durable; true where none was.
    fn is_writable(&self) -> bool;

    /// Makes a change: whole, or not at all. Once it answers, every check asked from then on is
    /// decided by that version or a later one, on every node that is not named as pending.
    fn write(&self, proposal: Proposal) -> Writing<'_>;

    /// What made the versions that can be gone back to, newest first.
    fn history(&self) -> Vec<PastVersion>;

    /// The document at a version.
    fn document_at(&self, version: u64) -> Result<Document, WriteError>;

    /// Writes a line of the audit log, in the name of the token that asked. Errs where nothing was
    /// written, and where that isn't known.
    fn note(&self, what: String, by: String) -> Noting<'_>;

    /// The newest lines of the audit log before the one with the index `before`, newest first; at
    /// most `most`.
    fn audit(&self, before: Option<u64>, most: usize) -> Vec<AuditEntry>;
}

impl PolicyStore for Member {
    fn current(&self) -> Arc<Policy> {
        self.in_force.policy().load().clone()
    }

    fn is_writable(&self) -> bool {
        self.has_quorum()
    }

    fn write(&self, proposal: Proposal) -> Writing<'_> {
        Box::pin(self.make(proposal))
    }

    fn history(&self) -> Vec<PastVersion> {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return Vec::new() };
        let past = agreed.history.iter();
        past.map(|past| PastVersion {
            version: past.version,
            time: past.time,
            by: past.by.clone(),
            what: past.what.clone(),
        })
        .collect()
    }

    fn document_at(&self, version: u64) -> Result<Document, WriteError> {
        let view = self.raft.view();
        let agreed = view.state.agreed().ok_or(WriteError::NoLeader)?;
        agreed.document_at(version).map_err(|refusal| write_error(ProposeError::Refused(refusal)))
    }

    fn note(&self, what: String, by: String) -> Noting<'_> {
        Box::pin(
            async move { self.propose(What::Note(what), by).await.map(drop).map_err(write_error) },
        )
    }

    fn audit(&self, before: Option<u64>, most: usize) -> Vec<AuditEntry> {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return Vec::new() };
        let lines =
            agreed.audit.iter().rev().filter(|line| before.is_none_or(|before| line.at.0 < before));
        lines
            .take(most)
            .map(|line| AuditEntry {
                index: line.at.0,
                time: line.time,
                by: line.by.clone(),
                what: line.what.clone(),
            })
            .collect()
    }
}

impl Member {
    async fn make(&self, proposal: Proposal) -> Result<Written, WriteError> {
        let Proposal { wanted, expected, by } = proposal;
        let what = match wanted {
            Wanted::Change(change) => {
                // What the change says by saying nothing must not keep older members from reading
                // it.
                let change = match self.raft.view().state.level() {
                    FormatLevel::FIRST => change.at_first_level(),
                    _ => change,
                };
                What::Edit { expected, edit: Edit::from(&change) }
            }
            Wanted::Rollback(to) => What::Rollback { expected, to },
        };
        let command = self.command(what, by.clone());
        let request = command.request;
        let done = self.propose_command(command).await.map_err(write_error)?;
        let Made::Version(version) = done.made else {
            return Err(WriteError::Storage("an edit made no version".into()));
        };
        let pending = self.pending(done.at).await;
        // The leader makes no entry for what changes nothing, so nothing was done under the request
        // id.
        let view = self.raft.view();
        let is_done = view.state.agreed().is_none_or(|agreed| agreed.has_done(request));
        let changed = view.applied < done.at || is_done;
        match changed {
            true => tracing::info!(version, by, ?pending, "policy changed"),
            false => tracing::info!(version, by, "policy unchanged: it says this already"),
        }
        Ok(Written { version, changed, pending })
    }

    /// The members that haven't put the entry into force when a second has passed, or can't be
    /// asked.
    pub(super) async fn pending(&self, at: LogIndex) -> Vec<String> {
        let view = self.raft.view();
        let members = view.state.agreed().map(|agreed| agreed.members.clone()).unwrap_or_default();
        let asked = members.iter().map(async |(id, member)| {
            let reached = match id == self.me.node {
                true => tokio::time::timeout(PENDING_AFTER, self.reach(at)).await.is_ok(),
                false => match self.links.peer(id) {
                    Some(peer) => peer.raft().ask(&InForceAsk { at }, PENDING_AFTER).await.is_ok(),
                    None => false,
                },
            };
            (!reached).then(|| member.name.to_string())
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

pub(super) fn write_error(error: ProposeError) -> WriteError {
    match error {
        ProposeError::NoLeader => WriteError::NoLeader,
        ProposeError::Unknown | ProposeError::Stopped => WriteError::Unknown,
        ProposeError::OlderMembers(older) => WriteError::OlderMembers(older),
        ProposeError::TooLarge { .. } => {
            WriteError::Change(ChangeError::Invalid(vec![Fault::new("", error.to_string())]))
        }
        ProposeError::Refused(refusal) => match refusal {
            Refusal::Stale { expected, actual } => WriteError::Stale { expected, actual },
            Refusal::StaleSettings { expected, actual } => {
                WriteError::StaleSettings { expected, actual }
            }
            Refusal::NotFound(what) => ChangeError::NotFound(what).into(),
            Refusal::Invalid(_) => ChangeError::Invalid(refusal.faults()).into(),
            Refusal::NoSuchVersion { version, oldest, newest } => {
                WriteError::NoSuchVersion { version, oldest, newest }
            }
            Refusal::NotBegun => WriteError::NoLeader,
            other => WriteError::Storage(other.to_string()),
        },
    }
}
