//! Gradients of the whole network held against finite differences, for every trained tensor of every
//! form that the network takes.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use super::super::Mode;
use super::super::testing::{lively_weights, network, random_images, tiny_config};
use super::super::vit::Vit;
use super::{
    Amplification, AmplificationAttention, AmplificationScope, AmplificationSoftmax,
    AmplificationStrength, GroupFeatures, Mvmcad, MvmcadConfig, PriorMode, Target,
};
use crate::training::objective::Objective;

/// Below this a gradient is nothing but rounding: key biases shift all scores of a query alike.
const SMALLEST_GRADIENT: f64 = 1e-4;
/// Length of the longer step to either side.
const STEP: f64 = 4e-3;

/// What is differentiated: the sum of this over all values of its tensor.
type Summand<'a> = dyn Fn(&Mvmcad) -> Tensor + 'a;

/// Names of the tensors that are no weights: statistics, which no gradient may reach.
fn is_statistic(name: &str) -> bool {
    name.starts_with("whitening.") || name.starts_with("prior.running_")
}

fn images() -> Tensor {
    random_images(3, 28, 4)
}

/// A part of two views and one of one.
fn features(network: &Mvmcad) -> GroupFeatures {
    network
        .forward_groups(&images(), &[2, 1], Mode::Train)
        .unwrap()
}

/// The distances of all patches. The prior moves the targets too, but they are cut off from the
/// gradient; so here they are held.
fn assert_gradients(config: &MvmcadConfig) {
    let tensors = lively_weights(config, 3);
    let targets = features(&network(config, &tensors).0).encoder;
    let distances = |network: &Mvmcad| {
        let features = GroupFeatures {
            encoder: targets.clone(),
            ..features(network)
        };
        Tensor::cat(&features.distances().unwrap(), 0).unwrap()
    };
    assert_gradients_of(config, &tensors, &distances, &distances);
}

/// Compares the gradient of each trained tensor, taken of `differentiated`, with the change of
/// `measured` along that gradient, and along a fixed direction that has nothing to do with it.
#[track_caller]
fn assert_gradients_of(
    config: &MvmcadConfig,
    tensors: &HashMap<String, Tensor>,
    differentiated: &Summand<'_>,
    measured: &Summand<'_>,
) {
    let (network_now, variables) = network(config, tensors);
    let gradients = differentiated(&network_now)
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let measure = |tensors: &HashMap<String, Tensor>| total(&measured(&network(config, tensors).0));
    let variables = variables.data().lock().unwrap();
    for (name, variable) in variables.iter() {
        if is_statistic(name) {
            let is_trained = gradients.get(variable).is_some();
            assert!(!is_trained, "`{name}` must not be trained");
            continue;
        }
        let gradient = gradients
            .get(variable)
            .unwrap_or_else(|| panic!("`{name}` has no gradient"));
        for direction in [gradient.clone(), alternating(gradient)] {
            let length = total(&direction.sqr().unwrap()).sqrt();
            if length < SMALLEST_GRADIENT {
                continue;
            }
            let direction = (direction / length).unwrap();
            let expected = total(&(gradient * &direction).unwrap());
            let moved = |step: f64| {
                let mut tensors = tensors.clone();
                let moved = (variable.as_tensor().detach() + (&direction * step).unwrap()).unwrap();
                tensors.insert(name.clone(), moved);
                measure(&tensors)
            };
            let slope = |step: f64| (moved(step) - moved(-step)) / (2. * step);
            // Two steps together cancel the curvature's first part.
            let found = (4. * slope(STEP / 2.) - slope(STEP)) / 3.;
            let tolerance = 3e-3 + 0.02 * expected.abs();
            assert!(
                (expected - found).abs() < tolerance,
                "`{name}`: gradient {expected}, difference {found} of {config:?}"
            );
        }
    }
}

fn alternating(like: &Tensor) -> Tensor {
    let values: Vec<f32> = (0..like.elem_count())
        .map(|index| if index % 3 == 0 { 1. } else { -0.5 })
        .collect();
    Tensor::from_vec(values, like.dims(), &Device::Cpu).unwrap()
}

/// The sum, in f64 on the host to keep the differences sharp.
fn total(tensor: &Tensor) -> f64 {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f64::from).sum()
}

#[test]
fn every_trained_tensor_has_the_right_gradient_wherever_amplification_stands() {
    for place in [
        Amplification::Off,
        Amplification::After,
        Amplification::Replace,
    ] {
        assert_gradients(&tiny_config(PriorMode::Off, place));
    }
}

#[test]
fn every_trained_tensor_has_the_right_gradient_in_every_form_of_amplification() {
    let form = |place, change: fn(&mut MvmcadConfig)| {
        let mut config = tiny_config(PriorMode::Off, place);
        change(&mut config);
        assert_gradients(&config);
    };
    let after = Amplification::After;
    form(after, |config| {
        config.amplification_softmax = AmplificationSoftmax::Tokens;
    });
    form(after, |config| {
        config.amplification_attention = AmplificationAttention::Linear;
    });
    form(after, |config| {
        config.amplification_scope = AmplificationScope::Part;
    });
    form(after, |config| {
        config.amplification_strength = AmplificationStrength::Adaptive;
    });
    form(Amplification::Replace, |config| {
        config.amplification_softmax = AmplificationSoftmax::Tokens;
        config.amplification_scope = AmplificationScope::Part;
        config.amplification_strength = AmplificationStrength::Adaptive;
    });
}

#[test]
fn every_trained_tensor_has_the_right_gradient_for_every_target() {
    for whitening in [false, true] {
        for target in [Target::Plain, Target::Recentred] {
            assert_gradients(&MvmcadConfig {
                whitening,
                target,
                ..tiny_config(PriorMode::Off, Amplification::After)
            });
        }
    }
}

#[test]
fn every_trained_tensor_has_the_right_gradient_behind_either_prior() {
    for prior in [PriorMode::Literal, PriorMode::Calibrated] {
        assert_gradients(&tiny_config(prior, Amplification::Off));
        assert_gradients(&MvmcadConfig {
            amplification_scope: AmplificationScope::Part,
            amplification_strength: AmplificationStrength::Adaptive,
            target: Target::Recentred,
            whitening: true,
            ..tiny_config(prior, Amplification::After)
        });
    }
}

/// Most losses scale gradients without a change of their value, so their own differences are no
/// measure. What they do to the decoder's features is held against others' code
/// (`integration-tests/parity`); from there on the chain rule is.
#[track_caller]
fn assert_gradients_under(objective: Objective) {
    let config = tiny_config(PriorMode::Calibrated, Amplification::After);
    let tensors = lively_weights(&config, 5);
    let left_aside = 0.5;
    let now = features(&network(&config, &tensors).0);
    let leaves = now
        .decoder
        .clone()
        .map(|features| Var::from_tensor(&features).unwrap());
    let at_leaves = GroupFeatures {
        encoder: now.encoder.clone(),
        decoder: [0, 1].map(|group| leaves[group].as_tensor().clone()),
    };
    let store = objective.loss(&at_leaves, left_aside).unwrap();
    let store = store.backward().unwrap();
    let pull = leaves.map(|leaf| store.get(&leaf).unwrap().detach());
    let loss = |network: &Mvmcad| objective.loss(&features(network), left_aside).unwrap();
    let pulled = |network: &Mvmcad| {
        let decoder = features(network).decoder;
        let group = |group: usize| (&decoder[group] * &pull[group]).unwrap();
        Tensor::cat(&[group(0), group(1)], 0).unwrap()
    };
    assert_gradients_of(&config, &tensors, &loss, &pulled);
}

#[test]
fn every_trained_tensor_has_the_right_gradient_under_every_loss() {
    for easy_share in [0., 0.1, 1.] {
        assert_gradients_under(Objective::Focal { easy_share });
    }
    assert_gradients_under(Objective::Dinomaly);
    assert_gradients_under(Objective::SoftMining);
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
