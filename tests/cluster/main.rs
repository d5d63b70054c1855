//! Three nodes are one limiter: real processes, real sockets, asked through any of them.
//!
//! `cargo test --test cluster -- members::` runs the tests of one file.

#[path = "../rig/mod.rs"]
mod rig;

mod backup;
mod counts;
mod failures;
mod harness;
mod links;
mod machine;
mod members;
mod moves;
mod names;
mod net;
mod old;
mod policy;
mod readiness;
mod recovery;
mod rolling_restart;
mod secret;
mod settings;
mod tls;
