//! Records as Kafka has them and as an archive has them, both read without any code of Panoptes: the
//! broker's by a `read_committed` consumer, the archive's from its tar files by their index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, Timestamp, TopicPartitionList};
use serde_json::Value;

use crate::kafka::Broker;

const TIMEOUT: Duration = Duration::from_secs(60);

/// All of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StoredRecord {
    pub(super) topic: String,
    pub(super) partition: i64,
    pub(super) offset: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(super) timestamp: Option<i64>,
    pub(super) timestamp_type: Option<String>,
}

/// What a topic holds now, by partition and offset.
pub(super) fn records_on(broker: &Broker, topic: &str) -> Vec<StoredRecord> {
    let mut client = broker.client();
    client.set("group.id", "tests-read-only");
    client.set("isolation.level", "read_committed");
    client.set("enable.partition.eof", "true");
    client.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        let offset = Offset::Beginning;
        let added = assignment.add_partition_offset(topic, partition, offset);
        added.unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut records, mut ended) = (Vec::new(), 0);
    let started = Instant::now();
    while ended < partitions {
        assert!(started.elapsed() < TIMEOUT, "`{topic}` has no end");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => records.push(stored(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("`{topic}` cannot be read: {error}"),
        }
    }
    records.sort();
    records
}

fn stored(message: &BorrowedMessage<'_>) -> StoredRecord {
    let (timestamp, kind) = match message.timestamp() {
        Timestamp::NotAvailable => (None, None),
        Timestamp::CreateTime(time) => (Some(time), Some("create_time")),
        Timestamp::LogAppendTime(time) => (Some(time), Some("log_append_time")),
    };
    let headers = message.headers().into_iter().flat_map(|headers| {
        let headers = headers.iter();
        headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
    });
    StoredRecord {
        topic: message.topic().to_owned(),
        partition: message.partition().into(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.collect(),
        timestamp,
        timestamp_type: kind.map(str::to_owned),
    }
}

/// What the archive in a folder holds, by partition and offset; doubles would be there twice.
pub(super) fn records_in(archive: &Path) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    for manifest in segment_manifests(archive) {
        let told = json(&manifest);
        let tar = fs::read(manifest.with_extension("tar")).unwrap();
        let mut entries: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            entries.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        let index = String::from_utf8(entries["index.jsonl"].clone()).unwrap();
        for line in index.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            records.push(archived(&told, &line, &entries));
        }
    }
    records.sort();
    records
}

fn archived(told: &Value, line: &Value, entries: &BTreeMap<String, Vec<u8>>) -> StoredRecord {
    let headers = line["headers"].as_array().unwrap().iter();
    let value = line["value"]["entry"].as_str();
    StoredRecord {
        topic: told["topic"].as_str().unwrap().to_owned(),
        partition: told["partition"].as_i64().unwrap(),
        offset: line["offset"].as_i64().unwrap(),
        key: bytes(&line["key"]),
        value: value.map(|entry| entries[entry].clone()),
        headers: headers
            .map(|header| {
                let name = header["name"].as_str().unwrap();
                (name.to_owned(), bytes(&header["value"]))
            })
            .collect(),
        timestamp: line["timestamp"].as_i64(),
        timestamp_type: line["timestamp_type"].as_str().map(str::to_owned),
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into_bytes()),
        other => Some(STANDARD.decode(other["base64"].as_str().unwrap()).unwrap()),
    }
}

/// The manifests of all segments that are whole.
pub(super) fn segment_manifests(archive: &Path) -> Vec<PathBuf> {
    files(archive, "json")
        .into_iter()
        .filter(|path| path.file_name().unwrap() != "archive.json")
        .collect()
}

/// All files with that extension, by name.
pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file of JSON.
pub(super) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}
