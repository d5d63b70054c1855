//! A change of the policy as it travels: the parts are JSON, read again by every node that applies
//! it.
//!
//! A change was valid where it was proposed; it is read with the same reader everywhere, so all
//! nodes agree on what it says, also on a fault. That holds among nodes of one version; a version
//! that reads documents more strictly has to accept what lies in the log.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check::{Label, Match, Name, TenantId};
use crate::input::{Fault, Reader, Tree};
use crate::placement::FormatLevel;
use crate::policy::{
    Change, Document, change_level, limit_to_json, read_access, read_access_entry, read_limit,
    read_shared_limits, read_stored_tier, read_tenant,
};

/// See [`Change`], whose cases these are. They are told apart by their order, so a new one joins
/// the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// A whole document.
    Replace(String),
    /// A tier.
    PutTier(Name, String),
    /// No such tier any more.
    DeleteTier(Name),
    /// A tenant.
    PutTenant(TenantId, String),
    /// No rules for that tenant any more.
    DeleteTenant(TenantId),
    /// A limit of a tenant.
    PutTenantLimit(TenantId, String),
    /// No limits of that name for that tenant any more.
    DeleteTenantLimit(TenantId, Name),
    /// An entry of the lists.
    PutAccess(Name, String),
    /// No such entry any more.
    DeleteAccess(Name),
    /// Whether limits deny.
    Enforce(bool),
    /// A limit for everybody.
    PutLimit(Name, String),
    /// All limits for everybody.
    PutLimits(String),
    /// No limit of that name for that action and client of the tenant any more.
    DeleteTenantOverride {
        /// The tenant.
        tenant: TenantId,
        /// The limit.
        name: Name,
        /// The action that it matches; none is any.
        action: Option<Label>,
        /// The client that it matches; none is any.
        client: Option<Label>,
    },
    /// A new entry of the lists.
    AddAccess(Name, String),
    /// What has expired by then (wall nanoseconds) is gone.
    DropExpired(u64),
    /// Several entries of the lists.
    PutEntries(String),
}

impl From<&Change> for Edit {
    fn from(change: &Change) -> Self {
        match change {
            Change::Replace(document) => Self::Replace(document.to_stored()),
            Change::PutTier(name, tier) => Self::PutTier(name.clone(), tier.to_stored()),
            Change::DeleteTier(name) => Self::DeleteTier(name.clone()),
            Change::PutTenant(id, tenant) => {
                Self::PutTenant(id.clone(), tenant.to_json().to_string())
            }
            Change::DeleteTenant(id) => Self::DeleteTenant(id.clone()),
            Change::PutTenantLimit(id, limit) => {
                Self::PutTenantLimit(id.clone(), limit_to_json(limit).to_string())
            }
            Change::DeleteTenantLimit(id, name) => {
                Self::DeleteTenantLimit(id.clone(), name.clone())
            }
            Change::PutAccess(name, entry) => {
                Self::PutAccess(name.clone(), entry.to_json().to_string())
            }
            Change::DeleteAccess(name) => Self::DeleteAccess(name.clone()),
            Change::Enforce(enforce) => Self::Enforce(*enforce),
            Change::PutLimit(limit) => {
                Self::PutLimit(limit.name.clone(), limit_to_json(limit).to_string())
            }
            Change::PutLimits(limits) => Self::PutLimits(
                limits.iter().map(|limit| limit_to_json(limit)).collect::<Value>().to_string(),
            ),
            Change::DeleteTenantOverride(tenant, name, Match { action, client }) => {
                Self::DeleteTenantOverride {
                    tenant: tenant.clone(),
                    name: name.clone(),
                    action: action.clone(),
                    client: client.clone(),
                }
            }
            Change::AddAccess(name, entry) => {
                Self::AddAccess(name.clone(), entry.to_json().to_string())
            }
            Change::DropExpired(wall) => Self::DropExpired(*wall),
            Change::PutEntries(entries) => {
                let entries =
                    entries.iter().map(|(name, entry)| (name.to_string(), entry.to_json()));
                Self::PutEntries(Value::Object(entries.collect::<Map<_, _>>()).to_string())
            }
        }
    }
}

impl Edit {
    /// The change; every fault of its JSON where it has any.
    pub fn read(&self) -> Result<Change, Vec<Fault>> {
        Ok(match self {
            Self::Replace(json) => Change::Replace(Box::new(Document::from_stored(json)?)),
            Self::PutTier(name, json) => {
                Change::PutTier(name.clone(), Box::new(part(json, read_stored_tier)?))
            }
            Self::DeleteTier(name) => Change::DeleteTier(name.clone()),
            Self::PutTenant(id, json) => {
                Change::PutTenant(id.clone(), Box::new(part(json, read_tenant)?))
            }
            Self::DeleteTenant(id) => Change::DeleteTenant(id.clone()),
            Self::PutTenantLimit(id, json) => {
                Change::PutTenantLimit(id.clone(), Box::new(part(json, read_limit)?))
            }
            Self::DeleteTenantLimit(id, name) => {
                Change::DeleteTenantLimit(id.clone(), name.clone())
            }
            Self::PutAccess(name, json) => {
                Change::PutAccess(name.clone(), Box::new(part(json, read_access_entry)?))
            }
            Self::DeleteAccess(name) => Change::DeleteAccess(name.clone()),
            Self::Enforce(enforce) => Change::Enforce(*enforce),
            Self::PutLimit(_, json) => Change::PutLimit(Box::new(part(json, read_limit)?)),
            Self::PutLimits(json) => Change::PutLimits(part(json, read_shared_limits)?),
            Self::DeleteTenantOverride { tenant, name, action, client } => {
                let when = Match { action: action.clone(), client: client.clone() };
                Change::DeleteTenantOverride(tenant.clone(), name.clone(), when)
            }
            Self::AddAccess(name, json) => {
                Change::AddAccess(name.clone(), Box::new(part(json, read_access_entry)?))
            }
            Self::DropExpired(wall) => Change::DropExpired(*wall),
            Self::PutEntries(json) => {
                Change::PutEntries(part(json, read_access)?.into_iter().collect())
            }
        })
    }

    /// The format level that a member needs to read the change; the first where it can't be read
    /// here either.
    pub fn needs(&self) -> FormatLevel {
        self.read().map_or(FormatLevel::FIRST, |change| change_level(&change))
    }

    /// Bytes of the JSON in it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Replace(json)
            | Self::PutTier(_, json)
            | Self::PutTenant(_, json)
            | Self::PutTenantLimit(_, json)
            | Self::PutAccess(_, json)
            | Self::PutLimit(_, json)
            | Self::PutLimits(json)
            | Self::AddAccess(_, json)
            | Self::PutEntries(json) => json.len(),
            Self::DeleteTier(_)
            | Self::DeleteTenant(_)
            | Self::DeleteTenantLimit(..)
            | Self::DeleteTenantOverride { .. }
            | Self::DeleteAccess(_)
            | Self::Enforce(_)
            | Self::DropExpired(_) => 0,
        }
    }

    /// What it does, in a few words, for the audit log.
    pub fn summary(&self) -> String {
        match self {
            Self::Replace(_) => "replaced the policy".into(),
            Self::PutTier(name, _) => format!("put tier {name}"),
            Self::DeleteTier(name) => format!("deleted tier {name}"),
            Self::PutTenant(id, _) => format!("put tenant {id}"),
            Self::DeleteTenant(id) => format!("deleted tenant {id}"),
            Self::PutTenantLimit(id, _) => format!("put a limit of tenant {id}"),
            Self::DeleteTenantLimit(id, name) => format!("deleted limit {name} of tenant {id}"),
            Self::PutAccess(name, _) => format!("put list entry {name}"),
            Self::DeleteAccess(name) => format!("deleted list entry {name}"),
            Self::Enforce(true) => "switched enforcement on".into(),
            Self::Enforce(false) => "switched enforcement off".into(),
            Self::PutLimit(name, _) => format!("put limit {name} for everybody"),
            Self::PutLimits(_) => "put the limits for everybody".into(),
            Self::DeleteTenantOverride { tenant, name, action, client } => {
                let when = Match { action: action.clone(), client: client.clone() };
                format!("deleted limit {name} of tenant {tenant}{when}")
            }
            Self::AddAccess(name, _) => format!("added list entry {name}"),
            Self::DropExpired(_) => "deleted expired list entries".into(),
            Self::PutEntries(_) => "put list entries".into(),
        }
    }
}

fn part<T>(json: &str, read: fn(&mut Reader, &Tree) -> Option<T>) -> Result<T, Vec<Fault>> {
    let tree = Tree::from_json(json.as_bytes()).map_err(|fault| vec![fault])?;
    let mut reader = Reader::within("");
    let value = read(&mut reader, &tree);
    reader.finish(value)
}
