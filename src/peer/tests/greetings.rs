//! The frames of the handshake as the first program wrote them.

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::super::frame::{Frame, FrameCodec, FrameKind};
use super::super::handshake::{Identity, Refusal, VERSIONS};
use super::super::{BootId, Class, Failure, Hello, Kind, Lineage, Marks, Opaque};
use super::name;
use crate::codec::golden::{NEVER, rows, same};
use crate::placement::FormatLevel;

const KEPT: &str = include_str!("../../../tests/golden/formats/level-1/frames.txt");

fn identity(lineage: Lineage) -> Identity {
    let boot = BootId(0x0102_0304_0506_0708);
    Identity {
        cluster: name("demo"),
        node: name("n1"),
        boot,
        versions: VERSIONS,
        lineage,
        level: Default::default(),
    }
}

/// The frames, and whether they belong to the handshake.
fn frames() -> Vec<(&'static str, bool, Frame)> {
    let greeting = |lineage, class| {
        Frame::greeting(FrameKind::Hello, identity(lineage).hello(class, Marks::default()).write())
    };
    let opaque = || Opaque { kind: Kind::CHECK, bytes: vec![1, 2, 3].into() };
    let timed = Frame { ttl_us: 30_000, ..opaque().request(300) };
    vec![
        ("greeting for checks", true, greeting(Lineage::default(), Class::Checks)),
        ("greeting for Raft", true, greeting(Lineage::default(), Class::Raft)),
        ("greeting for bulk", true, greeting(Lineage::default(), Class::Bulk)),
        ("greeting of a recovered cluster", true, greeting(Lineage::of([0x9f86, 7]), Class::Raft)),
        ("refusal", true, Frame::refusal(0, "why".into())),
        ("refusal of a stranger", true, Refusal::NoMember(name("n9")).frame()),
        ("refusal of what was given up", true, Refusal::GivenUp(name("n9")).frame()),
        ("request", false, timed),
        ("answer", false, opaque().reply(300)),
        ("failure", false, Failure::Malformed("why".into()).frame(300)),
        ("cancel", false, Frame::bare(FrameKind::Cancel, 300)),
        ("ping", false, Frame::bare(FrameKind::Ping, 0)),
        ("pong", false, Frame::bare(FrameKind::Pong, 0)),
    ]
}

#[test]
fn frames_of_the_first_program_are_read_as_they_were() {
    let kept = rows(KEPT);
    assert_eq!(kept.len(), frames().len(), "{NEVER}");
    for ((row, bytes), (what, handshake, frame)) in kept.iter().zip(frames()) {
        assert_eq!(row, what, "{NEVER}");
        let mut codec = match handshake {
            true => FrameCodec::handshake(),
            false => FrameCodec::agreed(1, Class::Checks.frame_bytes_max()),
        };
        let read = codec.decode(&mut BytesMut::from(&bytes[..]));
        let read = read.unwrap_or_else(|e| panic!("{what}: {e}; {NEVER}")).unwrap();
        let kind = (read.kind, read.id, read.ttl_us, read.message);
        same(what, &kind, &(frame.kind, frame.id, frame.ttl_us, frame.message));
        if frame.kind != FrameKind::Refusal {
            same(what, &read.body, &frame.body);
        }
        let mut again = BytesMut::new();
        codec.encode(read, &mut again).unwrap();
        assert!(again[..] == bytes[..], "{what}: {NEVER}");
    }
}

#[test]
fn greetings_of_the_first_program_mean_what_they_meant() {
    let classes = [Class::Checks, Class::Raft, Class::Bulk, Class::Raft];
    let lineages = [0, 0, 0, 0x9f86].map(|number| Lineage::of([number]));
    for ((row, bytes), (class, lineage)) in rows(KEPT).iter().zip(classes.into_iter().zip(lineages))
    {
        let frame =
            FrameCodec::handshake().decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
        let read = Hello::read(&frame.body).unwrap_or_else(|e| panic!("{row}: {e}; {NEVER}"));
        same(row, &(&read.who, read.class), &(&identity(lineage), class));
    }
}

/// Greetings of level 2: a founder that knows its founders' digest, and a member with its cluster.
fn greetings_2() -> Vec<(&'static str, Hello)> {
    let level = FormatLevel::SECOND;
    let founder = Marks { nonce: Some([7; 32]), cluster: None, founders: Some([8; 16]) };
    let member = Marks { nonce: Some([9; 32]), cluster: Some([10; 16]), founders: Some([8; 16]) };
    let of = |lineage| Identity { level, ..identity(lineage) };
    vec![
        ("greeting without keys", of(Lineage::default()).hello(Class::Checks, Marks::default())),
        ("greeting of a founder", of(Lineage::default()).hello(Class::Raft, founder)),
        ("greeting of a member", of(Lineage::of([0x9f86])).hello(Class::Bulk, member)),
    ]
}

#[test]
fn greetings_of_level_2_are_read_and_written_as_they_were() {
    let kept = rows(include_str!("../../../tests/golden/formats/level-2/frames.txt"));
    assert_eq!(kept.len(), greetings_2().len(), "{NEVER}");
    for ((row, bytes), (what, hello)) in kept.iter().zip(greetings_2()) {
        assert_eq!(row, what, "{NEVER}");
        let mut read = BytesMut::from(&bytes[..]);
        let frame = FrameCodec::handshake().decode(&mut read).unwrap().unwrap();
        let read = Hello::read(&frame.body).unwrap_or_else(|e| panic!("{row}: {e}; {NEVER}"));
        same(row, &read, &hello);
        let mut again = BytesMut::new();
        FrameCodec::handshake()
            .encode(Frame::greeting(FrameKind::Hello, hello.write()), &mut again)
            .unwrap();
        assert!(again[..] == bytes[..], "{row}: {NEVER}");
    }
}
