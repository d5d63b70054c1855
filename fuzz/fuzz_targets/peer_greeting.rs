//! Whatever bytes somebody sends who dials a node and knows no secret of its cluster, they are refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::peer::fuzz_greeting(bytes));
