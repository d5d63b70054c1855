//! One shard by itself: its mind without mailbox, timer or neighbours.
//!
//! For whoever wants to time or embed the deciding alone. Time comes in with every call, answers go
//! out at once: with a single shard no bucket lies elsewhere, so nothing is ever waited for.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::core::{Caps, Shard};
use super::{Question, Refusal};
use crate::check::{Check, Decision};
use crate::clock::Now;
use crate::placement::{Epoch, Places, Secret};
use crate::policy::Policy;
use crate::random::Generator;

/// A shard that has all tenants to itself.
pub struct Alone {
    shard: Shard,
    secret: Secret,
}

impl Alone {
    /// An empty shard that decides by `policy`.
    pub fn new(caps: Caps, secret: Secret, policy: Arc<Policy>, generator: Generator) -> Self {
        Self {
            shard: Shard::new(0, 1, caps, secret, Arc::new(Places::all_here()), policy, generator),
            secret,
        }
    }

    /// A check with the hash of its account: the form in which a shard takes it.
    pub fn question(&self, check: Check) -> Question {
        Question { hash: self.secret.account(&check.account()), epoch: Epoch::FIRST, check }
    }

    /// Decides several checks one by one, in their order.
    pub fn decide(&mut self, questions: Vec<Question>, now: Now) -> Vec<Result<Decision, Refusal>> {
        let (count, (to, mut answer)) = (questions.len(), oneshot::channel());
        self.shard.check_each(questions, to, now, &mut Vec::new());
        // A check that waits for another's hold would be answered later; alone, there is no other.
        answer.try_recv().unwrap_or_else(|_| vec![Err(Refusal::Busy); count])
    }
}
