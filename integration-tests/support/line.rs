//! A production line: camera topics, a results topic, a dead-letter topic, all under its own name.

use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::util::Timeout;

use super::config::{Config, model_classes, quick_model_path};
use super::outcome_reader::OutcomeReader;
use super::outcomes::{Fate, Outcomes};
use super::process::log_folder;
use super::shots::Shot;
use crate::kafka::{Broker, free_port};

/// The views of a part, where a test says nothing else.
pub(crate) const VIEWS: [&str; 5] = ["top", "left", "right", "front", "back"];

/// Partitions of every topic, where a test says nothing else.
pub(crate) const PARTITIONS: i32 = 4;

/// Generous, for machines that do other things besides; nothing waits longer than it must.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(240);

/// The names of so many parts.
pub(crate) fn names(parts: usize) -> Vec<String> {
    (0..parts)
        .map(|number| format!("part-{number:04}"))
        .collect()
}

/// A line on a broker.
pub(crate) struct Line<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) name: String,
    pub(crate) views: Vec<String>,
    /// Partitions of every topic.
    pub(crate) partitions: i32,
    producer: OnceLock<BaseProducer>,
}

impl<'a> Line<'a> {
    /// A line with the five usual cameras; creates its topics. Names must differ between tests.
    pub(crate) fn new(broker: &'a Broker, name: &str) -> Self {
        Self::with_views(broker, name, &VIEWS)
    }

    /// A line with other cameras.
    pub(crate) fn with_views(broker: &'a Broker, name: &str, views: &[&str]) -> Self {
        Self::of(broker, name, views, PARTITIONS)
    }

    /// A line with other cameras, its topics in so many partitions.
    pub(crate) fn of(broker: &'a Broker, name: &str, views: &[&str], partitions: i32) -> Self {
        let line = Self {
            broker,
            name: name.to_owned(),
            views: views.iter().map(|view| (*view).to_owned()).collect(),
            partitions,
            producer: OnceLock::new(),
        };
        for topic in line.camera_topics() {
            broker.create_topic(&topic, partitions);
        }
        broker.create_topic(&line.results_topic(), partitions);
        broker.create_topic(&line.dead_letter_topic(), partitions);
        line
    }

    pub(crate) fn camera(&self, view: &str) -> String {
        format!("{}.cam.{view}", self.name)
    }

    pub(crate) fn camera_topics(&self) -> Vec<String> {
        self.views.iter().map(|view| self.camera(view)).collect()
    }

    pub(crate) fn results_topic(&self) -> String {
        format!("{}.results", self.name)
    }

    pub(crate) fn dead_letter_topic(&self) -> String {
        format!("{}.dead-letters", self.name)
    }

    /// Panoptes creates it.
    pub(crate) fn closed_parts_topic(&self) -> String {
        format!("{}-closed-parts", self.name)
    }

    /// The configuration of `panoptes run` for this line: short timeouts, a free admin port.
    pub(crate) fn config(&self) -> Config {
        Config::default()
            .set("bus.brokers", self.broker.address())
            .set("bus.group_id", self.name.as_str())
            .set("bus.commit_interval", "200ms")
            // However busy the machine: what is on its way is scored before the process ends.
            .set("bus.drain_timeout", "2m")
            .set("input.topics", self.camera_topics())
            .set("input.line", self.name.as_str())
            .set("input.class", model_classes()[0].as_str())
            .set("views.default", self.views.clone())
            .set("reassembly.timeout", "1s")
            .set("reassembly.idle_after", "500ms")
            .set("reassembly.wall_grace", "500ms")
            .set("model.path", quick_model_path().to_str().unwrap())
            .set("model.device", "cpu")
            .set("output.results_topic", self.results_topic())
            .set("output.dead_letter_topic", self.dead_letter_topic())
            .set("output.delivery", "at_least_once")
            .set("output.maps.side", 32)
            .set("admin.listen", format!("127.0.0.1:{}", free_port()))
            .set("telemetry.log_format", "json")
            // A killed instance is missed by its group after six seconds, not forty-five.
            .property("session.timeout.ms", "6000")
            .property("heartbeat.interval.ms", "500")
    }

    /// The same with transactions, which a crash leaves open for a short time; parts wait for as long as
    /// an instance may be away.
    pub(crate) fn exactly_once_config(&self) -> Config {
        self.config()
            .set("output.delivery", "exactly_once")
            .set("output.transactions.timeout", "3s")
            .set("reassembly.timeout", "60s")
    }

    /// A part seen by all cameras, as JPEGs; `seed` chooses the images.
    pub(crate) fn part(&self, part: &str, seed: u64) -> Vec<Shot> {
        let views: Vec<&str> = self.views.iter().map(String::as_str).collect();
        self.part_seen_by(part, seed, &views)
    }

    /// A part seen by some cameras.
    pub(crate) fn part_seen_by(&self, part: &str, seed: u64, views: &[&str]) -> Vec<Shot> {
        views
            .iter()
            .zip(0..)
            .map(|(view, number)| Shot::jpeg(&self.camera(view), part, seed * 5 + number))
            .collect()
    }

    /// Produces the shots in order and waits until the broker has them all.
    pub(crate) fn send(&self, shots: impl IntoIterator<Item = Shot>) {
        let connect = || self.connect("consistent_random");
        send_all(self.producer.get_or_init(connect), shots);
    }

    /// The same by a producer with another `partitioner`.
    pub(crate) fn send_placed_by(&self, partitioner: &str, shots: impl IntoIterator<Item = Shot>) {
        send_all(&self.connect(partitioner), shots);
    }

    fn connect(&self, partitioner: &str) -> BaseProducer {
        let mut client = self.broker.client();
        client.set("linger.ms", "1");
        client.set("enable.idempotence", "true");
        client.set("message.max.bytes", "8000000");
        client.set("partitioner", partitioner);
        client.create().unwrap()
    }

    /// Reads what was published, to the end.
    pub(crate) fn outcomes(&self) -> Outcomes {
        let mut reader = OutcomeReader::new(self);
        reader.read_to_end();
        reader.into_outcomes()
    }

    /// Reads what is published until `is_enough` says so; fails the test if that takes too long.
    pub(crate) fn await_outcomes(&self, is_enough: impl Fn(&Outcomes) -> bool) -> Outcomes {
        let mut reader = OutcomeReader::new(self);
        reader.read_until(OUTCOME_TIMEOUT, is_enough);
        reader.into_outcomes()
    }

    /// Waits for results of so many different parts.
    pub(crate) fn await_parts(&self, count: usize) -> Outcomes {
        self.await_outcomes(|outcomes| outcomes.parts().len() >= count)
    }

    /// Fails the test unless each of the parts has one result, a whole one, no other part has any, and
    /// every record of the camera topics ended in exactly one place.
    pub(crate) fn assert_one_whole_result_each(&self, parts: &[String]) {
        let outcomes = self.outcomes();
        outcomes.assert_one_whole_result_each(parts);
        self.assert_every_record_has_one_fate(&outcomes);
    }

    /// Fails the test unless every record of the camera topics ended in exactly one place.
    pub(crate) fn assert_every_record_has_one_fate(&self, outcomes: &Outcomes) {
        let fates = outcomes.fates(self);
        assert!(!fates.is_empty());
        for fate in fates {
            let Fate {
                place: (topic, partition, offset),
                results,
                reasons,
            } = &fate;
            assert!(
                fate.is_single(),
                "{topic}[{partition}]@{offset} ended in results {results:?} and dead letters {reasons:?}"
            );
        }
    }

    /// Writes what was published as JSON lines for readers in other languages.
    pub(crate) fn dump(&self, outcomes: &Outcomes) -> std::path::PathBuf {
        let path = log_folder().join(format!("{}.results.jsonl", self.name));
        std::fs::write(&path, outcomes.to_json_lines()).unwrap();
        path
    }
}

fn send_all(producer: &BaseProducer, shots: impl IntoIterator<Item = Shot>) {
    for shot in shots {
        send_one(producer, &shot);
    }
    producer
        .flush(Timeout::After(Duration::from_secs(60)))
        .unwrap();
}

fn send_one(producer: &BaseProducer, shot: &Shot) {
    let headers = shot
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header {
                key: name,
                value: Some(value),
            })
        });
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&shot.topic)
        .payload(shot.value.as_slice())
        .headers(headers);
    record.key = shot.key.as_deref();
    record.partition = shot.partition;
    record.timestamp = shot.timestamp;
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.poll(Duration::ZERO);
}
