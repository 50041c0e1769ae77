//! The frozen encoder in half precision, held against itself in f32.
//!
//! candle multiplies `f16` matrices on the CPU, though slowly, and no `bf16` ones; so the way that
//! CUDA takes for both is checked here with `f16`.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::{EncoderGroups, Mvmcad, MvmcadConfig};
use crate::model::layers::Mode;
use crate::model::mvmcad::{Amplification, PriorMode};
use crate::model::testing::{lively_weights, tiny_config, tiny_encoder};

/// Largest error of a feature, in units of the features' root mean square: ten bits of a
/// mantissa, lost a few times over in four blocks.
const TOLERANCE: f32 = 0.02;

/// A network with an encoder of this precision over variables for all else.
fn network(
    config: &MvmcadConfig,
    weights: &HashMap<String, Tensor>,
    precision: DType,
) -> (Mvmcad, candle_nn::VarMap) {
    let mut encoder = HashMap::new();
    let mut trainable = HashMap::new();
    for (name, tensor) in weights {
        match name.strip_prefix("encoder.") {
            Some(name) => drop(encoder.insert(name.to_owned(), tensor.clone())),
            None => drop(trainable.insert(name.clone(), tensor.clone())),
        }
    }
    let variables = crate::model::tensors::variables(&trainable).unwrap();
    let network = Mvmcad::new(
        config,
        VarBuilder::from_tensors(encoder, precision, &Device::Cpu),
        VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu),
    );
    (network.unwrap(), variables)
}

fn images() -> Tensor {
    let values: Vec<f32> = (0..2 * 3 * 28 * 28)
        .map(|index| ((index * 37 % 101) as f32 / 50.0 - 1.0).sin() * 2.0)
        .collect();
    Tensor::from_vec(values, (2, 3, 28, 28), &Device::Cpu).unwrap()
}

fn assert_close(half: &EncoderGroups, single: &EncoderGroups) {
    for (half, single) in [(&half.shallow, &single.shallow), (&half.deep, &single.deep)] {
        assert_eq!(half.dtype(), DType::F32);
        let error = || -> Result<(f32, f32)> {
            let worst = (half - single)?.abs()?.flatten_all()?.max(0)?.to_scalar()?;
            Ok((worst, single.sqr()?.mean_all()?.sqrt()?.to_scalar()?))
        };
        let (worst, usual) = error().unwrap();
        assert!(worst < TOLERANCE * usual, "{worst} of {usual}");
    }
}

#[test]
fn features_in_half_precision_are_those_in_single_within_tolerance() {
    for registers in [0, 4] {
        let config = MvmcadConfig {
            encoder: tiny_encoder(registers),
            ..tiny_config(PriorMode::Off, Amplification::After)
        };
        let weights = lively_weights(&config, 1);
        let encode = |precision| {
            let (network, _) = network(&config, &weights, precision);
            network.encode(&images(), Mode::Inference).unwrap()
        };
        assert_close(&encode(DType::F16), &encode(DType::F32));
    }
}

#[test]
fn gradients_reach_the_prior_through_an_encoder_in_half_precision() {
    let config = tiny_config(PriorMode::Calibrated, Amplification::After);
    let weights = lively_weights(&config, 1);
    let gradient = |precision| {
        let (network, variables) = network(&config, &weights, precision);
        let features = network
            .forward_groups(&images(), &[1, 1], Mode::Train)
            .unwrap();
        let [first, second] = features.distances().unwrap();
        let loss = (first + second).unwrap().mean_all().unwrap();
        let store = loss.backward().unwrap();
        let variables = variables.data().lock().unwrap();
        let gradient = store.get(&variables["prior.gamma"]).unwrap();
        gradient.to_vec1::<f32>().unwrap()
    };
    let (half, single) = (gradient(DType::F16), gradient(DType::F32));
    let largest = single
        .iter()
        .fold(0f32, |most, value| most.max(value.abs()));
    assert!(largest > 0.0);
    for (half, single) in half.iter().zip(&single) {
        assert!((half - single).abs() < 0.1 * largest, "{half} {single}");
    }
}
