//! The MVMCAD network: frozen encoder, prior, noisy bottleneck, amplification, decoder.
//!
//! The decoder learns to rebuild the encoder's features of good parts; where it fails, the part
//! is anomalous. Features are compared in two groups: the shallow half of the encoder's target
//! blocks with the deep half of the decoder, and the deep half with the shallow half of the
//! decoder. Encoder features are targets only: no gradient flows into them.
//! Liu et al., "MVMCAD" (arXiv 2504.21294), on the ground of Guo et al., "Dinomaly".

mod amplification;
mod bottleneck;
mod decoder;
#[cfg(test)]
mod gradients;
#[cfg(test)]
mod precision;
mod prior;
mod whitening;

use candle_core::{D, DType, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

pub use self::amplification::{
    Amplification, AmplificationAttention, AmplificationScope, AmplificationSoftmax,
    AmplificationStrength,
};
use self::amplification::{AmplificationForm, AmplificationLayer};
pub(crate) use self::amplification::{SQUARED_NORM_GUARD, WEIGHT_GUARD};
use self::bottleneck::{Bottleneck, Dropout};
use self::decoder::Decoder;
pub(crate) use self::prior::Prior;
pub use self::prior::PriorMode;
pub use self::whitening::FeatureStatistics;
use self::whitening::Whitening;
use super::layers::Mode;
use super::tensors::{Initial, TensorSpecs};
use super::vit::{LARGEST_DEPTH, Vit, VitConfig};

/// First values of every trained linear layer, as Dinomaly has them.
pub(crate) const INITIAL_WEIGHT: Initial = Initial::TruncatedNormal {
    deviation: 0.01,
    limit: 0.03,
};
/// Epsilon of the layer norms outside the encoder, as Dinomaly has it.
pub(crate) const NORM_EPSILON: f32 = 1e-8;
/// Epsilon of the norm that recentred targets go through, torch's default for layer norms.
pub(crate) const RECENTRING_EPSILON: f64 = 1e-5;
/// Keeps the cosine of a zero vector finite, as torch does.
pub(crate) const COSINE_EPSILON: f64 = 1e-8;

/// The architecture of the whole network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MvmcadConfig {
    /// Whether and how the image is weighed before the encoder.
    #[serde(default)]
    pub prior: PriorMode,
    /// Whether and where amplification takes place.
    #[serde(default)]
    pub amplification: Amplification,
    /// What the amplification's weights sum up to one over.
    #[serde(default)]
    pub amplification_softmax: AmplificationSoftmax,
    /// How the amplification mixes tokens.
    #[serde(default)]
    pub amplification_attention: AmplificationAttention,
    /// Whether views are amplified one by one or all those of a part together.
    #[serde(default)]
    pub amplification_scope: AmplificationScope,
    /// How much of the amplification is added.
    #[serde(default)]
    pub amplification_strength: AmplificationStrength,
    /// What the decoder is to rebuild.
    #[serde(default)]
    pub target: Target,
    /// Whether features are whitened by the statistics of good parts before they are rebuilt.
    #[serde(default)]
    pub whitening: bool,
    /// Share of the mean variance that whitening adds to each direction's variance: the larger, the
    /// less small directions are stretched.
    #[serde(default = "default_whitening_noise")]
    pub whitening_noise: f64,
    /// Blocks of the decoder, an even number; the paper has 8.
    pub decoder_depth: usize,
    /// Share of values that dropout removes in training.
    pub bottleneck_dropout: f32,
    /// The frozen encoder.
    pub encoder: VitConfig,
}

/// Directions with less than a thousandth of the mean variance are mostly noise.
fn default_whitening_noise() -> f64 {
    1e-3
}

/// What the decoder is to rebuild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The encoder's patch features as they are.
    #[default]
    Plain,
    /// The patch features less the class token's, brought to mean 0 and variance 1 over their
    /// channels: what an image shows beyond its class (Guo et al., "Dinomaly2").
    Recentred,
}

impl MvmcadConfig {
    /// The default architecture on this encoder.
    pub fn new(encoder: VitConfig) -> Self {
        Self {
            prior: PriorMode::default(),
            amplification: Amplification::default(),
            amplification_softmax: AmplificationSoftmax::default(),
            amplification_attention: AmplificationAttention::default(),
            amplification_scope: AmplificationScope::default(),
            amplification_strength: AmplificationStrength::default(),
            target: Target::default(),
            whitening: false,
            whitening_noise: default_whitening_noise(),
            decoder_depth: 8,
            bottleneck_dropout: 0.2,
            encoder,
        }
    }

    /// Whether the views of a part are scored together: a view's map then depends on what other
    /// views of its part are there.
    pub fn mixes_views(&self) -> bool {
        self.amplification != Amplification::Off
            && self.amplification_scope == AmplificationScope::Part
    }

    fn amplification_form(&self) -> AmplificationForm {
        AmplificationForm {
            place: self.amplification,
            softmax: self.amplification_softmax,
            attention: self.amplification_attention,
            scope: self.amplification_scope,
            strength: self.amplification_strength,
        }
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// Says which key breaks which rule.
    pub fn validate(&self) -> std::result::Result<(), String> {
        self.encoder
            .validate()
            .map_err(|fault| format!("encoder: {fault}"))?;
        let targets = self.encoder.targets.len();
        if !targets.is_multiple_of(2) {
            return Err(format!(
                "encoder: `targets` must be an even number of blocks, found `{targets}`"
            ));
        }
        let depth = self.decoder_depth;
        if !(2..=LARGEST_DEPTH).contains(&depth) || !depth.is_multiple_of(2) {
            return Err(format!(
                "`decoder_depth` must be even and 2 to {LARGEST_DEPTH}, found `{depth}`"
            ));
        }
        let noise = self.whitening_noise;
        if !noise.is_finite() || noise <= 0. {
            return Err(format!(
                "`whitening_noise` must be above 0, found `{noise}`"
            ));
        }
        let dropout = self.bottleneck_dropout;
        if !(0. ..1.).contains(&dropout) {
            return Err(format!(
                "`bottleneck_dropout` must be at least 0 and below 1, found `{dropout}`"
            ));
        }
        Ok(())
    }

    /// Everything that is trained, the prior's running statistics and the whitening: all but the
    /// encoder.
    pub fn trainable_tensors(&self) -> TensorSpecs {
        let VitConfig { width, heads, .. } = self.encoder;
        let mut specs = TensorSpecs::default();
        specs.extend("prior", Prior::tensors(self.prior));
        specs.extend("whitening", Whitening::tensors(self.whitening, width));
        if self.amplification != Amplification::Replace {
            specs.extend("bottleneck", Bottleneck::tensors(width));
        }
        let amplification = AmplificationLayer::tensors(self.amplification_form(), width, heads);
        specs.extend("amplification", amplification);
        specs.extend("decoder", Decoder::tensors(self.decoder_depth, width));
        specs
    }

    /// Every tensor of a bundle: the trained ones, and the encoder under `encoder.`.
    pub fn tensors(&self) -> TensorSpecs {
        let mut specs = self.trainable_tensors();
        specs.extend("encoder", self.encoder.tensors());
        specs
    }
}

/// What the encoder made of a batch: the means of the two halves of the target blocks, each with
/// all tokens, `[batch, tokens, width]`.
#[derive(Clone, Debug)]
pub struct EncoderGroups {
    /// Mean of the first half of the target blocks.
    pub shallow: Tensor,
    /// Mean of the second half.
    pub deep: Tensor,
}

/// Patch features to compare, `[batch, patches, width]`: `encoder[g]` with `decoder[g]`.
#[derive(Clone, Debug)]
pub struct GroupFeatures {
    /// Targets, cut off from the gradient: shallow, deep.
    pub encoder: [Tensor; 2],
    /// Reconstructions: deep half of the decoder, shallow half.
    pub decoder: [Tensor; 2],
}

impl GroupFeatures {
    /// `1 - cosine` at each patch, one tensor `[batch, patches]` a group.
    ///
    /// # Errors
    /// When the device fails.
    pub fn distances(&self) -> Result<[Tensor; 2]> {
        let [first, second] =
            [0, 1].map(|group| cosine_distance(&self.encoder[group], &self.decoder[group]));
        Ok([first?, second?])
    }

    /// The mean of both groups' distances: the anomaly of each patch, `[batch, patches]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn anomalies(&self) -> Result<Tensor> {
        let [first, second] = self.distances()?;
        (first + second)? * 0.5
    }
}

/// The network.
#[derive(Clone, Debug)]
pub struct Mvmcad {
    encoder: Vit,
    prior: Option<Prior>,
    whitening: Option<Whitening>,
    dropout: Dropout,
    bottleneck: Option<Bottleneck>,
    amplification: Option<AmplificationLayer>,
    decoder: Decoder,
    /// What bottleneck, amplification and decoder compute in.
    precision: DType,
    config: MvmcadConfig,
}

impl Mvmcad {
    /// Builds the network: the encoder's tensors from `encoder` (names as in
    /// [`VitConfig::tensors`]), all others from `trainable` ([`MvmcadConfig::trainable_tensors`]).
    /// The encoder computes in the precision of its tensors, and bottleneck, amplification and decoder in
    /// that of theirs; features, and all that is made of them, are in f32.
    ///
    /// # Errors
    /// When the architecture breaks a rule, or a tensor is missing or misshapen.
    pub fn new(
        config: &MvmcadConfig,
        encoder: VarBuilder<'_>,
        trainable: VarBuilder<'_>,
    ) -> Result<Self> {
        config.validate().map_err(candle_core::Error::msg)?;
        let VitConfig { width, heads, .. } = config.encoder;
        // Few numbers, and what they are multiplied with is in f32.
        let exact = trainable.to_dtype(DType::F32);
        let dropout = Dropout::new(config.bottleneck_dropout);
        let bottleneck = match config.amplification {
            Amplification::Replace => None,
            _ => Some(Bottleneck::new(
                width,
                dropout.clone(),
                trainable.pp("bottleneck"),
            )?),
        };
        Ok(Self {
            encoder: Vit::new(&config.encoder, encoder)?,
            prior: Prior::new(config.prior, exact.pp("prior"))?,
            whitening: Whitening::new(config.whitening, width, exact.pp("whitening"))?,
            dropout,
            bottleneck,
            amplification: AmplificationLayer::new(
                config.amplification_form(),
                width,
                heads,
                trainable.pp("amplification"),
            )?,
            decoder: Decoder::new(config.decoder_depth, width, heads, trainable.pp("decoder"))?,
            precision: trainable.dtype(),
            config: config.clone(),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &MvmcadConfig {
        &self.config
    }

    /// Whether encoder outputs may be computed once and kept: nothing before them is trained.
    pub fn can_cache_encoder(&self) -> bool {
        self.prior.is_none()
    }

    /// Starts the dropout's random numbers anew, so that a training step can be repeated.
    pub fn reseed_dropout(&self, seed: u64) {
        self.dropout.reseed(seed);
    }

    /// Images `[batch, 3, side, side]` to the encoder's two groups, whitened if the architecture
    /// says so. With a prior and in [`Mode::Train`] gradients flow to the prior; otherwise the
    /// result is detached.
    ///
    /// # Errors
    /// When the images have another side, or the device fails.
    pub fn encode(&self, images: &Tensor, mode: Mode) -> Result<EncoderGroups> {
        let groups = self.encode_raw(images, mode)?;
        match &self.whitening {
            None => Ok(groups),
            Some(whitening) => whitening.forward(&groups),
        }
    }

    /// [`Self::encode`] without the whitening: what [`FeatureStatistics`] are taken of.
    ///
    /// # Errors
    /// When the images have another side, or the device fails.
    pub fn encode_raw(&self, images: &Tensor, mode: Mode) -> Result<EncoderGroups> {
        let outputs = match &self.prior {
            None => self.encoder.forward(images, Mode::Inference)?,
            Some(prior) => self.encoder.forward(&prior.forward(images, mode)?, mode)?,
        };
        let (shallow, deep) = outputs.split_at(outputs.len() / 2);
        let groups = EncoderGroups {
            shallow: mean(shallow)?,
            deep: mean(deep)?,
        };
        match (&self.prior, mode) {
            (Some(_), Mode::Train) => Ok(groups),
            _ => Ok(EncoderGroups {
                shallow: groups.shallow.detach(),
                deep: groups.deep.detach(),
            }),
        }
    }

    /// Runs bottleneck, amplification and decoder on encoder groups, fresh or cached. `views` says
    /// how many consecutive images of the batch each part has; it matters to a network that mixes
    /// views ([`MvmcadConfig::mixes_views`]).
    ///
    /// # Errors
    /// When `views` does not sum up to the batch, or the device fails.
    pub fn reconstruct(
        &self,
        groups: &EncoderGroups,
        views: &[usize],
        mode: Mode,
    ) -> Result<GroupFeatures> {
        self.restore(groups, groups, views, mode)
    }

    /// As [`Self::reconstruct`], but what should come out (`wanted`) differs from what goes in
    /// (`given`): in training, the features of an altered image and those of the unaltered one.
    ///
    /// # Errors
    /// When `views` does not sum up to the batch, or the device fails.
    pub fn restore(
        &self,
        given: &EncoderGroups,
        wanted: &EncoderGroups,
        views: &[usize],
        mode: Mode,
    ) -> Result<GroupFeatures> {
        // The mean over all target blocks, since the groups have equal sizes.
        let tokens = ((&given.shallow + &given.deep)? * 0.5)?;
        let tokens = tokens.to_dtype(self.precision)?;
        let mut tokens = match &self.bottleneck {
            Some(bottleneck) => bottleneck.forward(&tokens, mode)?,
            None => self.dropout.forward(&tokens, mode)?,
        };
        if let Some(amplification) = &self.amplification {
            tokens = amplification.forward(&tokens, views, mode)?;
        }
        let [shallow, deep] = self.decoder.forward(&tokens, mode)?;
        Ok(GroupFeatures {
            encoder: [self.target(&wanted.shallow)?, self.target(&wanted.deep)?],
            decoder: [self.patches(&deep)?, self.patches(&shallow)?],
        })
    }

    /// [`Self::encode`], then [`Self::reconstruct`].
    ///
    /// # Errors
    /// When the images have another side, `views` does not sum up to their number, or the device
    /// fails.
    pub fn forward_groups(
        &self,
        images: &Tensor,
        views: &[usize],
        mode: Mode,
    ) -> Result<GroupFeatures> {
        self.reconstruct(&self.encode(images, mode)?, views, mode)
    }

    /// Anomaly of each patch, the mean of both groups: `[batch, grid, grid]`.
    ///
    /// # Errors
    /// As [`Self::forward_groups`].
    pub fn patch_anomalies(&self, images: &Tensor, views: &[usize]) -> Result<Tensor> {
        let features = self.forward_groups(images, views, Mode::Inference)?;
        let grid = self.config.encoder.grid();
        features.anomalies()?.reshape(((), grid, grid))
    }

    /// What the decoder is to rebuild of one group, cut off from the gradient.
    fn target(&self, tokens: &Tensor) -> Result<Tensor> {
        let tokens = tokens.detach();
        let patches = self.patches(&tokens)?;
        match self.config.target {
            Target::Plain => Ok(patches),
            Target::Recentred => {
                let beyond_class = patches.broadcast_sub(&tokens.narrow(1, 0, 1)?)?;
                let mean = beyond_class.mean_keepdim(D::Minus1)?;
                let centred = beyond_class.broadcast_sub(&mean)?;
                let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
                centred.broadcast_div(&(variance + RECENTRING_EPSILON)?.sqrt()?)
            }
        }
    }

    fn patches(&self, tokens: &Tensor) -> Result<Tensor> {
        let leading = self.config.encoder.leading_tokens();
        tokens.narrow(1, leading, tokens.dim(1)? - leading)
    }
}

/// `1 - cosine` over the last dimension.
///
/// # Errors
/// When the shapes differ, or the device fails.
pub fn cosine_distance(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    // Under the root the square of torch's epsilon: the gradient at zero stays finite.
    let guard = COSINE_EPSILON * COSINE_EPSILON;
    #[cfg(feature = "cuda")]
    if let Some(distance) = super::kernels::cuda::cosine_distance(left, right, guard)? {
        return Ok(distance);
    }
    let products = (left * right)?.sum(D::Minus1)?;
    let left = (left.sqr()?.sum(D::Minus1)? + guard)?.sqrt()?;
    let right = (right.sqr()?.sum(D::Minus1)? + guard)?.sqrt()?;
    (products / (left * right)?)?.affine(-1., 1.)
}

/// The mean of tensors of one shape, in f32 whatever they are in.
fn mean(tensors: &[Tensor]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(mean) = super::kernels::cuda::mean(tensors)? {
        return Ok(mean);
    }
    let mut sum = tensors[0].to_dtype(DType::F32)?;
    for tensor in &tensors[1..] {
        sum = (sum + tensor.to_dtype(DType::F32)?)?;
    }
    sum * (1. / tensors.len() as f64)
}
