//! How far a replay is: a bar on a terminal, lines of JSON elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::kafka::job_offsets::JobProgress;
use crate::status::{PipelineStatus, StatusBoard};

/// Where it is shown.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    interval: Duration,
    began: Instant,
    told_at: Option<Instant>,
    /// What was left at first.
    first_left: Option<i64>,
}

impl Display {
    pub(super) fn new(interval: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{bar:30} {percent}% of {len} offsets, {msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            interval,
            began: Instant::now(),
            told_at: None,
            first_left: None,
        }
    }

    /// Shows it; `all` are the offsets of the whole job.
    pub(super) fn show(&mut self, progress: &JobProgress, all: i64, boards: &[StatusBoard]) {
        let first_left = *self.first_left.get_or_insert(progress.left);
        let elapsed = self.began.elapsed().as_secs_f64().max(1e-3);
        let statuses: Vec<_> = boards.iter().filter_map(StatusBoard::pipeline).collect();
        let records: u64 = statuses.iter().map(|status| status.finished_records).sum();
        let parts: u64 = statuses.iter().map(|status| status.closed_parts).sum();
        let pace = Pace {
            done: all - progress.left,
            seconds_left: seconds_left(first_left, progress.left, elapsed),
            records_per_second: records as f64 / elapsed,
            parts_per_second: parts as f64 / elapsed,
            open_parts: statuses.iter().map(|status| status.open_parts).sum(),
            views_out_of_order: views_out_of_order(boards),
            event_time: event_time(&statuses),
        };
        if let Some(bar) = &self.bar {
            bar.set_length(u64::try_from(all).unwrap_or(0));
            bar.set_position(u64::try_from(pace.done).unwrap_or(0));
            bar.set_message(pace.words());
            if progress.is_complete {
                bar.finish();
            }
            return;
        }
        let is_due = self
            .told_at
            .is_none_or(|told| told.elapsed() >= self.interval);
        if is_due || progress.is_complete {
            // Whoever listened may have gone; the job goes on.
            writeln!(std::io::stderr(), "{}", pace.to_json(progress)).ok();
            self.told_at = Some(Instant::now());
        }
    }
}

/// How fast the job goes, as far as this process does it.
struct Pace {
    /// Offsets of the whole job that are done.
    done: i64,
    seconds_left: Option<f64>,
    records_per_second: f64,
    parts_per_second: f64,
    open_parts: usize,
    views_out_of_order: u64,
    event_time: Option<jiff::Timestamp>,
}

impl Pace {
    fn words(&self) -> String {
        let at = self
            .event_time
            .map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
        let left = self.seconds_left.map_or_else(
            || "-".to_owned(),
            |seconds| humantime::format_duration(Duration::from_secs(seconds as u64)).to_string(),
        );
        let (parts, records) = (self.parts_per_second, self.records_per_second);
        format!("{parts:.1} parts/s, {records:.0} records/s, at {at}, {left} left")
    }

    fn to_json(&self, progress: &JobProgress) -> serde_json::Value {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        json!({
            "time": unix.map(|time| time.as_millis() as u64).unwrap_or(0),
            "offsets_done": self.done,
            "offsets_left": progress.left,
            "records_per_second": self.records_per_second,
            "parts_per_second": self.parts_per_second,
            "open_parts": self.open_parts,
            "views_out_of_order": self.views_out_of_order,
            "event_time": self.event_time.map(|time| time.to_string()),
            "seconds_left": self.seconds_left,
            "is_complete": progress.is_complete,
        })
    }
}

/// Of all instances of this process, the pipelines included that have ended.
pub(super) fn views_out_of_order(boards: &[StatusBoard]) -> u64 {
    boards.iter().map(StatusBoard::views_out_of_order).sum()
}

/// By what was done since the start; not known before anything was.
fn seconds_left(first_left: i64, left: i64, elapsed: f64) -> Option<f64> {
    let done = first_left - left;
    (done > 0).then(|| elapsed * left as f64 / done as f64)
}

/// Where stream time is, in the instance that is furthest behind.
fn event_time(statuses: &[PipelineStatus]) -> Option<jiff::Timestamp> {
    let lags = statuses
        .iter()
        .filter_map(|status| status.stream_time_lag_ms);
    let lag = Duration::from_millis(lags.max()?);
    jiff::Timestamp::try_from(SystemTime::now().checked_sub(lag)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_what_was_done_since_the_start() {
        assert_eq!(seconds_left(100, 100, 7.0), None);
        assert_eq!(seconds_left(100, 75, 10.0), Some(30.0));
        assert_eq!(seconds_left(100, 0, 10.0), Some(0.0));
    }

    #[test]
    fn parts_event_time_and_what_is_left_are_told() {
        let pace = Pace {
            done: 25,
            seconds_left: Some(90.4),
            records_per_second: 12.0,
            parts_per_second: 2.44,
            open_parts: 3,
            views_out_of_order: 0,
            event_time: Some(jiff::Timestamp::UNIX_EPOCH),
        };
        let expected = "2.4 parts/s, 12 records/s, at 1970-01-01T00:00:00Z, 1m 30s left";
        assert_eq!(pace.words(), expected);
        let json = pace.to_json(&JobProgress::default());
        assert_eq!(json["parts_per_second"], 2.44);
        assert_eq!(json["event_time"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn views_out_of_order_are_known_when_the_pipelines_have_ended() {
        let boards = [StatusBoard::default(), StatusBoard::default()];
        for board in &boards {
            board.show(|| PipelineStatus {
                views_out_of_order: 2,
                ..PipelineStatus::at_rest()
            });
        }
        assert_eq!(views_out_of_order(&boards), 4);
        boards.iter().for_each(StatusBoard::clear);
        assert_eq!(views_out_of_order(&boards), 4);
    }
}
