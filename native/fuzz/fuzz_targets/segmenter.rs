#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bridged_fuzz::segmenter(data));
