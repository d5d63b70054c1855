//! What administrators want of the members: one is to be admitted, to leave, to own nothing.
//!
//! An order may be given to any node, and is judged by the leader: it alone knows who answers whom
//! it needs for a majority. What the order does then stands in the log; the rest is the
//! [reconciler](super::membership::Reconciler)'s work.
//!
//! An order is refused where it would cost what can't be had back: the majority, the last node that
//! may own partitions, or what a node has counted that could still hand it over. So nobody is
//! admitted who doesn't answer where it says that it can be reached, since who can't be reached and
//! gets a vote is one that others have to make up for.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::cluster::membership::orders::{
    Admission, judge_admission, judge_leaving, named, refused,
};
pub use crate::cluster::membership::orders::{Denied, Granted, Order};
use serde::{Deserialize, Serialize};

use super::member::Member;
use super::raft::ProposeError;
use super::state::{self, Done, Leaving, Made, NewMember, Refusal, Seating, What};
use crate::check::Name;
use crate::peer::{Ask, Kind};
use crate::placement::{BootId, NodeId};

/// How long an order may take, its way to the leader included.
const ORDER_WITHIN: Duration = Duration::from_secs(10);
/// How long a node that wants in is looked for at its address.
const KNOCK_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait before it is looked for again.
const KNOCK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long an answer waits until this node, too, has applied what was done.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// An order on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAsk {
    /// What is wanted.
    pub order: Order,
    /// The name of the token that asks for it.
    pub by: String,
}

impl Ask for OrderAsk {
    const KIND: Kind = Kind(Kind::RAFT.0 + 0x20);
    type Answer = Result<Granted, Denied>;
}

/// An order of a node that has no connection to the leader, for any member to pass on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAsk {
    /// What is wanted.
    pub order: Order,
    /// The name of the token that asks for it.
    pub by: String,
}

impl Ask for RelayAsk {
    const KIND: Kind = Kind(Kind::RAFT.0 + 0x22);
    type Answer = Result<Granted, Denied>;
}

/// What becomes of an order, when it is known.
pub type Administering<'a> = Pin<Box<dyn Future<Output = Result<Granted, Denied>> + Send + 'a>>;

impl Member {
    /// Has an order carried out, by the leader; answers once this node knows of it, too. Where this
    /// node can't reach the leader, another member passes the order on.
    pub(super) async fn order(&self, order: Order, by: String) -> Result<Granted, Denied> {
        let leader = self.raft.leader().ok_or(Denied::NoLeader)?;
        let granted = match leader == self.me().node || self.links.is_up(leader) {
            true if !self.has_quorum() => return Err(Denied::NoLeader),
            true => self.pass_order(order, by).await?,
            false => self.relay_order(leader, order, by).await?,
        };
        // Should this node be that late, its next answers show less than was done.
        let _ = tokio::time::timeout(SEEN_WITHIN, self.reach(granted.at)).await;
        Ok(granted)
    }

    /// Takes an order as the leader, or passes it on to the leader.
    pub async fn pass_order(&self, order: Order, by: String) -> Result<Granted, Denied> {
        let leader = self.raft.leader().ok_or(Denied::NoLeader)?;
        match self.links.peer(leader) {
            _ if leader == self.me().node => self.take_order(order, by).await,
            Some(peer) => match peer.raft().ask(&OrderAsk { order, by }, ORDER_WITHIN).await {
                Ok(answer) => answer,
                Err(error) if error.was_not_handled() => Err(Denied::NoLeader),
                Err(_) => Err(Denied::Unknown),
            },
            None => Err(Denied::NoLeader),
        }
    }

    /// Has another member pass an order on to `leader`, which this node can't reach.
    async fn relay_order(
        &self,
        leader: NodeId,
        order: Order,
        by: String,
    ) -> Result<Granted, Denied> {
        let others = self.raft.roster().nodes.into_keys();
        for id in others.filter(|id| *id != leader && self.links.is_up(*id)) {
            let Some(peer) = self.links.peer(id) else { continue };
            let asked = RelayAsk { order: order.clone(), by: by.clone() };
            match peer.raft().ask(&asked, ORDER_WITHIN).await {
                // Nothing was done there: the next one may reach the leader.
                Ok(Err(Denied::NoLeader)) => {}
                Ok(answer) => return answer,
                Err(error) if error.was_not_handled() => {}
                Err(_) => return Err(Denied::Unknown),
            }
        }
        Err(Denied::NoLeader)
    }

    /// Judges an order and carries it out, if this node leads.
    pub async fn take_order(&self, order: Order, by: String) -> Result<Granted, Denied> {
        if !self.raft.is_leader() {
            return Err(Denied::NoLeader);
        }
        // Boxed: each layer of an order adds to the depth of the futures that the compiler lays
        // out.
        let taken = Box::pin(async {
            match order {
                Order::Admit(new) => self.admit(new, by).await,
                Order::Leave { node, how } => self.let_leave(node, how, by).await,
                Order::Drain { node, draining } => {
                    self.set(
                        node,
                        |member| member.draining == draining,
                        |id| What::Drain(id, draining),
                        by,
                    )
                    .await
                }
                Order::Weigh { node, weight } => {
                    self.set(
                        node,
                        |member| member.weight == weight,
                        |id| What::Weigh(id, weight),
                        by,
                    )
                    .await
                }
            }
        });
        tokio::time::timeout(ORDER_WITHIN, taken).await.unwrap_or(Err(Denied::Unknown))
    }

    async fn admit(&self, new: NewMember, by: String) -> Result<Granted, Denied> {
        let judged = self
            .with_facts(|_, facts| judge_admission(facts.agreed, &new))
            .ok_or(Denied::NoLeader)?;
        match judged? {
            Admission::Is(node) => {
                return Ok(Granted { node, at: self.raft.view().applied, is_new: false });
            }
            Admission::Moves(node) => {
                self.find(&new).await?;
                let seating =
                    Seating { boot: BootId::NEVER, http: new.http.clone(), peer: new.peer.clone() };
                let moved = granted(&new.name, self.propose(What::Seat(node, seating), by).await)?;
                return Ok(Granted { is_new: false, ..moved });
            }
            Admission::New => {}
        }
        self.find(&new).await?;
        match self.propose(What::Admit(new.clone()), by).await {
            // Somebody was quicker: perhaps it was the same node that asked twice.
            Err(ProposeError::Refused(Refusal::MemberExists { .. })) => {
                let judged = self.with_facts(|_, facts| judge_admission(facts.agreed, &new));
                let Admission::Is(node) = judged.ok_or(Denied::NoLeader)?? else {
                    return Err(Denied::Unknown);
                };
                Ok(Granted { node, at: self.raft.view().applied, is_new: false })
            }
            proposed => granted(&new.name, proposed),
        }
    }

    /// Makes sure that the node is there where it says that it is.
    async fn find(&self, new: &NewMember) -> Result<(), Denied> {
        let mut why = String::from("nobody answered");
        let found = async {
            loop {
                match self.links.knock(&new.name, &new.peer).await {
                    Ok(level) => return level,
                    Err(error) => why = error,
                }
                tokio::time::sleep(KNOCK_AGAIN_AFTER).await;
            }
        };
        let found = tokio::time::timeout(KNOCK_WITHIN, found).await;
        let needs = self.raft.view().state.level();
        let detail = match found {
            Ok(level) if level >= needs => return Ok(()),
            Ok(level) => format!(
                "{} runs an older program: it reads format level {level}, and the cluster is at \
                 level {needs}",
                new.name
            ),
            Err(_) => format!("{} does not answer at {}: {why}", new.name, new.peer),
        };
        Err(Denied::Impossible { path: "peer".into(), detail })
    }

    async fn let_leave(&self, node: Name, how: Leaving, by: String) -> Result<Granted, Denied> {
        let judged =
            self.with_facts(|reconciler, facts| judge_leaving(reconciler, facts, &node, how));
        let (id, is_new) = judged.ok_or(Denied::NoLeader)??;
        if !is_new {
            return Ok(Granted { node: id, at: self.raft.view().applied, is_new });
        }
        granted(&node, self.propose(What::Leave(id, how), by).await)
    }

    /// Has `what` done to a member, unless it `is_so` already.
    async fn set(
        &self,
        node: Name,
        is_so: impl FnOnce(&state::Member) -> bool,
        what: impl FnOnce(NodeId) -> What,
        by: String,
    ) -> Result<Granted, Denied> {
        let view = self.raft.view();
        let (id, is_so) = {
            let agreed = view.state.agreed().ok_or(Denied::NoLeader)?;
            let (id, member) = named(agreed, &node)?;
            (id, is_so(member))
        };
        if is_so {
            return Ok(Granted { node: id, at: view.applied, is_new: false });
        }
        granted(&node, self.propose(what(id), by).await)
    }
}

fn granted(name: &Name, proposed: Result<Done, ProposeError>) -> Result<Granted, Denied> {
    let done = proposed.map_err(|error| match error {
        ProposeError::NoLeader => Denied::NoLeader,
        ProposeError::Unknown | ProposeError::Stopped => Denied::Unknown,
        ProposeError::OlderMembers(_) => Denied::Unsafe(error.to_string()),
        ProposeError::TooLarge { .. } => {
            Denied::Impossible { path: String::new(), detail: error.to_string() }
        }
        ProposeError::Refused(refusal) => refused(name, &refusal),
    })?;
    match done.made {
        Made::Member(node) => Ok(Granted { node, at: done.at, is_new: true }),
        Made::Version(_) | Made::Placement | Made::Level(_) | Made::Settings { .. } => {
            Err(Denied::Unknown)
        }
    }
}
