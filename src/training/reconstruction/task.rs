//! One run's steps and validations.

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use rand::Rng as _;

use super::super::dataset::{TrainingImages, TrainingPart};
use super::super::encoder_file::Encoder;
use super::super::history::{HistoryRow, LabelledFigures, Validation};
use super::super::iteration::Task;
use super::super::objective::left_aside;
use super::super::optimiser::Parameters;
use super::super::parallel::{ShardLoss, StepGradients, run_in_order, shard_gradients};
use super::super::sampling::Order;
use super::super::{TrainingError, item_rng, values};
use super::features::{Builders, Features};
use super::images::{Alteration, stack};
use super::units::{Shard, Unit, shards};
use super::{Observer, ReconstructionSettings};
use crate::model::Mode;
use crate::model::mvmcad::{GroupFeatures, PriorMode};

/// How many parts an error names.
const NAMED_PARTS: usize = 8;

/// What the threads of a step share.
pub(super) struct Ground<'a> {
    pub(super) settings: &'a ReconstructionSettings,
    pub(super) images: &'a TrainingImages,
    pub(super) builders: &'a Builders<'a>,
    pub(super) features: Features<'a>,
    /// Numbers of the images that are trained on.
    pub(super) trained_on: Vec<usize>,
}

/// A run's steps and validations.
pub(super) struct Reconstruction<'a> {
    pub(super) ground: Ground<'a>,
    pub(super) encoder: &'a Encoder,
    /// What is trained on.
    pub(super) units: Vec<Unit>,
    /// What is held out.
    pub(super) held_out: Vec<Unit>,
    pub(super) order: Order,
    /// Units an iteration.
    pub(super) batch: usize,
    pub(super) observer: &'a mut dyn Observer,
}

impl Task for Reconstruction<'_> {
    fn step(&mut self, iteration: u64) -> std::result::Result<StepGradients, TrainingError> {
        let Ground {
            settings, builders, ..
        } = self.ground;
        let chosen = self.order.batch(iteration, self.batch);
        let chosen = chosen.into_iter().map(|index| &self.units[index]);
        let shards = shards(chosen, settings.shard_limit());
        let ground = &self.ground;
        let mut first = 0;
        let jobs = shards
            .iter()
            .enumerate()
            .map(|(index, shard)| {
                let place = Place {
                    iteration,
                    shard: index,
                    first_item: first,
                };
                first += shard.images.len() as u64;
                move || ground.shard_loss(shard, place)
            })
            .collect();
        // A prior's running statistics must move in the order of the shards.
        let threads = match settings.architecture.prior {
            PriorMode::Off => settings.threads,
            _ => 1,
        };
        let step = shard_gradients(builders.parameters, builders.device, threads, jobs)?;
        if step.loss.is_finite() {
            return Ok(step);
        }
        Err(TrainingError::Diverged {
            what: "loss",
            value: step.loss,
            iteration,
            learning_rate: settings.recipe.schedule().rate(iteration),
            parts: name_parts(self.ground.images.parts(), &shards, &step.shard_losses),
        })
    }

    fn validate(&mut self) -> std::result::Result<Validation, TrainingError> {
        let distance = match self.held_out.is_empty() {
            true => None,
            false => Some(self.ground.mean_distance(&self.held_out)?),
        };
        let mut labelled = LabelledFigures::default();
        if self.observer.judges() {
            let tensors = all_tensors(self.ground.builders.parameters, self.encoder);
            let judged = self.observer.judge(tensors);
            labelled = judged.map_err(TrainingError::Validation)?;
        }
        Ok(Validation { distance, labelled })
    }

    fn report(&mut self, row: &HistoryRow, _: &[f64]) {
        self.observer.row(row);
    }
}

/// Where in a run a shard stands: its random numbers follow from it.
#[derive(Clone, Copy)]
struct Place {
    iteration: u64,
    shard: usize,
    /// Number of the shard's first image in the batch.
    first_item: u64,
}

impl Ground<'_> {
    fn shard_loss(&self, shard: &Shard, place: Place) -> Result<ShardLoss> {
        let Self {
            settings, builders, ..
        } = self;
        let (seed, iteration) = (settings.recipe.run.seed, place.iteration);
        let side = settings.architecture.encoder.input_side;
        let network = builders.network(&settings.architecture)?;
        network.reseed_dropout(dropout_seed(seed, iteration, place.shard));
        let wanted = self
            .features
            .groups(&network, &shard.images, builders.device, Mode::Train)?;
        let alteration = Alteration {
            share: settings.recipe.data.altered_share,
            side,
            donors: &self.trained_on,
        };
        let altered = alteration.apply(self.images, &shard.images, |item| {
            item_rng(seed, iteration, place.first_item + item)
        })?;
        let features = match altered {
            None => network.reconstruct(&wanted, &shard.views, Mode::Train)?,
            Some(altered) => {
                let altered = stack(&altered, side, builders.device)?;
                let given = network.encode(&altered, Mode::Train)?;
                network.restore(&given, &wanted, &shard.views, Mode::Train)?
            }
        };
        let loss = &settings.recipe.loss;
        Ok(ShardLoss {
            loss: loss
                .objective
                .loss(&features, left_aside(iteration, loss.ramp))?,
            details: Vec::new(),
            items: shard.images.len(),
        })
    }

    /// What `take` finds in the features of each shard of `units`, rebuilt without dropout.
    pub(super) fn rebuilt<'u, T: Send>(
        &self,
        units: impl IntoIterator<Item = &'u Unit>,
        take: impl Fn(&GroupFeatures) -> Result<T> + Sync,
    ) -> Result<Vec<(Shard, T)>> {
        let Self {
            settings, builders, ..
        } = self;
        let (device, mode) = (builders.device, Mode::Inference);
        let shards = shards(units, settings.recipe.run.micro_batch);
        let jobs = shards.iter().map(|shard| {
            let take = &take;
            move || {
                let network = builders.network(&settings.architecture)?;
                let groups = self
                    .features
                    .groups(&network, &shard.images, device, mode)?;
                take(&network.reconstruct(&groups, &shard.views, mode)?)
            }
        });
        let taken = run_in_order(device, settings.threads, jobs.collect())?;
        Ok(shards.into_iter().zip(taken).collect())
    }

    /// The mean distance at the patches of what is held out.
    fn mean_distance(&self, units: &[Unit]) -> Result<f64> {
        let mean = |features: &GroupFeatures| {
            let mean = features.anomalies()?.mean_all()?;
            Ok(f64::from(mean.to_scalar::<f32>()?))
        };
        let (mut sum, mut images) = (0.0, 0);
        for (shard, mean) in self.rebuilt(units, mean)? {
            sum += mean * shard.images.len() as f64;
            images += shard.images.len();
        }
        Ok(sum / images as f64)
    }
}

/// The end of a sentence: the parts of the shards whose loss is no number.
fn name_parts(parts: &[TrainingPart], shards: &[Shard], losses: &[f64]) -> String {
    let broken = shards.iter().zip(losses);
    let broken = broken.filter(|(_, loss)| !loss.is_finite());
    let mut numbers: Vec<usize> = broken.flat_map(|(shard, _)| shard.parts.clone()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let name = |&number: &usize| format!("`{}/{}`", parts[number].class, parts[number].part);
    let names: Vec<String> = numbers.iter().take(NAMED_PARTS).map(name).collect();
    let more = match numbers.len().saturating_sub(NAMED_PARTS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(", on the parts {}{more}", names.join(", "))
}

fn dropout_seed(seed: u64, iteration: u64, shard: usize) -> u64 {
    // Beyond every item of a batch, so that no other use shares these numbers.
    item_rng(seed, iteration, (1 << 32) + shard as u64).random()
}

/// Every tensor of the network at its present values.
pub(super) fn all_tensors(parameters: &Parameters, encoder: &Encoder) -> HashMap<String, Tensor> {
    let mut tensors: HashMap<String, Tensor> = values(parameters, "").into_iter().collect();
    for (name, tensor) in &encoder.tensors {
        tensors.insert(format!("encoder.{name}"), tensor.clone());
    }
    tensors
}
