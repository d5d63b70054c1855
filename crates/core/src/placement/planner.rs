//! The planner: which partitions should be where, and what has to change for that. Pure: the same
//! members and the same table give the same plan on every node, in whatever order the members were
//! learned of.
//!
//! A plan fulfils three wishes, the first before the second before the third.
//!
//! 1. *An even load.* Every node owns its share, rounded up or down (`quota.rs`): of 4096
//!    partitions, a hundred equal nodes own 40 or 41 each.
//! 2. *Few moves.* A partition moves only if its owner may not own any longer, or has too many, or
//!    another has too few. With `homeless` rows of the first kind, `excess` what nodes own above
//!    their share rounded up, and `missing` what they lack to their share rounded down, a plan has
//!    exactly `max(homeless + excess, missing)` moves, and no table with an even load is nearer. So
//!    a fourth node beside three equal ones takes 1024 partitions and nothing else moves, and a
//!    node that leaves a balanced table gives away what it had and nothing else moves. With unequal
//!    weights the shares' fractions shift too: at most one further partition for each other node.
//! 3. *Everybody agrees where.* Which partitions move, and to whom of those that lack some, is
//!    decided by
//!    [rendezvous](super::rendezvous): pairs of partition and node in the order of their scores, highest first. A node that has
//!    the replica comes before all others, since the state is there.
//!
//! The replica is on the node with the best score besides the owner, always: it follows from owner
//! and members alone. A node that is lost leaves its partitions to all others in turn.
//!
//! ```text
//! table: n1 owns 1366, n2 1365, n3 1365      members: n1, n2, n3 and n4 with nothing
//! plan:  342 × Move { from: n1, to: n4 }, 341 × Move { from: n2, to: n4 }, 341 × Move { from: n3, to: n4 },
//!        then PlaceReplica where n4 scores best after the owner
//! ```
//!
//! A plan is for the table it was made from. Once some of it is done the rest is still right, but
//! what else has changed is not in it: plan anew from the table in force, which costs milliseconds,
//! and take the [`next_moves`] of that.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::quota::quotas;
use super::rendezvous::Field;
use super::{Members, NodeId, Partition, Table};

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// All nodes are being drained, or have no weight, or there is none.
    #[error("no node may own partitions")]
    NobodyMayOwn,
}

/// Where a partition should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The node that should own it.
    pub owner: NodeId,
    /// The node that should keep its replica; none if there is no other that may.
    pub replica: Option<NodeId>,
}

/// One thing to be done on the way to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Hand a partition over. What was its owner keeps the replica, until a
    /// [`Effect::PlaceReplica`] says otherwise.
    Move {
        /// The partition.
        partition: Partition,
        /// Its owner in the table.
        from: NodeId,
        /// Its owner from then on.
        to: NodeId,
    },
    /// Give a partition's replica to another node.
    PlaceReplica {
        /// The partition.
        partition: Partition,
        /// The node that keeps the replica from then on; none if there is nobody left to keep one.
        to: Option<NodeId>,
    },
}

impl Effect {
    /// The partition that it is about.
    pub fn partition(&self) -> Partition {
        match self {
            Self::Move { partition, .. } | Self::PlaceReplica { partition, .. } => *partition,
        }
    }
}

/// Where a cluster's partitions are at first, in the partitions' order: for [`Table::new`].
pub fn first(members: &Members) -> Result<Vec<Assignment>, PlanError> {
    let field = Field::new(members)?;
    let nowhere: Vec<Standing> = Partition::all().map(|_| Standing::default()).collect();
    let owners = owners(&field, &nowhere);
    let assignment = |(partition, owner): (Partition, usize)| Assignment {
        owner: field.id(owner),
        replica: field.best_other(partition, owner).map(|place| field.id(place)),
    };
    Ok(Partition::all().zip(owners).map(assignment).collect())
}

/// What has to be done so that `table` is as `members` want it; nothing if it is. The most urgent
/// comes first: partitions whose owner may not own any longer; replicas that are missing, or on a
/// node that may not keep them; moves for an even load; replicas that are better elsewhere, and
/// those of partitions that move, which come after their move.
pub fn moves(members: &Members, table: &Table) -> Result<Vec<Effect>, PlanError> {
    let field = Field::new(members)?;
    let place = |node: NodeId| field.place(node);
    let now: Vec<Standing> = table
        .rows()
        .map(|(_, row)| Standing {
            owner: place(row.owner.node),
            replica: row.replica.and_then(place),
        })
        .collect();
    let owners = owners(&field, &now);

    let [mut homeless, mut bare, mut uneven, mut better] = [const { Vec::new() }; 4];
    for (((partition, row), now), owner) in table.rows().zip(&now).zip(owners) {
        let (from, to) = (row.owner.node, field.id(owner));
        let moves = from != to;
        if moves {
            let urgent = if now.owner.is_none() { &mut homeless } else { &mut uneven };
            urgent.push(Effect::Move { partition, from, to });
        }
        let after_move = if moves { Some(from) } else { row.replica };
        let replica = field.best_other(partition, owner).map(|place| field.id(place));
        if after_move != replica {
            let urgent = if now.replica.is_none() && !moves { &mut bare } else { &mut better };
            urgent.push(Effect::PlaceReplica { partition, to: replica });
        }
    }
    Ok([homeless, bare, uneven, better].concat())
}

/// What of `plan` to begin now, so that no more than `at_most` partitions are under way, those
/// `in_progress` included. A partition is under way with one thing at a time, in the order of the
/// plan: its replica is not placed before its move is done.
pub fn next_moves(
    plan: &[Effect],
    in_progress: &BTreeSet<Partition>,
    at_most: usize,
) -> Vec<Effect> {
    let mut seen = in_progress.clone();
    let next = plan.iter().filter(|effect| seen.insert(effect.partition()));
    next.take(at_most.saturating_sub(in_progress.len())).copied().collect()
}

/// Where a partition is, as places in the field: none is a node that may not own.
#[derive(Default)]
struct Standing {
    owner: Option<usize>,
    replica: Option<usize>,
}

/// A move that would help: the node lacks partitions, and this one can be spared where it is.
struct Candidate {
    partition: usize,
    to: usize,
    has_copy: bool,
    score: u64,
}

/// Who should own each partition, as places in the field.
fn owners(field: &Field, now: &[Standing]) -> Vec<usize> {
    let mut owned = vec![0; field.len()];
    now.iter().filter_map(|standing| standing.owner).for_each(|place| owned[place] += 1);
    let quotas = quotas(field.weights(), &owned);
    let (mut spare, mut lacks): (Vec<u32>, Vec<u32>) = owned
        .iter()
        .zip(&quotas)
        .map(|(owned, quota)| (owned.saturating_sub(*quota), quota.saturating_sub(*owned)))
        .unzip();

    let mut candidates = Vec::new();
    for (partition, standing) in Partition::all().zip(now) {
        if standing.owner.is_some_and(|owner| spare[owner] == 0) {
            continue;
        }
        let lacking = (0..field.len()).filter(|place| lacks[*place] > 0);
        candidates.extend(lacking.map(|to| Candidate {
            partition: usize::from(partition.number()),
            to,
            has_copy: standing.replica == Some(to),
            score: field.score(partition, to),
        }));
    }
    candidates.sort_unstable_by_key(|c| {
        Reverse((c.has_copy, c.score, Reverse(c.to), Reverse(c.partition)))
    });

    // What can be spared and what has no owner is together what is lacking, and any of it may go
    // anywhere: so whoever takes the best pair that is left, as long as there is one, ends with
    // every quota met.
    let mut owners: Vec<Option<usize>> = now.iter().map(|standing| standing.owner).collect();
    let mut moved = vec![false; now.len()];
    for Candidate { partition, to, .. } in candidates {
        let from = now[partition].owner;
        if moved[partition] || lacks[to] == 0 || from.is_some_and(|from| spare[from] == 0) {
            continue;
        }
        if let Some(from) = from {
            spare[from] -= 1;
        }
        lacks[to] -= 1;
        (moved[partition], owners[partition]) = (true, Some(to));
    }
    owners.into_iter().flatten().collect()
}
