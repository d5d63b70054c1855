//! Whatever bytes arrive as the body of `POST /v1/check`, the answer is a check or a list of
//! faults, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| tidegate::http::fuzz_check_body(body));
