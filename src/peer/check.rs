//! A check on its way to the tenant's owner, and what the owner says.
//!
//! A check carries who forwards it, as (router, boot, sequence): by that the owner knows a
//! repetition, which must not be charged twice. It carries the epoch of the row by which it was
//! sent, since an owner that is none any more must not decide, and the version of the policy that
//! the router knows, since an owner that is behind must catch up first.
//!
//! Of an API key there is the digest alone. Limits travel in a plain form (`plain`), and what is
//! read is held to the same bounds as what comes by the door: a peer with a fault must not be able
//! to break a shard.

use serde::{Deserialize, Serialize};

use super::message::{Ask, Kind};
use super::{BootId, Opaque};
use crate::check::{Check, Decision, Name};
use crate::placement::Partition;
use crate::plain::{PlainCheck, PlainDecision};
use crate::shard::Refusal;

/// Who forwards a check, and which of its checks this is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The node that took the check.
    pub router: Name,
    /// Which run of it.
    pub boot: BootId,
    /// A number that the router gives once in a run.
    pub sequence: u64,
}

/// What the router wants of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Decide it: what passes is taken.
    Take,
    /// Say what would be decided; nothing is taken.
    Look,
}

/// A check, for the owner of its tenant's partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PlainAsk", into = "PlainAsk")]
pub struct CheckAsk {
    /// Who forwards it.
    pub source: Source,
    /// The partition that its account hashes to.
    pub partition: Partition,
    /// The epoch of the partition's row, as the router knows it.
    pub epoch: u64,
    /// The version of the policy that the router knows.
    pub policy_version: u64,
    /// Whether it takes.
    pub purpose: Purpose,
    /// The check.
    pub check: Check,
}

impl Ask for CheckAsk {
    const KIND: Kind = Kind::CHECK;
    type Answer = CheckAnswer;
}

/// What the owner says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "PlainAnswer", into = "PlainAnswer")]
pub struct CheckAnswer {
    /// The epoch under which it was said.
    pub epoch: u64,
    /// The decision, or why there is none.
    pub said: Result<Decision, Declined>,
}

/// Why an owner didn't decide. Nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// The shard refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This node doesn't own the partition under the epoch that was named.
    #[error("the partition is owned elsewhere at epoch {epoch}")]
    NotOwner {
        /// The epoch that this node knows.
        epoch: u64,
        /// The owner that it knows, if there is one.
        owner: Option<Name>,
    },
    /// The sequence number is older than what is remembered, so that a repetition can't be told
    /// from a first time.
    #[error("the sequence number is too old to be told from a repetition")]
    TooOld,
}

#[derive(Serialize, Deserialize)]
struct PlainAsk {
    source: Source,
    partition: u16,
    epoch: u64,
    policy_version: u64,
    purpose: Purpose,
    check: PlainCheck,
}

impl From<CheckAsk> for PlainAsk {
    fn from(ask: CheckAsk) -> Self {
        Self {
            source: ask.source,
            partition: ask.partition.number(),
            epoch: ask.epoch,
            policy_version: ask.policy_version,
            purpose: ask.purpose,
            check: ask.check.into(),
        }
    }
}

impl TryFrom<PlainAsk> for CheckAsk {
    type Error = &'static str;
    fn try_from(plain: PlainAsk) -> Result<Self, &'static str> {
        Ok(Self {
            source: plain.source,
            partition: Partition::new(plain.partition).ok_or("there is no such partition")?,
            epoch: plain.epoch,
            policy_version: plain.policy_version,
            purpose: plain.purpose,
            check: plain.check.try_into()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct PlainAnswer {
    epoch: u64,
    said: PlainSaid,
}

#[derive(Serialize, Deserialize)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is there for one encoding, and nearly always the large one"
)]
enum PlainSaid {
    Decided(PlainDecision),
    Refused(PlainRefused),
    NotOwner { epoch: u64, owner: Option<Name> },
    TooOld,
}

/// A refusal on the wire. It is flat: a type that contains itself could be nested without end.
/// Batches aren't nested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainRefused {
    in_batch: Option<u32>,
    why: PlainRefusal,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum PlainRefusal {
    UnknownTier(Name),
    LimitsRefused(Name),
    RequestIdReused,
    Busy,
}

impl From<CheckAnswer> for PlainAnswer {
    fn from(answer: CheckAnswer) -> Self {
        let said = match answer.said {
            Ok(decision) => PlainSaid::Decided(decision.into()),
            Err(Declined::NotOwner { epoch, owner }) => PlainSaid::NotOwner { epoch, owner },
            Err(Declined::TooOld) => PlainSaid::TooOld,
            Err(Declined::Refused(refusal)) => PlainSaid::Refused(refusal.into()),
        };
        Self { epoch: answer.epoch, said }
    }
}

impl TryFrom<PlainAnswer> for CheckAnswer {
    type Error = &'static str;
    fn try_from(plain: PlainAnswer) -> Result<Self, &'static str> {
        let said = match plain.said {
            PlainSaid::Decided(decision) => Ok(decision.try_into()?),
            PlainSaid::NotOwner { epoch, owner } => Err(Declined::NotOwner { epoch, owner }),
            PlainSaid::TooOld => Err(Declined::TooOld),
            PlainSaid::Refused(refused) => Err(Declined::Refused(refused.into())),
        };
        Ok(Self { epoch: plain.epoch, said })
    }
}

impl From<Refusal> for PlainRefused {
    fn from(mut refusal: Refusal) -> Self {
        let mut in_batch = None;
        loop {
            let why = match refusal {
                Refusal::UnknownTier(tier) => PlainRefusal::UnknownTier(tier),
                Refusal::LimitsRefused(tier) => PlainRefusal::LimitsRefused(tier),
                Refusal::RequestIdReused => PlainRefusal::RequestIdReused,
                // An owner asks no other node for a decision, and grants a shorter permit rather
                // than none.
                Refusal::PermitTooLong(_) => PlainRefusal::Busy,
                Refusal::Busy
                | Refusal::Unreachable
                | Refusal::NotStarted(_)
                | Refusal::Older(_)
                | Refusal::Moved(_) => PlainRefusal::Busy,
                Refusal::InBatch(index, why) => {
                    in_batch = in_batch.or(u32::try_from(index).ok());
                    refusal = *why;
                    continue;
                }
            };
            return Self { in_batch, why };
        }
    }
}

impl From<PlainRefused> for Refusal {
    fn from(plain: PlainRefused) -> Self {
        let why = match plain.why {
            PlainRefusal::UnknownTier(tier) => Self::UnknownTier(tier),
            PlainRefusal::LimitsRefused(tier) => Self::LimitsRefused(tier),
            PlainRefusal::RequestIdReused => Self::RequestIdReused,
            PlainRefusal::Busy => Self::Busy,
        };
        match plain.in_batch {
            Some(index) => Self::InBatch(index as usize, Box::new(why)),
            None => why,
        }
    }
}

pub(super) fn fuzz(bytes: &[u8]) {
    let opaque = Opaque { kind: Kind::CHECK, bytes: bytes.to_vec().into() };
    if let Ok(ask) = opaque.read_question::<CheckAsk>() {
        let again = Opaque::question(&ask).map(|written| written.read_question::<CheckAsk>());
        assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == ask)));
    }
    if let Ok(answer) = opaque.read_answer::<CheckAsk>() {
        let again =
            Opaque::answer::<CheckAsk>(&answer).map(|written| written.read_answer::<CheckAsk>());
        // Decisions don't compare, since their verdicts share limits; what they print does.
        assert!(again.is_ok_and(|again| {
            again.is_ok_and(|again| format!("{again:?}") == format!("{answer:?}"))
        }));
    }
}
