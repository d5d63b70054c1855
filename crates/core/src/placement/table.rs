//! The table: who owns each partition, who keeps its replica, and under which epoch.
//!
//! Every node holds a copy and looks a row up for each check: an array, and the partition is the
//! index. The table is never changed in place. Whoever applies the log makes the next one from the
//! one in force, and readers go on with theirs:
//!
//! ```text
//! version 40   partition 7: owner n1 in boot a, replica n2, epoch 3
//! entry 41     partition 7, expecting epoch 3: owner n2 in boot b, replica n1
//! version 41   partition 7: owner n2 in boot b, replica n1, epoch 4       all other rows as they were
//! entry 42     partition 7, expecting epoch 3: …                          refused: it is at epoch 4
//! ```
//!
//! A change is a compare-and-set on its row: it names the epoch it was planned for, and all changes
//! of an entry are made or none is. So of two who move the same partition one loses, and hears by
//! how much. An epoch is of an owner: where the replica alone changes it stays, since what is known
//! of the partition stays where it is. The version is the index of the log entry that last changed
//! the table. An entry raises an epoch by one, so no epoch is ever above the version.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BootId, NodeId, PARTITIONS, Partition, Seat};

/// How many owners a partition has had: 1 when the table is made, one more with every other owner,
/// be it another life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a row whose first owner is its owner yet.
    pub const FIRST: Self = Self(1);

    /// Epoch number `number`: what another node says that it goes by.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Whether it is the one after `before`.
    pub fn follows(self, before: Self) -> bool {
        before.0.checked_add(1) == Some(self.0)
    }

    /// The one after. The callers have checked that there is one: no epoch is above the table's
    /// version, and an entry that changes the table comes after that version.
    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The index of the log entry that last changed a table; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableVersion(pub u64);

impl fmt::Display for TableVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A move that is under way: the owner is still the owner, and hands what it knows to somebody
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moving {
    /// Who is to own the partition next; that life of that node and no other.
    pub to: Seat,
    /// The entry of the log that began it, by which it is told from an earlier one of the same
    /// partition.
    pub id: TableVersion,
}

/// By what a row's epoch rose to what it is. Copies of a partition that were made for a move are
/// used only where the row's epoch rose by that very move.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Began {
    /// Not recorded: the cluster was below format level 3 when the epoch rose.
    #[default]
    Unknown,
    /// By the commit of the move with that id.
    Moved(TableVersion),
    /// By the registration, in that entry, of another process of the node that owns the partition.
    Registered(TableVersion),
    /// By that entry, which gave the partition to another node without its counts.
    Reassigned(TableVersion),
}

/// What the table says of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// Who decides, while its lease lasts.
    pub owner: Seat,
    /// Who follows the owner closely enough to take over; never the owner's own node. None where no
    /// other node could.
    pub replica: Option<NodeId>,
    /// Rises by one with every other owner.
    pub epoch: Epoch,
    /// The move under way, if there is one.
    pub moving: Option<Moving>,
    /// By what the epoch rose. Not in the row's bytes, which are those of level 1: the state keeps
    /// it beside the table from level 3 on.
    #[serde(skip)]
    pub began: Began,
}

impl Row {
    /// The first row of a partition.
    pub fn first(owner: Seat, replica: Option<NodeId>) -> Self {
        Self { owner, replica, epoch: Epoch::FIRST, moving: None, began: Began::Unknown }
    }
}

/// One row's next state, for a row that is at the epoch it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Whose row.
    pub partition: Partition,
    /// The epoch that the row is at, as far as the proposer knows.
    pub expected: Epoch,
    /// The owner from now on. Where it is the same one, the epoch stays.
    pub owner: Seat,
    /// The replica from now on.
    pub replica: Option<NodeId>,
}

impl Change {
    /// Hands a partition over to `owner`. The former owner's node keeps the replica: its copy is
    /// the warmest.
    pub fn hand_over(partition: Partition, row: &Row, owner: Seat) -> Self {
        let replica = (row.owner.node != owner.node).then_some(row.owner.node).or(row.replica);
        Self { partition, expected: row.epoch, owner, replica }
    }

    /// Leaves a partition to its owner and gives the replica to `replica`.
    pub fn place_replica(partition: Partition, row: &Row, replica: Option<NodeId>) -> Self {
        Self { partition, expected: row.epoch, owner: row.owner, replica }
    }
}

/// Why rows are no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Too few, or too many.
    #[error("a table has {PARTITIONS} rows, this one has {actual}{}", if *actual > usize::from(PARTITIONS) { " or more" } else { "" })]
    Rows {
        /// How many were counted; counting stops at the first that is too many.
        actual: usize,
    },
    /// A replica that would be lost with its owner.
    #[error("partition {partition} has owner and replica on one node, {node}")]
    ReplicaIsOwner {
        /// The partition.
        partition: Partition,
        /// The node.
        node: NodeId,
    },
    /// An epoch that no log can have led to.
    #[error(
        "partition {partition} is at epoch {epoch}, in a table of version {version}: epochs go \
         from 1 to the version"
    )]
    Epoch {
        /// The partition.
        partition: Partition,
        /// Its epoch.
        epoch: Epoch,
        /// The table's version.
        version: TableVersion,
    },
}

/// Why changes were not made: none of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableChangeError {
    /// A partition that is to begin to move moves already.
    #[error("partition {partition} moves already")]
    Moves {
        /// The partition.
        partition: Partition,
    },
    /// A partition that is to move is there already.
    #[error("partition {partition} is on node {node} already")]
    MovesNowhere {
        /// The partition.
        partition: Partition,
        /// The node.
        node: NodeId,
    },
    /// None of the moves that are to be ended is under way.
    #[error("none of these moves is under way")]
    NothingMoves,
    /// Somebody else was quicker.
    #[error("partition {partition} is at epoch {actual}, the change expects {expected}")]
    Stale {
        /// The partition.
        partition: Partition,
        /// What the change was made for.
        expected: Epoch,
        /// What there is.
        actual: Epoch,
    },
    /// Two changes of one row: which of them comes last would be chance.
    #[error("partition {partition} is changed twice at once")]
    Twice {
        /// The partition.
        partition: Partition,
    },
    /// A replica that would be lost with its owner.
    #[error("partition {partition} would have owner and replica on one node, {node}")]
    ReplicaIsOwner {
        /// The partition.
        partition: Partition,
        /// The node.
        node: NodeId,
    },
    /// An entry that comes before what the table already contains.
    #[error("the table is at version {version}, a change at log index {at} comes too late")]
    NotLater {
        /// The table's version.
        version: TableVersion,
        /// The index of the entry with the changes.
        at: TableVersion,
    },
}

/// Who owns what: one row for each partition, all valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Table {
    pub(super) version: TableVersion,
    /// As many as there are partitions; the partition's number is the index.
    pub(super) rows: Box<[Row]>,
}

/// A table as it was read.
#[derive(Deserialize)]
struct Unchecked {
    version: TableVersion,
    rows: Vec<Row>,
}

impl TryFrom<Unchecked> for Table {
    type Error = TableError;
    fn try_from(read: Unchecked) -> Result<Self, TableError> {
        Self::of_rows(read.version, read.rows)
    }
}

impl Table {
    /// The first table of a cluster, made by the log entry `at`: owner and replica of every
    /// partition, in the partitions' order. All epochs are 1.
    pub fn new(
        at: TableVersion,
        placed: impl IntoIterator<Item = (Seat, Option<NodeId>)>,
    ) -> Result<Self, TableError> {
        let row = |(owner, replica)| Row::first(owner, replica);
        Self::of_rows(at, placed.into_iter().take(usize::from(PARTITIONS) + 1).map(row).collect())
    }

    fn of_rows(version: TableVersion, rows: Vec<Row>) -> Result<Self, TableError> {
        if rows.len() != usize::from(PARTITIONS) {
            return Err(TableError::Rows { actual: rows.len().min(usize::from(PARTITIONS) + 1) });
        }
        for (partition, row) in Partition::all().zip(&rows) {
            let (node, epoch) = (row.owner.node, row.epoch);
            if row.replica == Some(node) {
                return Err(TableError::ReplicaIsOwner { partition, node });
            }
            if epoch < Epoch::FIRST || epoch.number() > version.0 {
                return Err(TableError::Epoch { partition, epoch, version });
            }
        }
        Ok(Self { version, rows: rows.into() })
    }

    /// The log entry that last changed it.
    pub fn version(&self) -> TableVersion {
        self.version
    }

    /// Who owns a partition.
    pub fn owner(&self, partition: Partition) -> Seat {
        self.row(partition).owner
    }

    /// All that is known of a partition.
    pub fn row(&self, partition: Partition) -> &Row {
        &self.rows[usize::from(partition.number())]
    }

    /// All rows, in the partitions' order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (Partition, &Row)> {
        Partition::all().zip(&self.rows)
    }

    /// The partitions whose rows name `node` as the owner, whatever the boot, in order. Looks at
    /// every row.
    pub fn owned_by(&self, node: NodeId) -> impl Iterator<Item = Partition> {
        self.rows().filter(move |(_, row)| row.owner.node == node).map(|(partition, _)| partition)
    }

    /// The table after the log entry `at`: all `changes` made, and the epochs of rows that get
    /// another owner raised by one, unless no life has owned them yet; moves of them that were
    /// under way are given up. If one of them can't be made, none is. Without changes the version
    /// stays.
    pub fn with(&self, changes: &[Change], at: TableVersion) -> Result<Self, TableChangeError> {
        if changes.is_empty() {
            return Ok(self.clone());
        }
        if at <= self.version {
            return Err(TableChangeError::NotLater { version: self.version, at });
        }
        let mut next = Self { version: at, rows: self.rows.clone() };
        let mut changed = BTreeSet::new();
        for &Change { partition, expected, owner, replica } in changes {
            let actual = self.row(partition).epoch;
            if !changed.insert(partition) {
                return Err(TableChangeError::Twice { partition });
            }
            if actual != expected {
                return Err(TableChangeError::Stale { partition, expected, actual });
            }
            if replica == Some(owner.node) {
                return Err(TableChangeError::ReplicaIsOwner { partition, node: owner.node });
            }
            // Whoever keeps a partition keeps what it knows of it, and what was saved or is on its
            // way names this epoch. What no life has owned yet nobody has gone by.
            let was = self.owner(partition);
            let stays = was == owner || was.boot == BootId::NEVER;
            let (epoch, began) = match stays {
                true => (actual, self.row(partition).began),
                false => (actual.next(), Began::Reassigned(at)),
            };
            let row = Row { owner, replica, epoch, moving: None, began };
            next.rows[usize::from(partition.number())] = row;
        }
        Ok(next)
    }
    /// The table after the log entry `at`, by which a process of `node` said that it is there, in
    /// the life `boot`: its rows are that life's from now on.
    ///
    /// What an earlier life owned is owned under an epoch that is one higher, so nobody takes the
    /// memory of the new process for that of the old one; moves from and to the old one are given
    /// up. Rows that were never owned by any life keep their epoch: nobody went by it. Where the
    /// rows are that life's already, the table stays as it is.
    pub fn seat(
        &self,
        node: NodeId,
        boot: BootId,
        at: TableVersion,
    ) -> Result<Self, TableChangeError> {
        let is_meant = |row: &Row| row.owner.node == node && row.owner.boot != boot;
        let is_awaited =
            |row: &Row| row.moving.is_some_and(|m| m.to.node == node && m.to.boot != boot);
        if !self.rows.iter().any(|row| is_meant(row) || is_awaited(row)) {
            return Ok(self.clone());
        }
        if at <= self.version {
            return Err(TableChangeError::NotLater { version: self.version, at });
        }
        let mut next = Self { version: at, rows: self.rows.clone() };
        for row in next.rows.iter_mut().filter(|row| is_meant(row)) {
            if row.owner.boot != BootId::NEVER {
                (row.epoch, row.began) = (row.epoch.next(), Began::Registered(at));
            }
            (row.owner.boot, row.moving) = (boot, None);
        }
        for row in next.rows.iter_mut() {
            row.moving.take_if(|moving| moving.to.node == node && moving.to.boot != boot);
        }
        Ok(next)
    }

    /// The table after the log entry `at`, by which partitions began to move: each names the epoch
    /// its row is at, and who is to own it next. All begin, or none does. Epochs stay as they are:
    /// the owner is still the owner.
    pub fn begin_moves(
        &self,
        moves: &[(Partition, Epoch, Seat)],
        at: TableVersion,
    ) -> Result<Self, TableChangeError> {
        self.must_follow(at)?;
        let mut next = Self { version: at, rows: self.rows.clone() };
        for &(partition, expected, to) in moves {
            let row = &mut next.rows[usize::from(partition.number())];
            if row.epoch != expected {
                return Err(TableChangeError::Stale { partition, expected, actual: row.epoch });
            }
            if row.moving.is_some() {
                return Err(TableChangeError::Moves { partition });
            }
            if row.owner.node == to.node {
                return Err(TableChangeError::MovesNowhere { partition, node: to.node });
            }
            row.moving = Some(Moving { to, id: at });
        }
        Ok(next)
    }

    /// The table after the log entry `at`, by which moves were done: whoever was to own the
    /// partitions does, under an epoch that is one higher, and the former owner's node keeps the
    /// replica. Moves that are under way no more are left out; fails if none is.
    pub fn commit_moves(
        &self,
        moves: &[(Partition, TableVersion)],
        at: TableVersion,
    ) -> Result<Self, TableChangeError> {
        self.end_moves(moves, at, |row, Moving { to, id }| {
            let (replica, epoch) = (Some(row.owner.node), row.epoch.next());
            *row = Row { owner: to, replica, epoch, moving: None, began: Began::Moved(id) };
        })
    }

    /// The table after the log entry `at`, by which moves were given up: the owner goes on. Moves
    /// that are under way no more are left out; fails if none is.
    pub fn abort_moves(
        &self,
        moves: &[(Partition, TableVersion)],
        at: TableVersion,
    ) -> Result<Self, TableChangeError> {
        self.end_moves(moves, at, |row, _| row.moving = None)
    }

    fn end_moves(
        &self,
        moves: &[(Partition, TableVersion)],
        at: TableVersion,
        end: impl Fn(&mut Row, Moving),
    ) -> Result<Self, TableChangeError> {
        self.must_follow(at)?;
        let mut next = Self { version: at, rows: self.rows.clone() };
        let mut ended = 0;
        for &(partition, id) in moves {
            let row = &mut next.rows[usize::from(partition.number())];
            if let Some(moving) = row.moving.filter(|moving| moving.id == id) {
                end(row, moving);
                ended += 1;
            }
        }
        if ended == 0 { Err(TableChangeError::NothingMoves) } else { Ok(next) }
    }

    /// The table after the log entry `at`, by which all members but one were given up: `seat` owns
    /// everything, and nothing moves.
    ///
    /// What its node owned stays under its epoch, so that what an earlier life has saved of it is
    /// worth something to the next one. The rest is owned under an epoch that is one higher.
    pub fn alone(&self, seat: Seat, at: TableVersion) -> Result<Self, TableChangeError> {
        self.must_follow(at)?;
        let row = |row: &Row| match row.owner.node == seat.node {
            true => Row { replica: None, moving: None, ..*row },
            false => {
                let (epoch, began) = (row.epoch.next(), Began::Reassigned(at));
                Row { owner: seat, replica: None, epoch, moving: None, began }
            }
        };
        Ok(Self { version: at, rows: self.rows.iter().map(row).collect() })
    }

    /// The moves that are under way.
    pub fn moves(&self) -> impl Iterator<Item = (Partition, &Row, Moving)> {
        self.rows().filter_map(|(partition, row)| Some((partition, row, row.moving?)))
    }

    /// By what each row's epoch rose, in the partitions' order.
    pub fn began(&self) -> impl ExactSizeIterator<Item = Began> {
        self.rows.iter().map(|row| row.began)
    }

    /// The table with what [`Table::began`] returned, or with nothing recorded where `began` is
    /// shorter.
    #[must_use]
    pub fn with_began(mut self, began: impl IntoIterator<Item = Began>) -> Self {
        let began = began.into_iter().chain(std::iter::repeat(Began::Unknown));
        self.rows.iter_mut().zip(began).for_each(|(row, began)| row.began = began);
        self
    }

    fn must_follow(&self, at: TableVersion) -> Result<(), TableChangeError> {
        match at > self.version {
            true => Ok(()),
            false => Err(TableChangeError::NotLater { version: self.version, at }),
        }
    }
}
