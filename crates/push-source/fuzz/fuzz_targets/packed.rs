#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| logwarden_push_source_fuzz::packed(bytes));
