//! The keys by which nodes know each other, as a node keeps them in its data directory; and the id
//! of the cluster that greetings carry.
//!
//! ```text
//! a founder      keeps the key that follows from its admin tokens at its first start, so that the tokens
//!                can be changed node by node afterwards
//! a node         that was admitted keeps those that the cluster gave it
//! ```
//!
//! The file is text: a line that names its form, and a key in hexadecimal a line. It is no part of
//! the log, of a snapshot or of a back-up.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::state::Agreed;
use crate::check::Name;
use crate::files;
use crate::peer::{Key, Mark};
use crate::placement::{FormatLevel, Secret};

/// The name of the file.
pub const PEER_KEYS_FILE: &str = "peers.keys";
/// Its first line.
const FORM: &str = "tidegate peer keys 1";
/// Keys in it: more than a list of secrets has.
const KEYS_MAX: usize = 32;

/// Returns the keys that are kept in the directory, the one to prove with first. None where there
/// is no file: an empty list is what a cluster without a secret gave. Errors where the file isn't
/// one.
pub fn load(directory: &Path) -> io::Result<Option<Vec<Key>>> {
    let path = directory.join(PEER_KEYS_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| io::Error::other(files::explain(&path, &error)))?,
    };
    let damaged = || {
        io::Error::other(format!(
            "{} holds no keys of peers: remove it, and give this node the secret of its cluster \
             (TIDEGATE_PEER_SECRET, or [peers] secret)",
            path.display()
        ))
    };
    let lines = text.strip_prefix(FORM).ok_or_else(damaged)?.trim_start().lines();
    let keys: Option<Vec<_>> = lines.map(from_hex).collect();
    keys.filter(|keys| keys.len() <= KEYS_MAX).map(Some).ok_or_else(damaged)
}

/// Keeps these keys in the directory, in place of any others; durable when it returns.
pub fn save(directory: &Path, keys: &[Key]) -> io::Result<()> {
    let lines = keys.iter().map(|key| to_hex(key.bytes()) + "\n");
    let text = format!("{FORM}\n{}", lines.collect::<String>());
    files::replace(&directory.join(PEER_KEYS_FILE), &[text.as_bytes()])
}

/// Removes the file, if there is one.
pub fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_file(directory.join(PEER_KEYS_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns the bytes of a key in hexadecimal.
pub fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the key of such a text; none where it is another.
pub fn from_hex(hex: &str) -> Option<Key> {
    super::claim::bytes(hex).map(Key::new)
}

/// Returns the id of the cluster whose hashes have this secret: random, as the secret is, and the
/// same for every node that has applied the first entry of the log.
pub(super) fn cluster_id(secret: Secret) -> Mark {
    let (first, second) = secret.words();
    let mut hash = Sha256::new();
    hash.update(b"tidegate cluster id");
    hash.update(first.to_be_bytes());
    hash.update(second.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk().copied().unwrap_or_default()
}

/// Returns the members whose program may be older than the proof that nodes give each other: those
/// registered without a format level, in a cluster that has none either.
pub(super) fn older_members(agreed: &Agreed) -> impl Iterator<Item = Name> + '_ {
    let is_first = |level| level == FormatLevel::FIRST;
    let members = agreed
        .members
        .iter()
        .filter(move |(_, member)| is_first(agreed.level) && is_first(member.level));
    members.map(|(_, member)| member.name.clone())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn kept_keys_are_read_as_they_were_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), None);
        for keys in [vec![], vec![Key::new([0xab; 32]), Key::new([7; 32])]] {
            save(folder.path(), &keys).unwrap();
            assert_eq!(load(folder.path()).unwrap(), Some(keys));
        }
        let path = folder.path().join(PEER_KEYS_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        for damaged in ["", "tidegate peer keys 2\n", "tidegate peer keys 1\nabab\n"] {
            std::fs::write(&path, damaged).unwrap();
            let why = load(folder.path()).unwrap_err().to_string();
            assert!(why.contains("holds no keys of peers: remove it"), "{why}");
        }
    }

    #[test]
    fn the_id_of_a_cluster_is_these_bytes_in_every_version_to_come() {
        let id = cluster_id(Secret::new(1, 2));
        assert_eq!(
            id.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "dbe46446447875439031cecd548c043f"
        );
        assert_ne!(id, cluster_id(Secret::new(2, 1)));
    }
}
