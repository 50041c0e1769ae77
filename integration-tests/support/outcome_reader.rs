//! A `read_committed` consumer of what a line publishes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::line::Line;
use super::outcomes::Outcomes;
use super::published::{DeadLetter, dead_letter, result_record};

/// How long nothing may come before the end: how long all of it takes depends on how much it is.
const SILENCE: Duration = Duration::from_secs(60);

/// Reads a line's results and dead letters as they come.
pub(crate) struct OutcomeReader {
    consumer: BaseConsumer,
    results_topic: String,
    /// Partitions of both topics together.
    partitions: usize,
    ended: BTreeSet<(String, i32)>,
    outcomes: Outcomes,
}

impl OutcomeReader {
    pub(crate) fn new(line: &Line<'_>) -> Self {
        Self::with_isolation(line, "read_committed")
    }

    /// `isolation` as of `isolation.level`.
    pub(crate) fn with_isolation(line: &Line<'_>, isolation: &str) -> Self {
        let mut client = line.broker.client();
        client.set("group.id", "test-reader");
        client.set("isolation.level", isolation);
        client.set("enable.partition.eof", "true");
        client.set("enable.auto.commit", "false");
        client.set("fetch.wait.max.ms", "20");
        client.set("fetch.message.max.bytes", "10485760");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        for topic in [line.results_topic(), line.dead_letter_topic()] {
            for partition in 0..line.partitions {
                list.add_partition_offset(&topic, partition, Offset::Beginning)
                    .unwrap();
            }
        }
        consumer.assign(&list).unwrap();
        Self {
            consumer,
            results_topic: line.results_topic(),
            partitions: list.count(),
            ended: BTreeSet::new(),
            outcomes: Outcomes::default(),
        }
    }

    /// Reads until every partition was at its end once.
    pub(super) fn read_to_end(&mut self) {
        let (mut come, mut last) = (self.come(), Instant::now());
        while self.ended.len() < self.partitions {
            assert!(last.elapsed() < SILENCE, "the outcomes have no end");
            self.poll();
            if come != self.come() {
                (come, last) = (self.come(), Instant::now());
            }
        }
    }

    /// How many records and ends of partitions have come.
    fn come(&self) -> usize {
        self.outcomes.results.len() + self.outcomes.dead_letters.len() + self.ended.len()
    }

    /// Reads until the predicate holds.
    pub(crate) fn read_until(&mut self, timeout: Duration, is_enough: impl Fn(&Outcomes) -> bool) {
        let started = Instant::now();
        while !is_enough(&self.outcomes) {
            assert!(
                started.elapsed() < timeout,
                "still not enough after {timeout:?}: {} results of {} parts, dead letters {:?}",
                self.outcomes.results.len(),
                self.outcomes.parts().len(),
                self.outcomes
                    .dead_letters
                    .iter()
                    .map(DeadLetter::reason)
                    .collect::<Vec<_>>(),
            );
            self.poll();
        }
    }

    /// What was read until now.
    pub(crate) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    pub(crate) fn into_outcomes(self) -> Outcomes {
        self.outcomes
    }

    /// Waits a moment for the next one.
    pub(crate) fn poll(&mut self) {
        let message = match self.consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                return self.note_ends();
            }
            // A broker that restarts is reported here; the deadline of the caller bounds the wait.
            Some(Err(_)) | None => return,
        };
        if message.topic() == self.results_topic {
            self.outcomes.results.push(result_record(&message));
        } else {
            self.outcomes.dead_letters.push(dead_letter(&message));
        }
    }

    /// The end-of-partition event names no topic, so positions are compared with the ends.
    fn note_ends(&mut self) {
        for element in self.consumer.position().unwrap().elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            if self.ended.contains(&(topic.clone(), partition)) {
                continue;
            }
            let watermarks =
                self.consumer
                    .fetch_watermarks(&topic, partition, Duration::from_secs(10));
            // A reader that has only just begun may not know the partition yet.
            let Ok((_, end)) = watermarks else {
                continue;
            };
            let position = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            if position >= end {
                self.ended.insert((topic, partition));
            }
        }
    }
}
