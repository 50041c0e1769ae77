//! The encoder: patches to tokens, blocks, the means of the two halves of the target blocks.

use candle_core::Result;
use rayon::prelude::*;

use super::super::kernels::arithmetic::Arithmetic;
use super::super::kernels::product::{Add, Packed};
use super::super::vit::{NORM_EPSILON, VitConfig};
use super::Weights;
use super::block::{Block, BlockForm};
use super::bottleneck::linear;
use super::mixing::Attention;
use super::room::{MixingRoom, Scratch, Segment, TASK_ROWS, Tokens};

/// The encoder's packed weights.
#[derive(Clone, Debug)]
pub(super) struct Encoder<A> {
    patch: Packed<A>,
    /// Class token and registers.
    leading: Vec<f32>,
    position: Vec<f32>,
    blocks: Vec<Block<A>>,
    config: VitConfig,
}

impl<A: Arithmetic> Encoder<A> {
    pub(super) fn new(config: &VitConfig, weights: Weights<'_>) -> Result<Self> {
        let form = BlockForm {
            width: config.width,
            heads: config.heads,
            epsilon: NORM_EPSILON,
            attention: Attention::Softmax,
            is_scaled: config.layer_scale,
        };
        let mut leading = weights("encoder.class")?;
        if config.registers > 0 {
            leading.extend(weights("encoder.registers")?);
        }
        let blocks = (0..config.used_depth())
            .map(|index| Block::new(form, weights, &format!("encoder.blocks.{index}.")))
            .collect::<Result<_>>()?;
        Ok(Self {
            patch: linear(weights, "encoder.patch", None)?,
            leading,
            position: weights("encoder.position")?,
            blocks,
            config: config.clone(),
        })
    }

    /// Images to the means of the two halves of the target blocks; `tokens` is overwritten.
    pub(super) fn run(
        &self,
        images: &[&[f32]],
        segments: &[Segment],
        tokens: &mut Tokens,
        means: &mut [Tokens; 2],
        room: &mut MixingRoom,
    ) {
        self.embed(images, tokens, room);
        let targets = &self.config.targets;
        let half = targets.len() / 2;
        for (index, block) in self.blocks.iter().enumerate() {
            let place = targets.iter().position(|target| *target == index);
            let sum = place.map(|place| {
                let [first, second] = &mut *means;
                match place < half {
                    true => (first, 1.0 / half as f32),
                    false => (second, 1.0 / half as f32),
                }
            });
            block.run(tokens, segments, room, sum);
        }
    }

    /// Class, registers, and patches with their positions.
    fn embed(&self, images: &[&[f32]], tokens: &mut Tokens, room: &MixingRoom) {
        let stride = tokens.stride;
        let width = self.config.width;
        let count = self.config.tokens();
        let patches = self.config.grid() * self.config.grid();
        let mut tasks = Vec::new();
        for (image, tokens) in images
            .iter()
            .zip(tokens.values.chunks_exact_mut(count * stride))
        {
            let (leading, rest) = tokens.split_at_mut((count - patches) * stride);
            for (to, from) in leading
                .chunks_exact_mut(stride)
                .zip(self.leading.chunks_exact(width))
            {
                to[..width].copy_from_slice(from);
            }
            let rest = rest.chunks_mut(TASK_ROWS * stride).enumerate();
            tasks.extend(rest.map(|(index, to)| (*image, index * TASK_ROWS, to)));
        }
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(image, first, to)| {
                let rows = to.len() / stride;
                let positions = self.position[first * width..].chunks_exact(width);
                for (to, from) in to.chunks_exact_mut(stride).zip(positions) {
                    to[..width].copy_from_slice(from);
                }
                room.scratches.with(|scratch| {
                    self.unfold(image, first, rows, scratch);
                    self.patch.multiply(&scratch.left, rows, Add { to, stride });
                });
            });
    }

    /// The pixels of patches as the left side of a product: channel by channel, row by row.
    fn unfold(&self, image: &[f32], first: usize, rows: usize, scratch: &mut Scratch) {
        let VitConfig {
            input_side: side,
            patch,
            ..
        } = self.config;
        let grid = self.config.grid();
        scratch.left.prepare::<A>(rows, self.patch.inputs());
        for row in 0..rows {
            let (down, right) = ((first + row) / grid * patch, (first + row) % grid * patch);
            scratch.values.clear();
            for channel in image.chunks_exact(side * side) {
                for line in channel.chunks_exact(side).skip(down).take(patch) {
                    scratch.values.extend_from_slice(&line[right..][..patch]);
                }
            }
            scratch.left.put::<A>(row, 0, &scratch.values);
        }
    }
}
