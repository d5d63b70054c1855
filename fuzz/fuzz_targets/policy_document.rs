//! Whatever bytes are offered as a policy, the answer is a compiled policy or a list of faults,
//! never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|document: &[u8]| tidegate::policy::fuzz_document(document));
