//! Whatever the cameras, the brokers and the stages behind do: nothing is lost or doubled, everything
//! stays bounded, and no pause waits for what waits for the pause.
//!
//! [`instance::Instance`] is one `panoptes run` without threads: the real ledger, pauses, commit
//! metadata and buffer, with the channels between them. Each schedule is random; proptest prints the
//! seed of one that fails and keeps the smallest.

mod brokers;
mod checks;
mod instance;
mod poll_thread;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use self::instance::{Happened, Instance, Step};
use super::properties::{Fate, Plan, write};
use super::*;
use crate::domain::DuplicatePolicy;

/// What is random about the line, but for what happens.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    settings: ReassemblySettings,
    /// With so many unfinished records a partition is crowded.
    most_unfinished: usize,
    budget_records: u64,
    /// How much the stages behind the intake take in before they push back.
    room_behind: usize,
    /// How far each camera's clock is from the truth.
    skews: [i64; 3],
    plans: Vec<[Plan; 3]>,
}

impl Scenario {
    fn logs(&self) -> BTreeMap<TopicPartition, Vec<Shot>> {
        let mut logs = write(&self.plans);
        for (topic, skew) in TOPICS.into_iter().zip(self.skews) {
            for number in 0..2 {
                for shot in logs.get_mut(&partition(topic, number)).unwrap() {
                    shot.captured_at += skew;
                }
            }
        }
        logs
    }
}

const HOUR: i64 = 3_600_000;

fn any_scenario() -> impl Strategy<Value = Scenario> {
    let skew = prop_oneof![
        6 => Just(0),
        2 => -3_000..3_000i64,
        1 => Just(-3 * HOUR),
        1 => Just(1_000 * HOUR),
    ];
    let budget = prop_oneof![Just(5u64), Just(12), Just(30), Just(1_000)];
    (
        any_settings(),
        2..12usize,
        budget,
        prop_oneof![Just(2usize), Just(6), Just(40)],
        [skew.clone(), skew.clone(), skew],
        any_plans(),
    )
        .prop_map(
            |(settings, most_unfinished, budget_records, room_behind, skews, plans)| Scenario {
                settings,
                most_unfinished,
                budget_records,
                room_behind,
                skews,
                plans,
            },
        )
}

fn any_settings() -> impl Strategy<Value = ReassemblySettings> {
    let on_timeout = prop_oneof![
        Just(TimeoutPolicy::ScorePartial),
        Just(TimeoutPolicy::Review),
        Just(TimeoutPolicy::DeadLetter),
    ];
    (on_timeout, 0..20usize).prop_map(|(on_timeout, max_parts)| ReassemblySettings {
        line: LinePolicy {
            on_timeout,
            duplicates: DuplicatePolicy::FirstWins,
            timeout: Duration::from_secs(2),
        },
        closed: ClosedMemorySettings {
            max_parts,
            ..ClosedMemorySettings::default()
        },
        ..settings()
    })
}

/// Parts as they come, stretches in which a camera says nothing, and bursts of parts that one camera
/// alone sees.
fn any_plans() -> impl Strategy<Value = Vec<[Plan; 3]>> {
    let fate = prop_oneof![
        24 => Just(Fate::Written),
        2 => Just(Fate::Lost),
        1 => Just(Fate::WrittenTwice),
        1 => Just(Fate::TwoImages),
        1 => Just(Fate::OnAnotherPartition),
        1 => Just(Fate::FromTheFuture),
        1 => Just(Fate::FromThePast),
        1 => Just(Fate::MuchLater),
    ];
    let view = (fate, 0..800i64);
    let ordinary = [view.clone(), view.clone(), view].prop_map(|plan| vec![plan]);
    let seen_by = |cameras: Vec<usize>, parts: usize| {
        let plan = [0, 1, 2].map(|camera| match cameras.contains(&camera) {
            true => (Fate::Written, 0),
            false => (Fate::Lost, 0),
        });
        vec![plan; parts]
    };
    let stretch = prop_oneof![
        8 => ordinary,
        1 => (0..3usize, 1..16usize)
            .prop_map(move |(camera, parts)| seen_by(vec![camera], parts)),
        1 => (0..3usize, 1..16usize)
            .prop_map(move |(idle, parts)| seen_by(vec![(idle + 1) % 3, (idle + 2) % 3], parts)),
    ];
    prop::collection::vec(stretch, 1..24).prop_map(|stretches| stretches.concat())
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>();
    let step = prop_oneof![
        8 => (which, 1..8usize).prop_map(|(which, records)| Step::Write { which, records }),
        12 => (any::<usize>(), 1..6usize).prop_map(|(which, records)| Step::Poll { which, records }),
        10 => (1..8usize).prop_map(|messages| Step::TakeIn { messages }),
        8 => (0..3_000i64).prop_map(|millis| Step::Wait { millis }),
        5 => any::<usize>().prop_map(|which| Step::Publish { which }),
        3 => prop::bool::weighted(0.2).prop_map(|is_aborted| Step::Commit { is_aborted }),
        1 => (0..4u8, any::<bool>())
            .prop_map(|(numbers, is_drained)| Step::Rebalance { numbers, is_drained }),
        1 => Just(Step::Restart),
        1 => (0..60_000i64).prop_map(|millis| Step::Freeze { millis }),
    ];
    prop::collection::vec(step, 0..250)
}

proptest! {
    #[test]
    fn in_all_adversity_every_record_ends_once_and_nothing_grows_or_waits_for_ever(
        scenario in any_scenario(),
        steps in any_steps(),
    ) {
        let mut instance = Instance::new(&scenario);
        for step in &steps {
            instance.apply(step);
        }
        instance.come_to_rest();
    }
}

/// A line of which no closed part is forgotten and no ID used again, whose clocks agree and whose
/// producers place keys in one way. Its views may still be late by any time.
fn any_late_scenario() -> impl Strategy<Value = Scenario> {
    any_scenario().prop_map(|mut scenario| {
        scenario.settings.closed = ClosedMemorySettings::default();
        scenario.settings.reuse_after = Duration::from_secs(3_600);
        scenario.skews = [0; 3];
        for (fate, _) in scenario.plans.iter_mut().flatten() {
            if !matches!(fate, Fate::Lost | Fate::WrittenTwice | Fate::TwoImages) {
                *fate = Fate::Written;
            }
        }
        scenario
    })
}

proptest! {
    #[test]
    fn a_part_is_closed_once_however_late_its_views_come_and_whoever_reads_them(
        scenario in any_late_scenario(),
        steps in any_steps(),
    ) {
        let mut instance = Instance::new(&scenario);
        for step in &steps {
            instance.apply(step);
        }
        instance.come_to_rest();
        instance.brokers.assert_closed_once();
    }
}

proptest! {
    /// They are written meanwhile, or just after it.
    #[test]
    fn views_that_come_while_the_process_is_frozen_are_waited_for(
        quiet in 0..79u64,
        frozen in 1_600..60_000i64,
        fetching in 0..18u64,
    ) {
        let mut instance = line_of(vec![SEEN; 2], Duration::from_secs(5), 100);
        see(&mut instance, [("top", 1), ("left", 1), ("right", 0)]);
        let_pass(&mut instance, Duration::from_millis(100 * quiet));
        instance.apply(&Step::Freeze { millis: frozen });
        let_pass(&mut instance, Duration::from_millis(100 * fetching));
        see(&mut instance, [("top", 0), ("left", 0), ("right", 1)]);
        instance.come_to_rest();
        prop_assert_eq!(instance.partial_parts(), 0);
    }
}

#[test]
fn the_schedules_bring_about_what_they_are_to_survive() {
    let mut runner = TestRunner::deterministic();
    let mut happened = Happened::default();
    for _ in 0..60 {
        let schedule = (any_scenario(), any_steps()).new_tree(&mut runner);
        let (scenario, steps) = schedule.unwrap().current();
        let mut instance = Instance::new(&scenario);
        steps.iter().for_each(|step| instance.apply(step));
        instance.come_to_rest();
        happened.crowds += instance.happened.crowds;
        happened.stuck += instance.happened.stuck;
        happened.memory_pauses += instance.happened.memory_pauses;
        happened.evictions += instance.happened.evictions;
        happened.jams += instance.happened.jams;
    }
    let Happened {
        crowds,
        stuck,
        memory_pauses,
        evictions,
        jams,
    } = happened;
    assert!(
        [crowds, stuck, memory_pauses, evictions, jams]
            .iter()
            .all(|&times| times >= 20),
        "{happened:?}"
    );
}

const SEEN: [Plan; 3] = [(Fate::Written, 0); 3];
const SEEN_FROM_THE_TOP_ALONE: [Plan; 3] = [(Fate::Written, 0), (Fate::Lost, 0), (Fate::Lost, 0)];

/// A line whose cameras see the parts in order and whose clocks agree. Every other part is on
/// partition 0, of which 8 unfinished records are a crowd.
fn line_of(plans: Vec<[Plan; 3]>, timeout: Duration, room_behind: usize) -> Instance {
    let mut settings = settings();
    settings.line.timeout = timeout;
    Instance::new(&Scenario {
        settings,
        most_unfinished: 8,
        budget_records: 1_000,
        room_behind,
        skews: [0; 3],
        plans,
    })
}

/// The cameras write so much of partition 0, and all of it that may be read is read.
fn see(instance: &mut Instance, written: [(&str, usize); 3]) {
    for (topic, records) in written {
        let which = instance.number_of(&partition(topic, 0));
        instance.apply(&Step::Write { which, records });
        for _ in 0..records {
            instance.apply(&Step::Poll { which, records: 1 });
            instance.apply(&Step::TakeIn { messages: 10 });
            instance.apply(&Step::Wait { millis: 0 });
        }
    }
}

/// So long, nothing comes.
fn let_pass(instance: &mut Instance, time: Duration) {
    for _ in 0..time.as_millis() / 100 {
        instance.apply(&Step::Poll {
            which: 0,
            records: 0,
        });
        instance.apply(&Step::TakeIn { messages: 10 });
        instance.apply(&Step::Wait { millis: 100 });
    }
}

#[test]
fn parts_are_whole_however_long_the_stages_behind_are_full() {
    let mut instance = line_of(vec![SEEN; 60], Duration::from_secs(5), 2);
    see(&mut instance, [("top", 10), ("left", 10), ("right", 10)]);
    let_pass(&mut instance, Duration::from_secs(60));
    assert!(instance.happened.crowds > 0 && instance.happened.jams > 0);
    instance.come_to_rest();
    assert_eq!(instance.partial_parts(), 0);
}

/// Brokers that are away for long, say: there is room for many parts on their way.
#[test]
fn parts_that_wait_for_views_make_no_way_for_those_that_are_on_theirs() {
    let mut instance = line_of(vec![SEEN; 60], Duration::from_secs(5), 100);
    see(&mut instance, [("top", 10), ("left", 10), ("right", 6)]);
    let_pass(&mut instance, Duration::from_secs(60));
    assert!(instance.happened.stuck > 0);
    instance.come_to_rest();
    assert_eq!(instance.partial_parts(), 0);
}

#[test]
fn what_is_written_behind_the_pause_of_a_crowded_partition_is_waited_for() {
    const ALONE: usize = 4;
    let lone = vec![SEEN_FROM_THE_TOP_ALONE; 2 * ALONE];
    let mut instance = line_of([lone, vec![SEEN; 40]].concat(), Duration::from_secs(1), 100);
    see(&mut instance, [("top", 8), ("left", 4), ("right", 4)]);
    let_pass(&mut instance, Duration::from_secs(10));
    see(&mut instance, [("top", 8), ("left", 4), ("right", 4)]);
    let_pass(&mut instance, Duration::from_secs(10));
    assert_eq!(instance.partial_parts(), ALONE);
    instance.come_to_rest();
    assert_eq!(instance.partial_parts(), 2 * ALONE);
}
