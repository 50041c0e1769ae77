use clap::Parser;
use image::{ImageBuffer, Luma, Rgb};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::cli::calibrate::{self, CalibrateArguments};
use crate::evaluation::measurement::testing::part;
use crate::model::bundle::{Guarantee, Precision, read_manifest};
use crate::model::mvmcad::{Amplification, PriorMode};
use crate::model::testing::{lively_weights, tiny_config, tiny_manifest};

#[derive(Parser)]
struct EvalLine {
    #[command(flatten)]
    arguments: EvalArguments,
}

#[derive(Parser)]
struct CalibrateLine {
    #[command(flatten)]
    arguments: CalibrateArguments,
}

/// A bundle in `model`, three good and two bad parts of two classes in `images` and `masks`, the
/// kinds of defect in `truth.csv`.
fn labelled_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let config = tiny_config(PriorMode::Off, Amplification::After);
    let (weights, manifest) = (lively_weights(&config, 1), tiny_manifest(config));
    Bundle::save(
        &folder.path().join("model"),
        &manifest,
        &weights,
        Precision::Single,
    )
    .unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut truth = String::from("class,part,defect\n");
    for (class, kinds) in [("nut", ["dent", "crack"]), ("bolt", ["crack", "scratch"])] {
        for (part, kind) in [
            ("a", ""),
            ("b", kinds[0]),
            ("c", ""),
            ("d", kinds[1]),
            ("e", ""),
        ] {
            truth.push_str(&format!("{class},{part},{kind}\n"));
            for view in ["top", "left"] {
                let place = format!("{class}/{part}/{view}.png");
                let image = ImageBuffer::from_fn(32, 32, |_, _| Rgb(random.random::<[u8; 3]>()));
                save(&folder.path().join("images").join(&place), &image);
                if !kind.is_empty() && view == "top" {
                    let level = |x: u32, y: u32| Luma([u8::from(x > 9 && y > 20)]);
                    let mask = ImageBuffer::from_fn(32, 32, level);
                    save(&folder.path().join("masks").join(&place), &mask);
                }
            }
        }
    }
    std::fs::write(folder.path().join("truth.csv"), truth).unwrap();
    folder
}

fn save<P>(path: &Path, image: &ImageBuffer<P, Vec<u8>>)
where
    P: image::PixelWithColorType<Subpixel = u8>,
{
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// A command line whose `DIR` is the folder.
fn parse<T: Parser>(folder: &TempDir, line: &str) -> T {
    let line = line.replace("DIR", folder.path().to_str().unwrap());
    T::parse_from(std::iter::once("panoptes").chain(line.split(' ')))
}

fn evaluate(folder: &TempDir) -> Value {
    let line = "--model DIR/model --data DIR/images --masks DIR/masks --device cpu \
                --kinds DIR/truth.csv --maps DIR/maps --scores DIR/scores.csv --table DIR/out.json";
    run(&parse::<EvalLine>(folder, line).arguments).unwrap();
    let written = std::fs::read(folder.path().join("out.json")).unwrap();
    serde_json::from_slice(&written).unwrap()
}

#[test]
fn a_labelled_folder_becomes_figures_scores_and_maps() {
    let folder = labelled_folder();
    let report = evaluate(&folder);
    assert_eq!(report["mean"]["parts"], 10);
    for class in ["bolt", "nut"] {
        let figures = &report["classes"][class];
        assert_eq!((&figures["parts"], &figures["bad"]), (&5.into(), &2.into()));
        for level in ["image", "pixel", "sample", "pooled_sample"] {
            assert!(figures[level]["auroc"].is_f64(), "{class} {level}");
        }
        let maps = folder.path().join(format!("maps/{class}/c.safetensors"));
        let maps = std::fs::read(maps).unwrap();
        let maps = safetensors::SafeTensors::deserialize(&maps).unwrap();
        assert_eq!(maps.tensor("left").unwrap().shape(), [20, 20]);
    }
    // Equal part names of the classes have other kinds.
    for (kind, parts, bad) in [("dent", 4, 1), ("crack", 8, 2), ("scratch", 4, 1)] {
        let figures = &report["kinds"][kind];
        assert_eq!(
            (&figures["parts"], &figures["bad"]),
            (&parts.into(), &bad.into()),
            "{kind}"
        );
    }
    let scores = std::fs::read_to_string(folder.path().join("scores.csv")).unwrap();
    assert_eq!(scores.lines().count(), 1 + 20);
    assert_eq!(scores.matches(",top,").count(), 10);
    assert_eq!(
        scores.lines().filter(|line| line.ends_with(",1")).count(),
        4
    );
}

#[test]
fn thresholds_decide_as_they_were_calibrated() {
    let folder = labelled_folder();
    let line = "--model DIR/model --data DIR/images --masks DIR/masks --device cpu";
    let calibrated = |rule: &str| {
        let line = parse::<CalibrateLine>(&folder, &format!("{line} {rule}"));
        calibrate::run(&line.arguments).unwrap();
        let classes = read_manifest(&folder.path().join("model")).unwrap().classes;
        (
            classes["bolt"].calibration.unwrap(),
            evaluate(&folder)["decisions"]["bolt"].clone(),
        )
    };
    let (calibration, decided) = calibrated("--false-alarm-rate 0.25");
    assert_eq!(calibration.guarantee, Guarantee::Conformal);
    assert_eq!((calibration.good_parts, calibration.bad_parts), (3, 2));
    assert_eq!(
        (&decided["good"], &decided["false_alarms"]),
        (&3.into(), &0.into())
    );
    let (calibration, decided) = calibrated("--miss-rate 0.34");
    assert_eq!(calibration.guarantee, Guarantee::Conformal);
    assert_eq!(
        (&decided["bad"], &decided["missed"]),
        (&2.into(), &0.into())
    );
    let (calibration, decided) = calibrated("--false-alarm-rate 0.01");
    assert_eq!(calibration.guarantee, Guarantee::None);
    assert_eq!(decided["false_alarms"], 0);
}

#[test]
fn a_miss_rate_without_bad_parts_changes_nothing() {
    let folder = labelled_folder();
    let before = read_manifest(&folder.path().join("model")).unwrap();
    let line = "--model DIR/model --data DIR/images --device cpu --miss-rate 0.1";
    let line = parse::<CalibrateLine>(&folder, line);
    let error = calibrate::run(&line.arguments).unwrap_err().to_string();
    let images = folder.path().join("images").display().to_string();
    assert_eq!(
        error,
        format!("expected bad parts in `{images}`, found none")
    );
    assert_eq!(read_manifest(&folder.path().join("model")).unwrap(), before);
}

#[test]
fn places_to_write_to_are_made_or_refused_before_anything_is_measured() {
    let folder = labelled_folder();
    std::fs::write(folder.path().join("plain"), "x").unwrap();
    let line = "--model DIR/model --data DIR/images --masks DIR/masks --device cpu";
    let run = |more: &str| run(&parse::<EvalLine>(&folder, &format!("{line} {more}")).arguments);
    run("--table DIR/out/x.md --scores DIR/out/scores/x.csv").unwrap();
    assert!(folder.path().join("out/x.md").is_file());
    assert!(folder.path().join("out/scores/x.csv").is_file());
    // Told before the images are read, which would be refused, too.
    std::fs::remove_dir_all(folder.path().join("images")).unwrap();
    for more in [
        "--table DIR/model",
        "--scores DIR/plain/x.csv",
        "--maps DIR/plain",
    ] {
        let error = run(more).unwrap_err().to_string();
        assert!(error.starts_with("cannot "), "{error}");
        assert!(!error.contains("cannot use the data"), "{error}");
    }
}

#[test]
fn a_file_name_says_how_the_table_is_written() {
    let of = |name: &str| TableFormat::of(Path::new(name));
    assert_eq!(of("out/figures.md"), Some(TableFormat::Markdown));
    assert_eq!(of("figures.json"), Some(TableFormat::Json));
    assert_eq!(of("figures.txt"), Some(TableFormat::Text));
    assert_eq!(of("figures"), None);
}

#[test]
fn names_with_commas_and_quotes_stay_whole_in_the_scores() {
    let mut part = part("nut, \"M4\"", 0.25, true).scores();
    part.part = "line\nbreak".to_owned();
    let text = scores(&[part]).unwrap();
    let mut table = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    let expected = ["nut, \"M4\"", "line\nbreak", "top", "0.25", "1"];
    assert_eq!(rows, [expected.to_vec()]);
}
