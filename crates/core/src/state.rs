//! What the nodes agree on, and how one entry of their log changes it: pure, so that all come to
//! the same.
//!
//! [`State::apply`] takes the entry's index and a [`Command`] and does the whole command or
//! nothing. It knows no clock (times come with the command), no chance, no I/O, and its maps are
//! ordered: the same log gives the same state, to the byte of [`State::encode`].
//!
//! ```text
//! 3  Begin(policy, [n1, n2, n3])            version 1; members 1, 2, 3
//! 4  Edit(expected 1, put tenant acme)      version 2
//! 5  Edit(expected 1, put tenant other)     refused: the policy is at version 2, the change expects 1
//! 6  Admit(n4)                              member 6
//! 7  Register(1, boot 9c…, level 2)         what node 1 is placed to own is owned by that life of it
//! 8  Remove(6)                              refused: node 6 is not leaving
//! 4' the command of 4 again                 version 2, as it was answered; nothing changes
//! ```
//!
//! A command that was done is remembered by its request id ([`REQUESTS_MAX`] of them), so a
//! proposer that heard no answer proposes it again. A refusal isn't remembered: it changed nothing,
//! and judging again is harmless.
//!
//! The partitions are placed on the first members as the cluster begins, on lives that they haven't
//! lived yet; each member's process then says that it is there.
//!
//! # Adding something that nodes agree on
//!
//! Members of one cluster may run two releases. An older program must never be given what it can't
//! read, and both must come to one state from one log, so all that is new has a [`FormatLevel`]:
//!
//! 1. A new command joins the end of [`What`], and [`What::needs`] names its level. A proposal that
//!    the cluster is too old for is refused with the names of the older members
//!    ([`Agreed::refuse_older`]); nothing else has to be asked.
//! 2. A new field of [`Agreed`] or of [`Member`] is kept in [`Later`], which is written from level
//!    2 on; a field of `Member` is `#[serde(skip)]`. Its default is what a state of level 1 means.
//!    Only a command of its level may change it, so that at level 1 all states are those of level
//!    1.
//! 3. A new member of the policy document: see `policy/level.rs`.
//! 4. A new message or a new member of one: a kind of its own, asked of peers whose greeting says
//!    the level (`Links::level_of`).
//!
//! Level and command reach the log in this order: the cluster begins at the level of all founders
//! ([`What::Found`]); later the leader raises it once every member's process reads more
//! ([`What::RaiseLevel`]). The level never falls.
//!
//! What lies in the log was valid when it was written. The HTTP API may become stricter;
//! [`State::apply`] and [`State::decode`] must go on accepting it.

mod alone;
mod command;
mod edit;
#[cfg(any(test, feature = "testing"))]
pub mod golden;
mod history;
mod leaving;
mod members;
mod settings;
mod stored;
#[cfg(test)]
mod tests;

pub use alone::{Alone, GivenUp};
pub use command::{
    BY_BYTES_MAX, Command, Done, MOVES_MAX, Made, NOTE_BYTES_MAX, OlderMembers, Refusal, RequestId,
    Seating, SecretWords, What,
};
pub use edit::Edit;
pub use history::{HISTORY_BYTES_MAX, HISTORY_MAX, History, Past};
pub use members::{ADDRESS_BYTES_MAX, Leaving, MEMBERS_MAX, Member, Members, NewMember};
pub use settings::{ClusterSettings, Setting};
pub use stored::DecodeError;

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use crate::input::Fault;
use crate::placement::planner::{self, Assignment};
use crate::placement::{
    self, Began, BootId, FormatLevel, NodeId, Seat, Secret, Table, TableChangeError, TableVersion,
    Weight,
};
use crate::policy::{Change, Document};

/// Entries of the audit log.
pub const AUDIT_MAX: usize = 10_000;
/// Commands whose answers are remembered: far more than are proposed while one is being proposed
/// again.
pub const REQUESTS_MAX: usize = 10_000;

/// The number of an entry in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

/// One change that was made: when, by whom, what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// The entry that made it.
    pub at: LogIndex,
    /// Wall nanoseconds of its proposer.
    pub time: u64,
    /// Who asked for it.
    pub by: String,
    /// What it was.
    pub what: String,
}

/// The state; nothing until the cluster has begun. A copy shares all that doesn't change, so it
/// costs little.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State(Option<Agreed>);

/// What a cluster that has begun agrees on.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed {
    /// The policy's version.
    pub version: u64,
    /// The policy.
    pub document: Document,
    /// How it came about.
    pub history: History,
    /// The members.
    pub members: Members,
    /// Who owns which partition.
    pub table: Arc<Table>,
    /// The newest changes, oldest first.
    pub audit: Vector<Audited>,
    /// The format level that every member reads: what is written needs no more.
    pub level: FormatLevel,
    /// What operators have set for all nodes.
    pub settings: ClusterSettings,
    secret: SecretWords,
    requests: OrdMap<RequestId, Done>,
    /// The ids of `requests`, oldest first.
    order: Vector<RequestId>,
}

impl State {
    /// What is agreed on, once the cluster has begun.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.0.as_ref()
    }

    /// Applies `command`, entry `at` of the log: whole, or not at all.
    pub fn apply(&mut self, at: LogIndex, command: &Command) -> Result<Done, Refusal> {
        if let Some(done) = self.0.as_ref().and_then(|agreed| agreed.requests.get(&command.request))
        {
            return Ok(done.clone());
        }
        if command.by.len() > BY_BYTES_MAX {
            let detail = format!("is longer than {BY_BYTES_MAX} bytes");
            return Err(Refusal::invalid(vec![Fault::new("by", detail)]));
        }
        let told = self.0.as_ref().and_then(|agreed| agreed.tell_of_members(&command.what));
        let (mut next, made) = match (&self.0, &command.what) {
            (None, What::Begin { secret, document, members }) => {
                Agreed::begin(at, *secret, document, members, command.time)?
            }
            (None, What::Found { level, secret, document, members, round_trip_ms }) => {
                let (mut begun, made) =
                    Agreed::begin(at, *secret, document, members, command.time)?;
                begun.settings = ClusterSettings::founded(*round_trip_ms);
                (begun.raised(*level), made)
            }
            (None, _) => return Err(Refusal::NotBegun),
            (Some(_), What::Begin { .. } | What::Found { .. }) => return Err(Refusal::Begun),
            (Some(agreed), what) => {
                let mut next = agreed.clone();
                let made = next.make(at, command, what)?;
                next.record_began();
                (next, made)
            }
        };
        let done = Done { at, made };
        next.remember(at, command, &done, told);
        self.0 = Some(next);
        Ok(done)
    }

    /// The format level that every member reads; the first before the cluster has begun.
    pub fn level(&self) -> FormatLevel {
        self.0.as_ref().map_or(FormatLevel::FIRST, |agreed| agreed.level)
    }
}

impl Agreed {
    /// The key of every hash that outsiders can feed.
    pub fn secret(&self) -> Secret {
        self.secret.into()
    }

    /// The document at `version`; refused if that isn't remembered.
    pub fn document_at(&self, version: u64) -> Result<Document, Refusal> {
        self.history.document(&self.document, self.version, version)
    }

    /// The policy's version, if the command is about the policy and would leave it as it is. None
    /// if the command would be refused, or was done before under its request id.
    pub fn version_kept_by(&self, command: &Command) -> Option<u64> {
        if self.requests.contains_key(&command.request) {
            return None;
        }
        let (expected, is_kept) = match &command.what {
            What::Edit { expected, edit } => (expected, self.document.keeps(&edit.read().ok()?)),
            What::Rollback { expected, to } => {
                (expected, self.document_at(*to).ok()? == self.document)
            }
            _ => return None,
        };
        (is_kept && self.expect(*expected).is_ok()).then_some(self.version)
    }

    /// Whether a command was done under this request id, as far as is remembered.
    pub fn has_done(&self, request: RequestId) -> bool {
        self.requests.contains_key(&request)
    }

    fn begin(
        at: LogIndex,
        secret: SecretWords,
        document: &str,
        first: &[NewMember],
        time: u64,
    ) -> Result<(Self, Made), Refusal> {
        let document = Document::from_stored(document).map_err(Refusal::invalid)?;
        let mut members = Members::default();
        for new in first {
            members.admit(0, new, time)?;
        }
        let table = Arc::new(first_table(at, &members)?);
        let begun = Self {
            version: 1,
            document,
            history: History::default(),
            members,
            table,
            audit: Vector::new(),
            level: FormatLevel::FIRST,
            settings: ClusterSettings::default(),
            secret,
            requests: OrdMap::new(),
            order: Vector::new(),
        };
        Ok((begun, Made::Version(1)))
    }

    fn make(&mut self, at: LogIndex, command: &Command, what: &What) -> Result<Made, Refusal> {
        match what {
            What::Begin { .. } | What::Found { .. } => Err(Refusal::Begun),
            What::Edit { expected, edit } => {
                self.expect(*expected)?;
                let change = edit.read().map_err(Refusal::invalid)?;
                self.change(&change, command)
            }
            What::Rollback { expected, to } => {
                self.expect(*expected)?;
                let change = Change::Replace(Box::new(self.document_at(*to)?));
                self.change(&change, command)
            }
            What::Admit(new) => Ok(Made::Member(self.members.admit_at(at, new, command.time)?)),
            What::Remove(id) => {
                self.remove(*id, at)?;
                Ok(Made::Member(*id))
            }
            What::Drain(id, draining) => {
                if *draining {
                    self.spare(*id)?;
                }
                self.members.drain(*id, *draining)?;
                Ok(Made::Member(*id))
            }
            What::Leave(id, how) => {
                self.spare(*id)?;
                self.members.leave(*id, *how)?;
                Ok(Made::Member(*id))
            }
            What::Weigh(id, weight) => {
                if *weight == Weight::NONE {
                    self.spare(*id)?;
                }
                self.members.weigh(*id, *weight)?;
                Ok(Made::Member(*id))
            }
            What::Stop(id, boot) => {
                self.members.stop(*id, *boot)?;
                Ok(Made::Member(*id))
            }
            What::BeginMoves(moves) => {
                let to = |(partition, epoch, node): &(_, _, NodeId)| {
                    let member = self.members.get(*node).ok_or(Refusal::NoSuchMember(*node))?;
                    Ok((*partition, *epoch, Seat { node: *node, boot: member.boot }))
                };
                let moves = bounded(moves)?.iter().map(to).collect::<Result<Vec<_>, Refusal>>()?;
                if moves.iter().any(|(.., to)| to.boot == BootId::NEVER) {
                    return Err(Refusal::NotPlaced(
                        "a node that has never been there can't be moved to".into(),
                    ));
                }
                self.table = Arc::new(self.table.begin_moves(&moves, TableVersion(at.0))?);
                Ok(Made::Placement)
            }
            What::CommitMoves(moves) => {
                let moves = bounded(moves)?
                    .iter()
                    .map(|(partition, began)| (*partition, TableVersion(began.0)));
                self.table = Arc::new(
                    self.table.commit_moves(&moves.collect::<Vec<_>>(), TableVersion(at.0))?,
                );
                Ok(Made::Placement)
            }
            What::AbortMoves(moves) => {
                let moves = bounded(moves)?
                    .iter()
                    .map(|(partition, began)| (*partition, TableVersion(began.0)));
                self.table = Arc::new(
                    self.table.abort_moves(&moves.collect::<Vec<_>>(), TableVersion(at.0))?,
                );
                Ok(Made::Placement)
            }
            What::Seat(id, seating) => self.register(at, *id, seating, (FormatLevel::FIRST, None)),
            What::Register(id, seating, level, round_trip_ms) => {
                self.register(at, *id, seating, (*level, Some(*round_trip_ms)))
            }
            What::Set { expected, setting } => self.set(*expected, *setting),
            What::Note(note) => {
                if note.len() > NOTE_BYTES_MAX {
                    let detail = format!("is longer than {NOTE_BYTES_MAX} bytes");
                    return Err(Refusal::invalid(vec![Fault::new("note", detail)]));
                }
                Ok(Made::Version(self.version))
            }
            What::RaiseLevel(level, newest) => {
                // A member that was admitted meanwhile may read less: the leader looks again.
                if self.members.newest == *newest {
                    *self = self.clone().raised(*level);
                }
                Ok(Made::Level(self.level))
            }
        }
    }

    fn register(
        &mut self,
        at: LogIndex,
        id: NodeId,
        seating: &Seating,
        (level, round_trip_ms): (FormatLevel, Option<u64>),
    ) -> Result<Made, Refusal> {
        self.members.seat(id, seating, level, round_trip_ms)?;
        self.table = Arc::new(self.table.seat(id, seating.boot, TableVersion(at.0))?);
        Ok(Made::Member(id))
    }

    /// The same at `level`, which all members read.
    fn raised(mut self, level: FormatLevel) -> Self {
        self.level = self.level.max(level);
        self.members.raise(level);
        self
    }

    /// Errs with the names of the members that can't read the command; `level_of` is what the
    /// caller knows of the level of a member's program.
    pub fn refuse_older(
        &self,
        what: &What,
        level_of: impl Fn(NodeId, &Member) -> FormatLevel,
    ) -> Result<(), OlderMembers> {
        // Reading an edit costs as much as its size: at the own level nothing needs more.
        if self.level >= FormatLevel::OWN || what.raises_to().is_some() {
            return Ok(());
        }
        let needs = what.needs();
        if needs <= self.level {
            return Ok(());
        }
        let older = self.members.iter().filter(|(id, member)| level_of(*id, member) < needs);
        let older = older.map(|(_, member)| member.name.to_string()).collect();
        Err(OlderMembers { needs, level: self.level, older })
    }

    fn expect(&self, expected: Option<u64>) -> Result<(), Refusal> {
        match expected.filter(|expected| *expected != self.version) {
            Some(expected) => Err(Refusal::Stale { expected, actual: self.version }),
            None => Ok(()),
        }
    }

    fn change(&mut self, change: &Change, command: &Command) -> Result<Made, Refusal> {
        let document = self.document.with(change)?;
        let undo = Edit::from(&self.document.undo(change));
        let what = self.told(change, &document, command);
        self.document = document;
        self.version += 1;
        let (version, time, by) = (self.version, command.time, command.by.clone());
        self.history.push(Past { version, time, by, what, undo });
        Ok(Made::Version(version))
    }

    /// What a change does, in a few words, where the documents before and after it say more than
    /// the command: an entry's id alone tells nobody who was on the list.
    fn told(&self, change: &Change, after: &Document, command: &Command) -> String {
        match change {
            Change::DropExpired(_) => match self.document.access.len() - after.access.len() {
                1 => "deleted 1 expired list entry".into(),
                n => format!("deleted {n} expired list entries"),
            },
            Change::AddAccess(name, _)
            | Change::PutAccess(name, _)
            | Change::DeleteAccess(name) => {
                let entry = after.access.get(name).or_else(|| self.document.access.get(name));
                let entry = entry.map(|entry| format!(": {entry}")).unwrap_or_default();
                format!("{}{entry}", command.what)
            }
            _ => command.what.to_string(),
        }
    }

    /// `told` is what was done, where the state before it says more than the command and the state
    /// after it.
    fn remember(&mut self, at: LogIndex, command: &Command, done: &Done, told: Option<String>) {
        let what = match (&command.what, done.made) {
            _ if told.is_some() => told.unwrap_or_default(),
            (What::Admit(_), Made::Member(id)) => format!("{} as node {id}", command.what),
            (What::Edit { .. }, Made::Version(_)) => {
                self.history.iter().next().map(|past| past.what.clone()).unwrap_or_default()
            }
            (what, _) => what.to_string(),
        };
        // Who owns what follows from who is a member: a line for each batch of partitions would
        // only push the others out. Nor is what changed nothing worth a line.
        let is_worth_a_line =
            !matches!(done.made, Made::Placement | Made::Settings { changed: false, .. });
        if is_worth_a_line {
            self.note(Audited { at, time: command.time, by: command.by.clone(), what });
        }
        self.requests.insert(command.request, done.clone());
        self.order.push_back(command.request);
        if self.order.len() > REQUESTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.requests.remove(&oldest);
        }
    }

    fn note(&mut self, line: Audited) {
        self.audit.push_back(line);
        if self.audit.len() > AUDIT_MAX {
            self.audit.pop_front();
        }
    }

    /// Drops by what epochs rose where the state's format can't say it: so every node has the same,
    /// whether it applied the log or restored a snapshot.
    fn record_began(&mut self) {
        let is_recorded = self.table.began().any(|began| began != Began::Unknown);
        if self.level < FormatLevel::THIRD && is_recorded {
            self.table = Arc::new((*self.table).clone().with_began([]));
        }
    }
}

fn bounded<T>(moves: &[T]) -> Result<&[T], Refusal> {
    if (1..=MOVES_MAX).contains(&moves.len()) { Ok(moves) } else { Err(Refusal::Moves) }
}

/// Where the partitions are at first: on all members, and on no life of theirs yet.
fn first_table(at: LogIndex, members: &Members) -> Result<Table, Refusal> {
    let unborn =
        |(id, member): (NodeId, &Member)| placement::Member { may_own: true, ..member.placed(id) };
    let placed = members.iter().map(unborn);
    let unplaced = |error: &dyn std::fmt::Display| Refusal::NotPlaced(error.to_string());
    let placed = placement::Members::new(placed).map_err(|e| unplaced(&e))?;
    let plan = planner::first(&placed).map_err(|e| unplaced(&e))?;
    let unborn =
        |Assignment { owner, replica }| (Seat { node: owner, boot: BootId::NEVER }, replica);
    Table::new(TableVersion(at.0), plan.into_iter().map(unborn)).map_err(|e| unplaced(&e))
}

impl From<TableChangeError> for Refusal {
    fn from(error: TableChangeError) -> Self {
        Self::NotPlaced(error.to_string())
    }
}
