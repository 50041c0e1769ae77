//! Reads a range of one partition from outside any consumer group, with all that Kafka tells of each
//! record, and says so when retention has taken records of the range meanwhile.
//!
//! Blocking. Nothing is committed. Aborted records are skipped unless `bus.properties` say otherwise.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
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
    /// The position from which the log was read again, once it was known to reach the range's end: it may
    /// not have reached it when it seemed to end there.
    read_again_from: Option<i64>,
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
            read_again_from: None,
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
            self.meet_end()?;
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
        let (low, high) = self.watermarks().map_err(|error| self.read_error(error))?;
        if low <= self.position {
            self.expect_end(high)?;
            return Err(self.read_error(error));
        }
        let start = self.position;
        self.position = low.min(self.end);
        self.seek(self.position)?;
        let end = self.position;
        Ok(Some(PartitionReading::Deleted { start, end }))
    }

    /// The log has no record between the position and where it ended when it was fetched. That is the end
    /// of the range only if the log reached as far by then: a leader that was just elected may know less of
    /// it for a moment. So it is read again, once the log is known to reach the range's end.
    fn meet_end(&mut self) -> Result<(), PartitionReaderError> {
        match self.watermarks() {
            Ok((_, high)) => self.expect_end(high)?,
            Err(error) if is_unsettled(&error) => return self.seek(self.position),
            Err(error) => return Err(self.read_error(error)),
        }
        if self.read_again_from == Some(self.position) {
            self.position = self.end;
            return Ok(());
        }
        self.read_again_from = Some(self.position);
        self.seek(self.position)
    }

    fn expect_end(&self, found: i64) -> Result<(), PartitionReaderError> {
        if found >= self.end {
            return Ok(());
        }
        Err(PartitionReaderError::Cut {
            partition: self.partition.clone(),
            expected: self.end,
            found,
        })
    }

    /// Where the log begins and ends.
    fn watermarks(&self) -> KafkaResult<(i64, i64)> {
        let TopicPartition { topic, partition } = &self.partition;
        let topic = topic.as_str();
        self.consumer
            .fetch_watermarks(topic, *partition, CONNECT_TIMEOUT)
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

/// Whether the end of the log is not known for the moment, such as while a leader is elected.
fn is_unsettled(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    passes(error) || code == Some(RDKafkaErrorCode::OffsetNotAvailable)
}

fn copy(message: &BorrowedMessage<'_>) -> RecordCopy {
    let CopiedRecord { record, fault } = copy_record(message);
    RecordCopy {
        record,
        timestamp_kind: timestamp_kind(message),
        fault,
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::domain::Topic;

    const PATIENCE: Duration = Duration::from_secs(20);
    /// What is read of a partition that seems to end.
    const EOF: KafkaError = KafkaError::PartitionEOF(0);

    struct Log {
        cluster: MockCluster<'static, DefaultProducerContext>,
        producer: BaseProducer,
    }

    impl Log {
        fn of(records: usize) -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("cam", 1, 1).unwrap();
            let mut client = ClientConfig::new();
            client.set("bootstrap.servers", cluster.bootstrap_servers());
            let producer = client.create().unwrap();
            let log = Self { cluster, producer };
            log.grow(records);
            log
        }

        fn grow(&self, records: usize) {
            for _ in 0..records {
                let record = BaseRecord::to("cam").key("part").payload("image");
                let sent = self.producer.send(record.partition(0));
                sent.map_err(|(error, _)| error).unwrap();
            }
            self.producer.flush(PATIENCE).unwrap();
        }

        fn read(&self, end: i64) -> PartitionReader {
            let bus = BusSettings {
                brokers: self.cluster.bootstrap_servers(),
                properties: std::collections::BTreeMap::new(),
            };
            let partition = TopicPartition {
                topic: Topic::from("cam"),
                partition: 0,
            };
            PartitionReader::open(&bus, partition, 0, end).unwrap()
        }
    }

    fn expect_records(reader: &mut PartitionReader, offsets: std::ops::Range<i64>) {
        for offset in offsets {
            let reading = reader.next(PATIENCE).unwrap();
            let PartitionReading::Record(copy) = reading else {
                panic!("expected record {offset}, found {reading:?}");
            };
            assert_eq!(copy.record.source.offset, offset);
        }
    }

    fn expect_finished(reader: &mut PartitionReader) {
        let reading = reader.next(PATIENCE).unwrap();
        assert!(matches!(reading, PartitionReading::Finished), "{reading:?}");
    }

    #[test]
    fn a_range_is_read_to_its_end() {
        let log = Log::of(5);
        let mut reader = log.read(4);
        expect_records(&mut reader, 0..4);
        expect_finished(&mut reader);
    }

    #[test]
    fn the_end_of_a_log_that_has_grown_since_it_was_fetched_is_no_end_of_the_range() {
        let log = Log::of(2);
        let mut reader = log.read(6);
        expect_records(&mut reader, 0..2);
        log.grow(4);
        for behind in [2, 4] {
            assert!(reader.survive(EOF).unwrap().is_none());
            expect_records(&mut reader, behind..behind + 2);
        }
        expect_finished(&mut reader);
    }

    #[test]
    fn where_the_end_of_the_log_is_not_known_for_a_moment_it_is_asked_for_again() {
        const UNKNOWN: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
        let log = Log::of(2);
        let mut reader = log.read(4);
        expect_records(&mut reader, 0..2);
        log.grow(2);
        let ends = RDKafkaApiKey::ListOffsets;
        log.cluster.request_errors(ends, &[UNKNOWN; 2]);
        assert!(reader.survive(EOF).unwrap().is_none());
        assert_eq!(reader.read_again_from, None);
        log.cluster.clear_request_errors(ends);
        expect_records(&mut reader, 2..4);
        expect_finished(&mut reader);
    }

    #[test]
    fn offsets_without_a_record_end_a_range_when_they_were_looked_at_again() {
        let log = Log::of(2);
        let mut reader = log.read(4);
        expect_records(&mut reader, 0..2);
        // As if these were markers of transactions.
        log.grow(2);
        assert!(reader.survive(EOF).unwrap().is_none());
        assert_eq!(reader.position(), 2);
        assert!(reader.survive(EOF).unwrap().is_none());
        assert_eq!(reader.position(), 4);
        expect_finished(&mut reader);
    }

    #[test]
    fn a_log_that_ends_before_the_range_is_cut() {
        let log = Log::of(2);
        let mut reader = log.read(4);
        expect_records(&mut reader, 0..2);
        let error = reader.next(PATIENCE).unwrap_err().to_string();
        let expected = "ends at offset `2`, expected `4` or later: it was cut";
        assert!(error.contains(expected), "{error}");
    }
}
