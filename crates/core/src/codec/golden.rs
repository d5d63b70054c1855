//! Reads the files of `tests/golden/formats`, for the tests of each stored form.
//!
//! The files were written by the first program (format level 1) and are never regenerated: nodes
//! and data directories of that program still have these bytes. A test reads a file with the code
//! of today and compares what it means. A test that fails says that this code no longer reads what
//! an older program stored: change the code, not the file.

use std::fmt::Debug;

/// What a failing comparison says first.
pub const NEVER: &str = "what an older program stored is read differently now; the files in \
                         tests/golden/formats must never be regenerated: change the code that \
                         reads them";

/// The rows of a file: lines of `name: hexadecimal bytes`, lines that begin with `#` left out.
pub fn rows(text: &str) -> Vec<(String, Vec<u8>)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let row = |line: &str| {
        let (name, hex) = line.rsplit_once(": ").expect("a row is a name, a colon and bytes");
        (name.to_string(), bytes(hex))
    };
    lines.map(row).collect()
}

/// The bytes of an even number of hexadecimal digits.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Fails where what was read from a golden file, named `what`, isn't what was written into it.
pub fn same<T: PartialEq + Debug>(what: &str, read: &T, written: &T) {
    assert!(read == written, "{what}: {NEVER}\nread:    {read:?}\nwritten: {written:?}");
}
