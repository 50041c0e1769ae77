//! Images and anomaly maps.

use std::borrow::Cow;

/// GenICam PFNC pixel formats that `image/x-raw` may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// 8-bit grey.
    Mono8,
    /// 10-bit grey in 16-bit little-endian words.
    Mono10,
    /// 10-bit grey, packed without gaps (PFNC `Mono10p`).
    Mono10p,
    /// 10-bit grey, two pixels in three bytes (GigE Vision `Mono10Packed`).
    Mono10Packed,
    /// 12-bit grey in 16-bit little-endian words.
    Mono12,
    /// 12-bit grey, packed without gaps (PFNC `Mono12p`).
    Mono12p,
    /// 12-bit grey, two pixels in three bytes (GigE Vision `Mono12Packed`).
    Mono12Packed,
    /// 16-bit grey, little endian.
    Mono16,
    /// 8-bit red, green, blue.
    Rgb8,
    /// 8-bit blue, green, red.
    Bgr8,
    /// 8-bit Bayer mosaic starting red, green.
    BayerRg8,
    /// 8-bit Bayer mosaic starting green, blue.
    BayerGb8,
    /// 8-bit Bayer mosaic starting green, red.
    BayerGr8,
    /// 8-bit Bayer mosaic starting blue, green.
    BayerBg8,
}

/// Layout of a raw frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLayout {
    /// Pixel format.
    pub pixel_format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one line's start to the next.
    pub stride: usize,
}

/// How a view's bytes encode its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageEncoding {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// Windows bitmap.
    Bmp,
    /// TIFF.
    Tiff,
    /// WebP.
    Webp,
    /// Raw frame.
    Raw(RawLayout),
}

/// An 8-bit RGB image, row by row, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub pixels: Vec<u8>,
}

/// What a pixel's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One byte, which stands for red, green and blue.
    Grey,
    /// Three bytes.
    Rgb,
}

impl Channels {
    /// Bytes of a pixel.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }
}

/// An 8-bit image, row by row, as its file or camera has it: grey stays one byte a pixel, and pixels
/// that need no decoding stay where they lie in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedImage<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width and height of the original, where the image was decoded at reduced size; otherwise its own.
    pub original: (u32, u32),
    /// What a pixel's bytes are.
    pub channels: Channels,
    /// `width * height` times the bytes of a pixel.
    pub pixels: Cow<'a, [u8]>,
}

impl DecodedImage<'_> {
    /// The same in colour: grey becomes red = green = blue.
    pub fn into_rgb(self) -> RgbImage {
        let pixels = match self.channels {
            Channels::Grey => self.pixels.iter().flat_map(|grey| [*grey; 3]).collect(),
            Channels::Rgb => self.pixels.into_owned(),
        };
        RgbImage {
            width: self.width,
            height: self.height,
            pixels,
        }
    }
}

impl<'a> From<&'a RgbImage> for DecodedImage<'a> {
    fn from(image: &'a RgbImage) -> Self {
        Self {
            width: image.width,
            height: image.height,
            original: (image.width, image.height),
            channels: Channels::Rgb,
            pixels: Cow::Borrowed(&image.pixels),
        }
    }
}

/// Per-pixel anomaly scores of one view, row by row; higher is more anomalous.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnomalyMap {
    /// Width in map pixels.
    pub width: usize,
    /// Height in map pixels.
    pub height: usize,
    /// `width * height` scores.
    pub values: Vec<f32>,
}

/// The rectangle of the original image that an anomaly map covers, in original pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapFootprint {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}
