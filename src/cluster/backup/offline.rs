//! A back-up of a node that is stopped: of its log, and of the counts that it saved as it stopped.
//!
//! ```text
//! n1 alone, stopped with SIGTERM     the policy, the lists, …, and all counts of long limits
//! n1 alone, killed                   its counts are lost: a back-up only where `partial` allows it
//! n1 of three, stopped               it has handed its counts over: a back-up only with `partial`
//! ```
//!
//! The data directory is opened as a node opens it, so a node that runs is never read, and nothing
//! in it is changed: the saved counts stay where they are, for the node's next start.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{BackUpError, Header};
use crate::actor::counts_file;
use crate::check::Name;
use crate::clock::Now;
use crate::cluster::raft::{Lying, OpenError, Place};
use crate::codec;
use crate::placement::Partition;
use crate::shard::{PartitionSnapshot, StoredCounts};

/// Why there is no back-up of a stopped node.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The data can't be opened: another process has it, or it can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is none.
    #[error("there is no node's data there")]
    Empty,
    /// The node has left its cluster.
    #[error("{0} has left its cluster: the other nodes have what it knew")]
    HasLeft(String),
    /// The saved counts can't be read.
    #[error("the saved counts can't be read: {0}")]
    Counts(io::Error),
    /// There is nothing to back up, counts are missing, or the back-up would be too large.
    #[error(transparent)]
    BackUp(#[from] BackUpError),
}

/// A back-up of a stopped node.
pub struct Offline {
    /// The file.
    pub bytes: Vec<u8>,
    /// How many of the log's last entries the node doesn't know a majority to have. They are in it.
    pub unconfirmed: u64,
}

/// Makes a back-up of the node in `directory`, whose saved counts are in its file `counts`. Returns
/// an error where not all counts of the cluster are there, unless `partial`.
pub fn back_up(
    directory: &Path,
    counts: &str,
    now: Now,
    partial: bool,
) -> Result<Offline, OfflineError> {
    let place = Place::Directory(directory.into());
    let found = place.found()?.ok_or(OfflineError::Empty)?;
    if found.has_left {
        return Err(OfflineError::HasLeft(found.claim.to_string()));
    }
    // From here on no node can start with this data.
    let lying = Lying::open(&place)?.ok_or(OfflineError::Empty)?;
    let agreed = lying.state.agreed().ok_or(BackUpError::NotBegun)?;
    let saved = counts_file::read(&directory.join(counts), now).map_err(OfflineError::Counts)?;
    let known: BTreeSet<_> = saved.iter().flat_map(|saved| &saved.epochs).copied().collect();
    let (mut kept, mut missing) = (BTreeSet::<Partition>::new(), BTreeSet::new());
    for (partition, row) in agreed.table.rows() {
        match row.owner.node == lying.claim.node && known.contains(&(partition, row.epoch)) {
            true => drop(kept.insert(partition)),
            false => drop(missing.insert(row.owner.node)),
        }
    }
    let name = |id| agreed.members.get(id).map(|member| member.name.clone());
    let missing: Vec<Name> = missing.into_iter().filter_map(name).collect();
    if !missing.is_empty() && !partial {
        return Err(BackUpError::Missing(missing).into());
    }
    let of_partition = |partition| kept.contains(&partition);
    let counts = saved.map(|saved| saved.long_counts(agreed.secret(), of_partition, now));
    let parts = counts.filter(|counts: &PartitionSnapshot| !counts.is_empty());
    let parts = parts.map(StoredCounts);
    let parts: Result<Vec<_>, _> = parts.iter().map(codec::encode).collect();
    let header = Header {
        cluster: lying.claim.cluster.clone(),
        lineage: lying.lineage.clone(),
        by: lying.claim.name.clone(),
        time: now.wall,
        program: env!("CARGO_PKG_VERSION").into(),
        applied: lying.last,
        term: lying.term,
        environment: lying.claim.admission.as_ref().map(|admission| admission.environment.clone()),
        missing,
    };
    let bytes = super::write(&header, &lying.state, &parts.map_err(BackUpError::Encode)?)?;
    Ok(Offline { bytes, unconfirmed: lying.unconfirmed })
}
