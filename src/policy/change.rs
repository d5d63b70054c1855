//! Changes: how one document becomes the next. A change is checked whole, then applied whole or not at all.
//!
//! An edit of one part checks that part and what refers to it, so its cost is its own size and not the document's.

use std::sync::Arc;

use super::document::{AccessEntry, Document, TENANTS_MAX, Tenant, Tier};
use super::read::{ACCESS_MAX, ENTRIES_PER_SECTION_MAX, LIMITS_MAX};
use crate::check::{Limit, Name, TenantId};
use crate::input::Fault;

/// One change of the policy.
#[derive(Clone, Debug)]
pub enum Change {
    /// A whole new document.
    Replace(Box<Document>),
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
    /// An entry of the allow or deny list, new or changed.
    PutAccess(Name, Box<AccessEntry>),
    /// An entry of the lists is gone.
    DeleteAccess(Name),
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
    /// The document after `change`. This one is unchanged; the two share what the change didn't touch.
    pub fn with(&self, change: &Change) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        match change {
            Change::Replace(document) => return Ok((**document).clone()),
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
                let mut tenant = next.tenants.get(id).map(|tenant| (**tenant).clone()).unwrap_or_default();
                tenant.limits.retain(|other| (&other.name, &other.when) != (&limit.name, &limit.when));
                if tenant.limits.len() >= LIMITS_MAX {
                    return Err(too_many("limits", LIMITS_MAX));
                }
                tenant.limits.push(Arc::new((**limit).clone()));
                next.put_tenant(id, tenant)?;
            }
            Change::DeleteTenantLimit(id, name) => {
                let missing = || ChangeError::NotFound(format!("limit {name} of tenant {id}"));
                let mut tenant = next.tenants.get(id).map(|tenant| (**tenant).clone()).ok_or_else(missing)?;
                let before = tenant.limits.len();
                tenant.limits.retain(|limit| limit.name != *name);
                if tenant.limits.len() == before {
                    return Err(missing());
                }
                next.put_tenant(id, tenant)?;
            }
            Change::PutAccess(name, entry) => {
                if next.access.len() >= ACCESS_MAX && !next.access.contains_key(name) {
                    return Err(too_many("access", ACCESS_MAX));
                }
                next.access.insert(name.clone(), Arc::new((**entry).clone()));
            }
            Change::DeleteAccess(name) => {
                if next.access.remove(name).is_none() {
                    return Err(ChangeError::NotFound(format!("list entry {name}")));
                }
            }
        }
        Ok(next)
    }

    /// The change that makes this document again of what `change` makes of it.
    pub fn undo(&self, change: &Change) -> Change {
        match change {
            Change::Replace(_) => Change::Replace(Box::new(self.clone())),
            Change::PutTier(name, _) | Change::DeleteTier(name) => match self.tiers.get(name) {
                Some(tier) => Change::PutTier(name.clone(), Box::new((**tier).clone())),
                None => Change::DeleteTier(name.clone()),
            },
            Change::PutTenant(id, _)
            | Change::DeleteTenant(id)
            | Change::PutTenantLimit(id, _)
            | Change::DeleteTenantLimit(id, _) => match self.tenants.get(id) {
                Some(tenant) => Change::PutTenant(id.clone(), Box::new((**tenant).clone())),
                None => Change::DeleteTenant(id.clone()),
            },
            Change::PutAccess(name, _) | Change::DeleteAccess(name) => match self.access.get(name) {
                Some(entry) => Change::PutAccess(name.clone(), Box::new((**entry).clone())),
                None => Change::DeleteAccess(name.clone()),
            },
        }
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
            Some(tier) => {
                Err(ChangeError::Invalid(vec![Fault::new("tier", format!("there is no tier {tier}"))]))
            }
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
        assert!(matches!(document.with(&Change::DeleteTier(default)), Err(ChangeError::Invalid(_))));
        assert!(document.with(&Change::DeleteTier(name("basic"))).is_ok());
        assert!(matches!(document.with(&Change::DeleteTier(name("none"))), Err(ChangeError::NotFound(_))));
    }

    #[test]
    fn a_tenants_limit_is_put_replaced_and_deleted() {
        let document = crate::policy::builtin();
        let acme = TenantId::new("acme").unwrap();
        let limit = document.tiers[&document.default_tier].limits[0].clone();
        let put = Change::PutTenantLimit(acme.clone(), Box::new((*limit).clone()));
        let twice = document.with(&put).unwrap().with(&put).unwrap();
        assert_eq!(twice.tenants[&acme].limits.len(), 1);
        let gone = twice.with(&Change::DeleteTenantLimit(acme.clone(), limit.name.clone())).unwrap();
        assert!(gone.tenants[&acme].limits.is_empty());
        assert!(document.tenants.get(&acme).is_none());
    }

    #[test]
    fn a_tenant_of_a_tier_that_does_not_exist_is_refused() {
        let tenant = Tenant { tier: Some(name("nope")), ..Tenant::default() };
        let change = Change::PutTenant(TenantId::new("acme").unwrap(), Box::new(tenant));
        assert!(matches!(crate::policy::builtin().with(&change), Err(ChangeError::Invalid(_))));
    }

    #[test]
    fn every_change_can_be_undone() {
        let document = crate::policy::builtin();
        let (acme, basic) = (TenantId::new("acme").unwrap(), name("basic"));
        let tier = document.tiers[&basic].clone();
        let entry = Document::from_toml(
            b"default_tier = \"t\"\n[tiers.t]\n[access.a]\nlist = \"deny\"\ntenant = \"bad\"",
        );
        let entry = entry.unwrap().access[&name("a")].clone();
        let changes = [
            Change::PutTier(name("new"), Box::new((*tier).clone())),
            Change::PutTenant(
                acme.clone(),
                Box::new(Tenant { tier: Some(basic.clone()), ..Tenant::default() }),
            ),
            Change::PutTenantLimit(acme.clone(), Box::new((*tier.limits[0]).clone())),
            Change::DeleteTenantLimit(acme.clone(), tier.limits[0].name.clone()),
            Change::PutAccess(name("a"), Box::new((*entry).clone())),
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
