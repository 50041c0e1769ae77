//! `panoptes demo`: the pipeline of `run` on a simulated line, with no set-up.
//!
//! An embedded broker, parts rendered from solid geometry, the shipped model. Nothing in the
//! pipeline is special: settings, topics, groups and results are those of a plant. The demo plays
//! faults on purpose and checks at the end that every part and every bad record has exactly one
//! fate.

mod account;
mod line;
mod report;
mod scenario;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::account::Account;
use self::line::SimulatedLine;
pub(in crate::cli) use self::scenario::{CLASSES, PICTURE_SIDE};
use self::scenario::{DemoPart, VIEWS};
use crate::admin::Readiness;
use crate::config::{LogFormat, Settings, Sources, TelemetrySettings};
use crate::domain::Topic;
use crate::kafka::embedded::EmbeddedBroker;
use crate::pipeline::{self, PipelineSetup};
use crate::status::StatusBoard;
use crate::telemetry;

/// Partitions of each camera topic; the embedded broker keeps 5 MiB of each.
const PARTITIONS: i32 = 2;

/// How long after the last view the demo waits for the fate of every part.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flags of `panoptes demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArguments {
    /// Good and defective parts to send, besides those of the faults
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub parts: u32,
    /// First seed of the rendered parts; the shipped model has seen none of this one's
    #[arg(long, default_value_t = 900_000)]
    pub seed: u64,
    /// Model bundle
    #[arg(long, default_value = "models/demo")]
    pub model: PathBuf,
    /// Where to write the report
    #[arg(long, default_value = "report.html")]
    pub report: PathBuf,
    /// Show the pipeline's log from this level on
    #[arg(long, default_value = "error")]
    pub log_level: String,
}

/// Plays the demo.
///
/// # Errors
/// When a stage fails, or when a part or a bad record was lost or doubled.
pub async fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    telemetry::init_logs(&TelemetrySettings {
        log_format: LogFormat::Text,
        log_level: arguments.log_level.clone(),
    })?;
    let started = Instant::now();
    println!("panoptes demo: a simulated line, an embedded Kafka broker, the shipped model\n");
    let parts = render_parts(arguments.parts, arguments.seed).await?;
    let broker = start_broker()?;
    let settings = settings(&arguments, broker.brokers())?;
    let readiness = Readiness::default();
    let setup = {
        let (settings, readiness) = (settings.clone(), readiness.clone());
        tokio::task::spawn_blocking(move || {
            PipelineSetup::from_settings(&settings, readiness, StatusBoard::default())
        })
        .await
        .context("failed to set up")??
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut running = tokio::spawn(pipeline::run(setup, async {
        stopped.await.ok(); // the demo's own end by error stops it too
    }));
    let account = tokio::select! {
        ended = &mut running => {
            ended.context("the pipeline panicked")??;
            bail!("the pipeline ended before it was told to");
        }
        account = play(&settings, &readiness, &parts) => account?,
    };
    drop(stop);
    running.await.context("the pipeline panicked")??;

    table::print(&parts, &account);
    if let Some(rate) = account.parts_per_second() {
        println!("\nscored {rate:.1} parts a second, the line's own pace included");
    }
    let page = report::page(&parts, &account, started.elapsed());
    std::fs::write(&arguments.report, page)
        .with_context(|| format!("failed to write `{}`", arguments.report.display()))?;
    println!(
        "\nreport with images, heat maps and regions: {} ({:.0} s in all)",
        arguments.report.display(),
        started.elapsed().as_secs_f64()
    );
    let faults = account.discrepancies(&parts);
    if faults.is_empty() {
        println!(
            "every part and every bad record has exactly one fate: nothing lost, nothing doubled"
        );
        return Ok(());
    }
    bail!("lost or doubled: {}", faults.join("; "))
}

async fn render_parts(count: u32, seed: u64) -> anyhow::Result<Vec<DemoPart>> {
    let bar = progress(
        "rendering",
        u64::from(count) + scenario::FAULTS.len() as u64,
    );
    let rendering = bar.clone();
    let parts = tokio::task::spawn_blocking(move || {
        scenario::render_parts(count, seed, || rendering.inc(1))
    })
    .await
    .context("rendering panicked")??;
    bar.finish_and_clear();
    println!("rendered {} parts, {} views each", parts.len(), VIEWS.len());
    Ok(parts)
}

fn start_broker() -> anyhow::Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start().context("failed to start the embedded broker")?;
    let topics = VIEWS
        .iter()
        .map(|view| line::camera_topic(view))
        .chain([line::RESULTS, line::DEAD_LETTERS, line::CLOSED_PARTS].map(Topic::from));
    for topic in topics {
        broker
            .create_topic(&topic, PARTITIONS)
            .with_context(|| format!("failed to create topic `{topic}`"))?;
    }
    Ok(broker)
}

/// The settings as a plant would write them, with short timeouts: the demo should end soon.
fn settings(arguments: &DemoArguments, brokers: String) -> anyhow::Result<Settings> {
    let topics: Vec<String> = VIEWS
        .iter()
        .map(|view| line::camera_topic(view).to_string())
        .collect();
    let sources = Sources {
        overrides: vec![
            format!("bus.brokers={brokers}"),
            "bus.group_id=panoptes-demo".into(),
            format!("input.topics={}", topics.join(",")),
            format!("input.line={}", line::LINE),
            format!("views.default={}", VIEWS.join(",")),
            // The embedded broker only plays transactions.
            "output.delivery=at_least_once".into(),
            "reassembly.timeout=3s".into(),
            "reassembly.idle_after=500ms".into(),
            "reassembly.wall_grace=500ms".into(),
            format!("model.path={}", arguments.model.display()),
            format!("output.results_topic={}", line::RESULTS),
            format!("output.dead_letter_topic={}", line::DEAD_LETTERS),
            format!("output.closed_parts_topic={}", line::CLOSED_PARTS),
        ],
        ..Sources::default()
    };
    Ok(Settings::load(&sources)?)
}

/// Sends every part once the pipeline is ready and watches what becomes of them.
async fn play(
    settings: &Settings,
    readiness: &Readiness,
    parts: &[DemoPart],
) -> anyhow::Result<Account> {
    while !readiness.is_ready() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bus = pipeline::bus_settings(&settings.bus);
    let mut watch = line::Watch::start(&bus)?;
    let simulated = SimulatedLine::connect(&bus)?;
    let bar = progress("scored", parts.len() as u64);
    let mut account = Account::default();
    let sending = simulated.send(parts);
    tokio::pin!(sending);
    let mut is_sent = false;
    let mut deadline = tokio::time::Instant::now() + PATIENCE;
    while !(is_sent && account.is_settled(parts)) {
        tokio::select! {
            sent = &mut sending, if !is_sent => {
                sent?;
                is_sent = true;
                deadline = tokio::time::Instant::now() + PATIENCE;
            }
            seen = watch.next() => {
                let seen = seen.context("the readers of the results ended")?;
                account.note(seen?)?;
                simulated.note_published(&account);
                bar.set_position(account.parts_with_fate(parts));
            }
            () = tokio::time::sleep_until(deadline), if is_sent => break,
        }
    }
    // One more look: a doubled result would come about now.
    let settled = tokio::time::Instant::now() + Duration::from_millis(500);
    while let Ok(Some(seen)) = tokio::time::timeout_at(settled, watch.next()).await {
        account.note(seen?)?;
    }
    bar.finish_and_clear();
    Ok(account)
}

fn progress(what: &str, length: u64) -> ProgressBar {
    ProgressBar::new(length)
        .with_prefix(what.to_owned())
        .with_style(
            ProgressStyle::with_template("{prefix:>10} {bar:40} {pos}/{len} parts, {elapsed}")
                .expect("the template is constant"),
        )
}
