//! Who belongs to the cluster: ids, names, addresses.
//!
//! An id is given once. The first members have 1, 2, 3, … in the order of the configuration; a later one gets the index of
//! the log entry that admits it, or the next id if that is higher: two entries never have the same index, and a member that
//! left takes its id with it. Raft itself would break if a new node answered under an old one's id.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{LogIndex, Refusal, Seating};
use crate::check::Name;
use crate::input::Fault;
use crate::placement::{BootId, NodeId};

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
    /// It is to own nothing any more.
    pub draining: bool,
    /// Its process is about to end, and hands over what it owns; its next one owns again.
    pub stopping: bool,
    /// Since when it is in, wall nanoseconds.
    pub since: u64,
    /// The life of its process that was there last; [`BootId::NEVER`] before the first.
    pub boot: BootId,
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

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.rows.iter().map(|(id, member)| (*id, member))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn admit(&mut self, least: u64, new: &NewMember, since: u64) -> Result<NodeId, Refusal> {
        check(&new.http, &new.peer)?;
        if let Some((id, _)) = self.iter().find(|(_, member)| member.name == new.name) {
            return Err(Refusal::MemberExists { name: new.name.clone(), id });
        }
        if self.rows.len() >= MEMBERS_MAX {
            return Err(Refusal::TooManyMembers { most: MEMBERS_MAX });
        }
        let id = NodeId(least.max(self.newest.0 + 1));
        self.newest = id;
        let NewMember { name, http, peer } = new.clone();
        self.rows.insert(
            id,
            Member { name, http, peer, draining: false, stopping: false, since, boot: BootId::NEVER },
        );
        Ok(id)
    }

    pub(super) fn admit_at(&mut self, at: LogIndex, new: &NewMember, since: u64) -> Result<NodeId, Refusal> {
        self.admit(at.0, new, since)
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

    pub(super) fn seat(&mut self, id: NodeId, seating: &Seating) -> Result<(), Refusal> {
        check(&seating.http, &seating.peer)?;
        let member = self.rows.get_mut(&id).ok_or(Refusal::NoSuchMember(id))?;
        let Seating { boot, http, peer } = seating.clone();
        (member.boot, member.http, member.peer, member.stopping) = (boot, http, peer, false);
        Ok(())
    }

    pub(super) fn drain(&mut self, id: NodeId, draining: bool) -> Result<Name, Refusal> {
        let member = self.rows.get_mut(&id).ok_or(Refusal::NoSuchMember(id))?;
        member.draining = draining;
        Ok(member.name.clone())
    }
}

fn check(http: &str, peer: &str) -> Result<(), Refusal> {
    let faults: Vec<_> = [("http", http, 1), ("peer", peer, 0)]
        .into_iter()
        .filter(|(_, address, least)| !(*least..=ADDRESS_BYTES_MAX).contains(&address.len()))
        .map(|(path, _, least)| Fault::new(path, format!("is not {least} to {ADDRESS_BYTES_MAX} bytes long")))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Refusal::invalid(faults)) }
}
