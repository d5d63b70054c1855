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
//! make two owners. [`Source`] is that rule, as a machine without a clock or a wire; a test
//! searches all that can happen to it. `source` does what it says, `target` is the other end,
//! `rebalance` is how the leader decides what is to move.

mod counts;
mod rebalance;
mod source;
mod target;
#[cfg(test)]
mod tests;

pub use counts::{Counts, FROZEN_BOUNDS, HandOffs};
pub use rebalance::{Flow, MOVES_AT_ONCE, flows, next_moves};
pub use source::Mover;
pub use target::{InstallAsk, Installed, Target};

/// What has happened to a move, for its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The target has the copy.
    Copied,
    /// Nothing of the partitions is open any more.
    Drained,
    /// The target has everything.
    Installed,
    /// What was tried last has failed, or nobody knows whether it has.
    Failed,
    /// The log says that the partitions have moved.
    Moved,
    /// The log says that they stay.
    Stayed,
}

/// What a source does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Give the target a copy.
    Copy,
    /// Freeze the partitions.
    Freeze,
    /// Go on deciding them: nothing of the frozen state has left this node.
    Thaw,
    /// Give the target what has changed since the copy.
    Install,
    /// Propose to the log that the partitions have moved.
    Commit,
    /// Propose to the log that they stay.
    GiveUp,
}

/// Where a move stands, for its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The target is given a copy.
    Copying,
    /// What is open is finished.
    Freezing,
    /// The target is given the rest. From here on only the log thaws.
    Installing,
    /// The log is asked to move them.
    Committing,
    /// The log is asked to leave them.
    GivingUp,
    /// It has been decided.
    Over,
}

impl Source {
    /// A move begins.
    pub fn begin() -> (Self, Effect) {
        (Self::Copying, Effect::Copy)
    }

    /// What follows from an event: where the move stands then, and what is to be done, in this
    /// order.
    pub fn on(self, event: Event) -> (Self, &'static [Effect]) {
        match (self, event) {
            (Self::Over, _) | (_, Event::Moved | Event::Stayed) => (Self::Over, &[]),
            (Self::Copying, Event::Copied) => (Self::Freezing, &[Effect::Freeze]),
            (Self::Copying, Event::Failed) => (Self::GivingUp, &[Effect::GiveUp]),
            (Self::Freezing, Event::Drained) => (Self::Installing, &[Effect::Install]),
            (Self::Freezing, Event::Failed) => (Self::GivingUp, &[Effect::Thaw, Effect::GiveUp]),
            (Self::Installing, Event::Installed) => (Self::Committing, &[Effect::Commit]),
            // The target may have it all, and only the answer was lost: the log decides.
            (Self::Installing, Event::Failed) => (Self::GivingUp, &[Effect::GiveUp]),
            // Whether it was proposed is not known. Again is harmless: the log moves what is still
            // moving, once.
            (Self::Committing, Event::Failed) => (Self::Committing, &[Effect::Commit]),
            (Self::GivingUp, Event::Failed) => (Self::GivingUp, &[Effect::GiveUp]),
            // An answer that came twice.
            (state, Event::Copied | Event::Drained | Event::Installed) => (state, &[]),
        }
    }
}
