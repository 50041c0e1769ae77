//! What Panoptes published, read back by a `read_committed` consumer and decoded by structs of the
//! tests' own, so that a slip in the product's schema cannot hide itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::json;

use super::line::Line;

/// Where a record stands: topic, partition, offset.
pub(crate) type Place = (String, i32, i64);

/// A result's record as it stands in the topic, with its value decoded.
#[derive(Clone, Debug)]
pub(crate) struct ResultRecord {
    pub(crate) key: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) value: Vec<u8>,
    pub(crate) result: PartResult,
    /// When the reader was given it.
    pub(crate) read_at: Instant,
}

/// A result.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PartResult {
    pub(crate) schema_version: serde_json::Value,
    pub(crate) result_id: String,
    pub(crate) part_id: String,
    pub(crate) line: String,
    pub(crate) class: Option<String>,
    pub(crate) decision: String,
    pub(crate) score: Option<f64>,
    pub(crate) threshold: Option<f64>,
    pub(crate) is_partial: bool,
    pub(crate) is_simulated: bool,
    pub(crate) model: ModelName,
    pub(crate) views: Vec<ViewResult>,
    #[serde(default)]
    pub(crate) duplicates: Vec<String>,
    pub(crate) timing: Timing,
    pub(crate) run: Run,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ModelName {
    pub(crate) name: String,
    pub(crate) version: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ViewResult {
    pub(crate) view: String,
    pub(crate) status: String,
    pub(crate) score: Option<f64>,
    pub(crate) source: Option<Source>,
    pub(crate) captured_at: Option<i64>,
    pub(crate) map: Option<Map>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Source {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Map {
    pub(crate) codec: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) data: serde_bytes::ByteBuf,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Timing {
    pub(crate) first_view_at: i64,
    pub(crate) last_view_at: i64,
    pub(crate) scored_at: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) kind: String,
    pub(crate) id: String,
}

impl PartResult {
    /// What became of one view.
    pub(crate) fn view(&self, name: &str) -> &ViewResult {
        let view = self.views.iter().find(|view| view.view == name);
        view.unwrap_or_else(|| panic!("no view `{name}` in {self:?}"))
    }

    /// Views with this status.
    pub(crate) fn views_with_status(&self, status: &str) -> Vec<&str> {
        let views = self.views.iter().filter(|view| view.status == status);
        views.map(|view| view.view.as_str()).collect()
    }
}

impl ViewResult {
    /// The record that brought the view.
    pub(crate) fn place(&self) -> Place {
        let source = self.source.as_ref().expect("the view has a source");
        (source.topic.clone(), source.partition, source.offset)
    }
}

/// A dead letter as it stands in the topic.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetter {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl DeadLetter {
    /// The text of a header that must be there.
    pub(crate) fn header(&self, name: &str) -> String {
        let header = self.headers.iter().rev().find(|(key, _)| key == name);
        let (_, value) = header.unwrap_or_else(|| panic!("no header `{name}` in {self:?}"));
        String::from_utf8(value.clone()).unwrap()
    }

    pub(crate) fn reason(&self) -> String {
        self.header("panoptes-reason")
    }

    /// Where the record was first read.
    pub(crate) fn place(&self) -> Place {
        (
            self.header("panoptes-topic"),
            self.header("panoptes-partition").parse().unwrap(),
            self.header("panoptes-offset").parse().unwrap(),
        )
    }

    /// The key as text, empty without one.
    pub(crate) fn part(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }
}

/// What became of one camera record.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) place: Place,
    /// IDs of the results that tell of it, and how many results have each.
    pub(crate) results: BTreeMap<String, usize>,
    /// Reasons of its dead letters, and how many dead letters have each.
    pub(crate) reasons: BTreeMap<String, usize>,
}

impl Fate {
    /// Whether it ended in one place and one only; a result published twice under one ID counts once.
    pub(crate) fn is_single(&self) -> bool {
        self.results.len() + self.dead_letters() == 1
    }

    /// How many dead letters it has.
    pub(crate) fn dead_letters(&self) -> usize {
        self.reasons.values().sum()
    }

    /// How many results and dead letters tell of it, whatever their IDs.
    pub(crate) fn outcomes(&self) -> usize {
        self.results.values().sum::<usize>() + self.dead_letters()
    }
}

/// All that was published for a line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) results: Vec<ResultRecord>,
    pub(crate) dead_letters: Vec<DeadLetter>,
}

impl Outcomes {
    /// The parts that have a result.
    pub(crate) fn parts(&self) -> BTreeSet<&str> {
        self.results
            .iter()
            .map(|record| record.result.part_id.as_str())
            .collect()
    }

    /// The one result of a part; fails the test if there are none or several.
    pub(crate) fn result_of(&self, part: &str) -> &PartResult {
        let found: Vec<_> = self
            .results
            .iter()
            .filter(|record| record.result.part_id == part)
            .collect();
        assert_eq!(found.len(), 1, "results of part `{part}`: {found:?}");
        &found[0].result
    }

    /// The dead letters of a part.
    pub(crate) fn dead_letters_of(&self, part: &str) -> Vec<&DeadLetter> {
        self.dead_letters
            .iter()
            .filter(|letter| letter.part() == part)
            .collect()
    }

    /// The one dead letter of a part; fails the test if there are none or several.
    pub(crate) fn dead_letter_of(&self, part: &str) -> &DeadLetter {
        let found = self.dead_letters_of(part);
        assert_eq!(found.len(), 1, "dead letters of part `{part}`: {found:?}");
        found[0]
    }

    /// IDs by part: a part with two IDs was scored as two different parts.
    pub(crate) fn result_ids(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for record in &self.results {
            let result = &record.result;
            ids.entry(&result.part_id)
                .or_default()
                .insert(&result.result_id);
        }
        ids
    }

    /// Fails the test unless each of the parts has one result ID, and no other part has any.
    pub(crate) fn assert_one_result_id_each<'a>(&self, parts: impl IntoIterator<Item = &'a str>) {
        let expected: BTreeSet<&str> = parts.into_iter().collect();
        let ids = self.result_ids();
        let found: BTreeSet<&str> = ids.keys().copied().collect();
        let lost: Vec<_> = expected.difference(&found).collect();
        let invented: Vec<_> = found.difference(&expected).collect();
        assert!(
            lost.is_empty() && invented.is_empty(),
            "lost {lost:?}, invented {invented:?}"
        );
        let several: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(
            several.is_empty(),
            "parts with several result IDs: {several:?}"
        );
    }

    /// Fails the test unless each of the parts has one result, a whole one, and no other part has any.
    pub(crate) fn assert_one_whole_result_each(&self, parts: &[String]) {
        self.assert_one_result_id_each(parts.iter().map(String::as_str));
        for part in parts {
            assert!(!self.result_of(part).is_partial, "part `{part}` is partial");
        }
    }

    /// The fate of every record that stands in the line's camera topics.
    pub(crate) fn fates(&self, line: &Line<'_>) -> Vec<Fate> {
        let mut fates: BTreeMap<Place, Fate> = places_in(line)
            .into_iter()
            .map(|place| {
                (
                    place.clone(),
                    Fate {
                        place,
                        results: BTreeMap::new(),
                        reasons: BTreeMap::new(),
                    },
                )
            })
            .collect();
        for letter in &self.dead_letters {
            let fate = fates
                .get_mut(&letter.place())
                .expect("a dead letter names a record that exists");
            *fate.reasons.entry(letter.reason()).or_default() += 1;
        }
        for record in &self.results {
            for view in record
                .result
                .views
                .iter()
                .filter(|view| view.source.is_some())
            {
                let fate = fates
                    .get_mut(&view.place())
                    .expect("a result names a record that exists");
                // A view that failed is named by the result and lies in its dead letter.
                if view.status == "scored" || fate.reasons.is_empty() {
                    let id = record.result.result_id.clone();
                    *fate.results.entry(id).or_default() += 1;
                }
            }
        }
        fates.into_values().collect()
    }

    /// One JSON object a result: key, value and headers in base64.
    pub(super) fn to_json_lines(&self) -> String {
        let line = |record: &ResultRecord| {
            let headers: BTreeMap<&str, String> = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), STANDARD.encode(value)))
                .collect();
            json!({
                "key": STANDARD.encode(&record.key),
                "value": STANDARD.encode(&record.value),
                "headers": headers,
            })
        };
        self.results
            .iter()
            .map(|record| format!("{}\n", line(record)))
            .collect()
    }
}

/// Every record that stands in the line's camera topics.
fn places_in(line: &Line<'_>) -> Vec<Place> {
    let consumer: BaseConsumer = line.broker.client().create().unwrap();
    let mut places = Vec::new();
    let timeout = Duration::from_secs(10);
    for topic in &line.camera_topics() {
        let metadata = consumer.fetch_metadata(Some(topic), timeout).unwrap();
        for partition in 0..metadata.topics()[0].partitions().len() as i32 {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, timeout)
                .unwrap();
            places.extend((low..high).map(|offset| (topic.clone(), partition, offset)));
        }
    }
    places
}

/// Reads a line's results and dead letters as they come.
pub(crate) struct OutcomeReader {
    consumer: BaseConsumer,
    results_topic: String,
    /// Partitions of both topics together.
    partitions: usize,
    ended: BTreeSet<(String, i32)>,
    outcomes: Outcomes,
}

impl OutcomeReader {
    pub(crate) fn new(line: &Line<'_>) -> Self {
        Self::with_isolation(line, "read_committed")
    }

    /// `isolation` as of `isolation.level`.
    pub(crate) fn with_isolation(line: &Line<'_>, isolation: &str) -> Self {
        let mut client = line.broker.client();
        client.set("group.id", "test-reader");
        client.set("isolation.level", isolation);
        client.set("enable.partition.eof", "true");
        client.set("enable.auto.commit", "false");
        client.set("fetch.wait.max.ms", "20");
        client.set("fetch.message.max.bytes", "10485760");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        for topic in [line.results_topic(), line.dead_letter_topic()] {
            for partition in 0..line.partitions {
                list.add_partition_offset(&topic, partition, Offset::Beginning)
                    .unwrap();
            }
        }
        consumer.assign(&list).unwrap();
        Self {
            consumer,
            results_topic: line.results_topic(),
            partitions: list.count(),
            ended: BTreeSet::new(),
            outcomes: Outcomes::default(),
        }
    }

    /// Reads until every partition was at its end once.
    pub(super) fn read_to_end(&mut self) {
        let started = Instant::now();
        while self.ended.len() < self.partitions {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "the outcomes have no end"
            );
            self.poll();
        }
    }

    /// Reads until the predicate holds.
    pub(crate) fn read_until(&mut self, timeout: Duration, is_enough: impl Fn(&Outcomes) -> bool) {
        let started = Instant::now();
        while !is_enough(&self.outcomes) {
            assert!(
                started.elapsed() < timeout,
                "still not enough after {timeout:?}: {} results of {} parts, dead letters {:?}",
                self.outcomes.results.len(),
                self.outcomes.parts().len(),
                self.outcomes
                    .dead_letters
                    .iter()
                    .map(DeadLetter::reason)
                    .collect::<Vec<_>>(),
            );
            self.poll();
        }
    }

    /// What was read until now.
    pub(crate) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    pub(crate) fn into_outcomes(self) -> Outcomes {
        self.outcomes
    }

    /// Waits a moment for the next one.
    pub(crate) fn poll(&mut self) {
        let message = match self.consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                return self.note_ends();
            }
            // A broker that restarts is reported here; the deadline of the caller bounds the wait.
            Some(Err(_)) | None => return,
        };
        if message.topic() == self.results_topic {
            self.outcomes.results.push(result_record(&message));
        } else {
            self.outcomes.dead_letters.push(dead_letter(&message));
        }
    }

    /// The end-of-partition event names no topic, so positions are compared with the ends.
    fn note_ends(&mut self) {
        for element in self.consumer.position().unwrap().elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            if self.ended.contains(&(topic.clone(), partition)) {
                continue;
            }
            let watermarks =
                self.consumer
                    .fetch_watermarks(&topic, partition, Duration::from_secs(10));
            // A reader that has only just begun may not know the partition yet.
            let Ok((_, end)) = watermarks else {
                continue;
            };
            let position = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            if position >= end {
                self.ended.insert((topic, partition));
            }
        }
    }
}

fn result_record(message: &BorrowedMessage<'_>) -> ResultRecord {
    let value = message.payload().unwrap().to_vec();
    let result = if value.first() == Some(&b'{') {
        serde_json::from_slice(&value).map_err(|error| error.to_string())
    } else {
        rmp_serde::from_slice(&value).map_err(|error| error.to_string())
    };
    ResultRecord {
        key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
        headers: headers(message)
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8(value).unwrap()))
            .collect(),
        result: result.unwrap_or_else(|error| panic!("not a result: {error}")),
        value,
        read_at: Instant::now(),
    }
}

fn dead_letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    DeadLetter {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers(message),
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let Some(headers) = message.headers() else {
        return Vec::new();
    };
    headers
        .iter()
        .map(|header| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        })
        .collect()
}
