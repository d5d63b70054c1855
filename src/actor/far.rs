//! The way from a shard to the buckets that other nodes keep, and back.

use tokio::sync::mpsc;

use super::handle::Between;
use crate::placement::Partition;
use crate::shard::{Ask, Home, OpRef, Reply};

/// The way to the buckets that other nodes keep. Nothing here waits: what is asked is sent, and the
/// answer comes by itself.
pub trait Far: Send + Sync + 'static {
    /// Asks a bucket on the node that owns `partition`. Where no answer comes by the question's
    /// deadline, none comes.
    fn ask(&self, partition: Partition, ask: Ask, to: ReplyTo);
    /// Settles what `op` holds of a bucket there. Where that doesn't get through, what is held
    /// there is taken once the hold has been open for too long.
    fn settle(&self, partition: Partition, op: OpRef, key: u128, take: bool);
}

/// Nothing is far: for shards that have all buckets on their own node.
pub struct NothingFar;

impl Far for NothingFar {
    fn ask(&self, _: Partition, _: Ask, _: ReplyTo) {}
    fn settle(&self, _: Partition, _: OpRef, _: u128, _: bool) {}
}

/// Where the answer to a question to another node goes.
pub struct ReplyTo {
    pub(super) partition: Partition,
    pub(super) to: mpsc::UnboundedSender<Between>,
}

impl ReplyTo {
    /// Gives the answer to the shard that asked.
    pub fn send(self, reply: Reply) {
        // A shard that has ended waits for nothing.
        let _ = self.to.send(Between::Reply(Reply { from: Home::Far(self.partition), ..reply }));
    }
}
