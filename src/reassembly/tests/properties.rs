//! What holds for every log, every interleaving and every fault.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::simulation::{Closing, Step, World};
use super::*;
use crate::domain::DuplicatePolicy;

/// Parts leave the camera this far apart.
const CADENCE: i64 = 500;

/// The most parts of one log.
const MOST_PARTS: usize = 16;

/// What becomes of one view on its way to its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Written,
    Lost,
    WrittenTwice,
    TwoImages,
    OnAnotherPartition,
    UnderAnotherName,
    OfAnotherClass,
    FromTheFuture,
    FromThePast,
    MuchLater,
    WrittenLate,
}

/// One view: its fate, and how long after the part's first it is taken.
pub(super) type Plan = (Fate, i64);

fn any_fate() -> impl Strategy<Value = Fate> + Clone {
    prop_oneof![
        20 => Just(Fate::Written),
        2 => Just(Fate::Lost),
        1 => Just(Fate::WrittenTwice),
        1 => Just(Fate::TwoImages),
        1 => Just(Fate::OnAnotherPartition),
        1 => Just(Fate::UnderAnotherName),
        1 => Just(Fate::OfAnotherClass),
        1 => Just(Fate::FromTheFuture),
        1 => Just(Fate::FromThePast),
        1 => Just(Fate::MuchLater),
        1 => Just(Fate::WrittenLate),
    ]
}

pub(super) fn plans(
    fate: impl Strategy<Value = Fate> + Clone,
    spread: i64,
) -> impl Strategy<Value = Vec<[Plan; 3]>> {
    let view = (fate, 0..=spread);
    prop::collection::vec([view.clone(), view.clone(), view], 1..=MOST_PARTS)
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>();
    let step = prop_oneof![
        12 => (any::<usize>(), 1..4usize).prop_map(|(which, records)| Step::Read { which, records }),
        2 => (any::<usize>(), any::<usize>())
            .prop_map(|(which, back)| Step::ReadAgain { which, back }),
        3 => (0..3_000i64).prop_map(|millis| Step::Wait { millis }),
        6 => which.prop_map(|which| Step::Publish { which }),
        2 => Just(Step::Commit),
        1 => (0..2i32, any::<bool>())
            .prop_map(|(number, is_drained)| Step::Rebalance { number, is_drained }),
        1 => any::<bool>().prop_map(Step::BackPressure),
    ];
    prop::collection::vec(step, 0..150)
}

/// Steps that only read and wait: the interleaving, and nothing else.
fn reading() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<usize>(), 1..6usize).prop_map(|(which, records)| Step::Read { which, records }),
        1 => (0..3_000i64).prop_map(|millis| Step::Wait { millis }),
        3 => any::<usize>().prop_map(|which| Step::Publish { which }),
    ];
    prop::collection::vec(step, 0..120)
}

/// Writes the parts to their topics: odd parts on partition 1, each log in the order of time.
pub(super) fn write(plans: &[[Plan; 3]]) -> BTreeMap<TopicPartition, Vec<Shot>> {
    let mut logs: BTreeMap<TopicPartition, Vec<(i64, Shot)>> = BTreeMap::new();
    for topic in TOPICS {
        for number in 0..2 {
            logs.insert(partition(topic, number), Vec::new());
        }
    }
    for (index, plan) in plans.iter().enumerate() {
        for (topic, &(fate, delay)) in TOPICS.iter().zip(plan) {
            let taken_at = index as i64 * CADENCE + delay;
            write_view(&mut logs, index, topic, fate, taken_at);
        }
    }
    let in_order = |mut log: Vec<(i64, Shot)>| {
        log.sort_by_key(|(written_at, _)| *written_at);
        log.into_iter().map(|(_, shot)| shot).collect()
    };
    logs.into_iter()
        .map(|(partition, log)| (partition, in_order(log)))
        .collect()
}

fn write_view(
    logs: &mut BTreeMap<TopicPartition, Vec<(i64, Shot)>>,
    index: usize,
    topic: &'static str,
    fate: Fate,
    taken_at: i64,
) {
    let number = (index % 2) as i32;
    let plain = shot(part_name(index), topic, 0).taken_at(taken_at);
    let mut put = |number: i32, written_at: i64, shot: Shot| {
        let log = logs.get_mut(&partition(topic, number)).unwrap();
        log.push((written_at, shot.written_at(written_at)));
    };
    match fate {
        Fate::Lost => {}
        Fate::Written => put(number, taken_at, plain),
        Fate::WrittenTwice => {
            put(number, taken_at, plain.clone());
            put(number, taken_at + 700, plain);
        }
        Fate::TwoImages => {
            put(number, taken_at, plain.clone());
            put(number, taken_at + 300, plain.bytes("another image"));
        }
        Fate::OnAnotherPartition => put(1 - number, taken_at, plain),
        Fate::UnderAnotherName => {
            let odd = Shot {
                view: "bottom",
                ..plain
            };
            put(number, taken_at, odd);
        }
        Fate::OfAnotherClass => put(number, taken_at, plain.class("gear")),
        Fate::FromTheFuture => put(number, taken_at, plain.taken_at(taken_at + 400_000_000)),
        Fate::FromThePast => put(number, taken_at, plain.taken_at(taken_at - 400_000_000)),
        Fate::WrittenLate => put(number, taken_at + 3_100, plain),
        Fate::MuchLater => put(number, taken_at + 20_000, plain.taken_at(taken_at + 20_000)),
    }
}

fn any_settings() -> impl Strategy<Value = ReassemblySettings> {
    let policy = prop_oneof![
        Just(TimeoutPolicy::ScorePartial),
        Just(TimeoutPolicy::Review),
        Just(TimeoutPolicy::DeadLetter),
    ];
    let duplicates = prop_oneof![
        Just(DuplicatePolicy::FirstWins),
        Just(DuplicatePolicy::LastWins),
    ];
    (policy, duplicates, 0..40usize).prop_map(|(on_timeout, duplicates, max_parts)| {
        ReassemblySettings {
            line: LinePolicy {
                on_timeout,
                duplicates,
                timeout: Duration::from_secs(2),
            },
            closed: ClosedMemorySettings {
                max_parts,
                ..ClosedMemorySettings::default()
            },
            ..settings()
        }
    })
}

fn two_seconds() -> ReassemblySettings {
    ReassemblySettings {
        reuse_after: Duration::from_secs(600),
        line: LinePolicy {
            timeout: Duration::from_secs(2),
            ..LinePolicy::default()
        },
        ..settings()
    }
}

fn run(
    settings: ReassemblySettings,
    budget_records: u64,
    plans: &[[Plan; 3]],
    steps: &[Step],
    knows_ends: bool,
) -> World {
    let size = shot("p0", "top", 0).build(None).record.size_bytes() as u64;
    let budget = MemoryBudget::new(size * budget_records);
    let mut world = World::new(settings, budget, write(plans), knows_ends);
    for step in steps {
        world.apply(step);
    }
    world.drain();
    world
}

fn sorted(mut closings: Vec<Closing>) -> Vec<Closing> {
    for closing in &mut closings {
        closing.sources.sort();
    }
    closings.sort();
    closings
}

proptest! {
    /// The promise itself: the world checks after every step that each record is in one place,
    /// commits only what was published, and comes to rest with everything committed.
    #[test]
    fn every_record_ends_in_exactly_one_place(
        settings in any_settings(),
        budget in prop_oneof![Just(6u64), Just(20), Just(1_000)],
        plans in plans(any_fate(), 800),
        steps in any_steps(),
        knows_ends in any::<bool>(),
    ) {
        run(settings, budget, &plans, &steps, knows_ends);
    }

    #[test]
    fn a_part_whose_views_all_come_in_time_closes_complete_and_once(
        plans in plans(Just(Fate::Written), 2_000),
        steps in reading(),
        knows_ends in any::<bool>(),
    ) {
        let world = run(two_seconds(), 1_000, &plans, &steps, knows_ends);
        prop_assert_eq!(world.closed.len(), plans.len());
        prop_assert!(world.closed.iter().all(|closing| closing.is_complete));
    }

    #[test]
    fn the_groups_do_not_depend_on_how_the_partitions_interleave(
        plans in plans(
            prop_oneof![4 => Just(Fate::Written), 1 => Just(Fate::Lost), 1 => Just(Fate::TwoImages)],
            1_000,
        ),
        steps in reading(),
        other_steps in reading(),
    ) {
        let one = run(two_seconds(), 1_000, &plans, &steps, false);
        let other = run(two_seconds(), 1_000, &plans, &other_steps, true);
        prop_assert_eq!(sorted(one.closed), sorted(other.closed));
    }

    #[test]
    fn no_part_closes_twice_without_a_rebalance(
        plans in plans(any_fate(), 800),
        steps in reading(),
        knows_ends in any::<bool>(),
    ) {
        let world = run(two_seconds(), 1_000, &plans, &steps, knows_ends);
        let mut parts: Vec<_> = world.closed.iter().map(|closing| &closing.part).collect();
        let closings = parts.len();
        parts.sort();
        parts.dedup();
        prop_assert_eq!(parts.len(), closings);
    }

    /// Memory for less than the log: what runs ahead is paused, what completes the groups is
    /// not, so nothing has to give way.
    #[test]
    fn a_tight_budget_pauses_but_evicts_no_part_that_can_complete(
        plans in plans(Just(Fate::Written), 0),
        turns in prop::collection::vec(any::<usize>(), 0..150),
        knows_ends in any::<bool>(),
    ) {
        let settings = ReassemblySettings {
            ahead_margin: Duration::ZERO,
            stall_after: Duration::from_secs(3_600),
            ..two_seconds()
        };
        let turn = |which: usize| [
            Step::Read { which, records: 1 },
            Step::Publish { which: 0 },
            Step::Wait { millis: 0 },
        ];
        let steps: Vec<Step> = turns.into_iter().flat_map(turn).collect();
        let world = run(settings, 24, &plans, &steps, knows_ends);
        prop_assert_eq!(world.evictions, 0);
        prop_assert!(world.closed.iter().all(|closing| closing.is_complete));
    }
}
