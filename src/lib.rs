//! Tidegate: may this tenant do this now, at this cost?
//!
//! The map of the house. Imports point one way, from the bottom of this list to its top; a test
//! holds that.
//!
//! - [`clock`]: the one door for time. Boot time for rates, disciplined wall time for windows and
//!   quotas.
//! - [`random`]: the one door for chance. Everything random in a node follows from one seed.
//! - [`codec`]: the one door to the binary encoding.
//! - [`watch`]: a value that some change and others watch, woken in order.
//! - [`net`]: the one seam for the network: sockets, or simulated ones.
//! - [`input`]: what comes from outside, read so that every fault is found at once and named by its
//!   path.
//! - [`limit`]: the arithmetic, one algorithm a file; pure, exact integers.
//! - [`check`]: the vocabulary. What is asked, what a limit is, what a decision answers.
//! - [`placement`]: the keyed hash from tenants to partitions, the table of who owns them, and its
//!   planner; pure.
//! - [`policy`]: the rules. The document as written, its validation, its compiled form, changes and
//!   differences.
//! - [`plain`]: checks and decisions as they are on the wire and in files.
//! - [`shard`]: the minds that own the counts and decide; pure but for a seeded generator.
//! - [`actor`]: their bodies. Mailboxes, callers that wait, the file of saved counts.
//! - [`peer`]: the wire between nodes. Frames, handshake, calls.
//! - [`cluster`]: what the nodes agree on: the versioned policy, durable.
//! - [`routing`]: the way of a check to its shard; allow and deny lists on that way.
//! - [`config`]: `cluster.toml`, checked once.
//! - [`telemetry`]: what a node says of itself.
//! - [`http`]: the door. One file a resource.
//! - [`node`]: the composition root: builds a node, runs it, drains it.

pub mod actor;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod files;
pub mod http;
pub mod input;
pub mod limit;
pub mod net;
pub mod node;
pub mod peer;
pub mod placement;
pub mod plain;
pub mod policy;
pub mod random;
pub mod routing;
pub mod shard;
pub mod telemetry;
pub mod watch;
