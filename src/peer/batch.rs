//! Several checks on their way to their owners: those that pass together or not at all, and those
//! that each stand alone.
//!
//! The first kind is of one tenant, so of one partition, and is answered as one. The second is all
//! of a batch that one owner decides: a frame for each owner rather than one for each check.

use serde::{Deserialize, Serialize};

use super::check::{CheckAnswer, Declined, PlainRefused, Source};
use super::message::{Ask, Kind};
use crate::check::{Check, Decision, Name};
use crate::placement::Partition;
use crate::plain::{PlainCheck, PlainDecision};

/// Checks of one batch, as the door has it.
pub const BATCH_MAX: usize = 1_000;

/// Checks of one tenant that pass together or not at all, for the owner of its partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PlainAll", into = "PlainAll")]
pub struct AllAsk {
    /// Who forwards them.
    pub source: Source,
    /// The partition of their account.
    pub partition: Partition,
    /// The epoch of its row, as the router knows it.
    pub epoch: u64,
    /// The version of the policy that the router knows.
    pub policy_version: u64,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Ask for AllAsk {
    const KIND: Kind = Kind(0x0002);
    type Answer = AllAnswer;
}

/// What the owner says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "PlainAllAnswer", into = "PlainAllAnswer")]
pub struct AllAnswer {
    /// The epoch under which it was said.
    pub epoch: u64,
    /// The decisions in the order of the checks, or why there are none.
    pub said: Result<Vec<Decision>, Declined>,
}

/// One of several checks that each stand alone.
#[derive(Clone, Debug, PartialEq)]
pub struct One {
    /// The partition of its account.
    pub partition: Partition,
    /// The epoch of its row, as the router knows it.
    pub epoch: u64,
    /// The check.
    pub check: Check,
}

/// Checks that each stand alone, for one owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PlainEach", into = "PlainEach")]
pub struct EachAsk {
    /// Who forwards them.
    pub source: Source,
    /// The version of the policy that the router knows.
    pub policy_version: u64,
    /// The checks.
    pub checks: Vec<One>,
}

impl Ask for EachAsk {
    const KIND: Kind = Kind(0x0003);
    /// In the order of the checks.
    type Answer = Vec<CheckAnswer>;
}

type Read<T> = Result<T, &'static str>;

fn few_enough(count: usize) -> Read<()> {
    if count <= BATCH_MAX { Ok(()) } else { Err("too many checks") }
}

#[derive(Serialize, Deserialize)]
struct PlainAll {
    source: Source,
    partition: Partition,
    epoch: u64,
    policy_version: u64,
    checks: Vec<PlainCheck>,
}

impl From<AllAsk> for PlainAll {
    fn from(ask: AllAsk) -> Self {
        let AllAsk { source, partition, epoch, policy_version, checks } = ask;
        let checks = checks.into_iter().map(PlainCheck::from).collect();
        Self { source, partition, epoch, policy_version, checks }
    }
}

impl TryFrom<PlainAll> for AllAsk {
    type Error = &'static str;
    fn try_from(plain: PlainAll) -> Read<Self> {
        let PlainAll { source, partition, epoch, policy_version, checks } = plain;
        few_enough(checks.len())?;
        let checks = checks.into_iter().map(Check::try_from).collect::<Read<_>>()?;
        Ok(Self { source, partition, epoch, policy_version, checks })
    }
}

#[derive(Serialize, Deserialize)]
struct PlainAllAnswer {
    epoch: u64,
    said: PlainAllSaid,
}

#[derive(Serialize, Deserialize)]
enum PlainAllSaid {
    Decided(Vec<PlainDecision>),
    Refused(PlainRefused),
    NotOwner { epoch: u64, owner: Option<Name> },
    TooOld,
}

impl From<AllAnswer> for PlainAllAnswer {
    fn from(answer: AllAnswer) -> Self {
        let said = match answer.said {
            Ok(decisions) => {
                PlainAllSaid::Decided(decisions.into_iter().map(PlainDecision::from).collect())
            }
            Err(Declined::Refused(refusal)) => PlainAllSaid::Refused(refusal.into()),
            Err(Declined::NotOwner { epoch, owner }) => PlainAllSaid::NotOwner { epoch, owner },
            Err(Declined::TooOld) => PlainAllSaid::TooOld,
        };
        Self { epoch: answer.epoch, said }
    }
}

impl TryFrom<PlainAllAnswer> for AllAnswer {
    type Error = &'static str;
    fn try_from(plain: PlainAllAnswer) -> Read<Self> {
        let said = match plain.said {
            PlainAllSaid::Decided(decisions) => {
                few_enough(decisions.len())?;
                Ok(decisions.into_iter().map(Decision::try_from).collect::<Read<_>>()?)
            }
            PlainAllSaid::Refused(refused) => Err(Declined::Refused(refused.into())),
            PlainAllSaid::NotOwner { epoch, owner } => Err(Declined::NotOwner { epoch, owner }),
            PlainAllSaid::TooOld => Err(Declined::TooOld),
        };
        Ok(Self { epoch: plain.epoch, said })
    }
}

#[derive(Serialize, Deserialize)]
struct PlainEach {
    source: Source,
    policy_version: u64,
    checks: Vec<(Partition, u64, PlainCheck)>,
}

impl From<EachAsk> for PlainEach {
    fn from(ask: EachAsk) -> Self {
        let EachAsk { source, policy_version, checks } = ask;
        let checks =
            checks.into_iter().map(|one| (one.partition, one.epoch, one.check.into())).collect();
        Self { source, policy_version, checks }
    }
}

impl TryFrom<PlainEach> for EachAsk {
    type Error = &'static str;
    fn try_from(plain: PlainEach) -> Read<Self> {
        let PlainEach { source, policy_version, checks } = plain;
        few_enough(checks.len())?;
        let one = |(partition, epoch, check): (Partition, u64, PlainCheck)| {
            Ok(One { partition, epoch, check: check.try_into()? })
        };
        Ok(Self {
            source,
            policy_version,
            checks: checks.into_iter().map(one).collect::<Read<_>>()?,
        })
    }
}
