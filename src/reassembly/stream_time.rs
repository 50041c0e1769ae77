//! Stream time: how far the log itself has come.
//!
//! Each partition number has its own, since the views of a part lie on one number of every topic: what
//! becomes of a part does not depend on which other numbers the same instance has.
//!
//! Stream time is the lowest of the highest event times that were taken of the number's partitions, over
//! those that are assigned and not idle. It never runs backwards. A partition without any record holds it
//! back until it is known to be empty. A partition is idle when it has been at its end, without a record,
//! for `idle_after`, or when its next record is known to be that much later (it is *silent* in
//! [`ReadOrder`](super::read_order::ReadOrder)); when all are, stream time is the highest event time seen.
//! A partition that is paused, back-pressured or out of sight is not idle by the clock, since records may
//! wait there; nor is any while nobody can read, nor one of which a record was read and not taken yet. One that a replay has read to the
//! end of its range is *over*: it never counts again.

use std::collections::BTreeMap;
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
    numbers: BTreeMap<i32, NumberClock>,
    is_held_up: bool,
    idle_after: Duration,
    max_future: Duration,
}

/// What is known of the time of one partition number.
#[derive(Debug, Default)]
struct NumberClock {
    stream_time: Option<Timestamp>,
    partitions: Vec<(TopicPartition, PartitionClock)>,
}

/// What is known of one partition's time.
#[derive(Clone, Debug)]
pub(crate) struct PartitionClock {
    pub(crate) generation: u64,
    /// The highest event time that was read.
    pub(crate) highest_read: Option<Timestamp>,
    pub(crate) is_at_end: bool,
    pub(crate) is_paused: bool,
    /// Nothing follows.
    pub(crate) is_over: bool,
    /// The highest event time that was taken.
    highest: Option<Timestamp>,
    /// Records that were read and not taken yet.
    untaken: usize,
    /// Wall time of the last record read or taken, of reaching the end, or of the end of a pause.
    active_at: Timestamp,
}

impl StreamClock {
    pub(crate) fn new(idle_after: Duration, max_future: Duration) -> Self {
        Self {
            numbers: BTreeMap::new(),
            is_held_up: false,
            idle_after,
            max_future,
        }
    }

    pub(crate) fn assign(&mut self, partition: TopicPartition, generation: u64, now: Timestamp) {
        let clock = PartitionClock {
            generation,
            highest_read: None,
            is_at_end: false,
            is_paused: false,
            is_over: false,
            highest: None,
            untaken: 0,
            active_at: now,
        };
        match self.clock(&partition) {
            Some(held) => *held = clock,
            None => {
                let number = self.numbers.entry(partition.partition).or_default();
                number.partitions.push((partition, clock));
            }
        }
    }

    pub(crate) fn revoke(&mut self, partition: &TopicPartition) {
        if let Some(number) = self.numbers.get_mut(&partition.partition) {
            number.partitions.retain(|(held, _)| held != partition);
            if number.partitions.is_empty() {
                self.numbers.remove(&partition.partition);
            }
        }
    }

    /// Whether any partition of that number is assigned.
    pub(crate) fn has_number(&self, number: i32) -> bool {
        self.numbers.contains_key(&number)
    }

    /// The numbers of which partitions are assigned.
    pub(crate) fn numbers(&self) -> Vec<i32> {
        self.numbers.keys().copied().collect()
    }

    pub(crate) fn generation(&self, partition: &TopicPartition) -> Option<u64> {
        let number = self.numbers.get(&partition.partition)?;
        let mut partitions = number.partitions.iter();
        let (_, clock) = partitions.find(|(held, _)| held == partition)?;
        Some(clock.generation)
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = &(TopicPartition, PartitionClock)> {
        let numbers = self.numbers.values();
        numbers.flat_map(|number| &number.partitions)
    }

    /// Notes that a record of an assigned partition was read. Its time is clamped by when it was written,
    /// where that is known, so that a replay decides as the live line did.
    pub(crate) fn observe(
        &mut self,
        partition: &TopicPartition,
        captured_at: Timestamp,
        written_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Observed {
        let came_at = written_at.map_or(now, |written_at| written_at.min(now));
        let latest = came_at.after(self.max_future);
        let event_time = captured_at.min(latest);
        if let Some(clock) = self.clock(partition) {
            clock.highest_read = clock.highest_read.max(Some(event_time));
            clock.untaken += 1;
            clock.is_at_end = false;
            clock.active_at = now;
        }
        Observed {
            event_time,
            was_clamped: captured_at > latest,
        }
    }

    /// Notes that it is the turn of a record that was read.
    pub(crate) fn take(
        &mut self,
        partition: &TopicPartition,
        event_time: Timestamp,
        now: Timestamp,
    ) {
        if let Some(clock) = self.clock(partition) {
            clock.highest = clock.highest.max(Some(event_time));
            clock.untaken = clock.untaken.saturating_sub(1);
            clock.active_at = now;
        }
    }

    /// Notes that everything was read. Idleness begins here, but for repetitions.
    pub(crate) fn reach_end(&mut self, partition: &TopicPartition, now: Timestamp) {
        if let Some(clock) = self.clock(partition)
            && !clock.is_at_end
        {
            clock.is_at_end = true;
            clock.active_at = now;
        }
    }

    /// Notes that nothing of the partition follows; whether that holds of its number on every topic.
    pub(crate) fn end_range(&mut self, partition: &TopicPartition) -> bool {
        if let Some(clock) = self.clock(partition) {
            clock.is_over = true;
        }
        let number = self.numbers.get(&partition.partition);
        number.is_none_or(|number| number.partitions.iter().all(|(_, clock)| clock.is_over))
    }

    /// Notes that more may be written than can be seen.
    pub(crate) fn lose_sight(&mut self, partition: &TopicPartition) {
        if let Some(clock) = self.clock(partition) {
            clock.is_at_end = false;
        }
    }

    pub(crate) fn set_paused(
        &mut self,
        partition: &TopicPartition,
        is_paused: bool,
        now: Timestamp,
    ) {
        if let Some(clock) = self.clock(partition) {
            clock.is_paused = is_paused;
            // What came in the meantime was not seen: the end is to be told again.
            clock.is_at_end &= is_paused;
            clock.active_at = now;
        }
    }

    /// Notes that nothing can be read of any partition, or that it can again.
    pub(crate) fn set_held_up(&mut self, is_held_up: bool, now: Timestamp) {
        if self.is_held_up == is_held_up {
            return;
        }
        self.is_held_up = is_held_up;
        for number in self.numbers.values_mut() {
            for (_, clock) in &mut number.partitions {
                clock.active_at = now;
            }
        }
    }

    pub(crate) fn is_held_up(&self) -> bool {
        self.is_held_up
    }

    /// Notes that what is known of the ends may be out of date: they are to be told again.
    pub(crate) fn forget_ends(&mut self) {
        for number in self.numbers.values_mut() {
            for (_, clock) in &mut number.partitions {
                clock.is_at_end = false;
            }
        }
    }

    /// Of one partition number.
    pub(crate) fn stream_time(&self, number: i32) -> Option<Timestamp> {
        self.numbers.get(&number)?.stream_time
    }

    /// Of the number that is furthest behind and has something left to read; where none has, of the one
    /// that is furthest ahead.
    pub(crate) fn lowest_stream_time(&self) -> Option<Timestamp> {
        let is_behind = |number: &&NumberClock| {
            let mut partitions = number.partitions.iter();
            partitions.any(|(_, clock)| !clock.is_over && !clock.is_read())
        };
        let behind = self.numbers.values().filter(is_behind);
        let lowest = behind.map(|number| number.stream_time).min();
        let highest = || self.numbers.values().map(|number| number.stream_time).max();
        lowest.or_else(highest).flatten()
    }

    /// Moves the stream time of a number as far as its partitions allow, those of `silent` topics aside.
    pub(crate) fn advance(
        &mut self,
        number: i32,
        silent: &[&Topic],
        now: Timestamp,
    ) -> Option<Timestamp> {
        let held = self.numbers.get(&number)?;
        let counting = held.partitions.iter();
        let counting = counting.filter(|(partition, clock)| {
            !clock.is_over && !self.is_idle(clock, now) && !silent.contains(&&partition.topic)
        });
        let lowest = counting.map(|(_, clock)| clock.highest).min();
        let highest = || held.partitions.iter().map(|(_, clock)| clock.highest).max();
        let reached = lowest.or_else(highest).flatten();
        let held = self.numbers.get_mut(&number)?;
        held.stream_time = held.stream_time.max(reached);
        held.stream_time
    }

    /// The lowest of the highest event times that were read of the partitions that count, whatever their
    /// number: `None` if none counts, `Some(None)` if nothing of one of them was read yet.
    pub(crate) fn lowest_read(&self, now: Timestamp) -> Option<Option<Timestamp>> {
        let counting = self.partitions();
        let counting = counting.filter(|(_, clock)| !clock.is_over && !self.is_idle(clock, now));
        counting.map(|(_, clock)| clock.highest_read).min()
    }

    pub(crate) fn is_idle(&self, clock: &PartitionClock, now: Timestamp) -> bool {
        clock.is_read()
            && !clock.is_paused
            && !self.is_held_up
            && now.since(clock.active_at) >= self.idle_after
    }

    /// Whether nothing is left to read on any assigned partition of that number, and nothing
    /// keeps us from reading what comes.
    pub(crate) fn is_quiet(&self, number: i32) -> bool {
        let is_quiet = |clock: &PartitionClock| clock.is_read() && !clock.is_paused;
        let number = self.numbers.get(&number);
        let all_are = |number: &NumberClock| number.partitions.iter().all(|(_, one)| is_quiet(one));
        !self.is_held_up && number.is_some_and(all_are)
    }

    fn clock(&mut self, partition: &TopicPartition) -> Option<&mut PartitionClock> {
        let number = self.numbers.get_mut(&partition.partition)?;
        let mut partitions = number.partitions.iter_mut();
        let (_, clock) = partitions.find(|(held, _)| held == partition)?;
        Some(clock)
    }
}

impl PartitionClock {
    /// Whether everything is read, and taken.
    fn is_read(&self) -> bool {
        self.is_at_end && self.untaken == 0
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
