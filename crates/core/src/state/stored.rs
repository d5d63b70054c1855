//! The state as bytes: one format for each format level that changed it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Agreed, Audited, ClusterSettings, Done, History, Member, Members, Past, RequestId, SecretWords,
    State,
};
use crate::codec::{self, CodecError};
use crate::input::Fault;
use crate::placement::{Began, FormatLevel, NodeId, Table};
use crate::policy::Document;

/// The layout of an encoded state of level 1.
const FORMAT: u16 = 2;
/// The layout from level 2 on: that of level 1, and [`Later`] behind it.
const FORMAT_2: u16 = 3;
/// The format of states at level 3 and above: [`FORMAT_2`], and by what each row's epoch rose.
pub(super) const FORMAT_3: u16 = 4;

impl State {
    /// The state as bytes: the same for all nodes that applied the same log.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        match &self.0 {
            Some(agreed) if agreed.level >= FormatLevel::THIRD => {
                let began: Vec<_> = agreed.table.began().collect();
                codec::encode(&(FORMAT_3, (agreed.save(), agreed.save_later(), began)))
            }
            Some(agreed) if agreed.level > FormatLevel::FIRST => {
                codec::encode(&(FORMAT_2, (agreed.save(), agreed.save_later())))
            }
            _ => codec::encode(&(FORMAT, self.0.as_ref().map(Agreed::save))),
        }
    }

    /// The state of which [`State::encode`] made `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        // The format comes first and its encoding never changes, so a later one is recognised, not
        // misread.
        let format = codec::decode_first::<u16>(bytes)?;
        match format {
            FORMAT => {
                let (_, saved) = codec::decode::<(u16, Option<Saved>)>(bytes)?;
                let restore = |saved| Agreed::restore(saved, Later::default(), Vec::new());
                Ok(Self(saved.map(restore).transpose()?))
            }
            FORMAT_2 => {
                let (_, (saved, later)) = codec::decode::<(u16, (Saved, Later))>(bytes)?;
                Ok(Self(Some(Agreed::restore(saved, later, Vec::new())?)))
            }
            FORMAT_3 => {
                type Third = (Saved, Later, Vec<Began>);
                let (_, (saved, later, began)) = codec::decode::<(u16, Third)>(bytes)?;
                if later.level > FormatLevel::OWN {
                    return Err(DecodeError::Level { found: later.level });
                }
                Ok(Self(Some(Agreed::restore(saved, later, began)?)))
            }
            found => Err(DecodeError::Format { found, known: FORMAT_3 }),
        }
    }
}

/// Why bytes are no state.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They aren't one.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They are one of another version of the program.
    #[error("the state has format {found}, this program reads {known}")]
    Format {
        /// Theirs.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// They are of a cluster that went on to a level that this version of the program doesn't know.
    #[error(
        "the cluster is at format level {found}, this program reads {}: it can't go back to an \
         older program",
        FormatLevel::OWN
    )]
    Level {
        /// Theirs.
        found: FormatLevel,
    },
    /// The document in them isn't valid for this version of the program.
    #[error("the policy in it is not valid: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Document(Vec<Fault>),
}

impl Agreed {
    fn save(&self) -> Saved {
        Saved {
            version: self.version,
            document: self.document.to_stored(),
            history: self.history.past.iter().cloned().collect(),
            members: self.members.rows.iter().map(|(id, member)| (*id, member.clone())).collect(),
            newest_member: self.members.newest,
            table: (*self.table).clone(),
            audit: self.audit.iter().cloned().collect(),
            secret: self.secret,
            requests: self
                .order
                .iter()
                .filter_map(|id| Some((*id, self.requests.get(id)?.clone())))
                .collect(),
        }
    }

    fn save_later(&self) -> Later {
        Later {
            level: self.level,
            levels: self.members.iter().map(|(id, member)| (id, member.level)).collect(),
            settings: self.settings,
            round_trips: self
                .members
                .iter()
                .filter_map(|(id, member)| Some((id, member.round_trip_ms?)))
                .collect(),
        }
    }

    fn restore(saved: Saved, later: Later, began: Vec<Began>) -> Result<Self, DecodeError> {
        let levels: BTreeMap<_, _> = later.levels.into_iter().collect();
        let round_trips: BTreeMap<_, _> = later.round_trips.into_iter().collect();
        let row = |(id, member): (NodeId, Member)| {
            let level = levels.get(&id).copied().unwrap_or_default();
            let round_trip_ms = round_trips.get(&id).copied();
            (id, Member { level, round_trip_ms, ..member })
        };
        let rows = saved.members.into_iter().map(row).collect();
        Ok(Self {
            version: saved.version,
            document: Document::from_stored(&saved.document).map_err(DecodeError::Document)?,
            history: History::restored(saved.history),
            members: Members { rows, newest: saved.newest_member },
            level: later.level,
            settings: later.settings,
            table: Arc::new(saved.table.with_began(began)),
            audit: saved.audit.into_iter().collect(),
            secret: saved.secret,
            order: saved.requests.iter().map(|(id, _)| *id).collect(),
            requests: saved.requests.into_iter().collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u64,
    document: String,
    history: Vec<Past>,
    members: Vec<(NodeId, Member)>,
    newest_member: NodeId,
    table: Table,
    audit: Vec<Audited>,
    secret: SecretWords,
    requests: Vec<(RequestId, Done)>,
}

/// What a state has from level 2 on, behind what it has at level 1. A new field of [`Agreed`] or of
/// [`Member`] is kept here; at level 1 it has its default.
#[derive(Default, Serialize, Deserialize)]
struct Later {
    level: FormatLevel,
    levels: Vec<(NodeId, FormatLevel)>,
    settings: ClusterSettings,
    /// The round trip that each member's process runs with.
    round_trips: Vec<(NodeId, u64)>,
}
