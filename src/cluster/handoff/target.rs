//! The end that is given partitions: keeps what comes, in parts, and lays it beside the shards' own until the log has decided.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Now;
use crate::cluster::InForce;
use crate::limit::State;
use crate::peer::moving::{InstallAsk as Part, PlainAccount};
use crate::peer::{BootId, Failure};
use crate::placement::{Epoch, Partition, TableVersion};
use crate::shard::{Handle, Moved, MovedAccount};

/// See [`crate::peer::moving::InstallAsk`].
pub type InstallAsk = Part;
/// Whether it is kept.
pub type Installed = bool;

/// Transfers that are put together at a time; the one that was begun first makes room.
const TRANSFERS_MAX: usize = 16;
/// How long the last part waits until this node knows of the moves that it is for.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// A transfer that is not complete.
#[derive(Default)]
struct Incoming {
    begun: u64,
    accounts: BTreeMap<String, PlainAccount>,
    shared: BTreeMap<u128, State>,
    lost: BTreeMap<Partition, Now>,
}

/// Transfers by whose they are and their number, and how many have ever begun.
type Transfers = (u64, BTreeMap<(BootId, u64), Incoming>);

/// See the module.
pub struct Target {
    shards: Vec<Handle>,
    in_force: Arc<InForce>,
    incoming: Mutex<Transfers>,
}

impl Target {
    /// The end of a node with these shards.
    pub fn new(shards: Vec<Handle>, in_force: Arc<InForce>) -> Self {
        Self { shards, in_force, incoming: Mutex::default() }
    }

    /// Takes a part; once it is the last, everything is with the shards when this answers.
    pub async fn install(&self, part: InstallAsk) -> Result<Installed, Failure> {
        let (transfer, boot) = (part.transfer, part.boot);
        let last = part.last.clone();
        let complete = self.add(part, last.is_some());
        let (Some(moves), Some(incoming)) = (last, complete) else { return Ok(true) };
        let known = |in_force: &InForce| self.awaits(in_force, &moves);
        if tokio::time::timeout(KNOWN_WITHIN, self.in_force.until(known)).await.is_err() {
            tracing::warn!(boot = %transfer.0, "partitions came that nobody has moved here");
            return Ok(false);
        }
        let malformed = |fault: &'static str| Failure::Malformed(fault.into());
        let secret = self.in_force.secret().ok_or(Failure::Busy)?;
        let mut parts: Vec<Moved> = self.shards.iter().map(|_| Moved { boot, ..Moved::default() }).collect();
        for (id, account) in incoming.accounts {
            let shard = secret.account(&id).partition().shard(self.shards.len());
            parts[shard].accounts.push(MovedAccount::try_from(account).map_err(malformed)?);
        }
        for (key, state) in incoming.shared {
            parts[Partition::of_key(key).shard(self.shards.len())].shared.push((key, state));
        }
        for (partition, then) in incoming.lost {
            parts[partition.shard(self.shards.len())].lost.push((partition, then));
        }
        let epochs: Arc<[(Partition, Epoch)]> =
            moves.iter().map(|(partition, _, epoch)| (*partition, *epoch)).collect();
        for (shard, moved) in self.shards.iter().zip(parts) {
            shard.stage(epochs.clone(), moved).await.map_err(|_| Failure::Busy)?;
        }
        Ok(true)
    }

    /// Adds a part to its transfer; the whole of it, if that is complete.
    fn add(&self, part: InstallAsk, complete: bool) -> Option<Incoming> {
        // Whole between any two statements: what panicked while holding the lock left it so.
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, transfers) = &mut *incoming;
        if transfers.len() >= TRANSFERS_MAX && !transfers.contains_key(&part.transfer) {
            let oldest = transfers.iter().min_by_key(|(_, incoming)| incoming.begun).map(|(id, _)| *id);
            oldest.into_iter().for_each(|oldest| drop(transfers.remove(&oldest)));
        }
        let transfer = transfers.entry(part.transfer).or_insert_with(|| {
            *begun += 1;
            Incoming { begun: *begun, ..Incoming::default() }
        });
        transfer.accounts.extend(part.accounts.into_iter().map(|account| (account.id.clone(), account)));
        transfer.shared.extend(part.shared);
        let lost =
            part.lost.iter().map(|(partition, boot, wall)| (*partition, Now { boot: *boot, wall: *wall }));
        transfer.lost.extend(lost);
        part.gone.iter().for_each(|id| drop(transfer.accounts.remove(id)));
        part.gone_shared.iter().for_each(|key| drop(transfer.shared.remove(key)));
        if complete { transfers.remove(&part.transfer) } else { None }
    }

    /// Whether all these moves are under way to this life of this node, as far as it knows.
    fn awaits(&self, in_force: &InForce, moves: &[(Partition, TableVersion, Epoch)]) -> bool {
        let places = in_force.places().load();
        moves.iter().all(|(partition, id, _)| {
            let moving = places.table().row(*partition).moving;
            moving.is_some_and(|moving| moving.id == *id && moving.to == places.me())
        })
    }
}
