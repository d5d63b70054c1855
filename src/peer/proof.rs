//! How a node proves that it belongs to the cluster: by a secret that it never sends.
//!
//! Both ends greet with a nonce. The end that dialled proves first, so that the other end gives no
//! proof to a stranger:
//!
//! ```text
//! n1 -> n2   Hello   nonce a, cluster's id
//! n2 -> n1   Hello   nonce b, cluster's id
//! n1 -> n2   Proof   HMAC-SHA256(key, "dialled" | both greetings)
//! n2 -> n1   Proof   HMAC-SHA256(key, "answered" | verdict | both greetings), verdict
//! ```
//!
//! The verdict of the end that was dialled is 0, or that the other end is no member, or was given
//! up: a node ends that hears it of its cluster, so no other program must be able to say it. All
//! else that the ends refuse each other for is said at once, without a proof.
//!
//! A proof holds for one connection, since the nonces are in the greetings, and for one direction:
//! sent back, it is wrong. A node proves with the first of its keys and accepts any of them, so
//! that a secret can be changed node by node.
//!
//! A node with keys speaks with a peer that gives no nonce only if the log says that this peer's
//! program may be older than the proof ([`Guard::may_be_older`]). A node without keys gives no
//! nonce.
//!
//! The greeting also says which cluster is meant. Two clusters may have one name and use the same
//! addresses, one after the other: their ids differ, and before there is an id, so do the lists of
//! the nodes that are to form the cluster.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::check::Name;
use crate::random::{Generator, Seed};

/// A key that a proof is made with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these bytes, which must be derived from a secret of the cluster.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Without the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What only one greeting contains.
pub type Nonce = [u8; 32];
/// Sixteen bytes that differ between two clusters.
pub type Mark = [u8; 16];

/// What a greeting says of its node's cluster, beside the cluster's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The nonce; none from a node without keys.
    pub nonce: Option<Nonce>,
    /// The id of the cluster, once the node knows it.
    pub cluster: Option<Mark>,
    /// The digest of the list of the nodes that form the cluster, as the node's configuration has
    /// it.
    pub founders: Option<Mark>,
}

/// What the end that was dialled says with its proof, so that only a member of the cluster can say
/// it.
#[derive(Clone, Copy)]
pub(super) struct Verdict<'a> {
    /// 0, or the number of a refusal.
    pub(super) code: u16,
    /// The reason for people.
    pub(super) why: &'a [u8],
}

impl Verdict<'_> {
    /// The other end is let in.
    pub(super) const ADMITTED: Self = Self { code: 0, why: &[] };
}

/// Bytes of a proof.
pub(super) const PROOF_BYTES: usize = 32;

/// Which end a proof is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Dialled,
    Answered,
}

impl End {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Dialled => b"tidegate peer proof 1: the end that dialled",
            Self::Answered => b"tidegate peer proof 1: the end that was dialled",
        }
    }
}

/// The bytes of both greetings, that of the end that dialled first.
pub(super) type Greetings<'a> = (&'a [u8], &'a [u8]);

fn mac(
    key: &Key,
    end: End,
    verdict: Verdict<'_>,
    (dialled, answered): Greetings<'_>,
) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).ok()?;
    let code = verdict.code.to_be_bytes();
    for part in [end.label(), &code, verdict.why, dialled, answered] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Some(mac)
}

/// Which peers a node speaks with, and how it proves itself to them.
#[derive(Debug)]
pub struct Guard {
    keys: Vec<Key>,
    founders: Option<Mark>,
    /// Whether the node knows of no cluster yet, and may form one.
    forms: bool,
    nonces: Mutex<Option<Nonces>>,
    cluster: ArcSwapOption<Mark>,
    /// Members that may run a program that gives no proof.
    older: ArcSwapOption<BTreeSet<Name>>,
}

struct Nonces(Generator);

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(..)")
    }
}

/// Without keys: asks no proof of any peer and gives none.
impl Default for Guard {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            founders: None,
            forms: false,
            nonces: Mutex::new(None),
            cluster: ArcSwapOption::empty(),
            older: ArcSwapOption::empty(),
        }
    }
}

impl Guard {
    /// With these keys, of which the first is the one to prove with. Nonces come from `seed`.
    pub fn new(keys: Vec<Key>, seed: &Seed) -> Self {
        let nonces = Mutex::new(Some(Nonces(seed.fork("peer nonces", 0))));
        Self { keys, nonces, ..Self::default() }
    }

    /// The same of a node whose configuration lists the nodes that form the cluster, of which
    /// `founders` is the digest; `forms` says that the node knows of no cluster yet. A node that
    /// has a log says its list only once it knows the id: until then its list means nothing.
    pub fn with_founders(self, founders: Option<Mark>, forms: bool) -> Self {
        Self { founders, forms, ..self }
    }

    /// The keys, the one to prove with first.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Takes note of the id of the cluster, which never changes.
    pub fn is_of(&self, cluster: Mark) {
        if self.cluster.load().is_none() {
            self.cluster.store(Some(cluster.into()));
        }
    }

    /// Takes note of the members whose program may be one that gives no proof: any other peer has
    /// to give one.
    pub fn may_be_older(&self, members: BTreeSet<Name>) {
        let members = (!members.is_empty()).then(|| members.into());
        self.older.store(members);
    }

    /// Whether `node` may greet without a nonce.
    pub(super) fn lets_in_without_proof(&self, node: &Name) -> bool {
        self.keys.is_empty() || self.older.load().as_ref().is_some_and(|older| older.contains(node))
    }

    /// Whether a peer that greeted without a nonce, because its program could be older, has to
    /// prove itself by now.
    pub(super) fn misses_proof(&self, peer: &Name, marks: &Marks) -> bool {
        marks.nonce.is_none() && !self.lets_in_without_proof(peer)
    }

    /// What the next greeting says.
    pub(super) fn marks(&self) -> Marks {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let nonce = nonces.as_mut().filter(|_| !self.keys.is_empty()).map(|Nonces(generator)| {
            let mut nonce = [0; 32];
            let (first, second) = nonce.split_at_mut(16);
            first.copy_from_slice(&generator.next_u128().to_be_bytes());
            second.copy_from_slice(&generator.next_u128().to_be_bytes());
            nonce
        });
        let cluster = self.cluster.load().as_deref().copied();
        Marks {
            nonce,
            cluster,
            founders: self.founders.filter(|_| self.forms || cluster.is_some()),
        }
    }

    /// The proof of this node as the end `end`; empty without a key.
    pub(super) fn prove(
        &self,
        end: End,
        verdict: Verdict<'_>,
        greetings: Greetings<'_>,
    ) -> Vec<u8> {
        let mac = self.keys.first().and_then(|key| mac(key, end, verdict, greetings));
        mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
    }

    /// Whether `proof` is that of a peer with one of the keys, as the end `end`.
    pub(super) fn verifies(
        &self,
        proof: &[u8],
        end: End,
        verdict: Verdict<'_>,
        greetings: Greetings<'_>,
    ) -> bool {
        let verifies = |key| {
            mac(key, end, verdict, greetings).is_some_and(|mac| mac.verify_slice(proof).is_ok())
        };
        self.keys.iter().any(verifies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(keys: &[u8]) -> Guard {
        let keys = keys.iter().map(|byte| Key::new([*byte; 32])).collect();
        Guard::new(keys, &Seed::from_number(1))
    }

    #[test]
    fn a_proof_holds_for_its_end_and_its_greetings_alone() {
        let (guard, greetings) = (guard(&[1]), (&b"hello a"[..], &b"hello b"[..]));
        let proof = guard.prove(End::Dialled, Verdict::ADMITTED, greetings);
        assert!(guard.verifies(&proof, End::Dialled, Verdict::ADMITTED, greetings));
        assert!(!guard.verifies(&proof, End::Answered, Verdict::ADMITTED, greetings), "sent back");
        assert!(!guard.verifies(&proof, End::Dialled, Verdict::ADMITTED, (b"hello b", b"hello a")));
        assert!(!guard.verifies(&proof, End::Dialled, Verdict::ADMITTED, (b"hello ahello", b" b")));
        let given_up = Verdict { code: 2, why: b"" };
        assert!(!guard.verifies(&proof, End::Dialled, given_up, greetings), "another verdict");
        assert!(!guard.verifies(&proof[..31], End::Dialled, Verdict::ADMITTED, greetings));
        assert!(!guard.verifies(&[], End::Dialled, Verdict::ADMITTED, greetings));
        assert!(!Guard::default().verifies(&[], End::Dialled, Verdict::ADMITTED, greetings));
    }

    #[test]
    fn the_first_key_proves_and_any_key_is_accepted() {
        let greetings = (&b"a"[..], &b"b"[..]);
        for (from, by, accepted) in [
            (&[1][..], &[1, 2][..], true),
            (&[2, 1], &[1, 2], true),
            (&[1, 2], &[2], false),
            (&[3], &[1, 2], false),
        ] {
            let proof = guard(from).prove(End::Answered, Verdict::ADMITTED, greetings);
            assert_eq!(
                guard(by).verifies(&proof, End::Answered, Verdict::ADMITTED, greetings),
                accepted,
                "{from:?} {by:?}"
            );
        }
    }

    #[test]
    fn every_greeting_has_a_nonce_of_its_own() {
        let guard = guard(&[1]);
        let (first, second) = (guard.marks().nonce, guard.marks().nonce);
        assert!(first.is_some() && first != second);
        assert_eq!(Guard::default().marks(), Marks::default());
        assert!(!format!("{guard:?}").contains('1'), "{guard:?}");
    }
}
