//! Fuzzes the envelope decoder.
#![no_main]

use panoptes_fuzz::fuzz_envelope;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_envelope(input));
