//! What is on disk: one redb file with the log's rows, a few values, and the newest snapshot.
//!
//! [`Disk::run`] takes a batch of operations and makes them one transaction: one fsync for as many
//! as were waiting. After the first error nothing is tried again, since a file system that failed
//! to write once may claim success the next time; every operation from then on fails, Raft stops,
//! and the process with it.

use std::io;
use std::path::{Path, PathBuf};

use openraft::storage::IOFlushed;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};
use tokio::sync::oneshot;

use super::medium::Medium;
use super::snapshot::Sealed;
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::cluster::claim::{self, Claim};
use crate::codec;
use crate::files;
use crate::peer::Lineage;
use crate::placement::FormatLevel;

/// Entries by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// `format`, `claim`, `lineage`, `left`, `vote`, `committed`, `purged`, `round_trip_ms`.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// `newest`: its seal and bytes.
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");
/// The layout of the file, as long as all in it is of format level 1.
const FORMAT: u16 = 2;
/// The layout from the first entry or snapshot of level 2 on: an older program refuses the file by
/// its format, rather than fail at an entry.
const FORMAT_2: u16 = 3;
/// The name of the file in a data directory.
pub const FILE: &str = "raft.redb";
/// The value with the round trip that the log says.
const ROUND_TRIP: &str = "round_trip_ms";

/// Where a store keeps its file.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a data directory, made if it isn't there; written by a thread of its own.
    Directory(PathBuf),
    /// In memory, gone with the store, written in line: for tests and simulations.
    Memory,
    /// In memory that outlives the store, written in line: for simulations in which nodes come
    /// back.
    Medium(Medium),
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory {0} is in use by another process")]
    InUse(PathBuf),
    /// It is another node's.
    #[error("the data there is that of {found}; this is {expected}")]
    OtherNode {
        /// Whose it is.
        found: Box<Claim>,
        /// Who asks.
        expected: Box<Claim>,
    },
    /// It can't be read or written, or what is in it makes no sense.
    #[error("can't open the log: {0}")]
    Storage(String),
}

impl OpenError {
    pub(super) fn storage(error: impl std::fmt::Display) -> Self {
        Self::Storage(error.to_string())
    }
}

/// A promise to tell whoever waits how an operation ended.
pub(super) type Told<T> = oneshot::Sender<io::Result<T>>;

/// One thing to be written or read, in the order of the queue.
pub(super) enum Op {
    Append {
        rows: Vec<(u64, Vec<u8>)>,
        /// The format level that the rows bring the cluster to.
        needs: FormatLevel,
        flushed: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        told: Told<()>,
    },
    /// Only a hint: it may be lost, so it costs no fsync.
    Committed {
        committed: Option<LogId>,
    },
    /// Everything from this index on goes.
    Truncate {
        from: u64,
        told: Told<()>,
    },
    /// Everything up to here goes.
    Purge {
        upto: LogId,
        told: Told<()>,
    },
    Publish {
        snapshot: Box<Sealed>,
        /// The format level of the state in it.
        level: FormatLevel,
        told: Told<()>,
    },
    Read {
        told: Told<Option<Sealed>>,
    },
    /// The round trip that the log says: read before the log at the next start.
    RoundTrip {
        ms: u64,
        told: Told<()>,
    },
    /// The node has left its cluster.
    Left {
        told: Told<()>,
    },
}

/// What a store finds as it opens.
#[derive(Default)]
pub(super) struct Found {
    pub log: Vec<(Entry, usize)>,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub is_format_2: bool,
}

pub(super) struct Disk {
    database: Database,
    /// How far the stored snapshot reaches, if there is one.
    published: Option<Option<LogId>>,
    failed: Option<String>,
    /// Whether the file says that it is of [`FORMAT_2`].
    is_format_2: bool,
}

impl Disk {
    pub(super) fn open(place: &Place, claim: &Claim) -> Result<(Self, Found), OpenError> {
        let database = open(place)?;
        take(&database, claim)?;
        let found = find(&database).map_err(OpenError::storage)?;
        let snapshot = read_snapshot(&database).map_err(OpenError::storage)?;
        let published = snapshot.map(|sealed| sealed.open().map(|(meta, _)| meta.last_log_id));
        let published = published.transpose().map_err(OpenError::storage)?;
        let is_format_2 = found.is_format_2;
        Ok((Self { database, published, failed: None, is_format_2 }, found))
    }

    /// The snapshot that is there.
    pub(super) fn snapshot(&self) -> Result<Option<Sealed>, AnyError> {
        read_snapshot(&self.database)
    }

    /// Replaces everything, durably and at once, by a snapshot of which `last` is the end.
    pub(super) fn begin_with(
        &self,
        claim: &Claim,
        lineage: &Lineage,
        vote: &Vote,
        last: &LogId,
        (snapshot, level, round_trip_ms): (&Sealed, FormatLevel, Option<u64>),
    ) -> Result<(), AnyError> {
        let txn = self.database.begin_write()?;
        {
            txn.open_table(LOG)?.retain(|_, _| false)?;
            txn.open_table(SNAPSHOT)?.insert("newest", snapshot.bytes.as_slice())?;
            let mut values = txn.open_table(VALUES)?;
            for (name, value) in [
                ("format", codec::encode(&format_of(level))?),
                ("claim", codec::encode(claim)?),
                ("lineage", codec::encode(lineage)?),
                ("vote", codec::encode(vote)?),
                ("committed", codec::encode(&Some(*last))?),
                ("purged", codec::encode(last)?),
            ] {
                values.insert(name, value.as_slice())?;
            }
            if let Some(ms) = round_trip_ms {
                values.insert(ROUND_TRIP, codec::encode(&ms)?.as_slice())?;
            }
        }
        Ok(txn.commit()?)
    }

    /// Does all of `ops`, in their order and durably, then tells those who wait.
    pub(super) fn run(&mut self, ops: Vec<Op>) {
        let outcome = match &self.failed {
            Some(why) => Err(why.clone()),
            None => self.write(&ops).map_err(|e| e.to_string()),
        };
        if let (Err(why), None) = (&outcome, &self.failed) {
            tracing::error!(%why, "the Raft log can't be written any more");
            self.failed = Some(why.clone());
        }
        for op in ops {
            let result = || outcome.clone().map_err(io::Error::other);
            match op {
                Op::Append { flushed, .. } => flushed.io_completed(result()),
                // Whoever stopped waiting doesn't want to know.
                Op::Vote { told, .. }
                | Op::Truncate { told, .. }
                | Op::Purge { told, .. }
                | Op::RoundTrip { told, .. }
                | Op::Left { told }
                | Op::Publish { told, .. } => drop(told.send(result())),
                Op::Read { told } => {
                    let read = result()
                        .and_then(|()| read_snapshot(&self.database).map_err(io::Error::other));
                    drop(told.send(read));
                }
                Op::Committed { .. } => {}
            }
        }
    }

    fn write(&mut self, ops: &[Op]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if ops.iter().all(|op| matches!(op, Op::Read { .. })) {
            return Ok(());
        }
        let mut published = self.published;
        let raised = ops.iter().any(|op| match op {
            Op::Append { needs: level, .. } | Op::Publish { level, .. } => {
                *level > FormatLevel::FIRST
            }
            _ => false,
        });
        let mut txn = self.database.begin_write()?;
        if ops.iter().all(|op| matches!(op, Op::Committed { .. } | Op::Read { .. })) {
            txn.set_durability(Durability::None)?;
        }
        {
            let mut log = txn.open_table(LOG)?;
            let mut values = txn.open_table(VALUES)?;
            let mut snapshot = txn.open_table(SNAPSHOT)?;
            if raised && !self.is_format_2 {
                values.insert("format", codec::encode(&FORMAT_2)?.as_slice())?;
            }
            for op in ops {
                match op {
                    Op::Append { rows, .. } => {
                        for (index, row) in rows {
                            log.insert(index, row.as_slice())?;
                        }
                    }
                    Op::Vote { vote, .. } => {
                        drop(values.insert("vote", codec::encode(vote)?.as_slice())?)
                    }
                    Op::Committed { committed } => {
                        values.insert("committed", codec::encode(committed)?.as_slice())?;
                    }
                    Op::Truncate { from, .. } => log.retain_in(*from.., |_, _| false)?,
                    Op::Purge { upto, .. } => {
                        log.retain_in(..=upto.index, |_, _| false)?;
                        values.insert("purged", codec::encode(upto)?.as_slice())?;
                    }
                    Op::Publish { snapshot: sealed, .. } => {
                        let last = sealed.last_log_id;
                        // One being built and one being installed race; the log behind the newer
                        // may be gone already.
                        if published.as_ref().is_none_or(|published| *published < last) {
                            snapshot.insert("newest", sealed.bytes.as_slice())?;
                            published = Some(last);
                        }
                    }
                    Op::RoundTrip { ms, .. } => {
                        values.insert(ROUND_TRIP, codec::encode(ms)?.as_slice())?;
                    }
                    Op::Left { .. } => {
                        drop(values.insert("left", codec::encode(&true)?.as_slice())?)
                    }
                    Op::Read { .. } => {}
                }
            }
        }
        txn.commit()?;
        self.published = published;
        self.is_format_2 |= raised;
        Ok(())
    }
}

impl Place {
    /// Whose data is there; none where nobody has begun with it. Nobody may have it open.
    pub fn found(&self) -> Result<Option<claim::Found>, OpenError> {
        let is_new = match self {
            Self::Memory => true,
            Self::Medium(medium) => medium.is_empty(),
            Self::Directory(directory) => !directory.join(FILE).exists(),
        };
        if is_new { Ok(None) } else { found(&open(self)?).map_err(OpenError::storage) }
    }

    /// Writes down the round trip, in milliseconds, that a cluster has told this node before it
    /// begins. [`Place::found`] returns it.
    pub fn keep_round_trip(&self, ms: u64) -> Result<(), OpenError> {
        let write = |database: &Database| -> Result<(), AnyError> {
            let txn = database.begin_write()?;
            txn.open_table(VALUES)?.insert(ROUND_TRIP, codec::encode(&ms)?.as_slice())?;
            Ok(txn.commit()?)
        };
        write(&open(self)?).map_err(OpenError::storage)
    }

    /// Makes the place that of the node that `claim` names, before it begins. Where there is
    /// another node's claim already it is replaced, as long as nothing was ever written under it.
    pub fn claim(&self, claim: &Claim, lineage: &Lineage) -> Result<(), OpenError> {
        let database = open(self)?;
        match found(&database).map_err(OpenError::storage)? {
            Some(found) if !found.is_blank => take(&database, claim),
            Some(_) | None => write_claim(&database, claim, lineage).map_err(OpenError::storage),
        }
    }
}

fn open(place: &Place) -> Result<Database, OpenError> {
    match place {
        Place::Memory => Database::builder()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(OpenError::storage),
        Place::Medium(medium) => {
            Database::builder().create_with_backend(medium.open()).map_err(OpenError::storage)
        }
        Place::Directory(directory) => open_file(directory),
    }
}

fn open_file(directory: &Path) -> Result<Database, OpenError> {
    files::make_directory(directory)
        .map_err(|error| OpenError::Storage(files::explain_directory(directory, &error)))?;
    let path = directory.join(FILE);
    let file =
        files::open(&path).map_err(|error| OpenError::Storage(files::explain(&path, &error)))?;
    Database::builder().create_file(file).map_err(|e| match e {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(directory.into()),
        e => OpenError::storage(e),
    })
}

/// Writes the claim the first time; afterwards makes sure that it is this node's.
fn take(database: &Database, claim: &Claim) -> Result<(), OpenError> {
    match found(database).map_err(OpenError::storage)? {
        None => write_claim(database, claim, &Lineage::default()).map_err(OpenError::storage),
        Some(found) if found.claim.is_of(claim) => Ok(()),
        Some(found) => Err(OpenError::OtherNode {
            found: Box::new(found.claim),
            expected: Box::new(claim.clone()),
        }),
    }
}

fn write_claim(database: &Database, claim: &Claim, lineage: &Lineage) -> Result<(), AnyError> {
    let txn = database.begin_write()?;
    {
        txn.open_table(LOG)?;
        txn.open_table(SNAPSHOT)?;
        let mut values = txn.open_table(VALUES)?;
        values.insert("format", codec::encode(&FORMAT)?.as_slice())?;
        values.insert("claim", codec::encode(claim)?.as_slice())?;
        values.insert("lineage", codec::encode(lineage)?.as_slice())?;
    }
    Ok(txn.commit()?)
}

fn format_of(level: FormatLevel) -> u16 {
    if level > FormatLevel::FIRST { FORMAT_2 } else { FORMAT }
}

/// Whose the database is; none where it is new.
fn found(database: &Database) -> Result<Option<claim::Found>, AnyError> {
    let txn = database.begin_read()?;
    let values = match txn.open_table(VALUES) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        values => values?,
    };
    let format = value::<u16>(&values, "format")?;
    if let Some(found) = format.filter(|found| ![FORMAT, FORMAT_2].contains(found)) {
        return Err(
            format!("it has format {found}, this program reads {FORMAT} and {FORMAT_2}").into()
        );
    }
    let Some(claim) = value::<Claim>(&values, "claim")? else { return Ok(None) };
    let written = ["vote", "purged"].iter().map(|name| Ok(values.get(*name)?.is_some()));
    let written: Result<Vec<bool>, AnyError> = written.collect();
    let is_blank = !written?.contains(&true)
        && txn.open_table(LOG)?.is_empty()?
        && txn.open_table(SNAPSHOT)?.is_empty()?;
    let has_left = value::<bool>(&values, "left")?.unwrap_or(false);
    // A node of an earlier version never was in a cluster that was made anew.
    let lineage = value::<Lineage>(&values, "lineage")?.unwrap_or_default();
    let level = if format == Some(FORMAT_2) { FormatLevel::SECOND } else { FormatLevel::FIRST };
    let round_trip_ms = value(&values, ROUND_TRIP)?;
    Ok(Some(claim::Found { claim, is_blank, has_left, lineage, level, round_trip_ms }))
}

pub(super) type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn value<T: serde::de::DeserializeOwned>(
    values: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<T>, AnyError> {
    let Some(bytes) = values.get(name)? else { return Ok(None) };
    Ok(Some(codec::decode(bytes.value())?))
}

fn find(database: &Database) -> Result<Found, AnyError> {
    let txn = database.begin_read()?;
    let values = txn.open_table(VALUES)?;
    let mut log: Vec<(Entry, usize)> = Vec::new();
    for row in txn.open_table(LOG)?.iter()? {
        let (index, bytes) = row?;
        let entry: Entry = codec::decode(bytes.value())?;
        let follows = log.last().is_none_or(|(before, _)| before.log_id.index + 1 == index.value());
        if entry.log_id.index != index.value() || !follows {
            return Err(format!("there is a hole in the log before entry {}", index.value()).into());
        }
        log.push((entry, bytes.value().len()));
    }
    Ok(Found {
        log,
        vote: value(&values, "vote")?,
        committed: value::<Option<LogId>>(&values, "committed")?.flatten(),
        purged: value(&values, "purged")?,
        is_format_2: value::<u16>(&values, "format")? == Some(FORMAT_2),
    })
}

fn read_snapshot(database: &Database) -> Result<Option<Sealed>, AnyError> {
    let txn = database.begin_read()?;
    let Some(bytes) = txn.open_table(SNAPSHOT)?.get("newest")? else { return Ok(None) };
    Ok(Some(Sealed::found(bytes.value().to_vec())?))
}
