//! Stream time: how far the log itself has come.
//!
//! Stream time is the lowest of the partitions' highest event times, over the assigned partitions
//! that are not idle. It never runs backwards. A partition without any record holds it back until
//! it is known to be empty. A partition is idle when it has been at its end, without a record, for
//! `idle_after`; when all are, stream time is the highest event time seen. A partition that is
//! paused, back-pressured or out of sight is never idle, since records may wait there. One that a
//! replay has read to the end of its range is *over*: it never counts again.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::{Timestamp, Topic, TopicPartition};

/// What a record's arrival meant for the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The record's event time, clamped.
    pub(crate) event_time: Timestamp,
    /// Whether it had to be clamped.
    pub(crate) was_clamped: bool,
}

#[derive(Debug)]
pub(crate) struct StreamClock {
    partitions: HashMap<TopicPartition, PartitionClock>,
    /// The topics of which a partition number is assigned.
    topics: HashMap<i32, Vec<Topic>>,
    stream_time: Option<Timestamp>,
    is_back_pressured: bool,
    idle_after: Duration,
    max_future: Duration,
}

/// What is known of one partition's time.
#[derive(Clone, Debug)]
pub(crate) struct PartitionClock {
    pub(crate) generation: u64,
    pub(crate) highest: Option<Timestamp>,
    pub(crate) is_at_end: bool,
    pub(crate) is_paused: bool,
    /// Nothing follows.
    pub(crate) is_over: bool,
    /// Wall time of the last record, of reaching the end, or of the end of a pause.
    active_at: Timestamp,
}

impl StreamClock {
    pub(crate) fn new(idle_after: Duration, max_future: Duration) -> Self {
        Self {
            partitions: HashMap::new(),
            topics: HashMap::new(),
            stream_time: None,
            is_back_pressured: false,
            idle_after,
            max_future,
        }
    }

    pub(crate) fn assign(&mut self, partition: TopicPartition, generation: u64, now: Timestamp) {
        let clock = PartitionClock {
            generation,
            highest: None,
            is_at_end: false,
            is_paused: false,
            is_over: false,
            active_at: now,
        };
        let (number, topic) = (partition.partition, partition.topic.clone());
        if self.partitions.insert(partition, clock).is_none() {
            self.topics.entry(number).or_default().push(topic);
        }
    }

    pub(crate) fn revoke(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
        if let Some(topics) = self.topics.get_mut(&partition.partition) {
            topics.retain(|topic| *topic != partition.topic);
            if topics.is_empty() {
                self.topics.remove(&partition.partition);
            }
        }
    }

    /// Whether any partition of that number is assigned.
    pub(crate) fn has_number(&self, number: i32) -> bool {
        self.topics.contains_key(&number)
    }

    pub(crate) fn generation(&self, partition: &TopicPartition) -> Option<u64> {
        self.partitions.get(partition).map(|clock| clock.generation)
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&TopicPartition, &PartitionClock)> {
        self.partitions.iter()
    }

    /// Notes a record of an assigned partition.
    pub(crate) fn observe(
        &mut self,
        partition: &TopicPartition,
        captured_at: Timestamp,
        now: Timestamp,
    ) -> Observed {
        let latest = now.after(self.max_future);
        let event_time = captured_at.min(latest);
        if let Some(clock) = self.partitions.get_mut(partition) {
            clock.highest = clock.highest.max(Some(event_time));
            clock.is_at_end = false;
            clock.active_at = now;
        }
        Observed {
            event_time,
            was_clamped: captured_at > latest,
        }
    }

    /// Notes that everything was read. Idleness begins here, but for repetitions.
    pub(crate) fn reach_end(&mut self, partition: &TopicPartition, now: Timestamp) {
        if let Some(clock) = self.partitions.get_mut(partition)
            && !clock.is_at_end
        {
            clock.is_at_end = true;
            clock.active_at = now;
        }
    }

    /// Notes that nothing of the partition follows; whether that holds of its number on every topic.
    pub(crate) fn end_range(&mut self, partition: &TopicPartition) -> bool {
        if let Some(clock) = self.partitions.get_mut(partition) {
            clock.is_over = true;
        }
        let mut others = self.partitions.iter();
        others.all(|(one, clock)| one.partition != partition.partition || clock.is_over)
    }

    /// Notes that more may be written than can be seen.
    pub(crate) fn lose_sight(&mut self, partition: &TopicPartition) {
        if let Some(clock) = self.partitions.get_mut(partition) {
            clock.is_at_end = false;
        }
    }

    pub(crate) fn set_paused(
        &mut self,
        partition: &TopicPartition,
        is_paused: bool,
        now: Timestamp,
    ) {
        if let Some(clock) = self.partitions.get_mut(partition) {
            clock.is_paused = is_paused;
            // What came in the meantime was not seen: the end is to be told again.
            clock.is_at_end &= is_paused;
            clock.active_at = now;
        }
    }

    pub(crate) fn set_back_pressured(&mut self, is_back_pressured: bool, now: Timestamp) {
        if self.is_back_pressured == is_back_pressured {
            return;
        }
        self.is_back_pressured = is_back_pressured;
        for clock in self.partitions.values_mut() {
            clock.active_at = now;
        }
    }

    pub(crate) fn is_back_pressured(&self) -> bool {
        self.is_back_pressured
    }

    pub(crate) fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time
    }

    /// Moves stream time as far as the partitions allow.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Option<Timestamp> {
        let reached = match self.lowest(now) {
            Some(lowest) => lowest,
            None => self
                .partitions
                .values()
                .filter_map(|clock| clock.highest)
                .max(),
        };
        self.stream_time = self.stream_time.max(reached);
        self.stream_time
    }

    /// The lowest of the highest event times of the partitions that count: `None` if none counts,
    /// `Some(None)` if one of them has had no record yet.
    pub(crate) fn lowest(&self, now: Timestamp) -> Option<Option<Timestamp>> {
        self.partitions
            .values()
            .filter(|clock| !clock.is_over && !self.is_idle(clock, now))
            .map(|clock| clock.highest)
            .min()
    }

    pub(crate) fn is_idle(&self, clock: &PartitionClock, now: Timestamp) -> bool {
        clock.is_at_end
            && !clock.is_paused
            && !self.is_back_pressured
            && now.since(clock.active_at) >= self.idle_after
    }

    /// Whether nothing is left to read on any assigned partition of that number, and nothing
    /// keeps us from reading what comes.
    pub(crate) fn is_quiet(&self, number: i32) -> bool {
        let is_quiet = |topic: &Topic| {
            let topic = topic.clone();
            let partition = TopicPartition {
                topic,
                partition: number,
            };
            let clock = self.partitions.get(&partition);
            clock.is_some_and(|clock| clock.is_at_end && !clock.is_paused)
        };
        let topics = self.topics.get(&number);
        !self.is_back_pressured && topics.is_some_and(|topics| topics.iter().all(is_quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_the_end_must_be_told_again() {
        let partition = TopicPartition {
            topic: Topic::from("cam"),
            partition: 0,
        };
        let mut clock = StreamClock::new(Duration::from_secs(2), Duration::from_secs(60));
        let is_idle = |clock: &StreamClock, now| {
            let mut partitions = clock.partitions();
            partitions.all(|(_, one)| clock.is_idle(one, Timestamp(now)))
        };
        clock.assign(partition.clone(), 1, Timestamp(0));
        clock.reach_end(&partition, Timestamp(0));
        clock.set_paused(&partition, true, Timestamp(1_000));
        clock.set_paused(&partition, false, Timestamp(60_000));
        assert!(!is_idle(&clock, 100_000), "records came in the pause");
        clock.reach_end(&partition, Timestamp(100_000));
        assert!(is_idle(&clock, 102_000));
    }
}
