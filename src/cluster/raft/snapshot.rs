//! Snapshots as they lie on disk: a head, a checksum, and bytes that nobody here looks into.
//!
//! ```text
//! "TGSN"  format (u16, little endian)  SHA-256 of the rest  meta and data
//! ```

use std::io;

use openraft::RaftSnapshotBuilder;
use sha2::{Digest, Sha256};

use super::store::LogStore;
use super::types::{LogId, Membership, Snapshot, SnapshotData, SnapshotMeta, TypeConfig};
use crate::cluster::state::State;
use crate::codec;

const MAGIC: &[u8; 4] = b"TGSN";
const FORMAT: u16 = 1;
const SUM_AT: usize = MAGIC.len() + size_of::<u16>();
const BODY_AT: usize = SUM_AT + 32;

/// A snapshot with its checksum.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub last_log_id: Option<LogId>,
    pub bytes: Vec<u8>,
}

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// They never were one, or they are damaged.
    #[error("the snapshot is damaged: its {0} is wrong")]
    Damaged(&'static str),
    /// They are one of another version of the program.
    #[error("the snapshot has format {found}, this program reads {known}")]
    Format {
        /// Theirs.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// What the checksum covers isn't readable.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
}

impl Sealed {
    pub(super) fn new(meta: &SnapshotMeta, data: &SnapshotData) -> Result<Self, SealError> {
        let body = codec::encode(&(meta, data))?;
        let mut bytes = Vec::with_capacity(BODY_AT + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&Sha256::digest(&body));
        bytes.extend_from_slice(&body);
        Ok(Self { last_log_id: meta.last_log_id, bytes })
    }

    /// Takes bytes that were stored; looks at all of them.
    pub(super) fn found(bytes: Vec<u8>) -> Result<Self, SealError> {
        let mut sealed = Self { last_log_id: None, bytes };
        sealed.last_log_id = sealed.open()?.0.last_log_id;
        Ok(sealed)
    }

    pub(super) fn open(&self) -> Result<(SnapshotMeta, SnapshotData), SealError> {
        let bytes = &self.bytes;
        if !bytes.starts_with(MAGIC) || bytes.len() < BODY_AT {
            return Err(SealError::Damaged("head"));
        }
        let found = u16::from_le_bytes([bytes[MAGIC.len()], bytes[MAGIC.len() + 1]]);
        if found != FORMAT {
            return Err(SealError::Format { found, known: FORMAT });
        }
        if Sha256::digest(&bytes[BODY_AT..]).as_slice() != &bytes[SUM_AT..BODY_AT] {
            return Err(SealError::Damaged("checksum"));
        }
        Ok(codec::decode(&bytes[BODY_AT..])?)
    }
}

/// A copy of the state, to be written down while the log goes on.
pub struct Builder {
    pub(super) state: State,
    pub(super) applied: Option<LogId>,
    pub(super) membership: Membership,
    pub(super) store: LogStore,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        let (state, head) = (std::mem::take(&mut self.state), meta.clone());
        let level = state.level();
        let build = move || -> io::Result<_> {
            let data = state.encode().map_err(io::Error::other)?;
            let sealed = Sealed::new(&head, &data).map_err(io::Error::other)?;
            Ok((data, sealed))
        };
        // A million tenants take a second to write down, in which a heartbeat must not wait.
        let (data, sealed) = match self.store.has_thread() {
            true => tokio::task::spawn_blocking(build).await.map_err(io::Error::other)??,
            false => build()?,
        };
        self.store.publish(sealed, level).await?;
        Ok(Snapshot { meta, snapshot: data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_is_noticed() {
        let sealed = Sealed::new(&SnapshotMeta::default(), &vec![1, 2, 3]).unwrap();
        assert_eq!(sealed.open().unwrap().1, [1, 2, 3]);
        for i in 0..sealed.bytes.len() {
            let mut bytes = sealed.bytes.clone();
            bytes[i] ^= 1;
            assert!(Sealed::found(bytes).is_err(), "byte {i}");
        }
        assert!(Sealed::found(sealed.bytes[..20].to_vec()).is_err());
    }
}
