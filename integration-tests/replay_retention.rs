//! `panoptes replay`: what brokers do not have any more is told with counts, whatever interrupts it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::kafka::Broker;
use crate::kafka::tools::describe_group;
use crate::replay::{Replay, config, made_at, shift, summary, target};
use crate::support::line::{Line, PARTITIONS, names};

const PATIENCE: Duration = Duration::from_secs(60);

/// A sum over the partitions of a topic of what a summary says was skipped.
fn skipped(summary: &Value, topic: &str, what: &str) -> i64 {
    let skipped = summary["skipped"].as_array().unwrap().iter();
    let of_topic = skipped.filter(|one| one["topic"] == topic);
    of_topic.map(|one| one[what].as_i64().unwrap()).sum()
}

/// A transaction with records of parts that never were, on partition 0; it is aborted.
pub(crate) fn abort_a_transaction(line: &Line<'_>, topic: &str, records: usize) {
    let mut client = line.broker.client();
    client.set("transactional.id", format!("{topic}-aborted"));
    let producer: BaseProducer = client.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..records {
        let record: BaseRecord<'_, str, str> = BaseRecord::to(topic);
        let record = record.partition(0).key("never").payload("never");
        producer.send(record).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
}

/// How many records a reader finds on a topic.
fn records_of(line: &Line<'_>, topic: &str) -> usize {
    let mut client = line.broker.client();
    client.set("group.id", "counts-records");
    client.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut records, mut ended) = (0, 0);
    while ended < PARTITIONS {
        match consumer.poll(PATIENCE).expect("the topic has an end") {
            Ok(_) => records += 1,
            Err(_) => ended += 1,
        }
    }
    records
}

#[test]
fn offsets_without_a_record_are_counted_and_compaction_is_named() {
    let line = Line::new(Broker::shared(), "replay-gaps");
    let compacted = line.camera("top");
    let aborted = line.camera("left");
    let properties = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "50"),
        ("min.cleanable.dirty.ratio", "0"),
        ("max.compaction.lag.ms", "50"),
    ];
    line.broker.configure_all(&compacted, &properties);
    let parts = names(12);
    // The same image again, a second later each time, so that segments are closed: compaction leaves the last.
    for number in 0..3_i64 {
        let again = shift(&line, &parts, None).into_iter();
        let again = again.filter(|shot| number == 0 || shot.topic == compacted);
        line.send(again.map(|shot| {
            let written = shot.timestamp.unwrap() + 1_000 * number;
            shot.at(written)
        }));
    }
    abort_a_transaction(&line, &aborted, 3);
    let last = line.part("last", 1).into_iter();
    line.send(last.map(|shot| shot.at(made_at(20))));
    let sent = 3 * parts.len() + 1;
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut left = records_of(&line, &compacted);
    while left >= sent {
        assert!(Instant::now() < deadline, "never compacted");
        std::thread::sleep(Duration::from_millis(500));
        left = records_of(&line, &compacted);
    }
    // Before anything more goes.
    let frozen = [
        ("cleanup.policy", "compact"),
        ("min.compaction.lag.ms", "900000000000"),
    ];
    line.broker.configure_all(&compacted, &frozen);
    let left = records_of(&line, &compacted);

    let into = target(&line, "again");
    let summary = Replay::of(&line, &config(&line), &into).complete();
    let (empty, deleted) = ("empty_offsets", "deleted_offsets");
    // The aborted records and the transaction's marker.
    assert_eq!(skipped(&summary, &aborted, empty), 4, "{summary}");
    assert_eq!(
        skipped(&summary, &compacted, empty),
        (sent - left) as i64,
        "{summary}"
    );
    assert_eq!(
        skipped(&summary, &aborted, deleted) + skipped(&summary, &compacted, deleted),
        0
    );
    for one in summary["skipped"].as_array().unwrap() {
        assert_eq!(one["is_compacted"], one["topic"] == compacted, "{summary}");
    }
    assert_eq!(into.outcomes().parts().len(), 13);
}

#[test]
fn what_is_deleted_while_a_replay_is_away_is_counted_and_what_was_skipped_before_is_not_forgotten()
{
    let line = Line::new(Broker::shared(), "replay-deleted");
    let config = config(&line);
    let top = line.camera("top");
    abort_a_transaction(&line, &top, 2);
    let parts = names(60);
    line.send(shift(&line, &parts, None));
    let into = target(&line, "again");
    let job = ["--job", "replay-deleted-job"];
    let replay = Replay::of(&line, &config, &into).with(&job);
    let published = replay.kill_midway(&into);
    assert!((1..parts.len()).contains(&published), "{published}");
    line.broker.delete_records(&top);
    let positions = describe_group(line.broker, "replay-deleted-job");
    let of_top = positions.iter().filter(|one| one.topic == top);
    let behind: i64 = of_top.map(|one| one.end - one.committed.unwrap()).sum();
    assert!(behind > 0, "{positions:?}");

    let summary = Replay::of(&line, &config, &into).with(&job).complete();
    assert_eq!(
        skipped(&summary, &top, "deleted_offsets"),
        behind,
        "{summary}"
    );
    // The aborted transaction lies before; if partition 0 had not come past it, it was deleted with the rest.
    let at_the_beginning = positions
        .iter()
        .any(|one| one.topic == top && one.partition == 0 && one.committed == Some(0));
    let empty = if at_the_beginning { 0 } else { 3 };
    assert_eq!(skipped(&summary, &top, "empty_offsets"), empty, "{summary}");
    assert_eq!(
        summary["cut"],
        Value::Array(Vec::new()),
        "it was whole when the job was made"
    );
    // The other cameras' views are there, and no part has two results.
    let outcomes = into.outcomes();
    outcomes.assert_one_result_id_each(parts.iter().map(String::as_str));

    // A job that is made now begins where the log does.
    let offsets: Vec<String> = (0..PARTITIONS)
        .map(|one| format!("{top}[{one}]=0"))
        .collect();
    let words: Vec<&str> = offsets
        .iter()
        .flat_map(|one| ["--from-offset", one])
        .collect();
    let anew = target(&line, "anew");
    let summary = Replay::of(&line, &config, &anew).with(&words).complete();
    let cut = summary["cut"].as_array().unwrap().iter();
    let cut: i64 = cut
        .map(|one| one["deleted_offsets"].as_i64().unwrap())
        .sum();
    let ends: i64 = positions
        .iter()
        .filter(|one| one.topic == top)
        .map(|one| one.end)
        .sum();
    assert_eq!(cut, ends, "{summary}");
    assert_eq!(skipped(&summary, &top, "deleted_offsets"), 0);
}

#[test]
fn partitions_that_are_added_are_named_and_the_job_goes_on_without_them() {
    let line = Line::new(Broker::shared(), "replay-grown");
    let config = config(&line);
    let parts = names(60);
    line.send(shift(&line, &parts, None));
    let into = target(&line, "again");
    let job = ["--job", "replay-grown-job"];
    let replay = Replay::of(&line, &config, &into).with(&job);
    replay.kill_midway(&into);
    for topic in line.camera_topics() {
        line.broker.repartition(&topic, PARTITIONS as usize + 1);
    }
    let shots = line.part("later", 1).into_iter();
    let shots = shots.map(|shot| shot.at(made_at(90)).on_partition(PARTITIONS));
    // A producer that knows the new partitions.
    line.send_placed_by("consistent_random", shots);
    let summary = Replay::of(&line, &config, &into).with(&job).complete();
    let added = summary["partitions_added"].as_array().unwrap();
    let topics: BTreeSet<&str> = added
        .iter()
        .map(|one| one["topic"].as_str().unwrap())
        .collect();
    assert_eq!(topics.len(), line.views.len(), "{summary}");
    for one in added {
        assert_eq!(
            (&one["partition"], &one["offsets"]),
            (&PARTITIONS.into(), &1.into())
        );
        assert_eq!(one["was_read"], false);
    }
    into.outcomes()
        .assert_one_result_id_each(parts.iter().map(String::as_str));
}

#[test]
fn a_topic_that_goes_while_a_replay_runs_is_named_and_holds_nothing_up() {
    let line = Line::new(Broker::shared(), "replay-gone");
    let config = config(&line);
    let parts = names(60);
    line.send(shift(&line, &parts, None));
    let into = target(&line, "again");
    let slow = Replay::of(&line, &config, &into).slowly();
    let child = slow.start_to_publish(&into);
    line.broker.delete_topic(&line.camera("back"));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let summary = summary(&output);
    assert_eq!(summary["topics_gone"][0], line.camera("back"), "{summary}");
    into.outcomes()
        .assert_one_result_id_each(parts.iter().map(String::as_str));
}

#[test]
fn topics_that_go_or_come_while_a_job_is_away_are_named_and_it_goes_on_without_them() {
    let line = Line::new(Broker::shared(), "replay-away");
    let config = config(&line);
    let parts = names(60);
    line.send(shift(&line, &parts, None));
    let pattern = format!("^{}\\.cam\\.", line.name);
    for (name, topics) in [
        ("by-name", vec![]),
        ("by-pattern", vec!["--topic", pattern.as_str()]),
    ] {
        let into = target(&line, name);
        let job = format!("replay-away-{name}");
        let replay = || {
            let replay = Replay::of(&line, &config, &into).with(&["--job", &job]);
            replay.with(&topics)
        };
        let published = replay().kill_midway(&into);
        assert!((1..parts.len()).contains(&published), "{published}");
    }
    let (gone, new) = (line.camera("back"), line.camera("extra"));
    line.broker.delete_topic(&gone);
    line.broker.create_topic(&new, PARTITIONS);
    for (name, topics, added) in [
        ("by-name", vec![], vec![]),
        (
            "by-pattern",
            vec!["--topic", pattern.as_str()],
            vec![new.as_str(); 4],
        ),
    ] {
        let into = target(&line, name);
        let job = format!("replay-away-{name}");
        let replay = Replay::of(&line, &config, &into).with(&["--job", &job]);
        let summary = replay.with(&topics).complete();
        assert_eq!(summary["topics_gone"][0], gone, "{summary}");
        let named = summary["partitions_added"].as_array().unwrap().iter();
        let named: Vec<&str> = named.map(|one| one["topic"].as_str().unwrap()).collect();
        assert_eq!(named, added, "{summary}");
        into.outcomes()
            .assert_one_result_id_each(parts.iter().map(String::as_str));
    }

    // What never was a topic of the job is missed.
    let into = target(&line, "anew");
    let errors = Replay::of(&line, &config, &into).fail(1);
    let expected = format!("expected camera topic `{gone}` to exist");
    assert!(errors.contains(&expected), "{errors}");
}

#[test]
fn a_job_that_the_brokers_have_forgotten_does_not_begin_anew_in_silence() {
    let line = Line::new(Broker::shared(), "replay-forgotten");
    let config = config(&line);
    line.send(line.part("only", 1));
    let into = target(&line, "again");
    let replay = Replay::of(&line, &config, &into).with(&["--job", "forgotten-job"]);
    replay.complete();
    let groups = ["forgotten-job", "forgotten-job-begin", "forgotten-job-end"];
    line.broker.delete_groups(&groups);
    let output = replay.run();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("`forgotten-job-closed-parts`"), "{errors}");
    assert!(errors.contains("--begin-anew"), "{errors}");
    replay.with(&["--begin-anew"]).complete();
    into.outcomes().assert_one_result_id_each(["only"]);
}
