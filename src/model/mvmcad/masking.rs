//! Masked reconstruction: what a patch should look like is told from the others alone.
//!
//! A decoder that is given a patch's own features can learn to copy them, defects included; the
//! noise of the bottleneck hinders that but does not rule it out. Here the features of some blocks
//! of patches are hidden and must be rebuilt from what is around them and from where they lie. In
//! training each image has a random share hidden. At inference the blocks are hidden in turn, one
//! pass each, and a patch counts in the pass that hid it, so that no patch is ever judged by a copy
//! of itself. The encoder runs once; bottleneck and decoder run once a pass.
//!
//! The idea of hiding what is to be rebuilt is UniAD's neighbour masking and the masked
//! autoencoder's; the paper has neither. Off by default.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::super::tensors::{Initial, TensorSpecs};
use super::super::vit::VitConfig;

/// First values of what stands in for hidden features.
const INITIAL_TOKEN: Initial = Initial::TruncatedNormal {
    deviation: 0.02,
    limit: 0.06,
};
/// More passes than this hide next to nothing in each.
const MOST_PASSES: usize = 16;

/// How patches are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Masking {
    /// Passes in which every patch is hidden once; a pass hides one block in so many. 1 turns
    /// masking off.
    pub passes: usize,
    /// Side of a block, in patches.
    pub block: usize,
}

impl Default for Masking {
    fn default() -> Self {
        Self {
            passes: 1,
            block: 2,
        }
    }
}

impl Masking {
    /// Whether patches are hidden at all.
    pub fn is_on(self) -> bool {
        self.passes > 1
    }

    pub(super) fn validate(self) -> std::result::Result<(), String> {
        let Self { passes, block } = self;
        if !(1..=MOST_PASSES).contains(&passes) {
            return Err(format!(
                "`masking.passes` must be 1 to {MOST_PASSES}, found `{passes}`"
            ));
        }
        if block == 0 {
            return Err("`masking.block` must be at least 1, found `0`".to_owned());
        }
        Ok(())
    }
}

/// The token in place of hidden features, and where each patch lies.
#[derive(Clone, Debug)]
pub(super) struct MaskingLayer {
    masking: Masking,
    grid: usize,
    leading: usize,
    token: Tensor,
    position: Tensor,
}

impl MaskingLayer {
    pub(super) fn tensors(masking: Masking, encoder: &VitConfig) -> TensorSpecs {
        let mut specs = TensorSpecs::default();
        if masking.is_on() {
            let patches = encoder.grid() * encoder.grid();
            specs.add("token", &[1, 1, encoder.width], INITIAL_TOKEN);
            let shape = [1, patches, encoder.width];
            specs.add("position", &shape, Initial::SineCosine);
        }
        specs
    }

    /// `None` when masking is off.
    pub(super) fn new(
        masking: Masking,
        encoder: &VitConfig,
        weights: VarBuilder<'_>,
    ) -> Result<Option<Self>> {
        if !masking.is_on() {
            return Ok(None);
        }
        let (grid, width) = (encoder.grid(), encoder.width);
        Ok(Some(Self {
            masking,
            grid,
            leading: encoder.leading_tokens(),
            token: weights.get((1, 1, width), "token")?,
            position: weights.get((1, grid * grid, width), "position")?,
        }))
    }

    pub(super) fn passes(&self) -> usize {
        self.masking.passes
    }

    /// What a pass hides of every image, `[1, patches, 1]`: 1 where hidden. Each patch is hidden
    /// in one pass.
    pub(super) fn hidden_in(&self, pass: usize, device: &Device) -> Result<Tensor> {
        let hidden = self.pattern(pass, 0, 0);
        Tensor::from_vec(hidden, (1, self.grid * self.grid, 1), device)
    }

    /// The same for training, `[images, patches, 1]`: the blocks of a random pass, shifted at
    /// random, image by image.
    pub(super) fn hidden_at_random(
        &self,
        images: usize,
        random: &mut impl Rng,
        device: &Device,
    ) -> Result<Tensor> {
        let period = self.masking.block * self.masking.passes;
        let mut hidden = Vec::with_capacity(images * self.grid * self.grid);
        for _ in 0..images {
            let pass = random.random_range(0..self.masking.passes);
            let (down, right) = (
                random.random_range(0..period),
                random.random_range(0..period),
            );
            hidden.extend(self.pattern(pass, down, right));
        }
        Tensor::from_vec(hidden, (images, self.grid * self.grid, 1), device)
    }

    /// Blocks whose diagonals belong to one pass, so that a hidden block's neighbours are not
    /// hidden with it.
    fn pattern(&self, pass: usize, down: usize, right: usize) -> Vec<f32> {
        let Masking { passes, block } = self.masking;
        // From one row of blocks to the next the hidden ones move by more than one block.
        let stride = if passes > 3 { 2 } else { 1 };
        let mut hidden = Vec::with_capacity(self.grid * self.grid);
        for row in 0..self.grid {
            for column in 0..self.grid {
                let (row, column) = ((row + down) / block, (column + right) / block);
                let is_hidden = (column + stride * row) % passes == pass;
                hidden.push(if is_hidden { 1. } else { 0. });
            }
        }
        hidden
    }

    /// Tokens `[images, tokens, width]` with the token in place of the hidden patches.
    pub(super) fn hide(&self, tokens: &Tensor, hidden: &Tensor) -> Result<Tensor> {
        let patches = tokens.narrow(1, self.leading, self.grid * self.grid)?;
        let shown = patches.broadcast_mul(&hidden.affine(-1., 1.)?)?;
        let hidden = shown.broadcast_add(&hidden.broadcast_mul(&self.token)?)?;
        self.behind_leading(tokens, &hidden)
    }

    /// The same tokens with each patch's position added.
    pub(super) fn place(&self, tokens: &Tensor) -> Result<Tensor> {
        let patches = tokens.narrow(1, self.leading, self.grid * self.grid)?;
        self.behind_leading(tokens, &patches.broadcast_add(&self.position)?)
    }

    fn behind_leading(&self, tokens: &Tensor, patches: &Tensor) -> Result<Tensor> {
        match self.leading {
            0 => Ok(patches.clone()),
            leading => Tensor::cat(&[&tokens.narrow(1, 0, leading)?, patches], 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::super::testing::tiny_encoder;
    use super::*;

    fn layer(passes: usize, block: usize) -> MaskingLayer {
        let masking = Masking { passes, block };
        let encoder = tiny_encoder(0);
        let specs = MaskingLayer::tensors(masking, &encoder);
        let values = specs.initial_values(1, &Device::Cpu).unwrap();
        let weights = VarBuilder::from_tensors(values, DType::F32, &Device::Cpu);
        MaskingLayer::new(masking, &encoder, weights)
            .unwrap()
            .unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn every_patch_is_hidden_in_one_pass() {
        for (passes, block) in [(2, 1), (3, 2), (4, 1), (5, 3)] {
            let layer = layer(passes, block);
            let mut times = vec![0.0; layer.grid * layer.grid];
            for pass in 0..passes {
                let hidden = values(&layer.hidden_in(pass, &Device::Cpu).unwrap());
                for (times, hidden) in times.iter_mut().zip(hidden) {
                    *times += hidden;
                }
            }
            assert!(times.iter().all(|&times| times == 1.0), "{times:?}");
        }
    }

    #[test]
    fn what_is_hidden_leaves_no_trace() {
        let layer = layer(2, 1);
        let hidden = layer.hidden_in(0, &Device::Cpu).unwrap();
        let (patches, width) = (layer.grid * layer.grid, layer.token.dims()[2]);
        let count = layer.leading + patches;
        let tokens = Tensor::randn(0f32, 1., (1, count, width), &Device::Cpu).unwrap();
        let shown = layer.hide(&tokens, &hidden).unwrap();
        let (before, after) = (values(&tokens), values(&shown));
        let token = values(&layer.token);
        assert_eq!(
            before[..layer.leading * width],
            after[..layer.leading * width]
        );
        for (patch, is_hidden) in values(&hidden).into_iter().enumerate() {
            let at = (layer.leading + patch) * width;
            let expected = match is_hidden > 0. {
                true => &token[..],
                false => &before[at..at + width],
            };
            assert_eq!(&after[at..at + width], expected);
        }
    }

    #[test]
    fn about_one_patch_in_so_many_is_hidden_in_training() {
        let layer = layer(4, 1);
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let hidden = layer.hidden_at_random(64, &mut random, &Device::Cpu);
        let mean = hidden.unwrap().mean_all().unwrap();
        let mean = mean.to_scalar::<f32>().unwrap();
        assert!((mean - 0.25).abs() < 0.05, "{mean}");
    }
}
