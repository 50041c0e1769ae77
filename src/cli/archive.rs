//! `panoptes archive check`: reads all of an archive and says whether it is what was written.

use std::fmt::Write as _;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::archive::reader::verify;
use crate::archive::{Archive, ArchiveStore, PartitionArchive};
use crate::schema::archive::PartitionTotals;

/// What to do with an archive.
#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// Read all of it and verify every checksum
    Check(CheckArguments),
}

/// Flags of `panoptes archive check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArguments {
    /// The archive: a folder, or `s3://bucket/prefix`
    pub archive: String,
    /// Where it is stored.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// The flags that say how to reach a store.
#[derive(Args, Clone, Debug, Default)]
pub struct StoreArgs {
    /// An option of the S3 store, over the environment's `AWS_...`, for instance
    /// `aws_endpoint=https://minio:9000`; may be given more than once
    #[arg(long = "store-option", value_name = "NAME=VALUE", value_parser = parse_option)]
    pub options: Vec<(String, String)>,
}

fn parse_option(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=');
    let parts = parts.map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
    parts.ok_or_else(|| format!("an option is `NAME=VALUE`, found `{text}`"))
}

/// Runs the command.
///
/// # Errors
/// When there is no archive, or with the first object that is damaged or missing.
pub fn run(command: &ArchiveCommand) -> anyhow::Result<()> {
    let ArchiveCommand::Check(arguments) = command;
    let store = ArchiveStore::existing(&arguments.archive, &arguments.store.options)?;
    super::block_on(check(store, |line| println!("{line}")))
}

/// Verifies an archive; tells a line for each partition.
pub(super) async fn check(store: ArchiveStore, tell: impl Fn(&str)) -> anyhow::Result<()> {
    let archive = Archive::open(store.clone()).await?;
    if !archive.is_complete() {
        bail!(
            "`{}` is not complete: expected its export to have ended; the same `panoptes export` goes on",
            store.location()
        );
    }
    verify(&archive, |partition, totals| {
        tell(&partition_line(partition, totals));
    })
    .await?;
    let unknown = archive.unknown_objects().await?;
    for object in &unknown {
        tell(&format!(
            "`{object}` belongs to no segment and may be deleted"
        ));
    }
    tell(&format!("`{}` is whole", store.location()));
    Ok(())
}

fn partition_line(partition: &PartitionArchive, totals: &PartitionTotals) -> String {
    let (place, range) = (partition.topic_partition(), partition.range());
    let mut line = format!(
        "{}[{}]: offsets {} to {}, {} records in {} segments",
        place.topic, place.partition, range.start, range.end, totals.records, totals.segments
    );
    for (count, what) in [
        (
            range.deleted_at_start,
            "offsets were deleted before the export",
        ),
        (totals.deleted, "were deleted while it ran"),
        (totals.missing, "hold no record"),
    ] {
        if count > 0 {
            let written = write!(line, "; {count} {what}");
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
        }
    }
    if totals.faults > 0 {
        line += &format!(
            "; {} records lack headers that could not be read",
            totals.faults
        );
    }
    line
}
