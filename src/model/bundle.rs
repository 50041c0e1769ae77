//! The model bundle: a folder with `model.toml` and its weights, checked before use.
//!
//! A bundle holds all that scoring needs (the encoder too), so a plant moves one folder. Nothing
//! of it is used until the hash, every tensor's name, shape and type, and every number of
//! `model.toml` have been checked; an error names the file, what was expected and what was found.

mod thresholds;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::expected::is_expected_map;
use super::memory::{from_bytes, is_memory, is_mix, mix_of, to_bytes};
use super::mvmcad::MvmcadConfig;
use super::preprocess::{Normalisation, Preprocessor};
use super::tensors::{Initial, TensorFault, TensorSpecs};
use crate::domain::ModelIdentity;
use crate::whole_file;

pub use thresholds::{Calibration, ClassThresholds, Guarantee, RuleName};

/// The version of the layout that this crate reads and writes.
pub const FORMAT: u32 = 1;
/// The description's file name.
pub const MANIFEST_FILE: &str = "model.toml";
/// The file name under which weights are saved, unless those in use have it.
const WEIGHTS_FILE: &str = "model.safetensors";
/// Larger maps than this are a mistake, not a wish.
const LARGEST_MAP_SIDE: usize = 2048;

/// `model.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout version, [`FORMAT`].
    pub format: u32,
    /// Name of the model, as results carry it.
    pub name: String,
    /// Version of the model, as results carry it.
    pub version: String,
    /// Side of the anomaly maps, in pixels.
    pub map_side: usize,
    /// The weights; [`Bundle::save`] fills this in.
    #[serde(default)]
    pub weights: WeightsEntry,
    /// How images are prepared; their side is the encoder's `input_side`.
    pub normalisation: Normalisation,
    /// The network.
    pub architecture: MvmcadConfig,
    /// What the model was calibrated for, by class name. Parts of other classes are scored and
    /// left to a person to judge.
    #[serde(default)]
    pub classes: BTreeMap<String, ClassThresholds>,
}

/// Which file holds the weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsEntry {
    /// File name within the bundle.
    pub file: String,
    /// SHA-256 of the file, in lowercase hexadecimal digits.
    pub sha256: String,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 16-bit floats: half the size, and the scores move by far less than their noise.
    #[default]
    Half,
    /// 32-bit floats.
    Single,
}

/// A checked bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What `model.toml` says.
    pub manifest: Manifest,
    /// Every tensor of the architecture in f32, names as in [`MvmcadConfig::tensors`], and the
    /// [expected maps](super::expected) and the [memory](super::memory) if the model has any.
    pub tensors: HashMap<String, Tensor>,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read or written.
    #[error("bundle file `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `model.toml` does not say what it must, or says what cannot be.
    #[error("bundle file `{}`: {fault}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The key and its rule.
        fault: String,
    },
    /// The weights are not those that `model.toml` was written with.
    #[error("bundle file `{}`: expected sha256 `{expected}`, found `{found}`", path.display())]
    Hash {
        /// The weights.
        path: PathBuf,
        /// The hash in `model.toml`.
        expected: String,
        /// The hash of the file.
        found: String,
    },
    /// The weights cannot be read as tensors.
    #[error("bundle file `{}`: {message}", path.display())]
    Weights {
        /// The weights.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tensor is missing, misshapen, or has no place.
    #[error("bundle file `{}`: {fault}", path.display())]
    Tensor {
        /// The weights.
        path: PathBuf,
        /// What is wrong.
        fault: TensorFault,
    },
}

impl Manifest {
    /// A description for [`Bundle::save`], without classes.
    pub fn new(
        identity: ModelIdentity,
        architecture: MvmcadConfig,
        normalisation: Normalisation,
        map_side: usize,
    ) -> Self {
        Self {
            format: FORMAT,
            name: identity.name,
            version: identity.version,
            map_side,
            weights: WeightsEntry::default(),
            normalisation,
            architecture,
            classes: BTreeMap::new(),
        }
    }

    /// Name and version.
    pub fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }

    /// Prepares images as the model expects them.
    ///
    /// # Errors
    /// Says which key breaks which rule; not after [`Self::validate`].
    pub fn preprocessor(&self) -> Result<Preprocessor, String> {
        Preprocessor::new(self.normalisation, self.architecture.encoder.input_side)
            .map_err(|fault| format!("normalisation: {fault}"))
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Says which key breaks which rule.
    pub fn validate(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!(
                "`format`: expected `{FORMAT}`, found `{}`",
                self.format
            ));
        }
        for (key, value) in [("name", &self.name), ("version", &self.version)] {
            if value.trim().is_empty() {
                return Err(format!("`{key}` must not be empty"));
            }
        }
        let side = self.map_side;
        if !(1..=LARGEST_MAP_SIDE).contains(&side) {
            return Err(format!(
                "`map_side` must be 1 to {LARGEST_MAP_SIDE}, found `{side}`"
            ));
        }
        self.architecture
            .validate()
            .map_err(|fault| format!("architecture: {fault}"))?;
        self.preprocessor()?;
        for (class, thresholds) in &self.classes {
            thresholds
                .validate()
                .map_err(|fault| format!("classes.{class}: {fault}"))?;
        }
        Ok(())
    }
}

impl Bundle {
    /// How many views of classes have an [expected map](super::expected).
    pub fn expected_maps(&self) -> usize {
        let names = self.tensors.keys();
        names.filter(|name| is_expected_map(name)).count()
    }

    /// How many views of classes have a [memory](super::memory).
    pub fn memories(&self) -> usize {
        self.tensors.keys().filter(|name| is_memory(name)).count()
    }

    /// Reads and checks the bundle in `folder`.
    ///
    /// # Errors
    /// Names the file, what was expected and what was found.
    pub fn load(folder: &Path) -> Result<Self, BundleError> {
        let manifest = read_manifest(folder)?;
        let path = folder.join(&manifest.weights.file);
        let bytes = fs::read(&path).map_err(|source| BundleError::File {
            path: path.clone(),
            source,
        })?;
        let found = sha256(&bytes);
        if !found.eq_ignore_ascii_case(&manifest.weights.sha256) {
            let expected = manifest.weights.sha256.clone();
            return Err(BundleError::Hash {
                path,
                expected,
                found,
            });
        }
        let unreadable = |message: String| BundleError::Weights {
            path: path.clone(),
            message,
        };
        let stored = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| unreadable(error.to_string()))?;
        let specs = specs(&manifest.architecture, &stored);
        specs.check(&stored).map_err(|fault| BundleError::Tensor {
            path: path.clone(),
            fault,
        })?;
        let mut tensors = HashMap::with_capacity(stored.len());
        for (name, tensor) in stored {
            let tensor = checked_values(&name, &tensor).map_err(unreadable)?;
            tensors.insert(name, tensor);
        }
        Ok(Self { manifest, tensors })
    }

    /// Writes a bundle to `folder`, which is made if need be, and returns its description with the
    /// hash filled in.
    ///
    /// `model.toml` names its weights, and weights in use are never overwritten: new ones get a
    /// name of their own, then `model.toml` is replaced, then the old ones are removed. So a crash
    /// or a full disk leaves the old bundle or the new one, never a mixture. A `model.toml` that
    /// this version cannot read may name any weights: what lies there stays.
    ///
    /// # Errors
    /// When the description or a tensor is not fit for loading, or a file cannot be written.
    pub fn save(
        folder: &Path,
        manifest: &Manifest,
        tensors: &HashMap<String, Tensor>,
        precision: Precision,
    ) -> Result<Manifest, BundleError> {
        let manifest_path = folder.join(MANIFEST_FILE);
        let path = folder.join(WEIGHTS_FILE);
        let unfit = |fault: String| BundleError::Manifest {
            path: manifest_path.clone(),
            fault,
        };
        manifest.validate().map_err(unfit)?;
        specs(&manifest.architecture, tensors)
            .check(tensors)
            .map_err(|fault| BundleError::Tensor {
                path: path.clone(),
                fault,
            })?;
        let bytes = serialise(tensors, precision).map_err(|message| BundleError::Weights {
            path: path.clone(),
            message,
        })?;
        let old = read_manifest(folder).ok().map(|manifest| manifest.weights);
        let mut manifest = manifest.clone();
        let is_unknown = old.is_none() && manifest_path.exists();
        manifest.weights = new_weights(old.as_ref(), is_unknown, sha256(&bytes));
        fs::create_dir_all(folder).map_err(|source| BundleError::File {
            path: folder.to_owned(),
            source,
        })?;
        replace(&folder.join(&manifest.weights.file), &bytes)?;
        save_manifest(folder, &manifest)?;
        match old {
            Some(old) if old.file != manifest.weights.file => remove(&folder.join(&old.file))?,
            _ => {}
        }
        Ok(manifest)
    }
}

/// The tensors of the architecture, and the expected maps and the memory of whatever classes and
/// views there are.
fn specs(architecture: &MvmcadConfig, tensors: &HashMap<String, Tensor>) -> TensorSpecs {
    let encoder = &architecture.encoder;
    let grid = encoder.grid();
    let mut specs = architecture.tensors();
    for (name, tensor) in tensors {
        let mut add = |name: &str, shape: &[usize]| specs.add(name, shape, Initial::Constant(0.0));
        if is_expected_map(name) {
            add(name, &[grid, grid]);
        } else if is_memory(name) {
            let prototypes = tensor.dims().get(1).copied().unwrap_or(1).max(1);
            add(name, &[grid * grid, prototypes, encoder.width]);
            add(&mix_of(name), &[2]);
        } else if is_mix(name) {
            add(name, &[2]);
        }
    }
    specs
}

/// The entry of weights with this hash, beside the old ones if those are others or may be.
fn new_weights(old: Option<&WeightsEntry>, is_unknown: bool, sha256: String) -> WeightsEntry {
    let is_taken = match old {
        Some(old) => old.file == WEIGHTS_FILE && old.sha256 != sha256,
        None => is_unknown,
    };
    let file = match is_taken {
        true => format!("model-{}.safetensors", &sha256[..12]),
        false => WEIGHTS_FILE.to_owned(),
    };
    WeightsEntry { file, sha256 }
}

fn remove(path: &Path) -> Result<(), BundleError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(BundleError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Replaces the description of a bundle whose weights stay as they are.
///
/// # Errors
/// When the description is not fit for loading or cannot be written.
pub fn save_manifest(folder: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let path = folder.join(MANIFEST_FILE);
    let unfit = |fault: String| BundleError::Manifest {
        path: path.clone(),
        fault,
    };
    manifest.validate().map_err(unfit)?;
    let text = toml::to_string_pretty(manifest).map_err(|error| unfit(error.to_string()))?;
    replace(&path, text.as_bytes())
}

/// Reads and checks `model.toml` alone.
///
/// # Errors
/// When it cannot be read, or a key is unknown, missing or breaks its rule.
pub fn read_manifest(folder: &Path) -> Result<Manifest, BundleError> {
    let path = folder.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).map_err(|source| BundleError::File {
        path: path.clone(),
        source,
    })?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| BundleError::Manifest {
        path: path.clone(),
        fault: error.to_string().trim_end().to_owned(),
    })?;
    manifest
        .validate()
        .and_then(|()| check_file_name(&manifest.weights.file))
        .map_err(|fault| BundleError::Manifest {
            path: path.clone(),
            fault,
        })?;
    Ok(manifest)
}

/// A bundle may come from elsewhere: its weights must lie within it.
fn check_file_name(file: &str) -> Result<(), String> {
    let is_plain = Path::new(file).file_name().is_some_and(|name| name == file);
    match is_plain {
        true => Ok(()),
        false => Err(format!(
            "`weights.file` must be a file name without folders, found `{file}`"
        )),
    }
}

/// The tensor in f32, if it holds finite floats.
fn checked_values(name: &str, tensor: &Tensor) -> Result<Tensor, String> {
    let dtype = tensor.dtype();
    if is_memory(name) {
        return match dtype {
            DType::U8 => from_bytes(tensor).map_err(|error| error.to_string()),
            _ => Err(format!(
                "tensor `{name}`: expected u8, found {}",
                dtype.as_str()
            )),
        };
    }
    if !matches!(dtype, DType::F16 | DType::BF16 | DType::F32) {
        return Err(format!(
            "tensor `{name}`: expected f16, bf16 or f32, found {}",
            dtype.as_str()
        ));
    }
    let read = || -> candle_core::Result<(Tensor, f32)> {
        let tensor = tensor.to_dtype(DType::F32)?;
        let sum = tensor.sum_all()?.to_scalar()?;
        Ok((tensor, sum))
    };
    let (tensor, sum) = read().map_err(|error| error.to_string())?;
    match sum.is_finite() {
        true => Ok(tensor),
        false => Err(format!(
            "tensor `{name}`: expected finite values, found `{sum}` as their sum"
        )),
    }
}

fn serialise(tensors: &HashMap<String, Tensor>, precision: Precision) -> Result<Vec<u8>, String> {
    let dtype = match precision {
        Precision::Half => DType::F16,
        Precision::Single => DType::F32,
    };
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        let converted = tensor
            .to_device(&Device::Cpu)
            .and_then(|tensor| match is_memory(name) {
                true => to_bytes(&tensor)?.contiguous(),
                false => tensor.to_dtype(dtype)?.contiguous(),
            })
            .map_err(|error| error.to_string())?;
        checked_values(name, &converted)?;
        stored.insert(name.as_str(), converted);
    }
    safetensors::serialize(stored, None).map_err(|error| error.to_string())
}

/// The SHA-256 of a file's bytes, as bundles write it: lowercase hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    whole_file::replace(path, bytes).map_err(|source| BundleError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
