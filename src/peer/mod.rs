//! The wire between nodes: frames on a stream, a handshake, calls and their answers.
//!
//! A node that wants something of another asks over a [`Link`]; the other end is [`serve`]. There
//! is one connection for each peer and traffic [`Class`], so that a snapshot never stands before a
//! heartbeat, nor either before a check. What such a connection carries, from the first byte:
//!
//! ```text
//! n1 -> n2   Hello    versions 1 to 1, cluster demo, node n1, boot 7f3a…, checks
//! n2 -> n1   Hello    the same of n2; both now speak the highest version that both know
//! n1 -> n2   Proof    that n1 knows the secret of the cluster, if it has one; then the same of n2
//! n1 -> n2   Request  id 1, 30 ms left, kind 1 (a check), bytes
//! n1 -> n2   Request  id 2, …                many are on their way at a time
//! n2 -> n1   Answer   id 2                   and are answered in any order
//! n1 -> n2   Cancel   id 1                   nobody waits any more: n2 drops what it was doing
//! n1 -> n2   Ping     n2 -> n1  Pong         every so often; who hears nothing for too long gives the connection up
//! ```
//!
//! Calls are numbered, carry the time that is left to them (a duration: the clocks of two machines
//! don't compare), and end in an answer, in a failure that the other end names, or in a
//! [`CallError`]. A call is never queued without bound: where the peer isn't connected or the link
//! is full it fails at once, and whoever asked goes another way. A connection that breaks fails all
//! its calls together, and the link dials again. It never repeats a call: whether one that broke
//! was carried out is unknown here, and [`CallError::was_not_handled`] says when it is known.
//!
//! `frame` is the bytes around a message, `handshake` who may speak to whom and in which version,
//! `proof` how a node proves that it belongs to the cluster, `knock` whether a node answers there
//! at all, `lineage` which cluster of a name is meant, `message` what a request is, [`check`] the
//! one kind that this room knows itself; others (Raft's, bulk transfer's) are bytes to it; `plain`
//! is its encoding. `link` and `server` are the two ends, `pending` the calls that wait, `writer`
//! the way out of both ends, `breaker` when a peer isn't asked any more. The streams come from
//! [`net`](crate::net).

pub mod batch;
mod breaker;
pub mod check;
pub mod collect;
mod frame;
mod handshake;
mod knock;
mod lineage;
mod link;
mod message;
pub mod moving;
mod pending;
mod proof;
mod server;
pub mod shared;
pub mod tenant;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use crate::placement::BootId;
pub use breaker::{Breaker, BreakerState, BreakerView, Outcome, Pass};
pub use frame::{Frame, FrameCodec, FrameError, FrameKind, HEADER_BYTES};
pub use handshake::{HandshakeError, Hello, Identity, Refusal, VERSIONS, Versions};
pub use knock::{Doorstep, knock};
pub use lineage::{Lineage, RECOVERIES_MAX};
pub use link::{CallError, Link, LinkArgs, LinkState, link};
pub use message::{Ask, Failure, Kind, Opaque, ReadError};
pub use proof::{Guard, Key, Mark, Marks};
pub use server::{Call, Handler, accept, serve};

/// What a connection is for. Each class has a connection of its own and its own bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Checks and what belongs to them: small, many, urgent.
    Checks,
    /// What the nodes agree on.
    Raft,
    /// Snapshots and the state of partitions that move: large, and in no hurry.
    Bulk,
}

/// A batch of a thousand checks is a few hundred kilobytes.
const CHECKS_FRAME_BYTES_MAX: usize = 1 << 20;
/// A policy document of 64 MiB, the most that a node takes unless told otherwise, is one entry of
/// the log.
const RAFT_FRAME_BYTES_MAX: usize = 72 << 20;
/// Senders of bulk cut it into pieces of 1 MiB at most; there is room for a large one.
const BULK_FRAME_BYTES_MAX: usize = 4 << 20;

/// As many as two shards' mailboxes hold: beyond that the owner would turn them away itself.
const CHECKS_CALLS_MAX: usize = 16_384;
/// Raft has a few in flight to each peer; forwarded commands are some more.
const RAFT_CALLS_MAX: usize = 1_024;
/// With [`BULK_FRAME_BYTES_MAX`] this bounds the memory that a transfer takes: 64 MiB.
const BULK_CALLS_MAX: usize = 16;

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Checks, Self::Raft, Self::Bulk];

    /// The word for it, in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Checks => "checks",
            Self::Raft => "raft",
            Self::Bulk => "bulk",
        }
    }

    /// The most bytes of one frame, its header included; a longer one is refused before memory is
    /// set aside for it.
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Checks => CHECKS_FRAME_BYTES_MAX,
            Self::Raft => RAFT_FRAME_BYTES_MAX,
            Self::Bulk => BULK_FRAME_BYTES_MAX,
        }
    }

    /// The most calls of one connection that may be open at a time, at either end.
    pub fn calls_max(self) -> usize {
        match self {
            Self::Checks => CHECKS_CALLS_MAX,
            Self::Raft => RAFT_CALLS_MAX,
            Self::Bulk => BULK_CALLS_MAX,
        }
    }

    /// How long a peer may be silent before the connection is given up; pings go out four times as
    /// often. A ping stands behind the frame that is being sent, so that classes with large frames
    /// wait longer; and a node that was cut off may need a snapshot, which waits for this on a
    /// connection that leads nowhere.
    pub fn silence_max(self) -> Duration {
        match self {
            Self::Checks => Duration::from_secs(2),
            Self::Raft => Duration::from_secs(5),
            Self::Bulk => Duration::from_secs(10),
        }
    }

    /// Pings in the time that a peer may be silent. Those of Raft's class, four a second, measure
    /// the round trip that the timers of Raft have to bear.
    fn pings_in_silence(self) -> u32 {
        match self {
            Self::Checks | Self::Bulk => 4,
            Self::Raft => 20,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Checks => 1,
            Self::Raft => 2,
            Self::Bulk => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Reads any bytes as frames, as a greeting and as every message that this room knows: what a
/// fuzzer calls. What was read is written the same again.
pub fn fuzz_frames(bytes: &[u8]) {
    frame::fuzz(bytes);
    handshake::fuzz(bytes);
    check::fuzz(bytes);
    fuzz_message::<batch::AllAsk>(bytes);
    fuzz_message::<batch::EachAsk>(bytes);
    fuzz_message::<tenant::PermitAsk>(bytes);
    fuzz_message::<tenant::RenewAsk>(bytes);
    fuzz_message::<tenant::DescribeAsk>(bytes);
    fuzz_message::<tenant::ResetAsk>(bytes);
    fuzz_message::<tenant::ForgetAsk>(bytes);
    fuzz_message::<tenant::ListAsk>(bytes);
    fuzz_message::<shared::SettleAsk>(bytes);
    fuzz_message::<moving::InstallAsk>(bytes);
    fuzz_message::<collect::PieceAsk>(bytes);
    let opaque = fuzz_message::<shared::SharedAsk>(bytes);
    if let Ok(ask) = opaque.read_question::<shared::SharedAsk>() {
        // What the limit says is held to the bounds of the door, or refused.
        let _ = ask.ask(0);
    }
}

/// Dials a node that asks for a proof and sends it these bytes: what a fuzzer calls. None of them
/// is let in.
pub fn fuzz_greeting(bytes: &[u8]) {
    handshake::fuzz_answer(bytes);
}

/// Reads bytes as a question and as its answer: an error at worst. What was read can be written.
fn fuzz_message<A: Ask>(bytes: &[u8]) -> Opaque {
    let opaque = Opaque { kind: A::KIND, bytes: bytes.to_vec().into() };
    if let Ok(question) = opaque.read_question::<A>() {
        assert!(Opaque::question(&question).is_ok());
    }
    if let Ok(answer) = opaque.read_answer::<A>() {
        assert!(Opaque::answer::<A>(&answer).is_ok());
    }
    opaque
}
