//! Rules for `[bus]`: the brokers, and which of librdkafka's properties are free to set.

use super::secrets::{REDACTED, is_secret, redact_brokers};
use super::validation::Rules;
use crate::kafka::client::{UNKNOWN_PROPERTY, property_fault};
use crate::kafka::group_protocol::{BROKERS_TIMES, GROUP_PROTOCOL, GroupProtocol};

/// Properties that carry a promise of Panoptes, and where to set what they stand for.
const OWNED_PROPERTIES: [(&str, &str); 17] = [
    ("bootstrap.servers", "set `bus.brokers`"),
    ("metadata.broker.list", "set `bus.brokers`"),
    ("group.id", "set `bus.group_id`"),
    (
        "enable.auto.commit",
        "offsets are committed by Panoptes alone",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed by Panoptes alone",
    ),
    ("auto.commit.interval.ms", "set `bus.commit_interval`"),
    (
        "auto.commit.enable",
        "offsets are committed by Panoptes alone",
    ),
    (
        "partition.assignment.strategy",
        "the views of a part meet only under `range`",
    ),
    (
        "group.protocol.type",
        "there is one type that consumers have",
    ),
    (
        "enable.partition.eof",
        "the end of a partition is no event here",
    ),
    ("transactional.id", "set `output.delivery`"),
    (
        "transaction.timeout.ms",
        "set `output.transactions.timeout`",
    ),
    (
        "acks",
        "results are acknowledged by all in-sync replicas before offsets are committed",
    ),
    (
        "request.required.acks",
        "results are acknowledged by all in-sync replicas before offsets are committed",
    ),
    (
        "enable.idempotence",
        "retries must not double results, so it is always on",
    ),
    (
        "statistics.interval.ms",
        "the ends of partitions are learnt from statistics",
    ),
    (
        "topic.metadata.refresh.interval.ms",
        "topics that join later are looked for every 10 s",
    ),
];

impl Rules<'_> {
    pub(super) fn bus(&mut self) {
        let bus = &self.settings.bus;
        let are_brokers = !bus.brokers.is_empty()
            && bus.brokers.split(',').all(|broker| {
                let address = broker.trim();
                let address = address.rsplit("://").next().unwrap_or(address);
                address.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
                })
            });
        self.require(
            are_brokers,
            "bus.brokers",
            redact_brokers(&bus.brokers),
            "must be `host:port`, several separated by commas",
        );
        self.require(
            !bus.brokers.contains('@'),
            "bus.brokers",
            redact_brokers(&bus.brokers),
            "must not hold credentials; set `sasl.username` and `sasl.password` in `bus.properties`",
        );
        self.name("bus.group_id", &bus.group_id);
    }

    pub(super) fn properties(&mut self) {
        let properties = &self.settings.bus.properties;
        for (name, instead) in OWNED_PROPERTIES {
            if let Some(value) = properties.get(name) {
                self.require(
                    false,
                    &format!("bus.properties.{name}"),
                    value,
                    &format!("is not free to set: {instead}"),
                );
            }
        }
        let resets = [
            "earliest",
            "smallest",
            "beginning",
            "latest",
            "largest",
            "end",
            "error",
        ];
        if let Some(reset) = properties.get("auto.offset.reset") {
            self.require(
                resets.contains(&reset),
                "bus.properties.auto.offset.reset",
                reset,
                "must be `earliest`, `latest` or `error`",
            );
        }
        for (name, value) in properties.iter() {
            if value.is_empty() {
                self.missing(&format!("bus.properties.{name}"), "must not be empty");
            }
        }
        for name in [
            "max.poll.interval.ms",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "message.max.bytes",
        ] {
            if let Some(value) = properties.get(name) {
                self.require(
                    value.parse::<u64>().is_ok(),
                    &format!("bus.properties.{name}"),
                    value,
                    "must be a whole number",
                );
            }
        }
        self.group_protocol();
        self.known_properties();
    }

    /// What may be set beside the protocol by which the group assigns.
    fn group_protocol(&mut self) {
        let properties = &self.settings.bus.properties;
        let named = properties.get(GROUP_PROTOCOL);
        if let Some(protocol) = named {
            self.require(
                ["classic", "consumer"].contains(&protocol),
                "bus.properties.group.protocol",
                protocol,
                "must be `classic` or `consumer`",
            );
        }
        let protocol = GroupProtocol::of(named);
        if let Some(assignor) = properties.get("group.remote.assignor") {
            let key = "bus.properties.group.remote.assignor";
            let rule = "must be `range`, under which alone the views of a part meet";
            self.require(assignor == "range", key, assignor, rule);
            if assignor == "range" && protocol == GroupProtocol::Classic {
                let rule = "is for `bus.properties.group.protocol` `consumer` only";
                self.require(false, key, assignor, rule);
            }
        }
        if protocol == GroupProtocol::Classic {
            return;
        }
        for (name, brokers) in BROKERS_TIMES {
            if let Some(value) = properties.get(name) {
                self.require(
                    false,
                    &format!("bus.properties.{name}"),
                    value,
                    &format!(
                        "is not free to set with `bus.properties.group.protocol` `consumer`: the \
                         brokers' `{brokers}` is in force"
                    ),
                );
            }
        }
    }

    /// Whether librdkafka takes the properties that no rule above has found fault with.
    fn known_properties(&mut self) {
        for (name, value) in self.settings.bus.properties.iter() {
            let key = format!("bus.properties.{name}");
            if self.problems.iter().any(|problem| problem.key == key) {
                continue;
            }
            if let Some(fault) = property_fault(name, value) {
                // A misspelt name does not tell that the value is secret.
                let is_hidden = is_secret(name) || fault == UNKNOWN_PROPERTY;
                let shown = if is_hidden { REDACTED } else { value };
                self.require(false, &key, shown, &fault);
            }
        }
    }
}
