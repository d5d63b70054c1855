//! What the planner promises, for whole clusters: drawn members, drawn tables, and a judge that
//! knows nothing of quotas.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use twox_hash::XxHash3_64;

use super::planner::{self, Effect, PlanError, next_moves};
use super::*;

/// A 32nd of what `PROPTEST_CASES` says, 8 cases unless told: one case plans a whole cluster
/// several times.
pub fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(32),
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        ..usual
    }
}

fn node(id: u64) -> NodeId {
    NodeId(id)
}

fn seat(node: NodeId) -> Seat {
    Seat { node, boot: BootId(node.0) }
}

fn member(id: u64, weight: u8) -> Member {
    Member { id: node(id), weight: Weight::new(weight).unwrap(), may_own: true }
}

/// Nodes 1, 2, … of these weights.
fn weighted(weights: &[u8]) -> Vec<Member> {
    (1..).zip(weights).map(|(id, weight)| member(id, *weight)).collect()
}

fn members(list: &[Member]) -> Members {
    Members::new(list.iter().copied()).unwrap()
}

fn first_table(list: &[Member]) -> Table {
    let plan = planner::first(&members(list)).unwrap();
    Table::new(TableVersion(1), plan.into_iter().map(|a| (seat(a.owner), a.replica))).unwrap()
}

fn plan(list: &[Member], table: &Table) -> Vec<Effect> {
    planner::moves(&members(list), table).unwrap()
}

/// The table after one thing of a plan, done as the cluster does it.
fn done(table: &Table, effect: &Effect) -> Table {
    let row = table.row(effect.partition());
    let change = match *effect {
        Effect::Move { partition, from, to } => {
            assert_eq!(row.owner.node, from);
            Change::hand_over(partition, row, seat(to))
        }
        Effect::PlaceReplica { partition, to } => Change::place_replica(partition, row, to),
    };
    table.with(&[change], TableVersion(table.version().0 + 1)).unwrap()
}

/// The table after a plan: everything that concerns different partitions in one entry, in the
/// plan's order.
fn carried_out(table: &Table, plan: &[Effect]) -> Table {
    let (mut table, mut left) = (table.clone(), plan.to_vec());
    while !left.is_empty() {
        let now = next_moves(&left, &BTreeSet::new(), usize::MAX);
        left.retain(|effect| !now.contains(effect));
        let change = |effect: &Effect| match *effect {
            Effect::Move { partition, to, .. } => {
                Change::hand_over(partition, table.row(partition), seat(to))
            }
            Effect::PlaceReplica { partition, to } => {
                Change::place_replica(partition, table.row(partition), to)
            }
        };
        let changes: Vec<Change> = now.iter().map(change).collect();
        table = table.with(&changes, TableVersion(table.version().0 + 1)).unwrap();
    }
    table
}

fn moves(plan: &[Effect]) -> Vec<(NodeId, NodeId)> {
    let ends = |effect: &Effect| match *effect {
        Effect::Move { from, to, .. } => Some((from, to)),
        Effect::PlaceReplica { .. } => None,
    };
    plan.iter().filter_map(ends).collect()
}

/// How many partitions each node owns, and those that own nothing too.
fn counts(list: &[Member], table: &Table) -> BTreeMap<NodeId, u64> {
    let mut counts: BTreeMap<NodeId, u64> = list.iter().map(|member| (member.id, 0)).collect();
    table.rows().for_each(|(_, row)| *counts.entry(row.owner.node).or_default() += 1);
    counts
}

/// Weights of the nodes that may own, and of all of them together.
fn weights(list: &[Member]) -> (BTreeMap<NodeId, u64>, u64) {
    let may = list.iter().filter(|member| member.may_own && member.weight.get() > 0);
    let weights: BTreeMap<NodeId, u64> =
        may.map(|member| (member.id, member.weight.get().into())).collect();
    let all = weights.values().sum();
    (weights, all)
}

/// Whether every node that may own is less than one partition away from its exact share, and no
/// other owns any.
fn is_even(list: &[Member], table: &Table) -> bool {
    let (weights, all) = weights(list);
    counts(list, table).into_iter().all(|(id, count)| match weights.get(&id) {
        // |count - 4096 * weight / all| < 1, without dividing.
        Some(weight) => (count * all).abs_diff(4096 * weight) < all,
        None => count == 0,
    })
}

/// How many moves no plan can do without. A move takes one partition from a node that has too many
/// or may have none, and gives one to a node that may have too few; so it mends one fault of either
/// kind at the most.
fn fewest(list: &[Member], table: &Table) -> u64 {
    let (weights, all) = weights(list);
    let (mut too_many, mut too_few) = (0, 0);
    for (id, count) in counts(list, table) {
        let share = 4096 * weights.get(&id).copied().unwrap_or(0);
        too_many += count.saturating_sub(share.div_ceil(all));
        too_few += (share / all).saturating_sub(count);
    }
    too_many.max(too_few)
}

/// Where a replica belongs, looked for node by node.
fn best_beside(owner: NodeId, partition: Partition, list: &[Member]) -> Option<NodeId> {
    let may = list.iter().filter(|member| member.may_own && member.id != owner);
    let mut scored: Vec<(u64, NodeId)> =
        may.filter_map(|m| Some((rendezvous::score(m.id, m.weight, partition)?, m.id))).collect();
    scored.sort_by_key(|(score, id)| (std::cmp::Reverse(*score), *id));
    scored.first().map(|(_, id)| *id)
}

/// Sixty-four bits that stand for who owns and keeps what.
fn digest(table: &Table) -> u64 {
    let words = table.rows().flat_map(|(_, row)| [Some(row.owner.node), row.replica]);
    let bytes: Vec<u8> =
        words.flat_map(|node| node.map_or(0, |node| node.0).to_le_bytes()).collect();
    XxHash3_64::oneshot(&bytes)
}

/// Up to `at_most` nodes with ids of any size, of drawn weights; some are drained, one at least is
/// not.
fn any_members(at_most: usize) -> impl Strategy<Value = Vec<Member>> {
    let drawn = (0..=WEIGHT_MAX, prop::bool::weighted(0.9));
    let nodes = prop::collection::btree_map(1..u64::MAX, drawn, 1..=at_most);
    nodes.prop_map(|nodes| {
        let member = |(id, (weight, may_own))| Member { may_own, ..member(id, weight) };
        let mut list: Vec<Member> = nodes.into_iter().map(member).collect();
        list[0] = Member { may_own: true, weight: Weight::ONE, ..list[0] };
        list
    })
}

/// Members and what becomes of them: some go, some come, some change.
fn any_change(at_most: usize) -> impl Strategy<Value = (Vec<Member>, Vec<Member>)> {
    let fates = prop::collection::vec((0..10u8, 1..=WEIGHT_MAX), at_most);
    (any_members(at_most), any_members(3), fates).prop_map(|(before, more, fates)| {
        let mut after: BTreeMap<NodeId, Member> = more.into_iter().map(|m| (m.id, m)).collect();
        for (member, (fate, weight)) in before.iter().zip(fates) {
            let weight = if fate == 1 { Weight::new(weight).unwrap() } else { member.weight };
            let may_own = member.may_own && fate != 2;
            if fate != 0 {
                after.insert(member.id, Member { weight, may_own, ..*member });
            }
        }
        (before, after.into_values().collect())
    })
}

#[test]
fn every_size_of_cluster_is_loaded_evenly_from_the_first() {
    for size in [1, 2, 3, 4, 5, 7, 10, 16, 31, 50, 77, 100] {
        let list = weighted(&vec![1; size]);
        let table = first_table(&list);
        let counts = counts(&list, &table);
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(most - least <= 1, "{size} nodes own {least} to {most}");
        assert!(is_even(&list, &table));
    }
}

#[test]
fn weights_1_2_and_4_own_in_proportion() {
    let list = weighted(&[1, 2, 4]);
    assert_eq!(
        counts(&list, &first_table(&list)).into_values().collect::<Vec<_>>(),
        [585, 1170, 2341]
    );
}

#[test]
fn a_fourth_node_takes_a_quarter_and_nothing_else_moves() {
    let (three, four) = (weighted(&[1; 3]), weighted(&[1; 4]));
    let table = first_table(&three);
    let plan = plan(&four, &table);
    let moves = moves(&plan);
    assert_eq!(moves.len(), 1024);
    assert!(moves.iter().all(|(_, to)| *to == node(4)));
}

#[test]
fn what_a_leaving_node_had_goes_to_all_others_and_nothing_else_moves() {
    let list = weighted(&[1; 4]);
    let table = first_table(&list);
    let drained = Member { may_own: false, ..list[1] };
    for left in [vec![list[0], list[2], list[3]], vec![list[0], drained, list[2], list[3]]] {
        let moves = moves(&plan(&left, &table));
        assert_eq!(moves.len(), 1024);
        assert!(moves.iter().all(|(from, _)| *from == node(2)));
        for to in [1, 3, 4] {
            let taken = moves.iter().filter(|(_, taker)| *taker == node(to)).count();
            assert!((341..=342).contains(&taken), "n{to} takes {taken}");
        }
    }
}

#[test]
fn most_of_what_a_leaving_node_had_goes_to_where_its_replica_is() {
    let list = weighted(&[1; 10]);
    let table = first_table(&list);
    let plan = plan(&list[1..], &table);
    let to_replica = plan.iter().filter(|effect| match effect {
        Effect::Move { partition, to, .. } => table.row(*partition).replica == Some(*to),
        Effect::PlaceReplica { .. } => false,
    });
    let (warm, all) = (to_replica.count(), moves(&plan).len());
    assert!(warm * 10 >= all * 8, "{warm} of {all}");
}

#[test]
fn the_first_plan_follows_rendezvous_nine_times_in_ten() {
    let list = weighted(&[1; 10]);
    let best = |(partition, row): &(Partition, &Row)| {
        list.iter().max_by_key(|m| rendezvous::score(m.id, m.weight, *partition)).unwrap().id
            == row.owner.node
    };
    let at_best = first_table(&list).rows().filter(best).count();
    assert!(at_best * 10 >= 4096 * 9, "{at_best} of 4096");
}

#[test]
fn a_node_alone_owns_all_and_nobody_keeps_a_replica() {
    let table = first_table(&weighted(&[3]));
    assert!(table.rows().all(|(_, row)| row.owner.node == node(1) && row.replica.is_none()));
}

#[test]
fn when_the_second_of_two_leaves_its_replicas_are_given_up() {
    let two = weighted(&[1, 1]);
    let table = first_table(&two);
    let after = carried_out(&table, &plan(&two[..1], &table));
    assert!(after.rows().all(|(_, row)| row.owner.node == node(1) && row.replica.is_none()));
}

#[test]
fn where_nobody_may_own_there_is_no_plan() {
    let (drained, weightless) = (Member { may_own: false, ..member(1, 1) }, member(2, 0));
    let table = first_table(&weighted(&[1]));
    for list in [vec![], vec![drained], vec![weightless], vec![drained, weightless]] {
        assert_eq!(planner::first(&members(&list)), Err(PlanError::NobodyMayOwn));
        assert_eq!(planner::moves(&members(&list), &table), Err(PlanError::NobodyMayOwn));
    }
}

#[test]
fn a_draining_node_is_emptied_before_loads_are_evened() {
    let before = weighted(&[1, 1, 4]);
    let table = first_table(&before);
    let after = [Member { may_own: false, ..before[0] }, member(2, 4), member(3, 1), member(4, 1)];
    let plan = plan(&after, &table);
    let had = table.owned_by(node(1)).count();
    let first: Vec<_> = moves(&plan[..had]);
    assert!(first.len() == had && first.iter().all(|(from, _)| *from == node(1)));
    let rest = moves(&plan[had..]);
    assert!(!rest.is_empty() && rest.iter().all(|(from, _)| *from != node(1)));
}

#[test]
fn no_more_is_begun_than_may_be_under_way() {
    let table = first_table(&weighted(&[1; 3]));
    let plan = plan(&weighted(&[1; 4]), &table);
    let some = next_moves(&plan, &BTreeSet::new(), 4);
    assert_eq!(some, plan[..4]);
    let in_progress: BTreeSet<Partition> = some.iter().map(Effect::partition).collect();
    assert_eq!(next_moves(&plan, &in_progress, 6), plan[4..6]);
    assert_eq!(next_moves(&plan, &in_progress, 4), []);
    assert_eq!(next_moves(&plan, &in_progress, 1), []);
}

#[test]
fn a_partition_is_under_way_with_one_thing_at_a_time() {
    let partition = Partition::new(7).unwrap();
    let (to_n2, to_n3) = (
        Effect::Move { partition, from: node(1), to: node(2) },
        Effect::PlaceReplica { partition, to: Some(node(3)) },
    );
    assert_eq!(next_moves(&[to_n2, to_n3], &BTreeSet::new(), 9), [to_n2]);
    assert_eq!(next_moves(&[to_n2, to_n3], &[partition].into(), 9), []);
}

/// If this fails, nodes of two versions in one cluster would plan against each other.
#[test]
fn the_same_members_give_the_same_table_in_every_version() {
    let first = weighted(&[1, 2, 4, 1, 16]);
    let table = first_table(&first);
    assert_eq!(digest(&table), 11282102285179985949, "the first table");
    let after =
        [first[0], first[2], Member { may_own: false, ..first[3] }, member(5, 8), member(60, 3)];
    let table = carried_out(&table, &plan(&after, &table));
    assert_eq!(digest(&table), 9512150458967017134, "the table after it");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_plan_evens_the_load_with_the_fewest_moves_and_once_done_there_is_nothing_to_do(
        (before, after) in any_change(20),
    ) {
        let table = first_table(&before);
        prop_assert!(is_even(&before, &table));
        prop_assert_eq!(plan(&before, &table), []);

        let plan_after = plan(&after, &table);
        prop_assert_eq!(moves(&plan_after).len() as u64, fewest(&after, &table));
        let next = carried_out(&table, &plan_after);
        prop_assert!(is_even(&after, &next));
        prop_assert_eq!(plan(&after, &next), []);
        for (partition, row) in next.rows() {
            prop_assert_eq!(row.replica, best_beside(row.owner.node, partition, &after));
        }
    }

    /// Also a table that no planner made: rows given at random, to nodes that are gone too.
    #[test]
    fn any_table_is_brought_in_order_with_the_fewest_moves(
        list in any_members(12),
        owners in prop::collection::vec((0..14usize, 0..14usize), 4096),
    ) {
        let gone = [node(u64::MAX), node(u64::MAX - 1)];
        let nodes: Vec<NodeId> = list.iter().map(|m| m.id).chain(gone).collect();
        let pick = |i: usize| nodes[i % nodes.len()];
        let rows = owners.iter().map(|&(o, r)| (seat(pick(o)), Some(pick(r)).filter(|r| *r != pick(o))));
        let table = Table::new(TableVersion(1), rows).unwrap();
        let todo = plan(&list, &table);
        prop_assert_eq!(moves(&todo).len() as u64, fewest(&list, &table));
        let next = carried_out(&table, &todo);
        prop_assert!(is_even(&list, &next));
        prop_assert_eq!(plan(&list, &next), []);
    }

    #[test]
    fn equal_nodes_that_come_take_and_that_go_give_and_nothing_else_moves(
        size in 2..100u64, gone in 0..100usize,
    ) {
        let list = weighted(&vec![1; size as usize]);
        let table = first_table(&list);
        let more = [&list[..], &[member(size + 1, 1)]].concat();
        let todo = plan(&more, &table);
        prop_assert!(moves(&todo).iter().all(|(_, to)| *to == node(size + 1)));
        let next = carried_out(&table, &todo);
        for ((partition, before), (_, after)) in table.rows().zip(next.rows()) {
            // A replica stays, or is the newcomer's, or is with the former owner: it gave way to
            // the newcomer.
            let fine = [before.replica, Some(node(size + 1)), Some(before.owner.node)];
            prop_assert!(fine.contains(&after.replica), "partition {partition}: {before:?}, then \
                                                         {after:?}");
        }
        let leaver = list[gone % list.len()].id;
        let fewer: Vec<Member> = list.iter().copied().filter(|m| m.id != leaver).collect();
        let todo = plan(&fewer, &table);
        prop_assert!(moves(&todo).iter().all(|(from, _)| *from == leaver));
        prop_assert_eq!(moves(&todo).len(), table.owned_by(leaver).count());
    }

    /// The shares' fractions shift when somebody comes or goes.
    #[test]
    fn among_unequal_nodes_no_more_than_one_other_partition_a_node_moves(
        list in any_members(20), weight in 1..=WEIGHT_MAX, gone in 0..20usize,
    ) {
        let table = first_table(&list);
        let more = [&list[..], &[member(u64::MAX, weight)]].concat();
        let elsewhere = moves(&plan(&more, &table)).iter().filter(|(_, to)| *to != node(u64::MAX)).count();
        prop_assert!(elsewhere <= list.len(), "{elsewhere} moves among {} others", list.len());

        let leaver = list[gone % list.len()].id;
        let fewer: Vec<Member> = list.iter().copied().filter(|m| m.id != leaver).collect();
        if let Ok(todo) = planner::moves(&members(&fewer), &table) {
            let elsewhere = moves(&todo).iter().filter(|(from, _)| *from != leaver).count();
            prop_assert!(elsewhere <= fewer.len(), "{elsewhere} moves among {} others", fewer.len());
        }
    }

    #[test]
    fn the_order_in_which_members_are_learned_of_does_not_matter(
        (before, after) in any_change(12), order in any::<prop::sample::Index>(),
    ) {
        let mut turned = after.clone();
        turned.rotate_left(order.index(after.len()));
        turned.reverse();
        let table = first_table(&before);
        prop_assert_eq!(plan(&turned, &table), plan(&after, &table));
        prop_assert_eq!(first_table(&turned), first_table(&after));
    }

    #[test]
    fn with_two_nodes_there_is_a_replica_and_it_is_never_with_the_owner(list in any_members(6)) {
        let able = list.iter().filter(|m| m.may_own && m.weight.get() > 0).count();
        for (_, row) in first_table(&list).rows() {
            prop_assert_eq!(row.replica.is_some(), able >= 2);
            prop_assert!(row.replica != Some(row.owner.node));
        }
    }

    /// A plan is followed a few things at a time and made anew after each, as a leader would. The
    /// moves don't become more.
    #[test]
    fn planning_anew_on_the_way_adds_no_moves((before, after) in any_change(5), few in 200..900usize) {
        let mut table = first_table(&before);
        let fewest = fewest(&after, &table);
        let mut made = 0;
        for _ in 0..200 {
            let now = next_moves(&plan(&after, &table), &BTreeSet::new(), few);
            if now.is_empty() {
                break;
            }
            made += moves(&now).len() as u64;
            table = carried_out(&table, &now);
        }
        prop_assert_eq!(made, fewest);
        prop_assert_eq!(plan(&after, &table), []);
    }
}

#[test]
fn a_plan_done_in_its_order_one_thing_after_another_never_puts_a_replica_with_its_owner() {
    let table = first_table(&weighted(&[1, 1, 1]));
    let plan = plan(&weighted(&[1, 1, 4, 2]), &table);
    // `done` panics on a change that the table refuses.
    let after = plan.iter().fold(table, |table, effect| done(&table, effect));
    assert!(is_even(&weighted(&[1, 1, 4, 2]), &after));
}
