//! Tidegate: may this tenant do this now, at this cost?
//!
//! The map of the house. Imports point one way, from the bottom of this list to its top; a test
//! holds that.
//!
//! - [`clock`]: the one door for time. Boot time for rates, disciplined wall time for windows and
//!   quotas.
//! - [`random`]: the one door for chance. Everything random in a node follows from one seed.
//! - [`watch`]: a value that some change and others watch, woken in order.
//! - [`net`]: the one seam for the network: sockets, or simulated ones.
//! - `check`, `codec`, `input`, `limit`, `placement`, `plain`, `policy`, `shard`,
//!   `cluster::{membership, state}`: the crate `tidegate-core`, which decides.
//! - [`actor`]: the bodies of the shards. Mailboxes, callers that wait, the file of saved counts.
//! - [`peer`]: the wire between nodes. Frames, handshake, calls.
//! - [`cluster`]: what the nodes agree on: the versioned policy, durable.
//! - [`routing`]: the way of a check to its shard; allow and deny lists on that way.
//! - [`config`]: `cluster.toml`, checked once.
//! - [`telemetry`]: what a node says of itself.
//! - [`http`]: the door. One file a resource.
//! - [`node`]: the composition root: builds a node, runs it, drains it.

pub mod actor;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod files;
pub mod http;
pub mod net;
pub mod node;
pub mod peer;
pub mod random;
pub mod routing;
pub mod telemetry;
pub mod watch;

pub use tidegate_core::{check, codec, input, limit, placement, plain, policy, shard};
