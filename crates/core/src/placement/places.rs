//! The table, as one life of one node sees it: what is here, and who has the rest.
//!
//! Rows name the node *and* its life, so a process that has just begun sees its predecessor's rows
//! as somebody else's: it answers for none of them until the log has given them to it.

use std::sync::Arc;

use super::{BootId, Epoch, NodeId, PARTITIONS, Partition, Row, Seat, Table, TableVersion};

/// What one life of one node sees of the table. Copies share the table.
#[derive(Clone, Debug)]
pub struct Places {
    me: Seat,
    table: Arc<Table>,
    /// A bit for each partition that is here: asked for every check, and all of it in a few cache
    /// lines.
    here: [u64; WORDS],
}

/// Words of as many bits as there are partitions.
const WORDS: usize = PARTITIONS as usize / 64;

/// Where a partition is, and under which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Here(Epoch),
    /// With another node, or with another life of this one.
    There(Seat, Epoch),
}

impl Places {
    /// What `me` sees of `table`.
    pub fn new(me: Seat, table: Arc<Table>) -> Self {
        let mut here = [0; WORDS];
        for (partition, _) in table.rows().filter(|(_, row)| row.owner == me) {
            here[usize::from(partition.number() / 64)] |= 1 << (partition.number() % 64);
        }
        Self { me, table, here }
    }

    /// All is here: one node that nobody shares anything with, for tests and for who embeds a shard
    /// alone.
    pub fn all_here() -> Self {
        let me = Seat { node: NodeId(1), boot: BootId(1) };
        let row = Row::first(me, None);
        Self::new(me, Arc::new(Table::uniform(TableVersion(1), row)))
    }

    /// What `me` sees before anything is placed: everything is with nobody.
    pub fn unplaced(me: Seat) -> Self {
        let nobody = Seat { node: NodeId::default(), boot: BootId::NEVER };
        let row = Row::first(nobody, None);
        Self::new(me, Arc::new(Table::uniform(TableVersion(0), row)))
    }

    /// Who looks.
    pub fn me(&self) -> Seat {
        self.me
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The log entry that last changed the table.
    pub fn version(&self) -> TableVersion {
        self.table.version()
    }

    /// Where `partition` is.
    pub fn of(&self, partition: Partition) -> Place {
        let row = self.table.row(partition);
        if self.is_here(partition) {
            Place::Here(row.epoch)
        } else {
            Place::There(row.owner, row.epoch)
        }
    }

    /// Whether `partition` is here.
    pub fn is_here(&self, partition: Partition) -> bool {
        self.here[usize::from(partition.number() / 64)] & 1 << (partition.number() % 64) != 0
    }

    /// How many partitions are here.
    pub fn count_here(&self) -> usize {
        self.here.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The partitions that are here, and their epochs.
    pub fn here(&self) -> impl Iterator<Item = (Partition, Epoch)> {
        let rows = self.table.rows().filter(|(_, row)| row.owner == self.me);
        rows.map(|(partition, row)| (partition, row.epoch))
    }
}

impl Table {
    /// A table whose rows are all alike.
    fn uniform(at: TableVersion, row: Row) -> Self {
        Self { version: at, rows: vec![row; usize::from(PARTITIONS)].into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_life_sees_its_predecessors_rows_as_somebody_elses() {
        let [old, new] = [7, 8].map(|boot| Seat { node: NodeId(1), boot: BootId(boot) });
        let table = Arc::new(Table::new(TableVersion(3), vec![(old, None); 4096]).unwrap());
        let partition = Partition::new(9).unwrap();
        let sees = |me| Places::new(me, table.clone()).of(partition);
        assert_eq!(sees(old), Place::Here(Epoch::FIRST));
        assert_eq!(sees(new), Place::There(old, Epoch::FIRST));
        let seated = Arc::new(table.seat(NodeId(1), new.boot, TableVersion(4)).unwrap());
        let places = Places::new(new, seated);
        assert_eq!(places.of(partition), Place::Here(Epoch::new(2)));
        assert_eq!((places.count_here(), places.here().count()), (4096, 4096));
    }

    #[test]
    fn who_is_alone_has_everything() {
        let places = Places::all_here();
        assert!(Partition::all().all(|partition| places.is_here(partition)));
    }
}
