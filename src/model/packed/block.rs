//! A transformer block: of the encoder, or of the decoder.

use candle_core::Result;
use rayon::prelude::*;

use super::super::kernels::arithmetic::Arithmetic;
use super::super::kernels::product::{Add, Packed};
use super::super::kernels::rows::Norm;
use super::Weights;
use super::bottleneck::{Mlp, linear};
use super::mixing::{Attention, Mixing, normalise};
use super::room::{MixingRoom, Segment, TASK_ROWS, Tokens};

/// `u = x + attention(norm1(x))`, `y = u + mlp(norm2(u))`, with the scales of both branches in their
/// last weights.
#[derive(Clone, Debug)]
pub(super) struct Block<A> {
    mixing: Mixing<A>,
    projection: Packed<A>,
    norm2: Norm,
    mlp: Mlp<A>,
}

/// How blocks of a kind are built.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockForm {
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) epsilon: f32,
    pub(super) attention: Attention,
    pub(super) is_scaled: bool,
}

/// A norm of `{name}.weight` and `{name}.bias`.
pub(super) fn norm(weights: Weights<'_>, name: &str, epsilon: f32) -> Result<Norm> {
    let weight = weights(&format!("{name}.weight"))?;
    Ok(Norm::new(
        &weight,
        &weights(&format!("{name}.bias"))?,
        epsilon,
    ))
}

impl<A: Arithmetic> Block<A> {
    /// Of the weights whose names begin with `name`.
    pub(super) fn new(form: BlockForm, weights: Weights<'_>, name: &str) -> Result<Self> {
        let scale = |which: &str| match form.is_scaled {
            true => weights(&format!("{name}{which}")).map(Some),
            false => Ok(None),
        };
        let norm1 = norm(weights, &format!("{name}norm1"), form.epsilon)?;
        let size = (form.width, form.heads);
        Ok(Self {
            mixing: Mixing::new(Some(norm1), form.attention, size, weights, name)?,
            projection: linear(
                weights,
                &format!("{name}projection"),
                scale("scale1")?.as_deref(),
            )?,
            norm2: norm(weights, &format!("{name}norm2"), form.epsilon)?,
            mlp: Mlp::new(weights, name, scale("scale2")?.as_deref())?,
        })
    }

    /// Moves the tokens on, and adds `share` of what they are then to `sum`.
    pub(super) fn run(
        &self,
        tokens: &mut Tokens,
        segments: &[Segment],
        room: &mut MixingRoom,
        sum: Option<(&mut Tokens, f32)>,
    ) {
        self.mixing.run(tokens, segments, room);
        let Tokens { values, stride } = tokens;
        let stride = *stride;
        let task = TASK_ROWS * stride;
        let run = |index: usize, to: &mut [f32]| {
            self.run_rows(index * TASK_ROWS, to, stride, segments, room)
        };
        match sum {
            None => values
                .par_chunks_mut(task)
                .with_max_len(1)
                .enumerate()
                .for_each(|(index, to)| run(index, to)),
            Some((sum, share)) => values
                .par_chunks_mut(task)
                .zip(sum.values.par_chunks_mut(task))
                .with_max_len(1)
                .enumerate()
                .for_each(|(index, (to, sum))| {
                    run(index, to);
                    for (sum, value) in sum.iter_mut().zip(to) {
                        *sum += share * *value;
                    }
                }),
        }
    }

    /// What comes after attention, for the rows `to` from row `first` on.
    fn run_rows(
        &self,
        first: usize,
        to: &mut [f32],
        stride: usize,
        segments: &[Segment],
        room: &MixingRoom,
    ) {
        let rows = to.len() / stride;
        room.scratches.with(|scratch| {
            self.mixing
                .gather(segments, &room.attended, (first, rows), &mut scratch.left);
            self.projection
                .multiply(&scratch.left, rows, Add { to, stride });
            normalise::<A>(
                Some(&self.norm2),
                to,
                stride,
                self.projection.outputs(),
                scratch,
            );
            self.mlp.add(scratch, to, stride);
        });
    }
}
