//! The body of a shard: its mailboxes, its batches, its timer, and the callers that wait.
//!
//! Callers reach a shard through a bounded mailbox; when it is full they hear "busy" at once
//! (`handle`). Shards talk to each other through mailboxes of their own, which come first, because
//! every answer in them is waited for. All that has arrived is handled as one batch under one
//! reading of the clock (`body`). The shard's mind (`crate::shard`) decides and returns effects;
//! the body sends what they say: questions to other shards and nodes (`far`), and answers to
//! callers, whose channels it keeps (`replies`).
//!
//! `cells` holds what all shards go by, `counts_file` the file of counts that a graceful stop
//! leaves behind.

mod body;
mod cells;
pub mod counts_file;
mod far;
mod handle;
mod replies;

pub use body::{ShardArgs, run};
pub use cells::{PlacesCell, PolicyCell};
pub use far::{Far, NothingFar, ReplyTo};
pub use handle::{Handle, Leaving, Mailboxes, Staging, mailboxes};
