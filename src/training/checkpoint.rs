//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! One safetensors file holds the parameters, the optimiser's state and the best weights so far,
//! and in its metadata the iteration, the settings and the history. It is replaced whole or not at
//! all. All randomness of a run is drawn from (seed, iteration), so no generator's inner state
//! needs saving.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::history::History;
use super::optimiser::{Gradients, Parameters, StableAdamW};
use super::settings::{RunSettings, differences};
use crate::whole_file;

/// Why a checkpoint could not be written or taken up.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error("checkpoint `{path}`: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is no checkpoint, or a broken one.
    #[error("checkpoint `{path}`: {message}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The checkpoint belongs to a run with other settings.
    #[error(
        "checkpoint `{path}` is of a run with other settings or data: {}",
        differences.join("; "),
        path = path.display()
    )]
    Settings {
        /// The file.
        path: PathBuf,
        /// The keys that differ: what this run has is expected, what the checkpoint has is found.
        differences: Vec<String>,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] candle_core::Error),
}

/// The best weights so far.
#[derive(Clone, Debug)]
pub struct Best {
    /// Iterations done when they were met.
    pub iteration: u64,
    /// Their merit; higher is better.
    pub merit: f64,
    /// Copies of the parameters.
    pub tensors: BTreeMap<String, Tensor>,
}

/// How far a run is.
#[derive(Clone, Debug)]
pub struct RunState {
    /// Iterations done.
    pub iteration: u64,
    /// Running means of the loss and of the step's details; empty before the first iteration.
    pub means: Vec<f64>,
    /// What it has gone through.
    pub history: History,
    /// The best weights so far, if they are kept.
    pub best: Option<Best>,
    /// The optimiser.
    pub optimiser: StableAdamW,
}

/// Writes a checkpoint; it is only taken up under the same `settings`.
///
/// # Errors
/// When the file cannot be written; an older one is then still there.
pub fn save(
    path: &Path,
    settings: &RunSettings,
    state: &RunState,
    parameters: &Parameters,
) -> Result<(), CheckpointError> {
    let mut tensors = BTreeMap::new();
    for (name, tensor) in state.optimiser.state() {
        tensors.insert(format!("optimiser.{name}"), tensor);
    }
    for (name, var) in parameters {
        tensors.insert(format!("parameters.{name}"), var.as_tensor().clone());
    }
    let means: Vec<String> = state.means.iter().map(f64::to_string).collect();
    let mut metadata = HashMap::from([
        ("iteration".to_owned(), state.iteration.to_string()),
        (
            "optimiser_steps".to_owned(),
            state.optimiser.steps().to_string(),
        ),
        ("settings".to_owned(), settings_text(path, settings)?),
        ("means".to_owned(), means.join(",")),
        ("history".to_owned(), state.history.to_csv()),
    ]);
    if let Some(best) = &state.best {
        metadata.insert("best_iteration".to_owned(), best.iteration.to_string());
        metadata.insert("best_merit".to_owned(), best.merit.to_string());
        for (name, tensor) in &best.tensors {
            tensors.insert(format!("best.{name}"), tensor.clone());
        }
    }
    write_tensors(path, &tensors, metadata)
}

fn settings_text(path: &Path, settings: &RunSettings) -> Result<String, CheckpointError> {
    serde_json::to_string(settings).map_err(|error| fault(path, error))
}

fn fault(path: &Path, error: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::Format {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

/// Writes named tensors, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<(), CheckpointError> {
    let bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| fault(path, error))?;
    let file_error = |source| CheckpointError::File {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file_error)?;
    }
    whole_file::replace(path, &bytes).map_err(file_error)
}

/// Puts a checkpoint's values into `parameters` and `state`.
///
/// # Errors
/// When the file is missing, broken, or of a run with other settings or data.
pub fn resume(
    path: &Path,
    settings: &RunSettings,
    state: &mut RunState,
    parameters: &Parameters,
    device: &Device,
) -> Result<(), CheckpointError> {
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::File {
        path: path.to_owned(),
        source,
    })?;
    let metadata = Metadata::read(path, &bytes)?;
    let found: RunSettings =
        serde_json::from_str(metadata.text("settings")?).map_err(|error| fault(path, error))?;
    let differences = differences(settings, &found);
    if !differences.is_empty() {
        return Err(CheckpointError::Settings {
            path: path.to_owned(),
            differences,
        });
    }
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, device)
        .map_err(|error| fault(path, error))?;
    for (name, var) in parameters {
        let tensor = tensors
            .remove(&format!("parameters.{name}"))
            .ok_or_else(|| fault(path, format!("parameter `{name}` is missing")))?;
        var.set(&tensor)?;
    }
    let mut take = |prefix: &str| -> Gradients {
        let names: Vec<String> = tensors
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        let taken = names.into_iter().filter_map(|name| {
            let tensor = tensors.remove(&name)?;
            Some((name[prefix.len()..].to_owned(), tensor))
        });
        taken.collect()
    };
    let best = take("best.");
    state
        .optimiser
        .restore(metadata.number("optimiser_steps")?, take("optimiser."));
    state.iteration = metadata.number("iteration")?;
    state.means = metadata.numbers("means")?;
    state.history =
        History::from_csv(metadata.text("history")?).map_err(|error| fault(path, error))?;
    state.best = match best.is_empty() {
        true => None,
        false => Some(Best {
            iteration: metadata.number("best_iteration")?,
            merit: metadata.number("best_merit")?,
            tensors: best,
        }),
    };
    Ok(())
}

/// The texts in a checkpoint's header.
struct Metadata<'a> {
    path: &'a Path,
    texts: HashMap<String, String>,
}

impl<'a> Metadata<'a> {
    fn read(path: &'a Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let (_, header) =
            safetensors::SafeTensors::read_metadata(bytes).map_err(|error| fault(path, error))?;
        let texts = header.metadata().clone().unwrap_or_default();
        Ok(Self { path, texts })
    }

    fn text(&self, key: &str) -> Result<&str, CheckpointError> {
        match self.texts.get(key) {
            Some(text) => Ok(text),
            None => Err(fault(self.path, format!("`{key}` is missing"))),
        }
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T, CheckpointError> {
        let value = self.text(key)?;
        let rule = || format!("`{key}`: expected a number, found `{value}`");
        value.parse().map_err(|_| fault(self.path, rule()))
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>, CheckpointError> {
        let text = self.text(key)?;
        let rule = || format!("`{key}`: expected numbers, found `{text}`");
        text.split(',')
            .filter(|value| !value.is_empty())
            .map(|value| value.parse().map_err(|_| fault(self.path, rule())))
            .collect()
    }
}
