//! AUPRO: how much of each defect a map finds, whatever the defect's size.
//!
//! At each of 200 thresholds: the share of every defect region (8-connected) that lies above it,
//! averaged over the regions, against the share of good pixels that lie above it. The area is
//! taken up to 30 % of good pixels, as Dinomaly does: points below the limit, their share of good
//! pixels divided by the largest, trapezoids between them.

use crate::domain::AnomalyMap;

/// Thresholds between the lowest and the highest value.
const THRESHOLDS: usize = 200;
/// The share of good pixels up to which the area is taken.
const LIMIT: f64 = 0.3;

/// A map with the truth at the same size.
#[derive(Clone, Copy, Debug)]
pub struct LabelledMap<'a> {
    /// The map.
    pub map: &'a AnomalyMap,
    /// Whether each of its pixels is part of a defect; empty for a good view.
    pub defect: &'a [bool],
}

/// The area under the per-region overlap of all maps of a class; none without defects.
pub fn aupro(maps: &[LabelledMap<'_>]) -> Option<f64> {
    let values = || {
        maps.iter()
            .flat_map(|labelled| labelled.map.values.iter().copied())
    };
    let low = values().fold(f32::INFINITY, f32::min);
    let high = values().fold(f32::NEG_INFINITY, f32::max);
    if low >= high || !low.is_finite() || !high.is_finite() {
        return None;
    }
    let step = (f64::from(high) - f64::from(low)) / THRESHOLDS as f64;
    // The number of thresholds that a value lies above.
    let passed = |value: f32| -> usize {
        let position = (f64::from(value) - f64::from(low)) / step;
        (position.ceil() as usize).min(THRESHOLDS)
    };
    let mut good = vec![0u64; THRESHOLDS + 1];
    let mut overlap = vec![0f64; THRESHOLDS + 1];
    let mut regions = 0usize;
    for labelled in maps {
        let (labels, areas) = label_regions(labelled);
        for (value, label) in labelled.map.values.iter().zip(labels) {
            match label {
                0 => good[passed(*value)] += 1,
                label => overlap[passed(*value)] += 1.0 / areas[label - 1] as f64,
            }
        }
        regions += areas.len();
    }
    if regions == 0 {
        return None;
    }
    area(&good, &overlap, regions)
}

/// The area, from histograms over the number of thresholds passed.
fn area(good: &[u64], overlap: &[f64], regions: usize) -> Option<f64> {
    let total: u64 = good.iter().sum();
    let (mut alarms, mut found) = (0u64, 0.0);
    let mut points = Vec::new();
    // A pixel is above threshold k when it passed more than k of them.
    for k in (0..THRESHOLDS).rev() {
        alarms += good[k + 1];
        found += overlap[k + 1];
        let rate = alarms as f64 / total.max(1) as f64;
        if rate < LIMIT {
            points.push((rate, found / regions as f64));
        }
    }
    let widest = points
        .last()
        .map(|point| point.0)
        .filter(|rate| *rate > 0.0)?;
    let trapezoids = points
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0) / widest * 0.5 * (pair[0].1 + pair[1].1));
    Some(trapezoids.sum())
}

/// For each pixel 0 or the number of its region, and the regions' areas.
fn label_regions(labelled: &LabelledMap<'_>) -> (Vec<usize>, Vec<usize>) {
    let (width, height) = (labelled.map.width, labelled.map.height);
    let mut labels = vec![0; width * height];
    let mut areas = Vec::new();
    let mut open = Vec::new();
    for start in 0..labelled.defect.len().min(labels.len()) {
        if !labelled.defect[start] || labels[start] != 0 {
            continue;
        }
        let label = areas.len() + 1;
        let mut area = 0;
        labels[start] = label;
        open.push(start);
        while let Some(pixel) = open.pop() {
            area += 1;
            let (x, y) = (pixel % width, pixel / width);
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let next = ny * width + nx;
                    if labelled.defect[next] && labels[next] == 0 {
                        labels[next] = label;
                        open.push(next);
                    }
                }
            }
        }
        areas.push(area);
    }
    (labels, areas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(width: usize, values: &[f32]) -> AnomalyMap {
        AnomalyMap {
            width,
            height: values.len() / width,
            values: values.to_vec(),
        }
    }

    #[test]
    fn diagonal_neighbours_are_one_region() {
        let map = map(3, &[0.0; 9]);
        let defect = [true, false, false, false, true, false, false, false, false];
        let labelled = LabelledMap {
            map: &map,
            defect: &defect,
        };
        assert_eq!(label_regions(&labelled).1, [2]);
    }

    #[test]
    fn good_views_alone_have_no_overlap() {
        let map = map(2, &[0.0, 0.1, 0.2, 0.3]);
        assert_eq!(
            aupro(&[LabelledMap {
                map: &map,
                defect: &[]
            }]),
            None
        );
    }

    #[test]
    fn overlap_agrees_with_the_plain_computation() {
        let golden = include_str!("../../integration-tests/parity/metrics.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        for case in golden["overlap"].as_array().unwrap() {
            let numbers = |value: &serde_json::Value| -> Vec<f32> {
                value
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|v| v.as_f64().unwrap() as f32)
                    .collect()
            };
            let width = case["width"].as_u64().unwrap() as usize;
            let images: Vec<(AnomalyMap, Vec<bool>)> = case["images"]
                .as_array()
                .unwrap()
                .iter()
                .map(|image| {
                    let defect = numbers(&image["mask"]).iter().map(|v| *v > 0.0).collect();
                    (map(width, &numbers(&image["map"])), defect)
                })
                .collect();
            let labelled: Vec<LabelledMap<'_>> = images
                .iter()
                .map(|(map, defect)| LabelledMap { map, defect })
                .collect();
            let (found, expected) = (aupro(&labelled).unwrap(), case["aupro"].as_f64().unwrap());
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
