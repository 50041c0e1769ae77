//! One idempotent producer for whole records, headers included.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use tokio::sync::oneshot;

use super::client::BusSettings;
use super::polled_producer::{Delivery, PolledProducer, ReportingProducer, Told};
use crate::domain::{OutboundRecord, Topic};

/// How long a record waits for others to share its batch.
const LINGER: &str = "linger.ms";
/// How long a commit waits at a time for what is outstanding (`BaseProducer::flush`).
const COMMIT_PAUSE: Duration = Duration::from_millis(100);
/// After which a record is offered to a full queue again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(100);

/// Produces records and waits for the broker's acknowledgement; clones share the connection.
#[derive(Clone)]
pub struct RecordProducer {
    producer: Arc<PolledProducer>,
}

impl RecordProducer {
    /// Makes the client; `max_message_bytes` is what it accepts at most.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(bus: &BusSettings, max_message_bytes: usize) -> Result<Self, KafkaError> {
        Self::with_config(max_message_bytes, bus.producer_config())
    }

    /// As [`Self::connect`], for records that go out in transactions: of two producers with the same
    /// `transactional_id` the later one ends the earlier one's. A transaction that is open for
    /// longer than `timeout` is aborted by the broker.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect_transactional(
        bus: &BusSettings,
        max_message_bytes: usize,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let mut config = bus.producer_config();
        // What a transaction holds is sent all at once: nothing is gained by waiting for more.
        if !bus.properties.contains_key(LINGER) {
            config.set(LINGER, "0");
        }
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", timeout.as_millis().to_string());
        Self::with_config(max_message_bytes, config)
    }

    fn with_config(max_message_bytes: usize, mut config: ClientConfig) -> Result<Self, KafkaError> {
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", max_message_bytes.to_string());
        for (name, value) in [(LINGER, "5"), ("partitioner", "murmur2_random")] {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        Ok(Self {
            producer: Arc::new(PolledProducer::create(&config)?),
        })
    }

    /// Waits for the cluster's metadata.
    ///
    /// # Errors
    /// When none came in time.
    pub fn reach(&self, patience: Duration) -> Result<(), KafkaError> {
        self.topics(patience).map(|_| ())
    }

    /// The topics that there are.
    ///
    /// # Errors
    /// When they were not told in time.
    pub(crate) fn topics(&self, patience: Duration) -> Result<HashSet<Topic>, KafkaError> {
        // A named topic would be created by some brokers; `None` lists what is there.
        let metadata = self.client().client().fetch_metadata(None, patience)?;
        let there = metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none());
        Ok(there.map(|topic| Topic::new(topic.name())).collect())
    }

    /// Produces one record; a full queue is waited for.
    ///
    /// # Errors
    /// When the broker refuses the record or is out of reach for too long.
    pub async fn send(&self, record: &OutboundRecord) -> Result<(), KafkaError> {
        self.hand_over(record).await?.wait().await
    }

    /// Gives one record to the client, which sends it in the background; a full queue is waited for.
    ///
    /// # Errors
    /// When the client refuses the record.
    pub(super) async fn hand_over(
        &self,
        record: &OutboundRecord,
    ) -> Result<Acknowledgement, KafkaError> {
        loop {
            let (told, delivery) = oneshot::channel();
            match self.client().send(message_of(record, Box::new(told))) {
                Ok(()) => return Ok(Acknowledgement { delivery }),
                Err((error, _)) if is_of_full_queue(&error) => {
                    tokio::time::sleep(FULL_QUEUE_PAUSE).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until the client takes no record for outstanding, once all are acknowledged: it does so until
    /// it has let go of the last report, an instant after the report was given out. A commit that comes
    /// in between waits for [`COMMIT_PAUSE`], and so at most does this.
    pub(super) async fn settle(&self) {
        let settled = async {
            while self.client().in_flight_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let settled = tokio::time::timeout(COMMIT_PAUSE, settled).await;
        settled.ok(); // if it did not settle, the commit waits itself
    }

    /// The client itself, for the calls of transactions.
    pub(super) fn client(&self) -> &ReportingProducer {
        self.producer.client()
    }

    /// Waits (blocking) until everything sent is acknowledged.
    ///
    /// # Errors
    /// When that took too long.
    pub fn flush(&self, patience: Duration) -> Result<(), KafkaError> {
        self.client().flush(patience)
    }
}

/// What the brokers will say of a record that is on its way.
pub(super) struct Acknowledgement {
    delivery: Delivery,
}

impl Acknowledgement {
    /// Waits for it.
    ///
    /// # Errors
    /// When the broker refuses the record or is out of reach for too long.
    pub(super) async fn wait(self) -> Result<(), KafkaError> {
        self.delivery.await.unwrap_or(Err(KafkaError::Canceled))
    }
}

fn is_of_full_queue(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

fn message_of(record: &OutboundRecord, told: Told) -> BaseRecord<'_, Vec<u8>, Vec<u8>, Told> {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for header in &record.headers {
        headers = headers.insert(KafkaHeader {
            key: &header.name,
            value: header.value.as_ref(),
        });
    }
    BaseRecord {
        topic: record.topic.as_str(),
        partition: record.partition,
        payload: record.value.as_ref(),
        key: record.key.as_ref(),
        timestamp: None,
        headers: Some(headers),
        delivery_opaque: told,
    }
}
