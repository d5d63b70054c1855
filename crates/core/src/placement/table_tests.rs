//! What the table promises: valid rows only, and changes that are all made or not at all.

use proptest::prelude::*;

use super::*;

fn node(id: u64) -> NodeId {
    NodeId(id)
}

fn seat(id: u64) -> Seat {
    Seat { node: node(id), boot: BootId(id * 100) }
}

fn partition(number: u16) -> Partition {
    Partition::new(number).unwrap()
}

/// Everything owned by n1, its replica on n2, made by log entry 40.
fn table() -> Table {
    Table::new(TableVersion(40), vec![(seat(1), Some(node(2))); 4096]).unwrap()
}

fn change(of: u16, expected: u64, owner: u64, replica: Option<u64>) -> Change {
    let replica = replica.map(node);
    Change { partition: partition(of), expected: Epoch::new(expected), owner: seat(owner), replica }
}

#[test]
fn a_change_that_names_the_epoch_of_its_row_is_made_and_raises_it() {
    let next = table().with(&[change(7, 1, 3, Some(1))], TableVersion(41)).unwrap();
    let expected = Row {
        epoch: Epoch::new(2),
        began: Began::Reassigned(TableVersion(41)),
        ..Row::first(seat(3), Some(node(1)))
    };
    assert_eq!(*next.row(partition(7)), expected);
    assert_eq!(next.owner(partition(7)), seat(3));
    assert_eq!(next.version(), TableVersion(41));
    let others = next.rows().filter(|(at, _)| *at != partition(7));
    assert!(others.zip(table().rows()).all(|((_, after), (_, before))| after == before));
}

#[test]
fn a_new_life_of_a_node_owns_its_rows_under_a_higher_epoch_and_nobody_elses() {
    let table = table().with(&[change(7, 1, 3, Some(1))], TableVersion(41)).unwrap();
    let next = table.seat(node(1), BootId(101), TableVersion(42)).unwrap();
    assert_eq!(next.owner(partition(6)), Seat { node: node(1), boot: BootId(101) });
    assert_eq!(
        (next.row(partition(6)).epoch, next.row(partition(6)).replica),
        (Epoch::new(2), Some(node(2)))
    );
    assert_eq!(next.row(partition(7)), table.row(partition(7)));
    // The same life says so again: nothing changes, the version neither.
    assert_eq!(next.seat(node(1), BootId(101), TableVersion(43)).unwrap(), next);
    let late = next.seat(node(1), BootId(102), TableVersion(42));
    assert_eq!(
        late,
        Err(TableChangeError::NotLater { version: TableVersion(42), at: TableVersion(42) })
    );
}

#[test]
fn what_no_life_has_owned_goes_to_another_node_under_the_same_epoch() {
    let unborn = Seat { node: node(1), boot: BootId::NEVER };
    let table = Table::new(TableVersion(40), vec![(unborn, None); 4096]).unwrap();
    let next = table.with(&[change(7, 1, 3, None)], TableVersion(41)).unwrap();
    assert_eq!((next.owner(partition(7)), next.row(partition(7)).epoch), (seat(3), Epoch::FIRST));
}

#[test]
fn a_first_life_owns_its_rows_under_the_epoch_that_nobody_went_by() {
    let unborn = Seat { node: node(1), boot: BootId::NEVER };
    let table = Table::new(TableVersion(40), vec![(unborn, None); 4096]).unwrap();
    let next = table.seat(node(1), BootId(100), TableVersion(41)).unwrap();
    assert!(next.rows().all(|(_, row)| row.epoch == Epoch::FIRST && row.owner.boot == BootId(100)));
}

fn begun(moves: &[(u16, u64)]) -> Table {
    let moves: Vec<_> =
        moves.iter().map(|(of, to)| (partition(*of), Epoch::FIRST, seat(*to))).collect();
    table().begin_moves(&moves, TableVersion(41)).unwrap()
}

#[test]
fn a_partition_that_moves_is_its_owners_until_the_log_says_that_it_has_moved() {
    let moving = begun(&[(7, 2), (8, 3)]);
    assert_eq!(moving.owner(partition(7)), seat(1));
    assert_eq!(moving.row(partition(7)).moving, Some(Moving { to: seat(2), id: TableVersion(41) }));
    assert_eq!(moving.moves().count(), 2);
    let moved = moving.commit_moves(&[(partition(7), TableVersion(41))], TableVersion(42)).unwrap();
    let row = Row {
        epoch: Epoch::new(2),
        began: Began::Moved(TableVersion(41)),
        ..Row::first(seat(2), Some(node(1)))
    };
    assert_eq!(*moved.row(partition(7)), row);
    let stayed = moved.abort_moves(&[(partition(8), TableVersion(41))], TableVersion(43)).unwrap();
    assert_eq!(stayed.row(partition(8)), table().row(partition(8)));
    // Both have ended: whoever is late changes nothing.
    let late = [(partition(7), TableVersion(41)), (partition(8), TableVersion(41))];
    assert_eq!(stayed.commit_moves(&late, TableVersion(44)), Err(TableChangeError::NothingMoves));
    assert_eq!(stayed.abort_moves(&late, TableVersion(44)), Err(TableChangeError::NothingMoves));
}

#[test]
fn moves_begin_together_or_not_at_all() {
    let moving = begun(&[(7, 2)]);
    let begin = |moves: &[(Partition, Epoch, Seat)]| {
        moving.begin_moves(moves, TableVersion(42)).unwrap_err()
    };
    let fine = (partition(9), Epoch::FIRST, seat(2));
    assert_eq!(
        begin(&[fine, (partition(7), Epoch::FIRST, seat(3))]),
        TableChangeError::Moves { partition: partition(7) }
    );
    let stale = begin(&[fine, (partition(8), Epoch::new(2), seat(3))]);
    assert!(matches!(stale, TableChangeError::Stale { .. }), "{stale}");
    let nowhere = begin(&[fine, (partition(8), Epoch::FIRST, seat(1))]);
    assert_eq!(nowhere, TableChangeError::MovesNowhere { partition: partition(8), node: node(1) });
}

#[test]
fn a_new_life_of_either_end_gives_the_move_up() {
    for of in [1, 2] {
        let next = begun(&[(7, 2)]).seat(node(of), BootId(999), TableVersion(42)).unwrap();
        assert_eq!((next.moves().count(), next.owner(partition(7)).node), (0, node(1)));
        let late = [(partition(7), TableVersion(41))];
        assert_eq!(next.commit_moves(&late, TableVersion(43)), Err(TableChangeError::NothingMoves));
    }
}

#[test]
fn a_change_for_another_epoch_is_refused_and_both_are_named() {
    let (expected, actual) = (Epoch::new(2), Epoch::FIRST);
    let error = table().with(&[change(7, 2, 3, None)], TableVersion(41)).unwrap_err();
    assert_eq!(error, TableChangeError::Stale { partition: partition(7), expected, actual });
    assert_eq!(error.to_string(), "partition 7 is at epoch 1, the change expects 2");
}

#[test]
fn of_two_who_change_the_same_row_the_second_is_refused() {
    let first = table().with(&[change(7, 1, 3, None)], TableVersion(41)).unwrap();
    let error = first.with(&[change(7, 1, 2, None)], TableVersion(42)).unwrap_err();
    assert!(
        matches!(error, TableChangeError::Stale { actual, .. } if actual == Epoch::new(2)),
        "{error}"
    );
}

#[test]
fn two_changes_of_one_row_at_once_are_refused() {
    let error = table()
        .with(&[change(7, 1, 3, None), change(7, 2, 1, None)], TableVersion(41))
        .unwrap_err();
    assert_eq!(error, TableChangeError::Twice { partition: partition(7) });
}

#[test]
fn an_owner_is_never_given_its_own_replica() {
    let error = table().with(&[change(7, 1, 2, Some(2))], TableVersion(41)).unwrap_err();
    assert_eq!(error, TableChangeError::ReplicaIsOwner { partition: partition(7), node: node(2) });
}

#[test]
fn an_entry_is_not_applied_a_second_time() {
    let error = table().with(&[change(7, 1, 3, None)], TableVersion(40)).unwrap_err();
    assert_eq!(
        error,
        TableChangeError::NotLater { version: TableVersion(40), at: TableVersion(40) }
    );
}

#[test]
fn without_changes_the_version_stays() {
    assert_eq!(table().with(&[], TableVersion(99)).unwrap(), table());
}

#[test]
fn another_replica_leaves_the_epoch_to_its_owner() {
    let next = table().with(&[change(7, 1, 1, Some(3))], TableVersion(41)).unwrap();
    assert_eq!(next.row(partition(7)).replica, Some(node(3)));
    assert_eq!(next.row(partition(7)).epoch, Epoch::FIRST);
}

#[test]
fn who_hands_over_keeps_the_replica_and_who_only_starts_anew_leaves_it_where_it_is() {
    let table = table();
    let row = table.row(partition(7));
    assert_eq!(Change::hand_over(partition(7), row, seat(2)), change(7, 1, 2, Some(1)));
    assert_eq!(Change::hand_over(partition(7), row, seat(3)), change(7, 1, 3, Some(1)));
    let reborn = Seat { node: node(1), boot: BootId(5) };
    assert_eq!(Change::hand_over(partition(7), row, reborn).replica, Some(node(2)));
    assert_eq!(Change::place_replica(partition(7), row, Some(node(3))), change(7, 1, 1, Some(3)));
}

#[test]
fn what_a_node_owns_is_found_whatever_its_boot() {
    let changes = [change(9, 1, 3, None), change(4095, 1, 3, None)];
    let reborn = Change { owner: Seat { node: node(3), boot: BootId(5) }, ..change(4, 1, 3, None) };
    let next = table().with(&[&changes[..], &[reborn]].concat(), TableVersion(41)).unwrap();
    assert_eq!(next.owned_by(node(3)).map(Partition::number).collect::<Vec<_>>(), [4, 9, 4095]);
    assert_eq!(next.owned_by(node(1)).count(), 4093);
    assert_eq!(next.owned_by(node(2)).count(), 0);
}

#[test]
fn a_table_has_4096_rows() {
    let of = |rows| Table::new(TableVersion(1), vec![(seat(1), None); rows]);
    assert_eq!(of(4095).unwrap_err(), TableError::Rows { actual: 4095 });
    assert_eq!(
        of(5000).unwrap_err().to_string(),
        "a table has 4096 rows, this one has 4097 or more"
    );
}

#[test]
fn a_table_is_read_as_it_was_written() {
    let table =
        table().with(&[change(7, 1, 3, None), change(8, 1, 2, Some(3))], TableVersion(41)).unwrap();
    let text = serde_json::to_string(&table).unwrap();
    let began: Vec<_> = table.began().collect();
    let read = serde_json::from_str::<Table>(&text).unwrap();
    assert!(read.with_began(began) == table);
}

/// The first row of a table of version 40, written so, in place of what it was.
fn read_with_first_row(row: &str) -> String {
    let text = serde_json::to_string(&table()).unwrap();
    let (first, others) = text.split_once("},{\"owner\"").unwrap();
    let (before, _) = first.split_once("[{").unwrap();
    let text = format!("{before}[{row},{{\"owner\"{others}");
    serde_json::from_str::<Table>(&text)
        .map_or_else(|error| error.to_string(), |_| "a table".to_string())
}

#[test]
fn a_table_that_no_log_can_have_led_to_is_not_read() {
    let row = |replica, epoch| {
        let owner = r#"{"node":1,"boot":100}"#;
        read_with_first_row(&format!(
            r#"{{"owner":{owner},"replica":{replica},"epoch":{epoch},"moving":null}}"#
        ))
    };
    assert_eq!(row("2", "1"), "a table");
    assert_eq!(row("2", "40"), "a table");
    for (replica, epoch, why) in [
        ("1", "1", "partition 0 has owner and replica on one node, 1"),
        ("2", "0", "partition 0 is at epoch 0, in a table of version 40"),
        ("2", "41", "partition 0 is at epoch 41, in a table of version 40"),
    ] {
        assert!(row(replica, epoch).contains(why), "{}", row(replica, epoch));
    }
}

#[test]
fn a_table_is_352_kilobytes_in_memory() {
    assert_eq!(size_of::<Row>() * usize::from(PARTITIONS), 352 * 1024);
}

/// A change that is often right: few partitions, low epochs, few nodes.
fn any_change() -> impl Strategy<Value = Change> {
    let replica = prop_oneof![Just(None), (1..5u64).prop_map(Some)];
    (0..6u16, 1..4u64, 1..5u64, replica)
        .prop_map(|(of, epoch, owner, replica)| change(of, epoch, owner, replica))
}

proptest! {
    #![proptest_config(planner_tests::config())]

    /// Beside a naive model: six rows in a plain list, entry after entry, each made on a copy.
    #[test]
    fn an_entry_is_applied_whole_or_not_at_all(
        entries in prop::collection::vec(prop::collection::vec(any_change(), 1..4), 1..12),
    ) {
        let mut table = table();
        let mut model = vec![(seat(1), Some(node(2)), 1u64); 6];
        for (entry, at) in entries.iter().zip(41u64..) {
            let mut copy = model.clone();
            let mut right = true;
            for (i, change) in entry.iter().enumerate() {
                let row = &mut copy[usize::from(change.partition.number())];
                right &= model[usize::from(change.partition.number())].2 == change.expected.number()
                    && change.replica != Some(change.owner.node)
                    && entry[..i].iter().all(|other| other.partition != change.partition);
                *row = (change.owner, change.replica, row.2 + u64::from(row.0 != change.owner));
            }
            match table.with(entry, TableVersion(at)) {
                Ok(next) => {
                    prop_assert!(right && next.version() == TableVersion(at));
                    (table, model) = (next, copy);
                }
                Err(error) => prop_assert!(!right, "{error}"),
            }
            let rows = table.rows().take(6).map(|(_, row)| (row.owner, row.replica, row.epoch.number()));
            prop_assert_eq!(rows.collect::<Vec<_>>(), model.clone());
        }
    }
}
