use candle_core::Device;

use super::*;
use crate::model::vit::PositionInterpolation;

const SIDE: usize = 16;
const PATCH: usize = 8;

fn settings(iterations: u64) -> PretrainingSettings {
    PretrainingSettings {
        encoder: VitConfig {
            input_side: SIDE,
            patch: PATCH,
            width: 32,
            depth: 2,
            heads: 2,
            registers: 0,
            layer_scale: false,
            position_side: SIDE / PATCH,
            position_interpolation: PositionInterpolation::default(),
            targets: vec![0, 1],
        },
        pretext: Pretext::Both,
        pixel_weight: 0.3,
        given_share: 1.0,
        iterations,
        batch: 6,
        learning_rate: 3e-3,
        warm_up: 4.min(iterations - 1),
        seed: 3,
        threads: 2,
        checkpoint: CheckpointSettings::default(),
    }
}

/// One picture whose patches are stripes of four directions: what is hidden follows from where.
fn picture() -> Canvas {
    let mut values = vec![0.0; 3 * SIDE * SIDE];
    for channel in values.chunks_exact_mut(SIDE * SIDE) {
        for (index, value) in channel.iter_mut().enumerate() {
            let (x, y) = (index % SIDE, index / SIDE);
            let along = match (x / PATCH, y / PATCH) {
                (0, 0) => x,
                (1, 0) => y,
                (0, _) => x + y,
                _ => x + PATCH - y % PATCH,
            };
            *value = if along % 4 < 2 { 0.2 } else { 0.8 };
        }
    }
    Canvas { side: SIDE, values }
}

fn run(settings: &PretrainingSettings) -> (EncoderTensors, Vec<Vec<f64>>) {
    let mut reports = Vec::new();
    let report = |_, means: &[f64]| reports.push(means.to_vec());
    let tensors = pretrain(settings, &[picture()], None, &Device::Cpu, report).unwrap();
    (tensors, reports)
}

#[test]
fn what_is_hidden_is_told_by_its_place() {
    let mut settings = settings(200);
    settings.pretext = Pretext::Hidden;
    let (_, reports) = run(&settings);
    // Without its place a hidden patch could only be painted as the mean of the four, which
    // leaves most of the error.
    let (first, last) = (reports[0][2], reports[reports.len() - 1][2]);
    assert!(last < 0.2 * first, "{first} to {last}");
}

#[test]
fn a_run_that_was_stopped_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, _) = run(&settings(6));
    let mut parts = settings(6);
    parts.checkpoint = CheckpointSettings {
        file: Some(folder.path().join("run.ckpt")),
        every: 2,
        stop_after: Some(4),
        ..CheckpointSettings::default()
    };
    let stopped = pretrain(&parts, &[picture()], None, &Device::Cpu, |_, _| {}).unwrap_err();
    assert!(
        stopped.to_string().contains("iteration `4` of `6`"),
        "{stopped}"
    );
    parts.checkpoint.resume = true;
    parts.checkpoint.stop_after = None;
    let (resumed, _) = run(&parts);
    for (name, tensor) in &whole {
        let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bits(tensor), bits(&resumed[name]), "{name}");
    }
    let mut other = picture();
    other.values[0] = 0.5;
    let error = pretrain(&parts, &[other], None, &Device::Cpu, |_, _| {}).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("`images`: expected `1 with digest"),
        "{error}"
    );
    assert!(!error.contains("`batch`"), "{error}");
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let refused = |change: &dyn Fn(&mut PretrainingSettings), expected: &str| {
        let mut settings = settings(6);
        change(&mut settings);
        let error = pretrain(&settings, &[], None, &Device::Cpu, |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), format!("setting {expected}"));
    };
    refused(
        &|settings| settings.given_share = 90.0,
        "`images_share` must lie between 0 and 1, found `90`",
    );
    refused(
        &|settings| settings.iterations = 0,
        "`iterations` must be at least 1, found `0`",
    );
    for (targets, found) in [(vec![1], 1), (vec![0, 1, 2], 3)] {
        refused(
            &|settings| {
                settings.encoder.depth = 3;
                settings.encoder.targets.clone_from(&targets);
            },
            &format!("`targets` must be an even number of blocks, found `{found}`"),
        );
    }
    for rate in [0.0, -1e-3, f64::NAN, f64::INFINITY] {
        refused(
            &|settings| settings.learning_rate = rate,
            &format!("`learning_rate` must be above 0 and finite, found `{rate}`"),
        );
    }
    for weight in [-0.1, f64::NAN, f64::INFINITY] {
        refused(
            &|settings| settings.pixel_weight = weight,
            &format!("`pixel_weight` must be at least 0 and finite, found `{weight}`"),
        );
    }
    refused(
        &|settings| settings.warm_up = 6,
        "`warm_up` must be below `iterations` `6`, found `6`",
    );
}

#[test]
fn pretraining_goes_on_from_an_encoder_at_another_side() {
    let (tensors, _) = run(&settings(60));
    let first = Encoder {
        config: VitConfig {
            input_side: 2 * SIDE,
            ..settings(1).encoder
        },
        tensors: tensors.into_iter().collect(),
    };
    let first = first.at_its_grid().unwrap();
    assert_eq!(first.config.position_side, 2 * SIDE / PATCH);
    let wider = PretrainingSettings {
        encoder: first.config.clone(),
        // 0 in f32: what comes out is what went in.
        learning_rate: f64::MIN_POSITIVE,
        ..settings(1)
    };
    let kept = pretrain(&wider, &[], Some(&first), &Device::Cpu, |_, _| {}).unwrap();
    for (name, tensor) in &first.tensors {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&kept[name]), values(tensor), "{name}");
    }

    let error = pretrain(&settings(1), &[], Some(&first), &Device::Cpu, |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("`init`"), "{error}");
}
