//! Which partitions are read to their end, from librdkafka's statistics and from what was read.
//!
//! librdkafka tells how far it has fetched, and how much of what it fetched waits in the queue that
//! all partitions share. That queue is rarely empty while a backlog is read; so a partition counts
//! as read when the last record seen of it is its last one, or, where its last offsets hold no
//! record (transaction markers) or none was seen yet, when as much was taken from the queue as lay
//! there when the fetch had come to the end. Where the partition's leader is away nobody knows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::TopicPartition;

/// What the statistics say of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported {
    /// The next offset to fetch.
    pub(super) next_fetch: i64,
    /// The offset behind the last one that can be read; negative while it is not known.
    pub(super) end: i64,
    /// Messages of all partitions that are fetched and not taken.
    pub(super) queued: u64,
}

/// How long a partition that was read to its end is waited for when its leader is away: longer than a
/// cluster takes to elect another one.
const LEADER_PATIENCE: Duration = Duration::from_secs(30);

/// How old what the statistics say of a partition may be: librdkafka's threads tell how far they have
/// fetched once a second.
const STATISTICS_AGE: Duration = Duration::from_secs(3);

/// Partitions that are fetched to their end.
#[derive(Debug, Default)]
pub(super) struct PartitionEnds {
    fetched: HashMap<TopicPartition, Fetched>,
    /// Since when no broker that leads them is reached.
    away: HashMap<TopicPartition, Instant>,
    /// When they were last assigned, paused or resumed.
    refetched: HashMap<TopicPartition, Instant>,
}

#[derive(Debug)]
struct Fetched {
    end: i64,
    /// How many messages are taken when none of this partition can be left.
    read_at: u64,
}

impl PartitionEnds {
    /// Whether nothing of a partition is left to read, given the next offset that is expected of it
    /// and how many messages were taken since the start.
    pub(super) fn is_read(
        &mut self,
        partition: &TopicPartition,
        reported: Reported,
        position: Option<i64>,
        taken: u64,
    ) -> bool {
        if reported.end < 0 {
            return false;
        }
        if position.is_some_and(|position| position >= reported.end) {
            return true;
        }
        if reported.next_fetch < reported.end {
            self.fetched.remove(partition);
            return false;
        }
        let now = Fetched {
            end: reported.end,
            read_at: taken + reported.queued,
        };
        match self.fetched.get(partition) {
            // Messages that a pause has made void are queued and never taken.
            Some(before) if before.end == now.end => {
                taken >= before.read_at || reported.queued == 0
            }
            _ => {
                let is_read = taken >= now.read_at;
                self.fetched.insert(partition.clone(), now);
                is_read
            }
        }
    }

    /// Notes that partitions are fetched from their position on again, or will be: a pause makes void what
    /// was fetched and not taken.
    pub(super) fn refetch<'a>(
        &mut self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        now: Instant,
    ) {
        for partition in partitions {
            self.refetched.insert(partition.clone(), now);
        }
    }

    /// Whether what the statistics say of a partition is younger than its last pause. Before that it may
    /// seem read to its end, and what a pause made void would be lost to a replay, which reads no further.
    pub(super) fn is_settled(&self, partition: &TopicPartition, now: Instant) -> bool {
        let at = self.refetched.get(partition);
        at.is_none_or(|at| now.duration_since(*at) >= STATISTICS_AGE)
    }

    /// Whether more may be written to a partition than can be seen, since its leader is away; not for
    /// longer than that may take to heal.
    pub(super) fn is_out_of_sight(
        &mut self,
        partition: &TopicPartition,
        is_led: bool,
        now: Instant,
    ) -> bool {
        if is_led {
            self.away.remove(partition);
            return false;
        }
        let since = *self.away.entry(partition.clone()).or_insert(now);
        now.duration_since(since) < LEADER_PATIENCE
    }

    /// Forgets partitions whose reading begins anew.
    pub(super) fn forget<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            self.fetched.remove(partition);
            self.away.remove(partition);
            self.refetched.remove(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Topic;

    fn partition() -> TopicPartition {
        TopicPartition {
            topic: Topic::from("cam"),
            partition: 0,
        }
    }

    fn reported(next_fetch: i64, end: i64, queued: u64) -> Reported {
        Reported {
            next_fetch,
            end,
            queued,
        }
    }

    #[test]
    fn a_partition_without_anything_to_read_is_read_while_others_are_prefetched() {
        let mut ends = PartitionEnds::default();
        assert!(ends.is_read(&partition(), reported(7, 7, 5_000), Some(7), 0));
    }

    #[test]
    fn a_partition_is_not_read_while_its_records_wait_in_the_queue() {
        let mut ends = PartitionEnds::default();
        assert!(!ends.is_read(&partition(), reported(7, 7, 3), Some(4), 10));
        assert!(!ends.is_read(&partition(), reported(7, 7, 2), Some(5), 12));
        assert!(ends.is_read(&partition(), reported(7, 7, 9), Some(7), 13));
    }

    #[test]
    fn offsets_without_records_at_the_end_are_passed_once_the_queue_has_moved_on() {
        let mut ends = PartitionEnds::default();
        assert!(!ends.is_read(&partition(), reported(7, 7, 100), Some(6), 10));
        assert!(!ends.is_read(&partition(), reported(7, 7, 100), Some(6), 109));
        assert!(ends.is_read(&partition(), reported(7, 7, 100), Some(6), 110));
        assert!(!ends.is_read(&partition(), reported(7, 9, 100), Some(6), 111));
        assert!(!ends.is_read(&partition(), reported(9, 9, 100), Some(6), 111));
    }

    #[test]
    fn messages_that_a_pause_has_made_void_are_not_waited_for() {
        let mut ends = PartitionEnds::default();
        assert!(!ends.is_read(&partition(), reported(7, 7, 5), Some(6), 2));
        assert!(ends.is_read(&partition(), reported(7, 7, 0), Some(6), 2));
    }

    #[test]
    fn a_partition_is_settled_some_time_after_its_last_pause() {
        let mut ends = PartitionEnds::default();
        let start = Instant::now();
        assert!(ends.is_settled(&partition(), start));
        ends.refetch([&partition()], start);
        assert!(!ends.is_settled(&partition(), start + STATISTICS_AGE / 2));
        assert!(ends.is_settled(&partition(), start + STATISTICS_AGE));
        ends.refetch([&partition()], start + STATISTICS_AGE);
        assert!(!ends.is_settled(&partition(), start + STATISTICS_AGE));
        ends.forget([&partition()]);
        assert!(ends.is_settled(&partition(), start + STATISTICS_AGE));
    }

    #[test]
    fn a_partition_whose_leader_is_away_is_out_of_sight_for_a_while() {
        let mut ends = PartitionEnds::default();
        let start = Instant::now();
        let mut is_out_of_sight = |is_led: bool, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            ends.is_out_of_sight(&partition(), is_led, now)
        };
        assert!(!is_out_of_sight(true, 0));
        assert!(is_out_of_sight(false, 100));
        assert!(is_out_of_sight(false, 129));
        assert!(!is_out_of_sight(false, 130), "it may be gone for good");
        assert!(!is_out_of_sight(true, 140));
        assert!(is_out_of_sight(false, 150));
    }

    #[test]
    fn an_empty_queue_leaves_nothing_to_read() {
        let mut ends = PartitionEnds::default();
        assert!(ends.is_read(&partition(), reported(7, 7, 0), None, 0));
    }

    #[test]
    fn nothing_is_known_before_the_first_fetch() {
        let mut ends = PartitionEnds::default();
        assert!(!ends.is_read(&partition(), reported(-1001, -1001, 0), None, 0));
        assert!(!ends.is_read(&partition(), reported(-1001, 3, 0), None, 0));
    }
}
