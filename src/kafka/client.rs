//! How every Kafka client of this crate is configured and what all of them log.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// Where the bus is, and what librdkafka should know besides.
#[derive(Clone, Debug, Default)]
pub struct BusSettings {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Any librdkafka property (TLS, SASL, tuning).
    pub properties: BTreeMap<String, String>,
}

impl BusSettings {
    /// The properties that all clients share; a client's own settings go on top.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "panoptes");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// As [`Self::client_config`], for a client that only produces: librdkafka warns of every
    /// consumer property it finds there.
    pub(crate) fn producer_config(&self) -> ClientConfig {
        let mut config = self.client_config();
        for name in CONSUMER_PROPERTIES {
            config.remove(name);
        }
        config
    }

    /// As [`Self::client_config`], for a client that only consumes.
    pub(crate) fn consumer_config(&self) -> ClientConfig {
        let mut config = self.client_config();
        for name in PRODUCER_PROPERTIES {
            config.remove(name);
        }
        config
    }
}

/// Consumer-only properties that a user may set in `bus.properties`.
const CONSUMER_PROPERTIES: [&str; 16] = [
    "auto.offset.reset",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];

/// Producer-only properties that a user may set in `bus.properties`.
const PRODUCER_PROPERTIES: [&str; 12] = [
    "acks",
    "batch.size",
    "batch.num.messages",
    "compression.codec",
    "compression.type",
    "compression.level",
    "delivery.timeout.ms",
    "linger.ms",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.max.ms",
    "queue.buffering.max.kbytes",
];

/// What is wrong with a property of which the name is.
pub(crate) const UNKNOWN_PROPERTY: &str = "is no property that librdkafka knows";

/// What is wrong with a property, if anything is; nothing is opened to find out. The value is never
/// repeated, for it may be secret.
pub(crate) fn property_fault(name: &str, value: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Some(UNKNOWN_PROPERTY.to_owned())
        }
        Err(KafkaError::ClientConfig(_, reason, ..)) if !reason.contains(value) => {
            Some(format!("is refused by librdkafka: {reason}"))
        }
        Err(_) => Some("is no value that librdkafka takes for it".to_owned()),
    }
}

/// Passes librdkafka's own words on to the log.
pub(crate) fn log_client_message(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            // Client errors are retried by librdkafka; what is fatal comes back from a call.
            tracing::warn!(facility, message, "kafka client error");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "kafka client warning"),
        _ => tracing::debug!(facility, message, "kafka client"),
    }
}
