//! What the code and its printed output must look like: which way imports point, and the output of
//! every command to the byte.

#[path = "../rig/mod.rs"]
mod rig;
#[allow(dead_code, reason = "the program `api` uses all of it")]
#[path = "../support/mod.rs"]
mod support;

mod golden;
mod imports;
