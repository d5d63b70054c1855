//! The leader's housekeeping: does what the [`Reconciler`] decides, one step at a time.

use std::time::Duration;

use crate::cluster::membership::{Facts, Reconciler, Step};

use super::member::Member;
use super::state::What;

/// How often the leader looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a step may take before another look is taken.
const STEP_WITHIN: Duration = Duration::from_secs(10);

impl Member {
    /// Does the leader's housekeeping, as long as this node leads.
    pub(super) async fn keep_house(&self) {
        let mut ticker = tokio::time::interval(LOOK_EVERY);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticker.tick().await;
            let Some(step) = self.look_for_step() else { continue };
            let done = tokio::time::timeout(STEP_WITHIN, self.take(step.clone())).await;
            let outcome = done.unwrap_or_else(|_| Err(format!("not within {STEP_WITHIN:?}")));
            match &outcome {
                Ok(()) => tracing::info!(?step, "the members changed"),
                // What is tried again every quarter of a second is worth one line.
                Err(why) if told.as_ref() != Some(&(step.clone(), why.clone())) => {
                    tracing::warn!(?step, why, "the members can't be changed yet");
                }
                Err(_) => {}
            }
            told = outcome.err().map(|why| (step, why));
        }
    }

    fn look_for_step(&self) -> Option<Step> {
        if !self.raft.is_leader() {
            *self.reconciler() = Reconciler::default();
            return None;
        }
        self.with_facts(|reconciler, facts| reconciler.next(facts)).flatten()
    }

    /// Looks at what is known with the reconciler; nothing before the cluster has begun.
    pub(super) fn with_facts<T>(
        &self,
        look: impl FnOnce(&mut Reconciler, &Facts<'_>) -> T,
    ) -> Option<T> {
        let view = self.raft.view();
        let (roster, following) = (self.raft.roster(), self.raft.following());
        let (me, now) = (self.me().node, self.clock.now().boot);
        let facts =
            Facts { me, agreed: view.state.agreed()?, roster: &roster, following: &following, now };
        Some(look(&mut self.reconciler(), &facts))
    }

    async fn take(&self, step: Step) -> Result<(), String> {
        match step {
            Step::AddLearner(id, address) => self.raft.add_learners(&[(id, address)]).await,
            Step::NoteAddress(id, address) => self.raft.note_address(id, address).await,
            Step::FinishChange => self.raft.finish_change().await,
            Step::ChangeVoters(voters) => self.raft.change_voters(voters).await,
            Step::HandLeadershipTo(id) => self.raft.hand_leadership_to(id).await,
            Step::Remove(id) => {
                let by = super::member::TIDIER.to_string();
                self.propose(What::Remove(id), by)
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
            Step::Forget(nodes) => self.raft.forget(nodes).await,
        }
    }
}
