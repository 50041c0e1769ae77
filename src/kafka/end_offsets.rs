//! Asks the brokers where partitions end, through a client of its own: it answers also where the one
//! that reads does not, and never creates a topic.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::client::BusSettings;
use crate::domain::TopicPartition;

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

    /// The offset behind the last record of a partition, be its transaction open or not.
    ///
    /// # Errors
    /// When no answer came in time, or the partition does not exist.
    pub fn of(&self, partition: &TopicPartition, patience: Duration) -> KafkaResult<i64> {
        let topic = partition.topic.as_str();
        let (_, end) = self
            .client
            .fetch_watermarks(topic, partition.partition, patience)?;
        Ok(end)
    }
}
