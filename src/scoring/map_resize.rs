//! Makes an anomaly map smaller by averaging areas.
//!
//! Each new pixel is the mean of the old area it covers, shares of pixels included, so the mean of
//! the map stays and no pixel is skipped. Maps are never enlarged: that would add bytes, not
//! knowledge.

use crate::domain::AnomalyMap;

/// `map` with its longer edge at `side` pixels, or as it is when that is no shorter.
pub(super) fn shrink_to_side(map: &AnomalyMap, side: usize) -> AnomalyMap {
    let longer = map.width.max(map.height);
    let side = side.max(1);
    if longer <= side {
        return map.clone();
    }
    let width = scaled_edge(map.width, side, longer);
    let height = scaled_edge(map.height, side, longer);
    let columns = shares(map.width, width);
    let mut values = Vec::with_capacity(width * height);
    // Rows first: whole rows are added in vector registers.
    let mut wide = vec![0.0; map.width];
    for rows in shares(map.height, height) {
        average_rows(map, &rows, &mut wide);
        values.extend(columns.iter().map(|column| column.mean_of(&wide) as f32));
    }
    AnomalyMap {
        width,
        height,
        values,
    }
}

fn scaled_edge(edge: usize, side: usize, longer: usize) -> usize {
    ((edge as f64 * side as f64 / longer as f64).round() as usize).clamp(1, edge)
}

/// The mean of these rows of `map`.
fn average_rows(map: &AnomalyMap, rows: &Share, mean: &mut [f64]) {
    mean.fill(0.0);
    let below = map.values.chunks_exact(map.width).skip(rows.first);
    for (row, weight) in below.zip(&rows.weights) {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += weight * f64::from(*value);
        }
    }
}

/// What one new pixel takes of the old ones along an axis; the weights add up to 1.
struct Share {
    first: usize,
    weights: Vec<f64>,
}

impl Share {
    fn mean_of(&self, old: &[f64]) -> f64 {
        let covered = old[self.first..].iter().zip(&self.weights);
        covered.map(|(value, weight)| weight * value).sum()
    }
}

/// The shares of `after` new pixels in `before` old ones; `after` is at most `before`.
///
/// Counted in whole units of `1 / (before * after)`, so that no share is lost to rounding.
fn shares(before: usize, after: usize) -> Vec<Share> {
    (0..after)
        .map(|new| {
            let (start, end) = (new * before, (new + 1) * before);
            let first = start / after;
            let last = (end - 1) / after;
            let weights = (first..=last)
                .map(|old| {
                    let covered = end.min((old + 1) * after) - start.max(old * after);
                    covered as f64 / before as f64
                })
                .collect();
            Share { first, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn averages_whole_blocks() {
        let map = AnomalyMap {
            width: 4,
            height: 2,
            values: vec![1.0, 3.0, 0.0, 0.0, 5.0, 7.0, 0.0, 8.0],
        };
        let small = shrink_to_side(&map, 2);
        assert_eq!((small.width, small.height), (2, 1));
        assert_eq!(small.values, [4.0, 2.0]);
    }

    #[test]
    fn averages_shares_of_pixels() {
        let map = AnomalyMap {
            width: 3,
            height: 1,
            values: vec![3.0, 6.0, 9.0],
        };
        let small = shrink_to_side(&map, 2);
        assert_eq!(small.values, [4.0, 8.0]);
    }

    #[test]
    fn never_enlarges() {
        let map = AnomalyMap {
            width: 2,
            height: 2,
            values: vec![1.0, 2.0, 3.0, 4.0],
        };
        assert_eq!(shrink_to_side(&map, 128), map);
    }

    proptest! {
        #[test]
        fn stays_within_the_range_and_keeps_the_mean(
            (width, height) in (1usize..40, 1usize..40),
            side in 1usize..40,
            values in prop::collection::vec(-5.0f32..5.0, 40 * 40),
        ) {
            let map = AnomalyMap { width, height, values: values[..width * height].to_vec() };
            let small = shrink_to_side(&map, side);
            prop_assert!(small.width.max(small.height) <= side.max(1) || small == map);
            prop_assert_eq!(small.values.len(), small.width * small.height);
            let mean = |map: &AnomalyMap| {
                map.values.iter().copied().map(f64::from).sum::<f64>() / map.values.len() as f64
            };
            prop_assert!((mean(&map) - mean(&small)).abs() < 1e-4);
            let highest = |map: &AnomalyMap| map.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert!(highest(&small) <= highest(&map) + 1e-5);
        }
    }
}
