//! Format levels: which stored forms and messages the program of a member can read.
//!
//! A release that adds a form (a command of the log, a member of the state, of a policy document or
//! of a message) gets the next level. Every program reads the forms of its own level and of the
//! level before. A cluster writes a form once every member reads it:
//!
//! ```text
//! level 1   the first program; it says no level, and an absent level is this one
//! level 2   Found, RaiseLevel, Register, Note, Set; greetings with a proof; request ids among
//!           the saved counts of a node
//! level 3   a state says by what each row's epoch rose
//!
//! n1 (1)  n2 (1)  n3 (1)     the cluster is at level 1
//! n1 (2)  n2 (1)  n3 (2)     a rolling upgrade: at level 1, so n2 can read all that is written
//! n1 (2)  n2 (2)  n3 (2)     the leader writes RaiseLevel(2): at level 2, for good
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a program reads: everything up to this level. An absent level is [`FormatLevel::FIRST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormatLevel(u16);

impl FormatLevel {
    /// The level of the first program, which knows no levels.
    pub const FIRST: Self = Self(1);
    /// The second: the first that members say.
    pub const SECOND: Self = Self(2);
    /// The third: rows of the placement say by what their epoch rose.
    pub const THIRD: Self = Self(3);
    /// The level of this program.
    pub const OWN: Self = Self::THIRD;

    /// Level `number`; a number below the first level is the first.
    pub fn new(number: u16) -> Self {
        Self(number).max(Self::FIRST)
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl Default for FormatLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FormatLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
