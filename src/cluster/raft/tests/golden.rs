//! The Raft log, its values, its snapshot and Raft's messages as the first program wrote them.

use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use redb::{Database, TableDefinition};

use super::super::disk::Disk;
use super::super::network::{Reply, Request};
use super::super::parts::{Frame, FrameReply};
use super::super::propose::Proposed;
use super::super::snapshot::Sealed;
use super::super::types::{Entry, LogId, Membership, SnapshotMeta, Vote};
use super::*;
use crate::cluster::claim::{Acquaintance, Admission, Found, TokenDigest};
use crate::cluster::state::golden::{FIRST, STATE, applied, commands};
use crate::codec;
use crate::codec::golden::{NEVER, rows, same};
use crate::peer::Lineage;

fn address(id: u64) -> (NodeId, Address) {
    (NodeId(id), Address::new(format!("n{id}"), format!("n{id}.example:7171")))
}

pub(super) fn at(term: u64, index: u64) -> LogId {
    LogId { leader_id: Vote::new(term, NodeId(1)).leader_id, index }
}

/// Voters 1 to 3 and the learner 6, as one configuration or as a step between two.
pub(super) fn membership(is_joint: bool) -> openraft::Membership<NodeId, Address> {
    let old = BTreeSet::from([1, 2, 3].map(NodeId));
    let new = BTreeSet::from([1, 3, 6].map(NodeId));
    let configs = if is_joint { vec![old, new] } else { vec![old] };
    openraft::Membership::new(configs, BTreeMap::from([1, 2, 3, 6].map(address))).unwrap()
}

/// The entries of the golden log: Raft's own around the commands.
fn entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry { log_id: at(0, 0), payload: EntryPayload::Membership(membership(false)) },
        Entry { log_id: at(1, 1), payload: EntryPayload::Blank },
    ];
    let normal =
        |(index, command)| Entry { log_id: at(2, index), payload: EntryPayload::Normal(command) };
    entries.extend((FIRST..).zip(commands()).map(normal));
    let last = FIRST + commands().len() as u64;
    let payload = EntryPayload::Membership(membership(true));
    entries.push(Entry { log_id: at(3, last), payload });
    entries
}

pub(super) fn admitted() -> Claim {
    let name = |text: &str| Name::new(text).unwrap();
    let acquaintance = |id: u64| Acquaintance {
        number: NodeId(id),
        name: name(&format!("n{id}")),
        peer: format!("n{id}.example:7171"),
    };
    let admission = Admission {
        environment: name("production"),
        members: [1, 2, 3, 6].map(acquaintance).into(),
        tokens: vec![TokenDigest { name: "ops".into(), role: "admin".into(), sha256: [0xab; 32] }],
    };
    Claim { node: NodeId(6), name: name("n6"), cluster: name("demo"), admission: Some(admission) }
}

fn meta() -> SnapshotMeta {
    let last = at(2, FIRST + commands().len() as u64 - 1);
    let last_membership = Membership::new(Some(at(0, 0)), membership(false));
    SnapshotMeta { last_log_id: Some(last), last_membership }
}

/// A disk with the rows of the golden files, put there past the code that writes rows today.
pub(super) fn medium(log: &str, values: &str, snapshot: Option<&[u8]>) -> Medium {
    let (log, values) = (rows(log), rows(values));
    let medium = Medium::default();
    let database = Database::builder().create_with_backend(medium.open()).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let of_log: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
        let mut table = txn.open_table(of_log).unwrap();
        for (index, row) in &log {
            table.insert(index.parse::<u64>().unwrap(), row.as_slice()).unwrap();
        }
        let of_values: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
        let mut table = txn.open_table(of_values).unwrap();
        for (name, row) in &values {
            table.insert(name.as_str(), row.as_slice()).unwrap();
        }
        let of_snapshot: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");
        let mut table = txn.open_table(of_snapshot).unwrap();
        snapshot.into_iter().for_each(|row| drop(table.insert("newest", row).unwrap()));
    }
    txn.commit().unwrap();
    drop(database);
    medium
}

#[test]
fn a_log_of_the_first_program_is_read_as_it_was_written() {
    let medium = medium(
        include_str!("../../../../tests/golden/formats/level-1/log.txt"),
        include_str!("../../../../tests/golden/formats/level-1/values.txt"),
        None,
    );
    let place = Place::Medium(medium);
    let found = place.found().unwrap_or_else(|e| panic!("{e}; {NEVER}")).unwrap();
    let lineage = Lineage::of([0x9f86, 7]);
    same(
        "who it is",
        &found,
        &Found {
            claim: admitted(),
            is_blank: false,
            has_left: true,
            lineage,
            level: Default::default(),
            round_trip_ms: None,
        },
    );
    let (disk, found) = Disk::open(&place, &admitted()).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    assert!(disk.snapshot().unwrap().is_none());
    for ((read, _), written) in found.log.iter().zip(entries()) {
        same(&format!("entry {}", written.log_id.index), read, &written);
    }
    assert_eq!(found.log.len(), entries().len(), "{NEVER}");
    same("the vote", &found.vote, &Some(Vote::new_committed(3, NodeId(1))));
    same("committed", &found.committed, &Some(at(2, 40)));
    same("purged", &found.purged, &Some(at(2, 5)));
}

#[test]
fn a_snapshot_of_the_first_program_is_read_as_it_was() {
    let bytes = include_bytes!("../../../../tests/golden/formats/level-1/snapshot.bin");
    let sealed = Sealed::found(bytes.to_vec()).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    let (read, data) = sealed.open().unwrap();
    same("what the snapshot is of", &read, &meta());
    assert!(data == STATE, "{NEVER}");
    let state = State::decode(&data).unwrap();
    same("its state", &state.agreed(), &applied().0.agreed());
}

#[tokio::test]
async fn a_node_goes_on_from_the_first_programs_data() {
    // All but what says that the node has left.
    let values: String = include_str!("../../../../tests/golden/formats/level-1/values.txt")
        .lines()
        .filter(|line| !line.starts_with("left") && !line.starts_with("purged"))
        .map(|line| format!("{line}\n"))
        .collect();
    let place = Place::Medium(medium(
        include_str!("../../../../tests/golden/formats/level-1/log.txt"),
        &values,
        None,
    ));
    let lying = Lying::open(&place).unwrap_or_else(|e| panic!("{e}; {NEVER}")).unwrap();
    assert_eq!(lying.last.0, entries().last().unwrap().log_id.index);
    same("the state", &lying.state.agreed(), &applied().0.agreed());
}

fn requests() -> Vec<(&'static str, Request)> {
    let vote = Vote::new_committed(3, NodeId(1));
    let asked = |leadership_transfer| VoteRequest {
        vote: Vote::new(4, NodeId(2)),
        last_log_id: Some(at(2, 9)),
        leadership_transfer,
    };
    let append = |entries| AppendEntriesRequest {
        vote,
        prev_log_id: Some(at(2, 9)),
        entries,
        leader_commit: Some(at(2, 8)),
    };
    vec![
        ("heartbeat", Request::Append(append(vec![]))),
        ("append", Request::Append(append(entries()[..4].to_vec()))),
        ("vote", Request::Vote(asked(false))),
        ("vote, leadership handed over", Request::Vote(asked(true))),
        ("pre-vote", Request::PreVote(asked(false))),
        ("snapshot", Request::Snapshot { vote, meta: meta(), data: vec![1, 2, 3] }),
        (
            "transfer",
            Request::Transfer(TransferLeaderRequest::new(vote, NodeId(3), Some(at(2, 9)))),
        ),
        ("propose", Request::Propose { command: commands()[1].clone(), within_ms: 5_000 }),
        ("is empty?", Request::IsEmpty),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let vote = Vote::new(4, NodeId(2));
    let granted = |vote_granted| VoteResponse { vote, vote_granted, last_log_id: Some(at(2, 9)) };
    let (_, answers) = applied();
    let refused = answers.iter().find(|answer| answer.is_err()).unwrap().clone();
    let (expected, actual) = (vote, Vote::new_committed(5, NodeId(3)));
    vec![
        ("appended", Reply::Append(AppendEntriesResponse::Success)),
        ("appended in part", Reply::Append(AppendEntriesResponse::PartialSuccess(Some(at(2, 9))))),
        ("conflict", Reply::Append(AppendEntriesResponse::Conflict)),
        ("higher vote", Reply::Append(AppendEntriesResponse::HigherVote(vote))),
        ("vote granted", Reply::Vote(granted(true))),
        ("pre-vote refused", Reply::PreVote(granted(false))),
        ("snapshot installed", Reply::Snapshot(SnapshotResponse { vote })),
        ("transferred", Reply::Transfer(Ok(()))),
        (
            "transfer refused",
            Reply::Transfer(Err(TransferLeaderError::VoteChanged { expected, actual })),
        ),
        ("proposed", Reply::Propose(Proposed::Answer(answers[0].clone()))),
        ("refused", Reply::Propose(Proposed::Answer(refused))),
        ("not the leader", Reply::Propose(Proposed::NotLeader(Some(address(2))))),
        ("unknown", Reply::Propose(Proposed::Unknown)),
        ("stopped there", Reply::Propose(Proposed::Stopped)),
        ("is empty", Reply::IsEmpty(true)),
        ("stopped", Reply::Stopped("why".into())),
    ]
}

fn frames() -> Vec<(&'static str, Frame)> {
    let part = Frame::Part { message: 7, index: 1, last: true, bytes: vec![4, 5] };
    vec![("whole", Frame::Whole(vec![1, 2, 3])), ("part", part)]
}

fn frame_replies() -> Vec<(&'static str, FrameReply)> {
    vec![
        ("answer", FrameReply::Answer(vec![1, 2])),
        ("more", FrameReply::More),
        ("refused", FrameReply::Refused("why".into())),
    ]
}

/// Reads each row as a `T`, compares it with what was written, and writes it again.
fn all_read<T>(what: &str, text: &str, written: &[(&'static str, T)])
where
    T: std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let of = format!("{what} ");
    let kept: Vec<_> = rows(text).into_iter().filter(|(name, _)| name.starts_with(&of)).collect();
    assert_eq!(kept.len(), written.len(), "{what}: {NEVER}");
    for ((name, bytes), (of, message)) in kept.iter().zip(written) {
        assert_eq!(*name, format!("{what} {of}"), "{NEVER}");
        let read: T = codec::decode(bytes).unwrap_or_else(|e| panic!("{name}: {e}; {NEVER}"));
        same(name, &format!("{read:?}"), &format!("{message:?}"));
        assert!(codec::encode(message).unwrap() == *bytes, "{name}: {NEVER}");
    }
}

#[test]
fn rafts_messages_are_the_bytes_of_the_first_program() {
    let text = include_str!("../../../../tests/golden/formats/level-1/raft-messages.txt");
    let to = |(name, request)| (name, (NodeId(2), request));
    all_read("request", text, &requests().into_iter().map(to).collect::<Vec<_>>());
    all_read("reply", text, &replies());
    all_read("frame", text, &frames());
    all_read("frame-reply", text, &frame_replies());
}
