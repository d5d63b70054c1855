//! The tenants that ask most, in bounded memory: a space-saving sketch (Metwally, Agrawal, El
//! Abbadi 2005).
//!
//! A fixed number of places. A tenant that has none takes the place with the least weight and its
//! weight along with it, so whoever asks more than one in `places` of all checks keeps a place.
//! Strangers come in by sample, one for eight of them. What a place *reports* is not its weight:
//! that would charge a newcomer with what others asked. A tenant is named once it has asked more
//! often than the weight it inherited says, and its numbers count from there; until then its checks
//! are the others'.
//!
//! ```text
//! 2 places: acme ×9, globex ×5, then 100 invented tenants, once each
//! acme keeps its place and its 9; the invented ones take turns in the other place, unnamed: others = 100
//! ```
//!
//! Each decision is counted in exactly one place, at the moment it is made. A tenant that loses its
//! place takes its numbers along: adding them to the others' would look like a burst of checks that
//! nobody made.

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::check::{ANONYMOUS, TenantId};
use crate::placement::AccountHash;

/// Tenants with numbers of their own on one node, over all its shards: what a dashboard can show
/// and a scrape can carry.
pub const TENANTS_MAX: usize = 100;

/// Of tenants without a place, only every so many-th is given one, and stands for the others:
/// looking for the least weight costs half as much as a decision, and where a hundred thousand
/// tenants take turns, nearly all are strangers.
const STRANGERS_PER_PLACE: u64 = 8;

/// Decisions, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// That said yes.
    pub allowed: u64,
    /// That said no.
    pub denied: u64,
}

impl Outcomes {
    /// One more.
    pub fn count(&mut self, allowed: bool) {
        match allowed {
            true => self.allowed += 1,
            false => self.denied += 1,
        }
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.allowed + self.denied
    }

    /// Those that came after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            allowed: self.allowed.saturating_sub(earlier.allowed),
            denied: self.denied.saturating_sub(earlier.denied),
        }
    }

    /// Those of `other` too.
    pub fn add(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
    }
}

struct Place {
    hash: u64,
    tenant: TenantId,
    weight: u64,
    /// Of the weight, what was inherited.
    error: u64,
    /// Decisions since it has the place.
    seen: u64,
    named: bool,
    own: Outcomes,
}

/// See the module.
pub struct Top {
    places: Vec<Place>,
    most: usize,
    index: HashTable<u32>,
    /// Decisions of tenants that weren't named.
    others: Outcomes,
    /// Decisions of tenants without a place, since all are taken.
    strangers: u64,
}

impl Top {
    /// A sketch for one of `shards` shards: each has an equal part of the places, so that none has
    /// to be left out when they are put together. Accounts are hashed over the shards, so the
    /// largest tenants are too.
    pub fn new(shards: usize) -> Self {
        Self::with_places((TENANTS_MAX / shards.max(1)).max(1))
    }

    fn with_places(most: usize) -> Self {
        Self {
            places: Vec::new(),
            most,
            index: HashTable::new(),
            others: Outcomes::default(),
            strangers: 0,
        }
    }

    /// Counts a decision for `tenant`, whose account has this hash.
    pub fn count(&mut self, hash: AccountHash, tenant: &TenantId, allowed: bool) {
        // `anonymous` has an account for each address, and is one tenant all the same.
        let hash = if tenant.as_str() == ANONYMOUS { 0 } else { hash.0 };
        let places = &self.places;
        let found = self.index.find(hash, |&at| {
            let place = &places[at as usize];
            place.hash == hash && place.tenant == *tenant
        });
        let (at, more) = match found.copied() {
            Some(at) => (at as usize, 1),
            None if self.places.len() < self.most => (self.place(hash, tenant), 1),
            None => {
                self.strangers += 1;
                if !self.strangers.is_multiple_of(STRANGERS_PER_PLACE) {
                    return self.others.count(allowed);
                }
                (self.place(hash, tenant), STRANGERS_PER_PLACE)
            }
        };
        let place = &mut self.places[at];
        place.weight += more;
        place.seen += 1;
        place.named |= place.seen > place.error;
        let outcomes = if place.named { &mut place.own } else { &mut self.others };
        outcomes.count(allowed);
    }

    /// A place for a tenant that has none.
    fn place(&mut self, hash: u64, tenant: &TenantId) -> usize {
        let fresh = |weight| Place {
            hash,
            tenant: tenant.clone(),
            weight,
            error: weight,
            seen: 0,
            named: false,
            own: Outcomes::default(),
        };
        let at = if self.places.len() < self.most {
            self.places.push(fresh(0));
            self.places.len() - 1
        } else {
            let least = self.places.iter().enumerate().min_by_key(|(_, place)| place.weight);
            let (at, weight, old) =
                least.map_or((0, 0, 0), |(at, place)| (at, place.weight, place.hash));
            if let Ok(entry) = self.index.find_entry(old, |&other| other as usize == at) {
                entry.remove();
            }
            self.places[at] = fresh(weight);
            at
        };
        let places = &self.places;
        self.index.insert_unique(hash, at as u32, |&at| places[at as usize].hash);
        at
    }

    /// The tenants that are named, with their numbers.
    pub fn named(&self) -> impl Iterator<Item = (&TenantId, Outcomes)> {
        self.places.iter().filter(|place| place.named).map(|place| (&place.tenant, place.own))
    }

    /// The numbers of all others.
    pub fn others(&self) -> Outcomes {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Secret;

    fn ask(top: &mut Top, tenant: &str, times: u64) {
        let hash = Secret::new(1, 2).account(tenant);
        for i in 0..times {
            top.count(hash, &TenantId::new(tenant).unwrap(), i % 3 != 0);
        }
    }

    fn named(top: &Top) -> Vec<(&str, u64)> {
        let mut named: Vec<_> = top.named().map(|(t, own)| (t.as_str(), own.total())).collect();
        named.sort();
        named
    }

    #[test]
    fn tenants_that_fit_are_counted_exactly() {
        let mut top = Top::with_places(3);
        for (tenant, times) in [("a", 7), ("b", 1), ("c", 3), ("a", 2)] {
            ask(&mut top, tenant, times);
        }
        assert_eq!(named(&top), [("a", 9), ("b", 1), ("c", 3)]);
        assert_eq!(top.others(), Outcomes::default());
    }

    #[test]
    fn a_flood_of_invented_tenants_is_not_named_and_pushes_no_large_one_out() {
        let mut top = Top::with_places(10);
        for tenant in ["large-1", "large-2", "large-3"] {
            ask(&mut top, tenant, 5_000);
        }
        for i in 0..10_000 {
            ask(&mut top, &format!("flood-{i}"), 1);
        }
        let large: Vec<_> =
            named(&top).into_iter().filter(|(t, _)| t.starts_with("large")).collect();
        assert_eq!(large, [("large-1", 5_000), ("large-2", 5_000), ("large-3", 5_000)]);
        assert!(named(&top).len() <= 10 && top.index.len() == 10);
        // Seven were named while there was room; all that came later are the others'.
        assert_eq!(top.others().total(), 10_000 - 7);
    }

    #[test]
    fn a_tenant_that_grows_large_behind_a_flood_is_named_and_starts_from_what_is_its_own() {
        let mut top = Top::with_places(10);
        for i in 0..1_000 {
            ask(&mut top, &format!("flood-{i}"), 1);
        }
        ask(&mut top, "late", 1_000);
        let late = named(&top).into_iter().find(|(t, _)| *t == "late").unwrap();
        // It inherited a weight of about a hundred, and is named once it has more than that of its
        // own.
        assert!((850..1_000).contains(&late.1), "{late:?}");
    }

    #[test]
    fn addresses_of_anonymous_are_one_tenant() {
        let mut top = Top::with_places(10);
        for i in 0..50 {
            let hash = Secret::new(1, 2).account(&format!("anonymous@192.0.2.{i}"));
            top.count(hash, &TenantId::new(ANONYMOUS).unwrap(), true);
        }
        assert_eq!(named(&top), [(ANONYMOUS, 50)]);
    }
}
