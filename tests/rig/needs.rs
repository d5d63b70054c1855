//! Programs and rights that a test needs and that a machine may lack: the test is skipped there.
//!
//! ```text
//! let Some(promtool) = needs("promtool") else { return };
//! ```
//!
//! A machine with Rust and a C compiler passes `cargo test --workspace`: such a test prints
//! "skipped: needs promtool" there. With `TIDEGATE_TESTS=all`, which `.ci/run` exports, it fails
//! instead.

#![allow(dead_code, reason = "each program uses a part of it")]

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where Debian puts servers, which the PATH of an ordinary user leaves out.
const SERVERS: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];

/// Returns the path of `program`. Where the machine lacks it: prints a line that says so and
/// returns `None`, or panics where every test must run.
pub fn needs(program: &str) -> Option<PathBuf> {
    let found = find(program, std::env::var_os("PATH").as_deref());
    if found.is_none() {
        skip(program, std::env::var_os("TIDEGATE_TESTS").as_deref());
    }
    found
}

/// Skips the test: prints what it needs and the machine lacks. Panics where every test must run.
pub fn skip_for_want_of(need: &str) {
    skip(need, std::env::var_os("TIDEGATE_TESTS").as_deref());
}

fn find(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let folders = path.into_iter().flat_map(std::env::split_paths);
    let folders = folders.chain(SERVERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    let data = file.metadata();
    data.is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn skip(need: &str, tests: Option<&OsStr>) {
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    match tests.map(OsStr::to_string_lossy).as_deref() {
        None | Some("") => {
            // Not by eprintln!, which the test harness keeps to itself where a test passes.
            let _ = writeln!(io::stderr(), "skipped: needs {need} ({test})");
        }
        Some("all") => {
            panic!("needs {need}, which is missing, and TIDEGATE_TESTS=all lets no test be skipped")
        }
        Some(other) => panic!("TIDEGATE_TESTS is \"{other}\"; it is \"all\" or not set"),
    }
}
