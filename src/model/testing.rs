//! A network small enough for tests.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bundle::{ClassThresholds, Manifest};
use super::mvmcad::{Amplification, Mvmcad, MvmcadConfig, PriorMode};
use super::preprocess::Normalisation;
use super::tensors::variables;
use super::vit::{PositionInterpolation, VitConfig};
use crate::domain::ModelIdentity;

/// Input 28, grid 4, width 16, four encoder blocks, two decoder blocks.
pub(crate) fn tiny_config(prior: PriorMode, amplification: Amplification) -> MvmcadConfig {
    MvmcadConfig {
        prior,
        amplification,
        decoder_depth: 2,
        bottleneck_dropout: 0.,
        ..MvmcadConfig::new(tiny_encoder(0))
    }
}

/// The same encoder as in `integration-tests/parity/independent.py`.
pub(crate) fn tiny_encoder(registers: usize) -> VitConfig {
    VitConfig {
        input_side: 28,
        patch: 7,
        width: 16,
        depth: 4,
        heads: 2,
        registers,
        layer_scale: registers > 0,
        position_side: if registers > 0 { 5 } else { 4 },
        position_interpolation: PositionInterpolation::Dinomaly,
        targets: vec![0, 1, 2, 3],
    }
}

/// Weights large enough that every branch matters: first values plus noise.
pub(crate) fn lively_weights(config: &MvmcadConfig, seed: u64) -> HashMap<String, Tensor> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tensors = HashMap::new();
    for (name, spec) in config.tensors().iter() {
        let count = spec.shape.iter().product();
        let centre = match spec.initial {
            super::tensors::Initial::Constant(value) => value,
            super::tensors::Initial::TruncatedNormal { .. }
            | super::tensors::Initial::SineCosine => 0.,
        };
        let values: Vec<f32> = (0..count)
            .map(|_| centre + random.random_range(-0.3..0.3))
            .collect();
        let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu).unwrap();
        tensors.insert(name.to_owned(), tensor);
    }
    tensors
}

/// The network on these weights; all but the encoder's are variables.
pub(crate) fn network(
    config: &MvmcadConfig,
    tensors: &HashMap<String, Tensor>,
) -> (Mvmcad, VarMap) {
    let trained = tensors
        .iter()
        .filter(|(name, _)| !name.starts_with("encoder."))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    let variables = variables(&trained).unwrap();
    let encoder = VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
    let trainable = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = Mvmcad::new(config, encoder.pp("encoder"), trainable).unwrap();
    (network, variables)
}

/// Normalised images of random pixels.
pub(crate) fn random_images(count: usize, side: usize, seed: u64) -> Tensor {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..count * 3 * side * side)
        .map(|_| random.random_range(-1.5..2.))
        .collect();
    Tensor::from_vec(values, (count, 3, side, side), &Device::Cpu).unwrap()
}

/// A description with one class.
pub(crate) fn tiny_manifest(architecture: MvmcadConfig) -> Manifest {
    let identity = ModelIdentity {
        name: "tiny".to_owned(),
        version: "1".to_owned(),
    };
    let mut manifest = Manifest::new(identity, architecture, Normalisation::imagenet(32), 20);
    let thresholds = ClassThresholds {
        threshold: 0.25,
        pixel_threshold: 0.5,
    };
    manifest.classes.insert("bolt".to_owned(), thresholds);
    manifest
}
