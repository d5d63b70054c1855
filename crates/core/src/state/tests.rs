//! Commands of the log, one property each; `model` plays random ones against a naive model, `levels`
//! is about format levels and settings.

mod levels;
mod model;

use super::stored::FORMAT_3;
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
