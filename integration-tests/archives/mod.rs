//! `panoptes export` and `panoptes archive check`: what Kafka holds is in the archive, byte for byte and
//! once, through kills, damage and retention.

#[cfg(feature = "failpoints")]
mod interrupted;
pub(crate) mod reading;
mod s3;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;
use tempfile::TempDir;

use crate::kafka::Broker;
use crate::support::config::Config;
use crate::support::line::Line;
use crate::support::process::{log_folder, panoptes, write_config};

use reading::{files, json, records_in, records_on, segment_manifests};

const TIMEOUT: Duration = Duration::from_secs(120);
const HOUR: i64 = 3_600_000;

/// An export of one line's cameras to a folder of its own.
pub(crate) struct Export<'a> {
    line: &'a Line<'a>,
    folder: TempDir,
    config: PathBuf,
}

impl<'a> Export<'a> {
    pub(crate) fn of(line: &'a Line<'a>) -> Self {
        Self::with(line, |config| config)
    }

    fn with(line: &'a Line<'a>, change: impl Fn(Config) -> Config) -> Self {
        let config = Config::default()
            .set("bus.brokers", line.broker.address())
            .set("input.topics", line.camera_topics());
        Self {
            line,
            folder: tempfile::tempdir().unwrap(),
            config: write_config(&change(config), &format!("{}-export", line.name)),
        }
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn arguments<'b>(&'b self, archive: &'b str, flags: &[&'b str]) -> Vec<&'b str> {
        let config = self.config.to_str().unwrap();
        [&["export", archive, "--config", config], flags].concat()
    }

    /// Runs it to its end.
    fn run(&self, flags: &[&str]) -> Output {
        let archive = self.archive();
        let arguments = self.arguments(archive.to_str().unwrap(), flags);
        panoptes(&log_folder(), &arguments)
    }

    /// The same, which must succeed; what it told at its end.
    pub(crate) fn outcome(&self, flags: &[&str]) -> Value {
        outcome_of(&self.run(flags))
    }

    fn check(&self) -> Output {
        let archive = self.archive();
        let arguments = ["archive", "check", archive.to_str().unwrap()];
        panoptes(&log_folder(), &arguments)
    }

    fn assert_holds_what_kafka_holds(&self) {
        assert_same(&records_in(&self.archive()), &records_of(self.line));
        let checked = self.check();
        assert_eq!(checked.status.code(), Some(0), "{}", errors(&checked));
    }
}

/// What all cameras' topics hold.
fn records_of(line: &Line<'_>) -> Vec<reading::StoredRecord> {
    let topics = line.camera_topics();
    let records = topics
        .iter()
        .flat_map(|topic| records_on(line.broker, topic));
    let mut records: Vec<_> = records.collect();
    records.sort();
    records
}

/// Without printing images.
fn assert_same(found: &[reading::StoredRecord], expected: &[reading::StoredRecord]) {
    let place = |record: &reading::StoredRecord| {
        format!("{}[{}]@{}", record.topic, record.partition, record.offset)
    };
    let places =
        |records: &[reading::StoredRecord]| -> Vec<String> { records.iter().map(place).collect() };
    assert_eq!(places(found), places(expected));
    let differ = found.iter().zip(expected).find(|(one, other)| one != other);
    assert!(differ.is_none(), "{}", place(differ.unwrap().0));
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn outcome_of(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", errors(output));
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

fn await_that(expected: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < TIMEOUT, "expected {expected}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Records of every odd kind, on partition 0.
fn send_odd_records(broker: &Broker, topic: &str) {
    let producer: BaseProducer = broker.client().create().unwrap();
    let header = |key, value| Header { key, value };
    let headers = || {
        OwnedHeaders::new()
            .insert(header("view", Some(&b"top"[..])))
            .insert(header("empty", Some(&b""[..])))
            .insert(header("null", None))
            .insert(header("view", Some(&[0xff, 0x00, 0xfe][..])))
            .insert(header("", Some("äöü\n\"".as_bytes())))
    };
    let keys: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"part-1"), Some(&[0xc3, 0x28, 0x0a])];
    let values: [Option<&[u8]>; 3] = [None, Some(b""), Some(&[0; 513])];
    for key in keys {
        for value in values {
            for headers in [None, Some(headers())] {
                let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
                (record.key, record.payload) = (key, value);
                record.partition = Some(0);
                record.timestamp = Some(now() - 60_000);
                record.headers = headers;
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
    }
    producer.flush(TIMEOUT).unwrap();
}

/// A transaction that is aborted and one that is committed, on partition 0.
fn send_transactions(broker: &Broker, topic: &str, records: usize) {
    let mut client = broker.client();
    client.set("transactional.id", topic);
    let producer: BaseProducer = client.create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    for is_committed in [false, true] {
        producer.begin_transaction().unwrap();
        for number in 0..records {
            let key = format!("part-{number}");
            let record = BaseRecord::to(topic)
                .partition(0)
                .key(&key)
                .payload("image");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(TIMEOUT).unwrap();
        match is_committed {
            true => producer.commit_transaction(TIMEOUT).unwrap(),
            false => producer.abort_transaction(TIMEOUT).unwrap(),
        }
    }
}

/// So many parts, seen by all cameras, over three hours up to now.
fn send_parts(line: &Line<'_>, parts: std::ops::Range<usize>) {
    let (from, count) = (now() - 3 * HOUR, i64::try_from(parts.len()).unwrap());
    let times = (0..).map(|number| from + number * 3 * HOUR / count);
    let shots = parts.zip(times).flat_map(|(number, time)| {
        let part = line.part(&format!("part-{number:04}"), number as u64);
        part.into_iter().map(move |shot| shot.at(time))
    });
    line.send(shots);
}

#[test]
fn every_record_is_in_the_archive_as_kafka_has_it() {
    let line = Line::of(Broker::shared(), "archive-odd", &["top", "side", "late"], 2);
    let (top, late) = (line.camera("top"), line.camera("late"));
    send_parts(&line, 0..40);
    send_odd_records(line.broker, &top);
    send_transactions(line.broker, &top, 5);
    line.broker
        .configure(&late, "message.timestamp.type", "LogAppendTime");
    send_odd_records(line.broker, &late);
    let export = Export::of(&line);
    let estimate = export.outcome(&["--dry-run"]);
    assert!(!export.archive().exists(), "a dry run has written");
    let outcome = export.outcome(&["--segment-bytes", "100kB", "--verify"]);
    export.assert_holds_what_kafka_holds();
    let records = records_in(&export.archive());
    assert_eq!(outcome["records"], records.len());
    assert!(
        records
            .iter()
            .any(|record| { record.timestamp_type.as_deref() == Some("log_append_time") })
    );
    // Five aborted records and a marker for each transaction.
    assert_eq!(outcome["missing"], 7);
    assert_eq!(estimate["offsets"], records.len() + 7);
    let hours: Vec<String> = segment_manifests(&export.archive())
        .iter()
        .filter(|path| path.starts_with(export.archive().join(&top).join("00000")))
        .map(|path| path.file_stem().unwrap().to_str().unwrap()[21..].to_owned())
        .collect();
    assert!(hours.len() > 3, "{hours:?}");
    assert_eq!(export.outcome(&[])["was_complete"], true);
}

#[test]
fn times_bound_what_is_exported() {
    let line = Line::of(Broker::shared(), "archive-times", &["top"], 1);
    send_parts(&line, 0..30);
    let (from, to) = (now() - 2 * HOUR, now() - HOUR);
    let text = |millis| {
        jiff::Timestamp::from_millisecond(millis)
            .unwrap()
            .to_string()
    };
    let export = Export::of(&line);
    export.outcome(&["--from", &text(from), "--to", &text(to)]);
    let all = records_on(line.broker, &line.camera("top"));
    let is_within = |time: Option<i64>| (from..to).contains(&time.unwrap());
    let expected: Vec<_> = all
        .into_iter()
        .filter(|record| is_within(record.timestamp))
        .collect();
    assert!((8..=12).contains(&expected.len()));
    assert_same(&records_in(&export.archive()), &expected);
}

#[test]
fn a_byte_that_differs_is_found_and_named() {
    let line = Line::of(Broker::shared(), "archive-damaged", &["top"], 1);
    send_parts(&line, 0..10);
    let export = Export::of(&line);
    export.outcome(&[]);
    let tar = files(&export.archive(), "tar").pop().unwrap();
    let mut bytes = fs::read(&tar).unwrap();
    bytes[600] ^= 1;
    fs::write(&tar, bytes).unwrap();
    let checked = export.check();
    assert_eq!(checked.status.code(), Some(1));
    let text = errors(&checked);
    assert!(text.contains(tar.to_str().unwrap()), "{text}");
    assert!(
        text.contains("is damaged: expected the SHA-256 of record"),
        "{text}"
    );
    fs::remove_file(&tar).unwrap();
    let text = errors(&export.check());
    assert!(text.contains(tar.to_str().unwrap()), "{text}");
}

#[test]
fn what_retention_had_deleted_before_is_named() {
    let line = Line::of(Broker::shared(), "archive-retention", &["top"], 1);
    let topic = line.camera("top");
    send_parts(&line, 0..20);
    line.broker.delete_before(&topic, 0, 8);
    let export = Export::of(&line);
    let outcome = export.outcome(&["--from-offset", "3"]);
    assert_eq!(outcome["deleted_at_start"], 5);
    let manifest = json(&export.archive().join("archive.json"));
    let partition = &manifest["topics"][0]["partitions"][0];
    assert_eq!(partition["log_start"], 8);
    assert_eq!(partition["start"], 8);
    assert_eq!(partition["totals"]["first_offset"], 8);
    assert_eq!(partition["totals"]["records"], 12);
    export.assert_holds_what_kafka_holds();
    let printed = String::from_utf8(export.check().stdout).unwrap();
    assert!(
        printed.contains("5 offsets were deleted before the export"),
        "{printed}"
    );
}

#[test]
fn a_complete_archive_does_not_need_its_topics() {
    let line = Line::of(Broker::shared(), "archive-outlives", &["top", "side"], 1);
    send_parts(&line, 0..10);
    let export = Export::of(&line);
    export.outcome(&[]);
    for topic in line.camera_topics() {
        line.broker.delete_topic(&topic);
    }
    assert_eq!(export.outcome(&["--verify"])["was_complete"], true);
    let (top, side) = (line.camera("top"), line.camera("side"));
    let turned = ["--topic", &side, "--topic", &top];
    assert_eq!(export.outcome(&turned)["was_complete"], true);
    let away = ["--set", "bus.brokers=127.0.0.1:1"];
    assert_eq!(export.outcome(&away)["was_complete"], true);
    let refused = export.run(&["--topic", &top]);
    assert_eq!(refused.status.code(), Some(1));
    let text = errors(&refused);
    assert!(text.contains("is an archive with topics"), "{text}");
}

#[test]
fn a_folder_that_holds_something_else_is_refused() {
    let line = Line::of(Broker::shared(), "archive-occupied", &["top"], 1);
    let export = Export::of(&line);
    fs::create_dir(export.archive()).unwrap();
    fs::write(export.archive().join("notes.txt"), "mine").unwrap();
    let refused = export.run(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("found `notes.txt`"),
        "{}",
        errors(&refused)
    );
}
