//! How members of a group agree on who reads what: the classic protocol, or that of KIP-848
//! (`group.protocol` is `consumer`), in which the brokers decide.
//!
//! Either way by `range`: the views of one part lie on one partition number of every camera topic,
//! and no other assignor gives them all to one member. Under `classic` an assignment replaces the
//! one before. Under `consumer` it adds to it, a revocation takes some of it away, and the member's
//! epoch, which vouches for the offsets that it commits, moves on without either.

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;

use super::client::BusSettings;

/// The property that chooses.
pub(crate) const GROUP_PROTOCOL: &str = "group.protocol";

/// Properties that librdkafka does not take under `consumer`, and the broker's that stand for them.
pub(crate) const BROKERS_TIMES: [(&str, &str); 2] = [
    ("session.timeout.ms", "group.consumer.session.timeout.ms"),
    (
        "heartbeat.interval.ms",
        "group.consumer.heartbeat.interval.ms",
    ),
];

/// Who assigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupProtocol {
    /// One of the members.
    Classic,
    /// The brokers.
    Consumer,
}

impl GroupProtocol {
    /// As the properties say; classic where they say nothing.
    pub(crate) fn of(property: Option<&str>) -> Self {
        match property {
            Some("consumer") => Self::Consumer,
            _ => Self::Classic,
        }
    }

    pub(super) fn of_bus(bus: &BusSettings) -> Self {
        Self::of(bus.properties.get(GROUP_PROTOCOL).map(String::as_str))
    }

    pub(super) fn ask_for_range(self, config: &mut ClientConfig) {
        let assignor = match self {
            Self::Classic => "partition.assignment.strategy",
            Self::Consumer => "group.remote.assignor",
        };
        config.set(assignor, "range");
    }

    pub(super) fn assign<C: ConsumerContext>(
        self,
        consumer: &BaseConsumer<C>,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        match self {
            Self::Classic => consumer.assign(list),
            Self::Consumer => consumer.incremental_assign(list),
        }
    }

    pub(super) fn unassign<C: ConsumerContext>(
        self,
        consumer: &BaseConsumer<C>,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        match self {
            Self::Classic => consumer.unassign(),
            Self::Consumer => consumer.incremental_unassign(list),
        }
    }
}
