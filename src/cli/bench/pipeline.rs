//! The whole pipeline on a backlog: parts a second from the assignment to the last result as a
//! `read_committed` reader has it.
//!
//! With a model, the model alone is measured before and after each round, in this process and on the same
//! pictures: the pipeline should keep it busy. Without one, `--beside` runs another consumer on the same
//! topics after each round.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::line::{BenchLine, LineArguments, RunningPipeline, unless_interrupted};
use super::model::{pace, prepared_images};
use super::outcomes::Outcomes;
use super::report::{Report, Row};
use super::usage;
use crate::config::Settings;
use crate::model::InputImage;
use crate::model::bundle::Bundle;
use crate::model::candle_model::CandleModel;

/// How long the model alone is measured, each time.
const MODEL_TIME: Duration = Duration::from_secs(5);

/// Flags of `panoptes bench pipeline`.
#[derive(Args, Clone, Debug)]
pub struct PipelineArguments {
    /// The bus, the settings and the load.
    #[command(flatten)]
    pub line: LineArguments,
    /// Parts of the backlog
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub parts: u32,
    /// How often a pipeline of a new group reads the backlog
    #[arg(long, default_value_t = 3, conflicts_with = "instances", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub rounds: u8,
    /// Instances that share the parts as one consumer group, in this process. With more than one, parts are
    /// written when all have their partitions, and not before; there is one round then
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub instances: u8,
    /// As a replay of the backlog, which ends by itself
    #[arg(long)]
    pub replay: bool,
    /// Run this by `sh -c` after each round and show the last line that it prints. It finds `$BROKERS`,
    /// `$TOPICS` (a regular expression), `$RECORDS` and `$BYTES` in its environment
    #[arg(long, value_name = "COMMAND")]
    pub beside: Option<String>,
}

impl PipelineArguments {
    fn rounds(&self) -> usize {
        match self.instances {
            1 => usize::from(self.rounds),
            _ => 1,
        }
    }

    /// Whether parts are written before anybody reads.
    fn has_backlog(&self) -> bool {
        self.instances == 1 || self.replay
    }
}

pub(super) async fn run(arguments: PipelineArguments) -> anyhow::Result<Report> {
    let rounds = arguments.rounds();
    let line = BenchLine::create(&arguments.line, rounds).await?;
    let measured = unless_interrupted(measure(&line, &arguments)).await;
    line.delete(measured).await
}

async fn measure(line: &BenchLine, arguments: &PipelineArguments) -> anyhow::Result<Report> {
    let parts = arguments.parts as usize;
    let mut conditions = line.conditions();
    conditions.push(("parts", json!(parts)));
    conditions.push(("instances", json!(arguments.instances)));
    conditions.push(("replay", json!(arguments.replay)));
    let mut report = Report::new("pipeline", conditions);
    if arguments.has_backlog() {
        line.fill(&line.producer()?, parts).await?;
    }
    let mut alone = match &arguments.line.model {
        Some(_) => Some(ModelAlone::load(line.settings(0)?).await?),
        None => None,
    };
    for round in 0..arguments.rounds() {
        let before = rate_of(&mut alone).await?;
        let (mut row, images_per_second) = play(line, round, arguments).await?;
        let after = rate_of(&mut alone).await?;
        let model_rate = before
            .zip(after)
            .map(|(before, after)| (before + after) / 2.0);
        row.push(("model_alone_images_per_second", json!(model_rate)));
        let share = model_rate.map(|model_rate| images_per_second / model_rate);
        row.push(("share_of_model_alone", json!(share)));
        row.push(("beside", beside(line, arguments).await?));
        report.push(row);
    }
    Ok(report)
}

/// One pipeline from its assignment to its end; its figures, and the images a second.
async fn play(
    line: &BenchLine,
    round: usize,
    arguments: &PipelineArguments,
) -> anyhow::Result<(Row, f64)> {
    let parts = arguments.parts as usize;
    let mut outcomes = Outcomes::of(line, round)?;
    let instances = usize::from(arguments.instances);
    let mut pipeline = match arguments.replay {
        true => RunningPipeline::replay(line, round, instances).await?,
        false => RunningPipeline::start(line, round, instances).await?,
    };
    pipeline.assigned().await?;
    usage::forget_peak(); // that of writing the backlog
    let (began, cpu_before) = (Instant::now(), usage::cpu_seconds());
    if !arguments.has_backlog() {
        // An instance that had the backlog first would take it all before it gives partitions up.
        let producer = line.producer()?;
        pipeline.while_it_runs(line.fill(&producer, parts)).await?;
    }
    let read = pipeline.while_it_runs(outcomes.all_of(0..parts)).await?;
    let cpu = usage::cpu_seconds().zip(cpu_before);
    let ended = read.last().context("there is a part")?.at;
    pipeline.stop().await?;
    let seconds = ended.saturating_duration_since(began).as_secs_f64();
    let rate = parts as f64 / seconds;
    let row = vec![
        ("round", json!(round + 1)),
        ("seconds", json!(seconds)),
        ("parts_per_second", json!(rate)),
        (
            "records_per_second",
            json!(rate * line.images.views().len() as f64),
        ),
        (
            "mb_per_second",
            json!(rate * line.images.mean_part_bytes() / 1e6),
        ),
        (
            "cpu_ms_per_part",
            json!(cpu.map(|(after, before)| (after - before) * 1e3 / parts as f64)),
        ),
        ("peak_resident_mib", json!(usage::peak_resident_mib())),
    ];
    Ok((row, rate * line.images.views().len() as f64))
}

/// A second model like the pipeline's, and images for it.
struct ModelAlone {
    model: CandleModel,
    images: Vec<InputImage>,
    batch: usize,
}

impl ModelAlone {
    async fn load(settings: Settings) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || {
            let bundle = Bundle::load(&settings.model.path)?;
            let max_batch = settings.model.max_batch;
            let device = settings.model.device.0.first();
            let device = device.context("expected a device, found none")?.to_string();
            let precision = settings.model.precision;
            Ok(Self {
                model: CandleModel::with_precision(&bundle, &device, precision, max_batch)?,
                images: prepared_images(&bundle)?,
                batch: max_batch,
            })
        })
        .await
        .context("failed to load the model")?
    }
}

/// Images a second of the model alone, if there is one.
async fn rate_of(alone: &mut Option<ModelAlone>) -> anyhow::Result<Option<f64>> {
    let Some(mut model) = alone.take() else {
        return Ok(None);
    };
    let (model, rate) = tokio::task::spawn_blocking(move || {
        let ModelAlone {
            model: network,
            images,
            batch,
        } = &mut model;
        let rate = pace(network, images, *batch, MODEL_TIME).map(|pace| pace.rate);
        (model, rate)
    })
    .await
    .context("the model panicked")?;
    *alone = Some(model);
    rate.map(Some)
}

/// The last line that the other command prints.
async fn beside(line: &BenchLine, arguments: &PipelineArguments) -> anyhow::Result<Value> {
    let Some(script) = &arguments.beside else {
        return Ok(Value::Null);
    };
    let records = arguments.parts as usize * line.images.views().len();
    let bytes = line.images.mean_part_bytes() * f64::from(arguments.parts);
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .env("BROKERS", &line.bus.brokers)
        .env("TOPICS", line.cameras_regex())
        .env("RECORDS", records.to_string())
        .env("BYTES", format!("{bytes:.0}"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .context("failed to wait for the command beside")?
        .with_context(|| format!("failed to run `{script}`"))?;
    ensure!(
        output.status.success(),
        "`{script}` ended with {}",
        output.status
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(json!(printed.trim_end().lines().last()))
}
