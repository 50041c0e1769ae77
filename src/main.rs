//! The `panoptes` binary: parses flags and hands over to [`panoptes::cli`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    panoptes::process::prepare();
    let _fail_points = fail::FailScenario::setup();
    panoptes::cli::run(panoptes::cli::Cli::parse())
}
