//! The bus alone: what a producer as the publisher's gives to the brokers, and what the poll thread
//! takes from them and copies out of the fetch buffers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;

use super::line::{BenchLine, LineArguments, unless_interrupted};
use super::report::{Report, Row};
use super::usage;
use crate::admin::Readiness;
use crate::domain::MemoryBudget;
use crate::kafka::consumer::{CameraConsumer, SharedLedger};
use crate::kafka::consumer_messages::ConsumerEvent;
use crate::kafka::consumer_settings::Commits;
use crate::kafka::offsets::OffsetLedger;

/// Events between the poll thread and who takes them, as in the pipeline.
const EVENTS: usize = 64;

/// Flags of `panoptes bench bus`.
#[derive(Args, Clone, Debug)]
pub struct BusArguments {
    /// The bus, the settings and the load.
    #[command(flatten)]
    pub line: LineArguments,
    /// Parts that are produced, then consumed
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub parts: u32,
    /// How often they are consumed, by a new group each time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub rounds: u8,
}

pub(super) async fn run(arguments: BusArguments) -> anyhow::Result<Report> {
    let line = BenchLine::create(&arguments.line, usize::from(arguments.rounds)).await?;
    let measured = unless_interrupted(measure(&line, &arguments)).await;
    line.delete(measured).await
}

async fn measure(line: &BenchLine, arguments: &BusArguments) -> anyhow::Result<Report> {
    let parts = arguments.parts as usize;
    let mut conditions = line.conditions();
    conditions.push(("parts", json!(parts)));
    let mut report = Report::new("bus", conditions);
    let records = parts * line.images.views().len();
    let load = Load {
        records,
        megabytes: line.images.mean_part_bytes() * parts as f64 / 1e6,
    };
    let producer = line.producer()?;
    let began = (Instant::now(), usage::cpu_seconds());
    line.fill(&producer, parts).await?;
    report.push(load.row("produce", began));
    for round in 0..usize::from(arguments.rounds) {
        report.push(consume(line, round, &load).await?);
    }
    Ok(report)
}

struct Load {
    records: usize,
    megabytes: f64,
}

type Beginning = (Instant, Option<f64>);

impl Load {
    fn row(&self, what: &str, (began, cpu_before): Beginning) -> Row {
        let seconds = began.elapsed().as_secs_f64();
        let cpu = usage::cpu_seconds().zip(cpu_before);
        let cpu = cpu.map(|(after, before)| (after - before) * 1e6 / self.records as f64);
        vec![
            ("what", json!(what)),
            ("seconds", json!(seconds)),
            ("records_per_second", json!(self.records as f64 / seconds)),
            ("mb_per_second", json!(self.megabytes / seconds)),
            ("cpu_us_per_record", json!(cpu)),
        ]
    }
}

/// Reads all records, from the assignment on.
async fn consume(line: &BenchLine, round: usize, load: &Load) -> anyhow::Result<Row> {
    let setup = line.setup(round, 0, Readiness::default()).await?;
    let mut settings = setup.consumer;
    settings.commits = Commits::Every(line.settings(round)?.bus.commit_interval);
    let ledger: SharedLedger = Arc::new(Mutex::new(OffsetLedger::default()));
    let budget = MemoryBudget::new(setup.memory_budget_bytes);
    let (events, mut received) = mpsc::channel(EVENTS);
    let consumer = CameraConsumer::start(settings, Arc::clone(&ledger), budget, events)?;
    let mut began = None;
    let mut left = load.records;
    while left > 0 {
        match received.recv().await {
            Some(ConsumerEvent::Record(record)) => {
                let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                ledger.finish(&record.source, record.generation);
                left -= 1;
            }
            Some(ConsumerEvent::Unreadable(reject)) => bail!("unreadable: {}", reject.error),
            Some(ConsumerEvent::Assigned { .. }) => {
                began.get_or_insert_with(|| (Instant::now(), usage::cpu_seconds()));
            }
            Some(_) => {}
            None => break,
        }
    }
    let row = began.map(|began| load.row("consume", began));
    // What is still on its way is dropped with the channel; then nobody waits for an answer.
    drop(received);
    let closed = tokio::task::spawn_blocking(move || consumer.close()).await?;
    closed.context("the consumer failed")?;
    ensure!(left == 0, "the consumer ended with `{left}` records unread");
    row.context("records come after an assignment")
}
