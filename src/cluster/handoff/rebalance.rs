//! What is to move next, decided by the leader: towards what the planner wants, a few partitions at a time, and only between nodes
//! that are there.
//!
//! A plan is made anew each time from the table in force, so a member that comes or goes in the middle is simply in the next one.
//! The planner moves as little as an even load allows and is the same for everybody, so nothing goes back and forth.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::state::{Agreed, MOVES_MAX};
use crate::placement::planner::{self, Effect};
use crate::placement::{BootId, Epoch, Member, Members, NodeId, Partition, Weight};

/// Partitions under way at a time, in the whole cluster: one command's worth going out of a node while another is prepared.
pub const MOVES_AT_ONCE: usize = 2 * MOVES_MAX;

/// The partitions that are to begin to move, and to whom; at most one command's worth. `reachable` says who is there.
pub fn next_moves(agreed: &Agreed, reachable: &BTreeSet<NodeId>) -> Vec<(Partition, Epoch, NodeId)> {
    let Some(members) = eligible(agreed, reachable) else { return Vec::new() };
    // Nobody left who may own anything: then it stays where it is.
    let Ok(plan) = planner::moves(&members, &agreed.table) else { return Vec::new() };
    let moving: BTreeSet<_> = agreed.table.moves().map(|(partition, ..)| partition).collect();
    let there = |effect: &Effect| match effect {
        Effect::Move { from, to, .. } => reachable.contains(from) && reachable.contains(to),
        Effect::PlaceReplica { .. } => false,
    };
    let moves: Vec<_> = plan.into_iter().filter(there).collect();
    let next = planner::next_moves(&moves, &moving, MOVES_AT_ONCE);
    let mut from_each: BTreeMap<NodeId, usize> = BTreeMap::new();
    agreed.table.moves().for_each(|(_, row, _)| *from_each.entry(row.owner.node).or_default() += 1);
    let next = next.into_iter().filter_map(|effect| match effect {
        Effect::Move { partition, from, to } => Some((partition, from, to)),
        Effect::PlaceReplica { .. } => None,
    });
    next
        // One after another from each node: what is frozen is frozen for as long as all of it takes.
        .filter(|(_, from, _)| from_each.get(from).copied().unwrap_or(0) == 0)
        .take(MOVES_MAX)
        .map(|(partition, _, to)| (partition, agreed.table.row(partition).epoch, to))
        .collect()
}

/// Who may own: members that are there, or at least may come back to what they own; not those that are to own nothing.
fn eligible(agreed: &Agreed, reachable: &BTreeSet<NodeId>) -> Option<Members> {
    let member = |(id, member): (NodeId, &crate::cluster::state::Member)| Member {
        id,
        weight: Weight::ONE,
        may_own: !member.draining && !member.stopping && member.boot != BootId::NEVER,
    };
    let members: Vec<_> = agreed.members.iter().map(member).collect();
    // Who can't be reached keeps what it owns, and is given nothing: moving to it would only fail.
    let someone = members.iter().any(|member| member.may_own && reachable.contains(&member.id));
    someone.then(|| Members::new(members).ok()).flatten()
}
