//! Logs, and every metric with its name, help and labels.
//!
//! Stages report through the functions below, so that a metric has one name, one unit and one set
//! of labels. Names start with `panoptes_` and use base units (seconds, bytes); labels take few
//! values: topics, reasons, causes, stages; never a part ID, but for the parts of [`partition_metrics`]
//! that something has gone wrong with. Counters with fixed labels start at 0,
//! so that alert rules see the first event too. Dashboards and alert rules in `deploy/` use exactly
//! these names.

mod catalogue;
pub mod partition_metrics;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tracing_subscriber::EnvFilter;

pub use self::catalogue::*;

use crate::config::{LogFormat, TelemetrySettings};
use crate::domain::{CloseCause, Decision, MemoryBudget, ModelIdentity, RejectReason, Topic};
use crate::schema::dead_letter::Dropped;

/// From half a millisecond (one raw frame) to half a minute (a batch on a slow processor).
const SECONDS_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
    30.0,
];

/// Powers of two, as batches double and halve.
const IMAGE_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Why there are no logs or metrics.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("{origin} is `{filter}`: {reason}")]
    Filter {
        /// The key or variable that it is from.
        origin: &'static str,
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logs were set up before.
    #[error("logs are already set up: {0}")]
    Logs(String),
    /// The metrics recorder cannot be built.
    #[error("cannot build the metrics recorder: {0}")]
    Recorder(#[from] BuildError),
    /// Another recorder is installed.
    #[error("metrics already go to another recorder")]
    OtherRecorder,
}

/// Sends events to standard error, as the settings say; `RUST_LOG` wins over the level there.
///
/// # Errors
/// When the filter cannot be read or logs were set up before.
pub fn init_logs(settings: &TelemetrySettings) -> Result<(), TelemetryError> {
    let of_environment = std::env::var("RUST_LOG").ok();
    let (origin, filter) = match of_environment.filter(|filter| !filter.is_empty()) {
        Some(filter) => ("environment variable `RUST_LOG`", filter),
        None => ("`telemetry.log_level`", settings.log_level.clone()),
    };
    let filter = EnvFilter::builder()
        .parse(&filter)
        .map_err(|error| TelemetryError::Filter {
            origin,
            filter: filter.clone(),
            reason: error.to_string(),
        })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(|error| TelemetryError::Logs(error.to_string()))
}

/// Installs the process's metrics recorder and returns what renders it. A second call returns the
/// same one.
///
/// # Errors
/// When the recorder cannot be built or another one is installed.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::OtherRecorder)?;
    describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(full(STAGE_SECONDS), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(full(END_TO_END_SECONDS), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(full(BATCH_IMAGES), &IMAGE_BUCKETS)?
        .build_recorder())
}

/// Gives every metric its help, and the ones with fixed labels their zero.
fn describe() {
    for (name, kind, unit, help) in CATALOGUE {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
    for reason in RejectReason::ALL {
        counter!(REJECTS, "reason" => reason.as_str()).increment(0);
        counter!(DEAD_LETTERS, "reason" => reason.as_str()).increment(0);
    }
    for cause in CloseCause::ALL {
        counter!(GROUPS_CLOSED, "cause" => cause.as_str()).increment(0);
    }
    offsets_skipped(0, 0);
    for what in Dropped::ALL {
        counter!(DEAD_LETTER_DROPS, "what" => what.as_str()).increment(0);
    }
    for decision in [Decision::Ok, Decision::Ng, Decision::Review] {
        counter!(RESULTS, "decision" => decision.as_str()).increment(0);
    }
    for kind in StallKind::ALL {
        counter!(STALLS, "kind" => kind.label()).increment(0);
    }
    for name in [
        VIEWS,
        ABSORBED,
        CLAMPED_TIMESTAMPS,
        STALE_VIEWS,
        VIEWS_OUT_OF_ORDER,
        MAPS_DROPPED,
        BATCHES,
        COMMITS,
        COMMIT_FAILURES,
        COMMIT_METADATA_CUTS,
        TRANSACTION_ABORTS,
        REBUILDS,
    ] {
        counter!(name).increment(0);
    }
    for name in [
        OPEN_GROUPS,
        PARTITIONER_MISMATCH,
        READING_HELD,
        ASSIGNED_PARTITIONS,
        PAUSED_PARTITIONS,
        UNCOMMITTED_RECORDS,
        READY,
    ] {
        gauge!(name).set(0.0);
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    gauge!(START_TIME).set(since_epoch.unwrap_or_default().as_secs_f64());
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// A stage whose time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Image bytes to pixels.
    Decode,
    /// Pixels to the model's input.
    Preprocess,
    /// The model itself.
    Model,
    /// Maps to a verdict.
    Score,
    /// A record's way into Kafka.
    Publish,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Model => "model",
            Self::Score => "score",
            Self::Publish => "publish",
        }
    }
}

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StallKind {
    /// The poll thread.
    PollThread,
    /// The device.
    Device,
    /// A transaction that stays open.
    Transaction,
    /// Any stage: nothing that is on its way arrives.
    Stages,
    /// A partition that is not read.
    Reading,
    /// A partition that is paused without cause.
    Pause,
    /// A partition's position.
    Position,
}

impl StallKind {
    const ALL: [Self; 7] = [
        Self::PollThread,
        Self::Device,
        Self::Transaction,
        Self::Stages,
        Self::Reading,
        Self::Pause,
        Self::Position,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::PollThread => "poll_thread",
            Self::Device => "device",
            Self::Transaction => "transaction",
            Self::Stages => "stages",
            Self::Reading => "reading",
            Self::Pause => "pause",
            Self::Position => "position",
        }
    }
}

/// A change of the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// Partitions were assigned.
    Assigned,
    /// Partitions were given up in order.
    Revoked,
    /// Partitions were lost: the group went on without this instance.
    Lost,
}

impl Rebalance {
    fn label(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Revoked => "revoked",
            Self::Lost => "lost",
        }
    }
}

/// Counts a record that was read.
pub fn record_read(topic: &Topic, bytes: usize) {
    let label = topic.as_str().to_owned();
    counter!(RECORDS, "topic" => label.clone()).increment(1);
    counter!(RECORD_BYTES, "topic" => label).increment(bytes as u64);
}

/// Counts offsets that no record was read from.
pub fn offsets_skipped(deleted: u64, empty: u64) {
    counter!(SKIPPED_OFFSETS, "reason" => "deleted").increment(deleted);
    counter!(SKIPPED_OFFSETS, "reason" => "empty").increment(empty);
}

/// Counts a view whose envelope was accepted.
pub fn view_accepted() {
    counter!(VIEWS).increment(1);
}

/// Counts a record that will not be scored.
pub fn record_rejected(reason: RejectReason) {
    counter!(REJECTS, "reason" => reason.as_str()).increment(1);
}

/// Counts byte-identical redeliveries.
pub fn records_absorbed(count: u64) {
    counter!(ABSORBED).increment(count);
}

/// Counts timestamps that were clamped.
pub fn timestamps_clamped(count: u64) {
    counter!(CLAMPED_TIMESTAMPS).increment(count);
}

/// Counts closed groups.
pub fn groups_closed(cause: CloseCause, count: u64) {
    counter!(GROUPS_CLOSED, "cause" => cause.as_str()).increment(count);
}

/// Counts views of partitions that were revoked.
pub fn views_stale(count: u64) {
    counter!(STALE_VIEWS).increment(count);
}

/// Counts views that were taken out of order.
pub fn views_out_of_order(count: u64) {
    counter!(VIEWS_OUT_OF_ORDER).increment(count);
}

/// States how many groups wait for views.
pub fn set_open_groups(groups: usize) {
    gauge!(OPEN_GROUPS).set(groups as f64);
}

/// States the memory used and its bound.
pub fn set_memory(budget: &MemoryBudget) {
    gauge!(MEMORY_USED).set(budget.used_bytes() as f64);
    gauge!(MEMORY_LIMIT).set(budget.limit_bytes() as f64);
}

/// Counts a published result.
pub fn result_published(decision: Decision, maps_dropped: bool) {
    counter!(RESULTS, "decision" => decision.as_str()).increment(1);
    if maps_dropped {
        counter!(MAPS_DROPPED).increment(1);
    }
}

/// Counts a published dead letter.
pub fn dead_letter_published(reason: RejectReason) {
    counter!(DEAD_LETTERS, "reason" => reason.as_str()).increment(1);
}

/// Counts what a dead letter went without.
pub fn dead_letter_cut(what: Dropped) {
    counter!(DEAD_LETTER_DROPS, "what" => what.as_str()).increment(1);
}

/// Counts a result that lost its maps only because the broker refused it with them.
pub fn maps_dropped() {
    counter!(MAPS_DROPPED).increment(1);
}

/// Counts a batch and its images.
pub fn batch_closed(images: usize) {
    counter!(BATCHES).increment(1);
    histogram!(BATCH_IMAGES).record(images as f64);
}

/// Records the time of one call of a stage.
pub fn stage_took(stage: Stage, time: Duration) {
    histogram!(STAGE_SECONDS, "stage" => stage.label()).record(time.as_secs_f64());
}

/// Records the time from a part's last view to its published result.
pub fn end_to_end_took(time: Duration) {
    histogram!(END_TO_END_SECONDS).record(time.as_secs_f64());
}

/// States how many partitions this instance reads.
pub fn set_assigned_partitions(partitions: usize) {
    gauge!(ASSIGNED_PARTITIONS).set(partitions as f64);
}

/// States how many partitions are not read for now.
pub fn set_paused_partitions(partitions: usize) {
    gauge!(PAUSED_PARTITIONS).set(partitions as f64);
}

/// Counts a change of the assignment.
pub fn rebalanced(kind: Rebalance) {
    counter!(REBALANCES, "kind" => kind.label()).increment(1);
}

/// Counts a commit of offsets that succeeded.
pub fn offsets_committed() {
    counter!(COMMITS).increment(1);
}

/// Counts a commit of offsets that failed.
pub fn commit_failed() {
    counter!(COMMIT_FAILURES).increment(1);
}

/// Counts a commit that could not tell all that is finished above its position.
pub fn commit_metadata_cut() {
    counter!(COMMIT_METADATA_CUTS).increment(1);
}

/// Counts a transaction that was aborted.
pub fn transaction_aborted() {
    counter!(TRANSACTION_ABORTS).increment(1);
}

/// Counts a pipeline that is built anew.
pub fn pipeline_rebuilt() {
    counter!(REBUILDS).increment(1);
}

/// Counts a standstill.
pub fn stalled(kind: StallKind) {
    counter!(STALLS, "kind" => kind.label()).increment(1);
}

/// States whether keys of camera topics seem to be placed by several partitioners.
pub fn set_partitioner_mismatch(is_mismatch: bool) {
    gauge!(PARTITIONER_MISMATCH).set(f64::from(u8::from(is_mismatch)));
}

/// States whether nothing is read because views of one part might not meet.
pub fn set_reading_held(is_held: bool) {
    gauge!(READING_HELD).set(f64::from(u8::from(is_held)));
}

/// States how many records are read and not yet finished.
pub fn set_uncommitted_records(records: usize) {
    gauge!(UNCOMMITTED_RECORDS).set(records as f64);
}

/// States how far stream time lies behind the wall clock.
pub fn set_stream_time_lag(lag: Duration) {
    gauge!(STREAM_TIME_LAG_SECONDS).set(lag.as_secs_f64());
}

/// States which model is in use, instead of the previous one.
pub fn set_model(model: &ModelIdentity, previous: Option<&ModelIdentity>) {
    if let Some(previous) = previous {
        model_gauge(previous).set(0.0);
    }
    model_gauge(model).set(1.0);
}

fn model_gauge(model: &ModelIdentity) -> metrics::Gauge {
    gauge!(MODEL_INFO, "name" => model.name.clone(), "version" => model.version.clone())
}

/// States whether this instance is ready for work.
pub(crate) fn set_ready(is_ready: bool) {
    gauge!(READY).set(if is_ready { 1.0 } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(report: impl FnOnce()) -> String {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            report();
        });
        handle.render()
    }

    #[test]
    fn every_metric_is_rendered_with_its_help() {
        let text = rendered(|| {
            record_read(&Topic::new("line1.cam.top"), 10);
            set_memory(&MemoryBudget::new(7));
            batch_closed(5);
            stage_took(Stage::Model, Duration::from_millis(3));
            end_to_end_took(Duration::from_millis(30));
            rebalanced(Rebalance::Assigned);
            set_stream_time_lag(Duration::from_millis(1500));
            let model = ModelIdentity {
                name: "demo".to_owned(),
                version: "1".to_owned(),
            };
            set_model(&model, None);
        });
        for (name, _, _, help) in CATALOGUE {
            assert!(
                text.contains(&format!("# HELP {name} {help}")),
                "{name}\n{text}"
            );
            assert!(
                text.contains(&format!("\n{name}")),
                "{name} has no sample\n{text}"
            );
        }
        assert!(
            text.contains("panoptes_records_total{topic=\"line1.cam.top\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("panoptes_stream_time_lag_seconds 1.5"),
            "{text}"
        );
    }

    #[test]
    fn names_have_the_prefix_and_counters_end_in_total() {
        for (name, kind, _, _) in CATALOGUE {
            assert!(name.starts_with("panoptes_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        }
    }

    #[test]
    fn counters_with_fixed_labels_start_at_zero() {
        let text = rendered(|| ());
        for reason in RejectReason::ALL {
            let line = format!("{DEAD_LETTERS}{{reason=\"{}\"}} 0", reason.as_str());
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(
            text.contains("panoptes_groups_closed_total{cause=\"evicted\"} 0"),
            "{text}"
        );
    }

    #[test]
    fn durations_are_histograms_with_buckets() {
        let text = rendered(|| stage_took(Stage::Decode, Duration::from_millis(30)));
        let line = "panoptes_stage_seconds_bucket{stage=\"decode\",le=\"0.05\"} 1";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_swapped_model_leaves_the_old_one_at_zero() {
        let model = |version: &str| ModelIdentity {
            name: "demo".to_owned(),
            version: version.to_owned(),
        };
        let text = rendered(|| {
            set_model(&model("1"), None);
            set_model(&model("2"), Some(&model("1")));
        });
        assert!(
            text.contains("panoptes_model_info{name=\"demo\",version=\"1\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("panoptes_model_info{name=\"demo\",version=\"2\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn dashboard_and_alert_rules_name_only_metrics_that_exist() {
        let name = regex::Regex::new(r"\bpanoptes_[a-z_]+").unwrap();
        for path in [
            "deploy/grafana/dashboards/panoptes.json",
            "deploy/prometheus/alerts.yml",
            "deploy/prometheus/alerts_test.yml",
        ] {
            let text = std::fs::read_to_string(path).unwrap();
            let mut names = 0;
            for found in name.find_iter(&text) {
                names += 1;
                let of_partitions = partition_metrics::CATALOGUE
                    .iter()
                    .chain([&partition_metrics::HOLDER])
                    .map(|metric| metric.name);
                let is_known = of_partitions.clone().any(|known| known == found.as_str())
                    || CATALOGUE.iter().any(|(known, kind, _, _)| {
                        let rest = found.as_str().strip_prefix(known);
                        rest == Some("")
                            || *kind == Kind::Histogram
                                && matches!(rest, Some("_bucket" | "_sum" | "_count"))
                    });
                assert!(is_known, "`{}` in {path}", found.as_str());
            }
            assert!(names > 0, "{path} names no metric");
        }
    }
}
