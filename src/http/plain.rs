//! A check in its everyday form, read without an intermediate tree.
//!
//! Nearly all bodies hold a few plain members and no fault. Those go straight from their bytes into
//! a [`Check`]: strings are borrowed from the body until they are validated, nothing else is kept.
//! Whatever is unusual (escapes in strings, attributes, limits of the request's own, any fault) is
//! none of this module's business: it answers "none", and [`super::read`], which knows every rule
//! and names every fault, reads the body again. Where both give a check, it is the same one; a
//! fuzzer holds them to that.

use serde::Deserialize;

use super::read::{address, digest, path};
use crate::check::{
    Check, Cost, DEADLINE_MS, DEADLINE_MS_DEFAULT, Label, Method, Name, PERMIT_TTL_MS,
    PERMIT_TTL_UNSAID, RequestId, TenantId,
};

/// The members of a check that need no tree.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'b> {
    tenant: &'b str,
    tier: Option<&'b str>,
    client: Option<&'b str>,
    action: Option<&'b str>,
    method: Option<&'b str>,
    path: Option<&'b str>,
    ip: Option<&'b str>,
    api_key: Option<&'b str>,
    cost: Option<u32>,
    wait_ms: Option<u64>,
    deadline_ms: Option<u64>,
    request_id: Option<&'b str>,
    permit: Option<Permit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Permit {
    ttl_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'b> {
    mode: Option<&'b str>,
    #[serde(borrow)]
    checks: Vec<Members<'b>>,
}

/// The check in `body`, where it is a plain one.
pub fn check(body: &[u8]) -> Option<Check> {
    serde_json::from_slice::<Members<'_>>(body).ok()?.check()
}

/// The mode of the batch in `body`, if it names one, and its checks, where all of them are plain.
pub fn batch(body: &[u8]) -> Option<(Option<&str>, Vec<Check>)> {
    let batch = serde_json::from_slice::<Batch<'_>>(body).ok()?;
    let checks: Option<Vec<_>> = batch.checks.into_iter().map(Members::check).collect();
    Some((batch.mode, checks?))
}

impl Members<'_> {
    fn check(self) -> Option<Check> {
        let within =
            |bounds: std::ops::RangeInclusive<u64>, value| bounds.contains(&value).then_some(value);
        if self.wait_ms.is_some_and(|wait_ms| wait_ms > 0) {
            return None;
        }
        Some(Check {
            tier: valid(self.tier, Name::new)?,
            client: valid(self.client, Label::new)?,
            action: valid(self.action, Label::new)?,
            method: valid(self.method, Method::new)?,
            path: valid(self.path, path)?,
            ip: valid(self.ip, address)?,
            api_key: valid(self.api_key, digest)?,
            cost: valid(self.cost, Cost::new)?,
            deadline_ms: valid(self.deadline_ms, |ms| within(DEADLINE_MS, ms))?
                .unwrap_or(DEADLINE_MS_DEFAULT),
            request_id: valid(self.request_id, RequestId::new)?,
            permit_ttl_ms: valid(self.permit, |permit| match permit.ttl_ms {
                Some(ttl_ms) => within(PERMIT_TTL_MS, ttl_ms),
                None => Some(PERMIT_TTL_UNSAID),
            })?,
            ..Check::of(TenantId::new(self.tenant)?)
        })
    }
}

/// A member that may be absent, but must be valid where it isn't: the outer "none" is a fault.
fn valid<T, U>(member: Option<T>, read: impl FnOnce(T) -> Option<U>) -> Option<Option<U>> {
    match member {
        Some(member) => read(member).map(Some),
        None => Some(None),
    }
}
