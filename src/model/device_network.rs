//! The network as tensors on a device, for inference on a GPU.
//!
//! Batches are padded to one of few sizes, so that a device meets every shape while it is warmed up, before
//! images come: kernels are loaded, products chosen and memory taken then. What an image gets depends on
//! its batch in the last digits only. In `bf16` products have such factors and are summed up in `f32`, as
//! are norms and softmaxes; the prior, the whitening and all anomalies are computed in `f32`.

use std::collections::HashMap;

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::Mode;
use super::device::InferenceDevice;
use super::mvmcad::{Mvmcad, MvmcadConfig};
use super::packed::{ComputePrecision, ImageFeatures};

/// From this size on there is a size between two powers of two: no more than a third is padding.
const FIRST_WITH_HALF_STEPS: usize = 8;

/// A network, its device, and the sizes of its batches.
#[derive(Debug)]
pub struct DeviceNetwork {
    network: Mvmcad,
    device: InferenceDevice,
    buckets: Buckets,
}

impl DeviceNetwork {
    /// Puts a bundle's tensors on `device`; most batches are of at most `max_batch` images.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen, or the device fails.
    pub fn new(
        config: &MvmcadConfig,
        tensors: &HashMap<String, Tensor>,
        device: InferenceDevice,
        precision: ComputePrecision,
        max_batch: usize,
    ) -> Result<Self> {
        let dtype = match precision {
            ComputePrecision::F32 => DType::F32,
            ComputePrecision::Bf16 => DType::BF16,
        };
        Self::with_dtype(config, tensors, device, dtype, max_batch)
    }

    fn with_dtype(
        config: &MvmcadConfig,
        tensors: &HashMap<String, Tensor>,
        device: InferenceDevice,
        dtype: DType,
        max_batch: usize,
    ) -> Result<Self> {
        let (config, tensors) = fold_layer_scale(config, tensors)?;
        let weights = VarBuilder::from_tensors(tensors, dtype, device.device());
        Ok(Self {
            network: Mvmcad::new(&config, weights.pp("encoder"), weights)?,
            device,
            buckets: Buckets::up_to(max_batch),
        })
    }

    /// Runs a batch of each size, the largest first, so that none is slow when images come.
    ///
    /// # Errors
    /// When the device fails; when its memory does not hold the largest batch.
    pub fn warm_up(&mut self) -> Result<()> {
        let side = self.network.config().encoder.input_side;
        let blank = vec![0f32; 3 * side * side];
        for size in self.buckets.0.clone().into_iter().rev() {
            self.run(&vec![blank.as_slice(); size], &[size], false)?;
        }
        Ok(())
    }

    /// Images, `[3, side, side]` each, as one tensor on the device, padded to a size that is run.
    ///
    /// # Errors
    /// When an image has another size, or the device fails.
    pub fn upload(&mut self, images: &[&[f32]]) -> Result<Tensor> {
        let side = self.network.config().encoder.input_side;
        let size = self.buckets.size_for(images.len());
        self.device.upload(images, (size, 3, side, side))
    }

    /// The anomaly of each patch of a batch from [`Self::upload`], padding included.
    ///
    /// # Errors
    /// When `views` does not sum up to the batch where views are mixed, or the device fails.
    pub fn anomalies(&self, batch: &Tensor, views: &[usize]) -> Result<Tensor> {
        let features = self.network.forward_groups(batch, views, Mode::Inference)?;
        features.anomalies()
    }

    /// Waits until all that was asked of the device is done.
    ///
    /// # Errors
    /// When the device fails.
    pub fn synchronize(&self) -> Result<()> {
        self.device.device().synchronize()
    }

    /// What the network makes of images; of what was to be rebuilt only if `with_shallow` says so.
    /// `views` says how many consecutive images each part has.
    ///
    /// # Errors
    /// When an image has another size, or the device fails.
    pub fn run(
        &mut self,
        images: &[&[f32]],
        views: &[usize],
        with_shallow: bool,
    ) -> Result<Vec<ImageFeatures>> {
        let count = images.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let batch = self.upload(images)?;
        // Padding is a part of its own: it is mixed with no view.
        let mut views = views.to_vec();
        views.push(batch.dim(0)? - count);
        let features = self
            .network
            .forward_groups(&batch, &views, Mode::Inference)?;
        let anomalies = features.anomalies()?.narrow(0, 0, count)?;
        let anomalies = anomalies.to_vec2::<f32>()?;
        let shallow = match with_shallow {
            false => vec![Vec::new(); count],
            true => {
                let shallow = features.encoder[0].narrow(0, 0, count)?;
                shallow.flatten_from(1)?.to_vec2::<f32>()?
            }
        };
        let pairs = anomalies.into_iter().zip(shallow);
        let features = pairs.map(|(anomalies, shallow)| ImageFeatures { anomalies, shallow });
        Ok(features.collect())
    }
}

/// Layer scale multiplied into the layers before it, once instead of at every token.
fn fold_layer_scale(
    config: &MvmcadConfig,
    tensors: &HashMap<String, Tensor>,
) -> Result<(MvmcadConfig, HashMap<String, Tensor>)> {
    let (mut config, mut tensors) = (config.clone(), tensors.clone());
    if !config.encoder.layer_scale {
        return Ok((config, tensors));
    }
    for block in 0..config.encoder.used_depth() {
        for (scale, layer) in [("scale1", "projection"), ("scale2", "fc2")] {
            let name = |tensor: &str| format!("encoder.blocks.{block}.{tensor}");
            let Some(scale) = tensors.remove(&name(scale)) else {
                candle_core::bail!("tensor `{}` is missing", name(scale));
            };
            let scale = scale.to_dtype(DType::F32)?;
            let weight = (name(&format!("{layer}.weight")), scale.unsqueeze(1)?);
            let bias = (name(&format!("{layer}.bias")), scale);
            for (name, scale) in [weight, bias] {
                if let Some(tensor) = tensors.get_mut(&name) {
                    *tensor = tensor.to_dtype(DType::F32)?.broadcast_mul(&scale)?;
                }
            }
        }
    }
    config.encoder.layer_scale = false;
    Ok((config, tensors))
}

/// The sizes of batches that are run, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Buckets(Vec<usize>);

impl Buckets {
    /// Powers of two, with steps of half between the larger ones, and `largest`.
    fn up_to(largest: usize) -> Self {
        let largest = largest.max(1);
        let powers = std::iter::successors(Some(1usize), |size| size.checked_mul(2));
        let mut sizes = Vec::new();
        for power in powers.take_while(|&power| power < largest) {
            sizes.push(power);
            if power >= FIRST_WITH_HALF_STEPS {
                sizes.push(power + power / 2);
            }
        }
        sizes.retain(|&size| size < largest);
        sizes.push(largest);
        Self(sizes)
    }

    /// The size that so many images are padded to; beyond the largest, where one part has more images
    /// than that, a multiple of it.
    fn size_for(&self, images: usize) -> usize {
        let fitting = self.0.iter().find(|&&size| size >= images);
        let largest = self.0[self.0.len() - 1];
        fitting.map_or(images.next_multiple_of(largest), |&size| size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::open_inference_device;
    use crate::model::mvmcad::{Amplification, AmplificationScope, PriorMode};
    use crate::model::packed::PackedNetwork;
    use crate::model::testing::{lively_weights, random_images, tiny_config, tiny_encoder};

    /// Anomalies lie between 0 and 2; another order of summing up changes the last digits.
    const TOLERANCE: f32 = 2e-5;
    /// Eleven bits of a mantissa, lost a few times over in six blocks.
    const HALF_TOLERANCE: f32 = 2e-2;
    const MAX_BATCH: usize = 5;

    fn config(scope: AmplificationScope) -> MvmcadConfig {
        MvmcadConfig {
            encoder: tiny_encoder(4),
            amplification_scope: scope,
            ..tiny_config(PriorMode::Off, Amplification::After)
        }
    }

    fn network(config: &MvmcadConfig, dtype: DType) -> DeviceNetwork {
        let device = open_inference_device("cpu").unwrap();
        let weights = lively_weights(config, 1);
        DeviceNetwork::with_dtype(config, &weights, device, dtype, MAX_BATCH).unwrap()
    }

    fn packed(config: &MvmcadConfig) -> PackedNetwork {
        let weights = lively_weights(config, 1);
        PackedNetwork::of_tensors(config, &weights, ComputePrecision::F32, 1).unwrap()
    }

    fn images(count: usize) -> Vec<Vec<f32>> {
        let images = random_images(count, 28, 3).flatten_from(1).unwrap();
        images.to_vec2().unwrap()
    }

    fn worst(left: &[ImageFeatures], right: &[ImageFeatures]) -> f32 {
        assert_eq!(left.len(), right.len());
        let pairs = left.iter().zip(right).flat_map(|(left, right)| {
            assert_eq!(left.anomalies.len(), right.anomalies.len());
            left.anomalies.iter().zip(&right.anomalies)
        });
        pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs()))
    }

    #[test]
    fn batches_of_every_size_are_padded_and_get_what_the_packed_network_makes_of_them() {
        let config = config(AmplificationScope::View);
        let (mut network, mut packed) = (network(&config, DType::F32), packed(&config));
        network.warm_up().unwrap();
        let images = images(7);
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        for (count, padded) in [(0, 1), (1, 1), (2, 2), (3, 4), (5, 5), (7, 10)] {
            let images = &images[..count];
            assert_eq!(network.upload(images).unwrap().dim(0).unwrap(), padded);
            let found = network.run(images, &[count], true).unwrap();
            let expected = packed.run(images, &[]);
            assert!(worst(&found, &expected) < TOLERANCE, "{count} images");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.shallow.len(), expected.shallow.len());
            }
        }
    }

    #[test]
    fn padding_is_mixed_with_no_view_of_a_part() {
        let config = config(AmplificationScope::Part);
        let (mut network, mut packed) = (network(&config, DType::F32), packed(&config));
        let images = images(7);
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        for views in [vec![3], vec![2, 1], vec![0, 3], vec![4, 3]] {
            let images = &images[..views.iter().sum()];
            let found = network.run(images, &views, false).unwrap();
            let expected = packed.run(images, &views);
            assert!(worst(&found, &expected) < TOLERANCE, "views {views:?}");
        }
    }

    /// candle multiplies no `bf16` on a processor; `f16` takes the same way.
    #[test]
    fn half_precision_moves_anomalies_within_the_stated_tolerance() {
        for scope in [AmplificationScope::View, AmplificationScope::Part] {
            let config = config(scope);
            let mut single = network(&config, DType::F32);
            let mut half = network(&config, DType::F16);
            let images = images(3);
            let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
            let expected = single.run(&images, &[3], false).unwrap();
            let found = half.run(&images, &[3], false).unwrap();
            let worst = worst(&found, &expected);
            assert!(worst > 0. && worst < HALF_TOLERANCE, "{worst}");
        }
    }

    #[test]
    fn sizes_leave_little_padding_and_end_at_the_largest() {
        assert_eq!(Buckets::up_to(0).0, [1]);
        assert_eq!(Buckets::up_to(32).0, [1, 2, 4, 8, 12, 16, 24, 32]);
        assert_eq!(Buckets::up_to(20).0, [1, 2, 4, 8, 12, 16, 20]);
        let buckets = Buckets::up_to(100);
        for images in 1..=300 {
            let size = buckets.size_for(images);
            assert!(size >= images, "{images} do not fit in {size}");
            if (8..=100).contains(&images) {
                assert!(3 * (size - images) <= size, "{images} in {size}");
            }
        }
        assert_eq!(buckets.size_for(101), 200);
    }

    #[test]
    fn an_image_of_another_size_is_refused() {
        let config = config(AmplificationScope::View);
        let mut network = network(&config, DType::F32);
        let error = network.run(&[&[0.0; 12]], &[1], false).unwrap_err();
        assert!(error.to_string().contains("`12` values"), "{error}");
    }
}
