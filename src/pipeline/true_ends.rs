//! Asks the brokers for the ends of partitions that are quiet for long.
//!
//! librdkafka knows an end from what it fetches: where it has silently stopped fetching, it takes the
//! partition for read. Where the brokers' end lies beyond the one that it knows, it has not fetched.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::domain::TopicPartition;
use crate::kafka::consumer::lock;
use crate::kafka::end_offsets::EndOffsets;
use crate::kafka::poll_report::SharedPollReport;
use crate::status::PipelineStatus;

/// How long the question may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was asked last, and what came of it.
pub(crate) struct TrueEnds {
    ends: EndOffsets,
    poll: SharedPollReport,
    interval: Duration,
    asked_at: Instant,
    /// What was next to be read when they were last asked for.
    positions: HashMap<TopicPartition, Option<i64>>,
    told: HashMap<TopicPartition, i64>,
}

impl TrueEnds {
    /// Asks at most once in an `interval`, for partitions of which nothing was read in it.
    pub(crate) fn new(ends: EndOffsets, poll: SharedPollReport, interval: Duration) -> Self {
        Self {
            ends,
            poll,
            interval,
            asked_at: Instant::now(),
            positions: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Corrects the ends of partitions that are not fetched. Brokers that are away are not asked.
    pub(crate) fn correct(&mut self, status: &mut PipelineStatus, brokers_are_reached: bool) {
        if brokers_are_reached && self.asked_at.elapsed() >= self.interval {
            self.ask(status);
            self.asked_at = Instant::now();
        }
        let report = lock(&self.poll);
        for partition in &mut status.partitions {
            let key = partition.topic_partition();
            let known = report.partitions.get(&key);
            let fetched = known.and_then(|known| known.high_watermark).unwrap_or(0);
            if let Some(&end) = self.told.get(&key)
                && end > fetched.max(partition.next_to_read.unwrap_or(0))
            {
                partition.end = Some(end);
                partition.is_at_end = false;
            }
        }
    }

    fn ask(&mut self, status: &PipelineStatus) {
        let before = std::mem::take(&mut self.positions);
        let mut quiet = HashSet::new();
        for partition in &status.partitions {
            let key = partition.topic_partition();
            let position = partition.next_to_read;
            if before.get(&key) == Some(&position) && partition.pause.is_none() {
                quiet.insert(key.clone());
            }
            self.positions.insert(key, position);
        }
        self.told = match self.ends.of(&quiet, PATIENCE) {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(%error, "the ends of quiet partitions are not told");
                HashMap::new()
            }
        };
    }
}
