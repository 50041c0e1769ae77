//! The training loop, the same for every task: step, validate, report, checkpoint, resume.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};

use super::TrainingError;
use super::checkpoint::{self, Best, RunState};
use super::history::{History, HistoryRow, Validation};
use super::optimiser::{OptimiserSettings, Parameters, Schedule, StableAdamW};
use super::parallel::StepGradients;
use super::progress::Display;
use super::settings::RunSettings;

/// Weight of the newest iteration in the running means that are reported.
const MEAN_SHARE: f64 = 0.03;
/// Iterations between rows of the history.
const ROW_EVERY: u64 = 25;

/// Where and how often a run keeps its state.
#[derive(Clone, Debug, Default)]
pub struct CheckpointSettings {
    /// The file, if checkpoints are wanted.
    pub file: Option<PathBuf>,
    /// Iterations between checkpoints; 0 for the end alone.
    pub every: u64,
    /// Whether to go on from the file.
    pub resume: bool,
    /// Stop after this iteration, as an interruption would.
    pub stop_after: Option<u64>,
    /// Lets others stop the run.
    pub stop: StopRequest,
}

/// A wish, from any thread, that a run end after its present iteration, with a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Makes the wish.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was made.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a run does besides counting.
pub(crate) trait Task {
    /// Loss and gradients of an iteration, counted from 0.
    fn step(&mut self, iteration: u64) -> Result<StepGradients, TrainingError>;

    /// How good the present weights are.
    fn validate(&mut self) -> Result<Validation, TrainingError> {
        Ok(Validation::default())
    }

    /// A row of the history, and the running means of the loss and of the step's details.
    fn report(&mut self, row: &HistoryRow, means: &[f64]);
}

/// What a run is made of, besides its task.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) optimiser: OptimiserSettings,
    pub(crate) schedule: Schedule,
    /// Everything that must be equal for a checkpoint to be taken up.
    pub(crate) settings: RunSettings,
    pub(crate) checkpoint: &'a CheckpointSettings,
    /// Images an iteration, on average.
    pub(crate) images: f64,
    /// Names of what a step reports beside its loss.
    pub(crate) details: &'static [&'static str],
    /// Iterations between validations; 0 for none.
    pub(crate) validate_every: u64,
    /// Whether to remember the weights of the best validation.
    pub(crate) keep_best: bool,
}

/// What is left of a run that came to its end; the parameters have the last weights.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) history: History,
    pub(crate) best: Option<Best>,
}

impl Plan<'_> {
    /// Runs all iterations that are left after `state`.
    ///
    /// # Errors
    /// [`TrainingError::Interrupted`] when the run was asked to stop before its end.
    pub(crate) fn run(
        &self,
        mut state: RunState,
        parameters: &Parameters,
        task: &mut dyn Task,
    ) -> Result<Finished, TrainingError> {
        let iterations = self.schedule.iterations;
        let mut display = Display::new(iterations, state.iteration, self.images, self.details);
        while state.iteration < iterations {
            self.advance(&mut state, parameters, task, &mut display)?;
            let done = state.iteration;
            let is_asked_to_stop = self.checkpoint.stop.is_requested()
                || self.checkpoint.stop_after.is_some_and(|stop| done >= stop);
            let every = self.checkpoint.every;
            let is_due = every > 0 && done.is_multiple_of(every);
            if let Some(file) = &self.checkpoint.file
                && (is_due || is_asked_to_stop || done == iterations)
            {
                checkpoint::save(file, &self.settings, &state, parameters)?;
            }
            if is_asked_to_stop && done < iterations {
                return Err(TrainingError::Interrupted {
                    done,
                    iterations,
                    checkpoint: self.checkpoint.file.clone(),
                });
            }
        }
        display.finish();
        Ok(Finished {
            history: state.history,
            best: state.best,
        })
    }

    /// The state that a run begins with; from a checkpoint, the parameters are set to its own.
    ///
    /// # Errors
    /// When there is a checkpoint that cannot be taken up.
    pub(crate) fn start(
        &self,
        parameters: &Parameters,
        device: &Device,
    ) -> Result<RunState, TrainingError> {
        let mut state = RunState {
            iteration: 0,
            means: Vec::new(),
            history: History::default(),
            best: None,
            optimiser: StableAdamW::new(self.optimiser),
        };
        if let (Some(file), true) = (&self.checkpoint.file, self.checkpoint.resume) {
            checkpoint::resume(file, &self.settings, &mut state, parameters, device)?;
        }
        Ok(state)
    }

    /// One iteration.
    fn advance(
        &self,
        state: &mut RunState,
        parameters: &Parameters,
        task: &mut dyn Task,
        display: &mut Display,
    ) -> Result<(), TrainingError> {
        let iteration = state.iteration;
        let learning_rate = self.schedule.rate(iteration);
        let diverged = |what: &'static str, value: f64| TrainingError::Diverged {
            what,
            value,
            iteration,
            learning_rate,
            parts: String::new(),
        };
        let step = task.step(iteration)?;
        if !step.loss.is_finite() {
            return Err(diverged("loss", step.loss));
        }
        let norm = state
            .optimiser
            .step(parameters, &step.gradients, learning_rate)?;
        if !norm.is_finite() {
            return Err(diverged("norm of the gradient", norm));
        }
        mix(&mut state.means, &step);
        state.iteration += 1;
        display.advance(&state.means, learning_rate);
        self.record(state, learning_rate, parameters, task, display)
    }

    /// Validates and adds a row to the history where these are due.
    fn record(
        &self,
        state: &mut RunState,
        learning_rate: f64,
        parameters: &Parameters,
        task: &mut dyn Task,
        display: &mut Display,
    ) -> Result<(), TrainingError> {
        let is_last = state.iteration == self.schedule.iterations;
        let is_due = |every: u64| every > 0 && state.iteration.is_multiple_of(every);
        let validates = self.validate_every > 0 && (is_due(self.validate_every) || is_last);
        if !(validates || is_last || is_due(ROW_EVERY)) {
            return Ok(());
        }
        let validation = match validates {
            true => Some(task.validate()?),
            false => None,
        };
        if let (true, Some(validation)) = (self.keep_best, validation) {
            keep_if_best(state, validation, parameters)?;
        }
        let row = HistoryRow {
            iteration: state.iteration,
            loss: state.means[0],
            learning_rate,
            validation,
        };
        state.history.rows.push(row);
        display.row(&row, &state.means);
        task.report(&row, &state.means);
        Ok(())
    }
}

/// Remembers the weights if no earlier ones were better: of equals the later.
fn keep_if_best(
    state: &mut RunState,
    validation: Validation,
    parameters: &Parameters,
) -> Result<(), TrainingError> {
    let Some(merit) = validation.merit() else {
        return Ok(());
    };
    if state.best.as_ref().is_some_and(|best| best.merit > merit) {
        return Ok(());
    }
    // Copies: the optimiser changes the parameters in place.
    let copies = parameters
        .iter()
        .map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?.detach())));
    state.best = Some(Best {
        iteration: state.iteration,
        merit,
        tensors: copies.collect::<candle_core::Result<BTreeMap<String, Tensor>>>()?,
    });
    Ok(())
}

fn mix(means: &mut Vec<f64>, step: &StepGradients) {
    let now = std::iter::once(step.loss).chain(step.details.iter().copied());
    if means.is_empty() {
        means.extend(now);
        return;
    }
    for (mean, new) in means.iter_mut().zip(now) {
        *mean += MEAN_SHARE * (new - *mean);
    }
}
