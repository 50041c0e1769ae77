//! Encoders on disk: our own pretrained ones, and those that others publish.
//!
//! Our own file carries its architecture in its metadata; for others it is read off the shapes of
//! the tensors.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use candle_core::Tensor;

use super::TrainingError;
use super::checkpoint::{CheckpointError, write_tensors};
use crate::model::position::resize_table;
use crate::model::vit::{PositionInterpolation, VitConfig};
use crate::model::vit_weights::{read_tensors, rename_encoder};

/// Metadata key under which our own files keep the architecture.
const ARCHITECTURE: &str = "panoptes_encoder";
/// Name of the position table.
const POSITION: &str = "position";
/// Width of one attention head in every published encoder that is supported.
const HEAD_WIDTH: usize = 64;
/// A longer header than this is none: that of a network of a thousand tensors has 100 kB.
const LONGEST_HEADER: u64 = 100 << 20;

/// An encoder's architecture and weights.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// The architecture.
    pub config: VitConfig,
    /// Weights by the names of [`VitConfig::tensors`].
    pub tensors: HashMap<String, Tensor>,
}

impl Encoder {
    /// The same encoder with its position table brought to the grid of its input, so that the table
    /// can be trained there.
    ///
    /// # Errors
    /// When the table is missing or misshapen.
    pub fn at_its_grid(mut self) -> candle_core::Result<Self> {
        let Some(table) = self.tensors.get(POSITION) else {
            candle_core::bail!("tensor `{POSITION}` is missing");
        };
        let table = resize_table(table, &self.config)?;
        self.tensors.insert(POSITION.to_owned(), table);
        self.config.position_side = self.config.grid();
        Ok(self)
    }
}

/// Changes to an encoder's architecture that need no other weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncoderChanges {
    /// Another side of the input image.
    pub input_side: Option<usize>,
    /// Other target blocks.
    pub targets: Option<Vec<usize>>,
    /// Another way to bring its position table to the input's grid.
    pub position_interpolation: Option<PositionInterpolation>,
}

/// Writes a pretrained encoder.
///
/// # Errors
/// When the file cannot be written.
pub fn save_encoder(
    path: &Path,
    config: &VitConfig,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<(), TrainingError> {
    let architecture = serde_json::to_string(config).map_err(|error| fault(path, error))?;
    let metadata = HashMap::from([(ARCHITECTURE.to_owned(), architecture)]);
    write_tensors(path, tensors, metadata).map_err(|error| {
        let message = match error {
            CheckpointError::File { source, .. } => source.to_string(),
            CheckpointError::Format { message, .. } => message,
            other => other.to_string(),
        };
        TrainingError::Encoder {
            path: path.to_owned(),
            message,
        }
    })
}

/// Reads an encoder: our own, or one with the names of timm, DINOv2 or Hugging Face.
///
/// # Errors
/// When the file cannot be read, or the changes do not fit its weights.
pub fn read_encoder(path: &Path, changes: &EncoderChanges) -> Result<Encoder, TrainingError> {
    let own = own_architecture(path)?;
    let is_own = own.is_some();
    let mut tensors = read_tensors(path).map_err(|error| fault(path, error))?;
    let mut config = match own {
        Some(config) => config,
        None => published_architecture(path, &tensors)?,
    };
    if let Some(side) = changes.input_side {
        config.input_side = side;
    }
    if let Some(targets) = &changes.targets {
        config.targets.clone_from(targets);
    }
    if let Some(interpolation) = changes.position_interpolation {
        config.position_interpolation = interpolation;
    }
    config.validate().map_err(|error| fault(path, error))?;
    if !is_own {
        tensors = rename_encoder(path, tensors, &config).map_err(|error| fault(path, error))?;
    }
    let specs = config.tensors();
    tensors.retain(|name, _| specs.iter().any(|(known, _)| known == name));
    specs.check(&tensors).map_err(|error| fault(path, error))?;
    Ok(Encoder { config, tensors })
}

/// The architecture that our own files carry; none for a file of others.
fn own_architecture(path: &Path) -> Result<Option<VitConfig>, TrainingError> {
    let header = read_header(path).map_err(|error| fault(path, error))?;
    // Not JSON: no safetensors, so not ours.
    let Ok(header) = serde_json::from_slice::<serde_json::Value>(&header) else {
        return Ok(None);
    };
    let text = header["__metadata__"][ARCHITECTURE].as_str();
    text.map(|text| serde_json::from_str(text).map_err(|error| fault(path, error)))
        .transpose()
}

/// The header of a safetensors file: its length as 8 bytes, then JSON. Of any other file as much as
/// that reading gives. Weights may have gigabytes, so they are not read for it.
fn read_header(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    let mut header = Vec::new();
    if file.read(&mut length)? == length.len() {
        let length = u64::from_le_bytes(length).min(LONGEST_HEADER);
        file.take(length).read_to_end(&mut header)?;
    }
    Ok(header)
}

/// The architecture of a vision transformer with timm's or DINOv2's names, from its shapes.
fn published_architecture(
    path: &Path,
    tensors: &HashMap<String, Tensor>,
) -> Result<VitConfig, TrainingError> {
    let shapes: HashMap<&str, &[usize]> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.dims()))
        .collect();
    let find = |names: &[&str]| names.iter().find_map(|name| shapes.get(*name));
    let missing = |name: &str| fault(path, format!("tensor `{name}` is missing"));
    let patch = find(&[
        "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.weight",
    ])
    .ok_or_else(|| missing("patch_embed.proj.weight"))?;
    let positions = find(&["pos_embed", "embeddings.position_embeddings"])
        .and_then(|shape| shape.get(1))
        .ok_or_else(|| missing("pos_embed"))?;
    let registers = find(&["reg_token", "register_tokens", "embeddings.register_tokens"]);
    let blocks = shapes.keys().filter(|name| {
        name.ends_with(".norm1.weight")
            && (name.starts_with("blocks.") || name.starts_with("encoder.layer."))
    });
    let layer_scale = shapes
        .keys()
        .any(|name| name.contains("ls1") || name.contains("layer_scale1"));
    let (depth, width) = (blocks.count(), patch[0]);
    let patch = patch.last().copied().unwrap_or(1);
    let position_side = positions.isqrt();
    Ok(VitConfig {
        input_side: position_side * patch,
        patch,
        width,
        depth,
        heads: (width / HEAD_WIDTH).max(1),
        registers: registers
            .and_then(|shape| shape.get(1))
            .copied()
            .unwrap_or(0),
        layer_scale,
        position_side,
        position_interpolation: PositionInterpolation::default(),
        targets: default_targets(depth),
    })
}

/// The eight middle blocks that Dinomaly takes of twelve, or eight spread over a deeper encoder.
fn default_targets(depth: usize) -> Vec<usize> {
    match depth {
        0..=3 => (0..depth).collect(),
        4..=11 => (depth % 2..depth).collect(),
        12..=23 => (2..10).collect(),
        _ => (4..20).step_by(2).collect(),
    }
}

fn fault(path: &Path, error: impl std::fmt::Display) -> TrainingError {
    TrainingError::Data {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn config() -> VitConfig {
        VitConfig {
            input_side: 32,
            patch: 8,
            width: 64,
            depth: 4,
            heads: 1,
            registers: 0,
            layer_scale: false,
            position_side: 4,
            position_interpolation: PositionInterpolation::default(),
            targets: vec![0, 1, 2, 3],
        }
    }

    #[test]
    fn an_own_encoder_comes_back_with_its_architecture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.safetensors");
        let tensors = config().tensors().initial_values(1, &Device::Cpu).unwrap();
        let sorted: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        save_encoder(&path, &config(), &sorted).unwrap();
        let read = read_encoder(&path, &EncoderChanges::default()).unwrap();
        assert_eq!(read.config, config());
        assert_eq!(read.tensors.len(), sorted.len());
    }

    #[test]
    fn an_encoder_that_cannot_be_written_is_named_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir_all(path.join("x")).unwrap();
        let error = save_encoder(&path, &config(), &BTreeMap::new()).unwrap_err();
        let start = format!("encoder `{}`: ", path.display());
        assert!(error.to_string().starts_with(&start), "{error}");
    }

    #[test]
    fn the_name_of_the_file_does_not_matter_and_is_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.bin");
        let tensors = config().tensors().initial_values(1, &Device::Cpu).unwrap();
        save_encoder(&path, &config(), &tensors.into_iter().collect()).unwrap();
        let read = read_encoder(&path, &EncoderChanges::default()).unwrap();
        assert_eq!(read.config, config());
        for bytes in [&b"PK\x03\x04 no archive"[..], b"neither of them"] {
            std::fs::write(&path, bytes).unwrap();
            let error = read_encoder(&path, &EncoderChanges::default()).unwrap_err();
            assert!(error.to_string().contains("encoder.bin"), "{error}");
        }
    }

    #[test]
    fn a_position_table_is_resized_for_another_side_alone() {
        let tensors = config().tensors().initial_values(1, &Device::Cpu).unwrap();
        for interpolation in [
            PositionInterpolation::Dinomaly,
            PositionInterpolation::Antialiased,
        ] {
            let encoder = |input_side| Encoder {
                config: VitConfig {
                    input_side,
                    position_interpolation: interpolation,
                    ..config()
                },
                tensors: tensors.clone(),
            };
            let table = |encoder: &Encoder| -> Vec<f32> {
                let table = encoder.tensors[POSITION].flatten_all().unwrap();
                table.to_vec1().unwrap()
            };
            let (same, other) = (encoder(32), encoder(48));
            assert!(table(&same.clone().at_its_grid().unwrap()) == table(&same));
            let resized = other.at_its_grid().unwrap();
            assert_eq!(resized.tensors[POSITION].dims(), [1, 36, 64]);
            assert_eq!(resized.config.position_side, 6);
        }
    }

    #[test]
    fn changes_of_the_architecture_are_taken_and_fewer_targets_need_fewer_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.safetensors");
        let tensors = config().tensors().initial_values(1, &Device::Cpu).unwrap();
        save_encoder(&path, &config(), &tensors.into_iter().collect()).unwrap();
        let changes = EncoderChanges {
            targets: Some(vec![0, 1]),
            position_interpolation: Some(PositionInterpolation::Antialiased),
            ..EncoderChanges::default()
        };
        let read = read_encoder(&path, &changes).unwrap();
        let expected = PositionInterpolation::Antialiased;
        assert_eq!(read.config.position_interpolation, expected);
        assert!(
            read.tensors
                .keys()
                .all(|name| !name.starts_with("blocks.2."))
        );
    }
}
