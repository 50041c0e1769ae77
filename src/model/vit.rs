//! The vision transformer that encodes an image: DINOv2 with registers, DeiT, or our own.
//!
//! Promises the token tensors of the chosen blocks, straight from the residual stream, and runs
//! no block after the last of them. The same code runs frozen at inference and, in
//! [`Mode::Train`], with gradients through it: to its own weights when they are variables
//! (pretraining), or to the image (training of the prior).
//!
//! Block, with `s1`, `s2` the optional per-channel scales (LayerScale):
//! `u = x + s1 * attention(norm1(x))`, `y = u + s2 * mlp(norm2(u))`; GELU is the exact one.
//! Oquab et al., "DINOv2"; Darcet et al., "Vision Transformers Need Registers".

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::kernels::gelu;
use super::layers::{LayerNorm, Linear, Mode, attention, linear};
use super::position::resize_table;
use super::tensors::{Initial, TensorSpecs};

/// Epsilon of the encoder's layer norms, as in DINOv2, DeiT and timm.
pub(crate) const NORM_EPSILON: f32 = 1e-6;
/// Width of the hidden layer of a block's MLP, in units of the token width.
const MLP_RATIO: usize = 4;
/// No known network is deeper; more is a mistake in a bundle, not a wish.
pub(crate) const LARGEST_DEPTH: usize = 256;
/// Likewise for widths, grids and image sides.
const LARGEST_SIZE: usize = 8192;
/// First value of LayerScale where the encoder is trained from scratch.
const INITIAL_SCALE: f32 = 0.1;
/// timm's first values of a vision transformer: deviation 0.02, cut far outside.
const INITIAL_WEIGHT: Initial = Initial::TruncatedNormal {
    deviation: 0.02,
    limit: 0.06,
};

/// How a position table of another grid is brought to ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionInterpolation {
    /// As Dinomaly: bicubic with a = -0.75, no antialiasing, scale `(grid + 0.1) / table`.
    #[default]
    Dinomaly,
    /// As DINOv2's register models and timm: antialiased bicubic with a = -0.5.
    Antialiased,
}

/// The architecture of the encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the square input image, in pixels.
    pub input_side: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Blocks that the weights have.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Register tokens after the class token; 0 for none.
    pub registers: usize,
    /// Whether the blocks scale their branches channel by channel.
    pub layer_scale: bool,
    /// Side of the grid of patches that the position table was trained for.
    pub position_side: usize,
    /// How the table is brought to the grid of this input.
    #[serde(default)]
    pub position_interpolation: PositionInterpolation,
    /// Blocks whose output is handed on, ascending, counted from 0.
    pub targets: Vec<usize>,
}

impl VitConfig {
    /// Side of the grid of patches.
    pub fn grid(&self) -> usize {
        self.input_side / self.patch
    }

    /// Tokens before the first patch: class and registers.
    pub fn leading_tokens(&self) -> usize {
        1 + self.registers
    }

    /// All tokens of one image.
    pub fn tokens(&self) -> usize {
        self.leading_tokens() + self.grid() * self.grid()
    }

    /// Blocks that are run: up to the last target.
    pub fn used_depth(&self) -> usize {
        self.targets.last().map_or(0, |last| last + 1)
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// Says which key breaks which rule.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let bounded = [
            ("input_side", self.input_side, LARGEST_SIZE),
            ("patch", self.patch, LARGEST_SIZE),
            ("width", self.width, LARGEST_SIZE),
            ("depth", self.depth, LARGEST_DEPTH),
            ("heads", self.heads, LARGEST_SIZE),
            ("position_side", self.position_side, LARGEST_SIZE),
        ];
        for (key, value, largest) in bounded {
            if !(1..=largest).contains(&value) {
                return Err(format!("`{key}` must be 1 to {largest}, found `{value}`"));
            }
        }
        if self.registers > LARGEST_SIZE {
            let found = self.registers;
            return Err(format!(
                "`registers` must be 0 to {LARGEST_SIZE}, found `{found}`"
            ));
        }
        if self.grid() == 0 || !self.input_side.is_multiple_of(self.patch) {
            let Self {
                input_side, patch, ..
            } = self;
            return Err(format!(
                "`input_side` must be a multiple of `patch` `{patch}`, found `{input_side}`"
            ));
        }
        if !self.width.is_multiple_of(self.heads) {
            let Self { width, heads, .. } = self;
            return Err(format!(
                "`width` must be a multiple of `heads` `{heads}`, found `{width}`"
            ));
        }
        let is_ascending = self.targets.windows(2).all(|pair| pair[0] < pair[1]);
        if self.targets.is_empty() || !is_ascending || self.used_depth() > self.depth {
            let Self { targets, depth, .. } = self;
            return Err(format!(
                "`targets` must ascend and lie below `depth` `{depth}`, found `{targets:?}`"
            ));
        }
        Ok(())
    }

    /// The tensors of the blocks that are run, and what comes before them.
    pub fn tensors(&self) -> TensorSpecs {
        let width = self.width;
        let mut specs = TensorSpecs::default();
        specs.add_linear("patch", 3 * self.patch * self.patch, width, INITIAL_WEIGHT);
        specs.add("class", &[1, 1, width], INITIAL_WEIGHT);
        if self.registers > 0 {
            specs.add("registers", &[1, self.registers, width], INITIAL_WEIGHT);
        }
        let positions = self.position_side * self.position_side;
        specs.add("position", &[1, positions, width], Initial::SineCosine);
        for index in 0..self.used_depth() {
            let block = format!("blocks.{index}");
            specs.add_norm(&format!("{block}.norm1"), width);
            specs.add_linear(&format!("{block}.qkv"), width, 3 * width, INITIAL_WEIGHT);
            specs.add_linear(&format!("{block}.projection"), width, width, INITIAL_WEIGHT);
            specs.add_norm(&format!("{block}.norm2"), width);
            specs.add_linear(
                &format!("{block}.fc1"),
                width,
                MLP_RATIO * width,
                INITIAL_WEIGHT,
            );
            specs.add_linear(
                &format!("{block}.fc2"),
                MLP_RATIO * width,
                width,
                INITIAL_WEIGHT,
            );
            if self.layer_scale {
                specs.add(
                    format!("{block}.scale1"),
                    &[width],
                    Initial::Constant(INITIAL_SCALE),
                );
                specs.add(
                    format!("{block}.scale2"),
                    &[width],
                    Initial::Constant(INITIAL_SCALE),
                );
            }
        }
        specs
    }
}

/// The encoder.
#[derive(Clone, Debug)]
pub struct Vit {
    patch: Linear,
    class: Tensor,
    registers: Option<Tensor>,
    position: Tensor,
    blocks: Vec<Block>,
    config: VitConfig,
}

impl Vit {
    /// Builds the encoder on `weights`, whose names are those of [`VitConfig::tensors`].
    ///
    /// A position table of another grid is interpolated here, whenever an encoder is built: to train the
    /// table, train it at its own grid.
    ///
    /// # Errors
    /// When the architecture breaks a rule, or a tensor is missing or misshapen.
    pub fn new(config: &VitConfig, weights: VarBuilder<'_>) -> Result<Self> {
        config.validate().map_err(candle_core::Error::msg)?;
        let width = config.width;
        let table = weights.get(
            (1, config.position_side * config.position_side, width),
            "position",
        )?;
        let position = resize_table(&table, config)?;
        let registers = match config.registers {
            0 => None,
            count => Some(weights.get((1, count, width), "registers")?),
        };
        let blocks = (0..config.used_depth())
            .map(|index| Block::new(config, weights.pp("blocks").pp(index)))
            .collect::<Result<_>>()?;
        Ok(Self {
            patch: linear(3 * config.patch * config.patch, width, weights.pp("patch"))?,
            class: weights.get((1, 1, width), "class")?,
            registers,
            position,
            blocks,
            config: config.clone(),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Images `[batch, 3, side, side]` to the patch tokens with their positions,
    /// `[batch, patches, width]`.
    ///
    /// # Errors
    /// When the images have another side, or the device fails.
    pub fn embed(&self, images: &Tensor) -> Result<Tensor> {
        self.project(images)?.broadcast_add(&self.position)
    }

    /// As [`Self::embed`], but a patch whose `hidden` (`[batch, patches, 1]`) is 1 shows `token`
    /// (`[1, 1, width]`) instead of its pixels; its position stays.
    ///
    /// # Errors
    /// When shapes do not fit, or the device fails.
    pub fn embed_hiding(&self, images: &Tensor, hidden: &Tensor, token: &Tensor) -> Result<Tensor> {
        let patches = self.project(images)?;
        let change = token.broadcast_sub(&patches)?.broadcast_mul(hidden)?;
        (patches + change)?.broadcast_add(&self.position)
    }

    /// Patches in the precision of the weights, in which all that follows is computed.
    fn project(&self, images: &Tensor) -> Result<Tensor> {
        let patches = unfold(images, self.config.grid(), self.config.patch)?;
        self.patch.forward(&patches.to_dtype(self.class.dtype())?)
    }

    /// Patch tokens to all tokens of every target block, each `[batch, tokens, width]`: class,
    /// registers, patches.
    ///
    /// # Errors
    /// When the device fails.
    pub fn encode(&self, patches: &Tensor, mode: Mode) -> Result<Vec<Tensor>> {
        let (batch, _, width) = patches.dims3()?;
        let class = self.class.broadcast_as((batch, 1, width))?;
        let mut tokens = match &self.registers {
            None => Tensor::cat(&[&class, patches], 1)?,
            Some(registers) => {
                let registers = registers.broadcast_as((batch, self.config.registers, width))?;
                Tensor::cat(&[&class, &registers, patches], 1)?
            }
        };
        let mut outputs = Vec::with_capacity(self.config.targets.len());
        for (index, block) in self.blocks.iter().enumerate() {
            tokens = block.forward(&tokens, mode)?;
            if self.config.targets.contains(&index) {
                outputs.push(tokens.clone());
            }
        }
        Ok(outputs)
    }

    /// Images `[batch, 3, side, side]` to all tokens of every target block.
    ///
    /// # Errors
    /// When the images have another side, or the device fails.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Vec<Tensor>> {
        self.encode(&self.embed(images)?, mode)
    }
}

/// Images to flattened patches `[batch, grid * grid, 3 * patch * patch]`, channel by channel and
/// row by row within a patch: the order in which a convolution kernel is stored.
///
/// # Errors
/// When the images are not `[batch, 3, grid * patch, grid * patch]`.
pub fn unfold(images: &Tensor, grid: usize, patch: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = images.dims4()?;
    let side = grid * patch;
    if (channels, height, width) != (3, side, side) {
        candle_core::bail!(
            "images: expected [batch, 3, {side}, {side}], found {:?}",
            images.dims()
        );
    }
    images
        .reshape(vec![batch, 3, grid, patch, grid, patch])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .contiguous()?
        .reshape((batch, grid * grid, 3 * patch * patch))
}

#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    projection: Linear,
    scale1: Option<Tensor>,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scale2: Option<Tensor>,
    heads: usize,
}

impl Block {
    fn new(config: &VitConfig, weights: VarBuilder<'_>) -> Result<Self> {
        let width = config.width;
        let scale = |name: &str| match config.layer_scale {
            true => weights.get(width, name).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            norm1: LayerNorm::new(width, NORM_EPSILON, weights.pp("norm1"))?,
            qkv: linear(width, 3 * width, weights.pp("qkv"))?,
            projection: linear(width, width, weights.pp("projection"))?,
            scale1: scale("scale1")?,
            norm2: LayerNorm::new(width, NORM_EPSILON, weights.pp("norm2"))?,
            fc1: linear(width, MLP_RATIO * width, weights.pp("fc1"))?,
            fc2: linear(MLP_RATIO * width, width, weights.pp("fc2"))?,
            scale2: scale("scale2")?,
            heads: config.heads,
        })
    }

    fn forward(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        let projected = self.qkv.forward(&self.norm1.forward(tokens, mode)?)?;
        let attended = attention(&projected, self.heads, mode)?;
        let branch = scaled(self.projection.forward(&attended)?, self.scale1.as_ref())?;
        let tokens = (tokens + branch)?;
        let hidden = gelu(&self.fc1.forward(&self.norm2.forward(&tokens, mode)?)?)?;
        let branch = scaled(self.fc2.forward(&hidden)?, self.scale2.as_ref())?;
        tokens + branch
    }
}

fn scaled(branch: Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    match scale {
        None => Ok(branch),
        Some(scale) => branch.broadcast_mul(scale),
    }
}
