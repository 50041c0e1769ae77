//! A broker inside the process, for the demo: librdkafka's mock cluster.
//!
//! It keeps at most 5 MiB or 100,000 message sets a partition and knows no real transactions;
//! what must be proven is proven on a real Kafka.

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::domain::Topic;

/// One mock broker on a free port of 127.0.0.1, gone when dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts the broker.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start() -> Result<Self, KafkaError> {
        Ok(Self {
            cluster: MockCluster::new(1)?,
        })
    }

    /// Creates a topic; the broker answers no admin client.
    ///
    /// # Errors
    /// When the topic exists.
    pub fn create_topic(&self, topic: &Topic, partitions: i32) -> Result<(), KafkaError> {
        self.cluster.create_topic(topic.as_str(), partitions, 1)
    }

    /// The address to connect to.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}
