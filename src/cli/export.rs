//! `panoptes export`: writes a range of camera topics to an archive.
//!
//! On a terminal with a bar; elsewhere with a line of JSON now and then and one at the end, on standard
//! output. Running the same command again goes on where one that was killed ended.

mod display;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;
use clap::Args;

use super::archive::{StoreArgs, check};
use super::config::SettingsArgs;
use crate::archive::estimate::estimate;
use crate::archive::export::{ExportSettings, Exported, export, survey};
use crate::archive::progress::ExportProgress;
use crate::archive::{ArchiveStore, MOST_SEGMENT_BYTES};
use crate::config::Settings;
use crate::domain::Timestamp;
use crate::pipeline::bus_settings;
use crate::schema::archive::RequestedRange;

use display::Display;

/// How often the bar moves.
const REFRESH_INTERVAL: Duration = Duration::from_millis(250);

/// Write a range of camera topics to files, on disk or in an S3-compatible store
#[derive(Args, Clone, Debug)]
pub struct ExportArguments {
    /// Where to: a folder, or `s3://bucket/prefix`
    pub archive: String,
    /// Where the settings come from; of them count `[bus]` and `[input]`.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// A topic, instead of those of the settings; may be given more than once
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Topics by regular expression, beginning with `^`, instead of those of the settings
    #[arg(long, value_name = "REGEX", conflicts_with = "topics")]
    pub topic_regex: Option<String>,
    /// Begin each partition with its first record of this time or later, as RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<i64>,
    /// End each partition before its first record of this time or later; else where it ends now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to: Option<i64>,
    /// Begin each partition with this offset
    #[arg(long, value_name = "OFFSET", conflicts_with = "from", value_parser = clap::value_parser!(i64).range(0..))]
    pub from_offset: Option<i64>,
    /// End each partition before this offset
    #[arg(long, value_name = "OFFSET", conflicts_with = "to", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// Cut segments at this size (70 GiB at most), and at each full hour
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_segment_bytes)]
    pub segment_bytes: ByteSize,
    /// Partitions that are read at the same time; each takes up to 64 MiB of memory
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallel: u16,
    /// Say how much there is, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Read the archive afterwards and verify every checksum
    #[arg(long)]
    pub verify: bool,
    /// How the archive is stored.
    #[command(flatten)]
    pub store: StoreArgs,
}

fn parse_time(text: &str) -> Result<i64, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("expected a time such as `2026-03-01T12:00:00Z`, found `{text}`"))?;
    Ok(time.as_millisecond())
}

fn parse_segment_bytes(text: &str) -> Result<ByteSize, String> {
    let size = text.parse().ok().filter(|size: &ByteSize| {
        let allowed = 1..=MOST_SEGMENT_BYTES;
        allowed.contains(&size.as_u64())
    });
    size.ok_or_else(|| {
        format!(
            "expected a size from 1 B to `{MOST_SEGMENT_BYTES}` B, such as `256MiB`, found `{text}`"
        )
    })
}

/// Runs `panoptes export`.
///
/// # Errors
/// When settings or flags are wrong, or the topics cannot be read or the archive not written.
pub fn run(arguments: &ExportArguments) -> anyhow::Result<()> {
    let settings = settings(arguments)?;
    let display = Display::for_output();
    if arguments.dry_run {
        let plan = survey(&settings, now())?;
        let estimate = estimate(&settings.bus, &plan)?;
        println!("{}", display.dry_run(&plan, &estimate));
        return Ok(());
    }
    let store = ArchiveStore::at(&arguments.archive, &arguments.store.options)?;
    super::block_on(async {
        let exported = watch(&store, &settings, &display).await?;
        println!("{}", display.outcome(&exported, store.location()));
        if arguments.verify {
            check(store, |line| display.tell(line)).await?;
        }
        Ok(())
    })
}

fn settings(arguments: &ExportArguments) -> anyhow::Result<ExportSettings> {
    let range = RequestedRange {
        from_timestamp: arguments.from,
        to_timestamp: arguments.to,
        from_offset: arguments.from_offset,
        to_offset: arguments.to_offset,
    };
    range.expect_some()?;
    let mut settings = Settings::read(&arguments.settings.sources())?;
    if !arguments.topics.is_empty() || arguments.topic_regex.is_some() {
        settings.input.topics.clone_from(&arguments.topics);
        let regex = &arguments.topic_regex;
        settings.input.topic_regex.clone_from(regex);
    }
    settings.validate()?;
    let input = settings.input;
    Ok(ExportSettings {
        bus: bus_settings(&settings.bus),
        subscription: input.topic_regex.map_or(input.topics, |regex| vec![regex]),
        range,
        segment_bytes: arguments.segment_bytes.as_u64(),
        parallel: usize::from(arguments.parallel),
    })
}

/// Exports and shows how far it is.
async fn watch(
    store: &ArchiveStore,
    settings: &ExportSettings,
    display: &Display,
) -> anyhow::Result<Exported> {
    let progress = Arc::new(ExportProgress::default());
    let started = Instant::now();
    let exporting = export(store, settings, now, &progress);
    tokio::pin!(exporting);
    let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
    let exported = loop {
        tokio::select! {
            exported = &mut exporting => break exported,
            _ = ticks.tick() => display.show(&progress.position(), started.elapsed()),
        }
    };
    display.clear();
    Ok(exported?)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::archive::EmptyRange;
    use crate::cli::{Cli, Command};

    fn arguments(line: &str) -> Result<ExportArguments, clap::Error> {
        let words = ["panoptes", "export", "archive"].into_iter();
        let cli = Cli::try_parse_from(words.chain(line.split_whitespace()))?;
        let Command::Export(arguments) = cli.command else {
            panic!("another command");
        };
        Ok(arguments)
    }

    fn range(line: &str) -> RequestedRange {
        settings(&arguments(line).unwrap()).unwrap().range
    }

    #[test]
    fn topics_and_range_come_from_the_flags() {
        let given = arguments("--set input.topic_regex=^a --topic a.top --topic a.left");
        let taken = settings(&given.unwrap()).unwrap();
        assert_eq!(taken.subscription, ["a.top", "a.left"]);
        let times =
            range("--topic a --from 2026-03-01T12:00:00.250Z --to 2026-03-01T14:00:00+01:00");
        let hour = 3_600_000;
        let noon = 1_772_366_400_000;
        assert_eq!(times.from_timestamp, Some(noon + 250));
        assert_eq!(times.to_timestamp, Some(noon + hour));
        let offsets = range("--topic-regex ^a --from-offset 5 --to-offset 9");
        assert_eq!((offsets.from_offset, offsets.to_offset), (Some(5), Some(9)));
    }

    #[test]
    fn settings_name_the_topics_where_flags_do_not() {
        let given = arguments("--set input.topics=a.top,a.left");
        let taken = settings(&given.unwrap()).unwrap();
        assert_eq!(taken.subscription, ["a.top", "a.left"]);
        let error = settings(&arguments("").unwrap()).unwrap_err().to_string();
        assert!(error.contains("input.topics"), "{error}");
        let error = settings(&arguments("--topic-regex cam").unwrap()).unwrap_err();
        assert!(error.to_string().contains("must start with `^`"), "{error}");
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for line in [
            "--topic a --topic-regex ^a",
            "--topic a --from 2026-03-01T12:00:00Z --from-offset 1",
            "--topic a --from yesterday",
            "--topic a --to-offset=-1",
            "--topic a --parallel 0",
            "--topic a --segment-bytes 0",
            "--topic a --segment-bytes 75497472001",
            "--topic a --segment-bytes many",
        ] {
            let error = arguments(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        for line in [
            "--topic a --from 2026-03-01T14:00:00Z --to 2026-03-01T12:00:00Z",
            "--topic a --from-offset 300 --to-offset 200",
            "--topic a --from-offset 200 --to-offset 200",
        ] {
            let error = settings(&arguments(line).unwrap()).unwrap_err();
            assert!(error.is::<EmptyRange>(), "{line}: {error}");
        }
    }

    #[test]
    fn a_segment_may_be_as_large_as_an_upload() {
        let given = |size| arguments(&format!("--topic a --segment-bytes {size}"));
        for (size, bytes) in [
            ("1", 1),
            ("70GiB", 70 << 30),
            ("75497472000", 75_497_472_000),
        ] {
            assert_eq!(given(size).unwrap().segment_bytes.as_u64(), bytes);
        }
        let error = given("100GiB").unwrap_err().to_string();
        let expected =
            "expected a size from 1 B to `75497472000` B, such as `256MiB`, found `100GiB`";
        assert!(error.contains(expected), "{error}");
    }
}
