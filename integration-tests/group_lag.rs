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

/// The part of every record of a partition, in order.
fn parts_in(line: &Line<'_>, topic: &str, partition: i32) -> Vec<String> {
    let consumer: BaseConsumer = {
        let mut client = line.broker.client();
        client.set("group.id", "test-camera-reader");
        client.create().unwrap()
    };
    let (_, end) = consumer
        .fetch_watermarks(topic, partition, Duration::from_secs(10))
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    let mut parts = Vec::new();
    while parts.len() < usize::try_from(end).unwrap() {
        let message = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
        parts.push(String::from_utf8(message.key().unwrap().to_vec()).unwrap());
    }
    parts
}

/// What the group must have committed for each camera partition that is not empty: the offset of its
/// first record of an open part, else its end; and the end.
fn expected(line: &Line<'_>, open: &BTreeSet<String>) -> BTreeMap<(String, i32), (i64, i64)> {
    let mut expected = BTreeMap::new();
    for topic in line.camera_topics() {
        for partition in 0..line.partitions {
            let parts = parts_in(line, &topic, partition);
            let first = parts.iter().position(|part| open.contains(part));
            let committed = first.unwrap_or(parts.len());
            let offsets = (committed as i64, parts.len() as i64);
            expected.insert((topic.clone(), partition), offsets);
        }
    }
    expected.retain(|_, (_, end)| *end > 0);
    expected
}

fn assert_lag(line: &Line<'_>, open: &BTreeSet<String>) -> i64 {
    let shown: BTreeMap<(String, i32), _> = describe_group(line.broker, &line.name)
        .into_iter()
        .map(|position| ((position.topic.clone(), position.partition), position))
        .collect();
    let mut lag = 0;
    for (place, (committed, end)) in expected(line, open) {
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
