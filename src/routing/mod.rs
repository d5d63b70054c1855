//! The way of a check to whoever decides it: lists first, then the shard that its tenant hashes to,
//! on the node that owns it.
//!
//! The tenant's account hashes to a partition. If this node owns it, one of its own shards is
//! asked; otherwise the owner is, over its link (`forward`), and there `owner` hands the check to
//! the shard and sees to it that what comes twice counts once (`window`). Shared limits that lie on
//! other nodes are asked for by the shards themselves (`far`).

mod counts;
mod far;
mod forward;
mod lists;
mod owner;
mod window;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::actor::Handle;
use crate::check::{
    Bypass, Check, Decision, DeniedBy, Dimension, PermitId, Reason, TenantId, Verdicts,
};
use crate::clock::{MS, SharedClock};
use crate::cluster::InForce;
use crate::placement::{AccountHash, Epoch, NodeId, Partition, Place, Seat};
use crate::policy::{AccessVerdict, List, Policy, Subject};
use crate::shard::{
    Counts, Decisions, Forget, Forgotten, Listed, Question, Reading, Refusal, Returned, TenantState,
};
pub use counts::{Count, ForwardCounts};
pub use far::FarLimits;
pub use forward::{Forwarder, ForwarderArgs};
use lists::ListCounts;
pub use owner::Owner;

/// How long a shard has to say what it has counted, before its last word stands.
const TALLY_PATIENCE: Duration = Duration::from_secs(1);

/// Finds the shard for everything that is asked.
pub struct Router {
    shards: Vec<Handle>,
    in_force: Arc<InForce>,
    forward: Arc<Forwarder>,
    clock: SharedClock,
    lists: ListCounts,
}

/// Where a check is decided.
enum Way {
    /// In that shard of this node.
    Here(usize, Question),
    /// On the node in that seat, as far as this one knows.
    There(Check, AccountHash, Seat, Epoch),
}

/// Where a page of the tenants in memory begins: in some node's memory, in one of its shards. The
/// default is the beginning. It prints as what it reads back from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListPlace {
    node: NodeId,
    shard: usize,
    at: usize,
}

impl ListPlace {
    /// The place that was printed as `text`, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (node, shard, at) =
            (NodeId(next()?), usize::try_from(next()?).ok()?, usize::try_from(next()?).ok()?);
        numbers.next().is_none().then_some(Self { node, shard, at })
    }
}

impl std::fmt::Display for ListPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.node, self.shard, self.at)
    }
}

/// The answers to several checks, as they came: in groups by who gave them. Within a group they are
/// in the order of the checks, so they are put in order by looking and not by moving.
pub struct Answers {
    /// The group of each check.
    order: Vec<usize>,
    groups: Vec<Vec<Result<Decision, Refusal>>>,
}

impl Answers {
    /// The answers in the order of the checks.
    pub fn iter(&self) -> impl Iterator<Item = &Result<Decision, Refusal>> {
        let mut groups: Vec<_> = self.groups.iter().map(|group| group.iter()).collect();
        self.order.iter().map(move |&group| groups[group].next().unwrap_or(&Err(Refusal::Busy)))
    }
}

impl Router {
    /// A router to the shards of this node, and by `forward` to all others.
    pub fn new(
        shards: Vec<Handle>,
        in_force: Arc<InForce>,
        forward: Arc<Forwarder>,
        clock: SharedClock,
    ) -> Self {
        Self { shards, in_force, forward, clock, lists: ListCounts::default() }
    }

    /// Decides one check. It is on its way when this returns; what is left is to wait for the
    /// answer.
    pub fn check(&self, check: Check) -> impl Future<Output = Result<Decision, Refusal>> + use<'_> {
        let asked = match self.has_begun() {
            // The rarer ways are the longer ones: boxed, they don't make every check's future as
            // large as themselves.
            false => Ok(Err(self.check_once_begun(check))),
            true => match self.listed(&check) {
                Some(decision) => {
                    self.lists.count(&decision);
                    Err(Ok(decision))
                }
                None => match self.way(check) {
                    Ok(Way::Here(shard, question)) => Ok(Ok(self.shards[shard].check(question))),
                    Ok(Way::There(check, hash, ..)) => {
                        Ok(Err(self.forward.check(check, hash).boxed()))
                    }
                    Err(refusal) => Err(Err(refusal)),
                },
            },
        };
        async move {
            let decided = match asked {
                Ok(Ok(here)) => match here.await {
                    Err(Refusal::Moved(returned)) => Box::pin(self.after(returned)).await,
                    decided => decided,
                },
                Ok(Err(there)) => there.await,
                Err(decided) => return decided,
            };
            log(&decided);
            decided
        }
    }

    /// Decides a check that arrived before the cluster has formed, as soon as it has, within the
    /// check's deadline.
    fn check_once_begun(&self, mut check: Check) -> BoxFuture<'_, Result<Decision, Refusal>> {
        Box::pin(async move {
            check.deadline_ms = self.begun(check.deadline_ms).await?;
            self.check(check).await
        })
    }

    /// Waits until there is something to decide by, at most for `deadline_ms`. Returns what is left
    /// of it; errs, with what this node lacks, if nothing is.
    async fn begun(&self, deadline_ms: u64) -> Result<u64, Refusal> {
        if self.has_begun() {
            return Ok(deadline_ms);
        }
        let arrived = self.clock.now().boot;
        let begun = self.in_force.until(|in_force| in_force.secret().is_some());
        let waited = tokio::time::timeout(Duration::from_millis(deadline_ms), begun).await;
        waited.map_err(|_| Refusal::NotStarted(self.missing()))?;
        let waited_ms = self.clock.now().boot.saturating_sub(arrived) / MS;
        Ok(deadline_ms.saturating_sub(waited_ms).max(1))
    }

    /// What this node lacks before its first answer, in words.
    pub fn missing(&self) -> Arc<String> {
        self.in_force.missing().unwrap_or_else(|| Arc::new("this node has not started yet".into()))
    }

    /// Says what a check would be answered, and takes nothing.
    pub async fn peek(&self, mut check: Check) -> Result<Decision, Refusal> {
        check.deadline_ms = self.begun(check.deadline_ms).await?;
        if let Some(decision) = self.listed(&check) {
            return Ok(decision);
        }
        let (check, hash) = match self.way(check)? {
            Way::Here(shard, question) => match self.shards[shard].peek(question).await {
                Err(Refusal::Moved(returned)) => only(returned)?,
                looked => return looked,
            },
            Way::There(check, hash, ..) => (check, hash),
        };
        self.forward.peek(check, hash).await
    }

    /// Decides several checks, each by itself.
    pub async fn check_each(&self, mut checks: Vec<Check>) -> Answers {
        if !self.has_begun() {
            let longest = checks.iter().map(|check| check.deadline_ms).max().unwrap_or(0);
            // Where it doesn't begin in time, each check is refused below.
            let left = self.begun(longest).await.unwrap_or(1);
            checks.iter_mut().for_each(|check| check.deadline_ms = check.deadline_ms.min(left));
        }
        let mut order = Vec::with_capacity(checks.len());
        let mut listed = Vec::new();
        let room = checks.len() / self.shards.len() + 1;
        let mut questions: Vec<Vec<_>> =
            self.shards.iter().map(|_| Vec::with_capacity(room)).collect();
        let mut others: Vec<(Seat, Vec<forward::Placed>)> = Vec::new();
        // The groups: one for each shard, one for the lists, one for each other node.
        let (of_lists, of_others) = (self.shards.len(), self.shards.len() + 1);
        for check in checks {
            if let Some(decision) = self.listed(&check) {
                self.lists.count(&decision);
                order.push(of_lists);
                listed.push(Ok(decision));
                continue;
            }
            match self.way(check) {
                Ok(Way::Here(shard, question)) => {
                    order.push(shard);
                    questions[shard].push(question);
                }
                Ok(Way::There(check, hash, seat, epoch)) => {
                    let known = others.iter().position(|(other, _)| *other == seat);
                    let at = known.unwrap_or_else(|| {
                        others.push((seat, Vec::new()));
                        others.len() - 1
                    });
                    order.push(of_others + at);
                    others[at].1.push((check, hash, epoch));
                }
                Err(refusal) => {
                    order.push(of_lists);
                    listed.push(Err(refusal));
                }
            }
        }
        let asked = self.shards.iter().zip(questions).map(async |(shard, questions)| {
            let count = questions.len();
            let decided = match count {
                0 => Ok(Vec::new()),
                _ => shard.check_each(questions).await,
            };
            decided.unwrap_or_else(|refusal| vec![Err(refusal); count])
        });
        let here = futures_util::future::join_all(asked);
        let mut groups = match others.is_empty() {
            true => {
                let mut groups = here.await;
                groups.push(listed);
                groups
            }
            false => {
                let asked =
                    others.into_iter().map(|(seat, checks)| self.forward.check_each(seat, checks));
                let (mut groups, there) =
                    futures_util::future::join(here, futures_util::future::join_all(asked)).await;
                groups.push(listed);
                groups.extend(there);
                groups
            }
        };
        for decided in groups.iter_mut().flatten() {
            if let Err(Refusal::Moved(returned)) = decided {
                *decided = self.after(returned.clone()).await;
            }
            log(decided);
        }
        Answers { order, groups }
    }

    /// Decides several checks of one tenant that pass together or not at all.
    pub async fn check_all(&self, mut checks: Vec<Check>) -> Result<Decisions, Refusal> {
        if !self.has_begun() {
            let longest = checks.iter().map(|check| check.deadline_ms).max().unwrap_or(0);
            let left = self.begun(longest).await?;
            checks.iter_mut().for_each(|check| check.deadline_ms = check.deadline_ms.min(left));
        }
        // A list names the tenant, or something that a single check carries; who is denied denies
        // the batch.
        let listed: Vec<_> = checks.iter().map(|check| self.listed(check)).collect();
        if let Some(denied) = listed.iter().flatten().find(|decision| !decision.allowed) {
            let denied = denied.clone();
            let of = |check: Check| Decision { tenant: check.tenant, ..denied.clone() };
            return Ok(checks
                .into_iter()
                .map(of)
                .inspect(|decision| self.lists.count(decision))
                .collect());
        }
        let places: Vec<_> = (0..listed.len()).filter(|i| listed[*i].is_none()).collect();
        let judged = checks.into_iter().zip(&listed).filter(|(_, listed)| listed.is_none());
        let judged: Vec<_> = judged.map(|(check, _)| check).collect();
        let mut decided = match judged.first() {
            None => Decisions::new(),
            Some(_) => self.judge_all(judged).await.map_err(|refusal| match refusal {
                // The shard counts without those that a list has decided.
                Refusal::InBatch(at, why) => {
                    Refusal::InBatch(places.get(at).copied().unwrap_or(at), why)
                }
                refusal => refusal,
            })?,
        }
        .into_iter();
        listed.iter().flatten().for_each(|decision| self.lists.count(decision));
        Ok(listed.into_iter().filter_map(|listed| listed.or_else(|| decided.next())).collect())
    }

    /// The decision of a check that a shard sent back, by whoever owns it now.
    async fn after(&self, returned: Returned) -> Result<Decision, Refusal> {
        let (check, hash) = only(returned)?;
        self.forward.check(check, hash).await
    }

    /// The same of checks that no list decides.
    async fn judge_all(&self, mut checks: Vec<Check>) -> Result<Decisions, Refusal> {
        let alone = checks.len() == 1;
        for (at, check) in checks.iter_mut().enumerate() {
            self.prepare(check).map_err(|refusal| match alone {
                true => refusal,
                false => Refusal::InBatch(at, Box::new(refusal)),
            })?;
        }
        let Some(first) = checks.first() else { return Ok(Decisions::new()) };
        let hash = self.hash(&first.account())?;
        match self.in_force.places().load().of(hash.partition()) {
            Place::Here(epoch) => {
                let questions =
                    checks.into_iter().map(|check| Question { check, hash, epoch }).collect();
                match self.shards[self.shard(hash.partition())].check_all(questions).await {
                    Err(Refusal::Moved(returned)) => {
                        let checks = returned.questions().map(|question| question.check).collect();
                        Ok(self.forward.check_all(checks, hash).await?.into())
                    }
                    decided => decided,
                }
            }
            Place::There(..) => Ok(self.forward.check_all(checks, hash).await?.into()),
        }
    }

    /// Takes a permit back.
    pub async fn release(&self, id: PermitId) -> Result<(), Refusal> {
        match self.permit_shard(id) {
            Some(Ok(shard)) => match shard.release(id).await {
                Err(Refusal::Moved(_)) => self.forward.release(id).await,
                released => released,
            },
            Some(Err(())) => self.forward.release(id).await,
            None => Ok(()),
        }
    }

    /// Extends a permit and returns the milliseconds that it runs; none where it isn't in flight
    /// any more. Errs where its tier allows no such time.
    pub async fn renew(&self, id: PermitId, ttl_ms: u64) -> Result<Option<u64>, Refusal> {
        // No tier's permits run for longer; what the permit's own tier says, its owner knows, and
        // with it what a renewal gets that says nothing.
        self.in_force.policy().load().renewed_ttl(None, self.wall(), ttl_ms)?;
        match self.permit_shard(id) {
            Some(Ok(shard)) => match shard.renew(id, ttl_ms).await {
                Err(Refusal::Moved(_)) => self.forward.renew(id, ttl_ms).await,
                renewed => renewed,
            },
            Some(Err(())) => self.forward.renew(id, ttl_ms).await,
            None => Ok(None),
        }
    }

    /// The shard that keeps a permit, or that it is another node's; none where it can be nobody's.
    fn permit_shard(&self, id: PermitId) -> Option<Result<&Handle, ()>> {
        let partition = Partition::new(id.partition)?;
        let is_here = self.in_force.places().load().is_here(partition);
        Some(is_here.then(|| &self.shards[self.shard(partition)]).ok_or(()))
    }

    /// What is kept of a tenant, and what a bare check of it would be answered.
    pub async fn inspect(&self, tenant: &TenantId) -> Result<(TenantState, Decision), Refusal> {
        let check = Check {
            permit_ttl_ms: Some(*crate::check::PERMIT_TTL_MS.start()),
            ..Check::of(tenant.clone())
        };
        let hash = self.hash(&check.account())?;
        // Two questions: between them it may move, and each finds its way by itself.
        Ok((self.forward.describe(tenant.clone(), hash).await?, self.peek(check).await?))
    }

    /// Has what is told of a tenant forgotten, wherever it is kept.
    pub async fn forget(&self, tenant: &TenantId, mut what: Forget) -> Result<Forgotten, Refusal> {
        if let Forget::Part(part) = &mut what {
            // An address is counted by its prefix, and so found by it.
            part.ip = part.ip.map(|ip| self.in_force.policy().load().counted_ip(ip));
        }
        let hash = self.hash(&what.account(tenant))?;
        self.forward.forget(tenant.clone(), hash, what).await
    }

    /// A page of the tenants in memory, node by node, and where the next begins; none at the end.
    pub async fn list(
        &self,
        from: ListPlace,
        most: usize,
    ) -> Result<(Listed, Option<ListPlace>), Refusal> {
        let nodes = self.nodes();
        let ListPlace { node, shard, at } = from;
        let listed = match node == self.in_force.places().load().me().node {
            true => match self.shards.get(shard) {
                Some(shard) => Some(shard.list(at, most).await),
                None => None,
            },
            false if nodes.contains(&node) => self.forward.list(node, shard, at, most).await,
            // The beginning, or a node that owns nothing any more.
            false => None,
        };
        let Some(listed) = listed else {
            let next = nodes.into_iter().find(|other| *other > node);
            return Ok((Listed::default(), next.map(|node| ListPlace { node, shard: 0, at: 0 })));
        };
        let listed = listed?;
        let next = match listed.next {
            Some(at) => ListPlace { at, ..from },
            None => ListPlace { shard: shard + 1, at: 0, ..from },
        };
        Ok((listed, Some(next)))
    }

    /// The nodes that own anything, by number.
    fn nodes(&self) -> Vec<NodeId> {
        let places = self.in_force.places().load();
        let owners: BTreeSet<_> = places.table().rows().map(|(_, row)| row.owner.node).collect();
        owners.into_iter().collect()
    }

    /// Whether a tenant has state in memory.
    pub async fn is_active(&self, tenant: &TenantId) -> bool {
        let Ok(hash) = self.hash(tenant.as_str()) else { return false };
        self.forward.describe(tenant.clone(), hash).await.is_ok_and(|state| state.active)
    }

    /// Whether there is anything to decide by yet: the cluster has begun, as far as this node
    /// knows.
    pub fn has_begun(&self) -> bool {
        self.in_force.secret().is_some()
    }

    /// What was forwarded, and what others forwarded here.
    pub fn forwards(&self) -> &ForwardCounts {
        self.forward.counts()
    }

    /// The policy in force. Not to be kept: a change waits for nobody.
    pub fn policy(&self) -> impl std::ops::Deref<Target = Arc<Policy>> + use<> {
        self.in_force.policy().load()
    }

    /// What each shard has counted; none for one that doesn't say so within a second.
    pub async fn tallies(&self) -> Vec<Option<Reading>> {
        let asked =
            self.shards.iter().map(|shard| tokio::time::timeout(TALLY_PATIENCE, shard.tally()));
        let said = futures_util::future::join_all(asked).await;
        let mut tallies: Vec<_> =
            said.into_iter().map(|said| said.ok().and_then(Result::ok)).collect();
        for (tally, shard) in tallies.iter_mut().zip(&self.shards) {
            if let (Some(tally), 1..) = (tally, shard.turned_away()) {
                tally.counts.refusals.insert("mailbox_full", shard.turned_away());
            }
        }
        tallies
    }

    /// What the lists have decided.
    pub fn list_counts(&self) -> Counts {
        self.lists.read()
    }

    /// Questions in the mailbox of each shard.
    pub fn depths(&self) -> Vec<usize> {
        self.shards.iter().map(Handle::depth).collect()
    }

    /// Wall time, nanoseconds.
    pub fn wall(&self) -> u64 {
        self.clock.now().wall
    }

    /// Makes a check that no list decides what its owner is asked: counted by the prefix of its
    /// address, and with a time for the permit that it asks for. Errs where its tier allows no such
    /// time.
    fn prepare(&self, check: &mut Check) -> Result<(), Refusal> {
        if check.ip.is_none() && check.permit_ttl_ms.is_none() {
            return Ok(());
        }
        let policy = self.in_force.policy().load();
        check.ip = check.ip.map(|ip| policy.counted_ip(ip));
        if check.permit_ttl_ms.is_some() {
            let ttl_ms = policy.permit_ttl(check, self.wall())?;
            check.permit_ttl_ms = ttl_ms.or(check.permit_ttl_ms);
        }
        Ok(())
    }

    fn way(&self, mut check: Check) -> Result<Way, Refusal> {
        self.prepare(&mut check)?;
        let hash = self.hash(&check.account())?;
        Ok(match self.in_force.places().load().of(hash.partition()) {
            Place::Here(epoch) => {
                Way::Here(self.shard(hash.partition()), Question { check, hash, epoch })
            }
            Place::There(seat, epoch) => Way::There(check, hash, seat, epoch),
        })
    }

    fn hash(&self, account: &str) -> Result<AccountHash, Refusal> {
        let hashed = self.in_force.secret().map(|secret| secret.account(account));
        hashed.ok_or_else(|| Refusal::NotStarted(self.missing()))
    }

    fn shard(&self, partition: Partition) -> usize {
        partition.shard(self.shards.len())
    }

    /// The decision where a list makes it.
    fn listed(&self, check: &Check) -> Option<Decision> {
        let policy = self.in_force.policy().load();
        if !policy.has_lists() {
            return None;
        }
        let wall = self.clock.now().wall;
        let decision = by_list(&policy, check, policy.access(check, wall)?, wall);
        // Nobody owns what a list decides; the epoch is the one that would have been gone by.
        let epoch =
            |hash: AccountHash| self.in_force.places().load().table().row(hash.partition()).epoch;
        let epoch = self.hash(&check.account()).map_or(0, |hash| epoch(hash).number());
        Some(Decision { epoch, ..decision })
    }
}

/// The one check that came back.
fn only(returned: Returned) -> Result<(Check, AccountHash), Refusal> {
    returned.questions().next().map(|question| (question.check, question.hash)).ok_or(Refusal::Busy)
}

/// One decision is nothing to tell anybody who doesn't look for it.
fn log(decided: &Result<Decision, Refusal>) {
    match decided {
        Ok(Decision { tenant, tier, allowed, cost, denied_by, replayed, .. }) => {
            let (tier, denied_by) = (tier.as_ref().map(|tier| tier.as_str()), denied_by.as_ref());
            let denied_by = denied_by.map(|by| by.name.as_str());
            tracing::debug!(%tenant, tier, allowed, cost, denied_by, replayed, "decided");
        }
        Err(refusal) => tracing::debug!(%refusal, "not decided"),
    }
}

fn by_list(policy: &Policy, check: &Check, verdict: AccessVerdict, wall: u64) -> Decision {
    let allowed = verdict.entry.list == List::Allow;
    let scope = match verdict.entry.subject {
        Subject::Tenant(_) => Dimension::Tenant,
        Subject::Client(_) => Dimension::Client,
        Subject::Ip(_) => Dimension::Ip,
        Subject::ApiKey(_) => Dimension::ApiKey,
    };
    Decision {
        allowed,
        tenant: check.tenant.clone(),
        tier: None,
        cost: check.cost.map_or(1, crate::check::Cost::get),
        verdicts: Verdicts::new(),
        denied_by: (!allowed).then(|| {
            let name = verdict.name.clone();
            Box::new(DeniedBy { name, scope: vec![scope], reason: Reason::DenyList })
        }),
        retry_after: verdict.entry.expires.filter(|_| !allowed).map(|at| at.saturating_sub(wall)),
        permit: None,
        replayed: false,
        bypass: allowed
            .then(|| Box::new(Bypass { list: verdict.name, reason: verdict.entry.reason.clone() })),
        policy_version: policy.version(),
        epoch: 0,
        node: None,
    }
}
