//! `panoptes eval`: how well a bundle tells good from bad on labelled parts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::tensor::{Dtype, TensorView};

use super::data::DataArguments;
use crate::evaluation::measurement::{MeasuredPart, measure};
use crate::evaluation::table::tabulate;
use crate::model::bundle::{Bundle, Manifest};
use crate::model::candle_model::CandleModel;
use crate::training::dataset::{PartFolder, Split};

/// Measures a model bundle on labelled parts.
#[derive(Args, Clone, Debug)]
pub struct EvalArguments {
    /// The model bundle
    #[arg(short, long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Good and bad parts
    #[command(flatten)]
    pub data: DataArguments,
    /// `cpu`, `cuda:0`, or `auto`
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// File to write every view's score to, as CSV
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Folder to write every anomaly map to, `<class>/<part>.safetensors`: one f32 tensor a view,
    /// `[height, width]`
    #[arg(long, value_name = "FOLDER")]
    pub maps: Option<PathBuf>,
    /// File to write the table to, besides printing it
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Table with columns `part` and `defect`, as `synth` writes it: also print the figures of
    /// each kind of defect against all good parts
    #[arg(long, value_name = "FILE")]
    pub kinds: Option<PathBuf>,
}

/// Measures, prints the table and how the calibrated thresholds decide.
///
/// # Errors
/// When the bundle or the data cannot be used, or the device fails.
pub fn run(arguments: &EvalArguments) -> anyhow::Result<()> {
    let bundle = Bundle::load(&arguments.model).context("cannot use the model bundle")?;
    let kinds = arguments.kinds.as_deref().map(read_kinds).transpose()?;
    let listed = arguments
        .data
        .labelled_parts(Split::Test)
        .context("cannot use the data")?;
    let mut parts = Vec::with_capacity(listed.len());
    let mut failure = None;
    measure_all(&bundle, &arguments.device, &listed, |part| {
        if let Some(folder) = &arguments.maps {
            failure = failure.take().or(write_maps(folder, &part).err());
        }
        parts.push(part);
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let mut text = tabulate(&parts.iter().collect::<Vec<_>>()).to_markdown();
    if let Some(kinds) = &kinds {
        text.push('\n');
        text.push_str(&table_by_kind(&parts, kinds));
    }
    if !bundle.manifest.classes.is_empty() {
        text.push('\n');
        text.push_str(&decisions(&parts, &bundle.manifest));
    }
    print!("{text}");
    if let Some(file) = &arguments.table {
        write(file, &text)?;
    }
    if let Some(file) = &arguments.scores {
        write(file, &scores(&parts))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write `{}`", file.display()))
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

/// Scores every part and hands it on, with a progress bar.
///
/// # Errors
/// When an image cannot be read or the device fails.
pub(crate) fn measure_all(
    bundle: &Bundle,
    device: &str,
    listed: &[PartFolder],
    mut measured: impl FnMut(MeasuredPart),
) -> anyhow::Result<()> {
    let preprocessor = bundle.manifest.preprocessor().map_err(anyhow::Error::msg)?;
    let mut model = CandleModel::new(bundle, device, 32).context("cannot place the model")?;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} parts [{elapsed} < {eta}]")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(listed.len() as u64).with_style(style);
    for part in listed {
        measured(measure(part, &mut model, &preprocessor).context("measurement failed")?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn scores(parts: &[MeasuredPart]) -> String {
    let mut text = String::from("class,part,view,score,anomalous\n");
    for part in parts {
        for view in &part.views {
            let (class, name) = (&part.class, &part.part);
            let anomalous = u8::from(view.is_anomalous);
            writeln!(
                text,
                "{class},{name},{},{},{anomalous}",
                view.view, view.score
            )
            .expect("writing to a string cannot fail");
        }
    }
    text
}

/// Figures of each kind of defect, all classes as they are, against the good parts of its class.
fn table_by_kind(parts: &[MeasuredPart], kinds: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&String> = kinds.values().filter(|kind| !kind.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    let mut table =
        String::from("mean over classes, each kind of defect against all good parts\n\n");
    for (index, name) in names.iter().enumerate() {
        let chosen: Vec<&MeasuredPart> = parts
            .iter()
            .filter(|part| !part.is_anomalous() || kinds.get(&part.part) == Some(name))
            .collect();
        let rows = tabulate(&chosen)
            .to_markdown()
            .replace("| mean |", &format!("| {name} |"));
        let mut lines = rows.lines();
        if index == 0 {
            table.extend(lines.by_ref().take(2).flat_map(|line| [line, "\n"]));
        }
        table.extend(lines.last().into_iter().flat_map(|line| [line, "\n"]));
    }
    table
}

/// The kind of each part's defect, from a table with the columns `part` and `defect`.
fn read_kinds(truth: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(truth)
        .with_context(|| format!("cannot read `{}`", truth.display()))?;
    kinds_by_part(&text)
        .with_context(|| format!("`{}` has no columns `part` and `defect`", truth.display()))
}

fn kinds_by_part(text: &str) -> Option<BTreeMap<String, String>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next()?.split(',').collect();
    let part = header.iter().position(|name| *name == "part")?;
    let defect = header.iter().position(|name| *name == "defect")?;
    Some(
        lines
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(',').collect();
                Some((
                    fields.get(part)?.to_string(),
                    fields.get(defect)?.to_string(),
                ))
            })
            .collect(),
    )
}

/// How the thresholds decide: good parts let through and bad parts found.
fn decisions(parts: &[MeasuredPart], manifest: &Manifest) -> String {
    let mut text = String::from(
        "| class | threshold | good passed | bad found |\n| --- | --: | --: | --: |\n",
    );
    for (class, thresholds) in &manifest.classes {
        let own = || parts.iter().filter(|part| &part.class == class);
        let count = |is_anomalous: bool, is_over: bool| {
            own()
                .filter(|part| part.is_anomalous() == is_anomalous)
                .filter(|part| (part.score() >= thresholds.threshold) == is_over)
                .count()
        };
        let (passed, alarms) = (count(false, false), count(false, true));
        let (found, missed) = (count(true, true), count(true, false));
        writeln!(
            text,
            "| {class} | {:.4} | {passed} of {} | {found} of {} |",
            thresholds.threshold,
            passed + alarms,
            found + missed
        )
        .expect("writing to a string cannot fail");
    }
    text
}
