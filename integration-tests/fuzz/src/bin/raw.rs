//! Fuzzes the raw PFNC formats.
#![no_main]

use panoptes_fuzz::fuzz_raw;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_raw(input));
