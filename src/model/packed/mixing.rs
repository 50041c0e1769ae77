//! Attention with its projection: what blocks and the amplification have in common.

use candle_core::Result;
use rayon::prelude::*;

use super::super::kernels::arithmetic::Arithmetic;
use super::super::kernels::head::{Projected, attend, attend_linearly};
use super::super::kernels::lanes::Lanes;
use super::super::kernels::product::{Keep, Packed};
use super::super::kernels::rows::{Norm, Rows};
use super::Weights;
use super::room::{MixingRoom, Scratch, Segment, TASK_ROWS, Tokens};

/// Which attention.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attention {
    Softmax,
    /// With what keeps its denominator from being zero.
    Linear(f32),
}

/// Norm, projection to queries, keys and values, attention.
#[derive(Clone, Debug)]
pub(super) struct Mixing<A> {
    pub(super) norm: Option<Norm>,
    qkv: Packed<A>,
    attention: Attention,
    heads: usize,
}

impl<A: Arithmetic> Mixing<A> {
    /// Of `{name}qkv`; queries are scaled here, once and for all, where softmax wants them scaled.
    pub(super) fn new(
        norm: Option<Norm>,
        attention: Attention,
        (width, heads): (usize, usize),
        weights: Weights<'_>,
        name: &str,
    ) -> Result<Self> {
        let mut weight = weights(&format!("{name}qkv.weight"))?;
        let mut bias = weights(&format!("{name}qkv.bias"))?;
        if let Attention::Softmax = attention {
            let scale = std::f32::consts::LOG2_E / ((width / heads) as f32).sqrt();
            let queries = weight[..width * width].iter_mut().chain(&mut bias[..width]);
            queries.for_each(|value| *value *= scale);
        }
        Ok(Self {
            norm,
            qkv: Packed::new(&weight, &bias, width),
            attention,
            heads,
        })
    }

    /// Leaves in `room` what each head attended to.
    pub(super) fn run(&self, tokens: &Tokens, segments: &[Segment], room: &mut MixingRoom) {
        self.project(tokens, room);
        self.attend(segments, room);
    }

    fn project(&self, tokens: &Tokens, room: &mut MixingRoom) {
        let rows = tokens.values.len() / tokens.stride;
        room.projected
            .prepare::<A>(rows + A::Lanes::ROWS, self.qkv.outputs());
        let stride = room.projected.stride();
        let scratches = &room.scratches;
        let to = &mut room.projected.words_mut()[..rows * stride];
        to.par_chunks_mut(TASK_ROWS * stride)
            .zip(tokens.values.par_chunks(TASK_ROWS * tokens.stride))
            .with_max_len(1)
            .for_each(|(to, from)| {
                scratches.with(|scratch| {
                    let rows = from.len() / tokens.stride;
                    normalise::<A>(
                        self.norm.as_ref(),
                        from,
                        tokens.stride,
                        self.qkv.inputs(),
                        scratch,
                    );
                    self.qkv.multiply(&scratch.left, rows, Keep { to, stride });
                });
            });
    }

    fn attend(&self, segments: &[Segment], room: &mut MixingRoom) {
        let width = self.qkv.inputs();
        let head_width = width / self.heads;
        let rows: usize = segments.iter().map(|segment| segment.tokens).sum();
        room.attended.resize(rows * width, 0.0);
        let mut rest = room.attended.as_mut_slice();
        let mut tasks = Vec::with_capacity(segments.len() * self.heads);
        for segment in segments {
            for head in 0..self.heads {
                let (own, later) = rest.split_at_mut(segment.tokens * head_width);
                tasks.push((*segment, head, own));
                rest = later;
            }
        }
        let MixingRoom {
            projected,
            scratches,
            ..
        } = room;
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(segment, head, out)| {
                let projected = Projected {
                    rows: projected,
                    first: segment.first,
                    tokens: segment.tokens,
                    width,
                    head_width,
                };
                scratches.with(|scratch| match self.attention {
                    Attention::Softmax => attend::<A>(projected, head, &mut scratch.softmax, out),
                    Attention::Linear(epsilon) => {
                        attend_linearly::<A>(projected, head, epsilon, &mut scratch.linear, out);
                    }
                });
            });
    }

    /// Gathers the heads of `rows` tokens from row `first` on as the left side of a product.
    pub(super) fn gather(
        &self,
        segments: &[Segment],
        attended: &[f32],
        (first, rows): (usize, usize),
        to: &mut Rows,
    ) {
        let width = self.qkv.inputs();
        let head_width = width / self.heads;
        to.prepare::<A>(rows, width);
        for segment in segments {
            let own = &attended[segment.first * width..][..segment.tokens * width];
            let from = first.max(segment.first);
            let until = (first + rows).min(segment.first + segment.tokens);
            for (head, own) in own.chunks_exact(segment.tokens * head_width).enumerate() {
                for row in from..until {
                    let values = &own[(row - segment.first) * head_width..][..head_width];
                    to.put::<A>(row - first, head * head_width, values);
                }
            }
        }
    }
}

/// Rows of tokens, normalised if there is a norm, as the left side of a product.
pub(super) fn normalise<A: Arithmetic>(
    norm: Option<&Norm>,
    from: &[f32],
    stride: usize,
    width: usize,
    scratch: &mut Scratch,
) {
    scratch.left.prepare::<A>(from.len() / stride, width);
    match norm {
        Some(norm) => norm.apply::<A>(from, stride, &mut scratch.left),
        None => {
            for (row, from) in from.chunks_exact(stride).enumerate() {
                scratch.left.put::<A>(row, 0, &from[..width]);
            }
        }
    }
}
