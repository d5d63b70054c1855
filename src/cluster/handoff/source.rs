//! The end that hands partitions over: does what [`Source`] says, for every move that the log begins from this node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;

use super::{Effect, Event, Source};
use crate::clock::{MS, SharedClock};
use crate::cluster::links::Links;
use crate::cluster::state::{LogIndex, What};
use crate::cluster::{InForce, Member};
use crate::codec;
use crate::peer::moving::{InstallAsk, PlainAccount};
use crate::placement::{Epoch, Partition, Seat, Secret, TableVersion};
use crate::shard::{Handle, Moved};

/// How long what is open of frozen partitions may take to end, before the move is given up.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// How long one part may take on its way.
const PART_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of one part, about: a few fit into a frame for bulk.
const PART_BYTES: usize = 1 << 20;
/// How long to wait for the log before proposing again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Hands over the partitions that the log moves away from this node.
pub struct Mover {
    shards: Vec<Handle>,
    member: Arc<Member>,
    in_force: Arc<InForce>,
    links: Arc<Links>,
    clock: SharedClock,
    transfers: AtomicU64,
    under_way: Mutex<BTreeSet<(TableVersion, Seat)>>,
}

/// One move of some partitions to one node, begun by one entry of the log.
struct Move {
    id: TableVersion,
    to: Seat,
    partitions: Arc<BTreeSet<Partition>>,
    transfer: u64,
    /// Hashes of what the target has, by account and by shared bucket.
    accounts: BTreeMap<String, u64>,
    shared: BTreeMap<u128, u64>,
    rest: Option<Moved>,
    bytes: usize,
    frozen_at: Option<u64>,
}

impl Mover {
    /// Hands over what these shards know.
    pub fn new(shards: Vec<Handle>, member: Arc<Member>, links: Arc<Links>, clock: SharedClock) -> Self {
        let in_force = member.in_force().clone();
        let (transfers, under_way) = (AtomicU64::new(1), Mutex::default());
        Self { shards, member, in_force, links, clock, transfers, under_way }
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
        let mut of = Move {
            id,
            to,
            partitions: Arc::new(partitions),
            transfer: self.transfers.fetch_add(1, Ordering::Relaxed),
            accounts: BTreeMap::new(),
            shared: BTreeMap::new(),
            rest: None,
            bytes: 0,
            frozen_at: None,
        };
        let (mut at, first) = Source::begin();
        let mut todo = VecDeque::from([first]);
        while at != Source::Over {
            let event = match (self.log_says(&of), todo.pop_front()) {
                (Some(event), _) => Some(event),
                (None, Some(effect)) => self.perform(effect, &mut of).await,
                (None, None) => {
                    let decided = |_: &InForce| self.log_says(&of).is_some();
                    let waited = tokio::time::timeout(AGAIN_AFTER, self.in_force.until(decided)).await;
                    waited.err().map(|_| Event::Failed)
                }
            };
            let Some(event) = event else { continue };
            let (next, effects) = at.on(event);
            at = next;
            todo.extend(effects);
            if at == Source::Over {
                let moved = event == Event::Moved;
                let frozen = of.frozen_at.map(|frozen_at| self.clock.now().boot.saturating_sub(frozen_at));
                let (partitions, to, bytes) = (of.partitions.len(), of.to.node, of.bytes);
                self.member.handoffs.count(moved, partitions, bytes, frozen);
                let frozen_ms = frozen.unwrap_or(0) / MS;
                tracing::info!(partitions, %to, moved, bytes, frozen_ms, "partitions were handed over");
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
            Effect::Copy => {
                let exported = self.shards.iter().map(|shard| shard.export(of.partitions.clone()));
                let copied = match merged(join_all(exported).await) {
                    Some(copy) => self.send(of, copy, false).await,
                    None => false,
                };
                if copied { Event::Copied } else { Event::Failed }
            }
            Effect::Freeze => {
                of.frozen_at = Some(self.clock.now().boot);
                let frozen = self.shards.iter().map(|shard| shard.freeze(of.partitions.clone()));
                of.rest = tokio::time::timeout(DRAIN_MAX, join_all(frozen)).await.ok().and_then(merged);
                if of.rest.is_some() { Event::Drained } else { Event::Failed }
            }
            Effect::Thaw => {
                join_all(self.shards.iter().map(|shard| shard.thaw(of.partitions.clone()))).await;
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

    /// Sends what the target doesn't have yet; whether it keeps all of it.
    async fn send(&self, of: &mut Move, moved: Moved, last: bool) -> bool {
        let Some(secret) = self.in_force.secret() else { return false };
        let Some(parts) = self.parts(of, moved, last, &secret) else { return false };
        let Some(peer) = self.links.peer(of.to.node) else { return false };
        for mut part in parts {
            part.boot = self.clock.now().boot;
            match peer.bulk().ask(&part, PART_WITHIN).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    tracing::debug!(%error, "a part of some partitions was not taken");
                    return false;
                }
            }
        }
        true
    }

    /// What has changed since the target was last told, in parts; none where it can't be written down.
    fn parts(&self, of: &mut Move, moved: Moved, last: bool, secret: &Secret) -> Option<Vec<InstallAsk>> {
        let transfer = (self.in_force.places().load().me().boot, of.transfer);
        let empty = || InstallAsk {
            transfer,
            boot: 0,
            accounts: Vec::new(),
            shared: Vec::new(),
            gone: Vec::new(),
            gone_shared: Vec::new(),
            lost: Vec::new(),
            last: None,
        };
        let hash = |bytes: &[u8]| {
            let mut hasher = secret.hasher();
            hasher.write(bytes);
            hasher.finish()
        };
        let (mut parts, mut size) = (vec![empty()], 0);
        let mut room = |parts: &mut Vec<InstallAsk>, bytes: usize| {
            if size + bytes > PART_BYTES {
                parts.push(empty());
                size = 0;
            }
            size += bytes;
            of.bytes += bytes;
        };
        let (mut accounts, mut shared) = (BTreeMap::new(), BTreeMap::new());
        for account in moved.accounts {
            let account = PlainAccount::from(account);
            let bytes = codec::encode(&account).ok()?;
            let (id, hash) = (account.id.clone(), hash(&bytes));
            if of.accounts.remove(&id) != Some(hash) {
                room(&mut parts, bytes.len());
                parts.last_mut()?.accounts.push(account);
            }
            accounts.insert(id, hash);
        }
        for (key, state) in moved.shared {
            let bytes = codec::encode(&state).ok()?;
            let hash = hash(&bytes);
            if of.shared.remove(&key) != Some(hash) {
                room(&mut parts, bytes.len());
                parts.last_mut()?.shared.push((key, state));
            }
            shared.insert(key, hash);
        }
        // What the target was told of and is not there any more holds no information now.
        let part = parts.last_mut()?;
        part.gone = std::mem::replace(&mut of.accounts, accounts).into_keys().collect();
        part.gone_shared = std::mem::replace(&mut of.shared, shared).into_keys().collect();
        part.lost = moved.lost.iter().map(|(partition, then)| (*partition, then.boot, then.wall)).collect();
        if last {
            let places = self.in_force.places().load();
            let epoch = |partition: Partition| places.table().row(partition).epoch.number() + 1;
            let moves =
                of.partitions.iter().map(|partition| (*partition, of.id, Epoch::new(epoch(*partition))));
            part.last = Some(moves.collect());
        }
        Some(parts)
    }
}

/// What all shards know, as one; none where one of them didn't say.
fn merged(said: Vec<Result<Moved, crate::shard::Refusal>>) -> Option<Moved> {
    let mut all = Moved::default();
    for moved in said {
        let moved = moved.ok()?;
        all.accounts.extend(moved.accounts);
        all.shared.extend(moved.shared);
        all.lost.extend(moved.lost);
    }
    Some(all)
}
