use clap::Parser;
use image::{DynamicImage, Rgb, RgbImage};

use super::*;
use crate::cli::{Cli, Command};
use crate::model::testing::tiny_encoder;
use crate::training::Device;
use crate::training::encoder_file::save_encoder;

/// Six parts of two classes with two views each; the last part has a mark. All gears have masks: that
/// of the last shows the mark, the others show nothing.
fn write_data(root: &Path) {
    for number in 0..6u8 {
        let class = ["bolt", "gear"][usize::from(number) % 2];
        for view in ["left", "top"] {
            let name = format!("{class}/p{number}/{view}.png");
            let image = RgbImage::from_fn(40, 36, |x, y| {
                let has_mark = number == 5 && (10..20).contains(&x) && (10..20).contains(&y);
                let level = if has_mark {
                    250
                } else {
                    40 + 3 * (x % 20) as u8 + number
                };
                Rgb([level, 90, 2 * y as u8])
            });
            save(&root.join("images").join(&name), &image.into());
            if class == "gear" {
                let mask = image::GrayImage::from_fn(40, 36, |x, y| {
                    let is_marked = (10..20).contains(&x) && (10..20).contains(&y);
                    image::Luma([if number == 5 && is_marked { 255 } else { 0 }])
                });
                save(&root.join("masks").join(&name), &mask.into());
            }
        }
    }
    let encoder = tiny_encoder(0);
    let tensors = encoder.tensors().initial_values(1, &Device::Cpu).unwrap();
    save_encoder(
        &root.join("encoder.safetensors"),
        &encoder,
        &tensors.into_iter().collect(),
    )
    .unwrap();
}

fn save(path: &Path, image: &DynamicImage) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

fn arguments(root: &Path, more: &[&str]) -> TrainArguments {
    let path = |name: &str| root.join(name).display().to_string();
    let (data, masks, encoder) = (path("images"), path("masks"), path("encoder.safetensors"));
    let output = path("bundle");
    let mut words = vec!["panoptes", "train", "--data", &data, "--encoder", &encoder];
    words.extend(["--output", &output, "--masks", &masks, "--device", "cpu"]);
    for change in [
        "run.iterations=30",
        "optimiser.warm_up=5",
        "run.batch=4",
        "network.decoder_depth=2",
    ] {
        words.extend(["--set", change]);
    }
    words.extend(more);
    match Cli::parse_from(words).command {
        Command::Train(arguments) => arguments,
        other => panic!("expected `train`, found {other:?}"),
    }
}

/// Tests leave the signals of their process alone.
fn unwatched(_: StopRequest) -> anyhow::Result<()> {
    Ok(())
}

fn read(root: &Path, name: &str) -> String {
    std::fs::read_to_string(root.join("bundle").join(name)).unwrap()
}

#[test]
fn a_training_leaves_bundle_history_curve_and_maps_and_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_data(root);
    let path = |name: &str| root.join(name).display().to_string();
    let (images, masks) = (path("images"), path("masks"));
    let more = [
        "--validation",
        &images,
        "--validation-masks",
        &masks,
        "--set",
        "validation.every=10",
        "--set",
        "validation.share=0.4",
    ];
    // Of an earlier training on other parts.
    let old = root.join("bundle/training/maps/nut/p9/top.png");
    save(&old, &RgbImage::new(2, 2).into());
    train(&arguments(root, &more), unwatched).unwrap();
    assert!(!old.exists());
    Bundle::load(&root.join("bundle")).unwrap();
    let history = History::from_csv(&read(root, "training/history.csv")).unwrap();
    let iterations: Vec<u64> = history.rows.iter().map(|row| row.iteration).collect();
    assert_eq!(iterations, [10, 20, 25, 30]);
    let validation = history.rows[3].validation.unwrap();
    assert!(validation.distance.is_some());
    // Only gears have a bad part.
    assert!(validation.labelled.part_auroc.is_some() && validation.labelled.aupro.is_some());
    assert!(read(root, "training/loss.svg").contains("part AUROC"));
    for view in ["bolt/p0/left", "gear/p1/top", "gear/p5/top"] {
        let map = root.join(format!("bundle/training/maps/{view}.png"));
        assert_eq!(image::image_dimensions(map).unwrap(), (56, 28));
    }
    assert!(!root.join("bundle/training/checkpoint.safetensors").exists());
}

#[test]
fn an_unfinished_run_is_gone_on_with_and_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_data(root);
    let checkpoint = root.join("state/run.safetensors").display().to_string();
    let with = |more: &[&str]| arguments(root, &[&["--checkpoint", &checkpoint], more].concat());
    let error = |arguments: &TrainArguments| {
        let error = train(arguments, unwatched).unwrap_err();
        format!("{error:#}")
    };
    let missing = error(&with(&["--resume"]));
    assert!(
        missing.contains(&checkpoint) && missing.contains("no checkpoint"),
        "{missing}"
    );
    // A folder where the bundle's weights go: all is done but they cannot be kept.
    let blocked = root.join("bundle/model.safetensors");
    std::fs::create_dir_all(blocked.join("x")).unwrap();
    let full = error(&with(&[]));
    assert!(full.starts_with("cannot keep the bundle: "), "{full}");
    let again = error(&with(&[]));
    assert!(
        again.contains("`--resume`") && again.contains(&checkpoint),
        "{again}"
    );
    std::fs::remove_dir_all(&blocked).unwrap();
    train(&with(&["--resume"]), unwatched).unwrap();
    assert_eq!(
        History::from_csv(&read(root, "training/history.csv"))
            .unwrap()
            .rows
            .len(),
        2
    );
    assert!(!Path::new(&checkpoint).exists());
}

#[test]
fn labelled_parts_that_nothing_would_look_at_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_data(root);
    let masks = root.join("masks").display().to_string();
    let images = root.join("images").display().to_string();
    let more = ["--validation", &images, "--validation-masks", &masks];
    let error = train(&arguments(root, &more), unwatched).unwrap_err();
    assert!(error.to_string().contains("`validation.every`"), "{error}");
}

#[test]
fn settings_at_fault_are_told_before_an_image_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_data(root);
    std::fs::write(root.join("images/bolt/p0/left.png"), "no image").unwrap();
    let masks = root.join("masks").display().to_string();
    let images = root.join("images").display().to_string();
    let error = |more: &[&str]| {
        let error = train(&arguments(root, more), unwatched).unwrap_err();
        format!("{error:#}")
    };
    let validation = ["--validation", &images, "--validation-masks", &masks];
    for more in [&[][..], &validation] {
        for (words, key) in [
            (["--set", "optimiser.beta1=2"], "`optimiser.beta1`"),
            (["--set", "run.precision=f16"], "`run.precision`"),
            (["--threads", "0"], "`threads`"),
        ] {
            let words = [more, &["--set", "validation.every=10"], &words].concat();
            let error = error(&words);
            assert!(error.contains(key), "{error}");
        }
    }
    let missing = error(&["--resume"]);
    assert!(missing.contains("no checkpoint"), "{missing}");
    let plain = root.join("encoder.safetensors/run").display().to_string();
    let unwritable = error(&["--checkpoint", &plain]);
    assert!(
        unwritable.starts_with("cannot make the folder"),
        "{unwritable}"
    );
    assert!(error(&[]).contains("left.png"));
}

#[test]
fn a_run_is_not_gone_on_with_by_other_labelled_parts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_data(root);
    let masks = root.join("masks").display().to_string();
    let images = root.join("images").display().to_string();
    let validates = [
        "--set",
        "validation.every=10",
        "--set",
        "validation.share=0.4",
    ];
    // A folder where the bundle's weights go: all is done but they cannot be kept.
    std::fs::create_dir_all(root.join("bundle/model.safetensors/x")).unwrap();
    train(&arguments(root, &validates), unwatched).unwrap_err();
    let labelled = [
        "--validation",
        &images,
        "--validation-masks",
        &masks,
        "--resume",
    ];
    let words = [&validates[..], &labelled].concat();
    let error = train(&arguments(root, &words), unwatched).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("`labelled parts`: expected `6 with digest"),
        "{error}"
    );
    assert!(error.ends_with("found `none`"), "{error}");
}
