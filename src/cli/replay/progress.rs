//! How far a replay is: a bar on a terminal, lines of JSON elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::kafka::job_offsets::JobProgress;
use crate::status::StatusBoard;

/// Where it is shown.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    interval: Duration,
    began: Instant,
    told_at: Option<Instant>,
    /// What was left at first.
    all: Option<i64>,
}

impl Display {
    pub(super) fn new(interval: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{bar:30} {percent}% of {len} offsets, {msg}, {eta} left";
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
            all: None,
        }
    }

    pub(super) fn show(&mut self, progress: &JobProgress, boards: &[StatusBoard]) {
        let all = *self.all.get_or_insert(progress.left);
        let done = all - progress.left;
        let statuses: Vec<_> = boards.iter().filter_map(StatusBoard::pipeline).collect();
        let finished: u64 = statuses.iter().map(|status| status.finished_records).sum();
        let rate = finished as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        let event_time = statuses
            .iter()
            .filter_map(|status| status.stream_time_lag_ms)
            .max()
            .and_then(|lag| {
                let lag = Duration::from_millis(lag);
                jiff::Timestamp::try_from(SystemTime::now().checked_sub(lag)?).ok()
            });
        if let Some(bar) = &self.bar {
            bar.set_length(u64::try_from(all).unwrap_or(0));
            bar.set_position(u64::try_from(done).unwrap_or(0));
            let at = event_time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
            bar.set_message(format!("{rate:.0} records/s, at {at}"));
            if progress.is_complete {
                bar.finish();
            }
            return;
        }
        let is_due = self
            .told_at
            .is_none_or(|told| told.elapsed() >= self.interval);
        if is_due || progress.is_complete {
            let elapsed = self.began.elapsed().as_secs_f64();
            let left = (done > 0).then(|| elapsed * progress.left as f64 / done as f64);
            let unix = SystemTime::now().duration_since(UNIX_EPOCH);
            let line = json!({
                "time": unix.map(|time| time.as_millis() as u64).unwrap_or(0),
                "offsets_done": done,
                "offsets_left": progress.left,
                "records_per_second": rate,
                "open_parts": statuses.iter().map(|status| status.open_parts).sum::<usize>(),
                "event_time": event_time.map(|time| time.to_string()),
                "seconds_left": left,
                "is_complete": progress.is_complete,
            });
            eprintln!("{line}");
            self.told_at = Some(Instant::now());
        }
    }
}
