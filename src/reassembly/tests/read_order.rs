//! What becomes of a log does not depend on how it is read: fast or slowly, by one instance or by
//! several, or as it is written.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::properties::{Fate, Plan, plans, write};
use super::*;
use crate::domain::DuplicatePolicy;

type Logs = BTreeMap<TopicPartition, Vec<Shot>>;

/// Wall time while a backlog is read: long after all of it was written.
const LATER: i64 = 100_000_000;

/// All that can become of a view, but for what no instance alone can see.
fn any_fate() -> impl Strategy<Value = Fate> + Clone {
    prop_oneof![
        12 => Just(Fate::Written),
        2 => Just(Fate::Lost),
        1 => Just(Fate::WrittenTwice),
        2 => Just(Fate::TwoImages),
        1 => Just(Fate::UnderAnotherName),
        1 => Just(Fate::OfAnotherClass),
        1 => Just(Fate::FromThePast),
        2 => Just(Fate::MuchLater),
        2 => Just(Fate::WrittenLate),
    ]
}

fn any_settings() -> impl Strategy<Value = ReassemblySettings> {
    let policy = prop_oneof![
        Just(TimeoutPolicy::ScorePartial),
        Just(TimeoutPolicy::DeadLetter)
    ];
    let duplicates = prop_oneof![
        Just(DuplicatePolicy::FirstWins),
        Just(DuplicatePolicy::LastWins)
    ];
    (policy, duplicates).prop_map(|(on_timeout, duplicates)| ReassemblySettings {
        line: LinePolicy {
            on_timeout,
            duplicates,
            timeout: Duration::from_secs(2),
        },
        wall_grace: None, // what it closes live is an exception
        ..settings()
    })
}

/// The logs, each record at its place.
fn logs_of(plans: &[[Plan; 3]]) -> Logs {
    let mut logs = write(plans);
    for (partition, log) in &mut logs {
        for (offset, shot) in log.iter_mut().enumerate() {
            shot.partition = partition.partition;
            shot.offset = offset as i64;
        }
    }
    logs
}

/// What became of everything, whatever the order.
fn told(events: Vec<Event>) -> Vec<String> {
    let sources = |records: &[Arc<Record>]| -> Vec<String> {
        let sources = records.iter().map(|record| record.source.to_string());
        sources.collect()
    };
    let reject = |reject: &Reject| {
        let Reject {
            record,
            reason,
            error,
        } = reject;
        format!("{} {reason:?} {error}", record.source)
    };
    let mut told: Vec<String> = events
        .into_iter()
        .map(|event| match event {
            Event::Closed(group, closure) => {
                let views = group
                    .views
                    .iter()
                    .map(|view| view.record.source.to_string());
                let views: Vec<String> = views.collect();
                format!(
                    "closed {:?} {:?} {views:?} missing {:?} duplicates {:?} absorbed {:?} by {}",
                    group.part,
                    group.cause,
                    group.missing,
                    group.duplicates,
                    sources(&group.absorbed),
                    closure.opened_by
                )
            }
            Event::Expired {
                rejects, absorbed, ..
            } => {
                let rejects: Vec<String> = rejects.iter().map(reject).collect();
                format!("expired {rejects:?} absorbed {:?}", sources(&absorbed))
            }
            Event::Rejected(one) => format!("rejected {}", reject(&one)),
            Event::Finished(records) => format!("finished {:?}", sources(&records)),
        })
        .collect();
    told.sort();
    told
}

fn buffer_of(settings: &ReassemblySettings, logs: &Logs) -> ReassemblyBuffer {
    let buffer = ReassemblyBuffer::new(settings.clone());
    let partitions: Vec<_> = logs.keys().cloned().collect();
    buffer.assign(&partitions, 1, at(0));
    buffer
}

/// Reads a backlog to its end, whose turn it is by `order`.
fn replayed(settings: &ReassemblySettings, logs: &Logs, order: &[usize]) -> Vec<Event> {
    let buffer = buffer_of(settings, logs);
    for partition in logs.keys() {
        buffer.expect_until(partition, i64::MAX);
    }
    let mut left: Vec<_> = logs.iter().map(|(one, log)| (one, log.iter())).collect();
    let mut order = order.iter().cycle();
    let mut events = Vec::new();
    while !left.is_empty() {
        let which = order.next().unwrap() % left.len();
        match left[which].1.next() {
            Some(shot) => events.extend(buffer.accept(shot.clone().build(None), at(LATER))),
            None => {
                let (partition, _) = left.remove(which);
                events.extend(buffer.end_of_range(partition, at(LATER)));
            }
        }
    }
    assert_eq!(buffer.counts().out_of_order, 0);
    events
}

/// Reads records as they are written, by an instance that keeps up.
fn live(settings: &ReassemblySettings, logs: &Logs) -> Vec<Event> {
    let buffer = buffer_of(settings, logs);
    let mut records: Vec<(i64, &TopicPartition, &Shot)> = Vec::new();
    for (partition, log) in logs {
        if log.is_empty() {
            buffer.end_of_partition(partition, at(-LATER)); // it was so for long
        }
        let written_at = |shot: &Shot| shot.written_at.unwrap_or(shot.captured_at);
        records.extend(log.iter().map(|shot| (written_at(shot), partition, shot)));
    }
    records.sort_by_key(|(written_at, partition, shot)| (*written_at, *partition, shot.offset));
    let mut events = Vec::new();
    for (written_at, partition, shot) in records {
        let now = at(written_at);
        events.extend(buffer.tick(now));
        events.extend(buffer.accept(shot.clone().build(None), now));
        buffer.end_of_partition(partition, now);
    }
    for partition in logs.keys() {
        events.extend(buffer.end_of_range(partition, at(LATER)));
    }
    events
}

fn order() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 1..100)
}

proptest! {
    #[test]
    fn what_becomes_of_a_backlog_does_not_depend_on_which_partition_is_read_first(
        settings in any_settings(),
        plans in plans(any_fate(), 2_500),
        order in order(),
        other_order in order(),
    ) {
        let logs = logs_of(&plans);
        let one = told(replayed(&settings, &logs, &order));
        let other = told(replayed(&settings, &logs, &other_order));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn what_becomes_of_a_part_does_not_depend_on_who_has_the_other_partitions(
        settings in any_settings(),
        plans in plans(any_fate(), 2_500),
        order in order(),
    ) {
        let logs = logs_of(&plans);
        let together = told(replayed(&settings, &logs, &order));
        let share = |number: i32| {
            let of_number = logs.iter().filter(|(one, _)| one.partition == number);
            let logs = of_number.map(|(one, log)| (one.clone(), log.clone())).collect();
            replayed(&settings, &logs, &order)
        };
        let mut apart = share(0);
        apart.extend(share(1));
        prop_assert_eq!(together, told(apart));
    }

    #[test]
    fn a_backlog_becomes_what_it_became_when_it_was_written(
        settings in any_settings(),
        plans in plans(any_fate(), 2_500),
        order in order(),
    ) {
        let logs = logs_of(&plans);
        let then = told(live(&settings, &logs));
        let now = told(replayed(&settings, &logs, &order));
        prop_assert_eq!(then, now);
    }
}
