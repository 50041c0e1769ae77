//! The amplification, as [`super::super::mvmcad`] has it in tensors.

use candle_core::Result;
use rayon::prelude::*;

use super::super::kernels::arithmetic::{Arithmetic, Single};
use super::super::kernels::product::{Add, Packed};
use super::super::layers::DENOMINATOR_EPSILON;
use super::super::mvmcad::{
    Amplification, AmplificationAttention, AmplificationScope, AmplificationSoftmax,
    AmplificationStrength, MvmcadConfig, NORM_EPSILON, SQUARED_NORM_GUARD, WEIGHT_GUARD,
};
use super::Weights;
use super::block::norm;
use super::bottleneck::linear;
use super::mixing::{Attention, Mixing, normalise};
use super::room::{MixingRoom, Segment, TASK_ROWS, Tokens};

/// The amplification's packed weights.
#[derive(Clone, Debug)]
pub(super) struct Amplifier<A: Arithmetic> {
    mixing: Mixing<A>,
    mix: Packed<A>,
    temperature: Vec<f32>,
    strength: Option<Packed<Single<A::Lanes>>>,
    output: Packed<A>,
    softmax: AmplificationSoftmax,
    is_residual: bool,
    width: usize,
}

impl<A: Arithmetic> Amplifier<A> {
    /// `None` when amplification is off.
    pub(super) fn new(config: &MvmcadConfig, weights: Weights<'_>) -> Result<Option<Self>> {
        let is_residual = match config.amplification {
            Amplification::Off => return Ok(None),
            Amplification::After => true,
            Amplification::Replace => false,
        };
        let norm = match is_residual {
            true => Some(norm(weights, "amplification.norm", NORM_EPSILON)?),
            false => None,
        };
        let attention = match (config.amplification_attention, config.amplification_scope) {
            (AmplificationAttention::Softmax, AmplificationScope::View) => Attention::Softmax,
            _ => Attention::Linear(DENOMINATOR_EPSILON as f32),
        };
        let strength = match config.amplification_strength {
            AmplificationStrength::Fixed => None,
            AmplificationStrength::Adaptive => {
                Some(linear(weights, "amplification.strength", None)?)
            }
        };
        let size = (config.encoder.width, config.encoder.heads);
        Ok(Some(Self {
            mixing: Mixing::new(norm, attention, size, weights, "amplification.")?,
            mix: linear(weights, "amplification.mix", None)?,
            temperature: weights("amplification.temperature")?,
            strength,
            output: linear(weights, "amplification.output", None)?,
            softmax: config.amplification_softmax,
            is_residual,
            width: config.encoder.width,
        }))
    }

    /// Changes the tokens of each segment.
    pub(super) fn run(
        &self,
        tokens: &mut Tokens,
        segments: &[Segment],
        room: &mut MixingRoom,
        features: &mut Tokens,
    ) {
        self.mixing.run(tokens, segments, room);
        let stride = tokens.stride;
        let task = TASK_ROWS * stride;
        features.clear(tokens.values.len() / stride, stride);
        let scratches = &room.scratches;
        let attended = &room.attended;
        features
            .values
            .par_chunks_mut(task)
            .with_max_len(1)
            .enumerate()
            .for_each(|(index, to)| {
                scratches.with(|scratch| {
                    let rows = to.len() / stride;
                    self.mixing.gather(
                        segments,
                        attended,
                        (index * TASK_ROWS, rows),
                        &mut scratch.left,
                    );
                    self.mix.multiply(&scratch.left, rows, Add { to, stride });
                });
            });
        let mut rest = features.values.as_mut_slice();
        let mut parts = Vec::with_capacity(segments.len());
        for segment in segments {
            let (own, later) = rest.split_at_mut(segment.tokens * stride);
            parts.push(own);
            rest = later;
        }
        parts
            .into_par_iter()
            .with_max_len(1)
            .for_each(|features| self.weigh(features, stride));
        tokens
            .values
            .par_chunks_mut(task)
            .zip(features.values.par_chunks_mut(task))
            .with_max_len(1)
            .for_each(|(tokens, features)| self.add_output(tokens, features, stride, room));
    }

    /// Weighs each head of each token by how much it stands out among the segment's, and damps
    /// channels with a high second moment.
    fn weigh(&self, features: &mut [f32], stride: usize) {
        let (width, heads) = (self.width, self.temperature.len());
        let head_width = width / heads;
        let mut shares = vec![0f32; width];
        for token in features.chunks_exact(stride) {
            for (share, value) in shares.iter_mut().zip(token) {
                *share += value * value;
            }
        }
        for share in &mut shares {
            *share = 1.0 / (*share + SQUARED_NORM_GUARD as f32);
        }
        let mut weights = Vec::with_capacity(features.len() / stride * heads);
        for token in features.chunks_exact(stride) {
            for (head, temperature) in self.temperature.iter().enumerate() {
                let place = head * head_width..(head + 1) * head_width;
                let pairs = token[place.clone()].iter().zip(&shares[place]);
                weights.push(
                    temperature
                        * pairs
                            .map(|(value, share)| value * value * share)
                            .sum::<f32>(),
                );
            }
        }
        match self.softmax {
            AmplificationSoftmax::Heads => weights
                .chunks_exact_mut(heads)
                .for_each(|heads| softmax(heads, 0, 1)),
            AmplificationSoftmax::Tokens => {
                (0..heads).for_each(|head| softmax(&mut weights, head, heads))
            }
        }
        let mut sums = vec![WEIGHT_GUARD as f32; heads];
        for weights in weights.chunks_exact(heads) {
            sums.iter_mut()
                .zip(weights)
                .for_each(|(sum, weight)| *sum += weight);
        }
        let mut moments = vec![0f32; width];
        for (token, weights) in features
            .chunks_exact(stride)
            .zip(weights.chunks_exact(heads))
        {
            let channels = moments
                .chunks_exact_mut(head_width)
                .zip(token.chunks_exact(head_width));
            for ((moments, token), (weight, sum)) in channels.zip(weights.iter().zip(&sums)) {
                let share = weight / sum;
                for (moment, value) in moments.iter_mut().zip(token) {
                    *moment += share * value * value;
                }
            }
        }
        for (token, weights) in features
            .chunks_exact_mut(stride)
            .zip(weights.chunks_exact(heads))
        {
            let channels = token
                .chunks_exact_mut(head_width)
                .zip(moments.chunks_exact(head_width));
            for ((token, moments), weight) in channels.zip(weights) {
                for (value, moment) in token.iter_mut().zip(moments) {
                    *value *= -weight / (moment + 1.0);
                }
            }
        }
    }

    /// The last layer, for some rows.
    fn add_output(
        &self,
        tokens: &mut [f32],
        features: &mut [f32],
        stride: usize,
        room: &MixingRoom,
    ) {
        let rows = tokens.len() / stride;
        room.scratches.with(|scratch| {
            if let Some(strength) = &self.strength {
                normalise::<Single<A::Lanes>>(
                    self.mixing.norm.as_ref(),
                    tokens,
                    stride,
                    self.width,
                    scratch,
                );
                let heads = strength.outputs();
                let wide = heads.next_multiple_of(2 * super::super::kernels::lanes::WIDEST);
                scratch.values.clear();
                scratch.values.resize(rows * wide, 0.0);
                let to = scratch.values.as_mut_slice();
                strength.multiply(&scratch.left, rows, Add { to, stride: wide });
                for (token, logits) in features.chunks_exact_mut(stride).zip(to.chunks_exact(wide))
                {
                    let channels = token.chunks_exact_mut(self.width / heads);
                    for (channels, logit) in channels.zip(logits) {
                        let share = 1.0 / (1.0 + (-logit).exp());
                        channels.iter_mut().for_each(|value| *value *= share);
                    }
                }
            }
            if !self.is_residual {
                tokens.fill(0.0);
            }
            normalise::<A>(None, features, stride, self.width, scratch);
            self.output
                .multiply(&scratch.left, rows, Add { to: tokens, stride });
        });
    }
}

/// Softmax of every `step`th value from `first` on.
fn softmax(values: &mut [f32], first: usize, step: usize) {
    let own = || (first..values.len()).step_by(step);
    let largest = own()
        .map(|index| values[index])
        .fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for index in (first..values.len()).step_by(step) {
        values[index] = (values[index] - largest).exp();
        sum += values[index];
    }
    for index in (first..values.len()).step_by(step) {
        values[index] /= sum;
    }
}
