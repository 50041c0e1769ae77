//! Reads an archive's partitions side by side, in about the order in which their records were written.
//!
//! Each partition is read ahead by a task of its own, up to its share of the bytes that may be read ahead.
//! Of those that may be read, the next record comes from the partition that is furthest behind: by the
//! earliest of the times of its last two records and its next one. Reassembly takes them in the order of
//! their times, whatever order they come in; here it is seen to that it always has the next two of each
//! partition, of one with a single wrong time or after an hour's silence as well, and little more.
//!
//! The tasks run on threads of their own: checksums of images are work, and the pipeline has its own.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::archive::{Archive, ArchiveError, PartitionArchive};
use crate::domain::{RecordCopy, Timestamp, TopicPartition};
use crate::kafka::stored_records::{StoredError, StoredReading, StoredRecords};

/// Threads that read and verify.
const THREADS: usize = 2;
/// Records of a partition that are read ahead, however small they are.
const MOST_AHEAD: usize = 512;
/// What is read ahead is counted in these.
const KIB: usize = 1024;

/// An archive does not hold what a job is to read.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected offsets {} to {} of `{}[{}]` in `{location}`, found {} to {}",
    wanted.start, wanted.end, partition.topic, partition.partition, held.start, held.end
)]
pub struct NotStored {
    /// The archive.
    pub location: String,
    /// The partition.
    pub partition: TopicPartition,
    /// What the job is to read of it.
    pub wanted: Range<i64>,
    /// What the archive holds of it.
    pub held: Range<i64>,
}

/// A task has ended before the end of what it was to read.
#[derive(Debug, thiserror::Error)]
#[error("the reading of `{}[{}]` has ended before its end", .0.topic, .0.partition)]
struct Ended(TopicPartition);

/// Records of some of an archive's partitions.
pub struct ArchiveRecords {
    archive: Archive,
    read_ahead_bytes: u64,
    /// Gone once this is dropped.
    runtime: Option<Runtime>,
    partitions: Vec<Reading>,
}

/// A partition that is being read.
struct Reading {
    partition: TopicPartition,
    read: mpsc::Receiver<Result<Step, ArchiveError>>,
    head: Option<Step>,
    is_over: bool,
    /// The times of the last two records that were given.
    last: [Option<Timestamp>; 2],
}

/// What comes next of a partition.
enum Step {
    Record(Box<RecordCopy>, OwnedSemaphorePermit),
    End,
}

impl ArchiveRecords {
    /// Reads nothing yet; at most so many bytes will be read ahead, and a record for each partition.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(archive: Archive, read_ahead_bytes: u64) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(THREADS).enable_all();
        Ok(Self {
            archive,
            read_ahead_bytes,
            runtime: Some(builder.thread_name("archive-read").build()?),
            partitions: Vec::new(),
        })
    }

    /// Opens a partition, of which all of `range` must be there.
    fn open(
        &self,
        partition: &TopicPartition,
        range: &Range<i64>,
    ) -> Result<PartitionArchive, StoredError> {
        let found = self
            .archive
            .partition(&partition.topic, partition.partition)?;
        let held = found.range().start..found.range().end;
        if !range.is_empty() && (range.start < held.start || range.end > held.end) {
            return Err(Box::new(NotStored {
                location: self.archive.location().to_owned(),
                partition: partition.clone(),
                wanted: range.clone(),
                held,
            }));
        }
        Ok(found)
    }
}

impl StoredRecords for ArchiveRecords {
    fn begin(&mut self, ranges: Vec<(TopicPartition, Range<i64>)>) -> Result<(), StoredError> {
        let share = self.read_ahead_bytes / KIB as u64 / ranges.len().max(1) as u64;
        let share = u32::try_from(share).unwrap_or(u32::MAX).max(1);
        let Some(runtime) = &self.runtime else {
            return Ok(()); // only while it is dropped
        };
        let mut partitions = Vec::new();
        for (partition, range) in ranges {
            let stored = self.open(&partition, &range)?;
            let (give, read) = mpsc::channel(MOST_AHEAD);
            runtime.spawn(read_ahead(stored, range, share, give));
            partitions.push(Reading {
                partition,
                read,
                head: None,
                is_over: false,
                last: [None; 2],
            });
        }
        partitions.sort_by(|one, other| one.partition.cmp(&other.partition));
        self.partitions = partitions;
        Ok(())
    }

    fn next(
        &mut self,
        may_read: &dyn Fn(&TopicPartition) -> bool,
        patience: Duration,
    ) -> Result<StoredReading, StoredError> {
        let Some(runtime) = &self.runtime else {
            return Ok(StoredReading::Nothing);
        };
        let deadline = Instant::now() + patience;
        let mut furthest_behind: Option<(Timestamp, &mut Reading)> = None;
        for reading in &mut self.partitions {
            if reading.is_over || !may_read(&reading.partition) {
                continue;
            }
            if reading.head.is_none() {
                reading.head = reading.await_next(runtime, deadline)?;
            }
            match &reading.head {
                None => return Ok(StoredReading::Slow),
                Some(Step::End) => {
                    reading.is_over = true;
                    return Ok(StoredReading::End(reading.partition.clone()));
                }
                Some(Step::Record(copy, _)) => {
                    let time = turn(reading.last, copy.record.timestamp);
                    let is_first = |(earliest, _): &(Timestamp, _)| time < *earliest;
                    if furthest_behind.as_ref().is_none_or(is_first) {
                        furthest_behind = Some((time, reading));
                    }
                }
            }
        }
        let Some((_, reading)) = furthest_behind else {
            return Ok(StoredReading::Nothing);
        };
        let Some(Step::Record(copy, _room)) = reading.head.take() else {
            return Ok(StoredReading::Nothing); // it was chosen by its record
        };
        reading.last = [reading.last[1], copy.record.timestamp.or(reading.last[1])];
        Ok(StoredReading::Record(copy))
    }

    fn ahead(&self) -> HashSet<TopicPartition> {
        let partitions = self.partitions.iter();
        let ahead = partitions.filter(|one| matches!(one.head, Some(Step::Record(..))));
        ahead.map(|one| one.partition.clone()).collect()
    }
}

impl Drop for ArchiveRecords {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a store that hangs is not waited for
        }
    }
}

impl Reading {
    /// What comes next; none when it does not come in time.
    fn await_next(
        &mut self,
        runtime: &Runtime,
        deadline: Instant,
    ) -> Result<Option<Step>, StoredError> {
        let step = match self.read.try_recv() {
            Ok(step) => Some(step),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                let read = &mut self.read;
                let in_time = async { tokio::time::timeout_at(deadline.into(), read.recv()).await };
                match runtime.block_on(in_time) {
                    Ok(step) => step,
                    Err(_) => return Ok(None),
                }
            }
        };
        match step {
            Some(step) => Ok(Some(step?)),
            None => Err(Box::new(Ended(self.partition.clone()))),
        }
    }
}

/// How far behind a partition is, by the times of its last two records and that of its next one. One that
/// has not given two yet is furthest behind.
fn turn(last: [Option<Timestamp>; 2], next: Option<Timestamp>) -> Timestamp {
    match last {
        [Some(before), Some(last)] => before.min(last).min(next.unwrap_or(last)),
        _ => Timestamp(i64::MIN),
    }
}

/// Reads a range of a partition, and waits where more than `share` KiB of it wait to be taken.
async fn read_ahead(
    partition: PartitionArchive,
    range: Range<i64>,
    share: u32,
    give: mpsc::Sender<Result<Step, ArchiveError>>,
) {
    let room = Arc::new(Semaphore::new(share as usize));
    if let Err(error) = give_all(&partition, range, share, &room, &give).await {
        give.send(Err(error)).await.ok(); // nobody wants it any more
    }
}

async fn give_all(
    partition: &PartitionArchive,
    range: Range<i64>,
    share: u32,
    room: &Arc<Semaphore>,
    give: &mpsc::Sender<Result<Step, ArchiveError>>,
) -> Result<(), ArchiveError> {
    if !range.is_empty() {
        let mut records = partition.records(range.start).await?;
        while let Some(copy) = records.next().await? {
            if copy.record.source.offset >= range.end {
                break;
            }
            let size = u32::try_from(copy.record.size_bytes() / KIB).unwrap_or(share);
            let room = Arc::clone(room).acquire_many_owned(size.clamp(1, share));
            let Ok(room) = room.await else { return Ok(()) };
            let step = Step::Record(Box::new(copy), room);
            if give.send(Ok(step)).await.is_err() {
                return Ok(());
            }
        }
    }
    give.send(Ok(Step::End)).await.ok();
    Ok(())
}

#[cfg(test)]
#[path = "archive_records_tests.rs"]
mod tests;
