//! From settings to the parts of a pipeline: the one place where config names meet the stages'
//! own settings.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::output::OutputSettings;
use super::prepare::Preparation;
use super::selection::Selection;
use super::watchdog::Patience;
use crate::admin::Readiness;
use crate::config::{self, Delivery, Settings};
use crate::decode::{EnvelopeSettings, ImageLimits};
use crate::domain::{ClassName, DuplicatePolicy, LineId, ModelIdentity, Topic, ViewId};
use crate::kafka::client::BusSettings;
use crate::kafka::closed_parts::ClosedPartsTopic;
use crate::kafka::consumer_settings::{Commits, ConsumerSettings, Membership, TransactionSettings};
use crate::kafka::stored_records::StoredSource;
use crate::model::AnomalyModel;
use crate::model::bundle::Bundle;
use crate::model::candle_model::CandleModel;
use crate::reassembly::{ExpectedViews, LinePolicy, MemoryMarks, ReassemblySettings};
use crate::schema::result::{ResultContext, ResultFormat, Run, RunKind};
use crate::scoring::{ClassThresholds, JudgeSettings, MapSettings, RegionSettings};
use crate::status::StatusBoard;
use crate::telemetry;

/// The share of the memory budget that librdkafka may prefetch, besides the budget itself.
const PREFETCH_SHARE: u64 = 4;

/// The line of records that name none, when the settings name none either.
const UNNAMED_LINE: &str = "default";

/// Everything that a pipeline is built from.
pub struct PipelineSetup {
    /// The poll thread.
    pub consumer: ConsumerSettings,
    /// What is read in place of the topics.
    pub stored: Option<StoredSource>,
    /// What envelopes do not say themselves, and limits.
    pub envelope: EnvelopeSettings,
    /// How views become groups.
    pub reassembly: ReassemblySettings,
    /// Bytes of records that may be alive.
    pub memory_budget_bytes: u64,
    /// Images a batch at most.
    pub max_batch: usize,
    /// How long a group waits for company while every device has work.
    pub max_delay: Duration,
    /// Views to the model's input.
    pub preparation: Preparation,
    /// The model, once for each device thread; at least one.
    pub models: Vec<Box<dyn AnomalyModel>>,
    /// Thresholds, regions and maps.
    pub judge: JudgeSettings,
    /// Which parts are taken.
    pub selection: Selection,
    /// Where results go.
    pub output: OutputSettings,
    /// Told when the pipeline is ready.
    pub readiness: Readiness,
    /// Where it can be looked at.
    pub board: StatusBoard,
    /// How long it may stand still.
    pub patience: Patience,
}

/// The model of a pipeline, and what its bundle says of it.
pub struct ServedModel {
    /// Its name and version.
    pub identity: ModelIdentity,
    /// The model, once for each device thread; at least one.
    pub models: Vec<Box<dyn AnomalyModel>>,
    /// What it wants of a view.
    pub preparation: Preparation,
    /// Thresholds of the classes that it is calibrated for.
    pub classes: HashMap<ClassName, ClassThresholds>,
}

impl ServedModel {
    /// Loads the bundle that the settings name, and warms it.
    ///
    /// # Errors
    /// When the bundle or the device is not as it should be.
    pub fn load(settings: &Settings) -> anyhow::Result<Self> {
        let bundle = Bundle::load(&settings.model.path)?;
        let identity = bundle.manifest.identity();
        let models = workers(&bundle, &settings.model)?;
        tracing::info!(
            name = identity.name,
            version = identity.version,
            classes = bundle.manifest.classes.len(),
            workers = models.len(),
            "model loaded"
        );
        let preprocessor = bundle.manifest.preprocessor();
        Ok(Self {
            identity,
            models,
            preparation: Preparation::Pixels(preprocessor.map_err(|error| anyhow!(error))?),
            classes: classes(&bundle),
        })
    }
}

/// The model on every device, as often as it is to work there, warm.
fn workers(
    bundle: &Bundle,
    settings: &config::ModelSettings,
) -> anyhow::Result<Vec<Box<dyn AnomalyModel>>> {
    let mut models: Vec<Box<dyn AnomalyModel>> = Vec::new();
    for device in &settings.device.0 {
        let device = device.to_string();
        for worker in 0..settings.workers_per_device {
            let mut model = CandleModel::with_precision(
                bundle,
                &device,
                settings.precision,
                settings.max_batch,
            )?;
            let is_on_gpu = model.is_on_gpu();
            let started = Instant::now();
            model.warm_up().with_context(|| {
                format!(
                    "failed to warm up worker `{worker}` on device `{device}` with batches of up to \
                     `model.max_batch` images"
                )
            })?;
            tracing::debug!(device, worker, took = ?started.elapsed(), "worker warm");
            models.push(Box::new(model));
            if !is_on_gpu {
                break; // the network has all of the processor's threads already
            }
        }
    }
    Ok(models)
}

impl PipelineSetup {
    /// Loads and warms the model and maps the settings to the stages.
    ///
    /// # Errors
    /// When the bundle or the device is not as it should be.
    pub fn from_settings(
        settings: &Settings,
        readiness: Readiness,
        board: StatusBoard,
    ) -> anyhow::Result<Self> {
        let served = ServedModel::load(settings)?;
        Ok(Self::around(served, settings, readiness, board))
    }

    /// Maps the settings to the stages around a model.
    pub fn around(
        served: ServedModel,
        settings: &Settings,
        readiness: Readiness,
        board: StatusBoard,
    ) -> Self {
        let identity = served.identity;
        telemetry::set_model(&identity, None);
        let memory_budget_bytes = settings.reassembly.memory_budget.as_u64();
        let reassembly = reassembly(settings);
        let closed_parts = ClosedPartsTopic::new(
            Topic::new(settings.closed_parts_topic()),
            &settings.bus.group_id,
        );
        let consumer = ConsumerSettings {
            bus: bus_settings(&settings.bus),
            group_id: settings.bus.group_id.clone(),
            subscription: match &settings.input.topic_regex {
                Some(regex) => vec![regex.clone()],
                None => settings.input.topics.clone(),
            },
            commits: commits(settings),
            closed_parts: closed_parts.clone(),
            max_closed_parts: reassembly.closed.max_parts,
            drain_timeout: settings.bus.drain_timeout,
            crowd_patience: longest_timeout(settings),
            prefetch_bytes: memory_budget_bytes / PREFETCH_SHARE,
            range: None,
            most_bytes_per_second: None,
        };
        Self {
            patience: patience(settings, &consumer),
            consumer,
            stored: None,
            envelope: envelope(settings),
            reassembly,
            memory_budget_bytes,
            max_batch: settings.model.max_batch,
            max_delay: settings.model.max_delay,
            preparation: served.preparation,
            models: served.models,
            judge: judge(served.classes, &settings.output),
            selection: Selection::default(),
            output: OutputSettings {
                results: ResultContext {
                    topic: Topic::new(settings.output.results_topic.as_str()),
                    format: match settings.output.format {
                        config::ResultFormat::Msgpack => ResultFormat::Msgpack,
                        config::ResultFormat::Json => ResultFormat::Json,
                    },
                    run: Run {
                        kind: RunKind::Live,
                        id: settings.bus.group_id.clone(),
                    },
                },
                dead_letter_topic: Topic::new(settings.output.dead_letter_topic.as_str()),
                closed_parts,
                max_message_bytes: usize::try_from(settings.output.max_message_bytes.as_u64())
                    .unwrap_or(usize::MAX),
                model: identity,
            },
            readiness,
            board,
        }
    }

    /// Tells this instance from the others of its group in this process: of two with the same transactional
    /// ID the brokers end the earlier one.
    pub fn name_instance(&mut self, number: usize) {
        if let Commits::InTransactions(transactions) = &mut self.consumer.commits {
            transactions.transactional_id += &format!("-{number}");
        }
    }
}

/// What any part may wait for its views.
fn longest_timeout(settings: &Settings) -> Duration {
    let own = settings.lines.values().filter_map(|line| line.timeout);
    own.fold(settings.reassembly.timeout, Duration::max)
}

fn patience(settings: &Settings, consumer: &ConsumerSettings) -> Patience {
    Patience {
        stall_after: settings.watchdog.stall_after,
        rebalance: consumer.longest_rebalance(),
    }
}

fn commits(settings: &Settings) -> Commits {
    match settings.output.delivery {
        Delivery::AtLeastOnce => Commits::Every(settings.bus.commit_interval),
        Delivery::ExactlyOnce => Commits::InTransactions(TransactionSettings {
            transactional_id: transactional_id(&settings.bus),
            interval: settings.output.transactions.interval,
            max_records: settings.output.transactions.max_records,
            timeout: settings.output.transactions.timeout,
            membership: Membership::default(),
        }),
    }
}

/// The name of this instance's producer: a static member's own, so that one which comes back ends
/// at once what it had left open; else one that no other instance has.
fn transactional_id(bus: &config::BusSettings) -> String {
    static PROCESS: OnceLock<u128> = OnceLock::new();
    let instance = match bus.properties.get("group.instance.id") {
        Some(instance) => instance.to_owned(),
        None => format!("{:032x}", *PROCESS.get_or_init(rand::random)),
    };
    format!("{}-{instance}", bus.group_id)
}

/// The bus as its clients see it.
pub fn bus_settings(settings: &config::BusSettings) -> BusSettings {
    BusSettings {
        brokers: settings.brokers.clone(),
        properties: settings
            .properties
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

fn envelope(settings: &Settings) -> EnvelopeSettings {
    EnvelopeSettings {
        default_line: LineId::new(settings.input.line.as_deref().unwrap_or(UNNAMED_LINE)),
        default_class: settings.input.class.as_deref().map(ClassName::new),
        limits: ImageLimits {
            max_bytes: usize::try_from(settings.limits.max_bytes.as_u64()).unwrap_or(usize::MAX),
            max_width: settings.limits.max_width,
            max_height: settings.limits.max_height,
            max_pixels: settings.limits.max_pixels,
        },
    }
}

fn reassembly(settings: &Settings) -> ReassemblySettings {
    let reassembly = &settings.reassembly;
    let line = LinePolicy {
        timeout: reassembly.timeout,
        on_timeout: reassembly.on_timeout.into(),
        duplicates: match reassembly.duplicates {
            config::DuplicatePolicy::FirstWins => DuplicatePolicy::FirstWins,
            config::DuplicatePolicy::LastWins => DuplicatePolicy::LastWins,
        },
    };
    let lines = settings
        .lines
        .iter()
        .map(|(name, own)| {
            let settings = LinePolicy {
                timeout: own.timeout.unwrap_or(line.timeout),
                on_timeout: own.on_timeout.map_or(line.on_timeout, Into::into),
                duplicates: line.duplicates,
            };
            (LineId::new(name.as_str()), settings)
        })
        .collect();
    ReassemblySettings {
        line,
        lines,
        expected: expected_views(&settings.views),
        reuse_after: reassembly.reuse_after,
        max_future: reassembly.max_future,
        idle_after: reassembly.idle_after,
        wall_grace: Some(reassembly.wall_grace),
        memory: MemoryMarks {
            high: reassembly.memory_high,
            low: reassembly.memory_low,
        },
        ..ReassemblySettings::default()
    }
}

fn expected_views(settings: &config::ViewSettings) -> ExpectedViews {
    let views = |names: &[String]| -> Vec<ViewId> {
        names
            .iter()
            .map(|name| ViewId::new(name.as_str()))
            .collect()
    };
    let mut expected = ExpectedViews::for_all(views(&settings.default));
    for (class, names) in &settings.class {
        expected.insert(None, Some(ClassName::new(class.as_str())), views(names));
    }
    for (line, names) in &settings.line {
        expected.insert(Some(LineId::new(line.as_str())), None, views(names));
    }
    expected
}

fn classes(bundle: &Bundle) -> HashMap<ClassName, ClassThresholds> {
    let classes = bundle.manifest.classes.iter();
    classes
        .map(|(class, thresholds)| {
            let thresholds = ClassThresholds {
                score: thresholds.threshold,
                pixel: Some(thresholds.pixel_threshold),
            };
            (ClassName::new(class.as_str()), thresholds)
        })
        .collect()
}

fn judge(
    classes: HashMap<ClassName, ClassThresholds>,
    output: &config::OutputSettings,
) -> JudgeSettings {
    JudgeSettings {
        classes,
        default_pixel_threshold: None,
        regions: RegionSettings {
            max_regions: output.regions.max_per_view,
            min_area: output.regions.min_area,
        },
        maps: output.maps.codec.codec().map(|codec| MapSettings {
            codec,
            side: output.maps.side,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_views_of_a_class_win_over_those_of_its_line_over_the_default() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let settings = config::ViewSettings {
            default: names(&["top", "left"]),
            class: [("gear".to_owned(), names(&["top", "side"]))].into(),
            line: [("line2".to_owned(), names(&["top"]))].into(),
        };
        let expected = expected_views(&settings);
        let views = |line: &str, class: &str| -> Vec<String> {
            let list = expected.list_for(&LineId::from(line), Some(&ClassName::from(class)));
            let views = list.unwrap().views();
            views.iter().map(|view| view.as_str().to_owned()).collect()
        };
        assert_eq!(views("line1", "bolt"), ["top", "left"]);
        assert_eq!(views("line2", "bolt"), ["top"]);
        assert_eq!(views("line2", "gear"), ["top", "side"]);
    }
}
