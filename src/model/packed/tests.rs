//! The packed network held against the composed one.

use std::collections::HashMap;

use candle_core::Tensor;

use super::super::Mode;
use super::super::mvmcad::{
    Amplification, AmplificationAttention, AmplificationScope, AmplificationSoftmax,
    AmplificationStrength, MvmcadConfig, PriorMode, Target,
};
use super::super::testing::{lively_weights, network, random_images, tiny_config, tiny_encoder};
use super::*;

/// Images of the tests, and how many views each part has.
const VIEWS: [usize; 2] = [2, 1];

/// Every choice that the architecture leaves, one at a time, and some together.
fn architectures() -> Vec<MvmcadConfig> {
    let plain = tiny_config(PriorMode::Off, Amplification::After);
    let replaced = tiny_config(PriorMode::Off, Amplification::Replace);
    let part = MvmcadConfig {
        amplification_scope: AmplificationScope::Part,
        ..plain.clone()
    };
    vec![
        tiny_config(PriorMode::Off, Amplification::Off),
        replaced.clone(),
        MvmcadConfig {
            encoder: tiny_encoder(4),
            decoder_depth: 4,
            ..plain.clone()
        },
        MvmcadConfig {
            amplification_softmax: AmplificationSoftmax::Tokens,
            ..plain.clone()
        },
        MvmcadConfig {
            amplification_attention: AmplificationAttention::Linear,
            ..plain.clone()
        },
        MvmcadConfig {
            amplification_strength: AmplificationStrength::Adaptive,
            ..part.clone()
        },
        MvmcadConfig {
            amplification_strength: AmplificationStrength::Adaptive,
            ..replaced
        },
        MvmcadConfig {
            target: Target::Recentred,
            ..part.clone()
        },
        MvmcadConfig {
            whitening: true,
            ..plain.clone()
        },
        part,
        plain,
    ]
}

/// What the composed network makes of each image.
fn composed(
    config: &MvmcadConfig,
    tensors: &HashMap<String, Tensor>,
    images: &Tensor,
) -> Vec<ImageFeatures> {
    let (network, _) = network(config, tensors);
    let features = network
        .forward_groups(images, &VIEWS, Mode::Inference)
        .unwrap();
    let anomalies = features.anomalies().unwrap().to_vec2::<f32>().unwrap();
    let shallow = features.encoder[0]
        .flatten_from(1)
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    let pairs = anomalies.into_iter().zip(shallow);
    pairs
        .map(|(anomalies, shallow)| ImageFeatures { anomalies, shallow })
        .collect()
}

/// The largest difference of an anomaly, and that of a feature in units of the largest feature.
fn gaps(found: &[ImageFeatures], expected: &[ImageFeatures]) -> [f32; 2] {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .flat_map(|image| &image.shallow)
        .fold(0f32, |most, value| most.max(value.abs()));
    let gap = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        let gaps = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        // Not `max`, which loses what is not a number.
        gaps.fold(0f32, |most, gap| if gap <= most { most } else { gap })
    };
    let mut worst = [0f32; 2];
    for (found, expected) in found.iter().zip(expected) {
        worst[0] = worst[0].max(gap(&found.anomalies, &expected.anomalies));
        worst[1] = worst[1].max(gap(&found.shallow, &expected.shallow) / largest);
    }
    worst
}

fn weights(
    tensors: &HashMap<String, Tensor>,
    config: &MvmcadConfig,
) -> impl Fn(&str) -> Result<Vec<f32>> {
    move |name| {
        let tensor = match name {
            "encoder.position" => resize_table(&tensors[name], &config.encoder)?,
            _ => tensors[name].clone(),
        };
        tensor.flatten_all()?.to_vec1()
    }
}

/// The largest gaps of a kind of packed network over all architectures.
fn worst_gaps<A: Arithmetic>() -> [f32; 2] {
    let mut worst = [0f32; 2];
    for (seed, config) in architectures().into_iter().enumerate() {
        let tensors = lively_weights(&config, seed as u64);
        let images = random_images(3, 28, seed as u64);
        let expected = composed(&config, &tensors, &images);
        let values = images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
        let network = packed::<A>(&config, &weights(&tensors, &config)).unwrap();
        let mut room = Room::default();
        let found = network.run(&values, &VIEWS, &mut room);
        // Once more, on buffers that hold what was.
        assert_eq!(network.run(&values, &VIEWS, &mut room), found);
        let gaps = gaps(&found, &expected);
        worst = [0, 1].map(|index| worst[index].max(gaps[index]));
        assert!(worst.iter().all(|gap| gap.is_finite()), "{config:?}");
    }
    worst
}

#[test]
fn in_single_precision_it_is_the_composed_network_on_every_processor() {
    let mut kinds = vec![("scalar", worst_gaps::<Single<Scalar>>())];
    #[cfg(target_arch = "x86_64")]
    {
        use super::super::kernels::lanes::{Avx2, Avx512};
        if Avx2::is_available() {
            kinds.push(("AVX2", worst_gaps::<Single<Avx2>>()));
        }
        if Avx512::is_available() {
            kinds.push(("AVX-512", worst_gaps::<Single<Avx512>>()));
        }
    }
    #[cfg(target_arch = "aarch64")]
    kinds.push((
        "NEON",
        worst_gaps::<Single<super::super::kernels::lanes::Neon>>(),
    ));
    for (kind, gaps) in kinds {
        assert!(gaps.iter().all(|gap| *gap < 2e-5), "{kind}: {gaps:?}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn in_half_precision_it_is_near_the_composed_network() {
    use super::super::kernels::arithmetic::Brain;
    if !Brain::is_available() {
        let config = tiny_config(PriorMode::Off, Amplification::After);
        let tensors = lively_weights(&config, 1);
        let error = PackedNetwork::of_tensors(&config, &tensors, ComputePrecision::Bf16, 1);
        assert!(error.unwrap_err().to_string().contains("AVX512-BF16"));
        return;
    }
    let gaps = worst_gaps::<Brain>();
    assert!(
        gaps.iter().all(|gap| *gap > 1e-5 && *gap < 0.05),
        "{gaps:?}"
    );
}

#[test]
fn a_missing_tensor_is_named() {
    let config = tiny_config(PriorMode::Off, Amplification::After);
    let mut tensors = lively_weights(&config, 1);
    tensors.remove("decoder.1.fc2.bias");
    let error = PackedNetwork::of_tensors(&config, &tensors, ComputePrecision::F32, 1);
    let error = error.unwrap_err().to_string();
    let expected = "tensor `decoder.1.fc2.bias` is missing";
    assert!(error.starts_with(expected), "{error}");
}
