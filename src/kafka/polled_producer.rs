//! A producer with a thread that serves its delivery reports.
//!
//! In place of `rdkafka`'s `FutureProducer`, whose thread polls for 100 ms at a time. `BaseProducer::poll` waits
//! in whole milliseconds and passes what is left of the last one asking again without a pause: nearly a hundredth
//! of a core, also while nothing is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, ProducerContext};
use tokio::sync::oneshot;

use super::client::log_client_message;

/// How long one poll waits; a report ends no wait, but is served at once. Longer than whole milliseconds by
/// what passes until the wait begins, so that it is not cut to one millisecond less.
const POLL_INTERVAL: Duration = Duration::from_micros(250_050);

/// What the brokers say of one record.
pub(super) type Delivery = oneshot::Receiver<KafkaResult<()>>;

/// The other end of a [`Delivery`].
pub(super) type Told = Box<oneshot::Sender<KafkaResult<()>>>;

/// The client, as the calls of transactions need it.
pub(super) type ReportingProducer = BaseProducer<Reports>;

/// Tells who sent a record what became of it.
pub(super) struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_client_message(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // What does not pass comes back from a call.
        tracing::warn!(%error, reason, "kafka producer error");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Told;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        told.send(outcome).ok(); // nobody may wait for it any more
    }
}

/// A client and the thread that polls it, which ends with it.
pub(super) struct PolledProducer {
    client: Arc<ReportingProducer>,
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PolledProducer {
    /// Makes the client; it connects by itself.
    ///
    /// # Errors
    /// When a property is refused or the thread cannot be started.
    pub(super) fn create(config: &ClientConfig) -> KafkaResult<Self> {
        let client = Arc::new(ReportingProducer::from_config_and_context(config, Reports)?);
        let is_ending = Arc::new(AtomicBool::new(false));
        let thread = {
            let (client, is_ending) = (Arc::clone(&client), Arc::clone(&is_ending));
            let thread = thread::Builder::new().name("producer-poll".to_owned());
            thread.spawn(move || {
                while !is_ending.load(Ordering::Relaxed) {
                    client.poll(POLL_INTERVAL);
                }
            })
        };
        let thread = thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self {
            client,
            is_ending,
            thread: Some(thread),
        })
    }

    pub(super) fn client(&self) -> &ReportingProducer {
        &self.client
    }
}

impl Drop for PolledProducer {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::warn!("the thread of a producer panicked");
        }
    }
}
