//! How much an export would read, from a few records of each partition.

use std::time::Duration;

use super::error::ArchiveError;
use crate::domain::{Topic, TopicPartition};
use crate::kafka::client::BusSettings;
use crate::kafka::partition_reader::{PartitionReader, PartitionReading};
use crate::schema::archive::{ArchiveManifest, ArchivedPartition};

/// Records that are read of each partition, from the middle of its range.
const SAMPLE: u32 = 16;
/// How long to wait for one of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What would be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Offsets, which is what is known.
    pub offsets: i64,
    /// Records, as dense as in the samples.
    pub records: f64,
    /// Bytes, as large as the samples.
    pub bytes: f64,
}

impl Estimate {
    fn add(&mut self, other: Self) {
        self.offsets += other.offsets;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// Estimates what the planned ranges hold. Blocking.
///
/// # Errors
/// When a partition cannot be read.
pub fn estimate(bus: &BusSettings, plan: &ArchiveManifest) -> Result<Estimate, ArchiveError> {
    let mut sum = Estimate::default();
    for topic in &plan.topics {
        for range in &topic.partitions {
            let partition = TopicPartition {
                topic: Topic::from(topic.topic.as_str()),
                partition: range.partition,
            };
            sum.add(estimate_partition(bus, partition, range)?);
        }
    }
    Ok(sum)
}

fn estimate_partition(
    bus: &BusSettings,
    partition: TopicPartition,
    range: &ArchivedPartition,
) -> Result<Estimate, ArchiveError> {
    let offsets = range.end - range.start;
    if offsets == 0 {
        return Ok(Estimate::default());
    }
    let middle = range.start + (offsets - i64::from(SAMPLE)).max(0) / 2;
    let mut reader = PartitionReader::open(bus, partition, middle, range.end)?;
    let (mut records, mut bytes) = (0u32, 0usize);
    while records < SAMPLE {
        match reader.next(PATIENCE)? {
            PartitionReading::Record(copy) => {
                records += 1;
                bytes += copy.payload_bytes();
            }
            PartitionReading::Deleted { .. } => {}
            PartitionReading::Idle | PartitionReading::Finished => break,
        }
    }
    let seen = (reader.position() - middle).max(1);
    let share = offsets as f64 / seen as f64;
    Ok(Estimate {
        offsets,
        records: f64::from(records) * share,
        bytes: bytes as f64 * share,
    })
}
