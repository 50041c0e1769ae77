//! The anomaly amplification between bottleneck and decoder (AAM).
//!
//! Attention mixes the tokens; then each head's tokens are weighed by how much they stand out
//! among all tokens, and channels with a high second moment are damped, as in token-statistics
//! attention (Wu et al., "Token Statistics Transformer"): softmax over heads, weights normalised
//! over tokens. Published formulas leave the place and a residual open; see [`Amplification`].

use candle_core::{D, Module, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::super::layers::{Heads, LayerNorm, Linear, Mode, linear, merge_heads};
use super::super::tensors::{Initial, TensorSpecs};
use super::{INITIAL_WEIGHT, NORM_EPSILON};

/// Keeps the norm over tokens from dividing by zero: the square of torch's 1e-12.
const SQUARED_NORM_GUARD: f64 = 1e-24;
/// Keeps the sum of weights from dividing by zero, as in the reference.
const WEIGHT_GUARD: f64 = 1e-8;

/// Whether and where amplification takes place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amplification {
    /// The bottleneck's output goes to the decoder as it is.
    Off,
    /// `b + amplification(norm(b))` of the bottleneck's output `b`. Without the residual all
    /// tokens would look alike to the decoder, which has no positions.
    #[default]
    After,
    /// In place of the bottleneck's MLP, its dropout kept, without residual.
    Replace,
}

/// The amplification layer.
#[derive(Clone, Debug)]
pub(crate) struct AmplificationLayer {
    norm: Option<LayerNorm>,
    qkv: Linear,
    mix: Linear,
    temperature: Tensor,
    output: Linear,
    heads: usize,
}

impl AmplificationLayer {
    pub(crate) fn tensors(mode: Amplification, width: usize, heads: usize) -> TensorSpecs {
        let mut specs = TensorSpecs::default();
        if mode == Amplification::Off {
            return specs;
        }
        if mode == Amplification::After {
            specs.add_norm("norm", width);
        }
        specs.add_linear("qkv", width, 3 * width, INITIAL_WEIGHT);
        specs.add_linear("mix", width, width, INITIAL_WEIGHT);
        specs.add("temperature", &[heads], Initial::Constant(1.));
        specs.add_linear("output", width, width, INITIAL_WEIGHT);
        specs
    }

    /// `None` when amplification is off.
    pub(crate) fn new(
        mode: Amplification,
        width: usize,
        heads: usize,
        weights: VarBuilder<'_>,
    ) -> Result<Option<Self>> {
        let norm = match mode {
            Amplification::Off => return Ok(None),
            Amplification::After => Some(LayerNorm::new(width, NORM_EPSILON, weights.pp("norm"))?),
            Amplification::Replace => None,
        };
        Ok(Some(Self {
            norm,
            qkv: linear(width, 3 * width, weights.pp("qkv"))?,
            mix: linear(width, width, weights.pp("mix"))?,
            temperature: weights.get(heads, "temperature")?,
            output: linear(width, width, weights.pp("output"))?,
            heads,
        }))
    }

    /// `[batch, tokens, width]` to the same shape.
    pub(crate) fn forward(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        match &self.norm {
            None => self.amplify(tokens, mode),
            Some(norm) => tokens + self.amplify(&norm.forward(tokens, mode)?, mode)?,
        }
    }

    fn amplify(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        let attended = Heads::split(&self.qkv.forward(tokens)?, self.heads)?.attend(mode)?;
        let mixed = self.mix.forward(&attended)?;
        let (batch, count, width) = mixed.dims3()?;
        let split = (batch, count, self.heads, width / self.heads);
        let features = mixed.reshape(split)?.transpose(1, 2)?.contiguous()?;
        let squares = features.sqr()?;
        let weights = self.head_weights(&squares)?;

        let sums = (weights.sum_keepdim(D::Minus1)? + WEIGHT_GUARD)?;
        let over_tokens = weights.broadcast_div(&sums)?.unsqueeze(2)?;
        let second_moments = over_tokens.contiguous()?.matmul(&squares)?;
        let damping = (second_moments + 1.)?.recip()?.neg()?;
        let amplified = features
            .broadcast_mul(&weights.unsqueeze(D::Minus1)?)?
            .broadcast_mul(&damping)?;
        self.output.forward(&merge_heads(&amplified)?)
    }

    /// How much each token stands out in each head, `[batch, heads, tokens]`; one over all heads.
    fn head_weights(&self, squares: &Tensor) -> Result<Tensor> {
        let norms = (squares.sum_keepdim(2)? + SQUARED_NORM_GUARD)?;
        let prominence = squares.broadcast_div(&norms)?.sum(D::Minus1)?;
        let temperature = self.temperature.reshape((1, self.heads, 1))?;
        candle_nn::ops::softmax(&prominence.broadcast_mul(&temperature)?, 1)
    }
}
