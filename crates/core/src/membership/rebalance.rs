//! What is to move next, decided by the leader: towards what the planner wants, a few partitions at
//! a time, and only between nodes that are there.
//!
//! A plan is made anew each time from the table in force, so a member that comes or goes in the
//! middle is simply in the next one. The planner moves as little as an even load allows and is the
//! same for everybody, so nothing goes back and forth.

use std::collections::{BTreeMap, BTreeSet};

use crate::placement::planner::{self, Effect};
use crate::placement::{BootId, Epoch, Members, NodeId, Partition};
use crate::state::{Agreed, MOVES_MAX, Member};

/// Partitions under way at a time, in the whole cluster: one command's worth going out of a node
/// while another is prepared.
pub const MOVES_AT_ONCE: usize = 2 * MOVES_MAX;

/// Partitions that move from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who owns them.
    pub from: NodeId,
    /// Who is to own them.
    pub to: NodeId,
    /// Those on their way.
    pub moving: usize,
    /// Those that are still to begin.
    pub waiting: usize,
}

/// All that is to move until the load is as it should be, by whose it is and whose it will be.
pub fn flows(agreed: &Agreed) -> Vec<Flow> {
    let mut flows: BTreeMap<(NodeId, NodeId), (usize, usize)> = BTreeMap::new();
    let mut begun = BTreeSet::new();
    for (partition, row, moving) in agreed.table.moves() {
        begun.insert(partition);
        flows.entry((row.owner.node, moving.to.node)).or_default().0 += 1;
    }
    let waiting = planned(agreed).into_iter().filter(|effect| !begun.contains(&effect.partition()));
    waiting
        .filter_map(|effect| ends(&effect))
        .for_each(|ends| flows.entry(ends).or_default().1 += 1);
    flows
        .into_iter()
        .map(|((from, to), (moving, waiting))| Flow { from, to, moving, waiting })
        .collect()
}

/// The partitions that are to begin to move, and to whom; at most one command's worth. `reachable`
/// says who is there.
pub fn next_moves(
    agreed: &Agreed,
    reachable: &BTreeSet<NodeId>,
) -> Vec<(Partition, Epoch, NodeId)> {
    let begun: BTreeSet<_> = agreed.table.moves().map(|(partition, ..)| partition).collect();
    let mut from_each: BTreeMap<NodeId, usize> = BTreeMap::new();
    agreed.table.moves().for_each(|(_, row, _)| *from_each.entry(row.owner.node).or_default() += 1);
    let mut moves = planned(agreed);
    // Who can't be reached keeps what it owns, and is given nothing: moving to it would only fail.
    moves.retain(|effect| {
        ends(effect).is_some_and(|(from, to)| reachable.contains(&from) && reachable.contains(&to))
    });
    planner::next_moves(&moves, &begun, MOVES_AT_ONCE)
        .into_iter()
        .filter_map(|effect| Some((effect.partition(), ends(&effect)?)))
        // One after another from each node: what is frozen is frozen for as long as all of it
        // takes.
        .filter(|(_, (from, _))| from_each.get(from).copied().unwrap_or(0) == 0)
        .take(MOVES_MAX)
        .map(|(partition, (_, to))| (partition, agreed.table.row(partition).epoch, to))
        .collect()
}

/// What the planner wants to move, those on their way included: the most urgent first. Nothing
/// where nobody is left who may own anything: then it stays where it is.
///
/// A founder that has not registered yet keeps what the founding gave it: it registers within
/// moments, and until then its partitions would go to another node and back.
fn planned(agreed: &Agreed) -> Vec<Effect> {
    let rows = agreed.table.rows();
    let unregistered = rows.filter(|(_, row)| row.owner.boot == BootId::NEVER);
    let founders: BTreeSet<_> = unregistered.map(|(_, row)| row.owner.node).collect();
    let placed = |(id, member): (NodeId, &Member)| match founders.contains(&id) {
        true => member.placed_as_founder(id),
        false => member.placed(id),
    };
    let members = Members::new(agreed.members.iter().map(placed));
    let plan = members.ok().and_then(|members| planner::moves(&members, &agreed.table).ok());
    plan.into_iter().flatten().filter(|effect| ends(effect).is_some()).collect()
}

/// From where a partition moves, and to where.
fn ends(effect: &Effect) -> Option<(NodeId, NodeId)> {
    match effect {
        Effect::Move { from, to, .. } => Some((*from, *to)),
        Effect::PlaceReplica { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Name;
    use crate::placement::{Secret, Weight};
    use crate::state::{Command, LogIndex, NewMember, RequestId, Seating, State, What};

    /// A state, and the entries that have led to it.
    #[derive(Default)]
    struct World(State, u64);

    impl World {
        fn apply(&mut self, what: What) {
            self.1 += 1;
            let command =
                Command { request: RequestId(self.1.into()), time: 1, by: "ops".into(), what };
            self.0.apply(LogIndex(self.1), &command).unwrap();
        }

        fn flows(&self) -> Vec<(u64, u64, usize, usize)> {
            let flows = flows(self.0.agreed().unwrap()).into_iter();
            flows.map(|flow| (flow.from.0, flow.to.0, flow.moving, flow.waiting)).collect()
        }

        /// Moves whatever is to be moved between nodes that are all there; how many moved.
        fn settle(&mut self) -> usize {
            let mut moved = 0;
            loop {
                let agreed = self.0.agreed().unwrap();
                let all = agreed.members.iter().map(|(id, _)| id).collect();
                let next = next_moves(agreed, &all);
                if next.is_empty() {
                    return moved;
                }
                moved += next.len();
                let partitions: Vec<_> = next.iter().map(|(partition, ..)| *partition).collect();
                self.apply(What::BeginMoves(next));
                let began = LogIndex(self.1);
                self.apply(What::CommitMoves(partitions.into_iter().map(|p| (p, began)).collect()));
            }
        }
    }

    /// Three founders, of which the first `registered` have registered.
    fn founded(registered: u64) -> World {
        let member = |n| NewMember {
            name: Name::new(&format!("n{n}")).unwrap(),
            http: format!("h{n}:1"),
            peer: format!("p{n}:1"),
            weight: Weight::ONE,
        };
        let document = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.into();
        let mut world = World::default();
        let members = [1, 2, 3].map(member).into();
        world.apply(What::Begin { secret: Secret::new(1, 2).into(), document, members });
        for n in 1..=registered {
            let seating =
                Seating { boot: BootId(1), http: format!("h{n}:1"), peer: format!("p{n}:1") };
            world.apply(What::Seat(NodeId(n), seating));
        }
        world
    }

    fn three() -> World {
        founded(3)
    }

    #[test]
    fn founders_that_have_not_registered_keep_their_partitions() {
        for registered in 0..=3 {
            assert_eq!(founded(registered).settle(), 0, "{registered} have registered");
        }
        let mut world = founded(2);
        let owned = world.0.agreed().unwrap().owned_by(NodeId(3));
        world.apply(What::Drain(NodeId(3), true));
        assert_eq!(world.settle(), owned);
    }

    #[test]
    fn it_is_shown_what_moves_and_how_much_is_still_to_come() {
        let mut world = three();
        assert_eq!(world.flows(), []);
        let owned = world.0.agreed().unwrap().owned_by(NodeId(2));
        world.apply(What::Weigh(NodeId(2), Weight::NONE));
        let waiting: usize = world.flows().iter().map(|flow| flow.3).sum();
        assert_eq!(waiting, owned);
        assert!(world.flows().iter().all(|flow| flow.0 == 2 && flow.2 == 0));
        let agreed = world.0.agreed().unwrap();
        world.apply(What::BeginMoves(next_moves(agreed, &[1, 2, 3].map(NodeId).into())));
        let moving: usize = world.flows().iter().map(|flow| flow.2).sum();
        let waiting: usize = world.flows().iter().map(|flow| flow.3).sum();
        assert_eq!((moving, waiting), (MOVES_MAX, owned - MOVES_MAX));
    }

    #[test]
    fn weights_are_followed_by_as_few_moves_as_it_takes() {
        let mut world = three();
        world.apply(What::Weigh(NodeId(3), Weight::new(2).unwrap()));
        // From 1365 or 1366 to 2048.
        let before = world.0.agreed().unwrap().owned_by(NodeId(3));
        assert_eq!(world.settle(), 2048 - before);
        let owned = |world: &World, id| world.0.agreed().unwrap().owned_by(NodeId(id));
        assert_eq!([1, 2, 3].map(|id| owned(&world, id)), [1024, 1024, 2048]);
        assert_eq!(world.flows(), []);
        world.apply(What::Weigh(NodeId(3), Weight::NONE));
        assert_eq!(world.settle(), 2048);
        assert_eq!([1, 2, 3].map(|id| owned(&world, id)), [2048, 2048, 0]);
    }
}
