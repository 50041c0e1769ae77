//! Against images that other tools made: `integration-tests/fixtures/images/generate.py`.

use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::decode::raw::parse_pixel_format;
use crate::domain::{PixelFormat, RawLayout};

#[derive(Debug, Deserialize)]
struct Fixture {
    file: String,
    encoding: String,
    raw: Option<RawFixture>,
    expected: String,
    width: u32,
    height: u32,
    tolerance: Tolerance,
}

#[derive(Debug, Deserialize)]
struct RawFixture {
    pixel_format: String,
    stride: usize,
}

#[derive(Debug, Deserialize)]
struct Tolerance {
    maximum: u8,
    mean: f64,
    border: u32,
}

fn read_file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("integration-tests/fixtures/images")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

fn fixtures() -> Vec<Fixture> {
    serde_json::from_slice(&read_file("manifest.json")).unwrap()
}

impl Fixture {
    fn encoding(&self) -> ImageEncoding {
        match (self.encoding.as_str(), &self.raw) {
            ("image/jpeg", None) => ImageEncoding::Jpeg,
            ("image/png", None) => ImageEncoding::Png,
            ("image/bmp", None) => ImageEncoding::Bmp,
            ("image/tiff", None) => ImageEncoding::Tiff,
            ("image/webp", None) => ImageEncoding::Webp,
            ("image/x-raw", Some(raw)) => ImageEncoding::Raw(RawLayout {
                pixel_format: parse_pixel_format(&raw.pixel_format).unwrap(),
                width: self.width,
                height: self.height,
                stride: raw.stride,
            }),
            _ => panic!("`{}`: no such encoding", self.file),
        }
    }

    fn check(&self, image: DecodedImage<'_>) {
        let image = image.into_rgb();
        let expected = read_file(&self.expected);
        assert_eq!(
            (image.width, image.height),
            (self.width, self.height),
            "{}",
            self.file
        );
        assert_eq!(image.pixels.len(), expected.len(), "{}", self.file);
        let border = self.tolerance.border;
        let differences: Vec<u8> = image
            .pixels
            .iter()
            .zip(&expected)
            .enumerate()
            .filter(|(index, _)| {
                let pixel = u32::try_from(index / 3).unwrap();
                let (x, y) = (pixel % self.width, pixel / self.width);
                (border..self.width - border).contains(&x)
                    && (border..self.height - border).contains(&y)
            })
            .map(|(_, (found, expected))| found.abs_diff(*expected))
            .collect();
        let maximum = differences.iter().max().copied().unwrap();
        let sum: f64 = differences
            .iter()
            .map(|difference| f64::from(*difference))
            .sum();
        let mean = sum / differences.len() as f64;
        println!(
            "{}: differs by {maximum} at most, {mean:.3} on average",
            self.file
        );
        assert!(
            maximum <= self.tolerance.maximum && mean <= self.tolerance.mean,
            "{}: differs by {maximum} at most, {mean} on average, from the other tool's pixels",
            self.file
        );
    }
}

fn limits() -> ImageLimits {
    ImageLimits {
        max_bytes: 1 << 20,
        max_width: 64,
        max_height: 64,
        max_pixels: 4096,
    }
}

#[test]
fn images_of_other_tools_give_the_pixels_that_these_tools_see() {
    let fixtures = fixtures();
    assert!(fixtures.len() > 40);
    for fixture in fixtures {
        let bytes = read_file(&fixture.file);
        let image = decode_image(fixture.encoding(), &bytes, &limits())
            .unwrap_or_else(|error| panic!("{}: {error}", fixture.file));
        fixture.check(image);
    }
}

#[test]
fn grey_stays_one_byte_a_pixel() {
    let channels_of = |name: &str| {
        let fixtures = fixtures();
        let fixture = fixtures.iter().find(|fixture| fixture.file == name);
        let fixture = fixture.unwrap_or_else(|| panic!("`{name}` is a fixture"));
        let bytes = read_file(name);
        let image = decode_image(fixture.encoding(), &bytes, &limits()).unwrap();
        image.channels
    };
    for name in [
        "grey.jpg",
        "grey8.png",
        "grey16.png",
        "grey_alpha8.png",
        "Mono12p.raw",
    ] {
        assert_eq!(channels_of(name), Channels::Grey, "{name}");
    }
    for name in [
        "baseline_420.jpg",
        "rgb8.png",
        "palette.png",
        "BayerRG8.raw",
    ] {
        assert_eq!(channels_of(name), Channels::Rgb, "{name}");
    }
}

#[test]
fn every_pixel_format_has_a_fixture() {
    let covered = fixtures()
        .iter()
        .filter(|fixture| fixture.raw.is_some())
        .count();
    assert_eq!(covered, 14);
}

#[test]
fn an_image_cut_anywhere_is_whole_or_an_error_never_partly_grey() {
    for fixture in fixtures() {
        let bytes = read_file(&fixture.file);
        let whole = decode_image(fixture.encoding(), &bytes, &limits()).unwrap();
        for length in 0..bytes.len() {
            match decode_image(fixture.encoding(), &bytes[..length], &limits()) {
                // What follows the pixels (end chunks, padding, metadata) may be missing.
                Ok(image) => assert_eq!(image, whole, "{} cut to {length}", fixture.file),
                Err(error) => assert_ne!(
                    error.reason,
                    RejectReason::TooLarge,
                    "{}: {error}",
                    fixture.file
                ),
            }
        }
    }
}

#[test]
fn an_image_over_the_limits_is_too_large_in_every_encoding() {
    let tight = [
        ImageLimits {
            max_width: 10,
            ..limits()
        },
        ImageLimits {
            max_height: 10,
            ..limits()
        },
        ImageLimits {
            max_pixels: 100,
            ..limits()
        },
        ImageLimits {
            max_bytes: 10,
            ..limits()
        },
    ];
    for fixture in fixtures() {
        for limits in &tight {
            let error =
                decode_image(fixture.encoding(), &read_file(&fixture.file), limits).unwrap_err();
            assert_eq!(
                error.reason,
                RejectReason::TooLarge,
                "{}: {error}",
                fixture.file
            );
        }
    }
}

/// A PNG of a few bytes that declares the size.
fn bomb_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = read_file("rgb8.png");
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_decompression_bomb_is_too_large_by_its_header() {
    let generous = ImageLimits::default();
    for (width, height) in [
        (16_000, 16_000),
        (u32::MAX >> 1, u32::MAX >> 1),
        (1, 100_000),
    ] {
        let error =
            decode_image(ImageEncoding::Png, &bomb_png(width, height), &generous).unwrap_err();
        assert_eq!(error.reason, RejectReason::TooLarge, "{error}");
    }
    let mut bmp = read_file("rgb24.bmp");
    bmp[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
    let error = decode_image(ImageEncoding::Bmp, &bmp, &generous).unwrap_err();
    assert_eq!(error.reason, RejectReason::TooLarge, "{error}");
}

#[test]
fn floating_point_samples_are_unsupported() {
    let error = decode_image(ImageEncoding::Tiff, &read_file("float.tif"), &limits()).unwrap_err();
    assert_eq!(error.reason, RejectReason::Unsupported, "{error}");
    assert!(error.message.contains("floating-point"), "{error}");
}

#[test]
fn an_image_of_another_format_than_said_is_named() {
    let error = decode_image(ImageEncoding::Jpeg, &read_file("rgb8.png"), &limits()).unwrap_err();
    assert_eq!(error.reason, RejectReason::Decode);
    assert!(
        error.message.ends_with("the bytes look like `image/png`"),
        "{error}"
    );
}

fn any_encoding() -> impl Strategy<Value = ImageEncoding> {
    let formats = [
        PixelFormat::Mono8,
        PixelFormat::Mono10,
        PixelFormat::Mono10p,
        PixelFormat::Mono10Packed,
        PixelFormat::Mono12p,
        PixelFormat::Rgb8,
        PixelFormat::BayerGb8,
    ];
    let raw = (
        proptest::sample::select(formats.to_vec()),
        0_u32..70,
        0_u32..70,
        0_usize..300,
    )
        .prop_map(|(pixel_format, width, height, stride)| {
            ImageEncoding::Raw(RawLayout {
                pixel_format,
                width,
                height,
                stride,
            })
        });
    prop_oneof![
        Just(ImageEncoding::Jpeg),
        Just(ImageEncoding::Png),
        Just(ImageEncoding::Bmp),
        Just(ImageEncoding::Tiff),
        Just(ImageEncoding::Webp),
        raw,
    ]
}

fn holds_the_limits(image: &DecodedImage<'_>) -> bool {
    let limits = limits();
    let pixels = u64::from(image.width) * u64::from(image.height);
    image.width <= limits.max_width
        && image.height <= limits.max_height
        && pixels <= limits.max_pixels
        && image.pixels.len() as u64 == pixels * image.channels.count() as u64
}

proptest! {
    #[test]
    fn arbitrary_bytes_keep_the_limits(
        encoding in any_encoding(),
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        if let Ok(image) = decode_image(encoding, &bytes, &limits()) {
            prop_assert!(holds_the_limits(&image));
        }
    }

    #[test]
    fn damaged_images_keep_the_limits(
        fixture in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let fixtures = fixtures();
        let fixture = fixture.get(&fixtures);
        let mut bytes = read_file(&fixture.file);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(image) = decode_image(fixture.encoding(), &bytes, &limits()) {
            prop_assert!(holds_the_limits(&image), "{}", fixture.file);
        }
    }
}
