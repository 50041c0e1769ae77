//! The decoder that rebuilds the encoder's features: pre-norm blocks with linear attention.
//!
//! Linear attention cannot focus on single tokens, so it does not pass an anomaly on unchanged
//! (Guo et al., "Dinomaly").

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;

use super::super::kernels::gelu;
use super::super::layers::{LayerNorm, Linear, Mode, linear, linear_attention};
use super::super::tensors::TensorSpecs;
use super::{INITIAL_WEIGHT, NORM_EPSILON};

/// Width of the hidden layer of a block's MLP, in units of the token width.
const MLP_RATIO: usize = 4;

/// The decoder's blocks.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    blocks: Vec<Block>,
}

impl Decoder {
    pub(crate) fn tensors(depth: usize, width: usize) -> TensorSpecs {
        let mut specs = TensorSpecs::default();
        for index in 0..depth {
            specs.add_norm(&format!("{index}.norm1"), width);
            specs.add_linear(&format!("{index}.qkv"), width, 3 * width, INITIAL_WEIGHT);
            specs.add_linear(&format!("{index}.projection"), width, width, INITIAL_WEIGHT);
            specs.add_norm(&format!("{index}.norm2"), width);
            specs.add_linear(
                &format!("{index}.fc1"),
                width,
                MLP_RATIO * width,
                INITIAL_WEIGHT,
            );
            specs.add_linear(
                &format!("{index}.fc2"),
                MLP_RATIO * width,
                width,
                INITIAL_WEIGHT,
            );
        }
        specs
    }

    pub(crate) fn new(
        depth: usize,
        width: usize,
        heads: usize,
        weights: VarBuilder<'_>,
    ) -> Result<Self> {
        let blocks = (0..depth)
            .map(|index| Block::new(width, heads, weights.pp(index)))
            .collect::<Result<_>>()?;
        Ok(Self { blocks })
    }

    /// The means of the first and of the second half of the blocks' outputs.
    pub(crate) fn forward(&self, tokens: &Tensor, mode: Mode) -> Result<[Tensor; 2]> {
        let mut outputs = Vec::with_capacity(self.blocks.len());
        let mut tokens = tokens.clone();
        for block in &self.blocks {
            tokens = block.forward(&tokens, mode)?;
            outputs.push(tokens.clone());
        }
        let (first, second) = outputs.split_at(outputs.len() / 2);
        Ok([super::mean(first)?, super::mean(second)?])
    }
}

#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    projection: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl Block {
    fn new(width: usize, heads: usize, weights: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            norm1: LayerNorm::new(width, NORM_EPSILON, weights.pp("norm1"))?,
            qkv: linear(width, 3 * width, weights.pp("qkv"))?,
            projection: linear(width, width, weights.pp("projection"))?,
            norm2: LayerNorm::new(width, NORM_EPSILON, weights.pp("norm2"))?,
            fc1: linear(width, MLP_RATIO * width, weights.pp("fc1"))?,
            fc2: linear(MLP_RATIO * width, width, weights.pp("fc2"))?,
            heads,
        })
    }

    fn forward(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        let projected = self.qkv.forward(&self.norm1.forward(tokens, mode)?)?;
        let attended = linear_attention(&projected, self.heads, mode)?;
        let tokens = (tokens + self.projection.forward(&attended)?)?;
        let hidden = gelu(&self.fc1.forward(&self.norm2.forward(&tokens, mode)?)?)?;
        tokens + self.fc2.forward(&hidden)?
    }
}
