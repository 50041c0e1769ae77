//! Archives in memory, for tests of those who read them.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::layout::MANIFEST;
use super::reader::add_to;
use super::segment_writer::SegmentWriter;
use super::{Archive, ArchiveStore};
use crate::domain::{
    Record, RecordCopy, SourceOffset, Timestamp, TimestampKind, Topic, TopicPartition,
};
use crate::schema::archive::{
    ArchiveManifest, ArchivedPartition, ArchivedTopic, PartitionTotals, RequestedRange,
};

/// A record of a partition, made at that time, of so many bytes.
pub(crate) fn record(
    partition: &TopicPartition,
    offset: i64,
    made_at: i64,
    bytes: usize,
) -> RecordCopy {
    let TopicPartition { topic, partition } = partition.clone();
    RecordCopy {
        record: Record {
            source: SourceOffset {
                topic,
                partition,
                offset,
            },
            generation: 0,
            key: Some(b"part".to_vec()),
            value: Some(vec![7; bytes]),
            headers: Vec::new(),
            timestamp: Some(Timestamp(made_at)),
            lease: None,
        },
        timestamp_kind: Some(TimestampKind::Create),
        fault: None,
    }
}

/// A complete archive of partition 0 of topics, each of offsets from 0 to an end, with these records.
pub(crate) async fn archive_of(topics: Vec<(&str, i64, Vec<RecordCopy>)>) -> Archive {
    let store = ArchiveStore::new(Arc::new(InMemory::new()), "memory");
    let mut archived = Vec::new();
    for (topic, end, records) in topics {
        let partition = TopicPartition {
            topic: Topic::from(topic),
            partition: 0,
        };
        let first = records.first().and_then(|copy| copy.record.timestamp);
        let mut segment = SegmentWriter::begin(&store, &partition, 0, first);
        for copy in records {
            segment.append(&store, copy).await.unwrap();
        }
        let segment = segment.finish(&store, end).await.unwrap();
        let mut totals = PartitionTotals::default();
        add_to(&mut totals, &segment);
        archived.push(ArchivedTopic {
            topic: topic.to_owned(),
            partitions: vec![ArchivedPartition {
                partition: 0,
                log_start: 0,
                start: 0,
                end,
                deleted_at_start: 0,
                totals: Some(totals),
            }],
        });
    }
    let manifest = ArchiveManifest {
        schema_version: ArchiveManifest::VERSION,
        created_by: "panoptes".to_owned(),
        cluster_id: "cluster".to_owned(),
        created_at: 1,
        completed_at: Some(2),
        subscription: Vec::new(),
        range: RequestedRange::default(),
        topics: archived,
    };
    store.write(MANIFEST, manifest.to_bytes()).await.unwrap();
    Archive::open(store).await.unwrap()
}
