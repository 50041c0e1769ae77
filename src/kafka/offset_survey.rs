//! Finds out what is there to be read: topics, their partitions, and where these begin, end, and reach
//! a time. Joins no group and creates no topic. Blocking, for command-line tools and tests.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::client::BusSettings;
use super::partition_counts::fetch_partition_counts;
use super::topic_reader::{ReaderConsumer, TopicReaderError, client};
use crate::domain::{Timestamp, Topic, TopicPartition};

/// A place on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first offset that retention has left.
    LogStart,
    /// Behind the last record that can be read under `isolation.level`, which is `read_committed` unless
    /// `bus.properties` say otherwise.
    End,
    /// The first record of that time or later; the end, if there is none.
    Time(Timestamp),
}

/// Why the brokers' answers are not known.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The client could not be made.
    #[error(transparent)]
    Client(#[from] TopicReaderError),
    /// The brokers did not answer in time.
    #[error("brokers `{brokers}` do not tell {what}: {source}")]
    Unanswered {
        /// Bootstrap servers.
        brokers: String,
        /// What was asked for.
        what: &'static str,
        /// The client's own words.
        source: KafkaError,
    },
    /// The brokers did not tell which cluster they are.
    #[error("brokers `{0}` do not tell the ID of their cluster")]
    NoClusterId(String),
    /// One partition's leader did not answer.
    #[error("partition `{partition}` of `{topic}` does not tell {what}: {reason}")]
    Partition {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: i32,
        /// What was asked for.
        what: &'static str,
        /// What was answered.
        reason: String,
    },
}

/// All partitions of topics that have so many.
pub fn partitions_of(topics: BTreeMap<Topic, i32>) -> impl Iterator<Item = TopicPartition> {
    topics.into_iter().flat_map(|(topic, count)| {
        (0..count).map(move |partition| TopicPartition {
            topic: topic.clone(),
            partition,
        })
    })
}

/// A client that reads nothing.
pub struct OffsetSurvey {
    client: ReaderConsumer,
    brokers: String,
    patience: Duration,
}

impl OffsetSurvey {
    /// Makes the client; it connects when it is first asked, and waits for no answer longer than
    /// `patience`.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(bus: &BusSettings, patience: Duration) -> Result<Self, SurveyError> {
        Ok(Self {
            client: client(bus, &[])?,
            brokers: bus.brokers.clone(),
            patience,
        })
    }

    /// The ID of the cluster.
    ///
    /// # Errors
    /// When the brokers do not tell in time.
    pub fn cluster_id(&self) -> Result<String, SurveyError> {
        let id = self.client.client().fetch_cluster_id(self.patience);
        id.ok_or_else(|| SurveyError::NoClusterId(self.brokers.clone()))
    }

    /// The topics of these names, or that match where one begins with `^`, with the number of their
    /// partitions. Those that do not exist are left out.
    ///
    /// # Errors
    /// When the brokers do not tell in time.
    pub fn topics(&self, subscription: &[String]) -> Result<BTreeMap<Topic, i32>, SurveyError> {
        let counts = fetch_partition_counts(&self.client, subscription, self.patience);
        let counts = counts.map_err(|source| self.unanswered("their topics", source))?;
        let counts = counts.into_iter().map(|(topic, count)| {
            let count = i32::try_from(count).expect("Kafka numbers partitions with 31 bits");
            (Topic::new(topic), count)
        });
        Ok(counts.collect())
    }

    /// The offset at that place of each partition.
    ///
    /// # Errors
    /// When one of them is not told in time.
    pub fn offsets(
        &self,
        partitions: &[TopicPartition],
        at: OffsetAt,
    ) -> Result<HashMap<TopicPartition, i64>, SurveyError> {
        let answered = self
            .ask(partitions, at)
            .map_err(|source| self.unanswered(at.what(), source))?;
        let mut offsets = HashMap::new();
        let mut without = Vec::new();
        for element in answered.elements() {
            let partition = TopicPartition {
                topic: Topic::new(element.topic()),
                partition: element.partition(),
            };
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) => {
                    offsets.insert(partition, offset);
                }
                (Ok(()), Offset::End) if matches!(at, OffsetAt::Time(_)) => without.push(partition),
                (outcome, found) => {
                    return Err(SurveyError::Partition {
                        topic: partition.topic,
                        partition: partition.partition,
                        what: at.what(),
                        reason: match outcome {
                            Ok(()) => format!("expected an offset, found `{found:?}`"),
                            Err(error) => error.to_string(),
                        },
                    });
                }
            }
        }
        if !without.is_empty() {
            offsets.extend(self.offsets(&without, OffsetAt::End)?);
        }
        Ok(offsets)
    }

    fn ask(
        &self,
        partitions: &[TopicPartition],
        at: OffsetAt,
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut asked = TopicPartitionList::new();
        for TopicPartition { topic, partition } in partitions {
            asked.add_partition_offset(topic.as_str(), *partition, at.as_time())?;
        }
        self.client.offsets_for_times(asked, self.patience)
    }

    fn unanswered(&self, what: &'static str, source: KafkaError) -> SurveyError {
        SurveyError::Unanswered {
            brokers: self.brokers.clone(),
            what,
            source,
        }
    }
}

impl OffsetAt {
    /// As brokers are asked: ends are times, too, below all real ones.
    fn as_time(self) -> Offset {
        match self {
            Self::LogStart => Offset::Beginning,
            Self::End => Offset::End,
            Self::Time(time) => Offset::Offset(time.0.max(0)),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::LogStart => "where it begins",
            Self::End => "where it ends",
            Self::Time(_) => "which record is the first of a time",
        }
    }
}
