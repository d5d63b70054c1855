//! Format levels of members and of the cluster, and settings, which came with level 2.

use super::*;

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
