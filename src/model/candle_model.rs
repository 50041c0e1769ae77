//! The model that the stream runs: a checked bundle on a device.
//!
//! On the CPU each image is run by itself, several at a time on threads of their own. That is
//! faster than one large batch, since candle runs its element-wise operations on one thread; and
//! an image's map does not depend, to the last bit, on what it was batched with, so a replay
//! repeats what the live run said. A network that mixes the views of a part gets a part at a time.

use std::collections::HashMap;
use std::thread;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::bundle::{Bundle, Manifest};
use super::device::{DeviceError, open_device};
use super::expected::ExpectedMaps;
use super::maps::MapProjector;
use super::memory::Memory;
use super::mvmcad::Mvmcad;
use super::{AnomalyModel, InputImage, Mode, ModelError};
use crate::domain::{AnomalyMap, ModelIdentity};

/// MVMCAD on a device, with the maps of its bundle.
#[derive(Debug)]
pub struct CandleModel {
    identity: ModelIdentity,
    network: Mvmcad,
    memory: Memory,
    expected: ExpectedMaps,
    projector: MapProjector,
    device: Device,
    max_batch: usize,
    /// One pool of one thread a core: an image's matrix products stay on its thread.
    workers: Vec<rayon::ThreadPool>,
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
    /// Puts a bundle on `device` (`auto`, `cpu`, `cuda:N`); at most `max_batch` images are run at
    /// once.
    ///
    /// # Errors
    /// When the device is unknown or not there, or refuses the weights.
    pub fn new(bundle: &Bundle, device: &str, max_batch: usize) -> Result<Self, PlacementError> {
        let placed = open_device(device)?;
        let refused = |error: candle_core::Error| PlacementError::Refused {
            model: bundle.manifest.name.clone(),
            device: device.to_owned(),
            message: error.to_string(),
        };
        let network = place(bundle, &placed).map_err(refused)?;
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
            network,
            memory,
            expected,
            projector: MapProjector::new(encoder.grid(), encoder.input_side, *map_side),
            device: placed,
            max_batch: max_batch.max(1),
            workers: start_workers()?,
        })
    }

    fn run(&self, images: &[InputImage], views: &[usize]) -> candle_core::Result<Vec<AnomalyMap>> {
        if self.device.is_cpu() {
            self.run_one_by_one(images, views)
        } else {
            self.run_together(images, views)
        }
    }

    fn run_together(
        &self,
        images: &[InputImage],
        views: &[usize],
    ) -> candle_core::Result<Vec<AnomalyMap>> {
        let side = self.network.config().encoder.input_side;
        let mut values = Vec::with_capacity(images.len() * 3 * side * side);
        for image in images {
            values.extend_from_slice(&image.values);
        }
        let batch = Tensor::from_vec(values, (images.len(), 3, side, side), &self.device)?;
        let features = self
            .network
            .forward_groups(&batch, views, Mode::Inference)?;
        let mut patches = features.anomalies()?.to_vec2::<f32>()?;
        if !self.memory.is_empty() {
            let shallow = features.encoder[0].flatten_from(1)?.to_vec2::<f32>()?;
            for ((patches, image), shallow) in patches.iter_mut().zip(images).zip(&shallow) {
                self.memory.blend(image.subject.as_ref(), patches, shallow);
            }
        }
        let maps = patches.iter_mut().zip(images).map(|(patches, image)| {
            self.expected.subtract(image.subject.as_ref(), patches);
            self.projector.project(patches)
        });
        Ok(maps.collect())
    }

    /// Runs unit by unit, an image or a part each, the units shared out to the workers.
    fn run_one_by_one(
        &self,
        images: &[InputImage],
        views: &[usize],
    ) -> candle_core::Result<Vec<AnomalyMap>> {
        let units = self.units(images, views);
        let share = units.len().div_ceil(self.workers.len()).max(1);
        // With fewer units than cores the products share the cores through rayon's own pool.
        let fills_cores = units.len() >= self.workers.len();
        let run_share = |units: &[&[InputImage]]| -> candle_core::Result<Vec<AnomalyMap>> {
            let mut maps = Vec::new();
            for unit in units {
                maps.extend(self.run_together(unit, &[unit.len()])?);
            }
            Ok(maps)
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = units
                .chunks(share)
                .zip(&self.workers)
                .map(|(units, worker)| {
                    let run_share = &run_share;
                    scope.spawn(move || match fills_cores {
                        true => worker.install(|| run_share(units)),
                        false => run_share(units),
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        let mut maps = Vec::with_capacity(images.len());
        for answer in answers {
            match answer {
                Ok(answer) => maps.extend(answer?),
                Err(_) => candle_core::bail!("a thread of the model panicked"),
            }
        }
        Ok(maps)
    }

    /// What must go through the network together: parts if it mixes views, else single images.
    fn units<'a>(&self, images: &'a [InputImage], views: &[usize]) -> Vec<&'a [InputImage]> {
        if !self.mixes_views() {
            return images.chunks(1).collect();
        }
        let mut rest = images;
        let mut units = Vec::with_capacity(views.len());
        for &views in views.iter().filter(|&&views| views > 0) {
            let (part, later) = rest.split_at(views.min(rest.len()));
            units.push(part);
            rest = later;
        }
        units
    }
}

impl AnomalyModel for CandleModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn mixes_views(&self) -> bool {
        self.network.config().mixes_views()
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

fn start_workers() -> Result<Vec<rayon::ThreadPool>, PlacementError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (0..cores)
        .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<Result<_, _>>()
        .map_err(|error| PlacementError::Threads(error.to_string()))
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

    #[test]
    fn an_image_gets_the_same_map_alone_and_in_any_batch() {
        let bundle = bundle();
        let images = images(&bundle, 7);
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
        let on_device = model.run_together(&images, &[4, 0, 2, 1]).unwrap();
        for (one, other) in together.iter().zip(&on_device) {
            let pairs = one.values.iter().zip(&other.values);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
        }
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
