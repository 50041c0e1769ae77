//! Fuzzes the manifests and indexes of archives.
#![no_main]

use panoptes_fuzz::fuzz_archive;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_archive(input));
