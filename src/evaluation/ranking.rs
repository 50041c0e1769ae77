//! How well a score ranks bad above good: AUROC, average precision, best F1.
//!
//! Exact, with equal scores counted as equal: the values are those of scikit-learn.

use serde::Serialize;

/// Keeps the F1 of nothing found from dividing by zero, as the reference does.
const F1_GUARD: f64 = 1e-7;

/// The three figures of one set of scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RankingFigures {
    /// The chance that a bad one scores higher than a good one, ties counting half.
    pub auroc: f64,
    /// Precision averaged over recall.
    pub average_precision: f64,
    /// The highest F1 that a threshold can reach.
    pub best_f1: f64,
}

/// Figures of `(score, is anomalous)` pairs; none unless there are good and bad ones.
///
/// ```
/// use panoptes::evaluation::ranking::rank;
/// let figures = rank(vec![(0.1, false), (0.4, false), (0.35, true), (0.8, true)]).unwrap();
/// assert_eq!(figures.auroc, 0.75);
/// ```
pub fn rank(mut scored: Vec<(f32, bool)>) -> Option<RankingFigures> {
    let bad = |scored: &[(f32, bool)]| scored.iter().filter(|(_, bad)| *bad).count() as u64;
    let positives = bad(&scored);
    let mut sum = RankingSum::new(positives, scored.len() as u64 - positives);
    scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let found = bad(tied);
        sum.add(found, tied.len() as u64 - found);
    }
    sum.figures()
}

/// The figures in the making, from scores that come down from the highest.
#[derive(Clone, Debug)]
pub(super) struct RankingSum {
    positives: u64,
    negatives: u64,
    hits: u64,
    alarms: u64,
    /// Twice the number of pairs of a bad and a good one in the right order, ties counting half.
    ordered: u128,
    average_precision: f64,
    best_f1: f64,
}

impl RankingSum {
    /// Nothing yet of so many bad and good ones.
    pub(super) fn new(positives: u64, negatives: u64) -> Self {
        Self {
            positives,
            negatives,
            hits: 0,
            alarms: 0,
            ordered: 0,
            average_precision: 0.0,
            best_f1: 0.0,
        }
    }

    /// Adds all of the next lower score: `found` bad ones and `wrong` good ones.
    pub(super) fn add(&mut self, found: u64, wrong: u64) {
        self.ordered += u128::from(wrong) * u128::from(2 * self.hits + found);
        self.hits += found;
        self.alarms += wrong;
        if found == 0 {
            // Only the precision has changed, and for the worse.
            return;
        }
        let positives = self.positives as f64;
        let precision = self.hits as f64 / (self.hits + self.alarms) as f64;
        let recall = self.hits as f64 / positives;
        self.average_precision += found as f64 / positives * precision;
        let f1 = 2.0 * precision * recall / (precision + recall + F1_GUARD);
        self.best_f1 = self.best_f1.max(f1);
    }

    /// The figures, once all have been added; none unless there are good and bad ones.
    pub(super) fn figures(&self) -> Option<RankingFigures> {
        let pairs = u128::from(self.positives) * u128::from(self.negatives);
        (pairs > 0).then(|| RankingFigures {
            auroc: self.ordered as f64 / (2 * pairs) as f64,
            average_precision: self.average_precision,
            best_f1: self.best_f1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_count_half() {
        let figures = rank(vec![(0.5, true), (0.5, false)]).unwrap();
        assert_eq!(figures.auroc, 0.5);
        assert_eq!(figures.average_precision, 0.5);
    }

    #[test]
    fn a_perfect_ranking_is_one() {
        let figures = rank(vec![(0.9, true), (0.8, true), (0.1, false)]).unwrap();
        assert_eq!(figures.auroc, 1.0);
        assert_eq!(figures.average_precision, 1.0);
        assert!((figures.best_f1 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn one_kind_alone_has_no_figures() {
        assert_eq!(rank(vec![(0.1, true)]), None);
        assert_eq!(rank(vec![]), None);
    }

    #[test]
    fn figures_agree_with_scikit_learn() {
        let golden = include_str!("../../integration-tests/parity/metrics.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        for case in golden["ranking"].as_array().unwrap() {
            let scores = case["scores"].as_array().unwrap();
            let labels = case["labels"].as_array().unwrap();
            let scored = scores
                .iter()
                .zip(labels)
                .map(|(score, label)| (score.as_f64().unwrap() as f32, label == 1))
                .collect();
            let figures = rank(scored);
            let expect = |name: &str, found: fn(RankingFigures) -> f64| {
                let (found, expected) = (figures.map(found), case[name].as_f64());
                let differ = found.zip(expected).map(|(a, b)| (a - b).abs());
                let agree = found.is_none() && expected.is_none();
                assert!(
                    agree || differ.is_some_and(|by| by < 1e-6),
                    "{} {name}: {expected:?} {found:?}",
                    case["name"]
                );
            };
            expect("auroc", |figures| figures.auroc);
            expect("average_precision", |figures| figures.average_precision);
            expect("best_f1", |figures| figures.best_f1);
        }
    }
}
