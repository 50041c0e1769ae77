//! One file of a data set at a time: images as the stream decodes them, and masks.

use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use twox_hash::XxHash3_64;

use super::fault;
use crate::decode::envelope::sniff;
use crate::decode::{ImageLimits, WantedSize, decode_image_at};
use crate::domain::{DecodedImage, RgbImage};
use crate::model::InputImage;
use crate::model::preprocess::Preprocessor;
use crate::training::TrainingError;

/// Limits of a data set's files. A file may be longer than a record of the stream: 256 MiB hold the
/// largest image that the stream takes, 64 megapixels, without any compression.
const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 256 << 20,
    max_width: 16_384,
    max_height: 16_384,
    max_pixels: 8_192 * 8_192,
};

/// Memory for a mask while it is decoded: 16-bit RGBA of the largest image.
const MASK_BYTES: u64 = 8 * LIMITS.max_pixels;

/// An image's digest of its file's bytes.
pub(super) fn digest_bytes(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The bytes of a file that is not too long for an image.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, TrainingError> {
    let length = std::fs::metadata(path)
        .map_err(|error| fault(path, error))?
        .len();
    let limit = LIMITS.max_bytes as u64;
    if length > limit {
        let message = format!("expected an image of at most `{limit}` bytes, found `{length}`");
        return Err(fault(path, message));
    }
    std::fs::read(path).map_err(|error| fault(path, error))
}

/// Reads an image as 8-bit RGB, as strictly as the stream does.
///
/// # Errors
/// When the file cannot be read or decoded, or the image is larger than the stream takes.
pub fn read_image(path: &Path) -> Result<RgbImage, TrainingError> {
    decode(path, &read_bytes(path)?)
}

/// Reads an image and prepares it for a model, as the stream does; with the image's width and height.
///
/// # Errors
/// As [`read_image`].
pub fn prepare_image(
    path: &Path,
    preprocessor: &Preprocessor,
) -> Result<(InputImage, (u32, u32)), TrainingError> {
    let bytes = read_bytes(path)?;
    let image = decode_at(preprocessor.least_side().into(), path, &bytes)?;
    let size = image.original;
    let prepared = preprocessor.prepare(image);
    Ok((prepared.map_err(|error| fault(path, error))?, size))
}

/// Decodes the bytes of an image that was read from `path`.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<RgbImage, TrainingError> {
    decode_at(WantedSize::Full, path, bytes).map(DecodedImage::into_rgb)
}

pub(super) fn decode_at<'a>(
    wanted: WantedSize,
    path: &Path,
    bytes: &'a [u8],
) -> Result<DecodedImage<'a>, TrainingError> {
    if bytes.is_empty() {
        return Err(fault(path, "expected an image, found an empty file"));
    }
    let encoding = sniff(bytes).ok_or_else(|| {
        fault(
            path,
            "expected JPEG, PNG, BMP, TIFF or WebP, found other bytes",
        )
    })?;
    decode_image_at(wanted, encoding, bytes, &LIMITS).map_err(|error| fault(path, error))
}

/// A mask at full size: width, height, and whether each pixel is part of a defect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `width * height` flags.
    pub defect: Vec<bool>,
}

/// Reads a mask.
///
/// # Errors
/// When the file cannot be read or decoded, or is a JPEG.
pub fn read_mask(path: &Path) -> Result<Mask, TrainingError> {
    let bytes = read_bytes(path)?;
    // The decoders are other people's code; one that panics has met a broken mask.
    let decoded = catch_unwind(|| decode_mask(&bytes))
        .unwrap_or_else(|_| Err("expected a sound mask, its decoder panics on it".to_owned()));
    // 16 bits a channel hold every level of every format: a faint label must not become 0.
    let image = decoded
        .map_err(|message| fault(path, message))?
        .into_rgb16();
    let (width, height) = (image.width() as usize, image.height() as usize);
    let defect = image
        .pixels()
        .map(|pixel| pixel.0.iter().any(|&level| level > 0))
        .collect();
    Ok(Mask {
        width,
        height,
        defect,
    })
}

fn decode_mask(bytes: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    if reader.format() == Some(ImageFormat::Jpeg) {
        return Err(LOSSY_MASK.to_owned());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(LIMITS.max_width);
    limits.max_image_height = Some(LIMITS.max_height);
    limits.max_alloc = Some(MASK_BYTES);
    reader.limits(limits);
    reader
        .decode()
        .map_err(|error| format!("expected a sound mask, found: {error}"))
}

/// What is wrong with a mask in JPEG.
pub(super) const LOSSY_MASK: &str =
    "expected a mask in a lossless format such as PNG, found JPEG, which blurs its edges";

#[cfg(test)]
mod tests {
    use super::super::testing::{write_image, write_level};
    use super::*;

    #[test]
    fn the_faintest_label_of_a_mask_is_a_defect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let mut labels = image::ImageBuffer::<image::Luma<u16>, Vec<u16>>::new(2, 1);
        labels.put_pixel(1, 0, image::Luma([1]));
        labels.save(&path).unwrap();
        assert_eq!(read_mask(&path).unwrap().defect, [false, true]);
    }

    #[test]
    fn a_mask_in_jpeg_is_refused_whatever_its_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        write_level(&folder.path().join("mask.jpg"), 9);
        std::fs::rename(folder.path().join("mask.jpg"), &path).unwrap();
        let error = read_mask(&path).unwrap_err().to_string();
        assert!(
            error.contains("lossless") && error.contains("mask.png"),
            "{error}"
        );
    }

    #[test]
    fn a_truncated_image_is_refused_as_the_stream_refuses_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("top.jpg");
        write_level(&path, 90);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        let error = read_image(&path).unwrap_err().to_string();
        assert!(error.contains("top.jpg"), "{error}");
        std::fs::write(&path, []).unwrap();
        let error = read_image(&path).unwrap_err().to_string();
        assert!(error.contains("found an empty file"), "{error}");
    }

    #[test]
    fn grey_and_16_bit_images_become_8_bit_rgb() {
        let folder = tempfile::tempdir().unwrap();
        let (grey, deep) = (
            folder.path().join("grey.png"),
            folder.path().join("deep.tiff"),
        );
        write_level(&grey, 77);
        let level = image::Luma([0xff00u16]);
        write_image(&deep, &image::ImageBuffer::from_pixel(3, 2, level).into());
        let (grey, deep) = (read_image(&grey).unwrap(), read_image(&deep).unwrap());
        assert!(grey.pixels.iter().all(|&level| level == 77));
        assert_eq!((deep.width, deep.height), (3, 2));
        assert_eq!(deep.pixels, [254; 18]);
    }

    #[test]
    fn an_image_that_declares_too_many_pixels_is_refused_on_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge.bmp");
        write_level(&path, 1);
        let mut bytes = std::fs::read(&path).unwrap();
        // Width and height of the bitmap's header.
        bytes[18..22].copy_from_slice(&15_000u32.to_le_bytes());
        bytes[22..26].copy_from_slice(&15_000u32.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let error = read_image(&path).unwrap_err().to_string();
        assert!(
            error.contains("huge.bmp") && error.contains("`15000x15000`"),
            "{error}"
        );
    }
}
