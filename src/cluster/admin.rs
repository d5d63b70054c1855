//! What administrators want of the members: one is to be admitted, to leave, to own nothing.
//!
//! An order may be given to any node, and is judged by the leader: it alone knows who answers whom
//! it needs for a majority. What the order does then stands in the log; the rest is the
//! [steward](super::steward)'s work.
//!
//! An order is refused where it would cost what can't be had back: the majority, the last node that
//! may own partitions, or what a node has counted that could still hand it over. So nobody is
//! admitted who doesn't answer where it says that it can be reached, since who can't be reached and
//! gets a vote is one that others have to make up for.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::member::Member;
use super::raft::ProposeError;
use super::state::{
    self, Agreed, Done, Leaving, LogIndex, Made, NewMember, Refusal, Seating, What,
};
use super::steward::{Facts, GIVEN_UP_AFTER, SILENT_AFTER, Steward};
use super::voters::needs_vote_of;
use crate::check::Name;
use crate::peer::{Ask, Kind};
use crate::placement::{BootId, NodeId, Weight};

/// How long an order may take, its way to the leader included.
const ORDER_WITHIN: Duration = Duration::from_secs(10);
/// How long a node that wants in is looked for at its address.
const KNOCK_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait before it is looked for again.
const KNOCK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long an answer waits until this node, too, has applied what was done.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// A node is to become a member.
    Admit(NewMember),
    /// A member is to leave.
    Leave {
        /// Its name.
        node: Name,
        /// With what it owns handed over, or given up.
        how: Leaving,
    },
    /// A member is to own nothing any more; or may again, and stays if it was leaving.
    Drain {
        /// Its name.
        node: Name,
        /// Which of both.
        draining: bool,
    },
    /// A member is to take more of the load, or less.
    Weigh {
        /// Its name.
        node: Name,
        /// With none it owns nothing.
        weight: Weight,
    },
}

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

/// An order that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The member that it is about.
    pub node: NodeId,
    /// The entry of the log that says so, or a later one.
    pub at: LogIndex,
    /// It wasn't so before.
    pub is_new: bool,
}

/// Why an order was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Denied {
    /// Nobody could judge it. Nothing was changed.
    #[error("the cluster has no leader at the moment; nothing was changed")]
    NoLeader,
    /// The time was up while it was on its way.
    #[error("whether it was done is not known: look at the members before asking again")]
    Unknown,
    /// There is nobody of that name.
    #[error("there is no node {0}")]
    NoSuchNode(Name),
    /// It can't be, whatever becomes of the cluster.
    #[error("{detail}")]
    Impossible {
        /// The member of the order that is at fault; empty for the whole.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// It could be done, and would cost what can't be had back.
    #[error("{0}")]
    Unsafe(String),
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
        let judged = self.with_facts(|steward, facts| judge_leaving(steward, facts, &node, how));
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

fn named<'a>(agreed: &'a Agreed, name: &Name) -> Result<(NodeId, &'a state::Member), Denied> {
    let found = agreed.members.iter().find(|(_, member)| member.name == *name);
    found.ok_or_else(|| Denied::NoSuchNode(name.clone()))
}

/// What a node is that asks to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// No member yet.
    New,
    /// A member that has never been there.
    Is(NodeId),
    /// The same, at other addresses: its container was restarted before its first start was
    /// through.
    Moves(NodeId),
}

/// Returns what becomes of the request; errs where the node can't be admitted.
fn judge_admission(agreed: &Agreed, new: &NewMember) -> Result<Admission, Denied> {
    let impossible =
        |path: &str, detail: String| Err(Denied::Impossible { path: path.into(), detail });
    let same = named(agreed, &new.name).ok();
    match same {
        Some((id, member)) if member.was_there() => {
            return impossible("id", format!("{} is a member already, as node {id}", new.name));
        }
        Some((id, member)) if (&member.http, &member.peer) == (&new.http, &new.peer) => {
            return Ok(Admission::Is(id));
        }
        _ => {}
    }
    for (_, member) in
        agreed.members.iter().filter(|(id, _)| same.is_none_or(|(same, _)| same != *id))
    {
        for (path, theirs, ours) in
            [("http", &member.http, &new.http), ("peer", &member.peer, &new.peer)]
        {
            if theirs == ours {
                return impossible(
                    path,
                    format!("{ours} is the {path} address of {} already", member.name),
                );
            }
        }
        if member.peer.is_empty() {
            let detail = format!(
                "{} is alone: it has no peer address where others could reach it",
                member.name
            );
            return impossible("", detail);
        }
    }
    Ok(same.map_or(Admission::New, |(id, _)| Admission::Moves(id)))
}

/// The number of the member that may leave, and whether that is news.
fn judge_leaving(
    steward: &Steward,
    facts: &Facts<'_>,
    name: &Name,
    how: Leaving,
) -> Result<(NodeId, bool), Denied> {
    let (id, member) = named(facts.agreed, name)?;
    if member.leaving == Some(how) || member.leaving == Some(Leaving::Abandoned) {
        return Ok((id, false));
    }
    facts.agreed.spare(id).map_err(|refusal| refused(name, &refusal))?;
    let silence = if id == facts.me { Duration::ZERO } else { steward.silence(facts, id) };
    let owned = facts.agreed.owned_by(id);
    match how {
        Leaving::Abandoned if silence < GIVEN_UP_AFTER => {
            return Err(Denied::Unsafe(match id == facts.me || steward.has_heard(facts, id) {
                true => format!(
                    "{name} was heard of in the last {GIVEN_UP_AFTER:?}: it can hand \
                                 over what it has counted; only a node that is gone is given up"
                ),
                false => format!(
                    "{name} may still run: the leader has led for {silence:.1?} and \
                                  has not heard of it in that time; only a node that was silent \
                                  for {GIVEN_UP_AFTER:?} is given up: ask again in a few seconds"
                ),
            }));
        }
        Leaving::HandingOver if silence > SILENT_AFTER && owned > 0 => {
            return Err(Denied::Unsafe(format!(
                "{name} can't be reached, so the {owned} partitions that it owns can't be handed \
                 over: bring it back, or give it up, and they begin as spent elsewhere"
            )));
        }
        Leaving::Abandoned | Leaving::HandingOver => {}
    }
    match needs_vote_of(&steward.standings(facts), id) {
        Some(why) => {
            Err(Denied::Unsafe(format!("the cluster can't do without the vote of {name}: {why}")))
        }
        None => Ok((id, true)),
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

/// What the log refuses, in the words of people.
fn refused(name: &Name, refusal: &Refusal) -> Denied {
    match refusal {
        Refusal::NoSuchMember(_) => Denied::NoSuchNode(name.clone()),
        Refusal::LastMember(_) => Denied::Unsafe(format!("{name} is the last member")),
        Refusal::LastOwner(_) => Denied::Unsafe(format!(
            "{name} is the last node that may own partitions: nobody could decide"
        )),
        Refusal::NotBegun => Denied::NoLeader,
        other => Denied::Impossible { path: String::new(), detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::SECOND;
    use crate::cluster::raft::{Following, Roster};
    use crate::cluster::state::{Command, RequestId, State};
    use crate::placement::Secret;

    fn name(node: u64) -> Name {
        Name::new(&format!("n{node}")).unwrap()
    }

    fn new(node: u64) -> NewMember {
        NewMember {
            name: name(node),
            http: format!("h{node}:1"),
            peer: format!("p{node}:1"),
            weight: Weight::ONE,
        }
    }

    /// Nodes 1 to 3, all there, and node 4, which was admitted and hasn't come.
    fn agreed() -> State {
        let document = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.into();
        let begin = What::Begin {
            secret: Secret::new(1, 2).into(),
            document,
            members: [1, 2, 3].map(new).into(),
        };
        let seat = |node| {
            let seating =
                Seating { boot: BootId(1), http: format!("h{node}:1"), peer: format!("p{node}:1") };
            What::Seat(NodeId(node), seating)
        };
        let mut state = State::default();
        for (at, what) in (3..).zip([begin, seat(1), seat(2), seat(3), What::Admit(new(4))]) {
            let command =
                Command { request: RequestId(at.into()), time: 1, by: "ops".into(), what };
            state.apply(LogIndex(at), &command).unwrap();
        }
        state
    }

    #[test]
    fn whoever_asks_again_before_it_has_been_there_is_answered_the_same() {
        let state = agreed();
        let judged = |new: &NewMember| match judge_admission(state.agreed().unwrap(), new) {
            Ok(admission) => format!("{admission:?}"),
            Err(denied) => denied.to_string(),
        };
        assert_eq!(judged(&new(4)), "Is(NodeId(7))");
        assert_eq!(judged(&new(5)), "New");
        let other = |node, http: &str, peer: &str| NewMember {
            name: name(node),
            http: http.into(),
            peer: peer.into(),
            weight: Weight::ONE,
        };
        // Its container may have got another address before it was ever there.
        assert_eq!(judged(&other(4, "h4:1", "p9:1")), "Moves(NodeId(7))");
        for (wanted, why) in [
            (other(4, "h4:1", "p3:1"), "p3:1 is the peer address of n3 already"),
            (new(2), "n2 is a member already, as node 2"),
            (other(5, "h3:1", "p5:1"), "h3:1 is the http address of n3 already"),
            (other(5, "h5:1", "p4:1"), "p4:1 is the peer address of n4 already"),
        ] {
            assert_eq!(judged(&wanted), why);
        }
    }

    const NEVER_HEARD: u64 = u64::MAX;

    /// What becomes of the order that node `node` leave, where each of the others has been silent
    /// for so many seconds.
    fn leaving(node: u64, how: Leaving, silent: [u64; 3]) -> String {
        let state = agreed();
        let heard = |(id, silent): (u64, u64)| {
            let silent = (silent != NEVER_HEARD).then(|| Duration::from_secs(silent));
            (NodeId(id), Following { behind: 0, silent })
        };
        let following: BTreeMap<_, _> = (2..).zip(silent).map(heard).collect();
        let roster = Roster {
            nodes: BTreeMap::new(),
            voters: [1, 2, 3].map(NodeId).into(),
            is_joint: false,
            is_settled: true,
        };
        let agreed = state.agreed().unwrap();
        let facts = Facts {
            me: NodeId(1),
            agreed,
            roster: &roster,
            following: &following,
            now: 100 * SECOND,
        };
        match judge_leaving(&Steward::default(), &facts, &name(node), how) {
            Ok((id, is_new)) => format!("{id} {is_new}"),
            Err(denied) => denied.to_string(),
        }
    }

    #[test]
    fn who_answers_hands_over_and_who_does_not_is_given_up() {
        for node in 1..=3 {
            assert_eq!(leaving(node, Leaving::HandingOver, [0, 0, 0]), format!("{node} true"));
        }
        assert_eq!(leaving(9, Leaving::HandingOver, [0, 0, 0]), "there is no node n9");
        let why = leaving(3, Leaving::HandingOver, [0, 2, 0]);
        assert!(why.starts_with("n3 can't be reached, so the 136"), "{why}");
        for silent in [0, 4] {
            let why = leaving(3, Leaving::Abandoned, [0, silent, 0]);
            assert!(why.starts_with("n3 was heard of in the last 5s"), "{why}");
        }
        assert_eq!(leaving(3, Leaving::Abandoned, [0, 5, 0]), "3 true");
        let why = leaving(3, Leaving::Abandoned, [0, NEVER_HEARD, 0]);
        assert!(why.starts_with("n3 may still run: the leader has led for 0.0"), "{why}");
        assert!(leaving(1, Leaving::Abandoned, [0, 0, 0]).starts_with("n1 was heard of"));
    }

    #[test]
    fn nobody_leaves_whose_vote_the_majority_needs() {
        let why = "the cluster can't do without the vote of n3: of the 2 others that vote 1 can be \
                   reached, and 2 of 3 are the majority";
        assert_eq!(leaving(3, Leaving::HandingOver, [9, 0, 0]), why);
        assert_eq!(leaving(2, Leaving::Abandoned, [9, 9, 0]), why.replace("n3", "n2"));
    }
}
