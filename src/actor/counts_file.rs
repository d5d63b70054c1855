//! The file of saved counts: what a graceful stop leaves behind for the node's next start.
//!
//! ```text
//! "TGSTATE3"   a magic word with the format
//! SHA-256      of the rest
//! body         the states of all shards
//! ```
//!
//! Format 3 holds request ids and the answers to them. Format 2, of the first program, has none. It
//! is always read, and it is written while the cluster is at the first format level: the next start
//! may then be that of the first program.
//!
//! The file is written beside its place and renamed, and it is deleted as it is loaded: state that
//! two processes could load would be spent twice.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::clock::Now;
use crate::codec::{self, CodecError};
use crate::files;
use crate::placement::FormatLevel;
use crate::shard::{PartitionSnapshot, StoredCounts};

/// Without request ids.
const FORMAT_2: &[u8; MAGIC] = b"TGSTATE2";
/// With request ids.
const FORMAT_3: &[u8; MAGIC] = b"TGSTATE3";
/// Bytes that decoding may claim. The checksum says that the file is one that a node wrote, and
/// `request_ids` of the configuration may be so many that no smaller number fits.
const CLAIMED_MAX: usize = usize::MAX;
const MAGIC: usize = 8;
const HEADER: usize = MAGIC + 32;

/// Writes `state` to `path`, whole or not at all, in the format for a cluster at `level`.
pub fn save(path: &Path, state: PartitionSnapshot, level: FormatLevel) -> io::Result<()> {
    let (magic, body) = match level >= FormatLevel::SECOND {
        true => (FORMAT_3, codec::encode(&state)),
        false => (FORMAT_2, codec::encode(&StoredCounts(state))),
    };
    let body = body.map_err(io::Error::other)?;
    files::replace(path, &[magic, &Sha256::digest(&body), &body])
}

/// Reads the state at `path` and deletes it. Returns none where there is no file, and an error for
/// a damaged file, which stays.
pub fn load(path: &Path, now: Now) -> io::Result<Option<PartitionSnapshot>> {
    let state = read(path, now)?;
    if state.is_some() {
        std::fs::remove_file(path)?;
    }
    Ok(state)
}

/// Reads the state at `path` and leaves the file there, for a process that decides nothing by it.
/// Returns none where there is no file, and an error for a damaged one.
pub fn read(path: &Path, now: Now) -> io::Result<Option<PartitionSnapshot>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io::Error::new(e.kind(), files::explain(path, &e))),
    };
    let damaged = |what: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
    };
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(damaged("too short"));
    };
    let (magic, sum) = header.split_at(MAGIC);
    let decode: fn(&[u8]) -> Result<PartitionSnapshot, CodecError> = match magic {
        magic if magic == FORMAT_3 => codec::decode_within::<_, CLAIMED_MAX>,
        magic if magic == FORMAT_2 => {
            |body| codec::decode_within::<StoredCounts, CLAIMED_MAX>(body).map(|counts| counts.0)
        }
        _ => return Err(damaged("not a state file of this version")),
    };
    if sum != &Sha256::digest(body)[..] {
        return Err(damaged("the checksum differs"));
    }
    let mut state = decode(body).map_err(|e| damaged(&e.to_string()))?;
    state.rebase(now);
    Ok(Some(state))
}

#[cfg(test)]
mod tests;
