//! Forgetting on an operator's order: what a tenant has spent, a part of that, or all that is kept
//! of the tenant.
//!
//! Buckets are found by hashes, so a part is named by values and never searched for: a bucket is
//! reached if the order names a value for everything that its limit is per, and its limit is per
//! everything that the order names.
//!
//! ```text
//! limits of acme                      order                              forgets
//! rate    per tenant                  client ann                         burst of ann; rate and export stay
//! burst   per tenant, client          client ann, action export          export of ann and export
//! export  per tenant, client, action  limit rate                         rate
//! ```

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::account::Buckets;
use super::core::Shard;
use crate::check::{Check, Dimension, Label, Limit, Match, Name, TenantId};
use crate::placement::AccountHash;
use crate::policy::{BucketKey, key_of, sent_keys};
use crate::time::Now;

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// All that the tenant has spent. Permits that are out stay out, and request ids are
    /// remembered.
    Spent,
    /// The buckets that these values name.
    Part(Box<SpentPart>),
    /// All that is kept of the tenant: also its permits and request ids.
    All,
}

impl Forget {
    /// The account that it is about: the tenant's, but for `anonymous` the address's that is named.
    pub fn account<'a>(&self, tenant: &'a TenantId) -> Cow<'a, str> {
        match self {
            Self::Part(part) => part.check(tenant).account().into_owned().into(),
            Self::Spent | Self::All => tenant.as_str().into(),
        }
    }
}

/// The values that name a part of what a tenant has spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpentPart {
    /// Of this client.
    pub client: Option<Label>,
    /// Of this action.
    pub action: Option<Label>,
    /// Of this address.
    pub ip: Option<IpAddr>,
    /// Of the limits of this name.
    pub limit: Option<Name>,
    /// Limits that are looked for besides those of the policy, as a request may have sent them.
    pub sent: Vec<Name>,
}

/// `client ann, action export, limit rate`: what is named, in the order of the members.
impl fmt::Display for SpentPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            self.client.as_ref().map(|client| format!("client {client}")),
            self.action.as_ref().map(|action| format!("action {action}")),
            self.ip.map(|ip| format!("ip {ip}")),
            self.limit.as_ref().map(|limit| format!("limit {limit}")),
        ];
        f.write_str(&named.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// What was forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether anything was kept of the tenant.
    pub was_active: bool,
    /// Of a part: the limits whose buckets were forgotten.
    pub limits: Vec<ForgottenLimit>,
    /// Of a part: limits that are per more than the order names, so that their buckets stayed.
    pub kept: Vec<ForgottenLimit>,
}

/// One limit of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgottenLimit {
    /// Its name.
    pub name: Name,
    /// What it is per.
    pub scope: Vec<Dimension>,
}

impl From<&Limit> for ForgottenLimit {
    fn from(limit: &Limit) -> Self {
        Self { name: limit.name.clone(), scope: limit.per.clone() }
    }
}

/// How a limit stands to the values of an order.
enum Reach {
    /// They name its bucket.
    Bucket,
    /// It is per everything that they name and per more.
    Narrower,
    /// It is about something else, or about more than they name.
    None,
}

impl SpentPart {
    /// A check that would be judged by what is to be forgotten.
    fn check(&self, tenant: &TenantId) -> Check {
        let (client, action, ip) = (self.client.clone(), self.action.clone(), self.ip);
        Check { client, action, ip, ..Check::of(tenant.clone()) }
    }

    fn named(&self) -> Vec<Dimension> {
        let named = [
            (self.client.is_some(), Dimension::Client),
            (self.action.is_some(), Dimension::Action),
            (self.ip.is_some(), Dimension::Ip),
        ];
        named
            .into_iter()
            .filter(|(is_named, _)| *is_named)
            .map(|(_, dimension)| dimension)
            .collect()
    }

    /// `by_ip`: the account itself is one address's.
    fn reaches(&self, limit: &Limit, by_ip: bool) -> Reach {
        let Match { action, client } = &limit.when;
        let other = |only: &Option<Label>, named: &Option<Label>| {
            only.is_some() && named.is_some() && only != named
        };
        let is_named = self.limit.as_ref().is_none_or(|name| *name == limit.name);
        if !is_named || other(action, &self.action) || other(client, &self.client) {
            return Reach::None;
        }
        let of_match = |dimension: &Dimension| match dimension {
            Dimension::Action => action.is_some(),
            Dimension::Client => client.is_some(),
            Dimension::Ip => by_ip,
            _ => false,
        };
        let named = self.named();
        let is_per = |dimension: &Dimension| limit.per.contains(dimension) || of_match(dimension);
        if !limit.per.contains(&Dimension::Tenant) || !named.iter().all(is_per) {
            return Reach::None;
        }
        let is_told =
            |dimension: &&Dimension| **dimension == Dimension::Tenant || named.contains(dimension);
        match limit.per.iter().all(|dimension| is_told(&dimension)) {
            true => Reach::Bucket,
            false => Reach::Narrower,
        }
    }
}

/// A limit of a tenant may stand in for one of its tier: one line says both.
fn note(limits: &mut Vec<ForgottenLimit>, limit: &Limit) {
    let limit = limit.into();
    if !limits.contains(&limit) {
        limits.push(limit);
    }
}

impl Shard {
    /// Forgets what the order says of the account of `tenant` with that hash.
    pub fn forget_of(
        &mut self,
        tenant: &TenantId,
        hash: AccountHash,
        what: &Forget,
        now: Now,
    ) -> Forgotten {
        let part = match what {
            Forget::Part(part) => part,
            Forget::Spent | Forget::All => {
                let was_active = self.forget_spent(tenant.as_str(), hash, *what == Forget::All);
                return Forgotten { was_active, ..Forgotten::default() };
            }
        };
        let check = part.check(tenant);
        let id = check.account();
        let by_ip = *id != *tenant.as_str();
        let found = self.accounts.find(hash, &id);
        let mut forgotten = Forgotten { was_active: found.is_some(), ..Forgotten::default() };
        let mut keys = Vec::new();
        let plan = self.plans.of(tenant, now);
        for limit in plan.limits() {
            match part.reaches(limit, by_ip) {
                Reach::Bucket => {
                    keys.extend(match key_of(limit, Some(&check), &self.secret) {
                        Some(BucketKey::Own(key)) => Some(key),
                        Some(BucketKey::Shared(_)) | None => None,
                    });
                    note(&mut forgotten.limits, limit);
                }
                Reach::Narrower => note(&mut forgotten.kept, limit),
                Reach::None => {}
            }
        }
        let Some(ix) = found else { return forgotten };
        let per: Vec<_> = [Dimension::Tenant].into_iter().chain(part.named()).collect();
        for name in &part.sent {
            let sent = sent_keys(name, &per, &check, &self.secret);
            let account = self.accounts.get(ix);
            let mut was_spent = sent.filter(|key| account.buckets.get(*key).is_some()).peekable();
            let is_told = forgotten.limits.iter().any(|limit| limit.name == *name);
            if was_spent.peek().is_some() && !is_told {
                forgotten.limits.push(ForgottenLimit { name: name.clone(), scope: per.clone() });
            }
            keys.extend(was_spent);
        }
        let buckets = &mut self.accounts.get_mut(ix).buckets;
        let before = buckets.len();
        keys.into_iter().for_each(|key| buckets.remove(key));
        self.accounts.buckets -= before - self.accounts.get(ix).buckets.len();
        forgotten
    }

    /// Forgets what an account has spent; of `all`, also its permits and request ids. Returns
    /// whether it was there.
    pub(super) fn forget_spent(&mut self, id: &str, hash: AccountHash, all: bool) -> bool {
        let Some(ix) = self.accounts.find(hash, id) else { return false };
        let account = self.accounts.get_mut(ix);
        let buckets = std::mem::replace(&mut account.buckets, Buckets::new()).len();
        self.accounts.buckets -= buckets;
        if all {
            self.accounts.forget_extras(ix);
        }
        true
    }
}
