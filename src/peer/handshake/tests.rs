//! What two ends agree on, refuse, and believe of each other.

use super::*;
use tokio::io::DuplexStream;

fn identity(node: &str, min: u8, max: u8) -> Identity {
    Identity {
        cluster: Name::new("demo").unwrap(),
        node: Name::new(node).unwrap(),
        boot: BootId(0x0102_0304_0506_0708),
        versions: Versions { min, max },
        lineage: Lineage::default(),
        level: FormatLevel::FIRST,
    }
}

/// What the end that dials n2 gets, and the end that is dialled.
async fn shake(n1: &Identity, n2: &Identity, member: bool) -> (Shaken, Shaken) {
    shake_certified((n1, None), (n2, None), member).await
}

type Shaken = Result<Agreed, HandshakeError>;
/// What a node says of itself, and what its certificate says of it.
type Shown<'a> = (&'a Identity, Option<&'a Certified>);

async fn shake_certified(
    (n1, of_n1): Shown<'_>,
    (n2, of_n2): Shown<'_>,
    member: bool,
) -> (Shaken, Shaken) {
    let (a, b): (DuplexStream, _) = tokio::io::duplex(4_096);
    let ((mut ar, mut aw), (mut br, mut bw)) = (framed(a), framed(b));
    let (expected, guard) = (Name::new("n2").unwrap(), Guard::default());
    let us = |identity| Us { identity, guard: &guard };
    tokio::join!(
        call(&mut ar, &mut aw, us(n1), of_n2, Class::Checks, &expected),
        answer(&mut br, &mut bw, us(n2), of_n1, |_| member),
    )
}

/// What the ends with these guards get.
async fn shake_guarded(n1: &Guard, n2: &Guard) -> (Shaken, Shaken) {
    let (a, b): (DuplexStream, _) = tokio::io::duplex(4_096);
    let ((mut ar, mut aw), (mut br, mut bw)) = (framed(a), framed(b));
    let (expected, of_n1, of_n2) =
        (Name::new("n2").unwrap(), identity("n1", 1, 1), identity("n2", 1, 1));
    tokio::join!(
        call(&mut ar, &mut aw, Us { identity: &of_n1, guard: n1 }, None, Class::Raft, &expected),
        answer(&mut br, &mut bw, Us { identity: &of_n2, guard: n2 }, None, |_| true),
    )
}

fn guard(keys: &[u8], founders: Option<u8>) -> Guard {
    let keys = keys.iter().map(|byte| Key::new([*byte; 32])).collect();
    let seed = crate::random::Seed::from_number(u64::from(founders.unwrap_or_default()));
    Guard::new(keys, &seed).with_founders(founders.map(|byte| [byte; 16]), true)
}

fn said((called, answered): (Shaken, Shaken)) -> (String, String) {
    let said = |shaken: Shaken| shaken.err().map(|error| error.to_string()).unwrap_or_default();
    (said(called), said(answered))
}

#[tokio::test]
async fn both_ends_prove_that_they_know_a_key_of_the_other() {
    for (n1, n2) in [(&[1][..], &[1][..]), (&[1, 2], &[2, 1]), (&[2, 1], &[1, 2]), (&[], &[])] {
        let (called, answered) = shake_guarded(&guard(n1, None), &guard(n2, None)).await;
        assert!(called.is_ok() && answered.is_ok(), "{n1:?} {n2:?}: {called:?} {answered:?}");
    }
    let no = |node| {
        format!(
            "node {node} gives no proof that it knows the peer secret: it has none ([peers] \
             secret, or [auth]), or it is no node of this cluster"
        )
    };
    let wrong = |node| {
        format!(
            "node {node} knows another peer secret than this node: compare [peers] secret, or the \
             admin tokens, of both"
        )
    };
    let (ours, theirs) = (
        |why: &str| format!("refused the peer: {why}"),
        |why: &str| format!("the peer refused: {why}"),
    );
    for (n1, n2, refused, by) in [
        (&[1][..], &[2][..], wrong("n1"), "n2"),
        // The first proves: n2 accepts it, n1 doesn't accept that of n2.
        (&[1], &[2, 1], wrong("n2"), "n1"),
        (&[1], &[], no("n2"), "n1"),
        (&[], &[1], no("n1"), "n2"),
    ] {
        let (called, answered) = said(shake_guarded(&guard(n1, None), &guard(n2, None)).await);
        match by {
            "n2" => assert_eq!((called, answered), (theirs(&refused), ours(&refused))),
            // The end that was dialled hears of it behind the handshake, as its next frame.
            _ => assert_eq!((called, answered), (ours(&refused), String::new())),
        }
    }
}

#[tokio::test]
async fn an_exchange_that_is_sent_again_is_worth_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (n1, n2) = (guard(&[1], None), guard(&[1], None));
    let (of_n1, of_n2) = (identity("n1", 1, 1), identity("n2", 1, 1));
    let (us, them) = (Us { identity: &of_n1, guard: &n1 }, Us { identity: &of_n2, guard: &n2 });
    // Between the two ends is one that writes down what n1 sends.
    let ((a, dialled), (onward, b)) = (tokio::io::duplex(4_096), tokio::io::duplex(4_096));
    let ((mut ar, mut aw), (mut br, mut bw)) = (framed(a), framed(b));
    let (mut from_n1, mut to_n1) = tokio::io::split(dialled);
    let (mut from_n2, mut to_n2) = tokio::io::split(onward);
    let mut sent = Vec::new();
    let up = async {
        let mut bytes = [0; 4_096];
        while let Ok(count @ 1..) = from_n1.read(&mut bytes).await {
            sent.extend_from_slice(&bytes[..count]);
            to_n2.write_all(&bytes[..count]).await.unwrap();
        }
    };
    let expected = Name::new("n2").unwrap();
    let shaken = async {
        tokio::join!(
            call(&mut ar, &mut aw, us, None, Class::Raft, &expected),
            answer(&mut br, &mut bw, them, None, |_| true),
        )
    };
    tokio::select! {
        (called, answered) = shaken => assert!(called.is_ok() && answered.is_ok()),
        () = up => panic!("n1 closed the connection"),
        copied = tokio::io::copy(&mut from_n2, &mut to_n1) => panic!("n2 did: {copied:?}"),
    }
    let (mut replayed, b) = tokio::io::duplex(4_096);
    let (mut br, mut bw) = framed(b);
    replayed.write_all(&sent).await.unwrap();
    let them = Us { identity: &of_n2, guard: &n2 };
    let answered = answer(&mut br, &mut bw, them, None, |_| true).await;
    let why = answered.unwrap_err().to_string();
    assert!(why.contains("node n1 knows another peer secret than this node"), "{why}");
}

#[tokio::test]
async fn what_ends_a_node_counts_from_a_proven_peer_alone() {
    let of = |node: &str, numbers: &[u64]| {
        let lineage = Lineage::of(numbers.iter().copied());
        Identity { lineage, ..identity(node, 1, 1) }
    };
    let shake = async |n1: (&Identity, &Guard), n2: (&Identity, &Guard), member: bool| {
        let (a, b): (DuplexStream, _) = tokio::io::duplex(4_096);
        let ((mut ar, mut aw), (mut br, mut bw)) = (framed(a), framed(b));
        let (us, them) = (Us { identity: n1.0, guard: n1.1 }, Us { identity: n2.0, guard: n2.1 });
        let expected = Name::new("n2").unwrap();
        tokio::join!(
            call(&mut ar, &mut aw, us, None, Class::Raft, &expected),
            answer(&mut br, &mut bw, them, None, |_| member),
        )
    };
    let (old, new, same) = (of("n1", &[]), of("n2", &[7]), of("n2", &[]));
    let (keyed, other, open) = (guard(&[1], None), guard(&[2], None), Guard::default());
    let (called, answered) = shake((&old, &keyed), (&new, &keyed), true).await;
    assert!(matches!(called, Err(HandshakeError::GivenUpByPeer(_))), "{called:?}");
    assert!(matches!(answered, Err(HandshakeError::Refused(Refusal::GivenUp(_)))), "{answered:?}");
    let (called, answered) = shake((&old, &keyed), (&same, &keyed), false).await;
    assert!(matches!(called, Err(HandshakeError::NoMemberToPeer(_))), "{called:?}");
    assert!(matches!(answered, Err(HandshakeError::Refused(Refusal::NoMember(_)))), "{answered:?}");
    // A stranger says the same.
    for (n2, stranger) in [(&new, &other), (&new, &open), (&same, &other), (&same, &open)] {
        let (called, _) = shake((&old, &keyed), (n2, stranger), false).await;
        let is_harmless =
            matches!(called, Err(HandshakeError::RefusedByPeer(_) | HandshakeError::Refused(_)));
        assert!(is_harmless, "{called:?}");
    }
}

#[tokio::test]
async fn a_member_of_an_older_program_needs_no_proof() {
    for (node, is_let_in) in [("n1", true), ("n3", false)] {
        let n2 = guard(&[1], None);
        n2.may_be_older([Name::new(node).unwrap()].into());
        let (called, answered) = shake_guarded(&guard(&[], None), &n2).await;
        assert_eq!((called.is_ok(), answered.is_ok()), (is_let_in, is_let_in), "{node}");
        // The node that dials goes by the same rule.
        let n1 = guard(&[1], None);
        n1.may_be_older([Name::new(if is_let_in { "n2" } else { "n3" }).unwrap()].into());
        assert_eq!(shake_guarded(&n1, &guard(&[], None)).await.0.is_ok(), is_let_in);
    }
    // With a nonce, its proof has to be right.
    let n2 = guard(&[1], None);
    n2.may_be_older([Name::new("n1").unwrap()].into());
    assert!(shake_guarded(&guard(&[2], None), &n2).await.1.is_err());
}

#[tokio::test]
async fn two_clusters_of_one_name_refuse_each_other() {
    let of = |founders: Option<u8>, id: Option<u8>| {
        let guard = guard(&[], founders);
        id.into_iter().for_each(|id| guard.is_of([id; 16]));
        guard
    };
    let id =
        "it belongs to another cluster that is called demo too: the ids of the two clusters differ";
    let list = "its configuration lists other [[nodes]] than that of this node: the two would form \
                different clusters";
    for (n1, n2, why) in [
        (of(None, Some(1)), of(None, Some(2)), Some(id)),
        (of(Some(1), Some(1)), of(Some(1), Some(2)), Some(id)),
        (of(Some(1), None), of(Some(2), None), Some(list)),
        (of(Some(1), Some(1)), of(Some(2), None), Some(list)),
        // A node that is new asks a cluster with an older list whether it is known there.
        (of(Some(1), None), of(Some(2), Some(1)), None),
        // Lists may be changed once the cluster has begun; a node that joins has none.
        (of(Some(1), Some(1)), of(Some(2), Some(1)), None),
        (of(Some(1), None), of(Some(1), Some(1)), None),
        (of(None, None), of(Some(1), Some(1)), None),
    ] {
        let expected =
            why.map(|why| (format!("the peer refused: {why}"), format!("refused the peer: {why}")));
        assert_eq!(said(shake_guarded(&n1, &n2).await), expected.unwrap_or_default());
    }
}

#[test]
fn a_greeting_is_these_bytes_in_every_version_to_come() {
    let hello = identity("n1", 1, 3).hello(Class::Raft, Marks::default());
    let golden = b"\x01\x03\x02\x01\x02\x03\x04\x05\x06\x07\x08\x04demo\x02n1";
    assert_eq!(hello.write()[..], golden[..]);
    assert_eq!(Hello::read(golden).unwrap(), hello);
    // A later version says more, and this one passes over it.
    assert_eq!(Hello::read(&[&golden[..], b"more"].concat()).unwrap(), hello);
    for cut in 0..golden.len() {
        assert!(
            matches!(Hello::read(&golden[..cut]), Err(HandshakeError::Malformed(_))),
            "{cut} bytes"
        );
    }
    // One of a cluster that was made anew says so behind it, and what was before that it doesn't
    // say.
    let anew = Identity { lineage: Lineage::of([0x9f86, 7]), ..identity("n1", 1, 3) }
        .hello(Class::Raft, Marks::default());
    let golden = [&golden[..], &[0, 0, 0, 0, 0, 0, 0x9f, 0x86]].concat();
    assert_eq!(anew.write()[..], golden[..]);
    assert_eq!(Hello::read(&[&golden[..], b"more"].concat()).unwrap(), anew);
}

#[test]
fn a_greeting_says_its_format_level_behind_the_lineage() {
    let at = |level| Identity { level: FormatLevel::new(level), ..identity("n1", 1, 3) };
    let first = at(1).hello(Class::Raft, Marks::default());
    let second = at(2).hello(Class::Raft, Marks::default());
    // The first program takes the eight zeros for no lineage and passes over the rest.
    let golden = [&first.write()[..], &[0; 8], &[1, 2, 0, 2]].concat();
    assert_eq!(second.write()[..], golden[..]);
    assert_eq!(Hello::read(&golden).unwrap(), second);
    let marks = Marks { nonce: Some([7; 32]), cluster: Some([8; 16]), founders: Some([9; 16]) };
    let marked = at(2).hello(Class::Raft, marks);
    let parts = [&[2, 32][..], &[7; 32], &[3, 16], &[8; 16], &[4, 16], &[9; 16]].concat();
    assert_eq!(marked.write()[..], [&golden[..], &parts].concat());
    assert_eq!(Hello::read(&marked.write()).unwrap(), marked);
    assert!(
        Hello::read(&[&golden[..], &[2, 31], &[7; 31]].concat()).unwrap().marks.nonce.is_none()
    );
    // Parts of a later version, whole or cut off, don't hide it.
    for more in [&[9, 3, 1, 2, 3][..], &[9, 200, 1], &[9]] {
        assert_eq!(Hello::read(&[&golden[..], more].concat()).unwrap(), second);
    }
}

#[tokio::test]
async fn nodes_of_a_cluster_that_was_made_anew_and_of_what_it_was_refuse_each_other() {
    let of = |node: &str, numbers: &[u64]| {
        let lineage = Lineage::of(numbers.iter().copied());
        Identity { lineage, ..identity(node, 1, 1) }
    };
    let refused = |(called, answered): (Shaken, Shaken)| {
        (called.unwrap_err().to_string(), answered.unwrap_err().to_string())
    };
    // The old one dials the new one, and is told that it is nobody.
    let (called, answered) = shake(&of("n1", &[]), &of("n2", &[7]), true).await;
    assert!(matches!(called, Err(HandshakeError::GivenUpByPeer(_))), "{called:?}");
    let why = "the cluster was made anew without node n1, and what that node knows was given up";
    let expected = (format!("the peer refused: {why}"), format!("refused the peer: {why}"));
    assert_eq!(refused((called, answered)), expected);
    // The new one dials the old one, which knows nothing of it, and goes on.
    let (called, answered) = shake(&of("n1", &[7]), &of("n2", &[]), true).await;
    assert!(matches!(called, Err(HandshakeError::RefusedByPeer(_))), "{called:?}");
    let why = "its lineage is 0000000000000007, that of this cluster is the first: one of the two \
               was made anew without the other";
    let expected = (format!("the peer refused: {why}"), format!("refused the peer: {why}"));
    assert_eq!(refused((called, answered)), expected);
    // Two that were made anew of the same one, each for itself.
    let (called, _) = shake(&of("n1", &[7]), &of("n2", &[8]), true).await;
    assert!(matches!(called, Err(HandshakeError::RefusedByPeer(_))), "{called:?}");
    let (called, answered) = shake(&of("n1", &[9, 7]), &of("n2", &[9, 7]), true).await;
    assert!(called.is_ok() && answered.is_ok());
}

#[tokio::test]
async fn the_highest_version_that_both_know_is_spoken() {
    let table = [
        ((1, 1), (1, 1), Some(1)),
        ((1, 1), (1, 2), Some(1)), // this release, and the next
        ((2, 3), (1, 2), Some(2)),
        ((1, 9), (3, 4), Some(4)),
        ((1, 1), (2, 3), None),
        ((4, 5), (1, 3), None),
    ];
    for ((a, b), (c, d), version) in table {
        let (called, answered) = shake(&identity("n1", a, b), &identity("n2", c, d), true).await;
        assert_eq!(
            called.as_ref().ok().map(|agreed| agreed.version),
            version,
            "{a}-{b} with {c}-{d}"
        );
        assert_eq!(
            answered.as_ref().ok().map(|agreed| agreed.version),
            version,
            "{a}-{b} with {c}-{d}"
        );
        if version.is_none() {
            let said = format!("it speaks wire versions {a} to {b}, this node {c} to {d}");
            assert_eq!(called.unwrap_err().to_string(), format!("the peer refused: {said}"));
            assert_eq!(answered.unwrap_err().to_string(), format!("refused the peer: {said}"));
        }
    }
}

#[tokio::test]
async fn whoever_is_in_the_wrong_place_is_refused_and_both_know_why() {
    let n1 = identity("n1", 1, 1);
    let elsewhere = Identity { cluster: Name::new("prod").unwrap(), ..identity("n2", 1, 1) };
    let table = [
        (elsewhere, true, "it belongs to the cluster demo, this is the cluster prod"),
        (identity("n1", 1, 1), true, "it calls itself n1, as this node does"),
        (identity("n2", 1, 1), false, "node n1 is no member of this cluster"),
    ];
    for (n2, member, why) in table {
        let (called, answered) = shake(&n1, &n2, member).await;
        assert_eq!(called.unwrap_err().to_string(), format!("the peer refused: {why}"));
        assert_eq!(answered.unwrap_err().to_string(), format!("refused the peer: {why}"));
    }
}

#[tokio::test]
async fn another_node_at_the_address_is_refused_by_the_one_that_dialled() {
    let (called, answered) = shake(&identity("n1", 1, 1), &identity("n3", 1, 1), true).await;
    assert_eq!(
        called.unwrap_err().to_string(),
        "refused the peer: it is node n3, where node n2 was called"
    );
    // The end that was dialled hears of it behind the handshake, as its next frame.
    assert_eq!(answered.unwrap().peer.who.node.as_str(), "n1");
}

#[tokio::test]
async fn a_node_is_who_its_certificate_says_and_nobody_else_at_either_end() {
    let (n1, n2) = (identity("n1", 1, 1), identity("n2", 1, 1));
    let certified = |cluster, node| Certified {
        cluster: Name::new(cluster).unwrap(),
        node: Name::new(node).unwrap(),
    };
    let (of_n1, of_n2) = (certified("demo", "n1"), certified("demo", "n2"));
    let (called, answered) = shake_certified((&n1, Some(&of_n1)), (&n2, Some(&of_n2)), true).await;
    assert!(called.is_ok() && answered.is_ok());
    for other in [certified("demo", "n3"), certified("prod", "n1"), certified("demo", "N1")] {
        let (called, answered) =
            shake_certified((&n1, Some(&other)), (&n2, Some(&of_n2)), true).await;
        let why = format!("it calls itself n1, and its certificate is for {other}");
        assert_eq!(called.unwrap_err().to_string(), format!("the peer refused: {why}"));
        assert_eq!(answered.unwrap_err().to_string(), format!("refused the peer: {why}"));
    }
    // Who is dialled hears of it as its next frame.
    let (called, _) =
        shake_certified((&n1, Some(&of_n1)), (&n2, Some(&certified("demo", "n3"))), true).await;
    assert_eq!(
        called.unwrap_err().to_string(),
        "refused the peer: it calls itself n2, and its certificate is for urn:tidegate:node:demo:n3"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_isnt_waited_for() {
    let (stream, _silent) = tokio::io::duplex(4_096);
    let (mut reader, mut writer) = framed(stream);
    let (identity, guard) = (identity("n2", 1, 1), Guard::default());
    let us = Us { identity: &identity, guard: &guard };
    let answered = answer(&mut reader, &mut writer, us, None, |_| true).await;
    assert!(matches!(answered, Err(HandshakeError::TooSlow)));
}
