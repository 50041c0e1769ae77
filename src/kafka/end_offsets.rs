//! Asks the brokers where partitions end and how many there are, through a client of its own: it answers
//! also where the one that reads does not, and never creates a topic.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::client::BusSettings;
use crate::domain::{Topic, TopicPartition};

/// A client that reads nothing.
pub struct EndOffsets {
    client: BaseConsumer,
}

impl EndOffsets {
    /// Makes the client; it connects when it is first asked.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(bus: &BusSettings) -> KafkaResult<Self> {
        let client = bus.consumer_config().create()?;
        Ok(Self { client })
    }

    /// How many partitions a topic has; 0 when it is not there.
    ///
    /// # Errors
    /// When the brokers do not tell in time.
    pub fn partitions(&self, topic: &Topic, patience: Duration) -> KafkaResult<usize> {
        // A named topic would be created by some brokers; `None` lists what is there.
        let metadata = self.client.fetch_metadata(None, patience)?;
        let mut topics = metadata.topics().iter();
        let found = topics.find(|found| found.name() == topic.as_str());
        Ok(found.map_or(0, |found| found.partitions().len()))
    }

    /// The offset behind the last record that can be read under `isolation.level`, of those of the
    /// partitions of which the brokers tell it in time.
    ///
    /// # Errors
    /// When they tell none.
    pub fn of<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        patience: Duration,
    ) -> KafkaResult<HashMap<TopicPartition, i64>> {
        ends_of(&self.client, partitions, patience)
    }
}

/// As [`EndOffsets::of`], asked through any consumer.
pub(super) fn ends_of<'a, C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
    patience: Duration,
) -> KafkaResult<HashMap<TopicPartition, i64>> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        // As a time, this is the one after the last record.
        asked.add_partition_offset(partition.topic.as_str(), partition.partition, Offset::End)?;
    }
    let answered = consumer.offsets_for_times(asked, patience)?;
    let elements = answered.elements();
    let ends = elements.iter().filter_map(|element| {
        let (Ok(()), Offset::Offset(end)) = (element.error(), element.offset()) else {
            return None;
        };
        let partition = TopicPartition {
            topic: Topic::new(element.topic()),
            partition: element.partition(),
        };
        Some((partition, end))
    });
    Ok(ends.collect())
}
