//! Reads one partition's range into segments, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;

use super::error::ArchiveError;
use super::export::SharedExport;
use super::layout::folder;
use super::reader::{PartitionArchive, add_to};
use super::segment_reader::SegmentReader;
use super::segment_writer::SegmentWriter;
use crate::domain::{RecordCopy, TopicPartition};
use crate::kafka::partition_reader::{PartitionReader, PartitionReading};
use crate::schema::archive::{OffsetRange, PartitionTotals};

/// How long one look at the partition waits: long enough to cost nothing, short enough to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long nothing may come before the end of the range: brokers that are restarted are waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// The export of one partition.
pub(super) struct PartitionExport {
    shared: Arc<SharedExport>,
    archive: PartitionArchive,
    runtime: Handle,
    totals: PartitionTotals,
    segment: Option<SegmentWriter>,
    /// Where the next segment begins.
    start: i64,
}

impl PartitionExport {
    pub(super) fn new(shared: Arc<SharedExport>, archive: PartitionArchive) -> Self {
        Self {
            start: archive.range().start,
            shared,
            archive,
            runtime: Handle::current(),
            totals: PartitionTotals::default(),
            segment: None,
        }
    }

    /// Reads what is not in whole segments yet. Blocking.
    pub(super) fn run(mut self) -> Result<PartitionTotals, ArchiveError> {
        self.find_segments()?;
        let outcome = self.read_rest();
        if outcome.is_err()
            && let Some(segment) = self.segment.take()
        {
            self.runtime.block_on(segment.abort(&self.shared.store));
        }
        outcome.map(|()| self.totals)
    }

    /// Goes through the segments of earlier runs, up to where they end.
    fn find_segments(&mut self) -> Result<(), ArchiveError> {
        let folder = folder(self.archive.topic_partition());
        if let Err(error) = self.shared.store.remove_unfinished(&folder) {
            tracing::warn!(folder, %error, "unfinished files are left behind");
        }
        let segments = self.runtime.block_on(self.archive.segments())?;
        let mut last = None;
        for name in segments {
            let manifest = self.archive.next_manifest(&name, self.start);
            let manifest = self.runtime.block_on(manifest)?;
            self.start = manifest.end;
            add_to(&mut self.totals, &manifest);
            if manifest.records > 0 {
                last = Some((name, manifest));
            }
        }
        let range = self.archive.range();
        self.shared.progress.pass(self.start - range.start);
        let Some((name, manifest)) = last.filter(|_| self.start < range.end) else {
            return Ok(());
        };
        let (store, partition) = (&self.shared.store, self.archive.topic_partition());
        let from = manifest.last_offset.unwrap_or(manifest.start);
        let last = self.runtime.block_on(async {
            let mut segment = SegmentReader::open(store, partition, &name, manifest, from).await?;
            segment.next().await
        })?;
        last.map_or(Ok(()), |archived| self.expect_on_bus(&archived))
    }

    /// Fails when the partition holds another record where it held the last one of the archive: it is not
    /// the topic that was archived. A record that is gone by now tells nothing.
    fn expect_on_bus(&self, archived: &RecordCopy) -> Result<(), ArchiveError> {
        let offset = archived.record.source.offset;
        let partition = self.archive.topic_partition();
        let bus = &self.shared.settings.bus;
        let mut reader = PartitionReader::open(bus, partition.clone(), offset, offset + 1)?;
        let PartitionReading::Record(found) = self.next(&mut reader)? else {
            return Ok(());
        };
        let (found, archived) = (&found.record, &archived.record);
        let is_same = found.key == archived.key
            && found.value == archived.value
            && found.headers == archived.headers
            && found.timestamp == archived.timestamp;
        if is_same {
            return Ok(());
        }
        Err(ArchiveError::OtherTopic {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset,
        })
    }

    fn read_rest(&mut self) -> Result<(), ArchiveError> {
        let end = self.archive.range().end;
        if self.start >= end {
            return Ok(());
        }
        let partition = self.archive.topic_partition().clone();
        let bus = &self.shared.settings.bus;
        let mut reader = PartitionReader::open(bus, partition.clone(), self.start, end)?;
        loop {
            let before = reader.position();
            let reading = self.next(&mut reader)?;
            self.shared.progress.pass(reader.position() - before);
            match reading {
                PartitionReading::Record(copy) => self.add(*copy)?,
                PartitionReading::Deleted { start, end } => {
                    let TopicPartition { topic, partition } = &partition;
                    tracing::warn!(%topic, partition, start, end, "retention was quicker");
                    let range = OffsetRange { start, end };
                    self.open_segment(None).skip_deleted(range);
                }
                PartitionReading::Finished | PartitionReading::Idle => {
                    // Offsets without a record at the end are covered, too.
                    self.open_segment(None);
                    return self.finish_segment(end);
                }
            }
        }
    }

    /// The next that comes; never `Idle`.
    fn next(&self, reader: &mut PartitionReader) -> Result<PartitionReading, ArchiveError> {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(ArchiveError::Stopped);
            }
            match reader.next(POLL_INTERVAL)? {
                PartitionReading::Idle => waited += POLL_INTERVAL,
                reading => return Ok(reading),
            }
        }
        let TopicPartition { topic, partition } = self.archive.topic_partition();
        Err(ArchiveError::Stalled {
            topic: topic.to_string(),
            partition: *partition,
            position: reader.position(),
            end: self.archive.range().end,
            waited,
        })
    }

    fn add(&mut self, copy: RecordCopy) -> Result<(), ArchiveError> {
        let most = self.shared.settings.segment_bytes;
        let offset = copy.record.source.offset;
        let is_full = |segment: &SegmentWriter| segment.ends_before(&copy, most);
        if self.segment.as_ref().is_some_and(is_full) {
            self.finish_segment(offset)?;
        }
        self.shared.progress.count(&copy);
        let (shared, runtime) = (Arc::clone(&self.shared), self.runtime.clone());
        let segment = self.open_segment(Some(&copy));
        runtime.block_on(segment.append(&shared.store, copy))
    }

    fn open_segment(&mut self, first: Option<&RecordCopy>) -> &mut SegmentWriter {
        let (store, partition) = (&self.shared.store, self.archive.topic_partition());
        let time = first.and_then(|copy| copy.record.timestamp);
        let start = self.start;
        let begin = || SegmentWriter::begin(store, partition, start, time);
        self.segment.get_or_insert_with(begin)
    }

    fn finish_segment(&mut self, end: i64) -> Result<(), ArchiveError> {
        let Some(segment) = self.segment.take() else {
            return Ok(());
        };
        let finished = segment.finish(&self.shared.store, end);
        let manifest = self.runtime.block_on(finished)?;
        tracing::debug!(
            topic = manifest.topic,
            partition = manifest.partition,
            start = manifest.start,
            end,
            records = manifest.records,
            bytes = manifest.bytes,
            "segment is whole"
        );
        add_to(&mut self.totals, &manifest);
        self.start = end;
        fail::fail_point!("archive-segment-whole");
        Ok(())
    }
}
