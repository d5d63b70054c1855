//! Who belongs to the cluster: ids, names, addresses.
//!
//! An id is given once. The first members have 1, 2, 3, … in the order of the configuration; a
//! later one gets the index of the log entry that admits it, or the next id if that is higher: two
//! entries never have the same index, and a member that left takes its id with it. Raft itself
//! would break if a new node answered under an old one's id.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{LogIndex, Refusal, Seating};
use crate::check::Name;
use crate::input::Fault;
use crate::placement::{self, BootId, FormatLevel, NodeId, Weight};

/// Members that a cluster may have.
pub const MEMBERS_MAX: usize = 256;
/// Bytes of an address.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// A node that wants in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// What people call it: `n1`.
    pub name: Name,
    /// Where its door is, for people and clients.
    pub http: String,
    /// Where other nodes reach it; empty where it has no others.
    pub peer: String,
    /// How much of the load it takes, beside the others.
    pub weight: Weight,
}

/// A node that is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What people call it.
    pub name: Name,
    /// Where its door is.
    pub http: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// How much of the load it takes, beside the others; with none it owns nothing.
    pub weight: Weight,
    /// It is to own nothing any more.
    pub draining: bool,
    /// It is to be no member any more, and how; whoever leaves is draining too.
    pub leaving: Option<Leaving>,
    /// Its process is about to end, and hands over what it owns; its next one owns again.
    pub stopping: bool,
    /// Since when it is in, wall nanoseconds.
    pub since: u64,
    /// The life of its process that was there last; [`BootId::NEVER`] before the first.
    pub boot: BootId,
    /// The format level that this process reads, as its registration says. The state of level 1 has
    /// no place for it; see [`super::Later`].
    #[serde(skip)]
    pub level: FormatLevel,
    /// The round trip in milliseconds that this process' timers allow, as its registration says;
    /// none for a process of an older program. Kept as the level is.
    #[serde(skip)]
    pub round_trip_ms: Option<u64>,
}

/// How a member leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leaving {
    /// Once it has handed over what it owns: nothing that was counted is lost.
    HandingOver,
    /// Without: it is gone, and what it owns begins as spent elsewhere.
    Abandoned,
}

impl Member {
    /// Whether a process of it has ever been there.
    pub fn was_there(&self) -> bool {
        self.boot != BootId::NEVER
    }

    /// Whether it may be given partitions: it was there once, has a weight, and is neither drained
    /// nor about to leave.
    pub fn may_own(&self) -> bool {
        !self.draining && self.was_there() && self.weight > Weight::NONE
    }

    /// What the planner is told of it; a process that is about to end is given nothing.
    pub fn placed(&self, id: NodeId) -> placement::Member {
        placement::Member { id, weight: self.weight, may_own: self.may_own() && !self.stopping }
    }

    /// Returns what the planner is told of a founder that owns partitions and has not registered
    /// yet.
    pub fn placed_as_founder(&self, id: NodeId) -> placement::Member {
        let may_own = !self.draining && !self.stopping && self.weight > Weight::NONE;
        placement::Member { id, weight: self.weight, may_own }
    }
}

/// All members, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub(super) rows: OrdMap<NodeId, Member>,
    /// The highest id ever given.
    pub(super) newest: NodeId,
}

impl Members {
    /// The member of that id.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.rows.get(&id)
    }

    /// The highest id ever given.
    pub fn newest(&self) -> NodeId {
        self.newest
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.rows.iter().map(|(id, member)| (*id, member))
    }

    /// Whether the node of that id was a member and is none any more. Ids rise: one above all that
    /// were given is still to come.
    pub fn has_left(&self, id: NodeId) -> bool {
        id <= self.newest && !self.rows.contains_key(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn admit(
        &mut self,
        least: u64,
        new: &NewMember,
        since: u64,
    ) -> Result<NodeId, Refusal> {
        check(&new.http, &new.peer)?;
        if let Some((id, _)) = self.iter().find(|(_, member)| member.name == new.name) {
            return Err(Refusal::MemberExists { name: new.name.clone(), id });
        }
        if self.rows.len() >= MEMBERS_MAX {
            return Err(Refusal::TooManyMembers { most: MEMBERS_MAX });
        }
        let id = NodeId(least.max(self.newest.0 + 1));
        self.newest = id;
        let NewMember { name, http, peer, weight } = new.clone();
        self.rows.insert(
            id,
            Member {
                name,
                http,
                peer,
                weight,
                draining: false,
                leaving: None,
                stopping: false,
                since,
                boot: BootId::NEVER,
                level: FormatLevel::FIRST,
                round_trip_ms: None,
            },
        );
        Ok(id)
    }

    pub(super) fn admit_at(
        &mut self,
        at: LogIndex,
        new: &NewMember,
        since: u64,
    ) -> Result<NodeId, Refusal> {
        self.admit(at.0, new, since)
    }

    /// Notes that all members read `level`.
    pub(super) fn raise(&mut self, level: FormatLevel) {
        let raised = self
            .rows
            .iter()
            .map(|(id, member)| (*id, Member { level: member.level.max(level), ..member.clone() }));
        self.rows = raised.collect();
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Result<Member, Refusal> {
        self.rows.remove(&id).ok_or(Refusal::NoSuchMember(id))
    }

    pub(super) fn stop(&mut self, id: NodeId, boot: BootId) -> Result<(), Refusal> {
        let member = self.rows.get_mut(&id).ok_or(Refusal::NoSuchMember(id))?;
        // An earlier life that is late says nothing about this one.
        member.stopping |= member.boot == boot;
        Ok(())
    }

    pub(super) fn seat(
        &mut self,
        id: NodeId,
        seating: &Seating,
        level: FormatLevel,
        round_trip_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        check(&seating.http, &seating.peer)?;
        let member = self.rows.get_mut(&id).ok_or(Refusal::NoSuchMember(id))?;
        let Seating { boot, http, peer } = seating.clone();
        (member.boot, member.http, member.peer, member.stopping) = (boot, http, peer, false);
        (member.level, member.round_trip_ms) = (level, round_trip_ms);
        Ok(())
    }

    /// Whoever is to own again stays, too.
    pub(super) fn drain(&mut self, id: NodeId, draining: bool) -> Result<(), Refusal> {
        let member = self.rows.get_mut(&id).ok_or(Refusal::NoSuchMember(id))?;
        member.draining = draining;
        member.leaving = member.leaving.filter(|_| draining);
        Ok(())
    }

    pub(super) fn weigh(&mut self, id: NodeId, weight: Weight) -> Result<(), Refusal> {
        self.rows.get_mut(&id).ok_or(Refusal::NoSuchMember(id))?.weight = weight;
        Ok(())
    }

    /// Whoever was given up isn't waited for again.
    pub(super) fn leave(&mut self, id: NodeId, how: Leaving) -> Result<(), Refusal> {
        let member = self.rows.get_mut(&id).ok_or(Refusal::NoSuchMember(id))?;
        member.draining = true;
        member.leaving =
            Some(member.leaving.filter(|before| *before == Leaving::Abandoned).unwrap_or(how));
        Ok(())
    }
}

fn check(http: &str, peer: &str) -> Result<(), Refusal> {
    let faults: Vec<_> = [("http", http, 1), ("peer", peer, 0)]
        .into_iter()
        .filter(|(_, address, least)| !(*least..=ADDRESS_BYTES_MAX).contains(&address.len()))
        .map(|(path, _, least)| {
            Fault::new(path, format!("is not {least} to {ADDRESS_BYTES_MAX} bytes long"))
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Refusal::invalid(faults)) }
}
