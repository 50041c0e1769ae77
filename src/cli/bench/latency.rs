//! From a part's last view to its result, as a `read_committed` reader has it.
//!
//! Capacity is measured first: cameras send as fast as results come back, with a bounded number of parts on
//! their way. Then an open-loop load runs at each share of it, by a schedule that was fixed beforehand.
//! Two latencies are told: since the brokers appended the last view (`LogAppendTime`, in whole milliseconds,
//! on clocks that must agree), and since the part was due, which also counts what the cameras' own
//! client takes and what a stalled broker keeps them from sending.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;

use super::line::{BenchLine, LineArguments, RunningPipeline, unless_interrupted};
use super::outcomes::{Outcome, Outcomes};
use super::report::{Report, Row};
use super::schedule::Schedule;
use crate::kafka::record_producer::RecordProducer;

/// The round of the one pipeline.
const ROUND: usize = 0;
/// How long of the search for capacity does not count.
const CAPACITY_WARM_UP: Duration = Duration::from_secs(2);
/// The longest latency that can be told.
const LONGEST: Duration = Duration::from_secs(3600);
/// Parts on their way while capacity is sought, for a stand-in.
const STAND_IN_PARTS: usize = 512;
/// Batches on their way while capacity is sought, for a model.
const MODEL_BATCHES: usize = 6;

/// Flags of `panoptes bench latency`.
#[derive(Args, Clone, Debug)]
pub struct LatencyArguments {
    /// The bus, the settings and the load.
    #[command(flatten)]
    pub line: LineArguments,
    /// Loads, in percent of capacity
    #[arg(long, value_delimiter = ',', default_value = "50,80,100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub load: Vec<u16>,
    /// How long each load lasts
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How long before it the same load runs without counting
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    pub warm_up: Duration,
    /// Parts a second that are taken for capacity, instead of measuring it
    #[arg(long, value_name = "PARTS_PER_SECOND", value_parser = parse_rate)]
    pub capacity: Option<f64>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err(format!("expected parts a second above 0, found `{text}`")),
    }
}

pub(super) async fn run(arguments: LatencyArguments) -> anyhow::Result<Report> {
    let line = Arc::new(BenchLine::create(&arguments.line, 1).await?);
    let measured = unless_interrupted(measure(&line, &arguments)).await;
    line.delete(measured).await
}

async fn measure(line: &Arc<BenchLine>, arguments: &LatencyArguments) -> anyhow::Result<Report> {
    let producer = line.producer()?;
    let mut outcomes = Outcomes::of(line, ROUND)?;
    let mut pipeline = RunningPipeline::start(line, ROUND, 1).await?;
    pipeline.ready().await?;
    let (capacity, mut sent) = match arguments.capacity {
        Some(capacity) => (capacity, 0),
        None => {
            let search = seek_capacity(line, &producer, &mut outcomes, arguments.duration);
            pipeline.while_it_runs(search).await?
        }
    };
    let mut conditions = line.conditions();
    conditions.push(("capacity_parts_per_second", json!(capacity)));
    conditions.push(("capacity_is_measured", json!(arguments.capacity.is_none())));
    let mut report = Report::new("latency", conditions);
    for &percent in &arguments.load {
        let rate = capacity * f64::from(percent) / 100.0;
        let schedule = Schedule::new(rate, arguments.warm_up, arguments.duration);
        let load = Load {
            schedule,
            first: sent,
        };
        let played = load.play(line, &producer, &mut outcomes);
        let latencies = pipeline.while_it_runs(played).await?;
        sent += schedule.parts();
        let mut row = vec![
            ("load_percent", json!(percent)),
            ("parts_per_second", json!(rate)),
            ("parts", json!(latencies.since_append.len())),
        ];
        row.extend(latencies.figures());
        report.push(row);
    }
    pipeline.stop().await?;
    Ok(report)
}

/// Parts a second with a bounded number of parts on their way, and how many were sent.
async fn seek_capacity(
    line: &BenchLine,
    producer: &RecordProducer,
    outcomes: &mut Outcomes,
    duration: Duration,
) -> anyhow::Result<(f64, usize)> {
    let most = parts_on_their_way(line)?;
    let counting_from = Instant::now() + CAPACITY_WARM_UP;
    let counting_until = counting_from + duration;
    let (mut sent, mut answered, mut counted) = (0, 0, 0);
    let mut sending = FuturesUnordered::new();
    loop {
        let is_over = Instant::now() > counting_until;
        while !is_over && sent - answered < most {
            sending.push(line.send(producer, sent));
            sent += 1;
        }
        if is_over && answered == sent {
            let rate = f64::from(counted) / duration.as_secs_f64();
            ensure!(
                rate > 0.0,
                "expected results within `{duration:?}`, found none"
            );
            return Ok((rate, sent));
        }
        tokio::select! {
            Some(acknowledged) = sending.next() => acknowledged?,
            outcome = outcomes.next() => {
                let at = outcome?.at;
                answered += 1;
                counted += u32::from((counting_from..counting_until).contains(&at));
            }
        }
    }
}

fn parts_on_their_way(line: &BenchLine) -> anyhow::Result<usize> {
    if !line.has_model() {
        return Ok(STAND_IN_PARTS);
    }
    let batch = line.settings(ROUND)?.model.max_batch;
    Ok((MODEL_BATCHES * batch).div_ceil(line.images.views().len()))
}

/// One open-loop load.
#[derive(Clone, Copy)]
struct Load {
    schedule: Schedule,
    /// Number of its first part.
    first: usize,
}

impl Load {
    async fn play(
        self,
        line: &Arc<BenchLine>,
        producer: &RecordProducer,
        outcomes: &mut Outcomes,
    ) -> anyhow::Result<Latencies> {
        let start = Instant::now();
        // A set, for it ends them if no result comes.
        let mut cameras = JoinSet::new();
        cameras.spawn(self.send(Arc::clone(line), producer.clone(), start));
        let parts = self.first..self.first + self.schedule.parts();
        let read = outcomes.all_of(parts).await?;
        while let Some(sent) = cameras.join_next().await {
            sent.context("the cameras panicked")??;
        }
        let mut latencies = Latencies::new()?;
        for outcome in read {
            let part = outcome.part - self.first;
            if self.schedule.counts(part) {
                latencies.note(outcome, start + self.schedule.due(part))?;
            }
        }
        Ok(latencies)
    }

    /// Sends each part when it is due, whatever became of those before.
    async fn send(
        self,
        line: Arc<BenchLine>,
        producer: RecordProducer,
        start: Instant,
    ) -> anyhow::Result<()> {
        let mut sending = JoinSet::new();
        for part in 0..self.schedule.parts() {
            tokio::time::sleep_until((start + self.schedule.due(part)).into()).await;
            let (line, producer) = (Arc::clone(&line), producer.clone());
            let number = self.first + part;
            sending.spawn(async move { line.send(&producer, number).await });
        }
        while let Some(sent) = sending.join_next().await {
            sent.context("a camera panicked")??;
        }
        Ok(())
    }
}

/// Latencies in microseconds.
struct Latencies {
    since_append: Histogram<u64>,
    since_due: Histogram<u64>,
}

impl Latencies {
    fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3);
        Ok(Self {
            since_append: histogram()?,
            since_due: histogram()?,
        })
    }

    fn note(&mut self, outcome: Outcome, due: Instant) -> anyhow::Result<()> {
        let since_due = outcome.at.saturating_duration_since(due);
        self.since_append
            .record(outcome.since_append.as_micros() as u64)?;
        self.since_due.record(since_due.as_micros() as u64)?;
        Ok(())
    }

    fn figures(&self) -> Row {
        let at = |histogram: &Histogram<u64>, quantile: f64| {
            json!(histogram.value_at_quantile(quantile) as f64 / 1e3)
        };
        vec![
            ("p50_ms", at(&self.since_append, 0.5)),
            ("p95_ms", at(&self.since_append, 0.95)),
            ("p99_ms", at(&self.since_append, 0.99)),
            ("max_ms", at(&self.since_append, 1.0)),
            ("since_due_p50_ms", at(&self.since_due, 0.5)),
            ("since_due_p95_ms", at(&self.since_due, 0.95)),
            ("since_due_p99_ms", at(&self.since_due, 0.99)),
            ("since_due_max_ms", at(&self.since_due, 1.0)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_counts_from_when_the_part_was_due() {
        let due = Instant::now();
        let mut latencies = Latencies::new().unwrap();
        for millis in [10, 20, 30] {
            let outcome = Outcome {
                part: 0,
                at: due + Duration::from_millis(2 * millis),
                since_append: Duration::from_millis(millis),
            };
            latencies.note(outcome, due).unwrap();
        }
        let figures = latencies.figures();
        let figure = |name: &str| {
            let found = figures.iter().find(|(other, _)| *other == name);
            found.unwrap().1.as_f64().unwrap()
        };
        assert!((figure("p50_ms") - 20.0).abs() < 0.1);
        assert!((figure("since_due_p50_ms") - 40.0).abs() < 0.1);
        assert!((figure("since_due_max_ms") - 60.0).abs() < 0.1);
    }
}
