//! A member of the group by its own name (`group.instance.id`), which the group keeps while it restarts.
//!
//! Closing such a consumer does not leave the group: whoever comes back with the name within
//! `session.timeout.ms` has the same partitions, and nobody else notices. Two that run with one name
//! fence each other, again and again if each were built anew; so the one that was there first ends.
//! Its producer, named alike, may be fenced before its consumer hears of it with a heartbeat. Where
//! the brokers assign (KIP-848) it is the one that comes later that ends.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;

use super::consumer_messages::ConsumerError;
use super::consumer_settings::ConsumerSettings;

/// librdkafka's default of `heartbeat.interval.ms`.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// How long after its producer the other instance's consumer may join, and its heartbeats be late.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);

/// Less than a consumer may take to close.
const LONGEST_PATIENCE: Duration = Duration::from_secs(15);

/// What a static member is known by.
#[derive(Clone, Debug)]
pub(super) struct StaticMember {
    group_id: String,
    instance_id: String,
    heartbeat: Duration,
}

impl StaticMember {
    /// None where the member has no name of its own.
    pub(super) fn of(settings: &ConsumerSettings) -> Option<Self> {
        let properties = &settings.bus.properties;
        let heartbeat = properties.get("heartbeat.interval.ms");
        let millis = heartbeat.and_then(|value| value.parse().ok());
        Some(Self {
            group_id: settings.group_id.clone(),
            instance_id: properties.get("group.instance.id")?.clone(),
            heartbeat: millis.map_or(HEARTBEAT_INTERVAL, Duration::from_millis),
        })
    }

    /// How long after its producer a consumer may be fenced.
    pub(super) fn fencing_patience(&self) -> Duration {
        (2 * self.heartbeat + JOIN_PATIENCE).min(LONGEST_PATIENCE)
    }

    /// What a fatal error means, if it is about the name.
    pub(super) fn error(&self, code: RDKafkaErrorCode) -> Option<ConsumerError> {
        let (group_id, instance_id) = (self.group_id.clone(), self.instance_id.clone());
        match code {
            RDKafkaErrorCode::FencedInstanceId => Some(ConsumerError::FencedInstance {
                group_id,
                instance_id,
            }),
            RDKafkaErrorCode::UnreleasedInstanceId => Some(ConsumerError::UnreleasedInstance {
                group_id,
                instance_id,
            }),
            _ => None,
        }
    }
}
