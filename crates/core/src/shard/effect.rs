//! What the mind of a shard wants done: plain values, which the shard's body carries out.
//!
//! The mind knows a caller by a [`ReplyId`] alone. The body owns the caller's channel and keeps it
//! under that id:
//!
//! ```text
//! body   a check arrives, for which the fast path has no answer: its channel goes into slot 7
//! mind   opens op 41 for ReplyId { 7, 3 }, asks a shared bucket, hears "pass"
//! mind   Effect::Answer { reply: ReplyId { 7, 3 }, answer, by: Some(41) }
//! body   takes the channel out of slot 7 and sends
//! ```

use super::Refusal;
use super::op::{Answer, Home, OpId, OpRef};
use super::shared::{Ask, Reply};
use crate::check::Decision;

/// A caller that waits for an answer: a slot of the body's table of channels.
///
/// The body makes the id. The mind answers each id exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplyId {
    /// The slot in the body's table.
    pub slot: u32,
    /// How often the slot was used before, so that an id is never that of a later caller.
    pub generation: u32,
}

/// One step that the body must take, in the order of the list that it is in.
#[allow(
    clippy::large_enum_variant,
    reason = "effects lie in a list that keeps its room; a box would be an allocation an answer"
)]
pub enum Effect {
    /// Ask a shared bucket in another shard, or on another node.
    Ask(Home, Ask),
    /// Answer such a question: to the shard, and the incarnation of a node, that the op is open in.
    Reply(Reply),
    /// Take or cancel what an op holds there.
    Settle {
        /// Where the bucket is.
        home: Home,
        /// The op that holds.
        op: OpRef,
        /// The bucket's key.
        key: u128,
        /// Take the units, or give them back.
        take: bool,
    },
    /// Answer the caller of a check, of a peek or of a batch that passes or fails as one.
    ///
    /// All that the answer reports as taken has been taken by the op `by`, before this effect. The
    /// body may keep the answer until another node has those debits; `None` took nothing.
    Answer {
        /// The caller.
        reply: ReplyId,
        /// What it is told.
        answer: Answer,
        /// The op that was decided.
        by: Option<OpId>,
    },
    /// Answer the caller of a batch whose checks were decided one by one.
    AnswerEach {
        /// The caller.
        reply: ReplyId,
        /// One answer for each check, in their order.
        answers: Vec<Result<Decision, Refusal>>,
        /// The number of the batch, from the same sequence as the numbers of ops; `None` where the
        /// fast path decided all checks within the call that emits this effect.
        by: Option<OpId>,
    },
}
