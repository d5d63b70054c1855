//! The log: in memory for reading, on disk for good.
//!
//! Openraft appends, and the entries can be read at once; whether they are durable is told later,
//! by a callback, after an fsync. One thread writes. It takes what has queued up meanwhile, up to
//! [`BATCH_MAX`] operations, as one transaction, so a thousand commands at once cost a few fsyncs.
//! Votes, entries and snapshots go down the one queue: their order on disk is the order in which
//! they were asked for. A store in memory has no thread: it writes where it is asked to, so that a
//! simulation runs the same way twice.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, Found, Op, OpenError, Place};
use super::snapshot::Sealed;
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::cluster::claim::Claim;
use crate::codec;
use crate::placement::FormatLevel;
use crate::watch;

/// Operations in one transaction.
pub const BATCH_MAX: usize = 256;
/// Operations that wait for the writer; openraft waits when there are more.
const QUEUE_MAX: usize = 1024;
/// Bytes of entries that are sent to a follower at a time; one entry goes whatever its size.
pub const APPEND_BYTES_MAX: usize = 4 << 20;

/// The log, the vote and the snapshot of one node. Copies are handles on the same.
#[derive(Clone)]
pub struct LogStore(Arc<Shared>);

struct Shared {
    kept: Mutex<Kept>,
    writer: Writer,
}

enum Writer {
    Thread { queue: mpsc::Sender<Op>, gone: watch::Receiver<()> },
    InLine(Mutex<Disk>),
}

#[derive(Default)]
struct Kept {
    /// Entries that aren't purged, and how many bytes each takes.
    log: BTreeMap<u64, (Entry, usize)>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

/// Resolves when the store's file is closed and may be opened again.
pub struct Closed(Option<watch::Receiver<()>>);

impl Closed {
    /// Waits for it; every handle has to be dropped for that.
    pub async fn wait(self) {
        if let Some(mut gone) = self.0 {
            while gone.changed().await.is_ok() {}
        }
    }
}

impl LogStore {
    /// Opens the store of the node that `claim` names, or makes it.
    pub fn open(place: &Place, claim: &Claim) -> Result<Self, OpenError> {
        let (disk, found) = Disk::open(place, claim)?;
        let writer = match place {
            Place::Memory | Place::Medium(_) => Writer::InLine(Mutex::new(disk)),
            Place::Directory(_) => spawn(disk).map_err(OpenError::storage)?,
        };
        let Found { log, vote, committed, purged, .. } = found;
        let log =
            log.into_iter().map(|(entry, bytes)| (entry.log_id.index, (entry, bytes))).collect();
        let kept = Mutex::new(Kept { log, vote, committed, purged });
        Ok(Self(Arc::new(Shared { kept, writer })))
    }

    /// Tells when the file is closed.
    pub fn closed(&self) -> Closed {
        match &self.0.writer {
            Writer::Thread { gone, .. } => Closed(Some(gone.clone())),
            Writer::InLine(_) => Closed(None),
        }
    }

    /// The term of the last vote; 0 before the first.
    pub(super) fn term(&self) -> u64 {
        self.kept().vote.map_or(0, |vote| vote.leader_id.term)
    }

    pub(super) fn has_thread(&self) -> bool {
        matches!(self.0.writer, Writer::Thread { .. })
    }

    /// Makes `snapshot` the one to be read, unless a newer one is; durable when it answers.
    /// `level` is the format level of the state in it.
    pub(super) async fn publish(&self, snapshot: Sealed, level: FormatLevel) -> io::Result<()> {
        self.ask(|told| Op::Publish { snapshot: Box::new(snapshot), level, told }).await
    }

    /// Writes down the round trip that the log says, for the next start; durable when it answers.
    pub(super) async fn keep_round_trip(&self, ms: u64) -> io::Result<()> {
        self.ask(|told| Op::RoundTrip { ms, told }).await
    }

    /// Writes down that the node has left its cluster; durable when it answers.
    pub(super) async fn leave(&self) -> io::Result<()> {
        self.ask(|told| Op::Left { told }).await
    }

    /// The newest snapshot.
    pub(super) async fn snapshot(&self) -> io::Result<Option<Sealed>> {
        self.ask(|told| Op::Read { told }).await
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics half-way; and if it did, what is on disk counts.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enqueue(&self, op: Op) -> io::Result<()> {
        match &self.0.writer {
            Writer::Thread { queue, .. } => queue.send(op).await.map_err(|_| stopped()),
            Writer::InLine(disk) => {
                disk.lock().unwrap_or_else(PoisonError::into_inner).run(vec![op]);
                Ok(())
            }
        }
    }

    async fn ask<T>(&self, op: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Op) -> io::Result<T> {
        let (told, answer) = oneshot::channel();
        self.enqueue(op(told)).await?;
        answer.await.map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::other("the writer of the log has stopped")
}

fn spawn(mut disk: Disk) -> io::Result<Writer> {
    let (queue, mut ops) = mpsc::channel(QUEUE_MAX);
    let (alive, gone) = watch::channel(());
    std::thread::Builder::new().name("raft-log".into()).spawn(move || {
        while let Some(first) = ops.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && let Ok(op) = ops.try_recv()
            {
                batch.push(op);
            }
            disk.run(batch);
        }
        drop(disk);
        // Only now may somebody else open the file.
        drop(alive);
    })?;
    Ok(Writer::Thread { queue, gone })
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = (range.start_bound().cloned(), range.end_bound().cloned());
        let first = match from {
            Bound::Included(first) => first,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let after = match to {
            Bound::Included(last) => last + 1,
            Bound::Excluded(after) => after,
            Bound::Unbounded => u64::MAX,
        };
        if first >= after {
            return Ok(Vec::new());
        }
        Ok(self.kept().log.range(first..after).map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.kept().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let (kept, mut bytes) = (self.kept(), 0);
        let fitting = kept.log.range(start..end).take_while(|(index, (_, size))| {
            bytes += size;
            **index == start || bytes <= APPEND_BYTES_MAX
        });
        Ok(fitting.map(|(_, (entry, _))| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let kept = self.kept();
        let last = kept.log.last_key_value().map(|(_, (entry, _))| entry.log_id);
        Ok(LogState { last_purged_log_id: kept.purged, last_log_id: last.or_else(|| kept.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        // A vote counts once it is durable: read back earlier, it could be given twice.
        self.ask(|told| Op::Vote { vote: *vote, told }).await?;
        self.kept().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.kept().committed = committed;
        self.enqueue(Op::Committed { committed }).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.kept().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let (mut rows, mut needs) = (Vec::new(), FormatLevel::FIRST);
        {
            let mut kept = self.kept();
            for entry in entries {
                let index = entry.log_id.index;
                let last = kept.log.last_key_value().map(|(last, _)| *last);
                if last.is_some_and(|last| last + 1 != index) {
                    return Err(io::Error::other(format!(
                        "entry {index} does not follow entry {last:?}"
                    )));
                }
                let row = codec::encode(&entry).map_err(io::Error::other)?;
                if let EntryPayload::Normal(command) = &entry.payload {
                    needs = needs.max(command.what.raises_to().unwrap_or_default());
                }
                kept.log.insert(index, (entry, row.len()));
                rows.push((index, row));
            }
        }
        self.enqueue(Op::Append { rows, needs, flushed }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        drop(self.kept().log.split_off(&from));
        self.ask(|told| Op::Truncate { from, told }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut kept = self.kept();
            kept.log = kept.log.split_off(&(upto.index + 1));
            kept.purged = Some(upto);
        }
        self.ask(|told| Op::Purge { upto, told }).await
    }
}
