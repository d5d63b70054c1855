//! Allow and deny lists (P9), compiled for lookup: exact values and address ranges in ordered maps.
//!
//! The deny list comes first: who is on both is denied. An entry whose time is up doesn't count,
//! whether or not it has been cleaned up yet.
//!
//! The maps are persistent, and the next version's lists are made of the last one's: an edit costs
//! its own size, also among a hundred thousand entries. Ranges are kept by their first address and
//! length; a lookup tries the lengths that are in use, of which most lists have one or two:
//!
//! ```text
//! entries   192.0.2.0/24 (office), 192.0.2.9/32 (printer)       lengths in use: 24, 32
//! check     192.0.2.9 → 192.0.2.0/24 and 192.0.2.9/32           both count
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;

use super::document::{AccessEntry, Document, List, Subject};
use crate::check::{ApiKeyDigest, Check, Label, Name, TenantId};

/// The entries for one subject, in the order of their names.
type Entries = Vec<(Name, Arc<AccessEntry>)>;

/// Both lists, for lookup.
#[derive(Clone, Default)]
pub struct AccessLists {
    tenants: OrdMap<TenantId, Entries>,
    clients: OrdMap<Label, Entries>,
    api_keys: OrdMap<ApiKeyDigest, Entries>,
    ranges: OrdMap<IpNet, Entries>,
    /// The lengths of the prefixes in `ranges` and how many have each, of IPv4 and of IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
    /// When entries expire, the first one first.
    expiries: OrdSet<(u64, Name)>,
    /// What all of this was made of.
    entries: OrdMap<Name, Arc<AccessEntry>>,
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
        Self::default().next(document)
    }

    /// The lists of `document`, made of these: what it shares with the document of these isn't
    /// looked at.
    pub fn next(&self, document: &Document) -> Self {
        let mut lists = Self { entries: document.access.clone(), ..self.clone() };
        for difference in self.entries.diff(&document.access) {
            match difference {
                DiffItem::Add(name, entry) => lists.add(name, entry),
                DiffItem::Remove(name, entry) => lists.remove(name, entry),
                DiffItem::Update { old, new } => {
                    lists.remove(old.0, old.1);
                    lists.add(new.0, new.1);
                }
            }
        }
        lists
    }

    fn add(&mut self, name: &Name, entry: &Arc<AccessEntry>) {
        if let Some(at) = entry.expires {
            self.expiries.insert((at, name.clone()));
        }
        if let Subject::Ip(net) = &entry.subject
            && !self.ranges.contains_key(net)
        {
            *self.lengths_of(net).entry(net.prefix_len()).or_default() += 1;
        }
        self.change(&entry.subject, |entries| {
            let at = entries.partition_point(|(other, _)| other < name);
            entries.insert(at, (name.clone(), entry.clone()));
        });
    }

    fn remove(&mut self, name: &Name, entry: &Arc<AccessEntry>) {
        if let Some(at) = entry.expires {
            self.expiries.remove(&(at, name.clone()));
        }
        self.change(&entry.subject, |entries| entries.retain(|(other, _)| other != name));
        if let Subject::Ip(net) = &entry.subject
            && !self.ranges.contains_key(net)
        {
            let (lengths, length) = (self.lengths_of(net), net.prefix_len());
            match lengths.get_mut(&length) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(lengths.remove(&length)),
            }
        }
    }

    /// Changes the entries for a subject.
    fn change(&mut self, subject: &Subject, change: impl FnOnce(&mut Entries)) {
        match subject {
            Subject::Tenant(tenant) => change_in(&mut self.tenants, tenant, change),
            Subject::Client(client) => change_in(&mut self.clients, client, change),
            Subject::ApiKey(digest) => change_in(&mut self.api_keys, digest, change),
            Subject::Ip(net) => change_in(&mut self.ranges, net, change),
        }
    }

    fn lengths_of(&mut self, net: &IpNet) -> &mut BTreeMap<u8, usize> {
        &mut self.lengths[usize::from(matches!(net, IpNet::V6(_)))]
    }

    /// Whether both lists are empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the first entry expires that does, wall nanoseconds.
    pub fn first_expiry(&self) -> Option<u64> {
        self.expiries.get_min().map(|(at, _)| *at)
    }

    /// The entries whose ranges hold `ip`, the widest first.
    fn holding(&self, ip: IpAddr) -> impl Iterator<Item = &Entries> {
        let lengths = &self.lengths[usize::from(ip.is_ipv6())];
        lengths
            .keys()
            .filter_map(move |length| self.ranges.get(&IpNet::new(ip, *length).ok()?.trunc()))
    }

    /// The entry that decides `check` at wall time `wall`: of the deny list if one is in force,
    /// else of the allow list.
    pub fn decide(&self, check: &Check, wall: u64) -> Option<AccessVerdict> {
        let exact = [
            self.tenants.get(&check.tenant),
            check.client.as_ref().and_then(|client| self.clients.get(client)),
            check.api_key.as_ref().and_then(|digest| self.api_keys.get(digest)),
        ];
        let by_address = check.ip.into_iter().flat_map(|ip| self.holding(ip));
        let mut allowed = None;
        for (name, entry) in exact.into_iter().flatten().chain(by_address).flatten() {
            if entry.expires.is_some_and(|at| at <= wall) {
                continue;
            }
            let verdict = || AccessVerdict { name: name.clone(), entry: entry.clone() };
            match entry.list {
                List::Deny => return Some(verdict()),
                List::Allow => drop(allowed.get_or_insert_with(verdict)),
            }
        }
        allowed
    }
}

/// Changes the entries at `key`; a key without any is gone.
fn change_in<K: Ord + Clone>(
    map: &mut OrdMap<K, Entries>,
    key: &K,
    change: impl FnOnce(&mut Entries),
) {
    let mut entries = map.get(key).cloned().unwrap_or_default();
    change(&mut entries);
    match entries.is_empty() {
        true => drop(map.remove(key)),
        false => drop(map.insert(key.clone(), entries)),
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
        let lists = lists(
            "[access.a]\nlist = \"deny\"\ntenant = \"acme\"\nexpires = \"1970-01-01T00:00:10Z\"\n",
        );
        let ten_seconds = 10_000_000_000;
        assert!(lists.decide(&check("192.0.2.1"), ten_seconds - 1).is_some());
        assert!(lists.decide(&check("192.0.2.1"), ten_seconds).is_none());
    }

    #[test]
    fn the_first_to_expire_is_known_without_looking_at_the_rest() {
        let entry = |name: &str, expires: &str| {
            format!(
                "[access.{name}]\nlist = \"deny\"\nclient = \"{name}\"\nexpires = \
                 \"1970-01-01T00:00:{expires}Z\"\n"
            )
        };
        let keeps = "[access.keeps]\nlist = \"deny\"\ntenant = \"x\"\n";
        assert_eq!(lists(keeps).first_expiry(), None);
        let three = format!("{}{keeps}{}{}", entry("a", "20"), entry("b", "10"), entry("c", "30"));
        assert_eq!(lists(&three).first_expiry(), Some(10_000_000_000));
    }

    /// What an entry may name, how long it holds, and what is asked: few of each, so that they
    /// meet.
    fn subjects() -> Vec<Subject> {
        let net = |text: &str| Subject::Ip(crate::policy::parse_network(text).unwrap());
        vec![
            Subject::Tenant(TenantId::new("acme").unwrap()),
            Subject::Client(Label::new("ann").unwrap()),
            Subject::ApiKey(ApiKeyDigest::of("sesame")),
            net("192.0.2.1"),
            net("192.0.2.0/24"),
            net("0.0.0.0/0"),
            net("2001:db8::1"),
            net("2001:db8::/32"),
        ]
    }

    fn checks() -> Vec<Check> {
        let base = Check::of(TenantId::new("globex").unwrap());
        vec![
            base.clone(),
            Check { tenant: TenantId::new("acme").unwrap(), ..base.clone() },
            Check { client: Label::new("ann"), ip: "192.0.2.1".parse().ok(), ..base.clone() },
            Check { api_key: Some(ApiKeyDigest::of("sesame")), ..base.clone() },
            Check { ip: "192.0.2.2".parse().ok(), ..base.clone() },
            Check { ip: "198.51.100.1".parse().ok(), ..base.clone() },
            Check { ip: "2001:db8::1".parse().ok(), ..base },
        ]
    }

    /// The same question, asked of every entry there is.
    fn naive(document: &Document, check: &Check, wall: u64) -> Option<List> {
        let names = |subject: &Subject| match subject {
            Subject::Tenant(tenant) => check.tenant == *tenant,
            Subject::Client(client) => check.client.as_ref() == Some(client),
            Subject::ApiKey(digest) => check.api_key.as_ref() == Some(digest),
            Subject::Ip(net) => check.ip.is_some_and(|ip| net.contains(&ip)),
        };
        let counting =
            document.access.values().filter(|entry| entry.expires.is_none_or(|at| wall < at));
        let said: Vec<_> =
            counting.filter(|entry| names(&entry.subject)).map(|entry| entry.list).collect();
        [List::Deny, List::Allow].into_iter().find(|list| said.contains(list))
    }

    proptest::proptest! {
        #[test]
        fn lists_that_were_edited_say_what_looking_at_every_entry_says(
            edits in proptest::collection::vec((0..6usize, proptest::option::of((0..8usize, proptest::bool::ANY, 0..4u64))), 1..40),
        ) {
            let mut document = crate::policy::builtin();
            let mut lists = AccessLists::new(&document);
            for (name, what) in edits {
                let name = Name::new(&format!("e{name}")).unwrap();
                match what {
                    Some((subject, deny, expires)) => {
                        let entry = AccessEntry {
                            list: if deny { List::Deny } else { List::Allow },
                            subject: subjects()[subject].clone(),
                            reason: String::new(),
                            added_by: None,
                            added_at: None,
                            expires: (expires > 0).then_some(expires),
                        };
                        document.access.insert(name, Arc::new(entry));
                    }
                    None => drop(document.access.remove(&name)),
                }
                lists = lists.next(&document);
                let afresh = AccessLists::new(&document);
                proptest::prop_assert_eq!(&lists.lengths, &afresh.lengths);
                let first = document.access.values().filter_map(|entry| entry.expires).min();
                proptest::prop_assert_eq!(lists.first_expiry(), first);
                for check in checks() {
                    for wall in 0..4 {
                        let said = lists.decide(&check, wall);
                        // However the lists came about, the same entry is named.
                        proptest::prop_assert_eq!(&said, &afresh.decide(&check, wall));
                        proptest::prop_assert_eq!(said.map(|v| v.entry.list), naive(&document, &check, wall));
                    }
                }
            }
        }
    }
}
