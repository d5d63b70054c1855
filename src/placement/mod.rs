//! Where a tenant lives: the keyed hash that spreads accounts over 4096 partitions.
//!
//! The hash is SipHash-1-3 under the cluster's secret, so that nobody who picks tenant ids can aim them at one partition or
//! one hash-table slot. It is computed once, at the door; its upper twelve bits are the partition, the rest serves the
//! owner's hash table.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13x128};

/// Slices of the tenant space: enough that a hundred nodes are loaded alike, few enough for a table in every node.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition(u16);

impl Partition {
    /// Partition number `number`, if there is one.
    pub fn new(number: u16) -> Option<Self> {
        (number < PARTITIONS).then_some(Self(number))
    }

    /// The partition of a key of 128 bits.
    pub fn of_key(key: u128) -> Self {
        Self((key >> 116) as u16)
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
    fn another_secret_places_a_tenant_elsewhere() {
        let of = |k| Secret::new(k, 0).account("acme").partition();
        assert!((1..20).any(|k| of(k) != of(0)));
    }
}
