//! A disk in memory that outlives the node that writes to it, and whose power can fail: for
//! simulations.
//!
//! What was synced is there when it is opened again. Of the writes since then a power cut keeps as
//! many of the first as it is told to; and it may come in the middle of a transaction, after a
//! number of writes that are still to come. Whoever had opened it before can't reach it any more:
//! that process is gone.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What fits on it.
const BYTES_MAX: usize = 1 << 30;

/// The disk; copies are the same one.
#[derive(Clone, Debug, Default)]
pub struct Medium(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// The ways back from what was written since the last sync, oldest first.
    unsynced: Vec<WayBack>,
    /// Rises whenever it is opened: only the newest process can reach it.
    life: u64,
    off: bool,
    cut: Option<Cut>,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Writes that go through before it.
    after: usize,
    /// Writes since the last sync that survive it.
    kept: usize,
}

#[derive(Debug)]
enum WayBack {
    Written { at: usize, before: Vec<u8> },
    Grown { from: usize },
    Shrunk { lost: Vec<u8> },
}

impl Medium {
    /// Cuts its power: after `after` more writes, none for now. Of those that weren't synced, the
    /// first `kept` survive.
    pub fn cut_power(&self, after: usize, kept: usize) {
        let mut contents = self.contents();
        contents.cut = Some(Cut { after, kept });
        contents.burn(after == 0);
    }

    /// Whether its power has failed.
    pub fn is_off(&self) -> bool {
        self.contents().off
    }

    /// Gives it power again; it can be opened, by a new process. A cut that hasn't come yet won't.
    pub fn restore_power(&self) {
        let mut contents = self.contents();
        (contents.off, contents.cut) = (false, None);
    }

    /// Puts a new disk in its place, on which nothing was ever written.
    pub fn replace(&self) {
        let mut contents = self.contents();
        *contents = Contents { life: contents.life + 1, ..Contents::default() };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.contents().bytes.is_empty()
    }

    pub(super) fn open(&self) -> impl StorageBackend {
        let mut contents = self.contents();
        contents.life += 1;
        Opened { medium: self.clone(), life: contents.life }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    /// Fails the power, if it is `now`.
    fn burn(&mut self, now: bool) {
        let Some(cut) = self.cut.filter(|_| now) else { return };
        while self.unsynced.len() > cut.kept {
            match self.unsynced.pop() {
                Some(WayBack::Written { at, before }) => {
                    self.bytes[at..at + before.len()].copy_from_slice(&before);
                }
                Some(WayBack::Grown { from }) => self.bytes.truncate(from),
                Some(WayBack::Shrunk { lost }) => self.bytes.extend_from_slice(&lost),
                None => {}
            }
        }
        self.unsynced.clear();
        (self.off, self.cut) = (true, None);
    }

    /// Counts a write, whose way back has been noted.
    fn written(&mut self) {
        if let Some(cut) = &mut self.cut {
            cut.after = cut.after.saturating_sub(1);
            let now = cut.after == 0;
            self.burn(now);
        }
    }
}

/// The disk as one process has opened it.
#[derive(Debug)]
struct Opened {
    medium: Medium,
    life: u64,
}

impl Opened {
    fn contents(&self) -> io::Result<MutexGuard<'_, Contents>> {
        let contents = self.medium.contents();
        if contents.off || contents.life != self.life {
            return Err(io::Error::other("the disk has no power"));
        }
        Ok(contents)
    }
}

fn range(contents: &Contents, offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
    let from = usize::try_from(offset).map_err(io::Error::other)?;
    let to = from.checked_add(length).filter(|to| *to <= contents.bytes.len());
    to.map(|to| from..to)
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the disk's end"))
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents()?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let contents = self.contents()?;
        let range = range(&contents, offset, out.len())?;
        out.copy_from_slice(&contents.bytes[range]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut contents = self.contents()?;
        let (from, to) = (contents.bytes.len(), usize::try_from(len).map_err(io::Error::other)?);
        if to > BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{BYTES_MAX} bytes are all it has"),
            ));
        }
        let back = match to < from {
            true => WayBack::Shrunk { lost: contents.bytes.split_off(to) },
            false => WayBack::Grown { from },
        };
        contents.bytes.resize(to, 0);
        contents.unsynced.push(back);
        contents.written();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.contents()?.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut contents = self.contents()?;
        let range = range(&contents, offset, data.len())?;
        let (at, before) = (range.start, contents.bytes[range.clone()].to_vec());
        contents.bytes[range].copy_from_slice(data);
        contents.unsynced.push(WayBack::Written { at, before });
        contents.written();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

    use super::*;

    const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

    fn opened(medium: &Medium) -> Result<Database, redb::DatabaseError> {
        Database::builder().create_with_backend(medium.open())
    }

    fn add(database: &Database, row: u64) -> Result<(), Box<dyn std::error::Error>> {
        let txn = database.begin_write()?;
        txn.open_table(ROWS)?.insert(row, [row as u8; 500].as_slice())?;
        Ok(txn.commit()?)
    }

    fn rows(database: &Database) -> Vec<u64> {
        let table = database.begin_read().unwrap().open_table(ROWS).unwrap();
        table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
    }

    #[test]
    fn whatever_write_the_power_fails_at_all_that_was_committed_is_there_afterwards() {
        for kept in [0, 1, 3, usize::MAX] {
            for after in 0..60 {
                let medium = Medium::default();
                let database = opened(&medium).unwrap();
                add(&database, 0).unwrap();
                medium.cut_power(after, kept);
                let committed =
                    (1..).take_while(|row| add(&database, *row).is_ok()).last().unwrap_or(0);
                assert!(medium.is_off());
                drop(database);
                medium.restore_power();
                let found = rows(&opened(&medium).unwrap());
                let whole = found.iter().copied().eq(0..found.len() as u64);
                // The last one may have come through without anybody hearing of it.
                let as_many = [committed + 1, committed + 2].contains(&(found.len() as u64));
                assert!(
                    whole && as_many,
                    "{committed} committed, {found:?} found; {after}, {kept}"
                );
            }
        }
    }

    #[test]
    fn what_was_not_synced_is_undone_from_the_end() {
        let medium = Medium::default();
        let opened = medium.open();
        opened.set_len(4).unwrap();
        opened.write(0, b"abcd").unwrap();
        opened.sync_data().unwrap();
        opened.write(1, b"XY").unwrap();
        opened.set_len(2).unwrap();
        opened.set_len(6).unwrap();
        opened.write(2, b"zzzz").unwrap();
        medium.cut_power(0, 1);
        assert_eq!(medium.contents().bytes, b"aXYd");
        assert!(opened.len().is_err() && opened.sync_data().is_err());
        medium.restore_power();
        let again = medium.open();
        assert_eq!((again.len().unwrap(), medium.is_off()), (4, false));
        assert!(opened.len().is_err());
        assert!(again.read(3, &mut [0; 2]).is_err() && again.set_len(1 << 31).is_err());
    }

    #[test]
    fn a_new_disk_is_empty_and_out_of_reach_for_whoever_had_the_old_one() {
        let medium = Medium::default();
        let before = medium.open();
        before.set_len(4).unwrap();
        medium.replace();
        assert!(medium.is_empty() && before.write(0, b"a").is_err());
        assert_eq!(medium.open().len().unwrap(), 0);
    }
}
