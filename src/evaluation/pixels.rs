//! Figures over the pixels of all maps of a class, in one pass over the maps.
//!
//! What is kept are sums for each value that occurs (on the pages of a histogram of floats), all of
//! them integers: the figures are exact, and the same to the last bit whatever the order in which
//! maps were added or sums were merged.

use super::histogram::{Cell, Histogram, descend};
use super::overlap::{OverlapCurve, label_regions};
use super::ranking::{RankingFigures, RankingSum};
use crate::domain::AnomalyMap;

/// The weight of a whole region. A pixel's weight is its share of it, rounded down: a region of a
/// million pixels loses a part in 10^13.
const WHOLE: u64 = 1 << 63;

/// Sums over the pixels of maps.
#[derive(Clone, Debug, Default)]
pub struct PixelSums {
    good: Histogram<u64>,
    defect: Histogram<DefectCell>,
    regions: u64,
    good_pixels: u64,
    defect_pixels: u64,
    range: Option<(f32, f32)>,
}

/// Figures over pixels; each is missing where it is not defined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PixelFigures {
    /// How well values rank defect pixels above good ones; none without both.
    pub ranking: Option<RankingFigures>,
    /// Area under the per-region overlap, taken up to 30 % of the good pixels.
    pub aupro: Option<f64>,
}

/// Why a map cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum MapFault {
    /// A value is infinite or not a number.
    #[error("expected finite values in the anomaly map, found `{value}` at column {x}, row {y}")]
    NotFinite {
        /// The value.
        value: f32,
        /// Its column.
        x: usize,
        /// Its row.
        y: usize,
    },
    /// The values or the mask do not fill the map.
    #[error("expected `{expected}` {what} for the anomaly map, found `{found}`")]
    WrongLength {
        /// Values or mask pixels.
        what: &'static str,
        /// Width times height.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

/// What is kept for one value of defect pixels.
#[derive(Clone, Debug, Default)]
struct DefectCell {
    count: u64,
    weight: u128,
}

impl Cell for DefectCell {
    /// The area of the pixel's region.
    type Entry = u32;

    fn add(&mut self, area: u32) {
        self.count += 1;
        self.weight += u128::from(WHOLE / u64::from(area));
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.weight += other.weight;
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl PixelSums {
    /// Adds a map with the truth at its size: whether each pixel is part of a defect, or nothing
    /// for a good view.
    ///
    /// # Errors
    /// When a value is not finite or the lengths differ; nothing has been added then.
    pub fn add(&mut self, map: &AnomalyMap, defect: &[bool]) -> Result<(), MapFault> {
        let (low, high) = check(map, defect)?;
        let (low_before, high_before) = self.range.unwrap_or((low, high));
        self.range = Some((low.min(low_before), high.max(high_before)));
        if !defect.contains(&true) {
            map.values
                .iter()
                .for_each(|value| self.good.add(*value, ()));
            self.good_pixels += map.values.len() as u64;
            return Ok(());
        }
        let (labels, areas) = label_regions(map.width, map.height, defect);
        for (value, label) in map.values.iter().zip(labels) {
            match label {
                0 => self.good.add(*value, ()),
                label => self.defect.add(*value, areas[label as usize - 1]),
            }
        }
        let defect_pixels = areas.iter().copied().map(u64::from).sum::<u64>();
        self.defect_pixels += defect_pixels;
        self.good_pixels += map.values.len() as u64 - defect_pixels;
        self.regions += areas.len() as u64;
        Ok(())
    }

    /// Adds all that the other sums hold.
    pub fn merge(&mut self, other: &Self) {
        self.good.merge(&other.good);
        self.defect.merge(&other.defect);
        self.regions += other.regions;
        self.good_pixels += other.good_pixels;
        self.defect_pixels += other.defect_pixels;
        self.range = joint_range([self.range, other.range].into_iter());
    }

    /// The figures of all that was added.
    pub fn figures(&self) -> PixelFigures {
        figures(&[self])
    }
}

/// The figures of some sums taken together, without merging them in memory.
pub fn figures(sums: &[&PixelSums]) -> PixelFigures {
    let total = |number: fn(&PixelSums) -> u64| sums.iter().map(|sums| number(sums)).sum::<u64>();
    let good_pixels = total(|sums| sums.good_pixels);
    let regions = total(|sums| sums.regions);
    let Some(range) = joint_range(sums.iter().map(|sums| sums.range)) else {
        return PixelFigures::default();
    };
    let mut ranking = RankingSum::new(total(|sums| sums.defect_pixels), good_pixels);
    let mut overlap = OverlapCurve::new(range, good_pixels, regions as f64 * WHOLE as f64);
    let good: Vec<_> = sums.iter().map(|sums| &sums.good).collect();
    let defect: Vec<_> = sums.iter().map(|sums| &sums.defect).collect();
    descend(&good, &defect, |value, good, defect| {
        ranking.add(defect.count, *good);
        overlap.add(value, *good, defect.weight);
    });
    PixelFigures {
        ranking: ranking.figures(),
        aupro: overlap.area(),
    }
}

fn joint_range(ranges: impl Iterator<Item = Option<(f32, f32)>>) -> Option<(f32, f32)> {
    ranges.flatten().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// The lowest and the highest value of a map that can be counted.
fn check(map: &AnomalyMap, defect: &[bool]) -> Result<(f32, f32), MapFault> {
    let expected = map.width * map.height;
    let wrong = |what, found| MapFault::WrongLength {
        what,
        expected,
        found,
    };
    if map.values.len() != expected || expected == 0 {
        return Err(wrong("values", map.values.len()));
    }
    if !defect.is_empty() && defect.len() != expected {
        return Err(wrong("mask pixels", defect.len()));
    }
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for (index, &value) in map.values.iter().enumerate() {
        if !value.is_finite() {
            let (x, y) = (index % map.width, index / map.width);
            return Err(MapFault::NotFinite { value, x, y });
        }
        (low, high) = (low.min(value), high.max(value));
    }
    Ok((low, high))
}

#[cfg(test)]
mod tests;
