//! `panoptes model inspect`: what is in a model bundle, once it has passed every check.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::model::bundle::Bundle;

/// Shows what a model bundle holds, after checking it as `run` would.
#[derive(Args, Clone, Debug)]
pub struct InspectArguments {
    /// Folder with `model.toml` and its weights.
    pub path: PathBuf,
}

/// Checks the bundle and prints its description.
///
/// # Errors
/// When the bundle fails a check.
pub fn inspect(arguments: &InspectArguments) -> anyhow::Result<()> {
    let bundle = Bundle::load(&arguments.path).context("cannot use the model bundle")?;
    print!("{}", describe(&bundle));
    Ok(())
}

fn describe(bundle: &Bundle) -> String {
    let manifest = &bundle.manifest;
    let architecture = &manifest.architecture;
    let encoder = &architecture.encoder;
    let input = encoder.input_side;
    let lines = [
        ("model", format!("{} {}", manifest.name, manifest.version)),
        (
            "weights",
            format!(
                "{} (sha256 {})",
                manifest.weights.file, manifest.weights.sha256
            ),
        ),
        (
            "parameters",
            format!(
                "{} encoder, {} trained",
                encoder.tensors().parameters(),
                architecture.trainable_tensors().parameters()
            ),
        ),
        (
            "images",
            format!(
                "resized to {0} x {0}, centre {input} x {input}",
                manifest.normalisation.resize
            ),
        ),
        ("maps", maps(bundle)),
        (
            "encoder",
            format!(
                "patch {}, width {}, {} of {} blocks run, {} heads, {} registers, targets {:?}",
                encoder.patch,
                encoder.width,
                encoder.used_depth(),
                encoder.depth,
                encoder.heads,
                encoder.registers,
                encoder.targets
            ),
        ),
        ("prior", format!("{:?}", architecture.prior).to_lowercase()),
        (
            "amplification",
            format!("{:?}", architecture.amplification).to_lowercase(),
        ),
        (
            "whitening",
            if architecture.whitening { "on" } else { "off" }.to_owned(),
        ),
        ("decoder", format!("{} blocks", architecture.decoder_depth)),
    ];
    // Long names of classes push all values to the right alike.
    let names = manifest
        .classes
        .keys()
        .map(|class| class.chars().count() + 3);
    let width = names.fold(16, usize::max);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<width$}{value}").expect("writing to a string does not fail");
    };
    for (name, value) in &lines {
        line(name, value);
    }
    line(
        "classes",
        if manifest.classes.is_empty() {
            "none calibrated"
        } else {
            "threshold  pixel threshold  calibration"
        },
    );
    for (class, thresholds) in &manifest.classes {
        let rests_on = thresholds.calibration.map(|found| found.describe());
        let values = format!(
            "{:<11.5}{:<17.5}{}",
            thresholds.threshold,
            thresholds.pixel_threshold,
            rests_on.unwrap_or_default()
        );
        line(&format!("  {class}"), values.trim_end());
    }
    text
}

fn maps(bundle: &Bundle) -> String {
    let side = bundle.manifest.map_side;
    let mut text = format!("{side} x {side}");
    for (count, what) in [
        (bundle.memories(), "with a memory"),
        (bundle.expected_maps(), "less the expected maps"),
    ] {
        if count > 0 {
            write!(text, ", {what} of {count} views").expect("writing to a string does not fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::model::bundle::{Calibration, Guarantee, RuleName};
    use crate::model::mvmcad::{Amplification, PriorMode};
    use crate::model::testing::{tiny_config, tiny_manifest};

    #[test]
    fn says_what_a_plant_asks_about_a_model() {
        let mut manifest = tiny_manifest(tiny_config(PriorMode::Off, Amplification::After));
        let mut nut = manifest.classes["bolt"];
        nut.calibration = Some(Calibration {
            rule: RuleName::FalseAlarmRate,
            rate: Some(0.01),
            quantile: None,
            margin: None,
            good_parts: 120,
            bad_parts: 3,
            guarantee: Guarantee::Conformal,
        });
        manifest.classes.insert("nut".to_owned(), nut);
        let mut bundle = Bundle {
            manifest,
            tensors: HashMap::new(),
        };
        let maps = |bundle: &Bundle| {
            let text = describe(bundle);
            let line = text.lines().find(|line| line.starts_with("maps ")).unwrap();
            line.to_owned()
        };
        assert_eq!(maps(&bundle), "maps            20 x 20");
        let expected = Tensor::zeros((4, 4), DType::F32, &Device::Cpu).unwrap();
        let name = "expected.bolt/top".to_owned();
        bundle.tensors.insert(name, expected);
        let with = "maps            20 x 20, less the expected maps of 1 views";
        assert_eq!(maps(&bundle), with);
        let text = describe(&bundle);
        for expected in [
            "model           tiny 1\n",
            "images          resized to 32 x 32, centre 28 x 28\n",
            "amplification   after\n",
            "whitening       off\n",
            "  bolt          0.25000    0.50000\n",
            "  nut           0.25000    0.50000          false alarms <= 0.01 (guaranteed), from 120 good and 3 bad parts\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn names_the_folder_that_holds_no_bundle() {
        let arguments = InspectArguments {
            path: PathBuf::from("no-such-bundle"),
        };
        let error = format!("{:#}", inspect(&arguments).unwrap_err());
        let expected = "cannot use the model bundle: bundle file `no-such-bundle/model.toml`: ";
        assert!(error.starts_with(expected), "{error}");
    }
}
