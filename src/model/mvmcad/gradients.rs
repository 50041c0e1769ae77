//! Gradients of the whole network held against finite differences, tensor by tensor.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::super::Mode;
use super::super::testing::{lively_weights, network, random_images, tiny_config};
use super::super::vit::Vit;
use super::{
    Amplification, AmplificationScope, AmplificationSoftmax, AmplificationStrength, Mvmcad,
    MvmcadConfig, PriorMode, Target,
};

/// Sum of all distances, in f64 on the host to keep the differences sharp.
fn loss_value(config: &MvmcadConfig, tensors: &HashMap<String, Tensor>, images: &Tensor) -> f64 {
    let (network, _) = network(config, tensors);
    let distances = features_distances(&network, images);
    distances
        .iter()
        .flat_map(|distance| distance.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .map(f64::from)
        .sum()
}

fn features_distances(network: &Mvmcad, images: &Tensor) -> [Tensor; 2] {
    network
        .forward_groups(images, &[2], Mode::Train)
        .unwrap()
        .distances()
        .unwrap()
}

/// Compares each trained tensor's gradient with the change of the loss along that gradient, and
/// along a fixed direction that has nothing to do with it.
#[track_caller]
fn assert_gradients(amplification: Amplification) {
    assert_gradients_of(&tiny_config(PriorMode::Off, amplification));
}

#[track_caller]
fn assert_gradients_of(config: &MvmcadConfig) {
    let tensors = lively_weights(config, 3);
    let images = random_images(2, 28, 4);
    let (network, variables) = network(config, &tensors);
    let [first, second] = features_distances(&network, &images);
    let loss = (first.sum_all().unwrap() + second.sum_all().unwrap()).unwrap();
    let gradients = loss.backward().unwrap();
    let variables = variables.data().lock().unwrap();
    for (name, variable) in variables.iter() {
        let gradient = gradients
            .get(variable)
            .unwrap_or_else(|| panic!("`{name}` has no gradient"));
        let alternating: Vec<f32> = (0..gradient.elem_count())
            .map(|index| if index % 3 == 0 { 1. } else { -0.5 })
            .collect();
        let alternating = Tensor::from_vec(alternating, gradient.dims(), &Device::Cpu).unwrap();
        for direction in [gradient.clone(), alternating] {
            let length = scalar(&direction.sqr().unwrap()).sqrt();
            // Key biases shift all scores of a query alike: their gradient is nothing but rounding.
            if length < 1e-4 {
                continue;
            }
            let direction = (direction / length).unwrap();
            let expected = scalar(&(gradient * &direction).unwrap());
            let step = 4e-3;
            let moved = |step: f64| {
                let mut tensors = tensors.clone();
                let moved = (variable.as_tensor().detach() + (&direction * step).unwrap()).unwrap();
                tensors.insert(name.clone(), moved);
                loss_value(config, &tensors, &images)
            };
            let found = (moved(step) - moved(-step)) / (2. * step);
            let tolerance = 3e-3 + 0.02 * expected.abs();
            assert!(
                (expected - found).abs() < tolerance,
                "`{name}`: gradient {expected}, difference {found}"
            );
        }
    }
}

fn scalar(tensor: &Tensor) -> f64 {
    f64::from(tensor.sum_all().unwrap().to_scalar::<f32>().unwrap())
}

#[test]
fn every_trained_tensor_has_the_right_gradient_without_amplification() {
    assert_gradients(Amplification::Off);
}

#[test]
fn every_trained_tensor_has_the_right_gradient_with_amplification() {
    assert_gradients(Amplification::After);
}

#[test]
fn every_trained_tensor_has_the_right_gradient_with_amplification_in_place_of_the_bottleneck() {
    assert_gradients(Amplification::Replace);
}

#[test]
fn every_trained_tensor_has_the_right_gradient_in_every_form_of_amplification() {
    let form = |change: fn(&mut MvmcadConfig)| {
        let mut config = tiny_config(PriorMode::Off, Amplification::After);
        change(&mut config);
        assert_gradients_of(&config);
    };
    form(|config| config.amplification_softmax = AmplificationSoftmax::Tokens);
    form(|config| config.amplification_scope = AmplificationScope::Part);
    form(|config| config.amplification_strength = AmplificationStrength::Adaptive);
    form(|config| config.target = Target::Recentred);
}

/// The targets are detached, so the loss cannot be differenced through the encoder as it stands;
/// here they are held fixed and only the reconstruction follows the prior.
#[track_caller]
fn assert_prior_gradients(prior: PriorMode) {
    let config = tiny_config(prior, Amplification::Off);
    let tensors = lively_weights(&config, 5);
    let images = random_images(2, 28, 6);
    let (network_now, variables) = network(&config, &tensors);
    let features = network_now
        .forward_groups(&images, &[2], Mode::Train)
        .unwrap();
    let targets = features.encoder.clone();
    let [first, second] = features.distances().unwrap();
    let loss = (first.sum_all().unwrap() + second.sum_all().unwrap()).unwrap();
    let gradients = loss.backward().unwrap();
    let loss_at = |tensors: &HashMap<String, Tensor>| {
        let (network, _) = network(&config, tensors);
        let mut features = network.forward_groups(&images, &[2], Mode::Train).unwrap();
        features.encoder = targets.clone();
        let [first, second] = features.distances().unwrap();
        let values = Tensor::cat(&[first, second], 0)
            .unwrap()
            .flatten_all()
            .unwrap();
        values
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .sum::<f64>()
    };
    let variables = variables.data().lock().unwrap();
    let mut checked = 0;
    for (name, variable) in variables.iter() {
        if name.contains(".running_") {
            let is_trained = gradients.get(variable).is_some();
            assert!(!is_trained, "`{name}` must not be trained");
        }
        if !name.starts_with("prior.") || name.contains(".running_") {
            continue;
        }
        let gradient = gradients
            .get(variable)
            .unwrap_or_else(|| panic!("`{name}` has no gradient"));
        let gradient = gradient.to_vec1::<f32>().unwrap();
        let values = variable.to_vec1::<f32>().unwrap();
        for index in 0..values.len() {
            let moved = |step: f32| {
                let mut values = values.clone();
                values[index] += step;
                let mut tensors = tensors.clone();
                tensors.insert(name.clone(), Tensor::new(values, &Device::Cpu).unwrap());
                loss_at(&tensors)
            };
            let (found, expected) = (
                (moved(4e-3) - moved(-4e-3)) / 8e-3,
                f64::from(gradient[index]),
            );
            let tolerance = 3e-3 + 0.03 * expected.abs();
            assert!(
                (expected - found).abs() < tolerance,
                "`{name}`[{index}]: gradient {expected}, difference {found}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, if prior == PriorMode::Literal { 3 } else { 8 });
}

#[test]
fn the_calibrated_prior_has_the_right_gradient_through_the_frozen_encoder() {
    assert_prior_gradients(PriorMode::Calibrated);
}

#[test]
fn the_literal_prior_has_the_right_gradient_through_the_frozen_encoder() {
    assert_prior_gradients(PriorMode::Literal);
}

#[test]
fn targets_carry_no_gradient() {
    let config = tiny_config(PriorMode::Calibrated, Amplification::After);
    let (network, _) = network(&config, &lively_weights(&config, 7));
    let features = network
        .forward_groups(&random_images(1, 28, 8), &[1], Mode::Train)
        .unwrap();
    assert!(features.encoder.iter().all(|target| !target.track_op()));
    assert!(features.decoder.iter().all(Tensor::track_op));
}

#[test]
fn training_and_inference_agree_but_for_dropout() {
    let mut config = tiny_config(PriorMode::Off, Amplification::After);
    let tensors = lively_weights(&config, 9);
    let images = random_images(2, 28, 10);
    let run = |config: &MvmcadConfig, mode| {
        let (network, _) = network(config, &tensors);
        network.reseed_dropout(1);
        let [first, second] = network
            .forward_groups(&images, &[2], mode)
            .unwrap()
            .distances()
            .unwrap();
        (first + second)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    let inference = run(&config, Mode::Inference);
    let training = run(&config, Mode::Train);
    for (inference, training) in inference.iter().zip(&training) {
        assert!((inference - training).abs() < 1e-4);
    }
    config.bottleneck_dropout = 0.4;
    assert_eq!(run(&config, Mode::Inference), inference);
    let noisy = run(&config, Mode::Train);
    assert_ne!(noisy, training);
    assert_eq!(
        run(&config, Mode::Train),
        noisy,
        "the same seed gives the same masks"
    );
}

#[test]
fn the_encoder_can_be_trained() {
    let config = tiny_config(PriorMode::Off, Amplification::Off);
    let variables = config
        .encoder
        .tensors()
        .initial_variables(11, &Device::Cpu)
        .unwrap();
    let weights =
        candle_nn::VarBuilder::from_varmap(&variables, candle_core::DType::F32, &Device::Cpu);
    let encoder = Vit::new(&config.encoder, weights).unwrap();
    let outputs = encoder
        .forward(&random_images(2, 28, 12), Mode::Train)
        .unwrap();
    let loss = outputs.last().unwrap().sqr().unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    for (name, variable) in variables.data().lock().unwrap().iter() {
        assert!(
            gradients.get(variable).is_some(),
            "`{name}` has no gradient"
        );
    }
}
