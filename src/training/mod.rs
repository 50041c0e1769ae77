//! Training: data sets, pretraining of the encoder, losses, optimiser, loop, checkpoints.
//!
//! Promises that a run is repeatable: all randomness comes from its seed and the iteration, so
//! that a run that was stopped and resumed ends with the same weights as one that was not.

pub mod alteration;
pub mod canvas;
pub mod checkpoint;
pub mod dataset;
pub mod encoder_file;
pub mod formula;
pub mod history;
pub mod iteration;
pub mod objective;
pub mod optimiser;
pub mod parallel;
pub mod pretext;
pub mod pretraining;
mod progress;
pub mod recipe;
pub mod reconstruction;
pub mod sampling;
pub mod settings;
mod value_noise;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};

/// Where training runs; named here so that its callers need not know candle.
pub use candle_core::Device;
use candle_core::{DType, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use twox_hash::XxHash3_64;

use self::checkpoint::CheckpointError;
use self::optimiser::Parameters;
use crate::image_folder::ImageFolderError;

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A setting breaks a rule.
    #[error("setting {0}")]
    Setting(String),
    /// The data cannot be used.
    #[error("data `{path}`: {message}", path = path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Images or masks that cannot be used.
    #[error(
        "`{parts}` of `{of}` parts cannot be used, at most `{allowed}` may be left out:\n{faults}"
    )]
    Unusable {
        /// How many parts have such a file.
        parts: usize,
        /// Of so many.
        of: usize,
        /// So many parts may be left out.
        allowed: usize,
        /// What is wrong with the first of them, a line each.
        faults: String,
    },
    /// A folder of images cannot be used.
    #[error(transparent)]
    Folder(#[from] ImageFolderError),
    /// The loss or its gradient is no number any more.
    #[error(
        "the {what} became `{value}` at iteration `{iteration}` with learning rate `{learning_rate}`{parts}"
    )]
    Diverged {
        /// What is no number.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The iteration, counted from 0.
        iteration: u64,
        /// The learning rate of the iteration.
        learning_rate: f64,
        /// On which parts of the batch, as the end of the sentence; empty if unknown.
        parts: String,
    },
    /// The run was asked to stop before its end.
    #[error(
        "stopped after iteration `{done}` of `{iterations}`; {}",
        kept(checkpoint.as_deref())
    )]
    Interrupted {
        /// Iterations done.
        done: u64,
        /// Iterations of the whole run.
        iterations: u64,
        /// Where the run can be gone on with from.
        checkpoint: Option<PathBuf>,
    },
    /// The run was asked to stop before its first iteration.
    #[error("stopped before training began; nothing was written")]
    InterruptedEarly,
    /// Weights could not be judged on labelled parts.
    #[error("validation: {0}")]
    Validation(String),
    /// An encoder could not be written.
    #[error("encoder `{path}`: {message}", path = path.display())]
    Encoder {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// A checkpoint could not be written or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] candle_core::Error),
}

fn kept(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(file) => format!("its checkpoint is `{}`", file.display()),
        None => "no checkpoint was asked for, so nothing is kept".to_owned(),
    }
}

/// The variables of a map by name.
fn parameters(map: &VarMap) -> Parameters {
    let entries = map
        .data()
        .lock()
        .expect("no thread panics while it holds this map");
    entries
        .iter()
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect()
}

/// A builder over variables, so that a network built on it is trained through them.
fn builder(parameters: &Parameters, prefix: &str, device: &Device) -> VarBuilder<'static> {
    let tensors = parameters
        .iter()
        .filter_map(|(name, var): (&String, &Var)| {
            Some((
                name.strip_prefix(prefix)?.to_owned(),
                var.as_tensor().clone(),
            ))
        })
        .collect();
    VarBuilder::from_tensors(tensors, DType::F32, device)
}

/// The present values of the parameters under `prefix`, the prefix taken off.
fn values(parameters: &Parameters, prefix: &str) -> BTreeMap<String, Tensor> {
    parameters
        .iter()
        .filter_map(|(name, var)| {
            Some((
                name.strip_prefix(prefix)?.to_owned(),
                var.as_detached_tensor(),
            ))
        })
        .collect()
}

fn at_least_one(key: &str, value: u64) -> Result<(), TrainingError> {
    if value == 0 {
        let rule = format!("`{key}` must be at least 1, found `0`");
        return Err(TrainingError::Setting(rule));
    }
    Ok(())
}

fn share(key: &str, value: f64) -> Result<(), TrainingError> {
    if !(0.0..=1.0).contains(&value) {
        let rule = format!("`{key}` must lie between 0 and 1, found `{value}`");
        return Err(TrainingError::Setting(rule));
    }
    Ok(())
}

/// A digest of values: a checkpoint is only taken up over the same data.
fn digest<'a>(lists: impl IntoIterator<Item = &'a [f32]>) -> u64 {
    let mut hasher = XxHash3_64::with_seed(0);
    for values in lists {
        for value in values {
            hasher.write(&value.to_le_bytes());
        }
    }
    hasher.finish()
}

/// [`digest`] of named tensors.
fn tensor_digest(tensors: &HashMap<String, Tensor>) -> candle_core::Result<u64> {
    let sorted: BTreeMap<&String, &Tensor> = tensors.iter().collect();
    let values = sorted
        .values()
        .map(|tensor| tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1())
        .collect::<candle_core::Result<Vec<Vec<f32>>>>()?;
    Ok(digest(values.iter().map(Vec::as_slice)))
}

/// A generator for one item of one iteration: independent of every other, and repeatable.
fn item_rng(seed: u64, iteration: u64, item: u64) -> ChaCha8Rng {
    let mut mixed = seed ^ 0x9E37_79B9_7F4A_7C15;
    for value in [iteration, item] {
        mixed = (mixed ^ value).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 32;
    }
    ChaCha8Rng::seed_from_u64(mixed)
}
