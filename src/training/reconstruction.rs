//! Training of the network on good parts: the decoder learns to rebuild the encoder's features.
//!
//! Where nothing before the encoder is trained, and memory allows, its features are computed once
//! and kept, so that an iteration costs the decoder alone.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::alteration::alter;
use super::encoder_file::Encoder;
use super::formula::Canvas;
use super::iteration::{CheckpointSettings, Plan};
use super::objective::{Objective, left_aside};
use super::optimiser::{OptimiserSettings, Parameters, Schedule};
use super::parallel::{ShardLoss, shard_gradients};
use super::{TrainingError, at_least_one, builder, digest, item_rng, parameters, share, values};
use crate::model::mvmcad::{EncoderGroups, FeatureStatistics, Mvmcad, MvmcadConfig, PriorMode};
use crate::model::{InputImage, Mode};

/// Images of one shard: few enough that their features stay in the processor's cache.
const SHARD: usize = 4;
/// At most about this many images are looked at for the whitening.
const WHITENING_IMAGES: usize = 512;
/// Marks the random numbers of shuffling; no item of a batch has this number.
const SHUFFLE: u64 = u64::MAX;

/// Settings of a training run.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconstructionSettings {
    /// The network.
    pub architecture: MvmcadConfig,
    /// The loss.
    pub objective: Objective,
    /// Iterations over which the loss turns from all patches to the hardest.
    pub ramp: u64,
    /// Share of the images that are altered before they go in; what should come out are the
    /// features of the unaltered image (denoising, as Zhang et al., "DeSTSeg"). 0 trains on
    /// unaltered images alone.
    pub altered_share: f64,
    /// Iterations.
    pub iterations: u64,
    /// Images an iteration.
    pub batch: usize,
    /// Learning rate after the warm-up; it falls to a tenth.
    pub learning_rate: f64,
    /// Iterations of the warm-up.
    pub warm_up: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads that share the batch.
    pub threads: usize,
    /// Memory for the encoder's features, in bytes; where they do not fit, each iteration computes
    /// its own anew.
    pub cache_bytes: u64,
    /// Checkpoints.
    pub checkpoint: CheckpointSettings,
}

impl ReconstructionSettings {
    fn validate(&self, images: usize) -> std::result::Result<(), TrainingError> {
        self.architecture
            .validate()
            .map_err(TrainingError::Setting)?;
        at_least_one("batch", self.batch as u64)?;
        at_least_one("threads", self.threads as u64)?;
        at_least_one("images", images as u64)?;
        at_least_one("iterations", self.iterations)?;
        if let Objective::Focal { easy_share } = self.objective {
            share("easy_share", easy_share)?;
        }
        if self.altered_share > 0.0 && self.architecture.prior != PriorMode::Off {
            // The prior's running statistics would be those of altered images.
            let rule = "`altered_share` above 0 needs the prior off".to_owned();
            return Err(TrainingError::Setting(rule));
        }
        share("altered_share", self.altered_share)
    }

    /// What the features of so many images take: two groups of tokens in f32.
    fn feature_bytes(&self, images: usize) -> u64 {
        let encoder = &self.architecture.encoder;
        let tokens = encoder.leading_tokens() + encoder.grid() * encoder.grid();
        (images * tokens * encoder.width * 2 * size_of::<f32>()) as u64
    }

    /// `data` is a digest of all that is trained on.
    fn plan(&self, data: u64) -> Plan<'_> {
        Plan {
            optimiser: OptimiserSettings::reconstruction(),
            schedule: Schedule {
                peak: self.learning_rate,
                last: self.learning_rate * 0.1,
                warm_up: self.warm_up,
                iterations: self.iterations,
            },
            seed: self.seed,
            fingerprint: format!(
                "{:?} {:?} data {data:016x} ramp {} altered {} iterations {} batch {} rate {} warm-up {}",
                self.architecture,
                self.objective,
                self.ramp,
                self.altered_share,
                self.iterations,
                self.batch,
                self.learning_rate,
                self.warm_up
            ),
            checkpoint: &self.checkpoint,
        }
    }
}

/// Trains on prepared images of good parts; returns every tensor of the network. `report` gets
/// the iterations done and the running mean of the loss.
///
/// # Errors
/// When a setting, the checkpoint or the device is at fault, or the loss diverges.
pub fn reconstruct(
    settings: &ReconstructionSettings,
    encoder: &Encoder,
    images: &[InputImage],
    device: &Device,
    mut report: impl FnMut(u64, &[f64]),
) -> std::result::Result<HashMap<String, Tensor>, TrainingError> {
    settings.validate(images.len())?;
    let specs = settings.architecture.trainable_tensors();
    let parameters = parameters(&specs.initial_variables(settings.seed, device)?);
    let builders = Builders {
        encoder,
        parameters: &parameters,
        device,
    };
    if settings.architecture.whitening {
        fit_whitening(settings, images, &builders)?;
    }
    let source = Source::new(settings, images, &builders)?;
    let mut order = Order::new(images.len(), settings.seed);
    let (shard, threads) = if settings.architecture.prior == PriorMode::Off {
        (SHARD, settings.threads)
    } else {
        // The prior's batch statistics are those of a whole batch.
        (settings.batch, 1)
    };
    let step = |iteration: u64| {
        let chosen = order.batch(iteration, settings.batch);
        let easy = left_aside(iteration, settings.ramp);
        let (source, builders) = (&source, &builders);
        let shards = chosen
            .chunks(shard)
            .enumerate()
            .map(|(index, chosen)| {
                move || {
                    let network = builders.network(&settings.architecture)?;
                    network.reseed_dropout(dropout_seed(settings.seed, iteration, index));
                    let wanted = source.groups(&network, chosen, builders.device)?;
                    let first = (index * shard) as u64;
                    let changed = altered_images(settings, images, chosen, |item| {
                        item_rng(settings.seed, iteration, first + item)
                    });
                    let features = match changed {
                        None => network.reconstruct(&wanted, Mode::Train)?,
                        Some(changed) => {
                            let side = settings.architecture.encoder.input_side;
                            let changed = stack(&changed, side, builders.device)?;
                            let given = network.encode(&changed, Mode::Train)?;
                            network.restore(&given, &wanted, Mode::Train)?
                        }
                    };
                    let loss = settings.objective.loss(&features, easy)?;
                    Ok(ShardLoss {
                        loss,
                        details: Vec::new(),
                        items: chosen.len(),
                    })
                }
            })
            .collect();
        shard_gradients(&parameters, threads, shards)
    };
    settings
        .plan(data_digest(encoder, images)?)
        .run(&parameters, device, step, &mut report)?;
    Ok(all_tensors(&parameters, encoder))
}

/// A digest of the encoder and the images.
fn data_digest(encoder: &Encoder, images: &[InputImage]) -> Result<u64> {
    let sorted: BTreeMap<&String, &Tensor> = encoder.tensors.iter().collect();
    let weights = sorted
        .values()
        .map(|tensor| tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1())
        .collect::<Result<Vec<Vec<f32>>>>()?;
    let images = images.iter().map(|image| image.values.as_slice());
    Ok(digest(weights.iter().map(Vec::as_slice).chain(images)))
}

/// The chosen images, the share of them altered that the settings ask for; `None` where the
/// settings ask for none.
fn altered_images(
    settings: &ReconstructionSettings,
    images: &[InputImage],
    chosen: &[usize],
    rng: impl Fn(u64) -> ChaCha8Rng,
) -> Option<Vec<InputImage>> {
    if settings.altered_share == 0.0 {
        return None;
    }
    let side = settings.architecture.encoder.input_side;
    let canvas = |index: usize| Canvas::from_normalised(&images[index].values, side);
    let one = |(item, &index): (usize, &usize)| {
        let mut image = images[index].clone();
        let mut rng = rng(item as u64);
        if rng.random_bool(settings.altered_share) {
            let donor = |rng: &mut ChaCha8Rng| canvas(rng.random_range(0..images.len()));
            image.values = alter(&mut rng, &canvas(index), donor).canvas.normalised();
        }
        image
    };
    Some(chosen.iter().enumerate().map(one).collect())
}

/// Sets the whitening from the features of evenly chosen images.
fn fit_whitening(
    settings: &ReconstructionSettings,
    images: &[InputImage],
    builders: &Builders<'_>,
) -> Result<()> {
    let encoder = &settings.architecture.encoder;
    let network = builders.network(&settings.architecture)?;
    let mut statistics = FeatureStatistics::new(encoder.width, encoder.leading_tokens());
    let stride = images.len().div_ceil(WHITENING_IMAGES);
    for image in images.iter().step_by(stride) {
        let batch = stack(
            std::slice::from_ref(image),
            encoder.input_side,
            builders.device,
        )?;
        statistics.add(&network.encode_raw(&batch, Mode::Inference)?)?;
    }
    for (name, tensor) in statistics.whitening(builders.device)? {
        if let Some(variable) = builders.parameters.get(&format!("whitening.{name}")) {
            variable.set(&tensor)?;
        }
    }
    Ok(())
}

fn dropout_seed(seed: u64, iteration: u64, shard: usize) -> u64 {
    // Beyond every item of a batch, so that no other use shares these numbers.
    item_rng(seed, iteration, (1 << 32) + shard as u64).random()
}

fn all_tensors(parameters: &Parameters, encoder: &Encoder) -> HashMap<String, Tensor> {
    let mut tensors: HashMap<String, Tensor> = values(parameters, "").into_iter().collect();
    for (name, tensor) in &encoder.tensors {
        tensors.insert(format!("encoder.{name}"), tensor.clone());
    }
    tensors
}

/// What networks over the same variables are built from.
struct Builders<'a> {
    encoder: &'a Encoder,
    parameters: &'a Parameters,
    device: &'a Device,
}

impl Builders<'_> {
    /// A network of its own for one thread: dropout has a state.
    fn network(&self, architecture: &MvmcadConfig) -> Result<Mvmcad> {
        let encoder =
            VarBuilder::from_tensors(self.encoder.tensors.clone(), DType::F32, self.device);
        Mvmcad::new(
            architecture,
            encoder,
            builder(self.parameters, "", self.device),
        )
    }
}

/// Where a batch's encoder features come from.
enum Source<'a> {
    /// Computed once, image by image: shallow and deep.
    Cached(Vec<[Tensor; 2]>),
    /// Computed anew from the images.
    Images {
        images: &'a [InputImage],
        side: usize,
    },
}

impl<'a> Source<'a> {
    fn new(
        settings: &ReconstructionSettings,
        images: &'a [InputImage],
        builders: &Builders<'_>,
    ) -> Result<Self> {
        let side = settings.architecture.encoder.input_side;
        let network = builders.network(&settings.architecture)?;
        if !network.can_cache_encoder()
            || settings.feature_bytes(images.len()) > settings.cache_bytes
        {
            return Ok(Self::Images { images, side });
        }
        let share = images.len().div_ceil(settings.threads);
        let encode = |images: &[InputImage]| -> Result<Vec<[Tensor; 2]>> {
            let one = |image: &InputImage| {
                let batch = stack(std::slice::from_ref(image), side, builders.device)?;
                let groups = network.encode(&batch, Mode::Inference)?;
                Ok([groups.shallow, groups.deep])
            };
            images.iter().map(one).collect()
        };
        let parts: Vec<Result<Vec<[Tensor; 2]>>> = std::thread::scope(|scope| {
            let encode = &encode;
            let threads: Vec<_> = images
                .chunks(share)
                .map(|images| scope.spawn(move || encode(images)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(result) => result,
                Err(_) => candle_core::bail!("an encoding thread panicked"),
            };
            threads.into_iter().map(join).collect()
        });
        let mut cached = Vec::with_capacity(images.len());
        for part in parts {
            cached.extend(part?);
        }
        Ok(Self::Cached(cached))
    }

    fn groups(&self, network: &Mvmcad, chosen: &[usize], device: &Device) -> Result<EncoderGroups> {
        match self {
            Self::Cached(cached) => {
                let gather = |group: usize| {
                    let tensors: Vec<&Tensor> = chosen.iter().map(|&i| &cached[i][group]).collect();
                    Tensor::cat(&tensors, 0)
                };
                Ok(EncoderGroups {
                    shallow: gather(0)?,
                    deep: gather(1)?,
                })
            }
            Self::Images { images, side } => {
                let chosen: Vec<InputImage> = chosen.iter().map(|&i| images[i].clone()).collect();
                network.encode(&stack(&chosen, *side, device)?, Mode::Train)
            }
        }
    }
}

/// Prepared images as one tensor `[images, 3, side, side]`.
pub(crate) fn stack(images: &[InputImage], side: usize, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = images
        .iter()
        .flat_map(|image| image.values.iter().copied())
        .collect();
    Tensor::from_vec(values, (images.len(), 3, side, side), device)
}

/// The order of the images: shuffled anew each epoch, known from the iteration alone.
struct Order {
    images: usize,
    seed: u64,
    epoch: Option<u64>,
    shuffled: Vec<usize>,
}

impl Order {
    fn new(images: usize, seed: u64) -> Self {
        Self {
            images,
            seed,
            epoch: None,
            shuffled: Vec::new(),
        }
    }

    fn batch(&mut self, iteration: u64, size: usize) -> Vec<usize> {
        let first = iteration * size as u64;
        (first..first + size as u64)
            .map(|position| self.at(position))
            .collect()
    }

    fn at(&mut self, position: u64) -> usize {
        let (epoch, index) = (position / self.images as u64, position % self.images as u64);
        if self.epoch != Some(epoch) {
            self.shuffled = (0..self.images).collect();
            self.shuffled
                .shuffle(&mut item_rng(self.seed, epoch, SHUFFLE));
            self.epoch = Some(epoch);
        }
        self.shuffled[index as usize]
    }
}

#[cfg(test)]
#[path = "reconstruction_tests.rs"]
mod tests;
