//! The preparation of images: errors are in steps of the 8-bit scale.

use candle_core::Tensor;
use panoptes::domain::RgbImage;
use panoptes::model::preprocess::{Normalisation, Preprocessor};

use crate::cases::{ResizeSettings, Tensors};
use crate::comparison::Comparison;

pub(crate) fn compare(settings: &ResizeSettings, peer: &Tensors) -> Comparison {
    let mut comparison = Comparison::default();
    for (index, goal) in settings.images.iter().enumerate() {
        let normalisation = Normalisation::imagenet(goal.resize);
        let preprocessor = Preprocessor::new(normalisation, goal.crop).unwrap();
        let image = image(&peer[&format!("image.{index}")]);
        let resized = preprocessor.resize_and_crop(&image).unwrap().pixels;
        let expected = bytes(&peer[&format!("resized.{index}")]);
        assert_eq!(resized.len(), expected.len(), "image {index}");
        comparison.add_error(largest(&resized, &expected, |_| 1.));

        let prepared = preprocessor.prepare(&image).unwrap().values;
        let expected = peer[&format!("prepared.{index}")].flatten_all().unwrap();
        let expected = expected.to_vec1::<f32>().unwrap();
        assert_eq!(prepared.len(), expected.len(), "image {index}");
        let pixels = goal.crop * goal.crop;
        let step = |value: usize| 255. * f64::from(normalisation.deviation[value / pixels]);
        comparison.add_error(largest(&prepared, &expected, step));
    }
    comparison
}

fn largest<T: Copy + Into<f64>>(found: &[T], expected: &[T], step: impl Fn(usize) -> f64) -> f64 {
    let pairs = found.iter().zip(expected).enumerate();
    pairs
        .map(|(index, (&found, &expected))| (found.into() - expected.into()).abs() * step(index))
        .fold(0., f64::max)
}

fn image(pixels: &Tensor) -> RgbImage {
    let (height, width, _) = pixels.dims3().unwrap();
    RgbImage {
        width: u32::try_from(width).unwrap(),
        height: u32::try_from(height).unwrap(),
        pixels: bytes(pixels),
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
