//! What it takes that a member leaves: somebody else has to go on, and what it owned has to be
//! somebody's.

use std::collections::BTreeMap;

use super::{Agreed, Leaving, LogIndex, Refusal, What};
use crate::placement::planner::{self, Effect};
use crate::placement::{self, Change, NodeId, Partition, Row, Seat, Table, TableVersion};

impl Agreed {
    /// Partitions that the member owns, whatever life of it.
    pub fn owned_by(&self, id: NodeId) -> usize {
        self.table.owned_by(id).count()
    }

    /// Refuses unless the others can do without the member: somebody has to own the partitions.
    pub fn spare(&self, id: NodeId) -> Result<(), Refusal> {
        self.members.get(id).ok_or(Refusal::NoSuchMember(id))?;
        if self.members.len() == 1 {
            return Err(Refusal::LastMember(id));
        }
        let mut others = self.members.iter().filter(|(other, _)| *other != id);
        if others.any(|(_, other)| other.may_own()) { Ok(()) } else { Err(Refusal::LastOwner(id)) }
    }

    /// Ends the membership of one that is leaving. What it was given up with begins as spent, on
    /// those who stay.
    pub(super) fn remove(&mut self, id: NodeId, at: LogIndex) -> Result<(), Refusal> {
        let member = self.members.get(id).ok_or(Refusal::NoSuchMember(id))?;
        let leaving = member.leaving.ok_or(Refusal::NotLeaving(id))?;
        self.spare(id)?;
        let partitions = self.owned_by(id);
        if leaving == Leaving::HandingOver && partitions > 0 {
            return Err(Refusal::StillOwns { id, partitions });
        }
        self.members.remove(id)?;
        self.table = self.table_without(id, at)?.into();
        Ok(())
    }

    /// The table in which `gone` owns nothing, and will own nothing by a move that is under way.
    /// Nothing else moves. What it keeps a replica of is given another, unless it is on its way
    /// between two others: that is not to be disturbed.
    fn table_without(&self, gone: NodeId, at: LogIndex) -> Result<Table, Refusal> {
        let unplaced = |error: &dyn std::fmt::Display| Refusal::NotPlaced(error.to_string());
        let placed =
            placement::Members::new(self.members.iter().map(|(id, member)| member.placed(id)))
                .map_err(|e| unplaced(&e))?;
        let mut changes: BTreeMap<Partition, Change> = self
            .table
            .rows()
            .filter(|(_, row)| concerns(row, gone))
            .map(|(partition, row)| (partition, without(partition, row, gone)))
            .collect();
        for effect in planner::moves(&placed, &self.table).map_err(|e| unplaced(&e))? {
            let Some(change) = changes.get_mut(&effect.partition()) else { continue };
            match effect {
                Effect::Move { to, .. } if change.owner.node == gone => {
                    let boot = self.members.get(to).ok_or(Refusal::NoSuchMember(to))?.boot;
                    change.owner = Seat { node: to, boot };
                    change.replica = change.replica.filter(|replica| *replica != to);
                }
                // For an even load only: that is for later.
                Effect::Move { .. } => {}
                Effect::PlaceReplica { to, .. } => {
                    change.replica = to.filter(|replica| *replica != change.owner.node);
                }
            }
        }
        Ok(self.table.with(&changes.into_values().collect::<Vec<_>>(), TableVersion(at.0))?)
    }

    /// What a command does to a member, with the name that people know it by: afterwards it may be
    /// gone.
    pub(super) fn tell_of_members(&self, what: &What) -> Option<String> {
        let name = |id: &NodeId| {
            self.members.get(*id).map(|member| format!("{} (node {id})", member.name))
        };
        match what {
            What::Remove(id) => {
                let lost = match (self.members.get(*id)?.leaving, self.owned_by(*id)) {
                    (Some(Leaving::Abandoned), partitions @ 1..) => {
                        format!("; {partitions} partitions begin as spent elsewhere")
                    }
                    _ => String::new(),
                };
                Some(format!("removed {}{lost}", name(id)?))
            }
            What::Drain(id, true) => Some(format!("drains {}", name(id)?)),
            What::Drain(id, false) => Some(format!("ended the draining of {}", name(id)?)),
            What::Leave(id, Leaving::HandingOver) => Some(format!("{} is to leave", name(id)?)),
            What::Leave(id, Leaving::Abandoned) => Some(format!("gave up {}", name(id)?)),
            What::Weigh(id, weight) => Some(format!("gave {} the weight {weight}", name(id)?)),
            What::Seat(id, seating) | What::Register(id, seating, ..) => {
                Some(format!("seated {} in boot {}", name(id)?, seating.boot))
            }
            What::Stop(id, _) => Some(format!("stops {}", name(id)?)),
            What::Begin { .. } | What::Found { .. } | What::Edit { .. } => None,
            What::Rollback { .. } | What::Admit(_) | What::RaiseLevel(..) => None,
            What::Note(_) | What::Set { .. } => None,
            What::BeginMoves(_) | What::CommitMoves(_) | What::AbortMoves(_) => None,
        }
    }
}

fn concerns(row: &Row, gone: NodeId) -> bool {
    match row.moving {
        _ if row.owner.node == gone => true,
        Some(moving) => moving.to.node == gone,
        None => row.replica == Some(gone),
    }
}

/// A row as it is, but for what `gone` does for it.
fn without(partition: Partition, row: &Row, gone: NodeId) -> Change {
    let replica = row.replica.filter(|replica| *replica != gone);
    Change { partition, expected: row.epoch, owner: row.owner, replica }
}
