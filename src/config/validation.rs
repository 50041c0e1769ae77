//! Every rule that the values must keep, alone and between each other.
//!
//! Pure: it opens nothing, and it reports all problems, not the first.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::{Delivery, Device, Devices, Problem, Settings};

/// librdkafka's default.
const RECEIVE_MESSAGE_MAX_BYTES: u64 = 100_000_000;
/// What comes with an image in a response: key, headers, what the protocol adds.
const ENVELOPE_BYTES: u64 = 1 << 20;
/// The shortest standstill that is told for certain from a busy machine.
const SHORTEST_STALL: Duration = Duration::from_secs(5);

/// More workers on one device than that only cost its memory.
const MOST_WORKERS: usize = 8;

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
    pub(super) problems: Vec<Problem>,
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

    pub(super) fn missing(&mut self, key: &str, rule: &str) {
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

    pub(super) fn number_property(&self, name: &str) -> Option<u64> {
        self.settings.bus.properties.get(name)?.parse().ok()
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

    pub(super) fn name(&mut self, key: &str, name: &str) {
        self.require(
            !name.is_empty() && name.len() <= MAX_NAME_LENGTH && name.trim() == name,
            key,
            name,
            "must be a name of 1 to 256 bytes without spaces around it",
        );
    }
}
