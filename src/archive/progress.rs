//! How far an export is, for whoever watches it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::domain::{RecordCopy, Timestamp};
use crate::schema::archive::{ArchiveManifest, PartitionTotals};

/// Counted by all partitions together.
#[derive(Debug)]
pub struct ExportProgress {
    records: AtomicU64,
    bytes: AtomicU64,
    offsets: AtomicI64,
    all_offsets: AtomicI64,
    event_time: AtomicI64,
}

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportPosition {
    /// Records read in this run.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Offsets of all partitions' ranges that are behind, those of earlier runs included.
    pub offsets: i64,
    /// Offsets of all partitions' ranges; 0 until they are known.
    pub all_offsets: i64,
    /// The latest record's time.
    pub event_time: Option<Timestamp>,
}

const NO_TIME: i64 = i64::MIN;

impl Default for ExportProgress {
    fn default() -> Self {
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            offsets: AtomicI64::new(0),
            all_offsets: AtomicI64::new(0),
            event_time: AtomicI64::new(NO_TIME),
        }
    }
}

impl ExportProgress {
    /// How far the export is now.
    pub fn position(&self) -> ExportPosition {
        let event_time = self.event_time.load(Ordering::Relaxed);
        ExportPosition {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            offsets: self.offsets.load(Ordering::Relaxed),
            all_offsets: self.all_offsets.load(Ordering::Relaxed),
            event_time: (event_time != NO_TIME).then_some(Timestamp(event_time)),
        }
    }

    pub(super) fn plan(&self, manifest: &ArchiveManifest) {
        let partitions = manifest.topics.iter().flat_map(|topic| &topic.partitions);
        let offsets = partitions.map(|partition| partition.end - partition.start);
        self.all_offsets.store(offsets.sum(), Ordering::Relaxed);
    }

    /// Offsets that are behind without a record that was read now.
    pub(super) fn pass(&self, offsets: i64) {
        self.offsets.fetch_add(offsets, Ordering::Relaxed);
    }

    pub(super) fn count(&self, copy: &RecordCopy) {
        self.records.fetch_add(1, Ordering::Relaxed);
        let bytes = copy.payload_bytes() as u64;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(time) = copy.record.timestamp {
            self.event_time.fetch_max(time.0, Ordering::Relaxed);
        }
    }
}

/// What all partitions of an archive hold together, as far as it is known.
pub fn totals(manifest: &ArchiveManifest) -> PartitionTotals {
    let partitions = manifest.topics.iter().flat_map(|topic| &topic.partitions);
    let mut sum = PartitionTotals::default();
    for totals in partitions.filter_map(|partition| partition.totals) {
        sum.segments += totals.segments;
        sum.records += totals.records;
        sum.bytes += totals.bytes;
        sum.missing += totals.missing;
        sum.deleted += totals.deleted;
        sum.faults += totals.faults;
    }
    sum
}
