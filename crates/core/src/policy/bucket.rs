//! What finds a bucket: the keyed hash of its limit's name, algorithm and the values of what it is
//! per.

use std::hash::Hasher;

use smallvec::SmallVec;

use super::endpoint::endpoint_of;
use crate::check::{Check, Dimension, Limit, Match, Name};
use crate::limit::ALGORITHMS;
use crate::placement::Secret;

/// What finds a bucket: among its tenant's own, or among those shared by tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BucketKey {
    /// In the tenant's account.
    Own(u64),
    /// By itself, wherever its hash puts it.
    Shared(u128),
}

/// The key of a limit's bucket for `check`: name, algorithm and the values of what it is per or
/// matches. Without a check, only keys that don't depend on one.
///
/// Within a tenant, a value that the check doesn't carry counts as one of its own: leaving out the
/// client doesn't lift a limit per client. A limit shared by tenants is only for checks that carry
/// all it is keyed by; the rest would otherwise share one bucket with strangers.
pub fn key_of(limit: &Limit, check: Option<&Check>, secret: &Secret) -> Option<BucketKey> {
    let Limit { name, per, when, rule, .. } = limit;
    key(rule.algorithm(), name, per, when, check, secret)
}

/// The keys that a limit of this name has in its tenant's account if a request sends it: one for
/// each algorithm.
pub fn sent_keys(
    name: &Name,
    per: &[Dimension],
    check: &Check,
    secret: &Secret,
) -> impl Iterator<Item = u64> {
    let keys = ALGORITHMS
        .iter()
        .map(move |algorithm| key(algorithm, name, per, &Match::default(), Some(check), secret));
    keys.filter_map(|key| match key {
        Some(BucketKey::Own(key)) => Some(key),
        Some(BucketKey::Shared(_)) | None => None,
    })
}

fn key(
    algorithm: &str,
    name: &Name,
    per: &[Dimension],
    when: &Match,
    check: Option<&Check>,
    secret: &Secret,
) -> Option<BucketKey> {
    let own = per.contains(&Dimension::Tenant);
    let mut hasher = KeyHasher(Vec::with_capacity(96));
    hasher.value(Some(algorithm.as_bytes()));
    hasher.value(Some(name.as_str().as_bytes()));
    // An override for one action or client is a limit of its own, unless its buckets are told apart
    // by that already.
    for (dimension, only) in [(Dimension::Action, &when.action), (Dimension::Client, &when.client)]
    {
        if let Some(only) = only.as_ref().filter(|_| !per.contains(&dimension)) {
            hasher.value(Some(b"only"));
            hasher.value(Some(dimension.to_string().as_bytes()));
            hasher.value(Some(only.as_str().as_bytes()));
        }
    }
    // The order in which `per` is written makes no difference.
    let mut per: SmallVec<[&Dimension; 4]> = per.iter().collect();
    per.sort();
    for dimension in per {
        if *dimension == Dimension::Tenant {
            // The account stands for the tenant.
            hasher.value(Some(b"tenant"));
            continue;
        }
        hasher.value(Some(dimension.to_string().as_bytes()));
        let check = check?;
        let value: Option<std::borrow::Cow<'_, [u8]>> = match dimension {
            Dimension::Tenant => None,
            Dimension::Client => check.client.as_ref().map(|v| v.as_str().as_bytes().into()),
            Dimension::Action => check.action.as_ref().map(|v| v.as_str().as_bytes().into()),
            Dimension::Ip => check.ip.map(|ip| match ip {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec().into(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec().into(),
            }),
            Dimension::ApiKey => check.api_key.as_ref().map(|digest| digest.as_bytes()[..].into()),
            Dimension::Method => {
                check.method.as_ref().map(|v| v.as_str().to_ascii_uppercase().into_bytes().into())
            }
            Dimension::Path => check.path.as_ref().map(|v| v.as_str().as_bytes().into()),
            Dimension::Endpoint => check
                .path
                .as_ref()
                .map(|path| endpoint_of(check.method.as_ref(), path).into_bytes().into()),
            Dimension::Attribute(name) => {
                check.attributes.get(name).map(|v| v.as_str().as_bytes().into())
            }
        };
        if value.is_none() && !own {
            return None;
        }
        hasher.value(value.as_deref());
    }
    Some(hasher.key(own, secret))
}

/// The key of the bucket that stands in where a cap leaves no room for one more; `sent` limits,
/// whose names have no bound, have one for each algorithm.
pub fn overflow_key_of(limit: &Limit, sent: bool, own: bool, secret: &Secret) -> BucketKey {
    let mut hasher = KeyHasher(Vec::with_capacity(96));
    hasher.value(Some(b"overflow"));
    hasher.value(Some(limit.rule.algorithm().as_bytes()));
    hasher.value((!sent).then(|| limit.name.as_str().as_bytes()));
    hasher.key(own, secret)
}

/// Puts values one after another so that no two lists of values look alike.
struct KeyHasher(Vec<u8>);

impl KeyHasher {
    fn value(&mut self, value: Option<&[u8]>) {
        let length = value.map_or(u32::MAX, |v| u32::try_from(v.len()).unwrap_or(u32::MAX - 1));
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(value.unwrap_or_default());
    }

    fn key(&self, own: bool, secret: &Secret) -> BucketKey {
        if own {
            let mut sip = secret.hasher();
            sip.write(&self.0);
            BucketKey::Own(sip.finish())
        } else {
            BucketKey::Shared(secret.digest(&self.0))
        }
    }
}
