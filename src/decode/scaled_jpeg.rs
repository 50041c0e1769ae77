//! JPEG at a half, a quarter or an eighth of its size, by libjpeg-turbo.
//!
//! The smaller picture comes from the lower frequencies of each block of 8 x 8 pixels alone, which saves
//! most of the arithmetic and of the memory. It is not the picture that a resize of the full one gives,
//! so a model's thresholds must be set with it. As strict as the decoder of full size: what libjpeg only
//! warns of (data that ends early, or is followed by others) is an error.

use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

use super::pixels::WantedSize;
use crate::domain::{Channels, DecodedImage};

/// Progressive images have some ten scans; thousands of them in few bytes would take minutes.
const MOST_SCANS: u32 = 100;

/// By how much both sides may be divided, if they may be.
pub(super) fn divisor(wanted: WantedSize, width: u32, height: u32) -> Option<u32> {
    let WantedSize::AtLeast(least) = wanted else {
        return None;
    };
    let shorter = width.min(height);
    [8, 4, 2]
        .into_iter()
        .find(|divisor| shorter.div_ceil(*divisor) >= least)
}

/// Decodes a JPEG in grey, YCbCr or RGB whose headers, size and end were checked.
pub(super) fn decode(
    bytes: &[u8],
    original: (u32, u32),
    channels: Channels,
    divisor: u32,
) -> turbojpeg::Result<DecodedImage<'static>> {
    let mut decompressor = Decompressor::new()?;
    decompressor.set_scaling_factor(ScalingFactor::new(1, divisor as usize))?;
    decompressor.set_scan_limit(MOST_SCANS)?;
    let (width, height) = (original.0.div_ceil(divisor), original.1.div_ceil(divisor));
    let pitch = width as usize * channels.count();
    let mut pixels = vec![0; pitch * height as usize];
    decompressor.decompress(
        bytes,
        Image {
            pixels: pixels.as_mut_slice(),
            width: width as usize,
            pitch,
            height: height as usize,
            format: match channels {
                Channels::Grey => PixelFormat::GRAY,
                Channels::Rgb => PixelFormat::RGB,
            },
        },
    )?;
    Ok(DecodedImage {
        width,
        height,
        original,
        channels,
        pixels: pixels.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{ImageLimits, decode_image, decode_image_at};
    use crate::domain::{ImageEncoding, RejectReason};

    const FILES: [&str; 9] = [
        "baseline_420.jpg",
        "baseline_422.jpg",
        "baseline_444.jpg",
        "grey.jpg",
        "odd_size.jpg",
        "opencv.jpg",
        "optimized_exif.jpg",
        "progressive.jpg",
        "restarts.jpg",
    ];

    fn read_file(name: &str) -> Vec<u8> {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/integration-tests/fixtures/images/"
        );
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    fn decode_at_least(least: u32, bytes: &[u8]) -> Result<DecodedImage<'_>, RejectReason> {
        let limits = ImageLimits::default();
        let wanted = WantedSize::AtLeast(least);
        decode_image_at(wanted, ImageEncoding::Jpeg, bytes, &limits).map_err(|error| error.reason)
    }

    #[test]
    fn the_largest_divisor_that_leaves_enough_is_taken() {
        let divisor = |least| divisor(WantedSize::AtLeast(least), 2448, 2048);
        assert_eq!(divisor(256), Some(8));
        assert_eq!(divisor(257), Some(4));
        assert_eq!(divisor(512), Some(4));
        assert_eq!(divisor(1024), Some(2));
        assert_eq!(divisor(1025), None);
        assert_eq!(super::divisor(WantedSize::Full, 2448, 2048), None);
    }

    #[test]
    fn a_smaller_picture_is_like_the_mean_of_the_full_one() {
        for name in FILES {
            let bytes = read_file(name);
            let full = decode_image(ImageEncoding::Jpeg, &bytes, &ImageLimits::default()).unwrap();
            let least = full.width.min(full.height).div_ceil(2);
            let half = decode_at_least(least, &bytes).unwrap();
            let size = (full.width, full.height);
            assert_eq!(
                (half.width, half.height),
                (size.0.div_ceil(2), size.1.div_ceil(2))
            );
            assert_eq!(
                (half.original, half.channels),
                (size, full.channels),
                "{name}"
            );
            let mean = |image: &DecodedImage<'_>| {
                let sum: u64 = image.pixels.iter().map(|value| u64::from(*value)).sum();
                sum as f64 / image.pixels.len() as f64
            };
            let (full, half) = (mean(&full), mean(&half));
            assert!((full - half).abs() < 2.5, "{name}: {full}, {half}");
        }
    }

    #[test]
    fn a_picture_of_four_colours_is_decoded_at_full_size() {
        let bytes = read_file("cmyk.jpg");
        let full = decode_image(ImageEncoding::Jpeg, &bytes, &ImageLimits::default()).unwrap();
        assert_eq!(decode_at_least(8, &bytes).unwrap(), full);
    }

    #[test]
    fn a_picture_cut_anywhere_is_an_error() {
        for name in FILES {
            let bytes = read_file(name);
            let whole = decode_at_least(8, &bytes).unwrap();
            assert!(whole.width < whole.original.0, "{name}");
            for length in 0..bytes.len() {
                match decode_at_least(8, &bytes[..length]) {
                    // What follows the end of the image may be missing.
                    Ok(image) => assert_eq!(image, whole, "{name} cut to {length}"),
                    Err(reason) => assert_eq!(reason, RejectReason::Decode, "{name}"),
                }
            }
        }
    }
}
