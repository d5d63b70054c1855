//! Allow and deny lists (P9), compiled for lookup: exact values in ordered maps, address ranges in a prefix tree.
//!
//! The deny list comes first: who is on both is denied. An entry whose time is up doesn't count, whether or not it has
//! been cleaned up yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::document::{AccessEntry, Document, List, Subject};
use crate::check::{ApiKeyDigest, Check, Label, Name, TenantId};

type Entries = Vec<(Name, Arc<AccessEntry>)>;

/// Both lists, for lookup.
#[derive(Clone, Default)]
pub struct AccessLists {
    tenants: BTreeMap<TenantId, Entries>,
    clients: BTreeMap<Label, Entries>,
    api_keys: BTreeMap<ApiKeyDigest, Entries>,
    v4: PrefixMap<Ipv4Net, Entries>,
    v6: PrefixMap<Ipv6Net, Entries>,
    /// Most nodes have no lists at all, and then nobody should pay for them.
    empty: bool,
}

/// What the lists say to a check.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessVerdict {
    /// The entry's name.
    pub name: Name,
    /// The entry.
    pub entry: Arc<AccessEntry>,
}

impl AccessLists {
    /// The lists of `document`.
    pub fn new(document: &Document) -> Self {
        let mut lists = Self { empty: document.access.is_empty(), ..Self::default() };
        for (name, entry) in &document.access {
            let entries = match &entry.subject {
                Subject::Tenant(tenant) => lists.tenants.entry(tenant.clone()).or_default(),
                Subject::Client(client) => lists.clients.entry(client.clone()).or_default(),
                Subject::ApiKey(digest) => lists.api_keys.entry(digest.clone()).or_default(),
                Subject::Ip(IpNet::V4(net)) => lists.v4.entry(*net).or_default(),
                Subject::Ip(IpNet::V6(net)) => lists.v6.entry(*net).or_default(),
            };
            entries.push((name.clone(), entry.clone()));
        }
        lists
    }

    /// Whether both lists are empty.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// The entry that decides `check` at wall time `wall`: of the deny list if one is in force, else of the allow list.
    pub fn decide(&self, check: &Check, wall: u64) -> Option<AccessVerdict> {
        let mut allowed = None;
        let mut consider = |entries: &Entries| {
            for (name, entry) in entries.iter().filter(|(_, entry)| entry.expires.is_none_or(|at| wall < at))
            {
                let verdict = AccessVerdict { name: name.clone(), entry: entry.clone() };
                match entry.list {
                    List::Deny => return Some(verdict),
                    List::Allow => drop(allowed.get_or_insert(verdict)),
                }
            }
            None
        };
        let exact = [
            self.tenants.get(&check.tenant),
            check.client.as_ref().and_then(|client| self.clients.get(client)),
            check.api_key.as_ref().and_then(|digest| self.api_keys.get(digest)),
        ];
        for entries in exact.into_iter().flatten() {
            if let denied @ Some(_) = consider(entries) {
                return denied;
            }
        }
        let denied = match check.ip {
            Some(IpAddr::V4(ip)) => self.v4.cover(&ip.into()).find_map(|(_, entries)| consider(entries)),
            Some(IpAddr::V6(ip)) => self.v6.cover(&ip.into()).find_map(|(_, entries)| consider(entries)),
            None => None,
        };
        denied.or(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(toml: &str) -> AccessLists {
        let text = format!("default_tier = \"t\"\n[tiers.t]\n{toml}");
        AccessLists::new(&Document::from_toml(text.as_bytes()).unwrap())
    }

    fn check(ip: &str) -> Check {
        Check { ip: Some(ip.parse().unwrap()), ..Check::of(TenantId::new("acme").unwrap()) }
    }

    #[test]
    fn ranges_of_both_families_decide_and_deny_comes_before_allow() {
        let lists = lists(
            r#"
            [access.office]
            list = "allow"
            ip = "192.0.2.0/24"
            [access.printer]
            list = "deny"
            ip = "192.0.2.9"
            [access.six]
            list = "deny"
            ip = "2001:db8::/32"
            "#,
        );
        let decided = |ip| lists.decide(&check(ip), 0).map(|v| (v.name.to_string(), v.entry.list));
        assert_eq!(decided("192.0.2.8"), Some(("office".into(), List::Allow)));
        assert_eq!(decided("192.0.2.9"), Some(("printer".into(), List::Deny)));
        assert_eq!(decided("2001:db8::7"), Some(("six".into(), List::Deny)));
        assert_eq!(decided("198.51.100.1"), None);
    }

    #[test]
    fn an_entry_counts_until_it_expires() {
        let lists =
            lists("[access.a]\nlist = \"deny\"\ntenant = \"acme\"\nexpires = \"1970-01-01T00:00:10Z\"\n");
        let ten_seconds = 10_000_000_000;
        assert!(lists.decide(&check("192.0.2.1"), ten_seconds - 1).is_some());
        assert!(lists.decide(&check("192.0.2.1"), ten_seconds).is_none());
    }
}
