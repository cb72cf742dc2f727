#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quantraband_fuzz::audit_proof(bytes));
