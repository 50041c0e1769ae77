//! What a person sees of a run: a bar on a terminal, plain lines elsewhere.
//!
//! Both show the same: iterations, loss, learning rate, images a second and the time left.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::history::HistoryRow;

/// Least time between two plain lines, so that a log of a day stays readable.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Shows a run on stderr.
pub(crate) struct Display {
    bar: ProgressBar,
    /// Iterations that were done before this process began, and when it did.
    began: (u64, Instant),
    /// Images an iteration, on average.
    images: f64,
    /// Names of what is averaged beside the loss.
    details: &'static [&'static str],
    is_terminal: bool,
    last_line: Option<Instant>,
}

impl Display {
    pub(crate) fn new(
        iterations: u64,
        done: u64,
        images: f64,
        details: &'static [&'static str],
    ) -> Self {
        let template = "{bar:30} {pos}/{len} [{elapsed_precise}] {msg}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(iterations)
            .with_style(style)
            .with_position(done);
        Self {
            bar,
            began: (done, Instant::now()),
            images,
            details,
            is_terminal: std::io::stderr().is_terminal(),
            last_line: None,
        }
    }

    /// One iteration more; `means` are those of the loss and of the details.
    pub(crate) fn advance(&self, means: &[f64], learning_rate: f64) {
        self.bar.inc(1);
        self.bar.set_message(self.message(means, learning_rate));
    }

    /// A row of the history is done: shows its validation, and without a terminal a line now and
    /// then.
    pub(crate) fn row(&mut self, row: &HistoryRow, means: &[f64]) {
        let validation = row.validation.map(|validation| {
            let figures = validation.figures();
            let figures: Vec<String> = figures.map(|(name, v)| format!("{name} {v:.4}")).collect();
            format!("iteration {}: {}", row.iteration, figures.join(", "))
        });
        if self.is_terminal {
            if let Some(line) = validation {
                self.bar.println(line);
            }
            return;
        }
        let is_due = |last: Instant| last.elapsed() >= PLAIN_EVERY;
        if self.last_line.is_none_or(is_due) {
            self.last_line = Some(Instant::now());
            let (done, all) = (row.iteration, self.bar.length().unwrap_or(0));
            let message = self.message(means, row.learning_rate);
            eprintln!("iteration {done} of {all}: {message}");
        }
        if let Some(line) = validation {
            eprintln!("{line}");
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish();
    }

    fn message(&self, means: &[f64], learning_rate: f64) -> String {
        let mut text = format!("loss {:.4}", means.first().copied().unwrap_or(f64::NAN));
        for (name, mean) in self.details.iter().zip(means.iter().skip(1)) {
            write!(text, ", {name} {mean:.4}").expect("writing to a string cannot fail");
        }
        let (rate, left) = self.pace(self.began.1.elapsed());
        write!(
            text,
            ", learning rate {learning_rate:.2e}, {rate:.1} images/s, {} left",
            HumanDuration(left)
        )
        .expect("writing to a string cannot fail");
        text
    }

    /// Images a second since this process began, and the time that is left at that pace. (The bar's
    /// own estimate counts what earlier processes did as done at once.)
    fn pace(&self, elapsed: Duration) -> (f64, Duration) {
        let (first, done) = (self.began.0, self.bar.position());
        let a_second = done.saturating_sub(first) as f64 / elapsed.as_secs_f64();
        let left = self.bar.length().unwrap_or(0).saturating_sub(done);
        let left = Duration::try_from_secs_f64(left as f64 / a_second);
        (a_second * self.images, left.unwrap_or(Duration::MAX))
    }
}

/// A bar, on a terminal alone, for the images whose features are computed before training.
pub(crate) fn encoding_bar(images: usize) -> ProgressBar {
    let template = "{bar:30} {pos}/{len} images encoded [{elapsed_precise} < {eta_precise}]";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(images as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_details_and_rates_are_told() {
        let display = Display::new(100, 0, 16.0, &["altered"]);
        let text = display.message(&[0.25, 0.5], 2e-3);
        let expected = "loss 0.2500, altered 0.5000, learning rate 2.00e-3, ";
        assert!(
            text.starts_with(expected) && text.ends_with(" left"),
            "{text}"
        );
    }

    #[test]
    fn the_pace_of_a_resumed_run_is_its_own() {
        let mut display = Display::new(100, 60, 16.0, &[]);
        for _ in 0..10 {
            display.advance(&[0.25], 2e-3);
        }
        let (rate, left) = display.pace(Duration::from_secs(20));
        assert!((rate - 8.0).abs() < 1e-9, "{rate}");
        assert_eq!(left, Duration::from_secs(60));
        display = Display::new(100, 60, 16.0, &[]);
        assert_eq!(display.pace(Duration::from_secs(1)).1, Duration::MAX);
    }
}
