//! What else is asked of the node that owns a tenant: its permits, how it stands, that its counts
//! be forgotten; and of any node, which tenants it has in memory.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::check::{Declined, PlainRefused};
use super::message::{Ask, Kind};
use crate::check::{Dimension, Label, Name, PermitId, TenantId};
use crate::placement::Partition;
use crate::policy::{PermitTooLong, TierSource};
use crate::shard::{Forget, Forgotten, ForgottenLimit, Listed, Refusal, SpentPart, TenantState};

/// Tenants that one answer names.
pub const LISTED_MAX: usize = 1_000;

/// Gives a permit back, or extends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitAsk {
    /// The permit; its partition is in it.
    pub id: PermitId,
    /// The epoch of the partition's row, as the router knows it.
    pub epoch: u64,
    /// Milliseconds that it is to run from now on; none gives it back.
    pub renew_ms: Option<u64>,
}

impl Ask for PermitAsk {
    const KIND: Kind = Kind(0x0004);
    /// Whether the permit was out.
    type Answer = Owned<bool>;
}

/// Extends a permit. A node of an earlier version knows [`PermitAsk`] alone, whose answer can't say
/// that the time is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewAsk {
    /// The permit; its partition is in it.
    pub id: PermitId,
    /// The epoch of the partition's row, as the router knows it.
    pub epoch: u64,
    /// The version of the policy that the router knows.
    pub policy_version: u64,
    /// Milliseconds that it is to run from now on.
    pub ttl_ms: u64,
}

impl Ask for RenewAsk {
    const KIND: Kind = Kind(0x0008);
    type Answer = Owned<Renewed>;
}

/// What became of a permit that was to be extended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewed {
    /// It runs for so many milliseconds.
    Runs(u64),
    /// It isn't in flight any more.
    NotInFlight,
    /// Nothing: its tier allows no such time.
    TooLong {
        /// The tier.
        tier: Name,
        /// The milliseconds that it allows.
        most_ms: u64,
    },
}

impl Renewed {
    /// What a shard said, on the wire; its other refusals are the answer's.
    pub fn new(said: Result<Option<u64>, Refusal>) -> Result<Self, Refusal> {
        match said {
            Ok(Some(ms)) => Ok(Self::Runs(ms)),
            Ok(None) => Ok(Self::NotInFlight),
            Err(Refusal::PermitTooLong(PermitTooLong { tier, most_ms })) => {
                Ok(Self::TooLong { tier, most_ms })
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// What the shard said.
    pub fn said(self) -> Result<Option<u64>, Refusal> {
        match self {
            Self::Runs(ms) => Ok(Some(ms)),
            Self::NotInFlight => Ok(None),
            Self::TooLong { tier, most_ms } => Err(PermitTooLong { tier, most_ms }.into()),
        }
    }
}

/// What a tenant's owner answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Owned<T> {
    /// This.
    Said(T),
    /// Its shard refused.
    Refused(PlainRefused),
    /// It isn't the owner under the epoch that was named.
    NotOwner {
        /// The epoch that it knows.
        epoch: u64,
        /// The owner that it knows.
        owner: Option<Name>,
    },
}

impl<T> Owned<T> {
    /// The answer from what was said here.
    pub fn new(said: Result<T, Declined>) -> Self {
        match said {
            Ok(said) => Self::Said(said),
            Err(Declined::Refused(refusal)) => Self::Refused(refusal.into()),
            Err(Declined::NotOwner { epoch, owner }) => Self::NotOwner { epoch, owner },
            Err(Declined::TooOld) => Self::Refused(crate::shard::Refusal::Busy.into()),
        }
    }

    /// What was said there.
    pub fn said(self) -> Result<T, Declined> {
        match self {
            Self::Said(said) => Ok(said),
            Self::Refused(refused) => Err(Declined::Refused(refused.into())),
            Self::NotOwner { epoch, owner } => Err(Declined::NotOwner { epoch, owner }),
        }
    }
}

/// How a tenant stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeAsk {
    /// The partition of its account.
    pub partition: Partition,
    /// The epoch of its row, as the router knows it.
    pub epoch: u64,
    /// The version of the policy that the router knows.
    pub policy_version: u64,
    /// The tenant.
    pub tenant: TenantId,
}

impl Ask for DescribeAsk {
    const KIND: Kind = Kind(0x0005);
    type Answer = Owned<PlainState>;
}

/// That what a tenant has spent be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetAsk {
    /// The partition of its account.
    pub partition: Partition,
    /// The epoch of its row, as the router knows it.
    pub epoch: u64,
    /// The tenant.
    pub tenant: TenantId,
}

impl Ask for ResetAsk {
    const KIND: Kind = Kind(0x0006);
    type Answer = Owned<()>;
}

/// That a part of what is kept of a tenant be forgotten, or all of it. A node of format level 1
/// knows no such message: a router asks only where every member has a higher one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetAsk {
    /// The partition of its account.
    pub partition: Partition,
    /// The epoch of its row, as the router knows it.
    pub epoch: u64,
    /// The version of the policy that the router knows.
    pub policy_version: u64,
    /// The tenant.
    pub tenant: TenantId,
    /// What of it.
    pub what: PlainForget,
}

impl Ask for ForgetAsk {
    const KIND: Kind = Kind(0x0009);
    type Answer = Owned<PlainForgotten>;
}

/// What is to be forgotten, on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlainForget {
    /// All that it has spent.
    Spent,
    /// What these values name.
    Part {
        /// Of this client.
        client: Option<Label>,
        /// Of this action.
        action: Option<Label>,
        /// Of this address.
        ip: Option<IpAddr>,
        /// Of the limits of this name.
        limit: Option<Name>,
        /// Limits that requests may have sent.
        sent: Vec<Name>,
    },
    /// All that is kept of it.
    All,
}

impl From<&Forget> for PlainForget {
    fn from(what: &Forget) -> Self {
        match what {
            Forget::Spent => Self::Spent,
            Forget::All => Self::All,
            Forget::Part(part) => {
                let SpentPart { client, action, ip, limit, sent } = (**part).clone();
                Self::Part { client, action, ip, limit, sent }
            }
        }
    }
}

impl From<PlainForget> for Forget {
    fn from(what: PlainForget) -> Self {
        match what {
            PlainForget::Spent => Self::Spent,
            PlainForget::All => Self::All,
            PlainForget::Part { client, action, ip, limit, sent } => {
                Self::Part(Box::new(SpentPart { client, action, ip, limit, sent }))
            }
        }
    }
}

/// What was forgotten, on the wire: limits by their names and by what they are per.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainForgotten {
    was_active: bool,
    limits: Vec<(Name, Vec<String>)>,
    kept: Vec<(Name, Vec<String>)>,
}

impl From<Forgotten> for PlainForgotten {
    fn from(forgotten: Forgotten) -> Self {
        let plain = |limits: Vec<ForgottenLimit>| {
            let scope = |scope: Vec<Dimension>| scope.iter().map(ToString::to_string).collect();
            limits.into_iter().map(|limit| (limit.name, scope(limit.scope))).collect()
        };
        let Forgotten { was_active, limits, kept } = forgotten;
        Self { was_active, limits: plain(limits), kept: plain(kept) }
    }
}

impl From<PlainForgotten> for Forgotten {
    fn from(plain: PlainForgotten) -> Self {
        let limits = |limits: Vec<(Name, Vec<String>)>| {
            let scope =
                |scope: Vec<String>| scope.iter().filter_map(|text| Dimension::new(text)).collect();
            limits
                .into_iter()
                .map(|(name, per)| ForgottenLimit { name, scope: scope(per) })
                .collect()
        };
        let PlainForgotten { was_active, limits: of, kept } = plain;
        Self { was_active, limits: limits(of), kept: limits(kept) }
    }
}

/// Which tenants a node has in memory: a page of one shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAsk {
    /// The shard.
    pub shard: u32,
    /// Where the page begins.
    pub from: u64,
    /// How many it has at most; never more than [`LISTED_MAX`].
    pub most: u32,
}

impl Ask for ListAsk {
    const KIND: Kind = Kind(0x0007);
    /// None beyond the last shard.
    type Answer = Option<Result<PlainListed, PlainRefused>>;
}

/// A page, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainListed {
    ids: Vec<String>,
    next: Option<u64>,
}

impl From<Listed> for PlainListed {
    fn from(listed: Listed) -> Self {
        Self {
            ids: listed.ids.into_iter().map(String::from).collect(),
            next: listed.next.map(|next| next as u64),
        }
    }
}

impl From<PlainListed> for Listed {
    fn from(plain: PlainListed) -> Self {
        let ids = plain.ids.into_iter().take(LISTED_MAX).map(Into::into).collect();
        Self { ids, next: plain.next.map(|next| next as usize) }
    }
}

/// A tenant's state, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlainState {
    tier: Name,
    source: PlainSource,
    active: bool,
    permits: u64,
    keys: u64,
    request_ids: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum PlainSource {
    Tenant,
    Pattern,
    Request,
    Default,
}

impl From<TenantState> for PlainState {
    fn from(state: TenantState) -> Self {
        let source = match state.source {
            TierSource::Tenant => PlainSource::Tenant,
            TierSource::Pattern => PlainSource::Pattern,
            TierSource::Request => PlainSource::Request,
            TierSource::Default => PlainSource::Default,
        };
        Self {
            tier: state.tier,
            source,
            active: state.active,
            permits: state.permits,
            keys: state.keys as u64,
            request_ids: state.request_ids as u64,
        }
    }
}

impl From<PlainState> for TenantState {
    fn from(plain: PlainState) -> Self {
        let source = match plain.source {
            PlainSource::Tenant => TierSource::Tenant,
            PlainSource::Pattern => TierSource::Pattern,
            PlainSource::Request => TierSource::Request,
            PlainSource::Default => TierSource::Default,
        };
        Self {
            tier: plain.tier,
            source,
            active: plain.active,
            permits: plain.permits,
            keys: plain.keys as usize,
            request_ids: plain.request_ids as usize,
        }
    }
}
