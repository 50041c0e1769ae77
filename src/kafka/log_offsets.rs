//! Asks the brokers for offsets of partitions and how many there are, through a client of its own: it
//! answers also where the one that reads does not, and never creates a topic.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::client::BusSettings;
use crate::domain::{Timestamp, Topic, TopicPartition};

/// A place in a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// The first record that is still there.
    Beginning,
    /// The first record that was written then or later; where there is none, the end.
    Written(Timestamp),
    /// Behind the last record that can be read under `isolation.level`.
    End,
}

/// A client that reads nothing.
pub struct LogOffsets {
    client: BaseConsumer,
}

impl LogOffsets {
    /// Makes the client; it connects when it is first asked.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(bus: &BusSettings) -> KafkaResult<Self> {
        let client = bus.consumer_config().create()?;
        Ok(Self { client })
    }

    /// How many partitions every topic has.
    ///
    /// # Errors
    /// When the brokers do not tell in time.
    pub fn topics(&self, patience: Duration) -> KafkaResult<BTreeMap<Topic, usize>> {
        // A named topic would be created by some brokers; `None` lists what is there.
        let metadata = self.client.fetch_metadata(None, patience)?;
        let topics = metadata.topics().iter();
        let counts = topics.map(|topic| (Topic::new(topic.name()), topic.partitions().len()));
        Ok(counts.collect())
    }

    /// How many partitions a topic has; 0 when it is not there.
    ///
    /// # Errors
    /// When the brokers do not tell in time.
    pub fn partitions(&self, topic: &Topic, patience: Duration) -> KafkaResult<usize> {
        let topics = self.topics(patience)?;
        Ok(topics.get(topic).copied().unwrap_or(0))
    }

    /// The offset behind the last record that can be read, of those of the partitions of which the brokers
    /// tell it in time.
    ///
    /// # Errors
    /// When they tell none.
    pub fn of<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        patience: Duration,
    ) -> KafkaResult<HashMap<TopicPartition, i64>> {
        self.at(partitions, LogPlace::End, patience)
    }

    /// The offsets of a place, of those of the partitions of which the brokers tell it in time. A time
    /// behind the last record is told for none.
    ///
    /// # Errors
    /// When they tell none.
    pub fn at<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        place: LogPlace,
        patience: Duration,
    ) -> KafkaResult<HashMap<TopicPartition, i64>> {
        // All of these are points in time to the brokers.
        let time = match place {
            LogPlace::Beginning => Offset::Beginning,
            LogPlace::Written(time) => Offset::Offset(time.0.max(0)),
            LogPlace::End => Offset::End,
        };
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition_offset(partition.topic.as_str(), partition.partition, time)?;
        }
        let answered = self.client.offsets_for_times(asked, patience)?;
        let elements = answered.elements();
        let offsets = elements.iter().filter_map(|element| {
            let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) else {
                return None;
            };
            let partition = TopicPartition {
                topic: Topic::new(element.topic()),
                partition: element.partition(),
            };
            Some((partition, offset))
        });
        Ok(offsets.collect())
    }
}
