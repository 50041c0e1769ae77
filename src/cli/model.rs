//! `panoptes model inspect`: what is in a model bundle, once it has passed every check.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::model::bundle::{Bundle, Manifest};

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
    let maps = maps(&bundle.manifest, bundle.memories(), bundle.expected_maps());
    print!("{}", describe(&bundle.manifest, &maps));
    Ok(())
}

fn describe(manifest: &Manifest, maps: &str) -> String {
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
                "resized to {0} x {0}, centre {input} x {input}{1}",
                manifest.normalisation.resize,
                if manifest.normalisation.scaled_jpeg {
                    "; JPEGs decoded at reduced size"
                } else {
                    ""
                }
            ),
        ),
        ("maps", maps.to_owned()),
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

/// Their side, and how many views have a memory and expected maps.
fn maps(manifest: &Manifest, memories: usize, expected: usize) -> String {
    let mut text = format!("{0} x {0}", manifest.map_side);
    for (count, what) in [
        (memories, "with a memory"),
        (expected, "less the expected maps"),
    ] {
        if count > 0 {
            write!(text, ", {what} of {count} views").expect("writing to a string does not fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
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
        assert_eq!(maps(&manifest, 0, 0), "20 x 20");
        assert_eq!(
            maps(&manifest, 30, 6),
            "20 x 20, with a memory of 30 views, less the expected maps of 6 views"
        );
        let text = describe(&manifest, &maps(&manifest, 0, 0));
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
