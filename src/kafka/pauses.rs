//! Why a partition is not read: memory, or so much of it unfinished that a commit could soon not tell
//! what is finished above its position (it is *crowded*), or the end of what a replay reads.
//!
//! Pure: it pauses nothing itself and asks no clock. The poll loop does what it says, so a test can
//! drive the very rules. What stops all partitions at once, a jam or the drain, is the loop's own.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::offsets::OffsetLedger;
use super::poll_report::Pause;
use crate::domain::TopicPartition;

/// What holds the partitions of the current assignment.
#[derive(Debug)]
pub(crate) struct Pauses {
    most_unfinished: usize,
    patience: Duration,
    for_memory: HashSet<TopicPartition>,
    crowded: HashMap<TopicPartition, Crowd>,
    out_of_range: HashSet<TopicPartition>,
}

/// How much of a crowded partition is unfinished.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    /// The fewest records since it was paused.
    fewest: usize,
    /// When there were first so few.
    since: Instant,
}

/// What became of the crowded partitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Relief {
    /// To be read again.
    pub(crate) resumed: Vec<TopicPartition>,
    /// Of these nothing finishes.
    pub(crate) stuck: Vec<TopicPartition>,
}

impl Pauses {
    /// A partition is crowded with `most_unfinished` records, and stuck when none of them finishes for
    /// `patience`.
    pub(crate) fn new(most_unfinished: usize, patience: Duration) -> Self {
        Self {
            most_unfinished,
            patience,
            for_memory: HashSet::new(),
            crowded: HashMap::new(),
            out_of_range: HashSet::new(),
        }
    }

    /// With no more unfinished records than this a crowded partition is read again: far fewer, since each
    /// pause drops what was prefetched, and librdkafka is said to leak where pauses are frequent.
    pub(crate) fn few_enough(&self) -> usize {
        self.most_unfinished / 2
    }

    /// Notes that memory asks for a pause.
    pub(crate) fn pause_for_memory(&mut self, partitions: &[TopicPartition]) {
        self.for_memory.extend(partitions.iter().cloned());
    }

    /// Notes that memory asks for it no more; gives those that nothing else holds.
    pub(crate) fn resume_for_memory(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Vec<TopicPartition> {
        for partition in partitions {
            self.for_memory.remove(partition);
        }
        self.free_of(partitions)
    }

    /// Notes how much of a partition is unfinished after a record of it was read; whether it is
    /// crowded as of now and must be paused.
    pub(crate) fn crowd(
        &mut self,
        partition: &TopicPartition,
        unfinished: usize,
        now: Instant,
    ) -> bool {
        if unfinished < self.most_unfinished || self.is_crowded(partition) {
            return false;
        }
        let crowd = Crowd {
            fewest: unfinished,
            since: now,
        };
        self.crowded.insert(partition.clone(), crowd);
        true
    }

    /// Notes that a partition was read to the end of its range; whether that is new, and it must be
    /// paused.
    pub(crate) fn end_range(&mut self, partition: &TopicPartition) -> bool {
        self.out_of_range.insert(partition.clone())
    }

    /// What holds a partition; all may.
    pub(crate) fn of(&self, partition: &TopicPartition) -> Option<Pause> {
        if self.out_of_range.contains(partition) {
            return Some(Pause::EndOfRange);
        }
        if self.is_crowded(partition) {
            return Some(Pause::Unfinished);
        }
        self.for_memory.contains(partition).then_some(Pause::Memory)
    }

    /// Whether any partition waits for some of what was read of it to finish.
    pub(crate) fn is_any_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }

    fn is_crowded(&self, partition: &TopicPartition) -> bool {
        self.crowded.contains_key(partition)
    }

    /// Those of the partitions that really are read to their end: what is written behind the pause of a
    /// crowded one is not seen, and it must not seem idle.
    pub(crate) fn seen_ends(&self, mut read: Vec<TopicPartition>) -> Vec<TopicPartition> {
        read.retain(|partition| !self.is_crowded(partition));
        read
    }

    /// Looks how much of the crowded partitions is unfinished. Those that are stuck hold back the time
    /// by which their parts would be due.
    ///
    /// Time that is excused counts for nothing: while the stages behind are full, what is unfinished is
    /// their business; while nothing is read, or a leader is away, views come later.
    pub(crate) fn relieve(
        &mut self,
        ledger: &OffsetLedger,
        is_excused: bool,
        now: Instant,
    ) -> Relief {
        let few_enough = self.few_enough();
        let mut relieved = Vec::new();
        let mut stuck = Vec::new();
        self.crowded.retain(|partition, crowd| {
            let unfinished = ledger.in_flight(partition);
            if unfinished <= few_enough {
                relieved.push(partition.clone());
                return false;
            }
            if unfinished < crowd.fewest || is_excused {
                crowd.fewest = crowd.fewest.min(unfinished);
                crowd.since = now;
            } else if now.duration_since(crowd.since) >= self.patience {
                crowd.since = now;
                stuck.push(partition.clone());
            }
            true
        });
        Relief {
            resumed: self.free_of(&relieved),
            stuck,
        }
    }

    /// Those of the partitions that nothing holds.
    pub(crate) fn free_of(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let is_free = |partition: &&TopicPartition| self.of(partition).is_none();
        partitions.iter().filter(is_free).cloned().collect()
    }

    /// Forgets partitions that are given up, or read anew.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.for_memory.remove(partition);
            self.crowded.remove(partition);
            self.out_of_range.remove(partition);
        }
    }

    /// Every partition that is held, whatever by.
    #[cfg(test)]
    pub(crate) fn held(&self) -> HashSet<&TopicPartition> {
        let held = self.for_memory.iter().chain(self.crowded.keys());
        held.chain(&self.out_of_range).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{SourceOffset, Topic};

    const MOST: usize = 4;
    const PATIENCE: Duration = Duration::from_secs(5);

    fn camera() -> TopicPartition {
        TopicPartition {
            topic: Topic::from("cam"),
            partition: 0,
        }
    }

    /// A partition with as many unfinished records as may be, crowded at `now`.
    fn crowded(now: Instant) -> (Pauses, OffsetLedger) {
        let mut ledger = OffsetLedger::default();
        ledger.assign([camera()], 1);
        let mut pauses = Pauses::new(MOST, PATIENCE);
        for offset in 0..MOST as i64 {
            ledger.begin(&record(offset));
            let is_full = pauses.crowd(&camera(), ledger.in_flight(&camera()), now);
            assert_eq!(is_full, offset == MOST as i64 - 1);
        }
        (pauses, ledger)
    }

    fn record(offset: i64) -> SourceOffset {
        SourceOffset {
            topic: Topic::from("cam"),
            partition: 0,
            offset,
        }
    }

    #[test]
    fn a_crowded_partition_is_read_again_when_half_of_it_is_finished() {
        let now = Instant::now();
        let (mut pauses, mut ledger) = crowded(now);
        ledger.finish(&record(0), 1);
        assert_eq!(pauses.relieve(&ledger, false, now), Relief::default());
        assert!(pauses.seen_ends(vec![camera()]).is_empty());
        ledger.finish(&record(1), 1);
        assert_eq!(pauses.relieve(&ledger, false, now).resumed, [camera()]);
        assert_eq!(pauses.seen_ends(vec![camera()]), [camera()]);
    }

    #[test]
    fn a_partition_that_memory_holds_too_waits_for_both() {
        let now = Instant::now();
        let (mut pauses, mut ledger) = crowded(now);
        pauses.pause_for_memory(&[camera()]);
        assert!(pauses.resume_for_memory(&[camera()]).is_empty());
        pauses.pause_for_memory(&[camera()]);
        ledger.finish(&record(0), 1);
        ledger.finish(&record(1), 1);
        assert!(pauses.relieve(&ledger, false, now).resumed.is_empty());
        assert_eq!(pauses.resume_for_memory(&[camera()]), [camera()]);
    }

    #[test]
    fn a_partition_is_stuck_once_each_time_that_patience_runs_out() {
        let start = Instant::now();
        let (mut pauses, mut ledger) = crowded(start);
        let mut stuck_at = |seconds: u64, ledger: &OffsetLedger| {
            let now = start + Duration::from_secs(seconds);
            !pauses.relieve(ledger, false, now).stuck.is_empty()
        };
        assert!(!stuck_at(4, &ledger));
        ledger.finish(&record(0), 1);
        assert!(!stuck_at(6, &ledger), "one has finished");
        assert!(!stuck_at(10, &ledger));
        assert!(stuck_at(11, &ledger));
        assert!(!stuck_at(15, &ledger));
        assert!(stuck_at(16, &ledger));
    }

    #[test]
    fn a_jam_makes_no_partition_stuck() {
        let start = Instant::now();
        let (mut pauses, ledger) = crowded(start);
        let mut stuck_at = |seconds: u64, is_jammed: bool| {
            let now = start + Duration::from_secs(seconds);
            !pauses.relieve(&ledger, is_jammed, now).stuck.is_empty()
        };
        assert!(!stuck_at(60, true));
        assert!(!stuck_at(64, false));
        assert!(stuck_at(65, false));
    }

    #[test]
    fn pauses_end_with_the_assignment() {
        let (mut pauses, _ledger) = crowded(Instant::now());
        pauses.pause_for_memory(&[camera()]);
        pauses.forget(&[camera()]);
        assert!(pauses.held().is_empty());
        assert_eq!(pauses.free_of(&[camera()]), [camera()]);
    }

    #[test]
    fn at_the_end_of_its_range_nothing_resumes_a_partition_but_a_new_assignment() {
        let (ledger, now) = (OffsetLedger::default(), Instant::now());
        let mut pauses = Pauses::new(MOST, PATIENCE);
        assert!(pauses.end_range(&camera()));
        assert!(!pauses.end_range(&camera()), "it is paused already");
        pauses.pause_for_memory(&[camera()]);
        assert!(pauses.resume_for_memory(&[camera()]).is_empty());
        assert!(pauses.relieve(&ledger, false, now).resumed.is_empty());
        assert_eq!(pauses.of(&camera()), Some(Pause::EndOfRange));
        pauses.forget(&[camera()]);
        assert_eq!(pauses.free_of(&[camera()]), [camera()]);
    }
}
