//! The way of a check to whoever decides it: lists first, then the shard that its tenant hashes to.

mod lists;

use std::sync::Arc;
use std::time::Duration;

use crate::check::{Bypass, Check, Decision, DeniedBy, Dimension, PermitId, Reason, TenantId, Verdicts};
use crate::clock::SharedClock;
use crate::placement::{Partition, Secret};
use crate::policy::{AccessVerdict, List, Policy, Subject};
use crate::shard::{Counts, Decisions, Handle, Listed, PolicyCell, Question, Reading, Refusal, TenantState};
use lists::ListCounts;

/// How long a shard has to say what it has counted, before its last word stands.
const TALLY_PATIENCE: Duration = Duration::from_secs(1);

/// Finds the shard for everything that is asked.
pub struct Router {
    shards: Vec<Handle>,
    secret: Secret,
    policy: Arc<PolicyCell>,
    clock: SharedClock,
    lists: ListCounts,
}

/// The answers to several checks, as they came: in groups by who gave them. Within a group they are in the order of the
/// checks, so they are put in order by looking and not by moving.
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
    /// A router to the shards of this node.
    pub fn new(shards: Vec<Handle>, secret: Secret, policy: Arc<PolicyCell>, clock: SharedClock) -> Self {
        Self { shards, secret, policy, clock, lists: ListCounts::default() }
    }

    /// Decides one check. It is on its way when this returns; what is left is to wait for the answer.
    pub fn check(&self, check: Check) -> impl Future<Output = Result<Decision, Refusal>> + use<> {
        let asked = match self.listed(&check) {
            Some(decision) => {
                self.lists.count(&decision);
                Err(decision)
            }
            None => {
                let (shard, question) = self.place(check);
                Ok(self.shards[shard].check(question))
            }
        };
        async move {
            match asked {
                Ok(answer) => {
                    let decided = answer.await;
                    log(&decided);
                    decided
                }
                Err(listed) => Ok(listed),
            }
        }
    }

    /// Says what a check would be answered, and takes nothing.
    pub async fn peek(&self, check: Check) -> Result<Decision, Refusal> {
        if let Some(decision) = self.listed(&check) {
            return Ok(decision);
        }
        let (shard, question) = self.place(check);
        self.shards[shard].peek(question).await
    }

    /// Decides several checks, each by itself.
    pub async fn check_each(&self, checks: Vec<Check>) -> Answers {
        let mut order = Vec::with_capacity(checks.len());
        let mut listed = Vec::new();
        let room = checks.len() / self.shards.len() + 1;
        let mut questions: Vec<Vec<_>> = self.shards.iter().map(|_| Vec::with_capacity(room)).collect();
        for check in checks {
            if let Some(decision) = self.listed(&check) {
                self.lists.count(&decision);
                order.push(self.shards.len());
                listed.push(Ok(decision));
                continue;
            }
            let (shard, question) = self.place(check);
            order.push(shard);
            questions[shard].push(question);
        }
        let asked = self.shards.iter().zip(questions).map(async |(shard, questions)| {
            let count = questions.len();
            let decided = match count {
                0 => Ok(Vec::new()),
                _ => shard.check_each(questions).await,
            };
            decided.unwrap_or_else(|refusal| vec![Err(refusal); count])
        });
        let mut groups = futures_util::future::join_all(asked).await;
        groups.iter().flatten().for_each(log);
        groups.push(listed);
        Answers { order, groups }
    }

    /// Decides several checks of one tenant that pass together or not at all.
    pub async fn check_all(&self, checks: Vec<Check>) -> Result<Decisions, Refusal> {
        // A list names the tenant, or something that a single check carries; who is denied denies the batch.
        let listed: Vec<_> = checks.iter().map(|check| self.listed(check)).collect();
        if let Some(denied) = listed.iter().flatten().find(|decision| !decision.allowed) {
            let denied = denied.clone();
            let of = |check: Check| Decision { tenant: check.tenant, ..denied.clone() };
            return Ok(checks.into_iter().map(of).inspect(|decision| self.lists.count(decision)).collect());
        }
        let (mut questions, mut places, mut shard) = (Vec::new(), Vec::new(), 0);
        for (i, (check, listed)) in checks.into_iter().zip(&listed).enumerate() {
            if listed.is_none() {
                let placed = self.place(check);
                shard = placed.0;
                questions.push(placed.1);
                places.push(i);
            }
        }
        let mut decided = match questions.is_empty() {
            true => Decisions::new(),
            false => self.shards[shard].check_all(questions).await.map_err(|refusal| match refusal {
                // The shard counts without those that a list has decided.
                Refusal::InBatch(at, why) => Refusal::InBatch(places.get(at).copied().unwrap_or(at), why),
                refusal => refusal,
            })?,
        }
        .into_iter();
        listed.iter().flatten().for_each(|decision| self.lists.count(decision));
        Ok(listed.into_iter().filter_map(|listed| listed.or_else(|| decided.next())).collect())
    }

    /// Takes a permit back.
    pub async fn release(&self, id: PermitId) -> Result<(), Refusal> {
        match self.permit_shard(id) {
            Some(shard) => shard.release(id).await,
            None => Ok(()),
        }
    }

    /// Extends a permit; false where it isn't out any more.
    pub async fn renew(&self, id: PermitId, ttl_ms: u64) -> Result<bool, Refusal> {
        match self.permit_shard(id) {
            Some(shard) => shard.renew(id, ttl_ms).await,
            None => Ok(false),
        }
    }

    fn permit_shard(&self, id: PermitId) -> Option<&Handle> {
        Some(&self.shards[Partition::new(id.partition)?.shard(self.shards.len())])
    }

    /// What is kept of a tenant, and what a bare check of it would be answered.
    pub async fn inspect(&self, tenant: &TenantId) -> Result<(TenantState, Decision), Refusal> {
        let check =
            Check { permit_ttl_ms: Some(*crate::check::PERMIT_TTL_MS.start()), ..Check::of(tenant.clone()) };
        let (shard, question) = self.place(check);
        let shard = &self.shards[shard];
        let state = shard.describe(tenant.clone(), question.hash).await?;
        Ok((state, shard.peek(question).await?))
    }

    /// Forgets what a tenant has spent.
    pub async fn reset(&self, tenant: &TenantId) -> Result<(), Refusal> {
        let hash = self.secret.account(tenant.as_str());
        self.shards[hash.partition().shard(self.shards.len())].reset(tenant.clone(), hash).await
    }

    /// A page of the tenants in one shard's memory; none beyond the last shard.
    pub async fn list(&self, shard: usize, from: usize, most: usize) -> Option<Result<Listed, Refusal>> {
        Some(self.shards.get(shard)?.list(from, most).await)
    }

    /// Whether a tenant has state in memory.
    pub async fn is_active(&self, tenant: &TenantId) -> bool {
        let hash = self.secret.account(tenant.as_str());
        let shard = &self.shards[hash.partition().shard(self.shards.len())];
        shard.describe(tenant.clone(), hash).await.is_ok_and(|state| state.active)
    }

    /// The policy in force. Not to be kept: a change waits for nobody.
    pub fn policy(&self) -> impl std::ops::Deref<Target = Arc<Policy>> + use<> {
        self.policy.load()
    }

    /// What each shard has counted; none for one that doesn't say so within a second.
    pub async fn tallies(&self) -> Vec<Option<Reading>> {
        let asked = self.shards.iter().map(|shard| tokio::time::timeout(TALLY_PATIENCE, shard.tally()));
        let said = futures_util::future::join_all(asked).await;
        let mut tallies: Vec<_> = said.into_iter().map(|said| said.ok().and_then(Result::ok)).collect();
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

    fn place(&self, check: Check) -> (usize, Question) {
        let hash = self.secret.account(&check.account());
        (
            hash.partition().shard(self.shards.len()),
            Question { check, hash, epoch: crate::placement::Epoch::FIRST },
        )
    }

    /// The decision where a list makes it.
    fn listed(&self, check: &Check) -> Option<Decision> {
        let policy = self.policy.load();
        if !policy.has_lists() {
            return None;
        }
        let wall = self.clock.now().wall;
        Some(by_list(&policy, check, policy.access(check, wall)?, wall))
    }
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
