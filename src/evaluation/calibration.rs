//! Where to draw the line between good and bad, class by class.
//!
//! A part is `ng` when its score *reaches* the threshold. Three rules:
//!
//! * **False-alarm rate** α, from `n` good parts: the threshold is the next float above the
//!   `k`-th smallest of their scores, `k = ceil((n + 1)(1 - α))`. If the next good part is
//!   exchangeable with those (made and photographed as they were, and none of them trained on), the
//!   chance that it is called `ng` is at most α: it would have to be among the `n + 1 - k` highest
//!   of `n + 1`. This is split conformal prediction (Vovk, Gammerman and Shafer, *Algorithmic
//!   Learning in a Random World*, 2005; Angelopoulos and Bates, *A Gentle Introduction to Conformal
//!   Prediction*, arXiv 2107.07511). The chance is over the calibration parts, too: it is not a
//!   promise for each single calibration.
//! * **Miss rate** α, from `m` bad parts: the `floor(α (m + 1))`-th smallest of their scores. The
//!   same argument: the next bad part, of the same mixture of defects, passes with a chance of at
//!   most α.
//! * **Quantile**: a high quantile of the good parts' scores and a margin, a share of the distance
//!   from their median to that quantile. A rule of thumb without a guarantee.
//!
//! Where there are too few parts for α (fewer than `1/α - 1`), no threshold can promise it. Then the
//! most extreme score and the margin beyond it make the line, and `guarantee` is `none`.
//!
//! The line for pixels is the same: a part that is bad then has at least one region, since its
//! score is the mean of its highest pixels.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measurement::ScoredPart;
use crate::model::bundle::{Calibration, ClassThresholds, Guarantee, RuleName};

/// How thresholds are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CalibrationRule {
    /// A quantile of the good parts' scores and a margin.
    Quantile {
        /// Which quantile, from 0 to 1.
        quantile: f64,
        /// The share of the distance from median to quantile that is added.
        margin: f64,
    },
    /// A bound on the share of good parts that are called bad.
    FalseAlarmRate {
        /// The bound, between 0 and 1.
        rate: f64,
        /// The margin where there are too few good parts.
        margin: f64,
    },
    /// A bound on the share of bad parts that are called good.
    MissRate {
        /// The bound, between 0 and 1.
        rate: f64,
        /// The margin where there are too few bad parts.
        margin: f64,
    },
}

impl Default for CalibrationRule {
    /// All but the highest hundredth of good parts, and a tenth more.
    fn default() -> Self {
        Self::Quantile {
            quantile: 0.99,
            margin: 0.1,
        }
    }
}

/// What a threshold gets wrong on some parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorCounts {
    /// Good parts.
    pub good: usize,
    /// Good parts that it calls bad.
    pub false_alarms: usize,
    /// Bad parts.
    pub bad: usize,
    /// Bad parts that it calls good.
    pub missed: usize,
}

impl ErrorCounts {
    /// Counts `(score, is anomalous)` pairs against a threshold.
    ///
    /// ```
    /// use panoptes::evaluation::calibration::ErrorCounts;
    /// let errors = ErrorCounts::of(&[(0.2, false), (0.5, false), (0.9, true)], 0.5);
    /// assert_eq!((errors.good, errors.false_alarms), (2, 1));
    /// assert_eq!((errors.bad, errors.missed), (1, 0));
    /// ```
    pub fn of(scored: &[(f32, bool)], threshold: f32) -> Self {
        let mut counts = Self::default();
        for &(score, is_anomalous) in scored {
            let is_over = score >= threshold;
            if is_anomalous {
                counts.bad += 1;
                counts.missed += usize::from(!is_over);
            } else {
                counts.good += 1;
                counts.false_alarms += usize::from(is_over);
            }
        }
        counts
    }
}

/// What became of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibratedClass {
    /// The line, and what it rests on.
    pub thresholds: ClassThresholds,
    /// What it gets wrong on the given parts. The parts that set the line are among them, so of the
    /// two errors only the one that the rule did not look at is an estimate for other parts.
    pub errors: ErrorCounts,
}

/// The smallest number of parts that can promise a rate.
///
/// ```
/// use panoptes::evaluation::calibration::parts_needed;
/// assert_eq!(parts_needed(0.01), 99);
/// assert_eq!(parts_needed(0.05), 19);
/// ```
pub fn parts_needed(rate: f64) -> usize {
    (1.0 / rate - 1.0 - ROUNDING).ceil().max(0.0) as usize
}

/// Thresholds for every class that has parts of the kind that the rule looks at: good ones, or bad
/// ones for a miss rate.
pub fn calibrate(parts: &[ScoredPart], rule: CalibrationRule) -> BTreeMap<String, CalibratedClass> {
    let mut scores: BTreeMap<&str, Vec<(f32, bool)>> = BTreeMap::new();
    for part in parts {
        let scored = (part.score(), part.is_anomalous());
        scores.entry(&part.class).or_default().push(scored);
    }
    scores
        .into_iter()
        .filter_map(|(class, scored)| Some((class.to_owned(), calibrate_class(&scored, rule)?)))
        .collect()
}

fn calibrate_class(scored: &[(f32, bool)], rule: CalibrationRule) -> Option<CalibratedClass> {
    let of = |wanted: bool| -> Vec<f32> {
        let chosen = scored.iter().filter(|(_, bad)| *bad == wanted);
        let mut chosen: Vec<f32> = chosen.map(|(score, _)| *score).collect();
        chosen.sort_unstable_by(f32::total_cmp);
        chosen
    };
    let (good, bad) = (of(false), of(true));
    let looked_at = match rule {
        CalibrationRule::MissRate { .. } => &bad,
        _ => &good,
    };
    if looked_at.is_empty() {
        return None;
    }
    let (threshold, guarantee) = draw_line(looked_at, rule);
    let (name, rate, quantile, margin) = match rule {
        CalibrationRule::Quantile { quantile, margin } => {
            (RuleName::Quantile, None, Some(quantile), Some(margin))
        }
        CalibrationRule::FalseAlarmRate { rate, margin } => {
            (RuleName::FalseAlarmRate, Some(rate), None, Some(margin))
        }
        CalibrationRule::MissRate { rate, margin } => {
            (RuleName::MissRate, Some(rate), None, Some(margin))
        }
    };
    let calibration = Calibration {
        rule: name,
        rate,
        quantile,
        // A line that holds its rate has no margin.
        margin: margin.filter(|_| guarantee == Guarantee::None),
        good_parts: good.len() as u64,
        bad_parts: bad.len() as u64,
        guarantee,
    };
    Some(CalibratedClass {
        thresholds: ClassThresholds {
            threshold,
            pixel_threshold: threshold,
            calibration: Some(calibration),
        },
        errors: ErrorCounts::of(scored, threshold),
    })
}

/// The line by the sorted scores that the rule looks at, of which there is at least one.
fn draw_line(sorted: &[f32], rule: CalibrationRule) -> (f32, Guarantee) {
    let beyond = |quantile: f64, margin: f64| {
        let (median, extreme) = (quantile_of(sorted, 0.5), quantile_of(sorted, quantile));
        (extreme + margin * (extreme - median)) as f32
    };
    match rule {
        CalibrationRule::Quantile { quantile, margin } => {
            (beyond(quantile, margin), Guarantee::None)
        }
        CalibrationRule::FalseAlarmRate { rate, margin } => {
            match allowed(sorted.len(), rate) {
                // Above the highest score, however small the margin is.
                0 => {
                    let highest = sorted[sorted.len() - 1];
                    (beyond(1.0, margin).max(highest.next_up()), Guarantee::None)
                }
                // The k-th smallest of n with k = n + 1 - allowed.
                allowed => (
                    sorted[sorted.len() - allowed].next_up(),
                    Guarantee::Conformal,
                ),
            }
        }
        CalibrationRule::MissRate { rate, margin } => match allowed(sorted.len(), rate) {
            0 => (beyond(0.0, margin).min(sorted[0]), Guarantee::None),
            allowed => (sorted[allowed - 1], Guarantee::Conformal),
        },
    }
}

/// Decimal rates are not exact in binary: 0.29 of 100 must be 29.
const ROUNDING: f64 = 1e-9;

/// How many of `parts` and the next one together may be on the wrong side: `floor(rate (n + 1))`.
fn allowed(parts: usize, rate: f64) -> usize {
    let allowed = (rate * (parts as f64 + 1.0) + ROUNDING).floor() as usize;
    allowed.min(parts)
}

/// A quantile of sorted values, linear between neighbours.
fn quantile_of(sorted: &[f32], share: f64) -> f64 {
    let position = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    let (below, above) = (f64::from(sorted[below]), f64::from(sorted[above]));
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests;
