//! Where reading ends, for a consumer that replays: nothing at or behind a partition's end is read.
//!
//! The ends are offsets that were taken before the reading began, so what is written meanwhile is left
//! out, and every instance leaves out the same.

use std::collections::HashMap;

use crate::domain::TopicPartition;

/// The ends of partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRange {
    ends: HashMap<TopicPartition, i64>,
}

impl ReadRange {
    /// Up to these offsets, each the one behind the last that is read.
    pub fn until(ends: HashMap<TopicPartition, i64>) -> Self {
        Self { ends }
    }

    /// Where a partition ends. One that is not of the range, since it is younger, ends where it begins.
    pub fn end(&self, partition: &TopicPartition) -> i64 {
        self.ends.get(partition).copied().unwrap_or(0)
    }
}
