//! Where to draw the line between good and bad, from good parts alone.
//!
//! The rule, class by class: a high quantile of the good parts' scores, plus a margin of a share
//! of the distance from their median to that quantile. No bad part is looked at, so the line does
//! not depend on which defects happened to be at hand. The line for pixels is the same: a part
//! that is bad then has at least one region, since its score is the mean of its highest pixels.

use std::collections::BTreeMap;

use super::measurement::MeasuredPart;
use crate::model::bundle::ClassThresholds;

/// The rule's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationRule {
    /// Which quantile of the good parts' scores, from 0 to 1.
    pub quantile: f64,
    /// The share of the distance from median to quantile that is added.
    pub margin: f64,
}

impl Default for CalibrationRule {
    /// All but the highest hundredth of good parts, and a tenth more.
    fn default() -> Self {
        Self {
            quantile: 0.99,
            margin: 0.1,
        }
    }
}

/// Thresholds for every class that has good parts; bad parts are left out.
pub fn calibrate(
    parts: &[MeasuredPart],
    rule: CalibrationRule,
) -> BTreeMap<String, ClassThresholds> {
    let mut scores: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for part in parts.iter().filter(|part| !part.is_anomalous()) {
        scores
            .entry(part.class.clone())
            .or_default()
            .push(f64::from(part.score()));
    }
    let line = |mut scores: Vec<f64>| {
        scores.sort_unstable_by(f64::total_cmp);
        let (median, high) = (quantile(&scores, 0.5), quantile(&scores, rule.quantile));
        let threshold = (high + rule.margin * (high - median)) as f32;
        ClassThresholds {
            threshold,
            pixel_threshold: threshold,
        }
    };
    scores
        .into_iter()
        .map(|(class, scores)| (class, line(scores)))
        .collect()
}

/// A quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AnomalyMap;
    use crate::evaluation::measurement::MeasuredView;

    fn part(class: &str, score: f32, is_anomalous: bool) -> MeasuredPart {
        let view = MeasuredView {
            view: "top".to_owned(),
            score,
            map: AnomalyMap {
                width: 1,
                height: 1,
                values: vec![score],
            },
            defect: Vec::new(),
            is_anomalous,
        };
        MeasuredPart {
            class: class.to_owned(),
            part: "p".to_owned(),
            views: vec![view],
        }
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 0.5), 2.5);
        assert_eq!(quantile(&sorted, 1.0), 4.0);
    }

    #[test]
    fn bad_parts_do_not_move_the_line() {
        let good = [
            part("bolt", 1.0, false),
            part("bolt", 2.0, false),
            part("bolt", 3.0, false),
        ];
        let rule = CalibrationRule {
            quantile: 1.0,
            margin: 0.5,
        };
        let lines = calibrate(&good, rule);
        assert_eq!(lines["bolt"].threshold, 3.5);
        let mut parts = good.to_vec();
        parts.push(part("bolt", 9.0, true));
        parts.push(part("gear", 9.0, true));
        assert_eq!(calibrate(&parts, rule), lines);
    }
}
