mod resuming;

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::images::Alteration;
use super::units::shards;
use super::*;
use crate::domain::MapFootprint;
use crate::model::memory::Memory;
use crate::model::mvmcad::{AmplificationScope, Mvmcad, PriorMode};
use crate::model::vit::{PositionInterpolation, VitConfig};
use crate::model::{InputImage, Mode};
use crate::training::checkpoint;
use crate::training::formula::draw;
use crate::training::recipe::EncoderPrecision;
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
    recipe.maps.subtract_expected = false;
    recipe.loss.ramp = iterations;
    recipe.run.iterations = iterations;
    recipe.run.batch = 6;
    recipe.run.seed = 3;
    recipe.optimiser.warm_up = 4.min(iterations - 1);
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
            subject: None,
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

/// Remembers what it is told, and judges weights if asked to.
#[derive(Default)]
struct Watcher {
    rows: Vec<HistoryRow>,
    /// Part AUROCs to answer with, the last first.
    answers: Vec<f64>,
    judged: Vec<Tensors>,
}

impl Observer for Watcher {
    fn row(&mut self, row: &HistoryRow) {
        self.rows.push(*row);
    }

    fn judges(&self) -> bool {
        !self.answers.is_empty() || !self.judged.is_empty()
    }

    fn judge(&mut self, tensors: Tensors) -> std::result::Result<LabelledFigures, String> {
        let tensors = tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.copy().unwrap()));
        self.judged.push(tensors.collect());
        Ok(LabelledFigures {
            part_auroc: self.answers.pop(),
            ..LabelledFigures::default()
        })
    }
}

fn run(
    settings: &ReconstructionSettings,
    observer: &mut dyn Observer,
) -> std::result::Result<Trained, TrainingError> {
    reconstruct(
        settings,
        &encoder(settings),
        &parts(),
        &Device::Cpu,
        observer,
    )
}

fn train(settings: &ReconstructionSettings) -> (Tensors, Vec<f64>) {
    let trained = run(settings, &mut ()).unwrap();
    let losses = trained.history.rows.iter().map(|row| row.loss).collect();
    (trained.tensors, losses)
}

/// Runs until iteration `stop`, then goes on from the checkpoint in `folder`.
fn train_with_a_stop(
    settings: &ReconstructionSettings,
    folder: &std::path::Path,
    stop: u64,
) -> Trained {
    let mut settings = settings.clone();
    settings.checkpoint.file = Some(folder.join("run.safetensors"));
    settings.checkpoint.stop_after = Some(stop);
    let stopped = run(&settings, &mut ()).unwrap_err();
    let expected = format!("stopped after iteration `{stop}` of ");
    assert!(stopped.to_string().starts_with(&expected), "{stopped}");
    settings.checkpoint.stop_after = None;
    settings.checkpoint.resume = true;
    run(&settings, &mut ()).unwrap()
}

fn bits(tensors: &Tensors) -> BTreeMap<&str, Vec<u32>> {
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
fn the_expected_maps_are_the_anomalies_of_good_parts() {
    let mut settings = settings(PriorMode::Off, 6);
    let (without, _) = train(&settings);
    settings.recipe.maps.subtract_expected = true;
    let (with, _) = train(&settings);
    assert_eq!(with.len(), without.len() + 6, "two classes of three views");
    let weights = candle_nn::VarBuilder::from_tensors(with.clone(), DType::F32, &Device::Cpu);
    let network = Mvmcad::new(&settings.architecture, weights.pp("encoder"), weights).unwrap();
    // Of the class `gear` there are a part of three views and one of a single view.
    let images = images();
    let anomalies = |chosen: &[usize]| -> Vec<f32> {
        let chosen: Vec<&InputImage> = chosen.iter().map(|&index| &images[index]).collect();
        let images = super::images::stack(&chosen, SIDE, &Device::Cpu).unwrap();
        let maps = network.patch_anomalies(&images, &[chosen.len()]).unwrap();
        maps.mean(0)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    let views = [&[3, 9][..], &[4], &[5]].map(anomalies);
    let mean = views.iter().flatten().sum::<f32>() / 48.0;
    for (view, (count, anomalies)) in [2.0, 1.0, 1.0].into_iter().zip(&views).enumerate() {
        let expected = &with[&format!("expected.gear/{view}")];
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (expected, anomaly) in expected.iter().zip(anomalies) {
            let wanted = (anomaly - mean) * count / (count + 1.0);
            assert!((expected - wanted).abs() < 1e-5, "{expected} {wanted}");
        }
    }
}

#[test]
fn a_memory_knows_the_good_parts_and_keeps_the_level_of_their_maps() {
    let mut settings = settings(PriorMode::Off, 6);
    settings.recipe.maps.memory_prototypes = 4;
    settings.recipe.maps.memory_weight = 3.0;
    let (tensors, _) = train(&settings);
    // Two parts of the class `gear` have a first view, one of them has more: a prototype stands for
    // two images at least.
    assert_eq!(tensors["memory.gear/0"].dims(), [16, 1, 32]);
    assert!(!tensors.contains_key("memory.gear/1"));
    let weights = candle_nn::VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
    let network = Mvmcad::new(&settings.architecture, weights.pp("encoder"), weights).unwrap();
    let memory = Memory::of(&tensors).unwrap();
    let images = super::images::stack(&images(), SIDE, &Device::Cpu).unwrap();
    let features = network
        .forward_groups(&images, &[10], Mode::Inference)
        .unwrap();
    let rebuilt = features.anomalies().unwrap().to_vec2::<f32>().unwrap();
    let shallow = features.encoder[0].flatten_from(1).unwrap();
    let shallow = shallow.to_vec2::<f32>().unwrap();
    let blended = |image: usize, features: usize| -> Vec<f32> {
        let subject = parts().subject(image);
        let mut anomalies = rebuilt[image].clone();
        memory.blend(Some(&subject), &mut anomalies, &shallow[features]);
        anomalies
    };
    let sum = |values: &[f32]| values.iter().sum::<f32>();
    let before = sum(&rebuilt[3]) + sum(&rebuilt[9]);
    let after = sum(&blended(3, 3)) + sum(&blended(9, 9));
    assert!((after - before).abs() < 1e-3 * before, "{after} {before}");
    // The features of another part are farther from what is remembered of this one.
    assert!(sum(&blended(3, 0)) > sum(&blended(3, 3)));
    assert_eq!(blended(4, 0), rebuilt[4]);
}

/// Where the child of the next test keeps its checkpoint.
const KILLED_RUN: &str = "PANOPTES_TEST_KILLED_RUN";

#[test]
fn good_parts_held_out_are_not_trained_on_and_tell_the_distance() {
    let mut settings = settings(PriorMode::Off, 50);
    settings.recipe.loss.ramp = 10_000;
    settings.recipe.validation.every = 20;
    settings.recipe.validation.share = 0.5;
    let (trained, held) = divide(&settings, &parts(), false).unwrap();
    // Two parts a class: one of each is held out.
    let parts_of = |units: &[Unit]| units.iter().map(|unit| unit.part).collect::<Vec<_>>();
    let (mut trained, held) = (parts_of(&trained), parts_of(&held));
    trained.dedup();
    assert_eq!(trained.len(), 2);
    assert!(!held.is_empty() && held.iter().all(|part| !trained.contains(part)));
    let mut watcher = Watcher::default();
    let history = run(&settings, &mut watcher).unwrap().history;
    assert_eq!(history.rows, watcher.rows);
    let iterations: Vec<u64> = history.rows.iter().map(|row| row.iteration).collect();
    assert_eq!(iterations, [20, 25, 40, 50]);
    let distances: Vec<Option<f64>> = history
        .rows
        .iter()
        .map(|row| row.validation.and_then(|validation| validation.distance))
        .collect();
    let [Some(first), None, Some(_), Some(last)] = distances[..] else {
        panic!("expected a validation at 20, 40 and the end, found {distances:?}");
    };
    assert!(0.0 < last && last < first, "{first} to {last}");
    assert_eq!(
        history.rows[0].learning_rate,
        settings.recipe.schedule().rate(19)
    );
}

#[test]
fn a_validation_without_parts_is_refused() {
    let mut settings = settings(PriorMode::Off, 8);
    settings.recipe.validation.every = 2;
    let error = run(&settings, &mut ()).unwrap_err().to_string();
    assert!(error.contains("`validation.share` `0.05`"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_names_iteration_rate_and_parts() {
    let settings = settings(PriorMode::Off, 9);
    let mut images = images();
    images[9].values[0] = f32::NAN;
    let parts = TrainingImages::given([
        ("bolt".to_owned(), images[..9].to_vec()),
        ("gear".to_owned(), images[9..].to_vec()),
    ]);
    let result = reconstruct(
        &settings,
        &encoder(&settings),
        &parts,
        &Device::Cpu,
        &mut (),
    );
    let error = result.unwrap_err().to_string();
    let start = "the loss became `NaN` at iteration `";
    assert!(
        error.starts_with(start) && error.contains("with learning rate `0"),
        "{error}"
    );
    assert!(
        error.contains(", on the parts ") && error.contains("`gear/1`"),
        "{error}"
    );
}

#[test]
fn half_precision_is_refused_on_the_cpu() {
    for (precision, name) in [
        (EncoderPrecision::Bf16, "bf16"),
        (EncoderPrecision::F16, "f16"),
    ] {
        let mut settings = settings(PriorMode::Off, 1);
        settings.recipe.run.precision = precision;
        let error = run(&settings, &mut ()).unwrap_err().to_string();
        let expected = format!("setting `run.precision` must be `f32` on the CPU, found `{name}`");
        assert_eq!(error, expected);
    }
}

#[test]
fn only_as_many_images_are_altered_as_asked() {
    let images = parts();
    let chosen: Vec<usize> = (0..images.len()).collect();
    let changed = |share: f64| {
        let alteration = Alteration {
            share,
            side: SIDE,
            donors: &chosen,
        };
        let rng = |item| ChaCha8Rng::seed_from_u64(item);
        let altered = alteration.apply(&images, &chosen, rng).unwrap()?;
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
    // Six images are nearest to two of the four parts of ten images.
    assert_eq!(units_a_batch(6, 2.5), 2);
    assert_eq!(units_a_batch(7, 2.5), 3);
    assert_eq!(units_a_batch(1, 5.0), 1);
    let units = units(parts().parts(), true);
    let views: Vec<usize> = units.iter().map(|unit| unit.images.len()).collect();
    assert_eq!(views, [3, 3, 3, 1]);
    let cut = shards(&units, settings.shard_limit());
    let views: Vec<&[usize]> = cut.iter().map(|shard| shard.views.as_slice()).collect();
    assert_eq!(views, [&[3][..], &[3], &[3, 1]]);
    let (whole, losses) = train(&settings);
    assert!(losses[0].is_finite());
    let resumed = train_with_a_stop(&settings, folder.path(), 4).tensors;
    assert_eq!(bits(&whole), bits(&resumed));
}

#[test]
fn the_number_of_threads_does_not_change_the_result() {
    let mut settings = settings(PriorMode::Off, 4);
    let two = train(&settings).0;
    settings.threads = 1;
    assert_eq!(bits(&two), bits(&train(&settings).0));
}

#[test]
fn a_single_image_can_be_trained_on() {
    for prior in [PriorMode::Off, PriorMode::Calibrated] {
        let mut settings = settings(prior, 3);
        settings.architecture.whitening = true;
        let one = TrainingImages::given([("bolt".to_owned(), images()[..1].to_vec())]);
        let trained = reconstruct(&settings, &encoder(&settings), &one, &Device::Cpu, &mut ());
        let Trained {
            tensors, history, ..
        } = trained.unwrap();
        assert!(history.rows[0].loss.is_finite());
        settings.architecture.tensors().check(&tensors).unwrap();
    }
}
