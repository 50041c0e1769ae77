//! The books of the demo: what was published, held against what should have been.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use super::scenario::{DemoPart, Fault};
use crate::domain::Record;
use crate::schema::dead_letter::{DeadLetterNote, read_note};
use crate::schema::result::PartResult;

/// A record that Panoptes published.
#[derive(Debug)]
pub(super) enum Seen {
    /// On the results topic.
    Result(Record),
    /// On the dead-letter topic.
    DeadLetter(Record),
}

/// All that was published, by part.
#[derive(Debug, Default)]
pub(super) struct Account {
    results: BTreeMap<String, Vec<PartResult>>,
    dead_letters: BTreeMap<String, Vec<DeadLetterNote>>,
}

impl Account {
    /// Enters a published record.
    pub(super) fn note(&mut self, seen: Seen) -> anyhow::Result<()> {
        match seen {
            Seen::Result(record) => {
                let value = record.value.as_deref().context("a result has no value")?;
                let result = PartResult::from_msgpack(value)?;
                self.results
                    .entry(result.part_id.clone())
                    .or_default()
                    .push(result);
            }
            Seen::DeadLetter(record) => {
                let note = read_note(&record.headers)?;
                let key = record.key.as_deref().unwrap_or_default();
                let part = String::from_utf8_lossy(key).into_owned();
                self.dead_letters.entry(part).or_default().push(note);
            }
        }
        Ok(())
    }

    /// Parts with a result.
    pub(super) fn published_parts(&self) -> impl Iterator<Item = &str> {
        self.results.keys().map(String::as_str)
    }

    /// The result of a part.
    pub(super) fn result(&self, part: &DemoPart) -> Option<&PartResult> {
        self.results
            .get(&part.id)
            .and_then(|results| results.first())
    }

    /// The dead letters of a part.
    pub(super) fn dead_letters(&self, part: &DemoPart) -> &[DeadLetterNote] {
        self.dead_letters.get(&part.id).map_or(&[], Vec::as_slice)
    }

    /// How many of the parts have their result.
    pub(super) fn parts_with_fate(&self, parts: &[DemoPart]) -> u64 {
        parts
            .iter()
            .filter(|part| self.result(part).is_some())
            .count() as u64
    }

    /// Parts a second: those that were scored from the first view of the first part to the last
    /// score of a complete one. What is scored later had waited for its timeout on purpose.
    pub(super) fn parts_per_second(&self) -> Option<f64> {
        let results = || self.results.values().flatten();
        let complete = || results().filter(|result| !result.is_partial);
        let began = results().map(|result| result.timing.first_view_at).min()?;
        let ended = complete().map(|result| result.timing.scored_at).max()?;
        let scored = results().filter(|result| result.timing.scored_at <= ended);
        let seconds = (ended - began) as f64 / 1000.0;
        (seconds > 0.0).then(|| scored.count() as f64 / seconds)
    }

    /// Whether everything that must come has come.
    pub(super) fn is_settled(&self, parts: &[DemoPart]) -> bool {
        parts.iter().all(|part| {
            let expected = usize::from(part.fault.and_then(Fault::dead_letter).is_some());
            self.result(part).is_some() && self.dead_letters(part).len() >= expected
        })
    }

    /// What was lost, doubled or judged against the rules, in words; empty when all is well.
    pub(super) fn discrepancies(&self, parts: &[DemoPart]) -> Vec<String> {
        let mut found = Vec::new();
        for part in parts {
            let results = self.results.get(&part.id).map_or(0, Vec::len);
            if results != 1 {
                found.push(format!("`{}` has {results} results, expected 1", part.id));
            }
            let expected: Vec<&str> = part
                .fault
                .and_then(Fault::dead_letter)
                .into_iter()
                .map(|reason| reason.as_str())
                .collect();
            let letters: Vec<&str> = self
                .dead_letters(part)
                .iter()
                .map(|note| note.reason.as_str())
                .collect();
            if letters != expected {
                found.push(format!(
                    "`{}` has dead letters {letters:?}, expected {expected:?}",
                    part.id
                ));
            }
        }
        let known: BTreeSet<&str> = parts.iter().map(|part| part.id.as_str()).collect();
        let strangers = self
            .results
            .keys()
            .chain(self.dead_letters.keys())
            .filter(|part| !known.contains(part.as_str()));
        found.extend(strangers.map(|part| format!("`{part}` was never sent")));
        found
    }
}
