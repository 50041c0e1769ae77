use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::domain::MapFootprint;
use crate::model::mvmcad::{AmplificationScope, PriorMode};
use crate::model::vit::{PositionInterpolation, VitConfig};
use crate::training::formula::draw;
use crate::training::sampling::Sampling;

const SIDE: usize = 32;

fn architecture(prior: PriorMode) -> MvmcadConfig {
    MvmcadConfig {
        prior,
        decoder_depth: 2,
        ..MvmcadConfig::new(VitConfig {
            input_side: SIDE,
            patch: 8,
            width: 32,
            depth: 2,
            heads: 2,
            registers: 0,
            layer_scale: false,
            position_side: SIDE / 8,
            position_interpolation: PositionInterpolation::default(),
            targets: vec![0, 1],
        })
    }
}

fn settings(prior: PriorMode, iterations: u64) -> ReconstructionSettings {
    let mut recipe = Recipe::default();
    recipe.loss.ramp = iterations;
    recipe.run.iterations = iterations;
    recipe.run.batch = 6;
    recipe.run.seed = 3;
    recipe.optimiser.warm_up = 4;
    ReconstructionSettings {
        architecture: architecture(prior),
        recipe,
        threads: 2,
        cache_bytes: u64::MAX,
        checkpoint: CheckpointSettings::default(),
    }
}

fn encoder(settings: &ReconstructionSettings) -> Encoder {
    let config = settings.architecture.encoder.clone();
    let tensors = config.tensors().initial_values(5, &Device::Cpu).unwrap();
    Encoder { config, tensors }
}

fn images() -> Vec<InputImage> {
    (0..10)
        .map(|seed| InputImage {
            values: draw(&mut ChaCha8Rng::seed_from_u64(seed), SIDE).values,
            footprint: MapFootprint {
                x: 0.0,
                y: 0.0,
                width: 32.0,
                height: 32.0,
            },
        })
        .collect()
}

/// Parts of three views, the last of one.
fn parts() -> TrainingImages {
    let images = images();
    let parts = images.chunks(3).enumerate();
    TrainingImages::given(
        parts.map(|(index, images)| (["bolt", "gear"][index % 2].to_owned(), images.to_vec())),
    )
}

fn train(settings: &ReconstructionSettings) -> (HashMap<String, Tensor>, Vec<f64>) {
    let mut losses = Vec::new();
    let tensors = reconstruct(
        settings,
        &encoder(settings),
        &parts(),
        &Device::Cpu,
        |_, means| {
            losses.push(means[0]);
        },
    );
    (tensors.unwrap(), losses)
}

fn bits(tensors: &HashMap<String, Tensor>) -> BTreeMap<&str, Vec<u32>> {
    let values = |tensor: &Tensor| {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), values(tensor)))
        .collect()
}

#[test]
fn the_loss_falls() {
    let mut settings = settings(PriorMode::Off, 150);
    settings.recipe.loss.ramp = 10_000;
    let (_, losses) = train(&settings);
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.5 * first, "{losses:?}");
}

#[test]
fn features_that_do_not_fit_into_memory_are_computed_anew() {
    let mut settings = settings(PriorMode::Off, 50);
    let (_, kept) = train(&settings);
    settings.cache_bytes = settings.feature_bytes(images().len()) - 1;
    let (_, anew) = train(&settings);
    for (kept, anew) in kept.iter().zip(&anew) {
        assert!((kept - anew).abs() < 1e-3 * kept, "{kept} {anew}");
    }
}

#[test]
fn every_trained_tensor_moves_and_the_encoder_does_not() {
    let settings = settings(PriorMode::Calibrated, 6);
    let (tensors, _) = train(&settings);
    settings.architecture.tensors().check(&tensors).unwrap();
    let start = settings
        .architecture
        .trainable_tensors()
        .initial_values(3, &Device::Cpu)
        .unwrap();
    for (name, before) in bits(&start) {
        assert_ne!(bits(&tensors)[name], before, "`{name}` was not trained");
    }
    let encoder = encoder(&settings);
    for (name, before) in bits(&encoder.tensors) {
        assert_eq!(bits(&tensors)[format!("encoder.{name}").as_str()], before);
    }
}

#[test]
fn a_resumed_run_ends_with_the_same_weights() {
    for prior in [PriorMode::Off, PriorMode::Calibrated] {
        let folder = tempfile::tempdir().unwrap();
        let whole = train(&settings(prior, 9)).0;
        let mut settings = settings(prior, 9);
        settings.checkpoint.file = Some(folder.path().join("run.safetensors"));
        settings.checkpoint.stop_after = Some(4);
        train(&settings);
        settings.checkpoint.stop_after = None;
        settings.checkpoint.resume = true;
        let resumed = train(&settings).0;
        assert_eq!(bits(&whole), bits(&resumed), "{prior:?}");
    }
}

#[test]
fn a_run_on_whitened_features_repeats_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    for prior in [PriorMode::Off, PriorMode::Calibrated] {
        let mut settings = settings(prior, 9);
        settings.architecture.whitening = true;
        settings.recipe.data.altered_share = if prior == PriorMode::Off { 0.7 } else { 0.0 };
        let (whole, _) = train(&settings);
        settings.architecture.tensors().check(&whole).unwrap();
        settings.checkpoint.file = Some(folder.path().join(format!("{prior:?}.safetensors")));
        settings.checkpoint.stop_after = Some(4);
        train(&settings);
        settings.checkpoint.stop_after = None;
        settings.checkpoint.resume = true;
        assert_eq!(bits(&whole), bits(&train(&settings).0), "{prior:?}");
    }
}

#[test]
fn only_as_many_images_are_altered_as_asked() {
    let images = parts();
    let chosen: Vec<usize> = (0..images.len()).collect();
    let changed = |share: f64| {
        let mut settings = settings(PriorMode::Off, 1);
        settings.recipe.data.altered_share = share;
        let rng = |item| ChaCha8Rng::seed_from_u64(item);
        let altered = altered_images(&settings, &images, &chosen, rng).unwrap()?;
        let moved = |&index: &usize| {
            let before = images.image(index).unwrap();
            let mut pairs = before.values.iter().zip(&altered[index].values);
            pairs.any(|(a, b)| (a - b).abs() > 0.1)
        };
        Some(chosen.iter().copied().filter(|index| moved(index)).count())
    };
    assert_eq!(changed(0.0), None);
    assert!((1..10).contains(&changed(0.4).unwrap()));
    assert!(changed(1.0).unwrap() >= 8);
}

#[test]
fn a_run_that_mixes_views_draws_whole_parts_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(PriorMode::Off, 9);
    settings.architecture.amplification_scope = AmplificationScope::Part;
    settings.recipe.data.sampling = Sampling::ClassBalanced;
    let units = units(parts().parts(), true);
    let views: Vec<usize> = units.iter().map(|unit| unit.images.len()).collect();
    assert_eq!(views, [3, 3, 3, 1]);
    let chosen: Vec<&Unit> = units.iter().collect();
    let cut = shards(&chosen, settings.shard_limit());
    let views: Vec<&[usize]> = cut.iter().map(|shard| shard.views.as_slice()).collect();
    assert_eq!(views, [&[3][..], &[3], &[3, 1]]);
    let (whole, losses) = train(&settings);
    assert!(losses[0].is_finite());
    settings.checkpoint.file = Some(folder.path().join("run.safetensors"));
    settings.checkpoint.stop_after = Some(4);
    train(&settings);
    settings.checkpoint.stop_after = None;
    settings.checkpoint.resume = true;
    assert_eq!(bits(&whole), bits(&train(&settings).0));
}

#[test]
fn the_number_of_threads_does_not_change_the_result() {
    let mut settings = settings(PriorMode::Off, 4);
    let two = train(&settings).0;
    settings.threads = 1;
    assert_eq!(bits(&two), bits(&train(&settings).0));
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(PriorMode::Off, 4);
    settings.checkpoint.file = Some(folder.path().join("run.safetensors"));
    train(&settings);
    settings.checkpoint.resume = true;
    settings.recipe.optimiser.learning_rate = 1e-3;
    let encoder = encoder(&settings);
    let result = reconstruct(&settings, &encoder, &parts(), &Device::Cpu, |_, _| {});
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("rate: 0.001,") && error.contains("rate: 0.002,"),
        "{error}"
    );
}

#[test]
fn a_single_image_can_be_trained_on() {
    for prior in [PriorMode::Off, PriorMode::Calibrated] {
        let mut settings = settings(prior, 3);
        settings.architecture.whitening = true;
        let one = TrainingImages::given([("bolt".to_owned(), images()[..1].to_vec())]);
        let encoder = encoder(&settings);
        let tensors = reconstruct(&settings, &encoder, &one, &Device::Cpu, |_, means| {
            assert!(means[0].is_finite());
        });
        settings
            .architecture
            .tensors()
            .check(&tensors.unwrap())
            .unwrap();
    }
}
