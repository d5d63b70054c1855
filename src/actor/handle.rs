//! A shard as the rest of the node sees it: the requests that it takes, and its mailboxes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::check::{Decision, PermitId, TenantId};
use crate::placement::{AccountHash, Partition, TableVersion};
use crate::shard::{
    Answer, Ask, Cursor, Export, Forget, Forgotten, Listed, OpRef, PartitionDelta,
    PartitionSnapshot, Question, Reading, Refusal, Reply, TenantState,
};

/// Questions that may wait for a shard: it answers so many in about five milliseconds.
const MAILBOX_MAX: usize = 8_192;

pub(super) type Decided = Result<Decision, Refusal>;

pub(super) enum Request {
    Check(Question, oneshot::Sender<Answer>),
    Peek(Question, oneshot::Sender<Answer>),
    All(Vec<Question>, oneshot::Sender<Answer>),
    Each(Vec<Question>, oneshot::Sender<Vec<Decided>>),
    Release(PermitId, oneshot::Sender<Result<(), Refusal>>),
    Renew(PermitId, u64, oneshot::Sender<Result<Option<u64>, Refusal>>),
    Describe(TenantId, AccountHash, oneshot::Sender<Result<TenantState, Refusal>>),
    Forget(TenantId, AccountHash, Forget, oneshot::Sender<Result<Forgotten, Refusal>>),
    Copy(Partition, TableVersion, oneshot::Sender<Option<PartitionSnapshot>>),
    Freeze(Leaving, oneshot::Sender<bool>),
    Rest(Leaving, oneshot::Sender<Option<PartitionDelta>>),
    Thaw(Leaving),
    Stage(Staging, oneshot::Sender<()>),
    List(usize, usize, oneshot::Sender<Listed>),
    Long(Cursor, oneshot::Sender<Export>),
    Save(oneshot::Sender<PartitionSnapshot>),
    Tally(oneshot::Sender<Reading>),
}

/// Partitions that are to leave.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// The partitions.
    pub partitions: Arc<BTreeSet<Partition>>,
    /// The entry of the log that began their move.
    pub of: TableVersion,
}

/// What another node knows of partitions that are to come.
#[derive(Debug)]
pub struct Staging {
    /// The partitions.
    pub partitions: Arc<[Partition]>,
    /// The entry of the log that began their move.
    pub of: TableVersion,
    /// What it knows, or a part of that.
    pub delta: PartitionDelta,
    /// Whether it is the last part.
    pub is_last: bool,
}

/// What shards tell each other. There is no more of it than open checks have shared limits, so it
/// needs no bound of its own.
pub(super) enum Between {
    Ask(Ask),
    /// The same from another node, which waits for the answer here.
    AskFrom(Ask, oneshot::Sender<Reply>),
    Reply(Reply),
    Settle {
        op: OpRef,
        key: u128,
        take: bool,
    },
}

/// A shard, as others see it.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    between: mpsc::UnboundedSender<Between>,
    /// Questions that found the mailbox full: the shard itself never hears of them.
    turned_away: Arc<AtomicU64>,
}

impl Handle {
    /// Asks at once; what is waited for is the answer alone, so that no question is carried along
    /// by a future.
    fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Asked<T> {
        let (to, answer) = oneshot::channel();
        // A request that finds no room is dropped with its sender, which the receiver hears.
        if self.requests.try_send(request(to)).is_err() {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        Asked(answer)
    }

    /// Decides one check.
    pub fn check(&self, question: Question) -> impl Future<Output = Decided> + use<> {
        let asked = self.ask(|to| Request::Check(question, to));
        async move { one(asked.answer().await?) }
    }

    /// Says what a check would be answered, and takes nothing.
    pub async fn peek(&self, question: Question) -> Decided {
        one(self.ask(|to| Request::Peek(question, to)).answer().await?)
    }

    /// Decides checks of one tenant that pass together or not at all.
    pub async fn check_all(&self, all: Vec<Question>) -> Answer {
        self.ask(|to| Request::All(all, to)).answer().await?
    }

    /// Decides checks one by one.
    pub async fn check_each(&self, each: Vec<Question>) -> Result<Vec<Decided>, Refusal> {
        self.ask(|to| Request::Each(each, to)).answer().await
    }

    /// Takes a permit back.
    pub async fn release(&self, id: PermitId) -> Result<(), Refusal> {
        self.ask(|to| Request::Release(id, to)).answer().await?
    }

    /// Extends a permit and returns the milliseconds that it runs; none where it isn't in flight
    /// any more.
    pub async fn renew(&self, id: PermitId, ttl_ms: u64) -> Result<Option<u64>, Refusal> {
        self.ask(|to| Request::Renew(id, ttl_ms, to)).answer().await?
    }

    /// What is kept of a tenant.
    pub async fn describe(
        &self,
        tenant: TenantId,
        hash: AccountHash,
    ) -> Result<TenantState, Refusal> {
        self.ask(|to| Request::Describe(tenant, hash, to)).answer().await?
    }

    /// Forgets what is told of a tenant.
    pub async fn forget(
        &self,
        tenant: TenantId,
        hash: AccountHash,
        what: Forget,
    ) -> Result<Forgotten, Refusal> {
        self.ask(|to| Request::Forget(tenant, hash, what, to)).answer().await?
    }

    /// A page of the tenants in memory.
    pub async fn list(&self, from: usize, most: usize) -> Result<Listed, Refusal> {
        self.ask(|to| Request::List(from, most, to)).answer().await
    }

    /// Returns what it has counted so far, and its levels. Waits for a place in the mailbox: a shard
    /// is looked at most when it is busiest.
    pub async fn tally(&self) -> Result<Reading, Refusal> {
        self.told(Request::Tally).await
    }

    /// Questions in its mailbox.
    pub fn depth(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// Questions so far that found its mailbox full.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// What a bucket of its answers to a check that is open on another node. None comes where the
    /// shard has ended, or where the question waited for others' holds for as long as it may.
    pub fn ask_from_far(&self, ask: Ask) -> impl Future<Output = Option<Reply>> + use<> {
        let (to, reply) = oneshot::channel();
        // A shard that has ended drops the sender.
        let _ = self.between.send(Between::AskFrom(ask, to));
        async move { reply.await.ok() }
    }

    /// Settles what a check that is open on another node holds of a bucket of its.
    pub fn settle_from_far(&self, op: OpRef, key: u128, take: bool) {
        let _ = self.between.send(Between::Settle { op, key, take });
    }

    /// What it knows of a partition, while it goes on deciding it: for the move that this entry of
    /// the log began. None where that is not under way.
    pub async fn copy(
        &self,
        partition: Partition,
        of: TableVersion,
    ) -> Result<Option<PartitionSnapshot>, Refusal> {
        self.told(|to| Request::Copy(partition, of, to)).await
    }

    /// Freezes partitions: true once no check of them is open any more; false where their move is
    /// over. If the caller stops waiting before that, it goes on deciding them.
    pub async fn freeze(&self, leaving: Leaving) -> Result<bool, Refusal> {
        self.told(|to| Request::Freeze(leaving, to)).await
    }

    /// What has changed of frozen partitions since they were copied for their move, once nothing is
    /// held of their shared buckets any more. None where the move is over, or they were copied for
    /// another. If the caller stops waiting before that, it goes on deciding them.
    pub async fn rest(&self, leaving: Leaving) -> Result<Option<PartitionDelta>, Refusal> {
        self.told(|to| Request::Rest(leaving, to)).await
    }

    /// Returns a piece of what it knows of long limits, from `cursor` on. It goes on deciding.
    pub async fn long_counts(&self, cursor: Cursor) -> Result<Export, Refusal> {
        self.told(|to| Request::Long(cursor, to)).await
    }

    /// Goes on deciding frozen partitions, of which nothing was handed to anybody who may come to
    /// own them by that move.
    pub async fn thaw(&self, leaving: Leaving) {
        let _ = self.requests.send(Request::Thaw(leaving)).await;
    }

    /// Keeps what another node knows of partitions until the log says that they are here.
    pub async fn stage(&self, staging: Staging) -> Result<(), Refusal> {
        self.told(|to| Request::Stage(staging, to)).await
    }

    /// Asks what must not be turned away because others ask more: waits for a place in the mailbox.
    async fn told<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refusal> {
        let (to, answer) = oneshot::channel();
        self.requests.send(request(to)).await.map_err(|_| Refusal::Busy)?;
        answer.await.map_err(|_| Refusal::Busy)
    }

    /// Everything worth keeping over a restart.
    pub async fn save(&self) -> Result<PartitionSnapshot, Refusal> {
        self.ask(Request::Save).answer().await
    }
}

/// A question on its way.
struct Asked<T>(oneshot::Receiver<T>);

impl<T> Asked<T> {
    async fn answer(self) -> Result<T, Refusal> {
        self.0.await.map_err(|_| Refusal::Busy)
    }
}

fn one(answer: Answer) -> Decided {
    answer.and_then(|mut decisions| decisions.pop().ok_or(Refusal::Busy))
}

/// The receiving ends of one shard, and the sending ends to all.
pub struct Mailboxes {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) between: mpsc::UnboundedReceiver<Between>,
    pub(super) others: Vec<mpsc::UnboundedSender<Between>>,
}

/// Handles and mailboxes of `shards` shards that know each other.
pub fn mailboxes(shards: usize) -> (Vec<Handle>, Vec<Mailboxes>) {
    let (others, between): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
    let ends = between.into_iter().zip(&others).map(|(between, own)| {
        let (sender, requests) = mpsc::channel(MAILBOX_MAX);
        let handle = Handle { requests: sender, between: own.clone(), turned_away: Arc::default() };
        (handle, Mailboxes { requests, between, others: others.clone() })
    });
    ends.unzip()
}
