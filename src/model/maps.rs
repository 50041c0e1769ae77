//! From one anomaly value a patch to an anomaly map.
//!
//! The chain (bilinear to the input's side with aligned corners, bilinear to the map's side,
//! Gaussian smoothing with zero padding) is linear and separable: one matrix `M` an axis, and
//! `map = M patches M^T`. The matrix is built once.

use crate::domain::AnomalyMap;

/// The smoothing of the reference: 5 taps, deviation 4, in map pixels.
const BLUR_RADIUS: usize = 2;
const BLUR_DEVIATION: f64 = 4.;

/// Turns a grid of patch anomalies into a map.
#[derive(Clone, Debug)]
pub struct MapProjector {
    grid: usize,
    side: usize,
    /// `[side, grid]`
    operator: Vec<f32>,
}

impl MapProjector {
    /// For `grid` x `grid` patches of an image of `input_side` pixels, and maps of `map_side`.
    ///
    /// # Panics
    /// When a side is zero; a checked bundle has none.
    pub fn new(grid: usize, input_side: usize, map_side: usize) -> Self {
        assert!(
            grid > 0 && input_side > 0 && map_side > 0,
            "sides must be positive"
        );
        let up = upsampling(grid, input_side);
        let down = resampling(input_side, map_side);
        let smooth = smoothing(map_side);
        let operator = product(
            &smooth,
            &product(&down, &up, input_side, grid),
            map_side,
            grid,
        );
        Self {
            grid,
            side: map_side,
            operator: operator.iter().map(|value| *value as f32).collect(),
        }
    }

    /// Side of the map.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The map of one image's patches, row by row.
    ///
    /// # Panics
    /// When there are not `grid * grid` patches.
    pub fn project(&self, patches: &[f32]) -> AnomalyMap {
        let (grid, side) = (self.grid, self.side);
        assert_eq!(patches.len(), grid * grid, "one value a patch");
        // wide[j][x] = sum over columns i of patches[j][i] * operator[x][i]
        let mut wide = vec![0f32; grid * side];
        for (wide, row) in wide.chunks_exact_mut(side).zip(patches.chunks_exact(grid)) {
            for (value, weights) in wide.iter_mut().zip(self.operator.chunks_exact(grid)) {
                *value = weights
                    .iter()
                    .zip(row)
                    .map(|(weight, patch)| weight * patch)
                    .sum();
            }
        }
        let mut values = vec![0f32; side * side];
        for (row, weights) in values
            .chunks_exact_mut(side)
            .zip(self.operator.chunks_exact(grid))
        {
            for (weight, wide) in weights.iter().zip(wide.chunks_exact(side)) {
                if *weight != 0. {
                    for (value, wide) in row.iter_mut().zip(wide) {
                        *value += weight * wide;
                    }
                }
            }
        }
        AnomalyMap {
            width: side,
            height: side,
            values,
        }
    }
}

/// `[to, from]`: bilinear, the outermost samples on each other (`align_corners = true`).
fn upsampling(from: usize, to: usize) -> Vec<f64> {
    let scale = if to > 1 {
        (from - 1) as f64 / (to - 1) as f64
    } else {
        0.
    };
    interpolation(from, to, |index| index as f64 * scale)
}

/// `[to, from]`: bilinear on pixel centres, without antialiasing (`align_corners = false`).
fn resampling(from: usize, to: usize) -> Vec<f64> {
    let scale = from as f64 / to as f64;
    interpolation(from, to, |index| {
        ((index as f64 + 0.5) * scale - 0.5).max(0.)
    })
}

fn interpolation(from: usize, to: usize, position: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut weights = vec![0.; to * from];
    for (index, weights) in weights.chunks_exact_mut(from).enumerate() {
        let position = position(index);
        let lower = (position as usize).min(from - 1);
        let upper = (lower + 1).min(from - 1);
        let share = position - lower as f64;
        weights[lower] += 1. - share;
        weights[upper] += share;
    }
    weights
}

/// `[side, side]`: the Gaussian of one axis; beyond the edge lies zero.
fn smoothing(side: usize) -> Vec<f64> {
    let distance = |tap: usize| tap as f64 - BLUR_RADIUS as f64;
    let kernel: Vec<f64> = (0..=2 * BLUR_RADIUS)
        .map(|tap| (-distance(tap).powi(2) / (2. * BLUR_DEVIATION * BLUR_DEVIATION)).exp())
        .collect();
    let sum: f64 = kernel.iter().sum();
    let mut weights = vec![0.; side * side];
    for (index, weights) in weights.chunks_exact_mut(side).enumerate() {
        for (tap, value) in kernel.iter().enumerate() {
            if let Some(source) = (index + tap)
                .checked_sub(BLUR_RADIUS)
                .filter(|source| *source < side)
            {
                weights[source] = value / sum;
            }
        }
    }
    weights
}

/// `[rows, inner] x [inner, columns]`; both operands are nearly empty, so zeros are skipped.
fn product(left: &[f64], right: &[f64], inner: usize, columns: usize) -> Vec<f64> {
    let mut output = vec![0.; left.len() / inner * columns];
    for (output, left) in output
        .chunks_exact_mut(columns)
        .zip(left.chunks_exact(inner))
    {
        for (weight, right) in left.iter().zip(right.chunks_exact(columns)) {
            if *weight != 0. {
                for (value, right) in output.iter_mut().zip(right) {
                    *value += weight * right;
                }
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_patches_give_an_even_map_that_darkens_at_the_border_alone() {
        let map = MapProjector::new(4, 28, 20).project(&[0.5; 16]);
        for y in 0..20 {
            for x in 0..20 {
                let value = map.values[y * 20 + x];
                let is_inside = (2..18).contains(&x) && (2..18).contains(&y);
                assert_eq!((value - 0.5).abs() < 1e-6, is_inside, "{x}, {y}: {value}");
            }
        }
    }

    #[test]
    fn a_map_may_be_larger_or_smaller_than_the_image() {
        for side in [1, 5, 28, 64] {
            let map = MapProjector::new(4, 28, side).project(&[1.; 16]);
            assert_eq!(
                (map.width, map.height, map.values.len()),
                (side, side, side * side)
            );
            assert!(map.values.iter().all(|value| *value > 0. && *value < 1.001));
        }
    }
}
