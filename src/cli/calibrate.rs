//! `panoptes calibrate`: sets a bundle's thresholds from parts that it was not trained on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::data::DataArguments;
use super::eval::Measurement;
use super::outputs;
use crate::evaluation::calibration::{
    CalibratedClass, CalibrationRule, ErrorCounts, calibrate, parts_needed,
};
use crate::evaluation::measurement::ScoredPart;
use crate::model::ComputePrecision;
use crate::model::bundle::{Bundle, Guarantee, Manifest, RuleName, save_manifest};
use crate::training::dataset::Split;

/// Fewer good parts of a class than this say little about how high a good part may score.
const FEW_PARTS: usize = 10;

/// Sets a model bundle's thresholds from good parts, or from labelled ones.
#[derive(Args, Clone, Debug)]
pub struct CalibrateArguments {
    /// The model bundle, changed in place
    #[arg(short, long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Parts, other ones than in training; those with a defect count as bad
    #[command(flatten)]
    pub data: DataArguments,
    /// `cpu`, `cuda:0`, or `auto`
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// What the model computes in: `f32`, or `bf16` on processors with AVX512-BF16; as it will be run
    #[arg(long, default_value_t)]
    pub precision: ComputePrecision,
    /// The share of good parts that may be called bad, between 0 and 1: guaranteed for parts like
    /// those given, if there are `1 / rate - 1` good ones of the class
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    #[arg(conflicts_with_all = ["miss_rate", "quantile"])]
    pub false_alarm_rate: Option<f64>,
    /// The share of bad parts that may be called good, between 0 and 1: guaranteed for parts like
    /// those given, if there are `1 / rate - 1` bad ones of the class
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    #[arg(conflicts_with = "quantile")]
    pub miss_rate: Option<f64>,
    /// Quantile of the good parts' scores, from 0 to 1: the rule where no rate is given
    #[arg(long, default_value_t = 0.99, value_parser = parse_quantile)]
    pub quantile: f64,
    /// Share of the distance from the median that is added to the quantile, or to the most extreme
    /// score where there are too few parts for a rate
    #[arg(long, default_value_t = 0.1, value_parser = parse_margin)]
    pub margin: f64,
    /// From now on decode JPEGs at a half, a quarter or an eighth of their size where that leaves the
    /// pixels that the model wants, or no longer; as it was if not given. Scores change a little, so
    /// every class of the bundle must have parts here
    #[arg(long, value_name = "BOOL")]
    pub scaled_jpeg: Option<bool>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    parse(
        text,
        |rate| rate > 0.0 && rate < 1.0,
        "a rate between 0 and 1",
    )
}

fn parse_quantile(text: &str) -> Result<f64, String> {
    parse(
        text,
        |quantile| (0.0..=1.0).contains(&quantile),
        "a number from 0 to 1",
    )
}

fn parse_margin(text: &str) -> Result<f64, String> {
    parse(
        text,
        |margin| margin.is_finite() && margin >= 0.0,
        "0 or more",
    )
}

fn parse(text: &str, is_kept: fn(f64) -> bool, rule: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|&number| is_kept(number));
    number.ok_or_else(|| format!("expected {rule}"))
}

/// Measures the parts and writes the thresholds into the bundle.
///
/// # Errors
/// When the bundle or the data cannot be used, no class has a part that the rule looks at, or the
/// device fails.
pub fn run(arguments: &CalibrateArguments) -> anyhow::Result<()> {
    let rule = rule(arguments);
    let mut bundle = Bundle::load(&arguments.model).context("cannot use the model bundle")?;
    let scaled_jpeg = &mut bundle.manifest.normalisation.scaled_jpeg;
    let was_scaled = *scaled_jpeg;
    *scaled_jpeg = arguments.scaled_jpeg.unwrap_or(was_scaled);
    let changes_pixels = *scaled_jpeg != was_scaled;
    outputs::check_folder(&arguments.model)?;
    let preprocessor = bundle.manifest.preprocessor().map_err(anyhow::Error::msg)?;
    let listed = arguments
        .data
        .checked_parts(Split::Test, preprocessor.least_side().into())
        .context("cannot use the data")?;
    let mut measurement = Measurement::new(
        &bundle,
        (&arguments.device, arguments.precision),
        listed.len(),
    )?;
    let mut parts = Vec::with_capacity(listed.len());
    for folder in &listed {
        parts.push(measurement.measure(folder)?.scores());
    }
    drop(measurement);
    let lines = calibrate(&parts, rule);
    let wanted = match rule {
        CalibrationRule::MissRate { .. } => "bad",
        _ => "good",
    };
    ensure!(
        !lines.is_empty(),
        "expected {wanted} parts in `{}`, found none",
        arguments.data.data.display()
    );
    let mut manifest = bundle.manifest.clone();
    if changes_pixels && let Some(class) = kept(&manifest, &lines).next() {
        bail!(
            "`--scaled-jpeg` changes the scores of every class: expected {wanted} parts of `{class}`, \
             found none"
        );
    }
    for (class, line) in &lines {
        manifest.classes.insert(class.clone(), line.thresholds);
    }
    save_manifest(&arguments.model, &manifest).context("cannot keep the thresholds")?;
    print!("{}", account(&lines));
    for class in kept(&manifest, &lines) {
        println!("{class}: kept as it was, no {wanted} parts");
    }
    let without = without_threshold(&parts, &manifest, wanted);
    for warning in warnings(&lines).iter().chain(&without) {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

/// Classes whose threshold was set earlier and is not set now.
fn kept<'a>(
    manifest: &'a Manifest,
    lines: &'a BTreeMap<String, CalibratedClass>,
) -> impl Iterator<Item = &'a String> {
    let classes = manifest.classes.keys();
    classes.filter(|class| !lines.contains_key(*class))
}

/// Tells of classes that have parts here and no threshold in the bundle, neither new nor old.
fn without_threshold(parts: &[ScoredPart], manifest: &Manifest, wanted: &str) -> Vec<String> {
    let classes: BTreeSet<&str> = parts.iter().map(|part| part.class.as_str()).collect();
    classes
        .into_iter()
        .filter(|class| !manifest.classes.contains_key(*class))
        .map(|class| {
            format!(
                "{class}: no {wanted} parts, so it has no threshold: none of its parts will be \
                 called good or bad, all are for `review`"
            )
        })
        .collect()
}

fn rule(arguments: &CalibrateArguments) -> CalibrationRule {
    let (quantile, margin) = (arguments.quantile, arguments.margin);
    match (arguments.false_alarm_rate, arguments.miss_rate) {
        (Some(rate), _) => CalibrationRule::FalseAlarmRate { rate, margin },
        (None, Some(rate)) => CalibrationRule::MissRate { rate, margin },
        (None, None) => CalibrationRule::Quantile { quantile, margin },
    }
}

/// A line a class: threshold, what it rests on, and the error that the rule did not look at.
fn account(lines: &BTreeMap<String, CalibratedClass>) -> String {
    let mut text = String::new();
    for (class, line) in lines {
        let Some(calibration) = line.thresholds.calibration else {
            continue;
        };
        let ErrorCounts {
            good,
            false_alarms,
            bad,
            missed,
        } = line.errors;
        let other = match calibration.rule {
            RuleName::MissRate => share("false alarms", false_alarms, good, "good"),
            _ => share("misses", missed, bad, "bad"),
        };
        text.push_str(&format!(
            "{class}: threshold {:.5}, {}; expected {other}\n",
            line.thresholds.threshold,
            calibration.describe()
        ));
    }
    text
}

fn share(what: &str, wrong: usize, of: usize, kind: &str) -> String {
    match of {
        0 => format!("{what} unknown without {kind} parts"),
        of => format!(
            "{what} {:.1} % ({wrong} of {of} {kind} parts)",
            100.0 * wrong as f64 / of as f64
        ),
    }
}

/// What a person should know before trusting the thresholds.
fn warnings(lines: &BTreeMap<String, CalibratedClass>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (class, line) in lines {
        let Some(calibration) = line.thresholds.calibration else {
            continue;
        };
        let ErrorCounts { good, bad, .. } = line.errors;
        let too_few = |rate: f64, what: &str, found: usize, kind: &str, place: &str| {
            format!(
                "{class}: a {what} rate of `{rate}` needs {} {kind} parts, found {found}: the \
                 threshold lies {place}, and nothing is guaranteed",
                parts_needed(rate)
            )
        };
        match (calibration.rule, calibration.rate, calibration.guarantee) {
            (RuleName::FalseAlarmRate, Some(rate), Guarantee::None) => {
                let place = "a margin above the highest score of a good part";
                warnings.push(too_few(rate, "false-alarm", good, "good", place));
            }
            (RuleName::MissRate, Some(rate), Guarantee::None) => {
                let place = "a margin below the lowest score of a bad part";
                warnings.push(too_few(rate, "miss", bad, "bad", place));
            }
            (RuleName::Quantile, ..) if good < FEW_PARTS => warnings.push(format!(
                "{class}: {good} good parts are few, good parts of the line may be called bad"
            )),
            _ => {}
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::measurement::testing::part;
    use crate::model::mvmcad::{Amplification, PriorMode};
    use crate::model::testing::{tiny_config, tiny_manifest};

    fn lines(rule: CalibrationRule, good: usize, bad: usize) -> BTreeMap<String, CalibratedClass> {
        let good = (0..good).map(|i| part("bolt", 0.25 + i as f32 / 1024.0, false).scores());
        let bad = (0..bad).map(|i| part("bolt", 0.25 + i as f32 / 8.0, true).scores());
        calibrate(&good.chain(bad).collect::<Vec<_>>(), rule)
    }

    #[test]
    fn a_kept_rate_is_told_with_the_other_error() {
        let rule = CalibrationRule::FalseAlarmRate {
            rate: 0.01,
            margin: 0.1,
        };
        let lines = lines(rule, 99, 4);
        assert_eq!(
            account(&lines),
            "bolt: threshold 0.34570, false alarms <= 0.01 (guaranteed), from 99 good and 4 bad \
             parts; expected misses 25.0 % (1 of 4 bad parts)\n"
        );
        assert!(warnings(&lines).is_empty());
    }

    #[test]
    fn too_few_parts_are_told_with_the_number_that_is_needed() {
        let rate = |miss: bool| match miss {
            false => CalibrationRule::FalseAlarmRate {
                rate: 0.01,
                margin: 0.1,
            },
            true => CalibrationRule::MissRate {
                rate: 0.05,
                margin: 0.1,
            },
        };
        let few = lines(rate(false), 40, 0);
        assert!(account(&few).ends_with("expected misses unknown without bad parts\n"));
        let expected = "bolt: a false-alarm rate of `0.01` needs 99 good parts, found 40: ";
        assert!(warnings(&few)[0].starts_with(expected));
        let expected = "bolt: a miss rate of `0.05` needs 19 bad parts, found 4: ";
        assert!(warnings(&lines(rate(true), 40, 4))[0].starts_with(expected));
        let few = lines(CalibrationRule::default(), 5, 0);
        assert!(warnings(&few)[0].starts_with("bolt: 5 good parts are few"));
    }

    #[test]
    fn a_class_that_is_left_without_a_threshold_is_told() {
        let parts = ["bolt", "gear", "nut"].map(|class| part(class, 0.5, class == "gear").scores());
        let mut manifest = tiny_manifest(tiny_config(PriorMode::Off, Amplification::After));
        let rule = CalibrationRule::default();
        for (class, line) in calibrate(&parts, rule) {
            manifest.classes.insert(class, line.thresholds);
        }
        let told = without_threshold(&parts, &manifest, "good");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("gear: no good parts, so it has no threshold"));
        // As it was once calibrated with good parts.
        let old = manifest.classes["bolt"];
        manifest.classes.insert("gear".to_owned(), old);
        assert_eq!(without_threshold(&parts, &manifest, "good").len(), 0);
    }

    #[test]
    fn classes_without_parts_keep_their_thresholds() {
        let mut manifest = tiny_manifest(tiny_config(PriorMode::Off, Amplification::After));
        let lines = lines(CalibrationRule::default(), 12, 0);
        for class in ["bolt", "gear"] {
            let thresholds = lines["bolt"].thresholds;
            manifest.classes.insert(class.to_owned(), thresholds);
        }
        assert_eq!(kept(&manifest, &lines).collect::<Vec<_>>(), ["gear"]);
    }

    #[test]
    fn rates_lie_between_nothing_and_all() {
        assert_eq!(parse_rate("0.01"), Ok(0.01));
        for wrong in ["0", "1", "-1", "NaN", "x"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
