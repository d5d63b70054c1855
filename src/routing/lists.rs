//! What the allow and deny lists decided: counted at the door, since no shard hears of it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::check::{Decision, Reason};
use crate::shard::{Counts, Outcomes, Scope};

/// What an entry of the deny list can name, in the order of [`ListCounts::denied`].
const SCOPES: [Scope; 4] = [Scope::Tenant, Scope::Client, Scope::Ip, Scope::ApiKey];

/// Decisions by the lists.
#[derive(Default)]
pub struct ListCounts {
    allowed: AtomicU64,
    denied: [AtomicU64; SCOPES.len()],
}

impl ListCounts {
    /// Counts a decision that a list has made.
    pub fn count(&self, decision: &Decision) {
        let scope = decision.denied_by.as_ref().map(|by| Scope::of(&by.scope));
        let counter = match scope.and_then(|scope| SCOPES.iter().position(|known| *known == scope))
        {
            Some(at) => &self.denied[at],
            None => &self.allowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Counts {
        let mut counts = Counts::default();
        for (scope, denied) in SCOPES.into_iter().zip(&self.denied) {
            let denied = denied.load(Ordering::Relaxed);
            if denied > 0 {
                counts.denied(Reason::DenyList, scope, denied);
            }
            counts.lists.denied += denied;
        }
        counts.lists.add(Outcomes { allowed: self.allowed.load(Ordering::Relaxed), denied: 0 });
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{DeniedBy, Dimension, Name, TenantId};

    #[test]
    fn each_kind_of_entry_is_counted_by_itself() {
        let counts = ListCounts::default();
        for scope in [None, Some(Dimension::Ip), Some(Dimension::Ip), Some(Dimension::ApiKey)] {
            counts.count(&Decision {
                allowed: scope.is_none(),
                tenant: TenantId::new("acme").unwrap(),
                tier: None,
                cost: 1,
                verdicts: crate::check::Verdicts::new(),
                denied_by: scope.map(|scope| {
                    Box::new(DeniedBy {
                        name: Name::new("entry").unwrap(),
                        scope: vec![scope],
                        reason: Reason::DenyList,
                    })
                }),
                retry_after: None,
                permit: None,
                replayed: false,
                bypass: None,
                policy_version: 1,
                epoch: 1,
                node: None,
            });
        }
        let counts = counts.read();
        assert_eq!(counts.lists, Outcomes { allowed: 1, denied: 3 });
        let denials = [(Reason::DenyList, Scope::Ip, 2), (Reason::DenyList, Scope::ApiKey, 1)];
        assert_eq!(counts.denials, denials);
    }
}
