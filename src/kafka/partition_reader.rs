//! Reads a range of one partition from outside any consumer group, with all that Kafka tells of each
//! record, and says so when retention has taken records of the range meanwhile.
//!
//! Blocking. Nothing is committed. Aborted records are skipped unless `bus.properties` say otherwise.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::BusSettings;
use super::record_copy::{CopiedRecord, copy_record, timestamp_kind};
use super::topic_reader::{
    CONNECT_TIMEOUT, ReaderConsumer, TopicReaderError, client, passes, whole_milliseconds,
};
use crate::domain::{RecordCopy, TopicPartition};

/// Behind the user's own: several partitions are read at once, each by a client of its own, so that
/// none may hold 64 MiB of fetched records as is usual; and records are images. A client whose queue is
/// full looks again after a second otherwise, by when so small a one has long been empty.
const DEFAULTS: [(&str, &str); 3] = [
    ("fetch.queue.backoff.ms", "10"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.message.max.bytes", "4194304"),
];

/// What one step of reading gave.
#[derive(Debug)]
pub enum PartitionReading {
    /// The next record.
    Record(Box<RecordCopy>),
    /// Retention has taken what was to be read next, up to the position now.
    Deleted {
        /// The first offset that is gone.
        start: i64,
        /// The first one that is left, or the end of the range.
        end: i64,
    },
    /// Nothing came in time; more may.
    Idle,
    /// The range was read to its end.
    Finished,
}

/// Why a range cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionReaderError {
    /// The client cannot be made, or reading failed for good.
    #[error(transparent)]
    Read(#[from] TopicReaderError),
    /// The log ends before the range does, though it reached as far before.
    #[error(
        "partition `{partition}` of `{topic}` ends at offset `{found}`, expected `{expected}` or later: \
         it was cut, or the topic was made anew",
        topic = .partition.topic, partition = .partition.partition
    )]
    Cut {
        /// The partition.
        partition: TopicPartition,
        /// The end of the range.
        expected: i64,
        /// The end of the log.
        found: i64,
    },
}

/// Reads one range of one partition.
pub struct PartitionReader {
    consumer: ReaderConsumer,
    partition: TopicPartition,
    position: i64,
    end: i64,
}

impl PartitionReader {
    /// Begins to read the offsets from `start` up to `end`.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open(
        bus: &BusSettings,
        partition: TopicPartition,
        start: i64,
        end: i64,
    ) -> Result<Self, PartitionReaderError> {
        let mut bus = bus.clone();
        // What is gone must be told, not passed over.
        let reset = "auto.offset.reset".to_owned();
        bus.properties.insert(reset, "error".to_owned());
        // A follower may end before its leader does, and the end is told by whoever is read.
        bus.properties.remove("client.rack");
        let mut reader = Self {
            consumer: client(&bus, &DEFAULTS)?,
            partition,
            position: start,
            end,
        };
        reader.seek(start)?;
        Ok(reader)
    }

    /// The next offset to be read; all before it are read, missing or told as deleted.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The next record, waiting for it no longer than `patience`.
    ///
    /// # Errors
    /// When the partition cannot be read any more, or ends before the range.
    pub fn next(&mut self, patience: Duration) -> Result<PartitionReading, PartitionReaderError> {
        let deadline = Instant::now() + patience;
        while self.position < self.end {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match self.consumer.poll(whole_milliseconds(left)) {
                None => return Ok(PartitionReading::Idle),
                Some(Ok(message)) => {
                    let copy = copy(&message);
                    drop(message);
                    let offset = copy.record.source.offset;
                    if offset >= self.end {
                        self.position = self.end;
                    } else if offset >= self.position {
                        self.position = offset + 1;
                        return Ok(PartitionReading::Record(Box::new(copy)));
                    }
                    continue;
                }
                Some(Err(error)) => error,
            };
            if let Some(reading) = self.survive(error)? {
                return Ok(reading);
            }
        }
        Ok(PartitionReading::Finished)
    }

    /// What an error tells about the log.
    fn survive(
        &mut self,
        error: KafkaError,
    ) -> Result<Option<PartitionReading>, PartitionReaderError> {
        if matches!(error, KafkaError::PartitionEOF(_)) {
            self.expect_end()?;
            self.position = self.end;
            return Ok(None);
        }
        if passes(&error) {
            tracing::debug!(topic = %self.partition.topic, %error, "broker is away");
            return Ok(None);
        }
        let is_out_of_range = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if !is_out_of_range {
            return Err(self.read_error(error));
        }
        let (low, _) = self.watermarks()?;
        if low <= self.position {
            self.expect_end()?;
            return Err(self.read_error(error));
        }
        let start = self.position;
        self.position = low.min(self.end);
        self.seek(self.position)?;
        let end = self.position;
        Ok(Some(PartitionReading::Deleted { start, end }))
    }

    fn expect_end(&self) -> Result<(), PartitionReaderError> {
        let (_, found) = self.watermarks()?;
        if found >= self.end {
            return Ok(());
        }
        Err(PartitionReaderError::Cut {
            partition: self.partition.clone(),
            expected: self.end,
            found,
        })
    }

    fn watermarks(&self) -> Result<(i64, i64), PartitionReaderError> {
        let TopicPartition { topic, partition } = &self.partition;
        self.consumer
            .fetch_watermarks(topic.as_str(), *partition, CONNECT_TIMEOUT)
            .map_err(|source| self.read_error(source))
    }

    fn seek(&mut self, offset: i64) -> Result<(), PartitionReaderError> {
        let mut assignment = TopicPartitionList::new();
        let TopicPartition { topic, partition } = &self.partition;
        assignment
            .add_partition_offset(topic.as_str(), *partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.assign(&assignment))
            .map_err(|source| self.read_error(source))
    }

    fn read_error(&self, source: KafkaError) -> PartitionReaderError {
        let topic = self.partition.topic.clone();
        TopicReaderError::Read { topic, source }.into()
    }
}

fn copy(message: &BorrowedMessage<'_>) -> RecordCopy {
    let CopiedRecord { record, fault } = copy_record(message);
    RecordCopy {
        record,
        timestamp_kind: timestamp_kind(message),
        fault,
    }
}
