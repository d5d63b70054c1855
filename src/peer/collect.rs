//! What one node knows of long limits, for the node that makes a back-up of all.

use serde::{Deserialize, Serialize};

use super::message::{Ask, Kind};
use crate::shard::{Cursor, Piece};

/// A piece of what a shard knows.
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
    type Answer = Option<Piece>;
}
