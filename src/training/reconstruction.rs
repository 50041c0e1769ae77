//! Training of the network on good parts: the decoder learns to rebuild the encoder's features.
//!
//! Where nothing before the encoder is trained, and memory allows, its features are computed once
//! and kept, so that an iteration costs the decoder alone.

mod features;
mod images;
mod known;
mod task;
mod units;

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};

use self::features::{Builders, Features, fit_whitening};
use self::task::{Ground, Reconstruction, all_tensors};
use self::units::{Unit, held_out, units};
use super::dataset::TrainingImages;
use super::encoder_file::Encoder;
use super::history::{History, HistoryRow, LabelledFigures};
use super::iteration::{CheckpointSettings, Plan};
use super::recipe::{Recipe, Weights};
use super::sampling::Order;
use super::settings::{RunSettings, add_settings};
use super::{TrainingError, at_least_one, parameters, tensor_digest};
use crate::model::mvmcad::{MvmcadConfig, PriorMode};

/// Settings of a training run.
#[derive(Clone, Debug)]
pub struct ReconstructionSettings {
    /// The network.
    pub architecture: MvmcadConfig,
    /// What decides the result.
    pub recipe: Recipe,
    /// Threads that share the batch on the CPU; other devices are fed by the caller's alone.
    pub threads: usize,
    /// Memory for the encoder's features on the device, in bytes; where they do not fit, each
    /// iteration computes its own anew.
    pub cache_bytes: u64,
    /// Checkpoints.
    pub checkpoint: CheckpointSettings,
}

/// Every tensor of a network, by the names of [`MvmcadConfig::tensors`], and what it
/// keeps of good parts: [expected maps](crate::model::expected), a [memory](crate::model::memory).
pub type Tensors = HashMap<String, Tensor>;

/// Who watches a run. `()` does not.
pub trait Observer {
    /// A row of the history is done.
    fn row(&mut self, row: &HistoryRow) {
        let _ = row;
    }

    /// Whether there are labelled parts to judge weights by.
    fn judges(&self) -> bool {
        false
    }

    /// Which labelled parts these are, as text: a run is only gone on with by the same.
    fn labelled_parts(&self) -> String {
        "none".to_owned()
    }

    /// Figures of weights on labelled parts.
    ///
    /// # Errors
    /// When the parts cannot be read or the device fails; this ends the run.
    fn judge(&mut self, tensors: Tensors) -> std::result::Result<LabelledFigures, String> {
        drop(tensors);
        Ok(LabelledFigures::default())
    }
}

impl Observer for () {}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The weights.
    pub tensors: Tensors,
    /// Iterations done when the weights had these values.
    pub iteration: u64,
    /// What the run has gone through.
    pub history: History,
}

impl ReconstructionSettings {
    /// Checks all settings against each other and against the device; needs no data.
    ///
    /// # Errors
    /// Names the key that breaks a rule.
    pub fn validate(&self, device: &Device) -> std::result::Result<(), TrainingError> {
        self.architecture
            .validate()
            .map_err(TrainingError::Setting)?;
        at_least_one("threads", self.threads as u64)?;
        let precision = self.recipe.run.precision.dtype();
        if precision != DType::F32 && device.is_cpu() {
            return Err(TrainingError::Setting(format!(
                "`run.precision` must be `f32` on the CPU, found `{}`",
                precision.as_str()
            )));
        }
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
        (images * encoder.tokens() * encoder.width * 2 * size_of::<f32>()) as u64
    }

    /// Everything that decides what becomes of the run.
    fn run_settings(
        &self,
        encoder: &Encoder,
        images: &TrainingImages,
        labelled: String,
    ) -> Result<RunSettings> {
        let Recipe {
            input,
            loss,
            maps,
            data,
            optimiser,
            run,
            validation,
            ..
        } = &self.recipe;
        let mut settings = RunSettings::new();
        add_settings(&mut settings, "network", &self.architecture);
        // The other keys of the input are the network's encoder by now.
        let side = self.architecture.encoder.input_side;
        add_settings(&mut settings, "input.resize", &input.resize_for(side));
        add_settings(&mut settings, "input.map_side", &input.map_side_for(side));
        add_settings(&mut settings, "loss", loss);
        add_settings(&mut settings, "maps", maps);
        add_settings(&mut settings, "data", data);
        add_settings(&mut settings, "optimiser", optimiser);
        add_settings(&mut settings, "run", run);
        add_settings(&mut settings, "validation", validation);
        let weights = format!("digest {:016x}", tensor_digest(&encoder.tensors)?);
        settings.insert("encoder weights".to_owned(), weights);
        let (count, digest) = (images.len(), images.digest());
        let text = format!("{count} with digest {digest:016x}");
        settings.insert("images".to_owned(), text);
        settings.insert("labelled parts".to_owned(), labelled);
        Ok(settings)
    }

    /// `images` is the mean number of images an iteration.
    fn plan(&self, settings: RunSettings, images: f64) -> Plan<'_> {
        let validation = &self.recipe.validation;
        Plan {
            optimiser: self.recipe.optimiser(),
            schedule: self.recipe.schedule(),
            settings,
            checkpoint: &self.checkpoint,
            images,
            details: &[],
            validate_every: validation.every,
            keep_best: validation.weights == Weights::Best,
        }
    }
}

/// Trains on good parts.
///
/// # Errors
/// When a setting, the data, the checkpoint or the device is at fault, the loss diverges, or the
/// run is asked to stop ([`TrainingError::Interrupted`]).
pub fn reconstruct(
    settings: &ReconstructionSettings,
    encoder: &Encoder,
    images: &TrainingImages,
    device: &Device,
    observer: &mut dyn Observer,
) -> std::result::Result<Trained, TrainingError> {
    settings.validate(device)?;
    at_least_one("images", images.len() as u64)?;
    if settings.checkpoint.stop.is_requested() {
        return Err(TrainingError::InterruptedEarly);
    }
    let run = &settings.recipe.run;
    let specs = settings.architecture.trainable_tensors();
    let parameters = parameters(&specs.initial_variables(run.seed, device)?);
    let builders = Builders::new(encoder, run.precision.dtype(), &parameters, device)?;
    let (units, held_out) = divide(settings, images, observer.judges())?;
    let trained_on: Vec<usize> = units.iter().flat_map(|unit| unit.images.clone()).collect();
    let classes: Vec<usize> = units.iter().map(|unit| unit.class).collect();
    let images_a_unit = trained_on.len() as f64 / units.len() as f64;
    let batch = units_a_batch(run.batch, images_a_unit);
    let run_settings = settings.run_settings(encoder, images, observer.labelled_parts())?;
    let plan = settings.plan(run_settings, batch as f64 * images_a_unit);
    let state = plan.start(&parameters, device)?;
    if settings.architecture.whitening && state.iteration == 0 {
        fit_whitening(settings, images, &trained_on, &builders)?;
    }
    let mut task = Reconstruction {
        batch,
        order: Order::new(settings.recipe.data.sampling, &classes, run.seed),
        ground: Ground {
            settings,
            images,
            features: Features::new(settings, images, &builders, &settings.checkpoint.stop)?,
            builders: &builders,
            trained_on,
        },
        encoder,
        units,
        held_out,
        observer,
    };
    let finished = plan.run(state, &parameters, &mut task)?;
    let mut iteration = run.iterations;
    if let Some(best) = finished.best {
        iteration = best.iteration;
        for (name, tensor) in &best.tensors {
            if let Some(parameter) = parameters.get(name) {
                parameter.set(tensor)?;
            }
        }
    }
    let mut tensors = all_tensors(&parameters, encoder);
    tensors.extend(task.ground.known(&task.units)?);
    Ok(Trained {
        tensors,
        iteration,
        history: finished.history,
    })
}

/// What is trained on, and what is held out.
fn divide(
    settings: &ReconstructionSettings,
    images: &TrainingImages,
    has_labelled: bool,
) -> std::result::Result<(Vec<Unit>, Vec<Unit>), TrainingError> {
    let validation = &settings.recipe.validation;
    let parts = images.parts();
    let all = units(parts, settings.architecture.mixes_views());
    if validation.every == 0 {
        return Ok((all, Vec::new()));
    }
    let is_held_out = held_out(parts, validation.share, settings.recipe.run.seed);
    let (held, trained): (Vec<Unit>, Vec<Unit>) =
        all.into_iter().partition(|unit| is_held_out[unit.part]);
    if held.is_empty() && !has_labelled {
        return Err(TrainingError::Setting(format!(
            "`validation.every` needs parts to validate on: no class is large enough for \
             `validation.share` `{}` to hold one out, and no labelled parts are given",
            validation.share
        )));
    }
    Ok((trained, held))
}

/// The number of units whose images are nearest to `images`, at least one.
fn units_a_batch(images: usize, images_a_unit: f64) -> usize {
    ((images as f64 / images_a_unit).round() as usize).max(1)
}

#[cfg(test)]
mod tests;
