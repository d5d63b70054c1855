//! What simulations stand on.

pub mod net;

pub use net::*;
