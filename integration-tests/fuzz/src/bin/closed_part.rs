//! Fuzzes what the topic of closed parts may hold.
#![no_main]

use panoptes_fuzz::fuzz_closed_part;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_closed_part(input));
