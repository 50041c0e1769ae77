//! The command line: one file a subcommand, each from flags to a call into the library to what a
//! person reads.

pub mod calibrate;
mod checkpoints;
pub mod config;
pub mod data;
pub mod demo;
pub mod eval;
mod heat;
mod interrupts;
pub mod model;
pub mod model_fetch;
pub mod pretrain;
pub mod produce;
pub mod run;
pub mod synth;
pub mod tail;
pub mod train;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::ConfigError;

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
    /// Publish folders of images as camera topics.
    Produce(produce::ProduceArguments),
    /// Print results readably.
    Tail(tail::TailArguments),
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

/// Runs the command and says how it went.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref::<ConfigError>().is_some() => {
            eprintln!("{error}");
            ExitCode::from(USAGE)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Run(arguments) => run::run(&arguments),
        Command::Produce(arguments) => produce::run(&arguments),
        Command::Tail(arguments) => Ok(tail::run(&arguments)?),
        Command::Synth(arguments) => synth::run(&arguments),
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
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

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")?
        .block_on(future)
}
