//! The network against values computed without it; see `integration-tests/parity/generate.py`.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::maps::MapProjector;
use super::mvmcad::{Amplification, Mvmcad, MvmcadConfig, PriorMode};
use super::preprocess::{Normalisation, Preprocessor};
use super::testing::{tiny_config, tiny_encoder};
use super::vit::{PositionInterpolation, Vit, VitConfig};
use super::vit_weights::{EncoderWeightsError, load_encoder};
use super::{Mode, tensors::TensorFault};
use crate::domain::RgbImage;

fn path(file: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "integration-tests",
        "parity",
        file,
    ]
    .iter()
    .collect()
}

fn golden(file: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path(file), &Device::Cpu).unwrap()
}

fn vit(file: &str, config: &VitConfig) -> Vit {
    let tensors = load_encoder(&path(file), config).unwrap();
    config.tensors().check(&tensors).unwrap();
    Vit::new(
        config,
        VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu),
    )
    .unwrap()
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims());
    let difference = (found - expected)
        .unwrap()
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap();
    let largest = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
    assert!(
        largest <= tolerance,
        "expected at most {tolerance}, found {largest}"
    );
}

#[track_caller]
fn assert_tokens(vit: &Vit, expected: &str) {
    let golden = golden("network.safetensors");
    let image = golden["image"].unsqueeze(0).unwrap();
    let images = Tensor::cat(&[&image, &image], 0).unwrap();
    for mode in [Mode::Inference, Mode::Train] {
        let outputs = vit.forward(&images, mode).unwrap();
        for (index, output) in outputs.iter().enumerate() {
            let expected = golden[expected].get(index).unwrap();
            for image in 0..2 {
                assert_close(&output.get(image).unwrap(), &expected, 2e-4);
            }
        }
    }
}

#[test]
fn encoder_agrees_with_numpy_without_registers() {
    assert_tokens(
        &vit("encoder_timm_plain.safetensors", &tiny_encoder(0)),
        "tokens.plain",
    );
}

#[test]
fn encoder_agrees_with_numpy_with_registers_under_each_naming() {
    for naming in ["timm_registers", "original", "hugging_face"] {
        let file = format!("encoder_{naming}.safetensors");
        assert_tokens(&vit(&file, &tiny_encoder(4)), "tokens.registers.dinomaly");
    }
}

#[test]
fn encoder_interpolates_positions_with_antialiasing_when_asked() {
    let mut config = tiny_encoder(4);
    config.position_interpolation = PositionInterpolation::Antialiased;
    let vit = vit("encoder_timm_registers.safetensors", &config);
    assert_tokens(&vit, "tokens.registers.antialiased");
}

#[test]
fn encoder_runs_no_block_after_the_last_target() {
    let mut config = tiny_encoder(4);
    config.targets = vec![0, 1];
    let vit = vit("encoder_timm_registers.safetensors", &config);
    let image = golden("network.safetensors")["image"].unsqueeze(0).unwrap();
    assert_eq!(vit.forward(&image, Mode::Inference).unwrap().len(), 2);
    assert_tokens(&vit, "tokens.registers.dinomaly");
}

#[test]
fn encoder_weights_that_do_not_fit_are_named() {
    let fault = |change: fn(&mut VitConfig)| {
        let mut config = tiny_encoder(4);
        change(&mut config);
        match load_encoder(&path("encoder_timm_registers.safetensors"), &config) {
            Err(EncoderWeightsError::Tensor { fault, .. }) => fault,
            other => panic!("expected a tensor's fault, found {other:?}"),
        }
    };
    let deeper = fault(|config| {
        config.depth = 5;
        config.targets = vec![0, 4];
    });
    assert_eq!(
        deeper.to_string(),
        "tensor `blocks.4.norm1.weight` is missing: expected shape [16]"
    );
    assert!(matches!(
        fault(|config| { config.depth = 3; config.targets = vec![0, 2]; }),
        TensorFault::Extra { name, .. } if name.starts_with("blocks.3.")
    ));
    let unscaled = fault(|config| config.layer_scale = false);
    assert!(matches!(unscaled, TensorFault::Extra { name, .. } if name == "blocks.0.ls1.gamma"));
    let coarse = fault(|config| config.position_side = 6);
    assert_eq!(
        coarse.to_string(),
        "tensor `pos_embed`: expected shape [1, 37, 16], found [1, 25, 16]"
    );
}

fn whole_network(config: &MvmcadConfig) -> Mvmcad {
    let encoder = load_encoder(&path("encoder_timm_plain.safetensors"), &config.encoder).unwrap();
    let trained = golden("trained.safetensors");
    Mvmcad::new(
        config,
        VarBuilder::from_tensors(encoder, DType::F32, &Device::Cpu),
        VarBuilder::from_tensors(trained, DType::F32, &Device::Cpu),
    )
    .unwrap()
}

#[track_caller]
fn assert_map(prior: PriorMode, amplification: Amplification, expected: &str) {
    let network = whole_network(&tiny_config(prior, amplification));
    let golden = golden("network.safetensors");
    let image = golden["image"].unsqueeze(0).unwrap();
    let patches = network
        .patch_anomalies(&image, &[1])
        .unwrap()
        .flatten_all()
        .unwrap();
    let map = MapProjector::new(4, 28, 20).project(&patches.to_vec1::<f32>().unwrap());
    let map = Tensor::from_vec(map.values, (20, 20), &Device::Cpu).unwrap();
    assert_close(&map, &golden[expected], 2e-5);
}

#[test]
fn anomaly_maps_agree_with_numpy_without_prior_and_amplification() {
    assert_map(PriorMode::Off, Amplification::Off, "map.off.off");
}

#[test]
fn anomaly_maps_agree_with_numpy_with_amplification_after_the_bottleneck() {
    assert_map(PriorMode::Off, Amplification::After, "map.off.after");
}

#[test]
fn anomaly_maps_agree_with_numpy_with_amplification_in_its_place() {
    assert_map(PriorMode::Off, Amplification::Replace, "map.off.replace");
}

#[test]
fn anomaly_maps_agree_with_numpy_behind_the_literal_prior() {
    assert_map(PriorMode::Literal, Amplification::Off, "map.literal.off");
}

#[test]
fn anomaly_maps_agree_with_numpy_behind_the_calibrated_prior() {
    assert_map(
        PriorMode::Calibrated,
        Amplification::After,
        "map.calibrated.after",
    );
}

#[test]
fn resize_is_bit_for_bit_that_of_pillow() {
    for (name, expected) in golden("resize.safetensors") {
        let numbers: Vec<usize> = name
            .split('.')
            .map(|number| number.parse().unwrap())
            .collect();
        let [width, height, resize, crop] = numbers[..] else {
            panic!("{name}")
        };
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                pixels.extend((0..3).map(|c| ((x * 7 + y * 13 + c * 50 + x * y) % 256) as u8));
            }
        }
        let image = RgbImage {
            width: width as u32,
            height: height as u32,
            pixels,
        };
        let preprocessor = Preprocessor::new(Normalisation::imagenet(resize), crop).unwrap();
        let found = preprocessor.resize_and_crop(&image).unwrap();
        let expected = expected.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        assert!(found.pixels == expected, "{name}");
    }
}
