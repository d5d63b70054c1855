//! What is proposed, and what is answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Edit, Leaving, LogIndex, NewMember, Setting};
use crate::check::Name;
use crate::input::Fault;
use crate::placement::{BootId, Epoch, FormatLevel, NodeId, Partition, Secret, Weight};
use crate::policy::ChangeError;

/// Names one command however often it is proposed; a random number, so that no two clients draw the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u128);

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// A command that was done isn't done again under the same id.
    pub request: RequestId,
    /// When it was proposed: wall nanoseconds of the proposer, since all nodes have to agree on it.
    pub time: u64,
    /// The name of the token that asks for it; at most [`BY_BYTES_MAX`].
    pub by: String,
    /// What is to be done.
    pub what: What,
}

/// Bytes of the name of whoever asks.
pub const BY_BYTES_MAX: usize = 256;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}: {}", self.request.0, self.what)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The very first command: what the cluster begins with. Version 1 of the policy.
    Begin {
        /// The key of the hashes.
        secret: SecretWords,
        /// The policy, as JSON.
        document: String,
        /// The members; their ids are 1, 2, 3, … in this order.
        members: Vec<NewMember>,
    },
    /// A change of the policy.
    Edit {
        /// The version it was made for; none takes whatever is there.
        expected: Option<u64>,
        /// The change.
        edit: Edit,
    },
    /// An earlier version of the policy, as a new one.
    Rollback {
        /// The version this was asked for; none takes whatever is there.
        expected: Option<u64>,
        /// The version to be had again.
        to: u64,
    },
    /// A new member.
    Admit(NewMember),
    /// A member that is leaving is none any more, and its id goes with it.
    Remove(NodeId),
    /// A member is to own nothing any more; or may own again, and stays if it was leaving.
    Drain(NodeId, bool),
    /// That life of a member is about to end, and hands over what it owns first.
    Stop(NodeId, BootId),
    /// Partitions begin to move, each to a member: its owner hands over what it knows. At most
    /// [`MOVES_MAX`].
    BeginMoves(Vec<(Partition, Epoch, NodeId)>),
    /// Moves are done: the partition, and the entry that began its move. At most [`MOVES_MAX`].
    CommitMoves(Vec<(Partition, LogIndex)>),
    /// Moves are given up.
    AbortMoves(Vec<(Partition, LogIndex)>),
    /// A process of a member is there: what the member is placed to own is owned by that life of
    /// it.
    Seat(NodeId, Seating),
    /// A member is to leave.
    Leave(NodeId, Leaving),
    /// A member is to take more of the load, or less.
    Weigh(NodeId, Weight),
    /// [`What::Begin`] for members that all read this level: the cluster is at it from the start.
    Found {
        /// The level of every member.
        level: FormatLevel,
        /// The key of the hashes.
        secret: SecretWords,
        /// The policy, as JSON.
        document: String,
        /// The members; their ids are 1, 2, 3, … in this order.
        members: Vec<NewMember>,
        /// The round trip that Raft's timers are to allow, as the founder's configuration says.
        round_trip_ms: u64,
    },
    /// Every member reads this level: the cluster is at it from now on.
    RaiseLevel(FormatLevel, NodeId),
    /// [`What::Seat`] with the level that the process reads, and the round trip in milliseconds
    /// that its timers allow.
    Register(NodeId, Seating, FormatLevel, u64),
    /// Something was asked for that changes nothing here, in a few words for the audit log. At most
    /// [`NOTE_BYTES_MAX`].
    Note(String),
    /// A new value of one of the cluster's settings.
    Set {
        /// The version of the settings it was made for; none takes whatever is there.
        expected: Option<u64>,
        /// The value.
        setting: Setting,
    },
}

/// Bytes of a note for the audit log.
pub const NOTE_BYTES_MAX: usize = 2_048;

impl What {
    /// The format level that a member needs to read this command and what it leaves in the state.
    ///
    /// A new variant joins the end of the enum and names its level here. It is proposed only where
    /// the cluster is at that level ([`Agreed::refuse_older`](super::Agreed::refuse_older)).
    pub fn needs(&self) -> FormatLevel {
        match self {
            Self::Found { level, .. } | Self::RaiseLevel(level, _) => *level,
            Self::Register(..) | Self::Note(_) => FormatLevel::SECOND,
            Self::Set { setting, .. } => setting.needs(),
            Self::Edit { edit, .. } => edit.needs(),
            Self::Begin { .. }
            | Self::Rollback { .. }
            | Self::Admit(_)
            | Self::Remove(_)
            | Self::Drain(..)
            | Self::Stop(..)
            | Self::BeginMoves(_)
            | Self::CommitMoves(_)
            | Self::AbortMoves(_)
            | Self::Seat(..)
            | Self::Leave(..)
            | Self::Weigh(..) => FormatLevel::FIRST,
        }
    }

    /// The level that the command brings the cluster to. Its proposer has asked all members, so it
    /// is taken at any level.
    pub fn raises_to(&self) -> Option<FormatLevel> {
        match self {
            Self::Found { level, .. } | Self::RaiseLevel(level, _) => Some(*level),
            _ => None,
        }
    }
}

/// Members run a program that can't read what is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OlderMembers {
    /// The level that the command needs.
    pub needs: FormatLevel,
    /// The level that the cluster is at.
    pub level: FormatLevel,
    /// The names of the members whose programs don't read it, as far as the proposer knows.
    pub older: Vec<String>,
}

impl std::error::Error for OlderMembers {}

impl fmt::Display for OlderMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needs, level, older } = self;
        write!(f, "this needs format level {needs}, and the cluster is at level {level}: ")?;
        match older.as_slice() {
            [] => f.write_str("all members can read it, so try again in a second"),
            [one] => write!(f, "upgrade {one} first, which runs an older program"),
            several => {
                write!(f, "upgrade {} first, which run an older program", several.join(", "))
            }
        }
    }
}

/// Partitions that one command moves.
pub const MOVES_MAX: usize = 64;

/// What a process says of itself as it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seating {
    /// Which life of its node it is.
    pub boot: BootId,
    /// Where its door is.
    pub http: String,
    /// Where other nodes reach it.
    pub peer: String,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { members, .. } | Self::Found { members, .. } => {
                write!(f, "began with {} members", members.len())
            }
            Self::RaiseLevel(level, _) => write!(f, "raised the format level to {level}"),
            Self::Edit { edit, .. } => f.write_str(&edit.summary()),
            Self::Rollback { to, .. } => write!(f, "rolled back to version {to}"),
            Self::Admit(member) => write!(f, "admitted {}", member.name),
            Self::Remove(id) => write!(f, "removed node {id}"),
            Self::Drain(id, true) => write!(f, "drains node {id}"),
            Self::Drain(id, false) => write!(f, "ended the draining of node {id}"),
            Self::Stop(id, _) => write!(f, "stops node {id}"),
            Self::BeginMoves(moves) => write!(f, "began to move {} partitions", moves.len()),
            Self::CommitMoves(moves) => write!(f, "moved {} partitions", moves.len()),
            Self::AbortMoves(moves) => write!(f, "gave up moving {} partitions", moves.len()),
            Self::Seat(id, seating) | Self::Register(id, seating, ..) => {
                write!(f, "seated node {id} in boot {}", seating.boot)
            }
            Self::Note(note) => f.write_str(note),
            Self::Set { setting, .. } => write!(f, "set {setting}"),
            Self::Weigh(id, weight) => write!(f, "gave node {id} the weight {weight}"),
            Self::Leave(id, Leaving::HandingOver) => write!(f, "node {id} is to leave"),
            Self::Leave(id, Leaving::Abandoned) => {
                write!(f, "node {id} is given up: what it owns begins as spent elsewhere")
            }
        }
    }
}

/// The secret's two words, which no log line shows.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretWords(u64, u64);

impl From<Secret> for SecretWords {
    fn from(secret: Secret) -> Self {
        let (a, b) = secret.words();
        Self(a, b)
    }
}

impl From<SecretWords> for Secret {
    fn from(words: SecretWords) -> Self {
        Self::new(words.0, words.1)
    }
}

impl fmt::Debug for SecretWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretWords(..)")
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The entry that did it: who has applied the log up to here knows it.
    pub at: LogIndex,
    /// What it made.
    pub made: Made,
}

/// What a command made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Made {
    /// A version of the policy.
    Version(u64),
    /// A change of the member of that id.
    Member(NodeId),
    /// A change of the placement.
    Placement,
    /// A format level; answers a command of level 2.
    Level(FormatLevel),
    /// A version of the settings; answers a command of level 2.
    Settings {
        /// The version, or the one that was there where the command changed nothing.
        version: u64,
        /// Whether the command made it.
        changed: bool,
    },
}

/// Why a command did nothing at all. A refusal travels to the node that proposed the command, which
/// may run an older program: a new variant joins the end, and answers only commands of its own
/// level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The cluster hasn't begun.
    #[error("the cluster has not begun")]
    NotBegun,
    /// It has begun already.
    #[error("the cluster has begun already")]
    Begun,
    /// Somebody else was quicker.
    #[error("the policy is at version {actual}, the change expects {expected}")]
    Stale {
        /// What the change was made for.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// What was to be deleted is not there.
    #[error("there is no {0}")]
    NotFound(String),
    /// Paths, and what is wrong there.
    #[error("the change is not valid")]
    Invalid(Vec<(String, String)>),
    /// That version isn't remembered, or was never made.
    #[error("there is no version {version}; those from {oldest} to {newest} can be had")]
    NoSuchVersion {
        /// The one asked for.
        version: u64,
        /// The oldest that is remembered.
        oldest: u64,
        /// The newest.
        newest: u64,
    },
    /// A member has that name.
    #[error("{name} is a member already, as node {id}")]
    MemberExists {
        /// The name.
        name: Name,
        /// Who has it.
        id: NodeId,
    },
    /// No member has that id.
    #[error("node {0} is not a member")]
    NoSuchMember(NodeId),
    /// The cluster is full.
    #[error("the cluster has {most} members, the most that are allowed")]
    TooManyMembers {
        /// How many that are.
        most: usize,
    },
    /// The partitions can't be placed like that.
    #[error("{0}")]
    NotPlaced(String),
    /// More partitions than one command may move, or none.
    #[error("a command moves 1 to {MOVES_MAX} partitions")]
    Moves,
    /// A cluster without members could never be changed again.
    #[error("node {0} is the last member")]
    LastMember(NodeId),
    /// Somebody has to own the partitions.
    #[error("node {0} is the last that may own partitions")]
    LastOwner(NodeId),
    /// It stays, as far as anybody said.
    #[error("node {0} is not leaving")]
    NotLeaving(NodeId),
    /// It would take with it what it has counted.
    #[error("node {id} still owns {partitions} partitions")]
    StillOwns {
        /// Which node.
        id: NodeId,
        /// How many.
        partitions: usize,
    },
    /// Another change of the settings came first; answers a command of level 2.
    #[error("the settings are at version {actual}, the change expects {expected}")]
    StaleSettings {
        /// What the change was made for.
        expected: u64,
        /// What there is.
        actual: u64,
    },
}

impl Refusal {
    pub(super) fn invalid(faults: Vec<Fault>) -> Self {
        Self::Invalid(faults.into_iter().map(|fault| (fault.path, fault.detail)).collect())
    }

    /// The faults, if that is why.
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => {
                faults.iter().map(|(path, detail)| Fault::new(path, detail)).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound(what) => Self::NotFound(what),
            ChangeError::Invalid(faults) => Self::invalid(faults),
        }
    }
}
