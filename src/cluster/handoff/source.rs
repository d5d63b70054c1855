//! The end that hands partitions over: does what [`Source`] says, for every move that the log
//! begins from this node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;

use super::{Effect, Event, Source};
use crate::actor::{Handle, Leaving};
use crate::clock::{MS, SharedClock};
use crate::cluster::links::Links;
use crate::cluster::state::{LogIndex, What};
use crate::cluster::{InForce, Member};
use crate::peer::Opaque;
use crate::peer::moving::InstallAsk;
use crate::placement::{Partition, Seat, TableVersion};
use crate::shard::PartitionDelta;

/// How long what is open of frozen partitions may take to end, before the move is given up.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// How long one part may take on its way.
const PART_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of one part, about: read in less than a millisecond, which is how long checks may wait
/// behind it at the target.
const PART_BYTES: usize = 128 << 10;
/// How long to wait for the log before proposing again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Hands over the partitions that the log moves away from this node.
pub struct Mover {
    shards: Vec<Handle>,
    member: Arc<Member>,
    in_force: Arc<InForce>,
    links: Arc<Links>,
    clock: SharedClock,
    under_way: Mutex<BTreeSet<(TableVersion, Seat)>>,
}

/// One move of some partitions to one node, begun by one entry of the log.
struct Move {
    id: TableVersion,
    to: Seat,
    partitions: Arc<BTreeSet<Partition>>,
    /// What has changed since the target was given a copy.
    rest: Option<PartitionDelta>,
    bytes: usize,
    frozen: Option<FrozenFor>,
}

/// For how long partitions are frozen.
#[derive(Clone, Copy)]
enum FrozenFor {
    /// They are since this boot time.
    Since(u64),
    /// They were for so many nanoseconds.
    Nanos(u64),
}

impl FrozenFor {
    fn nanos(self, now: u64) -> u64 {
        match self {
            Self::Since(then) => now.saturating_sub(then),
            Self::Nanos(nanos) => nanos,
        }
    }

    fn ended(self, now: u64) -> Self {
        Self::Nanos(self.nanos(now))
    }
}

impl Move {
    fn leaving(&self) -> Leaving {
        Leaving { partitions: self.partitions.clone(), of: self.id }
    }
}

impl Mover {
    /// Hands over what these shards know.
    pub fn new(
        shards: Vec<Handle>,
        member: Arc<Member>,
        links: Arc<Links>,
        clock: SharedClock,
    ) -> Self {
        let in_force = member.in_force().clone();
        Self { shards, member, in_force, links, clock, under_way: Mutex::default() }
    }

    /// Hands over whatever the log says, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.in_force.changes();
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            for (id, to, partitions) in self.begun() {
                let mover = self.clone();
                tasks.spawn(async move {
                    mover.hand_over(id, to, partitions).await;
                    mover.under_way().remove(&(id, to));
                });
            }
            while tasks.try_join_next().is_some() {}
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeSet<(TableVersion, Seat)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves from this node that nobody works on yet.
    fn begun(&self) -> Vec<(TableVersion, Seat, BTreeSet<Partition>)> {
        let places = self.in_force.places().load();
        let mut begun: BTreeMap<(TableVersion, Seat), BTreeSet<Partition>> = BTreeMap::new();
        for (partition, row, moving) in places.table().moves() {
            if row.owner == places.me() {
                begun.entry((moving.id, moving.to)).or_default().insert(partition);
            }
        }
        let mut under_way = self.under_way();
        begun.retain(|key, _| under_way.insert(*key));
        begun.into_iter().map(|((id, to), partitions)| (id, to, partitions)).collect()
    }

    async fn hand_over(&self, id: TableVersion, to: Seat, partitions: BTreeSet<Partition>) {
        let mut of =
            Move { id, to, partitions: Arc::new(partitions), rest: None, bytes: 0, frozen: None };
        let (mut at, first) = Source::begin();
        let mut todo = VecDeque::from([first]);
        while at != Source::Over {
            let event = match (self.log_says(&of), todo.pop_front()) {
                (Some(event), _) => Some(event),
                (None, Some(effect)) => self.perform(effect, &mut of).await,
                (None, None) => {
                    let decided = |_: &InForce| self.log_says(&of).is_some();
                    let waited =
                        tokio::time::timeout(AGAIN_AFTER, self.in_force.until(decided)).await;
                    waited.err().map(|_| Event::Failed)
                }
            };
            let Some(event) = event else { continue };
            let (next, effects) = at.on(event);
            at = next;
            todo.extend(effects);
            if at == Source::Over {
                let moved = event == Event::Moved;
                let frozen = of.frozen.map(|frozen| frozen.nanos(self.clock.now().boot));
                let (partitions, to, bytes) = (of.partitions.len(), of.to.node, of.bytes);
                self.member.handoffs.count(moved, partitions, bytes, frozen);
                let frozen_ms = frozen.unwrap_or(0) / MS;
                tracing::info!(partitions, %to, moved, bytes, frozen_ms, "partitions were handed \
                                                                          over");
            }
        }
    }

    /// What the log has decided, once it has.
    fn log_says(&self, of: &Move) -> Option<Event> {
        let places = self.in_force.places().load();
        let rows = || of.partitions.iter().map(|partition| places.table().row(*partition));
        if rows().any(|row| row.moving.is_some_and(|moving| moving.id == of.id)) {
            return None;
        }
        // They were moved by one entry or by none.
        let moved = rows().any(|row| row.owner == of.to);
        Some(if moved { Event::Moved } else { Event::Stayed })
    }

    async fn perform(&self, effect: Effect, of: &mut Move) -> Option<Event> {
        Some(match effect {
            Effect::Copy if self.copy(of).await => Event::Copied,
            Effect::Copy => Event::Failed,
            Effect::Freeze => {
                of.rest = self.freeze(of).await;
                if of.rest.is_some() { Event::Drained } else { Event::Failed }
            }
            Effect::Thaw => {
                join_all(self.shards.iter().map(|shard| shard.thaw(of.leaving()))).await;
                of.frozen = of.frozen.map(|frozen| frozen.ended(self.clock.now().boot));
                return None;
            }
            Effect::Install => {
                let installed = match of.rest.take() {
                    Some(rest) => self.send(of, rest, true).await,
                    None => false,
                };
                if installed { Event::Installed } else { Event::Failed }
            }
            Effect::Commit => {
                self.propose(of, What::CommitMoves).await;
                return None;
            }
            Effect::GiveUp => {
                self.propose(of, What::AbortMoves).await;
                return None;
            }
        })
    }

    /// What becomes of it the log says, which is looked at next.
    async fn propose(&self, of: &Move, what: impl Fn(Vec<(Partition, LogIndex)>) -> What) {
        let moves = of.partitions.iter().map(|partition| (*partition, LogIndex(of.id.0))).collect();
        if let Err(error) = self.member.propose_own(what(moves)).await {
            tracing::debug!(%error, "the end of a move was not agreed on yet");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Gives the target a copy, of a few accounts at a time; whether it keeps all of it.
    async fn copy(&self, of: &mut Move) -> bool {
        let (mut pending, mut size) = (PartitionDelta::default(), 0);
        for partition in of.partitions.clone().iter() {
            let shard = &self.shards[partition.shard(self.shards.len())];
            let Ok(Some(copy)) = shard.copy(*partition, of.id).await else { return false };
            size += copy.bytes();
            pending.known.add(copy);
            if size >= PART_BYTES {
                size = 0;
                if !self.send(of, std::mem::take(&mut pending), false).await {
                    return false;
                }
            }
        }
        self.send(of, pending, false).await
    }

    /// Freezes the partitions; what has changed since the copy, once nothing of them is open. None
    /// where that isn't known any more, or takes too long.
    async fn freeze(&self, of: &mut Move) -> Option<PartitionDelta> {
        of.frozen = Some(FrozenFor::Since(self.clock.now().boot));
        tokio::time::timeout(DRAIN_MAX, self.drain(of)).await.ok()?
    }

    async fn drain(&self, of: &Move) -> Option<PartitionDelta> {
        let quiet = join_all(self.shards.iter().map(|shard| shard.freeze(of.leaving()))).await;
        // What is open of them may ask for their shared buckets in any shard: those are closed only
        // behind it.
        if quiet.into_iter().any(|quiet| quiet != Ok(true)) {
            return None;
        }
        let rests = join_all(self.shards.iter().map(|shard| shard.rest(of.leaving()))).await;
        rests.into_iter().try_fold(PartitionDelta::default(), |mut all, rest| {
            all.add(rest.ok()??);
            Some(all)
        })
    }

    /// Sends some of what is known to the target; whether it keeps all of it.
    async fn send(&self, of: &mut Move, delta: PartitionDelta, is_last: bool) -> bool {
        let Some(peer) = self.links.peer(of.to.node) else { return false };
        let mut parts = parts(delta).into_iter().peekable();
        while let Some(part) = parts.next() {
            let ask = InstallAsk {
                of: of.id,
                partitions: of.partitions.iter().copied().collect(),
                boot: self.clock.now().boot,
                lost: part.known.lost,
                accounts: part.known.accounts,
                shared: part.known.shared,
                gone: part.gone,
                is_last: is_last && parts.peek().is_none(),
            };
            let Ok(ask) = Opaque::question(&ask) else { return false };
            of.bytes += ask.bytes.len();
            let answer = peer.bulk().call(ask, PART_WITHIN).await;
            let kept = answer.map(|answer| answer.read_answer::<InstallAsk>());
            match kept {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return false,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "what became of a part of some partitions can't be \
                                             read");
                    return false;
                }
                Err(error) => {
                    tracing::debug!(%error, "a part of some partitions was not taken");
                    return false;
                }
            }
        }
        true
    }
}

/// What is known, in parts of about [`PART_BYTES`]: at least one.
fn parts(delta: PartitionDelta) -> Vec<PartitionDelta> {
    let PartitionDelta { known, gone } = delta;
    let empty = || PartitionDelta::at(known.at);
    let mut first = PartitionDelta { gone, ..empty() };
    first.known.lost = known.lost;
    let (mut parts, mut size) = (vec![first], 0);
    let mut next = |parts: &mut Vec<PartitionDelta>, bytes: usize| {
        if size + bytes > PART_BYTES {
            parts.push(empty());
            size = 0;
        }
        size += bytes;
        parts.len() - 1
    };
    for account in known.accounts.into_iter().flat_map(|account| account.cut(PART_BYTES)) {
        let at = next(&mut parts, account.bytes());
        parts[at].known.accounts.push(account);
    }
    for (key, state) in known.shared {
        let at = next(&mut parts, state.bytes());
        parts[at].known.shared.push((key, state));
    }
    parts
}
