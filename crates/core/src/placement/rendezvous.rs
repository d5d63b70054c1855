//! Weighted rendezvous hashing: every node has a score for every partition, and the highest is
//! where a partition wants to be.
//!
//! A node of weight *w* draws *w* tickets for each partition and its score is the best of them, so
//! it wins *w* times as often as a node of weight 1. A ticket is a hash of node, partition and
//! ticket, of nothing else: no node's score depends on which others there are. So a node that comes
//! takes from each of the others what it scores best in, and nothing moves between those; and a
//! node that goes leaves each partition to whoever was second there, which are all of them in turn.
//!
//! Whole numbers only: the usual formula, −w/ln(h), rounds differently from machine to machine, and
//! two nodes that plan have to agree to the last bit. The hash is XXH3, 64 bits, by its published
//! specification and with a seed of ours; it is no secret, since node ids come from the log and
//! nobody outside picks a partition.

use std::cmp::Reverse;

use twox_hash::XxHash3_64;

use super::planner::PlanError;
use super::{Members, NodeId, PARTITIONS, Partition, Weight};

/// "tidegate", read as a little-endian number. Another seed is another placement: every version has
/// to keep it.
const SEED: u64 = u64::from_le_bytes(*b"tidegate");

/// How much `partition` wants to be on `node`: the best of the node's tickets. None for weight 0,
/// which draws none. On a tie the lower id wins.
pub fn score(node: NodeId, weight: Weight, partition: Partition) -> Option<u64> {
    (0..weight.get()).map(|ticket| hash(node, partition, ticket)).max()
}

fn hash(node: NodeId, partition: Partition, ticket: u8) -> u64 {
    let mut bytes = [0; 11];
    bytes[..8].copy_from_slice(&node.0.to_le_bytes());
    bytes[8..10].copy_from_slice(&partition.number().to_le_bytes());
    bytes[10] = ticket;
    XxHash3_64::oneshot_with_seed(SEED, &bytes)
}

/// The nodes that may own, by id, and their scores for all partitions: computed once, asked often.
/// A node goes by its place in the list.
pub(super) struct Field {
    nodes: Vec<(NodeId, Weight)>,
    /// Partition by partition, the nodes' scores in their order.
    scores: Vec<u64>,
}

impl Field {
    /// The members that may own. Fails if there is none.
    pub fn new(members: &Members) -> Result<Self, PlanError> {
        let eligible = members.iter().filter(|member| member.is_eligible());
        let nodes: Vec<_> = eligible.map(|member| (member.id, member.weight)).collect();
        if nodes.is_empty() {
            return Err(PlanError::NobodyMayOwn);
        }
        let mut scores = Vec::with_capacity(nodes.len() * usize::from(PARTITIONS));
        for partition in Partition::all() {
            scores.extend(nodes.iter().filter_map(|&(id, weight)| score(id, weight, partition)));
        }
        Ok(Self { nodes, scores })
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn id(&self, place: usize) -> NodeId {
        self.nodes[place].0
    }

    pub fn weights(&self) -> impl Iterator<Item = Weight> {
        self.nodes.iter().map(|(_, weight)| *weight)
    }

    /// The place of a node; none for one that may not own, or isn't a member at all.
    pub fn place(&self, node: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&node, |(id, _)| *id).ok()
    }

    pub fn score(&self, partition: Partition, place: usize) -> u64 {
        self.scores[usize::from(partition.number()) * self.nodes.len() + place]
    }

    /// Where a partition wants to be next to the node at `owner`; none if there is no other node.
    pub fn best_other(&self, partition: Partition, owner: usize) -> Option<usize> {
        let others = (0..self.nodes.len()).filter(|place| *place != owner);
        others.max_by_key(|&place| (self.score(partition, place), Reverse(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Member;

    fn node(id: u64) -> NodeId {
        NodeId(id)
    }

    /// How many partitions each of these nodes wins.
    fn wins(nodes: &[(u64, u8)]) -> Vec<u32> {
        let member = |&(id, weight): &(u64, u8)| Member {
            id: node(id),
            weight: Weight::new(weight).unwrap(),
            may_own: true,
        };
        let field = Field::new(&Members::new(nodes.iter().map(member)).unwrap()).unwrap();
        let mut wins = vec![0; field.len()];
        for partition in Partition::all() {
            let best = (0..field.len()).max_by_key(|place| field.score(partition, *place)).unwrap();
            wins[best] += 1;
        }
        wins
    }

    /// The first is the empty input's in the specification's own test vectors.
    #[test]
    fn the_hash_is_xxh3_as_published() {
        assert_eq!(XxHash3_64::oneshot(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash(node(1), Partition::new(0).unwrap(), 0), 7654793050889187715);
    }

    #[test]
    fn weights_1_2_and_4_win_in_proportion_within_a_few_percent() {
        let mut won = [0; 3];
        for cluster in 0..20 {
            let id = |n: u64| cluster * 10 + n;
            let wins = wins(&[(id(1), 1), (id(2), 2), (id(3), 4)]);
            won.iter_mut().zip(wins).for_each(|(all, won)| *all += won);
        }
        for (won, weight) in won.iter().zip([1, 2, 4]) {
            let share: u32 = 20 * 4096 * weight / 7;
            // Three standard deviations of the smallest share are 2.6 %.
            assert!(
                won.abs_diff(share) * 1000 < share * 26,
                "weight {weight} won {won}, its share is {share}"
            );
        }
    }

    #[test]
    fn a_heavier_node_wins_what_it_won_before_and_more() {
        for partition in Partition::all() {
            let of = |weight| score(node(7), Weight::new(weight).unwrap(), partition);
            assert!(of(0).is_none() && of(1) <= of(2) && of(2) <= of(16));
        }
    }

    #[test]
    fn nodes_of_one_weight_win_alike() {
        let wins = wins(&[(1, 1), (20, 1), (300, 1), (4_000, 1)]);
        // 1024 each, give or take three standard deviations.
        assert!(wins.iter().all(|won| (940..1108).contains(won)), "{wins:?}");
    }
}
