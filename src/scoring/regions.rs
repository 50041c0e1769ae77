//! Defect regions: where on the original image a view is anomalous.
//!
//! A region is a set of map pixels at or above the pixel threshold that touch, corners included.
//! Its box and area are told in pixels of the original image, so that a person or a marking laser
//! finds the place without knowing the model's input size.

use crate::domain::{AnomalyMap, MapFootprint, Region};

/// Which regions a result names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSettings {
    /// At most this many a view, highest peaks first.
    pub max_regions: usize,
    /// Regions of fewer original pixels are left out.
    pub min_area: u32,
}

impl Default for RegionSettings {
    /// Sixteen regions of any size: more than a person looks at on one view.
    fn default() -> Self {
        Self {
            max_regions: 16,
            min_area: 1,
        }
    }
}

/// The connected regions of `map` at or above `pixel_threshold`, highest peak first.
///
/// Pixels that are not numbers belong to no region.
pub fn find_regions(
    map: &AnomalyMap,
    footprint: &MapFootprint,
    pixel_threshold: f32,
    settings: RegionSettings,
) -> Vec<Region> {
    let mut regions: Vec<Region> = connected_areas(map, pixel_threshold)
        .iter()
        .map(|area| area.on_original(map, footprint))
        .filter(|region| region.area >= settings.min_area)
        .collect();
    regions.sort_by(|one, other| {
        other
            .peak
            .total_cmp(&one.peak)
            .then((one.y, one.x).cmp(&(other.y, other.x)))
    });
    regions.truncate(settings.max_regions);
    regions
}

/// A connected area in map pixels; the edges are inclusive.
#[derive(Debug)]
struct MapArea {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
    pixels: usize,
    peak: f32,
}

impl MapArea {
    fn start(x: usize, y: usize) -> Self {
        Self {
            left: x,
            right: x,
            top: y,
            bottom: y,
            pixels: 0,
            peak: f32::NEG_INFINITY,
        }
    }

    fn add(&mut self, x: usize, y: usize, score: f32) {
        self.left = self.left.min(x);
        self.right = self.right.max(x);
        self.top = self.top.min(y);
        self.bottom = self.bottom.max(y);
        self.pixels += 1;
        self.peak = self.peak.max(score);
    }

    fn on_original(&self, map: &AnomalyMap, footprint: &MapFootprint) -> Region {
        let scale_x = footprint.width / map.width as f64;
        let scale_y = footprint.height / map.height as f64;
        let (x, width) = span(self.left, self.right, scale_x, footprint.x, footprint.width);
        let (y, height) = span(
            self.top,
            self.bottom,
            scale_y,
            footprint.y,
            footprint.height,
        );
        let area = (self.pixels as f64 * scale_x * scale_y).round() as u32;
        Region {
            x,
            y,
            width,
            height,
            area: area.clamp(1, width.saturating_mul(height)),
            peak: self.peak,
        }
    }
}

/// Start and length, in whole original pixels, of the map pixels `first..=last` along one axis.
///
/// Stays inside the footprint and left of nothing: at least 1 pixel, never before 0.
fn span(first: usize, last: usize, scale: f64, origin: f64, length: f64) -> (u32, u32) {
    let low = whole_pixel(origin).min(u32::MAX - 1);
    let high = whole_pixel(origin + length).max(low + 1);
    let start = whole_pixel(origin + first as f64 * scale).clamp(low, high - 1);
    let end = whole_pixel(origin + (last + 1) as f64 * scale).clamp(start + 1, high);
    (start, end - start)
}

/// The nearest whole pixel edge; what lies before the image, or is no number, becomes 0.
fn whole_pixel(edge: f64) -> u32 {
    edge.round() as u32
}

/// Flood fill from each pixel not seen yet, in reading order.
fn connected_areas(map: &AnomalyMap, pixel_threshold: f32) -> Vec<MapArea> {
    let mut waiting: Vec<bool> = map
        .values
        .iter()
        .map(|score| *score >= pixel_threshold)
        .collect();
    let mut areas = Vec::new();
    let mut frontier = Vec::new();
    for start in 0..waiting.len() {
        if !waiting[start] {
            continue;
        }
        waiting[start] = false;
        frontier.push(start);
        let mut area = MapArea::start(start % map.width, start / map.width);
        while let Some(index) = frontier.pop() {
            let (x, y) = (index % map.width, index / map.width);
            area.add(x, y, map.values[index]);
            for neighbour in neighbours(map, x, y) {
                if std::mem::take(&mut waiting[neighbour]) {
                    frontier.push(neighbour);
                }
            }
        }
        areas.push(area);
    }
    areas
}

/// The pixel itself and the up to eight that touch it, as indices.
fn neighbours(map: &AnomalyMap, x: usize, y: usize) -> impl Iterator<Item = usize> + use<> {
    let width = map.width;
    let columns = x.saturating_sub(1)..=(x + 1).min(width - 1);
    let rows = y.saturating_sub(1)..=(y + 1).min(map.height - 1);
    rows.flat_map(move |row| columns.clone().map(move |column| row * width + column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `#` is 1.0, a digit is tenths, anything else is 0.
    fn map(rows: &[&str]) -> AnomalyMap {
        let values = rows
            .iter()
            .flat_map(|row| row.chars())
            .map(|pixel| match pixel {
                '#' => 1.0,
                digit => digit
                    .to_digit(10)
                    .map_or(0.0, |tenths| tenths as f32 / 10.0),
            })
            .collect();
        AnomalyMap {
            width: rows[0].len(),
            height: rows.len(),
            values,
        }
    }

    fn footprint(x: f64, y: f64, width: f64, height: f64) -> MapFootprint {
        MapFootprint {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn joins_pixels_that_touch_at_corners() {
        let map = map(&["#....", ".#...", "....#"]);
        let regions = find_regions(
            &map,
            &footprint(0.0, 0.0, 5.0, 3.0),
            0.5,
            RegionSettings::default(),
        );
        assert_eq!(regions.len(), 2);
        assert_eq!(
            (
                regions[0].x,
                regions[0].y,
                regions[0].width,
                regions[0].height
            ),
            (0, 0, 2, 2)
        );
        assert_eq!(regions[0].area, 2);
        assert_eq!((regions[1].x, regions[1].y), (4, 2));
    }

    #[test]
    fn does_not_join_across_the_edge_of_a_row() {
        let map = map(&["..#", "#.."]);
        let regions = find_regions(
            &map,
            &footprint(0.0, 0.0, 3.0, 2.0),
            0.5,
            RegionSettings::default(),
        );
        assert_eq!(regions.len(), 2);
    }

    #[test]
    fn counts_a_pixel_at_the_threshold() {
        let map = map(&["5.4"]);
        let regions = find_regions(
            &map,
            &footprint(0.0, 0.0, 3.0, 1.0),
            0.5,
            RegionSettings::default(),
        );
        assert_eq!(regions.len(), 1);
    }

    #[test]
    fn tells_boxes_in_pixels_of_the_original_image() {
        let map = map(&["....", ".##.", "....", "...."]);
        let regions = find_regions(
            &map,
            &footprint(100.0, 20.0, 400.0, 200.0),
            0.5,
            RegionSettings::default(),
        );
        let expected = Region {
            x: 200,
            y: 70,
            width: 200,
            height: 50,
            area: 10_000,
            peak: 1.0,
        };
        assert_eq!(regions, [expected]);
    }

    #[test]
    fn keeps_a_region_of_one_pixel_where_the_map_is_finer_than_the_image() {
        let map = map(&["...........#"]);
        let regions = find_regions(
            &map,
            &footprint(0.0, 0.0, 3.0, 1.0),
            0.5,
            RegionSettings::default(),
        );
        assert_eq!((regions[0].x, regions[0].width, regions[0].area), (2, 1, 1));
    }

    #[test]
    fn cuts_what_lies_before_the_image() {
        let map = map(&["##.."]);
        let regions = find_regions(
            &map,
            &footprint(-10.0, 0.0, 40.0, 10.0),
            0.5,
            RegionSettings::default(),
        );
        assert_eq!((regions[0].x, regions[0].width), (0, 10));
        assert_eq!(regions[0].area, 100);
    }

    #[test]
    fn names_the_highest_peaks_first_and_no_more_than_asked() {
        let map = map(&["5.7.6.9"]);
        let settings = RegionSettings {
            max_regions: 2,
            min_area: 1,
        };
        let regions = find_regions(&map, &footprint(0.0, 0.0, 7.0, 1.0), 0.5, settings);
        assert_eq!(
            regions.iter().map(|region| region.x).collect::<Vec<_>>(),
            [6, 2]
        );
    }

    #[test]
    fn leaves_out_regions_below_the_least_area() {
        let map = map(&["##.#"]);
        let settings = RegionSettings {
            max_regions: 16,
            min_area: 2,
        };
        let regions = find_regions(&map, &footprint(0.0, 0.0, 4.0, 1.0), 0.5, settings);
        assert_eq!(regions.len(), 1);
        assert_eq!(regions[0].area, 2);
    }

    #[test]
    fn survives_a_footprint_without_a_meaning() {
        let map = map(&["#"]);
        for bad in [f64::NAN, f64::INFINITY, 0.0, -5.0, 1e300] {
            let regions = find_regions(
                &map,
                &footprint(bad, bad, bad, bad),
                0.5,
                RegionSettings::default(),
            );
            assert_eq!(regions.len(), 1);
        }
    }

    proptest! {
        #[test]
        fn boxes_stay_inside_the_footprint_and_hold_their_area(
            side in 1usize..24,
            bits in prop::collection::vec(any::<bool>(), 24 * 24),
            (x, y, width, height) in (0u32..500, 0u32..500, 1u32..3000, 1u32..3000),
        ) {
            let values = bits.iter().take(side * side).map(|bit| f32::from(u8::from(*bit))).collect();
            let map = AnomalyMap { width: side, height: side, values };
            let footprint = footprint(x.into(), y.into(), width.into(), height.into());
            let settings = RegionSettings { max_regions: usize::MAX, min_area: 0 };
            for region in find_regions(&map, &footprint, 0.5, settings) {
                prop_assert!(region.x >= x && region.x + region.width <= x + width);
                prop_assert!(region.y >= y && region.y + region.height <= y + height);
                prop_assert!(region.area >= 1 && region.area <= region.width * region.height);
            }
        }

        #[test]
        fn every_pixel_at_the_threshold_is_in_exactly_one_region(
            bits in prop::collection::vec(any::<bool>(), 15 * 11),
        ) {
            let values: Vec<f32> = bits.iter().map(|bit| f32::from(u8::from(*bit))).collect();
            let map = AnomalyMap { width: 15, height: 11, values };
            let pixels: usize = connected_areas(&map, 0.5).iter().map(|area| area.pixels).sum();
            prop_assert_eq!(pixels, bits.iter().filter(|bit| **bit).count());
        }
    }
}
