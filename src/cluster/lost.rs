//! Whether a node that begins with nothing had something before.
//!
//! A node whose data is lost must not take part under its old number: it would vote again where it has voted before, and say of
//! entries that it never had them which a majority counts on. So one of several that begins with nothing listens to nobody until
//! it knows that it never was there. It asks the others of its list:
//!
//! ```text
//! somebody says that it was there          its data is lost: it ends
//! somebody says that it never was          it takes part
//! most of those that will vote are empty   nothing can have been agreed on: the cluster is about to begin, and it takes part
//! ```
//!
//! In a cluster that has begun most of the voters aren't empty, so one of the first two comes; in one that hasn't, the third does,
//! or those that have begun it are most of the voters and agree without the rest. A node that was admitted later is told apart by
//! the cluster as it asks again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::acquaintances::number;
use super::member::Member;
use super::raft::initial_voters;
use crate::check::Name;
use crate::peer::{Ask, Kind};
use crate::placement::NodeId;

/// How long another node is given to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long to wait before all are asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

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
    /// It was.
    IsLost,
    /// That can't be said yet.
    AsksAgain,
}

/// What follows of what the nodes of the list say, in its order; the node itself, and whoever doesn't answer, says nothing.
fn judge(own: usize, answers: &[Option<Known>]) -> Verdict {
    let said = |known| answers.contains(&Some(known));
    let voters = initial_voters(answers.len());
    let is_empty = |(at, answer): &(usize, &Option<Known>)| *at == own || **answer == Some(Known::Empty);
    let empty = answers.iter().take(voters).enumerate().filter(is_empty).count();
    // Who begins the cluster needs all others for that, so it can as well hear all of them.
    let has_heard = own > 0 || answers.iter().skip(1).all(Option::is_some);
    match () {
        () if said(Known::WasThere) => Verdict::IsLost,
        () if said(Known::Expected) || (empty > voters / 2 && has_heard) => Verdict::TakesPart,
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

    /// Has this node take part once it is sure that it never did; ends it where it did.
    pub(super) async fn make_sure(&self) {
        let Some(own) = self.seeds.iter().position(|seed| seed.name == self.own.name) else { return };
        while !self.raft.listens() {
            let answers = self.ask_all(own).await;
            // Whoever begins the cluster has made sure that all others are empty, and is soon known to them in this very life.
            if self.raft.is_initialized().await {
                return self.raft.listen();
            }
            match judge(own, &answers) {
                Verdict::TakesPart => self.raft.listen(),
                Verdict::IsLost => {
                    return self.end(format!(
                        "{} was there before, and its data is lost: nobody can begin anew in its place; give it up \
                         (tidegate cluster leave {} --force), and with --join it comes back as another node",
                        self.claim, self.claim.name
                    ));
                }
                Verdict::AsksAgain => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            }
        }
    }

    async fn ask_all(&self, own: usize) -> Vec<Option<Known>> {
        let ask = KnownAsk { name: self.own.name.clone(), node: self.me().node };
        let asked = (0..self.seeds.len()).map(async |at| {
            let peer = self.links.peer(number(at)).filter(|_| at != own)?;
            peer.raft().ask(&ask, ANSWER_WITHIN).await.ok()
        });
        futures_util::future::join_all(asked).await
    }
}

#[cfg(test)]
mod tests {
    use super::Known::*;
    use super::*;

    #[test]
    fn who_begins_with_nothing_takes_part_once_it_is_certain_that_it_never_did() {
        let table: [(usize, &[Option<Known>], Verdict); 16] = [
            // The very first start, whoever comes first.
            (1, &[None, None, None], Verdict::AsksAgain),
            (1, &[Some(Empty), None, None], Verdict::TakesPart),
            (0, &[None, Some(Empty), None], Verdict::AsksAgain),
            (0, &[None, Some(Empty), Some(Empty)], Verdict::TakesPart),
            (0, &[None, None], Verdict::AsksAgain),
            (0, &[None, Some(Empty)], Verdict::TakesPart),
            (1, &[Some(Empty), None], Verdict::TakesPart),
            // The first has begun, and needs one more to agree.
            (1, &[Some(NotYet), None, Some(Empty)], Verdict::TakesPart),
            // Two of three have: they can agree alone, and then they say more.
            (2, &[Some(NotYet), Some(NotYet), None], Verdict::AsksAgain),
            (2, &[Some(Expected), Some(NotYet), None], Verdict::TakesPart),
            // Three of five are still empty: the two others can't agree without them.
            (4, &[Some(NotYet), Some(NotYet), Some(Empty), Some(Empty), None], Verdict::TakesPart),
            (4, &[Some(NotYet), Some(NotYet), Some(NotYet), Some(Empty), None], Verdict::AsksAgain),
            // The last of four has no vote, and says nothing about the three that do.
            (3, &[Some(NotYet), Some(NotYet), None, None], Verdict::AsksAgain),
            // Its data is lost.
            (2, &[Some(WasThere), Some(NotYet), None], Verdict::IsLost),
            (0, &[None, Some(WasThere)], Verdict::IsLost),
            // Not even by a list that has changed: the others refuse to speak with it.
            (2, &[Some(Absent), Some(Absent), None], Verdict::AsksAgain),
        ];
        for (own, answers, verdict) in table {
            assert_eq!(judge(own, answers), verdict, "{own} {answers:?}");
        }
    }
}
