#![no_main]

#[path = "../src/open.rs"]
mod open;

libfuzzer_sys::fuzz_target!(|data: &[u8]| open::open(data));
