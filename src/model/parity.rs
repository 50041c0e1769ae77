//! The parts of the network that no public code has against values computed without it
//! (`integration-tests/parity/independent.py`), and files of others that do not fit.
//!
//! What public code has is held against that code in `integration-tests/parity/main.rs`.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::maps::MapProjector;
use super::mvmcad::{
    Amplification, AmplificationScope, AmplificationSoftmax, AmplificationStrength, Mvmcad,
    MvmcadConfig, PriorMode, Target,
};
use super::preprocess::{Normalisation, Preprocessor};
use super::tensors::TensorFault;
use super::testing::{tiny_config, tiny_encoder};
use super::vit::VitConfig;
use super::vit_weights::{EncoderWeightsError, load_encoder, rename_encoder};
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

fn network(config: &MvmcadConfig) -> Mvmcad {
    let encoder = load_encoder(&path("independent/encoder.safetensors"), &config.encoder).unwrap();
    let trained = golden("independent/trained.safetensors");
    Mvmcad::new(
        config,
        VarBuilder::from_tensors(encoder, DType::F32, &Device::Cpu),
        VarBuilder::from_tensors(trained, DType::F32, &Device::Cpu),
    )
    .unwrap()
}

/// The maps of both images, which are two views of one part.
#[track_caller]
fn assert_maps(config: &MvmcadConfig, expected: &str) {
    let golden = golden("independent/network.safetensors");
    let patches = network(config)
        .patch_anomalies(&golden["images"], &[2])
        .unwrap();
    let patches = patches.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    let projector = MapProjector::new(4, 28, 20);
    let found = patches
        .iter()
        .flat_map(|patches| projector.project(patches).values);
    let expected = golden[expected].flatten_all().unwrap();
    let expected = expected.to_vec1::<f32>().unwrap();
    let differences = found
        .zip(&expected)
        .map(|(found, expected)| found - expected);
    assert_eq!(differences.clone().count(), 2 * 20 * 20);
    for difference in differences {
        assert!(difference.abs() <= 2e-5, "difference {difference}");
    }
}

#[test]
fn maps_agree_with_numpy_behind_the_literal_prior() {
    let config = tiny_config(PriorMode::Literal, Amplification::Off);
    assert_maps(&config, "maps.literal");
}

#[test]
fn maps_agree_with_numpy_behind_the_calibrated_prior() {
    let config = tiny_config(PriorMode::Calibrated, Amplification::After);
    assert_maps(&config, "maps.calibrated");
}

#[test]
fn maps_agree_with_numpy_in_every_form_of_amplification_and_target() {
    let form = |change: fn(&mut MvmcadConfig), expected: &str| {
        let mut config = tiny_config(PriorMode::Off, Amplification::After);
        change(&mut config);
        assert_maps(&config, expected);
    };
    form(
        |config| config.amplification_softmax = AmplificationSoftmax::Tokens,
        "maps.tokens",
    );
    form(
        |config| config.amplification_scope = AmplificationScope::Part,
        "maps.part",
    );
    form(
        |config| config.amplification_strength = AmplificationStrength::Adaptive,
        "maps.adaptive",
    );
    form(|config| config.target = Target::Recentred, "maps.recentred");
}

/// The golden encoders' architecture: two blocks of 16 channels, four registers.
fn published() -> VitConfig {
    VitConfig {
        depth: 2,
        targets: vec![0, 1],
        ..tiny_encoder(4)
    }
}

/// Each published naming with its file, the names of its last block and of its position table.
const NAMINGS: [(&str, &str, &str); 3] = [
    (
        "golden/tiny_timm_weights.safetensors",
        "blocks.1.",
        "pos_embed",
    ),
    ("golden/tiny_original.pth", "blocks.1.", "pos_embed"),
    (
        "golden/tiny_hugging_face_weights.safetensors",
        "encoder.layer.1.",
        "embeddings.position_embeddings",
    ),
];

fn fault(file: &str, config: &VitConfig) -> TensorFault {
    match load_encoder(&path(file), config) {
        Err(EncoderWeightsError::Tensor { fault, .. }) => fault,
        other => panic!("expected a tensor's fault, found {other:?}"),
    }
}

#[test]
fn a_missing_tensor_is_named_as_its_file_names_it() {
    for (file, last_block, _) in NAMINGS {
        let deeper = VitConfig {
            depth: 3,
            targets: vec![0, 2],
            ..published()
        };
        let expected = last_block.replace('1', "2");
        let fault = fault(file, &deeper);
        assert_eq!(
            fault.to_string(),
            format!("tensor `{expected}norm1.weight` is missing: expected shape [16]")
        );
    }
}

#[test]
fn a_tensor_that_has_no_place_is_named_as_its_file_names_it() {
    for (file, last_block, _) in NAMINGS {
        let shallower = VitConfig {
            depth: 1,
            targets: vec![0],
            ..published()
        };
        let fault = fault(file, &shallower);
        assert!(
            matches!(&fault, TensorFault::Extra { name, .. } if name.starts_with(last_block)),
            "{fault}"
        );
    }
    let unscaled = VitConfig {
        layer_scale: false,
        ..published()
    };
    let fault = fault(NAMINGS[0].0, &unscaled);
    assert!(matches!(fault, TensorFault::Extra { name, .. } if name == "blocks.0.ls1.gamma"));
}

#[test]
fn a_tensor_of_another_shape_is_named_as_its_file_names_it() {
    for (file, _, table) in NAMINGS {
        let other = VitConfig {
            position_side: 6,
            ..published()
        };
        let TensorFault::Shape { name, found, .. } = fault(file, &other) else {
            panic!("{file}")
        };
        assert_eq!(name, table);
        assert!(matches!(found[1], 25 | 26), "{found:?}");
    }
    let wider = VitConfig {
        width: 32,
        ..published()
    };
    for (file, ..) in NAMINGS {
        assert!(matches!(fault(file, &wider), TensorFault::Shape { .. }));
    }
}

#[test]
fn every_single_tensor_of_a_file_is_needed_and_every_stranger_refused() {
    for (file, ..) in NAMINGS {
        let whole = super::vit_weights::read_tensors(&path(file)).unwrap();
        let load = |tensors| rename_encoder(&path(file), tensors, &published());
        assert!(load(whole.clone()).is_ok());
        let is_dropped = |name: &str| {
            name.contains("mask_token")
                || name.starts_with("norm.")
                || name.starts_with("layernorm.")
        };
        for name in whole.keys().filter(|name| !is_dropped(name)) {
            let mut tensors = whole.clone();
            tensors.remove(name);
            let error = load(tensors).unwrap_err().to_string();
            let stem = name.rsplit('.').next().unwrap();
            assert!(error.contains("is missing"), "`{name}`: {error}");
            assert!(error.contains(stem), "`{name}`: {error}");
        }
        let mut tensors = whole.clone();
        let stranger = Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap();
        tensors.insert("adapter.weight".to_owned(), stranger);
        let error = load(tensors).unwrap_err().to_string();
        assert!(error.contains("`adapter.weight` of shape [7]"), "{error}");
    }
}

#[test]
fn an_old_pytorch_file_and_an_archive_without_tensors_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("encoder.pth");
    std::fs::write(&file, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    let error = load_encoder(&file, &published()).unwrap_err().to_string();
    assert!(error.contains("version 1.6 or newer"), "{error}");
    let error = load_encoder(&path("golden/empty.pth"), &published()).unwrap_err();
    assert!(error.to_string().contains("found none"), "{error}");
}

#[test]
fn resize_is_bit_for_bit_that_of_pillow() {
    for (name, expected) in golden("independent/resize.safetensors") {
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
