//! What became of parts and of camera records, by what was published.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;

use super::line::Line;
use super::published::{DeadLetter, PartResult, Place, ResultRecord};

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
    let timeout = Duration::from_secs(60);
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
