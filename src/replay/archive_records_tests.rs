//! Archives in memory, read back by several partitions at once.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::archive::testing::{archive_of, record};
use crate::domain::Topic;

const PATIENCE: Duration = Duration::from_secs(20);
const TOPICS: [&str; 3] = ["cam.back", "cam.left", "cam.top"];

fn partition(topic: &str) -> TopicPartition {
    TopicPartition {
        topic: Topic::from(topic),
        partition: 0,
    }
}

/// Reads records that were made at these times, by topic; every second offset holds one.
fn reading(times: &[Vec<i64>], bytes: usize, read_ahead_bytes: u64) -> ArchiveRecords {
    let topics = TOPICS.iter().zip(times).map(|(topic, times)| {
        let records = times
            .iter()
            .zip(0..)
            .map(|(time, number)| record(&partition(topic), 2 * number, *time, bytes));
        (*topic, end(times), records.collect())
    });
    let topics = topics.collect();
    let runtime = Builder::new_current_thread().build().unwrap();
    let archive = runtime.block_on(archive_of(topics));
    let mut records = ArchiveRecords::new(archive, read_ahead_bytes).unwrap();
    let ranges = TOPICS.iter().zip(times);
    let ranges = ranges.map(|(topic, times)| (partition(topic), 0..end(times)));
    records.begin(ranges.collect()).unwrap();
    records
}

fn end(times: &[i64]) -> i64 {
    2 * i64::try_from(times.len()).unwrap()
}

/// What comes, in order: topic and time of records, and ends.
fn all(records: &mut ArchiveRecords) -> Vec<(Topic, Option<i64>)> {
    let mut told = Vec::new();
    loop {
        match records.next(&|_| true, PATIENCE).unwrap() {
            StoredReading::Record(copy) => {
                let time = copy.record.timestamp.unwrap();
                told.push((copy.record.source.topic.clone(), Some(time.0)));
            }
            StoredReading::End(partition) => told.push((partition.topic, None)),
            StoredReading::Nothing => return told,
            StoredReading::Slow => panic!("nothing came in time"),
        }
    }
}

fn sorted_times() -> impl Strategy<Value = Vec<Vec<i64>>> {
    let times = prop::collection::vec(0..1_000_i64, 0..20).prop_map(|mut times| {
        times.sort_unstable();
        times
    });
    prop::collection::vec(times, 3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn all_records_come_once_and_the_partition_that_is_furthest_behind_goes_first(
        times in sorted_times(),
    ) {
        let told = all(&mut reading(&times, 10, 1 << 20));
        for (topic, times) in TOPICS.iter().zip(&times) {
            let of_topic = told.iter().filter(|(one, _)| one.as_str() == *topic);
            let mut expected: Vec<_> = times.iter().copied().map(Some).collect();
            expected.push(None);
            prop_assert_eq!(of_topic.map(|(_, time)| *time).collect::<Vec<_>>(), expected);
        }
        // Two of each partition are given before a third of any, if it has as many.
        let mut given: HashMap<&Topic, Vec<i64>> = HashMap::new();
        for (topic, time) in &told {
            let Some(time) = time else {
                given.insert(topic, vec![i64::MAX; 2]);
                continue;
            };
            let before_last = |times: &Vec<i64>| match times.as_slice() {
                [.., before, _] => *before,
                _ => i64::MIN,
            };
            let own = given.entry(topic).or_default();
            let turn = before_last(own);
            own.push(*time);
            let others = given.iter().filter(|(other, _)| **other != topic);
            let mut others = others.map(|(_, times)| before_last(times));
            prop_assert!(others.all(|other| turn <= other), "{told:?}");
        }
    }
}

#[test]
fn a_silent_camera_does_not_hold_the_others_back_nor_does_a_wrong_clock_starve_its_own() {
    let every_second = || (0..20).map(|number| number * 1_000).collect::<Vec<i64>>();
    let silent = vec![0, 15_000, 16_000, 17_000];
    let mut wrong = every_second();
    wrong[5] = 4_000_000_000_000;
    let told = all(&mut reading(&[silent, every_second(), wrong], 10, 1 << 20));
    let place = |topic: &str, time| {
        let found = told
            .iter()
            .position(|one| *one == (Topic::from(topic), Some(time)));
        found.unwrap()
    };
    assert!(place("cam.back", 16_000) < place("cam.left", 3_000));
    assert!(place("cam.back", 17_000) > place("cam.left", 14_000));
    assert!(place("cam.top", 6_000) < place("cam.left", 8_000));
}

#[test]
fn what_may_not_be_read_waits_while_others_go_on() {
    let mut records = reading(&[vec![1, 2], vec![5, 6], vec![]], 10, 1 << 20);
    let held = partition("cam.back");
    let may_read = |one: &TopicPartition| *one != held;
    let mut times = Vec::new();
    loop {
        match records.next(&may_read, PATIENCE).unwrap() {
            StoredReading::Record(copy) => times.push(copy.record.timestamp.unwrap().0),
            StoredReading::End(partition) => assert_ne!(partition, held),
            StoredReading::Nothing => break,
            StoredReading::Slow => panic!("nothing came in time"),
        }
    }
    assert_eq!(times, [5, 6]);
    let rest = all(&mut records).into_iter();
    assert_eq!(
        rest.map(|(_, time)| time).collect::<Vec<_>>(),
        [Some(1), Some(2), None]
    );
}

#[test]
fn records_larger_than_what_may_be_read_ahead_come_too() {
    let times = vec![vec![1, 4], vec![2, 5], vec![3, 6]];
    let told = all(&mut reading(&times, 5_000, 1_000));
    assert_eq!(told.iter().filter(|(_, time)| time.is_some()).count(), 6);
}

#[test]
fn what_the_archive_does_not_hold_is_refused_before_anything_is_read() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let archive = runtime.block_on(archive_of(vec![("cam.top", 8, Vec::new())]));
    let mut records = ArchiveRecords::new(archive, 1_000).unwrap();
    let error = records
        .begin(vec![(partition("cam.top"), 4..9)])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected offsets 4 to 9 of `cam.top[0]` in `memory`, found 0 to 8"
    );
    assert!(records.begin(vec![(partition("cam.left"), 0..1)]).is_err());
    // Of a range that is empty nothing need be there.
    records.begin(vec![(partition("cam.top"), 9..9)]).unwrap();
    assert_eq!(all(&mut records), [(Topic::from("cam.top"), None)]);
}
