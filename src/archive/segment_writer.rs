//! Writes one segment: a tar file that grows record by record while it is uploaded, then its manifest.

use std::io::{self, Write};
use std::mem;

use bytes::Bytes;
use object_store::buffered::BufWriter;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::error::ArchiveError;
use super::layout::{INDEX_ENTRY, SegmentName, entry_name, hour_of};
use super::store::ArchiveStore;
use crate::domain::{RecordCopy, Timestamp, TopicPartition};
use crate::schema::archive::{IndexEntry, IndexHeader, OffsetRange, SegmentManifest, ValuePlace};

/// What tar is made of: headers and the ends of entries fill blocks.
pub(super) const BLOCK: u64 = 512;

/// The index is held in memory until the segment's end, and read whole.
const MOST_INDEX_BYTES: usize = 16 * 1024 * 1024;

/// A segment that is being written.
pub(super) struct SegmentWriter {
    name: SegmentName,
    tar_object: String,
    upload: BufWriter,
    tar: tar::Builder<HashedBuffer>,
    index: Vec<u8>,
    /// The latest hour of its records.
    hour: Option<i64>,
    manifest: SegmentManifest,
}

impl SegmentWriter {
    /// Begins the segment that covers the offsets from `start` on; `first` is its first record's time.
    pub(super) fn begin(
        store: &ArchiveStore,
        partition: &TopicPartition,
        start: i64,
        first: Option<Timestamp>,
    ) -> Self {
        let hour = first.map(|time| hour_of(time.0));
        let name = SegmentName::new(partition, start, hour);
        let tar_object = name.tar();
        Self {
            upload: store.upload(&tar_object),
            tar: tar::Builder::new(HashedBuffer::default()),
            index: Vec::new(),
            hour,
            manifest: SegmentManifest {
                schema_version: SegmentManifest::VERSION,
                topic: partition.topic.to_string(),
                partition: partition.partition,
                start,
                end: start,
                records: 0,
                first_offset: None,
                last_offset: None,
                first_timestamp: None,
                last_timestamp: None,
                missing: 0,
                deleted: Vec::new(),
                faults: 0,
                bytes: 0,
                sha256: String::new(),
                index_at: 0,
                index_bytes: 0,
                index_sha256: String::new(),
            },
            name,
            tar_object,
        }
    }

    /// Whether the record belongs to the next segment: this one has its hour or its size.
    pub(super) fn ends_before(&self, copy: &RecordCopy, most_bytes: u64) -> bool {
        if self.manifest.records == 0 {
            return false;
        }
        let value = copy.record.value.as_ref().map_or(0, Vec::len) as u64;
        let bytes = self.tar.get_ref().written + BLOCK + value + self.index.len() as u64;
        let hour = copy.record.timestamp.map(|time| hour_of(time.0));
        // Time that goes back and forth opens no segment for each turn.
        hour > self.hour || bytes > most_bytes || self.index.len() > MOST_INDEX_BYTES
    }

    /// Notes that retention was quicker.
    pub(super) fn skip_deleted(&mut self, range: OffsetRange) {
        self.manifest.deleted.push(range);
    }

    /// Adds the next record.
    pub(super) async fn append(
        &mut self,
        store: &ArchiveStore,
        copy: RecordCopy,
    ) -> Result<(), ArchiveError> {
        let RecordCopy { record, .. } = &copy;
        let (offset, time) = (record.source.offset, record.timestamp.map(|time| time.0));
        let entry = entry_name(offset, record.header("content-type"));
        let place = match &record.value {
            None => None,
            Some(value) => Some(self.add_entry(store, &entry, value, time)?),
        };
        let manifest = &mut self.manifest;
        manifest.records += 1;
        manifest.first_offset.get_or_insert(offset);
        manifest.last_offset = Some(offset);
        manifest.first_timestamp = earlier(manifest.first_timestamp, time);
        manifest.last_timestamp = manifest.last_timestamp.max(time);
        manifest.faults += u64::from(copy.fault.is_some());
        self.hour = self.hour.max(time.map(hour_of));
        self.index.extend(index_entry(copy, place).to_line());
        self.send(store).await
    }

    /// Ends the segment, which covers all offsets up to `end`: first its tar file, then its manifest, by
    /// which it counts.
    pub(super) async fn finish(
        mut self,
        store: &ArchiveStore,
        end: i64,
    ) -> Result<SegmentManifest, ArchiveError> {
        let index = mem::take(&mut self.index);
        let place = self.add_entry(store, INDEX_ENTRY, &index, self.manifest.last_timestamp)?;
        let Self {
            name,
            tar_object: object,
            mut upload,
            mut tar,
            mut manifest,
            ..
        } = self;
        let ended = tar.finish();
        ended.map_err(|error| writing(store, &object, error))?;
        let rest = tar.get_mut().take();
        let written = async {
            upload.put(rest).await?;
            upload.shutdown().await.map_err(unwrap_io)
        };
        written.await.map_err(store.failed("write", &object))?;
        fail::fail_point!("archive-tar-whole");
        let buffer = tar.get_mut();
        manifest.end = end;
        let covered = manifest.end - manifest.start - manifest.deleted_offsets();
        manifest.missing = covered - i64::try_from(manifest.records).unwrap_or(i64::MAX);
        manifest.bytes = buffer.written;
        manifest.sha256 = hex(mem::take(&mut buffer.hash));
        manifest.index_at = place.at;
        manifest.index_bytes = place.length;
        manifest.index_sha256 = place.sha256;
        store.write(&name.manifest(), manifest.to_bytes()).await?;
        Ok(manifest)
    }

    /// Leaves nothing behind, as far as the store can be reached.
    pub(super) async fn abort(mut self, store: &ArchiveStore) {
        if let Err(error) = self.upload.abort().await {
            let object = store.full_name(&self.tar_object);
            tracing::warn!(object, %error, "an unfinished upload is left behind");
        }
    }

    fn add_entry(
        &mut self,
        store: &ArchiveStore,
        name: &str,
        bytes: &[u8],
        epoch_millis: Option<i64>,
    ) -> Result<ValuePlace, ArchiveError> {
        let at = self.tar.get_ref().written + BLOCK;
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let seconds = epoch_millis.unwrap_or(0).max(0) / 1000;
        header.set_mtime(seconds.unsigned_abs());
        let added = self.tar.append_data(&mut header, name, bytes);
        added.map_err(|error| writing(store, &self.tar_object, error))?;
        Ok(ValuePlace {
            entry: name.to_owned(),
            at,
            length: bytes.len() as u64,
            sha256: hex(Sha256::new_with_prefix(bytes)),
        })
    }

    async fn send(&mut self, store: &ArchiveStore) -> Result<(), ArchiveError> {
        let bytes = self.tar.get_mut().take();
        let sent = self.upload.put(bytes).await;
        sent.map_err(store.failed("write", &self.tar_object))
    }
}

fn earlier(known: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (known, other) {
        (Some(known), Some(other)) => Some(known.min(other)),
        (known, other) => known.or(other),
    }
}

fn index_entry(copy: RecordCopy, value: Option<ValuePlace>) -> IndexEntry {
    let record = copy.record;
    let headers = record.headers.into_iter().map(|header| IndexHeader {
        name: header.name,
        value: header.value.map(Into::into),
    });
    IndexEntry {
        offset: record.source.offset,
        timestamp: record.timestamp.map(|time| time.0),
        timestamp_type: copy.timestamp_kind.map(Into::into),
        key: record.key.map(Into::into),
        headers: headers.collect(),
        value,
        fault: copy.fault,
    }
}

/// A SHA-256 as manifests have it.
pub(super) fn hex(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}

/// The store's own error, where it comes through an interface of files.
fn unwrap_io(error: io::Error) -> object_store::Error {
    match error.downcast::<object_store::Error>() {
        Ok(error) => error,
        Err(error) => object_store::Error::Generic {
            store: "upload",
            source: Box::new(error),
        },
    }
}

fn writing(store: &ArchiveStore, object: &str, error: io::Error) -> ArchiveError {
    store.failed("write", object)(unwrap_io(error))
}

/// What is written to the tar file and not sent yet, with the hash and the length of all of it.
#[derive(Default)]
struct HashedBuffer {
    unsent: Vec<u8>,
    hash: Sha256,
    written: u64,
}

impl HashedBuffer {
    fn take(&mut self) -> Bytes {
        mem::take(&mut self.unsent).into()
    }
}

impl Write for HashedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unsent.extend_from_slice(bytes);
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
