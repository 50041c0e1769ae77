//! The anomaly amplification between bottleneck and decoder (AAM).
//!
//! Attention mixes the tokens; then each head's tokens are weighed by how much they stand out
//! among all tokens, and channels with a high second moment are damped, as in token-statistics
//! attention (Wu et al., "Token Statistics Transformer"): softmax over heads, weights normalised
//! over tokens. Published formulas leave the place, a residual and the axis of the softmax open;
//! see [`Amplification`] and [`AmplificationSoftmax`].
//!
//! Two things go beyond the paper. Across views ([`AmplificationScope::Part`]) the tokens of all
//! views of a part are mixed and weighed together; always by linear attention, so that the cost
//! grows with the number of views and not with its square. And the strength may follow the tokens
//! ([`AmplificationStrength::Adaptive`]).

use candle_core::{D, DType, Module, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::super::layers::{
    LayerNorm, Linear, Mode, attention, linear, linear_attention, merge_heads, split_heads,
};
use super::super::tensors::{Initial, TensorSpecs};
use super::{INITIAL_WEIGHT, NORM_EPSILON};

/// Keeps the norm over tokens from dividing by zero: the square of torch's 1e-12.
pub(crate) const SQUARED_NORM_GUARD: f64 = 1e-24;
/// Keeps the sum of weights from dividing by zero, as in the reference.
pub(crate) const WEIGHT_GUARD: f64 = 1e-8;

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

/// What a token's weights sum up to one over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmplificationSoftmax {
    /// The heads of a token, as in the token-statistics transformer.
    #[default]
    Heads,
    /// The tokens of a head. The output is smaller by about the number of tokens.
    Tokens,
}

/// How tokens are mixed before they are weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmplificationAttention {
    /// Softmax attention.
    #[default]
    Softmax,
    /// Linear attention, as the decoder has it; across views there is no other.
    Linear,
}

/// Whose tokens are mixed and weighed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmplificationScope {
    /// Those of one view.
    #[default]
    View,
    /// Those of all views of a part that are there, however many; cost linear in their number.
    Part,
}

/// How much of the amplification is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmplificationStrength {
    /// All of it.
    #[default]
    Fixed,
    /// A share of each head that each token decides: `sigmoid(W norm(b) + c)`, one half at first.
    Adaptive,
}

/// How the layer is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AmplificationForm {
    pub(crate) place: Amplification,
    pub(crate) softmax: AmplificationSoftmax,
    pub(crate) attention: AmplificationAttention,
    pub(crate) scope: AmplificationScope,
    pub(crate) strength: AmplificationStrength,
}

/// The amplification layer.
#[derive(Clone, Debug)]
pub(crate) struct AmplificationLayer {
    form: AmplificationForm,
    norm: Option<LayerNorm>,
    qkv: Linear,
    mix: Linear,
    temperature: Tensor,
    strength: Option<Linear>,
    output: Linear,
    heads: usize,
}

impl AmplificationLayer {
    pub(crate) fn tensors(form: AmplificationForm, width: usize, heads: usize) -> TensorSpecs {
        let mut specs = TensorSpecs::default();
        if form.place == Amplification::Off {
            return specs;
        }
        if form.place == Amplification::After {
            specs.add_norm("norm", width);
        }
        if form.strength == AmplificationStrength::Adaptive {
            specs.add_linear("strength", width, heads, INITIAL_WEIGHT);
        }
        specs.add_linear("qkv", width, 3 * width, INITIAL_WEIGHT);
        specs.add_linear("mix", width, width, INITIAL_WEIGHT);
        specs.add("temperature", &[heads], Initial::Constant(1.));
        specs.add_linear("output", width, width, INITIAL_WEIGHT);
        specs
    }

    /// `None` when amplification is off.
    pub(crate) fn new(
        form: AmplificationForm,
        width: usize,
        heads: usize,
        weights: VarBuilder<'_>,
    ) -> Result<Option<Self>> {
        let norm = match form.place {
            Amplification::Off => return Ok(None),
            Amplification::After => Some(LayerNorm::new(width, NORM_EPSILON, weights.pp("norm"))?),
            Amplification::Replace => None,
        };
        let strength = match form.strength {
            AmplificationStrength::Fixed => None,
            AmplificationStrength::Adaptive => Some(linear(width, heads, weights.pp("strength"))?),
        };
        Ok(Some(Self {
            form,
            norm,
            qkv: linear(width, 3 * width, weights.pp("qkv"))?,
            mix: linear(width, width, weights.pp("mix"))?,
            temperature: weights.get(heads, "temperature")?,
            strength,
            output: linear(width, width, weights.pp("output"))?,
            heads,
        }))
    }

    /// `[images, tokens, width]` to the same shape; `views` says how many consecutive images each
    /// part has.
    pub(crate) fn forward(&self, tokens: &Tensor, views: &[usize], mode: Mode) -> Result<Tensor> {
        if self.form.scope == AmplificationScope::View {
            return self.forward_together(tokens, mode);
        }
        let (images, count, width) = tokens.dims3()?;
        if views.iter().sum::<usize>() != images {
            candle_core::bail!(
                "expected the views of parts to sum to `{images}`, found `{views:?}`"
            );
        }
        let mut parts = Vec::with_capacity(views.len());
        let mut first = 0;
        for &views in views.iter().filter(|&&views| views > 0) {
            let part = tokens.narrow(0, first, views)?;
            let part = self.forward_together(&part.reshape((1, views * count, width))?, mode)?;
            parts.push(part.reshape((views, count, width))?);
            first += views;
        }
        Tensor::cat(&parts, 0)
    }

    /// The tokens of each item of the first dimension together.
    fn forward_together(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        match &self.norm {
            None => self.amplify(tokens, mode),
            Some(norm) => tokens + self.amplify(&norm.forward(tokens, mode)?, mode)?,
        }
    }

    fn amplify(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        let projected = self.qkv.forward(tokens)?;
        let attended = match (self.form.attention, self.form.scope) {
            (AmplificationAttention::Softmax, AmplificationScope::View) => {
                attention(&projected, self.heads, mode)?
            }
            _ => linear_attention(&projected, self.heads, mode)?,
        };
        // Sums over all tokens follow: half precision has not the digits for them.
        let features = self.mix.forward(&attended)?.to_dtype(DType::F32)?;
        let features = split_heads(&features, self.heads)?;
        let squares = features.sqr()?;
        let weights = self.token_weights(&squares)?;

        let sums = (weights.sum_keepdim(D::Minus1)? + WEIGHT_GUARD)?;
        let over_tokens = weights.broadcast_div(&sums)?.unsqueeze(2)?;
        let second_moments = over_tokens.contiguous()?.matmul(&squares)?;
        let damping = (second_moments + 1.)?.recip()?.neg()?;
        let mut amplified = features
            .broadcast_mul(&weights.unsqueeze(D::Minus1)?)?
            .broadcast_mul(&damping)?;
        if let Some(strength) = &self.strength {
            let share = strength.forward(tokens)?.to_dtype(DType::F32)?;
            let share = candle_nn::ops::sigmoid(&share)?;
            amplified = amplified.broadcast_mul(&share.transpose(1, 2)?.unsqueeze(D::Minus1)?)?;
        }
        let amplified = merge_heads(&amplified)?.to_dtype(tokens.dtype())?;
        self.output.forward(&amplified)
    }

    /// How much each token stands out in each head, `[batch, heads, tokens]`; they sum up to one
    /// over the heads or over the tokens.
    fn token_weights(&self, squares: &Tensor) -> Result<Tensor> {
        let norms = (squares.sum_keepdim(2)? + SQUARED_NORM_GUARD)?;
        let prominence = squares.broadcast_div(&norms)?.sum(D::Minus1)?;
        let temperature = self.temperature.to_dtype(DType::F32)?;
        let temperature = temperature.reshape((1, self.heads, 1))?;
        let axis = match self.form.softmax {
            AmplificationSoftmax::Heads => 1,
            AmplificationSoftmax::Tokens => 2,
        };
        candle_nn::ops::softmax(&prominence.broadcast_mul(&temperature)?, axis)
    }
}
