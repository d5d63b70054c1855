//! The books that a test keeps: what was admitted, by bucket, beside what the shards say is left.

use std::collections::BTreeMap;

use super::*;

/// What admitted checks have taken, and whom limits have denied.
#[derive(Default)]
pub struct Books {
    /// By bucket: units taken, and the most that it could ever hold.
    taken: BTreeMap<String, (u64, u64)>,
    denied: Vec<(Vec<Check>, Vec<Decision>)>,
}

/// A bucket's name, as the test keeps its books: by the limit, and by the values of what it is per.
pub fn bucket(check: &Check, limit: &Limit) -> String {
    let values = limit.per.iter().map(|dimension| match dimension {
        Dimension::Tenant => check.tenant.to_string(),
        Dimension::Client => format!("{:?}", check.client),
        Dimension::Ip => format!("{:?}", check.ip),
        Dimension::ApiKey => format!("{:?}", check.api_key),
        Dimension::Attribute(name) => format!("{:?}", check.attributes.get(name)),
        other => unreachable!("no limit here is per {other}"),
    });
    format!("{} of {:?}", limit.name, values.collect::<Vec<_>>())
}

/// Units that a check takes of a limit: a permit is one slot, whatever the check costs.
fn units(decision: &Decision, limit: &Limit) -> u64 {
    match limit.rule {
        Rule::Concurrency { .. } => 1,
        _ => decision.cost,
    }
}

impl Books {
    pub fn taken(&self, check: &Check, limit: &Limit) -> u64 {
        self.taken.get(&bucket(check, limit)).map_or(0, |(taken, _)| *taken)
    }

    /// Enters what one op was answered.
    pub fn enter(&mut self, checks: Vec<Check>, decisions: Vec<Decision>) {
        assert_eq!(checks.len(), decisions.len());
        let allowed = decisions[0].allowed;
        for (check, decision) in checks.iter().zip(&decisions) {
            assert_eq!(decision.allowed, allowed, "all or nothing");
            assert_eq!(decision.tenant, check.tenant, "decisions come in order");
            assert_eq!(decision.denied_by.is_some(), !allowed);
            if !allowed || decision.replayed {
                continue;
            }
            // What keys beyond a cap have in common is nobody's own count.
            for verdict in decision.verdicts.iter().filter(|v| v.is_exact()) {
                let (taken, most) = self.taken.entry(bucket(check, &verdict.limit)).or_default();
                *taken += units(decision, &verdict.limit);
                *most = verdict.limit.rule.capacity().max(*most);
            }
        }
        if !allowed {
            self.denied.push((checks, decisions));
        }
    }

    /// No bucket has given more than it can hold.
    pub fn assert_none_gave_too_much(&self) {
        for (bucket, (taken, most)) in &self.taken {
            assert!(taken <= most, "{bucket} gave {taken} of {most}");
        }
    }

    /// Every limit that said no was so used up, by what was admitted, that there was no room for
    /// what was asked.
    pub fn assert_denials_were_needed(&self) {
        for (checks, decisions) in &self.denied {
            let asked = |name: &str| -> u64 {
                let of = |(c, d): (&Check, &Decision)| -> u64 {
                    let mine = d.verdicts.iter().filter(|v| bucket(c, &v.limit) == name);
                    mine.map(|v| units(d, &v.limit)).sum()
                };
                checks.iter().zip(decisions).map(of).sum()
            };
            let mut deniers = Vec::new();
            for (check, decision) in checks.iter().zip(decisions) {
                for verdict in decision.verdicts.iter().filter(|v| says_no(v)) {
                    let bucket = bucket(check, &verdict.limit);
                    let (taken, asked) = (self.taken(check, &verdict.limit), asked(&bucket));
                    assert!(
                        !verdict.is_exact() || taken + asked > verdict.limit.rule.capacity(),
                        "{bucket} denied {asked} with {taken} taken"
                    );
                    deniers.push((verdict.limit.name.as_str(), verdict.outcome.retry_after()));
                }
            }
            for decision in decisions {
                assert!(
                    deniers.contains(&(denier(decision), decision.retry_after)),
                    "{decision:?} was denied by a limit that didn't say no"
                );
            }
        }
    }
}

impl World {
    /// Of each bucket of `check`: its name, what is left of it here, and what is left by the books.
    pub fn left_of_all(&mut self, check: &Check, books: &Books) -> Vec<(String, u64, u64)> {
        let check = with_permit(1_000, check);
        let peeked = self.peek(&check);
        let left = peeked.verdicts.iter().map(|verdict| {
            let limit = &verdict.limit;
            let booked = limit.rule.capacity().saturating_sub(books.taken(&check, limit));
            (bucket(&check, limit), verdict.remaining, booked)
        });
        left.collect()
    }
}
