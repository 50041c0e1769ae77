//! What librdkafka's statistics tell of the partitions: which are read to their end, how much others hold,
//! and which nobody can see.
//!
//! The statistics callback runs inside `poll`, which may hand on nothing; the poll loop takes the news
//! after it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

use rdkafka::statistics::{self, Statistics};

use super::consumer::lock;
use super::gap_count::Skipped;
use super::group_context::GroupContext;
use super::partition_ends::Reported;
use super::poll_report::{PartitionReport, Pause};
use crate::domain::{Topic, TopicPartition};
use crate::telemetry;

/// What the last statistics tell of the partitions that are assigned.
#[derive(Debug, Default)]
pub(super) struct PartitionNews {
    /// All that they hold is read.
    pub(super) ended: Vec<TopicPartition>,
    /// All of them that a replay was to read is read.
    pub(super) ended_ranges: Vec<TopicPartition>,
    /// They hold records up to these offsets that are not read.
    pub(super) expected: Vec<(TopicPartition, i64)>,
    /// More may be written to them than can be seen.
    pub(super) out_of_sight: Vec<TopicPartition>,
    /// Too much of them is unfinished for them to be read on.
    pub(super) crowded: Vec<TopicPartition>,
}

impl PartitionNews {
    /// Forgets partitions whose reading begins anew.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        let afresh: HashSet<&TopicPartition> = partitions.iter().collect();
        self.expected.retain(|(one, _)| !afresh.contains(one));
        for list in [
            &mut self.ended,
            &mut self.ended_ranges,
            &mut self.out_of_sight,
            &mut self.crowded,
        ] {
            list.retain(|one| !afresh.contains(one));
        }
    }
}

impl GroupContext {
    /// Takes from the statistics what is new of the assigned partitions, and what to report of them.
    pub(super) fn take_statistics(&self, statistics: &Statistics) {
        let assignment = lock(&self.assignment);
        let mut news = PartitionNews::default();
        let mut reports = HashMap::new();
        let now = Instant::now();
        for (name, topic) in &statistics.topics {
            let topic_name = Topic::new(name.as_str());
            for (number, partition) in &topic.partitions {
                let topic_partition = TopicPartition {
                    topic: topic_name.clone(),
                    partition: *number,
                };
                if assignment.contains(&topic_partition) {
                    let is_led = leader_is_up(statistics, partition.leader);
                    let report = self.learn(&topic_partition, partition, is_led, now, &mut news);
                    reports.insert(topic_partition, report);
                }
            }
        }
        self.is_blind
            .store(!news.out_of_sight.is_empty(), Ordering::Relaxed);
        lock(&self.report).partitions = reports;
        *lock(&self.news) = news;
    }

    fn learn(
        &self,
        topic_partition: &TopicPartition,
        partition: &statistics::Partition,
        is_led: bool,
        now: Instant,
        news: &mut PartitionNews,
    ) -> PartitionReport {
        let position = {
            let mut ledger = lock(&self.ledger);
            if partition.lo_offset >= 0 {
                let found = ledger.learn_log_start(topic_partition, partition.lo_offset);
                tell_skipped(topic_partition, found);
            }
            ledger.next_to_read(topic_partition)
        };
        let mut reported = reported(partition);
        let range_end = self.range.as_ref().map(|range| range.end(topic_partition));
        // Of a partition that is not fetched yet, statistics tell what they told of it at another time.
        let has_range_end =
            partition.fetch_state == "active" && range_end.is_some_and(|end| reported.end >= end);
        reported.end = reported.end.min(range_end.unwrap_or(i64::MAX));
        let is_passed = position.is_some_and(|position| position >= reported.end);
        let taken = self.taken.load(Ordering::Relaxed);
        let mut ends = lock(&self.ends);
        let is_at_end = ends.is_read(topic_partition, reported, position, taken)
            && (is_passed || ends.is_settled(topic_partition, now));
        let is_hidden = ends.is_out_of_sight(topic_partition, is_led, now) || !self.may_read();
        if is_hidden {
            news.out_of_sight.push(topic_partition.clone());
        } else if is_at_end && has_range_end {
            news.ended_ranges.push(topic_partition.clone());
        } else if is_at_end {
            news.ended.push(topic_partition.clone());
        } else if range_end.is_some() {
            news.expected.push(until_told(topic_partition.clone()));
        } else if !is_passed {
            news.expected.push((topic_partition.clone(), reported.end));
        }
        let pause = lock(&self.pauses).of(topic_partition);
        if pause == Some(Pause::Unfinished) {
            news.crowded.push(topic_partition.clone());
        }
        PartitionReport {
            end: (is_led && reported.end >= 0).then_some(reported.end),
            high_watermark: (partition.hi_offset >= 0).then_some(partition.hi_offset),
            is_at_end,
            pause,
        }
    }
}

/// As the end of what is expected of a partition, where its range's end will be told.
pub(super) fn until_told(partition: TopicPartition) -> (TopicPartition, i64) {
    (partition, i64::MAX)
}

/// Tells of offsets that no record was read from. What was deleted is lost to whoever reads here.
fn tell_skipped(partition: &TopicPartition, found: Skipped) {
    if found.is_none() {
        return;
    }
    telemetry::offsets_skipped(found.deleted, found.empty);
    if found.deleted > 0 {
        tracing::error!(
            topic = %partition.topic,
            partition = partition.partition,
            offsets = found.deleted,
            "records were deleted before they were read"
        );
    }
}

/// Whether the client is connected to the broker that leads a partition.
fn leader_is_up(statistics: &Statistics, leader: i32) -> bool {
    let mut brokers = statistics.brokers.values();
    brokers.any(|broker| broker.nodeid == leader && broker.state == "UP")
}

fn reported(partition: &statistics::Partition) -> Reported {
    Reported {
        next_fetch: partition.next_offset,
        // read_committed fetches as far as the last stable offset.
        end: if partition.ls_offset >= 0 {
            partition.ls_offset
        } else {
            partition.hi_offset
        },
        queued: u64::try_from(partition.fetchq_cnt).unwrap_or_default(),
    }
}
