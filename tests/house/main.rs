//! What the code and its printed output must look like: which way imports point, and the output of
//! every command to the byte.

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/mod.rs"]
mod support;

mod golden;
mod imports;
