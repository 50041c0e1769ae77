//! What lies on the bus: records, where they stand, and the memory that they take.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::{Timestamp, Topic};

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition number.
    pub partition: i32,
}

/// Where a record stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceOffset {
    /// The topic.
    pub topic: Topic,
    /// The partition number.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: i64,
}

impl SourceOffset {
    /// The partition this offset belongs to.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic.clone(),
            partition: self.partition,
        }
    }
}

impl fmt::Display for SourceOffset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}[{}]@{}",
            self.topic, self.partition, self.offset
        )
    }
}

/// A Kafka header; the value may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Header name.
    pub name: String,
    /// Header bytes.
    pub value: Option<Vec<u8>>,
}

/// What a record's timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampKind {
    /// When its producer says that it was made.
    Create,
    /// When the broker took it.
    LogAppend,
}

/// A Kafka message as it was read, kept whole until its fate is published.
#[derive(Debug)]
pub struct Record {
    /// Where it was read.
    pub source: SourceOffset,
    /// The assignment under which it was read; work of an older generation is dropped.
    pub generation: u64,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<Header>,
    /// Kafka's record timestamp, if it has one.
    pub timestamp: Option<Timestamp>,
    /// The share of the memory budget held while the record lives.
    pub lease: Option<MemoryLease>,
}

impl Record {
    /// The bytes this record keeps alive, headers and key included.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| header.name.len() + header.value.as_ref().map_or(0, Vec::len))
            .sum();
        headers
            + self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + size_of::<Self>()
    }

    /// The last header of that name, as Kafka's own clients read it.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|header| header.name == name)
            .and_then(|header| header.value.as_deref())
    }
}

/// A record with all that Kafka told of it, for those who write it down elsewhere.
#[derive(Debug)]
pub struct RecordCopy {
    /// The record.
    pub record: Record,
    /// What its timestamp is, if it has one.
    pub timestamp_kind: Option<TimestampKind>,
    /// Why its headers were left out, if they were.
    pub fault: Option<String>,
}

impl RecordCopy {
    /// The bytes of its key, value and headers.
    pub fn payload_bytes(&self) -> usize {
        self.record.size_bytes() - size_of::<Record>()
    }
}

/// How many bytes of records are alive, against a bound.
///
/// ```
/// use panoptes::domain::MemoryBudget;
/// let budget = MemoryBudget::new(100);
/// let lease = budget.lease(60);
/// assert_eq!(budget.used_bytes(), 60);
/// drop(lease);
/// assert_eq!(budget.used_bytes(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    used: Arc<AtomicU64>,
    limit: u64,
}

impl MemoryBudget {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            used: Arc::new(AtomicU64::new(0)),
            limit: limit_bytes,
        }
    }

    /// Takes `bytes`, over the limit too: what was read must be kept; the caller slows the intake.
    pub fn lease(&self, bytes: usize) -> MemoryLease {
        let bytes = bytes as u64;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        MemoryLease {
            used: Arc::clone(&self.used),
            bytes,
        }
    }

    /// Bytes alive now.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The bound.
    pub fn limit_bytes(&self) -> u64 {
        self.limit
    }
}

/// A share of a [`MemoryBudget`], given back on drop.
#[derive(Debug)]
pub struct MemoryLease {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A record on its way out to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundRecord {
    /// Topic to produce to.
    pub topic: Topic,
    /// Partition to produce to; without one the key decides.
    pub partition: Option<i32>,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<Header>,
}

impl OutboundRecord {
    /// At most what Kafka's record batch adds to a record alone in it: 61 bytes of batch header,
    /// and lengths, deltas and attributes as variable-length integers.
    const BATCH_OVERHEAD: usize = 100;
    /// At most two variable-length integers for the lengths of a header's name and value.
    const HEADER_OVERHEAD: usize = 10;

    /// The bytes this record takes, uncompressed, against the broker's message limit; never less
    /// than it really takes.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| {
                header.name.len()
                    + header.value.as_ref().map_or(0, Vec::len)
                    + Self::HEADER_OVERHEAD
            })
            .sum();
        Self::BATCH_OVERHEAD
            + headers
            + self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
    }
}
