//! The sections of the settings: each field's meaning, unit, default and when to change it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::Properties;
use super::secrets::redact_brokers;
use super::values::{
    Delivery, Device, Devices, DuplicatePolicy, LogFormat, MapCodecSetting, OnTimeout,
    ResultFormat, exact_size, names, names_by_key,
};
use crate::decode::ImageLimits;
use crate::model::ComputePrecision;
use crate::reassembly::{self, DEFAULT_WALL_GRACE};

/// `[bus]`: the Kafka cluster.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusSettings {
    /// Bootstrap brokers, `host:port`, comma separated. Default `127.0.0.1:9092`.
    pub brokers: String,
    /// Consumer group; instances of one group share the partitions. Default `panoptes`.
    pub group_id: String,
    /// How often finished offsets are committed with [`Delivery::AtLeastOnce`]; otherwise they go with
    /// the transactions. Default 1 s; a shorter interval means fewer repeated results after a crash, and
    /// more commits.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// How long parts in flight may take to finish at a shutdown or before partitions are given
    /// up. Default 20 s; what is not done by then stays uncommitted and is read again.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Any librdkafka property (TLS, SASL, tuning) besides those that Panoptes sets itself.
    pub properties: Properties,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            group_id: "panoptes".to_owned(),
            commit_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(20),
            properties: Properties::default(),
        }
    }
}

impl fmt::Debug for BusSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BusSettings")
            .field("brokers", &redact_brokers(&self.brokers))
            .field("group_id", &self.group_id)
            .field("commit_interval", &self.commit_interval)
            .field("drain_timeout", &self.drain_timeout)
            .field("properties", &self.properties)
            .finish()
    }
}

/// `[input]`: what is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputSettings {
    /// The camera topics. Either this or `topic_regex` must be set.
    #[serde(deserialize_with = "names", skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// The camera topics as a POSIX extended regular expression starting with `^` (`[0-9]`, not
    /// `\d`); topics created later join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_regex: Option<String>,
    /// The line of records without a `line` header. Without it their line is `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The class of records without a `class` header; for lines that make one class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// `[views]`: the views that a part should have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewSettings {
    /// For parts whose class and line have no list of their own. When empty, records must say in
    /// their `views` header how many views the part has.
    #[serde(deserialize_with = "names")]
    pub default: Vec<String>,
    /// By class; this wins over the line's list.
    #[serde(
        deserialize_with = "names_by_key",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub class: BTreeMap<String, Vec<String>>,
    /// By line.
    #[serde(
        deserialize_with = "names_by_key",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub line: BTreeMap<String, Vec<String>>,
}

/// `[reassembly]`: how views become parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReassemblySettings {
    /// How long after its first view a part may wait for the others, in stream time. Default 5 s;
    /// set it to the longest time that a part takes past all cameras, with some room.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// What becomes of a part that is not complete by then. Default `score_partial`.
    pub on_timeout: OnTimeout,
    /// Which image counts when a view comes twice and differs. Default `first_wins`.
    pub duplicates: DuplicatePolicy,
    /// How many bytes of records may be alive at once. Default 512 MiB.
    #[serde(serialize_with = "exact_size")]
    pub memory_budget: ByteSize,
    /// The share of the budget above which intake is paused. Default 0.8.
    pub memory_high: f64,
    /// The share of the budget below which paused intake goes on. Default 0.6.
    pub memory_low: f64,
    /// How long after its publication a part's ID means the same part; after that, a new one.
    /// Default 1 h.
    #[serde(with = "humantime_serde")]
    pub reuse_after: Duration,
    /// How long a partition may bring nothing before stream time no longer waits for it.
    /// Default 2 s; longer than the usual gap between two parts.
    #[serde(with = "humantime_serde")]
    pub idle_after: Duration,
    /// How far beyond its record's Kafka timestamp, and beyond the wall clock, the time of a view may lie
    /// before it is clamped. Default 1 min.
    #[serde(with = "humantime_serde")]
    pub max_future: Duration,
    /// How long beyond `timeout` the wall clock waits before it closes a part, for when the line
    /// stops and stream time with it. Default 2 s.
    #[serde(with = "humantime_serde")]
    pub wall_grace: Duration,
}

impl Default for ReassemblySettings {
    /// Those of the stage itself.
    fn default() -> Self {
        let stage = reassembly::ReassemblySettings::default();
        Self {
            timeout: stage.line.timeout,
            on_timeout: OnTimeout::ScorePartial,
            duplicates: DuplicatePolicy::FirstWins,
            memory_budget: ByteSize::mib(512),
            memory_high: stage.memory.high,
            memory_low: stage.memory.low,
            reuse_after: stage.reuse_after,
            idle_after: stage.idle_after,
            max_future: stage.max_future,
            wall_grace: DEFAULT_WALL_GRACE,
        }
    }
}

/// `[lines.<name>]`: what differs on one line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LineSettings {
    /// Instead of `reassembly.timeout`.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Instead of `reassembly.on_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeout>,
}

/// `[limits]`: bounds on one record, checked before its image is decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Bytes of a record's value. Default 16 MiB.
    #[serde(serialize_with = "exact_size")]
    pub max_bytes: ByteSize,
    /// Image width in pixels. Default 16384.
    pub max_width: u32,
    /// Image height in pixels. Default 16384.
    pub max_height: u32,
    /// Width times height. Default 67108864 (8192 x 8192).
    pub max_pixels: u64,
}

impl Default for LimitSettings {
    /// Those of the stage itself.
    fn default() -> Self {
        let stage = ImageLimits::default();
        Self {
            max_bytes: ByteSize::b(stage.max_bytes as u64),
            max_width: stage.max_width,
            max_height: stage.max_height,
            max_pixels: stage.max_pixels,
        }
    }
}

/// `[model]`: the model that scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// The folder of the model bundle. Default `models/demo`.
    pub path: PathBuf,
    /// Where it runs: `auto`, `cpu`, `cuda:<number>`, or a list of several CUDA devices. Default `auto`.
    pub device: Devices,
    /// Batches that a CUDA device is given at once, by as many workers, each with weights of its own:
    /// one's images are copied while another's are computed. Default 2; 1 saves the device's memory. A
    /// processor has one worker, whatever this says.
    pub workers_per_device: usize,
    /// What it computes in. Default `f32`; `bf16` is faster on CUDA devices, and where the processor has
    /// AVX512-BF16; it is refused where not. Scores move a little: calibrate thresholds in the precision
    /// that is run.
    pub precision: ComputePrecision,
    /// The most images scored at once. Default 32.
    pub max_batch: usize,
    /// How long a part may wait for others to share its batch while the device has other work; one
    /// that has none gets what is there at once. Default 20 ms.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("models/demo"),
            device: Devices(vec![Device::Auto]),
            workers_per_device: 2,
            precision: ComputePrecision::F32,
            max_batch: 32,
            max_delay: Duration::from_millis(20),
        }
    }
}

/// `[watchdog]`: when an instance that stands still starts anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchdogSettings {
    /// How long something may stand still that should move: a partition that is read, a transaction, a
    /// batch on the device. Default 2 min. Longer where one batch takes so long.
    #[serde(with = "humantime_serde")]
    pub stall_after: Duration,
}

impl Default for WatchdogSettings {
    fn default() -> Self {
        Self {
            stall_after: Duration::from_secs(120),
        }
    }
}

/// `[output]`: what is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputSettings {
    /// Where results go. Default `panoptes.results`.
    pub results_topic: String,
    /// Where records that are not scored go. Default `panoptes.dead-letters`.
    pub dead_letter_topic: String,
    /// Where instances tell each other which parts are closed. By default `bus.group_id` and
    /// `-closed-parts`; it is created when it is missing.
    pub closed_parts_topic: Option<String>,
    /// How results are encoded. Default `msgpack`.
    pub format: ResultFormat,
    /// What a crash may do to results. Default `exactly_once`.
    pub delivery: Delivery,
    /// How transactions are made under `exactly_once`.
    pub transactions: TransactionSettings,
    /// The largest message to publish. Default 1 MB, Kafka's own default; at most the broker's
    /// `message.max.bytes`. Maps are left out of a result that would be larger, and the value of
    /// a dead letter that would be; set it above `limits.max_bytes` to keep dead letters whole.
    #[serde(serialize_with = "exact_size")]
    pub max_message_bytes: ByteSize,
    /// Anomaly maps.
    pub maps: MapSettings,
    /// Defect regions.
    pub regions: RegionSettings,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self {
            results_topic: "panoptes.results".to_owned(),
            dead_letter_topic: "panoptes.dead-letters".to_owned(),
            closed_parts_topic: None,
            format: ResultFormat::Msgpack,
            delivery: Delivery::ExactlyOnce,
            transactions: TransactionSettings::default(),
            max_message_bytes: ByteSize::mb(1),
            maps: MapSettings::default(),
            regions: RegionSettings::default(),
        }
    }
}

/// `output.transactions`: how results, dead letters and offsets are committed together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransactionSettings {
    /// The time from one transaction to the next, at least; what is scored meanwhile shares the
    /// next. Default 100 ms: more delays results, less loads the brokers.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// The most records of one transaction. Default 1000.
    pub max_records: usize,
    /// After how long the brokers abort the open transaction of an instance that is gone. Default
    /// 15 s; until then `read_committed` readers, and the next owner of its partitions, wait.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            max_records: 1000,
            timeout: Duration::from_secs(15),
        }
    }
}

/// `output.maps`: how anomaly maps travel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MapSettings {
    /// Compression, or `none` to leave maps out. Default `png`.
    pub codec: MapCodecSetting,
    /// The longer side in map pixels. Default 128.
    pub side: u32,
}

impl Default for MapSettings {
    fn default() -> Self {
        Self {
            codec: MapCodecSetting::Png,
            side: 128,
        }
    }
}

/// `output.regions`: which defect regions are named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegionSettings {
    /// The most regions of one view, highest peak first. Default 16.
    pub max_per_view: usize,
    /// The smallest region, in pixels of the original image. Default 1: every region.
    pub min_area: u32,
}

impl Default for RegionSettings {
    fn default() -> Self {
        Self {
            max_per_view: 16,
            min_area: 1,
        }
    }
}

/// `[admin]`: the operators' HTTP port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Where `/livez`, `/readyz` and `/metrics` are served. Default `127.0.0.1:9464`; port 0 takes
    /// a free one.
    pub listen: SocketAddr,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
        }
    }
}

/// `[telemetry]`: logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// How logs are written. Default `text`.
    pub log_format: LogFormat,
    /// Which events are logged: a level, or `tracing` directives. Default `info`; the environment
    /// variable `RUST_LOG` wins.
    pub log_level: String,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    }
}
