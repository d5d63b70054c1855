//! Where a tenant lives: in one of 4096 partitions, each of which one node owns.
//!
//! Two questions, answered apart. *Which partition?* is a keyed hash of the account, and never
//! changes. *Whose partition?* is a row of a [`Table`] that all nodes agree on, and changes when
//! nodes come and go. So a tenant's move from node to node is the change of a row at one place in
//! the log, the same for everybody, and no hash of nodes is asked when a check comes in:
//!
//! ```text
//! "acme" ─ hash under the secret ─> partition 2041 ─ row 2041 ─> owner n2 in boot 9c…, replica n1, epoch 5
//! ```
//!
//! The [`planner`] says which rows should change: by weighted rendezvous hashing ([`rendezvous`]),
//! with as few moves as an even load allows. Nothing here knows which nodes are well, whose lease
//! lasts, or how a partition is handed over. That is the cluster's part: it asks the planner,
//! writes into the log, and applies what the log says with [`Table::with`].
//!
//! The hash of accounts is SipHash-1-3 under the cluster's secret, so that nobody who picks tenant
//! ids can aim them at one partition or one hash-table slot. It is computed once, at the door; its
//! upper twelve bits are the partition, the rest serves the owner's hash table.

mod each;
mod level;
mod members;
mod node;
mod places;
pub mod planner;
mod quota;
pub mod rendezvous;
mod table;

#[cfg(test)]
mod planner_tests;
#[cfg(test)]
mod table_tests;

pub use each::EachPartition;
pub use level::FormatLevel;
pub use members::{MEMBERS_MAX, Member, Members, MembersError, NoSuchWeight, WEIGHT_MAX, Weight};
pub use node::{BootId, NodeId, Seat};
pub use places::{Place, Places};
pub use table::{
    Began, Change, Epoch, Moving, Row, Table, TableChangeError, TableError, TableVersion,
};

use std::fmt;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13x128};

/// Slices of the tenant space: enough that a hundred nodes are loaded alike, few enough for a table
/// in every node.
pub const PARTITIONS: u16 = 4096;

/// The key of every hash that outsiders can feed.
#[derive(Clone, Copy)]
pub struct Secret {
    k0: u64,
    k1: u64,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A secret of two random words.
    pub fn new(k0: u64, k1: u64) -> Self {
        Self { k0, k1 }
    }

    /// Its two words, to be stored.
    pub fn words(&self) -> (u64, u64) {
        (self.k0, self.k1)
    }

    /// A hasher of 64 bits.
    pub fn hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.k0, self.k1)
    }

    /// The hash of an account's id.
    pub fn account(&self, id: &str) -> AccountHash {
        let mut hasher = self.hasher();
        hasher.write(id.as_bytes());
        AccountHash(hasher.finish())
    }

    /// 128 bits of `bytes`: wide enough to stand for what was hashed.
    pub fn digest(&self, bytes: &[u8]) -> u128 {
        let mut hasher = SipHasher13x128::new_with_keys(self.k0, self.k1);
        hasher.write(bytes);
        hasher.finish128().as_u128()
    }
}

/// The hash of an account's id under the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountHash(pub u64);

impl AccountHash {
    /// The partition the account is in.
    pub fn partition(self) -> Partition {
        Partition((self.0 >> 52) as u16)
    }
}

/// One of the 4096 slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Partition(u16);

/// A number that no partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no partition {0}: they are numbered from 0 to {last}", last = PARTITIONS - 1)]
pub struct NoSuchPartition(pub u16);

impl TryFrom<u16> for Partition {
    type Error = NoSuchPartition;
    fn try_from(number: u16) -> Result<Self, NoSuchPartition> {
        Self::new(number).ok_or(NoSuchPartition(number))
    }
}

impl From<Partition> for u16 {
    fn from(partition: Partition) -> Self {
        partition.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Partition {
    /// Partition number `number`, if there is one.
    pub fn new(number: u16) -> Option<Self> {
        (number < PARTITIONS).then_some(Self(number))
    }

    /// All of them, in order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }

    /// The partition of a key of 128 bits.
    pub fn of_key(key: u128) -> Self {
        Self((key >> 116) as u16)
    }

    /// The least key of 128 bits that is in it.
    pub fn first_key(self) -> u128 {
        u128::from(self.0) << 116
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Which of `shards` on this node keeps it.
    pub fn shard(self, shards: usize) -> usize {
        usize::from(self.0) % shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_used_evenly() {
        let secret = Secret::new(1, 2);
        let mut counts = vec![0u32; usize::from(PARTITIONS)];
        (0..409_600).for_each(|i| {
            counts[usize::from(secret.account(&format!("tenant-{i}")).partition().number())] += 1;
        });
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        // A hundred each, give or take five standard deviations.
        assert!(*least > 50 && *most < 150, "{least} to {most}");
    }

    #[test]
    fn a_number_beyond_the_last_is_no_partition() {
        assert_eq!(serde_json::from_str::<Partition>("4095").unwrap(), Partition(4095));
        let error = serde_json::from_str::<Partition>("4096").unwrap_err().to_string();
        assert!(error.contains("there is no partition 4096"), "{error}");
    }

    #[test]
    fn another_secret_places_a_tenant_elsewhere() {
        let of = |k| Secret::new(k, 0).account("acme").partition();
        assert!((1..20).any(|k| of(k) != of(0)));
    }
}
