//! What members ask of each other, as the first program wrote it: beside checks and Raft's own.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::admin::{Denied, Granted, Order, OrderAsk};
use super::backup::{PieceAnswer, PieceAsk};
use super::lost::{Known, KnownAsk};
use super::member::InForceAsk;
use super::state::golden::new_member;
use super::state::{Leaving, LogIndex};
use crate::check::Name;
use crate::clock::Now;
use crate::codec;
use crate::codec::golden::{NEVER, rows, same};
use crate::peer::{Ask, Kind};
use crate::placement::{NodeId, TableVersion, Weight};
use crate::shard::{Cursor, PartitionSnapshot, StoredCounts};

/// A message: its kind, its name, its bytes today, and what its bytes of then read as.
struct Message {
    row: String,
    bytes: Vec<u8>,
    written: String,
    read: fn(&[u8]) -> Result<String, codec::CodecError>,
}

fn message<T: Serialize + DeserializeOwned + std::fmt::Debug>(
    kind: Kind,
    what: &str,
    value: &T,
) -> Message {
    Message {
        row: format!("{:04x} {what}", kind.0),
        bytes: codec::encode(value).unwrap(),
        written: format!("{value:?}"),
        read: |bytes| codec::decode::<T>(bytes).map(|read| format!("{read:?}")),
    }
}

fn question<A: Ask + std::fmt::Debug>(what: &str, ask: &A) -> Message {
    message(A::KIND, what, ask)
}

fn answer<A: Ask>(what: &str, said: &A::Answer) -> Message
where
    A::Answer: std::fmt::Debug,
{
    message(A::KIND, what, said)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn orders() -> Vec<Message> {
    let node = || name("n2");
    let by = || "ops".to_string();
    let order = |order| OrderAsk { order, by: by() };
    let mut messages = vec![
        question("order to admit", &order(Order::Admit(new_member("n6", 3)))),
        question(
            "order to leave",
            &order(Order::Leave { node: node(), how: Leaving::HandingOver }),
        ),
        question(
            "order to give up",
            &order(Order::Leave { node: node(), how: Leaving::Abandoned }),
        ),
        question("order to drain", &order(Order::Drain { node: node(), draining: true })),
        question(
            "order to weigh",
            &order(Order::Weigh { node: node(), weight: Weight::new(2).unwrap() }),
        ),
    ];
    let granted = Granted { node: NodeId(6), at: LogIndex(33), is_new: true };
    messages.push(answer::<OrderAsk>("granted", &Ok(granted)));
    let denied = [
        Denied::NoLeader,
        Denied::Unknown,
        Denied::NoSuchNode(node()),
        Denied::Impossible { path: "peer".into(), detail: "why".into() },
        Denied::Unsafe("why".into()),
    ];
    messages.extend(denied.map(|denied| answer::<OrderAsk>("denied", &Err(denied))));
    messages
}

fn messages() -> Vec<Message> {
    let piece = PieceAnswer {
        places: TableVersion(33),
        state: StoredCounts(PartitionSnapshot::at(Now { boot: 5, wall: 9 })),
        next: Some(Cursor::Shared(Some(1 << 100))),
    };
    let mut messages = vec![
        question("in force?", &InForceAsk { at: LogIndex(300) }),
        answer::<InForceAsk>("in force", &()),
        question("known?", &KnownAsk { name: name("n2"), node: NodeId(2) }),
    ];
    let known = [Known::Empty, Known::NotYet, Known::Absent, Known::Expected, Known::WasThere];
    messages.extend(known.map(|known| answer::<KnownAsk>("known", &known)));
    messages.extend(orders());
    messages.extend([
        question("piece, the first", &PieceAsk { shard: 1, cursor: Cursor::FIRST }),
        question("piece", &PieceAsk { shard: 1, cursor: Cursor::Accounts(300, Some(7)) }),
        answer::<PieceAsk>("no such shard", &None),
        answer::<PieceAsk>("a piece", &Some(piece)),
    ]);
    messages
}

#[test]
fn what_members_ask_is_the_bytes_of_the_first_program() {
    let kept = rows(include_str!("../../tests/golden/formats/level-1/members.txt"));
    assert_eq!(kept.len(), messages().len(), "{NEVER}");
    for ((row, bytes), message) in kept.iter().zip(messages()) {
        assert_eq!(*row, message.row, "{NEVER}");
        let read = (message.read)(bytes).unwrap_or_else(|e| panic!("{row}: {e}; {NEVER}"));
        same(row, &read, &message.written);
        // Members of the first program are answered in bytes that they know.
        assert!(message.bytes == *bytes, "{row}: {NEVER}");
    }
}
