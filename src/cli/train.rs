//! `panoptes train`: a model bundle from images of good parts.

use std::path::PathBuf;

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::pretrain::CheckpointArguments;
use crate::domain::ModelIdentity;
use crate::evaluation::measurement::prepare;
use crate::model::InputImage;
use crate::model::bundle::{Bundle, Manifest, Precision};
use crate::model::mvmcad::{Amplification, MvmcadConfig, PriorMode};
use crate::model::preprocess::{Normalisation, Preprocessor};
use crate::training::Device;
use crate::training::dataset::{PartFolder, list_parts, read_mask};
use crate::training::encoder_file::{EncoderChanges, read_encoder};
use crate::training::objective::Objective;
use crate::training::reconstruction::{ReconstructionSettings, reconstruct};

/// Trains a model bundle on good parts.
#[derive(Args, Clone, Debug)]
pub struct TrainArguments {
    /// Folder of images of good parts: `<class>/<part>/<view>.<jpg|png|...>`
    #[arg(long, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Folder of masks with the same relative paths; parts with a defect are then left out
    #[arg(long, value_name = "FOLDER")]
    pub masks: Option<PathBuf>,
    /// Encoder: written by `pretrain`, or published weights (timm, DINOv2, Hugging Face)
    #[arg(long, value_name = "FILE")]
    pub encoder: PathBuf,
    /// Folder to write the bundle to
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Name of the model, as results carry it
    #[arg(long, default_value = "panoptes")]
    pub name: String,
    /// Version of the model, as results carry it
    #[arg(long = "model-version", default_value = "1")]
    pub version: String,
    /// Side of the encoder's input in pixels; the encoder's own if not given
    #[arg(long)]
    pub side: Option<usize>,
    /// Side to which images are resized before the centre is cut out; the input's if not given
    #[arg(long)]
    pub resize: Option<usize>,
    /// Side of the anomaly maps; the input's if not given
    #[arg(long)]
    pub map_side: Option<usize>,
    /// Target blocks, counted from 0; the encoder's own if not given
    #[arg(long, value_delimiter = ',')]
    pub targets: Option<Vec<usize>>,
    /// Whiten features by the statistics of the good parts before they are rebuilt
    #[arg(long)]
    pub whitening: bool,
    /// Share of the images that are altered before they go in, while the features of the unaltered
    /// ones should come out
    #[arg(long, default_value_t = 0.0)]
    pub altered_share: f64,
    /// Blocks of the decoder
    #[arg(long, default_value_t = 4)]
    pub decoder_depth: usize,
    /// Share of values that dropout removes in the bottleneck
    #[arg(long, default_value_t = 0.2)]
    pub dropout: f32,
    /// Whether and where anomaly amplification takes place
    #[arg(long, value_enum, default_value_t = AmplificationChoice::After)]
    pub amplification: AmplificationChoice,
    /// Whether and how the image is weighed before the encoder
    #[arg(long, value_enum, default_value_t = PriorChoice::Off)]
    pub prior: PriorChoice,
    /// Loss
    #[arg(long, value_enum, default_value_t = LossChoice::Focal)]
    pub loss: LossChoice,
    /// Share of the gradient that easy patches keep under the focal loss
    #[arg(long, default_value_t = 0.1)]
    pub easy_share: f64,
    /// Iterations over which the loss turns from all patches to the hardest; a third of all if not
    /// given
    #[arg(long)]
    pub ramp: Option<u64>,
    /// Iterations
    #[arg(long, default_value_t = 1800)]
    pub iterations: u64,
    /// Images an iteration
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Learning rate after the warm-up; it falls to a tenth
    #[arg(long, default_value_t = 2e-3)]
    pub learning_rate: f64,
    /// Iterations of the warm-up
    #[arg(long, default_value_t = 50)]
    pub warm_up: u64,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads that share the batch
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Memory for the encoder's features; where they do not fit, they are computed in each iteration
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    pub feature_cache: ByteSize,
    /// Checkpoints
    #[command(flatten)]
    pub checkpoint: CheckpointArguments,
}

/// [`Amplification`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AmplificationChoice {
    /// None
    Off,
    /// After the bottleneck, with a residual
    After,
    /// In place of the bottleneck
    Replace,
}

/// [`PriorMode`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PriorChoice {
    /// None; encoder features are computed once
    Off,
    /// The published formulas as they stand
    Literal,
    /// Near the identity at first, bounded
    Calibrated,
}

/// [`Objective`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LossChoice {
    /// The hardest patches alone
    Focal,
    /// Whole feature maps, easy patches with less gradient
    Dinomaly,
}

impl TrainArguments {
    fn settings(&self, encoder: crate::model::vit::VitConfig) -> ReconstructionSettings {
        ReconstructionSettings {
            architecture: MvmcadConfig {
                prior: match self.prior {
                    PriorChoice::Off => PriorMode::Off,
                    PriorChoice::Literal => PriorMode::Literal,
                    PriorChoice::Calibrated => PriorMode::Calibrated,
                },
                amplification: match self.amplification {
                    AmplificationChoice::Off => Amplification::Off,
                    AmplificationChoice::After => Amplification::After,
                    AmplificationChoice::Replace => Amplification::Replace,
                },
                whitening: self.whitening,
                decoder_depth: self.decoder_depth,
                bottleneck_dropout: self.dropout,
                encoder,
            },
            objective: match self.loss {
                LossChoice::Focal => Objective::Focal {
                    easy_share: self.easy_share,
                },
                LossChoice::Dinomaly => Objective::Dinomaly,
            },
            ramp: self.ramp.unwrap_or(self.iterations / 3),
            altered_share: self.altered_share,
            iterations: self.iterations,
            batch: self.batch,
            learning_rate: self.learning_rate,
            warm_up: self.warm_up,
            seed: self.seed,
            threads: self.threads,
            cache_bytes: self.feature_cache.as_u64(),
            checkpoint: self.checkpoint.settings(),
        }
    }
}

/// Trains and writes the bundle, still without thresholds.
///
/// # Errors
/// When the data, the encoder, the settings or the device are at fault.
pub fn run(arguments: &TrainArguments) -> anyhow::Result<()> {
    let changes = EncoderChanges {
        input_side: arguments.side,
        targets: arguments.targets.clone(),
    };
    let encoder = read_encoder(&arguments.encoder, &changes).context("cannot use the encoder")?;
    let side = encoder.config.input_side;
    let normalisation = Normalisation::imagenet(arguments.resize.unwrap_or(side));
    let preprocessor = Preprocessor::new(normalisation, side).map_err(anyhow::Error::msg)?;
    let images = good_images(arguments, &preprocessor).context("cannot use the data")?;
    let settings = arguments.settings(encoder.config.clone());
    let identity = ModelIdentity {
        name: arguments.name.clone(),
        version: arguments.version.clone(),
    };
    let map_side = arguments.map_side.unwrap_or(side);
    let architecture = settings.architecture.clone();
    let manifest = Manifest::new(identity, architecture, normalisation, map_side);
    // What would make the bundle unfit is found before the hours of training.
    manifest.validate().map_err(anyhow::Error::msg)?;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot make the folder `{}`", arguments.output.display()))?;
    println!("training on {} images", images.len());
    let tensors = reconstruct(
        &settings,
        &encoder,
        &images,
        &Device::Cpu,
        |iteration, means| {
            println!("iteration {iteration} loss {:.5}", means[0]);
        },
    )
    .context("training failed")?;
    Bundle::save(&arguments.output, &manifest, &tensors, Precision::Half)
        .context("cannot keep the bundle")?;
    println!(
        "wrote {}; now set its thresholds with `panoptes calibrate`",
        arguments.output.display()
    );
    Ok(())
}

/// Every view of the parts without a defect, prepared.
fn good_images(
    arguments: &TrainArguments,
    preprocessor: &Preprocessor,
) -> anyhow::Result<Vec<InputImage>> {
    let mut images = Vec::new();
    let mut left_out = 0;
    for part in list_parts(&arguments.data, arguments.masks.as_deref())? {
        if has_defect(&part)? {
            left_out += 1;
            continue;
        }
        for view in &part.views {
            images.push(prepare(view, preprocessor)?);
        }
    }
    if left_out > 0 {
        println!("left {left_out} parts with a defect out");
    }
    Ok(images)
}

fn has_defect(part: &PartFolder) -> anyhow::Result<bool> {
    for mask in part.views.iter().filter_map(|view| view.mask.as_deref()) {
        if read_mask(mask)?.defect.contains(&true) {
            return Ok(true);
        }
    }
    Ok(false)
}
