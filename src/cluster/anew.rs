//! A cluster is made anew of one node's data, while no process has it, after the loss of the
//! majority; or of a back-up, after the loss of everything.
//!
//! ```text
//! n1, n2 are lost, n3 is stopped     recover: n3 is the only member and voter, under a lineage of its own
//! n3 is started                      it leads, decides for all tenants, and takes changes of the policy
//! n1, n2 with empty directories      they join, as new nodes
//! n1, n2 with their old data         n3 refuses them, and they end as they hear of it
//! ```
//!
//! What n1 and n2 knew and n3 didn't is lost: entries of the log that had not reached it, and all
//! that they had counted. Nothing of that can be found out here, so a person decides.

use std::io;
use std::path::{Path, PathBuf};

use crate::actor::counts_file;
use crate::check::Name;
use crate::cluster::backup::Backup;
use crate::cluster::claim::{Acquaintance, Admission, Claim};
use crate::cluster::raft::{self, Founding, Lying, OpenError, Place};
use crate::cluster::state::{Alone, GivenUp, LogIndex, NewMember, Refusal};
use crate::files;
use crate::placement::{BootId, NodeId};
use crate::shard::PartitionSnapshot;

/// Who the audit log says has recovered the cluster.
const RECOVERER: &str = "cluster recover";
/// The same of a cluster that was restored.
const RESTORER: &str = "cluster restore";

/// Why a cluster can't be made anew.
#[derive(Debug, thiserror::Error)]
pub enum AnewError {
    /// The data can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something is there, where a back-up is to be restored.
    #[error("{0} is not empty: a back-up is restored where nothing is")]
    NotEmpty(PathBuf),
    /// A file or folder can't be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is none.
    #[error("there is no node's data there")]
    Empty,
    /// It is that of a node that has left its cluster.
    #[error("{0} has left, and its number is spent: what it knows was handed over to the others")]
    HasLeft(String),
    /// It never heard of a beginning.
    #[error("{0} was never part of a cluster that has begun: there is nothing to go on from")]
    NotBegun(String),
    /// It is no member, by its own log.
    #[error("{0} is no member, says its own log: it was given up")]
    NoMember(String),
    /// The state can't be made that of one node.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What is made of a back-up.
pub struct Restoring {
    /// The node that begins with it.
    pub node: NewMember,
    /// The environment of a node that no file names; none where one does.
    pub unlisted: Option<Name>,
    /// The number of the new lineage.
    pub lineage: u64,
    /// A life of the node that is over when it is started: what is in the back-up is what that one
    /// counted.
    pub boot: BootId,
    /// The wall's.
    pub time: u64,
    /// What the audit log says was done.
    pub what: String,
}

/// Makes the data of a node of it in `directory`, where nothing is, with what was counted in the
/// file `counts`; whole, or not at all.
pub fn restore(
    backup: Backup,
    directory: &Path,
    counts: &str,
    restoring: Restoring,
) -> Result<GivenUp, AnewError> {
    let at_path = |path: &Path, error: io::Error| AnewError::Io { path: path.into(), error };
    match std::fs::read_dir(directory).map(|mut entries| entries.next()) {
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(Some(_)) => return Err(AnewError::NotEmpty(directory.into())),
        Err(error) => return Err(at_path(directory, error)),
    }
    let Restoring { node, unlisted, lineage, boot, time, what } = restoring;
    let Backup { header, state, counts: counted } = backup;
    let at = LogIndex(header.applied.0 + 1);
    let who = Alone::Begins(node.clone(), boot);
    let (state, given_up) = state.alone(at, &who, (time, RESTORER, &what))?;
    let acquaintance =
        Acquaintance { number: given_up.node, name: node.name.clone(), peer: node.peer.clone() };
    // Tokens are no part of a back-up: they come from a file, or there are none.
    let admission = unlisted.map(|environment| Admission {
        environment,
        members: vec![acquaintance],
        tokens: Vec::new(),
    });
    let claim = Claim { node: given_up.node, name: node.name, cluster: header.cluster, admission };
    let lineage = header.lineage.anew(lineage);
    let founding = Founding {
        claim: &claim,
        peer: node.peer,
        lineage: &lineage,
        state: &state,
        at,
        term: header.term + 1,
    };
    // Beside its place, so that what is there is all there.
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.into());
    let beside = beside(&directory);
    let parent = directory
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    files::make_directory(parent).map_err(|error| at_path(parent, error))?;
    if beside.exists() {
        return Err(at_path(&beside, io::ErrorKind::AlreadyExists.into()));
    }
    files::make_directory(&beside).map_err(|error| at_path(&beside, error))?;
    let renamed =
        || std::fs::rename(&beside, &directory).map_err(|error| at_path(&directory, error));
    let made = fill(&beside, &founding, counts, counted, time)
        .and_then(|()| renamed())
        .and_then(|()| sync(parent));
    if made.is_err() {
        // What it failed of says more than that it can't be tidied up.
        let _ = std::fs::remove_dir_all(&beside);
    }
    made.map(|()| given_up)
}

/// Makes durable what a folder holds.
fn sync(folder: &Path) -> Result<(), AnewError> {
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| AnewError::Io { path: folder.into(), error })
}

/// Where the folder is made.
fn beside(directory: &Path) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!("{name}.restoring"))
}

fn fill(
    folder: &Path,
    founding: &Founding<'_>,
    counts: &str,
    counted: Vec<PartitionSnapshot>,
    wall: u64,
) -> Result<(), AnewError> {
    raft::found(&Place::Directory(folder.into()), founding)?;
    if let (Some(mut counted), Some(agreed)) =
        (PartitionSnapshot::joined(counted), founding.state.agreed())
    {
        counted.epochs =
            agreed.table.rows().map(|(partition, row)| (partition, row.epoch)).collect();
        // A back-up has no permits: those of the cluster that it was made of may be in flight
        // still.
        counted.lose_permits(wall);
        let path = folder.join(counts);
        counts_file::save(&path, counted, founding.state.level())
            .map_err(|error| AnewError::Io { path, error })?;
    }
    sync(folder)
}

/// A recovery that could be carried out.
pub struct Recovery {
    lying: Lying,
    /// Where clients and where peers reach the node.
    http: String,
    peer: String,
    given_up: GivenUp,
}

/// What a person wants to know before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster.
    pub cluster: Name,
    /// The node that goes on.
    pub name: Name,
    /// Its number, which stays.
    pub number: NodeId,
    /// Where clients reach it.
    pub http: String,
    /// The last entry of the log that it has.
    pub last: LogIndex,
    /// Of the last entries, those of which it doesn't know that a majority has them. They are
    /// taken.
    pub unconfirmed: u64,
    /// The version of the policy.
    pub policy_version: u64,
    /// Who is given up, and what of it begins anew.
    pub given_up: GivenUp,
}

impl Recovery {
    /// Looks at the data at `place`, and has it alone from here on. Changes nothing.
    pub fn of(place: &Place) -> Result<Self, AnewError> {
        let found = place.found()?.ok_or(AnewError::Empty)?;
        let name = found.claim.to_string();
        if found.has_left {
            return Err(AnewError::HasLeft(name));
        }
        let lying = Lying::open(place)?.ok_or(AnewError::Empty)?;
        let agreed = lying.state.agreed().ok_or_else(|| AnewError::NotBegun(name.clone()))?;
        let member = agreed.members.get(lying.claim.node).ok_or(AnewError::NoMember(name))?;
        let (http, peer) = (member.http.clone(), member.peer.clone());
        // The words and the time don't matter to who is given up.
        let who = Alone::Stays(lying.claim.node);
        let (_, given_up) = lying.state.alone(next(&lying), &who, (0, "", ""))?;
        Ok(Self { lying, http, peer, given_up })
    }

    /// What would be done.
    pub fn plan(&self) -> Plan {
        let Lying { claim, state, last, unconfirmed, .. } = &self.lying;
        Plan {
            cluster: claim.cluster.clone(),
            name: claim.name.clone(),
            number: claim.node,
            http: self.http.clone(),
            last: *last,
            unconfirmed: *unconfirmed,
            policy_version: state.agreed().map_or(0, |agreed| agreed.version),
            given_up: self.given_up.clone(),
        }
    }

    /// Does it: durable when it answers. `drawn` is the number of the new lineage, `time` the
    /// wall's.
    pub fn carry_out(self, drawn: u64, time: u64) -> Result<(), AnewError> {
        let Self { lying, peer, .. } = self;
        let (at, who) = (next(&lying), Alone::Stays(lying.claim.node));
        let (state, _) = lying.state.alone(at, &who, (time, RECOVERER, "recovered the cluster"))?;
        let (claim, lineage) = (lying.claim.clone(), lying.lineage.anew(drawn));
        let term = lying.term + 1;
        let founding = Founding { claim: &claim, peer, lineage: &lineage, state: &state, at, term };
        Ok(lying.replace(&founding)?)
    }
}

/// The entry at which it is done.
fn next(lying: &Lying) -> LogIndex {
    LogIndex(lying.last.0 + 1)
}
