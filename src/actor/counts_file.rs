//! The file of saved counts: what a graceful stop leaves behind for the node's next start.
//!
//! ```text
//! "TGSTATE2"   a magic word with a version
//! SHA-256      of the rest
//! body         the states of all shards
//! ```
//!
//! It is written beside its place and renamed, and it is deleted as it is loaded: state that two
//! processes could load would be spent twice.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::clock::Now;
use crate::shard::SavedState;
use crate::{codec, files};

const MAGIC: &[u8; 8] = b"TGSTATE2";
const HEADER: usize = MAGIC.len() + 32;

/// Writes `state` to `path`, whole or not at all.
pub fn save(path: &Path, state: &SavedState) -> io::Result<()> {
    let body = codec::encode(state).map_err(io::Error::other)?;
    files::replace(path, &[MAGIC, &Sha256::digest(&body), &body])
}

/// Reads the state at `path` and deletes it. Returns none where there is no file, and an error for
/// a damaged file, which stays.
pub fn load(path: &Path, now: Now) -> io::Result<Option<SavedState>> {
    let state = read(path, now)?;
    if state.is_some() {
        std::fs::remove_file(path)?;
    }
    Ok(state)
}

/// Reads the state at `path` and leaves the file there, for a process that decides nothing by it.
/// Returns none where there is no file, and an error for a damaged one.
pub fn read(path: &Path, now: Now) -> io::Result<Option<SavedState>> {
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
    if &header[..MAGIC.len()] != MAGIC {
        return Err(damaged("not a state file of this version"));
    }
    if header[MAGIC.len()..] != Sha256::digest(body)[..] {
        return Err(damaged("the checksum differs"));
    }
    let mut state: SavedState = codec::decode(body).map_err(|e| damaged(&e.to_string()))?;
    state.rebase(now);
    Ok(Some(state))
}

#[cfg(test)]
mod tests;
