//! `panoptes pretrain`: an encoder from scratch, without anyone else's weights or pictures.

use std::path::PathBuf;

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::checkpoints;
use super::data::ReadingArguments;
use super::interrupts::{Interrupts, explain};
use super::outputs;
use crate::model::vit::{PositionInterpolation, VitConfig};
use crate::training::Device;
use crate::training::encoder_file::{EncoderChanges, read_encoder, save_encoder};
use crate::training::iteration::CheckpointSettings;
use crate::training::pretraining::{Pretext, PretrainingSettings, pretrain};

/// Pretrains a small encoder on images drawn from formulas, and on good parts if given.
#[derive(Args, Clone, Debug)]
pub struct PretrainArguments {
    /// File to write the encoder to
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Folder of images of good parts to use besides formula images; may be given again
    #[arg(long, value_name = "FOLDER")]
    pub images: Vec<PathBuf>,
    /// How these folders are read
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// Memory for these images; where they do not fit, as many as do are used, evenly chosen
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    pub image_memory: ByteSize,
    /// Share of the examples that come from `--images`
    #[arg(long, default_value_t = 0.9)]
    pub images_share: f64,
    /// Encoder that `pretrain` wrote, to go on from instead of random weights: its patch, width,
    /// heads, depth and targets are kept, `--side` may differ
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// What the encoder is asked about its images
    #[arg(long, value_enum, default_value_t = PretextChoice::Both)]
    pub pretext: PretextChoice,
    /// Weight of the pixel question against the alteration question
    #[arg(long, default_value_t = 0.3)]
    pub pixel_weight: f64,
    /// Side of the image in pixels
    #[arg(long, default_value_t = 128)]
    pub side: usize,
    /// Side of a patch in pixels
    #[arg(long, default_value_t = 8)]
    pub patch: usize,
    /// Channels of a token
    #[arg(long, default_value_t = 128)]
    pub width: usize,
    /// Attention heads
    #[arg(long, default_value_t = 2)]
    pub heads: usize,
    /// Blocks
    #[arg(long, default_value_t = 6)]
    pub depth: usize,
    /// Target blocks, an even number, counted from 0, whose features the anomaly model will compare
    #[arg(long, value_delimiter = ',', default_values_t = [2, 3, 4, 5])]
    pub targets: Vec<usize>,
    /// Iterations
    #[arg(long, default_value_t = 8000)]
    pub iterations: u64,
    /// Images an iteration
    #[arg(long, default_value_t = 12)]
    pub batch: usize,
    /// Learning rate after the warm-up
    #[arg(long, default_value_t = 1e-3)]
    pub learning_rate: f64,
    /// Iterations of the warm-up, fewer than `--iterations`
    #[arg(long, default_value_t = 60)]
    pub warm_up: u64,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads that share the batch
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Checkpoints
    #[command(flatten)]
    pub checkpoint: CheckpointArguments,
}

/// Where and how often a run keeps its state.
#[derive(Args, Clone, Debug)]
pub struct CheckpointArguments {
    /// File to keep checkpoints in; it stays there at the end
    #[arg(id = "checkpoint_file", long = "checkpoint", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Iterations between checkpoints
    #[arg(long = "checkpoint-every", default_value_t = 200)]
    pub every: u64,
    /// Go on from the checkpoint
    #[arg(long, requires = "checkpoint_file")]
    pub resume: bool,
}

impl CheckpointArguments {
    pub(crate) fn settings(&self) -> CheckpointSettings {
        CheckpointSettings {
            file: self.file.clone(),
            every: self.every,
            resume: self.resume,
            ..CheckpointSettings::default()
        }
    }
}

/// [`Pretext`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PretextChoice {
    /// Pixels of hidden patches, and which patches have been altered
    Both,
    /// Only the pixels of hidden patches
    Hidden,
    /// Only which patches have been altered
    Altered,
}

impl PretrainArguments {
    fn settings(&self) -> PretrainingSettings {
        PretrainingSettings {
            encoder: VitConfig {
                input_side: self.side,
                patch: self.patch,
                width: self.width,
                depth: self.depth,
                heads: self.heads,
                registers: 0,
                layer_scale: false,
                position_side: self.side / self.patch.max(1),
                position_interpolation: PositionInterpolation::default(),
                targets: self.targets.clone(),
            },
            pretext: match self.pretext {
                PretextChoice::Both => Pretext::Both,
                PretextChoice::Hidden => Pretext::Hidden,
                PretextChoice::Altered => Pretext::Altered,
            },
            pixel_weight: self.pixel_weight,
            given_share: self.images_share,
            iterations: self.iterations,
            batch: self.batch,
            learning_rate: self.learning_rate,
            warm_up: self.warm_up,
            seed: self.seed,
            threads: self.threads,
            checkpoint: self.checkpoint.settings(),
        }
    }
}

/// Runs the pretraining and writes the encoder.
///
/// # Errors
/// When the images, the settings, the checkpoint or the device are at fault.
pub fn run(arguments: &PretrainArguments) -> anyhow::Result<()> {
    let mut settings = arguments.settings();
    let first = match &arguments.init {
        None => None,
        Some(path) => {
            let changes = EncoderChanges {
                input_side: Some(arguments.side),
                ..EncoderChanges::default()
            };
            let encoder = read_encoder(path, &changes).context("cannot use the encoder")?;
            Some(encoder.at_its_grid().context("cannot use the encoder")?)
        }
    };
    if let Some(first) = &first {
        settings.encoder = first.config.clone();
    }
    // All that can be said without reading thousands of images.
    settings.validate()?;
    checkpoints::check(&settings.checkpoint)?;
    outputs::check_file(&arguments.output)?;
    let given = arguments
        .reading
        .canvases(&arguments.images, arguments.side, arguments.image_memory)
        .context("cannot use the images")?;
    eprintln!(
        "pretraining on formula images and {} given ones",
        given.len()
    );
    let _interrupts = Interrupts::watch(settings.checkpoint.stop.clone())?;
    let tensors = pretrain(&settings, &given, first.as_ref(), &Device::Cpu, |_, _| {})
        .map_err(explain)
        .context("pretraining failed")?;
    // What is left is quickly done: a signal from here on ends the process.
    settings.checkpoint.stop.request();
    save_encoder(&arguments.output, &settings.encoder, &tensors)
        .context("cannot keep the encoder")?;
    println!("wrote {}", arguments.output.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn what_would_end_the_run_is_told_before_an_image_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(name("plain"), "x").unwrap();
        let error = |output: &str, more: &[&str]| {
            let (output, absent) = (name(output), name("absent"));
            let words = [
                "panoptes", "pretrain", "--output", &output, "--images", &absent,
            ];
            match Cli::parse_from([&words, more].concat()).command {
                Command::Pretrain(arguments) => format!("{:#}", run(&arguments).unwrap_err()),
                other => panic!("expected `pretrain`, found {other:?}"),
            }
        };
        assert!(error("encoder", &["--batch", "0"]).contains("`batch` must be at least 1"));
        assert!(error("", &[]).contains("expected a file, found a folder"));
        assert!(error("plain/encoder", &[]).starts_with("cannot make the folder"));
        let checkpoint = name("plain/run");
        let refused = error("encoder", &["--checkpoint", &checkpoint]);
        assert!(refused.starts_with("cannot make the folder"), "{refused}");
        assert!(error("encoder", &[]).contains("cannot use the images"));
    }

    #[test]
    fn a_checkpoint_is_neither_overwritten_nor_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.safetensors");
        let (name, output) = (file.display().to_string(), folder.path().join("encoder"));
        let output = output.display().to_string();
        let error = |more: &[&str]| {
            let words = [
                "panoptes",
                "pretrain",
                "--output",
                &output,
                "--checkpoint",
                &name,
            ];
            match Cli::parse_from([&words, more].concat()).command {
                Command::Pretrain(arguments) => run(&arguments).unwrap_err().to_string(),
                other => panic!("expected `pretrain`, found {other:?}"),
            }
        };
        let missing = error(&["--resume"]);
        assert!(
            missing.contains("no checkpoint") && missing.contains(&name),
            "{missing}"
        );
        std::fs::write(&file, "hours of work").unwrap();
        let there = error(&[]);
        assert!(
            there.contains("`--resume`") && there.contains(&name),
            "{there}"
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "hours of work");
    }
}
