//! Who owns a partition, and planning who should.

use tidegate::placement::planner::{self, Assignment};
use tidegate::placement::{
    BootId, Member, Members, NodeId, Partition, Seat, Table, TableVersion, Weight,
};

use super::{Case, timed};

/// Nodes of the cluster that is planned.
const NODES: u64 = 100;
/// Owners looked up in a turn.
const LOOKUPS: usize = 1_000_000;
/// An order of partitions that no prefetcher follows: odd, so that all of them are asked.
const STRIDE: usize = 1_597;

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub fn all() -> Result<Vec<Case>, Failure> {
    let (fewer, more) = (members(NODES)?, members(NODES + 1)?);
    let seat = |node| Seat { node, boot: BootId(1) };
    let placed = planner::first(&fewer)?
        .into_iter()
        .map(|Assignment { owner, replica }| (seat(owner), replica));
    let table = Table::new(TableVersion(1), placed)?;
    let partitions: Vec<Partition> = Partition::all().collect();
    let scattered: Vec<Partition> =
        (0..partitions.len()).map(|i| partitions[i * STRIDE % partitions.len()]).collect();
    let looked_up = table.clone();
    Ok(vec![
        Case::new("placement/owner of a partition", LOOKUPS, move || {
            let owner = |partition: &Partition| looked_up.owner(*partition).node.0;
            timed(|| scattered.iter().cycle().take(LOOKUPS).map(owner).fold(0, |all, id| all ^ id))
        }),
        Case::new(format!("placement/first plan, {NODES} nodes"), 1, move || {
            timed(|| planner::first(&fewer))
        }),
        Case::new(format!("placement/plan one node more than {NODES}"), 1, move || {
            timed(|| planner::moves(&more, &table))
        }),
    ])
}

fn members(count: u64) -> Result<Members, Failure> {
    let member = |number| Member { id: NodeId(number), weight: Weight::ONE, may_own: true };
    Ok(Members::new((1..=count).map(member))?)
}
