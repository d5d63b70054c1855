//! The one door for randomness of the operating system.
//!
//! A process draws one [`Seed`] there; everything random in a node comes from generators forked off
//! it by name.

pub use tidegate_core::random::{Generator, Seed};

/// A fresh seed from the operating system; fails only where the system has no randomness to give.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where a process asks the system for randomness"
)]
pub fn system_seed() -> std::io::Result<Seed> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(Seed::from_bytes(bytes))
}
