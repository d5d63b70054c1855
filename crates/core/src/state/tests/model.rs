//! Random commands against a naive model of the state.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The same rules, written down as plainly as possible: all versions whole.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    tiers: BTreeMap<String, ()>,
    tenants: BTreeMap<String, String>,
    lists: BTreeMap<String, String>,
    limits: Vec<(String, u64)>,
    overrides: BTreeMap<(String, String), u64>,
    silent: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Tier(u8, bool),
    Tenant(u8, Option<u8>),
    List(u8, Option<u8>),
    NewEntry(u8, u8),
    DropExpired,
    Limit(u8, u64),
    Override(u8, u8, Option<u64>),
    Enforce(bool),
    Back(u64),
    Admit(u8),
    Leave(u64, bool),
    Stay(u64),
    Remove(u64),
    Again(usize),
}

fn steps() -> impl Strategy<Value = Vec<(Step, Option<u64>)>> {
    let step = prop_oneof![
        (0..4u8, any::<bool>()).prop_map(|(tier, put)| Step::Tier(tier, put)),
        (0..5u8, proptest::option::of(0..4u8)).prop_map(|(id, tier)| Step::Tenant(id, tier)),
        (0..3u8, proptest::option::of(0..3u8)).prop_map(|(entry, whom)| Step::List(entry, whom)),
        (0..3u8, 0..3u8).prop_map(|(entry, whom)| Step::NewEntry(entry, whom)),
        Just(Step::DropExpired),
        (0..3u8, 1..5u64).prop_map(|(limit, most)| Step::Limit(limit, most)),
        (0..5u8, 0..2u8, proptest::option::of(1..5u64))
            .prop_map(|(id, to, most)| Step::Override(id, to, most)),
        any::<bool>().prop_map(Step::Enforce),
        (0..30u64).prop_map(Step::Back),
        (0..4u8).prop_map(Step::Admit),
        (0..40u64, any::<bool>()).prop_map(|(id, given_up)| Step::Leave(id, given_up)),
        (0..40u64).prop_map(Step::Stay),
        (0..40u64).prop_map(Step::Remove),
        (0..60usize).prop_map(Step::Again),
    ];
    proptest::collection::vec((step, proptest::option::weighted(0.2, 1..20u64)), 1..60)
}

impl Model {
    fn make(&mut self, step: &Step) -> bool {
        match step {
            Step::Tier(tier, true) => drop(self.tiers.insert(format!("t{tier}"), ())),
            Step::Tier(tier, false) => {
                let tier = format!("t{tier}");
                let used = tier == "t0" || self.tenants.values().any(|t| *t == tier);
                return !used && self.tiers.remove(&tier).is_some();
            }
            Step::Tenant(id, Some(tier)) => {
                let tier = format!("t{tier}");
                if !self.tiers.contains_key(&tier) {
                    return false;
                }
                self.overrides.retain(|(tenant, _), _| *tenant != format!("c{id}"));
                self.tenants.insert(format!("c{id}"), tier);
            }
            Step::Tenant(id, None) => {
                self.overrides.retain(|(tenant, _), _| *tenant != format!("c{id}"));
                return self.tenants.remove(&format!("c{id}")).is_some();
            }
            Step::Override(id, action, Some(most)) => {
                self.tenants.entry(format!("c{id}")).or_default();
                self.overrides.insert((format!("c{id}"), format!("a{action}")), *most);
            }
            Step::Override(id, action, None) => {
                return self.overrides.remove(&(format!("c{id}"), format!("a{action}"))).is_some();
            }
            Step::Limit(limit, most) => {
                let name = format!("l{limit}");
                match self.limits.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, of)) => *of = *most,
                    None => self.limits.push((name, *most)),
                }
            }
            Step::Enforce(enforce) => self.silent = !enforce,
            Step::NewEntry(entry, whom) => {
                let entry = format!("e{entry}");
                if self.lists.contains_key(&entry) {
                    return false;
                }
                self.lists.insert(entry, format!("c{whom}"));
            }
            // The entries for this one alone ever expire.
            Step::DropExpired => {
                let before = self.lists.len();
                self.lists.retain(|_, whom| whom != "c2");
                return self.lists.len() < before;
            }
            Step::List(entry, Some(whom)) => {
                drop(self.lists.insert(format!("e{entry}"), format!("c{whom}")))
            }
            Step::List(entry, None) => return self.lists.remove(&format!("e{entry}")).is_some(),
            Step::Back(_)
            | Step::Admit(_)
            | Step::Leave(..)
            | Step::Stay(_)
            | Step::Remove(_)
            | Step::Again(_) => return false,
        }
        true
    }

    fn is(&self, document: &Document) -> bool {
        let tenant = |id: &str| {
            document.tenants.get(id).map(|t| t.tier.as_ref().map_or("", Name::as_str).to_string())
        };
        let overridden = |id: &str, action: &str| {
            let limits = document.tenants.get(id).map_or(&[][..], |tenant| &tenant.limits);
            let of = limits
                .iter()
                .find(|l| l.when.action.as_ref().is_some_and(|a| a.as_str() == action));
            of.map(|limit| limit.rule.capacity())
        };
        let limits = document.limits.iter().map(|l| (l.name.to_string(), l.rule.capacity()));
        let subject = |name: &str| document.access.get(name).map(|e| e.subject.clone());
        document.tiers.len() == self.tiers.len()
            && self.tiers.keys().all(|tier| document.tiers.contains_key(tier.as_str()))
            && document.tenants.len() == self.tenants.len()
            && self.tenants.iter().all(|(id, tier)| tenant(id).as_ref() == Some(tier))
            && document.tenants.values().map(|t| t.limits.len()).sum::<usize>()
                == self.overrides.len()
            && self
                .overrides
                .iter()
                .all(|((id, action), most)| overridden(id, action) == Some(*most))
            && limits.eq(self.limits.iter().cloned())
            && document.enforce != self.silent
            && document.access.len() == self.lists.len()
            && self.lists.iter().all(|(name, whom)| {
                subject(name) == Some(crate::policy::Subject::Tenant(TenantId::new(whom).unwrap()))
            })
    }
}

/// An entry for `c0` or `c1`; or for `c2`, and then it expires.
fn of_whom(whom: u8) -> String {
    entry(&format!("c{whom}"), (whom == 2).then_some(9))
}

/// A limit of `most` an hour.
fn log(name: &str, more: &str, most: u64) -> String {
    format!(r#"{{"name":"{name}","algorithm":"sliding_log","limit":{most},"window":"1h"{more}}}"#)
}

fn what(step: &Step, expected: Option<u64>) -> Option<What> {
    let edit = match step {
        Step::Tier(tier, true) => {
            Edit::PutTier(name(&format!("t{tier}")), r#"{"limits":[]}"#.into())
        }
        Step::Tier(tier, false) => Edit::DeleteTier(name(&format!("t{tier}"))),
        Step::Tenant(id, Some(tier)) => put(&format!("c{id}"), &format!("t{tier}")),
        Step::Tenant(id, None) => Edit::DeleteTenant(TenantId::new(&format!("c{id}")).unwrap()),
        Step::List(entry_id, Some(whom)) => {
            Edit::PutAccess(name(&format!("e{entry_id}")), of_whom(*whom))
        }
        Step::NewEntry(entry_id, whom) => {
            Edit::AddAccess(name(&format!("e{entry_id}")), of_whom(*whom))
        }
        Step::DropExpired => Edit::DropExpired(9),
        Step::Limit(limit, most) => {
            let limit = name(&format!("l{limit}"));
            Edit::PutLimit(limit.clone(), log(limit.as_str(), "", *most))
        }
        Step::Override(id, action, most) => {
            let tenant = TenantId::new(&format!("c{id}")).unwrap();
            let action = format!("a{action}");
            match most {
                Some(most) => {
                    let when = format!(r#","match":{{"action":"{action}"}}"#);
                    Edit::PutTenantLimit(tenant, log("rate", &when, *most))
                }
                None => Edit::DeleteTenantOverride {
                    tenant,
                    name: name("rate"),
                    action: crate::check::Label::new(&action),
                    client: None,
                },
            }
        }
        Step::Enforce(enforce) => Edit::Enforce(*enforce),
        Step::List(entry, None) => Edit::DeleteAccess(name(&format!("e{entry}"))),
        Step::Back(to) => return Some(What::Rollback { expected, to: *to }),
        Step::Admit(who) => return Some(What::Admit(member(&format!("m{who}")))),
        Step::Leave(id, true) => return Some(What::Leave(NodeId(*id), Leaving::Abandoned)),
        Step::Leave(id, false) => return Some(What::Leave(NodeId(*id), Leaving::HandingOver)),
        Step::Stay(id) => return Some(What::Drain(NodeId(*id), false)),
        Step::Remove(id) => return Some(What::Remove(NodeId(*id))),
        Step::Again(_) => return None,
    };
    Some(What::Edit { expected, edit })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn random_commands_do_what_a_naive_model_says_whole_or_not_at_all(steps in steps()) {
        let mut state = seated();
        let mut other = seated();
        let first = Model { tiers: [("t0".into(), ()), ("t1".into(), ())].into(), ..Model::default() };
        let mut versions = vec![first];
        let mut members: BTreeMap<u64, String> = (1..=3).map(|i| (i, format!("n{i}"))).collect();
        // Who leaves, and whether it was given up. The first three alone have been there and own
        // anything.
        let mut leaving: BTreeMap<u64, bool> = BTreeMap::new();
        let mut given = vec![1, 2, 3];
        let mut sent = vec![command(1, begin())];
        for (i, (step, expected)) in steps.iter().enumerate() {
            let at = LogIndex(20 + i as u64);
            let before = state.encode().unwrap();
            let (command, new) = match (step, what(step, *expected)) {
                (_, Some(what)) => (command(1_000 + i as u128, what), true),
                (Step::Again(which), None) => (sent[which % sent.len()].clone(), false),
                _ => unreachable!(),
            };
            let outcome = state.apply(at, &command);
            let stale = expected.is_some_and(|expected| expected != versions.len() as u64);
            if new {
                let current = versions.last().unwrap().clone();
                let fine = match step {
                    Step::Back(to) => {
                        let there = (1..=versions.len() as u64).contains(to) && !stale;
                        if there {
                            versions.push(versions[*to as usize - 1].clone());
                        }
                        there
                    }
                    Step::Admit(who) => {
                        let fine = !members.values().any(|name| *name == format!("m{who}"));
                        if let Ok(Done { made: Made::Member(id), .. }) = &outcome {
                            prop_assert!(!given.contains(&id.0));
                            given.push(id.0);
                            members.insert(id.0, format!("m{who}"));
                        }
                        fine
                    }
                    Step::Leave(id, given_up) => {
                        let fine = members.contains_key(id) && others_own(&members, &leaving, *id);
                        if fine {
                            *leaving.entry(*id).or_default() |= given_up;
                        }
                        fine
                    }
                    Step::Stay(id) => {
                        leaving.remove(id);
                        members.contains_key(id)
                    }
                    Step::Remove(id) => {
                        let goes = leaving.get(id).is_some_and(|given_up| *given_up || *id > 3);
                        let fine = goes && others_own(&members, &leaving, *id);
                        if fine {
                            members.remove(id);
                            leaving.remove(id);
                        }
                        fine
                    }
                    edit => {
                        let mut next = current;
                        let fine = !stale && next.make(edit);
                        if fine {
                            versions.push(next);
                        }
                        fine
                    }
                };
                prop_assert_eq!(outcome.is_ok(), fine, "{:?}: {:?}", step, outcome);
            }
            // What is refused, and what comes again after it was done, leaves every byte as it was.
            let done_before = !new && sent.contains(&command) && outcome.is_ok();
            if outcome.is_err() || done_before && other_done(&before, &command) {
                prop_assert_eq!(&state.encode().unwrap(), &before);
            } else if !new {
                // It was refused when it came first, and fits now: the model follows.
                return Ok(());
            }
            sent.push(command.clone());
            let agreed = state.agreed().unwrap();
            prop_assert_eq!(agreed.version, versions.len() as u64);
            prop_assert!(versions.last().unwrap().is(&agreed.document));
            let ids: Vec<_> = agreed.members.iter().map(|(id, m)| (id.0, m.name.to_string())).collect();
            prop_assert_eq!(ids, members.clone().into_iter().collect::<Vec<_>>());
            prop_assert!(agreed.table.rows().all(|(_, row)| members.contains_key(&row.owner.node.0)));
            // Another node applies the same entry, and was once restored from bytes.
            if i == steps.len() / 2 {
                other = State::decode(&other.encode().unwrap()).unwrap();
            }
            prop_assert_eq!(other.apply(at, &command), outcome);
            prop_assert_eq!(other.encode().unwrap(), state.encode().unwrap());
        }
        let agreed = state.agreed().unwrap();
        for (i, model) in versions.iter().enumerate() {
            prop_assert!(model.is(&agreed.document_at(i as u64 + 1).unwrap()), "version {}", i + 1);
        }
    }
}

/// Whether somebody else may own what `id` would leave behind.
fn others_own(members: &BTreeMap<u64, String>, leaving: &BTreeMap<u64, bool>, id: u64) -> bool {
    (1..=3)
        .any(|other| other != id && members.contains_key(&other) && !leaving.contains_key(&other))
}

/// Whether the command had been done in the state that `bytes` are.
fn other_done(bytes: &[u8], command: &Command) -> bool {
    State::decode(bytes)
        .unwrap()
        .0
        .is_some_and(|agreed| agreed.requests.contains_key(&command.request))
}
