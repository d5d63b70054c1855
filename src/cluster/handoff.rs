//! How partitions go from one node to another, and no count is lost and none is kept twice.
//!
//! The log says that partitions are to move (`moving` in their rows) and, in the end, that they
//! have moved. In between their owner, the *source*, hands what it knows to the *target*:
//!
//! ```text
//! log      begin: partitions 7 and 9, n1 → n2
//! source   copy      what n1 knows of them, while it goes on deciding them
//! source   freeze    what is open ends, what comes waits
//! source   install   what has changed since the copy; n2 puts it in its place, and decides nothing by it
//! source   commit    to the log: n2 owns them, under the next epoch
//! log      moved     n2 decides, from what it kept; n1 sends those who waited after it, and forgets
//! ```
//!
//! What goes wrong before anything was installed, the source undoes by itself. Once something may
//! have been installed only the log decides: the source gives the move up *there*, and stays frozen
//! until the log answers. Were it to go on by its own clock, a commit that was on its way would
//! make two owners. [`Source`] is that rule, as a machine without a clock or a wire. `source` does what it says, `target` is the other end,
//! [`next_moves`] is how the leader decides what is to move.

mod counts;
mod source;
mod target;

pub use crate::cluster::membership::handoff::{Effect, Event, Source};
pub use crate::cluster::membership::{Flow, MOVES_AT_ONCE, flows, next_moves};
pub use counts::{Counts, FROZEN_BOUNDS, HandOffs};
pub use source::Mover;
pub use target::{InstallAsk, Installed, Target};
