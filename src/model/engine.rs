//! How a model's network is run: packed on a processor, as tensors on a GPU.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::bundle::Bundle;
use super::candle_model::place;
use super::device::InferenceDevice;
use super::device_network::DeviceNetwork;
use super::mvmcad::Prior;
use super::packed::{ComputePrecision, ImageFeatures, PackedNetwork, PackingError};
use super::{InputImage, Mode};

/// Images that the packed network takes at a time: enough for all threads, few enough that what lies
/// between two layers stays in the processor's last cache.
const IMAGES_AT_ONCE: usize = 8;

/// A network and how it is run.
#[derive(Debug)]
pub(super) enum Engine {
    /// As tensors on a GPU.
    Device(Box<DeviceNetwork>),
    /// Packed for this processor.
    Packed(Box<Packed>),
}

/// A packed network, and the prior before it, which works on whole images and stays as it is.
#[derive(Debug)]
pub(super) struct Packed {
    prior: Option<Prior>,
    network: PackedNetwork,
    side: usize,
    mixes_views: bool,
}

impl Engine {
    /// # Errors
    /// When a tensor is missing or misshapen, or the device cannot compute in this precision.
    pub(super) fn new(
        bundle: &Bundle,
        device: InferenceDevice,
        precision: ComputePrecision,
        max_batch: usize,
    ) -> std::result::Result<Self, PackingError> {
        if device.device().is_cpu() {
            // Refuses tensors that are missing or misshapen.
            place(bundle, &Device::Cpu)?;
            return Ok(Self::Packed(Box::new(Packed::new(bundle, precision)?)));
        }
        let Bundle { manifest, tensors } = bundle;
        let config = &manifest.architecture;
        let network = DeviceNetwork::new(config, tensors, device, precision, max_batch)?;
        Ok(Self::Device(Box::new(network)))
    }

    /// Runs a batch of each size that a GPU will be given; a processor has nothing to prepare.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn warm_up(&mut self) -> Result<()> {
        match self {
            Self::Device(network) => network.warm_up(),
            Self::Packed(_) => Ok(()),
        }
    }

    /// What the network makes of images; of what was to be rebuilt no more than `with_shallow` says
    /// need be known.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn features(
        &mut self,
        images: &[InputImage],
        views: &[usize],
        with_shallow: bool,
    ) -> Result<Vec<ImageFeatures>> {
        match self {
            Self::Packed(packed) => packed.features(images, views),
            Self::Device(network) => {
                let values: Vec<&[f32]> =
                    images.iter().map(|image| image.values.as_slice()).collect();
                network.run(&values, views, with_shallow)
            }
        }
    }

    /// Runs `work` on the threads that the network has.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Device(_) => work(),
            Self::Packed(packed) => packed.network.install(work),
        }
    }
}

impl Packed {
    fn new(
        bundle: &Bundle,
        precision: ComputePrecision,
    ) -> std::result::Result<Self, PackingError> {
        let architecture = &bundle.manifest.architecture;
        let weights = VarBuilder::from_tensors(bundle.tensors.clone(), DType::F32, &Device::Cpu);
        Ok(Self {
            prior: Prior::new(architecture.prior, weights.pp("prior"))?,
            network: PackedNetwork::of_tensors(architecture, &bundle.tensors, precision, 0)?,
            side: architecture.encoder.input_side,
            mixes_views: architecture.mixes_views(),
        })
    }

    fn features(&mut self, images: &[InputImage], views: &[usize]) -> Result<Vec<ImageFeatures>> {
        let mut features = Vec::with_capacity(images.len());
        for (images, views) in groups(images, views, self.mixes_views) {
            let weighed = match &self.prior {
                None => None,
                Some(prior) => {
                    let batch = batch(images, self.side, &Device::Cpu)?;
                    let weighed = prior.forward(&batch, Mode::Inference)?;
                    Some(weighed.flatten_from(1)?.to_vec2::<f32>()?)
                }
            };
            let values: Vec<&[f32]> = match &weighed {
                None => images.iter().map(|image| image.values.as_slice()).collect(),
                Some(weighed) => weighed.iter().map(Vec::as_slice).collect(),
            };
            features.extend(self.network.run(&values, views));
        }
        Ok(features)
    }
}

/// Images as one tensor.
fn batch(images: &[InputImage], side: usize, device: &Device) -> Result<Tensor> {
    let mut values = Vec::with_capacity(images.len() * 3 * side * side);
    for image in images {
        values.extend_from_slice(&image.values);
    }
    Tensor::from_vec(values, (images.len(), 3, side, side), device)
}

/// What goes through the packed network at a time: whole parts if it mixes views, else images.
fn groups<'a>(
    images: &'a [InputImage],
    views: &'a [usize],
    mixes_views: bool,
) -> Vec<(&'a [InputImage], &'a [usize])> {
    if !mixes_views {
        let chunks = images.chunks(IMAGES_AT_ONCE);
        return chunks.map(|chunk| (chunk, [].as_slice())).collect();
    }
    let (mut images, mut views) = (images, views);
    let mut groups = Vec::new();
    while !views.is_empty() {
        let (mut count, mut parts) = (0, 0);
        while parts < views.len() && (parts == 0 || count + views[parts] <= IMAGES_AT_ONCE) {
            count += views[parts];
            parts += 1;
        }
        let (group, later) = images.split_at(count);
        let (group_views, later_views) = views.split_at(parts);
        groups.push((group, group_views));
        (images, views) = (later, later_views);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MapFootprint;

    #[test]
    fn images_go_in_few_at_a_time_and_parts_stay_whole() {
        let image = InputImage {
            values: Vec::new(),
            footprint: MapFootprint {
                x: 0.0,
                y: 0.0,
                width: 1.0,
                height: 1.0,
            },
            subject: None,
        };
        let images = vec![image; 27];
        let sizes = |views: &[usize], mixes_views| -> Vec<(usize, Vec<usize>)> {
            let images = &images[..views.iter().sum()];
            let groups = groups(images, views, mixes_views).into_iter();
            groups
                .map(|(images, views)| (images.len(), views.to_vec()))
                .collect()
        };
        let alone = [8, 8, 3].map(|count| (count, vec![]));
        assert_eq!(sizes(&[19], false), alone);
        let parts = [
            (8, vec![5, 0, 3]),
            (6, vec![6]),
            (11, vec![11]),
            (2, vec![2]),
        ];
        assert_eq!(sizes(&[5, 0, 3, 6, 11, 2], true), parts);
        assert_eq!(sizes(&[], true), []);
    }
}
