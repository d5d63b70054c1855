//! Frames: a length, a header of 18 bytes, a body.
//!
//! ```text
//! length u32 | "TG" | version u8 | kind u8 | ttl u32 | id u64 | message u16 | body …
//! ```
//!
//! All numbers are big-endian. `length` counts what follows it. The header is written by hand and
//! not by `codec`: whatever becomes of the encoding of bodies, two versions can always read each
//! other's headers. `ttl` is the time that is left to a request, in microseconds. `message` is what
//! kind of request a body is, or how a call failed. `version` is 0 in the frames of the handshake,
//! and the version agreed on there in all others.
//!
//! The length is judged before memory is set aside for the frame.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

/// By which a frame is known; a stranger who speaks HTTP or TLS to this port is told from a peer at
/// once.
const MAGIC: [u8; 2] = *b"TG";
/// Bytes between a frame's length and its body.
pub const HEADER_BYTES: usize = 18;
/// Bytes of the length itself.
const LENGTH_BYTES: usize = 4;
/// The version that frames of the handshake name: it never changes.
pub(super) const HANDSHAKE_VERSION: u8 = 0;
/// The most bytes of a frame of the handshake: two names and a few numbers, or a reason for
/// refusing.
const HANDSHAKE_FRAME_BYTES_MAX: usize = 1_024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// The first frame of both ends.
    Hello,
    /// Instead of it, or behind it: why the other end is refused.
    Refusal,
    /// A call.
    Request,
    /// What it was answered.
    Answer,
    /// Why it wasn't.
    Failure,
    /// Nobody waits for the answer any more.
    Cancel,
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// In the handshake, behind the greetings of two ends that both gave a nonce: that this end
    /// knows the secret of the cluster.
    Proof,
}

impl FrameKind {
    const ALL: [Self; 9] = [
        Self::Hello,
        Self::Refusal,
        Self::Request,
        Self::Answer,
        Self::Failure,
        Self::Cancel,
        Self::Ping,
        Self::Pong,
        Self::Proof,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Refusal => 2,
            Self::Request => 3,
            Self::Answer => 4,
            Self::Failure => 5,
            Self::Cancel => 6,
            Self::Ping => 7,
            Self::Pong => 8,
            Self::Proof => 9,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// One frame; its version is the connection's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Microseconds that are left to a request; 0 in all other frames.
    pub ttl_us: u32,
    /// The call it belongs to; 0 where it belongs to none.
    pub id: u64,
    /// What kind of message the body is, how a call failed, or why the other end is refused; 0
    /// where there is no more to say.
    pub message: u16,
    /// The rest.
    pub body: Bytes,
}

impl Frame {
    /// A frame that is all header.
    pub fn bare(kind: FrameKind, id: u64) -> Self {
        Self { kind, ttl_us: 0, id, message: 0, body: Bytes::new() }
    }

    /// A frame of the handshake.
    pub(super) fn greeting(kind: FrameKind, body: Bytes) -> Self {
        Self { kind, ttl_us: 0, id: 0, message: 0, body }
    }

    /// A refusal, with a number for programs beside the reason for people.
    pub(super) fn refusal(code: u16, reason: Bytes) -> Self {
        Self { message: code, ..Self::greeting(FrameKind::Refusal, reason) }
    }
}

/// Why bytes are no frame, or a frame can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke; it also ends so where a frame was cut off in the middle.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// More bytes than a frame of this connection may have.
    #[error("a frame is longer than {max} bytes")]
    TooLong {
        /// The most it may have.
        max: usize,
    },
    /// Fewer bytes than a header has.
    #[error("a frame has {actual} bytes, fewer than the {HEADER_BYTES} of its header")]
    TooShort {
        /// What it has.
        actual: usize,
    },
    /// Not a frame at all: somebody speaks another protocol.
    #[error("it isn't a frame of this protocol: it begins with {0:02x?}")]
    Magic([u8; 2]),
    /// Another version than the one agreed on.
    #[error("a frame of wire version {actual}, where version {expected} was agreed on")]
    Version {
        /// The frame's.
        actual: u8,
        /// The connection's.
        expected: u8,
    },
    /// A kind that there is not.
    #[error("there is no frame of kind {0}")]
    Kind(u8),
}

/// Turns frames into bytes and back, under a version and a bound.
pub struct FrameCodec {
    lengths: LengthDelimitedCodec,
    version: u8,
    bytes_max: usize,
}

impl FrameCodec {
    /// For the handshake: small frames of version 0.
    pub fn handshake() -> Self {
        Self::agreed(HANDSHAKE_VERSION, HANDSHAKE_FRAME_BYTES_MAX)
    }

    /// For what comes after it: frames of `version` with at most `bytes_max` bytes, headers
    /// included.
    pub fn agreed(version: u8, bytes_max: usize) -> Self {
        let lengths = LengthDelimitedCodec::builder()
            .length_field_length(LENGTH_BYTES)
            .max_frame_length(bytes_max)
            .new_codec();
        Self { lengths, version, bytes_max }
    }

    fn read(&self, mut bytes: BytesMut) -> Result<Frame, FrameError> {
        if bytes.len() < HEADER_BYTES {
            return Err(FrameError::TooShort { actual: bytes.len() });
        }
        let magic = [bytes.get_u8(), bytes.get_u8()];
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let (actual, code) = (bytes.get_u8(), bytes.get_u8());
        let kind = FrameKind::from_code(code);
        // Who dialled may refuse when the other end has settled on a version already.
        let late_refusal = actual == HANDSHAKE_VERSION && kind == Some(FrameKind::Refusal);
        if actual != self.version && !late_refusal {
            return Err(FrameError::Version { actual, expected: self.version });
        }
        let kind = kind.ok_or(FrameError::Kind(code))?;
        let (ttl_us, id, message) = (bytes.get_u32(), bytes.get_u64(), bytes.get_u16());
        Ok(Frame { kind, ttl_us, id, message, body: bytes.freeze() })
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.lengths.decode(from) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => self.read(bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(FrameError::TooLong { max: self.bytes_max })
            }
            Err(error) => Err(FrameError::Io(error)),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, to: &mut BytesMut) -> Result<(), FrameError> {
        let bytes = HEADER_BYTES + frame.body.len();
        let too_long = FrameError::TooLong { max: self.bytes_max };
        let length = match u32::try_from(bytes) {
            Ok(length) if bytes <= self.bytes_max => length,
            _ => return Err(too_long),
        };
        to.reserve(LENGTH_BYTES + bytes);
        to.put_u32(length);
        to.put_slice(&MAGIC);
        to.put_u8(self.version);
        to.put_u8(frame.kind.code());
        to.put_u32(frame.ttl_us);
        to.put_u64(frame.id);
        to.put_u16(frame.message);
        to.put_slice(&frame.body);
        Ok(())
    }
}

pub(super) fn fuzz(bytes: &[u8]) {
    for (version, max) in [(HANDSHAKE_VERSION, HANDSHAKE_FRAME_BYTES_MAX), (1, 1 << 16)] {
        let mut codec = FrameCodec::agreed(version, max);
        let (mut left, mut read) = (BytesMut::from(bytes), 0);
        while let Ok(Some(frame)) = codec.decode(&mut left) {
            let (from, refusal) = (read, frame.kind == FrameKind::Refusal);
            read = bytes.len() - left.len();
            let mut written = BytesMut::new();
            assert!(codec.encode(frame, &mut written).is_ok());
            // A refusal may have named the handshake's version instead.
            assert!(refusal || written[..] == bytes[from..read]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frame: Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        FrameCodec::agreed(1, 64).encode(frame, &mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        FrameCodec::agreed(1, 64).decode(&mut BytesMut::from(bytes))
    }

    fn request() -> Frame {
        let body = Bytes::from_static(b"body");
        Frame { kind: FrameKind::Request, ttl_us: 30_000, id: 0x0102, message: 7, body }
    }

    #[test]
    fn a_frame_is_these_bytes_and_no_others() {
        let bytes = written(request());
        let golden = [
            &[0, 0, 0, 22][..],
            b"TG",
            &[1, 3],
            &30_000u32.to_be_bytes(),
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 7],
            b"body",
        ];
        assert_eq!(bytes[..], golden.concat());
        assert_eq!(read(&bytes).unwrap(), Some(request()));
    }

    #[test]
    fn kinds_have_numbers_that_stay() {
        let codes: Vec<_> = FrameKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_frame_that_is_cut_off_anywhere_is_waited_for() {
        let bytes = written(request());
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]).unwrap(), None, "{cut} bytes");
        }
    }

    #[test]
    fn a_giant_is_refused_by_its_length_alone_and_nothing_is_set_aside_for_it() {
        let mut bytes = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        let mut codec = FrameCodec::agreed(1, 64);
        assert!(matches!(codec.decode(&mut bytes), Err(FrameError::TooLong { max: 64 })));
        assert!(bytes.capacity() < 1_024, "{}", bytes.capacity());
        let long = Frame { body: Bytes::from(vec![0; 64]), ..request() };
        let sent = FrameCodec::agreed(1, 64).encode(long, &mut BytesMut::new());
        assert!(matches!(sent, Err(FrameError::TooLong { max: 64 })));
    }

    #[test]
    fn what_is_no_frame_is_told_from_one() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = written(request());
            bytes[at] = byte;
            read(&bytes).unwrap_err()
        };
        assert!(matches!(changed(4, b'X'), FrameError::Magic([b'X', b'G'])));
        assert!(matches!(changed(6, 9), FrameError::Version { actual: 9, expected: 1 }));
        assert!(matches!(changed(7, 0), FrameError::Kind(0)));
        assert!(matches!(read(&[0, 0, 0, 1, b'T']), Err(FrameError::TooShort { actual: 1 })));
        // "GET " as a length is over a gigabyte.
        assert!(matches!(read(b"GET / HTTP/1.1\r\n\r\n"), Err(FrameError::TooLong { .. })));
    }
}
