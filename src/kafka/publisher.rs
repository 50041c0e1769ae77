//! Produces results and dead letters, and finishes their inputs in the ledger once the broker
//! has them.
//!
//! `at_least_once`: a publication's inputs are finished only when every one of its records is
//! acknowledged, so a crash repeats work and loses none. The producer is idempotent, so its own
//! retries double nothing.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::mpsc;

use super::client::BusSettings;
use super::consumer::{SharedLedger, lock};
use super::offsets::OffsetLedger;
use super::record_producer::RecordProducer;
use crate::domain::{OutboundRecord, Record, SourceOffset, Topic};
use crate::telemetry;

/// How many publications may wait for the broker at once. Their inputs stay in the memory budget
/// until then; what goes out does not count there (a result takes some 10 KB with its maps, a dead
/// letter as much as its input once more), so this bounds it.
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

/// A record to publish.
pub struct Outgoing {
    /// The record.
    pub record: OutboundRecord,
    /// Makes the next smaller form of a record that the broker found too large; `None` when there
    /// is none, which ends the run.
    pub smaller: Box<dyn FnMut(OutboundRecord) -> Option<OutboundRecord> + Send + Sync>,
}

impl Outgoing {
    /// Makes the record smaller until it has at most `largest` bytes.
    pub(super) fn shrink_to(&mut self, largest: usize) -> Result<(), PublishError> {
        while self.record.size_bytes() > largest {
            let bytes = self.record.size_bytes();
            let topic = self.record.topic.to_string();
            let smaller = (self.smaller)(self.record.clone());
            self.record = smaller.ok_or(PublishError::TooLarge { topic, bytes })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.record, formatter)
    }
}

/// What goes out together, and which inputs it finishes.
#[derive(Debug)]
pub struct Publication<Token> {
    /// Records to produce; none for inputs that were absorbed.
    pub records: Vec<Outgoing>,
    /// Says that a part is closed. In a transaction it goes out after the offsets: whoever owns the
    /// partitions next, and has waited for these, finds no closed part that is still undecided.
    pub closure: Option<OutboundRecord>,
    /// Inputs that are done once the records are acknowledged.
    pub finishes: Vec<FinishedInput>,
    /// Dropped when all is done.
    pub token: Token,
}

impl<Token> Publication<Token> {
    /// Whether no other member owns the inputs by now.
    pub(super) fn is_current(&self, ledger: &OffsetLedger) -> bool {
        let mut inputs = self.finishes.iter();
        inputs.all(|input| ledger.is_current(&input.source.topic_partition(), input.generation))
    }
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
    /// A record is too large and cannot be made smaller.
    #[error(
        "a record for `{topic}` exceeds the message limit even in its smallest form of `{bytes}` \
         bytes; raise `output.max_message_bytes` and the topic's `max.message.bytes`"
    )]
    TooLarge {
        /// Topic produced to.
        topic: String,
        /// Size of the record.
        bytes: usize,
    },
    /// One transaction after the other was aborted.
    #[error(
        "`{count}` transactions in a row were aborted, the last one since: {last}; what they held is read again"
    )]
    Aborts {
        /// How many.
        count: u32,
        /// Why the last one was.
        last: String,
    },
    /// The producer cannot go on, or does not know whether its last transaction is committed. Who
    /// starts anew from what the group has committed loses nothing and doubles nothing.
    #[error("failed to {during} a transaction: {source}")]
    Unusable {
        /// The step.
        during: &'static str,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// Acknowledgements did not come in time at the end.
    #[error("failed to flush the producer: {0}")]
    Flush(KafkaError),
}

/// Produces publications in order.
pub struct Publisher {
    producer: RecordProducer,
    ledger: SharedLedger,
    /// Held while a refused record is sent again: a broker refuses all records of a batch that is
    /// too large, and one at a time each is judged by its own size.
    refused: tokio::sync::Mutex<()>,
}

impl Publisher {
    /// Connects; `max_message_bytes` is what the producer accepts at most.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(
        bus: &BusSettings,
        max_message_bytes: usize,
        ledger: SharedLedger,
    ) -> Result<Self, PublishError> {
        Ok(Self {
            producer: RecordProducer::connect(bus, max_message_bytes)
                .map_err(PublishError::Create)?,
            ledger,
            refused: tokio::sync::Mutex::new(()),
        })
    }

    /// The connection, to ask whether the brokers can be reached.
    pub fn producer(&self) -> RecordProducer {
        self.producer.clone()
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
        if !publication.is_current(&lock(&self.ledger)) {
            tracing::debug!("publication of revoked partitions dropped; their new owner makes it");
            return Ok(None);
        }
        let Publication {
            records,
            closure,
            finishes,
            token,
        } = publication;
        let started = Instant::now();
        let deliveries = records.into_iter().map(|record| self.produce(record));
        futures::future::try_join_all(deliveries).await?;
        // After the result: a part whose result is not there must not be known as closed.
        if let Some(closure) = closure {
            let sent = self.producer.send(&closure).await;
            sent.map_err(|source| produce_error(&closure.topic, source))?;
        }
        let mut ledger = lock(&self.ledger);
        for input in &finishes {
            ledger.finish(&input.source, input.generation);
        }
        telemetry::stage_took(telemetry::Stage::Publish, started.elapsed());
        Ok(Some(token))
    }

    async fn produce(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let Outgoing {
            mut record,
            mut smaller,
        } = outgoing;
        match self.producer.send(&record).await {
            Err(error) if is_size(&error) => {}
            sent => return sent.map_err(|source| produce_error(&record.topic, source)),
        }
        let _one_at_a_time = self.refused.lock().await;
        loop {
            match self.producer.send(&record).await {
                Err(error) if is_size(&error) => {}
                sent => return sent.map_err(|source| produce_error(&record.topic, source)),
            }
            let bytes = record.size_bytes();
            tracing::warn!(topic = %record.topic, bytes, "record exceeds the message limit");
            let topic = record.topic.to_string();
            record = smaller(record).ok_or(PublishError::TooLarge { topic, bytes })?;
        }
    }
}

/// Whether the client or the broker found a record, or the batch that it was in, too large.
pub(super) fn is_size(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageProduction(
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge
        )
    )
}

pub(super) fn produce_error(topic: &Topic, source: KafkaError) -> PublishError {
    PublishError::Produce {
        topic: topic.to_string(),
        source,
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::TopicPartition;
    use crate::kafka::embedded::EmbeddedBroker;

    /// Above what `MAX_BYTES` allows.
    const LARGE: usize = 20_000;
    const MAX_BYTES: usize = 10_000;

    fn outgoing(
        value_bytes: usize,
        smaller: impl FnMut(OutboundRecord) -> Option<OutboundRecord> + Send + Sync + 'static,
    ) -> Outgoing {
        Outgoing {
            record: OutboundRecord {
                topic: Topic::from("results"),
                partition: None,
                key: Some(b"part".to_vec()),
                value: Some(vec![7; value_bytes]),
                headers: Vec::new(),
            },
            smaller: Box::new(smaller),
        }
    }

    /// Publishes one record that finishes one input; says how it ended and what may be committed.
    async fn publish(record: Outgoing) -> (Result<(), PublishError>, Option<i64>) {
        let broker = EmbeddedBroker::start().unwrap();
        let bus = BusSettings {
            brokers: broker.brokers(),
            ..BusSettings::default()
        };
        let source = SourceOffset {
            topic: Topic::from("cam"),
            partition: 0,
            offset: 4,
        };
        let mut ledger = OffsetLedger::default();
        ledger.assign([source.topic_partition()], 1);
        ledger.begin(&source);
        let ledger = Arc::new(Mutex::new(ledger));
        let publisher = Publisher::connect(&bus, MAX_BYTES, Arc::clone(&ledger)).unwrap();
        let (publications, received) = mpsc::channel(1);
        let publication = Publication {
            records: vec![record],
            closure: None,
            finishes: vec![FinishedInput {
                source: source.clone(),
                generation: 1,
            }],
            token: (),
        };
        publications.send(publication).await.unwrap();
        drop(publications);
        let outcome = publisher.run(received, |()| {}).await;
        let partition: TopicPartition = source.topic_partition();
        let position = lock(&ledger).commit_position(&partition);
        (outcome, position)
    }

    #[tokio::test]
    async fn a_record_that_is_too_large_goes_out_in_its_next_smaller_form() {
        let mut sizes = vec![100, LARGE - 1];
        let record = outgoing(LARGE, move |record| {
            let value = Some(vec![7; sizes.pop()?]);
            Some(OutboundRecord { value, ..record })
        });
        let (outcome, position) = publish(record).await;
        outcome.unwrap();
        assert_eq!(position, Some(5));
    }

    #[tokio::test]
    async fn a_record_without_a_smaller_form_ends_the_run_and_finishes_nothing() {
        let (outcome, position) = publish(outgoing(LARGE, |_| None)).await;
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("exceeds the message limit"), "{error}");
        assert_eq!(position, Some(4));
    }

    #[tokio::test]
    async fn a_record_that_fits_is_left_as_it_is() {
        let record = outgoing(100, |_| panic!("it fits"));
        let (outcome, position) = publish(record).await;
        outcome.unwrap();
        assert_eq!(position, Some(5));
    }
}
