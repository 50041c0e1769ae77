//! Fuzzes the TIFF decoder.
#![no_main]

use panoptes_fuzz::{domain::ImageEncoding, fuzz_image};

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_image(ImageEncoding::Tiff, input));
