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

use super::gap_count::{GapCount, Skipped};
use crate::domain::{SourceOffset, Topic, TopicPartition};

/// What the ledger knew of a record when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Not seen before under this assignment: process it.
    Fresh,
    /// Read before and still on its way: drop this copy, the first one decides.
    InFlight,
    /// Its fate is already published: nothing is to become of it.
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
    /// How many offsets below the position no record was read from; told by ledgers that are asked to.
    pub skipped: Skipped,
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
    tells_skipped: bool,
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
    /// Lets commits tell from how many offsets no record was read, so that it can be told of a whole job.
    pub fn tell_skipped(&mut self) {
        self.tells_skipped = true;
    }

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
            ledger.committed = Some((position, finished.to_vec(), Skipped::default()));
            for range in finished {
                insert_range(&mut ledger.finished, range.clone());
            }
        }
    }

    /// Tells what was committed with the position of [`Self::restore`] about offsets without a record.
    pub fn restore_skipped(&mut self, partition: &TopicPartition, skipped: Skipped) {
        if let Some(ledger) = self.partitions.get_mut(partition) {
            ledger.gaps.restore(skipped);
            if let Some((_, _, committed)) = &mut ledger.committed {
                *committed = skipped;
            }
        }
    }

    /// Notes where a partition's log begins now; gives what the gaps were that were found in it since that
    /// was last told.
    pub fn learn_log_start(&mut self, partition: &TopicPartition, log_start: i64) -> Skipped {
        let ledger = self.partitions.get_mut(partition);
        ledger.map_or_else(Skipped::default, |ledger| {
            ledger.gaps.learn_log_start(log_start)
        })
    }

    /// Notes that nobody will tell where the partitions' logs begin, so that the gaps that were found need not
    /// be kept for that.
    pub fn settle_gaps(&mut self) {
        for ledger in self.partitions.values_mut() {
            ledger.gaps.settle();
        }
    }

    #[cfg(test)]
    pub(crate) fn unsettled_gaps(&self) -> usize {
        let ledgers = self.partitions.values();
        ledgers.map(|ledger| ledger.gaps.unsettled()).sum()
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

    /// Notes that a partition is read up to `end`, whatever lies before it.
    pub fn read_until(&mut self, partition: &TopicPartition, end: i64) {
        if let Some(ledger) = self.partitions.get_mut(partition) {
            ledger.advance(end);
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
                let skipped = match self.tells_skipped {
                    true => ledger.gaps.below(),
                    false => Skipped::default(),
                };
                let told = (position, finished, skipped);
                if ledger.committed.as_ref() == Some(&told) {
                    return None;
                }
                let (position, finished, skipped) = told;
                Some(CommitPosition {
                    partition: partition.clone(),
                    position,
                    finished,
                    skipped,
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
                ledger.committed = Some((commit.position, commit.finished.clone(), commit.skipped));
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
    committed: Option<(i64, Vec<Range<i64>>, Skipped)>,
    gaps: GapCount,
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
            gaps: GapCount::default(),
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
        self.gaps.rewind_to(offset);
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
                self.skip(start..unfinished);
                start = unfinished + 1;
            }
            self.skip(start..position);
            self.move_position_to(position);
        }
    }

    fn skip(&mut self, offsets: Range<i64>) {
        insert_range(&mut self.finished, offsets.clone());
        self.gaps.skip(offsets);
    }

    fn drop_finished_below_watermark(&mut self) {
        let Some(watermark) = self.watermark() else {
            return;
        };
        self.gaps.pass(watermark);
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
#[path = "offsets_tests.rs"]
mod tests;
