//! The data of a node that isn't running: looked at, and made that of a cluster of one.
//!
//! Whoever has it open has it alone, as a node that runs would. It is replaced in one transaction:
//! until that is durable nothing has changed.
//!
//! All entries are taken that are there, also those of which this node never heard that a majority
//! has them: whoever got an answer may have got it for one of those, and nobody is left to ask. At
//! worst something is done that was answered with "not known".

use std::collections::BTreeMap;

use openraft::EntryPayload;

use super::disk::{Disk, OpenError, Place};
use super::snapshot::Sealed;
use super::term;
use super::types::{Address, LogId, Membership, SnapshotMeta, Vote};
use crate::cluster::claim::Claim;
use crate::cluster::state::{LogIndex, State};
use crate::peer::Lineage;

/// What lies there.
pub struct Lying {
    disk: Disk,
    /// Whose it is.
    pub claim: Claim,
    /// Which cluster of the name.
    pub lineage: Lineage,
    /// The state after the last entry.
    pub state: State,
    /// The last entry.
    pub last: LogIndex,
    /// Of the last entries, those of which this node doesn't know that a majority has them.
    pub unconfirmed: u64,
    /// The highest term that the node has heard of, and that can be.
    pub term: u64,
}

/// What is to lie there instead: a cluster whose only voter is the node that the claim names.
pub struct Founding<'a> {
    /// Who it is.
    pub claim: &'a Claim,
    /// Where other nodes reach it.
    pub peer: String,
    /// Which cluster of the name.
    pub lineage: &'a Lineage,
    /// What it goes by.
    pub state: &'a State,
    /// The entry that the state is of: above all that were used.
    pub at: LogIndex,
    /// Above all terms that were used.
    pub term: u64,
}

impl Lying {
    /// Opens the data at `place`; none where there is none.
    pub fn open(place: &Place) -> Result<Option<Self>, OpenError> {
        let Some(found) = place.found()? else { return Ok(None) };
        let (disk, log) = Disk::open(place, &found.claim)?;
        let snapshot = disk.snapshot().map_err(OpenError::storage)?;
        let mut last: Option<LogId> = None;
        let mut state = State::default();
        if let Some(sealed) = snapshot {
            let (meta, data) = sealed.open().map_err(OpenError::storage)?;
            (state, last) = (State::decode(&data).map_err(OpenError::storage)?, meta.last_log_id);
        }
        if log.purged > last {
            return Err(OpenError::Storage("the log begins behind the end of the snapshot".into()));
        }
        for (entry, _) in log.log {
            if Some(entry.log_id) <= last {
                continue;
            }
            if let EntryPayload::Normal(command) = &entry.payload {
                // A refusal changes nothing, here as on every node that runs.
                let _ = state.apply(LogIndex(entry.log_id.index), command);
            }
            last = Some(entry.log_id);
        }
        let index = last.map_or(0, |id| id.index);
        // What the only member of a cluster has written is confirmed by that.
        let is_alone = state.agreed().is_some_and(|agreed| agreed.members.iter().count() == 1);
        let confirmed = if is_alone { index } else { log.committed.map_or(0, |id| id.index) };
        let term = term::of_data(
            last.map_or(0, |id| id.leader_id.term),
            log.vote.map_or(0, |vote| vote.leader_id.term),
        );
        Ok(Some(Self {
            disk,
            claim: found.claim,
            lineage: found.lineage,
            state,
            last: LogIndex(index),
            unconfirmed: index.saturating_sub(confirmed),
            term,
        }))
    }

    /// Replaces all of it.
    pub fn replace(self, founding: &Founding<'_>) -> Result<(), OpenError> {
        found_alone(&self.disk, founding)
    }
}

/// Makes the data of such a cluster at `place`, where there is none.
pub fn found(place: &Place, founding: &Founding<'_>) -> Result<(), OpenError> {
    let (disk, _) = Disk::open(place, founding.claim)?;
    found_alone(&disk, founding)
}

fn found_alone(disk: &Disk, founding: &Founding<'_>) -> Result<(), OpenError> {
    let Founding { claim, peer, lineage, state, at, term } = founding;
    let vote = Vote::new(*term, claim.node);
    let last = LogId { leader_id: vote.leader_id, index: at.0 };
    let address = Address::new(claim.name.as_str(), peer);
    let nodes = BTreeMap::from([(claim.node, address)]);
    let alone =
        openraft::Membership::new(vec![[claim.node].into()], nodes).map_err(OpenError::storage)?;
    let last_membership = Membership::new(Some(last), alone);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
    let data = state.encode().map_err(OpenError::storage)?;
    let sealed = Sealed::new(&meta, &data).map_err(OpenError::storage)?;
    let round_trip_ms = state.agreed().and_then(|agreed| agreed.settings.round_trip_ms());
    let snapshot = (&sealed, state.level(), round_trip_ms);
    disk.begin_with(claim, lineage, &vote, &last, snapshot).map_err(OpenError::storage)
}
