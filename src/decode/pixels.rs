//! From a view's bytes to 8-bit grey or RGB, for every image encoding that a camera may send.
//!
//! - The size that an image declares is checked against the limits before memory is taken for it: a
//!   decompression bomb is rejected on its header.
//! - An image that ends early is an error, never a picture with a grey rest.
//! - 16-bit samples are scaled to 8 bits over their whole range; grey stays one byte a pixel; an alpha
//!   channel is dropped, colours staying as stored. Floating-point samples have no agreed white and
//!   are unsupported.
//! - The first page of a TIFF and the first frame of an animation count.
//! - Colour profiles and EXIF orientation are ignored: industrial cameras set neither, and the model
//!   must see the sensor's pixels, in whose coordinates the results are.

use std::io::Cursor;
use std::panic::catch_unwind;

use image::codecs::bmp::BmpDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::error::ImageError;
use image::{ColorType, DynamicImage, ImageDecoder, Limits};

use super::envelope::sniff;
use super::limits::ImageLimits;
use super::{jpeg, png, raw};
use crate::domain::{Channels, DecodedImage, ImageEncoding, RejectReason, View};

/// Memory that a codec may take beside the pixels, for its windows, tables and metadata.
const CODEC_BYTES: u64 = 64 << 20;

/// Bytes a pixel takes in the widest form a codec decodes to, 16-bit RGBA.
const WIDEST_PIXEL_BYTES: u64 = 8;

/// How large a decoded image must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WantedSize {
    /// As it is.
    #[default]
    Full,
    /// With the feature `scaled-jpeg` a JPEG may be half, a quarter or an eighth of its size, as long as
    /// both sides have this many pixels. Other images, and JPEGs in CMYK or YCCK, are as they are.
    AtLeast(u32),
}

impl From<Option<u32>> for WantedSize {
    fn from(least_side: Option<u32>) -> Self {
        least_side.map_or(Self::Full, Self::AtLeast)
    }
}

/// Why an image could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PixelError {
    /// The reason of the dead letter: `decode`, `too_large` or `unsupported`.
    pub reason: RejectReason,
    /// What was expected and found.
    pub message: String,
}

impl PixelError {
    pub(super) fn new(reason: RejectReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Decodes a view's image, at the size that is wanted.
///
/// # Errors
/// When the image is damaged, exceeds `limits` or is of a kind that is not supported.
pub fn decode_pixels<'a>(
    view: &'a View,
    limits: &ImageLimits,
    wanted: WantedSize,
) -> Result<DecodedImage<'a>, PixelError> {
    decode_image_at(wanted, view.encoding, view.image_bytes(), limits)
}

/// Decodes an image of a known encoding at its full size.
///
/// ```
/// use panoptes::decode::{ImageLimits, decode_image};
/// use panoptes::domain::{ImageEncoding, PixelFormat, RawLayout};
/// let layout =
///     RawLayout { pixel_format: PixelFormat::Mono8, width: 2, height: 1, stride: 2 };
/// let image = decode_image(ImageEncoding::Raw(layout), &[0, 255], &ImageLimits::default())?;
/// assert_eq!(*image.pixels, [0, 255]);
/// assert_eq!(image.into_rgb().pixels, [0, 0, 0, 255, 255, 255]);
/// # Ok::<(), panoptes::decode::PixelError>(())
/// ```
///
/// # Errors
/// When the image is damaged, exceeds `limits` or is of a kind that is not supported.
pub fn decode_image<'a>(
    encoding: ImageEncoding,
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<DecodedImage<'a>, PixelError> {
    decode_image_at(WantedSize::Full, encoding, bytes, limits)
}

/// Decodes an image of a known encoding at the size that is wanted.
///
/// # Errors
/// As [`decode_image`].
pub fn decode_image_at<'a>(
    wanted: WantedSize,
    encoding: ImageEncoding,
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<DecodedImage<'a>, PixelError> {
    limits
        .check_bytes(bytes.len())
        .map_err(|error| PixelError::new(RejectReason::TooLarge, error))?;
    // The codecs are other people's code fed with bytes from outside. Should one of them panic, the
    // image is bad, and the stream goes on.
    let decoded = catch_unwind(|| decode_by_codec(wanted, encoding, bytes, limits));
    let decoded = decoded.unwrap_or_else(|_| {
        let message = format!(
            "expected a sound `{}`, found one that its decoder panics on",
            name(encoding)
        );
        Err(PixelError::new(RejectReason::Decode, message))
    });
    decoded.map_err(|error| with_hint(error, encoding, bytes))
}

fn decode_by_codec<'a>(
    wanted: WantedSize,
    encoding: ImageEncoding,
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<DecodedImage<'a>, PixelError> {
    let input = Cursor::new(bytes);
    let fault = |error| codec_error(encoding, &error);
    match encoding {
        ImageEncoding::Raw(layout) => {
            check_dimensions(limits, layout.width, layout.height)?;
            raw::decode(&layout, bytes)
                .map_err(|error| PixelError::new(RejectReason::Decode, error))
        }
        ImageEncoding::Jpeg => jpeg::decode(bytes, limits, wanted),
        ImageEncoding::Png => {
            png::check_palette(bytes)?;
            let decoder = PngDecoder::with_limits(input, codec_limits(limits)).map_err(fault)?;
            read_decoder(encoding, decoder, limits)
        }
        ImageEncoding::Bmp => {
            let decoder = BmpDecoder::new(input).map_err(fault)?;
            read_decoder(encoding, decoder, limits)
        }
        ImageEncoding::Tiff => {
            let decoder = TiffDecoder::new(input).map_err(fault)?;
            read_decoder(encoding, decoder, limits)
        }
        ImageEncoding::Webp => {
            let decoder = WebPDecoder::new(input).map_err(fault)?;
            read_decoder(encoding, decoder, limits)
        }
    }
}

fn read_decoder(
    encoding: ImageEncoding,
    mut decoder: impl ImageDecoder,
    limits: &ImageLimits,
) -> Result<DecodedImage<'static>, PixelError> {
    let fault = |error| codec_error(encoding, &error);
    let (width, height) = decoder.dimensions();
    check_dimensions(limits, width, height)?;
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(PixelError::new(
            RejectReason::Unsupported,
            format!(
                "expected samples of 8 or 16 bits in `{}`, found floating-point samples",
                name(encoding)
            ),
        ));
    }
    decoder.set_limits(codec_limits(limits)).map_err(fault)?;
    let image = DynamicImage::from_decoder(decoder).map_err(fault)?;
    let (channels, pixels) = if image.color().has_color() {
        (Channels::Rgb, image.into_rgb8().into_raw())
    } else {
        (Channels::Grey, image.into_luma8().into_raw())
    };
    Ok(DecodedImage {
        width,
        height,
        original: (width, height),
        channels,
        pixels: pixels.into(),
    })
}

/// Checks the size that an image declares.
pub(super) fn check_dimensions(
    limits: &ImageLimits,
    width: u32,
    height: u32,
) -> Result<(), PixelError> {
    if width == 0 || height == 0 {
        return Err(PixelError::new(
            RejectReason::Decode,
            format!("expected width and height above 0, found `{width}x{height}`"),
        ));
    }
    limits
        .check_dimensions(width, height)
        .map_err(|error| PixelError::new(RejectReason::TooLarge, error))
}

fn codec_limits(limits: &ImageLimits) -> Limits {
    let mut codec = Limits::default();
    codec.max_image_width = Some(limits.max_width);
    codec.max_image_height = Some(limits.max_height);
    codec.max_alloc = Some(
        limits
            .max_pixels
            .saturating_mul(WIDEST_PIXEL_BYTES)
            .saturating_add(CODEC_BYTES),
    );
    codec
}

fn codec_error(encoding: ImageEncoding, error: &ImageError) -> PixelError {
    let reason = match error {
        ImageError::Limits(_) => RejectReason::TooLarge,
        ImageError::Unsupported(_) => RejectReason::Unsupported,
        _ => RejectReason::Decode,
    };
    PixelError::new(
        reason,
        format!("expected a sound `{}`, found: {error}", name(encoding)),
    )
}

/// Adds what the bytes look like, when that is another format than the one they were said to be.
fn with_hint(mut error: PixelError, encoding: ImageEncoding, bytes: &[u8]) -> PixelError {
    if matches!(encoding, ImageEncoding::Raw(_)) {
        return error;
    }
    if let Some(found) = sniff(bytes).filter(|found| *found != encoding) {
        error.message = format!("{}; the bytes look like `{}`", error.message, name(found));
    }
    error
}

/// The content type of an encoding.
fn name(encoding: ImageEncoding) -> &'static str {
    match encoding {
        ImageEncoding::Jpeg => "image/jpeg",
        ImageEncoding::Png => "image/png",
        ImageEncoding::Bmp => "image/bmp",
        ImageEncoding::Tiff => "image/tiff",
        ImageEncoding::Webp => "image/webp",
        ImageEncoding::Raw(_) => "image/x-raw",
    }
}

#[cfg(test)]
#[path = "pixels_tests.rs"]
mod tests;
