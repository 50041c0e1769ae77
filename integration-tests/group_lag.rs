//! Kafka's own tools show how far a group is while its parts wait for views.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::Broker;
use crate::kafka::tools::describe_group;
use crate::support::line::Line;
use crate::support::process::Panoptes;

/// For each answer of the broker.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where a record lies: camera topic and partition.
type Place = (String, i32);

/// The part of every record of the camera topics, in their order.
fn parts_by_place(line: &Line<'_>) -> BTreeMap<Place, Vec<String>> {
    let mut client = line.broker.client();
    client.set("group.id", "test-camera-reader");
    let consumer: BaseConsumer = client.create().unwrap();
    let (mut list, mut records) = (TopicPartitionList::new(), 0);
    for topic in line.camera_topics() {
        for partition in 0..line.partitions {
            list.add_partition_offset(&topic, partition, Offset::Beginning)
                .unwrap();
            let ends = consumer.fetch_watermarks(&topic, partition, TIMEOUT);
            records += ends.unwrap().1;
        }
    }
    consumer.assign(&list).unwrap();
    let mut parts: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    for _ in 0..records {
        let record = consumer.poll(TIMEOUT).unwrap().unwrap();
        let part = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
        let place = (record.topic().to_owned(), record.partition());
        parts.entry(place).or_default().push(part);
    }
    parts
}

/// Fails the test unless the group has committed, for each camera partition that is not empty, the
/// offset of its first record of an open part, else its end. Returns the lag of all.
fn assert_lag(line: &Line<'_>, open: &BTreeSet<String>) -> i64 {
    let shown: BTreeMap<Place, _> = describe_group(line.broker, &line.name)
        .into_iter()
        .map(|position| ((position.topic.clone(), position.partition), position))
        .collect();
    let mut lag = 0;
    for (place, parts) in parts_by_place(line) {
        let first = parts.iter().position(|part| open.contains(part));
        let end = parts.len() as i64;
        let committed = first.map_or(end, |first| first as i64);
        let position = &shown[&place];
        assert_eq!(position.committed, Some(committed), "{position:?}");
        assert_eq!(position.end, end, "{position:?}");
        assert_eq!(position.lag, Some(end - committed), "{position:?}");
        lag += end - committed;
    }
    lag
}

#[test]
fn kafkas_tools_show_the_lag_of_open_parts_and_none_once_they_are_whole() {
    let line = Line::new(Broker::shared(), "group-lag");
    let config = line
        .config()
        .set("output.delivery", "exactly_once")
        .set("reassembly.timeout", "10m");
    let panoptes = Panoptes::run(&config, "group-lag");
    let names = |kind: &str, count: usize| -> Vec<String> {
        (0..count)
            .map(|number| format!("{kind}-{number:02}"))
            .collect()
    };
    // Whole parts before, between and after those that wait for `back`.
    let (first, between, after) = (names("first", 40), names("between", 40), names("after", 40));
    let open = names("open", 24);
    let views = &["top", "left", "right", "front"];
    line.send(first.iter().flat_map(|part| line.part(part, 1)));
    for (number, part) in between.iter().enumerate() {
        if let Some(waiting) = open.get(number) {
            line.send(line.part_seen_by(waiting, 2, views));
        }
        line.send(line.part(part, 3));
    }
    line.send(after.iter().flat_map(|part| line.part(part, 4)));
    let whole = first.len() + between.len() + after.len();
    line.await_parts(whole);
    let unfinished = (open.len() * views.len()) as f64;
    panoptes.await_metrics("only open parts to be unfinished", |metrics| {
        (metrics.sum("panoptes_uncommitted_records", &[]) - unfinished).abs() < 0.5
    });

    let lag = assert_lag(&line, &open.iter().cloned().collect());
    assert!(
        lag as f64 > unfinished,
        "finished records lie above open ones: lag {lag}"
    );

    line.send(
        open.iter()
            .flat_map(|part| line.part_seen_by(part, 2, &["back"])),
    );
    line.await_parts(whole + open.len());
    panoptes.await_metrics("nothing to be unfinished", |metrics| {
        metrics.sum("panoptes_uncommitted_records", &[]) < 0.5
    });
    assert_eq!(assert_lag(&line, &BTreeSet::new()), 0);
    panoptes.stop_in_order();
    line.outcomes()
        .assert_one_whole_result_each(&[first, between, after, open].concat());
}
