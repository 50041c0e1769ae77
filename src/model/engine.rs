//! How a model's network is run: packed on a processor, as tensors elsewhere.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::bundle::Bundle;
use super::candle_model::place;
use super::mvmcad::{Mvmcad, Prior};
use super::packed::{ComputePrecision, ImageFeatures, PackedNetwork, PackingError};
use super::{InputImage, Mode};

/// Images that the packed network takes at a time: enough for all threads, few enough that what lies
/// between two layers stays in the processor's last cache.
const IMAGES_AT_ONCE: usize = 8;

/// A network and how it is run.
#[derive(Debug)]
pub(super) enum Engine {
    /// As tensors on a device.
    Composed {
        network: Box<Mvmcad>,
        device: Device,
    },
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
        device: Device,
        precision: ComputePrecision,
    ) -> std::result::Result<Self, PackingError> {
        // Refuses tensors that are missing or misshapen.
        let network = Box::new(place(bundle, &device)?);
        if device.is_cpu() {
            return Ok(Self::Packed(Box::new(Packed::new(bundle, precision)?)));
        }
        match precision {
            ComputePrecision::F32 => Ok(Self::Composed { network, device }),
            ComputePrecision::Bf16 => {
                Err(PackingError::Unable("only processors compute in it so far"))
            }
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
        let (network, device) = match self {
            Self::Packed(packed) => return packed.features(images, views),
            Self::Composed { network, device } => (network, device),
        };
        let batch = batch(images, network.config().encoder.input_side, device)?;
        let features = network.forward_groups(&batch, views, Mode::Inference)?;
        let anomalies = features.anomalies()?.to_vec2::<f32>()?;
        let shallow = match with_shallow {
            false => vec![Vec::new(); images.len()],
            true => features.encoder[0].flatten_from(1)?.to_vec2::<f32>()?,
        };
        let pairs = anomalies.into_iter().zip(shallow);
        let features = pairs.map(|(anomalies, shallow)| ImageFeatures { anomalies, shallow });
        Ok(features.collect())
    }

    /// Runs `work` on the threads that the network has.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Composed { .. } => work(),
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
