//! How well a score ranks bad above good: AUROC, average precision, best F1.
//!
//! Exact, with equal scores counted as equal: the values are those of scikit-learn.

/// Keeps the F1 of nothing found from dividing by zero, as the reference does.
const F1_GUARD: f64 = 1e-7;

/// The three figures of one set of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    let positives = scored
        .iter()
        .filter(|(_, is_anomalous)| *is_anomalous)
        .count() as f64;
    let negatives = scored.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms) = (0.0, 0.0);
    let mut figures = RankingFigures {
        auroc: 0.0,
        average_precision: 0.0,
        best_f1: 0.0,
    };
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let found = tied
            .iter()
            .filter(|(_, is_anomalous)| *is_anomalous)
            .count() as f64;
        let wrong = tied.len() as f64 - found;
        figures.auroc += wrong * (hits + 0.5 * found);
        hits += found;
        alarms += wrong;
        let (precision, recall) = (hits / (hits + alarms), hits / positives);
        figures.average_precision += found / positives * precision;
        let f1 = 2.0 * precision * recall / (precision + recall + F1_GUARD);
        figures.best_f1 = figures.best_f1.max(f1);
    }
    figures.auroc /= positives * negatives;
    Some(figures)
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
            let figures = rank(scored).unwrap();
            let expect = |name: &str, found: f64| {
                let expected = case[name].as_f64().unwrap();
                assert!(
                    (expected - found).abs() < 1e-6,
                    "{name}: {expected} {found}"
                );
            };
            expect("auroc", figures.auroc);
            expect("average_precision", figures.average_precision);
            expect("best_f1", figures.best_f1);
        }
    }
}
