//! AUPRO: how much of each defect a map finds, whatever the defect's size.
//!
//! At each of 200 thresholds: the share of every defect region (8-connected) that lies above it,
//! averaged over the regions, against the share of good pixels that lie above it. The area is
//! taken up to 30 % of good pixels, as Dinomaly does: points strictly below the limit, their share
//! of good pixels divided by the largest, trapezoids between them, neither a point at (0, 0) nor
//! one interpolated at the limit.

/// Thresholds `low + k (high - low) / 200`, from the lowest value on; the highest is none.
const THRESHOLDS: usize = 200;
/// The share of good pixels up to which the area is taken.
const LIMIT: f64 = 0.3;

/// The curve of overlap against false alarms, made from values that come down from the highest.
#[derive(Clone, Debug)]
pub(super) struct OverlapCurve {
    range: (f32, f32),
    good_pixels: u64,
    /// The weight of all regions.
    whole: f64,
    /// Thresholds that the values have not come down to.
    ahead: usize,
    alarms: u64,
    found: u128,
    points: Vec<(f64, f64)>,
}

impl OverlapCurve {
    /// A curve for values within `range`, of which so many are of good pixels; `whole` is the sum
    /// of all weights that will be added.
    pub(super) fn new(range: (f32, f32), good_pixels: u64, whole: f64) -> Self {
        Self {
            range,
            good_pixels,
            whole,
            ahead: THRESHOLDS,
            alarms: 0,
            found: 0,
            points: Vec::with_capacity(THRESHOLDS),
        }
    }

    /// Adds the pixels of the next lower value: how many good ones, and the weight of the others.
    pub(super) fn add(&mut self, value: f32, good: u64, weight: u128) {
        while self.ahead > 0 && f64::from(value) <= self.threshold(self.ahead - 1) {
            self.ahead -= 1;
            let rate = self.alarms as f64 / self.good_pixels as f64;
            self.points.push((rate, self.found as f64 / self.whole));
        }
        self.alarms += good;
        self.found += weight;
    }

    fn threshold(&self, k: usize) -> f64 {
        let (low, high) = (f64::from(self.range.0), f64::from(self.range.1));
        low + k as f64 * (high - low) / THRESHOLDS as f64
    }

    /// The area; none without defects, without good pixels, when all values are equal, or when the
    /// thresholds let through fewer than two different shares of good pixels below 30 %: a point
    /// alone has no area.
    pub(super) fn area(&self) -> Option<f64> {
        if self.range.0 >= self.range.1 || self.good_pixels == 0 || self.whole == 0.0 {
            return None;
        }
        let points = || self.points.iter().take_while(|point| point.0 < LIMIT);
        let narrowest = points().next()?.0;
        let widest = points().last()?.0;
        if narrowest >= widest {
            return None;
        }
        let trapezoids = points()
            .zip(points().skip(1))
            .map(|(a, b)| (b.0 - a.0) / widest * 0.5 * (a.1 + b.1));
        Some(trapezoids.sum())
    }
}

/// For each pixel 0 or the number of its region, and the regions' areas.
pub(super) fn label_regions(width: usize, height: usize, defect: &[bool]) -> (Vec<u32>, Vec<u32>) {
    let mut labels = vec![0; width * height];
    let mut areas = Vec::new();
    let mut open = Vec::new();
    for start in 0..defect.len() {
        if !defect[start] || labels[start] != 0 {
            continue;
        }
        let label = areas.len() as u32 + 1;
        let mut area = 0;
        labels[start] = label;
        open.push(start);
        while let Some(pixel) = open.pop() {
            area += 1;
            let (x, y) = (pixel % width, pixel / width);
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let next = ny * width + nx;
                    if defect[next] && labels[next] == 0 {
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

    #[test]
    fn diagonal_neighbours_are_one_region() {
        let defect = [true, false, false, false, true, false, false, false, false];
        assert_eq!(label_regions(3, 3, &defect).1, [2]);
    }

    #[test]
    fn regions_that_do_not_touch_are_counted_apart() {
        let defect = [true, false, true, true, false, false, true, false, true];
        let (labels, areas) = label_regions(3, 3, &defect);
        assert_eq!(areas, [3, 1, 1]);
        assert_eq!(labels, [1, 0, 2, 1, 0, 0, 1, 0, 3]);
    }
}
