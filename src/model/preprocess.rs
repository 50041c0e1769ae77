//! A decoded image to what the network sees: resized, cropped, normalised.
//!
//! The resize is bit for bit that of Pillow's `Image.resize(..., BILINEAR)` up to version 12 (a
//! triangle filter widened by the scale, rounded to 8 bits between the passes, horizontally first),
//! because published models were trained behind it. Version 13 takes tall images vertically first:
//! a value may then differ by one. Only pixels that survive the crop are computed, and grey images are
//! resized as one channel. Pure, and cheap to clone.

use serde::{Deserialize, Serialize};

use super::InputImage;
use super::kernels::resize::{Taps, resize_columns, resize_rows};
use crate::domain::{DecodedImage, MapFootprint, RgbImage};

/// How an image is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Side to which the whole image is resized, its aspect ignored.
    pub resize: usize,
    /// Mean of each channel of the training images, on a scale of 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub deviation: [f32; 3],
    /// Whether a JPEG is decoded at a half, a quarter or an eighth of its size where that leaves
    /// `resize` pixels a side. `panoptes calibrate` sets it, together with the thresholds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scaled_jpeg: bool,
}

impl Normalisation {
    /// ImageNet's statistics, which DINOv2 and DeiT were trained with.
    pub fn imagenet(resize: usize) -> Self {
        Self {
            resize,
            mean: [0.485, 0.456, 0.406],
            deviation: [0.229, 0.224, 0.225],
            scaled_jpeg: false,
        }
    }
}

/// An image that cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreprocessError {
    /// The image has no pixels.
    #[error("image of `{width}` x `{height}` pixels is empty")]
    Empty {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// The buffer does not fit the size.
    #[error("image of `{width}` x `{height}` pixels: expected `{expected}` bytes, found `{found}`")]
    Size {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// One byte a pixel in grey, three in colour.
        expected: usize,
        /// What there is.
        found: usize,
    },
}

/// Prepares images for one network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessor {
    normalisation: Normalisation,
    input_side: usize,
}

impl Preprocessor {
    /// Resizes to `normalisation.resize` and cuts the middle `input_side` out.
    ///
    /// # Errors
    /// Says which key breaks which rule.
    pub fn new(normalisation: Normalisation, input_side: usize) -> Result<Self, String> {
        let Normalisation {
            resize,
            deviation,
            mean,
            scaled_jpeg,
        } = normalisation;
        if scaled_jpeg && !cfg!(feature = "scaled-jpeg") {
            return Err(
                "`scaled_jpeg` is `true`: this program was built without the feature `scaled-jpeg`"
                    .to_owned(),
            );
        }
        if input_side == 0 || resize < input_side {
            return Err(format!(
                "`resize` must be at least `input_side` `{input_side}`, found `{resize}`"
            ));
        }
        if deviation
            .iter()
            .any(|value| !value.is_finite() || *value <= 0.)
        {
            return Err(format!(
                "`deviation` must be positive, found `{deviation:?}`"
            ));
        }
        if mean.iter().any(|value| !value.is_finite()) {
            return Err(format!("`mean` must be finite, found `{mean:?}`"));
        }
        Ok(Self {
            normalisation,
            input_side,
        })
    }

    /// Side of the prepared image.
    pub fn input_side(&self) -> usize {
        self.input_side
    }

    /// The side that images must have, if those in JPEG may be decoded at a smaller size.
    pub fn least_side(&self) -> Option<u32> {
        let resize = self.normalisation.resize as u32;
        self.normalisation.scaled_jpeg.then_some(resize)
    }

    /// Resizes, crops and normalises.
    ///
    /// # Errors
    /// When the image is empty or its buffer does not fit its size.
    pub fn prepare<'a>(
        &self,
        image: impl Into<DecodedImage<'a>>,
    ) -> Result<InputImage, PreprocessError> {
        let image = image.into();
        let footprint = self.footprint(image.original.0, image.original.1);
        Ok(self.normalise(self.shrink(&image)?, footprint))
    }

    /// The last step alone: an image from [`resize_and_crop`](Self::resize_and_crop), with the
    /// footprint of its original, to what the network sees.
    pub fn normalise<'a>(
        &self,
        cropped: impl Into<DecodedImage<'a>>,
        footprint: MapFootprint,
    ) -> InputImage {
        let cropped = cropped.into();
        let channels = cropped.channels.count();
        let pixels = self.input_side * self.input_side;
        let mut values = vec![0f32; 3 * pixels];
        for (channel, plane) in values.chunks_exact_mut(pixels).enumerate() {
            let mean = self.normalisation.mean[channel];
            let deviation = self.normalisation.deviation[channel];
            let levels: Vec<f32> = (0..256)
                .map(|level| (level as f32 / 255. - mean) / deviation)
                .collect();
            // Grey has one, for all three.
            let of_channel = cropped.pixels.iter().skip(channel % channels);
            for (value, level) in plane.iter_mut().zip(of_channel.step_by(channels)) {
                *value = levels[usize::from(*level)];
            }
        }
        InputImage {
            values,
            footprint,
            subject: None,
        }
    }

    /// The 8-bit image just before normalisation, `input_side` square.
    ///
    /// # Errors
    /// When the image is empty or its buffer does not fit its size.
    pub fn resize_and_crop<'a>(
        &self,
        image: impl Into<DecodedImage<'a>>,
    ) -> Result<RgbImage, PreprocessError> {
        Ok(self.shrink(&image.into())?.into_rgb())
    }

    fn shrink(&self, image: &DecodedImage<'_>) -> Result<DecodedImage<'static>, PreprocessError> {
        check(image)?;
        let taps = |from: u32| {
            let to = self.normalisation.resize;
            Taps::new(from as usize, to, self.margin(), self.input_side)
        };
        let (columns, rows) = (taps(image.width), taps(image.height));
        let channels = image.channels.count();
        let stride = image.width as usize * channels;
        let needed = rows.inputs();
        let lines = &image.pixels[needed.start * stride..needed.end * stride];
        let narrow = resize_rows(lines, stride, image.channels, &columns);
        let pixels = resize_columns(&narrow, self.input_side * channels, needed.start, &rows);
        Ok(DecodedImage {
            width: self.input_side as u32,
            height: self.input_side as u32,
            original: image.original,
            channels: image.channels,
            pixels: pixels.into(),
        })
    }

    /// Which rectangle of an original of this size the network sees.
    pub fn footprint(&self, width: u32, height: u32) -> MapFootprint {
        let resize = self.normalisation.resize as f64;
        let (across, down) = (f64::from(width) / resize, f64::from(height) / resize);
        MapFootprint {
            x: self.margin() as f64 * across,
            y: self.margin() as f64 * down,
            width: self.input_side as f64 * across,
            height: self.input_side as f64 * down,
        }
    }

    fn margin(&self) -> usize {
        (self.normalisation.resize - self.input_side) / 2
    }
}

fn check(image: &DecodedImage<'_>) -> Result<(), PreprocessError> {
    let (width, height, pixels) = (image.width, image.height, &image.pixels);
    if width == 0 || height == 0 {
        return Err(PreprocessError::Empty { width, height });
    }
    let expected = width as usize * height as usize * image.channels.count();
    if pixels.len() != expected {
        let found = pixels.len();
        return Err(PreprocessError::Size {
            width,
            height,
            expected,
            found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Channels;

    #[test]
    fn values_are_normalised_channel_by_channel() {
        let image = RgbImage {
            width: 8,
            height: 6,
            pixels: [255, 0, 51].repeat(48),
        };
        let preprocessor = Preprocessor::new(Normalisation::imagenet(16), 10).unwrap();
        let input = preprocessor.prepare(&image).unwrap();
        assert_eq!(input.values.len(), 300);
        for (channel, expected) in [(1. - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
            .iter()
            .enumerate()
        {
            let plane = &input.values[channel * 100..(channel + 1) * 100];
            assert!(
                plane
                    .iter()
                    .all(|value: &f32| (value - expected).abs() < 1e-5)
            );
        }
        let expected = MapFootprint {
            x: 1.5,
            y: 1.125,
            width: 5.,
            height: 3.75,
        };
        assert_eq!(input.footprint, expected);
    }

    #[test]
    fn grey_is_prepared_as_the_same_in_colour() {
        let pixels: Vec<u8> = (0..90 * 70).map(|at| (at * 31 % 251) as u8).collect();
        let grey = DecodedImage {
            width: 90,
            height: 70,
            original: (90, 70),
            channels: Channels::Grey,
            pixels: pixels.into(),
        };
        let preprocessor = Preprocessor::new(Normalisation::imagenet(32), 28).unwrap();
        let colour = preprocessor.prepare(&grey.clone().into_rgb()).unwrap();
        assert_eq!(preprocessor.prepare(grey).unwrap().values, colour.values);
    }

    #[test]
    fn the_footprint_of_an_image_at_reduced_size_is_in_pixels_of_the_original() {
        let image = RgbImage {
            width: 21,
            height: 16,
            pixels: vec![9; 21 * 16 * 3],
        };
        let mut reduced = DecodedImage::from(&image);
        reduced.original = (81, 64);
        let preprocessor = Preprocessor::new(Normalisation::imagenet(16), 14).unwrap();
        let footprint = preprocessor.prepare(reduced).unwrap().footprint;
        assert_eq!(footprint, preprocessor.footprint(81, 64));
    }

    #[test]
    fn reduced_size_needs_its_feature() {
        let mut normalisation = Normalisation::imagenet(16);
        let full = Preprocessor::new(normalisation, 16).unwrap();
        assert_eq!(full.least_side(), None);
        normalisation.scaled_jpeg = true;
        let reduced = Preprocessor::new(normalisation, 16).map(|reduced| reduced.least_side());
        if cfg!(feature = "scaled-jpeg") {
            assert_eq!(reduced, Ok(Some(16)));
        } else {
            assert!(
                reduced
                    .unwrap_err()
                    .contains("without the feature `scaled-jpeg`")
            );
        }
    }

    #[test]
    fn images_without_pixels_or_with_a_wrong_buffer_are_refused() {
        let preprocessor = Preprocessor::new(Normalisation::imagenet(16), 16).unwrap();
        let image = |width, height, bytes| RgbImage {
            width,
            height,
            pixels: vec![0; bytes],
        };
        let error = |image| preprocessor.prepare(&image).unwrap_err().to_string();
        assert_eq!(error(image(0, 4, 0)), "image of `0` x `4` pixels is empty");
        assert_eq!(
            error(image(2, 4, 23)),
            "image of `2` x `4` pixels: expected `24` bytes, found `23`"
        );
    }
}
