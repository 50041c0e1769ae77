//! The `panoptes` command.

use clap::{Parser, Subcommand};

/// Panoptes watches every view of every part on the line.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pretrain an encoder from scratch
    Pretrain(panoptes::cli::pretrain::PretrainArguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Pretrain(arguments) => panoptes::cli::pretrain::run(&arguments),
    }
}
