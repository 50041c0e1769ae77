//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! One safetensors file holds the parameters, the optimiser's state, and in its metadata the
//! iteration, the seed and the settings. It is written beside its place and renamed, so that a
//! crash leaves the old checkpoint or the new one. All randomness of a run is drawn from (seed,
//! iteration), so no generator's inner state needs saving.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::optimiser::{Gradients, Parameters, StableAdamW};

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
    #[error("checkpoint `{path}`: expected settings `{expected}`, found `{found}`", path = path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Settings of this run.
        expected: String,
        /// Settings of the checkpoint's run.
        found: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] candle_core::Error),
}

/// What identifies a run and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Iterations done.
    pub iteration: u64,
    /// Seed of the run.
    pub seed: u64,
    /// The settings in text; a checkpoint is only taken up under the same.
    pub settings: String,
}

/// Writes a checkpoint.
///
/// # Errors
/// When the file cannot be written.
pub fn save(
    path: &Path,
    progress: &Progress,
    parameters: &Parameters,
    optimiser: &StableAdamW,
) -> Result<(), CheckpointError> {
    let mut tensors: BTreeMap<String, Tensor> = optimiser
        .state()
        .into_iter()
        .map(|(name, tensor)| (format!("optimiser.{name}"), tensor))
        .collect();
    for (name, var) in parameters {
        tensors.insert(format!("parameters.{name}"), var.as_tensor().clone());
    }
    let metadata = HashMap::from([
        ("iteration".to_owned(), progress.iteration.to_string()),
        ("optimiser_steps".to_owned(), optimiser.steps().to_string()),
        ("seed".to_owned(), progress.seed.to_string()),
        ("settings".to_owned(), progress.settings.clone()),
    ]);
    write_tensors(path, &tensors, metadata)
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
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| {
        CheckpointError::Format {
            path: path.to_owned(),
            message: error.to_string(),
        }
    })?;
    let file_error = |source| CheckpointError::File {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file_error)?;
    }
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished).map_err(file_error)?;
    file.write_all(&bytes).map_err(file_error)?;
    file.sync_all().map_err(file_error)?;
    std::fs::rename(&unfinished, path).map_err(file_error)
}

/// Puts a checkpoint's values into `parameters` and `optimiser`; returns the iterations done.
///
/// # Errors
/// When the file is missing, broken, or of a run with other settings or another seed.
pub fn resume(
    path: &Path,
    expected: &Progress,
    parameters: &Parameters,
    optimiser: &mut StableAdamW,
    device: &Device,
) -> Result<u64, CheckpointError> {
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::File {
        path: path.to_owned(),
        source,
    })?;
    let format_error = |message: String| CheckpointError::Format {
        path: path.to_owned(),
        message,
    };
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
        .map_err(|error| format_error(error.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let text = |key: &str| {
        metadata
            .get(key)
            .cloned()
            .ok_or_else(|| format_error(format!("`{key}` is missing")))
    };
    let number = |key: &str| -> Result<u64, CheckpointError> {
        let value = text(key)?;
        value
            .parse()
            .map_err(|_| format_error(format!("`{key}`: expected a number, found `{value}`")))
    };
    let found = format!("{} seed {}", text("settings")?, number("seed")?);
    let expected = format!("{} seed {}", expected.settings, expected.seed);
    if found != expected {
        return Err(CheckpointError::Settings {
            path: path.to_owned(),
            expected,
            found,
        });
    }
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, device)?;
    for (name, var) in parameters {
        let tensor = tensors
            .remove(&format!("parameters.{name}"))
            .ok_or_else(|| format_error(format!("parameter `{name}` is missing")))?;
        var.set(&tensor)?;
    }
    let state: Gradients = tensors
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("optimiser.")?.to_owned(), tensor)))
        .collect();
    optimiser.restore(number("optimiser_steps")?, state);
    number("iteration")
}
