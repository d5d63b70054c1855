//! What programs of format level 3 store beside the forms of level 2: by what the epoch of each row
//! of the placement rose.

use super::golden_2;
use super::*;
use crate::codec::golden::{NEVER, same};
use crate::placement::{Began, BootId, Epoch, FormatLevel, Partition, TableVersion};

const STATE: &[u8] = include_bytes!("../../../../tests/golden/formats/level-3/state.bin");

/// The index of the first command.
const FIRST: u64 = 14;

/// The partition that moves from n1 to n2, and another one of n1.
fn partitions() -> [Partition; 2] {
    let (state, _) = golden_2::applied();
    let agreed = state.agreed().unwrap();
    let mut owned = agreed.table.owned_by(NodeId(1));
    std::array::from_fn(|_| owned.next().unwrap())
}

/// The state of level 2, brought to level 3; then a move, and another process of n1.
fn applied() -> State {
    let (mut state, _) = golden_2::applied();
    let [moves, _] = partitions();
    let (http, peer) = ("n1.example:7070".to_string(), "n1.example:7171".to_string());
    let seating = Seating { boot: BootId(21), http, peer };
    let whats = vec![
        What::RaiseLevel(FormatLevel::THIRD, NodeId(2)),
        What::BeginMoves(vec![(moves, Epoch::new(1), NodeId(2))]),
        What::CommitMoves(vec![(moves, LogIndex(FIRST + 1))]),
        What::Register(NodeId(1), seating, FormatLevel::THIRD, 300),
    ];
    for (at, what) in (FIRST..).zip(whats) {
        let (request, time) = (RequestId(u128::from(at)), 1_900_000_000_000_000_000 + at);
        let command = Command { request, time, by: "ops".into(), what };
        state.apply(LogIndex(at), &command).unwrap();
    }
    state
}

#[test]
fn a_state_of_level_3_is_read_and_written_as_it_was() {
    let state = applied();
    let read = State::decode(STATE).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    same("the state", &read.agreed(), &state.agreed());
    assert!(read.encode().unwrap() == STATE && state.encode().unwrap() == STATE, "{NEVER}");
    let table = &read.agreed().unwrap().table;
    let began = partitions().map(|partition| table.row(partition).began);
    let expected =
        [Began::Moved(TableVersion(FIRST + 1)), Began::Registered(TableVersion(FIRST + 3))];
    same("by what epochs rose", &began, &expected);
}
