//! A line of a bench's own on a given bus: topics that are deleted afterwards, cameras, and the pipeline
//! of `run` with the settings of `run`, but for the topics.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytesize::ByteSize;
use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::images::{Images, SEED};
use super::null_model::NullModel;
use super::report::Row;
use crate::admin::{Condition, Readiness};
use crate::cli::config::SettingsArgs;
use crate::cli::replay::{Backlog, LoadModel};
use crate::config::{Delivery, InputSettings, MapCodecSetting, Settings, ViewSettings};
use crate::domain::{Header, OutboundRecord, Topic};
use crate::kafka::client::BusSettings;
use crate::kafka::record_producer::RecordProducer;
use crate::kafka::topic_admin::{create_topics_with, delete_topics};
use crate::pipeline::{self, PipelineSetup, ServedModel};
use crate::status::StatusBoard;

/// What a record takes beside its image. Generous.
const RECORD_OVERHEAD_BYTES: usize = 64 * 1024;
/// The broker's own limit of a record, below which a topic's need not be.
const USUAL_RECORD_BYTES: usize = 1_000_000;
/// How many parts may wait for their acknowledgement while topics are filled.
const UNACKNOWLEDGED_PARTS: usize = 64;
/// How long a pipeline may take to be ready: it joins a group and its producer is initialised.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether it is.
const READY_INTERVAL: Duration = Duration::from_millis(2);

/// Flags of the benches that need a bus.
#[derive(Args, Clone, Debug)]
pub struct LineArguments {
    /// Where the settings come from; topics, group, views and class of them are the bench's own.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Bootstrap servers, over those of the settings
    #[arg(long)]
    pub brokers: Option<String>,
    /// Partitions of each camera topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub partitions: u16,
    /// Score pictures of the demo's parts with this bundle; without it a stand-in that looks at no pixel
    /// takes the model's place, and results carry no maps
    #[arg(long, value_name = "BUNDLE")]
    pub model: Option<PathBuf>,
    /// How long the stand-in takes for an image
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration, conflicts_with = "model")]
    pub model_time: Duration,
    /// Views of a part for the stand-in
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=64), conflicts_with = "model")]
    pub views: u16,
    /// Bytes of a view for the stand-in
    #[arg(long, default_value = "100KB", conflicts_with = "model")]
    pub view_bytes: ByteSize,
}

/// Topics of one bench, and what is sent to them.
pub(super) struct BenchLine {
    settings: Settings,
    /// Where the bus is.
    pub(super) bus: BusSettings,
    /// What the cameras send.
    pub(super) images: Images,
    arguments: LineArguments,
    name: String,
    rounds: usize,
}

impl BenchLine {
    /// Creates the topics: those of the cameras once, those of the pipeline for each of `rounds`.
    pub(super) async fn create(arguments: &LineArguments, rounds: usize) -> anyhow::Result<Self> {
        let mut settings = Settings::read(&arguments.settings.sources())?;
        if let Some(brokers) = &arguments.brokers {
            settings.bus.brokers.clone_from(brokers);
        }
        if let Some(model) = &arguments.model {
            settings.model.path.clone_from(model);
        } else {
            settings.output.maps.codec = MapCodecSetting::None;
        }
        let images = match arguments.model {
            Some(_) => Images::rendered()?,
            None => {
                let bytes = usize::try_from(arguments.view_bytes.as_u64()).unwrap_or(usize::MAX);
                Images::random(usize::from(arguments.views), bytes)
            }
        };
        let line = Self {
            bus: pipeline::bus_settings(&settings.bus),
            settings,
            images,
            arguments: arguments.clone(),
            name: format!("panoptes-bench.{:08x}", rand::random::<u32>()),
            rounds,
        };
        line.settings(0)?;
        let limit = line.largest_record().to_string();
        let properties = [
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", limit.as_str()),
        ];
        create_topics_with(&line.bus, &line.topics(), arguments.partitions, &properties).await?;
        Ok(line)
    }

    /// Deletes all that was created, and gives `outcome` back.
    pub(super) async fn delete<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        let groups = (0..self.rounds).flat_map(|round| {
            let group = self.group(round);
            // Those of a replay, too.
            [format!("{group}-begin"), format!("{group}-end"), group]
        });
        let groups: Vec<String> = groups.collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let deleted = delete_topics(&self.bus, &self.topics(), &groups).await;
        let outcome = outcome?;
        deleted.with_context(|| format!("topics and groups of `{}` are left", self.name))?;
        Ok(outcome)
    }

    /// What every bench on a bus was measured under.
    pub(super) fn conditions(&self) -> Row {
        let output = &self.settings.output;
        let model = self.arguments.model.as_ref();
        vec![
            (
                "model",
                json!(model.map_or("none".to_owned(), |path| path.display().to_string())),
            ),
            (
                "model_time_ms",
                json!(self.arguments.model_time.as_secs_f64() * 1e3),
            ),
            (
                "delivery",
                json!(match output.delivery {
                    Delivery::AtLeastOnce => "at_least_once",
                    Delivery::ExactlyOnce => "exactly_once",
                }),
            ),
            (
                "transaction_interval_ms",
                json!(output.transactions.interval.as_millis()),
            ),
            ("max_batch", json!(self.settings.model.max_batch)),
            (
                "max_delay_ms",
                json!(self.settings.model.max_delay.as_millis()),
            ),
            ("views", json!(self.images.views().len())),
            ("part_bytes", json!(self.images.mean_part_bytes().round())),
            ("partitions", json!(self.arguments.partitions)),
            ("seed", json!(SEED)),
        ]
    }

    /// Whether a model scores the parts, and no stand-in.
    pub(super) fn has_model(&self) -> bool {
        self.arguments.model.is_some()
    }

    /// The camera topics.
    pub(super) fn cameras(&self) -> Vec<Topic> {
        let views = self.images.views().iter();
        views.map(|view| self.camera(view)).collect()
    }

    /// Where the pipeline of a round publishes.
    pub(super) fn results(&self, round: usize) -> Topic {
        Topic::new(format!("{}.results.{round}", self.name))
    }

    /// A regular expression of the camera topics alone.
    pub(super) fn cameras_regex(&self) -> String {
        format!("{}\\.cam\\..+", self.name.replace('.', "\\."))
    }

    fn camera(&self, view: &str) -> Topic {
        Topic::new(format!("{}.cam.{view}", self.name))
    }

    fn dead_letters(&self, round: usize) -> Topic {
        Topic::new(format!("{}.dead-letters.{round}", self.name))
    }

    fn closed_parts(&self, round: usize) -> Topic {
        Topic::new(format!("{}.closed-parts.{round}", self.name))
    }

    fn group(&self, round: usize) -> String {
        format!("{}.{round}", self.name)
    }

    fn topics(&self) -> Vec<Topic> {
        let mut topics = self.cameras();
        for round in 0..self.rounds {
            topics.extend([
                self.results(round),
                self.dead_letters(round),
                self.closed_parts(round),
            ]);
        }
        topics
    }

    fn largest_record(&self) -> usize {
        USUAL_RECORD_BYTES.max(self.images.largest_bytes() + RECORD_OVERHEAD_BYTES)
    }

    /// The settings of a round's pipeline.
    ///
    /// # Errors
    /// When those given break a rule.
    pub(super) fn settings(&self, round: usize) -> anyhow::Result<Settings> {
        let mut settings = self.settings.clone();
        settings.bus.group_id = self.group(round);
        settings.input = InputSettings {
            topics: self.cameras().iter().map(Topic::to_string).collect(),
            line: Some("bench".to_owned()),
            ..InputSettings::default()
        };
        settings.views = ViewSettings {
            default: self.images.views().to_vec(),
            ..ViewSettings::default()
        };
        settings.lines.clear();
        settings.output.results_topic = self.results(round).to_string();
        settings.output.dead_letter_topic = self.dead_letters(round).to_string();
        settings.output.closed_parts_topic = Some(self.closed_parts(round).to_string());
        settings.validate()?;
        Ok(settings)
    }

    /// All that an instance of a round's pipeline is built from.
    pub(super) async fn setup(
        &self,
        round: usize,
        instance: usize,
        readiness: Readiness,
    ) -> anyhow::Result<PipelineSetup> {
        let settings = self.settings(round)?;
        let load = self.load_model();
        tokio::task::spawn_blocking(move || {
            let served = load(&settings)?;
            let board = StatusBoard::default();
            let mut setup = PipelineSetup::around(served, &settings, readiness, board);
            setup.name_instance(instance);
            Ok(setup)
        })
        .await
        .context("failed to set up")?
    }

    fn load_model(&self) -> LoadModel {
        match (self.has_model(), self.arguments.model_time) {
            (true, _) => Arc::new(ServedModel::load),
            (false, time) => Arc::new(move |_: &Settings| Ok(NullModel::served(time))),
        }
    }

    /// A producer for the cameras.
    pub(super) fn producer(&self) -> anyhow::Result<RecordProducer> {
        RecordProducer::connect(&self.bus, self.largest_record())
            .context("failed to connect the cameras")
    }

    /// The ID of a part.
    pub(super) fn part_id(part: usize) -> String {
        format!("part-{part:09}")
    }

    /// The records of a part's views.
    pub(super) fn records(&self, part: usize) -> Vec<OutboundRecord> {
        let header = |name: &str, value: &str| Header {
            name: name.to_owned(),
            value: Some(value.into()),
        };
        let views = self.images.views().iter().enumerate();
        let record = |(number, view): (usize, &String)| OutboundRecord {
            topic: self.camera(view),
            partition: None,
            key: Some(Self::part_id(part).into_bytes()),
            value: Some(self.images.image_of(part, number).to_vec()),
            headers: vec![
                header("content-type", "image/jpeg"),
                header("class", self.images.class_of(part)),
            ],
        };
        views.map(record).collect()
    }

    /// Sends a part's views and waits until the brokers have them.
    pub(super) async fn send(&self, producer: &RecordProducer, part: usize) -> anyhow::Result<()> {
        let records = self.records(part);
        let sent = records.iter().map(|record| producer.send(record));
        futures::future::try_join_all(sent)
            .await
            .with_context(|| format!("failed to send part `{part}`"))?;
        Ok(())
    }

    /// Sends parts as fast as the brokers take them.
    pub(super) async fn fill(&self, producer: &RecordProducer, parts: usize) -> anyhow::Result<()> {
        stream::iter(0..parts)
            .map(|part| self.send(producer, part))
            .buffer_unordered(UNACKNOWLEDGED_PARTS)
            .try_collect()
            .await
    }
}

/// A pipeline under way, in one or more instances that share its group.
pub(super) struct RunningPipeline {
    stop: watch::Sender<()>,
    instances: JoinSet<anyhow::Result<()>>,
    readiness: Vec<Readiness>,
    /// As a replay does.
    ends_by_itself: bool,
}

impl RunningPipeline {
    /// Starts the pipeline of a round; it may not be ready yet.
    pub(super) async fn start(
        line: &BenchLine,
        round: usize,
        instances: usize,
    ) -> anyhow::Result<Self> {
        let mut running = Self {
            stop: watch::Sender::new(()),
            instances: JoinSet::new(),
            readiness: Vec::new(),
            ends_by_itself: false,
        };
        for instance in 0..instances {
            let readiness = Readiness::default();
            let setup = line.setup(round, instance, readiness.clone()).await?;
            let mut stopped = running.stop.subscribe();
            running.instances.spawn(pipeline::run(setup, async move {
                stopped.changed().await.ok(); // the bench's own end by error stops it too
            }));
            running.readiness.push(readiness);
        }
        Ok(running)
    }

    /// The same as a replay of all that there is, which ends by itself.
    pub(super) async fn replay(
        line: &BenchLine,
        round: usize,
        instances: usize,
    ) -> anyhow::Result<Self> {
        let (settings, load) = (line.settings(round)?, line.load_model());
        let made = move || Backlog::new(settings, load, instances);
        let backlog = tokio::task::spawn_blocking(made)
            .await
            .context("failed to make the replay")??;
        let readiness = backlog.readiness();
        let mut instances = JoinSet::new();
        instances.spawn(backlog.run());
        Ok(Self {
            stop: watch::Sender::new(()),
            instances,
            readiness,
            ends_by_itself: true,
        })
    }

    /// Waits until every instance has its partitions, and reads; of a replay until one does, which does not
    /// wait for the others.
    pub(super) async fn assigned(&mut self) -> anyhow::Result<()> {
        let (readiness, is_replay) = (self.readiness.clone(), self.ends_by_itself);
        let is_assigned = |one: &Readiness| one.is_met(Condition::ConsumerAssigned);
        let are_assigned = move || match is_replay {
            true => readiness.iter().any(is_assigned),
            false => readiness.iter().all(is_assigned),
        };
        self.while_it_runs(until(are_assigned)).await
    }

    /// Waits until every instance can do all that it should.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let readiness = self.readiness.clone();
        self.while_it_runs(until(move || readiness.iter().all(Readiness::is_ready)))
            .await
    }

    /// Waits for `work`, but not beyond the end of an instance.
    pub(super) async fn while_it_runs<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::pin!(work);
        tokio::select! {
            worked = &mut work => return worked,
            Some(ended) = self.instances.join_next() => {
                ended.context("the pipeline panicked")?.context("the pipeline failed")?;
            }
        }
        ensure!(
            self.ends_by_itself,
            "the pipeline ended before it was told to"
        );
        work.await
    }

    /// Drains it.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stop);
        while let Some(ended) = self.instances.join_next().await {
            ended.context("the pipeline panicked")??;
        }
        Ok(())
    }
}

async fn until(holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + READY_PATIENCE;
    while !holds() {
        if tokio::time::Instant::now() > deadline {
            bail!("the pipeline was not ready after `{READY_PATIENCE:?}`");
        }
        tokio::time::sleep(READY_INTERVAL).await;
    }
    Ok(())
}

/// Waits for `work`, unless the user interrupts it: then what was created is still deleted.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        worked = work => worked,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}
