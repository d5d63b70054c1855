use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::check::{Name, TenantId};

const POLICY: &str = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]},"t1":{"limits":[]}}}"#;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn member(text: &str) -> NewMember {
    NewMember {
        name: name(text),
        http: format!("{text}:7071"),
        peer: format!("{text}:7171"),
        weight: Weight::ONE,
    }
}

fn begin() -> What {
    let members = vec![member("n1"), member("n2"), member("n3")];
    What::Begin { secret: Secret::new(1, 2).into(), document: POLICY.into(), members }
}

fn command(request: u128, what: What) -> Command {
    Command { request: RequestId(request), time: 1_000 + request as u64, by: "ops".into(), what }
}

fn put(tenant: &str, tier: &str) -> Edit {
    Edit::PutTenant(TenantId::new(tenant).unwrap(), format!(r#"{{"tier":"{tier}"}}"#))
}

fn begun() -> State {
    let mut state = State::default();
    state.apply(LogIndex(3), &command(1, begin())).unwrap();
    state
}

fn edit(state: &mut State, at: u64, expected: Option<u64>, edit: Edit) -> Result<u64, Refusal> {
    let done =
        state.apply(LogIndex(at), &command(u128::from(at), What::Edit { expected, edit }))?;
    match done.made {
        Made::Version(version) => Ok(version),
        other => panic!("made {other:?}"),
    }
}

#[test]
fn nothing_is_done_before_the_beginning_and_there_is_one_beginning() {
    let mut state = State::default();
    assert_eq!(edit(&mut state, 2, None, put("acme", "t1")), Err(Refusal::NotBegun));
    assert_eq!(state.apply(LogIndex(3), &command(3, begin())).unwrap().made, Made::Version(1));
    assert_eq!(state.apply(LogIndex(4), &command(4, begin())), Err(Refusal::Begun));
    assert_eq!(state.agreed().unwrap().secret().words(), (1, 2));
}

#[test]
fn a_change_made_for_another_version_is_refused() {
    let mut state = begun();
    assert_eq!(edit(&mut state, 4, Some(1), put("acme", "t1")), Ok(2));
    assert_eq!(
        edit(&mut state, 5, Some(1), put("other", "t1")),
        Err(Refusal::Stale { expected: 1, actual: 2 })
    );
    assert_eq!(state.agreed().unwrap().document.tenants.len(), 1);
}

#[test]
fn a_command_that_comes_again_is_answered_again_and_done_once() {
    let mut state = begun();
    let admit = command(7, What::Admit(member("n4")));
    let done = state.apply(LogIndex(4), &admit).unwrap();
    let before = state.clone();
    assert_eq!(state.apply(LogIndex(9), &admit), Ok(done));
    assert_eq!(state, before);
}

/// The same, with a process of each of the three there, in boot 1.
fn seated() -> State {
    let mut state = begun();
    for node in 1..=3 {
        let seating = Seating {
            boot: BootId(1),
            http: format!("n{node}:7071"),
            peer: format!("n{node}:7171"),
        };
        made(&mut state, 10 + node, What::Seat(NodeId(node), seating)).unwrap();
    }
    state
}

fn made(state: &mut State, at: u64, what: What) -> Result<Made, Refusal> {
    state.apply(LogIndex(at), &command(1_000_000 + u128::from(at), what)).map(|done| done.made)
}

#[test]
fn a_weight_says_how_much_of_the_load_a_member_takes_and_somebody_has_to_have_one() {
    let weight = |weight| Weight::new(weight).unwrap();
    let members = [("n1", 1), ("n2", 0), ("n3", 3)]
        .map(|(name, w)| NewMember { weight: weight(w), ..member(name) });
    let what = What::Begin {
        secret: Secret::new(1, 2).into(),
        document: POLICY.into(),
        members: members.into(),
    };
    let mut state = State::default();
    state.apply(LogIndex(3), &command(1, what)).unwrap();
    let owned = |state: &State| [1, 2, 3].map(|id| state.agreed().unwrap().owned_by(NodeId(id)));
    assert_eq!(owned(&state), [1024, 0, 3072]);
    for id in [1, 3] {
        let seating = Seating { boot: BootId(1), http: "h:1".into(), peer: "p:1".into() };
        made(&mut state, 10 + id, What::Seat(NodeId(id), seating)).unwrap();
    }
    made(&mut state, 20, What::Weigh(NodeId(1), Weight::NONE)).unwrap();
    // Node 2 has never been there, and node 1 takes nothing any more.
    let refused = made(&mut state, 21, What::Weigh(NodeId(3), Weight::NONE));
    assert_eq!(refused, Err(Refusal::LastOwner(NodeId(3))));
    assert_eq!(
        made(&mut state, 22, What::Weigh(NodeId(9), weight(2))),
        Err(Refusal::NoSuchMember(NodeId(9)))
    );
    let told = &state.agreed().unwrap().audit.last().unwrap().what;
    assert_eq!(told, "gave n1 (node 1) the weight 0");
}

#[test]
fn an_id_is_never_given_twice() {
    let mut state = seated();
    // The entry's index is 2, but node 2 has been there from the beginning.
    assert_eq!(made(&mut state, 2, What::Admit(member("n4"))), Ok(Made::Member(NodeId(4))));
    assert_eq!(made(&mut state, 30, What::Admit(member("n5"))), Ok(Made::Member(NodeId(30))));
    made(&mut state, 31, What::Leave(NodeId(30), Leaving::HandingOver)).unwrap();
    made(&mut state, 32, What::Remove(NodeId(30))).unwrap();
    assert_eq!(made(&mut state, 33, What::Admit(member("n5"))), Ok(Made::Member(NodeId(33))));
}

#[test]
fn a_member_leaves_by_itself_only_once_it_owns_nothing() {
    let mut state = seated();
    assert_eq!(made(&mut state, 20, What::Remove(NodeId(2))), Err(Refusal::NotLeaving(NodeId(2))));
    made(&mut state, 21, What::Leave(NodeId(2), Leaving::HandingOver)).unwrap();
    let leaving = state.agreed().unwrap().members.get(NodeId(2)).unwrap();
    assert!(leaving.draining && !leaving.may_own());
    let partitions = state.agreed().unwrap().owned_by(NodeId(2));
    let still = Refusal::StillOwns { id: NodeId(2), partitions };
    assert_eq!(made(&mut state, 22, What::Remove(NodeId(2))), Err(still));
    // Whoever is to own again doesn't leave either.
    made(&mut state, 23, What::Drain(NodeId(2), false)).unwrap();
    assert_eq!(made(&mut state, 24, What::Remove(NodeId(2))), Err(Refusal::NotLeaving(NodeId(2))));
    let told: Vec<_> =
        state.agreed().unwrap().audit.iter().skip(4).map(|line| line.what.clone()).collect();
    assert_eq!(told, ["n2 (node 2) is to leave", "ended the draining of n2 (node 2)"]);
}

#[test]
fn what_a_member_was_given_up_with_is_owned_by_those_who_stay_and_nothing_else_moves() {
    let mut state = seated();
    let before = state.agreed().unwrap().table.clone();
    let owned = state.agreed().unwrap().owned_by(NodeId(2));
    made(&mut state, 21, What::Leave(NodeId(2), Leaving::HandingOver)).unwrap();
    made(&mut state, 22, What::Leave(NodeId(2), Leaving::Abandoned)).unwrap();
    // Nobody waits for it again.
    made(&mut state, 23, What::Leave(NodeId(2), Leaving::HandingOver)).unwrap();
    made(&mut state, 24, What::Remove(NodeId(2))).unwrap();
    let agreed = state.agreed().unwrap();
    assert!(agreed.members.get(NodeId(2)).is_none());
    for ((partition, before), (_, after)) in before.rows().zip(agreed.table.rows()) {
        assert_ne!(after.owner.node, NodeId(2), "{partition}");
        assert_eq!(after.owner.boot, BootId(1), "{partition}");
        // There are two left, so each keeps the other's replicas.
        assert_eq!(after.replica, Some(NodeId(4 - after.owner.node.0)), "{partition}");
        // Who keeps a partition keeps its epoch: what it knows of it, or has saved, is as true as
        // before.
        let epoch_rises = before.owner.node == NodeId(2);
        assert_eq!(
            after.epoch.number(),
            before.epoch.number() + u64::from(epoch_rises),
            "{partition}"
        );
        assert!(before.owner.node == NodeId(2) || before.owner == after.owner, "{partition}");
    }
    assert!(agreed.owned_by(NodeId(1)).abs_diff(agreed.owned_by(NodeId(3))) <= 1);
    let told = &agreed.audit.last().unwrap().what;
    assert_eq!(*told, format!("removed n2 (node 2); {owned} partitions begin as spent elsewhere"));
}

#[test]
fn somebody_has_to_stay_who_may_own() {
    let mut state = seated();
    // One that was admitted and has never been there can own nothing.
    made(&mut state, 20, What::Admit(member("n4"))).unwrap();
    made(&mut state, 21, What::Drain(NodeId(1), true)).unwrap();
    made(&mut state, 22, What::Leave(NodeId(2), Leaving::Abandoned)).unwrap();
    for what in [
        What::Drain(NodeId(3), true),
        What::Leave(NodeId(3), Leaving::HandingOver),
        What::Leave(NodeId(3), Leaving::Abandoned),
    ] {
        assert_eq!(made(&mut state, 23, what), Err(Refusal::LastOwner(NodeId(3))));
    }
    assert_eq!(
        made(&mut state, 24, What::Leave(NodeId(9), Leaving::Abandoned)),
        Err(Refusal::NoSuchMember(NodeId(9)))
    );
    made(&mut state, 25, What::Remove(NodeId(2))).unwrap();
    made(&mut state, 26, What::Leave(NodeId(20), Leaving::HandingOver)).unwrap();
    made(&mut state, 27, What::Remove(NodeId(20))).unwrap();
    made(&mut state, 28, What::Leave(NodeId(1), Leaving::Abandoned)).unwrap();
    made(&mut state, 29, What::Remove(NodeId(1))).unwrap();
    assert_eq!(state.agreed().unwrap().owned_by(NodeId(3)), 4096);
    assert_eq!(
        made(&mut state, 30, What::Leave(NodeId(3), Leaving::Abandoned)),
        Err(Refusal::LastMember(NodeId(3)))
    );
}

#[test]
fn partitions_are_placed_as_the_cluster_begins_and_owned_once_a_process_is_there() {
    let mut state = begun();
    let owners = |state: &State, boot| {
        let agreed = state.agreed().unwrap();
        agreed.table.rows().filter(|(_, row)| row.owner == Seat { node: NodeId(2), boot }).count()
    };
    let theirs = owners(&state, BootId::NEVER);
    assert!((1365..=1366).contains(&theirs), "{theirs}");
    let seat = |boot| {
        let seating = Seating { boot: BootId(boot), http: "h:1".into(), peer: "p:1".into() };
        command(u128::from(boot), What::Seat(NodeId(2), seating))
    };
    for (at, boot) in [(4, 77), (5, 78)] {
        state.apply(LogIndex(at), &seat(boot)).unwrap();
        assert_eq!(owners(&state, BootId(boot)), theirs);
    }
    let agreed = state.agreed().unwrap();
    let member = agreed.members.get(NodeId(2)).unwrap();
    assert_eq!((member.boot, member.http.as_str()), (BootId(78), "h:1"));
    let epochs = agreed
        .table
        .rows()
        .filter(|(_, row)| row.owner.node == NodeId(2))
        .map(|(_, row)| row.epoch);
    assert!(epochs.into_iter().all(|epoch| epoch.number() == 2));
    let stranger =
        What::Seat(NodeId(9), Seating { boot: BootId(1), http: "h".into(), peer: "p".into() });
    assert_eq!(
        state.apply(LogIndex(6), &command(9, stranger)),
        Err(Refusal::NoSuchMember(NodeId(9)))
    );
}

#[test]
fn a_name_is_one_members_at_a_time() {
    let mut state = begun();
    let again = state.apply(LogIndex(4), &command(4, What::Admit(member("n2"))));
    assert_eq!(again, Err(Refusal::MemberExists { name: name("n2"), id: NodeId(2) }));
}

#[test]
fn going_back_makes_a_new_version_of_the_old_document() {
    let mut state = begun();
    edit(&mut state, 4, None, put("acme", "t1")).unwrap();
    edit(
        &mut state,
        5,
        None,
        Edit::Replace(r#"{"default_tier":"x","tiers":{"x":{"limits":[]}}}"#.into()),
    )
    .unwrap();
    let back = command(6, What::Rollback { expected: Some(3), to: 2 });
    assert_eq!(state.apply(LogIndex(6), &back).unwrap().made, Made::Version(4));
    let agreed = state.agreed().unwrap();
    assert_eq!(agreed.document, agreed.document_at(2).unwrap());
    assert_eq!(agreed.document_at(3).unwrap().default_tier, name("x"));
    assert_eq!(agreed.document_at(1).unwrap().to_stored(), POLICY);
    assert_eq!(
        agreed.document_at(5),
        Err(Refusal::NoSuchVersion { version: 5, oldest: 1, newest: 4 })
    );
}

#[test]
fn history_audit_and_request_ids_are_bounded() {
    let mut state = begun();
    let rounds = REQUESTS_MAX.max(AUDIT_MAX) as u64 + 10;
    for at in 4..4 + rounds {
        edit(&mut state, at, None, put("acme", if at % 2 == 0 { "t0" } else { "t1" })).unwrap();
    }
    let agreed = state.agreed().unwrap();
    assert_eq!(agreed.history.iter().count(), HISTORY_MAX);
    assert_eq!((agreed.audit.len(), agreed.requests.len()), (AUDIT_MAX, REQUESTS_MAX));
    let oldest = agreed.version - HISTORY_MAX as u64;
    assert!(agreed.document_at(oldest).is_ok());
    assert!(agreed.document_at(oldest - 1).is_err());
}

/// An entry of the deny list for a tenant, until so many nanoseconds after the epoch.
fn entry(tenant: &str, expires: Option<u64>) -> String {
    let expires =
        expires.map(|wall| format!(r#","expires":"{}""#, crate::policy::print_instant(wall)));
    format!(r#"{{"list":"deny","tenant":"{tenant}"{}}}"#, expires.unwrap_or_default())
}

#[test]
fn the_audit_says_who_was_on_a_list_and_how_many_entries_have_expired() {
    let mut state = begun();
    for (at, edit_made) in [
        Edit::AddAccess(name("a"), entry("bad", Some(5))),
        Edit::AddAccess(name("b"), entry("worse", Some(6))),
        Edit::AddAccess(name("c"), entry("worst", None)),
        Edit::DropExpired(6),
        Edit::DeleteAccess(name("c")),
        Edit::Enforce(false),
    ]
    .into_iter()
    .enumerate()
    {
        edit(&mut state, 4 + at as u64, None, edit_made).unwrap();
    }
    let agreed = state.agreed().unwrap();
    let audit: Vec<_> = agreed.audit.iter().skip(1).map(|line| line.what.as_str()).collect();
    let told = [
        "added list entry a: deny tenant bad",
        "added list entry b: deny tenant worse",
        "added list entry c: deny tenant worst",
        "deleted 2 expired list entries",
        "deleted list entry c: deny tenant worst",
        "switched enforcement off",
    ];
    assert_eq!(audit, told);
    assert!(agreed.history.iter().map(|past| past.what.as_str()).eq(told.into_iter().rev()));
    // One version dropped both, and going back before it has both again.
    assert_eq!(agreed.document_at(5).unwrap().access.len(), 1);
    assert_eq!(agreed.document_at(4).unwrap().access.len(), 3);
    let version = agreed.version;
    let nothing = edit(&mut state, 10, None, Edit::DropExpired(6));
    assert_eq!(nothing, Err(Refusal::NotFound("list entry that has expired".into())));
    assert_eq!(state.agreed().unwrap().version, version);
}

#[test]
fn a_document_with_a_fault_is_refused_with_its_path() {
    let mut state = begun();
    let refused =
        edit(&mut state, 4, None, Edit::PutTier(name("t2"), r#"{"limits":[{"name":1}]}"#.into()));
    let Err(refusal @ Refusal::Invalid(_)) = refused else { panic!("{refused:?}") };
    assert!(
        refusal.faults().iter().any(|fault| fault.path.starts_with("limits[0]")),
        "{refusal:?}"
    );
}

#[test]
fn a_state_of_another_format_is_named_and_not_misread() {
    let mut bytes = begun().encode().unwrap();
    bytes[0] = 9;
    assert!(matches!(
        State::decode(&bytes),
        Err(DecodeError::Format { found: 9, known: FORMAT_3 })
    ));
    assert!(State::decode(&bytes[..1]).is_err());
}

#[test]
fn the_secret_is_not_in_what_is_printed() {
    let secret = Secret::new(0xdead_beef, 0xfeed_f00d);
    let what = What::Begin { secret: secret.into(), document: POLICY.into(), members: Vec::new() };
    let printed = format!("{what:?} {what}");
    assert!(!printed.contains("3735928559") && !printed.contains("4277006349"), "{printed}");
}

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

#[test]
fn one_that_is_left_owns_what_it_owned_under_its_epochs_and_the_rest_under_the_next() {
    let mut state = seated();
    edit(&mut state, 20, None, put("acme", "t1")).unwrap();
    made(&mut state, 21, What::Drain(NodeId(3), true)).unwrap();
    let before = state.agreed().unwrap().clone();
    let (alone, given_up) =
        state.alone(LogIndex(22), &Alone::Stays(NodeId(3)), (9, "ops", "recovered")).unwrap();
    let after = alone.agreed().unwrap();
    assert_eq!((&after.document, after.version), (&before.document, before.version));
    assert_eq!(after.history, before.history);
    assert_eq!(after.secret().words(), before.secret().words());
    let member = after.members.get(NodeId(3)).unwrap();
    assert!(!member.draining && after.members.len() == 1 && after.members.has_left(NodeId(1)));
    assert_eq!(given_up.partitions, 4096 - before.owned_by(NodeId(3)));
    for ((partition, now), (_, then)) in after.table.rows().zip(before.table.rows()) {
        assert_eq!((now.owner.node, now.replica, now.moving), (NodeId(3), None, None));
        let expected = then.epoch.number() + u64::from(then.owner.node != NodeId(3));
        assert_eq!(now.epoch.number(), expected, "{partition}");
    }
    let told = &after.audit.last().unwrap();
    assert_eq!(told.what, "recovered as node 3; gave up n1 (node 1), n2 (node 2)");
    assert_eq!((told.at, told.time, told.by.as_str()), (LogIndex(22), 9, "ops"));
    assert_eq!(State::decode(&alone.encode().unwrap()).unwrap(), alone);
    // A log goes on from it, and no number comes again.
    let mut alone = alone;
    assert_eq!(made(&mut alone, 23, What::Admit(member_named("n1"))), Ok(Made::Member(NodeId(23))));
}

#[test]
fn a_new_one_that_begins_alone_has_a_number_that_nobody_had_and_may_have_a_name_that_somebody_had()
{
    let state = seated();
    let who = Alone::Begins(member_named("n1"), BootId(77));
    let (alone, given_up) = state.alone(LogIndex(30), &who, (9, "ops", "restored")).unwrap();
    let after = alone.agreed().unwrap();
    assert_eq!((given_up.node, given_up.members.len(), given_up.partitions), (NodeId(30), 3, 4096));
    let member = after.members.get(NodeId(30)).unwrap();
    assert_eq!((member.name.as_str(), member.boot, after.members.len()), ("n1", BootId(77), 1));
    assert!(
        after
            .table
            .rows()
            .all(|(_, row)| row.owner.node == NodeId(30) && row.owner.boot == BootId(77))
    );
    assert_eq!(
        State::default().alone(LogIndex(1), &who, (9, "", "")).unwrap_err(),
        Refusal::NotBegun
    );
    let nobody = Alone::Stays(NodeId(9));
    assert_eq!(
        state.alone(LogIndex(30), &nobody, (9, "", "")).unwrap_err(),
        Refusal::NoSuchMember(NodeId(9))
    );
}

fn member_named(name: &str) -> NewMember {
    NewMember {
        name: Name::new(name).unwrap(),
        http: "h:1".into(),
        peer: "p:1".into(),
        weight: Weight::ONE,
    }
}

fn level(number: u16) -> FormatLevel {
    FormatLevel::new(number)
}

fn found(document: &str) -> What {
    let members = vec![member("n1"), member("n2"), member("n3")];
    let (level, secret) = (level(2), Secret::new(1, 2).into());
    What::Found { level, secret, document: document.into(), members, round_trip_ms: 100 }
}

#[test]
fn a_cluster_of_new_programs_is_at_their_level_from_the_start() {
    let mut state = State::default();
    state.apply(LogIndex(3), &command(1, found(POLICY))).unwrap();
    let agreed = state.agreed().unwrap();
    assert_eq!(agreed.level, level(2));
    assert!(agreed.members.iter().all(|(_, member)| member.level == level(2)));
    assert_eq!(state.apply(LogIndex(4), &command(2, begin())), Err(Refusal::Begun));
    assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
}

#[test]
fn a_state_of_level_1_is_written_as_the_first_program_reads_it() {
    let mut state = seated();
    assert_eq!(state.encode().unwrap()[0], 2);
    raise(&mut state, 20, level(2)).unwrap();
    assert_eq!(state.encode().unwrap()[0], 3);
    let seating = Seating { boot: BootId(9), http: "h:1".into(), peer: "p:1".into() };
    made(&mut state, 21, What::Register(NodeId(2), seating, level(3), 100)).unwrap();
    let read = State::decode(&state.encode().unwrap()).unwrap();
    assert_eq!(read, state);
    let levels = [1, 2, 3].map(|id| read.agreed().unwrap().members.get(NodeId(id)).unwrap().level);
    assert_eq!(levels, [level(2), level(3), level(2)]);
}

/// Raises the level as a leader does that knows of every member.
fn raise(state: &mut State, at: u64, to: FormatLevel) -> Result<Made, Refusal> {
    let newest = state.agreed().unwrap().members.newest();
    made(state, at, What::RaiseLevel(to, newest))
}

#[test]
fn an_admission_that_overtakes_a_raise_keeps_the_level() {
    let mut state = seated();
    let newest = state.agreed().unwrap().members.newest();
    let new = NewMember {
        name: Name::new("n9").unwrap(),
        http: "h9:1".into(),
        peer: "p9:1".into(),
        weight: Weight::ONE,
    };
    made(&mut state, 20, What::Admit(new)).unwrap();
    let raised = made(&mut state, 21, What::RaiseLevel(level(2), newest));
    assert_eq!(raised, Ok(Made::Level(FormatLevel::FIRST)));
    assert_eq!(raise(&mut state, 22, level(2)), Ok(Made::Level(level(2))));
}

#[test]
fn a_format_level_never_falls() {
    let mut state = seated();
    assert_eq!(raise(&mut state, 20, level(2)), Ok(Made::Level(level(2))));
    assert_eq!(raise(&mut state, 21, level(1)), Ok(Made::Level(level(2))));
    let told = &state.agreed().unwrap().audit.last().unwrap().what;
    assert_eq!(told, "raised the format level to 1");
}

#[test]
fn from_level_3_on_a_state_says_how_epochs_rose() {
    let mut state = seated();
    let register = |state: &mut State, at: u64| {
        let seating = Seating { boot: BootId(at), http: "h2:1".into(), peer: "p2:1".into() };
        made(state, at, What::Seat(NodeId(2), seating)).unwrap();
        let again = State::decode(&state.encode().unwrap()).unwrap();
        assert!(again == *state);
        let table = &state.agreed().unwrap().table;
        table
            .owned_by(NodeId(2))
            .map(|p| table.row(p).began)
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(register(&mut state, 20), [Began::Unknown].into());
    raise(&mut state, 21, level(2)).unwrap();
    assert_eq!(register(&mut state, 22), [Began::Unknown].into());
    raise(&mut state, 23, level(3)).unwrap();
    assert_eq!(register(&mut state, 24), [Began::Registered(TableVersion(24))].into());
}

#[test]
fn a_state_of_a_later_level_is_refused_with_its_number() {
    let mut state = seated();
    raise(&mut state, 20, level(7)).unwrap();
    let why = State::decode(&state.encode().unwrap()).unwrap_err().to_string();
    assert_eq!(
        why,
        "the cluster is at format level 7, this program reads 3: it can't go back to an older \
         program"
    );
}

#[test]
fn a_command_that_a_member_cannot_read_is_refused_by_name() {
    let mut state = seated();
    let seating = || Seating { boot: BootId(9), http: "h:1".into(), peer: "p:1".into() };
    let register = || What::Register(NodeId(2), seating(), level(2), 100);
    let known = |id: NodeId, _: &Member| if id.0 == 1 { level(2) } else { level(1) };
    let why = state.agreed().unwrap().refuse_older(&register(), known).unwrap_err();
    assert_eq!(
        why.to_string(),
        "this needs format level 2, and the cluster is at level 1: upgrade n2, n3 first, which run \
         an older program"
    );
    let all = |_: NodeId, _: &Member| level(2);
    let why = state.agreed().unwrap().refuse_older(&register(), all).unwrap_err().to_string();
    assert!(why.ends_with("all members can read it, so try again in a second"), "{why}");
    let begun = state.agreed().unwrap();
    assert_eq!(begun.refuse_older(&What::Seat(NodeId(2), seating()), known), Ok(()));
    assert_eq!(begun.refuse_older(&What::RaiseLevel(level(2), NodeId(3)), known), Ok(()));
    raise(&mut state, 20, level(2)).unwrap();
    assert_eq!(state.agreed().unwrap().refuse_older(&register(), known), Ok(()));
}

fn set(expected: Option<u64>, round_trip_ms: u64) -> What {
    What::Set { expected, setting: Setting::RoundTripMs(round_trip_ms) }
}

#[test]
fn a_setting_has_a_version_that_a_change_can_expect() {
    let mut state = State::default();
    state.apply(LogIndex(3), &command(1, found(POLICY))).unwrap();
    let settings = |state: &State| {
        let settings = state.agreed().unwrap().settings;
        (settings.version, settings.round_trip_ms())
    };
    assert_eq!(settings(&state), (1, Some(100)), "as it was founded");
    let told = |version, changed| Ok(Made::Settings { version, changed });
    assert_eq!(made(&mut state, 20, set(Some(1), 300)), told(2, true));
    let stale = Refusal::StaleSettings { expected: 1, actual: 2 };
    assert_eq!(made(&mut state, 21, set(Some(1), 200)), Err(stale));
    assert_eq!(made(&mut state, 22, set(None, 300)), told(2, false));
    assert_eq!(settings(&state), (2, Some(300)));
    let audit = &state.agreed().unwrap().audit;
    assert_eq!(audit.last().unwrap().what, "set round_trip_ms to 300");
    assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
}

#[test]
fn a_cluster_of_an_older_program_has_no_settings_at_first() {
    let mut state = seated();
    assert_eq!(state.agreed().unwrap().settings.round_trip_ms(), None);
    assert_eq!(set(None, 200).needs(), level(2));
    raise(&mut state, 20, level(2)).unwrap();
    // The leader's first value makes a version; a slower leader's doesn't replace it.
    let made_one = Made::Settings { version: 1, changed: true };
    assert_eq!(made(&mut state, 21, set(Some(0), 100)), Ok(made_one));
    let stale = Refusal::StaleSettings { expected: 0, actual: 1 };
    assert_eq!(made(&mut state, 22, set(Some(0), 300)), Err(stale));
}

#[test]
fn a_process_with_another_round_trip_awaits_a_restart() {
    let mut state = State::default();
    state.apply(LogIndex(3), &command(1, found(POLICY))).unwrap();
    let register = |state: &mut State, at: u64, node, boot, ms| {
        let seating = Seating { boot: BootId(boot), http: "h:1".into(), peer: "p:1".into() };
        made(state, at, What::Register(NodeId(node), seating, level(2), ms)).unwrap();
        state.agreed().unwrap().awaiting_restart().collect::<Vec<_>>()
    };
    assert_eq!(register(&mut state, 20, 1, 11, 100), []);
    assert_eq!(register(&mut state, 21, 2, 12, 300), [(NodeId(2), 300)]);
    made(&mut state, 22, set(None, 300)).unwrap();
    let mut read = State::decode(&state.encode().unwrap()).unwrap();
    // Node 3 has not been there yet: its first process will run with the log's.
    assert_eq!(read.agreed().unwrap().awaiting_restart().collect::<Vec<_>>(), [(NodeId(1), 100)]);
    assert_eq!(register(&mut read, 30, 1, 21, 300), []);
}
