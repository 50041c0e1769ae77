//! The training loop, the same for every task: step, report, checkpoint, resume.

use std::path::PathBuf;

use candle_core::{Device, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::TrainingError;
use super::checkpoint::{self, Progress};
use super::optimiser::{OptimiserSettings, Parameters, Schedule, StableAdamW};
use super::parallel::StepGradients;

/// Weight of the newest iteration in the running means that are reported.
const MEAN_SHARE: f64 = 0.03;
/// Iterations between reports.
const REPORT_EVERY: u64 = 25;

/// Where and how often a run keeps its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// The file, if checkpoints are wanted.
    pub file: Option<PathBuf>,
    /// Iterations between checkpoints; 0 for the end alone.
    pub every: u64,
    /// Whether to go on from the file.
    pub resume: bool,
    /// Stop after this iteration, as an interruption would.
    pub stop_after: Option<u64>,
}

/// What a run is made of, besides its step.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) optimiser: OptimiserSettings,
    pub(crate) schedule: Schedule,
    pub(crate) seed: u64,
    /// Everything that must be equal for a checkpoint to be taken up.
    pub(crate) fingerprint: String,
    pub(crate) checkpoint: &'a CheckpointSettings,
}

impl Plan<'_> {
    /// Runs all iterations that are left. `step` gets the iteration, counted from 0; `report` the
    /// iterations done and the running means of the loss and of the step's details.
    pub(crate) fn run(
        &self,
        parameters: &Parameters,
        device: &Device,
        mut step: impl FnMut(u64) -> Result<StepGradients>,
        report: &mut dyn FnMut(u64, &[f64]),
    ) -> std::result::Result<(), TrainingError> {
        let mut optimiser = StableAdamW::new(self.optimiser);
        let first = self.first_iteration(parameters, &mut optimiser, device)?;
        let iterations = self.schedule.iterations;
        let last = self
            .checkpoint
            .stop_after
            .map_or(iterations, |stop| stop.min(iterations));
        let bar = progress_bar(iterations, first);
        let mut means: Option<Vec<f64>> = None;
        for iteration in first..last {
            let gradients = step(iteration)?;
            if !gradients.loss.is_finite() {
                let loss = gradients.loss;
                return Err(TrainingError::Diverged { iteration, loss });
            }
            let rate = self.schedule.rate(iteration);
            optimiser.step(parameters, &gradients.gradients, rate)?;
            let mixed = mix(means.as_deref(), &gradients);
            bar.set_message(format!("loss {:.4}", mixed[0]));
            bar.inc(1);
            let done = iteration + 1;
            if done.is_multiple_of(REPORT_EVERY) || done == last {
                report(done, &mixed);
            }
            means = Some(mixed);
            self.save_if_due(done, last, parameters, &optimiser)?;
        }
        bar.finish();
        Ok(())
    }

    fn progress(&self, iteration: u64) -> Progress {
        Progress {
            iteration,
            seed: self.seed,
            settings: self.fingerprint.clone(),
        }
    }

    fn first_iteration(
        &self,
        parameters: &Parameters,
        optimiser: &mut StableAdamW,
        device: &Device,
    ) -> std::result::Result<u64, TrainingError> {
        match (&self.checkpoint.file, self.checkpoint.resume) {
            (Some(file), true) => {
                let expected = self.progress(0);
                Ok(checkpoint::resume(
                    file, &expected, parameters, optimiser, device,
                )?)
            }
            _ => Ok(0),
        }
    }

    fn save_if_due(
        &self,
        done: u64,
        last: u64,
        parameters: &Parameters,
        optimiser: &StableAdamW,
    ) -> std::result::Result<(), TrainingError> {
        let every = self.checkpoint.every;
        let is_due = done == last || (every > 0 && done.is_multiple_of(every));
        if let (true, Some(file)) = (is_due, &self.checkpoint.file) {
            checkpoint::save(file, &self.progress(done), parameters, optimiser)?;
        }
        Ok(())
    }
}

fn mix(old: Option<&[f64]>, step: &StepGradients) -> Vec<f64> {
    let now = std::iter::once(step.loss).chain(step.details.iter().copied());
    match old {
        None => now.collect(),
        Some(old) => old
            .iter()
            .zip(now)
            .map(|(old, new)| old + MEAN_SHARE * (new - old))
            .collect(),
    }
}

/// A progress bar with the time left and the loss.
fn progress_bar(iterations: u64, done: u64) -> ProgressBar {
    let template = "{bar:40} {pos}/{len} [{elapsed_precise} < {eta_precise}] {msg}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(iterations)
        .with_style(style)
        .with_position(done);
    bar.reset_eta();
    bar
}
