//! Tidegate decides whether a tenant may do a thing now.
pub mod check;
pub mod clock;
pub mod input;
pub mod limit;
pub mod placement;
pub mod policy;
pub mod random;
