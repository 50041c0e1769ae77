//! Counts the offsets of one partition that no record was read from: what brokers deleted before it was
//! read, and what holds no record for a reader (compaction, transaction markers, aborted transactions).
//!
//! Promise: every gap between records counts once, however often reading begins anew from what is
//! committed. So what is told with a commit is what lies below its position, and gaps above it wait.
//!
//! Whether a gap was deleted is known once the brokers tell where the log begins: up to there it was. They
//! tell it with every fetch, so what is told after a gap was found was known when it arose. A log that
//! loses records which were just read may make a gap of markers count as deleted; no deleted record counts
//! as anything else.

use std::collections::BTreeMap;
use std::ops::Range;

/// How many offsets no record was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Skipped {
    /// Their records were deleted before they were read.
    pub deleted: u64,
    /// They hold no record for a reader.
    pub empty: u64,
}

impl Skipped {
    /// Whether there are none.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    fn of(length: u64, deleted: u64) -> Self {
        Self {
            deleted,
            empty: length - deleted,
        }
    }

    fn add(&mut self, more: Self) {
        self.deleted += more.deleted;
        self.empty += more.empty;
    }
}

/// The gaps of one partition.
#[derive(Debug, Default)]
pub(super) struct GapCount {
    /// Those below the position that is to be committed.
    below: Skipped,
    /// Those at or above it, by their first offset.
    above: BTreeMap<i64, Gap>,
    /// Those that were found since the log's beginning was last told.
    unsettled: Vec<Gap>,
    /// Where the log began when it was last told.
    log_start: i64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    start: i64,
    end: i64,
    /// How many of its first offsets were deleted, as far as that is known.
    deleted: u64,
}

impl Gap {
    fn skipped(&self) -> Skipped {
        Skipped::of(length(self.start..self.end), self.deleted)
    }

    fn settle(&mut self, log_start: i64) {
        let deleted = length(self.start..self.end.min(log_start));
        self.deleted = self.deleted.max(deleted);
    }
}

impl GapCount {
    /// Goes on from what was committed.
    pub(super) fn restore(&mut self, below: Skipped) {
        self.below = below;
    }

    /// Notes that reading passed these offsets without a record.
    pub(super) fn skip(&mut self, offsets: Range<i64>) {
        if offsets.is_empty() {
            return;
        }
        let mut gap = Gap {
            start: offsets.start,
            end: offsets.end,
            deleted: 0,
        };
        gap.settle(self.log_start);
        self.above.insert(gap.start, gap);
        self.unsettled.push(gap);
    }

    /// Notes that the position to be committed has come to `position`.
    pub(super) fn pass(&mut self, position: i64) {
        while let Some(first) = self.above.first_entry() {
            if first.get().end > position {
                break;
            }
            self.below.add(first.remove().skipped());
        }
    }

    /// Notes that the log is read anew from below what was read of it.
    pub(super) fn rewind_to(&mut self, offset: i64) {
        self.above.retain(|_, gap| gap.end <= offset);
        self.unsettled.retain(|gap| gap.end <= offset);
    }

    /// Notes where the log begins now; gives what the gaps were that were found since it was last told.
    pub(super) fn learn_log_start(&mut self, log_start: i64) -> Skipped {
        self.log_start = log_start;
        let mut settled = Skipped::default();
        for mut gap in self.unsettled.drain(..) {
            let known = gap.deleted;
            gap.settle(log_start);
            settled.add(gap.skipped());
            match self.above.get_mut(&gap.start) {
                Some(waiting) => waiting.deleted = gap.deleted,
                None => {
                    self.below.empty -= gap.deleted - known;
                    self.below.deleted += gap.deleted - known;
                }
            }
        }
        settled
    }

    /// Notes that nobody will tell where the log begins: what was found stays as it is known.
    pub(super) fn settle(&mut self) {
        self.unsettled.clear();
    }

    #[cfg(test)]
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// What lies below the position that is to be committed.
    pub(super) fn below(&self) -> Skipped {
        self.below
    }
}

fn length(offsets: Range<i64>) -> u64 {
    u64::try_from(offsets.end - offsets.start).unwrap_or(0)
}

#[cfg(test)]
#[path = "gap_count_tests.rs"]
mod tests;
