//! Tidegate decides whether a tenant may do a thing now.
pub mod check;
pub mod clock;
pub mod codec;
pub mod input;
pub mod limit;
pub mod placement;
pub mod policy;
pub mod random;
pub mod shard;
