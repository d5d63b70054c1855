//! What the code and its printed output must look like: which way imports point, and every command's
//! output to the byte.

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/mod.rs"]
mod support;

mod golden;
mod imports;
