//! `panoptes bench`: how fast each part of the pipeline is, and the whole.
//!
//! The pipeline measured is that of `run`, built from the same settings. What is published to measure
//! it goes to topics of a run of its own, which are deleted afterwards. Every figure comes with the
//! conditions under which it was taken; `--json` prints both for programs.

mod bus;
mod images;
mod latency;
mod line;
mod maps;
pub(super) mod model;
mod null_model;
mod outcomes;
mod pipeline;
mod prepare;
mod reassembly;
mod report;
mod schedule;

mod usage;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use self::report::Report;
use crate::config::{LogFormat, TelemetrySettings};
use crate::telemetry;

/// Flags of `panoptes bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    /// What to measure
    #[command(subcommand)]
    pub bench: Bench,
    /// Print one JSON document instead of a table
    #[arg(long, global = true)]
    pub json: bool,
    /// Keep the JSON document in a file as well
    #[arg(long, global = true, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Show the pipeline's log from this level on
    #[arg(long, global = true, default_value = "error")]
    pub log_level: String,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// The model alone: images a second at each batch size.
    Model(model::ModelArguments),
    /// Decoding and preprocessing alone, for each encoding or for given images.
    Prepare(prepare::PrepareArguments),
    /// Envelopes and reassembly alone: views a second, and memory from tenth to tenth of the parts.
    Reassembly(reassembly::ReassemblyArguments),
    /// The codecs of anomaly maps: time and bytes a map.
    Maps(maps::MapsArguments),
    /// The bus alone: produce rate, and consume rate of the poll thread.
    Bus(bus::BusArguments),
    /// The whole pipeline on a backlog: parts a second, with a model or a stand-in for one.
    Pipeline(pipeline::PipelineArguments),
    /// From a part's last view to its result, as a `read_committed` reader has it, at shares of capacity.
    Latency(latency::LatencyArguments),
}

/// Measures and prints.
///
/// # Errors
/// When what is measured fails, or does not do what it is measured at.
pub fn run(arguments: BenchArguments) -> anyhow::Result<()> {
    telemetry::init_logs(&TelemetrySettings {
        log_format: LogFormat::Text,
        log_level: arguments.log_level,
    })?;
    // As in `run`: counting is part of the work.
    telemetry::install_metrics()?;
    let report: Report = match arguments.bench {
        Bench::Model(arguments) => model::run(&arguments)?,
        Bench::Prepare(arguments) => prepare::run(&arguments)?,
        Bench::Reassembly(arguments) => reassembly::run(&arguments)?,
        Bench::Maps(arguments) => maps::run(&arguments)?,
        Bench::Bus(arguments) => super::block_on(bus::run(arguments))?,
        Bench::Pipeline(arguments) => super::block_on(pipeline::run(arguments))?,
        Bench::Latency(arguments) => super::block_on(latency::run(arguments))?,
    };
    let document = serde_json::to_string_pretty(&report.to_json())?;
    if let Some(file) = &arguments.save {
        std::fs::write(file, &document)
            .with_context(|| format!("failed to write `{}`", file.display()))?;
    }
    match arguments.json {
        true => println!("{document}"),
        false => print!("{}", report.to_table()),
    }
    Ok(())
}
