//! Whether a node that begins with nothing may take part: whether there is a cluster already, and
//! whether it was part of it.
//!
//! A node whose data is lost must not take part under its old number: it would vote again where it
//! has voted before, and say of entries that it never had them which a majority counts on. Nor may
//! the nodes of a list form a second cluster beside one that exists. So one of several that begins
//! with nothing stays out of Raft until its peers have told it that it is new. It asks the others
//! of its list:
//!
//! ```text
//! one says that it was there               its data is lost: it ends, or joins under a new number if it was told to
//! one says that it is no member            there is a cluster: it ends, or joins if it was told to
//! one says that it never was there         it takes part: it is a member, and this is its first life
//! all others say that they are empty       there is no cluster: it takes part, and the first of the list forms one
//! anything else                            it waits, isn't ready, and logs which nodes have not answered
//! ```
//!
//! The first of the list forms the cluster once all others take part, so whoever takes part later
//! has a majority to learn from. A node that was admitted later is told apart by the cluster as it
//! asks again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::acquaintances::number;
use super::member::Member;
use crate::check::Name;
use crate::clock::SECOND;
use crate::peer::{Ask, Kind, LinkState};
use crate::placement::NodeId;

/// How long another node is given to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long to wait before all are asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// After how long, in nanoseconds, the nodes are logged that have not answered: at first, and then
/// again and again.
const TELL_AFTER: u64 = 3 * SECOND;
const TELL_EVERY: u64 = 30 * SECOND;

/// What a node of the list does that begins with nothing and finds a cluster there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Newcomer {
    /// It ends, and says how it can join.
    #[default]
    Ends,
    /// It is to join ([`Member::is_to_join`]), unless a member of its name was there before: then
    /// it ends.
    Joins,
    /// It is to join in any case; the member of its name that was there before has to be given up
    /// first.
    Rejoins,
}

/// What is known of the node `name`, which says that it is number `node`?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAsk {
    /// Its name.
    pub name: Name,
    /// Its number, by its list.
    pub node: NodeId,
}

impl Ask for KnownAsk {
    const KIND: Kind = Kind(Kind::RAFT.0 + 0x21);
    type Answer = Known;
}

/// What a node knows of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Known {
    /// Whoever answers has nothing itself.
    Empty,
    /// It has a log, and hasn't applied any of it yet.
    NotYet,
    /// There is no such member.
    Absent,
    /// It is a member, and no process of it was ever there.
    Expected,
    /// A process of it was there.
    WasThere,
}

/// What follows for a node that begins with nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It never was there.
    TakesPart,
    /// There is a cluster, and it is no member of it.
    IsStranger,
    /// It was there.
    IsLost,
    /// That can't be said yet.
    AsksAgain,
}

/// Returns what follows from what the nodes of the list say, in its order. The node itself says
/// nothing, and neither does a node that doesn't answer.
fn judge(own: usize, answers: &[Option<Known>]) -> Verdict {
    let said = |known| answers.contains(&Some(known));
    let mut others = answers.iter().enumerate().filter(|(at, _)| *at != own);
    match () {
        () if said(Known::WasThere) => Verdict::IsLost,
        () if said(Known::Absent) => Verdict::IsStranger,
        () if said(Known::Expected) => Verdict::TakesPart,
        () if others.all(|(_, answer)| *answer == Some(Known::Empty)) => Verdict::TakesPart,
        () => Verdict::AsksAgain,
    }
}

impl Member {
    /// What this node knows of another.
    pub async fn known(&self, ask: &KnownAsk) -> Known {
        if !self.raft.is_initialized().await {
            return Known::Empty;
        }
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return Known::NotYet };
        match agreed.members.get(ask.node).filter(|member| member.name == ask.name) {
            None => Known::Absent,
            Some(member) if member.was_there() => Known::WasThere,
            Some(_) => Known::Expected,
        }
    }

    /// Resolves once it is known that this node has to join a cluster that exists: it must be
    /// stopped, and started again as a node that asks to be admitted. Only for a node of the list
    /// that begins with nothing and was told that it may join.
    pub async fn is_to_join(&self) {
        // Its sender lives as long as this node takes part.
        let _ = self.to_join.subscribe().wait_for(|joins| *joins).await;
    }

    /// Whether this node waits to hear whether it has to join.
    pub(super) fn may_join(&self) -> bool {
        self.newcomer != Newcomer::Ends && !self.raft.listens()
    }

    /// Has this node take part once it is sure that it never did; ends it where it did, or has it
    /// join.
    pub(super) async fn make_sure(&self) {
        let Some(own) = self.seeds.iter().position(|seed| seed.name == self.own.name) else {
            return;
        };
        let mut next_telling = self.clock.now().boot + TELL_AFTER;
        while !self.raft.listens() {
            let answers = self.ask_all(own).await;
            // Whoever begins the cluster has made sure that all others are empty, and is soon known
            // to them in this very life.
            if self.raft.is_initialized().await {
                return self.raft.listen();
            }
            match (judge(own, &answers), self.newcomer) {
                (Verdict::TakesPart, _) => self.raft.listen(),
                (Verdict::IsLost, Newcomer::Ends | Newcomer::Joins) => {
                    return self.end(self.lost());
                }
                (Verdict::IsLost, Newcomer::Rejoins)
                | (Verdict::IsStranger, Newcomer::Joins | Newcomer::Rejoins) => {
                    self.to_join.send_replace(true);
                    return;
                }
                (Verdict::AsksAgain | Verdict::IsStranger, _) => {
                    let now = self.clock.now().boot;
                    if now >= next_telling {
                        self.tell_who_is_silent(own, &answers);
                        next_telling = now + TELL_EVERY;
                    }
                    tokio::time::sleep(ASK_AGAIN_AFTER).await;
                }
            }
        }
    }

    fn lost(&self) -> String {
        let (claim, name) = (&self.claim, &self.claim.name);
        format!(
            "{claim} was there before, and its data is lost: it can't take part under its old \
             number. Give it up (tidegate cluster leave {name} --force), and with --join it comes \
             back as another node; --join with --rejoin does both"
        )
    }

    fn tell_who_is_silent(&self, own: usize, answers: &[Option<Known>]) {
        let silent = self.seeds.iter().zip(answers).enumerate();
        let silent: Vec<_> = silent
            .filter(|(at, (_, answer))| *at != own && answer.is_none())
            .map(|(_, (seed, _))| format!("{} ({})", seed.name, seed.peer))
            .collect();
        match silent.is_empty() {
            true => tracing::warn!(
                "waiting for the cluster to say whether this node is new: it has no leader yet"
            ),
            false => tracing::warn!(
                nodes = silent.join(", "),
                "waiting for all nodes of the list: a cluster is formed once each says that it is \
                 empty"
            ),
        }
    }

    async fn ask_all(&self, own: usize) -> Vec<Option<Known>> {
        let ask = KnownAsk { name: self.own.name.clone(), node: self.me().node };
        let asked = (0..self.seeds.len()).map(async |at| {
            let peer = self.links.peer(number(at)).filter(|_| at != own)?;
            match peer.raft().ask(&ask, ANSWER_WITHIN).await {
                Ok(known) => Some(known),
                // A node of a cluster that works refuses the greeting of a node that is no member
                // of it.
                Err(_) => match peer.raft().state() {
                    LinkState::Connecting { no_member_since: Some(_), .. }
                    | LinkState::Connecting { given_up: true, .. } => Some(Known::Absent),
                    _ => None,
                },
            }
        });
        futures_util::future::join_all(asked).await
    }
}

#[cfg(test)]
mod tests {
    use super::Known::*;
    use super::*;

    #[test]
    fn a_node_with_nothing_takes_part_once_it_is_certain_that_it_never_did() {
        let table: [(usize, &[Option<Known>], Verdict); 15] = [
            // The very first start, whoever comes first.
            (1, &[None, None, None], Verdict::AsksAgain),
            (1, &[Some(Empty), None, None], Verdict::AsksAgain),
            (1, &[Some(Empty), None, Some(Empty)], Verdict::TakesPart),
            (0, &[None, Some(Empty), None], Verdict::AsksAgain),
            (0, &[None, Some(Empty), Some(Empty)], Verdict::TakesPart),
            (0, &[None, None], Verdict::AsksAgain),
            (0, &[None, Some(Empty)], Verdict::TakesPart),
            // The first has begun, which it does once all take part; or it has data from before,
            // and the two others lost theirs.
            (1, &[Some(NotYet), None, Some(Empty)], Verdict::AsksAgain),
            (2, &[Some(NotYet), Some(NotYet), None], Verdict::AsksAgain),
            (2, &[Some(Expected), Some(NotYet), None], Verdict::TakesPart),
            // Its data is lost.
            (2, &[Some(WasThere), Some(NotYet), None], Verdict::IsLost),
            (0, &[None, Some(WasThere)], Verdict::IsLost),
            (0, &[None, Some(WasThere), Some(Absent)], Verdict::IsLost),
            // There is a cluster without it.
            (2, &[Some(Absent), None, None], Verdict::IsStranger),
            (2, &[Some(Absent), Some(Empty), None], Verdict::IsStranger),
        ];
        for (own, answers, verdict) in table {
            assert_eq!(judge(own, answers), verdict, "{own} {answers:?}");
        }
    }
}
