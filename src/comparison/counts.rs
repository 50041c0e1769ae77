//! The counts that a comparison is made of.

use std::collections::HashMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::domain::Decision;

/// How many examples are named; the rest is only counted.
const NAMED: usize = 5;

/// The decisions, in the order in which tables have them.
pub const DECISIONS: [Decision; 3] = [Decision::Ok, Decision::Ng, Decision::Review];

/// How many there are of something, and the first few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// All of them.
    pub count: u64,
    /// The first few.
    pub first: Vec<String>,
}

impl Examples {
    /// One more; it is put into words only if it is among the first few.
    pub(super) fn add(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(words());
        }
    }
}

/// How often each decision was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DecisionCounts {
    /// Parts that are `ok`.
    pub ok: u64,
    /// Parts that are `ng`.
    pub ng: u64,
    /// Parts for a person to look at.
    pub review: u64,
}

impl DecisionCounts {
    pub(super) fn add(&mut self, decision: Decision) {
        *match decision {
            Decision::Ok => &mut self.ok,
            Decision::Ng => &mut self.ng,
            Decision::Review => &mut self.review,
        } += 1;
    }

    /// How often this decision was made.
    pub fn of(&self, decision: Decision) -> u64 {
        match decision {
            Decision::Ok => self.ok,
            Decision::Ng => self.ng,
            Decision::Review => self.review,
        }
    }

    /// How many parts there are.
    pub fn total(&self) -> u64 {
        self.ok + self.ng + self.review
    }
}

/// What became of A's decisions: for each of them, how often B made which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    of_ok: DecisionCounts,
    of_ng: DecisionCounts,
    of_review: DecisionCounts,
}

impl Changes {
    pub(super) fn add(&mut self, a: Decision, b: Decision) {
        match a {
            Decision::Ok => &mut self.of_ok,
            Decision::Ng => &mut self.of_ng,
            Decision::Review => &mut self.of_review,
        }
        .add(b);
    }

    /// What B decided where A decided this.
    pub fn of(&self, a: Decision) -> DecisionCounts {
        match a {
            Decision::Ok => self.of_ok,
            Decision::Ng => self.of_ng,
            Decision::Review => self.of_review,
        }
    }

    /// How many parts the two decide differently.
    pub fn flipped(&self) -> u64 {
        let changed = |a| self.of(a).total() - self.of(a).of(a);
        DECISIONS.into_iter().map(changed).sum()
    }
}

impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(DECISIONS.len()))?;
        for a in DECISIONS {
            map.serialize_entry(a.as_str(), &self.of(a))?;
        }
        map.end()
    }
}

/// Where the scores of a class lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoreSummary {
    /// Parts with a score.
    pub scored: u64,
    /// The lowest score.
    pub lowest: f32,
    /// The lower one of the two in the middle, where their number is even.
    pub median: f32,
    /// The highest score.
    pub highest: f32,
}

impl ScoreSummary {
    /// Of scores in any order, which are finite; none of none.
    pub(super) fn of(scores: &mut [f32]) -> Option<Self> {
        let middle = scores.len().checked_sub(1)? / 2;
        let (_, median, _) = scores.select_nth_unstable_by(middle, f32::total_cmp);
        let median = *median;
        Some(Self {
            scored: scores.len() as u64,
            lowest: scores.iter().copied().fold(f32::INFINITY, f32::min),
            median,
            highest: scores.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        })
    }
}

/// A threshold that results were held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ThresholdUse {
    /// The threshold.
    pub threshold: f32,
    /// How many results were.
    pub results: u64,
}

/// Counts how often each threshold was used.
#[derive(Debug, Default)]
pub(super) struct ThresholdUses(HashMap<u32, u64>);

impl ThresholdUses {
    pub(super) fn add(&mut self, threshold: f32) {
        *self.0.entry(threshold.to_bits()).or_default() += 1;
    }

    /// The most used first, and of equally used ones the highest first; a few of them.
    pub(super) fn most_used(&self) -> Vec<ThresholdUse> {
        let uses = self.0.iter().map(|(bits, results)| ThresholdUse {
            threshold: f32::from_bits(*bits),
            results: *results,
        });
        let mut uses: Vec<ThresholdUse> = uses.collect();
        uses.sort_unstable_by(|one, other| {
            let by_use = other.results.cmp(&one.results);
            by_use.then(other.threshold.total_cmp(&one.threshold))
        });
        uses.truncate(NAMED);
        uses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_few_are_put_into_words() {
        let mut examples = Examples::default();
        for number in 0..20 {
            examples.add(|| {
                assert!(number < 5);
                number.to_string()
            });
        }
        assert_eq!(examples.count, 20);
        assert_eq!(examples.first, ["0", "1", "2", "3", "4"]);
    }

    #[test]
    fn what_stays_as_it_is_has_not_flipped() {
        let mut changes = Changes::default();
        for a in DECISIONS {
            for b in DECISIONS {
                changes.add(a, b);
            }
        }
        changes.add(Decision::Ng, Decision::Ok);
        assert_eq!(changes.flipped(), 7);
        assert_eq!(changes.of(Decision::Ng).ok, 2);
        let json = serde_json::to_value(changes).unwrap();
        assert_eq!(json["ng"]["ok"], 2);
        assert_eq!(json["review"]["review"], 1);
    }

    #[test]
    fn the_median_is_a_score_that_was_given() {
        let summary = ScoreSummary::of(&mut [0.5, 0.1, 0.4, 0.2]).unwrap();
        assert_eq!((summary.lowest, summary.highest), (0.1, 0.5));
        assert_eq!((summary.scored, summary.median), (4, 0.2));
        assert_eq!(ScoreSummary::of(&mut []), None);
    }

    #[test]
    fn the_threshold_of_most_results_comes_first() {
        let mut uses = ThresholdUses::default();
        for threshold in [0.5, 0.25, 0.25, 0.75] {
            uses.add(threshold);
        }
        let thresholds: Vec<f32> = uses.most_used().iter().map(|used| used.threshold).collect();
        assert_eq!(thresholds, [0.25, 0.75, 0.5]);
    }
}
