//! The few layers that the encoder and the rest share.
//!
//! candle's fused layer norm and softmax have no backward step: a gradient through them vanishes
//! in silence. So every layer is told what it is run for. On the CPU our own kernels serve both
//! ways, being faster than candle's and differentiable; elsewhere inference takes candle's fused
//! ones.

use candle_core::{D, DType, Module, Result, Tensor};
use candle_nn::VarBuilder;

use super::kernels;

/// Keeps the linear attention's denominator from being zero.
pub(crate) const DENOMINATOR_EPSILON: f64 = 1e-6;

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Gradients flow, dropout is on, batch statistics are taken from the batch.
    Train,
    /// The fastest way to the same values, without gradients or dropout.
    Inference,
}

/// Layer norm over the last dimension with scale and shift.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl LayerNorm {
    pub(crate) fn new(width: usize, epsilon: f32, weights: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: weights.get(width, "weight")?,
            bias: weights.get(width, "bias")?,
            epsilon,
        })
    }

    pub(crate) fn forward(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        let Self {
            weight,
            bias,
            epsilon,
        } = self;
        if uses_fused(tokens, mode) {
            candle_nn::ops::layer_norm(&tokens.contiguous()?, weight, bias, *epsilon)
        } else {
            kernels::layer_norm(tokens, weight, bias, *epsilon)
        }
    }
}

fn uses_fused(tokens: &Tensor, mode: Mode) -> bool {
    mode == Mode::Inference && !tokens.device().is_cpu()
}

/// Whether attention is one operation of ours, which has no backward step.
fn uses_own(tokens: &Tensor, mode: Mode) -> bool {
    mode == Mode::Inference && kernels::is_fast(tokens)
}

/// A linear layer with bias, over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// The same layer, closed to gradients of its weight and bias.
    pub(crate) fn detached(&self) -> Self {
        Self {
            weight: self.weight.detach(),
            bias: self.bias.detach(),
        }
    }
}

impl Module for Linear {
    fn forward(&self, values: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(product) = kernels::cuda::linear(values, &self.weight, &self.bias)? {
            return Ok(product);
        }
        kernels::linear(values, &self.weight, &self.bias)
    }
}

/// A linear layer on the tensors `weight` and `bias`.
pub(crate) fn linear(inputs: usize, outputs: usize, weights: VarBuilder<'_>) -> Result<Linear> {
    let weight = weights.get((outputs, inputs), "weight")?;
    let bias = weights.get(outputs, "bias")?;
    Ok(Linear { weight, bias })
}

/// Softmax attention over `[batch, tokens, 3 * width]`, queries, keys and values each head by head:
/// `[batch, tokens, width]`.
pub(crate) fn attention(projected: &Tensor, heads: usize, mode: Mode) -> Result<Tensor> {
    if uses_own(projected, mode) {
        return kernels::attention(projected, heads);
    }
    #[cfg(feature = "flash-attn")]
    if let Some(attended) = fused_attention(projected, heads, mode)? {
        return Ok(attended);
    }
    let Heads {
        queries,
        keys,
        values,
    } = Heads::split(projected, heads)?;
    let scale = 1. / (queries.dim(D::Minus1)? as f64).sqrt();
    let scores = (queries * scale)?.matmul(&keys.t()?)?;
    let weights = if uses_fused(&scores, mode) {
        candle_nn::ops::softmax_last_dim(&scores.contiguous()?)?
    } else {
        kernels::softmax(&scores)?
    };
    merge_heads(&weights.matmul(&values)?)
}

/// [`attention`] in one kernel, which reads queries, keys and values where they lie; none where it
/// cannot.
#[cfg(feature = "flash-attn")]
fn fused_attention(projected: &Tensor, heads: usize, mode: Mode) -> Result<Option<Tensor>> {
    /// The head width of all known encoders: the kernels may be built for multiples of 32 alone.
    const HEAD_WIDTH: usize = 64;
    let (batch, tokens, width) = projected.dims3()?;
    let is_half = matches!(projected.dtype(), DType::BF16 | DType::F16);
    let is_fitting = is_half && projected.device().is_cuda() && width == 3 * heads * HEAD_WIDTH;
    if mode == Mode::Train || !is_fitting {
        return Ok(None);
    }
    let parts = projected.reshape((batch, tokens, 3, heads, HEAD_WIDTH))?;
    let part = |index| parts.narrow(2, index, 1)?.squeeze(2);
    let scale = 1. / (HEAD_WIDTH as f32).sqrt();
    let attended = candle_flash_attn::flash_attn(&part(0)?, &part(1)?, &part(2)?, scale, false)?;
    attended.flatten_from(2).map(Some)
}

/// Attention whose cost is linear in the tokens; shapes as for [`attention`].
///
/// With `phi(u) = elu(u) + 1`: `o_n = phi(q_n) KV / (phi(q_n) . sum phi(k))`,
/// `KV = sum phi(k_n) v_n` (Katharopoulos et al., "Transformers are RNNs"), all sums in f32.
pub(crate) fn linear_attention(projected: &Tensor, heads: usize, mode: Mode) -> Result<Tensor> {
    if uses_own(projected, mode) {
        return kernels::linear_attention(projected, heads, DENOMINATOR_EPSILON as f32);
    }
    let Heads {
        queries,
        keys,
        values,
    } = Heads::split_positive(projected, heads)?;
    let summary = keys.t()?.matmul(&values)?;
    let key_sums = sum_over_tokens(&keys)?;
    let denominators = queries.matmul(&key_sums.t()?)?;
    let rebuilt = queries
        .matmul(&summary)?
        .broadcast_div(&(denominators + DENOMINATOR_EPSILON)?)?;
    merge_heads(&rebuilt)
}

/// `elu(u) + 1`; where there are few digits, without the difference of numbers that are nearly alike.
fn positive(values: &Tensor) -> Result<Tensor> {
    match values.dtype() {
        DType::F32 => values.elu(1.)? + 1.,
        _ => values.minimum(0.)?.exp()? + values.relu()?,
    }
}

/// `[batch, heads, tokens, head width]` to `[batch, heads, 1, head width]`; as a product where there are
/// few digits, since that is summed up in f32.
fn sum_over_tokens(values: &Tensor) -> Result<Tensor> {
    if values.dtype() == DType::F32 {
        return values.sum_keepdim(2);
    }
    let (batch, heads, tokens, _) = values.dims4()?;
    let ones = Tensor::ones((batch, heads, 1, tokens), values.dtype(), values.device())?;
    ones.matmul(values)
}

/// Queries, keys and values, each `[batch, heads, tokens, head width]`.
struct Heads {
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
}

impl Heads {
    fn split(projected: &Tensor, heads: usize) -> Result<Self> {
        let width = projected.dim(D::Minus1)? / 3;
        let part =
            |index: usize| split_heads(&projected.narrow(D::Minus1, index * width, width)?, heads);
        Ok(Self {
            queries: part(0)?,
            keys: part(1)?,
            values: part(2)?,
        })
    }

    /// With queries and keys made positive.
    fn split_positive(projected: &Tensor, heads: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Some([queries, keys, values]) = kernels::cuda::split_positive(projected, heads)? {
            return Ok(Self {
                queries,
                keys,
                values,
            });
        }
        let heads = Self::split(projected, heads)?;
        Ok(Self {
            queries: positive(&heads.queries)?,
            keys: positive(&heads.keys)?,
            values: heads.values,
        })
    }
}

/// `[batch, heads, tokens, head width]` to `[batch, tokens, width]`.
pub(crate) fn merge_heads(heads: &Tensor) -> Result<Tensor> {
    heads.transpose(1, 2)?.contiguous()?.flatten_from(2)
}

/// `[batch, tokens, width]` to `[batch, heads, tokens, head width]`.
pub(crate) fn split_heads(tokens: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, count, width) = tokens.dims3()?;
    let split = tokens.reshape((batch, count, heads, width / heads))?;
    split.transpose(1, 2)?.contiguous()
}
