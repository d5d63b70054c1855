//! The rules: one versioned document of tiers, tenants, limits, costs and lists (P1 to P12), pure.
//!
//! A [`Document`] is the policy as written, validated whole: [`Document::read`] finds every fault
//! at once. A [`Change`] makes the next document from one. A [`Policy`] is a document compiled
//! under a version: it resolves a tenant to a [`Plan`], and a plan selects the limits of one check.
//! Nothing here knows a clock or does I/O; what depends on time (a tier's expiry, a list entry's)
//! takes it as an argument.

mod access;
mod bucket;
mod change;
mod compiled;
mod diff;
mod document;
mod endpoint;
mod level;
mod prefix;
mod read;
mod responses;
mod text;

pub use access::AccessVerdict;
pub use bucket::{BucketKey, key_of, sent_keys};
pub use change::{Change, ChangeError, DROPPED_MAX};
pub use compiled::{LimitsRefused, PermitTooLong, Plan, Policy, Selected, TierSource, UnknownTier};
pub use diff::{DiffOp, Difference, differences};
pub use document::{
    AccessEntry, Document, EndpointCost, Environment, List, OnIsolation, PERMIT_TTL_DEFAULT,
    PERMIT_TTL_MOST, RequestLimits, RequestTier, Subject, TENANTS_MAX, Tenant, Tier, TierPattern,
    canonical_ip, limit_to_json,
};
pub use endpoint::endpoint_of;
pub use level::{change as change_level, document as document_level};
pub use prefix::IpPrefixes;
pub use read::{
    ACCESS_MAX, ENTRIES_PER_SECTION_MAX, LIMITS_MAX, PATTERN_BYTES_MAX, REASON_BYTES_MAX, SUBJECTS,
    access as read_access, access_entry as read_access_entry,
    access_members as read_access_members, limit as read_limit, network as parse_network,
    shared_limits as read_shared_limits, stored_tier as read_stored_tier, tenant as read_tenant,
    tier as read_tier,
};
pub use responses::{DIALECTS_MAX, DenialBody, Dialect, Dialects, Responses, XReset};
pub use text::{DURATION, Decimal, parse_duration, print_instant};

/// The policy of a node that was given none: what `policies/builtin.toml` says.
pub fn builtin() -> Document {
    match Document::from_toml(include_bytes!("../../../../policies/builtin.toml")) {
        Ok(document) => document,
        Err(faults) => unreachable!("the built-in policy is tested: {faults:?}"),
    }
}

/// Reads any bytes as a document: what a fuzzer calls. One that is valid reads back from its own
/// JSON and TOML as the same, and a tenant's limits can be resolved under it.
pub fn fuzz_document(bytes: &[u8]) {
    let read = [Document::from_toml(bytes), Document::from_json(bytes)];
    for document in read.into_iter().flatten() {
        let json = document.to_json().to_string();
        assert_eq!(Document::from_json(json.as_bytes()).as_ref(), Ok(&document));
        assert_eq!(Document::from_toml(document.to_toml().as_bytes()).as_ref(), Ok(&document));
        assert!(differences(&document.to_json(), &document.to_json()).is_empty());
        let Some(tenant) = crate::check::TenantId::new("acme") else { return };
        let (policy, secret) =
            (Policy::new(1, document, None), crate::placement::Secret::new(1, 2));
        let (tier, source, until) = policy.tier_of(&tenant, 0);
        let plan = policy.plan(&tenant, &tier, source, until, &secret);
        let mut selected = Vec::new();
        assert_eq!(plan.select(&crate::check::Check::of(tenant), &secret, &mut selected), Ok(()));
    }
}
