#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volio_fuzz::sha256(bytes));
