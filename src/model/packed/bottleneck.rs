//! Two linear layers with a GELU between: the bottleneck, and the second half of a block.

use candle_core::Result;

use super::super::kernels::arithmetic::Arithmetic;
use super::super::kernels::product::{Add, Gelu, Keep, Packed};
use super::Weights;
use super::room::Scratch;

/// A linear layer of `weights`, its outputs scaled channel by channel if there is a `scale`.
pub(super) fn linear<A: Arithmetic>(
    weights: Weights<'_>,
    name: &str,
    scale: Option<&[f32]>,
) -> Result<Packed<A>> {
    let mut weight = weights(&format!("{name}.weight"))?;
    let mut bias = weights(&format!("{name}.bias"))?;
    let inputs = weight.len() / bias.len().max(1);
    for (channel, scale) in scale.unwrap_or_default().iter().enumerate() {
        let row = &mut weight[channel * inputs..][..inputs];
        row.iter_mut().for_each(|value| *value *= scale);
        bias[channel] *= scale;
    }
    Ok(Packed::new(&weight, &bias, inputs))
}

/// Linear, GELU, linear.
#[derive(Clone, Debug)]
pub(super) struct Mlp<A> {
    fc1: Packed<A>,
    fc2: Packed<A>,
}

impl<A: Arithmetic> Mlp<A> {
    /// Of `{name}fc1` and `{name}fc2`.
    pub(super) fn new(weights: Weights<'_>, name: &str, scale: Option<&[f32]>) -> Result<Self> {
        Ok(Self {
            fc1: linear(weights, &format!("{name}fc1"), None)?,
            fc2: linear(weights, &format!("{name}fc2"), scale)?,
        })
    }

    /// Adds to `to` what it makes of as many rows on the scratch's left side.
    pub(super) fn add(&self, scratch: &mut Scratch, to: &mut [f32], stride: usize) {
        let rows = to.len() / stride;
        scratch.hidden.prepare::<A>(rows, self.fc1.outputs());
        let hidden = Keep {
            stride: scratch.hidden.stride(),
            to: scratch.hidden.words_mut(),
        };
        self.fc1.multiply(&scratch.left, rows, Gelu(hidden));
        self.fc2.multiply(&scratch.hidden, rows, Add { to, stride });
    }
}
