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

proptest! {
    /// However long after it the log is read.
    #[test]
    fn times_far_ahead_are_clamped_as_they_were_when_they_were_written(
        settings in any_settings(),
        plans in plans(prop_oneof![8 => any_fate(), 1 => Just(Fate::FromTheFuture)], 2_500),
        order in order(),
    ) {
        let settings = ReassemblySettings {
            reuse_after: Duration::from_secs(600), // longer than `max_future`, as it must be
            ..settings
        };
        let logs = logs_of(&plans);
        let then = told(live(&settings, &logs));
        let now = told(replayed(&settings, &logs, &order));
        prop_assert_eq!(then, now);
    }
}

/// A buffer that knows of each of its three partitions that it holds `records` records.
fn backlog_of(records: i64) -> ReassemblyBuffer {
    let buffer = small_buffer(ReassemblySettings {
        reuse_after: Duration::from_secs(7_200),
        ..settings()
    });
    for topic in TOPICS {
        buffer.expect_until(&partition(topic, 0), records);
    }
    buffer
}

/// A view that was taken and written at one time.
fn view_at(part: &'static str, view: &'static str, offset: i64, millis: i64) -> Shot {
    shot(part, view, offset).taken_at(millis).written_at(millis)
}

#[test]
fn nobody_waits_for_a_partition_at_its_end() {
    let buffer = backlog_of(1);
    assert!(accept(&buffer, view_at("a", "top", 0, 0)).is_empty());
    assert!(accept(&buffer, view_at("a", "left", 0, 0)).is_empty());
    assert_eq!(
        buffer.open_groups(),
        0,
        "`right` may have something earlier"
    );
    buffer.end_of_partition(&partition("right", 0), at(0));
    assert!(buffer.tick(at(0)).is_empty());
    assert_eq!(buffer.open_groups(), 1);
    assert!(accept(&buffer, view_at("b", "top", 1, 100)).is_empty());
    assert_eq!(buffer.open_groups(), 2, "all are at their ends");
}

#[test]
fn what_waited_for_a_record_goes_on_though_it_is_no_view() {
    let buffer = backlog_of(1);
    assert!(accept(&buffer, view_at("a", "top", 0, 0)).is_empty());
    assert!(accept(&buffer, view_at("a", "left", 0, 0)).is_empty());
    let unreadable = shot("a", "right", 0).build(None).record.source.clone();
    assert!(buffer.pass_over(&unreadable, at(0)).is_empty());
    assert_eq!(buffer.open_groups(), 1);
}

#[test]
fn a_partition_whose_leader_is_away_is_not_waited_for() {
    let buffer = backlog_of(1);
    assert!(accept(&buffer, view_at("a", "top", 0, 0)).is_empty());
    assert!(accept(&buffer, view_at("a", "left", 0, 0)).is_empty());
    buffer.lose_sight(&partition("right", 0), at(0));
    assert!(buffer.tick(at(0)).is_empty());
    assert_eq!(buffer.open_groups(), 1);
}

/// One record of `top` has a time an hour ahead; parts come a second apart.
#[test]
fn one_time_far_ahead_keeps_no_part_waiting_and_makes_nobody_silent() {
    let parts = 20;
    let buffer = backlog_of(parts);
    let mut closed = Vec::new();
    for index in 0..parts {
        let millis = index * 1_000;
        for topic in TOPICS {
            let is_wrong = topic == "top" && index == 7;
            let written_at = millis + if is_wrong { 3_600_000 } else { 0 };
            let part = part_name(usize::try_from(index).unwrap());
            let shot = view_at(part, topic, index, millis).written_at(written_at);
            closed.extend(buffer.accept(shot.build(None), at(LATER)));
        }
    }
    assert_eq!(closed.len() as i64, parts);
    assert_eq!(buffer.counts().complete as i64, parts);
    assert_eq!(buffer.counts().out_of_order, 0);
}

/// The clock of `right` is ten minutes ahead, and parts may take no longer than seconds.
#[test]
fn where_clocks_differ_by_more_than_parts_may_take_order_is_given_up() {
    let parts: i64 = 500;
    let buffer = backlog_of(parts);
    for index in 0..parts {
        let millis = index * 1_000;
        for topic in TOPICS {
            let ahead = if topic == "right" { 600_000 } else { 0 };
            let part = part_name(usize::try_from(index).unwrap());
            let shot = view_at(part, topic, index, millis + ahead);
            buffer.accept(shot.build(None), at(LATER));
        }
    }
    let counts = buffer.counts();
    let lost = parts as u64 - counts.complete;
    assert!(counts.out_of_order > 0);
    // Those that were open when it was found out, too.
    assert!(lost < 100, "{counts:?}");
}

#[test]
fn for_want_of_memory_order_is_given_up_before_a_part_is() {
    let record = view_at("p0", "top", 0, 0).build(None).record.size_bytes() as u64;
    let budget = MemoryBudget::new(record * 11);
    let buffer = backlog_of(100);
    for index in 0..10 {
        let topic = ["top", "left"][index % 2];
        let (part, offset) = (part_name(index / 2), index as i64 / 2);
        let shot = view_at(part, topic, offset, offset * 1_000);
        assert!(buffer.accept(shot.build(Some(&budget)), at(0)).is_empty());
    }
    buffer.flow(&budget, at(0));
    assert_eq!(buffer.open_groups(), 0, "it is still waited for `right`");
    let decision = buffer.flow(&budget, at(60_000));
    assert!(decision.events.is_empty());
    assert_eq!(buffer.open_groups(), 5);
    assert_eq!(buffer.counts().out_of_order, 10);
}

#[test]
fn what_is_stuck_waits_for_its_turn_no_longer() {
    let buffer = backlog_of(100);
    assert!(accept(&buffer, view_at("a", "top", 0, 0)).is_empty());
    assert!(buffer.make_way(&partition("top", 0), 10, at(0)).is_empty());
    assert_eq!(buffer.open_groups(), 1);
}

#[test]
fn what_waits_of_a_revoked_partition_is_forgotten() {
    let buffer = backlog_of(1);
    assert!(accept(&buffer, view_at("a", "top", 0, 0)).is_empty());
    buffer.revoke(&TOPICS.map(|topic| partition(topic, 0)), at(0));
    assert_eq!(buffer.timeline().order.records().count(), 0);
    assert_eq!(buffer.timeline().order.held_bytes(), 0);
}

/// `left` is far behind, and `top` is not read on before some of it is finished.
#[test]
fn a_partition_that_is_not_read_on_is_not_waited_for_by_what_its_parts_miss() {
    let buffer = backlog_of(100);
    buffer.end_of_partition(&partition("left", 0), at(0));
    buffer.end_of_partition(&partition("right", 0), at(0));
    for offset in 0..10 {
        let part = part_name(offset);
        let shot = view_at(part, "top", offset as i64, offset as i64);
        assert!(buffer.accept(shot.build(None), at(LATER)).is_empty());
    }
    assert_eq!(buffer.open_groups(), 10);
    for (topic, place) in [("left", 0), ("right", 0)] {
        let shot = view_at("p0", topic, place, 1_000);
        assert!(buffer.accept(shot.build(None), at(LATER)).is_empty());
    }
    assert!(
        buffer
            .unblock(&partition("top", 0), 10, at(LATER))
            .is_empty()
    );
    let events = buffer.unblock(&partition("top", 0), 5, at(LATER));
    assert!(closed(&events).missing.is_empty());
}
