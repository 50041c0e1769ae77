//! The model that the stream runs: a checked bundle on a device.
//!
//! On the CPU an image's map does not depend, to the last bit, on what it was batched with, so a replay
//! repeats what the live run said.

use std::collections::HashMap;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::bundle::{Bundle, Manifest};
use super::device::{DeviceError, open_inference_device};
use super::engine::Engine;
use super::expected::ExpectedMaps;
use super::maps::MapProjector;
use super::memory::Memory;
use super::mvmcad::Mvmcad;
use super::packed::{ComputePrecision, PackingError};
use super::{AnomalyModel, InputImage, ModelError};
use crate::domain::{AnomalyMap, ModelIdentity};

/// MVMCAD on a device, with the maps of its bundle.
#[derive(Debug)]
pub struct CandleModel {
    identity: ModelIdentity,
    mixes_views: bool,
    engine: Engine,
    memory: Memory,
    expected: ExpectedMaps,
    projector: MapProjector,
    max_batch: usize,
}

/// Why a bundle cannot be put on a device.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The system gives no more threads.
    #[error("cannot start the model's threads: {0}")]
    Threads(String),
    /// The device cannot compute in this precision.
    #[error("`precision`: expected `f32` on device `{device}`, found `{precision}`, but {reason}")]
    Precision {
        /// The device.
        device: String,
        /// The precision that was asked for.
        precision: ComputePrecision,
        /// What is missing.
        reason: &'static str,
    },
    /// The device refused the weights.
    #[error("model `{model}` on device `{device}`: {message}")]
    Refused {
        /// The model's name.
        model: String,
        /// The device.
        device: String,
        /// The device's own words.
        message: String,
    },
}

impl CandleModel {
    /// Puts a bundle on `device` (`auto`, `cpu`, `cuda:N`), computing in `f32`; at most `max_batch`
    /// images are run at once.
    ///
    /// # Errors
    /// When the device is unknown or not there, or refuses the weights.
    pub fn new(bundle: &Bundle, device: &str, max_batch: usize) -> Result<Self, PlacementError> {
        Self::with_precision(bundle, device, ComputePrecision::F32, max_batch)
    }

    /// As [`Self::new`], in another precision.
    ///
    /// # Errors
    /// As there, and when the device cannot compute in `precision`.
    pub fn with_precision(
        bundle: &Bundle,
        device: &str,
        precision: ComputePrecision,
        max_batch: usize,
    ) -> Result<Self, PlacementError> {
        let placed = open_inference_device(device)?;
        let refused = |error: candle_core::Error| PlacementError::Refused {
            model: bundle.manifest.name.clone(),
            device: device.to_owned(),
            message: error.to_string(),
        };
        let engine = Engine::new(bundle, placed, precision, max_batch);
        let engine = engine.map_err(|error| match error {
            PackingError::Unable(reason) => PlacementError::Precision {
                device: device.to_owned(),
                precision,
                reason,
            },
            PackingError::Threads(error) => PlacementError::Threads(error.to_string()),
            PackingError::Weights(error) => refused(error),
        })?;
        let memory = Memory::of(&bundle.tensors).map_err(refused)?;
        let expected = ExpectedMaps::of(&bundle.tensors).map_err(refused)?;
        let Manifest {
            architecture,
            map_side,
            ..
        } = &bundle.manifest;
        let encoder = &architecture.encoder;
        Ok(Self {
            identity: bundle.manifest.identity(),
            mixes_views: architecture.mixes_views(),
            engine,
            memory,
            expected,
            projector: MapProjector::new(encoder.grid(), encoder.input_side, *map_side),
            max_batch: max_batch.max(1),
        })
    }

    /// Whether it runs on a GPU, which several of its kind may share.
    pub fn is_on_gpu(&self) -> bool {
        matches!(self.engine, Engine::Device(_))
    }

    /// Does what would make the first batches slow.
    ///
    /// # Errors
    /// When the device fails, or its memory does not hold a batch of the largest size.
    pub fn warm_up(&mut self) -> Result<(), ModelError> {
        let warm = self.engine.warm_up();
        warm.map_err(|error| device_error(self.max_batch, &error))
    }

    fn run(
        &mut self,
        images: &[InputImage],
        views: &[usize],
    ) -> candle_core::Result<Vec<AnomalyMap>> {
        let Self {
            engine,
            memory,
            expected,
            projector,
            ..
        } = self;
        let features = engine.features(images, views, !memory.is_empty())?;
        Ok(engine.install(|| {
            let pairs = features.into_par_iter().zip(images);
            pairs
                .map(|(mut features, image)| {
                    let subject = image.subject.as_ref();
                    memory.blend(subject, &mut features.anomalies, &features.shallow);
                    expected.subtract(subject, &mut features.anomalies);
                    projector.project(&features.anomalies)
                })
                .collect()
        }))
    }
}

impl AnomalyModel for CandleModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn mixes_views(&self) -> bool {
        self.mixes_views
    }

    fn anomaly_maps(
        &mut self,
        images: &[InputImage],
        views: &[usize],
    ) -> Result<Vec<AnomalyMap>, ModelError> {
        let expected: usize = views.iter().sum();
        if expected != images.len() {
            return Err(ModelError::Device(format!(
                "expected `{expected}` images in parts of `{views:?}` views, found `{}`",
                images.len()
            )));
        }
        if self.mixes_views() {
            return self
                .run(images, views)
                .map_err(|error| device_error(images.len(), &error));
        }
        let mut maps = Vec::with_capacity(images.len());
        for chunk in images.chunks(self.max_batch) {
            maps.extend(
                self.run(chunk, &[chunk.len()])
                    .map_err(|error| device_error(chunk.len(), &error))?,
            );
        }
        Ok(maps)
    }
}

/// Builds the network of a bundle on a device.
///
/// # Errors
/// When the device refuses the weights.
pub fn place(bundle: &Bundle, device: &Device) -> candle_core::Result<Mvmcad> {
    let specs = bundle.manifest.architecture.tensors();
    let mut tensors = HashMap::new();
    for (name, _) in specs.iter() {
        if let Some(tensor) = bundle.tensors.get(name) {
            tensors.insert(name.to_owned(), tensor.to_device(device)?);
        }
    }
    let weights = VarBuilder::from_tensors(tensors, DType::F32, device);
    Mvmcad::new(
        &bundle.manifest.architecture,
        weights.pp("encoder"),
        weights,
    )
}

fn device_error(images: usize, error: &candle_core::Error) -> ModelError {
    let message = error.to_string();
    match message.to_lowercase().contains("out of memory") {
        true => ModelError::OutOfMemory { images, message },
        false => ModelError::Device(message),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;
    use crate::domain::RgbImage;
    use crate::model::Subject;
    use crate::model::expected::tensor_name;
    use crate::model::mvmcad::{Amplification, AmplificationScope, PriorMode};
    use crate::model::testing::{lively_weights, tiny_config, tiny_manifest};
    use crate::model::vit::VitConfig;

    fn bundle() -> Bundle {
        let config = tiny_config(PriorMode::Calibrated, Amplification::After);
        Bundle {
            tensors: lively_weights(&config, 1),
            manifest: tiny_manifest(config),
        }
    }

    fn images(bundle: &Bundle, count: usize) -> Vec<InputImage> {
        let preprocessor = bundle.manifest.preprocessor().unwrap();
        (0..count)
            .map(|index| {
                let pixels = (0..40 * 50 * 3)
                    .map(|byte| (byte * (index + 3) % 251) as u8)
                    .collect();
                let image = RgbImage {
                    width: 40,
                    height: 50,
                    pixels,
                };
                preprocessor.prepare(&image).unwrap()
            })
            .collect()
    }

    fn as_tensor(images: &[InputImage]) -> Tensor {
        let values: Vec<f32> = images
            .iter()
            .flat_map(|image| image.values.clone())
            .collect();
        Tensor::from_vec(values, (images.len(), 3, 28, 28), &Device::Cpu).unwrap()
    }

    /// The maps of the composed network.
    fn composed_maps(bundle: &Bundle, images: &[InputImage]) -> Vec<Vec<f32>> {
        let network = place(bundle, &Device::Cpu).unwrap();
        let patches = network.patch_anomalies(&as_tensor(images), &[images.len()]);
        let patches = patches.unwrap().flatten_from(1).unwrap();
        let patches = patches.to_vec2::<f32>().unwrap();
        let projector = MapProjector::new(4, 28, bundle.manifest.map_side);
        let maps = patches.iter().map(|patches| projector.project(patches));
        maps.map(|map| map.values).collect()
    }

    #[test]
    fn what_is_served_behind_each_prior_is_what_the_composed_network_makes_of_it() {
        for prior in [PriorMode::Off, PriorMode::Literal, PriorMode::Calibrated] {
            let config = tiny_config(prior, Amplification::After);
            let mut bundle = Bundle {
                tensors: lively_weights(&config, 1),
                manifest: tiny_manifest(config),
            };
            // More than go through the packed network at a time.
            let images = images(&bundle, 11);
            let mut model = CandleModel::new(&bundle, "cpu", 32).unwrap();
            let served = model.anomaly_maps(&images, &[images.len()]).unwrap();
            let served: Vec<Vec<f32>> = served.into_iter().map(|map| map.values).collect();
            let worst = |composed: &[Vec<f32>]| {
                assert_eq!(served.len(), composed.len());
                let pairs = served.iter().flatten().zip(composed.iter().flatten());
                let gaps = pairs.map(|(served, composed)| (served - composed).abs());
                // Not `max`, which loses what is not a number.
                gaps.fold(0f32, |most, gap| if gap <= most { most } else { gap })
            };
            let gap = worst(&composed_maps(&bundle, &images));
            assert!(gap < 2e-5, "{prior:?}: {gap}");
            if prior != PriorMode::Off {
                bundle.manifest.architecture.prior = PriorMode::Off;
                let gap = worst(&composed_maps(&bundle, &images));
                assert!(gap > 1e-3, "{prior:?} does nothing: {gap}");
            }
        }
    }

    #[test]
    fn an_image_gets_the_same_map_alone_and_in_any_batch() {
        let bundle = bundle();
        let images = images(&bundle, 19);
        let alone: Vec<_> = images
            .iter()
            .flat_map(|image| {
                let mut model = CandleModel::new(&bundle, "cpu", 8).unwrap();
                model
                    .anomaly_maps(std::slice::from_ref(image), &[1])
                    .unwrap()
            })
            .collect();
        for max_batch in [1, 2, 3, 32] {
            let mut model = CandleModel::new(&bundle, "cpu", max_batch).unwrap();
            assert_eq!(
                model.anomaly_maps(&images, &[images.len()]).unwrap(),
                alone,
                "batches of {max_batch}"
            );
        }
    }

    /// Products of this size are cut up for several threads, unlike those of the tiny network.
    #[test]
    fn an_image_gets_the_same_map_from_one_thread_and_from_several() {
        let mut config = tiny_config(PriorMode::Off, Amplification::After);
        config.encoder = VitConfig {
            input_side: 112,
            patch: 8,
            width: 192,
            depth: 2,
            heads: 3,
            position_side: 14,
            targets: vec![0, 1],
            ..config.encoder
        };
        let mut bundle = Bundle {
            tensors: config.tensors().initial_values(2, &Device::Cpu).unwrap(),
            manifest: tiny_manifest(config),
        };
        bundle.manifest.normalisation.resize = 128;
        let images = images(&bundle, 5);
        let mut model = CandleModel::new(&bundle, "cpu", 8).unwrap();
        let together = model.anomaly_maps(&images, &[images.len()]).unwrap();
        for (image, expected) in images.iter().zip(&together) {
            let alone = model
                .anomaly_maps(std::slice::from_ref(image), &[1])
                .unwrap();
            assert!(alone[0] == *expected);
        }
    }

    #[test]
    fn a_part_gets_the_same_maps_alone_and_beside_others_when_its_views_are_mixed() {
        let mut bundle = bundle();
        bundle.manifest.architecture.amplification_scope = AmplificationScope::Part;
        let images = images(&bundle, 7);
        let mut model = CandleModel::new(&bundle, "cpu", 3).unwrap();
        let together = model.anomaly_maps(&images, &[4, 0, 2, 1]).unwrap();
        let alone = [&images[..4], &images[4..6], &images[6..]]
            .map(|part| model.anomaly_maps(part, &[part.len()]).unwrap());
        assert_eq!(together, alone.concat());
        let without_one = model.anomaly_maps(&images[1..4], &[3]).unwrap();
        assert_ne!(
            without_one[0], together[1],
            "the views of a part are not mixed"
        );
        let error = model.anomaly_maps(&images, &[4]).unwrap_err().to_string();
        assert!(error.contains("`4` images"), "{error}");
    }

    /// How far the maps move when the weights are rounded to `dtype`: the largest change of a
    /// value, in units of the root mean square of all.
    fn change_by_rounding(bundle: &Bundle, dtype: DType) -> f32 {
        let images = images(bundle, 3);
        let mut rounded = bundle.clone();
        for tensor in rounded.tensors.values_mut() {
            let short = tensor.to_dtype(dtype).unwrap();
            *tensor = short.to_dtype(DType::F32).unwrap();
        }
        let [exact, moved] = [bundle, &rounded].map(|bundle| {
            let mut model = CandleModel::new(bundle, "cpu", 8).unwrap();
            let maps = model.anomaly_maps(&images, &[3]).unwrap();
            maps.into_iter()
                .flat_map(|map| map.values)
                .collect::<Vec<f32>>()
        });
        let squares: f32 = exact.iter().map(|value| value * value).sum();
        let changes = exact.iter().zip(&moved).map(|(a, b)| (a - b).abs());
        changes.fold(0., f32::max) / (squares / exact.len() as f32).sqrt()
    }

    /// Bundles are stored in f16 by default; bf16 ones are read too. All run in f32.
    #[test]
    fn weights_in_half_precision_move_a_map_within_the_stated_tolerance() {
        let mut part = bundle();
        part.manifest.architecture.amplification_scope = AmplificationScope::Part;
        for bundle in [bundle(), part] {
            let half = change_by_rounding(&bundle, DType::F16);
            assert!(half > 0. && half < 2e-3, "f16: {half}");
            let brain = change_by_rounding(&bundle, DType::BF16);
            assert!(brain > half && brain < 2e-2, "bf16: {brain}");
        }
    }

    /// The same image twice; of the second it is known what it shows.
    fn unknown_and_known(bundle: &Bundle) -> (Vec<InputImage>, Subject) {
        let subject = Subject {
            class: "bolt".into(),
            view: "top".into(),
        };
        let mut images = images(bundle, 2);
        images[1].values = images[0].values.clone();
        images[1].subject = Some(subject.clone());
        (images, subject)
    }

    #[test]
    fn what_is_expected_of_its_class_and_view_is_taken_from_a_map() {
        let mut bundle = bundle();
        let (images, subject) = unknown_and_known(&bundle);
        let mut model = CandleModel::new(&bundle, "cpu", 8).unwrap();
        let without = model.anomaly_maps(&images, &[2]).unwrap();
        assert_eq!(without[0], without[1]);
        let expected = Tensor::full(-0.25f32, (4, 4), &Device::Cpu).unwrap();
        bundle.tensors.insert(tensor_name(&subject), expected);
        let mut model = CandleModel::new(&bundle, "cpu", 8).unwrap();
        let with = model.anomaly_maps(&images, &[2]).unwrap();
        assert_eq!(with[0], without[0]);
        let centre = 10 * with[1].width + 10;
        let moved = with[1].values[centre] - without[1].values[centre];
        assert!((moved - 0.25).abs() < 1e-5, "{moved}");
    }

    #[test]
    fn a_memory_of_its_class_and_view_is_mixed_into_a_map() {
        let mut bundle = bundle();
        let (images, subject) = unknown_and_known(&bundle);
        let zeros = Tensor::zeros((16, 1, 16), DType::F32, &Device::Cpu).unwrap();
        let mix = Tensor::new(&[1.0f32, 0.25], &Device::Cpu).unwrap();
        let named = |prefix: &str| format!("{prefix}.{subject}");
        bundle.tensors.insert(named("memory"), zeros);
        bundle.tensors.insert(named("memory_mix"), mix);
        let mut model = CandleModel::new(&bundle, "cpu", 8).unwrap();
        let maps = model.anomaly_maps(&images, &[2]).unwrap();
        // No direction is like nothing: every patch is as far as a right angle.
        let centre = 10 * maps[0].width + 10;
        let moved = maps[1].values[centre] - maps[0].values[centre];
        assert!((moved - 0.25).abs() < 1e-5, "{moved}");
        bundle.tensors.remove(&named("memory_mix"));
        let error = CandleModel::new(&bundle, "cpu", 8).unwrap_err().to_string();
        assert!(
            error.contains("`memory_mix.bolt/top` is missing"),
            "{error}"
        );
    }

    #[test]
    fn no_images_give_no_maps() {
        let mut model = CandleModel::new(&bundle(), "auto", 8).unwrap();
        assert_eq!(model.anomaly_maps(&[], &[]).unwrap(), vec![]);
        assert_eq!(model.identity().name, "tiny");
    }
}
