//! What two runs made of the same records, but for what must differ.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::outcomes::Outcomes;
use crate::support::published::Place;

/// Results by part, without what differs between runs.
pub(crate) fn comparable(outcomes: &Outcomes) -> BTreeMap<String, Vec<u8>> {
    let records = outcomes.results.iter().map(|record| {
        let mut value: Value = serde_json::from_slice(&record.value).unwrap();
        let result = value.as_object_mut().unwrap();
        for name in ["timing", "run", "is_simulated", "result_id"] {
            result.remove(name).unwrap();
        }
        (record.key.clone(), serde_json::to_vec(&value).unwrap())
    });
    let all: BTreeMap<String, Vec<u8>> = records.collect();
    assert_eq!(all.len(), outcomes.results.len(), "a part has two results");
    all
}

/// Where the records of the dead letters are, and why they are that; one that came twice is here twice.
pub(crate) fn letters(outcomes: &Outcomes) -> Vec<(Place, String)> {
    let letters = outcomes.dead_letters.iter();
    let mut letters: Vec<_> = letters
        .map(|letter| (letter.place(), letter.reason()))
        .collect();
    letters.sort();
    letters
}

/// What a replay made otherwise than the live line.
pub(crate) fn differences(live: &Outcomes, replayed: &Outcomes) -> Vec<String> {
    let records = replayed.results.iter();
    let not_simulated = records.filter(|record| !record.result.is_simulated);
    let mut differences: Vec<String> = not_simulated
        .map(|record| format!("{} is not simulated", record.key))
        .collect();
    let told = |results: &BTreeMap<String, Vec<u8>>, part: &str| {
        let result = results.get(part).map(|it| String::from_utf8_lossy(it));
        result.map_or_else(|| "nothing".to_owned(), |it| without_maps(&it))
    };
    let (live_results, results) = (comparable(live), comparable(replayed));
    let parts: BTreeSet<&String> = live_results.keys().chain(results.keys()).collect();
    for part in parts {
        if live_results.get(part) != results.get(part) {
            let [live, now] = [&live_results, &results].map(|all| told(all, part));
            differences.push(format!("{part}: live {live}\n    now {now}"));
        }
    }
    let (live, now) = (letters(live), letters(replayed));
    for (letters, others, whose) in [(&live, &now, "live"), (&now, &live, "replayed")] {
        let alone = letters.iter().filter(|letter| !others.contains(letter));
        differences.extend(alone.map(|letter| format!("only {whose}: dead letter {letter:?}")));
    }
    if live.len() != now.len() {
        let (live, now) = (live.len(), now.len());
        differences.push(format!("{live} dead letters live, {now} replayed"));
    }
    differences
}

/// Short enough to be read.
fn without_maps(result: &str) -> String {
    let mut result: Value = serde_json::from_str(result).unwrap();
    for view in result["views"].as_array_mut().unwrap() {
        let view = view.as_object_mut().unwrap();
        view.remove("map");
        view.remove("regions");
    }
    result.to_string()
}

pub(crate) fn assert_same(live: &Outcomes, replayed: &Outcomes) {
    let differences = differences(live, replayed);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
