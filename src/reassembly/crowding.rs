//! What lets a partition go on of which too much is unfinished for it to be read on: what waits for its turn is
//! taken, and where that does not help, parts are closed without the views that they miss.

use std::sync::Arc;

use crate::domain::{CloseCause, PartKey, Record, Timestamp, TopicPartition};

use super::report::Event;
use super::schedule::{Due, Sequence};
use super::{PartState, ReassemblyBuffer};

impl ReassemblyBuffer {
    /// Closes the groups of a partition that are due first, until at most `may_wait` of its records
    /// wait: nothing else lets the partition go on. What is on its way to be published does not wait.
    pub fn make_way(
        &self,
        partition: &TopicPartition,
        may_wait: usize,
        now: Timestamp,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        self.take_turns(partition.partition, true, now, &mut events);
        let waiting = self.waiting_of(partition);
        let in_all: usize = waiting.iter().map(|(_, _, records)| records).sum();
        let mut too_many = in_all.saturating_sub(may_wait);
        let mut due = Vec::new();
        for (sequence, part, records) in waiting {
            if too_many == 0 {
                break;
            }
            if records > 0 {
                too_many = too_many.saturating_sub(records);
                let cause = CloseCause::Evicted;
                due.push(Due {
                    part,
                    sequence,
                    cause,
                });
            }
        }
        self.close_due(due, &mut events);
        self.forget_closed();
        events
    }

    /// Takes all that waits for its turn on the number of a partition that is read no further for now, where
    /// more of its records than `may_wait` are in open groups: what these miss may be what waits, and it is
    /// not known what the partition has next.
    pub fn unblock(
        &self,
        partition: &TopicPartition,
        may_wait: usize,
        now: Timestamp,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let waiting = self.waiting_of(partition);
        if waiting.iter().map(|(_, _, records)| records).sum::<usize>() > may_wait {
            self.take_turns(partition.partition, true, now, &mut events);
            self.forget_closed();
        }
        events
    }

    /// The open groups of a partition's number, those that are due first in front, and how many of the
    /// partition's records each has.
    fn waiting_of(&self, partition: &TopicPartition) -> Vec<(Sequence, PartKey, usize)> {
        let groups = self.timeline().schedule.of_number(partition.partition);
        let of_partition = |record: &&Arc<Record>| record.source.topic_partition() == *partition;
        let mut waiting = Vec::new();
        for (sequence, part) in groups {
            if let Some(PartState::Open(group)) = self.parts.get(&part).as_deref()
                && group.sequence == sequence
            {
                let records = group.records().filter(of_partition).count();
                waiting.push((sequence, part, records));
            }
        }
        waiting
    }
}
