//! What the poll thread tells of itself to those who watch it.
//!
//! The thread writes it, without waiting for anybody; nobody else does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::domain::TopicPartition;

/// The report as the poll thread and its watchers share it.
pub type SharedPollReport = Arc<Mutex<PollReport>>;

/// What the poll thread told last.
#[derive(Clone, Debug)]
pub struct PollReport {
    /// When its loop last came round.
    pub turned_at: Instant,
    /// Whether it reads.
    pub reading: Reading,
    /// When the stages behind last had no room for a record.
    pub full_at: Option<Instant>,
    /// Every assigned partition, as of librdkafka's last statistics.
    pub partitions: HashMap<TopicPartition, PartitionReport>,
}

impl PollReport {
    /// How many partitions are not read though they are not at the end of what is to be read, where so many
    /// are assigned.
    pub fn paused_partitions(&self, assigned: usize) -> usize {
        match self.reading {
            Reading::Jammed | Reading::Throttled | Reading::Held => assigned,
            Reading::Running | Reading::Draining => {
                let pauses = self.partitions.values().filter_map(|one| one.pause);
                pauses.filter(|pause| *pause != Pause::EndOfRange).count()
            }
        }
    }
}

impl Default for PollReport {
    fn default() -> Self {
        Self {
            turned_at: Instant::now(),
            reading: Reading::Running,
            full_at: None,
            partitions: HashMap::new(),
        }
    }
}

/// Whether records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// They are.
    Running,
    /// Not now, or not just now: the stages behind, or the memory, are full.
    Jammed,
    /// Not now: as much was read as the rate of a replay allows.
    Throttled,
    /// Not now: the views of a part might not meet, or the brokers do not tell whether they do.
    Held,
    /// Not any more: the instance drains.
    Draining,
}

impl Reading {
    /// Whether nothing is read for now, or at all: then neither a partition nor a part is missed, since what
    /// they wait for cannot come.
    pub(crate) fn is_interrupted(self) -> bool {
        self != Self::Running
    }
}

/// How far a partition can be read, and whether it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionReport {
    /// The offset behind the last record that can be read; none while it is not known, or no broker
    /// that leads the partition is reached.
    pub end: Option<i64>,
    /// The end that the last fetch told, open transactions included.
    pub high_watermark: Option<i64>,
    /// Nothing is left to read.
    pub is_at_end: bool,
    /// Why it is not read.
    pub pause: Option<Pause>,
}

/// Why a partition is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// It runs ahead of the others, and memory is short.
    Memory,
    /// More of it is unfinished than a commit can tell.
    Unfinished,
    /// What a replay was to read of it is read.
    EndOfRange,
    /// Its next record is later than what is to be read of others: an archive is read in the order of time.
    Ahead,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Topic;

    #[test]
    fn whatever_pauses_a_partition_counts_but_for_the_end_of_its_range() {
        let pauses = [
            None,
            Some(Pause::Memory),
            Some(Pause::Unfinished),
            Some(Pause::EndOfRange),
            Some(Pause::Ahead),
        ];
        let partitions = pauses.into_iter().zip(0..).map(|(pause, partition)| {
            let topic = Topic::from("cam");
            let report = PartitionReport {
                pause,
                ..PartitionReport::default()
            };
            (TopicPartition { topic, partition }, report)
        });
        let mut report = PollReport {
            partitions: partitions.collect(),
            ..PollReport::default()
        };
        assert_eq!(report.paused_partitions(5), 3);
        for reading in [Reading::Jammed, Reading::Held] {
            report.reading = reading;
            assert_eq!(report.paused_partitions(5), 5);
        }
    }
}
