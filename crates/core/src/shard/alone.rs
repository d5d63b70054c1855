//! One shard by itself: its mind without mailbox, timer or neighbours.
//!
//! For whoever wants to time or embed the deciding alone. Time comes in with every call, answers go
//! out at once: with a single shard no bucket lies elsewhere, so nothing is ever waited for.

use std::sync::Arc;

use super::core::{Caps, Shard};
use super::effect::{Effect, ReplyId};
use super::{Question, Refusal};
use crate::check::{Check, Decision};
use crate::placement::{Epoch, Places, Secret};
use crate::policy::Policy;
use crate::random::Generator;
use crate::time::Now;

/// A shard that has all tenants to itself.
pub struct Alone {
    shard: Shard,
    secret: Secret,
    /// Calls so far: each has a reply id of its own.
    calls: u32,
    effects: Vec<Effect>,
}

impl Alone {
    /// An empty shard that decides by `policy`.
    pub fn new(caps: Caps, secret: Secret, policy: Arc<Policy>, generator: Generator) -> Self {
        Self {
            shard: Shard::new(0, 1, caps, secret, Arc::new(Places::all_here()), policy, generator),
            secret,
            calls: 0,
            effects: Vec::new(),
        }
    }

    /// A check with the hash of its account: the form in which a shard takes it.
    pub fn question(&self, check: Check) -> Question {
        Question { hash: self.secret.account(&check.account()), epoch: Epoch::FIRST, check }
    }

    /// Decides several checks one by one, in their order.
    pub fn decide(&mut self, questions: Vec<Question>, now: Now) -> Vec<Result<Decision, Refusal>> {
        self.calls = self.calls.wrapping_add(1);
        let (count, caller) = (questions.len(), ReplyId { slot: 0, generation: self.calls });
        self.shard.check_each(questions, caller, now, &mut self.effects);
        let answer = self.effects.drain(..).find_map(|effect| match effect {
            Effect::AnswerEach { reply, answers, .. } if reply == caller => Some(answers),
            _ => None,
        });
        // A check that waits for another's hold would be answered later; alone, there is no other.
        answer.unwrap_or_else(|| vec![Err(Refusal::Busy); count])
    }
}
