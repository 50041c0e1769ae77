use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::archive::export::{Exported, export};
use crate::archive::layout::MANIFEST;
use crate::archive::progress::ExportProgress;
use crate::archive::segment_writer::SegmentWriter;
use crate::archive::testing::{archive_of, record};
use crate::domain::Timestamp;
use crate::kafka::client::BusSettings;
use crate::schema::archive::{ArchivedPartition, RequestedRange};

const TOPIC: &str = "line1.cam.top";

/// Of topics whose brokers nobody reaches.
fn settings(subscription: &[&str]) -> ExportSettings {
    ExportSettings {
        bus: BusSettings {
            brokers: "127.0.0.1:1".to_owned(),
            properties: BTreeMap::new(),
        },
        subscription: subscription.iter().map(|name| (*name).to_owned()).collect(),
        range: RequestedRange::default(),
        segment_bytes: 1 << 20,
        parallel: 1,
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition {
        topic: Topic::from(TOPIC),
        partition: number,
    }
}

/// A manifest that was begun with these ends of the topic's partitions.
fn begun(ends: &[i64]) -> ArchiveManifest {
    let partitions = (0..).zip(ends).map(|(partition, end)| ArchivedPartition {
        partition,
        log_start: 0,
        start: 0,
        end: *end,
        deleted_at_start: 0,
        totals: None,
    });
    ArchiveManifest {
        schema_version: ArchiveManifest::VERSION,
        created_by: "panoptes".to_owned(),
        cluster_id: "cluster".to_owned(),
        created_at: 1,
        completed_at: None,
        subscription: vec![TOPIC.to_owned()],
        range: RequestedRange::default(),
        topics: vec![ArchivedTopic {
            topic: TOPIC.to_owned(),
            partitions: partitions.collect(),
        }],
    }
}

fn bus(partitions: i32) -> OnBus {
    let counts = (partitions > 0).then(|| (Topic::from(TOPIC), partitions));
    OnBus {
        cluster_id: "cluster".to_owned(),
        partitions: counts.into_iter().collect(),
    }
}

/// A store with a segment of each partition, up to these offsets; none for 0.
async fn store_of(segment_ends: &[i64]) -> ArchiveStore {
    let store = ArchiveStore::new(Arc::new(InMemory::new()), "memory");
    for (number, end) in (0..).zip(segment_ends).filter(|(_, end)| **end > 0) {
        let (place, time) = (partition(number), Some(Timestamp(0)));
        let mut segment = SegmentWriter::begin(&store, &place, 0, time);
        segment
            .append(&store, record(&place, 0, 0, 9))
            .await
            .unwrap();
        segment.finish(&store, *end).await.unwrap();
    }
    store
}

#[tokio::test]
async fn only_what_is_not_archived_yet_must_be_on_the_bus() {
    let found = begun(&[10, 20, 0]);
    let gone = "topic `line1.cam.top` does not exist";
    let fewer = |count| {
        format!(
            "`memory` is an archive with partitions `3`, expected `{count}`: choose another place, or run \
             the command that began it"
        )
    };
    for (segment_ends, partitions, expected) in [
        (&[10, 20][..], 0, None),
        (&[10, 20], 5, None),
        (&[10, 20], 1, None),
        (&[10, 7], 0, Some(gone.to_owned())),
        (&[10, 7], 1, Some(fewer(1))),
        (&[10, 7], 2, None),
        (&[10], 0, Some(gone.to_owned())),
        (&[0, 20], 1, None),
        (&[0, 20], 0, Some(gone.to_owned())),
        (&[], 3, None),
    ] {
        let store = store_of(segment_ends).await;
        let outcome = expect_rest_on_bus(&store, &found, &bus(partitions)).await;
        let error = outcome.err().map(|error| error.to_string());
        assert_eq!(error, expected, "{segment_ends:?}, {partitions} partitions");
    }
}

#[tokio::test]
async fn another_cluster_has_other_records() {
    let store = store_of(&[10]).await;
    let other = OnBus {
        cluster_id: "other".to_owned(),
        ..bus(1)
    };
    let outcome = expect_rest_on_bus(&store, &begun(&[10]), &other).await;
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.contains("with cluster `cluster`, expected `other`"),
        "{error}"
    );
}

async fn export_to(
    store: &ArchiveStore,
    settings: &ExportSettings,
) -> Result<Exported, ArchiveError> {
    let progress = Arc::new(ExportProgress::default());
    export(store, settings, || Timestamp(9), &progress).await
}

#[tokio::test]
async fn a_complete_archive_needs_no_brokers_and_no_order_of_names() {
    let records = |topic: &str| {
        let partition = TopicPartition {
            topic: Topic::from(topic),
            partition: 0,
        };
        vec![record(&partition, 0, 0, 9)]
    };
    let topics = ["cam.left", "cam.top"].map(|topic| (topic, 1, records(topic)));
    let archive = archive_of(topics.into()).await;
    let mut manifest = archive.manifest().clone();
    manifest.subscription = vec!["cam.left".to_owned(), "cam.top".to_owned()];
    let store = ArchiveStore::new(Arc::new(InMemory::new()), "memory");
    store.write(MANIFEST, manifest.to_bytes()).await.unwrap();

    for names in [&["cam.left", "cam.top"][..], &["cam.top", "cam.left"]] {
        let exported = export_to(&store, &settings(names)).await.unwrap();
        assert!(exported.was_complete);
        assert_eq!(exported.manifest, manifest);
    }
    let error = export_to(&store, &settings(&["cam.top"]))
        .await
        .unwrap_err();
    let expected = "with topics `cam.left, cam.top`, expected `cam.top`";
    assert!(error.to_string().contains(expected), "{error}");
    let mut other = settings(&["cam.left", "cam.top"]);
    other.range.from_offset = Some(1);
    let error = export_to(&store, &other).await.unwrap_err().to_string();
    assert!(error.contains("is an archive with range"), "{error}");
}

#[tokio::test]
async fn a_second_export_to_a_folder_is_refused_before_it_asks_brokers() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArchiveStore::at(folder.path().to_str().unwrap(), &[]).unwrap();
    let first = store.lock().unwrap();
    let error = export_to(&store, &settings(&["cam.top"]))
        .await
        .unwrap_err();
    assert!(matches!(error, ArchiveError::Locked { .. }), "{error}");
    drop(first);
    let mut complete = begun(&[]);
    complete.completed_at = Some(2);
    store.write(MANIFEST, complete.to_bytes()).await.unwrap();
    let _held = store.lock().unwrap();
    let exported = export_to(&store, &settings(&[TOPIC])).await.unwrap();
    assert!(exported.was_complete);
}
