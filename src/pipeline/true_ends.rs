//! Asks the brokers for the ends of partitions that are quiet for long.
//!
//! librdkafka knows an end from what it fetches: where it has silently stopped fetching, it takes the
//! partition for read. Where the brokers' end lies beyond the one that it knows, it has not fetched.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::TopicPartition;
use crate::kafka::consumer::lock;
use crate::kafka::end_offsets::EndOffsets;
use crate::kafka::poll_report::SharedPollReport;
use crate::status::PipelineStatus;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);

type Position = Option<i64>;

/// What was asked last, and what came of it.
pub(crate) struct TrueEnds {
    ends: EndOffsets,
    poll: SharedPollReport,
    interval: Duration,
    asked_at: Instant,
    positions: HashMap<TopicPartition, Position>,
    unfetched: HashMap<TopicPartition, (Position, i64)>,
}

impl TrueEnds {
    /// Asks at most once in an `interval` for partitions of which nothing was read in it.
    pub(crate) fn new(ends: EndOffsets, poll: SharedPollReport, interval: Duration) -> Self {
        Self {
            ends,
            poll,
            interval,
            asked_at: Instant::now(),
            positions: HashMap::new(),
            unfetched: HashMap::new(),
        }
    }

    /// Corrects the ends of partitions that are not fetched.
    pub(crate) fn correct(&mut self, status: &mut PipelineStatus) {
        if self.asked_at.elapsed() >= self.interval {
            self.ask(status);
            self.asked_at = Instant::now();
        }
        for partition in &mut status.partitions {
            let unfetched = self.unfetched.get(&partition.topic_partition());
            if let Some((position, end)) = unfetched
                && *position == partition.next_to_read
            {
                partition.end = Some(*end);
                partition.is_at_end = false;
            }
        }
    }

    fn ask(&mut self, status: &PipelineStatus) {
        self.unfetched.clear();
        let before = std::mem::take(&mut self.positions);
        for partition in &status.partitions {
            let key = partition.topic_partition();
            let position = partition.next_to_read;
            if before.get(&key) == Some(&position)
                && partition.pause.is_none()
                && let Some(end) = self.unfetched_end(&key)
                && position.is_none_or(|position| position < end)
            {
                self.unfetched.insert(key.clone(), (position, end));
            }
            self.positions.insert(key, position);
        }
    }

    /// The end, if it lies beyond the one that the consumer knows.
    fn unfetched_end(&self, partition: &TopicPartition) -> Option<i64> {
        let end = self.ends.of(partition, PATIENCE).ok()?;
        let report = lock(&self.poll);
        let fetched = report.partitions.get(partition)?.high_watermark;
        (fetched.unwrap_or(0) < end).then_some(end)
    }
}
