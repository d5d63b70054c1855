//! One node from outside: real processes asked over HTTP, and the command line.
//!
//! `cargo test --test api -- policy_api::` runs the tests of one file.

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/mod.rs"]
mod support;

mod access;
mod auth;
mod batch;
mod behind_proxies;
mod bounds;
mod check;
mod compat;
mod dev;
mod exact_counts;
mod flood;
mod forward_auth;
mod headers;
mod idempotency;
mod logs;
mod metrics;
mod nonsense;
mod openapi;
mod peek;
mod permits;
mod policies;
mod policy_api;
mod policy_history;
mod real_time;
mod restart;
mod statistics;
mod tls;
