//! What was sent against what a `read_committed` reader found: one result for each part, one dead
//! letter for each bad record, one of both for every record of the camera topics.

use std::collections::{BTreeMap, BTreeSet};

use super::Delivery;
use super::cameras::{BadRecord, MARK, Sent};
use crate::support::outcomes::{Fate, Outcomes};
use crate::support::published::{DeadLetter, ResultRecord};

/// How the outcomes compare with what was sent.
pub(super) struct Verdict {
    parts: Tally,
    bad_records: Tally,
    /// Of the camera topics, the bad ones among them.
    records: Tally,
    /// What no crash excuses: doubles that differ, parts in pieces, outcomes of nothing that was sent.
    wrong: Vec<String>,
}

/// How many there are, and which of them ended nowhere or more than once.
struct Tally {
    what: &'static str,
    count: usize,
    lost: Vec<String>,
    doubled: Vec<String>,
}

impl Tally {
    /// Counts `outcomes` of each.
    fn of(what: &'static str, outcomes: impl Iterator<Item = (String, usize)>) -> Self {
        let (mut count, mut lost, mut doubled) = (0, Vec::new(), Vec::new());
        for (name, outcomes) in outcomes {
            count += 1;
            match outcomes {
                0 => lost.push(name),
                1 => {}
                _ => doubled.push(name),
            }
        }
        Self {
            what,
            count,
            lost,
            doubled,
        }
    }
}

impl Verdict {
    pub(super) fn of(sent: &Sent, outcomes: &Outcomes, fates: &[Fate]) -> Self {
        let mut results: BTreeMap<&str, Vec<&ResultRecord>> = sent
            .parts
            .iter()
            .map(|part| (part.name.as_str(), Vec::new()))
            .collect();
        let mut letters: BTreeMap<&str, Vec<&DeadLetter>> = sent
            .bad_records
            .iter()
            .map(|bad| (bad.mark.as_str(), Vec::new()))
            .collect();
        let mut wrong = Vec::new();
        for record in &outcomes.results {
            match results.get_mut(record.result.part_id.as_str()) {
                Some(found) => found.push(record),
                None => wrong.push(format!(
                    "a result of part `{}`, which was not sent",
                    record.key
                )),
            }
        }
        for letter in &outcomes.dead_letters {
            match mark_of(letter).and_then(|mark| letters.get_mut(mark)) {
                Some(found) => found.push(letter),
                None => wrong.push(format!(
                    "a dead letter of a sound record: {}",
                    brief(letter)
                )),
            }
        }
        for (part, found) in &results {
            wrong.extend(wrong_with_part(part, found));
        }
        for bad in &sent.bad_records {
            wrong.extend(wrong_with_letters(bad, &letters[bad.mark.as_str()]));
        }
        wrong.extend(fates.iter().filter_map(wrong_with_fate));
        Self {
            parts: Tally::of(
                "parts",
                results
                    .iter()
                    .map(|(part, found)| (part.to_string(), found.len())),
            ),
            bad_records: Tally::of(
                "bad records",
                letters
                    .iter()
                    .map(|(mark, found)| (mark.to_string(), found.len())),
            ),
            records: Tally::of(
                "records of the camera topics",
                fates
                    .iter()
                    .map(|fate| (format!("{:?}", fate.place), fate.outcomes())),
            ),
            wrong,
        }
    }

    fn tallies(&self) -> [&Tally; 3] {
        [&self.parts, &self.bad_records, &self.records]
    }

    pub(super) fn table(&self) -> String {
        let mut table =
            String::from("| what | how many | lost | doubled |\n| --- | --: | --: | --: |\n");
        for tally in self.tallies() {
            let (lost, doubled) = (tally.lost.len(), tally.doubled.len());
            table += &format!(
                "| {} | {} | {lost} | {doubled} |\n",
                tally.what, tally.count
            );
        }
        table
    }

    /// Fails the test unless this is what `delivery` promises.
    pub(super) fn assert_keeps(&self, delivery: Delivery) {
        let mut faults: Vec<String> = self.wrong.clone();
        for tally in self.tallies() {
            let what = tally.what;
            faults.extend(tally.lost.iter().map(|name| format!("{what}: lost {name}")));
            if delivery == Delivery::ExactlyOnce {
                faults.extend(
                    tally
                        .doubled
                        .iter()
                        .map(|name| format!("{what}: doubled {name}")),
                );
            }
        }
        assert!(faults.is_empty(), "{} faults: {faults:#?}", faults.len());
    }
}

fn mark_of(letter: &DeadLetter) -> Option<&str> {
    let (_, value) = letter.headers.iter().find(|(name, _)| name == MARK)?;
    std::str::from_utf8(value).ok()
}

/// Each of its results has the same ID and tells of all its views.
fn wrong_with_part(part: &str, found: &[&ResultRecord]) -> Option<String> {
    let ids: BTreeSet<&str> = found
        .iter()
        .map(|record| record.result.result_id.as_str())
        .collect();
    if ids.len() > 1 {
        return Some(format!(
            "part `{part}` has several results: {}",
            describe(found)
        ));
    }
    let is_in_pieces =
        |record: &&ResultRecord| !record.result.views_with_status("missing").is_empty();
    found
        .iter()
        .any(is_in_pieces)
        .then(|| format!("part `{part}` is in pieces: {}", describe(found)))
}

/// The results of one part, short enough to be read.
fn describe(found: &[&ResultRecord]) -> String {
    let result = |record: &&ResultRecord| {
        let result = &record.result;
        let views = result.views.iter().map(|view| {
            let source = view
                .source
                .as_ref()
                .map(|source| (source.partition, source.offset));
            format!("{} {} {source:?}", view.view, view.status)
        });
        let views: Vec<String> = views.collect();
        format!(
            "{} by run {} at {}: {}",
            result.result_id,
            result.run.id,
            result.timing.scored_at,
            views.join(", ")
        )
    };
    found.iter().map(result).collect::<Vec<_>>().join("; ")
}

/// Each is the very record, from one and the same place, for a reason that fits.
fn wrong_with_letters(bad: &BadRecord, letters: &[&DeadLetter]) -> Option<String> {
    let places: BTreeSet<_> = letters.iter().map(|letter| letter.place()).collect();
    let is_the_record = |letter: &&DeadLetter| {
        letter.key == bad.shot.key
            && letter.value == bad.shot.value
            && bad.reasons.contains(&letter.reason().as_str())
    };
    let fits = places.len() <= 1 && letters.iter().all(is_the_record);
    (!fits).then(|| {
        let letters: Vec<String> = letters.iter().map(|letter| brief(letter)).collect();
        format!("dead letters of `{}`: {}", bad.mark, letters.join("; "))
    })
}

/// A dead letter, short enough to be read.
fn brief(letter: &DeadLetter) -> String {
    let (part, bytes, reason) = (letter.part(), letter.value.len(), letter.reason());
    let (place, error) = (letter.place(), letter.header("panoptes-error"));
    format!("{place:?} of part `{part}`, {bytes} bytes, {reason}: {error}")
}

/// It ended among the results or among the dead letters, in results of one ID.
fn wrong_with_fate(fate: &Fate) -> Option<String> {
    let is_torn = fate.results.len() + usize::from(fate.dead_letters() > 0) > 1;
    is_torn.then(|| format!("a record ended in several places: {fate:?}"))
}

mod tests {
    use std::time::Instant;

    use super::*;
    use crate::chaos::cameras::SentPart;
    use crate::support::shots::Shot;

    fn sent() -> Sent {
        let shot = Shot::of("cam", "part-1", "image/jpeg", b"no image".to_vec());
        Sent {
            parts: vec![SentPart {
                name: "part-1".to_owned(),
                after: Instant::now(),
            }],
            bad_records: vec![BadRecord {
                shot: shot.header(MARK, "bad-1"),
                mark: "bad-1".to_owned(),
                reasons: &["decode"],
            }],
        }
    }

    fn letter() -> DeadLetter {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        DeadLetter {
            key: Some(b"part-1".to_vec()),
            value: b"no image".to_vec(),
            headers: vec![
                header(MARK, "bad-1"),
                header("panoptes-reason", "decode"),
                header("panoptes-error", "no image"),
                header("panoptes-topic", "cam"),
                header("panoptes-partition", "0"),
                header("panoptes-offset", "7"),
            ],
        }
    }

    fn judge(letters: Vec<DeadLetter>) -> Verdict {
        let outcomes = Outcomes {
            results: Vec::new(),
            dead_letters: letters,
        };
        Verdict::of(&sent(), &outcomes, &[])
    }

    #[test]
    fn a_part_without_a_result_is_lost() {
        let verdict = judge(vec![letter()]);
        assert_eq!(verdict.parts.lost, ["part-1"]);
        assert!(verdict.bad_records.lost.is_empty());
    }

    #[test]
    fn a_dead_letter_that_comes_twice_is_doubled() {
        let verdict = judge(vec![letter(), letter()]);
        assert_eq!(verdict.bad_records.doubled, ["bad-1"]);
        assert!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    }

    #[test]
    fn a_dead_letter_with_other_bytes_is_wrong_with_either_delivery() {
        let other = DeadLetter {
            value: b"other".to_vec(),
            ..letter()
        };
        assert_eq!(judge(vec![letter(), other]).wrong.len(), 1);
    }

    #[test]
    fn a_record_in_a_result_and_among_dead_letters_is_wrong_with_either_delivery() {
        let mut fate = Fate {
            place: ("cam".to_owned(), 0, 7),
            results: BTreeMap::from([("one".to_owned(), 2)]),
            reasons: BTreeMap::new(),
        };
        assert_eq!(wrong_with_fate(&fate), None);
        fate.reasons.insert("late".to_owned(), 1);
        assert!(wrong_with_fate(&fate).is_some());
    }
}
