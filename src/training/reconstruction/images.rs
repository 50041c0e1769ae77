//! What a run reads of its images: tensors of them, altered copies, a digest.

use std::borrow::{Borrow, Cow};
use std::cell::RefCell;

use candle_core::{Device, Result, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::TrainingError;
use super::super::alteration::alter;
use super::super::canvas::Canvas;
use super::super::dataset::TrainingImages;
use crate::model::InputImage;

/// Prepared images as one tensor `[images, 3, side, side]`.
pub(super) fn stack<I: Borrow<InputImage>>(
    images: &[I],
    side: usize,
    device: &Device,
) -> Result<Tensor> {
    let values: Vec<f32> = images
        .iter()
        .flat_map(|image| image.borrow().values.iter().copied())
        .collect();
    Tensor::from_vec(values, (images.len(), 3, side, side), device)
}

/// An image that could not be had, as an error of a step on the device.
pub(super) fn no_image(error: TrainingError) -> candle_core::Error {
    candle_core::Error::Msg(error.to_string())
}

/// How images are altered before they go in.
pub(super) struct Alteration<'a> {
    /// Share of the images that are altered.
    pub(super) share: f64,
    /// Side of the images, in pixels.
    pub(super) side: usize,
    /// The images that pieces may be taken from.
    pub(super) donors: &'a [usize],
}

impl Alteration<'_> {
    /// The chosen images, a share of them altered; `None` where none is to be.
    pub(super) fn apply<'a>(
        &self,
        images: &'a TrainingImages,
        chosen: &[usize],
        rng: impl Fn(u64) -> ChaCha8Rng,
    ) -> Result<Option<Vec<Cow<'a, InputImage>>>> {
        if self.share == 0.0 {
            return Ok(None);
        }
        let mut given = images.images(chosen).map_err(no_image)?;
        for (item, image) in given.iter_mut().enumerate() {
            let mut rng = rng(item as u64);
            if rng.random_bool(self.share) {
                image.to_mut().values = self.altered(images, image, &mut rng)?;
            }
        }
        Ok(Some(given))
    }

    fn altered(
        &self,
        images: &TrainingImages,
        image: &InputImage,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<f32>> {
        let own = Canvas::from_normalised(&image.values, self.side);
        let failure = RefCell::new(None);
        let donor = |rng: &mut ChaCha8Rng| {
            let index = self.donors[rng.random_range(0..self.donors.len())];
            match images.image(index) {
                Ok(donor) => Canvas::from_normalised(&donor.values, self.side),
                Err(error) => {
                    failure.replace(Some(error));
                    own.clone()
                }
            }
        };
        let altered = alter(rng, &own, donor).canvas.normalised();
        match failure.into_inner() {
            None => Ok(altered),
            Some(error) => Err(no_image(error)),
        }
    }
}
