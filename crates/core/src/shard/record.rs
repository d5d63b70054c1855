//! The ids under which accounts are saved and handed over: a tenant's own, or one of three kinds
//! that no tenant can have, since no tenant id contains a `*`.
//!
//! ```text
//! acme                    the account of that tenant
//! *3                      what shard 3 keeps for tenants beyond a cap
//! *p0a1b2c3d4e5f6071      permits of an account of which the hash alone is known: they were renewed
//!                         after their owner had lost the account
//! *c0ff                   no account: since when the permits in flight of partition 255 are not known,
//!                         as the end of the one permit in it
//! ```
//!
//! An earlier version reads all of them without a fault. It takes the last two for accounts whose
//! permits end by themselves.

use std::fmt;

use crate::check::PermitId;
use crate::limit::Permits;
use crate::placement::{AccountHash, Partition, Secret};

/// What a saved or moved account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordId<'a> {
    /// The account of a tenant, or of one address of `anonymous`.
    Account(&'a str),
    /// What a shard keeps for tenants beyond a cap.
    Overflow(usize),
    /// The permits of an account of which the hash alone is known.
    Unnamed(AccountHash),
    /// Since when the permits in flight of a partition are not known.
    PermitsLost(Partition),
}

impl<'a> RecordId<'a> {
    /// What is kept under `id`.
    pub fn of(id: &'a str) -> Self {
        let Some(rest) = id.strip_prefix('*') else { return Self::Account(id) };
        let hex = |digits: Option<&str>| u64::from_str_radix(digits?, 16).ok();
        let partition = |number: u64| Partition::new(u16::try_from(number).ok()?);
        let unnamed = hex(rest.strip_prefix('p')).map(|hash| Self::Unnamed(AccountHash(hash)));
        let lost = || hex(rest.strip_prefix('c')).and_then(partition).map(Self::PermitsLost);
        unnamed.or_else(lost).unwrap_or_else(|| Self::Overflow(rest.parse().unwrap_or(0)))
    }

    /// The hash by which the record finds its partition; none for what belongs to a shard.
    pub fn hash(self, secret: &Secret) -> Option<AccountHash> {
        match self {
            Self::Account(id) => Some(secret.account(id)),
            Self::Overflow(_) => None,
            Self::Unnamed(hash) => Some(hash),
            Self::PermitsLost(partition) => Some(AccountHash(u64::from(partition.number()) << 52)),
        }
    }

    /// The hash, if `id` is that of an account of which the hash alone is known.
    pub fn unnamed(id: &str) -> Option<AccountHash> {
        match RecordId::of(id) {
            RecordId::Unnamed(hash) => Some(hash),
            _ => None,
        }
    }
}

impl fmt::Display for RecordId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(id) => f.write_str(id),
            Self::Overflow(shard) => write!(f, "*{shard}"),
            Self::Unnamed(hash) => write!(f, "*p{:016x}", hash.0),
            Self::PermitsLost(partition) => write!(f, "*c{:03x}", partition.number()),
        }
    }
}

/// The partition of the account that is saved or handed over under `id`.
pub fn partition_of(id: &str, secret: &Secret) -> Partition {
    RecordId::of(id).hash(secret).unwrap_or_else(|| secret.account(id)).partition()
}

/// The permits of a [`RecordId::PermitsLost`]: one, which ends when they were lost, so that it
/// moves from clock to clock as permits do.
pub fn lost_since(partition: Partition, boot: u64) -> Permits {
    let mut permits = Permits::default();
    permits.grant(PermitId { partition: partition.number(), secret: 0 }, boot);
    permits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let partition = Partition::new(255).unwrap();
        for (id, text) in [
            (RecordId::Account("acme"), "acme"),
            (RecordId::Account("anonymous@::1"), "anonymous@::1"),
            (RecordId::Overflow(3), "*3"),
            (RecordId::Unnamed(AccountHash(0x0a1b_2c3d_4e5f_6071)), "*p0a1b2c3d4e5f6071"),
            (RecordId::PermitsLost(partition), "*c0ff"),
        ] {
            assert_eq!((id.to_string().as_str(), RecordId::of(text)), (text, id));
        }
        // The overflow account of a shard that doesn't say its number is the first's.
        assert_eq!(RecordId::of("*"), RecordId::Overflow(0));
    }

    #[test]
    fn a_record_lies_in_the_partition_that_it_is_about() {
        let (secret, hash) = (Secret::new(1, 2), AccountHash(0xfff0_0000_0000_0001));
        assert_eq!(partition_of(&RecordId::Unnamed(hash).to_string(), &secret), hash.partition());
        for partition in [0, 7, 4095].map(|number| Partition::new(number).unwrap()) {
            assert_eq!(
                partition_of(&RecordId::PermitsLost(partition).to_string(), &secret),
                partition
            );
        }
        assert_eq!(partition_of("acme", &secret), secret.account("acme").partition());
    }
}
