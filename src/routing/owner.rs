//! The owner's side of what other nodes forward: is it mine, was it here before, what does my shard
//! say.
//!
//! A forward names the epoch of its partition's row and the version of the policy that the router
//! goes by. An owner that is behind on either catches up first, so that a policy that is in force
//! anywhere is in force for whoever asks there. If the epoch is another, the owner says where the
//! partition is, and the router goes there; nothing is charged here.
//!
//! What is charged is charged once: see [`window`](super::window). The answer is worked out whether
//! or not the router still waits, since it may come back with the same number.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::counts::ForwardCounts;
use super::window::{Seen, Windows};
use crate::actor::Handle;
use crate::check::{Check, Decision, Name};
use crate::clock::SharedClock;
use crate::cluster::InForce;
use crate::cluster::links::Links;
use crate::peer::batch::{AllAnswer, AllAsk, EachAsk};
use crate::peer::check::{CheckAnswer, CheckAsk, Declined, Purpose, Source};
use crate::peer::shared::{PlainReply, SettleAsk, SharedAnswer, SharedAsk};
use crate::peer::tenant::{
    DescribeAsk, ForgetAsk, LISTED_MAX, ListAsk, Owned, PermitAsk, PlainForgotten, PlainListed,
    PlainState, RenewAsk, Renewed, ResetAsk,
};
use crate::peer::{Ask, Call, Failure, Kind, Opaque};
use crate::placement::{AccountHash, Epoch, Partition, Place};
use crate::shard::{Forget, Question, Refusal};

/// An answer that is being worked out, or is there; everybody who asked for it waits for the same
/// one.
type Promise = Shared<BoxFuture<'static, Result<Opaque, Failure>>>;

/// How long an owner waits for what a forward says is in force elsewhere.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// Answers what other nodes ask of this one's shards.
pub struct Owner {
    shards: Vec<Handle>,
    in_force: Arc<InForce>,
    links: Arc<Links>,
    clock: SharedClock,
    windows: Windows<Promise>,
    counts: Arc<ForwardCounts>,
}

impl Owner {
    /// The owner's side of a node with these shards.
    pub fn new(
        shards: Vec<Handle>,
        in_force: Arc<InForce>,
        links: Arc<Links>,
        clock: SharedClock,
        counts: Arc<ForwardCounts>,
    ) -> Self {
        Self { shards, in_force, links, clock, windows: Windows::new(), counts }
    }

    /// Whether it answers messages of this kind.
    pub fn knows(kind: Kind) -> bool {
        let kinds = [
            CheckAsk::KIND,
            AllAsk::KIND,
            EachAsk::KIND,
            PermitAsk::KIND,
            RenewAsk::KIND,
            DescribeAsk::KIND,
            ResetAsk::KIND,
            ForgetAsk::KIND,
            ListAsk::KIND,
            SharedAsk::KIND,
            SettleAsk::KIND,
        ];
        kinds.contains(&kind)
    }

    /// Answers one call of such a kind.
    pub async fn answer(&self, call: Call) -> Result<Opaque, Failure> {
        let request = &call.request;
        match request.kind {
            CheckAsk::KIND => self.check(request.read_question()?, call.ttl).await,
            AllAsk::KIND => self.check_all(request.read_question()?, call.ttl).await,
            EachAsk::KIND => self.check_each(request.read_question()?, call.ttl).await,
            PermitAsk::KIND => {
                let ask = request.read_question()?;
                encoded::<PermitAsk>(&Owned::new(self.permit(ask).await))
            }
            RenewAsk::KIND => {
                let ask = request.read_question()?;
                encoded::<RenewAsk>(&Owned::new(self.renew(ask).await))
            }
            DescribeAsk::KIND => {
                let ask = request.read_question()?;
                encoded::<DescribeAsk>(&Owned::new(self.describe(ask).await))
            }
            ResetAsk::KIND => {
                let ask = request.read_question()?;
                encoded::<ResetAsk>(&Owned::new(self.reset(ask).await))
            }
            ForgetAsk::KIND => {
                let ask = request.read_question()?;
                encoded::<ForgetAsk>(&Owned::new(self.forget(ask).await))
            }
            ListAsk::KIND => encoded::<ListAsk>(&self.list(request.read_question()?).await),
            SharedAsk::KIND => encoded::<SharedAsk>(&self.shared(request.read_question()?).await?),
            SettleAsk::KIND => encoded::<SettleAsk>(&self.settle(request.read_question()?)),
            _ => Err(Failure::UnknownKind),
        }
    }

    async fn check(&self, ask: CheckAsk, ttl: Duration) -> Result<Opaque, Failure> {
        let CheckAsk { source, partition, epoch, policy_version, purpose, check } = ask;
        self.catch_up(policy_version, partition, epoch).await;
        let answer = |epoch, said| encoded::<CheckAsk>(&CheckAnswer { epoch, said });
        let mine = match self.owned_or_remembered(&source, partition, epoch) {
            Ok(mine) => mine,
            Err(NotMine::Remembered(promise)) => return self.kept(&source, promise).await,
            Err(NotMine::Declined(declined)) => return answer(epoch, Err(declined)),
        };
        let question = match self.question(check, mine, ttl) {
            Ok(question) => question,
            Err(refusal) => return answer(epoch, Err(refusal.into())),
        };
        let shard = &self.shards[partition.shard(self.shards.len())];
        if purpose == Purpose::Look {
            return answer(
                epoch,
                shard.peek(question).await.map_err(|refusal| declined(refusal, epoch)),
            );
        }
        let promised = self.once(&source, || {
            let decided = shard.check(question);
            async move {
                match decided.await {
                    Err(Refusal::Moved(_)) => MOVED,
                    decided => answer(epoch, decided.map_err(Declined::from)),
                }
            }
        });
        match promised {
            Some(promise) => self.kept(&source, promise).await,
            None => answer(epoch, Err(Declined::TooOld)),
        }
    }

    async fn check_all(&self, ask: AllAsk, ttl: Duration) -> Result<Opaque, Failure> {
        let AllAsk { source, partition, epoch, policy_version, checks } = ask;
        self.catch_up(policy_version, partition, epoch).await;
        let answer = |epoch, said| encoded::<AllAsk>(&AllAnswer { epoch, said });
        let mine = match self.owned_or_remembered(&source, partition, epoch) {
            Ok(mine) => mine,
            Err(NotMine::Remembered(promise)) => return self.kept(&source, promise).await,
            Err(NotMine::Declined(declined)) => return answer(epoch, Err(declined)),
        };
        let questions: Result<Vec<_>, _> =
            checks.into_iter().map(|check| self.question(check, mine, ttl)).collect();
        let questions = match questions {
            Ok(questions) => questions,
            Err(refusal) => return answer(epoch, Err(refusal.into())),
        };
        let shard = self.shards[partition.shard(self.shards.len())].clone();
        let promised = self.once(&source, || async move {
            match shard.check_all(questions).await {
                Err(Refusal::Moved(_)) => MOVED,
                said => answer(
                    epoch,
                    said.map(|decisions| decisions.into_vec()).map_err(Declined::from),
                ),
            }
        });
        match promised {
            Some(promise) => self.kept(&source, promise).await,
            None => answer(epoch, Err(Declined::TooOld)),
        }
    }

    async fn check_each(&self, ask: EachAsk, ttl: Duration) -> Result<Opaque, Failure> {
        let EachAsk { source, policy_version, checks } = ask;
        for one in &checks {
            self.catch_up(policy_version, one.partition, one.epoch).await;
        }
        let epochs: Vec<_> = checks.iter().map(|one| one.epoch).collect();
        let mut refused: Vec<Option<Declined>> = Vec::with_capacity(checks.len());
        let mut asked: Vec<(Vec<usize>, Vec<Question>)> =
            vec![Default::default(); self.shards.len()];
        for (at, one) in checks.into_iter().enumerate() {
            let mine = self.owned(one.partition, one.epoch);
            let question = mine.and_then(|mine| Ok(self.question(one.check, mine, ttl)?));
            refused.push(question.as_ref().err().cloned());
            if let Ok(question) = question {
                let (places, questions) = &mut asked[one.partition.shard(self.shards.len())];
                places.push(at);
                questions.push(question);
            }
        }
        let shards = self.shards.clone();
        let promised = self.once(&source, || async move {
            let mut said: Vec<_> = refused
                .into_iter()
                .map(|refused| Err(refused.unwrap_or(Refusal::Busy.into())))
                .collect();
            for (shard, (places, questions)) in shards.iter().zip(asked) {
                if questions.is_empty() {
                    continue;
                }
                // A full mailbox leaves them all as they stand there: busy.
                for (at, decided) in
                    places.into_iter().zip(shard.check_each(questions).await.unwrap_or_default())
                {
                    said[at] = decided.map_err(|refusal| declined(refusal, epochs[at]));
                }
            }
            let answers =
                epochs.into_iter().zip(said).map(|(epoch, said)| CheckAnswer { epoch, said });
            encoded::<EachAsk>(&answers.collect())
        });
        match promised {
            Some(promise) => promise.await,
            None => Err(Failure::Failed(
                "the sequence number is too old to be told from a repetition".into(),
            )),
        }
    }

    async fn permit(&self, ask: PermitAsk) -> Result<bool, Declined> {
        let PermitAsk { id, epoch, renew_ms } = ask;
        let Some(partition) = Partition::new(id.partition) else { return Ok(false) };
        self.catch_up(0, partition, epoch).await;
        self.owned(partition, epoch)?;
        let shard = &self.shards[partition.shard(self.shards.len())];
        let said = match renew_ms {
            Some(ttl_ms) => match shard.renew(id, ttl_ms).await {
                // The asker is of an earlier version, and would not understand.
                Err(Refusal::PermitTooLong(most)) => shard.renew(id, most.most_ms).await,
                renewed => renewed,
            }
            .map(|renewed| renewed.is_some()),
            None => shard.release(id).await.map(|()| true),
        };
        said.map_err(|refusal| declined(refusal, epoch))
    }

    async fn renew(&self, ask: RenewAsk) -> Result<Renewed, Declined> {
        let RenewAsk { id, epoch, policy_version, ttl_ms } = ask;
        let Some(partition) = Partition::new(id.partition) else { return Ok(Renewed::NotInFlight) };
        self.catch_up(policy_version, partition, epoch).await;
        self.owned(partition, epoch)?;
        let shard = &self.shards[partition.shard(self.shards.len())];
        let renewed = Renewed::new(shard.renew(id, ttl_ms).await);
        renewed.map_err(|refusal| declined(refusal, epoch))
    }

    async fn describe(&self, ask: DescribeAsk) -> Result<PlainState, Declined> {
        let DescribeAsk { partition, epoch, policy_version, tenant } = ask;
        self.catch_up(policy_version, partition, epoch).await;
        self.owned(partition, epoch)?;
        let hash = self.hash(tenant.as_str())?;
        let described =
            self.shards[partition.shard(self.shards.len())].describe(tenant, hash).await;
        described.map(PlainState::from).map_err(|refusal| declined(refusal, epoch))
    }

    async fn reset(&self, ask: ResetAsk) -> Result<(), Declined> {
        let ResetAsk { partition, epoch, tenant } = ask;
        self.catch_up(0, partition, epoch).await;
        self.owned(partition, epoch)?;
        let hash = self.hash(tenant.as_str())?;
        let shard = &self.shards[partition.shard(self.shards.len())];
        let reset = shard.forget(tenant, hash, Forget::Spent).await;
        reset.map(drop).map_err(|refusal| declined(refusal, epoch))
    }

    async fn forget(&self, ask: ForgetAsk) -> Result<PlainForgotten, Declined> {
        let ForgetAsk { partition, epoch, policy_version, tenant, what } = ask;
        self.catch_up(policy_version, partition, epoch).await;
        self.owned(partition, epoch)?;
        let what = Forget::from(what);
        let hash = self.hash(&what.account(&tenant))?;
        let shard = &self.shards[partition.shard(self.shards.len())];
        let forgotten = shard.forget(tenant, hash, what).await;
        forgotten.map(PlainForgotten::from).map_err(|refusal| declined(refusal, epoch))
    }

    async fn list(&self, ask: ListAsk) -> <ListAsk as Ask>::Answer {
        let shard = self.shards.get(ask.shard as usize)?;
        let most = (ask.most as usize).min(LISTED_MAX);
        let listed = shard.list(usize::try_from(ask.from).unwrap_or(usize::MAX), most).await;
        Some(listed.map(PlainListed::from).map_err(Into::into))
    }

    async fn shared(&self, ask: SharedAsk) -> Result<SharedAnswer, Failure> {
        let partition = ask.partition;
        if !self.in_force.places().load().is_here(partition) {
            return Ok(SharedAnswer::NotOwner);
        }
        let ask =
            ask.ask(self.clock.now().boot).map_err(|fault| Failure::Malformed(fault.into()))?;
        self.counts.shared_asked.count();
        let reply = self.shards[partition.shard(self.shards.len())].ask_from_far(ask).await;
        Ok(reply.map_or(SharedAnswer::NothingInTime, |reply| {
            SharedAnswer::Said(PlainReply::new(&reply))
        }))
    }

    fn settle(&self, ask: SettleAsk) -> bool {
        let SettleAsk { partition, op, key, take } = ask;
        let is_here = self.in_force.places().load().is_here(partition);
        if is_here {
            self.shards[partition.shard(self.shards.len())].settle_from_far(op, key, take);
        }
        is_here
    }

    /// Goes by what the router goes by, at least, before anything is judged. Where that takes too
    /// long it is judged by what there is: a policy that can't be had is none that anybody was
    /// promised.
    async fn catch_up(&self, policy_version: u64, partition: Partition, epoch: u64) {
        let caught_up = |in_force: &InForce| {
            in_force.policy().load().version() >= policy_version
                && in_force.places().load().table().row(partition).epoch.number() >= epoch
        };
        if !caught_up(&self.in_force) {
            self.counts.caught_up.count();
            let _ = tokio::time::timeout(CATCH_UP_MAX, self.in_force.until(caught_up)).await;
        }
    }

    /// The epoch, if it is that under which this life of the node owns the partition.
    fn owned(&self, partition: Partition, epoch: u64) -> Result<Epoch, Declined> {
        self.here_under(partition, epoch).inspect_err(|_| self.counts.not_owner.count())
    }

    fn here_under(&self, partition: Partition, epoch: u64) -> Result<Epoch, Declined> {
        let (owner, actual) = match self.in_force.places().load().of(partition) {
            Place::Here(actual) if actual.number() == epoch => return Ok(actual),
            Place::Here(actual) => (None, actual),
            Place::There(owner, actual) => (self.links.name(owner.node), actual),
        };
        Err(Declined::NotOwner { epoch: actual.number(), owner })
    }

    fn hash(&self, account: &str) -> Result<AccountHash, Refusal> {
        self.in_force.secret().map(|secret| secret.account(account)).ok_or(Refusal::Unreachable)
    }

    /// The question for the shard; the check waits no longer than its router does.
    fn question(&self, mut check: Check, epoch: Epoch, ttl: Duration) -> Result<Question, Refusal> {
        let left = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        check.deadline_ms = check.deadline_ms.min(left);
        Ok(Question { hash: self.hash(&check.account())?, epoch, check })
    }

    /// What was promised. That a partition has moved is no answer to be kept: should it stay here
    /// after all, the router comes again under the same number.
    async fn kept(&self, source: &Source, promise: Promise) -> Result<Opaque, Failure> {
        let answer = promise.await;
        if answer == MOVED {
            self.windows.forget(source);
        }
        answer
    }

    /// The epoch, as [`Owner::owned`] has it; or the promise that was made for `source` while the
    /// partition was here: it was charged here, and is charged nowhere else.
    fn owned_or_remembered(
        &self,
        source: &Source,
        partition: Partition,
        epoch: u64,
    ) -> Result<Epoch, NotMine> {
        self.here_under(partition, epoch).map_err(|declined| match self.windows.find(source) {
            Some(promise) => {
                self.counts.repeated.count();
                NotMine::Remembered(promise)
            }
            None => {
                self.counts.not_owner.count();
                NotMine::Declined(declined)
            }
        })
    }

    /// The promise of an answer, made now where `source` is new; none where it may be a repetition
    /// and can't be told from one.
    fn once<F>(&self, source: &Source, make: impl FnOnce() -> F) -> Option<Promise>
    where
        F: Future<Output = Result<Opaque, Failure>> + Send + 'static,
    {
        match self.windows.see(source, || make().boxed().shared()) {
            Seen::First(promise) => {
                self.counts.received.count();
                Some(promise)
            }
            Seen::Again(promise) => {
                self.counts.repeated.count();
                Some(promise)
            }
            Seen::TooOld => {
                self.counts.too_old.count();
                None
            }
        }
    }
}

/// Why a forward isn't decided here.
enum NotMine {
    /// It was, before its partition moved.
    Remembered(Promise),
    /// Its partition isn't here.
    Declined(Declined),
}

/// What a router hears whose check was for a partition that is on its way: nothing was done, and it
/// asks again where that is then.
const MOVED: Result<Opaque, Failure> = Err(Failure::Busy);

/// Why an owner didn't answer: a partition that is on its way elsewhere is as good as gone.
fn declined(refusal: Refusal, epoch: u64) -> Declined {
    match refusal {
        Refusal::Moved(_) => Declined::NotOwner { epoch, owner: None },
        refusal => Declined::Refused(refusal),
    }
}

fn encoded<A: Ask>(answer: &A::Answer) -> Result<Opaque, Failure> {
    Opaque::answer::<A>(answer).map_err(|error| Failure::Failed(error.to_string()))
}

/// A decision as its router shows it: who made it, under which epoch.
pub(super) fn decided_by(node: &Name, epoch: u64, decision: Decision) -> Decision {
    Decision { epoch, node: Some(Box::new(node.clone())), ..decision }
}

#[cfg(test)]
mod tests;
