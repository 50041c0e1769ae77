//! Training of the network on good parts: the decoder learns to rebuild the encoder's features.
//!
//! Where nothing before the encoder is trained, and memory allows, its features are computed once
//! and kept, so that an iteration costs the decoder alone.

use std::borrow::{Borrow, Cow};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::alteration::alter;
use super::dataset::{TrainingImages, TrainingPart};
use super::encoder_file::Encoder;
use super::formula::Canvas;
use super::iteration::{CheckpointSettings, Plan};
use super::objective::left_aside;
use super::optimiser::Parameters;
use super::parallel::{ShardLoss, shard_gradients};
use super::recipe::Recipe;
use super::sampling::Order;
use super::{TrainingError, at_least_one, builder, digest, item_rng, parameters, values};
use crate::model::mvmcad::{EncoderGroups, FeatureStatistics, Mvmcad, MvmcadConfig, PriorMode};
use crate::model::{InputImage, Mode};

/// At most about this many images are looked at for the whitening.
const WHITENING_IMAGES: usize = 512;

/// Settings of a training run.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconstructionSettings {
    /// The network.
    pub architecture: MvmcadConfig,
    /// What decides the result.
    pub recipe: Recipe,
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
        at_least_one("threads", self.threads as u64)?;
        at_least_one("images", images as u64)?;
        self.recipe.validate(&self.architecture)
    }

    /// A prior's batch statistics are those of a whole batch, so with it there is one shard.
    fn shard_limit(&self) -> usize {
        match self.architecture.prior {
            PriorMode::Off => self.recipe.run.micro_batch,
            _ => usize::MAX,
        }
    }

    /// What the features of so many images take: two groups of tokens in f32.
    fn feature_bytes(&self, images: usize) -> u64 {
        let encoder = &self.architecture.encoder;
        let tokens = encoder.leading_tokens() + encoder.grid() * encoder.grid();
        (images * tokens * encoder.width * 2 * size_of::<f32>()) as u64
    }

    /// `data` is a digest of all that is trained on.
    fn plan(&self, data: u64) -> Plan<'_> {
        let Recipe {
            loss,
            data: drawing,
            optimiser,
            run,
            ..
        } = &self.recipe;
        Plan {
            optimiser: self.recipe.optimiser(),
            schedule: self.recipe.schedule(),
            seed: run.seed,
            fingerprint: format!(
                "{:?} {loss:?} {drawing:?} {optimiser:?} {run:?} data {data:016x}",
                self.architecture
            ),
            checkpoint: &self.checkpoint,
        }
    }
}

/// Trains on good parts; returns every tensor of the network. `report` gets
/// the iterations done and the running mean of the loss.
///
/// # Errors
/// When a setting, the checkpoint or the device is at fault, or the loss diverges.
pub fn reconstruct(
    settings: &ReconstructionSettings,
    encoder: &Encoder,
    images: &TrainingImages,
    device: &Device,
    mut report: impl FnMut(u64, &[f64]),
) -> std::result::Result<HashMap<String, Tensor>, TrainingError> {
    settings.validate(images.len())?;
    let specs = settings.architecture.trainable_tensors();
    let parameters = parameters(&specs.initial_variables(settings.recipe.run.seed, device)?);
    let builders = Builders {
        encoder,
        parameters: &parameters,
        device,
    };
    if settings.architecture.whitening {
        fit_whitening(settings, images, &builders)?;
    }
    let source = Source::new(settings, images, &builders)?;
    let units = units(images.parts(), settings.architecture.mixes_views());
    let batch = (settings.recipe.run.batch * units.len()).div_ceil(images.len());
    let classes: Vec<usize> = units.iter().map(|unit| unit.class).collect();
    let mut order = Order::new(
        settings.recipe.data.sampling,
        &classes,
        settings.recipe.run.seed,
    );
    let threads = match settings.architecture.prior {
        PriorMode::Off => settings.threads,
        _ => 1,
    };
    let step = |iteration: u64| {
        let chosen: Vec<&Unit> = order
            .batch(iteration, batch)
            .into_iter()
            .map(|index| &units[index])
            .collect();
        let easy = left_aside(iteration, settings.recipe.loss.ramp);
        let (source, builders) = (&source, &builders);
        let mut first = 0;
        let shards = shards(&chosen, settings.shard_limit())
            .into_iter()
            .enumerate()
            .map(|(index, shard)| {
                let before = first;
                first += shard.images.len() as u64;
                move || {
                    let network = builders.network(&settings.architecture)?;
                    network.reseed_dropout(dropout_seed(
                        settings.recipe.run.seed,
                        iteration,
                        index,
                    ));
                    let wanted = source.groups(&network, &shard.images, builders.device)?;
                    let changed = altered_images(settings, images, &shard.images, |item| {
                        item_rng(settings.recipe.run.seed, iteration, before + item)
                    })?;
                    let features = match changed {
                        None => network.reconstruct(&wanted, &shard.views, Mode::Train)?,
                        Some(changed) => {
                            let side = settings.architecture.encoder.input_side;
                            let changed = stack(&changed, side, builders.device)?;
                            let given = network.encode(&changed, Mode::Train)?;
                            network.restore(&given, &wanted, &shard.views, Mode::Train)?
                        }
                    };
                    let loss = settings.recipe.loss.objective.loss(&features, easy)?;
                    Ok(ShardLoss {
                        loss,
                        details: Vec::new(),
                        items: shard.images.len(),
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

/// What is drawn as one: an image, or a part where views are mixed.
struct Unit {
    /// Number of its class in the order of their names.
    class: usize,
    images: Range<usize>,
}

fn units(parts: &[TrainingPart], whole_parts: bool) -> Vec<Unit> {
    let mut names: Vec<&str> = parts.iter().map(|part| part.class.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut units = Vec::new();
    for part in parts {
        // Every name is in the list, so the place to insert it at is where it stands.
        let class = names.partition_point(|&name| name < part.class.as_str());
        let images = part.images.clone();
        match whole_parts {
            true => units.extend((!images.is_empty()).then_some(Unit { class, images })),
            false => units.extend(images.map(|image| Unit {
                class,
                images: image..image + 1,
            })),
        }
    }
    units
}

/// Units of a batch that go through the network together.
struct Shard {
    images: Vec<usize>,
    /// How many of the images each unit has.
    views: Vec<usize>,
}

/// Cuts a batch into shards of at most `limit` images, as far as units stay whole.
fn shards(units: &[&Unit], limit: usize) -> Vec<Shard> {
    let mut shards: Vec<Shard> = Vec::new();
    for unit in units {
        let fits = |shard: &Shard| shard.images.len().saturating_add(unit.images.len()) <= limit;
        if !shards.last().is_some_and(fits) {
            shards.push(Shard {
                images: Vec::new(),
                views: Vec::new(),
            });
        }
        if let Some(shard) = shards.last_mut() {
            shard.images.extend(unit.images.clone());
            shard.views.push(unit.images.len());
        }
    }
    shards
}

/// A digest of the encoder and the images.
fn data_digest(encoder: &Encoder, images: &TrainingImages) -> Result<u64> {
    let sorted: BTreeMap<&String, &Tensor> = encoder.tensors.iter().collect();
    let weights = sorted
        .values()
        .map(|tensor| tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1())
        .collect::<Result<Vec<Vec<f32>>>>()?;
    Ok(digest(weights.iter().map(Vec::as_slice)) ^ images.digest().rotate_left(1))
}

/// An image that could not be had, as an error of a step on the device.
fn no_image(error: TrainingError) -> candle_core::Error {
    candle_core::Error::Msg(error.to_string())
}

/// The chosen images, the share of them altered that the settings ask for; `None` where the
/// settings ask for none.
fn altered_images<'a>(
    settings: &ReconstructionSettings,
    images: &'a TrainingImages,
    chosen: &[usize],
    rng: impl Fn(u64) -> ChaCha8Rng,
) -> Result<Option<Vec<Cow<'a, InputImage>>>> {
    if settings.recipe.data.altered_share == 0.0 {
        return Ok(None);
    }
    let side = settings.architecture.encoder.input_side;
    let mut given = images.images(chosen).map_err(no_image)?;
    for (item, image) in given.iter_mut().enumerate() {
        let mut rng = rng(item as u64);
        if rng.random_bool(settings.recipe.data.altered_share) {
            let own = Canvas::from_normalised(&image.values, side);
            let failure = RefCell::new(None);
            let donor = |rng: &mut ChaCha8Rng| {
                let index = rng.random_range(0..images.len());
                let canvas = |donor: &InputImage| Canvas::from_normalised(&donor.values, side);
                let donor = images.image(index).map(|donor| canvas(&donor));
                donor.unwrap_or_else(|error| {
                    failure.replace(Some(error));
                    own.clone()
                })
            };
            image.to_mut().values = alter(&mut rng, &own, donor).canvas.normalised();
            if let Some(error) = failure.into_inner() {
                return Err(no_image(error));
            }
        }
    }
    Ok(Some(given))
}

/// Sets the whitening from the features of evenly chosen images.
fn fit_whitening(
    settings: &ReconstructionSettings,
    images: &TrainingImages,
    builders: &Builders<'_>,
) -> Result<()> {
    let encoder = &settings.architecture.encoder;
    let network = builders.network(&settings.architecture)?;
    let mut statistics = FeatureStatistics::new(encoder.width, encoder.leading_tokens());
    let stride = images.len().div_ceil(WHITENING_IMAGES);
    for index in (0..images.len()).step_by(stride) {
        let image = images.image(index).map_err(no_image)?;
        let batch = stack(&[image], encoder.input_side, builders.device)?;
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
        images: &'a TrainingImages,
        side: usize,
    },
}

impl<'a> Source<'a> {
    fn new(
        settings: &ReconstructionSettings,
        images: &'a TrainingImages,
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
        let encode = |chosen: &[usize]| -> Result<Vec<[Tensor; 2]>> {
            let one = |&index: &usize| {
                let image = images.image(index).map_err(no_image)?;
                let batch = stack(&[image], side, builders.device)?;
                let groups = network.encode(&batch, Mode::Inference)?;
                Ok([groups.shallow, groups.deep])
            };
            chosen.iter().map(one).collect()
        };
        let all: Vec<usize> = (0..images.len()).collect();
        let parts: Vec<Result<Vec<[Tensor; 2]>>> = std::thread::scope(|scope| {
            let encode = &encode;
            let threads: Vec<_> = all
                .chunks(share)
                .map(|chosen| scope.spawn(move || encode(chosen)))
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
                let chosen = images.images(chosen).map_err(no_image)?;
                network.encode(&stack(&chosen, *side, device)?, Mode::Train)
            }
        }
    }
}

/// Prepared images as one tensor `[images, 3, side, side]`.
pub(crate) fn stack<I: Borrow<InputImage>>(
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

#[cfg(test)]
#[path = "reconstruction_tests.rs"]
mod tests;
