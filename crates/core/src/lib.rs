//! What Tidegate decides, as pure functions of their arguments.
//!
//! The manifest names no runtime, and `clippy.toml` beside it forbids clocks, I/O and randomness:
//! callers pass the time as an argument. Imports point up this list only; a test holds that.
//!
//! - [`codec`]: the one door to the binary encoding.
//! - [`time`]: the two clocks' readings.
//! - [`input`]: what comes from outside, read so that every fault is found at once and named by its
//!   path.
//! - [`placement`]: the keyed hash from tenants to partitions, the table of who owns them, and its
//!   planner.
//! - `permit`: the id of a concurrency permit.
//! - [`limit`]: the arithmetic, one algorithm a file, in exact integers.
//! - [`check`]: the vocabulary. What is asked, what a limit is, what a decision answers.
//! - [`policy`]: the rules. The document as written, its validation, its compiled form, changes and
//!   differences.
//! - [`random`]: generators that follow from a seed.
//! - [`plain`]: checks and decisions as they are on the wire and in files.
//! - [`shard`]: the minds that own the counts and decide.
//! - [`state`]: what the log means. Commands, and how each changes what the nodes agree on.
//! - [`membership`]: who votes, what moves, and what the leader does next about its members.

pub mod check;
pub mod codec;
pub mod input;
pub mod limit;
pub mod membership;
mod permit;
pub mod placement;
pub mod plain;
pub mod policy;
pub mod random;
pub mod shard;
pub mod state;
pub mod time;
