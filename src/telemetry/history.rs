//! The statistics of earlier processes: a redb file in the data directory, a row for each minute
//! and hour.
//!
//! Once a minute, and at a graceful stop, the slices that have changed are written in one
//! transaction, and those that are too old are dropped. A crash loses what came since: a minute at
//! most.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::statistics::{Place, Slice, Span};
use crate::codec;
use crate::files;

const MINUTES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("minutes");
const HOURS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("hours");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The layout of the rows.
const FORMAT: u64 = 1;

const TABLES: [(Span, TableDefinition<'_, u64, &[u8]>); 2] =
    [(Span::Minute, MINUTES), (Span::Hour, HOURS)];

/// Why the statistics can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file can't be made, read or written.
    #[error("the file of the statistics: {0}")]
    Storage(String),
    /// Another version of the program wrote it.
    #[error("the file of the statistics has format {0}, this program reads {FORMAT}")]
    Format(u64),
    /// A row is damaged.
    #[error("the file of the statistics: {0}")]
    Row(#[from] codec::CodecError),
}

fn storage(error: impl Into<redb::Error>) -> HistoryError {
    HistoryError::Storage(error.into().to_string())
}

/// See the module.
pub struct History(Database);

impl History {
    /// Opens the file, made if it isn't there.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let file = files::open(path).map_err(storage)?;
        let database = Database::builder().create_file(file).map_err(storage)?;
        let write = database.begin_write().map_err(storage)?;
        {
            let mut numbers = write.open_table(NUMBERS).map_err(storage)?;
            let format = numbers.get("format").map_err(storage)?.map(|row| row.value());
            match format {
                None => drop(numbers.insert("format", FORMAT).map_err(storage)?),
                Some(FORMAT) => {}
                Some(other) => return Err(HistoryError::Format(other)),
            }
            for (_, table) in TABLES {
                write.open_table(table).map_err(storage)?;
            }
        }
        write.commit().map_err(storage)?;
        Ok(Self(database))
    }

    /// All that is kept.
    pub fn load(&self) -> Result<Vec<(Place, Slice)>, HistoryError> {
        let read = self.0.begin_read().map_err(storage)?;
        let mut slices = Vec::new();
        for (span, table) in TABLES {
            for row in read.open_table(table).map_err(storage)?.iter().map_err(storage)? {
                let (at, slice) = row.map_err(storage)?;
                slices.push(((span, at.value()), codec::decode(slice.value())?));
            }
        }
        Ok(slices)
    }

    /// Keeps these slices, and drops those that are too old at `wall`.
    pub fn store(&self, changed: &[(Place, Slice)], wall: u64) -> Result<(), HistoryError> {
        if changed.is_empty() {
            return Ok(());
        }
        let write = self.0.begin_write().map_err(storage)?;
        for (span, table) in TABLES {
            let mut rows = write.open_table(table).map_err(storage)?;
            for ((_, at), slice) in changed.iter().filter(|((of, _), _)| *of == span) {
                rows.insert(at, codec::encode(slice)?.as_slice()).map_err(storage)?;
            }
            let first = span.first_kept(wall);
            rows.retain_in(..first, |_, _| false).map_err(storage)?;
        }
        write.commit().map_err(storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::shard::Outcomes;

    const HOUR: u64 = 3_600 * SECOND;

    fn slice(allowed: u64) -> Slice {
        let decisions = Outcomes { allowed, denied: 1 };
        Slice { decisions, tiers: [("free".into(), decisions)].into(), ..Slice::default() }
    }

    #[test]
    fn what_was_stored_is_there_when_the_file_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats.redb");
        let history = History::open(&path).unwrap();
        assert_eq!(history.load().unwrap(), []);
        let wall = 500_000 * HOUR;
        history
            .store(
                &[((Span::Minute, 30_000_000), slice(1)), ((Span::Hour, 500_000), slice(2))],
                wall,
            )
            .unwrap();
        history.store(&[((Span::Hour, 500_000), slice(3))], wall).unwrap();
        drop(history);
        let kept = History::open(&path).unwrap().load().unwrap();
        assert_eq!(
            kept,
            [((Span::Minute, 30_000_000), slice(1)), ((Span::Hour, 500_000), slice(3))]
        );
    }

    #[test]
    fn what_is_too_old_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::open(&directory.path().join("stats.redb")).unwrap();
        history.store(&[((Span::Hour, 1_000), slice(1))], 1_000 * HOUR).unwrap();
        history.store(&[((Span::Hour, 1_800), slice(2))], 1_800 * HOUR).unwrap();
        assert_eq!(history.load().unwrap(), [((Span::Hour, 1_800), slice(2))]);
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats.redb");
        std::fs::write(&path, b"not a database, and long enough to look like one".repeat(100))
            .unwrap();
        assert!(matches!(History::open(&path), Err(HistoryError::Storage(_))));
    }

    /// Rows of the first program: of a minute, and of an hour with every member.
    fn written() -> Vec<(Place, Slice)> {
        use crate::shard::{OTHERS, Scope};
        let outcomes = |allowed, denied| Outcomes { allowed, denied };
        let tiers = [("free".into(), outcomes(3, 2)), (OTHERS.into(), outcomes(300, 0))];
        let hour = Slice {
            decisions: outcomes(70_000, 9),
            lists: outcomes(1, 2),
            tiers: tiers.into(),
            denied_by_scope: [(Scope::Global, 1), (Scope::Tenant, 2), (Scope::ApiKey, 300)].into(),
        };
        vec![((Span::Minute, 30_000_000), slice(1)), ((Span::Hour, 500_000), hour)]
    }

    #[test]
    fn statistics_of_the_first_program_are_read_as_they_were() {
        use crate::codec::golden::{NEVER, rows, same};
        let text = include_str!("../../tests/golden/formats/level-1/statistics.txt");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats.redb");
        // Past the code that writes rows today.
        let write = Database::create(&path).unwrap();
        let txn = write.begin_write().unwrap();
        txn.open_table(NUMBERS).unwrap().insert("format", 1).unwrap();
        for (name, row) in rows(text) {
            let (table, at) = name.split_once(' ').unwrap();
            let table: TableDefinition<'_, u64, &[u8]> = TableDefinition::new(table);
            let mut table = txn.open_table(table).unwrap();
            table.insert(at.parse::<u64>().unwrap(), row.as_slice()).unwrap();
        }
        txn.commit().unwrap();
        drop(write);
        let history = History::open(&path).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
        same("the statistics", &history.load().unwrap(), &written());
    }
}
