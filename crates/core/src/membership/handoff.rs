//! The source's part in a move of partitions, as a machine without a clock or a wire.
//!
//! Before anything was installed at the target, the source undoes by itself what went wrong. Once
//! something may have been installed only the log decides: the source asks the log to give the move
//! up, and stays frozen until the log answers. A source that went on by its own clock would make
//! two owners with a commit that was on its way. A test searches everything that can happen.

#[cfg(test)]
mod tests;

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
