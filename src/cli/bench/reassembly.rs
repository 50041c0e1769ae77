//! Envelopes and reassembly alone: records as the poll thread gives them, to closed groups.
//!
//! A line at a takt sends part after part, each camera some parts behind the one before, so that groups
//! are open side by side. Time is that of the records, which is how reassembly knows time; the wall clock
//! only measures. The memory of closed parts is filled once stream time has gone on for `reuse_after`
//! (an hour): from then on memory must not grow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytesize::ByteSize;
use clap::Args;
use serde_json::json;

use super::report::Report;
use super::usage;
use crate::decode::{EnvelopeDecoder, EnvelopeSettings, ImageLimits};
use crate::domain::{
    Header, LineId, MemoryBudget, Record, SourceOffset, Timestamp, Topic, TopicPartition, ViewId,
};
use crate::reassembly::{Event, ExpectedViews, ReassemblyBuffer, ReassemblySettings};

/// The assignment of all partitions.
const GENERATION: u64 = 1;
/// When the line starts: 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// Into so many shares of the parts memory and pace are told apart.
const SHARES: usize = 10;
/// Steps of the line whose records are made before they are taken in, so that making them is not measured.
const CHUNK: usize = 200;

/// Flags of `panoptes bench reassembly`.
#[derive(Args, Clone, Debug)]
pub struct ReassemblyArguments {
    /// Parts
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(10..))]
    pub parts: u32,
    /// Views of a part
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub views: u16,
    /// Bytes of a view
    #[arg(long, default_value = "1KB")]
    pub view_bytes: ByteSize,
    /// Partitions of each camera topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub partitions: u16,
    /// Parts that are open at once; at this takt they must not wait for longer than 5 s
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub open: u32,
    /// From one part to the next, by the records' own time
    #[arg(long, default_value = "200ms", value_parser = humantime::parse_duration)]
    pub takt: Duration,
    /// How long closed parts are remembered, by the records' own time (`reassembly.reuse_after`)
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub reuse_after: Duration,
}

pub(super) fn run(arguments: &ReassemblyArguments) -> anyhow::Result<Report> {
    let conditions = vec![
        ("parts", json!(arguments.parts)),
        ("views", json!(arguments.views)),
        ("view_bytes", json!(arguments.view_bytes.as_u64())),
        ("partitions", json!(arguments.partitions)),
        ("open_parts", json!(arguments.open)),
        ("takt_ms", json!(arguments.takt.as_millis())),
        ("reuse_after_s", json!(arguments.reuse_after.as_secs())),
    ];
    let mut report = Report::new("reassembly", conditions);
    let mut line = SimulatedLine::new(arguments);
    let stage = Stage::new(arguments);
    let steps = arguments.parts as usize + line.longest_lag();
    for share in 1..=SHARES {
        let until = steps * share / SHARES;
        let mut taken = Taken::default();
        while line.step < until {
            let records = line.records(CHUNK.min(until - line.step));
            let now = line.now();
            let started = Instant::now();
            let views = records.len();
            for record in records {
                taken.parts += stage.take_in(record, now)?;
            }
            taken.time += started.elapsed();
            taken.views += views;
        }
        report.push(vec![
            ("share", json!(format!("{share}/{SHARES}"))),
            ("parts_closed", json!(taken.parts)),
            (
                "views_per_second",
                json!(taken.views as f64 / taken.time.as_secs_f64()),
            ),
            ("resident_mib", json!(usage::resident_mib())),
        ]);
    }
    let counts = stage.buffer.counts();
    ensure!(
        counts.complete == u64::from(arguments.parts),
        "expected `{}` complete parts, found `{}`",
        arguments.parts,
        counts.complete
    );
    Ok(report)
}

#[derive(Default)]
struct Taken {
    views: usize,
    parts: usize,
    time: Duration,
}

/// Decoder and buffer, as the pipeline's intake has them.
struct Stage {
    decoder: EnvelopeDecoder,
    buffer: ReassemblyBuffer,
}

impl Stage {
    fn new(arguments: &ReassemblyArguments) -> Self {
        let views = (0..arguments.views).map(|view| ViewId::new(view_name(view)));
        let buffer = ReassemblyBuffer::new(ReassemblySettings {
            expected: ExpectedViews::for_all(views),
            reuse_after: arguments.reuse_after,
            ..ReassemblySettings::default()
        });
        let partitions: Vec<TopicPartition> = (0..arguments.views)
            .flat_map(|view| {
                let partitions = 0..i32::from(arguments.partitions);
                partitions.map(move |partition| TopicPartition {
                    topic: topic(view),
                    partition,
                })
            })
            .collect();
        buffer.assign(&partitions, GENERATION, Timestamp(EPOCH_MS));
        Self {
            buffer,
            decoder: EnvelopeDecoder::new(EnvelopeSettings {
                default_line: LineId::from("bench"),
                default_class: None,
                limits: ImageLimits::default(),
            }),
        }
    }

    /// Takes a record in; says how many parts that closed.
    fn take_in(&self, record: Record, now: Timestamp) -> anyhow::Result<usize> {
        let view = self.decoder.decode(Arc::new(record), now);
        let view = view.map_err(|reject| anyhow::anyhow!("record rejected: {}", reject.error))?;
        let mut closed = 0;
        for event in self.buffer.accept(view, now) {
            match event {
                Event::Closed(group, _) => {
                    closed += 1;
                    if let Some(record) = group.records().next() {
                        let (source, generation) = (&record.source, record.generation);
                        self.buffer.mark_published(&group.part, source, generation);
                    }
                }
                Event::Rejected(reject) => anyhow::bail!("view rejected: {}", reject.error),
                Event::Expired { rejects, .. } => {
                    anyhow::bail!("a part with `{}` of its views expired", rejects.len())
                }
                Event::Finished(records) => {
                    anyhow::bail!("`{}` records taken for copies", records.len())
                }
            }
        }
        Ok(closed)
    }
}

/// Cameras that send one part a step, each some parts behind the one before.
struct SimulatedLine<'a> {
    arguments: &'a ReassemblyArguments,
    budget: MemoryBudget,
    step: usize,
    image: Vec<u8>,
}

impl<'a> SimulatedLine<'a> {
    fn new(arguments: &'a ReassemblyArguments) -> Self {
        let bytes = usize::try_from(arguments.view_bytes.as_u64()).unwrap_or(usize::MAX);
        Self {
            arguments,
            budget: MemoryBudget::new(u64::MAX),
            step: 0,
            image: vec![7; bytes.max(1)],
        }
    }

    /// How many parts a camera is behind the first.
    fn lag(&self, view: u16) -> usize {
        let steps = usize::from(self.arguments.views - 1).max(1);
        self.arguments.open as usize * usize::from(view) / steps
    }

    fn longest_lag(&self) -> usize {
        self.lag(self.arguments.views - 1)
    }

    /// The time on the line.
    fn now(&self) -> Timestamp {
        let takt = self.arguments.takt.as_millis() as i64;
        Timestamp(EPOCH_MS + self.step as i64 * takt)
    }

    /// What the cameras send in the next steps.
    fn records(&mut self, steps: usize) -> Vec<Record> {
        let mut records = Vec::with_capacity(steps * usize::from(self.arguments.views));
        for _ in 0..steps {
            for view in 0..self.arguments.views {
                let part = self.step.checked_sub(self.lag(view));
                let part = part.filter(|part| *part < self.arguments.parts as usize);
                records.extend(part.map(|part| self.record(part, view)));
            }
            self.step += 1;
        }
        records
    }

    fn record(&self, part: usize, view: u16) -> Record {
        let partitions = usize::from(self.arguments.partitions);
        let mut record = Record {
            source: SourceOffset {
                topic: topic(view),
                partition: (part % partitions) as i32,
                offset: (part / partitions) as i64,
            },
            generation: GENERATION,
            key: Some(format!("part-{part:09}").into_bytes()),
            value: Some(self.image.clone()),
            headers: vec![Header {
                name: "content-type".to_owned(),
                value: Some(b"image/jpeg".to_vec()),
            }],
            timestamp: Some(self.now()),
            lease: None,
        };
        record.lease = Some(self.budget.lease(record.size_bytes()));
        record
    }
}

fn view_name(view: u16) -> String {
    format!("view{view}")
}

fn topic(view: u16) -> Topic {
    Topic::new(format!("bench.cam.{}", view_name(view)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_small_line_is_closed_complete() {
        let arguments = ReassemblyArguments {
            parts: 95,
            views: 3,
            view_bytes: ByteSize::b(10),
            partitions: 2,
            open: 7,
            takt: Duration::from_millis(100),
            reuse_after: Duration::from_secs(3600),
        };
        let report = run(&arguments).unwrap().to_json();
        let rows = report["rows"].as_array().unwrap();
        let closed = rows.iter().map(|row| row["parts_closed"].as_u64().unwrap());
        assert_eq!((rows.len(), closed.sum::<u64>()), (SHARES, 95));
    }
}
