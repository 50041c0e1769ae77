use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use tempfile::TempDir;

use super::*;
use crate::model::mvmcad::{Amplification, PriorMode};
use crate::model::testing::{lively_weights, tiny_config, tiny_manifest};

fn saved() -> (TempDir, Manifest, HashMap<String, Tensor>) {
    let config = tiny_config(PriorMode::Calibrated, Amplification::After);
    let tensors = lively_weights(&config, 1);
    let folder = TempDir::new().unwrap();
    let manifest = tiny_manifest(config);
    let manifest = Bundle::save(folder.path(), &manifest, &tensors, Precision::Single).unwrap();
    (folder, manifest, tensors)
}

fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

fn error(folder: &TempDir) -> String {
    let error = Bundle::load(folder.path()).unwrap_err().to_string();
    error.replace(&folder.path().display().to_string(), "DIR")
}

/// Weights of other tensors under a hash that fits them.
fn save_unchecked(folder: &Path, tensors: &HashMap<String, Tensor>) {
    let path = folder.join(WEIGHTS_FILE);
    let old = sha256(&fs::read(&path).unwrap());
    candle_core::safetensors::save(tensors, &path).unwrap();
    edit(folder, &old, &sha256(&fs::read(&path).unwrap()));
}

#[test]
fn a_saved_bundle_is_loaded_as_it_was() {
    let (folder, manifest, tensors) = saved();
    let bundle = Bundle::load(folder.path()).unwrap();
    assert_eq!(bundle.manifest, manifest);
    assert_eq!(bundle.manifest.classes["bolt"].pixel_threshold, 0.5);
    for (name, tensor) in &tensors {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(tensor), values(&bundle.tensors[name]), "{name}");
    }
}

#[test]
fn expected_maps_of_any_classes_are_kept_if_they_have_the_grid_of_the_patches() {
    let (folder, manifest, mut tensors) = saved();
    let map = Tensor::full(0.5f32, (4, 4), &Device::Cpu).unwrap();
    tensors.insert("expected.bolt/top".to_owned(), map);
    Bundle::save(folder.path(), &manifest, &tensors, Precision::Half).unwrap();
    assert_eq!(Bundle::load(folder.path()).unwrap().expected_maps(), 1);
    let wrong = Tensor::full(0.5f32, (4, 5), &Device::Cpu).unwrap();
    tensors.insert("expected.bolt/top".to_owned(), wrong);
    let error = Bundle::save(folder.path(), &manifest, &tensors, Precision::Half).unwrap_err();
    let expected = "tensor `expected.bolt/top`: expected shape [4, 4], found [4, 5]";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_memory_is_kept_in_bytes_and_refused_in_any_other_form() {
    let (folder, manifest, mut tensors) = saved();
    let values: Vec<f32> = (0..16 * 3 * 16).map(|i| (i as f32).sin() * 0.9).collect();
    let prototypes = Tensor::from_vec(values, (16, 3, 16), &Device::Cpu).unwrap();
    let mix = Tensor::new(&[0.5f32, 0.25], &Device::Cpu).unwrap();
    tensors.insert("memory.bolt/top".to_owned(), prototypes.clone());
    tensors.insert("memory_mix.bolt/top".to_owned(), mix);
    let saved = Bundle::save(folder.path(), &manifest, &tensors, Precision::Half).unwrap();
    let bundle = Bundle::load(folder.path()).unwrap();
    assert_eq!(bundle.memories(), 1);
    let found = &bundle.tensors["memory.bolt/top"];
    let error = (found - prototypes).unwrap().abs().unwrap().max_all();
    assert!(error.unwrap().to_scalar::<f32>().unwrap() <= 0.5 / 127.0 + 1e-6);
    let stored =
        candle_core::safetensors::load(folder.path().join(&saved.weights.file), &Device::Cpu)
            .unwrap();
    assert_eq!(stored["memory.bolt/top"].dtype(), DType::U8);

    let wrong = Tensor::zeros((9, 3, 16), DType::F32, &Device::Cpu).unwrap();
    tensors.insert("memory.bolt/top".to_owned(), wrong);
    let error = Bundle::save(folder.path(), &manifest, &tensors, Precision::Half).unwrap_err();
    let expected = "tensor `memory.bolt/top`: expected shape [16, 3, 16], found [9, 3, 16]";
    assert!(error.to_string().contains(expected), "{error}");

    let mut floats = stored;
    let as_floats = floats["memory.bolt/top"].to_dtype(DType::F32).unwrap();
    floats.insert("memory.bolt/top".to_owned(), as_floats);
    let path = folder.path().join(&saved.weights.file);
    let old = sha256(&fs::read(&path).unwrap());
    candle_core::safetensors::save(&floats, &path).unwrap();
    edit(folder.path(), &old, &sha256(&fs::read(&path).unwrap()));
    let error = Bundle::load(folder.path()).unwrap_err().to_string();
    let expected = "tensor `memory.bolt/top`: expected u8, found f32";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn half_precision_halves_the_file_and_is_loaded_in_single() {
    let (folder, manifest, tensors) = saved();
    let single = fs::metadata(folder.path().join(WEIGHTS_FILE))
        .unwrap()
        .len();
    let halved = Bundle::save(folder.path(), &manifest, &tensors, Precision::Half).unwrap();
    let half = fs::metadata(folder.path().join(halved.weights.file))
        .unwrap()
        .len();
    assert!(half < single * 2 / 3, "{half} of {single} bytes");
    let bundle = Bundle::load(folder.path()).unwrap();
    assert!(
        bundle
            .tensors
            .values()
            .all(|tensor| tensor.dtype() == DType::F32)
    );
}

#[test]
fn saving_twice_gives_the_same_bytes() {
    let (folder, manifest, tensors) = saved();
    let first = fs::read(folder.path().join(WEIGHTS_FILE)).unwrap();
    let again = Bundle::save(folder.path(), &manifest, &tensors, Precision::Single).unwrap();
    assert_eq!(fs::read(folder.path().join(WEIGHTS_FILE)).unwrap(), first);
    assert_eq!(again, manifest);
}

#[test]
fn weights_in_use_stay_until_the_description_names_others() {
    let (folder, manifest, tensors) = saved();
    let other = lively_weights(&manifest.architecture, 2);
    // The description cannot be replaced: a folder stands where it is written first.
    let blocked = folder.path().join("model.toml.unfinished");
    fs::create_dir(&blocked).unwrap();
    Bundle::save(folder.path(), &manifest, &other, Precision::Single).unwrap_err();
    assert_eq!(Bundle::load(folder.path()).unwrap().manifest, manifest);
    fs::remove_dir(&blocked).unwrap();
    let replaced = Bundle::save(folder.path(), &manifest, &other, Precision::Single).unwrap();
    assert_eq!(Bundle::load(folder.path()).unwrap().manifest, replaced);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    // And back under the usual name.
    let again = Bundle::save(folder.path(), &replaced, &tensors, Precision::Single).unwrap();
    assert_eq!(again, manifest);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn weights_of_a_description_that_cannot_be_read_stay() {
    let (folder, manifest, _) = saved();
    let other = lively_weights(&manifest.architecture, 2);
    edit(folder.path(), "format = 1", "format = 2");
    let blocked = folder.path().join("model.toml.unfinished");
    fs::create_dir(&blocked).unwrap();
    Bundle::save(folder.path(), &manifest, &other, Precision::Single).unwrap_err();
    edit(folder.path(), "format = 2", "format = 1");
    assert_eq!(Bundle::load(folder.path()).unwrap().manifest, manifest);
    edit(folder.path(), "format = 1", "format = 2");
    fs::remove_dir(&blocked).unwrap();
    let replaced = Bundle::save(folder.path(), &manifest, &other, Precision::Single).unwrap();
    assert_ne!(replaced.weights.file, manifest.weights.file);
    assert_eq!(Bundle::load(folder.path()).unwrap().manifest, replaced);
}

#[test]
fn one_changed_byte_of_the_weights_is_found() {
    let (folder, manifest, _) = saved();
    let path = folder.path().join(WEIGHTS_FILE);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = error(&folder);
    let expected = format!(
        "bundle file `DIR/model.safetensors`: expected sha256 `{}`",
        manifest.weights.sha256
    );
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let (folder, ..) = saved();
    fs::remove_file(folder.path().join(WEIGHTS_FILE)).unwrap();
    assert!(error(&folder).starts_with("bundle file `DIR/model.safetensors`: "));
    fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
    assert!(error(&folder).starts_with("bundle file `DIR/model.toml`: "));
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named() {
    let (folder, _, tensors) = saved();
    let mut changed = tensors.clone();
    changed.remove("decoder.1.fc2.bias");
    save_unchecked(folder.path(), &changed);
    assert_eq!(
        error(&folder),
        "bundle file `DIR/model.safetensors`: tensor `decoder.1.fc2.bias` is missing: expected shape [16]"
    );
    let mut changed = tensors.clone();
    changed.insert(
        "decoder.9.what".to_owned(),
        Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap(),
    );
    save_unchecked(folder.path(), &changed);
    assert_eq!(
        error(&folder),
        "bundle file `DIR/model.safetensors`: tensor `decoder.9.what` of shape [3] has no place in this architecture"
    );
    let mut changed = tensors;
    changed.insert(
        "encoder.class".to_owned(),
        Tensor::zeros((1, 16), DType::F32, &Device::Cpu).unwrap(),
    );
    save_unchecked(folder.path(), &changed);
    assert_eq!(
        error(&folder),
        "bundle file `DIR/model.safetensors`: tensor `encoder.class`: expected shape [1, 1, 16], found [1, 16]"
    );
}

#[test]
fn values_that_are_no_numbers_are_refused() {
    let (folder, _, mut tensors) = saved();
    let mut values = vec![0f32; 16];
    values[3] = f32::NAN;
    tensors.insert(
        "decoder.0.norm1.bias".to_owned(),
        Tensor::new(values, &Device::Cpu).unwrap(),
    );
    save_unchecked(folder.path(), &tensors);
    assert!(error(&folder).contains("tensor `decoder.0.norm1.bias`: expected finite values"));
    let manifest = read_manifest(folder.path()).unwrap();
    assert!(Bundle::save(folder.path(), &manifest, &tensors, Precision::Half).is_err());
}

#[test]
fn faults_of_the_description_name_their_key() {
    for (from, to, expected) in [
        (
            "format = 1",
            "format = 2",
            "`format`: expected `1`, found `2`",
        ),
        (
            "map_side = 20",
            "map_side = 0",
            "`map_side` must be 1 to 2048, found `0`",
        ),
        (
            "map_side = 20",
            "map_side = 20\nmap_sied = 3",
            "unknown field `map_sied`",
        ),
        (
            "name = \"tiny\"",
            "name = \" \"",
            "`name` must not be empty",
        ),
        (
            "heads = 2",
            "heads = 3",
            "architecture: encoder: `width` must be a multiple of `heads` `3`, found `16`",
        ),
        (
            "decoder_depth = 2",
            "decoder_depth = 3",
            "`decoder_depth` must be even and 2 to 256, found `3`",
        ),
        (
            "depth = 4",
            "depth = 4000000000",
            "architecture: encoder: `depth` must be 1 to 256, found `4000000000`",
        ),
        (
            "resize = 32",
            "resize = 27",
            "`resize` must be at least `input_side` `28`, found `27`",
        ),
        (
            "threshold = 0.25",
            "threshold = nan",
            "classes.bolt: thresholds must be finite",
        ),
        (
            "file = \"model.safetensors\"",
            "file = \"../model.safetensors\"",
            "`weights.file` must be a file name",
        ),
    ] {
        let (folder, ..) = saved();
        edit(folder.path(), from, to);
        let error = error(&folder);
        assert!(
            error.starts_with("bundle file `DIR/model.toml`: "),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_threshold_rests_on_is_kept_and_old_bundles_need_not_say() {
    let (folder, mut manifest, _) = saved();
    let text = fs::read_to_string(folder.path().join(MANIFEST_FILE)).unwrap();
    assert!(!text.contains("calibration"), "{text}");
    assert_eq!(read_manifest(folder.path()).unwrap(), manifest);
    let bolt = manifest.classes.get_mut("bolt").unwrap();
    bolt.calibration = Some(Calibration {
        rule: RuleName::MissRate,
        rate: Some(0.05),
        quantile: None,
        margin: Some(0.1),
        good_parts: 40,
        bad_parts: 7,
        guarantee: Guarantee::None,
    });
    save_manifest(folder.path(), &manifest).unwrap();
    assert_eq!(read_manifest(folder.path()).unwrap(), manifest);
    edit(folder.path(), "bad_parts = 7", "bad_parts = 7\nparts = 1");
    assert!(error(&folder).contains("unknown field `parts`"));
}

#[test]
fn a_guarantee_needs_a_rate_that_can_be() {
    let (folder, mut manifest, _) = saved();
    let calibration = Calibration {
        rule: RuleName::FalseAlarmRate,
        rate: Some(1.5),
        quantile: None,
        margin: None,
        good_parts: 40,
        bad_parts: 0,
        guarantee: Guarantee::Conformal,
    };
    for (rate, expected) in [
        (
            Some(1.5),
            "classes.bolt: `calibration.rate` must lie between 0 and 1, found `1.5`",
        ),
        (
            Some(f64::NAN),
            "classes.bolt: `calibration.rate` must lie between 0 and 1, found `NaN`",
        ),
        (
            None,
            "classes.bolt: `calibration.guarantee`: a guarantee needs a `rate`",
        ),
    ] {
        let bolt = manifest.classes.get_mut("bolt").unwrap();
        bolt.calibration = Some(Calibration {
            rate,
            ..calibration
        });
        assert_eq!(manifest.validate().unwrap_err(), expected);
        assert!(save_manifest(folder.path(), &manifest).is_err());
    }
}
