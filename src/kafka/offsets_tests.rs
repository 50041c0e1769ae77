//! The ledger, example by example and against a model.

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
fn what_is_read_until_an_end_is_committed_up_to_it_once_all_is_finished() {
    let mut ledger = ledger_with_begun(10..12);
    ledger.read_until(&partition(0), 20);
    assert_eq!(ledger.commit_position(&partition(0)), Some(10));
    ledger.finish(&at(0, 10), 1);
    ledger.finish(&at(0, 11), 1);
    assert_eq!(ledger.commit_position(&partition(0)), Some(20));
    ledger.read_until(&partition(0), 15);
    assert_eq!(ledger.commit_position(&partition(0)), Some(20));
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
        skipped: Skipped::default(),
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
