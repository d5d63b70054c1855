//! A cluster that is made anew of one node: after the loss of the majority, or of a back-up.
//!
//! No majority agreed to it, so it is no command: it is done to a state that lies still, by who
//! holds the data, and the entry's index it is done at is one above all that were ever used there.
//! What is agreed on stays as it is: policy, history, lists, audit log, secret. But for one, the
//! members are gone, and their numbers with them.

use std::fmt;

use super::members::Member;
use super::{Agreed, Audited, LogIndex, NewMember, Refusal, State};
use crate::placement::{BootId, NodeId, Seat, TableVersion, Weight};

/// Who goes on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alone {
    /// A member: what it owned it owns still, under the epochs that it knows; the rest begins anew
    /// with it.
    Stays(NodeId),
    /// A new one, in a life that has counted what a back-up says: it owns everything, each
    /// partition under its next epoch.
    Begins(NewMember, BootId),
}

/// What was given up for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Who is left.
    pub node: NodeId,
    /// The members that are none any more.
    pub members: Vec<(NodeId, Member)>,
    /// Partitions that they owned.
    pub partitions: usize,
}

/// In the audit log's words, behind what it was that was done.
impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.members.iter().map(|(id, member)| format!("{} (node {id})", member.name));
        match self.members.is_empty() {
            true => f.write_str("nobody was given up"),
            false => write!(f, "gave up {}", names.collect::<Vec<_>>().join(", ")),
        }
    }
}

impl State {
    /// The state in which one goes on alone, from the entry `at` on. The audit log says, in the
    /// name of `by` at `time`, that it was done: `what`, and who was given up.
    pub fn alone(
        &self,
        at: LogIndex,
        who: &Alone,
        (time, by, what): (u64, &str, &str),
    ) -> Result<(Self, GivenUp), Refusal> {
        let mut next = self.agreed().ok_or(Refusal::NotBegun)?.clone();
        let given_up = next.leave_alone(at, who, time)?;
        let what = format!("{what} as node {}; {given_up}", given_up.node);
        next.note(Audited { at, time, by: by.into(), what });
        Ok((Self(Some(next)), given_up))
    }
}

impl Agreed {
    fn leave_alone(&mut self, at: LogIndex, who: &Alone, time: u64) -> Result<GivenUp, Refusal> {
        let (node, boot) = match who {
            Alone::Stays(id) => {
                let member = self.members.rows.get_mut(id).ok_or(Refusal::NoSuchMember(*id))?;
                // Nobody is left who could own instead.
                (member.draining, member.leaving, member.stopping) = (false, None, false);
                (*id, member.boot)
            }
            Alone::Begins(new, boot) => {
                let gone = std::mem::take(&mut self.members.rows);
                let node = self.members.admit_at(at, new, time)?;
                self.members.rows = gone.union(std::mem::take(&mut self.members.rows));
                if let Some(member) = self.members.rows.get_mut(&node) {
                    member.boot = *boot;
                }
                (node, *boot)
            }
        };
        // Nor is a node without a weight one that others could own for.
        self.members
            .rows
            .get_mut(&node)
            .into_iter()
            .for_each(|m| m.weight = m.weight.max(Weight::ONE));
        let (stays, gone) = self.members.rows.iter().partition::<Vec<_>, _>(|(id, _)| **id == node);
        let members = gone.into_iter().map(|(id, member)| (*id, member.clone())).collect();
        let rows = stays.into_iter().map(|(id, member)| (*id, member.clone())).collect();
        self.members.rows = rows;
        let partitions = self.table.rows().filter(|(_, row)| row.owner.node != node).count();
        self.table = self.table.alone(Seat { node, boot }, TableVersion(at.0))?.into();
        self.record_began();
        Ok(GivenUp { node, members, partitions })
    }
}
