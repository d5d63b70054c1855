//! What programs of format level 2 store beside the forms of level 1: the log's new commands, its
//! values, the state with its settings, a policy with the words of level 2, and a back-up.

use openraft::EntryPayload;

use super::super::disk::Disk;
use super::super::snapshot::Sealed;
use super::super::types::{Entry, Membership, SnapshotMeta};
use super::golden::{admitted, at, medium, membership};
use super::*;
use crate::clock::{Now, SECOND};
use crate::cluster::backup;
use crate::cluster::state::golden::new_member;
use crate::codec;
use crate::codec::golden::{NEVER, rows, same};
use crate::peer::Lineage;
use crate::placement::{BootId, FormatLevel};
use crate::shard::PartitionSnapshot;

const DOCUMENT: &str = include_str!("../../../../tests/golden/formats/level-2/policy.json");
const STATE: &[u8] = include_bytes!("../../../../tests/golden/formats/level-2/state.bin");
const BACKUP: &[u8] = include_bytes!("../../../../tests/golden/formats/level-2/backup.bin");
const SNAPSHOT: &[u8] = include_bytes!("../../../../tests/golden/formats/level-2/snapshot.bin");
const LOG: &str = include_str!("../../../../tests/golden/formats/level-2/log.txt");
const VALUES: &str = include_str!("../../../../tests/golden/formats/level-2/values.txt");
const ANSWERS: &str = include_str!("../../../../tests/golden/formats/level-2/answers.txt");

/// The index of the first command.
const FIRST: u64 = 2;

fn register(node: u64, boot: u64, level: FormatLevel, round_trip_ms: u64) -> What {
    let text = format!("n{node}.example");
    let seating =
        Seating { boot: BootId(boot), http: format!("{text}:7070"), peer: format!("{text}:7171") };
    What::Register(NodeId(node), seating, level, round_trip_ms)
}

fn whats() -> Vec<What> {
    let level = FormatLevel::SECOND;
    let name = |text: &str| Name::new(text).unwrap();
    let document = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.to_string();
    let members = vec![new_member("n1", 1), new_member("n2", 2)];
    let secret = Secret::new(0x1122_3344_5566_7788, 9).into();
    let edit = |edit| What::Edit { expected: None, edit };
    let set = |expected, ms| What::Set { expected, setting: Setting::RoundTripMs(ms) };
    vec![
        What::Found { level, secret, document, members, round_trip_ms: 100 },
        register(1, 11, level, 100),
        register(2, 12, FormatLevel::new(3), 250),
        edit(Edit::Replace(DOCUMENT.into())),
        edit(Edit::PutTier(name("t2"), r#"{"max_permit_ttl":"1h","limits":[]}"#.into())),
        set(Some(1), 300),
        set(Some(1), 400),
        set(None, 300),
        What::Note("a back-up was made".into()),
        What::RaiseLevel(level, NodeId(2)),
        What::Found {
            level,
            secret,
            document: "{}".into(),
            members: Vec::new(),
            round_trip_ms: 100,
        },
        register(9, 19, level, 100),
    ]
}

fn commands() -> Vec<Command> {
    let command = |(at, what): (u64, What)| Command {
        request: RequestId(u128::from(at) << 64 | 9),
        time: 1_900_000_000_000_000_000 + at,
        by: "ops".into(),
        what,
    };
    (FIRST..).zip(whats()).map(command).collect()
}

fn entries() -> Vec<Entry> {
    let entry =
        |(index, command)| Entry { log_id: at(2, index), payload: EntryPayload::Normal(command) };
    let mut entries = vec![
        Entry { log_id: at(0, 0), payload: EntryPayload::Membership(membership(false)) },
        Entry { log_id: at(1, 1), payload: EntryPayload::Blank },
    ];
    entries.extend((FIRST..).zip(commands()).map(entry));
    entries
}

pub(super) fn applied() -> (State, Vec<Result<Done, Refusal>>) {
    let mut state = State::default();
    let apply = |(at, command)| state.apply(LogIndex(at), &command);
    let answers = (FIRST..).zip(commands()).map(apply).collect();
    (state, answers)
}

fn meta() -> SnapshotMeta {
    let last = at(2, FIRST + commands().len() as u64 - 1);
    let last_membership = Membership::new(Some(at(0, 0)), membership(false));
    SnapshotMeta { last_log_id: Some(last), last_membership }
}

fn header() -> backup::Header {
    let name = |text: &str| Name::new(text).unwrap();
    backup::Header {
        cluster: name("demo"),
        lineage: Lineage::of([7]),
        by: name("n1"),
        time: 1_900_000_000 * SECOND,
        program: "0.1.0".into(),
        applied: LogIndex(13),
        term: 2,
        environment: Some(name("production")),
        missing: Vec::new(),
    }
}

/// Counts of one shard: no bucket, and the permits of a partition lost.
fn counts() -> Vec<PartitionSnapshot> {
    let at = crate::placement::Partition::new(7).unwrap();
    let then = Now { boot: 5_000 * SECOND, wall: 1_900_000_000 * SECOND };
    let mut state = PartitionSnapshot::at(then);
    state.epochs = vec![(at, crate::placement::Epoch::new(2))];
    state.lose_permits(then.wall + SECOND);
    vec![state]
}

#[test]
fn a_log_of_level_2_is_read_as_it_was_written() {
    let place = Place::Medium(medium(LOG, VALUES, None));
    let found = place.found().unwrap_or_else(|e| panic!("{e}; {NEVER}")).unwrap();
    same("the level", &found.level, &FormatLevel::SECOND);
    same("the round trip", &found.round_trip_ms, &Some(250));
    same("the lineage", &found.lineage, &Lineage::of([7]));
    let (_, found) = Disk::open(&place, &admitted()).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    assert_eq!(found.log.len(), entries().len(), "{NEVER}");
    for (((read, _), written), (_, row)) in found.log.iter().zip(entries()).zip(rows(LOG)) {
        same(&format!("entry {}", written.log_id.index), read, &written);
        assert!(codec::encode(read).unwrap() == row, "{NEVER}");
    }
}

#[test]
fn the_log_of_level_2_gives_the_answers_that_it_gave() {
    let (_, answers) = applied();
    assert_eq!(rows(ANSWERS).len(), answers.len(), "{NEVER}");
    for ((index, bytes), answer) in rows(ANSWERS).iter().zip(answers) {
        let read = codec::decode::<Result<Done, Refusal>>(bytes);
        same(index, &read.unwrap_or_else(|e| panic!("{index}: {e}; {NEVER}")), &answer);
    }
}

#[test]
fn a_state_of_level_2_is_read_and_written_as_it_was() {
    let read = State::decode(STATE).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    let (state, _) = applied();
    same("the state", &read.agreed(), &state.agreed());
    assert!(read.encode().unwrap() == STATE && state.encode().unwrap() == STATE, "{NEVER}");
    let agreed = read.agreed().unwrap();
    let levels: Vec<_> = agreed.members.iter().map(|(id, m)| (id.0, m.level.number())).collect();
    same("the levels", &levels, &vec![(1, 2), (2, 3)]);
    same("the settings", &agreed.settings.round_trip_ms(), &Some(300));
    let restarts: Vec<_> = agreed.awaiting_restart().map(|(id, ms)| (id.0, ms)).collect();
    same("who awaits a restart", &restarts, &vec![(1, 100), (2, 250)]);
    let ttls: Vec<_> = agreed.document.tiers.values().map(|tier| tier.max_permit_ttl).collect();
    same("the permit times", &ttls, &[300, 90, 3_600].map(|s| Some(s * SECOND)).to_vec());
}

#[test]
fn a_snapshot_of_level_2_is_read_as_it_was() {
    let sealed = Sealed::found(SNAPSHOT.to_vec()).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    let (read, data) = sealed.open().unwrap();
    same("what the snapshot is of", &read, &meta());
    assert!(data == STATE, "{NEVER}");
}

#[test]
fn a_back_up_of_level_2_is_read_as_it_was() {
    let read = backup::read(BACKUP).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    same("the header", &read.header, &header());
    same("the counts", &read.counts, &counts());
    same("the state", &read.state.agreed(), &applied().0.agreed());
}
