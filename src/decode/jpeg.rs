//! JPEG, strictly: an image that ends early or whose entropy-coded data breaks is an error.
//!
//! The `image` crate asks the same decoder (`zune-jpeg`) to be lenient, which fills what is missing
//! with grey, as a browser would. A model would see a defect there that the part does not have, so
//! the decoder is driven here in its strict mode, and the end-of-image marker must be present. A
//! transfer cut short is always found. Bytes lost from the middle are found when they break a
//! Huffman code; JPEG has no checksum.

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::limits::ImageLimits;
use super::pixels::{PixelError, WantedSize, check_dimensions};
use crate::domain::{Channels, DecodedImage, RejectReason};

/// Marker codes, as they follow an `0xff`.
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const RESTART_FIRST: u8 = 0xd0;
const RESTART_LAST: u8 = 0xd7;
const TEMPORARY: u8 = 0x01;

/// Decodes a whole JPEG.
pub(super) fn decode(
    bytes: &[u8],
    limits: &ImageLimits,
    #[cfg_attr(not(feature = "scaled-jpeg"), allow(unused_variables))] wanted: WantedSize,
) -> Result<DecodedImage<'static>, PixelError> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        // The size is checked below, where the error can tell the limit from damage.
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| fault(&error))?;
    let info = decoder
        .info()
        .ok_or_else(|| damaged("no dimensions in its headers"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    check_dimensions(limits, width, height)?;
    if !reaches_end_of_image(bytes) {
        return Err(damaged("no end-of-image marker: it is truncated"));
    }
    let stored = decoder.input_colorspace();
    let channels = match stored {
        Some(ColorSpace::Luma) => Channels::Grey,
        _ => Channels::Rgb,
    };
    // Of four colours libjpeg-turbo makes no RGB.
    #[cfg(feature = "scaled-jpeg")]
    if let Some(ColorSpace::Luma | ColorSpace::YCbCr | ColorSpace::RGB) = stored
        && let Some(divisor) = super::scaled_jpeg::divisor(wanted, width, height)
    {
        return super::scaled_jpeg::decode(bytes, (width, height), channels, divisor)
            .map_err(|error| damaged(&error.to_string()));
    }
    if channels == Channels::Grey {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let pixels = decoder.decode().map_err(|error| fault(&error))?;
    let expected = width as usize * height as usize * channels.count();
    if pixels.len() != expected {
        let found = pixels.len();
        return Err(damaged(&format!(
            "`{found}` bytes instead of `{expected}` for `{width}x{height}` pixels"
        )));
    }
    Ok(DecodedImage {
        width,
        height,
        original: (width, height),
        channels,
        pixels: pixels.into(),
    })
}

fn damaged(found: &str) -> PixelError {
    PixelError::new(
        RejectReason::Decode,
        format!("expected a sound `image/jpeg`, found: {found}"),
    )
}

fn fault(error: &DecodeErrors) -> PixelError {
    let reason = match error {
        DecodeErrors::Unsupported(_) => RejectReason::Unsupported,
        _ => RejectReason::Decode,
    };
    let text = error.to_string();
    PixelError {
        reason,
        ..damaged(text.trim())
    }
}

/// Whether the file's segments lead to an end-of-image marker. One within a segment, such as that
/// of an embedded thumbnail, does not count.
fn reaches_end_of_image(bytes: &[u8]) -> bool {
    let mut position = 0;
    loop {
        let Some(marker_at) = next_marker(bytes, position) else {
            return false;
        };
        position = marker_at + 2;
        match bytes[marker_at + 1] {
            END_OF_IMAGE => return true,
            // These stand alone.
            START_OF_IMAGE | TEMPORARY | RESTART_FIRST..=RESTART_LAST => {}
            // The rest have a length, which counts itself. A scan's data follows its header and is
            // searched for the next marker like any gap between segments.
            _ => match bytes.get(position..position + 2) {
                Some(length) => position += usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
}

/// The position of the next `0xff` that a marker code follows, from `start`. In a scan `ff 00` is
/// a data byte, and `ff ff` fills up.
fn next_marker(bytes: &[u8], start: usize) -> Option<usize> {
    let rest = bytes.get(start..)?;
    memchr::memchr_iter(0xff, rest)
        .find(|found| matches!(rest.get(found + 1), Some(code) if !matches!(code, 0x00 | 0xff)))
        .map(|found| start + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_marker_must_come_after_the_segments() {
        let whole = b"\xff\xd8\xff\xe0\x00\x04\xff\xd9\xff\xda\x00\x02\x12\xff\x00\x34\xff\xd9";
        assert!(reaches_end_of_image(whole));
        assert!(!reaches_end_of_image(&whole[..whole.len() - 1]));
        assert!(!reaches_end_of_image(b""));
        assert!(!reaches_end_of_image(b"\xff\xd8\xff\xe0\xff\xff\xff\xd9"));
    }

    #[test]
    fn what_follows_the_end_is_of_no_interest() {
        assert!(reaches_end_of_image(b"\xff\xd8\xff\xd9\0\0\0"));
    }
}
