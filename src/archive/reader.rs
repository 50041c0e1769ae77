//! Reads archives back: what is in them, and the records of a partition in the order of their offsets.
//!
//! ```no_run
//! # async fn read() -> anyhow::Result<()> {
//! use panoptes::archive::{Archive, ArchiveStore};
//! use panoptes::domain::Topic;
//! let archive = Archive::open(ArchiveStore::at("s3://plant/march", &[])?).await?;
//! let partition = archive.partition(&Topic::from("line1.cam.top"), 0)?;
//! let mut records = partition.records(partition.range().start).await?;
//! while let Some(copy) = records.next().await? {
//!     println!("{}", copy.record.source);
//! }
//! # Ok(()) }
//! ```
//!
//! Every byte that is read is verified; what is damaged or missing is an error that names the object.

use std::collections::{HashSet, VecDeque};

use futures::Stream;

use super::error::ArchiveError;
use super::layout::{MANIFEST, SegmentName, folder};
use super::segment_reader::{SegmentReader, read_index, read_manifest};
use super::store::ArchiveStore;
use crate::domain::{RecordCopy, Timestamp, Topic, TopicPartition};
use crate::schema::archive::{
    ArchiveManifest, ArchivedPartition, OffsetRange, PartitionTotals, SegmentManifest,
};

/// An archive that is there.
#[derive(Clone, Debug)]
pub struct Archive {
    store: ArchiveStore,
    manifest: ArchiveManifest,
}

impl Archive {
    /// Reads what the archive says of itself; its segments are read later.
    ///
    /// # Errors
    /// When there is no archive, or its manifest is damaged.
    pub async fn open(store: ArchiveStore) -> Result<Self, ArchiveError> {
        let Some(manifest) = find_manifest(&store).await? else {
            return Err(ArchiveError::NoArchive {
                location: store.location().to_owned(),
                manifest: MANIFEST,
            });
        };
        Ok(Self { store, manifest })
    }

    /// Where it is, as it was given.
    pub fn location(&self) -> &str {
        self.store.location()
    }

    /// Topics, partitions, ranges, and what was found in them.
    pub fn manifest(&self) -> &ArchiveManifest {
        &self.manifest
    }

    /// Whether the export has ended; else records at the partitions' ends are missing.
    pub fn is_complete(&self) -> bool {
        self.manifest.completed_at.is_some()
    }

    /// All partitions, by topic and number.
    pub fn partitions(&self) -> Vec<PartitionArchive> {
        let mut partitions = Vec::new();
        for topic in &self.manifest.topics {
            let name = Topic::from(topic.topic.as_str());
            let ranges = topic.partitions.iter();
            partitions.extend(ranges.map(|range| self.partition_of(&name, *range)));
        }
        partitions
    }

    /// One partition.
    ///
    /// # Errors
    /// When the archive has none of that name and number.
    pub fn partition(&self, topic: &Topic, number: i32) -> Result<PartitionArchive, ArchiveError> {
        let mut topics = self.manifest.topics.iter();
        let found = topics.find(|found| found.topic == topic.as_str());
        let partitions = found.map_or(&[][..], |found| &found.partitions);
        let found = partitions.iter().find(|found| found.partition == number);
        let range = found.ok_or_else(|| ArchiveError::NoPartition {
            location: self.store.location().to_owned(),
            topic: topic.to_string(),
            partition: number,
        })?;
        Ok(self.partition_of(topic, *range))
    }

    /// Objects that belong to no segment, such as what an export that was killed had just written.
    ///
    /// # Errors
    /// When the objects cannot be listed.
    pub async fn unknown_objects(&self) -> Result<Vec<String>, ArchiveError> {
        let mut unknown = Vec::new();
        for partition in self.partitions() {
            let objects = self.store.list(&folder(&partition.partition)).await?;
            let segments = objects
                .iter()
                .filter_map(|name| SegmentName::of_manifest(name));
            let known: HashSet<String> = segments
                .flat_map(|segment| [segment.tar(), segment.manifest()])
                .collect();
            unknown.extend(objects.into_iter().filter(|object| !known.contains(object)));
        }
        Ok(unknown)
    }

    fn partition_of(&self, topic: &Topic, range: ArchivedPartition) -> PartitionArchive {
        PartitionArchive {
            store: self.store.clone(),
            partition: TopicPartition {
                topic: topic.clone(),
                partition: range.partition,
            },
            range,
        }
    }
}

/// The manifest of the archive at that place, if there is one.
pub(super) async fn find_manifest(
    store: &ArchiveStore,
) -> Result<Option<ArchiveManifest>, ArchiveError> {
    let Some(bytes) = store.find(MANIFEST).await? else {
        return Ok(None);
    };
    let manifest = ArchiveManifest::from_bytes(&bytes).map_err(|source| ArchiveError::Format {
        object: store.full_name(MANIFEST),
        source,
    })?;
    Ok(Some(manifest))
}

/// One partition of an archive.
#[derive(Clone, Debug)]
pub struct PartitionArchive {
    store: ArchiveStore,
    partition: TopicPartition,
    range: ArchivedPartition,
}

impl PartitionArchive {
    pub(super) fn new(
        store: &ArchiveStore,
        partition: &TopicPartition,
        range: ArchivedPartition,
    ) -> Self {
        Self {
            store: store.clone(),
            partition: partition.clone(),
            range,
        }
    }

    /// Which partition this is.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Its offsets as the export found them when it began, and what it found in them.
    pub fn range(&self) -> &ArchivedPartition {
        &self.range
    }

    /// The records from that offset on, in order.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    pub async fn records(&self, from: i64) -> Result<RecordReader, ArchiveError> {
        let mut segments: VecDeque<SegmentName> = self.segments().await?.into();
        // The one that covers `from` is the last that does not begin behind it.
        while segments.get(1).is_some_and(|next| next.start <= from) {
            segments.pop_front();
        }
        let first = segments.front().map(|name| name.start);
        let covering = first.filter(|start| *start <= from);
        Ok(RecordReader {
            position: covering.unwrap_or(self.range.start),
            partition: self.clone(),
            from,
            segments,
            segment: None,
            totals: PartitionTotals::default(),
        })
    }

    /// The offset of the first record of that time or later, as Kafka tells it; the range's end, if there
    /// is none.
    ///
    /// # Errors
    /// When a segment up to that record is damaged or missing: it might hold an earlier one.
    pub async fn offset_at(&self, time: Timestamp) -> Result<i64, ArchiveError> {
        let mut expected = self.range.start;
        for name in self.segments().await? {
            let manifest = self.next_manifest(&name, expected).await?;
            expected = manifest.end;
            if manifest.last_timestamp.is_none_or(|last| last < time.0) {
                continue;
            }
            let entries = read_index(&self.store, &name, &manifest).await?;
            let is_reached = |found: Option<i64>| found.is_some_and(|found| found >= time.0);
            let mut entries = entries.iter();
            if let Some(entry) = entries.find(|entry| is_reached(entry.timestamp)) {
                return Ok(entry.offset);
            }
        }
        self.expect_reached(expected)?;
        Ok(self.range.end)
    }

    /// Whether the segments that are whole end with the range.
    pub(super) async fn reaches_end(&self) -> Result<bool, ArchiveError> {
        if self.range.start >= self.range.end {
            return Ok(true);
        }
        let Some(last) = self.segments().await?.pop() else {
            return Ok(false);
        };
        let manifest = read_manifest(&self.store, &self.partition, &last).await?;
        Ok(manifest.end >= self.range.end)
    }

    /// All segments that are whole, in order.
    pub(super) async fn segments(&self) -> Result<Vec<SegmentName>, ArchiveError> {
        let objects = self.store.list(&folder(&self.partition)).await?;
        let names = objects.iter().map(String::as_str);
        let mut names: Vec<SegmentName> = names.filter_map(SegmentName::of_manifest).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a segment's manifest, which must begin where the one before ends.
    pub(super) async fn next_manifest(
        &self,
        name: &SegmentName,
        expected: i64,
    ) -> Result<SegmentManifest, ArchiveError> {
        if name.start != expected {
            let found = self.store.full_name(&name.manifest());
            return Err(self.missing(expected, format!("`{found}`")));
        }
        read_manifest(&self.store, &self.partition, name).await
    }

    /// Fails unless the range's end is reached by its last segment, which ends at `end`.
    fn expect_reached(&self, end: i64) -> Result<(), ArchiveError> {
        if end >= self.range.end {
            return Ok(());
        }
        let found = format!("none up to the range's end at `{}`", self.range.end);
        Err(self.missing(end, found))
    }

    fn missing(&self, expected: i64, found: String) -> ArchiveError {
        ArchiveError::SegmentMissing {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            expected,
            found,
        }
    }
}

/// Reads the records of a partition in the order of their offsets.
pub struct RecordReader {
    partition: PartitionArchive,
    from: i64,
    /// Where the next segment must begin.
    position: i64,
    segments: VecDeque<SegmentName>,
    segment: Option<SegmentReader>,
    totals: PartitionTotals,
}

impl RecordReader {
    /// The next record; none at the end of the range.
    ///
    /// # Errors
    /// When a segment is damaged, cannot be read, or is missing, be it because the export has not ended.
    pub async fn next(&mut self) -> Result<Option<RecordCopy>, ArchiveError> {
        loop {
            if let Some(segment) = &mut self.segment {
                if let Some(copy) = segment.next().await? {
                    return Ok(Some(copy));
                }
                self.segment = None;
            }
            if !self.open_next().await? {
                return Ok(None);
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordCopy, ArchiveError>> + Send {
        futures::stream::try_unfold(self, |mut reader| async move {
            let next = reader.next().await?;
            Ok(next.map(|copy| (copy, reader)))
        })
    }

    /// What the segments that were begun so far tell of themselves.
    pub fn totals(&self) -> &PartitionTotals {
        &self.totals
    }

    /// Whether there is another segment.
    async fn open_next(&mut self) -> Result<bool, ArchiveError> {
        let Some(name) = self.segments.pop_front() else {
            self.partition.expect_reached(self.position)?;
            return Ok(false);
        };
        let partition = &self.partition;
        let manifest = partition.next_manifest(&name, self.position).await?;
        self.position = manifest.end;
        add_to(&mut self.totals, &manifest);
        let (store, topic) = (&partition.store, &partition.partition);
        let segment = SegmentReader::open(store, topic, &name, manifest, self.from).await?;
        self.segment = Some(segment);
        Ok(true)
    }
}

/// Adds a segment to what is known of its partition.
pub(super) fn add_to(totals: &mut PartitionTotals, segment: &SegmentManifest) {
    totals.segments += 1;
    totals.records += segment.records;
    totals.bytes += segment.bytes;
    totals.first_offset = totals.first_offset.or(segment.first_offset);
    totals.last_offset = segment.last_offset.or(totals.last_offset);
    totals.missing += segment.missing;
    let deleted = segment.deleted.iter().map(OffsetRange::length);
    totals.deleted += deleted.sum::<i64>();
    totals.faults += segment.faults;
}

/// Reads all of an archive, and so verifies it; `told` hears of each partition that is whole.
///
/// # Errors
/// With the first object that is damaged or missing.
pub async fn verify(
    archive: &Archive,
    mut told: impl FnMut(&PartitionArchive, &PartitionTotals),
) -> Result<(), ArchiveError> {
    for partition in archive.partitions() {
        let mut records = partition.records(partition.range.start).await?;
        while records.next().await?.is_some() {}
        let object = archive.store.full_name(MANIFEST);
        if let Some(expected) = &partition.range.totals {
            let TopicPartition { topic, partition } = &partition.partition;
            let what = format!("what partition `{partition}` of `{topic}` holds");
            super::error::expect_same(&object, &what, expected, records.totals())?;
        }
        told(&partition, records.totals());
    }
    Ok(())
}
