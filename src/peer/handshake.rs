//! The handshake: who is there, in which cluster, for what, and in which versions.
//!
//! Both ends send a [`Hello`] as their first frame, the one that dialled first. Each judges the
//! other's alone, by the same rules, and they speak the highest version that both know: a node of
//! the next release goes on talking to one of this. Who refuses says why in a frame of its own, so
//! that the reason stands in both logs. On a network with certificates a greeting is only believed
//! if it says of its node what the certificate says.
//!
//! The layout of a greeting never changes; a later version may say more behind it, which an earlier
//! one passes over. A cluster that was made anew says under which number; without, it never was:
//!
//! ```text
//! least version u8 | highest version u8 | class u8 | boot u64 | length u8, cluster | length u8, node | lineage u64, or nothing
//! ```
//!
//! From format level 2 on the lineage is always there (0 where there is none), and parts follow it:
//! `tag u8 | length u8 | bytes`. A reader passes over tags that it doesn't know.
//!
//! ```text
//! 1   format level of the program, u16; without it the first
//! 2   a nonce of 32 bytes, from a node that has the secret of its cluster
//! 3   the id of the cluster, 16 bytes, once it is known
//! 4   the digest of the nodes that form the cluster, 16 bytes
//! ```
//!
//! Where both greetings have a nonce, both ends prove behind them that they know the secret
//! ([`proof`](super::proof)), the end that dialled first.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::frame::{Frame, FrameCodec, FrameError, FrameKind};
use super::proof::{End, Guard, Marks, PROOF_BYTES, Verdict};
use super::{BootId, Class, Key, Lineage};
use crate::check::Name;
use crate::net::Certified;
use crate::placement::FormatLevel;

/// How long a handshake may take. It is two small frames; a node that needs longer couldn't serve
/// either.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(1);
/// The most bytes that are kept of a reason for refusing.
const REASON_BYTES_MAX: usize = 512;

/// The wire versions that this program speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// A range of wire versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The least.
    pub min: u8,
    /// The highest.
    pub max: u8,
}

impl Versions {
    /// The highest version in both ranges.
    pub fn highest_common(self, other: Self) -> Option<u8> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What a node says of itself to every peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster's name.
    pub cluster: Name,
    /// Its id.
    pub node: Name,
    /// Which run of it this is.
    pub boot: BootId,
    /// What it speaks: [`VERSIONS`], but for tests.
    pub versions: Versions,
    /// Which cluster of that name it belongs to. A greeting carries the number alone.
    pub lineage: Lineage,
    /// Which stored forms and messages it reads: [`FormatLevel::OWN`], but for tests.
    pub level: FormatLevel,
}

impl Identity {
    pub(super) fn hello(&self, class: Class, marks: Marks) -> Hello {
        let lineage = Lineage::of([self.lineage.number()]);
        Hello { who: Self { lineage, ..self.clone() }, class, marks }
    }
}

/// One end: what it says of itself, and what it asks of the other end.
#[derive(Clone, Copy)]
pub(super) struct Us<'a> {
    pub(super) identity: &'a Identity,
    pub(super) guard: &'a Guard,
}

/// The first frame of both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub who: Identity,
    /// What the connection is for.
    pub class: Class,
    /// Which cluster it means, and the nonce.
    pub marks: Marks,
}

impl Hello {
    /// Its bytes, as the module shows them.
    pub fn write(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&[self.who.versions.min, self.who.versions.max, self.class.code()]);
        bytes.put_u64(self.who.boot.0);
        for name in [&self.who.cluster, &self.who.node] {
            // A name has at most 64 bytes.
            bytes.put_u8(u8::try_from(name.as_str().len()).unwrap_or(u8::MAX));
            bytes.put_slice(name.as_str().as_bytes());
        }
        let mut parts = BytesMut::new();
        if self.who.level > FormatLevel::FIRST {
            part(&mut parts, LEVEL, &self.who.level.number().to_be_bytes());
        }
        let Marks { nonce, cluster, founders } = &self.marks;
        nonce.iter().for_each(|nonce| part(&mut parts, NONCE, nonce));
        cluster.iter().for_each(|id| part(&mut parts, CLUSTER, id));
        founders.iter().for_each(|digest| part(&mut parts, FOUNDERS, digest));
        if self.who.lineage.number() != Lineage::FIRST || !parts.is_empty() {
            bytes.put_u64(self.who.lineage.number());
        }
        bytes.put_slice(&parts);
        bytes.freeze()
    }

    /// Reads what [`Hello::write`] wrote, here or in any other version.
    pub fn read(mut bytes: &[u8]) -> Result<Self, HandshakeError> {
        let malformed = HandshakeError::Malformed;
        if bytes.len() < 11 {
            return Err(malformed("it is too short"));
        }
        let versions = Versions { min: bytes.get_u8(), max: bytes.get_u8() };
        if versions.min == 0 || versions.min > versions.max {
            return Err(malformed("its range of versions is none"));
        }
        let class = Class::from_code(bytes.get_u8())
            .ok_or(malformed("there is no such class of traffic"))?;
        let boot = BootId(bytes.get_u64());
        let mut name = || {
            let (length, rest) = bytes.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            bytes = rest;
            Name::new(std::str::from_utf8(name).ok()?)
        };
        let cluster = name().ok_or(malformed("its cluster has no name"))?;
        let node = name().ok_or(malformed("its node has no name"))?;
        let (lineage, mut rest) = match bytes.split_first_chunk() {
            Some((number, rest)) => (Some(u64::from_be_bytes(*number)), rest),
            None => (None, &[][..]),
        };
        let lineage = Lineage::of(lineage);
        let (mut level, mut marks) = (FormatLevel::FIRST, Marks::default());
        // What is cut off or unknown is a later version's: it is passed over.
        while let Some((tag, value, behind)) = next_part(rest) {
            rest = behind;
            match tag {
                LEVEL => {
                    level = value
                        .first_chunk()
                        .map_or(level, |n| FormatLevel::new(u16::from_be_bytes(*n)));
                }
                NONCE => marks.nonce = value.try_into().ok(),
                CLUSTER => marks.cluster = value.try_into().ok(),
                FOUNDERS => marks.founders = value.try_into().ok(),
                _ => {}
            }
        }
        Ok(Self { who: Identity { cluster, node, boot, versions, lineage, level }, class, marks })
    }
}

/// The part of a greeting that names the format level.
const LEVEL: u8 = 1;
/// The nonce.
const NONCE: u8 = 2;
/// The id of the cluster.
const CLUSTER: u8 = 3;
/// The digest of the nodes that form it.
const FOUNDERS: u8 = 4;

fn part(to: &mut BytesMut, tag: u8, value: &[u8]) {
    let Ok(length) = u8::try_from(value.len()) else { return };
    to.put_slice(&[tag, length]);
    to.put_slice(value);
}

/// The tag and the value of the part that `bytes` begin with, and what follows it.
fn next_part(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(head[1]))?;
    Some((head[0], value, rest))
}

/// Why one end won't speak with the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It belongs elsewhere.
    #[error("it belongs to the cluster {theirs}, this is the cluster {ours}")]
    OtherCluster {
        /// The cluster of the end that refuses.
        ours: Name,
        /// That of the end that is refused.
        theirs: Name,
    },
    /// No version that both know.
    #[error("it speaks wire versions {theirs}, this node {ours}")]
    NoCommonVersion {
        /// Those of the end that refuses.
        ours: Versions,
        /// Those of the end that is refused.
        theirs: Versions,
    },
    /// Another node answers at the address.
    #[error("it is node {actual}, where node {expected} was called")]
    OtherNode {
        /// Who was called.
        expected: Name,
        /// Who answered.
        actual: Name,
    },
    /// It says that it is one node, and its certificate that it is another.
    #[error("it calls itself {claimed}, and its certificate is for {certified}")]
    OtherCertificate {
        /// What it says.
        claimed: Name,
        /// What its certificate says.
        certified: Certified,
    },
    /// It goes by the name of the node that refuses: either this is a node that called itself, or
    /// two have one name.
    #[error("it calls itself {0}, as this node does")]
    SameName(Name),
    /// It answers for another class of traffic than it was asked for.
    #[error("it answers for {actual}, where {expected} was asked for")]
    OtherClass {
        /// What was asked for.
        expected: Class,
        /// What it says.
        actual: Class,
    },
    /// This node knows of no such member.
    #[error("node {0} is no member of this cluster")]
    NoMember(Name),
    /// Its cluster has been made anew since, or this one has of another back-up.
    #[error(
        "its lineage is {theirs}, that of this cluster is {ours}: one of the two was made anew \
         without the other"
    )]
    OtherLineage {
        /// That of the end that refuses.
        ours: Lineage,
        /// That of the end that is refused.
        theirs: Lineage,
    },
    /// This cluster was made anew of what the other still belongs to.
    #[error("the cluster was made anew without node {0}, and what that node knows was given up")]
    GivenUp(Name),
    /// It belongs to another cluster of the same name.
    #[error(
        "it belongs to another cluster that is called {0} too: the ids of the two clusters differ"
    )]
    OtherId(Name),
    /// It would form a cluster of other nodes.
    #[error(
        "its configuration lists other [[nodes]] than that of this node: the two would form \
         different clusters"
    )]
    OtherFounders,
    /// It doesn't say that it knows the secret.
    #[error(
        "node {0} gives no proof that it knows the peer secret: it has none ([peers] secret, or \
         [auth]), or it is no node of this cluster"
    )]
    NoProof(Name),
    /// It knows another secret.
    #[error(
        "node {0} knows another peer secret than this node: compare [peers] secret, or the admin \
         tokens, of both"
    )]
    WrongProof(Name),
}

/// The number of [`Refusal::NoMember`] on the wire: a reason that the refused has to act on.
const NO_MEMBER: u16 = 1;
/// The number of [`Refusal::GivenUp`]: another.
const GIVEN_UP: u16 = 2;

impl Refusal {
    pub(super) fn frame(&self) -> Frame {
        let code = match self {
            Self::NoMember(_) => NO_MEMBER,
            Self::GivenUp(_) => GIVEN_UP,
            _ => 0,
        };
        Frame::refusal(code, Bytes::from(self.to_string()))
    }
}

/// Why two ends didn't come together.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The stream broke, or carried something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other end closed the connection before it had said anything.
    #[error("the peer closed the connection in the handshake")]
    Closed,
    /// It took longer than a second.
    #[error("the handshake took longer than {HANDSHAKE_MAX:?}")]
    TooSlow,
    /// A greeting that is none.
    #[error("the peer's greeting can't be read: {0}")]
    Malformed(&'static str),
    /// Another frame where the other end was to prove that it knows the secret.
    #[error("the peer sent another frame in place of its proof that it knows the peer secret")]
    NoProof,
    /// This end refuses.
    #[error("refused the peer: {0}")]
    Refused(#[from] Refusal),
    /// The other end refuses.
    #[error("the peer refused: {0}")]
    RefusedByPeer(String),
    /// The other end knows of no such member as this one.
    #[error("the peer refused: {0}")]
    NoMemberToPeer(String),
    /// The other end belongs to a cluster that was made anew without this one.
    #[error("the peer refused: {0}")]
    GivenUpByPeer(String),
}

impl HandshakeError {
    /// What a refusal that came in says.
    pub(super) fn refused_by(frame: &Frame) -> Self {
        Self::refused(frame.message, &frame.body)
    }

    fn refused(code: u16, why: &[u8]) -> Self {
        match code {
            NO_MEMBER => Self::NoMemberToPeer(reason(why)),
            GIVEN_UP => Self::GivenUpByPeer(reason(why)),
            _ => Self::RefusedByPeer(reason(why)),
        }
    }

    /// The same as it counts where the other end has proved nothing: unless it `is_believed`
    /// without, a refusal that would end this process is one like any other.
    fn said(self, is_believed: bool) -> Self {
        match self {
            Self::NoMemberToPeer(why) | Self::GivenUpByPeer(why) if !is_believed => {
                Self::RefusedByPeer(why)
            }
            error => error,
        }
    }
}

/// What both ends agreed on.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub(super) version: u8,
    pub(super) peer: Hello,
}

pub(super) type Reader<S> = FramedRead<tokio::io::ReadHalf<S>, FrameCodec>;
pub(super) type Writer<S> = FramedWrite<tokio::io::WriteHalf<S>, FrameCodec>;

/// Bytes that gather before they are written without a flush: as many as a socket takes at a time.
const WRITE_BYTES: usize = 64 << 10;

/// Both directions of a stream, ready for the handshake.
pub(super) fn framed<S: AsyncRead + AsyncWrite>(stream: S) -> (Reader<S>, Writer<S>) {
    let (read, write) = tokio::io::split(stream);
    let mut writer = FramedWrite::new(write, FrameCodec::handshake());
    writer.set_backpressure_boundary(WRITE_BYTES);
    (FramedRead::new(read, FrameCodec::handshake()), writer)
}

/// The handshake of the end that dialled `expected`.
pub(super) async fn call<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
    writer: &mut Writer<S>,
    us: Us<'_>,
    certified: Option<&Certified>,
    class: Class,
    expected: &Name,
) -> Result<Agreed, HandshakeError> {
    in_time(async {
        let marks = us.guard.marks();
        let own = us.identity.hello(class, marks).write();
        writer.send(Frame::greeting(FrameKind::Hello, own.clone())).await?;
        let greeted = greeting(reader).await;
        let is_believed = us.guard.lets_in_without_proof(expected);
        let (peer, theirs) = greeted.map_err(|error| error.said(is_believed))?;
        let mut judged = judge(us, (End::Dialled, marks), &peer, certified).and_then(|version| {
            if peer.who.node != *expected {
                return Err(Refusal::OtherNode {
                    expected: expected.clone(),
                    actual: peer.who.node.clone(),
                });
            }
            match peer.class == class {
                true => Ok(version),
                false => Err(Refusal::OtherClass { expected: class, actual: peer.class }),
            }
        });
        // An end of another lineage may have to say that it gave this one up.
        let hears_on = matches!(judged, Ok(_) | Err(Refusal::OtherLineage { .. }));
        if hears_on && marks.nonce.is_some() && peer.marks.nonce.is_some() {
            let greetings = (&own[..], &theirs[..]);
            let proof = us.guard.prove(End::Dialled, Verdict::ADMITTED, greetings);
            writer.send(Frame::greeting(FrameKind::Proof, proof.into())).await?;
            let answer = proof_of(reader).await.map_err(|error| error.said(false))?;
            let (proof, why) = answer.body.split_at(answer.body.len().min(PROOF_BYTES));
            let verdict = Verdict { code: answer.message, why };
            if !us.guard.verifies(proof, End::Answered, verdict, greetings) {
                judged = Err(Refusal::WrongProof(peer.who.node.clone()));
            } else if verdict.code != 0 {
                return Err(HandshakeError::refused(verdict.code, why));
            }
        }
        settle(reader, writer, judged, peer).await
    })
    .await
}

/// The handshake of the end that was dialled; `admits` says whether a node is a member.
pub(super) async fn answer<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
    writer: &mut Writer<S>,
    us: Us<'_>,
    certified: Option<&Certified>,
    admits: impl Fn(&Hello) -> bool,
) -> Result<Agreed, HandshakeError> {
    in_time(async {
        let (peer, theirs) = greeting(reader).await?;
        let marks = us.guard.marks();
        let mut judged = judge(us, (End::Answered, marks), &peer, certified).and_then(|version| {
            match admits(&peer) {
                true => Ok(version),
                false => Err(Refusal::NoMember(peer.who.node.clone())),
            }
        });
        let both_prove = marks.nonce.is_some() && peer.marks.nonce.is_some();
        // What ends the other node's process is said behind the proofs, so that no stranger can say
        // it.
        let ends_peer = matches!(judged, Err(Refusal::NoMember(_) | Refusal::GivenUp(_)));
        if judged.is_ok() || (ends_peer && both_prove) {
            let own = us.identity.hello(peer.class, marks).write();
            writer.send(Frame::greeting(FrameKind::Hello, own.clone())).await?;
            if both_prove {
                let greetings = (&theirs[..], &own[..]);
                let proof = proof_of(reader).await?.body;
                if !us.guard.verifies(&proof, End::Dialled, Verdict::ADMITTED, greetings) {
                    judged = Err(Refusal::WrongProof(peer.who.node.clone()));
                } else {
                    let said = judged.as_ref().err().map(Refusal::frame);
                    let (code, why) =
                        said.map_or((0, Bytes::new()), |frame| (frame.message, frame.body));
                    let mut body =
                        us.guard.prove(End::Answered, Verdict { code, why: &why }, greetings);
                    body.extend_from_slice(&why);
                    let mut proof = Frame::greeting(FrameKind::Proof, body.into());
                    proof.message = code;
                    writer.send(proof).await?;
                    if let Err(refusal) = judged {
                        let _ = writer.close().await;
                        return Err(HandshakeError::Refused(refusal));
                    }
                }
            }
        }
        settle(reader, writer, judged, peer).await
    })
    .await
}

async fn in_time(
    handshake: impl Future<Output = Result<Agreed, HandshakeError>>,
) -> Result<Agreed, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_MAX, handshake).await.unwrap_or(Err(HandshakeError::TooSlow))
}

/// The greeting of the other end, and its bytes.
async fn greeting<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
) -> Result<(Hello, Bytes), HandshakeError> {
    let frame = reader.next().await.ok_or(HandshakeError::Closed)??;
    match frame.kind {
        FrameKind::Hello => Ok((Hello::read(&frame.body)?, frame.body)),
        FrameKind::Refusal => Err(HandshakeError::refused_by(&frame)),
        _ => Err(HandshakeError::Malformed("it is another frame")),
    }
}

/// The frame with the proof of the other end.
async fn proof_of<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
) -> Result<Frame, HandshakeError> {
    let frame = reader.next().await.ok_or(HandshakeError::Closed)??;
    match frame.kind {
        FrameKind::Proof => Ok(frame),
        FrameKind::Refusal => Err(HandshakeError::refused_by(&frame)),
        _ => Err(HandshakeError::NoProof),
    }
}

/// Whether both ends mean one cluster. Lists of a cluster that has begun may differ from each
/// other. A node that knows of no cluster may ask one that has begun whether it knows it, and takes
/// no log of a cluster with another list.
fn judge_marks(us: &Identity, end: End, ours: Marks, theirs: Marks) -> Result<(), Refusal> {
    let (dialled, answered) = match end {
        End::Dialled => (ours.cluster, theirs.cluster),
        End::Answered => (theirs.cluster, ours.cluster),
    };
    match (dialled, answered) {
        (Some(dialled), Some(answered)) if dialled != answered => {
            Err(Refusal::OtherId(us.cluster.clone()))
        }
        (_, Some(_)) => Ok(()),
        (_, None) => match (ours.founders, theirs.founders) {
            (Some(ours), Some(theirs)) if ours != theirs => Err(Refusal::OtherFounders),
            _ => Ok(()),
        },
    }
}

/// What both ends ask of each other. `certified` is whose certificate the other has shown; none
/// where the network knows no certificates, and then its word has to do.
fn judge(
    Us { identity: us, guard }: Us<'_>,
    (end, marks): (End, Marks),
    peer: &Hello,
    certified: Option<&Certified>,
) -> Result<u8, Refusal> {
    let them = &peer.who;
    if them.cluster != us.cluster {
        return Err(Refusal::OtherCluster {
            ours: us.cluster.clone(),
            theirs: them.cluster.clone(),
        });
    }
    if let Some(certified) = certified
        && (&certified.cluster, &certified.node) != (&them.cluster, &them.node)
    {
        return Err(Refusal::OtherCertificate {
            claimed: them.node.clone(),
            certified: certified.clone(),
        });
    }
    let (ours, theirs) = (us.lineage.number(), them.lineage.number());
    if us.lineage.gave_up(theirs) {
        return Err(Refusal::GivenUp(them.node.clone()));
    }
    if ours != theirs {
        let theirs = them.lineage.clone();
        return Err(Refusal::OtherLineage { ours: us.lineage.clone(), theirs });
    }
    if them.node == us.node {
        return Err(Refusal::SameName(us.node.clone()));
    }
    judge_marks(us, end, marks, peer.marks)?;
    if guard.misses_proof(&them.node, &peer.marks) {
        return Err(Refusal::NoProof(them.node.clone()));
    }
    let none = Refusal::NoCommonVersion { ours: us.versions, theirs: them.versions };
    us.versions.highest_common(them.versions).ok_or(none)
}

async fn settle<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
    writer: &mut Writer<S>,
    judged: Result<u8, Refusal>,
    peer: Hello,
) -> Result<Agreed, HandshakeError> {
    match judged {
        Ok(version) => {
            let codec = || FrameCodec::agreed(version, peer.class.frame_bytes_max());
            (*reader.decoder_mut(), *writer.encoder_mut()) = (codec(), codec());
            Ok(Agreed { version, peer })
        }
        Err(refusal) => {
            // It is courtesy: the connection ends whether or not the other end hears why.
            let _ = writer.send(refusal.frame()).await;
            let _ = writer.close().await;
            Err(HandshakeError::Refused(refusal))
        }
    }
}

/// The reason in a refusal: a bounded piece of text that can't break a log line.
pub(super) fn reason(body: &[u8]) -> String {
    let body = &body[..body.len().min(REASON_BYTES_MAX)];
    String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Plays an end that dials and sends `bytes`: it is never let in, since it knows no key.
pub(super) fn fuzz_answer(bytes: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        return;
    };
    let guard = Guard::new(vec![Key::new([7; 32])], &crate::random::Seed::from_number(1));
    let name = |text| Name::new(text).unwrap_or_else(|| unreachable!("{text} is a name"));
    let identity = Identity {
        cluster: name("demo"),
        node: name("n1"),
        boot: BootId(1),
        versions: VERSIONS,
        lineage: Lineage::of([7]),
        level: FormatLevel::OWN,
    };
    let us = Us { identity: &identity, guard: &guard };
    let (mut reader, mut writer) = framed(tokio::io::join(bytes, tokio::io::sink()));
    let answered = runtime.block_on(answer(&mut reader, &mut writer, us, None, |_| true));
    assert!(answered.is_err(), "let in without the key");
}

pub(super) fn fuzz(bytes: &[u8]) {
    if let Ok(hello) = Hello::read(bytes) {
        assert_eq!(Hello::read(&hello.write()).ok(), Some(hello));
    }
    assert!(!reason(bytes).contains(char::is_control));
}

#[cfg(test)]
mod tests;
