//! Whatever bytes are in a file, they are a back-up or an error, also under a checksum that is
//! right.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::cluster::backup::fuzz(bytes));
