//! The prior before the frozen encoder: weighs channels and places of the image (SFE).
//!
//! With so few numbers to learn it cannot wash the image out, and the targets are detached. Two
//! forms: `literal` follows the published formulas, which halve the image twice; `calibrated`
//! keeps the same two attentions but starts near the identity, stays within fixed bounds and
//! measures the spatial weight against its mean.

use candle_core::{D, DType, Result, Tensor, Var};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;
use serde::{Deserialize, Serialize};

use super::super::layers::Mode;
use super::super::tensors::{Initial, TensorSpecs};

/// Batch norm, as torch has it.
const NORM_EPSILON: f64 = 1e-5;
const NORM_MOMENTUM: f64 = 0.1;
/// First strength of both attentions of the calibrated form: near the identity, yet with a
/// gradient.
const INITIAL_STRENGTH: f32 = 0.1;
/// The mean of a normalised image may be zero and it divides. Its values have a deviation near
/// one, so a mean below this says nothing about the image.
const MEAN_GUARD: f64 = 0.1;
/// The same guard for the sum over all places in the literal form.
const SUM_GUARD: f64 = 1e-6;

/// Whether and how the image is weighed before the encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorMode {
    /// The image goes to the encoder as it is, and encoder outputs may be cached.
    #[default]
    Off,
    /// The published formulas as they stand.
    Literal,
    /// Near the identity at first, bounded.
    Calibrated,
}

/// The prior and its batch norm.
#[derive(Clone, Debug)]
pub(crate) struct Prior {
    gamma: Tensor,
    running_mean: Var,
    running_variance: Var,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Literal,
    Calibrated {
        shift: Tensor,
        channel_strength: Tensor,
        spatial_strength: Tensor,
    },
}

impl Prior {
    pub(crate) fn tensors(mode: PriorMode) -> TensorSpecs {
        let mut specs = TensorSpecs::default();
        if mode == PriorMode::Off {
            return specs;
        }
        specs.add("gamma", &[3], Initial::Constant(1.));
        specs.add("running_mean", &[3], Initial::Constant(0.));
        specs.add("running_variance", &[3], Initial::Constant(1.));
        if mode == PriorMode::Calibrated {
            specs.add("shift", &[3], Initial::Constant(0.));
            specs.add(
                "channel_strength",
                &[1],
                Initial::Constant(INITIAL_STRENGTH),
            );
            specs.add(
                "spatial_strength",
                &[1],
                Initial::Constant(INITIAL_STRENGTH),
            );
        }
        specs
    }

    /// `None` when the prior is off.
    pub(crate) fn new(mode: PriorMode, weights: VarBuilder<'_>) -> Result<Option<Self>> {
        let form = match mode {
            PriorMode::Off => return Ok(None),
            PriorMode::Literal => Form::Literal,
            PriorMode::Calibrated => Form::Calibrated {
                shift: weights.get(3, "shift")?,
                channel_strength: weights.get(1, "channel_strength")?,
                spatial_strength: weights.get(1, "spatial_strength")?,
            },
        };
        Ok(Some(Self {
            gamma: weights.get(3, "gamma")?,
            // A tensor that is a variable already is shared, so a trainer saves what is updated here.
            running_mean: Var::from_tensor(&weights.get(3, "running_mean")?)?,
            running_variance: Var::from_tensor(&weights.get(3, "running_variance")?)?,
            form,
        }))
    }

    /// `[batch, 3, side, side]` to the same shape. In training the running statistics move.
    pub(crate) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let normalised = self.normalise(images, mode)?;
        let magnitude = self.gamma.abs()?;
        let share = magnitude.broadcast_div(&magnitude.sum_keepdim(0)?)?;
        let share = per_channel(&share)?;
        match &self.form {
            Form::Literal => literal(images, &normalised.broadcast_mul(&share)?),
            Form::Calibrated {
                shift,
                channel_strength,
                spatial_strength,
            } => {
                let normalised = normalised.broadcast_add(&per_channel(shift)?)?;
                let channel = gate(&normalised.broadcast_mul(&share)?, channel_strength)?;
                let weighed = (images * channel)?;
                let place = relative_places(&weighed)?;
                let spatial = gate(&weighed.broadcast_mul(&place)?, spatial_strength)?;
                weighed * spatial
            }
        }
    }

    /// Batch norm scaled by gamma, without shift.
    fn normalise(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let (mean, variance) = match mode {
            Mode::Inference => (
                self.running_mean.as_tensor().clone(),
                self.running_variance.as_tensor().clone(),
            ),
            Mode::Train => self.batch_statistics(images)?,
        };
        let scale = self.gamma.div(&(variance + NORM_EPSILON)?.sqrt()?)?;
        images
            .broadcast_sub(&per_channel(&mean)?)?
            .broadcast_mul(&per_channel(&scale)?)
    }

    /// Mean and biased variance of the batch, as constants; the unbiased variance is remembered.
    fn batch_statistics(&self, images: &Tensor) -> Result<(Tensor, Tensor)> {
        let values = images.detach().transpose(0, 1)?.flatten_from(1)?;
        let count = values.dim(1)? as f64;
        let mean = values.mean_keepdim(1)?;
        let variance = values.broadcast_sub(&mean)?.sqr()?.mean(1)?;
        let mean = mean.squeeze(1)?;
        let unbiased = (&variance * (count / (count - 1.).max(1.)))?;
        remember(&self.running_mean, &mean)?;
        remember(&self.running_variance, &unbiased)?;
        Ok((mean, variance))
    }
}

fn remember(running: &Var, batch: &Tensor) -> Result<()> {
    let old = running.as_tensor().detach();
    running.set(&((old * (1. - NORM_MOMENTUM))? + (batch * NORM_MOMENTUM)?)?)
}

fn per_channel(values: &Tensor) -> Result<Tensor> {
    values.reshape((1, 3, 1, 1))
}

/// `sigmoid(beta * c) * c` with `c = sigmoid(alpha * norm) * x` and `beta = mean(c) / sum`.
fn literal(images: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let weighed = (images * sigmoid(logits)?)?;
    let means = weighed.mean_keepdim(1)?;
    let sums = means.sum_keepdim((2, 3))?;
    let places = means.broadcast_div(&away_from_zero(&sums, SUM_GUARD)?)?;
    sigmoid(&weighed.broadcast_mul(&places)?)? * weighed
}

/// `1 + tanh(strength) * (2 sigmoid(logits) - 1)`: between zero and two.
fn gate(logits: &Tensor, strength: &Tensor) -> Result<Tensor> {
    let centred = sigmoid(logits)?.affine(2., -1.)?;
    let strength = strength.tanh()?.reshape((1, 1, 1, 1))?;
    centred.broadcast_mul(&strength)?.affine(1., 1.)
}

/// The mean over channels at each place, in units of its mean over all places.
fn relative_places(images: &Tensor) -> Result<Tensor> {
    let means = images.mean_keepdim(1)?;
    let overall = means.mean_keepdim(D::Minus1)?.mean_keepdim(D::Minus2)?;
    means.broadcast_div(&away_from_zero(&overall, MEAN_GUARD)?)
}

/// The same value with a magnitude of at least `guard`, sign kept.
fn away_from_zero(values: &Tensor, guard: f64) -> Result<Tensor> {
    let sign = values.ge(0.)?.to_dtype(DType::F32)?.affine(2., -1.)?;
    let magnitude = values.abs()?.maximum(guard)?;
    magnitude * sign.detach()
}
