//! `panoptes train`: a model bundle from images of good parts.

mod curve;
mod pictures;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::Args;

use super::checkpoints;
use super::data::{DataArguments, ReadingArguments, has_defect};
use super::interrupts::{Interrupts, explain};
use super::outputs;
use crate::domain::ModelIdentity;
use crate::evaluation::validation::LabelledParts;
use crate::model::bundle::{Bundle, Manifest, Precision};
use crate::model::device::open_device;
use crate::model::mvmcad::MvmcadConfig;
use crate::model::preprocess::Normalisation;
use crate::training::TrainingError;
use crate::training::dataset::{PartFolder, Split};
use crate::training::encoder_file::{Encoder, EncoderChanges, read_encoder};
use crate::training::history::{History, LabelledFigures};
use crate::training::iteration::{CheckpointSettings, StopRequest};
use crate::training::recipe::Recipe;
use crate::training::reconstruction::{
    Observer, ReconstructionSettings, Tensors, Trained, reconstruct,
};

/// Trains a model bundle on good parts.
#[derive(Args, Clone, Debug)]
pub struct TrainArguments {
    /// Good parts; those with a defect are left out
    #[command(flatten)]
    pub data: DataArguments,
    /// Encoder: written by `pretrain`, or published weights (timm, DINOv2, Hugging Face)
    #[arg(long, value_name = "FILE")]
    pub encoder: PathBuf,
    /// Folder to write the bundle to; `training/` in it gets the history, its curve and pictures
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
    /// Labelled parts to judge weights by on the way (`validation.every`), in the same layout as
    /// the data; their split is `test`
    #[arg(long, value_name = "FOLDER")]
    pub validation: Option<PathBuf>,
    /// Folder of their masks, where the layout is `folders`
    #[arg(long, value_name = "FOLDER", requires = "validation")]
    pub validation_masks: Option<PathBuf>,
    /// `cpu`, `cuda:0`, or `auto`
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads that share the batch on the CPU; a GPU is fed by one whatever is asked
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Memory for the encoder's features; where they do not fit, they are computed in each iteration
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    pub feature_cache: ByteSize,
    /// Memory for the images; where they do not fit, they are read from their files each time
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    pub image_memory: ByteSize,
    /// File to keep checkpoints in; it is removed once the bundle is written
    /// [default: `training/checkpoint.safetensors` in the output]
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Iterations between checkpoints; 0 for the end and for interruptions alone
    #[arg(long, default_value_t = 500)]
    pub checkpoint_every: u64,
    /// Go on from the checkpoint
    #[arg(long)]
    pub resume: bool,
}

impl TrainArguments {
    fn checkpoint_file(&self) -> PathBuf {
        let default = || self.output.join("training/checkpoint.safetensors");
        self.checkpoint.clone().unwrap_or_else(default)
    }

    fn settings(&self, recipe: Recipe, architecture: MvmcadConfig) -> ReconstructionSettings {
        ReconstructionSettings {
            architecture,
            recipe,
            threads: self.threads,
            cache_bytes: self.feature_cache.as_u64(),
            checkpoint: CheckpointSettings {
                file: Some(self.checkpoint_file()),
                every: self.checkpoint_every,
                resume: self.resume,
                ..CheckpointSettings::default()
            },
        }
    }
}

/// Trains and writes the bundle, still without thresholds.
///
/// # Errors
/// When the data, the encoder, the settings or the device are at fault, or the run is interrupted.
pub fn run(arguments: &TrainArguments) -> anyhow::Result<()> {
    train(arguments, Interrupts::watch)
}

/// `watch` is called before the iterations begin; what it gives is kept to the end.
fn train<T>(
    arguments: &TrainArguments,
    watch: impl FnOnce(StopRequest) -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    let recipe = Recipe::read(arguments.recipe.as_deref(), &arguments.changes)?;
    let device = open_device(&arguments.device)?;
    let encoder = encoder(arguments, &recipe).context("cannot use the encoder")?;
    let manifest = manifest(arguments, &recipe, &encoder)?;
    let preprocessor = manifest.preprocessor().map_err(anyhow::Error::msg)?;
    let settings = arguments.settings(recipe, manifest.architecture.clone());
    // All that can be said without reading thousands of images.
    settings.validate(&device)?;
    checkpoints::check(&settings.checkpoint)?;
    outputs::check_folder(&arguments.output)?;
    outputs::check_folder(&arguments.output.join("training"))?;
    let mut labelled = labelled(arguments, &settings.recipe, &manifest)?;
    let good = arguments
        .data
        .good_parts(preprocessor, arguments.image_memory, labelled.parts())
        .context("cannot use the data")?;
    eprintln!(
        "training on {} images of {} parts",
        good.images.len(),
        good.images.parts().len()
    );
    let _watching = watch(settings.checkpoint.stop.clone())?;
    let trained = reconstruct(&settings, &encoder, &good.images, &device, &mut labelled)
        .map_err(explain)
        .context("training failed")?;
    // The checkpoint is whole and the bundle is replaced safely: a signal from here on ends the
    // process.
    settings.checkpoint.stop.request();
    keep(arguments, &manifest, trained, &good.parts, labelled.parts())
}

fn encoder(arguments: &TrainArguments, recipe: &Recipe) -> anyhow::Result<Encoder> {
    let changes = EncoderChanges {
        input_side: recipe.input.side,
        targets: recipe.input.targets.clone(),
        position_interpolation: recipe.input.position_interpolation,
    };
    Ok(read_encoder(&arguments.encoder, &changes)?)
}

/// What would make the bundle unfit is found here, before the hours of training.
fn manifest(
    arguments: &TrainArguments,
    recipe: &Recipe,
    encoder: &Encoder,
) -> anyhow::Result<Manifest> {
    let side = encoder.config.input_side;
    let identity = ModelIdentity {
        name: arguments.name.clone(),
        version: arguments.version.clone(),
    };
    let manifest = Manifest::new(
        identity,
        recipe.architecture(&encoder.config)?,
        Normalisation::imagenet(recipe.input.resize_for(side)),
        recipe.input.map_side_for(side),
    );
    // Its numbers are the recipe's and the flags'.
    manifest.validate().map_err(TrainingError::Setting)?;
    Ok(manifest)
}

/// Labelled parts to judge weights by, if any are given.
struct Labelled(Option<LabelledParts>);

impl Labelled {
    fn parts(&self) -> &[PartFolder] {
        self.0.as_ref().map_or(&[], |labelled| &labelled.parts)
    }
}

impl Observer for Labelled {
    fn judges(&self) -> bool {
        self.0.is_some()
    }

    fn labelled_parts(&self) -> String {
        match &self.0 {
            Some(labelled) => labelled.identity(),
            None => "none".to_owned(),
        }
    }

    fn judge(&mut self, tensors: Tensors) -> Result<LabelledFigures, String> {
        match &self.0 {
            Some(labelled) => labelled.judge(tensors),
            None => Ok(LabelledFigures::default()),
        }
    }
}

fn labelled(
    arguments: &TrainArguments,
    recipe: &Recipe,
    manifest: &Manifest,
) -> anyhow::Result<Labelled> {
    let Some(folder) = &arguments.validation else {
        return Ok(Labelled(None));
    };
    if recipe.validation.every == 0 {
        let rule = "`validation.every` must be above 0 for `--validation`, found `0`".to_owned();
        return Err(TrainingError::Setting(rule).into());
    }
    let data = DataArguments {
        data: folder.clone(),
        masks: arguments.validation_masks.clone(),
        reading: ReadingArguments {
            split: None,
            ..arguments.data.reading
        },
    };
    let preprocessor = manifest.preprocessor().map_err(anyhow::Error::msg)?;
    let parts = data
        .labelled_parts(Split::Test, preprocessor.least_side().into())
        .context("cannot use the validation data")?;
    Ok(Labelled(Some(LabelledParts {
        parts,
        manifest: manifest.clone(),
        device: arguments.device.clone(),
    })))
}

/// Writes the bundle, then what tells how it came about; only then the checkpoint goes.
fn keep(
    arguments: &TrainArguments,
    manifest: &Manifest,
    trained: Trained,
    good: &[PartFolder],
    labelled: &[PartFolder],
) -> anyhow::Result<()> {
    let Trained {
        tensors,
        iteration,
        history,
    } = trained;
    let output = &arguments.output;
    let manifest = Bundle::save(output, manifest, &tensors, Precision::Half)
        .context("cannot keep the bundle")?;
    let folder = output.join("training");
    outputs::write(&folder.join("history.csv"), &history.to_csv())?;
    write_curve(&folder.join("loss.svg"), &history)?;
    let bundle = Bundle { manifest, tensors };
    let of_interest = labelled.iter().map(|part| (part, !has_defect(part)));
    let mut drawn = pictures::choose(of_interest);
    if drawn.is_empty() {
        drawn = pictures::choose(good.iter().map(|part| (part, true)));
    }
    pictures::draw(&folder.join("maps"), &bundle, &arguments.device, &drawn)
        .context("cannot draw anomaly maps")?;
    let checkpoint = arguments.checkpoint_file();
    std::fs::remove_file(&checkpoint)
        .with_context(|| format!("cannot remove the checkpoint `{}`", checkpoint.display()))?;
    println!(
        "wrote {} with the weights of iteration {iteration}, and {} with the loss curve and maps; \
         now set its thresholds with `panoptes calibrate`",
        output.display(),
        folder.display()
    );
    Ok(())
}

fn write_curve(file: &Path, history: &History) -> anyhow::Result<()> {
    let svg = curve::draw(history).map_err(anyhow::Error::msg);
    outputs::write(file, &svg.context("cannot draw the loss curve")?)
}

#[cfg(test)]
mod tests;
