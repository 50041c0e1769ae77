//! Segments in an object store in memory: what is written comes back, and what is damaged is named.

use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::layout::MANIFEST;
use super::reader::{add_to, verify};
use super::segment_writer::SegmentWriter;
use super::*;
use crate::domain::{
    Header, Record, RecordCopy, SourceOffset, Timestamp, TimestampKind, Topic, TopicPartition,
};
use crate::schema::archive::{
    ArchiveManifest, ArchivedPartition, ArchivedTopic, OffsetRange, PartitionTotals,
    RequestedRange, SegmentManifest,
};

const HOUR: i64 = 3_600_000;

fn partition() -> TopicPartition {
    TopicPartition {
        topic: Topic::from("line1.cam.top"),
        partition: 2,
    }
}

/// What of a record must come back.
type Told = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<Header>,
    Option<Timestamp>,
    Option<TimestampKind>,
    Option<String>,
);

fn told(copy: RecordCopy) -> Told {
    let RecordCopy {
        record,
        timestamp_kind,
        fault,
    } = copy;
    assert_eq!(record.source.topic_partition(), partition());
    (
        record.source.offset,
        record.key,
        record.value,
        record.headers,
        record.timestamp,
        timestamp_kind,
        fault,
    )
}

fn copy_of(told: &Told) -> RecordCopy {
    let (offset, key, value, headers, timestamp, timestamp_kind, fault) = told.clone();
    let TopicPartition { topic, partition } = partition();
    RecordCopy {
        record: Record {
            source: SourceOffset {
                topic,
                partition,
                offset,
            },
            generation: 0,
            key,
            value,
            headers,
            timestamp,
            lease: None,
        },
        timestamp_kind,
        fault,
    }
}

fn at(offset: i64, millis: i64, value: &[u8]) -> Told {
    let key = Some(b"part".to_vec());
    let time = Some(Timestamp(millis));
    let kind = Some(TimestampKind::Create);
    (
        offset,
        key,
        Some(value.to_vec()),
        Vec::new(),
        time,
        kind,
        None,
    )
}

fn records() -> impl Strategy<Value = Vec<Told>> {
    let bytes = || option::of(vec(any::<u8>(), 0..700));
    let header = ("[a-z-]{0,12}", bytes()).prop_map(|(name, value)| Header { name, value });
    let time = option::of((0..4 * HOUR, any::<bool>()));
    let rest = (vec(header, 0..4), time, option::of("[a-z ]{1,9}"));
    let record = (1i64..4, bytes(), bytes(), rest);
    vec(record, 0..12).prop_map(|records| {
        let mut offset = 0;
        let told = records.into_iter().map(|(step, key, value, rest)| {
            offset += step;
            let (headers, time, fault) = rest;
            let timestamp = time.map(|(time, _)| Timestamp(time));
            let kind = time.map(|(_, is_create)| match is_create {
                true => TimestampKind::Create,
                false => TimestampKind::LogAppend,
            });
            (offset, key, value, headers, timestamp, kind, fault)
        });
        told.collect()
    })
}

/// An archive of one partition in memory, up to `end`.
struct Written {
    memory: Arc<InMemory>,
    store: ArchiveStore,
    segments: Vec<SegmentManifest>,
}

async fn write(records: &[Told], end: i64, segment_bytes: u64) -> Written {
    let memory = Arc::new(InMemory::new());
    let store = ArchiveStore::new(memory.clone(), "memory");
    let mut segments = Vec::new();
    let mut start = 0;
    let mut open: Option<SegmentWriter> = None;
    for told in records {
        let copy = copy_of(told);
        if let Some(full) = open.take_if(|open| open.ends_before(&copy, segment_bytes)) {
            segments.push(full.finish(&store, told.0).await.unwrap());
            start = told.0;
        }
        let begin = || SegmentWriter::begin(&store, &partition(), start, copy.record.timestamp);
        let segment = open.get_or_insert_with(begin);
        segment.append(&store, copy).await.unwrap();
    }
    let last = open.unwrap_or_else(|| SegmentWriter::begin(&store, &partition(), start, None));
    segments.push(last.finish(&store, end).await.unwrap());
    let mut totals = PartitionTotals::default();
    segments
        .iter()
        .for_each(|segment| add_to(&mut totals, segment));
    let manifest = manifest(end, totals);
    store.write(MANIFEST, manifest.to_bytes()).await.unwrap();
    Written {
        memory,
        store,
        segments,
    }
}

fn manifest(end: i64, totals: PartitionTotals) -> ArchiveManifest {
    let TopicPartition { topic, partition } = partition();
    ArchiveManifest {
        schema_version: ArchiveManifest::VERSION,
        created_by: "panoptes".to_owned(),
        cluster_id: "cluster".to_owned(),
        created_at: 1,
        completed_at: Some(2),
        subscription: vec![topic.to_string()],
        range: RequestedRange::default(),
        topics: vec![ArchivedTopic {
            topic: topic.to_string(),
            partitions: vec![ArchivedPartition {
                partition,
                log_start: 0,
                start: 0,
                end,
                deleted_at_start: 0,
                totals: Some(totals),
            }],
        }],
    }
}

impl Written {
    async fn partition(&self) -> PartitionArchive {
        let archive = Archive::open(self.store.clone()).await.unwrap();
        archive.partition(&partition().topic, 2).unwrap()
    }

    async fn read(&self, from: i64) -> Result<Vec<Told>, ArchiveError> {
        let mut records = self.partition().await.records(from).await?;
        let mut read = Vec::new();
        while let Some(copy) = records.next().await? {
            read.push(told(copy));
        }
        Ok(read)
    }

    async fn verify(&self) -> Result<(), ArchiveError> {
        let archive = Archive::open(self.store.clone()).await?;
        verify(&archive, |_, _| ()).await
    }

    async fn objects(&self) -> Vec<String> {
        let mut objects = self.store.list("line1.cam.top").await.unwrap();
        objects.push(MANIFEST.to_owned());
        objects
    }

    async fn put(&self, object: &str, bytes: Vec<u8>) {
        self.memory
            .put(&Path::from(object), bytes.into())
            .await
            .unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn records_come_back_as_they_were_from_any_offset(
        written in records(),
        segment_bytes in 1u64..6_000,
        from in -1i64..50,
    ) {
        block_on(async {
            let archive = write(&written, 50, segment_bytes).await;
            archive.verify().await.unwrap();
            assert_eq!(archive.read(0).await.unwrap(), written);
            let later = written.iter().filter(|told| told.0 >= from);
            let later: Vec<Told> = later.cloned().collect();
            assert_eq!(archive.read(from).await.unwrap(), later);
        });
    }

    #[test]
    fn a_byte_that_differs_is_found_wherever_it_is(
        written in records(),
        segment_bytes in 1u64..6_000,
        place in any::<prop::sample::Index>(),
        object in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        block_on(async {
            let archive = write(&written, 50, segment_bytes).await;
            let objects = archive.objects().await;
            let tars: Vec<&String> = objects.iter().filter(|name| name.ends_with(".tar")).collect();
            let object = tars[object.index(tars.len())];
            let mut bytes = archive.store.read(object).await.unwrap().to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= 1u8 << bit;
            archive.put(object, bytes).await;
            let error = archive.verify().await.unwrap_err().to_string();
            assert!(error.contains(object.as_str()), "{error}");
            assert!(error.contains("is damaged: expected"), "{error}");
        });
    }

    #[test]
    fn a_manifest_whose_numbers_differ_is_found(
        written in records(),
        place in any::<prop::sample::Index>(),
        object in any::<prop::sample::Index>(),
    ) {
        block_on(async {
            let archive = write(&written, 50, 3_000).await;
            let objects = archive.objects().await;
            let segments: Vec<&String> = objects
                .iter()
                .filter(|name| name.ends_with(".json") && *name != MANIFEST)
                .collect();
            let object = segments[object.index(segments.len())];
            let bytes = archive.store.read(object).await.unwrap().to_vec();
            let digits = digits(&bytes);
            let changed = with_another_digit(&bytes, digits[place.index(digits.len())]);
            archive.put(object, changed).await;
            archive.verify().await.unwrap_err();
        });
    }
}

/// Where a manifest has digits.
fn digits(manifest: &[u8]) -> Vec<usize> {
    let digits = manifest.iter().enumerate();
    let digits = digits.filter(|(_, byte)| byte.is_ascii_digit());
    digits.map(|(at, _)| at).collect()
}

fn with_another_digit(manifest: &[u8], at: usize) -> Vec<u8> {
    let mut changed = manifest.to_vec();
    changed[at] = if changed[at] == b'9' {
        b'8'
    } else {
        changed[at] + 1
    };
    changed
}

#[test]
fn each_number_counts_in_the_manifest_of_a_segment_without_records() {
    block_on(async {
        let archive = write(&[], 50, 3_000).await;
        let objects = archive.objects().await;
        let is_segment = |name: &&String| name.ends_with(".json") && *name != MANIFEST;
        let object = objects.iter().find(is_segment).unwrap();
        let whole = archive.store.read(object).await.unwrap().to_vec();
        archive.verify().await.unwrap();
        for at in digits(&whole) {
            let changed = with_another_digit(&whole, at);
            let text = String::from_utf8_lossy(&changed).into_owned();
            archive.put(object, changed).await;
            let verified = archive.verify().await;
            assert!(verified.is_err(), "{text}");
        }
    });
}

#[test]
fn segments_are_cut_by_hour_and_by_size_and_meet() {
    block_on(async {
        let big = vec![7; 2_000];
        let records = [
            at(3, HOUR - 1, b"a"),
            at(4, HOUR, b"b"),
            at(5, HOUR - 1, b"c"),
            at(6, HOUR, &big),
            at(9, HOUR, &big),
            at(10, 3 * HOUR, b"d"),
        ];
        let archive = write(&records, 20, 5_500).await;
        let ranges: Vec<(i64, i64, u64)> = archive
            .segments
            .iter()
            .map(|segment| (segment.start, segment.end, segment.records))
            .collect();
        assert_eq!(ranges, [(0, 4, 1), (4, 9, 3), (9, 10, 1), (10, 20, 1)]);
        let missing: Vec<i64> = archive.segments.iter().map(|it| it.missing).collect();
        assert_eq!(missing, [3, 2, 0, 9]);
        assert_eq!(
            archive.objects().await[0],
            "line1.cam.top/00002/00000000000000000000-1970-01-01T00.json"
        );
    });
}

#[test]
fn any_tool_for_tar_files_finds_the_images_and_the_index() {
    block_on(async {
        let mut image = at(12, 1_772_366_400_250, b"an image");
        image.3.push(Header {
            name: "content-type".to_owned(),
            value: Some(b"image/jpeg".to_vec()),
        });
        let empty = at(13, 1_772_366_400_250, b"");
        let mut tombstone = at(14, 1_772_366_400_250, b"");
        tombstone.2 = None;
        let archive = write(&[image, empty, tombstone], 15, 9_000).await;
        let objects = archive.objects().await;
        let bytes = archive.store.read(&objects[1]).await.unwrap();
        let mut tar = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mtime = entry.header().mtime().unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            found.push((name, mtime, content));
        }
        let [image, empty, index] = &found[..] else {
            panic!("expected two values and the index, found {found:?}");
        };
        assert_eq!(image.0, "00000000000000000012.jpg");
        assert_eq!((image.1, &image.2[..]), (1_772_366_400, &b"an image"[..]));
        assert_eq!(empty.0, "00000000000000000013.bin");
        assert_eq!(index.0, "index.jsonl");
        assert_eq!(index.2.split(|byte| *byte == b'\n').count(), 4);
    });
}

#[test]
fn a_segment_that_is_missing_is_named_by_its_first_offset() {
    block_on(async {
        let records = [at(0, 0, b"a"), at(1, HOUR, b"b"), at(2, 2 * HOUR, b"c")];
        for (index, expected) in [(0, "offset `0`"), (1, "offset `1`"), (2, "offset `2`")] {
            let archive = write(&records, 3, 9_000).await;
            let manifest = &archive.objects().await[2 * index];
            archive
                .memory
                .delete(&Path::from(manifest.as_str()))
                .await
                .unwrap();
            let error = archive.verify().await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    });
}

#[test]
fn offsets_that_retention_took_are_told_apart_from_those_without_a_record() {
    block_on(async {
        let store = ArchiveStore::new(Arc::new(InMemory::new()), "memory");
        let mut segment = SegmentWriter::begin(&store, &partition(), 0, Some(Timestamp(0)));
        segment.skip_deleted(OffsetRange { start: 0, end: 5 });
        segment
            .append(&store, copy_of(&at(7, 0, b"a")))
            .await
            .unwrap();
        let manifest = segment.finish(&store, 10).await.unwrap();
        assert_eq!((manifest.deleted_offsets(), manifest.missing), (5, 4));
    });
}

#[test]
fn a_time_finds_the_first_record_that_is_not_earlier() {
    block_on(async {
        let records = [
            at(0, 10, b"a"),
            at(1, 5, b"b"),
            at(2, HOUR, b"c"),
            at(3, 2 * HOUR, b"d"),
        ];
        let archive = write(&records, 9, 9_000).await.partition().await;
        for (time, expected) in [
            (0, 0),
            (6, 0),
            (11, 2),
            (HOUR, 2),
            (HOUR + 1, 3),
            (3 * HOUR, 9),
        ] {
            let found = archive.offset_at(Timestamp(time)).await.unwrap();
            assert_eq!(found, expected, "{time}");
        }
    });
}

#[test]
fn a_time_is_not_looked_for_past_a_segment_that_is_missing() {
    block_on(async {
        let records = [at(0, 0, b"a"), at(1, HOUR, b"b"), at(2, 2 * HOUR, b"c")];
        for lost in 0..3 {
            for objects in 1..=2 {
                let archive = write(&records, 3, 9_000).await;
                let names = archive.objects().await;
                // The manifest alone, or the tar file with it.
                for name in &names[2 * lost..2 * lost + objects] {
                    let path = Path::from(name.as_str());
                    archive.memory.delete(&path).await.unwrap();
                }
                let partition = archive.partition().await;
                for hour in 0..4 {
                    let found = partition.offset_at(Timestamp(hour * HOUR)).await;
                    if hour < lost as i64 {
                        assert_eq!(found.unwrap(), hour, "without segment {lost}");
                        continue;
                    }
                    let error = found.unwrap_err().to_string();
                    let expected = format!("begins at offset `{lost}`");
                    assert!(error.contains(&expected), "{error}");
                }
            }
        }
    });
}

#[test]
fn a_place_without_an_archive_is_named() {
    block_on(async {
        let store = ArchiveStore::new(Arc::new(InMemory::new()), "s3://plant/march");
        let error = Archive::open(store).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "expected an archive at `s3://plant/march`, found no `archive.json` there"
        );
    });
}

#[test]
fn a_partition_without_records_is_whole() {
    block_on(async {
        let archive = write(&[], 7, 9_000).await;
        assert!(archive.read(0).await.unwrap().is_empty());
        assert_eq!(archive.segments[0].missing, 7);
        archive.verify().await.unwrap();
    });
}
