//! What shards of different nodes say to each other about the limits that tenants share: ask,
//! reply, settle.
//!
//! The tenant's shard asks the bucket's owner to hold units, hears what the bucket says, and
//! settles: takes, or gives back. The check that asks is known by the life of its node, its shard
//! and a number; by that both asking and settling can be said twice and count once. Times travel as
//! durations, since the clocks of two machines don't compare.

use serde::{Deserialize, Serialize};

use super::message::{Ask as Question, Kind};
use crate::placement::Partition;
use crate::plain::{PlainLimit, PlainOutcome};
use crate::shard::{Ask, Home, OpRef, Reply, Said};

/// A question to a shared bucket on the node that owns `partition`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SharedAsk {
    /// The partition that the bucket's key hashes to.
    pub partition: Partition,
    op: OpRef,
    demand: u32,
    key: u128,
    overflow_key: u128,
    limit: PlainLimit,
    cost: u64,
    hold: bool,
    /// Nanoseconds to wait for others' holds.
    waits: Option<u64>,
    /// Nanoseconds after which nobody waits for the answer.
    left: u64,
}

impl Question for SharedAsk {
    const KIND: Kind = Kind::SHARED;
    type Answer = SharedAnswer;
}

/// What the owner says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SharedAnswer {
    /// The bucket's word.
    Said(PlainReply),
    /// The question waited for others' holds for as long as it might.
    NothingInTime,
    /// This node doesn't own the partition, or doesn't know yet that it does.
    NotOwner,
}

/// A bucket's word, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainReply {
    key: u128,
    outcome: PlainOutcome,
    remaining: u64,
    reset: u64,
    reset_if_taken: u64,
    overflow: bool,
}

/// What becomes of the units that a check holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleAsk {
    /// The partition that the bucket's key hashed to.
    pub partition: Partition,
    /// The check.
    pub op: OpRef,
    /// The bucket, which may be one that stands in beyond a cap.
    pub key: u128,
    /// Take, or give back.
    pub take: bool,
}

impl Question for SettleAsk {
    const KIND: Kind = Kind(Kind::SHARED.0 + 1);
    /// Whether this node owns the partition.
    type Answer = bool;
}

impl SharedAsk {
    /// The question as it travels; `now` is the boot time of the node that asks.
    pub fn new(partition: Partition, ask: &Ask, now: u64) -> Self {
        Self {
            partition,
            op: ask.op,
            demand: u32::try_from(ask.demand).unwrap_or(u32::MAX),
            key: ask.key,
            overflow_key: ask.overflow_key,
            limit: (&*ask.limit).into(),
            cost: ask.cost,
            hold: ask.hold,
            waits: ask.until.map(|until| until.saturating_sub(now)),
            left: ask.deadline.saturating_sub(now),
        }
    }

    /// The question as the bucket's shard takes it; `now` is the boot time of the node that is
    /// asked. Fails where the limit is out of bounds.
    pub fn ask(self, now: u64) -> Result<Ask, &'static str> {
        Ok(Ask {
            op: self.op,
            demand: self.demand as usize,
            key: self.key,
            overflow_key: self.overflow_key,
            limit: self.limit.limit()?,
            cost: self.cost,
            hold: self.hold,
            until: self.waits.map(|nanos| now.saturating_add(nanos)),
            deadline: now.saturating_add(self.left),
        })
    }
}

impl PlainReply {
    /// The reply as it travels.
    pub fn new(reply: &Reply) -> Self {
        // Permits lie in their account, so no shared bucket is cold.
        let Said { outcome, remaining, reset, reset_if_taken, overflow, cold: _ } = reply.said;
        Self { key: reply.key, outcome: outcome.into(), remaining, reset, reset_if_taken, overflow }
    }

    /// The reply to `ask` as its shard takes it.
    pub fn reply(self, partition: Partition, ask: &Ask) -> Reply {
        let Self { key, outcome, remaining, reset, reset_if_taken, overflow } = self;
        let outcome = outcome.into();
        let said = Said { outcome, remaining, reset, reset_if_taken, overflow, cold: false };
        Reply { from: Home::Far(partition), op: ask.op, demand: ask.demand, key, said }
    }
}
