//! What one node knows of long limits, for the node that makes a back-up of all.

use serde::{Deserialize, Serialize};

use super::message::{Ask, Kind};
use crate::placement::TableVersion;
use crate::shard::{Cursor, Export, StoredCounts};

/// Asks for a piece of what a shard knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceAsk {
    /// Which of its shards; each node has its own number of them.
    pub shard: usize,
    /// Where the piece begins.
    pub cursor: Cursor,
}

impl Ask for PieceAsk {
    const KIND: Kind = Kind(Kind::BULK.0 + 1);
    /// The piece; none where there is no such shard.
    type Answer = Option<PieceAnswer>;
}

/// A piece.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PieceAnswer {
    /// The placement by which it was known what is here.
    pub places: TableVersion,
    /// Long-lived counts of partitions that are here, and which of those were lost.
    pub state: StoredCounts,
    /// Where the next one begins; none, and this was the last.
    pub next: Option<Cursor>,
}

impl From<Export> for PieceAnswer {
    fn from(export: Export) -> Self {
        let Export { places, delta, next } = export;
        Self { places, state: StoredCounts(delta.known), next }
    }
}
