//! Reads one topic from outside any consumer group, to show or check what is on it.
//!
//! All partitions are assigned by hand and nothing is committed, so reading disturbs nobody.
//! Aborted transactions are skipped unless `bus.properties` say otherwise; where a reader begins, goes on
//! and ends they do not say. Blocking: for command-line tools and tests, not for async tasks. Partitions
//! added to the topic after opening are not seen.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};

use super::client::{BusSettings, log_client_message};
use super::record_copy::{CopiedRecord, copy_record};
use crate::domain::{Record, SourceOffset, Topic};

/// How long a broker nearby may take, starting up included, to say where a topic begins and ends.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// librdkafka asks for a group even where none is joined; it never appears on the broker.
const GROUP_NEVER_JOINED: &str = "panoptes-topic-reader";

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At each partition's first record.
    Beginning,
    /// That many offsets before each partition's end; fewer records where transactions wrote
    /// their markers between them.
    Last(u32),
    /// At each partition's end: only what comes later.
    End,
}

/// Where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadUntil {
    /// At what was the end of the topic when the reader was opened.
    EndOfTopic,
    /// Never: wait for more.
    Forever,
}

/// What to read and how to reach it.
#[derive(Clone, Debug)]
pub struct TopicReaderSettings {
    /// How to reach the broker. A `group.id` is only named, never joined.
    pub bus: BusSettings,
    /// The topic.
    pub topic: Topic,
    /// Where to begin.
    pub from: ReadFrom,
    /// Where to stop.
    pub until: ReadUntil,
    /// How long to wait for the broker's answers on opening.
    pub connect_timeout: Duration,
}

/// What one step of reading gave.
#[derive(Debug)]
pub enum Reading {
    /// The next record.
    Record(Box<Record>),
    /// Nothing came in time; more may.
    Idle,
    /// The topic was read to its end.
    Finished,
}

/// Why a topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TopicReaderError {
    /// The client could not be made of its properties.
    #[error("kafka client for `{brokers}` cannot be made: {source}")]
    Client {
        /// Bootstrap servers.
        brokers: String,
        /// The client's own words.
        source: KafkaError,
    },
    /// The topic is not there.
    #[error("topic `{0}` does not exist")]
    NoSuchTopic(Topic),
    /// The broker did not say where the topic begins and ends.
    #[error("broker `{brokers}` gives no answer about topic `{topic}`: {source}")]
    Metadata {
        /// Bootstrap servers.
        brokers: String,
        /// The topic.
        topic: Topic,
        /// The client's own words.
        source: KafkaError,
    },
    /// Reading failed for good.
    #[error("topic `{topic}` cannot be read: {source}")]
    Read {
        /// The topic.
        topic: Topic,
        /// The client's own words.
        source: KafkaError,
    },
    /// The end of the topic was not reached, and nothing comes.
    #[error("topic `{topic}` gave nothing for `{waited:?}` before its end was reached")]
    Stalled {
        /// The topic.
        topic: Topic,
        /// How long nothing came.
        waited: Duration,
    },
}

pub(super) type ReaderConsumer = BaseConsumer<ReaderContext>;

/// Passes the client's words on to the log.
pub(super) struct ReaderContext;

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_client_message(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is reported as an error; it is what the reader waits for.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "kafka client error");
        }
    }
}

impl ConsumerContext for ReaderContext {}

/// Reads one topic.
pub struct TopicReader {
    consumer: ReaderConsumer,
    topic: Topic,
    /// The offset after the last record to read, of each partition not yet read to its end; none
    /// when reading for ever.
    unread: Option<HashMap<i32, i64>>,
}

impl TopicReader {
    /// Finds the topic's partitions and begins to read them.
    ///
    /// # Errors
    /// When the broker cannot be reached or does not know the topic.
    pub fn open(settings: &TopicReaderSettings) -> Result<Self, TopicReaderError> {
        let consumer = create_client(&settings.bus, whole_config(&settings.bus))?;
        let partitions = partitions(&consumer, settings)?;
        let unread = match settings.until {
            ReadUntil::EndOfTopic => Some(unread_ends(&consumer, settings, &partitions)?),
            ReadUntil::Forever => None,
        };
        let offset = match settings.from {
            ReadFrom::Beginning => Offset::Beginning,
            ReadFrom::Last(count) => Offset::OffsetTail(i64::from(count)),
            ReadFrom::End => Offset::End,
        };
        let starts = partitions.into_iter().map(|partition| (partition, offset));
        Self::begin(consumer, &settings.topic, starts, unread)
    }

    /// Reads these offsets of these partitions and nothing else, up to the end of each range. Records
    /// that are there no more are passed over.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub(super) fn open_ranges(
        bus: &BusSettings,
        topic: &Topic,
        ranges: &BTreeMap<i32, Range<i64>>,
    ) -> Result<Self, TopicReaderError> {
        let starts = ranges
            .iter()
            .map(|(partition, range)| (*partition, Offset::Offset(range.start)));
        let ends = ranges
            .iter()
            .map(|(partition, range)| (*partition, range.end));
        let consumer = create_client(bus, whole_config(bus))?;
        Self::begin(consumer, topic, starts, Some(ends.collect()))
    }

    fn begin(
        consumer: ReaderConsumer,
        topic: &Topic,
        starts: impl Iterator<Item = (i32, Offset)>,
        unread: Option<HashMap<i32, i64>>,
    ) -> Result<Self, TopicReaderError> {
        let read_error = |source| TopicReaderError::Read {
            topic: topic.clone(),
            source,
        };
        let mut assignment = TopicPartitionList::new();
        for (partition, start) in starts {
            assignment
                .add_partition_offset(topic.as_str(), partition, start)
                .map_err(read_error)?;
        }
        consumer.assign(&assignment).map_err(read_error)?;
        Ok(Self {
            consumer,
            topic: topic.clone(),
            unread,
        })
    }

    /// The next record, waiting for it no longer than `patience`.
    ///
    /// Records of one partition come in order. A broker that is away is waited for.
    ///
    /// # Errors
    /// When the topic cannot be read any more: it is gone, or access is refused.
    pub fn next(&mut self, patience: Duration) -> Result<Reading, TopicReaderError> {
        let deadline = Instant::now() + patience;
        loop {
            if self.unread.as_ref().is_some_and(HashMap::is_empty) {
                return Ok(Reading::Finished);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(whole_milliseconds(left)) {
                None => return Ok(Reading::Idle),
                Some(Ok(message)) => {
                    let record = record(&message);
                    drop(message);
                    if self.is_wanted(&record.source) {
                        return Ok(Reading::Record(Box::new(record)));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(unread) = &mut self.unread {
                        unread.remove(&partition);
                    }
                }
                Some(Err(error)) if passes(&error) => {
                    tracing::debug!(topic = %self.topic, %error, "broker is away");
                }
                Some(Err(source)) => {
                    return Err(TopicReaderError::Read {
                        topic: self.topic.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Every record up to the end of the topic, as `read` takes them.
    ///
    /// # Errors
    /// As [`next`](Self::next), and when nothing comes for `patience`.
    pub fn read_to_end(
        &mut self,
        patience: Duration,
        mut read: impl FnMut(Record),
    ) -> Result<(), TopicReaderError> {
        loop {
            match self.next(patience)? {
                Reading::Record(record) => read(*record),
                Reading::Finished => return Ok(()),
                Reading::Idle => {
                    return Err(TopicReaderError::Stalled {
                        topic: self.topic.clone(),
                        waited: patience,
                    });
                }
            }
        }
    }

    /// Whether the record lies before the end, which it may move.
    fn is_wanted(&mut self, source: &SourceOffset) -> bool {
        let Some(unread) = &mut self.unread else {
            return true;
        };
        let Some(end) = unread.get(&source.partition).copied() else {
            return false;
        };
        if source.offset + 1 >= end {
            unread.remove(&source.partition);
        }
        source.offset < end
    }
}

/// What a client is made of that must find every record that is there. `bus.properties` are the cameras',
/// and two of them would end a partition early: a follower (`client.rack`) may end before its leader,
/// which was asked for the end; and where retention takes what was to be read next, `auto.offset.reset`
/// may pass over the rest, or fail.
pub(super) fn whole_config(bus: &BusSettings) -> ClientConfig {
    let mut config = bus.consumer_config();
    config.remove("client.rack");
    config.set("auto.offset.reset", "earliest");
    config
}

/// A client that reads from outside any group; `defaults` stand behind the user's own properties.
pub(super) fn client(
    bus: &BusSettings,
    defaults: &[(&str, &str)],
) -> Result<ReaderConsumer, TopicReaderError> {
    let mut config = bus.consumer_config();
    set_unset(&mut config, defaults);
    create_client(bus, config)
}

/// A client of this configuration that joins no group, commits nothing and, unless told otherwise, reads
/// what is committed.
pub(super) fn create_client(
    bus: &BusSettings,
    mut config: ClientConfig,
) -> Result<ReaderConsumer, TopicReaderError> {
    set_unset(
        &mut config,
        &[
            ("group.id", GROUP_NEVER_JOINED),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "earliest"),
        ],
    );
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .create_with_context(ReaderContext)
        .map_err(|source| TopicReaderError::Client {
            brokers: bus.brokers.clone(),
            source,
        })
}

fn set_unset(config: &mut ClientConfig, values: &[(&str, &str)]) {
    for (name, value) in values {
        if config.get(name).is_none() {
            config.set(*name, *value);
        }
    }
}

fn partitions(
    consumer: &ReaderConsumer,
    settings: &TopicReaderSettings,
) -> Result<Vec<i32>, TopicReaderError> {
    let metadata = consumer
        .fetch_metadata(Some(settings.topic.as_str()), settings.connect_timeout)
        .map_err(|source| metadata_error(settings, source))?;
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
        .collect();
    if partitions.is_empty() {
        return Err(TopicReaderError::NoSuchTopic(settings.topic.clone()));
    }
    Ok(partitions)
}

/// The ends of the partitions that are not empty.
fn unread_ends(
    consumer: &ReaderConsumer,
    settings: &TopicReaderSettings,
    partitions: &[i32],
) -> Result<HashMap<i32, i64>, TopicReaderError> {
    let mut ends = HashMap::new();
    for partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(
                settings.topic.as_str(),
                *partition,
                settings.connect_timeout,
            )
            .map_err(|source| metadata_error(settings, source))?;
        if low < high {
            ends.insert(*partition, high);
        }
    }
    Ok(ends)
}

fn metadata_error(settings: &TopicReaderSettings, source: KafkaError) -> TopicReaderError {
    TopicReaderError::Metadata {
        brokers: settings.bus.brokers.clone(),
        topic: settings.topic.clone(),
        source,
    }
}

/// The time rounded up: `rdkafka` waits in whole milliseconds, and passes what is left of the last one asking again
/// without a pause.
pub(super) fn whole_milliseconds(time: Duration) -> Duration {
    let rounded_up = time.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(rounded_up).unwrap_or(u64::MAX))
}

/// Whether the client gets over the error by itself.
pub(super) fn passes(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    )
}

/// The message, copied out of the client's fetch buffer.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let CopiedRecord { record, fault } = copy_record(message);
    if let Some(error) = fault {
        tracing::warn!(
            topic = %record.source.topic,
            partition = record.source.partition,
            offset = record.source.offset,
            error,
            "record read without its headers"
        );
    }
    record
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    pub(in crate::kafka) struct Bus {
        cluster: MockCluster<'static, DefaultProducerContext>,
        producer: ThreadedProducer<DefaultProducerContext>,
    }

    impl Bus {
        pub(in crate::kafka) fn start() -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("results", 3, 1).unwrap();
            let producer = ClientConfig::new()
                .set("bootstrap.servers", cluster.bootstrap_servers())
                .create()
                .unwrap();
            Self { cluster, producer }
        }

        pub(in crate::kafka) fn produce(&self, keys: std::ops::Range<i32>) {
            for key in keys {
                let name = format!("p-{key}");
                let header = KafkaHeader {
                    key: "decision",
                    value: Some("ok"),
                };
                let record = BaseRecord::to("results")
                    .key(&name)
                    .payload("value")
                    .partition(key % 2)
                    .headers(OwnedHeaders::new().insert(header));
                self.producer
                    .send(record)
                    .map_err(|(error, _)| error)
                    .unwrap();
            }
            self.producer.flush(PATIENCE).unwrap();
        }

        pub(in crate::kafka) fn settings_of_bus(&self) -> BusSettings {
            BusSettings {
                brokers: self.cluster.bootstrap_servers(),
                properties: BTreeMap::new(),
            }
        }

        fn settings(&self, from: ReadFrom, until: ReadUntil) -> TopicReaderSettings {
            TopicReaderSettings {
                bus: self.settings_of_bus(),
                topic: "results".into(),
                from,
                until,
                connect_timeout: PATIENCE,
            }
        }

        fn keys(&self, from: ReadFrom) -> BTreeSet<String> {
            let settings = self.settings(from, ReadUntil::EndOfTopic);
            let mut reader = TopicReader::open(&settings).unwrap();
            let mut keys = BTreeSet::new();
            let read = |record: Record| {
                assert_eq!(record.header("decision"), Some(&b"ok"[..]));
                assert_eq!(record.value.as_deref(), Some(&b"value"[..]));
                assert!(record.timestamp.is_some());
                assert!(keys.insert(String::from_utf8(record.key.unwrap()).unwrap()));
            };
            reader.read_to_end(PATIENCE, read).unwrap();
            keys
        }
    }

    #[test]
    fn reads_every_record_once_and_stops_at_the_end() {
        let bus = Bus::start();
        assert!(bus.keys(ReadFrom::Beginning).is_empty());
        bus.produce(0..50);
        assert_eq!(bus.keys(ReadFrom::Beginning).len(), 50);
        assert_eq!(
            bus.keys(ReadFrom::Last(2)),
            ["p-46", "p-47", "p-48", "p-49"].map(str::to_owned).into()
        );
        assert_eq!(bus.keys(ReadFrom::Last(1_000)).len(), 50);
        assert!(bus.keys(ReadFrom::End).is_empty());
    }

    #[test]
    fn a_wait_is_of_whole_milliseconds_and_never_shorter() {
        for (micros, millis) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2)] {
            let rounded = whole_milliseconds(Duration::from_micros(micros));
            assert_eq!(rounded, Duration::from_millis(millis));
        }
    }

    #[test]
    fn follows_what_comes_later() {
        let bus = Bus::start();
        bus.produce(0..4);
        let settings = bus.settings(ReadFrom::Beginning, ReadUntil::Forever);
        let mut reader = TopicReader::open(&settings).unwrap();
        for round in [4..8, 8..8] {
            for _ in 0..4 {
                assert!(matches!(reader.next(PATIENCE).unwrap(), Reading::Record(_)));
            }
            assert!(matches!(
                reader.next(Duration::from_millis(50)).unwrap(),
                Reading::Idle
            ));
            bus.produce(round);
        }
    }

    #[test]
    fn does_not_read_past_the_end_it_saw_on_opening() {
        let bus = Bus::start();
        bus.produce(0..4);
        let settings = bus.settings(ReadFrom::Beginning, ReadUntil::EndOfTopic);
        let mut reader = TopicReader::open(&settings).unwrap();
        bus.produce(4..40);
        let mut count = 0;
        reader.read_to_end(PATIENCE, |_| count += 1).unwrap();
        assert_eq!(count, 4);
        assert!(matches!(reader.next(PATIENCE).unwrap(), Reading::Finished));
    }

    #[test]
    fn retention_ends_no_partition_whatever_the_properties_for_cameras() {
        let bus = Bus::start();
        bus.produce(0..4);
        for reset in ["latest", "error"] {
            let mut settings = bus.settings_of_bus();
            let properties = &mut settings.properties;
            properties.insert("auto.offset.reset".to_owned(), reset.to_owned());
            // The log has nothing at this offset, as where retention was faster than the reader.
            let ranges = [(0, 5..10)].into();
            let mut reader =
                TopicReader::open_ranges(&settings, &"results".into(), &ranges).unwrap();
            let mut offsets = Vec::new();
            let read = |record: Record| offsets.push(record.source.offset);
            reader.read_to_end(PATIENCE, read).unwrap();
            assert_eq!(offsets, [0, 1], "{reset}");
        }
    }

    #[test]
    fn whole_topics_are_read_from_their_leaders() {
        let properties = [
            ("client.rack", "a"),
            ("auto.offset.reset", "latest"),
            ("isolation.level", "read_uncommitted"),
            ("sasl.username", "somebody"),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = whole_config(&BusSettings {
            brokers: "kafka:9092".to_owned(),
            properties: properties.into(),
        });
        assert_eq!(config.get("client.rack"), None);
        assert_eq!(config.get("auto.offset.reset"), Some("earliest"));
        // Who looks at a topic may want to see what was aborted.
        assert_eq!(config.get("isolation.level"), Some("read_uncommitted"));
        assert_eq!(config.get("sasl.username"), Some("somebody"));
    }

    #[test]
    fn an_unreachable_broker_is_an_error() {
        let settings = TopicReaderSettings {
            bus: BusSettings {
                brokers: "127.0.0.1:1".to_owned(),
                properties: BTreeMap::new(),
            },
            topic: "results".into(),
            from: ReadFrom::Beginning,
            until: ReadUntil::EndOfTopic,
            connect_timeout: Duration::from_millis(300),
        };
        let error = TopicReader::open(&settings).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, TopicReaderError::Metadata { .. }),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_property_is_an_error() {
        let bus = Bus::start();
        let mut settings = bus.settings(ReadFrom::Beginning, ReadUntil::EndOfTopic);
        settings
            .bus
            .properties
            .insert("no.such.property".into(), "1".into());
        let error = TopicReader::open(&settings).map(|_| ()).unwrap_err();
        assert!(matches!(error, TopicReaderError::Client { .. }), "{error}");
    }
}
