//! Every metric: its name, its kind, its unit and its help.
//!
//! It measures nothing; the functions beside it do, by these names.

use metrics::Unit;

/// Records read, by `topic`.
pub const RECORDS: &str = "panoptes_records_total";
/// Bytes of records read (key, value, headers), by `topic`.
pub const RECORD_BYTES: &str = "panoptes_record_bytes_total";
/// Offsets of camera topics that no record was read from, by `reason`.
pub const SKIPPED_OFFSETS: &str = "panoptes_skipped_offsets_total";
/// Views whose envelope was accepted.
pub const VIEWS: &str = "panoptes_views_total";
/// Records that will not be scored, by `reason`.
pub const REJECTS: &str = "panoptes_rejects_total";
/// Byte-identical redeliveries that were absorbed.
pub const ABSORBED: &str = "panoptes_absorbed_records_total";
/// Record timestamps too far in the future, taken as less.
pub const CLAMPED_TIMESTAMPS: &str = "panoptes_clamped_timestamps_total";
/// Groups closed, by `cause`.
pub const GROUPS_CLOSED: &str = "panoptes_groups_closed_total";
/// Views of partitions that were revoked while the views waited; their next owner reads them again.
pub const STALE_VIEWS: &str = "panoptes_stale_views_total";
/// Views taken before what may have been written earlier was read.
pub const VIEWS_OUT_OF_ORDER: &str = "panoptes_views_out_of_order_total";
/// Groups that wait for views.
pub const OPEN_GROUPS: &str = "panoptes_open_groups";
/// Bytes of records alive.
pub const MEMORY_USED: &str = "panoptes_memory_used_bytes";
/// The memory budget.
pub const MEMORY_LIMIT: &str = "panoptes_memory_limit_bytes";
/// Results published, by `decision`.
pub const RESULTS: &str = "panoptes_results_total";
/// Results whose maps were left out to meet the message limit.
pub const MAPS_DROPPED: &str = "panoptes_maps_dropped_total";
/// Dead letters published, by `reason`.
pub const DEAD_LETTERS: &str = "panoptes_dead_letters_total";
/// What dead letters went without to meet the message limit, by `what`.
pub const DEAD_LETTER_DROPS: &str = "panoptes_dead_letter_drops_total";
/// Batches given to the model.
pub const BATCHES: &str = "panoptes_batches_total";
/// Images in a batch.
pub const BATCH_IMAGES: &str = "panoptes_batch_images";
/// Time spent in a `stage`, for one call of it.
pub const STAGE_SECONDS: &str = "panoptes_stage_seconds";
/// Time from a part's last view to its published result.
pub const END_TO_END_SECONDS: &str = "panoptes_end_to_end_seconds";
/// Partitions this instance reads.
pub const ASSIGNED_PARTITIONS: &str = "panoptes_assigned_partitions";
/// Partitions that are not read for now: paused for memory, for too much that is unfinished or for the order
/// of an archive, or all of them, while the stages behind are full or reading is held.
pub const PAUSED_PARTITIONS: &str = "panoptes_paused_partitions";
/// Changes of the assignment, by `kind`.
pub const REBALANCES: &str = "panoptes_rebalances_total";
/// Offset commits that succeeded.
pub const COMMITS: &str = "panoptes_commits_total";
/// Offset commits that failed.
pub const COMMIT_FAILURES: &str = "panoptes_commit_failures_total";
/// Commits whose metadata could not hold all that is finished above the position.
pub const COMMIT_METADATA_CUTS: &str = "panoptes_commit_metadata_cuts_total";
/// Transactions that were aborted and made again.
pub const TRANSACTION_ABORTS: &str = "panoptes_transaction_aborts_total";
/// Pipelines that were built anew from what the group has committed.
pub const REBUILDS: &str = "panoptes_pipeline_rebuilds_total";
/// Standstills that the watchdog has found, by `kind`.
pub const STALLS: &str = "panoptes_stalls_total";
/// Records read whose fate is not yet acknowledged by the brokers, so that no commit passes them.
pub const UNCOMMITTED_RECORDS: &str = "panoptes_uncommitted_records";
/// 1 while keys of camera topics seem to be placed by several partitioners.
pub const PARTITIONER_MISMATCH: &str = "panoptes_partitioner_mismatch";
/// 1 while nothing is read, since the views of a part might not meet.
pub const READING_HELD: &str = "panoptes_reading_held";
/// How far stream time lies behind the wall clock.
pub const STREAM_TIME_LAG_SECONDS: &str = "panoptes_stream_time_lag_seconds";
/// 1 for the model in use, by `name` and `version`.
pub const MODEL_INFO: &str = "panoptes_model_info";
/// When the process began to measure, in seconds since the Unix epoch.
pub const START_TIME: &str = "panoptes_start_time_seconds";
/// 1 for this build, by `version`.
pub const BUILD_INFO: &str = "panoptes_build_info";
/// 1 when `/readyz` says ready, else 0.
pub const READY: &str = "panoptes_ready";

/// What a metric counts or measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Every metric: name, kind, unit and help.
pub const CATALOGUE: [(&str, Kind, Unit, &str); 38] = [
    (
        RECORDS,
        Kind::Counter,
        Unit::Count,
        "Records read, by topic.",
    ),
    (
        RECORD_BYTES,
        Kind::Counter,
        Unit::Bytes,
        "Bytes of records read, by topic.",
    ),
    (
        SKIPPED_OFFSETS,
        Kind::Counter,
        Unit::Count,
        "Offsets of camera topics that no record was read from: deleted before they were read, or empty \
         (compaction, transaction markers, aborted transactions).",
    ),
    (
        VIEWS,
        Kind::Counter,
        Unit::Count,
        "Views whose envelope was accepted.",
    ),
    (
        REJECTS,
        Kind::Counter,
        Unit::Count,
        "Records that will not be scored, by reason.",
    ),
    (
        ABSORBED,
        Kind::Counter,
        Unit::Count,
        "Byte-identical redeliveries that were absorbed.",
    ),
    (
        CLAMPED_TIMESTAMPS,
        Kind::Counter,
        Unit::Count,
        "Record timestamps clamped for lying too far in the future.",
    ),
    (
        GROUPS_CLOSED,
        Kind::Counter,
        Unit::Count,
        "Groups closed, by cause.",
    ),
    (
        VIEWS_OUT_OF_ORDER,
        Kind::Counter,
        Unit::Count,
        "Views of a backlog taken before what may have been written earlier was read, for want of memory or because clocks differ.",
    ),
    (
        STALE_VIEWS,
        Kind::Counter,
        Unit::Count,
        "Views dropped because their partitions were revoked while they waited.",
    ),
    (
        OPEN_GROUPS,
        Kind::Gauge,
        Unit::Count,
        "Groups that wait for views.",
    ),
    (
        MEMORY_USED,
        Kind::Gauge,
        Unit::Bytes,
        "Bytes of records alive.",
    ),
    (MEMORY_LIMIT, Kind::Gauge, Unit::Bytes, "The memory budget."),
    (
        RESULTS,
        Kind::Counter,
        Unit::Count,
        "Results published, by decision.",
    ),
    (
        MAPS_DROPPED,
        Kind::Counter,
        Unit::Count,
        "Results whose maps were left out to meet the message limit.",
    ),
    (
        DEAD_LETTERS,
        Kind::Counter,
        Unit::Count,
        "Dead letters published, by reason.",
    ),
    (
        DEAD_LETTER_DROPS,
        Kind::Counter,
        Unit::Count,
        "Values, headers and keys that dead letters went without to meet the message limit.",
    ),
    (
        BATCHES,
        Kind::Counter,
        Unit::Count,
        "Batches given to the model.",
    ),
    (
        BATCH_IMAGES,
        Kind::Histogram,
        Unit::Count,
        "Images in a batch.",
    ),
    (
        STAGE_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "Time spent in one call of a stage.",
    ),
    (
        END_TO_END_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "Time from a part's last view to its published result.",
    ),
    (
        ASSIGNED_PARTITIONS,
        Kind::Gauge,
        Unit::Count,
        "Partitions this instance reads.",
    ),
    (
        PAUSED_PARTITIONS,
        Kind::Gauge,
        Unit::Count,
        "Partitions that are not read for now, for whatever reason.",
    ),
    (
        REBALANCES,
        Kind::Counter,
        Unit::Count,
        "Changes of the assignment, by kind.",
    ),
    (
        COMMITS,
        Kind::Counter,
        Unit::Count,
        "Offset commits that succeeded.",
    ),
    (
        COMMIT_FAILURES,
        Kind::Counter,
        Unit::Count,
        "Offset commits that failed.",
    ),
    (
        COMMIT_METADATA_CUTS,
        Kind::Counter,
        Unit::Count,
        "Commits that could not tell all that is finished out of order.",
    ),
    (
        TRANSACTION_ABORTS,
        Kind::Counter,
        Unit::Count,
        "Transactions that were aborted and made again.",
    ),
    (
        REBUILDS,
        Kind::Counter,
        Unit::Count,
        "Pipelines built anew from what the group has committed.",
    ),
    (
        STALLS,
        Kind::Counter,
        Unit::Count,
        "Standstills that the watchdog has found.",
    ),
    (
        PARTITIONER_MISMATCH,
        Kind::Gauge,
        Unit::Count,
        "1 while keys of camera topics seem to be placed by several partitioners.",
    ),
    (
        READING_HELD,
        Kind::Gauge,
        Unit::Count,
        "1 while nothing is read, since the views of a part might not meet.",
    ),
    (
        UNCOMMITTED_RECORDS,
        Kind::Gauge,
        Unit::Count,
        "Records read whose fate is not yet acknowledged by the brokers.",
    ),
    (
        STREAM_TIME_LAG_SECONDS,
        Kind::Gauge,
        Unit::Seconds,
        "How far stream time lies behind the wall clock.",
    ),
    (
        MODEL_INFO,
        Kind::Gauge,
        Unit::Count,
        "1 for the model in use.",
    ),
    (
        START_TIME,
        Kind::Gauge,
        Unit::Seconds,
        "When the process began to measure, since the Unix epoch.",
    ),
    (BUILD_INFO, Kind::Gauge, Unit::Count, "1 for this build."),
    (
        READY,
        Kind::Gauge,
        Unit::Count,
        "1 when ready for work, else 0.",
    ),
];
