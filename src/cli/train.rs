//! `panoptes train`: a model bundle from images of good parts.

use std::path::PathBuf;

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::Args;

use super::data::DataArguments;
use super::pretrain::CheckpointArguments;
use crate::domain::ModelIdentity;
use crate::model::bundle::{Bundle, Manifest, Precision};
use crate::model::preprocess::{Normalisation, Preprocessor};
use crate::training::Device;
use crate::training::encoder_file::{EncoderChanges, read_encoder};
use crate::training::recipe::Recipe;
use crate::training::reconstruction::{ReconstructionSettings, reconstruct};

/// Trains a model bundle on good parts.
#[derive(Args, Clone, Debug)]
pub struct TrainArguments {
    /// Good parts; those with a defect are left out
    #[command(flatten)]
    pub data: DataArguments,
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
    /// Recipe: every number that decides what becomes of the data (TOML); defaults if not given
    #[arg(short, long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// A key of the recipe to change: `section.key=value`; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub changes: Vec<String>,
    /// Threads that share the batch
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Memory for the encoder's features; where they do not fit, they are computed in each iteration
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    pub feature_cache: ByteSize,
    /// Memory for the images; where they do not fit, they are read from their files each time
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    pub image_memory: ByteSize,
    /// Checkpoints
    #[command(flatten)]
    pub checkpoint: CheckpointArguments,
}

/// Trains and writes the bundle, still without thresholds.
///
/// # Errors
/// When the data, the encoder, the settings or the device are at fault.
pub fn run(arguments: &TrainArguments) -> anyhow::Result<()> {
    let recipe = Recipe::read(arguments.recipe.as_deref(), &arguments.changes)?;
    let changes = EncoderChanges {
        input_side: recipe.input.side,
        targets: recipe.input.targets.clone(),
    };
    let encoder = read_encoder(&arguments.encoder, &changes).context("cannot use the encoder")?;
    let side = encoder.config.input_side;
    let normalisation = Normalisation::imagenet(recipe.input.resize.unwrap_or(side));
    let preprocessor = Preprocessor::new(normalisation, side).map_err(anyhow::Error::msg)?;
    let images = arguments
        .data
        .training_images(preprocessor, arguments.image_memory)
        .context("cannot use the data")?;
    let map_side = recipe.input.map_side.unwrap_or(side);
    let settings = ReconstructionSettings {
        architecture: recipe.architecture(&encoder.config)?,
        recipe,
        threads: arguments.threads,
        cache_bytes: arguments.feature_cache.as_u64(),
        checkpoint: arguments.checkpoint.settings(),
    };
    let identity = ModelIdentity {
        name: arguments.name.clone(),
        version: arguments.version.clone(),
    };
    let architecture = settings.architecture.clone();
    let manifest = Manifest::new(identity, architecture, normalisation, map_side);
    // What would make the bundle unfit is found before the hours of training.
    manifest.validate().map_err(anyhow::Error::msg)?;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot make the folder `{}`", arguments.output.display()))?;
    println!(
        "training on {} images of {} parts",
        images.len(),
        images.parts().len()
    );
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
