//! The versions before this one, each as the change that leads back to it.
//!
//! An edit's way back is the part it replaced, so that keeping a hundred versions of a document
//! with a million tenants costs a hundred tenants. Version 7 of a document at version 9 is: undo
//! what made 9, then undo what made 8.

use imbl::Vector;
use serde::{Deserialize, Serialize};

use super::{Edit, Refusal};
use crate::policy::{Change, Document};

/// Versions that can be gone back to.
pub const HISTORY_MAX: usize = 100;
/// Bytes of JSON that the ways back may take; the newest stays whatever its size.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;

/// A version that was made, and how to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The version that the change made.
    pub version: u64,
    /// When, wall nanoseconds of its proposer.
    pub time: u64,
    /// By whom.
    pub by: String,
    /// What it was.
    pub what: String,
    pub(super) undo: Edit,
}

/// The newest versions, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub(super) past: Vector<Past>,
    bytes: usize,
}

impl History {
    pub(super) fn restored(past: Vec<Past>) -> Self {
        let bytes = past.iter().map(|past| past.undo.bytes()).sum();
        Self { past: past.into_iter().collect(), bytes }
    }

    pub(super) fn push(&mut self, past: Past) {
        self.bytes += past.undo.bytes();
        self.past.push_back(past);
        while self.past.len() > HISTORY_MAX || self.bytes > HISTORY_BYTES_MAX && self.past.len() > 1
        {
            let Some(oldest) = self.past.pop_front() else { return };
            self.bytes -= oldest.undo.bytes();
        }
    }

    /// What made the versions that are remembered, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Past> {
        self.past.iter().rev()
    }

    /// The document at `version`, of which `current` is the newest.
    pub(super) fn document(
        &self,
        current: &Document,
        now: u64,
        version: u64,
    ) -> Result<Document, Refusal> {
        let oldest = self.past.front().map_or(now, |past| past.version - 1);
        if version < oldest || version > now {
            return Err(Refusal::NoSuchVersion { version, oldest, newest: now });
        }
        let mut document = current.clone();
        for past in self.iter().take_while(|past| past.version > version) {
            let undo = past.undo.read().map_err(Refusal::invalid)?;
            document = match undo {
                Change::Replace(whole) => *whole,
                part => document.with(&part)?,
            };
        }
        Ok(document)
    }
}
