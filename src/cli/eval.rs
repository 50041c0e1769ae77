//! `panoptes eval`: how well a bundle tells good from bad on labelled parts.

mod kinds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::tensor::{Dtype, TensorView};

use self::kinds::Kinds;
use super::data::DataArguments;
use super::outputs;
use crate::evaluation::calibration::ErrorCounts;
use crate::evaluation::figures::{ClassFigures, by_class};
use crate::evaluation::measurement::{MeasuredPart, ScoredPart, measure};
use crate::evaluation::report::{Report, ThresholdErrors};
use crate::model::ComputePrecision;
use crate::model::bundle::{Bundle, Manifest};
use crate::model::candle_model::CandleModel;
use crate::model::preprocess::Preprocessor;
use crate::training::dataset::{PartFolder, Split};

/// Measures a model bundle on labelled parts.
#[derive(Args, Clone, Debug)]
pub struct EvalArguments {
    /// The model bundle
    #[arg(short, long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Labelled parts
    #[command(flatten)]
    pub data: DataArguments,
    /// `cpu`, `cuda:0`, or `auto`
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// What the model computes in: `f32`, or `bf16` on processors with AVX512-BF16
    #[arg(long, default_value_t)]
    pub precision: ComputePrecision,
    /// File to write every view's score to, as CSV
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Folder to write every anomaly map to, `<class>/<part>.safetensors`: one f32 tensor a view,
    /// `[height, width]`
    #[arg(long, value_name = "FOLDER")]
    pub maps: Option<PathBuf>,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t)]
    pub format: TableFormat,
    /// File to write the figures to, besides printing them: `.md`, `.json` or `.txt` says how, else
    /// `--format`
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Table with columns `part` and `defect`, and `class` where classes share part names, as
    /// `synth` writes it: also print the figures of each kind of defect against all good parts
    #[arg(long, value_name = "FILE")]
    pub kinds: Option<PathBuf>,
}

/// How figures are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Columns that line up in a terminal, in percent
    #[default]
    Text,
    /// Tables in Markdown, in percent
    Markdown,
    /// One JSON object, numbers from 0 to 1
    Json,
}

impl TableFormat {
    /// What a file's name asks for, if it says.
    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "txt" => Some(Self::Text),
            "md" | "markdown" => Some(Self::Markdown),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn write(self, report: &Report) -> String {
        match self {
            Self::Text => report.to_text(),
            Self::Markdown => report.to_markdown(),
            Self::Json => report.to_json(),
        }
    }
}

/// Measures, prints the figures and how the calibrated thresholds decide.
///
/// # Errors
/// When the bundle or the data cannot be used, or the device fails.
pub fn run(arguments: &EvalArguments) -> anyhow::Result<()> {
    check_outputs(arguments)?;
    let bundle = Bundle::load(&arguments.model).context("cannot use the model bundle")?;
    let kinds = arguments.kinds.as_deref().map(Kinds::read).transpose()?;
    let kinds = kinds.unwrap_or_default();
    let preprocessor = bundle.manifest.preprocessor().map_err(anyhow::Error::msg)?;
    let listed = arguments
        .data
        .labelled_parts(Split::Test, preprocessor.least_side().into())
        .context("cannot use the data")?;
    if let Some(file) = &arguments.kinds
        && let Some(fault) = kinds.misses_all(&listed)
    {
        eprintln!("warning: `{}` {fault}", file.display());
    }
    let (classes, parts) = measure_classes(arguments, &bundle, listed, &kinds)?;
    let identity = bundle.manifest.identity();
    let model = format!("{} {}", identity.name, identity.version);
    let report = Report::new(model, &classes, decisions(&parts, &bundle.manifest));
    print!("{}", arguments.format.write(&report));
    if let Some(file) = &arguments.table {
        let format = TableFormat::of(file).unwrap_or(arguments.format);
        outputs::write(file, &format.write(&report))?;
    }
    if let Some(file) = &arguments.scores {
        let table = scores(&parts).context("cannot write the scores as a table")?;
        outputs::write(file, &table)?;
    }
    Ok(())
}

fn check_outputs(arguments: &EvalArguments) -> anyhow::Result<()> {
    for file in [&arguments.table, &arguments.scores].into_iter().flatten() {
        outputs::check_file(file)?;
    }
    match &arguments.maps {
        Some(folder) => outputs::check_folder(folder),
        None => Ok(()),
    }
}

/// The figures of each class, and the scores of all parts.
fn measure_classes(
    arguments: &EvalArguments,
    bundle: &Bundle,
    listed: Vec<PartFolder>,
    kinds: &Kinds,
) -> anyhow::Result<(BTreeMap<String, ClassFigures>, Vec<ScoredPart>)> {
    let mut measurement = Measurement::new(
        bundle,
        (&arguments.device, arguments.precision),
        listed.len(),
    )?;
    let mut parts = Vec::with_capacity(listed.len());
    let kind_of = |part: &PartFolder| kinds.of(part).map(str::to_owned);
    let classes = by_class(listed, kind_of, |folder| {
        let part = measurement.measure(folder)?;
        if let Some(folder) = &arguments.maps {
            write_maps(folder, &part)?;
        }
        parts.push(part.scores());
        anyhow::Ok(part)
    })?;
    Ok((classes, parts))
}

fn write_maps(folder: &Path, part: &MeasuredPart) -> anyhow::Result<()> {
    let folder = folder.join(&part.class);
    let file = folder.join(format!("{}.safetensors", part.part));
    let bytes: Vec<Vec<u8>> = part
        .views
        .iter()
        .map(|view| {
            view.map
                .values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let tensors = part
        .views
        .iter()
        .zip(&bytes)
        .map(|(view, bytes)| {
            let shape = vec![view.map.height, view.map.width];
            Ok((&view.view, TensorView::new(Dtype::F32, shape, bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    safetensors::serialize_to_file(tensors, None, &file)
        .with_context(|| format!("cannot write `{}`", file.display()))
}

/// The most images scored at once.
const BATCH: usize = 32;

/// A model at work on parts, with a progress bar.
pub(crate) struct Measurement {
    model: CandleModel,
    preprocessor: Preprocessor,
    bar: ProgressBar,
}

impl Measurement {
    /// Places the model on the device, in a precision; the bar is for so many parts.
    ///
    /// # Errors
    /// When the device cannot be used.
    pub(crate) fn new(
        bundle: &Bundle,
        (device, precision): (&str, ComputePrecision),
        parts: usize,
    ) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} parts [{elapsed} < {eta}]")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Ok(Self {
            model: CandleModel::with_precision(bundle, device, precision, BATCH)
                .context("cannot place the model")?,
            preprocessor: bundle.manifest.preprocessor().map_err(anyhow::Error::msg)?,
            bar: ProgressBar::new(parts as u64).with_style(style),
        })
    }

    /// Scores one part.
    ///
    /// # Errors
    /// When an image cannot be read or the device fails.
    pub(crate) fn measure(&mut self, part: &PartFolder) -> anyhow::Result<MeasuredPart> {
        let measured = measure(part, &mut self.model, &self.preprocessor);
        let measured = measured.context("measurement failed")?;
        self.bar.inc(1);
        Ok(measured)
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn scores(parts: &[ScoredPart]) -> anyhow::Result<String> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["class", "part", "view", "score", "anomalous"])?;
    for part in parts {
        for view in &part.views {
            let (class, name) = (part.class.as_str(), part.part.as_str());
            let score = view.score.to_string();
            let anomalous = if view.is_anomalous { "1" } else { "0" };
            table.write_record([class, name, &view.view, &score, anomalous])?;
        }
    }
    Ok(String::from_utf8(table.into_inner()?)?)
}

/// What each class's threshold gets wrong.
fn decisions(parts: &[ScoredPart], manifest: &Manifest) -> BTreeMap<String, ThresholdErrors> {
    let decide = |class: &String, threshold: f32| {
        let own = parts.iter().filter(|part| part.class == *class);
        let scored: Vec<(f32, bool)> = own
            .map(|part| (part.score(), part.is_anomalous()))
            .collect();
        let errors = ErrorCounts::of(&scored, threshold);
        ThresholdErrors { threshold, errors }
    };
    let classes = manifest.classes.iter();
    classes
        .map(|(class, line)| (class.clone(), decide(class, line.threshold)))
        .collect()
}

#[cfg(test)]
mod tests;
