//! The offset ledger: how far each partition may be committed.
//!
//! Parts finish out of order, so a partition's commit position is its lowest unfinished offset,
//! never beyond. What is finished above it is kept as ranges, so that a commit can carry it along
//! and a restart can skip it. The ledger is pure: it reads nothing, commits nothing and asks no
//! clock; the consumer tells it what was read, the publisher what was published.
//!
//! Memory grows with the unfinished records and the gaps between finished ranges, not with what
//! was read. Offsets that hold no record (transaction markers, compaction) are bridged as soon as
//! a later record shows that they are empty; at the end of a partition the commit position stays
//! before them, since nothing tells for certain that no record is on its way.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use crate::domain::{SourceOffset, Topic, TopicPartition};

/// What the ledger knew of a record when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Not seen before under this assignment: process it.
    Fresh,
    /// Read before and still on its way: drop this copy, the first one decides.
    InFlight,
    /// Its fate is already published: drop it.
    Finished,
    /// Its partition is not ours (any more): drop it.
    Unassigned,
}

/// What is to be committed for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// Its lowest unfinished offset, else the next to be read.
    pub position: i64,
    /// What is finished above the position, in order.
    pub finished: Vec<Range<i64>>,
}

/// Per partition of the current assignment, which records are unfinished.
///
/// ```
/// use panoptes::domain::{SourceOffset, Topic, TopicPartition};
/// use panoptes::kafka::offsets::OffsetLedger;
///
/// let cam = TopicPartition { topic: Topic::from("cam"), partition: 0 };
/// let at = |offset| SourceOffset { topic: cam.topic.clone(), partition: 0, offset };
/// let mut ledger = OffsetLedger::default();
/// ledger.assign([cam.clone()], 1);
/// ledger.begin(&at(7));
/// ledger.begin(&at(8));
/// ledger.finish(&at(8), 1);
/// assert_eq!(ledger.commit_position(&cam), Some(7));
/// ledger.finish(&at(7), 1);
/// assert_eq!(ledger.commit_position(&cam), Some(9));
/// ```
#[derive(Debug, Default)]
pub struct OffsetLedger {
    partitions: HashMap<TopicPartition, PartitionLedger>,
    finishes: u64,
}

/// How far one partition has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The partition.
    pub partition: TopicPartition,
    /// The position to commit; none until something was read or restored.
    pub position: Option<i64>,
    /// The next offset that is expected.
    pub next_to_read: Option<i64>,
    /// How many records are unfinished.
    pub unfinished: usize,
}

impl OffsetLedger {
    /// Takes partitions under `generation`. One that is already held under the same generation is
    /// left as it is; under another it starts afresh, and what was in flight becomes stale.
    pub fn assign(
        &mut self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        generation: u64,
    ) {
        for partition in partitions {
            let ledger = self
                .partitions
                .entry(partition)
                .or_insert_with(|| PartitionLedger::new(generation));
            if ledger.generation != generation {
                *ledger = PartitionLedger::new(generation);
            }
        }
    }

    /// Gives partitions up and forgets all about them.
    pub fn revoke<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// Tells what was committed for a partition that was just assigned: its position, and the
    /// records of `finished`, which an earlier owner published and which will be reported as
    /// [`Begun::Finished`] when they are read again.
    pub fn restore(&mut self, partition: &TopicPartition, position: i64, finished: &[Range<i64>]) {
        if let Some(ledger) = self.partitions.get_mut(partition) {
            ledger.position = Some(position);
            ledger.committed = Some((position, finished.to_vec()));
            for range in finished {
                insert_range(&mut ledger.finished, range.clone());
            }
        }
    }

    /// Notes that a record was read. Only a [`Begun::Fresh`] one is to be processed.
    ///
    /// An offset below the watermark means that the log was rewound (truncated or recreated):
    /// what is read from there on is new, and the commit position follows it down.
    pub fn begin(&mut self, source: &SourceOffset) -> Begun {
        match self.partitions.get_mut(&source.topic_partition()) {
            Some(ledger) => ledger.begin(source.offset),
            None => Begun::Unassigned,
        }
    }

    /// Notes that a record's fate is published. Idempotent; a stale generation, an unknown
    /// partition and a record that was never begun change nothing. Returns whether it counted.
    pub fn finish(&mut self, source: &SourceOffset, generation: u64) -> bool {
        let counts = self
            .partitions
            .get_mut(&source.topic_partition())
            .is_some_and(|ledger| ledger.generation == generation && ledger.finish(source.offset));
        self.finishes += u64::from(counts);
        counts
    }

    /// How many records were finished since the start.
    pub fn finishes(&self) -> u64 {
        self.finishes
    }

    /// How far every partition has come, in order.
    pub fn progress(&self) -> Vec<Progress> {
        let mut progress: Vec<_> = self
            .partitions
            .iter()
            .map(|(partition, ledger)| Progress {
                partition: partition.clone(),
                position: ledger.watermark(),
                next_to_read: ledger.position,
                unfinished: ledger.unfinished.len(),
            })
            .collect();
        progress.sort_by(|left, right| left.partition.cmp(&right.partition));
        progress
    }

    /// The position to commit: the lowest unfinished offset, else the next to be read. `None`
    /// until something of the partition was read.
    pub fn commit_position(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition)?.watermark()
    }

    /// The next offset that is expected of a partition; `None` until something of it was read or
    /// restored.
    pub fn next_to_read(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition)?.position
    }

    /// The partitions whose commit position, or what is finished above it, differs from what was
    /// last committed, in order.
    pub fn positions_to_commit(&self) -> Vec<CommitPosition> {
        let mut positions: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, ledger)| !ledger.is_forgone)
            .filter_map(|(partition, ledger)| {
                let position = ledger.watermark()?;
                let finished = ledger.finished_above();
                let committed = ledger.committed.as_ref();
                let is_new = committed.is_none_or(|(old_position, old_finished)| {
                    *old_position != position || *old_finished != finished
                });
                is_new.then(|| CommitPosition {
                    partition: partition.clone(),
                    position,
                    finished,
                })
            })
            .collect();
        positions.sort_by(|one, other| one.partition.cmp(&other.partition));
        positions
    }

    /// Notes that the broker has taken these positions.
    pub fn mark_committed(&mut self, positions: &[CommitPosition]) {
        for commit in positions {
            if let Some(ledger) = self.partitions.get_mut(&commit.partition) {
                ledger.committed = Some((commit.position, commit.finished.clone()));
            }
        }
    }

    /// Notes that a commit may have failed: every position is to be committed again.
    pub fn forget_committed(&mut self) {
        for ledger in self.partitions.values_mut() {
            ledger.committed = None;
        }
    }

    /// Notes that topics are gone: brokers take no positions of theirs, nor any that come with them.
    /// What is in flight of them is finished as usual. A topic that comes again is assigned anew.
    pub fn forgo(&mut self, topics: &HashSet<Topic>) {
        for (partition, ledger) in &mut self.partitions {
            ledger.is_forgone |= topics.contains(&partition.topic);
        }
    }

    /// Whether a partition is held under `generation`.
    pub fn is_current(&self, partition: &TopicPartition, generation: u64) -> bool {
        self.partitions
            .get(partition)
            .is_some_and(|ledger| ledger.generation == generation)
    }

    /// The generation under which a partition is held.
    pub fn generation(&self, partition: &TopicPartition) -> Option<u64> {
        Some(self.partitions.get(partition)?.generation)
    }

    /// How many records of a partition are unfinished.
    pub fn in_flight(&self, partition: &TopicPartition) -> usize {
        self.partitions
            .get(partition)
            .map_or(0, |ledger| ledger.unfinished.len())
    }

    /// How many records of all partitions are unfinished.
    pub fn total_in_flight(&self) -> usize {
        self.partitions
            .values()
            .map(|ledger| ledger.unfinished.len())
            .sum()
    }

    /// What is finished above the commit position, as ranges in order.
    pub fn finished_above(&self, partition: &TopicPartition) -> Vec<Range<i64>> {
        self.partitions
            .get(partition)
            .map(PartitionLedger::finished_above)
            .unwrap_or_default()
    }
}

/// One partition. Invariant: no unfinished offset lies in a finished range, and every finished
/// range ends above the watermark.
#[derive(Debug)]
struct PartitionLedger {
    generation: u64,
    unfinished: BTreeSet<i64>,
    /// Start to end (exclusive), disjoint and not touching.
    finished: BTreeMap<i64, i64>,
    /// The next offset to be read; none before the first record.
    position: Option<i64>,
    committed: Option<(i64, Vec<Range<i64>>)>,
    /// Its topic is gone: nothing is committed any more.
    is_forgone: bool,
}

impl PartitionLedger {
    fn new(generation: u64) -> Self {
        Self {
            generation,
            unfinished: BTreeSet::new(),
            finished: BTreeMap::new(),
            position: None,
            committed: None,
            is_forgone: false,
        }
    }

    fn watermark(&self) -> Option<i64> {
        let position = self.position?;
        let lowest = self.unfinished.first().copied().unwrap_or(position);
        Some(lowest.min(position))
    }

    fn begin(&mut self, offset: i64) -> Begun {
        if self.unfinished.contains(&offset) {
            return Begun::InFlight;
        }
        if self.watermark().is_some_and(|watermark| offset < watermark) {
            self.rewind_to(offset);
        }
        self.advance(offset);
        let was_finished = contains(&self.finished, offset);
        if !was_finished {
            self.unfinished.insert(offset);
        }
        self.move_position_to(offset + 1);
        if was_finished {
            Begun::Finished
        } else {
            Begun::Fresh
        }
    }

    /// The log is read from below what was finished: everything from there on is read anew, so
    /// what was finished above counts no more. What is in flight stays, lest a copy that comes
    /// astray lets the commit pass it.
    fn rewind_to(&mut self, offset: i64) {
        self.finished.clear();
        self.position = Some(offset);
    }

    fn move_position_to(&mut self, position: i64) {
        self.position = Some(self.position.map_or(position, |old| old.max(position)));
        self.drop_finished_below_watermark();
    }

    fn finish(&mut self, offset: i64) -> bool {
        if !self.unfinished.remove(&offset) {
            return false;
        }
        // Above the position it belongs to a log that was rewound since, and says nothing.
        if self.position.is_some_and(|position| offset < position) {
            insert_range(&mut self.finished, offset..offset + 1);
        }
        self.drop_finished_below_watermark();
        true
    }

    fn advance(&mut self, position: i64) {
        let Some(old) = self.position else {
            self.move_position_to(position);
            return;
        };
        if position > old {
            let in_gap: Vec<i64> = self.unfinished.range(old..position).copied().collect();
            let mut start = old;
            for unfinished in in_gap {
                insert_range(&mut self.finished, start..unfinished);
                start = unfinished + 1;
            }
            insert_range(&mut self.finished, start..position);
            self.move_position_to(position);
        }
    }

    fn drop_finished_below_watermark(&mut self) {
        let Some(watermark) = self.watermark() else {
            return;
        };
        while let Some(first) = self.finished.first_entry() {
            if *first.get() > watermark {
                break;
            }
            first.remove();
        }
    }

    fn finished_above(&self) -> Vec<Range<i64>> {
        let watermark = self.watermark().unwrap_or(i64::MIN);
        self.finished
            .iter()
            .map(|(start, end)| watermark.max(*start)..*end)
            .collect()
    }
}

fn contains(ranges: &BTreeMap<i64, i64>, offset: i64) -> bool {
    ranges
        .range(..=offset)
        .next_back()
        .is_some_and(|(_, end)| offset < *end)
}

/// Adds a range and merges it with those it overlaps or touches.
fn insert_range(ranges: &mut BTreeMap<i64, i64>, added: Range<i64>) {
    if added.is_empty() {
        return;
    }
    let mut start = added.start;
    let mut end = added.end;
    while let Some((&other_start, &other_end)) = ranges.range(..=end).next_back() {
        if other_end < start {
            break;
        }
        ranges.remove(&other_start);
        start = start.min(other_start);
        end = end.max(other_end);
    }
    ranges.insert(start, end);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Topic;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition {
            topic: Topic::from("cam"),
            partition: number,
        }
    }

    fn at(number: i32, offset: i64) -> SourceOffset {
        SourceOffset {
            topic: Topic::from("cam"),
            partition: number,
            offset,
        }
    }

    fn ledger_with_begun(offsets: impl IntoIterator<Item = i64>) -> OffsetLedger {
        let mut ledger = OffsetLedger::default();
        ledger.assign([partition(0)], 1);
        for offset in offsets {
            assert_eq!(ledger.begin(&at(0, offset)), Begun::Fresh);
        }
        ledger
    }

    #[test]
    fn commits_only_past_finished_records() {
        let mut ledger = ledger_with_begun(10..14);
        for offset in [13, 11, 12] {
            ledger.finish(&at(0, offset), 1);
            assert_eq!(ledger.commit_position(&partition(0)), Some(10));
        }
        assert_eq!(ledger.finished_above(&partition(0)), vec![11..14]);
        ledger.finish(&at(0, 10), 1);
        assert_eq!(ledger.commit_position(&partition(0)), Some(14));
        assert!(ledger.finished_above(&partition(0)).is_empty());
    }

    #[test]
    fn has_no_position_before_the_first_record() {
        let ledger = ledger_with_begun([]);
        assert_eq!(ledger.commit_position(&partition(0)), None);
        assert!(ledger.positions_to_commit().is_empty());
    }

    #[test]
    fn gaps_between_finished_records_are_bridged() {
        let mut ledger = ledger_with_begun((0..100).step_by(2));
        for offset in (2..100).step_by(2) {
            ledger.finish(&at(0, offset), 1);
        }
        assert_eq!(ledger.finished_above(&partition(0)), vec![1..99]);
    }

    #[test]
    fn a_topic_that_is_gone_is_not_committed_until_it_is_assigned_again() {
        let mut ledger = OffsetLedger::default();
        let gone = TopicPartition {
            topic: Topic::from("gone"),
            partition: 0,
        };
        let of_gone = SourceOffset {
            topic: gone.topic.clone(),
            partition: 0,
            offset: 3,
        };
        ledger.assign([partition(0), gone.clone()], 1);
        ledger.begin(&at(0, 5));
        ledger.begin(&of_gone);
        ledger.forgo(&HashSet::from([gone.topic.clone()]));
        assert!(ledger.finish(&at(0, 5), 1));
        assert!(
            ledger.finish(&of_gone, 1),
            "its part is published all the same"
        );
        let committed = |ledger: &OffsetLedger| -> Vec<TopicPartition> {
            let positions = ledger.positions_to_commit().into_iter();
            positions.map(|position| position.partition).collect()
        };
        assert_eq!(committed(&ledger), [partition(0)]);
        ledger.assign([gone.clone()], 2);
        ledger.begin(&of_gone);
        assert_eq!(committed(&ledger), [partition(0), gone]);
    }

    #[test]
    fn a_stale_generation_finishes_nothing() {
        let mut ledger = ledger_with_begun([0]);
        ledger.assign([partition(0)], 2);
        assert_eq!(ledger.commit_position(&partition(0)), None);
        assert_eq!(ledger.begin(&at(0, 0)), Begun::Fresh);
        assert!(!ledger.finish(&at(0, 0), 1));
        assert_eq!(ledger.commit_position(&partition(0)), Some(0));
        assert!(ledger.finish(&at(0, 0), 2));
        assert!(!ledger.finish(&at(0, 0), 2), "finishing is idempotent");
    }

    #[test]
    fn the_same_assignment_again_keeps_what_is_in_flight() {
        let mut ledger = ledger_with_begun([0, 1]);
        ledger.assign([partition(0), partition(1)], 1);
        assert_eq!(ledger.total_in_flight(), 2);
    }

    #[test]
    fn records_of_revoked_partitions_are_not_begun() {
        let mut ledger = ledger_with_begun([0]);
        ledger.revoke(&[partition(0)]);
        assert_eq!(ledger.begin(&at(0, 1)), Begun::Unassigned);
        assert!(!ledger.finish(&at(0, 0), 1));
        assert!(!ledger.is_current(&partition(0), 1));
    }

    #[test]
    fn a_copy_is_told_from_a_fresh_record() {
        let mut ledger = ledger_with_begun([0, 1]);
        ledger.finish(&at(0, 1), 1);
        assert_eq!(ledger.begin(&at(0, 0)), Begun::InFlight);
        assert_eq!(ledger.begin(&at(0, 1)), Begun::Finished);
    }

    #[test]
    fn restored_ranges_are_skipped_when_they_are_read_again() {
        let mut ledger = ledger_with_begun([]);
        ledger.restore(&partition(0), 5, &[6..8, 9..10]);
        assert!(
            ledger.positions_to_commit().is_empty(),
            "it is committed already"
        );
        let begun: Vec<Begun> = (5..11).map(|offset| ledger.begin(&at(0, offset))).collect();
        let fresh = |index: usize| begun[index] == Begun::Fresh;
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(fresh),
            [true, false, false, true, false, true]
        );
        assert_eq!(ledger.finished_above(&partition(0)), vec![6..8, 9..10]);
        ledger.finish(&at(0, 5), 1);
        assert_eq!(ledger.commit_position(&partition(0)), Some(8));
    }

    #[test]
    fn a_rewound_log_is_read_as_new() {
        let mut ledger = ledger_with_begun(100..105);
        for offset in 100..103 {
            ledger.finish(&at(0, offset), 1);
        }
        assert_eq!(ledger.begin(&at(0, 0)), Begun::Fresh);
        assert_eq!(ledger.begin(&at(0, 1)), Begun::Fresh);
        ledger.finish(&at(0, 0), 1);
        assert_eq!(ledger.commit_position(&partition(0)), Some(1));
        ledger.finish(&at(0, 1), 1);
        assert_eq!(ledger.commit_position(&partition(0)), Some(2));
    }

    #[test]
    fn a_copy_astray_below_the_watermark_lets_no_commit_pass_what_is_in_flight() {
        let mut ledger = ledger_with_begun(0..10);
        for offset in [0, 1, 2, 3, 4, 6, 7, 9] {
            ledger.finish(&at(0, offset), 1);
        }
        assert_eq!(ledger.begin(&at(0, 2)), Begun::Fresh);
        assert_eq!(ledger.begin(&at(0, 10)), Begun::Fresh);
        ledger.finish(&at(0, 2), 1);
        assert_eq!(ledger.commit_position(&partition(0)), Some(5));
        assert_eq!(ledger.finished_above(&partition(0)), vec![6..8, 9..10]);
    }

    #[test]
    fn only_changed_positions_are_to_be_committed() {
        let mut ledger = ledger_with_begun([0, 1]);
        let first = ledger.positions_to_commit();
        assert_eq!(first, vec![commit_of(0, None)]);
        ledger.mark_committed(&first);
        assert!(ledger.positions_to_commit().is_empty());
        ledger.finish(&at(0, 1), 1);
        assert_eq!(ledger.positions_to_commit(), vec![commit_of(0, Some(1..2))]);
        ledger.mark_committed(&[commit_of(0, Some(1..2))]);
        assert!(ledger.positions_to_commit().is_empty());
        ledger.finish(&at(0, 0), 1);
        assert_eq!(ledger.positions_to_commit(), vec![commit_of(2, None)]);
        ledger.mark_committed(&[commit_of(2, None)]);
        ledger.forget_committed();
        assert_eq!(ledger.positions_to_commit(), vec![commit_of(2, None)]);
    }

    #[test]
    fn a_log_that_starts_again_below_what_was_restored_is_read_as_new() {
        let mut ledger = ledger_with_begun([]);
        ledger.restore(&partition(0), 5, std::slice::from_ref(&(6..8)));
        for offset in 0..8 {
            assert_eq!(ledger.begin(&at(0, offset)), Begun::Fresh);
        }
    }

    fn commit_of(position: i64, finished: Option<Range<i64>>) -> CommitPosition {
        CommitPosition {
            partition: partition(0),
            position,
            finished: finished.into_iter().collect(),
        }
    }

    /// One partition as a table of offsets: what the ledger must agree with.
    #[derive(Debug, Default)]
    struct NaivePartition {
        generation: u64,
        start: Option<i64>,
        position: i64,
        unfinished: Vec<i64>,
    }

    impl NaivePartition {
        fn watermark(&self) -> Option<i64> {
            self.start?;
            self.unfinished.iter().copied().chain([self.position]).min()
        }

        fn finished_offsets_above(&self) -> Vec<i64> {
            let Some(watermark) = self.watermark() else {
                return Vec::new();
            };
            (watermark..self.position)
                .filter(|offset| !self.unfinished.contains(offset))
                .collect()
        }

        fn begin(&mut self, offset: i64) -> Begun {
            if self.unfinished.contains(&offset) {
                return Begun::InFlight;
            }
            let is_above = self
                .watermark()
                .is_some_and(|watermark| offset >= watermark);
            if is_above && offset < self.position {
                return Begun::Finished;
            }
            self.start.get_or_insert(offset);
            self.position = offset + 1;
            self.unfinished.push(offset);
            Begun::Fresh
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read {
            number: i32,
            gap: i64,
        },
        ReadAgain {
            number: i32,
            back: i64,
            may_rewind: bool,
        },
        Finish {
            number: i32,
            which: usize,
            is_stale: bool,
        },
        Commit,
        Assign {
            number: i32,
        },
        Revoke {
            number: i32,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number = 0..3i32;
        let step = prop_oneof![
            10 => (number.clone(), prop_oneof![4 => Just(0i64), 1 => 0..4i64])
                .prop_map(|(number, gap)| Step::Read { number, gap }),
            2 => (number.clone(), 0..12i64, prop::bool::weighted(0.2)).prop_map(
                |(number, back, may_rewind)| Step::ReadAgain { number, back, may_rewind }
            ),
            10 => (number.clone(), any::<usize>(), prop::bool::weighted(0.1)).prop_map(
                |(number, which, is_stale)| Step::Finish { number, which, is_stale }
            ),
            2 => Just(Step::Commit),
            1 => number.clone().prop_map(|number| Step::Assign { number }),
            1 => number.prop_map(|number| Step::Revoke { number }),
        ];
        prop::collection::vec(step, 1..300)
    }

    #[derive(Default)]
    struct Trial {
        ledger: OffsetLedger,
        naive: HashMap<i32, NaivePartition>,
        committed: HashMap<i32, i64>,
        generation: u64,
    }

    impl Trial {
        fn apply(&mut self, step: Step) {
            match step {
                Step::Read { number, gap } => {
                    let committed = self.committed.get(&number).copied().unwrap_or(0);
                    let next = self
                        .naive
                        .get(&number)
                        .map_or(0, |naive| match naive.start {
                            Some(_) => naive.position + gap,
                            None => committed + gap,
                        });
                    self.begin(number, next);
                }
                Step::ReadAgain {
                    number,
                    back,
                    may_rewind,
                } => {
                    let watermark = self.naive.get(&number).and_then(NaivePartition::watermark);
                    let Some(watermark) = watermark else { return };
                    let lowest = if may_rewind { 0 } else { watermark };
                    let offset = lowest.max(self.naive[&number].position - back);
                    self.begin(number, offset);
                }
                Step::Finish {
                    number,
                    which,
                    is_stale,
                } => self.finish(number, which, is_stale),
                Step::Commit => {
                    let positions = self.ledger.positions_to_commit();
                    self.ledger.mark_committed(&positions);
                    for commit in positions {
                        self.committed
                            .insert(commit.partition.partition, commit.position);
                    }
                    assert!(self.ledger.positions_to_commit().is_empty());
                }
                Step::Assign { number } => {
                    self.generation += 1;
                    let generation = self.generation;
                    self.ledger.assign([partition(number)], generation);
                    let naive = NaivePartition {
                        generation,
                        ..NaivePartition::default()
                    };
                    self.naive.insert(number, naive);
                }
                Step::Revoke { number } => {
                    self.ledger.revoke(&[partition(number)]);
                    self.naive.remove(&number);
                }
            }
        }

        fn begin(&mut self, number: i32, offset: i64) {
            let expected = match self.naive.get_mut(&number) {
                Some(naive) => naive.begin(offset),
                None => Begun::Unassigned,
            };
            assert_eq!(self.ledger.begin(&at(number, offset)), expected);
        }

        fn finish(&mut self, number: i32, which: usize, is_stale: bool) {
            let Some(naive) = self.naive.get_mut(&number) else {
                assert!(!self.ledger.finish(&at(number, 0), self.generation));
                return;
            };
            if naive.unfinished.is_empty() {
                return;
            }
            let index = which % naive.unfinished.len();
            let offset = naive.unfinished[index];
            if is_stale {
                assert!(
                    !self
                        .ledger
                        .finish(&at(number, offset), naive.generation + 1)
                );
                return;
            }
            naive.unfinished.swap_remove(index);
            assert!(self.ledger.finish(&at(number, offset), naive.generation));
            assert!(!self.ledger.finish(&at(number, offset), naive.generation));
        }

        fn check(&self) {
            let mut total = 0;
            for number in 0..3 {
                let naive = self.naive.get(&number);
                let watermark = naive.and_then(NaivePartition::watermark);
                assert_eq!(self.ledger.commit_position(&partition(number)), watermark);
                let ranges = self.ledger.finished_above(&partition(number));
                let above: Vec<i64> = ranges.iter().cloned().flatten().collect();
                let expected = naive.map(NaivePartition::finished_offsets_above);
                assert_eq!(above, expected.unwrap_or_default());
                let in_flight = naive.map_or(0, |naive| naive.unfinished.len());
                total += in_flight;
                assert!(
                    ranges.len() <= in_flight,
                    "ranges touch or lie below the watermark"
                );
            }
            assert_eq!(self.ledger.total_in_flight(), total);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_table_of_offsets_in_every_order(steps in steps()) {
            let mut trial = Trial::default();
            for step in steps {
                trial.apply(step);
                trial.check();
            }
        }
    }
}
