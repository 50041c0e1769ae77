//! Pretraining of a small encoder from scratch, on formula images and on unlabelled good parts.
//!
//! No weights of others are needed: the encoder learns from [`super::pretext`]'s two questions.
//! The question about alteration is asked of the very features that the anomaly model compares
//! (the means of the two halves of the target blocks), so that an irregularity moves them.

use candle_core::{D, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::canvas::Canvas;
use super::encoder_file::Encoder;
use super::history::HistoryRow;
use super::iteration::{CheckpointSettings, Plan, Task};
use super::optimiser::{OptimiserSettings, Parameters, Schedule};
use super::parallel::{ShardLoss, StepGradients, shard_gradients};
use super::pretext::{Example, PretextSettings, example};
use super::settings::{RunSettings, add_settings};
use super::{
    TrainingError, at_least_one, builder, digest, item_rng, parameters, share, tensor_digest,
    values,
};
use crate::model::Mode;
use crate::model::tensors::{Initial, TensorSpecs};
use crate::model::vit::{Vit, VitConfig};

/// Altered patches are rare: their share of the loss is raised by this factor.
const ALTERED_WEIGHT: f64 = 3.0;
/// Images of one shard: few enough that their features stay in the processor's cache.
const SHARD: usize = 4;
/// Prefixes of the two kinds of parameters.
const ENCODER: &str = "encoder.";
const HEAD: &str = "head.";

/// Which questions the pretext task asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pretext {
    /// Pixels of hidden patches, and which patches have been altered.
    Both,
    /// Only the pixels of hidden patches.
    Hidden,
    /// Only which patches have been altered.
    Altered,
}

/// Settings of a pretraining run.
#[derive(Clone, Debug)]
pub struct PretrainingSettings {
    /// The encoder.
    pub encoder: VitConfig,
    /// The questions.
    pub pretext: Pretext,
    /// Weight of the pixel question against the alteration question.
    pub pixel_weight: f64,
    /// Share of the images taken from the given ones.
    pub given_share: f64,
    /// Iterations.
    pub iterations: u64,
    /// Images an iteration.
    pub batch: usize,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Iterations of the warm-up.
    pub warm_up: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads that share the batch on the CPU; other devices are fed by the caller's alone.
    pub threads: usize,
    /// Checkpoints.
    pub checkpoint: CheckpointSettings,
}

impl PretrainingSettings {
    /// Checks all settings; needs no data.
    ///
    /// # Errors
    /// Names the key that breaks a rule.
    pub fn validate(&self) -> std::result::Result<(), TrainingError> {
        self.encoder.validate().map_err(TrainingError::Setting)?;
        if self.encoder.position_side != self.encoder.grid() {
            let (grid, found) = (self.encoder.grid(), self.encoder.position_side);
            let rule = format!("`position_side` must be the grid `{grid}`, found `{found}`");
            return Err(TrainingError::Setting(rule));
        }
        let targets = self.encoder.targets.len();
        if !targets.is_multiple_of(2) {
            // The two halves are what the questions are asked of, and what `train` compares.
            let rule = "`targets` must be an even number of blocks";
            return Err(TrainingError::Setting(format!("{rule}, found `{targets}`")));
        }
        at_least_one("batch", self.batch as u64)?;
        at_least_one("threads", self.threads as u64)?;
        at_least_one("iterations", self.iterations)?;
        let rate = self.learning_rate;
        if !rate.is_finite() || rate <= 0.0 {
            let rule = "`learning_rate` must be above 0 and finite";
            return Err(TrainingError::Setting(format!("{rule}, found `{rate}`")));
        }
        let weight = self.pixel_weight;
        if !weight.is_finite() || weight < 0.0 {
            let rule = "`pixel_weight` must be at least 0 and finite";
            return Err(TrainingError::Setting(format!("{rule}, found `{weight}`")));
        }
        if self.warm_up >= self.iterations {
            return Err(TrainingError::Setting(format!(
                "`warm_up` must be below `iterations` `{}`, found `{}`",
                self.iterations, self.warm_up
            )));
        }
        share("images_share", self.given_share)
    }

    fn pretext_settings(&self) -> PretextSettings {
        PretextSettings {
            side: self.encoder.input_side,
            patch: self.encoder.patch,
            altered_share: if self.pretext == Pretext::Hidden {
                0.0
            } else {
                0.85
            },
            hidden_share: match self.pretext {
                Pretext::Both => 0.5,
                Pretext::Hidden => 1.0,
                Pretext::Altered => 0.0,
            },
            hidden_patches: 0.4,
            given_share: self.given_share,
        }
    }

    /// What must be equal for a checkpoint to be taken up.
    fn run_settings(&self, given: &[Canvas], first: Option<&Encoder>) -> Result<RunSettings> {
        let images = digest(given.iter().map(|canvas| canvas.values.as_slice()));
        let mut settings = RunSettings::new();
        add_settings(&mut settings, "encoder", &self.encoder);
        add_settings(&mut settings, "pretext", &self.pretext);
        let numbers = [
            ("pixel_weight", self.pixel_weight.to_string()),
            ("images_share", self.given_share.to_string()),
            (
                "images",
                format!("{} with digest {images:016x}", given.len()),
            ),
            ("iterations", self.iterations.to_string()),
            ("batch", self.batch.to_string()),
            ("learning_rate", self.learning_rate.to_string()),
            ("warm_up", self.warm_up.to_string()),
            ("seed", self.seed.to_string()),
        ];
        settings.extend(numbers.map(|(key, value)| (key.to_owned(), value)));
        let first = match first {
            None => "random".to_owned(),
            Some(first) => format!("{:016x}", tensor_digest(&first.tensors)?),
        };
        settings.insert("first_weights".to_owned(), first);
        Ok(settings)
    }
}

/// Puts an encoder's weights into the parameters.
fn take_weights(
    parameters: &Parameters,
    settings: &PretrainingSettings,
    first: &Encoder,
) -> std::result::Result<(), TrainingError> {
    if first.config != settings.encoder {
        let (expected, found) = (&settings.encoder, &first.config);
        let rule = format!("`init`: expected an encoder of `{expected:?}`, found `{found:?}`");
        return Err(TrainingError::Setting(rule));
    }
    for (name, weights) in &first.tensors {
        if let Some(variable) = parameters.get(&format!("{ENCODER}{name}")) {
            variable.set(weights)?;
        }
    }
    Ok(())
}

/// What is trained beside the encoder, and thrown away afterwards.
fn head_tensors(encoder: &VitConfig) -> TensorSpecs {
    let weight = Initial::TruncatedNormal {
        deviation: 0.02,
        limit: 0.06,
    };
    let pixels = 3 * encoder.patch * encoder.patch;
    let mut specs = TensorSpecs::default();
    specs.add("hidden_token", &[1, 1, encoder.width], weight);
    for judge in ["judge.shallow", "judge.deep", "judge.last"] {
        specs.add_norm(&format!("{judge}.norm"), encoder.width);
        specs.add_linear(judge, encoder.width, 1, weight);
    }
    specs.add_norm("painter.norm", encoder.width);
    specs.add_linear("painter", encoder.width, pixels, weight);
    specs
}

/// A pretrained encoder's tensors, by the names of [`VitConfig::tensors`].
pub type EncoderTensors = std::collections::BTreeMap<String, Tensor>;

/// Runs pretraining, from random weights or from those of `first`, whose architecture must be the
/// settings'; `report` is called with the iteration and the running means of the loss, of
/// the alteration loss and of the pixel loss.
///
/// # Errors
/// When a setting, the checkpoint or the device is at fault, or the loss diverges.
pub fn pretrain(
    settings: &PretrainingSettings,
    given: &[Canvas],
    first: Option<&Encoder>,
    device: &Device,
    mut report: impl FnMut(u64, &[f64]),
) -> std::result::Result<EncoderTensors, TrainingError> {
    settings.validate()?;
    let mut specs = TensorSpecs::default();
    specs.extend("encoder", settings.encoder.tensors());
    specs.extend("head", head_tensors(&settings.encoder));
    let parameters = parameters(&specs.initial_variables(settings.seed, device)?);
    if let Some(first) = first {
        take_weights(&parameters, settings, first)?;
    }
    let network = Pretrainer::new(&settings.encoder, &parameters, device)?;
    let plan = Plan {
        optimiser: OptimiserSettings::pretraining(),
        schedule: Schedule {
            peak: settings.learning_rate,
            last: settings.learning_rate * 0.01,
            warm_up: settings.warm_up,
            iterations: settings.iterations,
        },
        settings: settings.run_settings(given, first)?,
        checkpoint: &settings.checkpoint,
        images: settings.batch as f64,
        details: &["altered", "pixels"],
        validate_every: 0,
        keep_best: false,
    };
    let mut task = Pretraining {
        settings,
        given,
        network,
        parameters: &parameters,
        device,
        report: &mut report,
    };
    let state = plan.start(&parameters, device)?;
    plan.run(state, &parameters, &mut task)?;
    Ok(values(&parameters, ENCODER))
}

struct Pretraining<'a> {
    settings: &'a PretrainingSettings,
    given: &'a [Canvas],
    network: Pretrainer,
    parameters: &'a Parameters,
    device: &'a Device,
    report: &'a mut dyn FnMut(u64, &[f64]),
}

impl Task for Pretraining<'_> {
    fn step(&mut self, iteration: u64) -> std::result::Result<StepGradients, TrainingError> {
        let (network, settings, device) = (&self.network, self.settings, self.device);
        let shards = shards(settings, self.given, iteration, |examples| {
            network.loss(&examples, settings, device)
        });
        let threads = settings.threads;
        Ok(shard_gradients(self.parameters, device, threads, shards)?)
    }

    fn report(&mut self, row: &HistoryRow, means: &[f64]) {
        (self.report)(row.iteration, means);
    }
}

/// One job a shard: draw its examples, compute their loss.
fn shards<'a>(
    settings: &'a PretrainingSettings,
    given: &'a [Canvas],
    iteration: u64,
    loss: impl Fn(Vec<Example>) -> Result<ShardLoss> + Copy + Send + 'a,
) -> Vec<impl FnOnce() -> Result<ShardLoss> + Send + 'a> {
    let pretext = settings.pretext_settings();
    let batch = settings.batch as u64;
    (0..batch)
        .step_by(SHARD)
        .map(|first| {
            move || {
                let items = first..batch.min(first + SHARD as u64);
                let examples = items.map(|item| {
                    let mut rng = item_rng(settings.seed, iteration, item);
                    example(&mut rng, &pretext, given)
                });
                loss(examples.collect())
            }
        })
        .collect()
}

/// A norm and a linear layer, for a question.
struct Question {
    norm: [Tensor; 2],
    linear: [Tensor; 2],
}

impl Question {
    fn new(name: &str, parameters: &Parameters) -> Result<Self> {
        let get = |part: &str| tensor(parameters, &format!("{HEAD}{name}.{part}"));
        Ok(Self {
            norm: [get("norm.weight")?, get("norm.bias")?],
            linear: [get("weight")?, get("bias")?],
        })
    }

    fn answer(&self, features: &Tensor) -> Result<Tensor> {
        let [weight, bias] = &self.norm;
        let normed = crate::model::kernels::layer_norm(features, weight, bias, 1e-6)?;
        let [weight, bias] = &self.linear;
        crate::model::kernels::linear(&normed, weight, bias)
    }
}

fn tensor(parameters: &Parameters, name: &str) -> Result<Tensor> {
    match parameters.get(name) {
        Some(var) => Ok(var.as_tensor().clone()),
        None => candle_core::bail!("parameter `{name}` is missing"),
    }
}

/// The encoder with its questions.
struct Pretrainer {
    encoder: Vit,
    hidden_token: Tensor,
    judges: [Question; 3],
    painter: Question,
}

impl Pretrainer {
    fn new(config: &VitConfig, parameters: &Parameters, device: &Device) -> Result<Self> {
        Ok(Self {
            encoder: Vit::new(config, builder(parameters, ENCODER, device))?,
            hidden_token: tensor(parameters, "head.hidden_token")?,
            judges: [
                Question::new("judge.shallow", parameters)?,
                Question::new("judge.deep", parameters)?,
                Question::new("judge.last", parameters)?,
            ],
            painter: Question::new("painter", parameters)?,
        })
    }

    fn loss(
        &self,
        examples: &[Example],
        settings: &PretrainingSettings,
        device: &Device,
    ) -> Result<ShardLoss> {
        let config = &settings.encoder;
        let batch = examples.len();
        let patches = config.grid() * config.grid();
        let stack = |part: fn(&Example) -> &Vec<f32>, dims: Vec<usize>| {
            let values: Vec<f32> = examples
                .iter()
                .flat_map(|e| part(e).iter().copied())
                .collect();
            Tensor::from_vec(values, dims, device)
        };
        let side = config.input_side;
        let images = stack(|e| &e.image, vec![batch, 3, side, side])?;
        let hidden = stack(|e| &e.hidden, vec![batch, patches, 1])?;
        let altered = stack(|e| &e.altered, vec![batch, patches])?;
        let judged = stack(|e| &e.judged, vec![batch, patches])?;
        let groups = self.features(&images, &hidden, config)?;

        let mut judging = Tensor::zeros((), candle_core::DType::F32, device)?;
        for (judge, features) in self.judges.iter().zip(&groups) {
            let loss = judge_loss(
                &judge.answer(features)?.squeeze(D::Minus1)?,
                &altered,
                &judged,
            )?;
            judging = (judging + (loss * (1.0 / 3.0))?)?;
        }
        let pixels = stack(
            |e| &e.pixels,
            vec![batch, patches, 3 * config.patch * config.patch],
        )?;
        let errors = (self.painter.answer(&groups[2])? - pixels)?
            .sqr()?
            .mean(D::Minus1)?;
        let asked = hidden.squeeze(D::Minus1)?;
        let pretext = settings.pretext_settings();
        let expected = pretext.hidden_share * pretext.hidden_patches * altered.elem_count() as f64;
        let painting = ((errors * asked)?.sum_all()? * (1.0 / expected.max(1.0)))?;
        let loss = match settings.pretext {
            Pretext::Both => (&judging + (&painting * settings.pixel_weight)?)?,
            Pretext::Hidden => painting.clone(),
            Pretext::Altered => judging.clone(),
        };
        let details = vec![
            f64::from(judging.to_scalar::<f32>()?),
            f64::from(painting.to_scalar::<f32>()?),
        ];
        Ok(ShardLoss {
            loss,
            details,
            items: batch,
        })
    }

    /// Patch features: the mean of the first and of the second half of the targets, the last.
    fn features(
        &self,
        images: &Tensor,
        hidden: &Tensor,
        config: &VitConfig,
    ) -> Result<[Tensor; 3]> {
        let tokens = self
            .encoder
            .embed_hiding(images, hidden, &self.hidden_token)?;
        let outputs = self.encoder.encode(&tokens, Mode::Train)?;
        let patches = |tokens: &Tensor| {
            let leading = config.leading_tokens();
            tokens
                .narrow(1, leading, tokens.dim(1)? - leading)?
                .contiguous()
        };
        let mean = |tensors: &[Tensor]| -> Result<Tensor> {
            let mut sum = tensors[0].clone();
            for tensor in &tensors[1..] {
                sum = (sum + tensor)?;
            }
            patches(&(sum * (1.0 / tensors.len() as f64))?)
        };
        let (shallow, deep) = outputs.split_at(outputs.len() / 2);
        let last = patches(&outputs[outputs.len() - 1])?;
        Ok([mean(shallow)?, mean(deep)?, last])
    }
}

/// Cross-entropy of "altered" with logits, over the judged patches.
fn judge_loss(logits: &Tensor, altered: &Tensor, judged: &Tensor) -> Result<Tensor> {
    let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let loss = (softplus - (logits * altered)?)?;
    let weights = (altered.affine(ALTERED_WEIGHT - 1.0, 1.0)? * judged)?;
    (loss * weights)?.mean_all()
}

#[cfg(test)]
#[path = "pretraining_tests.rs"]
mod tests;
