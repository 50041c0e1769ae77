//! What is seen of an export: a bar on a terminal, lines of JSON elsewhere.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::archive::estimate::Estimate;
use crate::archive::export::Exported;
use crate::archive::progress::{ExportPosition, totals};
use crate::domain::Timestamp;
use crate::schema::archive::ArchiveManifest;

/// Least time between two lines of JSON.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows exports.
pub(super) enum Display {
    /// To a person.
    Bar(ProgressBar),
    /// To a program; when it was last told something.
    Lines(Mutex<Instant>),
}

impl Display {
    /// By what standard output and standard error are.
    pub(super) fn for_output() -> Self {
        if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {percent}% {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            Self::Bar(ProgressBar::no_length().with_style(style))
        } else {
            Self::Lines(Mutex::new(Instant::now()))
        }
    }

    /// Shows how far the export is, after so much time.
    pub(super) fn show(&self, position: &ExportPosition, elapsed: Duration) {
        if position.all_offsets == 0 {
            return;
        }
        match self {
            Self::Bar(bar) => {
                bar.set_length(position.all_offsets.unsigned_abs());
                bar.set_position(position.offsets.unsigned_abs());
                bar.set_message(message(position, elapsed));
            }
            Self::Lines(last) => {
                let mut last = last.lock().expect("no thread panics while it holds this");
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    println!("{}", progress_line(position, elapsed));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }

    /// A line for people; programs learn by the exit code.
    pub(super) fn tell(&self, line: &str) {
        if let Self::Bar(_) = self {
            println!("{line}");
        }
    }

    /// What there is to export.
    pub(super) fn dry_run(&self, plan: &ArchiveManifest, estimate: &Estimate) -> String {
        let deleted = deleted_at_start(plan);
        if let Self::Lines(_) = self {
            return json!({
                "event": "dry_run",
                "topics": plan.topics.len(),
                "offsets": estimate.offsets,
                "records": estimate.records.round(),
                "bytes": estimate.bytes.round(),
                "deleted_at_start": deleted,
            })
            .to_string();
        }
        let mut text = format!(
            "{} offsets of {} topics: about {} records, {}",
            HumanCount(estimate.offsets.unsigned_abs()),
            plan.topics.len(),
            HumanCount(estimate.records.round() as u64),
            ByteSize(estimate.bytes.round() as u64).display().iec()
        );
        text += &deleted_text(plan);
        text
    }

    /// What was exported.
    pub(super) fn outcome(&self, exported: &Exported, location: &str) -> String {
        let (manifest, totals) = (&exported.manifest, totals(&exported.manifest));
        if let Self::Lines(_) = self {
            return json!({
                "event": "done",
                "archive": location,
                "was_complete": exported.was_complete,
                "topics": manifest.topics.len(),
                "segments": totals.segments,
                "records": totals.records,
                "bytes": totals.bytes,
                "missing": totals.missing,
                "deleted": totals.deleted,
                "deleted_at_start": deleted_at_start(manifest),
                "faults": totals.faults,
            })
            .to_string();
        }
        let begun = match exported.was_complete {
            true => "was complete before: ",
            false => "holds ",
        };
        let mut text = format!(
            "`{location}` {begun}{} records of {} topics in {} segments, {}",
            HumanCount(totals.records),
            manifest.topics.len(),
            HumanCount(totals.segments),
            ByteSize(totals.bytes).display().iec()
        );
        for (count, what) in [
            (
                totals.missing,
                "offsets hold no record: markers of transactions, aborted, compacted",
            ),
            (
                totals.deleted,
                "offsets were deleted by retention before they could be read",
            ),
            (
                i64::try_from(totals.faults).unwrap_or(i64::MAX),
                "records lack headers that could not be read",
            ),
        ] {
            if count > 0 {
                text += &format!("\n{} {what}", HumanCount(count.unsigned_abs()));
            }
        }
        text += &deleted_text(manifest);
        text
    }
}

fn message(position: &ExportPosition, elapsed: Duration) -> String {
    let mut text = format!(
        "{} records, {}",
        HumanCount(position.records),
        ByteSize(position.bytes).display().iec()
    );
    if let Some(time) = position.event_time {
        text += &format!(", at {}", time_text(time));
    }
    if let Some(left) = time_left(position, elapsed) {
        text += &format!(", {} left", HumanDuration(left));
    }
    text
}

fn progress_line(position: &ExportPosition, elapsed: Duration) -> String {
    json!({
        "event": "progress",
        "records": position.records,
        "bytes": position.bytes,
        "offsets": position.offsets,
        "all_offsets": position.all_offsets,
        "event_time": position.event_time.map(time_text),
        "seconds_left": time_left(position, elapsed).map(|left| left.as_secs()),
    })
    .to_string()
}

/// By the records of this run: what earlier ones have read took no time now.
fn time_left(position: &ExportPosition, elapsed: Duration) -> Option<Duration> {
    if position.records == 0 {
        return None;
    }
    let left = (position.all_offsets - position.offsets).max(0) as f64;
    let seconds = elapsed.as_secs_f64() * left / position.records as f64;
    Duration::try_from_secs_f64(seconds).ok()
}

fn time_text(time: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(time.0) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{} ms", time.0),
    }
}

fn deleted_at_start(manifest: &ArchiveManifest) -> i64 {
    let partitions = manifest.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.deleted_at_start).sum()
}

/// Names the partitions whose beginning was gone.
fn deleted_text(manifest: &ArchiveManifest) -> String {
    let partitions = manifest.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(move |partition| (topic.topic.as_str(), partition))
    });
    let gone = partitions.filter(|(_, partition)| partition.deleted_at_start > 0);
    gone.map(|(topic, partition)| {
        format!(
            "\n{topic}[{}]: retention had deleted all before offset {}, up to {} offsets of the range",
            partition.partition, partition.log_start, partition.deleted_at_start
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> ExportPosition {
        ExportPosition {
            records: 100,
            bytes: 2_000,
            offsets: 600,
            all_offsets: 1_000,
            event_time: Some(Timestamp(1_772_366_400_250)),
        }
    }

    #[test]
    fn the_time_left_goes_by_what_this_run_has_read() {
        let left = time_left(&position(), Duration::from_secs(10));
        assert_eq!(left, Some(Duration::from_secs(40)));
        let unknown = ExportPosition {
            records: 0,
            ..position()
        };
        assert_eq!(time_left(&unknown, Duration::from_secs(10)), None);
    }

    #[test]
    fn a_line_of_progress_is_json_with_the_time_of_the_records() {
        let line = progress_line(&position(), Duration::from_secs(10));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["event_time"], "2026-03-01T12:00:00.25Z");
        assert_eq!(line["seconds_left"], 40);
        assert_eq!(line["records"], 100);
    }
}
