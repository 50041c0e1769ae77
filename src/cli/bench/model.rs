//! The model alone: images a second at each batch size, nothing around it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use serde_json::json;

use super::images::{Images, SEED};
use super::maps::median;
use super::report::Report;
use crate::decode::{ImageLimits, decode_image};
use crate::domain::{ClassName, ImageEncoding, ViewId};
use crate::model::bundle::Bundle;
use crate::model::candle_model::CandleModel;
use crate::model::packed::ComputePrecision;
use crate::model::{AnomalyModel, InputImage, Subject};

/// Views of a part of the demo's.
const VIEWS_OF_PART: usize = 5;

/// Flags of `panoptes bench model`.
#[derive(Args, Clone, Debug)]
pub struct ModelArguments {
    /// Model bundle
    #[arg(long, default_value = "models/demo")]
    pub model: PathBuf,
    /// Where it runs: `auto`, `cpu`, `cuda:<number>`
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// What it computes in: `f32`, or `bf16` on processors with AVX512-BF16
    #[arg(long, default_value_t)]
    pub precision: ComputePrecision,
    /// Images in a batch; the views of a part, five, stay together
    #[arg(long, value_delimiter = ',', default_value = "1,5,10,30", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: Vec<u16>,
    /// How long each batch size is measured, after a first batch that does not count
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}

pub(super) fn run(arguments: &ModelArguments) -> anyhow::Result<Report> {
    let bundle = Bundle::load(&arguments.model)?;
    let images = prepared_images(&bundle)?;
    let conditions = vec![
        ("model", json!(bundle.manifest.name)),
        ("version", json!(bundle.manifest.version)),
        (
            "input_side",
            json!(bundle.manifest.architecture.encoder.input_side),
        ),
        ("device", json!(arguments.device)),
        ("precision", json!(arguments.precision.to_string())),
        ("seed", json!(SEED)),
    ];
    let mut report = Report::new("model", conditions);
    for &batch in &arguments.batch {
        let batch = usize::from(batch);
        let (device, precision) = (&arguments.device, arguments.precision);
        let mut model = CandleModel::with_precision(&bundle, device, precision, batch)?;
        let pace = pace(&mut model, &images, batch, arguments.duration)?;
        report.push(vec![
            ("batch", json!(batch)),
            ("images_per_second", json!(pace.rate)),
            (
                "batch_ms_median",
                json!(pace.median_batch.as_secs_f64() * 1e3),
            ),
            ("batches", json!(pace.batches)),
        ]);
    }
    Ok(report)
}

/// The rendered parts as the model of a bundle wants them, a part's views one after the other.
pub(in crate::cli) fn prepared_images(bundle: &Bundle) -> anyhow::Result<Vec<InputImage>> {
    let preprocessor = bundle
        .manifest
        .preprocessor()
        .map_err(|error| anyhow!(error))?;
    let rendered = Images::rendered()?;
    let mut images = Vec::new();
    for part in 0..rendered.variety() {
        for (number, view) in rendered.views().iter().enumerate() {
            let bytes = rendered.image_of(part, number);
            let pixels = decode_image(ImageEncoding::Jpeg, bytes, &ImageLimits::default())?;
            let mut image = preprocessor.prepare(pixels)?;
            image.subject = Some(Subject {
                class: ClassName::from(rendered.class_of(part)),
                view: ViewId::new(view.as_str()),
            });
            images.push(image);
        }
    }
    Ok(images)
}

/// How fast a model is.
pub(in crate::cli) struct Pace {
    /// Images a second over the whole time.
    pub(in crate::cli) rate: f64,
    pub(in crate::cli) median_batch: Duration,
    pub(in crate::cli) batches: usize,
}

/// Runs batch after batch for `duration`, but for a first one.
pub(in crate::cli) fn pace(
    model: &mut dyn AnomalyModel,
    images: &[InputImage],
    batch: usize,
    duration: Duration,
) -> anyhow::Result<Pace> {
    ensure!(!images.is_empty(), "expected images, found none");
    let inputs: Vec<InputImage> = images.iter().cycle().take(batch).cloned().collect();
    let views: Vec<usize> = inputs.chunks(VIEWS_OF_PART).map(<[_]>::len).collect();
    let mut score = || -> anyhow::Result<Duration> {
        let started = Instant::now();
        let maps = model.anomaly_maps(&inputs, &views);
        let maps = maps.context("the model failed")?;
        ensure!(
            maps.len() == batch,
            "expected `{batch}` maps, found `{}`",
            maps.len()
        );
        Ok(started.elapsed())
    };
    score()?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || started.elapsed() < duration {
        times.push(score()?);
    }
    let elapsed = started.elapsed().as_secs_f64();
    Ok(Pace {
        rate: (batch * times.len()) as f64 / elapsed,
        batches: times.len(),
        median_batch: median(times),
    })
}
