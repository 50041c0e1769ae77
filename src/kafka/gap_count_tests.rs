use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::domain::{SourceOffset, TopicPartition};
use crate::kafka::commit_metadata;
use crate::kafka::offsets::{Begun, OffsetLedger};

fn skipped(deleted: u64, empty: u64) -> Skipped {
    Skipped { deleted, empty }
}

#[test]
fn a_gap_counts_once_the_commit_passes_it() {
    let mut gaps = GapCount::default();
    gaps.skip(5..8);
    gaps.pass(5);
    assert_eq!(gaps.below(), skipped(0, 0));
    gaps.pass(8);
    assert_eq!(gaps.below(), skipped(0, 3));
}

#[test]
fn what_lies_before_the_log_was_deleted_and_the_rest_of_a_gap_was_empty() {
    let mut gaps = GapCount::default();
    gaps.learn_log_start(0);
    gaps.skip(5..20);
    gaps.skip(21..22);
    assert_eq!(gaps.learn_log_start(15), skipped(10, 6));
    // What is deleted later was read.
    assert_eq!(gaps.learn_log_start(100), skipped(0, 0));
    gaps.pass(22);
    assert_eq!(gaps.below(), skipped(10, 6));
}

#[test]
fn what_a_gap_was_may_be_learnt_after_the_commit_has_passed_it() {
    let mut gaps = GapCount::default();
    gaps.skip(5..9);
    gaps.pass(30);
    assert_eq!(gaps.below(), skipped(0, 4));
    gaps.learn_log_start(9);
    assert_eq!(gaps.below(), skipped(4, 0));
}

#[test]
fn a_log_that_is_known_to_begin_later_tells_at_once() {
    let mut gaps = GapCount::default();
    gaps.learn_log_start(8);
    gaps.skip(5..9);
    gaps.pass(9);
    assert_eq!(gaps.below(), skipped(3, 1));
    assert_eq!(gaps.learn_log_start(9), skipped(4, 0));
    assert_eq!(gaps.below(), skipped(4, 0));
}

#[test]
fn gaps_are_not_kept_where_nobody_tells_where_the_log_begins() {
    let mut gaps = GapCount::default();
    for start in (0..2_000).step_by(2) {
        gaps.skip(start..start + 1);
        gaps.pass(start + 2);
        gaps.settle();
    }
    assert_eq!(gaps.unsettled(), 0);
    assert!(gaps.above.is_empty());
    assert_eq!(gaps.below(), skipped(0, 1_000));
}

/// What the brokers keep of a group's commit.
#[derive(Clone, Default)]
struct Commit {
    position: i64,
    text: String,
}

fn camera() -> TopicPartition {
    TopicPartition {
        topic: "cam".into(),
        partition: 0,
    }
}

/// An instance that goes on from what is committed.
fn restarted(commit: &Commit, generation: u64) -> OffsetLedger {
    let mut ledger = OffsetLedger::default();
    ledger.tell_skipped();
    ledger.assign([camera()], generation);
    let finished = commit_metadata::decode(commit.position, &commit.text);
    ledger.restore(&camera(), commit.position, &finished);
    ledger.restore_skipped(&camera(), commit_metadata::skipped(&commit.text));
    ledger
}

fn committed(ledger: &OffsetLedger) -> Option<Commit> {
    let position = ledger.positions_to_commit().pop()?;
    let ranges: &[Range<i64>] = &position.finished;
    let text = commit_metadata::encode_all(position.position, ranges, position.skipped).text;
    Some(Commit {
        position: position.position,
        text,
    })
}

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Finish(usize),
    Commit,
    /// Retention takes what lies before this share of the log.
    Delete(usize),
    /// Brokers tell where the log begins.
    Tell,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..6_usize).prop_map(Step::Read),
        6 => any::<usize>().prop_map(Step::Finish),
        3 => Just(Step::Commit),
        1 => (0..40_usize).prop_map(Step::Delete),
        3 => Just(Step::Tell),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..120)
}

/// A log in which some offsets hold no record, an instance that reads it, and what became of it.
struct Run {
    /// Whether an offset holds a record.
    log: Vec<bool>,
    log_start: i64,
    ledger: OffsetLedger,
    next: i64,
    in_flight: Vec<i64>,
    commit: Commit,
    generation: u64,
    /// Records that were read for the first time since the last restart.
    fresh: u64,
}

impl Run {
    fn new(log: Vec<bool>) -> Self {
        let commit = Commit::default();
        Self {
            ledger: restarted(&commit, 1),
            log,
            log_start: 0,
            next: 0,
            in_flight: Vec::new(),
            commit,
            generation: 1,
            fresh: 0,
        }
    }

    fn source(offset: i64) -> SourceOffset {
        SourceOffset {
            topic: "cam".into(),
            partition: 0,
            offset,
        }
    }

    fn read(&mut self) {
        self.next = self.next.max(self.log_start);
        let rest = &self.log[self.next as usize..];
        let Some(ahead) = rest.iter().position(|is_record| *is_record) else {
            return;
        };
        let offset = self.next + ahead as i64;
        self.next = offset + 1;
        if self.ledger.begin(&Self::source(offset)) == Begun::Fresh {
            self.in_flight.push(offset);
            self.fresh += 1;
        }
    }

    fn finish(&mut self, which: usize) {
        if !self.in_flight.is_empty() {
            let offset = self.in_flight.remove(which % self.in_flight.len());
            self.ledger.finish(&Self::source(offset), self.generation);
        }
    }

    fn commit(&mut self) {
        if let Some(commit) = committed(&self.ledger) {
            self.commit = commit;
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Read(count) => (0..count).for_each(|_| self.read()),
            Step::Finish(which) => self.finish(which),
            Step::Commit => self.commit(),
            Step::Delete(offset) => {
                let offset = offset.min(self.log.len()) as i64;
                self.log_start = self.log_start.max(offset);
            }
            Step::Tell => {
                self.ledger.learn_log_start(&camera(), self.log_start);
            }
            Step::Restart => {
                self.generation += 1;
                self.ledger = restarted(&self.commit, self.generation);
                self.next = self.commit.position;
                self.in_flight.clear();
            }
        }
    }

    /// Reads to the end of the log and finishes all; gives what was committed to be skipped, and how many
    /// records were read.
    fn end(mut self) -> (Skipped, u64) {
        let end = self.log.len() as i64;
        while self.log[self.next.max(self.log_start) as usize..].contains(&true) {
            self.read();
        }
        self.ledger.learn_log_start(&camera(), self.log_start);
        self.ledger.read_until(&camera(), end);
        while !self.in_flight.is_empty() {
            self.finish(0);
        }
        self.commit();
        assert_eq!(self.commit.position, end);
        (commit_metadata::skipped(&self.commit.text), self.fresh)
    }
}

proptest! {
    #[test]
    fn every_offset_without_a_record_counts_once_whatever_interrupts_the_reading(
        log in prop::collection::vec(prop::bool::weighted(0.7), 40),
        steps in steps(),
    ) {
        let mut run = Run::new(log.clone());
        for step in steps {
            // Without retention: what is deleted and read again after a restart was read before.
            if !matches!(step, Step::Delete(_)) {
                run.apply(step);
            }
        }
        let empty = log.iter().filter(|is_record| !**is_record).count() as u64;
        prop_assert_eq!(run.end().0, skipped(0, empty));
    }

    #[test]
    fn records_that_are_deleted_before_they_are_read_are_counted_and_nothing_is_counted_twice(
        log in prop::collection::vec(prop::bool::weighted(0.7), 40),
        steps in steps(),
    ) {
        let mut run = Run::new(log.clone());
        for step in steps {
            let is_deletion = matches!(step, Step::Delete(_));
            if !matches!(step, Step::Restart) {
                run.apply(step);
            }
            if is_deletion {
                // What is behind the deletion is fetched after it, and brokers tell of it then.
                run.apply(Step::Read(1));
                run.apply(Step::Tell);
            }
        }
        let found = run.end();
        let records = log.iter().filter(|is_record| **is_record).count() as u64;
        let all = log.len() as u64;
        let (deleted_at_least, read) = (records - found.1, found.1);
        prop_assert_eq!(found.0.deleted + found.0.empty, all - read);
        prop_assert!(found.0.deleted >= deleted_at_least);
    }
}
