//! `panoptes calibrate`: sets a bundle's thresholds from good parts that it was not trained on.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::data::DataArguments;
use super::eval::measure_all;
use crate::domain::AnomalyMap;
use crate::evaluation::calibration::{CalibrationRule, calibrate};
use crate::model::bundle::{Bundle, save_manifest};
use crate::training::dataset::Split;

/// Fewer good parts of a class than this say little about how high a good part may score.
const FEW_PARTS: usize = 10;
const FEW_PARTS_WARNING: &str = " (few: good parts of the line may be called bad)";

/// Sets a model bundle's thresholds from good parts.
#[derive(Args, Clone, Debug)]
pub struct CalibrateArguments {
    /// The model bundle, changed in place
    #[arg(short, long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Good parts, other ones than in training; those with a defect are left out
    #[command(flatten)]
    pub data: DataArguments,
    /// `cpu`, `cuda:0`, or `auto`
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Quantile of the good parts' scores, from 0 to 1
    #[arg(long, default_value_t = 0.99)]
    pub quantile: f64,
    /// Share of the distance from the median to the quantile that is added
    #[arg(long, default_value_t = 0.1)]
    pub margin: f64,
}

/// Measures the good parts and writes the thresholds into the bundle.
///
/// # Errors
/// When the bundle or the data cannot be used, or the device fails.
pub fn run(arguments: &CalibrateArguments) -> anyhow::Result<()> {
    let quantile = arguments.quantile;
    ensure!(
        (0.0..=1.0).contains(&quantile),
        "`--quantile` must lie between 0 and 1, found `{quantile}`"
    );
    let bundle = Bundle::load(&arguments.model).context("cannot use the model bundle")?;
    let listed = arguments
        .data
        .checked_parts(Split::Test)
        .context("cannot use the data")?;
    let mut parts = Vec::with_capacity(listed.len());
    measure_all(&bundle, &arguments.device, &listed, |mut part| {
        // Scores are all that thresholds need; the maps of a large set would fill the memory.
        for view in &mut part.views {
            view.map = AnomalyMap::default();
        }
        parts.push(part);
    })?;
    let rule = CalibrationRule {
        quantile,
        margin: arguments.margin,
    };
    let mut manifest = bundle.manifest.clone();
    manifest.classes.extend(calibrate(&parts, rule));
    for (class, thresholds) in &manifest.classes {
        let good = parts
            .iter()
            .filter(|part| part.class == *class && !part.is_anomalous())
            .count();
        let warning = if good < FEW_PARTS {
            FEW_PARTS_WARNING
        } else {
            ""
        };
        println!(
            "{class}: threshold {:.5} from {good} good parts{warning}",
            thresholds.threshold
        );
    }
    save_manifest(&arguments.model, &manifest).context("cannot keep the thresholds")
}
