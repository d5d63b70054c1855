//! A back-up: one file with all that a cluster would have to be made anew of.
//!
//! ```text
//! "TGBACKUP"  format (u16, little endian)
//! 1  length (u64)  header     whose it is, when it was made, which entry of the log it is of, what is missing
//! 2  length        state      what the nodes agree on, as a snapshot of Raft has it
//! 3  length        counts     what was counted of long limits, as a node saves it when it stops; as many times as there are pieces
//! …
//! SHA-256 of all that comes before it
//! ```
//!
//! The state is policy, history, lists, audit log, members, placement and secret. Long limits are
//! quotas, and windows of an hour or longer ([`crate::limit::LONG_WINDOW_MIN`]); what is counted of
//! shorter ones is over before anybody has restored anything. Not in it: permits, request ids, what
//! stands in for others beyond a cap, statistics, and the tokens and certificates of the nodes.
//!
//! Writing and reading is all that is here; `collect` asks the nodes, and `offline` makes a back-up
//! of a node that is stopped.

mod collect;
pub mod offline;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::check::Name;
use crate::cluster::state::{DecodeError, LogIndex, State};
use crate::codec::{self, CodecError};
use crate::peer::Lineage;
pub use crate::peer::collect::{PieceAnswer, PieceAsk};
use crate::shard::{PartitionSnapshot, StoredCounts};
pub use collect::BackUps;

const MAGIC: &[u8; 8] = b"TGBACKUP";
/// The layout of the file.
const FORMAT: u16 = 1;
const HEADER: u8 = 1;
const STATE: u8 = 2;
const COUNTS: u8 = 3;
const SUM_BYTES: usize = 32;
/// Bytes of a back-up. It lies in memory, where it is made and where it is read.
pub const BACKUP_BYTES_MAX: usize = 1 << 30;

/// What a back-up says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster's name.
    pub cluster: Name,
    /// Which cluster of that name.
    pub lineage: Lineage,
    /// The node that made it.
    pub by: Name,
    /// When, in wall nanoseconds.
    pub time: u64,
    /// The version of the program that made it.
    pub program: String,
    /// The last entry of the log that is in the state.
    pub applied: LogIndex,
    /// The term at that time.
    pub term: u64,
    /// The policy's environment that the node ran in.
    pub environment: Option<Name>,
    /// Members whose counts are not in it, since they couldn't be asked.
    pub missing: Vec<Name>,
}

/// A back-up that was read.
#[derive(Clone, Debug)]
pub struct Backup {
    /// What it says of itself.
    pub header: Header,
    /// What the nodes agreed on.
    pub state: State,
    /// What was counted.
    pub counts: Vec<PartitionSnapshot>,
}

/// Why bytes are no back-up that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They are something else.
    #[error("it is no back-up of Tidegate")]
    NotOne,
    /// They are one of another version of the program.
    #[error("it has format {found}, this program reads {known}")]
    Format {
        /// Theirs.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// Something is missing, or was changed.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// What the checksum covers isn't readable.
    #[error("it can't be read: {0}")]
    Codec(#[from] CodecError),
    /// The same of the state in it.
    #[error("the state in it can't be read: {0}")]
    State(#[from] DecodeError),
}

/// Why there is no back-up.
#[derive(Debug, thiserror::Error)]
pub enum BackUpError {
    /// There is nothing yet.
    #[error("the cluster has not begun")]
    NotBegun,
    /// One at a time: it takes memory, until it has been read.
    #[error("this node is making a back-up already, or somebody is reading one")]
    Busy,
    /// What this node knows may be old.
    #[error(
        "no majority is heard of, so what this node knows may be old; with partial it is taken all \
         the same"
    )]
    NoMajority,
    /// Not everybody who has counted can be asked.
    #[error(
        "what was counted by {} can't be had; with partial the back-up is made without it",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Missing(Vec<Name>),
    /// What has moved might be in it twice or not at all.
    #[error("partitions are being moved; try again when they have")]
    Moving,
    /// It would not fit into memory that is set aside for it.
    #[error("it would be larger than {BACKUP_BYTES_MAX} bytes")]
    TooLarge,
    /// It can't be written down.
    #[error(transparent)]
    Encode(#[from] CodecError),
}

/// A back-up's bytes, when they come. As long as somebody has them, no other is made.
pub type BackingUp<'a> = Pin<Box<dyn Future<Output = Result<Bytes, BackUpError>> + Send + 'a>>;

/// What the door may know of back-ups.
pub trait BackUp: Send + Sync + 'static {
    /// Makes one; with `partial` also where not everything can be had.
    fn back_up(&self, partial: bool) -> BackingUp<'_>;
}

/// The bytes of a back-up; `counts` are encoded already.
pub fn write(header: &Header, state: &State, counts: &[Vec<u8>]) -> Result<Vec<u8>, BackUpError> {
    let (header, state) = (codec::encode(header)?, state.encode()?);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    let parts = [(HEADER, &header), (STATE, &state)].into_iter();
    for (kind, part) in parts.chain(counts.iter().map(|part| (COUNTS, part))) {
        if bytes.len() + part.len() > BACKUP_BYTES_MAX {
            return Err(BackUpError::TooLarge);
        }
        bytes.push(kind);
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    Ok(bytes)
}

/// Reads what [`write`] wrote. Nothing of it is believed before the checksum is.
pub fn read(bytes: &[u8]) -> Result<Backup, ReadError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(ReadError::NotOne)?;
    let (format, _) = rest.split_first_chunk().ok_or(ReadError::Damaged("it is cut off"))?;
    let found = u16::from_le_bytes(*format);
    if found != FORMAT {
        return Err(ReadError::Format { found, known: FORMAT });
    }
    let (body, sum) =
        bytes.split_last_chunk::<SUM_BYTES>().ok_or(ReadError::Damaged("it is cut off"))?;
    if Sha256::digest(body)[..] != sum[..] {
        return Err(ReadError::Damaged("its checksum is not that of its bytes"));
    }
    let mut rest = body.get(MAGIC.len() + size_of::<u16>()..).unwrap_or_default();
    let (mut header, mut state, mut counts) = (None, None, Vec::new());
    while let Some((kind, behind)) = rest.split_first() {
        let (length, behind) =
            behind.split_first_chunk().ok_or(ReadError::Damaged("a part has no length"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (part, behind) = behind
            .split_at_checked(length)
            .ok_or(ReadError::Damaged("a part is longer than the file"))?;
        match *kind {
            HEADER if header.is_none() => header = Some(codec::decode(part)?),
            STATE if state.is_none() => state = Some(State::decode(part)?),
            COUNTS => counts.push(codec::decode::<StoredCounts>(part)?.0),
            _ => {
                return Err(ReadError::Damaged(
                    "a part is of no kind that is known, or is there twice",
                ));
            }
        }
        rest = behind;
    }
    match (header, state) {
        (Some(header), Some(state)) if state.agreed().is_some() => {
            Ok(Backup { header, state, counts })
        }
        _ => Err(ReadError::Damaged("a part is missing")),
    }
}

impl Backup {
    /// Buckets of which something was counted.
    pub fn counters(&self) -> usize {
        let of = |counts: &PartitionSnapshot| {
            counts.accounts.iter().map(|account| account.buckets.len()).sum::<usize>()
                + counts.shared.len()
        };
        self.counts.iter().map(of).sum()
    }

    /// Accounts that have counted something.
    pub fn accounts(&self) -> usize {
        let ids =
            self.counts.iter().flat_map(|counts| counts.accounts.iter().map(|account| &account.id));
        ids.collect::<BTreeSet<_>>().len()
    }
}

/// Reads any bytes as a back-up, also under a checksum that is right: what a fuzzer calls.
pub fn fuzz(bytes: &[u8]) {
    let _ = read(bytes);
    let sealed = [bytes, &Sha256::digest(bytes)[..]].concat();
    let _ = read(&sealed);
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::cluster::state::{Command, NewMember, RequestId, What};
    use crate::placement::{Secret, Weight};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn backup() -> Vec<u8> {
        let what = What::Begin {
            secret: Secret::new(1, 2).into(),
            document: r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.into(),
            members: vec![NewMember {
                name: name("n1"),
                http: "h:1".into(),
                peer: String::new(),
                weight: Weight::ONE,
            }],
        };
        let mut state = State::default();
        let command = Command { request: RequestId(1), time: 1, by: "ops".into(), what };
        state.apply(LogIndex(3), &command).unwrap();
        let counts =
            codec::encode(&StoredCounts(PartitionSnapshot::at(Now { boot: 5, wall: 9 }))).unwrap();
        write(&header(), &state, &[counts.clone(), counts]).unwrap()
    }

    fn header() -> Header {
        Header {
            cluster: name("demo"),
            lineage: Lineage::of([7]),
            by: name("n1"),
            time: 12,
            program: "0.1.0".into(),
            applied: LogIndex(3),
            term: 1,
            environment: Some(name("production")),
            missing: vec![name("n2")],
        }
    }

    #[test]
    fn a_back_up_reads_back() {
        let read = read(&backup()).unwrap();
        assert_eq!((read.header, read.counts.len()), (header(), 2));
        assert_eq!(read.state.agreed().unwrap().secret().words(), (1, 2));
    }

    #[test]
    fn any_changed_byte_and_any_missing_end_is_noticed() {
        let whole = backup();
        // The table of partitions is large and dull: of its middle every hundredth byte will do.
        let far = |i: &usize| *i < 400 || *i + 400 > whole.len() || i.is_multiple_of(101);
        for at in (0..whole.len()).filter(far) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(read(&bytes).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
    }

    #[test]
    fn what_is_something_else_or_of_another_version_is_told_apart() {
        assert!(matches!(read(b"PK\x03\x04"), Err(ReadError::NotOne)));
        let mut later = backup();
        later[8] = 2;
        let why = read(&later).unwrap_err().to_string();
        assert_eq!(why, "it has format 2, this program reads 1");
        fuzz(&backup());
    }

    #[test]
    fn parts_that_are_missing_twice_or_unknown_are_no_back_up_under_a_right_checksum_either() {
        let whole = backup();
        let body = &whole[..whole.len() - SUM_BYTES];
        let sealed = |body: &[u8]| [body, &Sha256::digest(body)[..]].concat();
        assert!(read(&sealed(body)).is_ok());
        assert!(read(&sealed(&body[..10])).is_err());
        let header_end = 10 + 9 + usize::from(body[11]);
        assert!(read(&sealed(&body[..header_end])).is_err());
        assert!(read(&sealed(&[body, &body[10..header_end]].concat())).is_err());
        assert!(read(&sealed(&[body, &[4, 0, 0, 0, 0, 0, 0, 0, 0][..]].concat())).is_err());
        assert!(read(&sealed(&[body, &[3, 1, 0, 0, 0, 0, 0, 0, 0][..]].concat())).is_err());
    }
}
