//! The end that is given partitions: hands what comes, in parts, to the shards, which go by it once
//! the log has decided.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::actor::{Handle, Staging};
use crate::clock::Now;
use crate::cluster::InForce;
use crate::peer::Failure;
use crate::peer::moving::InstallAsk as Part;
use crate::placement::Partition;
use crate::shard::{PartitionDelta, partition_of};

/// See [`crate::peer::moving::InstallAsk`].
pub type InstallAsk = Part;
/// Whether it is kept.
pub type Installed = bool;

/// How long a part waits until this node knows of the move that it is for.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct Target {
    shards: Vec<Handle>,
    in_force: Arc<InForce>,
}

impl Target {
    /// The end of a node with these shards.
    pub fn new(shards: Vec<Handle>, in_force: Arc<InForce>) -> Self {
        Self { shards, in_force }
    }

    /// Takes a part; it is with the shards when this answers.
    pub async fn install(&self, part: InstallAsk) -> Result<Installed, Failure> {
        let known = |in_force: &InForce| awaits(in_force, &part);
        if tokio::time::timeout(KNOWN_WITHIN, self.in_force.until(known)).await.is_err() {
            tracing::warn!(of = part.of.0, "partitions came that nobody has moved here");
            return Ok(false);
        }
        let secret = self.in_force.secret().ok_or(Failure::Busy)?;
        let Part { of, partitions, boot, accounts, shared, gone, lost, is_last } = part;
        // The walls of two nodes are not compared.
        let at = Now { boot, wall: 0 };
        let mut parts: Vec<_> = self.shards.iter().map(|_| PartitionDelta::at(at)).collect();
        let shard_of = |partition: Partition| partition.shard(self.shards.len());
        for account in accounts {
            let shard = shard_of(partition_of(&account.id, &secret));
            parts[shard].known.accounts.push(account);
        }
        for id in gone {
            parts[shard_of(partition_of(&id, &secret))].gone.push(id);
        }
        for (key, state) in shared {
            parts[shard_of(Partition::of_key(key))].known.shared.push((key, state));
        }
        for (partition, then) in lost {
            parts[shard_of(partition)].known.lost.push((partition, then));
        }
        let partitions: Arc<[Partition]> = partitions.into();
        let staged = self.shards.iter().zip(parts).map(|(shard, delta)| {
            shard.stage(Staging { partitions: partitions.clone(), of, delta, is_last })
        });
        try_join_all(staged).await.map_err(|_| Failure::Busy)?;
        Ok(true)
    }
}

/// Whether the move is under way to this life of this node, as far as it knows.
fn awaits(in_force: &InForce, part: &Part) -> bool {
    let places = in_force.places().load();
    part.partitions.iter().all(|partition| {
        let moving = places.table().row(*partition).moving;
        moving.is_some_and(|moving| moving.id == part.of && moving.to == places.me())
    })
}
