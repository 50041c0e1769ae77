//! What an instance is doing, partition by partition: what `/status` answers, `panoptes status` prints
//! and the watchdog judges.
//!
//! A status is taken when somebody asks, from what the stages share anyway; nothing is kept for it.
//! Ages are in milliseconds as of then. Fields are only ever added.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::domain::{Topic, TopicPartition};
use crate::kafka::poll_report::{Pause, Reading};

/// What `/status` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Version of Panoptes.
    pub version: String,
    /// As `/readyz` has it.
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// None while it is being built.
    pub pipeline: Option<PipelineStatus>,
}

/// What a pipeline is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// Consumer group.
    pub group_id: String,
    /// Name of the model.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// Bytes of records alive.
    pub memory_used_bytes: u64,
    /// `reassembly.memory_budget`.
    pub memory_budget_bytes: u64,
    /// Parts that wait for views.
    pub open_parts: usize,
    /// Parts and dead letters between their closing and their publication.
    pub in_flight: usize,
    /// Records finished since the pipeline was built.
    pub finished_records: u64,
    /// Parts closed since the pipeline was built.
    #[serde(default)]
    pub closed_parts: u64,
    /// Views taken before what may have been written earlier was read, since the pipeline was built.
    #[serde(default)]
    pub views_out_of_order: u64,
    /// How far stream time lies behind the wall clock.
    pub stream_time_lag_ms: Option<u64>,
    /// Whether records are read.
    pub reading: Reading,
    /// Since the poll thread's loop last came round.
    pub poll_thread_silent_ms: u64,
    /// For how long the device has had its batch.
    pub device_busy_ms: Option<u64>,
    /// For how long the transaction has been open, the attempts before this one included.
    pub transaction_open_ms: Option<u64>,
    /// Every assigned partition, in order.
    pub partitions: Vec<PartitionStatus>,
}

/// How far one partition has come, and what holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Topic.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The lowest unfinished offset, else the next to be read: what is committed, or soon will be.
    pub position: Option<i64>,
    /// The next offset to be read.
    pub next_to_read: Option<i64>,
    /// The offset behind the last record; none while its leader is not reached.
    pub end: Option<i64>,
    /// From the position to the end.
    pub lag: Option<i64>,
    /// Nothing is left to read.
    pub is_at_end: bool,
    /// Records that are read and not finished.
    pub unfinished: usize,
    /// Without records for so long that it no longer holds stream time back.
    pub is_idle: bool,
    /// How far its records are ahead of stream time.
    pub ahead_ms: u64,
    /// Why it is not read.
    pub pause: Option<Pause>,
    /// It is paused, and there is no reason for it any more.
    pub is_pause_stale: bool,
    /// What holds its position.
    pub held_by: Option<Holder>,
}

/// What a partition's lowest unfinished record waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Holder {
    /// Its part waits for views.
    Part {
        /// The line.
        line: String,
        /// The part.
        part_id: String,
        /// Listed views that have not come.
        missing_views: Vec<String>,
        /// How long it has been open, by the wall clock.
        open_ms: u64,
        /// Longer than the timeout and what is waited for quiet cameras: one is far behind, or its clock.
        is_overdue: bool,
    },
    /// Other records of its partition number, which were written earlier, are to be read first.
    Turn {
        /// The line.
        line: String,
        /// The part.
        part_id: String,
        /// How long it has waited, by the wall clock.
        waited_ms: u64,
    },
    /// It is on its way through the stages.
    Work,
}

impl PartitionStatus {
    /// Which partition it is.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: Topic::new(self.topic.as_str()),
            partition: self.partition,
        }
    }

    /// As logs name it.
    pub fn name(&self) -> String {
        format!("{}[{}]", self.topic, self.partition)
    }
}

type Observe = dyn Fn() -> PipelineStatus + Send + Sync;

/// Where a pipeline leaves a way to look at it, for as long as it runs; clones share it. It is of one
/// instance, and outlives its pipelines.
#[derive(Clone, Default)]
pub struct StatusBoard {
    shown: Arc<RwLock<Shown>>,
}

#[derive(Default)]
struct Shown {
    observe: Option<Arc<Observe>>,
    /// Of the pipelines that have ended.
    views_out_of_order: u64,
}

impl StatusBoard {
    /// From now on, this is how to look at the pipeline.
    pub fn show(&self, observe: impl Fn() -> PipelineStatus + Send + Sync + 'static) {
        self.write().observe = Some(Arc::new(observe));
    }

    /// There is no pipeline any more. What is to outlive it is kept.
    pub fn clear(&self) {
        let mut shown = self.write();
        if let Some(observe) = shown.observe.take() {
            shown.views_out_of_order += observe().views_out_of_order;
        }
    }

    /// Views taken before what may have been written earlier was read, by all pipelines of the instance.
    pub fn views_out_of_order(&self) -> u64 {
        let shown = self.read();
        let running = shown.observe.as_ref();
        shown.views_out_of_order + running.map_or(0, |observe| observe().views_out_of_order)
    }

    /// Looks at the pipeline, if there is one.
    pub fn pipeline(&self) -> Option<PipelineStatus> {
        let observe = self.read().observe.clone();
        observe.map(|observe| observe())
    }

    fn read(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shown> {
        self.shown.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StatusBoard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StatusBoard")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl PartitionStatus {
    /// A partition of which nothing is known yet.
    pub(crate) fn at(topic: &str, partition: i32) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            position: None,
            next_to_read: None,
            end: None,
            lag: None,
            is_at_end: true,
            unfinished: 0,
            is_idle: false,
            ahead_ms: 0,
            pause: None,
            is_pause_stale: false,
            held_by: None,
        }
    }
}

#[cfg(test)]
impl PipelineStatus {
    /// A pipeline that rests, its only partition read to the end.
    pub(crate) fn at_rest() -> Self {
        Self {
            group_id: "group".to_owned(),
            model_name: "model".to_owned(),
            model_version: "1".to_owned(),
            memory_used_bytes: 0,
            memory_budget_bytes: 1,
            open_parts: 0,
            in_flight: 0,
            finished_records: 10,
            closed_parts: 2,
            views_out_of_order: 0,
            stream_time_lag_ms: None,
            reading: Reading::Running,
            poll_thread_silent_ms: 3,
            device_busy_ms: None,
            transaction_open_ms: None,
            partitions: vec![PartitionStatus {
                position: Some(10),
                next_to_read: Some(10),
                end: Some(10),
                lag: Some(0),
                ..PartitionStatus::at("cam", 0)
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_out_of_order_is_still_known_when_the_pipeline_has_ended() {
        let board = StatusBoard::default();
        let show = |views_out_of_order| {
            board.show(move || PipelineStatus {
                views_out_of_order,
                ..PipelineStatus::at_rest()
            });
        };
        show(3);
        assert_eq!(board.views_out_of_order(), 3);
        board.clear();
        assert_eq!(board.views_out_of_order(), 3);
        show(2); // it was built anew
        assert_eq!(board.views_out_of_order(), 5);
        board.clear();
        board.clear();
        assert_eq!(board.views_out_of_order(), 5);
        assert_eq!(board.pipeline(), None);
    }
}
