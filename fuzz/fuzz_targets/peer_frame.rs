//! Whatever bytes a peer sends, they are frames, a greeting and messages, or errors; what was read
//! is written the same again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::peer::fuzz_frames(bytes));
