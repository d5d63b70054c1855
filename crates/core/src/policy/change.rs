//! Changes: how one document becomes the next. A change is checked whole, then applied whole or not
//! at all.
//!
//! An edit of one part checks that part and what refers to it, so its cost is its own size and not
//! the document's. (Dropping what has expired looks at every list entry;
//! [`Policy::has_expired`](super::Policy::has_expired) says at once whether there is anything to
//! drop.)

use std::sync::Arc;

use super::document::{AccessEntry, Document, TENANTS_MAX, Tenant, Tier};
use super::read::{ACCESS_MAX, ENTRIES_PER_SECTION_MAX, LIMITS_MAX};
use crate::check::{Limit, Match, Name, TenantId};
use crate::input::Fault;

/// Expired list entries that one change drops: their way back, which the history keeps, is then at
/// most a few megabytes.
pub const DROPPED_MAX: usize = 10_000;

/// One change of the policy.
#[derive(Clone, Debug)]
pub enum Change {
    /// A whole new document.
    Replace(Box<Document>),
    /// Whether limits deny: false is the kill switch (P12).
    Enforce(bool),
    /// A limit for everybody, new or changed; one of the same name and match is replaced where it
    /// stands.
    PutLimit(Box<Limit>),
    /// All limits for everybody, in this order: the way back from a change of one.
    PutLimits(Vec<Arc<Limit>>),
    /// A tier, new or changed.
    PutTier(Name, Box<Tier>),
    /// A tier is gone.
    DeleteTier(Name),
    /// A tenant's rules, new or changed.
    PutTenant(TenantId, Box<Tenant>),
    /// A tenant has no rules of its own any more.
    DeleteTenant(TenantId),
    /// One limit of a tenant, new or changed; one of the same name and match is replaced.
    PutTenantLimit(TenantId, Box<Limit>),
    /// All limits of that name of a tenant are gone.
    DeleteTenantLimit(TenantId, Name),
    /// The one limit of that name and match of a tenant is gone.
    DeleteTenantOverride(TenantId, Name, Match),
    /// A new entry of the allow or deny list; refused where one is called so already.
    AddAccess(Name, Box<AccessEntry>),
    /// An entry of the allow or deny list, new or changed.
    PutAccess(Name, Box<AccessEntry>),
    /// An entry of the lists is gone.
    DeleteAccess(Name),
    /// The entries that have expired by this wall time, in nanoseconds, are gone: the first
    /// [`DROPPED_MAX`] of them. Refused where there are none, so that nothing makes no version.
    DropExpired(u64),
    /// Several entries of the lists, new or changed: the way back from dropping them.
    PutEntries(Vec<(Name, Arc<AccessEntry>)>),
}

impl Change {
    /// The change as programs of the first format level read it, where that is possible: a tier
    /// that doesn't say `max_permit_ttl` is stored as one that can't say it.
    pub fn at_first_level(self) -> Self {
        match self {
            Self::Replace(document) => Self::Replace(Box::new(document.at_first_level())),
            Self::PutTier(name, tier) => Self::PutTier(name, Box::new(tier.at_first_level())),
            other => other,
        }
    }
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// What was to be deleted is not there.
    #[error("there is no {0}")]
    NotFound(String),
    /// The document would not be valid.
    #[error("the policy would not be valid")]
    Invalid(Vec<Fault>),
}

impl Document {
    /// The document after `change`. This one is unchanged; the two share what the change didn't
    /// touch.
    pub fn with(&self, change: &Change) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        match change {
            Change::Replace(document) => return Ok((**document).clone()),
            Change::Enforce(enforce) => next.enforce = *enforce,
            Change::PutLimit(limit) => next.put_limit(limit)?,
            Change::PutLimits(limits) => next.limits = limits.clone(),
            Change::PutTier(name, tier) => {
                if next.tiers.len() >= ENTRIES_PER_SECTION_MAX && !next.tiers.contains_key(name) {
                    return Err(too_many("tiers", ENTRIES_PER_SECTION_MAX));
                }
                next.tiers.insert(name.clone(), Arc::new((**tier).clone()));
            }
            Change::DeleteTier(name) => {
                if next.tiers.remove(name).is_none() {
                    return Err(ChangeError::NotFound(format!("tier {name}")));
                }
                next.check_unused(name)?;
            }
            Change::PutTenant(id, tenant) => {
                next.check_tier_exists(tenant.tier.as_ref())?;
                next.put_tenant(id, (**tenant).clone())?;
            }
            Change::DeleteTenant(id) => {
                if next.tenants.remove(id).is_none() {
                    return Err(ChangeError::NotFound(format!("rule for tenant {id}")));
                }
            }
            Change::PutTenantLimit(id, limit) => {
                let mut tenant =
                    next.tenants.get(id).map(|tenant| (**tenant).clone()).unwrap_or_default();
                tenant
                    .limits
                    .retain(|other| (&other.name, &other.when) != (&limit.name, &limit.when));
                if tenant.limits.len() >= LIMITS_MAX {
                    return Err(too_many("limits", LIMITS_MAX));
                }
                tenant.limits.push(Arc::new((**limit).clone()));
                next.put_tenant(id, tenant)?;
            }
            Change::DeleteTenantLimit(id, name) => {
                let missing = format!("limit {name} of tenant {id}");
                next.delete_tenant_limits(id, |limit| limit.name == *name, missing)?;
            }
            Change::DeleteTenantOverride(id, name, when) => {
                let missing = format!("limit {name} of tenant {id}{when}");
                next.delete_tenant_limits(
                    id,
                    |limit| (&limit.name, &limit.when) == (name, when),
                    missing,
                )?;
            }
            Change::AddAccess(name, entry) => {
                if next.access.contains_key(name) {
                    let detail = format!("there is a list entry {name} already");
                    return Err(ChangeError::Invalid(vec![Fault::new("id", detail)]));
                }
                next.put_access(name, Arc::new((**entry).clone()))?;
            }
            Change::PutAccess(name, entry) => next.put_access(name, Arc::new((**entry).clone()))?,
            Change::DeleteAccess(name) => {
                if next.access.remove(name).is_none() {
                    return Err(ChangeError::NotFound(format!("list entry {name}")));
                }
            }
            Change::DropExpired(wall) => {
                let dropped: Vec<_> = self.expired(*wall).map(|(name, _)| name).collect();
                if dropped.is_empty() {
                    return Err(ChangeError::NotFound("list entry that has expired".into()));
                }
                for name in dropped {
                    next.access.remove(name);
                }
            }
            Change::PutEntries(entries) => {
                for (name, entry) in entries {
                    next.put_access(name, entry.clone())?;
                }
            }
        }
        Ok(next)
    }

    /// Whether the change, which must be one that [`Document::with`] makes, would leave this
    /// document as it is. Costs as much as the part that the change is about.
    pub fn keeps(&self, change: &Change) -> bool {
        match change {
            Change::Replace(document) => **document == *self,
            Change::Enforce(enforce) => *enforce == self.enforce,
            Change::PutLimit(limit) => self.limits.iter().any(|other| **other == **limit),
            Change::PutLimits(limits) => *limits == self.limits,
            Change::PutTier(name, tier) => {
                self.tiers.get(name).is_some_and(|other| **other == **tier)
            }
            Change::PutTenant(id, tenant) => {
                self.tenants.get(id).is_some_and(|other| **other == **tenant)
            }
            Change::PutTenantLimit(id, limit) => {
                let tenant = self.tenants.get(id);
                tenant.is_some_and(|tenant| tenant.limits.iter().any(|other| **other == **limit))
            }
            Change::PutAccess(name, entry) => {
                self.access.get(name).is_some_and(|other| **other == **entry)
            }
            Change::PutEntries(entries) => {
                entries.iter().all(|(name, entry)| self.access.get(name) == Some(entry))
            }
            Change::AddAccess(..)
            | Change::DeleteTier(_)
            | Change::DeleteTenant(_)
            | Change::DeleteTenantLimit(..)
            | Change::DeleteTenantOverride(..)
            | Change::DeleteAccess(_)
            | Change::DropExpired(_) => false,
        }
    }

    /// This document, but for the tenants and list entries that `change` does not touch: the part
    /// in which to look for what it changes. A document of a million tenants is not worth comparing
    /// for one of them.
    pub fn excerpt(&self, change: &Change) -> Self {
        let mut part = self.clone();
        let (tenant, entry) = match change {
            Change::Replace(_) | Change::DropExpired(_) | Change::PutEntries(_) => return part,
            Change::PutTenant(id, _)
            | Change::DeleteTenant(id)
            | Change::PutTenantLimit(id, _)
            | Change::DeleteTenantLimit(id, _)
            | Change::DeleteTenantOverride(id, ..) => (Some(id), None),
            Change::AddAccess(name, _)
            | Change::PutAccess(name, _)
            | Change::DeleteAccess(name) => (None, Some(name)),
            Change::Enforce(_)
            | Change::PutLimit(_)
            | Change::PutLimits(_)
            | Change::PutTier(..)
            | Change::DeleteTier(_) => (None, None),
        };
        part.tenants =
            tenant.and_then(|id| self.tenants.get_key_value(id)).map(owned).into_iter().collect();
        part.access =
            entry.and_then(|name| self.access.get_key_value(name)).map(owned).into_iter().collect();
        part
    }

    /// The change that makes this document again of what `change` makes of it.
    pub fn undo(&self, change: &Change) -> Change {
        match change {
            Change::Replace(_) => Change::Replace(Box::new(self.clone())),
            Change::Enforce(_) => Change::Enforce(self.enforce),
            Change::PutLimit(_) | Change::PutLimits(_) => Change::PutLimits(self.limits.clone()),
            Change::PutTier(name, _) | Change::DeleteTier(name) => match self.tiers.get(name) {
                Some(tier) => Change::PutTier(name.clone(), Box::new((**tier).clone())),
                None => Change::DeleteTier(name.clone()),
            },
            Change::PutTenant(id, _)
            | Change::DeleteTenant(id)
            | Change::PutTenantLimit(id, _)
            | Change::DeleteTenantLimit(id, _)
            | Change::DeleteTenantOverride(id, ..) => match self.tenants.get(id) {
                Some(tenant) => Change::PutTenant(id.clone(), Box::new((**tenant).clone())),
                None => Change::DeleteTenant(id.clone()),
            },
            Change::AddAccess(name, _)
            | Change::PutAccess(name, _)
            | Change::DeleteAccess(name) => match self.access.get(name) {
                Some(entry) => Change::PutAccess(name.clone(), Box::new((**entry).clone())),
                None => Change::DeleteAccess(name.clone()),
            },
            Change::DropExpired(wall) => Change::PutEntries(
                self.expired(*wall).map(|(name, entry)| (name.clone(), entry.clone())).collect(),
            ),
            // Only ever a way back itself; what it adds or replaces is told by the whole document.
            Change::PutEntries(_) => Change::Replace(Box::new(self.clone())),
        }
    }

    /// The list entries that [`Change::DropExpired`] drops: those that don't count any more at wall
    /// time `wall`, the first [`DROPPED_MAX`] of them. Looks at every entry.
    pub fn expired(&self, wall: u64) -> impl Iterator<Item = (&Name, &Arc<AccessEntry>)> {
        self.access
            .iter()
            .filter(move |(_, entry)| entry.expires.is_some_and(|at| at <= wall))
            .take(DROPPED_MAX)
    }

    fn put_limit(&mut self, limit: &Limit) -> Result<(), ChangeError> {
        let limit = Arc::new(limit.clone());
        let is_it = |other: &Arc<Limit>| (&other.name, &other.when) == (&limit.name, &limit.when);
        match self.limits.iter().position(is_it) {
            Some(at) => self.limits[at] = limit,
            None if self.limits.len() >= LIMITS_MAX => return Err(too_many("limits", LIMITS_MAX)),
            None => self.limits.push(limit),
        }
        Ok(())
    }

    /// Deletes the limits of a tenant that `which` picks; `missing` says what is not there if that
    /// is none.
    fn delete_tenant_limits(
        &mut self,
        id: &TenantId,
        which: impl Fn(&Limit) -> bool,
        missing: String,
    ) -> Result<(), ChangeError> {
        let Some(mut tenant) = self.tenants.get(id).map(|tenant| (**tenant).clone()) else {
            return Err(ChangeError::NotFound(missing));
        };
        let before = tenant.limits.len();
        tenant.limits.retain(|limit| !which(limit));
        if tenant.limits.len() == before {
            return Err(ChangeError::NotFound(missing));
        }
        self.put_tenant(id, tenant)
    }

    fn put_access(&mut self, name: &Name, entry: Arc<AccessEntry>) -> Result<(), ChangeError> {
        if self.access.len() >= ACCESS_MAX && !self.access.contains_key(name) {
            return Err(too_many("access", ACCESS_MAX));
        }
        self.access.insert(name.clone(), entry);
        Ok(())
    }

    fn put_tenant(&mut self, id: &TenantId, tenant: Tenant) -> Result<(), ChangeError> {
        if self.tenants.len() >= TENANTS_MAX && !self.tenants.contains_key(id) {
            return Err(too_many("tenants", TENANTS_MAX));
        }
        self.tenants.insert(id.clone(), Arc::new(tenant));
        Ok(())
    }

    fn check_tier_exists(&self, tier: Option<&Name>) -> Result<(), ChangeError> {
        match tier.filter(|tier| !self.tiers.contains_key(*tier)) {
            Some(tier) => Err(ChangeError::Invalid(vec![Fault::new(
                "tier",
                format!("there is no tier {tier}"),
            )])),
            None => Ok(()),
        }
    }

    fn check_unused(&self, tier: &Name) -> Result<(), ChangeError> {
        let users = [
            (self.default_tier == *tier).then(|| "default_tier".to_string()),
            self.tier_patterns
                .iter()
                .position(|p| p.tier == *tier)
                .map(|i| format!("tier_patterns[{i}].tier")),
            self.tenants
                .iter()
                .find(|(_, t)| t.tier.as_ref() == Some(tier))
                .map(|(id, _)| format!("tenants.{id}.tier")),
        ];
        let faults: Vec<_> = users
            .into_iter()
            .flatten()
            .map(|path| Fault::new(path, format!("uses tier {tier}, which would be gone")))
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(ChangeError::Invalid(faults)) }
    }
}

fn owned<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

fn too_many(section: &str, most: usize) -> ChangeError {
    ChangeError::Invalid(vec![Fault::new(
        section,
        format!("there are {most} already, the most that are allowed"),
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_tier_that_is_used_can_not_be_deleted() {
        let document = crate::policy::builtin();
        let default = document.default_tier.clone();
        assert!(matches!(
            document.with(&Change::DeleteTier(default)),
            Err(ChangeError::Invalid(_))
        ));
        assert!(document.with(&Change::DeleteTier(name("basic"))).is_ok());
        assert!(matches!(
            document.with(&Change::DeleteTier(name("none"))),
            Err(ChangeError::NotFound(_))
        ));
    }

    #[test]
    fn a_tenants_limit_is_put_replaced_and_deleted() {
        let document = crate::policy::builtin();
        let acme = TenantId::new("acme").unwrap();
        let limit = document.tiers[&document.default_tier].limits[0].clone();
        let put = Change::PutTenantLimit(acme.clone(), Box::new((*limit).clone()));
        let twice = document.with(&put).unwrap().with(&put).unwrap();
        assert_eq!(twice.tenants[&acme].limits.len(), 1);
        let gone =
            twice.with(&Change::DeleteTenantLimit(acme.clone(), limit.name.clone())).unwrap();
        assert!(gone.tenants[&acme].limits.is_empty());
        assert!(document.tenants.get(&acme).is_none());
    }

    #[test]
    fn a_tenant_of_a_tier_that_does_not_exist_is_refused() {
        let tenant = Tenant { tier: Some(name("nope")), ..Tenant::default() };
        let change = Change::PutTenant(TenantId::new("acme").unwrap(), Box::new(tenant));
        assert!(matches!(crate::policy::builtin().with(&change), Err(ChangeError::Invalid(_))));
    }

    /// A deny list entry for the tenant `bad`, until `expires` seconds after the epoch.
    fn entry(expires: Option<u64>) -> AccessEntry {
        let subject = crate::policy::Subject::Tenant(TenantId::new("bad").unwrap());
        let expires = expires.map(|seconds| seconds * crate::time::SECOND);
        let list = crate::policy::List::Deny;
        AccessEntry {
            list,
            subject,
            reason: String::new(),
            added_by: None,
            added_at: None,
            expires,
        }
    }

    #[test]
    fn a_limit_for_everybody_is_replaced_where_it_stands_or_joins_the_end() {
        let limit = |name: &str, action: Option<&str>, most: u64| {
            let text = format!(
                r#"{{"name":"{name}","algorithm":"sliding_log","limit":{most},"window":"1h"}}"#
            );
            let tree = crate::input::Tree::from_json(text.as_bytes()).unwrap();
            let mut limit = crate::policy::read_limit(&mut Default::default(), &tree).unwrap();
            limit.when.action = action.and_then(crate::check::Label::new);
            Box::new(limit)
        };
        let mut document = crate::policy::builtin();
        document.limits.clear();
        for (put, expected) in [
            (limit("a", None, 1), vec![1]),
            (limit("b", None, 2), vec![1, 2]),
            (limit("a", Some("export"), 3), vec![1, 2, 3]),
            (limit("a", None, 4), vec![4, 2, 3]),
        ] {
            document = document.with(&Change::PutLimit(put)).unwrap();
            let found: Vec<_> = document.limits.iter().map(|limit| limit.rule.capacity()).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn of_a_tenants_limits_of_one_name_the_one_with_the_match_is_deleted() {
        let document = crate::policy::builtin();
        let acme = TenantId::new("acme").unwrap();
        let limit = document.tiers[&document.default_tier].limits[0].clone();
        let export = Match { action: crate::check::Label::new("export"), client: None };
        let put = |when: Match| {
            Change::PutTenantLimit(acme.clone(), Box::new(Limit { when, ..(*limit).clone() }))
        };
        let both =
            document.with(&put(Match::default())).unwrap().with(&put(export.clone())).unwrap();
        let delete = Change::DeleteTenantOverride(acme.clone(), limit.name.clone(), export);
        let one = both.with(&delete).unwrap();
        assert_eq!(
            one.tenants[&acme].limits.iter().map(|l| &l.when).collect::<Vec<_>>(),
            [&Match::default()]
        );
        let again = one.with(&delete).unwrap_err().to_string();
        assert_eq!(
            again,
            format!("there is no limit {} of tenant acme for action export", limit.name)
        );
    }

    #[test]
    fn an_entry_is_added_once_and_put_any_number_of_times() {
        let document = crate::policy::builtin();
        let add = Change::AddAccess(name("a"), Box::new(entry(None)));
        let one = document.with(&add).unwrap();
        let Err(ChangeError::Invalid(faults)) = one.with(&add) else {
            panic!("it was added twice")
        };
        assert_eq!(faults, [Fault::new("id", "there is a list entry a already")]);
        assert!(one.with(&Change::PutAccess(name("a"), Box::new(entry(Some(9))))).is_ok());
    }

    #[test]
    fn what_has_expired_is_dropped_in_bounded_parts_and_nothing_else_is() {
        let mut document = crate::policy::builtin();
        for i in 0..DROPPED_MAX as u64 + 5 {
            document.access.insert(name(&format!("e{i}")), Arc::new(entry(Some(i % 10))));
        }
        for keeps in [None, Some(100)] {
            let name = name(&format!("keeps-{keeps:?}").replace(['(', ')'], "."));
            document.access.insert(name, Arc::new(entry(keeps)));
        }
        let drop = |document: &Document, seconds: u64| {
            document.with(&Change::DropExpired(seconds * crate::time::SECOND))
        };
        let first = drop(&document, 99).unwrap();
        assert_eq!(document.access.len() - first.access.len(), DROPPED_MAX);
        let second = drop(&first, 99).unwrap();
        assert_eq!(second.access.len(), 2);
        let nothing = drop(&second, 99).unwrap_err();
        assert_eq!(nothing.to_string(), "there is no list entry that has expired");
        // An entry counts until its instant and is over at it.
        assert_eq!(drop(&second, 100).unwrap().access.len(), 1);
    }

    #[test]
    fn every_change_can_be_undone() {
        let document = crate::policy::builtin();
        let (acme, basic) = (TenantId::new("acme").unwrap(), name("basic"));
        let tier = document.tiers[&basic].clone();
        let limit = (*tier.limits[0]).clone();
        let changes = [
            Change::PutTier(name("new"), Box::new((*tier).clone())),
            Change::PutTenant(
                acme.clone(),
                Box::new(Tenant { tier: Some(basic.clone()), ..Tenant::default() }),
            ),
            Change::PutTenantLimit(acme.clone(), Box::new(limit.clone())),
            Change::DeleteTenantOverride(acme.clone(), limit.name.clone(), Match::default()),
            Change::PutTenantLimit(acme.clone(), Box::new(limit.clone())),
            Change::DeleteTenantLimit(acme.clone(), limit.name.clone()),
            Change::Enforce(false),
            Change::PutLimit(Box::new(limit.clone())),
            Change::PutLimit(Box::new(Limit { enforce: false, ..limit })),
            Change::PutLimits(Vec::new()),
            Change::PutAccess(name("a"), Box::new(entry(None))),
            Change::AddAccess(name("b"), Box::new(entry(Some(5)))),
            Change::AddAccess(name("c"), Box::new(entry(Some(6)))),
            Change::DropExpired(7 * crate::time::SECOND),
            Change::PutEntries(vec![
                (name("a"), Arc::new(entry(Some(8)))),
                (name("d"), Arc::new(entry(None))),
            ]),
            Change::DeleteAccess(name("a")),
            Change::DeleteTenant(acme),
            Change::DeleteTier(basic),
            Change::Replace(Box::new(document.clone())),
        ];
        let mut before = document;
        for change in changes {
            let Ok(after) = before.with(&change) else { panic!("{change:?}") };
            assert_eq!(after.with(&before.undo(&change)).unwrap(), before, "{change:?}");
            before = after;
        }
    }
}
