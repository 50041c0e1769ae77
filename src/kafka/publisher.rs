//! Produces results and dead letters, and finishes their inputs in the ledger once the broker
//! has them.
//!
//! `at_least_once`: a publication's inputs are finished only when every one of its records is
//! acknowledged, so a crash repeats work and loses none. The producer is idempotent, so its own
//! retries double nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use tokio::sync::mpsc;

use super::client::BusSettings;
use super::consumer::{SharedLedger, lock};
use crate::domain::{OutboundRecord, Record, SourceOffset};
use crate::telemetry;

/// How many publications may wait for the broker at once. Their inputs stay in the memory
/// budget, so this bounds bookkeeping, not bytes.
const MAX_UNACKNOWLEDGED: usize = 1024;

/// How long the last acknowledgements are waited for at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// An input whose fate a publication decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedInput {
    /// The record.
    pub source: SourceOffset,
    /// The assignment under which it was read.
    pub generation: u64,
}

/// What goes out together, and which inputs it finishes.
#[derive(Debug)]
pub struct Publication<Token> {
    /// Records to produce; none for inputs that were absorbed.
    pub records: Vec<OutboundRecord>,
    /// Inputs that are done once the records are acknowledged.
    pub finishes: Vec<FinishedInput>,
    /// Dropped when all is done.
    pub token: Token,
}

/// Why publishing stopped. Nothing is lost: what was not acknowledged is not committed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The producer could not be made.
    #[error("failed to create the producer: {0}")]
    Create(KafkaError),
    /// A record was not accepted.
    #[error("failed to produce to `{topic}`: {source}")]
    Produce {
        /// Topic produced to.
        topic: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// Acknowledgements did not come in time at the end.
    #[error("failed to flush the producer: {0}")]
    Flush(KafkaError),
}

/// Produces publications in order.
pub struct Publisher {
    producer: FutureProducer,
    ledger: SharedLedger,
    shrink: fn(OutboundRecord) -> OutboundRecord,
}

/// Asks whether the brokers can be reached, on a publisher's connection.
#[derive(Clone)]
pub struct PublisherProbe {
    producer: FutureProducer,
}

impl PublisherProbe {
    /// Waits for the cluster's metadata.
    ///
    /// # Errors
    /// When none came in time.
    pub fn reach(&self, patience: Duration) -> Result<(), KafkaError> {
        // A topic that cannot exist would be created by some brokers; `None` lists what is there.
        self.producer
            .client()
            .fetch_metadata(None, patience)
            .map(|_| ())
    }
}

impl Publisher {
    /// Connects; `max_message_bytes` is what the producer accepts at most, and `shrink` makes a
    /// record that the broker finds too large fit it.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(
        bus: &BusSettings,
        max_message_bytes: usize,
        ledger: SharedLedger,
        shrink: fn(OutboundRecord) -> OutboundRecord,
    ) -> Result<Self, PublishError> {
        let mut config = bus.producer_config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", max_message_bytes.to_string());
        for (name, value) in [("linger.ms", "5"), ("partitioner", "murmur2_random")] {
            if !bus.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        Ok(Self {
            producer: config.create().map_err(PublishError::Create)?,
            ledger,
            shrink,
        })
    }

    /// A probe on this publisher's connection.
    pub fn probe(&self) -> PublisherProbe {
        PublisherProbe {
            producer: self.producer.clone(),
        }
    }

    /// Publishes until the channel closes and everything is acknowledged; each token is given to
    /// `close` once its inputs are finished.
    ///
    /// # Errors
    /// On the first record that the broker refuses for good.
    pub async fn run<Token: Send>(
        self,
        mut publications: mpsc::Receiver<Publication<Token>>,
        close: impl Fn(Token),
    ) -> Result<(), PublishError> {
        let mut pending = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !pending.is_empty() {
            tokio::select! {
                Some(published) = pending.next(), if !pending.is_empty() => {
                    if let Some(token) = published? {
                        close(token);
                    }
                }
                received = publications.recv(),
                    if is_open && pending.len() < MAX_UNACKNOWLEDGED =>
                {
                    match received {
                        Some(publication) => pending.push(self.publish(publication)),
                        None => is_open = false,
                    }
                }
            }
        }
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(FLUSH_TIMEOUT)).await;
        match flushed {
            Ok(result) => result.map_err(PublishError::Flush),
            Err(_) => Err(PublishError::Flush(KafkaError::Canceled)),
        }
    }

    /// The token, unless the publication was dropped as stale.
    async fn publish<Token>(
        &self,
        publication: Publication<Token>,
    ) -> Result<Option<Token>, PublishError> {
        if self.is_stale(&publication.finishes) {
            tracing::debug!("publication of revoked partitions dropped; their new owner makes it");
            return Ok(None);
        }
        let started = Instant::now();
        let deliveries = publication
            .records
            .iter()
            .map(|record| self.produce(record));
        futures::future::try_join_all(deliveries).await?;
        let mut ledger = lock(&self.ledger);
        for input in &publication.finishes {
            ledger.finish(&input.source, input.generation);
        }
        telemetry::stage_took(telemetry::Stage::Publish, started.elapsed());
        Ok(Some(publication.token))
    }

    /// Whether another member owns the inputs by now.
    fn is_stale(&self, inputs: &[FinishedInput]) -> bool {
        let ledger = lock(&self.ledger);
        inputs
            .iter()
            .any(|input| !ledger.is_current(&input.source.topic_partition(), input.generation))
    }

    async fn produce(&self, record: &OutboundRecord) -> Result<(), PublishError> {
        match self.send(record).await {
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                tracing::warn!(
                    topic = %record.topic,
                    bytes = record.value.as_ref().map_or(0, Vec::len),
                    "record exceeds the broker's message limit: published without its value"
                );
                self.send(&(self.shrink)(record.clone())).await
            }
            sent => sent,
        }
        .map_err(|source| PublishError::Produce {
            topic: record.topic.to_string(),
            source,
        })
    }

    async fn send(&self, record: &OutboundRecord) -> Result<(), KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for header in &record.headers {
            headers = headers.insert(KafkaHeader {
                key: &header.name,
                value: header.value.as_ref(),
            });
        }
        let mut message: FutureRecord<'_, Vec<u8>, Vec<u8>> =
            FutureRecord::to(record.topic.as_str()).headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        self.producer
            .send(message, Timeout::Never)
            .await
            .map(|_| ())
            .map_err(|(error, _)| error)
    }
}

/// The inputs of records, as [`Publication::finishes`] wants them.
pub fn finished_inputs<'a>(
    records: impl IntoIterator<Item = &'a Arc<Record>>,
) -> Vec<FinishedInput> {
    records
        .into_iter()
        .map(|record| FinishedInput {
            source: record.source.clone(),
            generation: record.generation,
        })
        .collect()
}
