//! Tidegate decides whether a tenant may do a thing now.
pub mod check;
pub mod clock;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod http;
pub mod input;
pub mod limit;
pub mod node;
pub mod placement;
pub mod policy;
pub mod random;
pub mod routing;
pub mod shard;
pub mod telemetry;
