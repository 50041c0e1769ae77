//! Small real images: smooth shading with noise, so that codecs have something to do.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Side of every test image.
pub(crate) const SIDE: u32 = 96;

/// An image of its own for each seed.
pub(crate) fn photograph(seed: u64) -> RgbImage {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let base: [u8; 3] = random.random();
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let shade = u8::try_from((x + y) / 2).unwrap();
        let noise: u8 = random.random_range(0..12);
        Rgb(base.map(|channel| (channel / 2).saturating_add(shade).saturating_add(noise)))
    })
}

/// The image of `seed` in a file format.
pub(crate) fn encoded(seed: u64, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    photograph(seed).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The image of `seed` as a JPEG.
pub(crate) fn jpeg(seed: u64) -> Vec<u8> {
    encoded(seed, ImageFormat::Jpeg)
}

/// A PNG of a few bytes whose header claims `width` by `height` pixels.
pub(crate) fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let mut png = encoded(1, ImageFormat::Png);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    png
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}
