//! How the scores of two models lie, in bins that both share.

use serde::Serialize;

/// Enough to see two humps, few enough to draw.
pub(super) const BINS: usize = 40;

/// Counts in bins of equal width; a bin holds its lower edge, the last one its upper edge too, as
/// `numpy.histogram` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    /// The bins' edges, one more than there are bins.
    pub edges: Vec<f64>,
    /// How many of A's scores are in each bin.
    pub a: Vec<u64>,
    /// How many of B's scores are in each bin.
    pub b: Vec<u64>,
}

impl Histogram {
    /// The histogram of two models' scores, which are finite, over the range of them and of the
    /// thresholds; none without a score.
    pub(super) fn new(a: &[f32], b: &[f32], thresholds: &[f32]) -> Option<Self> {
        if a.is_empty() && b.is_empty() {
            return None;
        }
        let all = || a.iter().chain(b).chain(thresholds).copied();
        let lowest = f64::from(all().fold(f32::INFINITY, f32::min));
        let highest = f64::from(all().fold(f32::NEG_INFINITY, f32::max));
        let edges = edges(lowest, highest);
        Some(Self {
            a: count(a, &edges),
            b: count(b, &edges),
            edges,
        })
    }
}

/// The edges of bins over a range; one value alone is given a range around it.
fn edges(lowest: f64, highest: f64) -> Vec<f64> {
    let (lowest, highest) = match lowest < highest {
        true => (lowest, highest),
        false => (lowest - 0.5, lowest + 0.5),
    };
    let step = (highest - lowest) / BINS as f64;
    let lower = (0..BINS).map(|index| lowest + step * index as f64);
    lower.chain([highest]).collect()
}

fn count(scores: &[f32], edges: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; BINS];
    for score in scores {
        let score = f64::from(*score);
        let above = edges.partition_point(|edge| *edge <= score);
        counts[above.saturating_sub(1).min(BINS - 1)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `numpy.histogram(a, bins=40, range=(0, 2))` of 0, 0.05, 0.1, 0.1249, 1, 1.95, 1.951 and 2, in
    /// `float32`.
    #[test]
    fn bins_are_those_of_numpy() {
        let scores = [0.0, 0.05, 0.1, 0.1249, 1.0, 1.95, 1.951, 2.0];
        let histogram = Histogram::new(&scores, &[], &[]).unwrap();
        let filled: Vec<(usize, u64)> = histogram.a.iter().copied().enumerate().collect();
        let filled: Vec<_> = filled.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 1), (1, 1), (2, 2), (20, 1), (39, 3)]);
        assert_eq!(histogram.b, vec![0; BINS]);
    }

    #[test]
    fn one_score_alone_stands_in_the_middle() {
        let histogram = Histogram::new(&[0.25], &[0.25], &[]).unwrap();
        assert_eq!((histogram.edges[0], histogram.edges[BINS]), (-0.25, 0.75));
        assert_eq!(histogram.a[BINS / 2], 1);
        assert_eq!(histogram.a, histogram.b);
        assert_eq!(Histogram::new(&[], &[], &[0.5]), None);
    }

    proptest! {
        #[test]
        fn every_score_is_in_the_one_bin_whose_edges_hold_it(
            a in prop::collection::vec(-1e6f32..1e6, 1..60),
            b in prop::collection::vec(-1f32..1.0, 0..60),
            threshold in -1f32..1.0,
        ) {
            let histogram = Histogram::new(&a, &b, &[threshold]).unwrap();
            for (scores, counts) in [(&a, &histogram.a), (&b, &histogram.b)] {
                for (bin, count) in counts.iter().enumerate() {
                    let (low, high) = (histogram.edges[bin], histogram.edges[bin + 1]);
                    let is_in = |score: &&f32| {
                        let score = f64::from(**score);
                        score >= low && (score < high || bin == BINS - 1 && score == high)
                    };
                    prop_assert_eq!(*count, scores.iter().filter(is_in).count() as u64);
                }
                prop_assert_eq!(counts.iter().sum::<u64>(), scores.len() as u64);
            }
        }
    }
}
