//! Encoder weights as others publish them, brought to our names.
//!
//! Known: timm (`vit_*_reg4_dinov2`, DeiT and other plain vision transformers), the original
//! DINOv2 files, and Hugging Face's `dinov2-with-registers-*`; as `.safetensors` or `.pth`, in the
//! latter also one level down in a checkpoint (`model`, `state_dict`, `teacher`). Every tensor is
//! accounted for: taken, known to be of no use here, or named in the error.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::tensors::TensorFault;
use super::vit::VitConfig;

/// Where checkpoints of training keep the weights, if not at the top.
const CHECKPOINT_KEYS: [&str; 3] = ["model", "state_dict", "teacher"];

/// Why encoder weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EncoderWeightsError {
    /// The file cannot be read as tensors.
    #[error("encoder weights `{}`: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        message: String,
    },
    /// A tensor is missing, misshapen, or has no place.
    #[error("encoder weights `{}`: {fault}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// What is wrong, in the file's own names.
        fault: TensorFault,
    },
}

/// Reads encoder weights for `config`, in f32 and with the names of [`VitConfig::tensors`].
///
/// # Errors
/// When the file cannot be read, or a tensor is missing, misshapen or unknown.
pub fn load_encoder(
    path: &Path,
    config: &VitConfig,
) -> Result<HashMap<String, Tensor>, EncoderWeightsError> {
    let tensors = read_tensors(path).map_err(|error| unreadable(path, &error))?;
    rename_encoder(path, tensors, config)
}

/// [`load_encoder`] of the tensors that were read from `path`.
pub(crate) fn rename_encoder(
    path: &Path,
    tensors: HashMap<String, Tensor>,
    config: &VitConfig,
) -> Result<HashMap<String, Tensor>, EncoderWeightsError> {
    convert_encoder(tensors, config).map_err(|error| match error {
        ConvertError::Fault(fault) => EncoderWeightsError::Tensor {
            path: path.to_owned(),
            fault,
        },
        ConvertError::Candle(error) => unreadable(path, &error),
    })
}

fn unreadable(path: &Path, error: &candle_core::Error) -> EncoderWeightsError {
    EncoderWeightsError::Read {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

/// Every tensor of a file: PyTorch's, which is a ZIP archive, or safetensors. What it is, is told by
/// its first bytes, since people name weights as they like.
pub(crate) fn read_tensors(path: &Path) -> candle_core::Result<HashMap<String, Tensor>> {
    let mut first = Vec::with_capacity(9);
    std::fs::File::open(path)?.take(9).read_to_end(&mut first)?;
    match first.as_slice() {
        // Safetensors: eight bytes of the header's length, which may be any, and the header.
        [_, _, _, _, _, _, _, _, b'{'] => candle_core::safetensors::load(path, &Device::Cpu),
        [b'P', b'K', 3, 4, ..] => read_archive(path),
        // A pickle's first bytes. Before version 1.6 PyTorch wrote several, one behind the other.
        [0x80, 1..=5, ..] => candle_core::bail!(
            "expected safetensors or a PyTorch file of version 1.6 or newer, found an older one; \
             `torch.save(torch.load(path), path)` brings it up to date"
        ),
        _ => candle_core::safetensors::load(path, &Device::Cpu),
    }
}

/// The tensors of a PyTorch archive: at its top, or where a checkpoint keeps them.
fn read_archive(path: &Path) -> candle_core::Result<HashMap<String, Tensor>> {
    let mut tensors = candle_core::pickle::read_all(path)?;
    for key in CHECKPOINT_KEYS {
        if !tensors.is_empty() {
            break;
        }
        // The error is that there is no such key.
        tensors = candle_core::pickle::read_all_with_key(path, Some(key)).unwrap_or_default();
    }
    if tensors.is_empty() {
        candle_core::bail!(
            "expected tensors at the top or under one of {CHECKPOINT_KEYS:?}, found none"
        );
    }
    Ok(tensors.into_iter().collect())
}

#[derive(Debug, thiserror::Error)]
enum ConvertError {
    #[error(transparent)]
    Fault(#[from] TensorFault),
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Who named the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// timm and the original files: `blocks.0.attn.qkv.weight`.
    Plain,
    /// Hugging Face: `encoder.layer.0.attention.attention.query.weight`.
    HuggingFace,
}

/// The file's tensors; what is taken leaves it, so that the rest can be named.
struct Source {
    tensors: HashMap<String, Tensor>,
}

impl Source {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ConvertError> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(ConvertError::Fault(TensorFault::Missing {
                name: name.to_owned(),
                expected: shape.to_vec(),
            }));
        };
        if tensor.dims() != shape {
            return Err(ConvertError::Fault(TensorFault::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: tensor.dims().to_vec(),
            }));
        }
        Ok(tensor.to_dtype(DType::F32)?)
    }
}

fn convert_encoder(
    tensors: HashMap<String, Tensor>,
    config: &VitConfig,
) -> Result<HashMap<String, Tensor>, ConvertError> {
    let naming = match tensors.keys().any(|name| name.starts_with("embeddings.")) {
        true => Naming::HuggingFace,
        false => Naming::Plain,
    };
    let mut source = Source { tensors };
    let mut converted = HashMap::new();
    convert_embeddings(&mut source, &mut converted, config, naming)?;
    for index in 0..config.used_depth() {
        convert_block(&mut source, &mut converted, config, naming, index)?;
    }
    let left = source
        .tensors
        .iter()
        .filter(|(name, _)| !is_of_no_use(name, config));
    if let Some((name, tensor)) = left.min_by_key(|(name, _)| *name) {
        return Err(ConvertError::Fault(TensorFault::Extra {
            name: name.clone(),
            found: tensor.dims().to_vec(),
        }));
    }
    Ok(converted)
}

fn convert_embeddings(
    source: &mut Source,
    converted: &mut HashMap<String, Tensor>,
    config: &VitConfig,
    naming: Naming,
) -> Result<(), ConvertError> {
    let VitConfig {
        width,
        patch,
        registers,
        ..
    } = *config;
    let [patches, class, position] = match naming {
        Naming::Plain => ["patch_embed.proj", "cls_token", "pos_embed"],
        Naming::HuggingFace => [
            "embeddings.patch_embeddings.projection",
            "embeddings.cls_token",
            "embeddings.position_embeddings",
        ],
    };
    let weight = source.take(&format!("{patches}.weight"), &[width, 3, patch, patch])?;
    converted.insert("patch.weight".to_owned(), weight.flatten_from(1)?);
    converted.insert(
        "patch.bias".to_owned(),
        source.take(&format!("{patches}.bias"), &[width])?,
    );

    let mut class = source.take(class, &[1, 1, width])?;
    let positions = config.position_side * config.position_side;
    // timm's register models have no slot for the class token: its position is in the token.
    let has_class_slot = source
        .tensors
        .get(position)
        .is_none_or(|table| table.dims() != [1, positions, width]);
    let mut table = source.take(
        position,
        &[1, positions + usize::from(has_class_slot), width],
    )?;
    if has_class_slot {
        class = (class + table.narrow(1, 0, 1)?)?;
        table = table.narrow(1, 1, positions)?.contiguous()?;
    }
    converted.insert("class".to_owned(), class);
    converted.insert("position".to_owned(), table);
    if registers > 0 {
        let name = match naming {
            Naming::HuggingFace => "embeddings.register_tokens",
            // The original files have a slot for the class token, timm's with registers have none.
            Naming::Plain if has_class_slot => "register_tokens",
            Naming::Plain => "reg_token",
        };
        converted.insert(
            "registers".to_owned(),
            source.take(name, &[1, registers, width])?,
        );
    }
    Ok(())
}

fn convert_block(
    source: &mut Source,
    converted: &mut HashMap<String, Tensor>,
    config: &VitConfig,
    naming: Naming,
    index: usize,
) -> Result<(), ConvertError> {
    let width = config.width;
    let (theirs, projection, scales) = match naming {
        Naming::Plain => (
            format!("blocks.{index}"),
            "attn.proj",
            ["ls1.gamma", "ls2.gamma"],
        ),
        Naming::HuggingFace => (
            format!("encoder.layer.{index}"),
            "attention.output.dense",
            ["layer_scale1.lambda1", "layer_scale2.lambda1"],
        ),
    };
    let layers = [
        ("norm1", "norm1", vec![width]),
        ("norm2", "norm2", vec![width]),
        ("projection", projection, vec![width, width]),
        ("fc1", "mlp.fc1", vec![4 * width, width]),
        ("fc2", "mlp.fc2", vec![width, 4 * width]),
    ];
    for (ours, name, shape) in layers {
        let weight = source.take(&format!("{theirs}.{name}.weight"), &shape)?;
        let bias = source.take(&format!("{theirs}.{name}.bias"), &shape[..1])?;
        converted.insert(format!("blocks.{index}.{ours}.weight"), weight);
        converted.insert(format!("blocks.{index}.{ours}.bias"), bias);
    }
    for (kind, shape) in [("weight", &[width, width][..]), ("bias", &[width][..])] {
        let joined = match naming {
            Naming::Plain => {
                let shape = [&[3 * width], &shape[1..]].concat();
                source.take(&format!("{theirs}.attn.qkv.{kind}"), &shape)?
            }
            Naming::HuggingFace => {
                let mut parts = Vec::with_capacity(3);
                for part in ["query", "key", "value"] {
                    parts.push(source.take(
                        &format!("{theirs}.attention.attention.{part}.{kind}"),
                        shape,
                    )?);
                }
                Tensor::cat(&parts, 0)?
            }
        };
        converted.insert(format!("blocks.{index}.qkv.{kind}"), joined);
    }
    if config.layer_scale {
        for (ours, name) in ["scale1", "scale2"].into_iter().zip(scales) {
            let scale = source.take(&format!("{theirs}.{name}"), &[width])?;
            converted.insert(format!("blocks.{index}.{ours}"), scale);
        }
    }
    Ok(())
}

/// Whether a tensor is rightly left out: heads, the final norm, the mask token of pretraining, and
/// blocks after the last target.
fn is_of_no_use(name: &str, config: &VitConfig) -> bool {
    let heads = ["norm.", "layernorm.", "head.", "fc_norm."];
    if heads.iter().any(|prefix| name.starts_with(prefix)) {
        return true;
    }
    if matches!(name, "mask_token" | "embeddings.mask_token") {
        return true;
    }
    let block = name
        .strip_prefix("blocks.")
        .or_else(|| name.strip_prefix("encoder.layer."));
    let index = block.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    index.is_some_and(|index| (config.used_depth()..config.depth).contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_whose_length_begins_as_a_pickle_is_still_safetensors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for second in 1..=5 {
            let length = u64::from_le_bytes([0x80, second, 0, 0, 0, 0, 0, 0]) as usize;
            let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
            let mut bytes = (length as u64).to_le_bytes().to_vec();
            bytes.extend(format!("{header:length$}").bytes());
            bytes.extend(2.5f32.to_le_bytes());
            std::fs::write(file.path(), bytes).unwrap();
            let tensors = read_tensors(file.path()).unwrap();
            assert_eq!(tensors["a"].to_vec1::<f32>().unwrap(), [2.5]);
        }
    }
}
