//! Fuzz targets for all that reads bytes from outside: the envelope, each image encoding, closed parts,
//! and the manifests and indexes of archives.
//!
//! `scripts/fuzz SECONDS` builds and runs them, on stable Rust. The product's modules are compiled
//! here from their own source files, without the rest of the crate: that leaves some sixty small
//! dependencies instead of four hundred, so that they can all be built with coverage counters, and
//! the fuzzer sees into the codecs.
//!
//! A target fails on a panic (one that the product would catch, too), on a broken promise, on a
//! single allocation beyond what the limits allow, and on an input that takes too long.

#[path = "../../../src/decode/mod.rs"]
pub mod decode;
#[path = "../../../src/domain/mod.rs"]
pub mod domain;
pub mod schema;

use std::sync::Arc;

use decode::{
    EnvelopeDecoder, EnvelopeSettings, ImageLimits, WantedSize, decode_image_at, decode_pixels,
};
use domain::{
    DecodedImage, Header, ImageEncoding, LineId, PixelFormat, RawLayout, Record, SourceOffset,
    Timestamp, Topic,
};
use schema::archive::{AnyBytes, ArchiveManifest, IndexEntry, SegmentManifest};
use schema::closed_part::{ClosedPartRecord, SharedNames};

/// Small, so that an allocation beyond them is found by `-malloc_limit_mb`.
pub const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 1 << 20,
    max_width: 1024,
    max_height: 1024,
    max_pixels: 1 << 19,
};

/// Raw formats that an input's first byte chooses from.
const PIXEL_FORMATS: [PixelFormat; 14] = [
    PixelFormat::Mono8,
    PixelFormat::Mono10,
    PixelFormat::Mono10p,
    PixelFormat::Mono10Packed,
    PixelFormat::Mono12,
    PixelFormat::Mono12p,
    PixelFormat::Mono12Packed,
    PixelFormat::Mono16,
    PixelFormat::Rgb8,
    PixelFormat::Bgr8,
    PixelFormat::BayerRg8,
    PixelFormat::BayerGb8,
    PixelFormat::BayerGr8,
    PixelFormat::BayerBg8,
];

/// Decodes `input` as an image of this encoding.
pub fn fuzz_image(encoding: ImageEncoding, input: &[u8]) {
    for wanted in [WantedSize::Full, WantedSize::AtLeast(8)] {
        if let Ok(image) = decode_image_at(wanted, encoding, input, &LIMITS) {
            assert_within_limits(&image);
        }
        // Without the feature both are the same.
        if !cfg!(feature = "scaled-jpeg") {
            break;
        }
    }
}

/// Decodes `input` as a raw frame: format, width, height and stride in seven bytes, then the frame.
pub fn fuzz_raw(input: &[u8]) {
    let Some((layout, frame)) = input.split_at_checked(7) else {
        return;
    };
    let number = |low: u8, high: u8| u16::from_le_bytes([low, high]);
    let layout = RawLayout {
        pixel_format: PIXEL_FORMATS[usize::from(layout[0]) % PIXEL_FORMATS.len()],
        width: u32::from(number(layout[1], layout[2])),
        height: u32::from(number(layout[3], layout[4])),
        stride: usize::from(number(layout[5], layout[6])),
    };
    fuzz_image(ImageEncoding::Raw(layout), frame);
}

/// Reads `input` as a closed part; what was read is written and read again as the same.
pub fn fuzz_closed_part(input: &[u8]) {
    let Ok(read) = ClosedPartRecord::from_bytes(input) else {
        return;
    };
    let group = read.group_id.clone();
    let mut names = SharedNames::default();
    let closure = read.into_closure(&mut names);
    let written = ClosedPartRecord::of(&closure, &group).to_bytes();
    let again = ClosedPartRecord::from_bytes(&written).expect("it was just written");
    assert_eq!(again.into_closure(&mut names), closure);
}

/// Reads `input` as each of an archive's files; what was read is written and read again as the same.
pub fn fuzz_archive(input: &[u8]) {
    if let Ok(read) = ArchiveManifest::from_bytes(input) {
        let again = ArchiveManifest::from_bytes(&read.to_bytes()).expect("it was just written");
        assert_eq!(again, read);
    }
    if let Ok(read) = SegmentManifest::from_bytes(input) {
        let again = SegmentManifest::from_bytes(&read.to_bytes()).expect("it was just written");
        assert_eq!(again, read);
        assert_eq!(again.deleted_offsets(), read.deleted_offsets());
    }
    if let Ok(read) = IndexEntry::all_from_bytes(input) {
        let lines: Vec<u8> = read.iter().flat_map(IndexEntry::to_line).collect();
        let again = IndexEntry::all_from_bytes(&lines).expect("it was just written");
        assert_eq!(again, read);
        let keys = read.into_iter().filter_map(|entry| entry.key);
        for key in keys.map(Vec::from) {
            assert_eq!(Vec::from(AnyBytes::from(key.clone())), key);
        }
    }
}

/// Reads `input` as a record, its envelope, and the image within.
///
/// Lines of `name: value` are headers (`key: value` is the key) up to an empty line; what follows
/// is the value.
pub fn fuzz_envelope(input: &[u8]) {
    let decoder = EnvelopeDecoder::new(EnvelopeSettings {
        default_line: LineId::from("line1"),
        default_class: None,
        limits: LIMITS,
    });
    let Ok(view) = decoder.decode(Arc::new(record_from(input)), Timestamp(0)) else {
        return;
    };
    assert!(!view.image_bytes().is_empty());
    assert!((1..=256).contains(&view.part.part.as_str().len()));
    assert!(!view.view.as_str().is_empty());
    if let Ok(image) = decode_pixels(&view, &LIMITS, WantedSize::Full) {
        assert_within_limits(&image);
    }
}

fn record_from(input: &[u8]) -> Record {
    let mut record = Record {
        source: SourceOffset {
            topic: Topic::from("line1.cam.top"),
            partition: 0,
            offset: 0,
        },
        generation: 0,
        key: None,
        value: None,
        headers: Vec::new(),
        timestamp: None,
        lease: None,
    };
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            record.value = Some(rest.to_vec());
            break;
        }
        let colon = line.windows(2).position(|pair| pair == b": ");
        let name = String::from_utf8_lossy(&line[..colon.unwrap_or(line.len())]).into_owned();
        let value = colon.map(|colon| line[colon + 2..].to_vec());
        if name == "key" {
            record.key = value;
        } else {
            record.headers.push(Header { name, value });
        }
    }
    record
}

fn assert_within_limits(image: &DecodedImage<'_>) {
    let pixels = u64::from(image.width) * u64::from(image.height);
    assert!(image.width <= LIMITS.max_width && image.height <= LIMITS.max_height);
    assert!(pixels > 0 && pixels <= LIMITS.max_pixels);
    assert_eq!(image.pixels.len() as u64, pixels * image.channels.count() as u64);
}
