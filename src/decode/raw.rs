//! `image/x-raw`: frames as cameras send them, in GenICam's pixel format naming convention (PFNC).
//!
//! Lines start at a byte boundary, `stride` bytes apart; the packed formats leave no gap within a
//! line. Samples are scaled from the format's depth to 8 bits over the whole range (full scale is
//! 255) and rounded; sample bits above the depth, which a camera must send as zero, count as full
//! scale. Grey stays one byte a pixel; Bayer mosaics are interpolated bilinearly. Pixels that are as
//! they should be already are not copied.

use std::borrow::Cow;

use super::bayer;
use crate::domain::{Channels, DecodedImage, PixelFormat, RawLayout};

/// Formats with their PFNC name and code. A code's bits 16 to 23 are the bits a pixel takes.
const PIXEL_FORMATS: [(PixelFormat, &str, u32); 14] = [
    (PixelFormat::Mono8, "Mono8", 0x0108_0001),
    (PixelFormat::Mono10, "Mono10", 0x0110_0003),
    (PixelFormat::Mono10p, "Mono10p", 0x010A_0046),
    (PixelFormat::Mono10Packed, "Mono10Packed", 0x010C_0004),
    (PixelFormat::Mono12, "Mono12", 0x0110_0005),
    (PixelFormat::Mono12p, "Mono12p", 0x010C_0047),
    (PixelFormat::Mono12Packed, "Mono12Packed", 0x010C_0006),
    (PixelFormat::Mono16, "Mono16", 0x0110_0007),
    (PixelFormat::Rgb8, "RGB8", 0x0218_0014),
    (PixelFormat::Bgr8, "BGR8", 0x0218_0015),
    (PixelFormat::BayerRg8, "BayerRG8", 0x0108_0009),
    (PixelFormat::BayerGb8, "BayerGB8", 0x0108_000A),
    (PixelFormat::BayerGr8, "BayerGR8", 0x0108_0008),
    (PixelFormat::BayerBg8, "BayerBG8", 0x0108_000B),
];

/// The pixel format of a PFNC name (any case) or hexadecimal code.
///
/// ```
/// use panoptes::decode::raw::parse_pixel_format;
/// use panoptes::domain::PixelFormat;
/// assert_eq!(parse_pixel_format("BayerRG8"), Some(PixelFormat::BayerRg8));
/// assert_eq!(parse_pixel_format("0x01080009"), Some(PixelFormat::BayerRg8));
/// assert_eq!(parse_pixel_format("YUV422_8"), None);
/// ```
pub fn parse_pixel_format(text: &str) -> Option<PixelFormat> {
    let code = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    PIXEL_FORMATS
        .iter()
        .find(|(_, name, of_name)| name.eq_ignore_ascii_case(text) || Some(*of_name) == code)
        .map(|(format, ..)| *format)
}

/// The PFNC name of a pixel format.
pub fn pixel_format_name(format: PixelFormat) -> &'static str {
    entry(format).1
}

fn entry(format: PixelFormat) -> &'static (PixelFormat, &'static str, u32) {
    PIXEL_FORMATS
        .iter()
        .find(|(candidate, ..)| *candidate == format)
        .expect("the table lists every pixel format, as a test checks")
}

/// The bytes of one line without padding.
pub(super) fn line_bytes(format: PixelFormat, width: u32) -> usize {
    let bits_per_pixel = u64::from((entry(format).2 >> 16) & 0xff);
    let bytes = (u64::from(width) * bits_per_pixel).div_ceil(8);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Says what is wrong with a layout for a frame of `bytes`, if anything is.
///
/// The last line may lack its padding; what is left over beyond it means that the layout is wrong.
pub(super) fn check_layout(layout: &RawLayout, bytes: usize) -> Result<(), String> {
    let name = pixel_format_name(layout.pixel_format);
    let (width, height, stride) = (layout.width, layout.height, layout.stride);
    if width == 0 || height == 0 {
        return Err(format!(
            "expected width and height above 0, found `{width}x{height}`"
        ));
    }
    if bayer::Pattern::of(layout.pixel_format).is_some() && (width < 2 || height < 2) {
        return Err(format!(
            "expected at least `2x2` pixels of `{name}`, found `{width}x{height}`"
        ));
    }
    let line = line_bytes(layout.pixel_format, width);
    if stride < line {
        return Err(format!(
            "expected a stride of at least `{line}` bytes for `{width}` pixels of `{name}`, found \
             `{stride}`"
        ));
    }
    let most = stride as u128 * u128::from(height);
    let least = most - (stride - line) as u128;
    if (bytes as u128) < least || bytes as u128 > most {
        return Err(format!(
            "expected `{least}` to `{most}` bytes for `{width}x{height}` pixels of `{name}` with a \
             stride of `{stride}`, found `{bytes}`"
        ));
    }
    Ok(())
}

/// Turns a frame into grey or RGB.
pub(super) fn decode<'a>(layout: &RawLayout, bytes: &'a [u8]) -> Result<DecodedImage<'a>, String> {
    check_layout(layout, bytes.len())?;
    let channels = channels(layout.pixel_format);
    let line = line_bytes(layout.pixel_format, layout.width);
    let whole = line * layout.height as usize;
    let pixels = if is_plain(layout.pixel_format) && layout.stride == line {
        Cow::Borrowed(&bytes[..whole])
    } else {
        // The last line may be shorter than the stride, never shorter than a line: checked above.
        let lines = bytes.chunks(layout.stride).map(|chunk| &chunk[..line]);
        Cow::Owned(decode_lines(layout, channels, lines))
    };
    Ok(DecodedImage {
        width: layout.width,
        height: layout.height,
        original: (layout.width, layout.height),
        channels,
        pixels,
    })
}

/// Whether lines are pixels as they should be.
fn is_plain(format: PixelFormat) -> bool {
    matches!(format, PixelFormat::Mono8 | PixelFormat::Rgb8)
}

fn channels(format: PixelFormat) -> Channels {
    let has_colour = matches!(format, PixelFormat::Rgb8 | PixelFormat::Bgr8)
        || bayer::Pattern::of(format).is_some();
    if has_colour {
        Channels::Rgb
    } else {
        Channels::Grey
    }
}

fn decode_lines<'a>(
    layout: &RawLayout,
    channels: Channels,
    lines: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    if let Some(pattern) = bayer::Pattern::of(layout.pixel_format) {
        return bayer::interpolate(pattern, &lines.collect::<Vec<_>>());
    }
    let (width, height) = (layout.width as usize, layout.height as usize);
    let mut pixels = Vec::with_capacity(width * height * channels.count());
    for line in lines {
        push_line(layout, line, &mut pixels);
    }
    pixels
}

/// Appends one line that is not a mosaic.
fn push_line(layout: &RawLayout, line: &[u8], pixels: &mut Vec<u8>) {
    let width = layout.width as usize;
    match layout.pixel_format {
        PixelFormat::Bgr8 => {
            pixels.extend(
                line.chunks_exact(3)
                    .flat_map(|bgr| [bgr[2], bgr[1], bgr[0]]),
            );
        }
        PixelFormat::Rgb8
        | PixelFormat::Mono8
        | PixelFormat::BayerRg8
        | PixelFormat::BayerGb8
        | PixelFormat::BayerGr8
        | PixelFormat::BayerBg8 => pixels.extend_from_slice(line),
        PixelFormat::Mono10 => push_grey(width, 10, |x| word(line, x), pixels),
        PixelFormat::Mono12 => push_grey(width, 12, |x| word(line, x), pixels),
        PixelFormat::Mono16 => push_grey(width, 16, |x| word(line, x), pixels),
        PixelFormat::Mono10p => push_grey(width, 10, |x| bits(line, x, 10), pixels),
        PixelFormat::Mono12p => push_grey(width, 12, |x| bits(line, x, 12), pixels),
        PixelFormat::Mono10Packed => push_grey(width, 10, |x| pair(line, x, 2), pixels),
        PixelFormat::Mono12Packed => push_grey(width, 12, |x| pair(line, x, 4), pixels),
    }
}

/// Appends grey samples of `depth` bits.
fn push_grey(width: usize, depth: u32, sample: impl Fn(usize) -> u16, pixels: &mut Vec<u8>) {
    let full_scale = (1_u32 << depth) - 1;
    pixels.extend((0..width).map(|x| {
        let value = u32::from(sample(x)).min(full_scale);
        let grey = (value * 255 + full_scale / 2) / full_scale;
        u8::try_from(grey).unwrap_or(u8::MAX)
    }));
}

/// Sample `x` of little-endian 16-bit words.
fn word(line: &[u8], x: usize) -> u16 {
    u16::from_le_bytes([line[2 * x], line[2 * x + 1]])
}

/// Sample `x` of a gapless bit stream, least significant bit first, `depth` of 10 or 12 bits. A
/// sample then always spans two bytes.
fn bits(line: &[u8], x: usize, depth: usize) -> u16 {
    let first_bit = x * depth;
    let byte = first_bit / 8;
    let word = u16::from_le_bytes([line[byte], line[byte + 1]]);
    (word >> (first_bit % 8)) & ((1 << depth) - 1)
}

/// Sample `x` of GigE Vision's packing, three bytes for two samples: the high 8 bits of the first,
/// the low bits of both (the second's from bit 4), the high 8 bits of the second.
fn pair(line: &[u8], x: usize, low_bits: usize) -> u16 {
    let start = x / 2 * 3;
    let (high, low) = if x.is_multiple_of(2) {
        (line[start], line[start + 1])
    } else {
        (line[start + 2], line[start + 1] >> 4)
    };
    (u16::from(high) << low_bits) | (u16::from(low) & ((1 << low_bits) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(pixel_format: PixelFormat, width: u32, height: u32, stride: usize) -> RawLayout {
        RawLayout {
            pixel_format,
            width,
            height,
            stride,
        }
    }

    #[test]
    fn names_and_codes_lead_to_the_format_and_back() {
        for (format, name, code) in PIXEL_FORMATS {
            assert_eq!(pixel_format_name(format), name);
            assert_eq!(parse_pixel_format(name), Some(format));
            assert_eq!(parse_pixel_format(&name.to_lowercase()), Some(format));
            assert_eq!(parse_pixel_format(&format!("{code:#010X}")), Some(format));
        }
        assert_eq!(parse_pixel_format("0x"), None);
        assert_eq!(parse_pixel_format(""), None);
    }

    #[test]
    fn a_line_of_packed_samples_ends_at_a_byte() {
        assert_eq!(line_bytes(PixelFormat::Mono10p, 3), 4);
        assert_eq!(line_bytes(PixelFormat::Mono12p, 3), 5);
        assert_eq!(line_bytes(PixelFormat::Mono12Packed, 3), 5);
        assert_eq!(line_bytes(PixelFormat::Rgb8, 3), 9);
    }

    #[test]
    fn an_absurd_stride_is_refused_without_overflow() {
        let layout = layout(PixelFormat::Mono8, 4, u32::MAX, usize::MAX);
        assert!(check_layout(&layout, 16).is_err());
    }

    #[test]
    fn the_last_line_may_lack_its_padding_and_nothing_more() {
        let layout = layout(PixelFormat::Mono8, 3, 2, 4);
        let accepted: Vec<usize> = (0..=10)
            .filter(|n| check_layout(&layout, *n).is_ok())
            .collect();
        assert_eq!(accepted, [7, 8]);
    }

    #[test]
    fn padding_is_left_out() {
        let layout = layout(PixelFormat::Mono8, 2, 2, 3);
        let image = decode(&layout, &[1, 2, 99, 3, 4]).unwrap();
        assert_eq!(*image.pixels, [1, 2, 3, 4]);
    }

    #[test]
    fn pixels_that_are_as_they_should_be_are_not_copied() {
        for (format, line) in [(PixelFormat::Mono8, 2), (PixelFormat::Rgb8, 6)] {
            let bytes = vec![7; 2 * line];
            let image = decode(&layout(format, 2, 2, line), &bytes).unwrap();
            assert!(matches!(image.pixels, Cow::Borrowed(_)), "{format:?}");
            assert_eq!(*image.pixels, *bytes);
        }
    }

    #[test]
    fn full_scale_is_white_and_more_than_full_scale_too() {
        let layout = layout(PixelFormat::Mono10, 3, 1, 6);
        let image = decode(&layout, &[0xff, 0x03, 0xff, 0xff, 0x00, 0x02]).unwrap();
        assert_eq!(*image.pixels, [255, 255, 128]);
    }

    #[test]
    fn an_odd_width_of_packed_pairs_needs_no_third_byte() {
        let layout = layout(PixelFormat::Mono12Packed, 1, 1, 2);
        let image = decode(&layout, &[0x80, 0x0f]).unwrap();
        // 0x80f of 0xfff
        assert_eq!(*image.pixels, [128]);
    }
}
