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
    let rows = shares(map.height, height);
    let narrow = shrink_rows(map, &columns);
    let mut values = Vec::with_capacity(width * height);
    for row in &rows {
        for x in 0..width {
            let mean: f64 = row
                .weighted()
                .map(|(y, weight)| weight * narrow[y * width + x])
                .sum();
            values.push(mean as f32);
        }
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

/// Every row of `map` averaged down to the width of `columns`.
fn shrink_rows(map: &AnomalyMap, columns: &[Share]) -> Vec<f64> {
    let mut narrow = Vec::with_capacity(columns.len() * map.height);
    for row in map.values.chunks_exact(map.width) {
        for column in columns {
            narrow.push(
                column
                    .weighted()
                    .map(|(x, weight)| weight * f64::from(row[x]))
                    .sum(),
            );
        }
    }
    narrow
}

/// What one new pixel takes of the old ones along an axis; the weights add up to 1.
struct Share {
    first: usize,
    weights: Vec<f64>,
}

impl Share {
    fn weighted(&self) -> impl Iterator<Item = (usize, f64)> {
        self.weights
            .iter()
            .enumerate()
            .map(|(step, weight)| (self.first + step, *weight))
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
