//! A caller that dials a node and knows no secret of its cluster is refused, whatever bytes it
//! sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::peer::fuzz_greeting(bytes));
