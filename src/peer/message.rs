//! What a request is: a kind, and bytes.
//!
//! The wire carries [`Opaque`]s and looks into none. A room that has something to say to its like
//! on another node gives it a [`Kind`] and implements [`Ask`], which names the type of the question
//! and of its answer; `codec` does the rest. One that encodes by itself, as Raft does, hands over
//! bytes.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Frame, FrameKind};
use crate::codec::{self, CodecError};

/// The most bytes that a decoded message may claim. What a frame can hold grows on decoding; this
/// is several times that.
const DECODED_BYTES_MAX: usize = 16 << 20;
/// The most bytes of the text in a failure.
const FAILURE_TEXT_BYTES_MAX: usize = 512;

/// What kind of message a body is. A number is given once, and never again to anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(pub u16);

impl Kind {
    /// A check, for the tenant's owner.
    pub const CHECK: Self = Self(0x0001);
    /// The first of the kinds by which shards of different nodes speak of shared limits: ask,
    /// reply, settle.
    pub const SHARED: Self = Self(0x0010);
    /// The first of Raft's kinds, up to the next hundred.
    pub const RAFT: Self = Self(0x0100);
    /// What is said beside Raft's own messages since the second release: the contact with a
    /// majority, and commands that are relayed. A node of the first release answers that it knows
    /// no such kind.
    pub const RAFT_LATER: Self = Self(0x0130);
    /// The first of the kinds that move state in bulk.
    pub const BULK: Self = Self(0x0200);
}

/// A request or an answer, as the wire sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque {
    /// What the bytes are.
    pub kind: Kind,
    /// The message, encoded by whoever knows the kind.
    pub bytes: Bytes,
}

/// A question with a type, and the type of its answer.
pub trait Ask: Serialize + DeserializeOwned {
    /// The kind that both have on the wire.
    const KIND: Kind;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;
}

/// Why a message can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("a message of kind {}, where kind {} was expected", actual.0, expected.0)]
    Kind {
        /// What it is.
        actual: Kind,
        /// What was to be read.
        expected: Kind,
    },
    /// Its bytes are no such message.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Opaque {
    /// `question`, encoded.
    pub fn question<A: Ask>(question: &A) -> Result<Self, CodecError> {
        Ok(Self { kind: A::KIND, bytes: codec::encode(question)?.into() })
    }

    /// `answer` to a question of the type `A`, encoded.
    pub fn answer<A: Ask>(answer: &A::Answer) -> Result<Self, CodecError> {
        Ok(Self { kind: A::KIND, bytes: codec::encode(answer)?.into() })
    }

    /// Reads it as a question of the type `A`.
    pub fn read_question<A: Ask>(&self) -> Result<A, ReadError> {
        self.read(A::KIND)
    }

    /// Reads it as the answer to one.
    pub fn read_answer<A: Ask>(&self) -> Result<A::Answer, ReadError> {
        self.read(A::KIND)
    }

    fn read<T: DeserializeOwned>(&self, expected: Kind) -> Result<T, ReadError> {
        if self.kind != expected {
            return Err(ReadError::Kind { actual: self.kind, expected });
        }
        Ok(codec::decode_within::<T, DECODED_BYTES_MAX>(&self.bytes)?)
    }

    pub(super) fn of(frame: Frame) -> Self {
        Self { kind: Kind(frame.message), bytes: frame.body }
    }

    pub(super) fn request(self, id: u64) -> Frame {
        Frame { kind: FrameKind::Request, ttl_us: 0, id, message: self.kind.0, body: self.bytes }
    }

    pub(super) fn reply(self, id: u64) -> Frame {
        Frame { kind: FrameKind::Answer, ttl_us: 0, id, message: self.kind.0, body: self.bytes }
    }
}

/// How the end that was asked says that there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It has as many calls open as it takes. Nothing was done.
    #[error("the peer is too busy")]
    Busy,
    /// The time that was left ran out there. Whether something was done is unknown.
    #[error("the deadline passed at the peer")]
    DeadlinePassed,
    /// It knows no such kind of message. Nothing was done.
    #[error("the peer knows no messages of this kind")]
    UnknownKind,
    /// It can't read the message. Nothing was done.
    #[error("the peer can't read the message: {0}")]
    Malformed(String),
    /// It tried and couldn't. What was done, the text or the kind of message says.
    #[error("the peer failed: {0}")]
    Failed(String),
}

impl Failure {
    /// Whether it says for certain that nothing was done.
    pub fn was_not_handled(&self) -> bool {
        matches!(self, Self::Busy | Self::UnknownKind | Self::Malformed(_))
    }

    pub(super) fn frame(self, id: u64) -> Frame {
        let (code, text) = match self {
            Self::Busy => (1, String::new()),
            Self::DeadlinePassed => (2, String::new()),
            Self::UnknownKind => (3, String::new()),
            Self::Malformed(text) => (4, text),
            Self::Failed(text) => (5, text),
        };
        let mut body = Bytes::from(text);
        body.truncate(FAILURE_TEXT_BYTES_MAX);
        Frame { kind: FrameKind::Failure, ttl_us: 0, id, message: code, body }
    }

    /// A failure that a later version has and this one doesn't know is one like any other.
    pub(super) fn of(frame: &Frame) -> Self {
        match frame.message {
            1 => Self::Busy,
            2 => Self::DeadlinePassed,
            3 => Self::UnknownKind,
            4 => Self::Malformed(super::handshake::reason(&frame.body)),
            _ => Self::Failed(super::handshake::reason(&frame.body)),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Kind { .. } => Self::UnknownKind,
            ReadError::Codec(error) => Self::Malformed(error.to_string()),
        }
    }
}

/// The longest time that a request may have: an hour, which fits in the microseconds of a frame.
const TTL_MAX: Duration = Duration::from_secs(3_600);

/// `ttl` in microseconds, at most [`TTL_MAX`].
pub(super) fn ttl_us(ttl: Duration) -> u32 {
    u32::try_from(ttl.min(TTL_MAX).as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sum(Vec<u32>);

    impl Ask for Sum {
        const KIND: Kind = Kind(9);
        type Answer = u64;
    }

    #[test]
    fn a_typed_question_and_its_answer_read_back_and_other_kinds_dont() {
        let question = Opaque::question(&Sum(vec![1, 2])).unwrap();
        assert_eq!(question.read_question::<Sum>().unwrap(), Sum(vec![1, 2]));
        assert_eq!(Opaque::answer::<Sum>(&3).unwrap().read_answer::<Sum>().unwrap(), 3);
        let other = Opaque { kind: Kind(8), ..question.clone() };
        assert_eq!(Failure::from(other.read_question::<Sum>().unwrap_err()), Failure::UnknownKind);
        let cut = Opaque { bytes: question.bytes.slice(..2), ..question };
        assert!(matches!(
            Failure::from(cut.read_question::<Sum>().unwrap_err()),
            Failure::Malformed(_)
        ));
    }

    #[test]
    fn failures_read_back_with_text_that_is_bounded() {
        let said = [
            Failure::Busy,
            Failure::DeadlinePassed,
            Failure::UnknownKind,
            Failure::Malformed("a".into()),
            Failure::Failed("b".into()),
        ];
        for failure in said {
            assert_eq!(Failure::of(&failure.clone().frame(1)), failure);
        }
        assert_eq!(Failure::Failed("x".repeat(10_000)).frame(1).body.len(), FAILURE_TEXT_BYTES_MAX);
    }
}
