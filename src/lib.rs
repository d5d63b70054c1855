//! Tidegate decides whether a tenant may do a thing now.
pub mod check;
pub mod clock;
pub mod limit;
pub mod random;
