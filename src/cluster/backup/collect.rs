//! Asks every owner for what it has counted, a piece at a time, and puts a back-up together.
//!
//! Owners are asked side by side, each for one piece after another. A back-up is of one placement:
//! if partitions have moved meanwhile it is begun again, since what has moved might be in it twice
//! or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{BACKUP_BYTES_MAX, BackUp, BackUpError, BackingUp, Header, PieceAnswer, PieceAsk};
use crate::actor::Handle;
use crate::check::Name;
use crate::clock::SharedClock;
use crate::cluster::Member;
use crate::cluster::links::Links;
use crate::codec;
use crate::peer::Failure;
use crate::placement::{NodeId, TableVersion};
use crate::shard::{Cursor, StoredCounts};

/// How long an owner may take for one piece.
const PIECE_WITHIN: Duration = Duration::from_secs(5);
/// How often it is begun again where partitions move: with [`AGAIN_AFTER`] in between, ten seconds.
const TRIES: usize = 20;
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Bytes of counts, of all owners together. The rest of the file is for the state.
const COUNTS_BYTES_MAX: usize = BACKUP_BYTES_MAX / 2;

/// Makes back-ups, and gives other nodes what they need for theirs.
pub struct BackUps {
    shards: Vec<Handle>,
    member: Arc<Member>,
    links: Arc<Links>,
    clock: SharedClock,
    one: Arc<Semaphore>,
}

/// A back-up that was made. While somebody reads it no other is made: of such a size one is enough
/// in memory, however slowly it is read.
struct Made {
    bytes: Vec<u8>,
    _one: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Made {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why an owner's counts are not all there.
enum Not {
    Reached,
    Still,
    Fitting,
    Encoded(codec::CodecError),
}

impl BackUps {
    /// Of what these shards know, and those of the members that `links` lead to.
    pub fn new(
        shards: Vec<Handle>,
        member: Arc<Member>,
        links: Arc<Links>,
        clock: SharedClock,
    ) -> Self {
        Self { shards, member, links, clock, one: Arc::new(Semaphore::new(1)) }
    }

    /// A piece of what a shard here knows; none where there is no such shard.
    pub async fn piece(&self, ask: PieceAsk) -> Result<Option<PieceAnswer>, Failure> {
        match self.shards.get(ask.shard) {
            Some(shard) => {
                let export = shard.long_counts(ask.cursor).await.map_err(|_| Failure::Busy)?;
                Ok(Some(export.into()))
            }
            None => Ok(None),
        }
    }

    async fn make(&self, partial: bool) -> Result<Bytes, BackUpError> {
        let one = self.one.clone().try_acquire_owned().map_err(|_| BackUpError::Busy)?;
        if !partial && !self.member.has_quorum() {
            return Err(BackUpError::NoMajority);
        }
        for _ in 0..TRIES {
            match self.once(partial).await {
                Err(BackUpError::Moving) => tokio::time::sleep(AGAIN_AFTER).await,
                made => return made.map(|bytes| Bytes::from_owner(Made { bytes, _one: one })),
            }
        }
        Err(BackUpError::Moving)
    }

    async fn once(&self, partial: bool) -> Result<Vec<u8>, BackUpError> {
        let raft = self.member.raft();
        let view = raft.view();
        let agreed = view.state.agreed().ok_or(BackUpError::NotBegun)?;
        let version = agreed.table.version();
        let owners: BTreeSet<NodeId> = agreed.table.rows().map(|(_, row)| row.owner.node).collect();
        let asked = owners
            .iter()
            .map(|owner| self.counts_of(*owner, version, COUNTS_BYTES_MAX / owners.len().max(1)));
        let (mut counts, mut missing) = (Vec::new(), Vec::<Name>::new());
        for (owner, said) in owners.iter().zip(join_all(asked).await) {
            match said {
                Ok(said) => counts.extend(said),
                Err(Not::Reached) => {
                    missing.extend(agreed.members.get(*owner).map(|member| member.name.clone()))
                }
                Err(Not::Still) => return Err(BackUpError::Moving),
                Err(Not::Fitting) => return Err(BackUpError::TooLarge),
                Err(Not::Encoded(error)) => return Err(error.into()),
            }
        }
        // The policy may have changed since; who owns what must not have.
        let view = raft.view();
        if view.state.agreed().is_none_or(|agreed| agreed.table.version() != version) {
            return Err(BackUpError::Moving);
        }
        if !missing.is_empty() && !partial {
            return Err(BackUpError::Missing(missing));
        }
        let header = Header {
            time: self.clock.now().wall,
            program: env!("CARGO_PKG_VERSION").into(),
            applied: view.applied,
            term: raft.term(),
            missing,
            cluster: self.member.claim.cluster.clone(),
            lineage: self.member.lineage.clone(),
            by: self.member.claim.name.clone(),
            environment: self.member.environment.clone(),
        };
        let state = view.state.clone();
        // A million tenants take a second to write down, in which a heartbeat must not wait.
        match raft.has_thread() {
            true => tokio::task::spawn_blocking(move || super::write(&header, &state, &counts))
                .await
                .unwrap_or(Err(BackUpError::Busy)),
            false => super::write(&header, &state, &counts),
        }
    }

    /// All pieces of an owner, encoded, on this node's clocks.
    async fn counts_of(
        &self,
        owner: NodeId,
        version: TableVersion,
        most: usize,
    ) -> Result<Vec<Vec<u8>>, Not> {
        let (mut counts, mut bytes) = (Vec::new(), 0);
        let mut ask = PieceAsk { shard: 0, cursor: Cursor::FIRST };
        while let Some(piece) = self.ask(owner, ask).await? {
            if piece.places != version {
                return Err(Not::Still);
            }
            let state = piece.state.0.as_read_at(self.clock.now());
            if !state.is_empty() {
                let part = codec::encode(&StoredCounts(state)).map_err(Not::Encoded)?;
                bytes += part.len();
                if bytes > most {
                    return Err(Not::Fitting);
                }
                counts.push(part);
            }
            ask = match piece.next {
                Some(cursor) => PieceAsk { cursor, ..ask },
                None => PieceAsk { shard: ask.shard + 1, cursor: Cursor::FIRST },
            };
        }
        Ok(counts)
    }

    async fn ask(&self, owner: NodeId, ask: PieceAsk) -> Result<Option<PieceAnswer>, Not> {
        if owner == self.member.me().node {
            return self.piece(ask).await.map_err(|_| Not::Reached);
        }
        let peer = self.links.peer(owner).ok_or(Not::Reached)?;
        let answer = peer.bulk().ask(&ask, PIECE_WITHIN).await;
        answer.map_err(|error| {
            tracing::info!(%error, "an owner's counts can't be backed up");
            Not::Reached
        })
    }
}

impl BackUp for BackUps {
    fn back_up(&self, partial: bool) -> BackingUp<'_> {
        Box::pin(self.make(partial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_somebody_reads_a_back_up_no_other_is_made() {
        let one = Arc::new(Semaphore::new(1));
        let permit = one.clone().try_acquire_owned().unwrap();
        let bytes = Bytes::from_owner(Made { bytes: vec![7; 100], _one: permit });
        let tail = bytes.slice(90..);
        drop(bytes);
        assert_eq!((&tail[..], one.available_permits()), (&[7; 10][..], 0));
        drop(tail);
        assert_eq!(one.available_permits(), 1);
    }
}
