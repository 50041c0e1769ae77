//! The command line: one file a subcommand, each from flags to a call into the library to what a
//! person reads.

pub mod archive;
pub mod bench;
pub mod bus;
pub mod calibrate;
mod checkpoints;
pub mod compare;
pub mod config;
pub mod data;
pub mod demo;
pub mod eval;
pub mod export;
mod heat;
mod interrupts;
pub mod model;
pub mod model_fetch;
mod outputs;
mod page;
pub mod pretrain;
pub mod produce;
pub mod replay;
pub mod run;
pub mod status;
pub mod synth;
pub mod tail;
pub mod train;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::compare::CompareError;
use crate::archive::{EmptyRange, LocationError};
use crate::config::ConfigError;
use crate::model::candle_model::PlacementError;
use crate::model::device::DeviceError;
use crate::telemetry::TelemetryError;
use crate::training::TrainingError;
use crate::training::recipe::RecipeError;

/// Scores every view of every part on the line: multi-view anomaly detection over Kafka.
#[derive(Debug, Parser)]
#[command(name = "panoptes", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a simulated line: embedded broker, rendered parts, shipped model; no set-up.
    Demo(demo::DemoArguments),
    /// Score the parts of a line's camera topics until told to stop.
    Run(run::RunArguments),
    /// Score a range of archived camera topics again, into another results topic.
    Replay(replay::ReplayArguments),
    /// Print what a running instance is doing, and what holds each partition.
    Status(status::StatusArguments),
    /// Publish folders of images as camera topics.
    Produce(produce::ProduceArguments),
    /// Write a range of camera topics to files, on disk or in an S3-compatible store.
    Export(export::ExportArguments),
    /// Look into archives that `export` has written.
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    /// Print results readably.
    Tail(tail::TailArguments),
    /// Tell what two results topics say of the same parts, and where they differ.
    Compare(compare::CompareArguments),
    /// Render a synthetic multi-view data set.
    Synth(synth::SynthArguments),
    /// Train the small encoder on formula-driven images.
    Pretrain(pretrain::PretrainArguments),
    /// Train a model bundle on normal parts.
    Train(train::TrainArguments),
    /// Measure a model bundle on labelled parts.
    Eval(eval::EvalArguments),
    /// Set a bundle's thresholds from normal parts.
    Calibrate(calibrate::CalibrateArguments),
    /// Measure the model, the stages, the bus, and the whole pipeline.
    Bench(bench::BenchArguments),
    /// Check or show the settings.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look into model bundles, fetch published encoders.
    #[command(subcommand)]
    Model(ModelCommand),
}

/// What to do with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Check a bundle and print what is in it.
    Inspect(model::InspectArguments),
    /// Get a published DINOv2 encoder from the Hugging Face Hub.
    Fetch(model_fetch::FetchArguments),
}

/// Exit code of a wrong configuration or usage; clap's own, too.
const USAGE: u8 = 2;

/// Exit code of all else that fails.
const FAILURE: u8 = 1;

/// Runs the command and says how it went.
pub fn run(cli: Cli) -> ExitCode {
    let Err(error) = dispatch(cli.command) else {
        return ExitCode::SUCCESS;
    };
    match error.downcast_ref::<ConfigError>() {
        // It has a heading and a line for each problem.
        Some(problems) => eprintln!("{problems}"),
        None => eprintln!("error: {error:#}"),
    }
    ExitCode::from(exit_code(&error))
}

/// What failed are the settings or flags as they were given, or something else.
fn exit_code(error: &anyhow::Error) -> u8 {
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        let device = match cause.downcast_ref() {
            Some(PlacementError::Device(device)) => Some(device),
            _ => cause.downcast_ref(),
        };
        cause.is::<ConfigError>()
            || cause.is::<LocationError>()
            || cause.is::<EmptyRange>()
            || matches!(cause.downcast_ref(), Some(CompareError::SameTopic(_)))
            || cause.is::<RecipeError>()
            || cause.is::<replay::ReplayFlagError>()
            || matches!(cause.downcast_ref(), Some(TelemetryError::Filter { .. }))
            || matches!(cause.downcast_ref(), Some(TrainingError::Setting(_)))
            || matches!(device, Some(DeviceError::Unknown(_)))
    };
    match error.chain().any(is_usage) {
        true => USAGE,
        false => FAILURE,
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Run(arguments) => run::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Status(arguments) => {
            print!("{}", status::run(&arguments)?);
            Ok(())
        }
        Command::Produce(arguments) => produce::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Archive(command) => archive::run(&command),
        Command::Tail(arguments) => tail::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Synth(arguments) => synth::run(&arguments),
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Config(command) => {
            print!("{}", config::run(&command)?);
            Ok(())
        }
        Command::Model(ModelCommand::Inspect(arguments)) => model::inspect(&arguments),
        Command::Model(ModelCommand::Fetch(arguments)) => model_fetch::fetch(&arguments),
    }
}

/// A librdkafka property from the command line.
fn parse_property(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| format!("a property is `NAME=VALUE`, found `{text}`"))
}

/// How long calls that block may take once all else has ended. A client that waits for brokers that
/// are gone waits for ever.
const BLOCKING_PATIENCE: Duration = Duration::from_secs(5);

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_timeout(BLOCKING_PATIENCE);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> u8 {
        let words = std::iter::once("panoptes").chain(line.split(' '));
        exit_code(&dispatch(Cli::parse_from(words).command).unwrap_err())
    }

    #[test]
    fn settings_and_flags_that_are_wrong_exit_with_2_and_all_else_with_1() {
        let train = "train --data absent --encoder absent --output absent";
        for line in [
            "run --config absent.toml",
            &format!("{train} --set run.bach=8"),
            &format!("{train} --recipe absent.toml"),
            &format!("{train} --device gpu"),
            "pretrain --output absent/encoder --batch 0",
            "export absent/archive",
            "export gopher://archive --topic line1.cam.top",
            "export absent/archive --topic line1.cam.top --from-offset 300 --to-offset 200",
            "archive check gopher://archive",
            "compare results results",
        ] {
            assert_eq!(code(line), USAGE, "{line}");
        }
        for line in [train, "model inspect absent"] {
            assert_eq!(code(line), FAILURE, "{line}");
        }
    }

    #[test]
    fn a_wrong_setting_is_found_below_what_was_being_done() {
        let setting = TrainingError::Setting("`threads` must be at least 1".to_owned());
        let error = anyhow::Error::from(setting).context("training failed");
        assert_eq!(exit_code(&error), USAGE);
        let unknown = PlacementError::from(DeviceError::Unknown("gpu".to_owned()));
        let error = anyhow::Error::from(unknown).context("cannot place the model");
        assert_eq!(exit_code(&error), USAGE);
        let absent = PlacementError::from(DeviceError::Unavailable {
            name: "cuda:0".to_owned(),
            reason: "no driver".to_owned(),
        });
        assert_eq!(exit_code(&absent.into()), FAILURE);
        assert_eq!(exit_code(&TrainingError::InterruptedEarly.into()), FAILURE);
    }

    #[test]
    fn numbers_out_of_their_range_are_found_with_the_flags() {
        let wrong = [
            "calibrate --model m --data d --quantile 1.5",
            "calibrate --model m --data d --quantile x",
            "calibrate --model m --data d --margin=-1",
            "calibrate --model m --data d --margin inf",
            "synth --out o --defective-share 1.1",
        ];
        let parse = |line: &str| Cli::try_parse_from(format!("panoptes {line}").split(' '));
        for line in wrong {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(USAGE), "{line}");
        }
        parse("calibrate --model m --data d --quantile 1 --margin 0").unwrap();
        parse("synth --out o --defective-share 1").unwrap();
    }
}
