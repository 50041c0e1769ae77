//! The folder of cases: `cases.json` as the generator's `cases.py` writes it, and tensors beside it.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use panoptes::model::mvmcad::MvmcadConfig;
use panoptes::model::vit::VitConfig;
use panoptes::training::objective::Objective;
use serde::Deserialize;

/// Named tensors of one file.
pub(crate) type Tensors = HashMap<String, Tensor>;

/// One comparison with a peer.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) peer: String,
    pub(crate) bound: f64,
    /// File of the peer's tensors.
    pub(crate) tensors: String,
    #[serde(flatten)]
    pub(crate) kind: Kind,
}

/// What is compared, and its settings.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Kind {
    Encoder(EncoderSettings),
    Network(NetworkSettings),
    Layer(LayerSettings),
    Loss(LossSettings),
    Optimiser(OptimiserCase),
    Resize(ResizeSettings),
}

#[derive(Debug, Deserialize)]
pub(crate) struct EncoderSettings {
    /// The peer's own file.
    pub(crate) weights: String,
    pub(crate) architecture: VitConfig,
    /// Whether the architecture can be read off the file, as that of published encoders can.
    pub(crate) inferred: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NetworkSettings {
    /// The encoder's file.
    pub(crate) weights: String,
    pub(crate) architecture: MvmcadConfig,
    pub(crate) map_side: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LayerSettings {
    pub(crate) architecture: MvmcadConfig,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LossSettings {
    pub(crate) objective: Objective,
    pub(crate) left_aside: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OptimiserCase {
    pub(crate) settings: OptimiserNumbers,
    pub(crate) schedule: ScheduleNumbers,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OptimiserNumbers {
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) weight_decay: f64,
    pub(crate) epsilon: f64,
    pub(crate) amsgrad: bool,
    pub(crate) step_limit: f64,
    pub(crate) gradient_norm: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ScheduleNumbers {
    pub(crate) peak: f64,
    pub(crate) last: f64,
    pub(crate) warm_up: u64,
    pub(crate) iterations: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ResizeSettings {
    /// One entry an image, in the order of the tensors' numbers.
    pub(crate) images: Vec<ResizeGoal>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ResizeGoal {
    pub(crate) resize: usize,
    pub(crate) crop: usize,
}

/// Where the cases lie.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Whether `PARITY_CASES` names it.
    pub(crate) is_named: bool,
}

impl Folder {
    pub(crate) fn from_environment() -> Self {
        let kept = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/integration-tests/parity/golden"
        );
        let named = std::env::var_os("PARITY_CASES");
        Self {
            is_named: named.is_some(),
            path: named.map_or_else(|| kept.into(), PathBuf::from),
        }
    }

    pub(crate) fn cases(&self) -> Vec<Case> {
        let text = fs::read_to_string(self.file("cases.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn tensors(&self, name: &str) -> Tensors {
        candle_core::safetensors::load(self.file(name), &Device::Cpu).unwrap()
    }
}
