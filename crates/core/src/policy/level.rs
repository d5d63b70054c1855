//! Which format level a policy needs: a member of the document that an older program doesn't know
//! must not reach that program, which would refuse the whole document while newer nodes take it.
//!
//! To add a member to the policy document:
//! 1. read and write it like the others (`read.rs`, `to_json`), with a default that `to_json`
//!    omits;
//! 2. name the level here, in the function of the part that has the new member:
//!    `part(tier.max_permit_ttl.is_some(), LEVEL_2)`. A new word of an old member (an algorithm, a
//!    dimension) counts as well.
//!
//! A write that needs more than the cluster's level is refused before it reaches the log, with the
//! names of the members that must be upgraded first.

use std::sync::Arc;

use super::document::{AccessEntry, Tenant, Tier};
use super::{Change, Document, IpPrefixes};
use crate::check::Limit;
use crate::placement::FormatLevel;

/// The level that a document needs.
pub fn document(document: &Document) -> FormatLevel {
    let tiers = document.tiers.values().map(|t| tier(t));
    let tenants = document.tenants.values().map(|t| tenant(t));
    let access = document.access.values().map(|entry| access_entry(entry));
    let own = top(document).max(limits(&document.limits));
    tiers.chain(tenants).chain(access).fold(own, FormatLevel::max)
}

/// The level that a change needs.
pub fn change(change: &Change) -> FormatLevel {
    match change {
        Change::Replace(whole) => document(whole),
        Change::PutTier(_, t) => tier(t),
        Change::PutTenant(_, t) => tenant(t),
        Change::PutLimit(l) | Change::PutTenantLimit(_, l) => limit(l),
        Change::PutLimits(shared) => limits(shared),
        Change::AddAccess(_, entry) | Change::PutAccess(_, entry) => access_entry(entry),
        Change::PutEntries(entries) => {
            entries.iter().map(|(_, entry)| access_entry(entry)).fold(FIRST, FormatLevel::max)
        }
        Change::DeleteTier(_)
        | Change::DeleteTenant(_)
        | Change::DeleteTenantLimit(..)
        | Change::DeleteTenantOverride(..)
        | Change::DeleteAccess(_)
        | Change::DropExpired(_)
        | Change::Enforce(_) => FIRST,
    }
}

const FIRST: FormatLevel = FormatLevel::FIRST;

/// The level of `max_permit_ttl`, `ipv4_prefix` and `ipv6_prefix`.
const LEVEL_2: FormatLevel = FormatLevel::SECOND;

/// `level`, if the part has the member that needs it.
fn part(is_there: bool, level: FormatLevel) -> FormatLevel {
    if is_there { level } else { FIRST }
}

/// The members at the top of a document.
fn top(document: &Document) -> FormatLevel {
    part(document.ip_prefixes != IpPrefixes::default(), LEVEL_2)
}

fn tier(tier: &Tier) -> FormatLevel {
    let own = part(tier.max_permit_ttl.is_some(), LEVEL_2);
    own.max(limits(&tier.limits))
}

fn limits(limits: &[Arc<Limit>]) -> FormatLevel {
    limits.iter().map(|l| limit(l)).fold(FIRST, FormatLevel::max)
}

fn tenant(tenant: &Tenant) -> FormatLevel {
    limits(&tenant.limits)
}

fn limit(_: &Limit) -> FormatLevel {
    FIRST
}

fn access_entry(_: &AccessEntry) -> FormatLevel {
    FIRST
}
