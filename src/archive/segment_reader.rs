//! Reads one segment: its manifest and index first, then its records as the tar file streams by.
//!
//! All is verified on the way: the index against the manifest, each value against the index, and, when
//! the segment is read from its beginning to its end, the whole tar file.

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};

use super::error::{ArchiveError, expect_same};
use super::layout::SegmentName;
use super::segment_writer::{BLOCK, hex};
use super::store::{ArchiveStore, ByteStream};
use crate::domain::{Header, Record, RecordCopy, SourceOffset, Timestamp, Topic, TopicPartition};
use crate::schema::archive::{IndexEntry, SegmentManifest, ValuePlace};

/// Reads and checks a segment's manifest.
pub(super) async fn read_manifest(
    store: &ArchiveStore,
    partition: &TopicPartition,
    name: &SegmentName,
) -> Result<SegmentManifest, ArchiveError> {
    let object = name.manifest();
    let bytes = store.read(&object).await?;
    let object = store.full_name(&object);
    let manifest = SegmentManifest::from_bytes(&bytes).map_err(|source| ArchiveError::Format {
        object: object.clone(),
        source,
    })?;
    let topic = partition.topic.as_str();
    expect_same(&object, "its topic", &topic, &manifest.topic.as_str())?;
    let number = &partition.partition;
    expect_same(&object, "its partition", number, &manifest.partition)?;
    expect_same(&object, "its start", &name.start, &manifest.start)?;
    let records = i64::try_from(manifest.records).unwrap_or(i64::MAX);
    let told = [manifest.missing, manifest.deleted_offsets(), records];
    let told = told.into_iter().fold(manifest.start, i64::saturating_add);
    let what = "its start with the records, missing and deleted offsets that it tells";
    expect_same(&object, what, &manifest.end, &told)?;
    Ok(manifest)
}

/// Reads a segment's index, and checks it against the manifest.
pub(super) async fn read_index(
    store: &ArchiveStore,
    name: &SegmentName,
    manifest: &SegmentManifest,
) -> Result<Vec<IndexEntry>, ArchiveError> {
    let tar = name.tar();
    let object = store.full_name(&tar);
    let end = manifest.index_at.saturating_add(manifest.index_bytes);
    let told = tar_bytes(end);
    if told != Some(manifest.bytes) {
        let object = store.full_name(&name.manifest());
        let what = "its bytes by the end of its index";
        let told = told.map_or("too many".to_owned(), |bytes| bytes.to_string());
        return Err(ArchiveError::damaged(&object, what, manifest.bytes, told));
    }
    let bytes = store.read_range(&tar, manifest.index_at..end).await?;
    let found = hex(Sha256::new_with_prefix(&bytes));
    let what = "the SHA-256 of its index";
    expect_same(&object, what, &manifest.index_sha256, &found)?;
    let entries = IndexEntry::all_from_bytes(&bytes).map_err(|source| ArchiveError::Format {
        object: object.clone(),
        source,
    })?;
    check_index(store, name, manifest, &entries)?;
    Ok(entries)
}

/// Holds a manifest against the index that it tells of.
fn check_index(
    store: &ArchiveStore,
    name: &SegmentName,
    manifest: &SegmentManifest,
    entries: &[IndexEntry],
) -> Result<(), ArchiveError> {
    let object = store.full_name(&name.manifest());
    let offset = |entry: Option<&IndexEntry>| entry.map(|entry| entry.offset);
    let times = || entries.iter().filter_map(|entry| entry.timestamp);
    let faults = entries.iter().filter(|entry| entry.fault.is_some());
    let count = |count: usize| i64::try_from(count).ok();
    let told = |count: u64| i64::try_from(count).ok();
    for (what, expected, found) in [
        ("its records", count(entries.len()), told(manifest.records)),
        (
            "its first offset",
            offset(entries.first()),
            manifest.first_offset,
        ),
        (
            "its last offset",
            offset(entries.last()),
            manifest.last_offset,
        ),
        (
            "its first timestamp",
            times().min(),
            manifest.first_timestamp,
        ),
        ("its last timestamp", times().max(), manifest.last_timestamp),
        ("its faults", count(faults.count()), told(manifest.faults)),
    ] {
        let text = |number: Option<i64>| number.map_or("none".to_owned(), |it| it.to_string());
        expect_same(&object, what, &text(expected), &text(found))?;
    }
    Ok(())
}

/// A segment that is being read.
pub(super) struct SegmentReader {
    /// How messages name the tar file.
    object: String,
    topic: Topic,
    manifest: SegmentManifest,
    entries: std::vec::IntoIter<IndexEntry>,
    bytes: ByteStream,
    piece: Bytes,
    position: u64,
    /// Of the whole tar file, when it is read from its beginning.
    hash: Option<Sha256>,
}

impl SegmentReader {
    /// Begins with the first record at `from` or later.
    pub(super) async fn open(
        store: &ArchiveStore,
        partition: &TopicPartition,
        name: &SegmentName,
        manifest: SegmentManifest,
        from: i64,
    ) -> Result<Self, ArchiveError> {
        let mut entries = read_index(store, name, &manifest).await?;
        let skipped = entries.partition_point(|entry| entry.offset < from);
        entries.drain(..skipped);
        let start = match skipped {
            0 => 0,
            _ => first_place(&entries).map_or(manifest.index_at, |place| place.at),
        };
        Ok(Self {
            object: store.full_name(&name.tar()),
            topic: partition.topic.clone(),
            entries: entries.into_iter(),
            bytes: store.stream(&name.tar(), start).await?,
            piece: Bytes::new(),
            position: start,
            hash: (skipped == 0).then(Sha256::new),
            manifest,
        })
    }

    /// The next record; at the end the tar file as a whole is verified.
    pub(super) async fn next(&mut self) -> Result<Option<RecordCopy>, ArchiveError> {
        let Some(entry) = self.entries.next() else {
            self.finish().await?;
            return Ok(None);
        };
        let value = match &entry.value {
            None => None,
            Some(place) => Some(self.read_value(entry.offset, place).await?),
        };
        let source = SourceOffset {
            topic: self.topic.clone(),
            partition: self.manifest.partition,
            offset: entry.offset,
        };
        Ok(Some(record_copy(source, entry, value)))
    }

    async fn read_value(
        &mut self,
        offset: i64,
        place: &ValuePlace,
    ) -> Result<Vec<u8>, ArchiveError> {
        if place.at < self.position || place.at > self.manifest.bytes {
            let what = format!("the place of record `{offset}`");
            let within = format!("{} to {}", self.position, self.manifest.bytes);
            return Err(ArchiveError::damaged(&self.object, what, within, place.at));
        }
        let between = place.at - self.position;
        self.pass(between, |_| ()).await?;
        // What the index says of its length is not to be trusted further than the file is long.
        let most = place.length.min(self.manifest.bytes);
        let mut value = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
        self.pass(place.length, |bytes| value.extend_from_slice(bytes))
            .await?;
        let found = hex(Sha256::new_with_prefix(&value));
        let what = format!("the SHA-256 of record `{offset}`");
        expect_same(&self.object, &what, &place.sha256, &found)?;
        Ok(value)
    }

    /// Passes over so many bytes.
    async fn pass(
        &mut self,
        mut count: u64,
        mut read: impl FnMut(&[u8]),
    ) -> Result<(), ArchiveError> {
        while count > 0 {
            if self.piece.is_empty() {
                let Some(piece) = self.bytes.next().await.transpose()? else {
                    let (expected, found) = (self.manifest.bytes, self.position);
                    let what = "its bytes";
                    return Err(ArchiveError::damaged(&self.object, what, expected, found));
                };
                self.piece = piece;
                continue;
            }
            let length = usize::try_from(count).unwrap_or(usize::MAX);
            let length = length.min(self.piece.len());
            let bytes = &self.piece[..length];
            read(bytes);
            if let Some(hash) = &mut self.hash {
                hash.update(bytes);
            }
            self.piece.advance(length);
            self.position += length as u64;
            count -= length as u64;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ArchiveError> {
        if self.hash.is_none() {
            return Ok(());
        }
        let rest = self.manifest.bytes.saturating_sub(self.position);
        self.pass(rest, |_| ()).await?;
        let Some(hash) = self.hash.take() else {
            return Ok(());
        };
        let found = hex(hash);
        expect_same(&self.object, "its SHA-256", &self.manifest.sha256, &found)?;
        let more = self.piece.len() as u64;
        expect_same(&self.object, "bytes behind its end", &0, &more)
    }
}

/// The bytes of a tar file whose last entry ends at `end`: that fills its block, and two empty blocks
/// follow.
fn tar_bytes(end: u64) -> Option<u64> {
    end.checked_next_multiple_of(BLOCK)?.checked_add(2 * BLOCK)
}

fn first_place(entries: &[IndexEntry]) -> Option<&ValuePlace> {
    entries.iter().find_map(|entry| entry.value.as_ref())
}

fn record_copy(source: SourceOffset, entry: IndexEntry, value: Option<Vec<u8>>) -> RecordCopy {
    let headers = entry.headers.into_iter().map(|header| Header {
        name: header.name,
        value: header.value.map(Into::into),
    });
    RecordCopy {
        record: Record {
            source,
            generation: 0,
            key: entry.key.map(Into::into),
            value,
            headers: headers.collect(),
            timestamp: entry.timestamp.map(Timestamp),
            lease: None,
        },
        timestamp_kind: entry.timestamp_type.map(Into::into),
        fault: entry.fault,
    }
}
