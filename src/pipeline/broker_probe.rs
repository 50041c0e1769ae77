//! Whether what is published would be taken: asked again and again, for readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admin::{Condition, Readiness};
use crate::domain::Topic;
use crate::kafka::client::BusSettings;
use crate::kafka::record_producer::RecordProducer;
use crate::kafka::topic_admin::create_topics_of_broker_size;

/// How often the brokers are asked, and how long for an answer.
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether the publisher is initialised, before anything is asked.
const INITIALISATION_INTERVAL: Duration = Duration::from_millis(20);

/// Asks the brokers.
pub(crate) struct BrokerProbe {
    pub(crate) producer: RecordProducer,
    pub(crate) bus: BusSettings,
    /// Where results and dead letters go.
    pub(crate) topics: Vec<Topic>,
    /// Whether the brokers have taken the publisher.
    pub(crate) is_initialised: Arc<AtomicBool>,
    pub(crate) readiness: Readiness,
}

impl BrokerProbe {
    /// Runs for as long as it is let.
    pub(crate) async fn run(self) {
        while !self.is_initialised.load(Ordering::Relaxed) {
            tokio::time::sleep(INITIALISATION_INTERVAL).await;
        }
        let mut rounds = tokio::time::interval(INTERVAL);
        loop {
            rounds.tick().await;
            let missing = self.missing_topics().await;
            let is_reached = missing.is_some();
            let is_complete = match missing {
                None => false,
                Some(missing) => missing.is_empty() || self.create(&missing).await,
            };
            // Nothing is said of topics while no broker is reached.
            if is_reached {
                self.readiness.set(Condition::OutputTopics, is_complete);
            }
            self.readiness.set(Condition::PublisherUp, is_reached);
        }
    }

    /// The topics that the brokers do not have; none when no broker says which they have.
    async fn missing_topics(&self) -> Option<Vec<Topic>> {
        let producer = self.producer.clone();
        let asked = tokio::task::spawn_blocking(move || producer.topics(TIMEOUT)).await;
        match asked {
            Ok(Ok(there)) => {
                let missing = self.topics.iter().filter(|topic| !there.contains(*topic));
                Some(missing.cloned().collect())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "publisher does not reach the brokers");
                None
            }
            Err(_) => None, // the runtime ends
        }
    }

    /// Makes topics, with as many partitions and copies as the brokers give by themselves.
    async fn create(&self, missing: &[Topic]) -> bool {
        match create_topics_of_broker_size(&self.bus, missing).await {
            Ok(()) => {
                tracing::info!(topics = ?missing, "topics for results or dead letters are made");
                true
            }
            Err(error) => {
                tracing::error!(
                    topics = ?missing,
                    %error,
                    "topics for results or dead letters are missing and cannot be made: create them, or give this \
                     instance the right to"
                );
                false
            }
        }
    }
}
