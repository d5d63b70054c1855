//! The cluster's settings: values that every node must agree on and that operators change while the
//! cluster runs.
//!
//! ```text
//! Found(…, round_trip_ms 100)         version 1: as the founder's configuration says
//! Set(expected 1, round_trip_ms 300)  version 2
//! Set(expected 1, round_trip_ms 200)  refused: the settings are at version 2
//! Register(2, …, round_trip_ms 300)   node 2 runs with 300; nodes 1 and 3 must be restarted
//! ```
//!
//! Raft's timers are fixed when a process starts. So a new round trip takes effect at each node's
//! next start, and every process says in its registration which one it runs with.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Agreed, Made, Refusal};
use crate::placement::{FormatLevel, NodeId};

/// The settings, and their version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Rises with each change; 0 before the first value, while each node goes by its configuration.
    pub version: u64,
    round_trip_ms: u64,
}

impl ClusterSettings {
    /// Those that a cluster begins with.
    pub(super) fn founded(round_trip_ms: u64) -> Self {
        Self { version: 1, round_trip_ms }
    }

    /// The round trip that Raft's timers are to allow, in milliseconds; none before the first
    /// value.
    pub fn round_trip_ms(&self) -> Option<u64> {
        (self.version > 0).then_some(self.round_trip_ms)
    }

    fn with(mut self, setting: Setting) -> Self {
        match setting {
            Setting::RoundTripMs(ms) => self.round_trip_ms = ms,
        }
        self
    }
}

/// A new value of one setting. They are told apart by their order, so a new one joins the end and
/// names its level in [`Setting::needs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// The longest round trip between nodes, in milliseconds.
    RoundTripMs(u64),
}

impl Setting {
    /// The format level that a member needs to read it.
    pub fn needs(self) -> FormatLevel {
        match self {
            Self::RoundTripMs(_) => FormatLevel::SECOND,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundTripMs(ms) => write!(f, "round_trip_ms to {ms}"),
        }
    }
}

impl Agreed {
    /// Returns the members whose process runs with another round trip than the log says; they use
    /// the log's from their next start on.
    pub fn awaiting_restart(&self) -> impl Iterator<Item = (NodeId, u64)> {
        let wanted = self.settings.round_trip_ms();
        self.members.iter().filter_map(move |(id, member)| {
            let runs_with = member.round_trip_ms.filter(|_| member.was_there())?;
            wanted.is_some_and(|wanted| wanted != runs_with).then_some((id, runs_with))
        })
    }

    /// Sets a value; errs where the settings are at another version than `expected`. The value was
    /// judged where it was proposed.
    pub(super) fn set(&mut self, expected: Option<u64>, setting: Setting) -> Result<Made, Refusal> {
        let actual = self.settings.version;
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(Refusal::StaleSettings { expected, actual });
        }
        let next = self.settings.with(setting);
        // The first value makes a version, whatever it is.
        let changed = actual == 0 || next != self.settings;
        if changed {
            self.settings = ClusterSettings { version: actual + 1, ..next };
        }
        Ok(Made::Settings { version: self.settings.version, changed })
    }
}
