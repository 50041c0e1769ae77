//! `panoptes produce`: publishes folders of images as camera topics.
//!
//! `<class>/<part>/<view>.jpg` becomes a record on `<topic prefix><view>` whose key is the part. A
//! view that some parts of a class have and one part has not is a view which that part lacks: the
//! header `views` says how many the class has. Every record must be acknowledged; any that was not
//! makes the command fail.

mod folder;
mod pace;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use futures::stream::{FuturesUnordered, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::cli::bus::BusArgs;
use crate::domain::{OutboundRecord, Topic};
use crate::kafka::client::BusSettings;
use crate::kafka::record_producer::RecordProducer;
use crate::kafka::topic_admin::create_topics;

use folder::{PartFolder, find_parts, timestamp_of};
use pace::Pace;
use record::RecordBuilder;

/// How long the brokers may take to answer first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How many records may wait for their acknowledgement: enough to fill a connection, few enough
/// that their images are a bounded share of memory.
const MAX_UNACKNOWLEDGED: usize = 64;

/// What a record takes beside its image: key, headers, envelope. Generous.
const RECORD_OVERHEAD_BYTES: u64 = 64 * 1024;

/// The producer's own default limit of a record, below which ours need not be.
const USUAL_RECORD_BYTES: u64 = 1_000_000;

/// Publish folders of images as camera topics
#[derive(Args, Clone, Debug)]
pub struct ProduceArguments {
    /// Folder of images, as `<class>/<part>/<view>.jpg` (or .png, .bmp, .tif, .webp)
    pub folder: PathBuf,
    /// How to reach the brokers.
    #[command(flatten)]
    pub bus: BusArgs,
    /// What comes before the view in a topic's name
    #[arg(long, default_value = "line1.cam.", value_name = "PREFIX")]
    pub topic_prefix: String,
    /// Parts a second; as fast as the broker takes them if not given
    #[arg(long, value_name = "PARTS_PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Publish parts as far apart as their files were last written, and say that they were taken then
    #[arg(long, conflicts_with = "rate")]
    pub real_time: bool,
    /// How a record carries its image
    #[arg(long, value_enum, default_value_t = Envelope::Image)]
    pub envelope: Envelope,
    /// The line that makes the parts; left to the reader's configuration if not given
    #[arg(long)]
    pub line: Option<String>,
    /// Create the topics that do not exist, with so many partitions
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(u16).range(1..))]
    pub create_topics: Option<u16>,
    /// Send each part's views in a random order, drawn with this seed
    #[arg(long, value_name = "SEED")]
    pub shuffle_views: Option<u64>,
    /// How often to publish the whole folder; the second time on, part IDs end in `-r2`, `-r3`, ...
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
}

/// How a record carries its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Envelope {
    /// The value is the image, all else is in headers
    Image,
    /// The value is a MessagePack map
    Msgpack,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err(format!("expected parts a second above 0, found `{text}`")),
    }
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Parts.
    pub(crate) parts: usize,
    /// Records, all acknowledged.
    pub(crate) records: usize,
    /// Topics.
    pub(crate) topics: usize,
}

/// Runs `panoptes produce`.
///
/// # Errors
/// When the folder or the brokers cannot be used, or a record was not acknowledged.
pub fn run(arguments: &ProduceArguments) -> anyhow::Result<()> {
    let start = Instant::now();
    let published = super::block_on(produce(arguments))?;
    println!(
        "published {} records of {} parts to {} topics in {:.1} s",
        published.records,
        published.parts,
        published.topics,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Publishes the folder.
pub(crate) async fn produce(arguments: &ProduceArguments) -> anyhow::Result<Published> {
    let mut parts = find_parts(&arguments.folder)?;
    let pace = match (arguments.rate, arguments.real_time) {
        (Some(rate), _) => Pace::PartsPerSecond(rate),
        (None, true) => Pace::RealTime,
        (None, false) => Pace::Unbounded,
    };
    pace.sort(&mut parts);
    let topics = topics_of(&parts, &arguments.topic_prefix)?;

    let bus = arguments.bus.settings()?;
    let producer = connect(&bus, &parts).await?;
    if let Some(partitions) = arguments.create_topics {
        create_topics(&bus, &topics, partitions).await?;
    }
    let records = publish(arguments, &parts, pace, &producer).await?;
    Ok(Published {
        parts: parts.len() * arguments.repeat as usize,
        records,
        topics: topics.len(),
    })
}

async fn connect(bus: &BusSettings, parts: &[PartFolder]) -> anyhow::Result<RecordProducer> {
    let largest = parts
        .iter()
        .flat_map(|part| &part.images)
        .map(|image| image.bytes)
        .max()
        .unwrap_or(0);
    let max_bytes = largest
        .saturating_add(RECORD_OVERHEAD_BYTES)
        .max(USUAL_RECORD_BYTES);
    let producer = RecordProducer::connect(bus, usize::try_from(max_bytes).unwrap_or(usize::MAX))
        .context("failed to create the producer")?;
    let asked = producer.clone();
    tokio::task::spawn_blocking(move || asked.reach(CONNECT_TIMEOUT))
        .await?
        .with_context(|| format!("failed to reach the brokers at `{}`", bus.brokers))?;
    Ok(producer)
}

/// The topic of every view, each name checked against Kafka's rules.
fn topics_of(parts: &[PartFolder], prefix: &str) -> anyhow::Result<Vec<Topic>> {
    let names: BTreeSet<String> = parts
        .iter()
        .flat_map(|part| &part.images)
        .map(|image| format!("{prefix}{}", image.view))
        .collect();
    for name in &names {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        ensure!(
            name.len() <= 249 && name.chars().all(is_legal),
            "expected a topic name of at most 249 letters, digits, `.`, `_` and `-`, found `{name}`"
        );
    }
    Ok(names.into_iter().map(Topic::new).collect())
}

/// Sends every part when it is due; says how many records were acknowledged.
async fn publish(
    arguments: &ProduceArguments,
    parts: &[PartFolder],
    pace: Pace,
    producer: &RecordProducer,
) -> anyhow::Result<usize> {
    let images: usize = parts.iter().map(|part| part.images.len()).sum();
    let total = images * arguments.repeat as usize;
    let bar = progress_bar(total)?;
    let mut order = ChaCha8Rng::seed_from_u64(arguments.shuffle_views.unwrap_or(0));
    let mut in_flight = FuturesUnordered::new();
    let mut failures = Failures::default();
    for repetition in 1..=arguments.repeat {
        let start = tokio::time::Instant::now();
        for (index, part) in parts.iter().enumerate() {
            let due = start.checked_add(pace.due(parts, index)).unwrap_or(start);
            let due = tokio::time::sleep_until(due);
            tokio::pin!(due);
            // A send begins when it is first polled, so that what waits here is on its way.
            loop {
                tokio::select! {
                    biased;
                    Some(outcome) = in_flight.next() => failures.count(outcome, &bar),
                    () = &mut due => break,
                }
            }
            let builder = RecordBuilder {
                arguments,
                part,
                repetition,
                now: timestamp_of(SystemTime::now()),
            };
            let mut images: Vec<_> = part.images.iter().collect();
            if arguments.shuffle_views.is_some() {
                images.shuffle(&mut order);
            }
            for image in images {
                while in_flight.len() >= MAX_UNACKNOWLEDGED
                    && let Some(outcome) = in_flight.next().await
                {
                    failures.count(outcome, &bar);
                }
                let bytes = tokio::fs::read(&image.path)
                    .await
                    .with_context(|| format!("failed to read `{}`", image.path.display()))?;
                in_flight.push(send(producer, builder.build(image, bytes)));
            }
        }
    }
    while let Some(outcome) = in_flight.next().await {
        failures.count(outcome, &bar);
    }
    bar.finish_and_clear();
    failures.into_result(total)?;
    Ok(total)
}

async fn send(producer: &RecordProducer, record: OutboundRecord) -> Result<(), (Topic, String)> {
    producer
        .send(&record)
        .await
        .map_err(|error| (record.topic, error.to_string()))
}

fn progress_bar(records: usize) -> anyhow::Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} records, {per_sec}, {eta} left")?;
    Ok(ProgressBar::new(records as u64).with_style(style))
}

/// Records that were not acknowledged: how many of each topic, and the first reason.
#[derive(Debug, Default)]
struct Failures {
    topics: BTreeMap<Topic, (usize, String)>,
}

impl Failures {
    fn count(&mut self, outcome: Result<(), (Topic, String)>, bar: &ProgressBar) {
        bar.inc(1);
        if let Err((topic, reason)) = outcome {
            self.topics.entry(topic).or_insert((0, reason)).0 += 1;
        }
    }

    fn into_result(self, total: usize) -> anyhow::Result<()> {
        if self.topics.is_empty() {
            return Ok(());
        }
        let failed: usize = self.topics.values().map(|(count, _)| count).sum();
        let topics: Vec<String> = self
            .topics
            .iter()
            .map(|(topic, (count, reason))| format!("`{count}` to `{topic}`, first: {reason}"))
            .collect();
        bail!(
            "`{failed}` of `{total}` records were not acknowledged: {}",
            topics.join("; ")
        )
    }
}

#[cfg(test)]
mod tests;
