//! The leader's housekeeping: who gets the log, who votes, who is gone. One step at a time, each
//! decided from what is known and then done, so that another leader goes on wherever one has
//! stopped.
//!
//! ```text
//! n4 is admitted                           AddLearner(4)            it gets the log
//! n4 has kept up for ten seconds           ChangeVoters(1, 2, 4)    where another vote is of use: see `voters`
//! n3 is to leave and owns nothing          ChangeVoters(1, 2, 4)    in its place; a leader first hands that over
//! n3 doesn't vote                          Remove(3)                it is no member any more, and its log says so
//! n3 has had two seconds to hear of it     Forget(3)                it doesn't get the log any more
//! ```
//!
//! The reconciler never acts on its own opinion of who is dead. A member that is down stays a member,
//! with its vote, until an administrator says that it is to leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::roster::{Address, Following, Roster};
use super::voters::{Standing, wanted_voters};
use crate::placement::NodeId;
use crate::state::{Agreed, Leaving, Member};
use crate::time::SECOND;

/// How long a node has to keep up with the log before it may vote: longer than a network flaps
/// (RELIABILITY, membership).
pub const STEADY_AFTER: u64 = 10 * SECOND;
/// A node that hasn't answered for longer can't be reached. Heartbeats go out ten times a second.
pub const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A node that has been silent for longer may be given up: it decides nothing any more, since it
/// has long noticed that it is cut off.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);
/// Entries that a node may lack and still count as keeping up: what is on its way to it at a
/// thousand writes a second.
const BEHIND_MAX: u64 = 200;
/// How long who is no member any more gets the log, so that it hears of that.
const LINGER: u64 = 2 * SECOND;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A member is to get the log.
    AddLearner(NodeId, Address),
    /// A member is reached elsewhere than Raft's records say.
    NoteAddress(NodeId, Address),
    /// A change of voters is half done.
    FinishChange,
    /// Others are to vote.
    ChangeVoters(BTreeSet<NodeId>),
    /// The leader is about to lose its vote.
    HandLeadershipTo(NodeId),
    /// A member is none any more.
    Remove(NodeId),
    /// Who is no member is not to get the log any more.
    Forget(BTreeSet<NodeId>),
}

/// What is known at a moment.
pub struct Facts<'a> {
    /// The leader, whose reconciler this is.
    pub me: NodeId,
    /// What is agreed on.
    pub agreed: &'a Agreed,
    /// Raft's records.
    pub roster: &'a Roster,
    /// How the others keep up.
    pub following: &'a BTreeMap<NodeId, Following>,
    /// Boot nanoseconds.
    pub now: u64,
}

/// What a reconciler remembers from look to look; forgotten with the leadership.
#[derive(Clone, Debug, Default)]
pub struct Reconciler {
    /// Since when this node has led.
    since: Option<u64>,
    /// Since when each node has kept up.
    steady: BTreeMap<NodeId, u64>,
    /// Since when each that gets the log has been no member.
    strangers: BTreeMap<NodeId, u64>,
}

impl Reconciler {
    /// Takes note of what is known, and says what to do next; nothing if all is as it should be or
    /// has to wait.
    pub fn next(&mut self, facts: &Facts<'_>) -> Option<Step> {
        self.observe(facts);
        let Facts { agreed, roster, .. } = facts;
        if !roster.is_settled {
            return None;
        }
        if roster.is_joint {
            return Some(Step::FinishChange);
        }
        for (id, member) in agreed.members.iter().filter(|(_, member)| member.leaving.is_none()) {
            let address = Address::new(member.name.as_str(), member.peer.as_str());
            match roster.nodes.get(&id) {
                None => return Some(Step::AddLearner(id, address)),
                Some(noted) if *noted != address => return Some(Step::NoteAddress(id, address)),
                Some(_) => {}
            }
        }
        self.voting(facts).or_else(|| self.leaving(facts))
    }

    /// How a member stands as this leader sees it.
    pub fn standings(&self, facts: &Facts<'_>) -> BTreeMap<NodeId, Standing> {
        let Facts { me, agreed, roster, now, .. } = facts;
        let standing = |(id, member): (NodeId, &Member)| {
            let is_new = !member.was_there() || !roster.nodes.contains_key(&id);
            let steady = self
                .steady
                .get(&id)
                .is_some_and(|since| now.saturating_sub(*since) >= STEADY_AFTER);
            let standing = Standing {
                votes: roster.voters.contains(&id),
                stays: !is_going(agreed, id),
                answers: id == *me || self.silence(facts, id) <= SILENT_AFTER,
                is_steady: id == *me || (steady && !is_new),
            };
            (id, standing)
        };
        agreed.members.iter().map(standing).collect()
    }

    /// How long a node has said nothing; since this node leads, if it never did.
    pub fn silence(&self, facts: &Facts<'_>, id: NodeId) -> Duration {
        let led =
            Duration::from_nanos(self.since.map_or(0, |since| facts.now.saturating_sub(since)));
        let heard = facts.following.get(&id).and_then(|following| following.silent);
        heard.unwrap_or(led)
    }

    /// Returns whether this leader has had an answer of the node since it leads.
    pub fn has_heard(&self, facts: &Facts<'_>, id: NodeId) -> bool {
        facts.following.get(&id).is_some_and(|following| following.silent.is_some())
    }

    fn observe(&mut self, facts: &Facts<'_>) {
        let Facts { agreed, roster, following, now, .. } = facts;
        self.since.get_or_insert(*now);
        let keeps_up = |following: &Following| {
            following.behind <= BEHIND_MAX
                && following.silent.is_some_and(|silent| silent <= SILENT_AFTER)
        };
        self.steady.retain(|id, _| following.get(id).is_some_and(keeps_up));
        for (id, _) in following.iter().filter(|(_, following)| keeps_up(following)) {
            self.steady.entry(*id).or_insert(*now);
        }
        self.strangers
            .retain(|id, _| roster.nodes.contains_key(id) && agreed.members.get(*id).is_none());
        for id in roster.nodes.keys().filter(|id| agreed.members.get(**id).is_none()) {
            self.strangers.entry(*id).or_insert(*now);
        }
    }

    fn voting(&self, facts: &Facts<'_>) -> Option<Step> {
        let Facts { me, agreed, roster, .. } = facts;
        let mut standings = self.standings(facts);
        // A vote of somebody who is no member is as good as given back; nobody leads to that, but
        // nothing forbids it.
        for id in roster.voters.iter().filter(|id| agreed.members.get(**id).is_none()) {
            let answers = self.silence(facts, *id) <= SILENT_AFTER;
            standings
                .insert(*id, Standing { votes: true, stays: false, answers, is_steady: false });
        }
        let wanted = wanted_voters(&standings, *me)?;
        if wanted.contains(me) {
            return Some(Step::ChangeVoters(wanted));
        }
        // Whoever loses its vote is not to lead meanwhile. Where nobody else votes yet, the change
        // itself makes the next leader.
        let successor =
            wanted.iter().find(|id| standings[*id].votes && standings[*id].answers).copied();
        Some(successor.map_or(Step::ChangeVoters(wanted), Step::HandLeadershipTo))
    }

    fn leaving(&self, facts: &Facts<'_>) -> Option<Step> {
        let Facts { me, agreed, roster, now, .. } = facts;
        let gone = agreed
            .members
            .iter()
            .find(|(id, _)| is_going(agreed, *id) && !roster.voters.contains(id));
        if let Some((id, _)) = gone.filter(|(id, _)| id != me) {
            return Some(Step::Remove(id));
        }
        let has_heard = |(id, since): &(&NodeId, &u64)| {
            !roster.voters.contains(id) && now.saturating_sub(**since) >= LINGER
        };
        let forgotten: BTreeSet<_> =
            self.strangers.iter().filter(has_heard).map(|(id, _)| *id).collect();
        (!forgotten.is_empty()).then_some(Step::Forget(forgotten))
    }
}

/// Whether nothing holds a member any more that is to leave: it owns nothing, or what it owns is
/// given up.
pub fn is_going(agreed: &Agreed, id: NodeId) -> bool {
    match agreed.members.get(id).and_then(|member| member.leaving) {
        Some(Leaving::Abandoned) => true,
        Some(Leaving::HandingOver) => agreed.owned_by(id) == 0,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Name;
    use crate::placement::{BootId, Secret, Weight};
    use crate::state::{Command, LogIndex, NewMember, RequestId, Seating, State, What};

    const ALL: [u64; 4] = [1, 2, 3, 4];

    /// A cluster as its leader sees it; node 4 has just been admitted as `n4`.
    struct World {
        state: State,
        roster: Roster,
        following: BTreeMap<NodeId, Following>,
        now: u64,
        leader: u64,
        reconciler: Reconciler,
        at: u64,
    }

    fn address(node: u64) -> Address {
        Address::new(format!("n{node}"), format!("p{node}:1"))
    }

    fn new(node: u64) -> NewMember {
        let name = Name::new(&format!("n{node}")).unwrap();
        NewMember {
            name,
            http: format!("h{node}:1"),
            peer: format!("p{node}:1"),
            weight: Weight::ONE,
        }
    }

    impl World {
        /// Three nodes that vote, all of them there and keeping up.
        fn new() -> Self {
            let following = Following { behind: 0, silent: Some(Duration::ZERO) };
            let mut world = Self {
                state: State::default(),
                roster: Roster {
                    nodes: [1, 2, 3].map(|id| (NodeId(id), address(id))).into(),
                    voters: [1, 2, 3].map(NodeId).into(),
                    is_joint: false,
                    is_settled: true,
                },
                following: [2, 3].map(|id| (NodeId(id), following)).into(),
                now: 100 * SECOND,
                leader: 1,
                reconciler: Reconciler::default(),
                at: 2,
            };
            let document = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.into();
            let members = [1, 2, 3].map(new).into();
            world.apply(What::Begin { secret: Secret::new(1, 2).into(), document, members });
            [1, 2, 3].into_iter().for_each(|node| world.seat(node, &format!("p{node}:1")));
            world
        }

        fn apply(&mut self, what: What) {
            self.at += 1;
            let request = RequestId(u128::from(self.at));
            let command = Command { request, time: 1, by: "ops".into(), what };
            self.state.apply(LogIndex(self.at), &command).unwrap();
        }

        fn seat(&mut self, node: u64, peer: &str) {
            let seating =
                Seating { boot: BootId(1), http: format!("h{node}:1"), peer: peer.into() };
            self.apply(What::Seat(NodeId(node), seating));
        }

        /// Node 4 is admitted (its number is that of the entry's, or the next after 3), gets the
        /// log, and is there.
        fn admit(&mut self) -> u64 {
            self.apply(What::Admit(new(4)));
            let agreed = self.state.agreed().unwrap();
            let (id, _) = agreed.members.iter().find(|(_, m)| m.name.as_str() == "n4").unwrap();
            assert_eq!(self.next(), Some(Step::AddLearner(id, address(4))));
            self.roster.nodes.insert(id, address(4));
            self.following.insert(id, Following { behind: 9_000, silent: Some(Duration::ZERO) });
            self.seat(id.0, "p4:1");
            id.0
        }

        fn next(&mut self) -> Option<Step> {
            let facts = Facts {
                me: NodeId(self.leader),
                agreed: self.state.agreed().unwrap(),
                roster: &self.roster,
                following: &self.following,
                now: self.now,
            };
            self.reconciler.next(&facts)
        }

        fn wait(&mut self, seconds: u64) -> Option<Step> {
            for _ in 0..seconds * 4 {
                let step = self.next();
                if step.is_some() {
                    return step;
                }
                self.now += SECOND / 4;
            }
            self.next()
        }

        fn keeps_up(&mut self, node: u64, behind: u64) {
            self.following.insert(NodeId(node), Following { behind, silent: Some(Duration::ZERO) });
        }

        fn falls_silent(&mut self, node: u64) {
            self.following
                .insert(NodeId(node), Following { behind: 0, silent: Some(SILENT_AFTER * 2) });
        }
    }

    fn voters(ids: &[u64]) -> Option<Step> {
        Some(Step::ChangeVoters(ids.iter().copied().map(NodeId).collect()))
    }

    #[test]
    fn a_cluster_that_is_as_it_should_be_is_left_alone() {
        let mut world = World::new();
        assert_eq!(world.wait(60), None);
        // Who is down is the administrator's business.
        world.falls_silent(3);
        assert_eq!(world.wait(600), None);
        // As is who is admitted and doesn't come.
        world.admit();
        assert_eq!(world.wait(600), None);
    }

    #[test]
    fn who_leaves_is_replaced_by_one_that_has_kept_up_for_ten_seconds() {
        let mut world = World::new();
        let n4 = world.admit();
        world.apply(What::Leave(NodeId(3), Leaving::Abandoned));
        assert_eq!(world.wait(60), None);
        world.keeps_up(n4, BEHIND_MAX);
        let began = world.now;
        assert_eq!(world.wait(9), None);
        // Whoever falls behind begins again.
        world.keeps_up(n4, BEHIND_MAX + 1);
        assert_eq!(world.wait(1), None);
        world.keeps_up(n4, 0);
        assert_eq!(world.wait(60), voters(&[1, 2, n4]));
        assert!(world.now - began >= 20 * SECOND, "{}", world.now - began);
        world.roster.voters = [1, 2, n4].map(NodeId).into();
        assert_eq!(world.next(), Some(Step::Remove(NodeId(3))));
        world.apply(What::Remove(NodeId(3)));
        assert_eq!(world.wait(1), None);
        assert_eq!(world.wait(2), Some(Step::Forget([NodeId(3)].into())));
        world.roster.nodes.remove(&NodeId(3));
        assert_eq!(world.wait(60), None);
    }

    #[test]
    fn who_leaves_in_peace_keeps_its_vote_until_it_owns_nothing() {
        let mut world = World::new();
        world.apply(What::Leave(NodeId(3), Leaving::HandingOver));
        assert_eq!(world.wait(600), None);
        // It is given up after all: two will be left, of which one votes.
        world.apply(What::Leave(NodeId(3), Leaving::Abandoned));
        assert_eq!(world.next(), voters(&[1]));
    }

    #[test]
    fn a_leader_that_leaves_lets_another_lead_first() {
        let mut world = World::new();
        world.apply(What::Leave(NodeId(1), Leaving::Abandoned));
        assert_eq!(world.next(), Some(Step::HandLeadershipTo(NodeId(2))));
        world.falls_silent(2);
        assert_eq!(world.next(), Some(Step::HandLeadershipTo(NodeId(3))));
        // Where it votes alone, its successor gets the vote and thereby leads.
        let mut world = World::new();
        (world.roster.voters, world.leader) = ([NodeId(1)].into(), 1);
        world.apply(What::Leave(NodeId(1), Leaving::Abandoned));
        world.apply(What::Leave(NodeId(3), Leaving::Abandoned));
        assert_eq!(world.next(), Some(Step::Remove(NodeId(3))));
        world.apply(What::Remove(NodeId(3)));
        world.roster.nodes.remove(&NodeId(3));
        assert_eq!(world.wait(60), voters(&[2]));
    }

    #[test]
    fn a_change_that_another_leader_began_is_finished_before_anything_else() {
        let mut world = World::new();
        (world.roster.is_joint, world.roster.is_settled) = (true, false);
        world.apply(What::Admit(new(4)));
        assert_eq!(world.next(), None);
        world.roster.is_settled = true;
        assert_eq!(world.next(), Some(Step::FinishChange));
        world.roster.is_joint = false;
        assert!(matches!(world.next(), Some(Step::AddLearner(..))));
    }

    #[test]
    fn where_a_member_is_reached_is_noted_for_those_who_know_nothing_else() {
        let mut world = World::new();
        world.seat(2, "q2:1");
        assert_eq!(world.next(), Some(Step::NoteAddress(NodeId(2), Address::new("n2", "q2:1"))));
    }

    #[test]
    fn silence_is_counted_from_the_beginning_of_the_leadership_at_least() {
        let mut world = World::new();
        world.following.insert(NodeId(3), Following { behind: 9, silent: None });
        world.next();
        world.now += 3 * SECOND;
        let facts = Facts {
            me: NodeId(1),
            agreed: world.state.agreed().unwrap(),
            roster: &world.roster,
            following: &world.following,
            now: world.now,
        };
        let silent: Vec<_> =
            ALL.iter().map(|id| world.reconciler.silence(&facts, NodeId(*id)).as_secs()).collect();
        assert_eq!(silent, [3, 0, 3, 3]);
        let answers = |id| world.reconciler.standings(&facts)[&NodeId(id)].answers;
        assert_eq!([1, 2, 3].map(answers), [true, true, false]);
    }
}
