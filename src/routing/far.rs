//! Shared limits on other nodes: what this node's shards ask of them, and how it is settled.
//!
//! A shard doesn't wait: what it wants said is said by a task, which goes on until it got through
//! or nobody needs it any more. A question that got no answer may have been heard; asking again
//! replaces what it holds. Settling again does nothing. So both are repeated freely, a cancel that
//! gets through within a second restores what was, and one that doesn't stays spent: the owner
//! takes a hold that nobody has settled by then.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::counts::ForwardCounts;
use crate::actor::{Far, ReplyTo};
use crate::clock::SharedClock;
use crate::cluster::InForce;
use crate::cluster::links::Links;
use crate::peer::Opaque;
use crate::peer::shared::{SettleAsk, SharedAnswer, SharedAsk};
use crate::placement::{BootId, Partition, Place};
use crate::shard::{Ask, HOLD_MAX, OpRef};

/// How long to wait before saying again what didn't get through.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How long one attempt to settle may take: there is time for several while the hold lasts.
const SETTLE_WITHIN: Duration = Duration::from_millis(200);

/// The way to shared limits on other nodes. Its tasks run where the shard that wants something
/// runs.
#[derive(Clone)]
pub struct FarLimits {
    in_force: Arc<InForce>,
    links: Arc<Links>,
    clock: SharedClock,
    counts: Arc<ForwardCounts>,
}

impl FarLimits {
    /// The way over these links.
    pub fn new(
        in_force: Arc<InForce>,
        links: Arc<Links>,
        clock: SharedClock,
        counts: Arc<ForwardCounts>,
    ) -> Self {
        Self { in_force, links, clock, counts }
    }

    /// Says `question` to the owner of `partition`, once; its answer, if there is one.
    async fn say(
        &self,
        partition: Partition,
        question: Opaque,
        within: Duration,
    ) -> Option<Opaque> {
        let Place::There(seat, _) = self.in_force.places().load().of(partition) else {
            return None;
        };
        let peer = (seat.boot != BootId::NEVER).then(|| self.links.peer(seat.node)).flatten()?;
        // A question may wait for others' holds as long as it likes: how long it takes says nothing
        // about the peer.
        drop(peer.breaker().ask(self.clock.now().boot)?);
        peer.checks().call(question, within).await.ok()
    }

    /// Tries until there is something, or boot time `until` is over.
    async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        until: u64,
        attempt: impl Fn(Duration) -> F,
    ) -> Option<T> {
        loop {
            let left = until.saturating_sub(self.clock.now().boot);
            if left == 0 {
                return None;
            }
            if let Some(done) = attempt(Duration::from_nanos(left)).await {
                return Some(done);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

impl Far for FarLimits {
    fn ask(&self, partition: Partition, ask: Ask, to: ReplyTo) {
        self.counts.shared_asks.count();
        let far = self.clone();
        tokio::spawn(async move {
            let attempt = async |left: Duration| {
                let question =
                    Opaque::question(&SharedAsk::new(partition, &ask, far.clock.now().boot))
                        .ok()?;
                match far.say(partition, question, left).await?.read_answer::<SharedAsk>().ok()? {
                    SharedAnswer::Said(reply) => Some(reply),
                    SharedAnswer::NothingInTime | SharedAnswer::NotOwner => None,
                }
            };
            // Where nothing comes, the check's own deadline answers whoever waits for it.
            if let Some(reply) = far.until(ask.deadline, attempt).await {
                to.send(reply.reply(partition, &ask));
            }
        });
    }

    fn settle(&self, partition: Partition, op: OpRef, key: u128, take: bool) {
        let far = self.clone();
        tokio::spawn(async move {
            let until = far.clock.now().boot.saturating_add(HOLD_MAX);
            let attempt = async |left: Duration| {
                let question = Opaque::question(&SettleAsk { partition, op, key, take }).ok()?;
                let answer = far.say(partition, question, left.min(SETTLE_WITHIN)).await?;
                answer.read_answer::<SettleAsk>().ok()?.then_some(())
            };
            if far.until(until, attempt).await.is_none() {
                tracing::debug!(%partition, take, "a hold wasn't settled in time: it stays taken");
            }
        });
    }
}
