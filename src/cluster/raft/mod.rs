//! The log that all nodes agree on, by Raft. The only module that knows openraft.
//!
//! A [`Command`](super::state::Command) goes to the leader, into its log, to a majority of the
//! voters' disks, and from there into every node's [`State`](super::state::State):
//!
//! ```text
//! node.propose(command, 5 s)      on any node; a follower passes it on to the leader
//!   → LogStore (append)           one fsync for all that wait (store.rs, disk.rs)
//!   → Network → Transport         the same entry to the others (network.rs; large messages in parts: parts.rs)
//!   → Machine (apply)             once a majority has it: State::apply, and the answer (machine.rs)
//! ```
//!
//! Three answers are possible. *Done* and *refused* come out of the log: every node agrees on them.
//! *Unknown* means that the time was up while the command may be on its way; it may be done later,
//! or never. Proposing it again under the same request id is harmless.
//!
//! A node doesn't know by its role whether a majority is with the leader: a leader that is cut off
//! goes on calling itself one, and a follower names its last leader for ever. [`Node::contact_age`]
//! knows (contact.rs).
//!
//! When a node calls an election is partly chance, which comes from the seed in its [`Settings`];
//! all else goes in order (`runtime`). So on a simulated network the same seeds give the same
//! elections.
//!
//! How bytes get to another node is somebody else's business ([`Transport`]); what arrives goes
//! into [`Node::serve`].

mod contact;
mod disk;
mod lying;
mod machine;
mod medium;
mod network;
mod node;
mod parts;
mod propose;
mod roster;
mod runtime;
mod snapshot;
mod store;
mod term;
#[cfg(test)]
mod tests;
mod types;

pub use contact::Missing;
pub use disk::{FILE, OpenError, Place};
pub use lying::{Founding, Lying, found};
pub use machine::{Machine, View};
pub use medium::Medium;
pub use network::{Sending, Traffic, Transport, TransportError};
pub use node::{BootstrapError, Node, Settings, StartError, Timers};
pub use parts::{MESSAGE_BYTES_MAX, PART_BYTES};
pub use propose::{COMMAND_BYTES_MAX, ProposeError};
pub use roster::{Following, Roster};
pub use snapshot::SealError;
pub use store::{APPEND_BYTES_MAX, BATCH_MAX, Closed, LogStore};
pub use types::{Address, Answer, TypeConfig};
