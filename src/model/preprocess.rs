//! A decoded image to what the network sees: resized, cropped, normalised.
//!
//! The resize is bit for bit that of Pillow's `Image.resize(..., BILINEAR)` up to version 12 (a
//! triangle filter widened by the scale, rounded to 8 bits between the passes, horizontally first),
//! because published models were trained behind it. Version 13 takes tall images vertically first:
//! a value may then differ by one. Only pixels that survive the crop are computed. Pure, and cheap to clone.

use super::InputImage;
use crate::domain::{MapFootprint, RgbImage};
use serde::{Deserialize, Serialize};

/// Pillow's fixed-point precision: 32 bits less 8 for the pixel and 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

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
}

impl Normalisation {
    /// ImageNet's statistics, which DINOv2 and DeiT were trained with.
    pub fn imagenet(resize: usize) -> Self {
        Self {
            resize,
            mean: [0.485, 0.456, 0.406],
            deviation: [0.229, 0.224, 0.225],
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
        /// Three bytes a pixel.
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
        } = normalisation;
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

    /// Resizes, crops and normalises.
    ///
    /// # Errors
    /// When the image is empty or its buffer does not fit its size.
    pub fn prepare(&self, image: &RgbImage) -> Result<InputImage, PreprocessError> {
        let cropped = self.resize_and_crop(image)?;
        Ok(self.normalise(&cropped, self.footprint(image.width, image.height)))
    }

    /// The last step alone: an image from [`resize_and_crop`](Self::resize_and_crop), with the
    /// footprint of its original, to what the network sees.
    pub fn normalise(&self, cropped: &RgbImage, footprint: MapFootprint) -> InputImage {
        let pixels = self.input_side * self.input_side;
        let mut values = vec![0f32; 3 * pixels];
        for (channel, plane) in values.chunks_exact_mut(pixels).enumerate() {
            let mean = self.normalisation.mean[channel];
            let deviation = self.normalisation.deviation[channel];
            let levels: Vec<f32> = (0..256)
                .map(|level| (level as f32 / 255. - mean) / deviation)
                .collect();
            for (value, pixel) in plane.iter_mut().zip(cropped.pixels.chunks_exact(3)) {
                *value = levels[usize::from(pixel[channel])];
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
    pub fn resize_and_crop(&self, image: &RgbImage) -> Result<RgbImage, PreprocessError> {
        let (width, height) = (image.width as usize, image.height as usize);
        check(image)?;
        let columns = Taps::new(
            width,
            self.normalisation.resize,
            self.margin(),
            self.input_side,
        );
        let rows = Taps::new(
            height,
            self.normalisation.resize,
            self.margin(),
            self.input_side,
        );
        let (first_row, end_row) = rows.range();
        let needed = &image.pixels[first_row * width * 3..end_row * width * 3];
        let narrow = resize_rows(needed, width, &columns);
        Ok(RgbImage {
            width: self.input_side as u32,
            height: self.input_side as u32,
            pixels: resize_columns(&narrow, self.input_side * 3, first_row, &rows),
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

fn check(image: &RgbImage) -> Result<(), PreprocessError> {
    let RgbImage {
        width,
        height,
        ref pixels,
    } = *image;
    if width == 0 || height == 0 {
        return Err(PreprocessError::Empty { width, height });
    }
    let expected = width as usize * height as usize * 3;
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

/// For each output pixel of one axis: where its inputs begin, and their fixed-point weights.
struct Taps {
    starts: Vec<usize>,
    weights: Vec<Vec<i32>>,
}

impl Taps {
    /// Taps of outputs `margin..margin + count` of a resize from `from` to `to` pixels.
    fn new(from: usize, to: usize, margin: usize, count: usize) -> Self {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.);
        let mut taps = Self {
            starts: Vec::with_capacity(count),
            weights: Vec::with_capacity(count),
        };
        for output in margin..margin + count {
            let centre = (output as f64 + 0.5) * scale;
            // Truncation towards zero after the half, as Pillow does.
            let start = (centre - support + 0.5).max(0.) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let triangle: Vec<f64> = (start..end)
                .map(|input| ((input as f64 - centre + 0.5) * (1. / support)).abs())
                .map(|distance| (1. - distance).max(0.))
                .collect();
            let sum: f64 = triangle.iter().sum();
            taps.starts.push(start);
            taps.weights.push(
                triangle
                    .iter()
                    .map(|weight| fixed_point(weight * (1. / sum)))
                    .collect(),
            );
        }
        taps
    }

    /// First input used, and the one after the last.
    fn range(&self) -> (usize, usize) {
        let ends = self
            .starts
            .iter()
            .zip(&self.weights)
            .map(|(start, weights)| start + weights.len());
        (
            self.starts.iter().copied().min().unwrap_or(0),
            ends.max().unwrap_or(0),
        )
    }
}

fn fixed_point(weight: f64) -> i32 {
    (weight * f64::from(1u32 << PRECISION_BITS) + 0.5) as i32
}

fn round_to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Half a unit of the last place, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn resize_rows(pixels: &[u8], width: usize, taps: &Taps) -> Vec<u8> {
    let mut output = Vec::with_capacity(pixels.len() / width * taps.starts.len());
    for row in pixels.chunks_exact(width * 3) {
        for (start, weights) in taps.starts.iter().zip(&taps.weights) {
            let mut sums = [HALF; 3];
            let inputs = &row[start * 3..(start + weights.len()) * 3];
            for (pixel, weight) in inputs.chunks_exact(3).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            output.extend(sums.map(round_to_byte));
        }
    }
    output
}

/// `pixels` begins at input row `first_row` and has rows of `stride` bytes.
fn resize_columns(pixels: &[u8], stride: usize, first_row: usize, taps: &Taps) -> Vec<u8> {
    let mut output = Vec::with_capacity(stride * taps.starts.len());
    let mut sums = vec![HALF; stride];
    for (start, weights) in taps.starts.iter().zip(&taps.weights) {
        sums.fill(HALF);
        let inputs = pixels[(start - first_row) * stride..].chunks_exact(stride);
        for (row, weight) in inputs.zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        output.extend(sums.iter().map(|sum| round_to_byte(*sum)));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

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
