//! Every rule that the values must keep, alone and between each other.
//!
//! Pure: it opens nothing, and it reports all problems, not the first.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use regex::Regex;
use tracing_subscriber::EnvFilter;

use super::secrets::{REDACTED, is_secret, redact_brokers};
use super::{Delivery, Device, Devices, Problem, Settings};
use crate::kafka::client::property_fault;
use crate::kafka::group_protocol::{BROKERS_TIMES, GROUP_PROTOCOL, GroupProtocol};

/// librdkafka's default.
const RECEIVE_MESSAGE_MAX_BYTES: u64 = 100_000_000;
/// What comes with an image in a response: key, headers, what the protocol adds.
const ENVELOPE_BYTES: u64 = 1 << 20;
/// The shortest standstill that is told for certain from a busy machine.
const SHORTEST_STALL: Duration = Duration::from_secs(5);

/// More workers on one device than that only cost its memory.
const MOST_WORKERS: usize = 8;

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

/// What Rust's regular expressions know and POSIX's do not, and what to write instead.
const NOT_POSIX: [(&str, &str); 9] = [
    ("\\d", "`[0-9]`"),
    ("\\D", "`[^0-9]`"),
    ("\\w", "`[A-Za-z0-9_]`"),
    ("\\W", "`[^A-Za-z0-9_]`"),
    ("\\s", "nothing: topic names hold no spaces"),
    ("\\S", "`.`"),
    ("\\b", "the characters around it"),
    ("\\B", "the characters around it"),
    ("(?", "a plain group `(`"),
];

/// The longest name of a Kafka topic.
const MAX_TOPIC_LENGTH: usize = 249;

/// The longest ID, view, line or class name in bytes, as for part IDs.
const MAX_NAME_LENGTH: usize = 256;

/// Map sides outside this are of no use to anyone.
const MAP_SIDES: std::ops::RangeInclusive<u32> = 8..=1024;

/// The smallest message that holds a result without maps.
const MIN_MESSAGE_BYTES: u64 = 10_000;

/// All problems of the settings.
pub(super) fn problems(settings: &Settings) -> Vec<Problem> {
    let mut rules = Rules {
        settings,
        problems: Vec::new(),
    };
    rules.bus();
    rules.properties();
    rules.deadlines();
    rules.input();
    rules.views();
    rules.reassembly();
    rules.memory();
    rules.lines();
    rules.limits();
    rules.model();
    rules.output_topics();
    rules.output();
    rules.watchdog();
    rules.telemetry();
    rules.problems
}

pub(super) struct Rules<'a> {
    pub(super) settings: &'a Settings,
    problems: Vec<Problem>,
}

impl Rules<'_> {
    pub(super) fn require(&mut self, holds: bool, key: &str, value: impl Display, rule: &str) {
        if !holds {
            self.problems.push(Problem {
                key: key.to_owned(),
                value: Some(value.to_string()),
                rule: rule.to_owned(),
            });
        }
    }

    fn missing(&mut self, key: &str, rule: &str) {
        self.problems.push(Problem {
            key: key.to_owned(),
            value: None,
            rule: rule.to_owned(),
        });
    }

    pub(super) fn positive(&mut self, key: &str, duration: Duration) {
        self.require(
            !duration.is_zero(),
            key,
            humantime::format_duration(duration),
            "must be longer than 0",
        );
    }

    fn bus(&mut self) {
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

    fn properties(&mut self) {
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
                let shown = if is_secret(name) { REDACTED } else { value };
                self.require(false, &key, shown, &fault);
            }
        }
    }

    pub(super) fn number_property(&self, name: &str) -> Option<u64> {
        self.settings.bus.properties.get(name)?.parse().ok()
    }

    fn input(&mut self) {
        let input = &self.settings.input;
        match (input.topics.is_empty(), &input.topic_regex) {
            (true, None) => self.missing(
                "input.topics",
                "either `input.topics` or `input.topic_regex` must be set",
            ),
            (false, Some(regex)) => self.require(
                false,
                "input.topic_regex",
                regex,
                "must not be set together with `input.topics`",
            ),
            (true, Some(regex)) => self.topic_regex(regex),
            (false, None) => {}
        }
        for (index, topic) in input.topics.iter().enumerate() {
            self.topic("input.topics", topic);
            self.require(
                !input.topics[..index].contains(topic),
                "input.topics",
                topic,
                "must not be named twice",
            );
        }
        if let Some(line) = &input.line {
            self.name("input.line", line);
        }
        if let Some(class) = &input.class {
            self.name("input.class", class);
        }
    }

    fn topic_regex(&mut self, text: &str) {
        self.require(
            text.starts_with('^'),
            "input.topic_regex",
            text,
            "must start with `^`, as Kafka clients tell a pattern from a name by it",
        );
        for (pattern, instead) in NOT_POSIX {
            self.require(
                !holds_unescaped(text, pattern),
                "input.topic_regex",
                text,
                &format!(
                    "must be a POSIX extended regular expression, as Kafka's client matches it: \
                     instead of `{pattern}` write {instead}"
                ),
            );
        }
        if let Err(error) = Regex::new(text) {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().to_owned();
            self.require(
                false,
                "input.topic_regex",
                text,
                &format!("must be a regular expression: {reason}"),
            );
        }
    }

    /// Whether a topic is among the inputs.
    fn reads(&self, topic: &str) -> bool {
        let input = &self.settings.input;
        match &input.topic_regex {
            Some(text) => Regex::new(text).is_ok_and(|regex| regex.is_match(topic)),
            None => input.topics.iter().any(|name| name == topic),
        }
    }

    fn views(&mut self) {
        let views = &self.settings.views;
        self.view_list("views.default", &views.default);
        for (table, lists) in [("class", &views.class), ("line", &views.line)] {
            for (name, list) in lists {
                let key = format!("views.{table}.{name}");
                if list.is_empty() {
                    self.missing(&key, "must name at least one view");
                }
                self.view_list(&key, list);
            }
        }
    }

    fn view_list(&mut self, key: &str, list: &[String]) {
        for (index, view) in list.iter().enumerate() {
            self.name(key, view);
            self.require(
                !list[..index].contains(view),
                key,
                view,
                "must not be named twice",
            );
        }
    }

    fn reassembly(&mut self) {
        let reassembly = &self.settings.reassembly;
        self.positive("reassembly.timeout", reassembly.timeout);
        self.positive("reassembly.idle_after", reassembly.idle_after);
        self.positive("reassembly.max_future", reassembly.max_future);
        self.require(
            reassembly.idle_after < reassembly.timeout,
            "reassembly.idle_after",
            humantime::format_duration(reassembly.idle_after),
            &format!(
                "must be shorter than `reassembly.timeout` ({})",
                humantime::format_duration(reassembly.timeout)
            ),
        );
        self.require(
            reassembly.reuse_after > reassembly.max_future
                || reassembly.reuse_after <= reassembly.timeout,
            "reassembly.reuse_after",
            humantime::format_duration(reassembly.reuse_after),
            &format!(
                "must be longer than `reassembly.max_future` ({}), else a view with a wrong time \
                 makes its part be forgotten too soon",
                humantime::format_duration(reassembly.max_future)
            ),
        );
        self.require(
            reassembly.reuse_after > reassembly.timeout,
            "reassembly.reuse_after",
            humantime::format_duration(reassembly.reuse_after),
            &format!(
                "must be longer than `reassembly.timeout` ({})",
                humantime::format_duration(reassembly.timeout)
            ),
        );
    }

    fn memory(&mut self) {
        let reassembly = &self.settings.reassembly;
        self.require(
            reassembly.memory_high > 0.0 && reassembly.memory_high <= 1.0,
            "reassembly.memory_high",
            reassembly.memory_high,
            "must be above 0 and at most 1",
        );
        self.require(
            reassembly.memory_low > 0.0 && reassembly.memory_low < reassembly.memory_high,
            "reassembly.memory_low",
            reassembly.memory_low,
            &format!(
                "must be above 0 and below `reassembly.memory_high` ({})",
                reassembly.memory_high
            ),
        );
        self.require(
            reassembly.memory_budget >= self.settings.limits.max_bytes,
            "reassembly.memory_budget",
            reassembly.memory_budget,
            &format!(
                "must hold at least one record of `limits.max_bytes` ({})",
                self.settings.limits.max_bytes
            ),
        );
    }

    fn lines(&mut self) {
        let reassembly = &self.settings.reassembly;
        for (line, own) in &self.settings.lines {
            let key = format!("lines.{line}.timeout");
            let Some(timeout) = own.timeout else {
                continue;
            };
            self.positive(&key, timeout);
            self.require(
                timeout > reassembly.idle_after && timeout < reassembly.reuse_after,
                &key,
                humantime::format_duration(timeout),
                &format!(
                    "must be longer than `reassembly.idle_after` ({}) and shorter than \
                     `reassembly.reuse_after` ({})",
                    humantime::format_duration(reassembly.idle_after),
                    humantime::format_duration(reassembly.reuse_after)
                ),
            );
        }
    }

    fn limits(&mut self) {
        let limits = &self.settings.limits;
        self.require(
            limits.max_bytes.as_u64() > 0,
            "limits.max_bytes",
            limits.max_bytes,
            "must be larger than 0",
        );
        let receive = self.number_property("receive.message.max.bytes");
        let receive = receive.unwrap_or(RECEIVE_MESSAGE_MAX_BYTES);
        self.require(
            limits.max_bytes.as_u64().saturating_add(ENVELOPE_BYTES) <= receive,
            "limits.max_bytes",
            limits.max_bytes,
            &format!(
                "must be at least {ENVELOPE_BYTES} bytes below the property \
                 `receive.message.max.bytes` ({receive}), or such records are never received"
            ),
        );
        for (key, pixels) in [
            ("limits.max_width", u64::from(limits.max_width)),
            ("limits.max_height", u64::from(limits.max_height)),
            ("limits.max_pixels", limits.max_pixels),
        ] {
            self.require(pixels > 0, key, pixels, "must be larger than 0");
        }
    }

    fn model(&mut self) {
        let model = &self.settings.model;
        if model.path.as_os_str().is_empty() {
            self.missing("model.path", "must name the folder of a model bundle");
        }
        self.require(
            model.max_batch > 0,
            "model.max_batch",
            model.max_batch,
            "must be at least 1",
        );
        self.require(
            (1..=MOST_WORKERS).contains(&model.workers_per_device),
            "model.workers_per_device",
            model.workers_per_device,
            &format!("must be 1 to {MOST_WORKERS}"),
        );
        let Devices(devices) = &model.device;
        let is_cuda = |device: &Device| matches!(device, Device::Cuda(_));
        self.require(
            devices.len() == 1 || (devices.len() > 1 && devices.iter().all(is_cuda)),
            "model.device",
            &model.device,
            "must be one device, or several of `cuda:<number>`",
        );
        let distinct = devices.iter().map(ToString::to_string);
        self.require(
            distinct.collect::<BTreeSet<_>>().len() == devices.len(),
            "model.device",
            &model.device,
            "must name no device twice; `model.workers_per_device` sets how many batches one is given",
        );
        self.require(
            cfg!(feature = "cuda") || !devices.iter().any(is_cuda),
            "model.device",
            &model.device,
            "needs a program that was built with the feature `cuda`; set `auto` or `cpu`",
        );
    }

    fn output_topics(&mut self) {
        let output = &self.settings.output;
        let closed_parts = self.settings.closed_parts_topic();
        for (key, topic) in [
            ("output.results_topic", &output.results_topic),
            ("output.dead_letter_topic", &output.dead_letter_topic),
            ("output.closed_parts_topic", &closed_parts),
        ] {
            self.topic(key, topic);
            self.require(
                !self.reads(topic),
                key,
                topic,
                "must not be among the topics that are read",
            );
        }
        self.require(
            output.results_topic != output.dead_letter_topic,
            "output.dead_letter_topic",
            &output.dead_letter_topic,
            "must differ from `output.results_topic`",
        );
        self.require(
            ![&output.results_topic, &output.dead_letter_topic].contains(&&closed_parts),
            "output.closed_parts_topic",
            &closed_parts,
            "must differ from `output.results_topic` and `output.dead_letter_topic`",
        );
    }

    fn output(&mut self) {
        let output = &self.settings.output;
        if output.delivery == Delivery::ExactlyOnce {
            self.transactions();
        }
        self.require(
            output.max_message_bytes.as_u64() >= MIN_MESSAGE_BYTES,
            "output.max_message_bytes",
            output.max_message_bytes,
            &format!("must be at least {MIN_MESSAGE_BYTES} bytes"),
        );
        if let Some(limit) = self.number_property("message.max.bytes") {
            self.require(
                output.max_message_bytes.as_u64() <= limit,
                "output.max_message_bytes",
                output.max_message_bytes,
                &format!("must be at most the property `message.max.bytes` ({limit})"),
            );
        }
        self.require(
            MAP_SIDES.contains(&output.maps.side),
            "output.maps.side",
            output.maps.side,
            &format!("must be from {} to {}", MAP_SIDES.start(), MAP_SIDES.end()),
        );
    }

    fn transactions(&mut self) {
        let Settings { output, bus, .. } = self.settings;
        self.require(
            output.transactions.max_records > 0,
            "output.transactions.max_records",
            output.transactions.max_records,
            "must be at least 1",
        );
        if let Some(isolation) = bus.properties.get("isolation.level") {
            self.require(
                isolation == "read_committed",
                "bus.properties.isolation.level",
                isolation,
                "must be `read_committed` under `exactly_once`: it also decides how committed \
                 offsets are read",
            );
        }
    }

    fn watchdog(&mut self) {
        let Settings {
            watchdog, output, ..
        } = self.settings;
        let stall_after = watchdog.stall_after;
        self.require(
            stall_after >= SHORTEST_STALL,
            "watchdog.stall_after",
            humantime::format_duration(stall_after),
            &format!(
                "must be at least {}",
                humantime::format_duration(SHORTEST_STALL)
            ),
        );
        let transaction = output.transactions.timeout;
        self.require(
            output.delivery == Delivery::AtLeastOnce || stall_after > transaction,
            "watchdog.stall_after",
            humantime::format_duration(stall_after),
            &format!(
                "must be longer than `output.transactions.timeout` ({})",
                humantime::format_duration(transaction)
            ),
        );
    }

    fn telemetry(&mut self) {
        let level = &self.settings.telemetry.log_level;
        self.require(
            !level.is_empty() && EnvFilter::builder().parse(level).is_ok(),
            "telemetry.log_level",
            level,
            "must be `error`, `warn`, `info`, `debug`, `trace` or `tracing` directives such as \
             `info,panoptes=debug`",
        );
    }

    fn name(&mut self, key: &str, name: &str) {
        self.require(
            !name.is_empty() && name.len() <= MAX_NAME_LENGTH && name.trim() == name,
            key,
            name,
            "must be a name of 1 to 256 bytes without spaces around it",
        );
    }

    fn topic(&mut self, key: &str, topic: &str) {
        let is_topic = (1..=MAX_TOPIC_LENGTH).contains(&topic.len())
            && topic != "."
            && topic != ".."
            && topic
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        self.require(
            is_topic,
            key,
            topic,
            "must be a topic name: 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`",
        );
    }
}

/// Whether a regular expression holds a pattern of two characters that no backslash before it
/// makes mean something else.
fn holds_unescaped(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with(pattern) {
            return true;
        }
        let escaped = rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
        let step = first.len_utf8() + escaped.map_or(0, char::len_utf8);
        rest = rest.get(step..).unwrap_or_default();
    }
    false
}
